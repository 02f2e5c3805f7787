"""Strange readings: not of the type that was signed, or out of the range that was.

The gate uses none of them. That they keep coming says that something else answers at the address now:
then the point is suspended until a person has looked.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocols.frame import SECOND, Flags, Floats, Frame, Ints, Quality
from protocols.points import Point, PointTable
from protocols.vocabulary.measurands import unit_factor
from security.policy.compiled import Rule

MOST_SLOTS: Final = 3
"""In so many slots in a row a point may be strange."""

_BAD: Final = int(Quality.BAD)


class Strange:
    """Watches the released points of all devices."""

    def __init__(self, rules: Sequence[Rule], tables: Mapping[str, PointTable]) -> None:
        self._devices = {
            device: _Device(table, [rule for rule in rules if rule.device == device])
            for device, table in tables.items()
        }

    def take(self, frame: Frame) -> None:
        """Look at a frame, before the gate does."""
        device = self._devices.get(frame.device)
        if device is not None:
            device.take(frame)

    def names(self, now_ns: int) -> list[str]:
        """Return the points that were strange in too many slots in a row, once the last one ends."""
        return [name for device in self._devices.values() for name in device.names(now_ns)]


class _Device:
    """One device; arrays over its columns."""

    def __init__(self, table: PointTable, rules: Sequence[Rule]) -> None:
        size = len(table.points)
        self._table = table
        self._integer = table.integer
        self._low: Floats = np.full(size, -np.inf)
        self._high: Floats = np.full(size, np.inf)
        self._window: Ints = np.zeros(size, np.int64)
        places = {point.id: at for at, point in enumerate(table.points)}
        for rule in rules:
            at = places.get(rule.point)
            if at is None:
                continue
            self._window[at] = rule.window_s * SECOND
            if rule.range:
                one = _one_unit(table.points[at], whole=bool(table.integer[at]))
                self._low[at], self._high[at] = (float(Decimal(end) / one) for end in rule.range)
        self._bounded = bool(np.isfinite(self._low).any())
        self._released: Flags = self._window > 0
        self._window[~self._released] = 1
        self._slot: Ints = np.zeros(size, np.int64)
        self._seen: Flags = np.zeros(size, np.bool_)
        self._count: Ints = np.zeros(size, np.int64)
        self._quiet = True

    def take(self, frame: Frame) -> None:
        columns = frame.columns
        usable = frame.quality < _BAD
        wrong = np.broadcast_to(
            self._integer[columns] != (frame.values.dtype.kind == "i"), usable.shape
        )
        if self._bounded:
            values = frame.values
            wrong = wrong | (values < self._low[columns]) | (values > self._high[columns])
        if not wrong.any():
            return
        strange: NDArray[np.bool_] = (wrong & usable).any(axis=0) & self._released[columns]
        if strange.any():
            self._seen[columns[strange]] = True
            self._quiet = False

    def names(self, now_ns: int) -> list[str]:
        if self._quiet:
            return []
        slot = now_ns // self._window
        ended = slot != self._slot
        self._slot = slot
        self._count[ended] = np.where(self._seen, self._count + 1, 0)[ended]
        self._seen[ended] = False
        self._quiet = not (self._seen.any() or self._count.any())
        found = np.flatnonzero(ended & (self._count >= MOST_SLOTS)).tolist()
        return [f"{self._table.device}/{self._table.points[at].id}" for at in found]


def _one_unit(point: Point, *, whole: bool) -> Decimal:
    """Return what 1 in a column is in the measurand's unit."""
    factor = unit_factor(point.unit, point.standard) or Decimal(1)
    return factor.scaleb(point.grid_exponent()) if whole else factor

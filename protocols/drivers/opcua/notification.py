"""Takes asyncua's decoded notifications apart into columns.

This is the only place that touches a single value; a decoder of the received bytes can take
the place of `take_apart`.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from numpy.typing import NDArray

from protocols.drivers.opcua.grid import REAL_TYPES, bits_of
from protocols.drivers.opcua.items import Item
from protocols.drivers.opcua.parts import pick
from protocols.drivers.opcua.steps import Part
from protocols.drivers.opcua.structures import Layout
from protocols.frame import Flags, Ints, Values
from protocols.points import Point

NO_TIME: Final = -(2**63)
"""In a column of times: the server gave none."""

_log = logging.getLogger(__name__)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = 86_400
_MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples of one carrier type, in the order in which the server queued them.

    Attributes:
        column: shape (n,), positions of the points.
        time_us: shape (n,), microseconds since 1970 UTC, or NO_TIME.
        status: shape (n,), OPC UA status codes.
        raw: shape (n,), int64 (UInt64 as its bits) or float64.
        usable: shape (n,), False where there is no value of the declared type.
    """

    column: NDArray[np.int32]
    time_us: Ints
    status: NDArray[np.uint32]
    raw: Values
    usable: Flags


@dataclass(frozen=True, slots=True)
class Notification:
    """What one notification brought.

    Attributes:
        integers, reals: its samples by how frames carry them.
        mistyped: columns whose good value was not of the declared type.
    """

    integers: Samples
    reals: Samples
    mistyped: frozenset[int]


@dataclass(slots=True)
class _Rows:
    column: list[int] = field(default_factory=list)
    time_us: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    raw: list[Any] = field(default_factory=list)
    usable: list[bool] = field(default_factory=list)

    def put(self, column: int, time_us: int, status: int, raw: Any) -> None:
        """Add a sample; `raw` is None where there is no value of the declared type."""
        self.column.append(column)
        self.time_us.append(time_us)
        self.status.append(status)
        self.raw.append(0 if raw is None else raw)
        self.usable.append(raw is not None)

    def samples(self, raw: Values) -> Samples:
        return Samples(
            np.array(self.column, np.int32),
            np.array(self.time_us, np.int64),
            np.array(self.status, np.uint32),
            raw,
            np.array(self.usable, np.bool_),
        )


class Reader:
    """Knows of each client handle which points it is for and what type to expect.

    An item's client handle is its place plus one, since handle 0 is reserved.

    Args:
        points: the device's points.
        items: what is asked of the server.
        timed: whether the server's times count.
    """

    def __init__(self, points: Sequence[Point], items: Sequence[Item], *, timed: bool) -> None:
        self._types = [ua.VariantType[point.type] for point in points]
        self._real = [point.type in REAL_TYPES for point in points]
        self._targets = [tuple(zip(item.columns, item.parts, strict=True)) for item in items]
        self._timed = timed

    def take_apart(
        self,
        items: Iterable[ua.MonitoredItemNotification],
        layouts: Mapping[ua.NodeId, Layout],
    ) -> Notification:
        """Turn the monitored items of one notification into columns.

        Items with a handle that was never given out are left out.

        Args:
            items: what came.
            layouts: of the structures that points reach into.
        """
        integers, reals, mistyped = _Rows(), _Rows(), set[int]()
        known = range(len(self._targets))
        for item in items:
            place = item.ClientHandle - 1
            if place not in known:
                continue
            value = item.Value
            status = 0 if value.StatusCode is None else value.StatusCode.value
            time_us = _microseconds(value) if self._timed else NO_TIME
            for column, part in self._targets[place]:
                raw = self._pick(value.Value, column, part, layouts)
                if raw is None and status < StatusCodes.Bad:
                    mistyped.add(column)
                rows = reals if self._real[column] else integers
                rows.put(column, time_us, status, raw)
        return Notification(
            integers.samples(bits_of(integers.raw)),
            reals.samples(np.array(reals.raw, np.float64)),
            frozenset(mistyped),
        )

    def _pick(
        self,
        variant: ua.Variant | None,
        column: int,
        part: Part,
        layouts: Mapping[ua.NodeId, Layout],
    ) -> Any:
        """Return the scalar of the declared type; None where there is none."""
        expected = self._types[column]
        if variant is None:
            return None
        if not part:
            fits = variant.VariantType is expected and not variant.is_array
            return variant.Value if fits else None
        try:
            return pick(variant, part, expected, layouts)
        except Exception as error:  # noqa: BLE001 what a server packs into a structure can trip its reader anyhow
            _log.debug("a structure does not follow its layout (%s)", type(error).__name__)
            return None


def _microseconds(value: ua.DataValue) -> int:
    moment: datetime | None = value.SourceTimestamp or value.ServerTimestamp
    if moment is None:
        return NO_TIME
    since = moment - _EPOCH
    return (since.days * _DAY + since.seconds) * _MILLION + since.microseconds

"""Gives what came to the points it is for, as columns of the types that they declare."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from numpy.typing import NDArray

from protocols.drivers.opcua.columns import NO_TIME, ODD, Changes
from protocols.drivers.opcua.grid import REAL_TYPES, bits_of
from protocols.drivers.opcua.items import Item
from protocols.drivers.opcua.parts import pick
from protocols.drivers.opcua.steps import Part
from protocols.drivers.opcua.structures import Layout
from protocols.frame import Flags, Ints, Values
from protocols.points import Point

_log = logging.getLogger(__name__)
_IN_A_PART: Final = ODD - 1
"""In a column of expected types: no value as a whole will do."""


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

    def where(self, chosen: Flags) -> "Samples":
        """Return some of them."""
        return Samples(
            self.column[chosen],
            self.time_us[chosen],
            self.status[chosen],
            self.raw[chosen],
            self.usable[chosen],
        )


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


class Reader:
    """Knows of each place which points it is for and what type to expect.

    Args:
        points: the device's points.
        items: what is asked of the server.
        timed: whether the server's times count.
    """

    def __init__(self, points: Sequence[Point], items: Sequence[Item], *, timed: bool) -> None:
        self._types = [ua.VariantType[point.type] for point in points]
        self._targets = [tuple(zip(item.columns, item.parts, strict=True)) for item in items]
        self._real: Flags = np.array([point.type in REAL_TYPES for point in points])
        flat = [target for targets in self._targets for target in targets]
        self._column = np.array([column for column, _ in flat], np.int32)
        self._expected = np.array(
            [_IN_A_PART if part else self._types[column].value for column, part in flat], np.uint8
        )
        self._many: Ints = np.array([len(targets) for targets in self._targets], np.int64)
        self._first: Ints = np.cumsum(self._many) - self._many
        self._timed = timed

    def take_apart(self, changes: Changes, layouts: Mapping[ua.NodeId, Layout]) -> Notification:
        """Give values to points; those with a handle that was never given out are left out.

        Args:
            changes: what came.
            layouts: of the structures that points reach into.
        """
        known = (changes.place >= 0) & (changes.place < len(self._many))
        many = np.where(known, self._many[np.where(known, changes.place, 0)], 0)
        begin = np.cumsum(many) - many
        source = np.repeat(np.arange(len(changes)), many)
        flat = self._first[changes.place[source]] + np.arange(len(source)) - begin[source]
        column = self._column[flat]
        real = self._real[column]
        usable = changes.kind[source] == self._expected[flat]
        whole, reals = changes.whole[source], changes.real[source]
        for at, variant in changes.odd:
            if known[at]:
                rows = range(int(begin[at]), int(begin[at] + many[at]))
                self._pick_parts(
                    variant, int(changes.place[at]), rows, (whole, reals, usable), layouts
                )
        status = changes.status[source]
        time_us = changes.time_us[source] if self._timed else np.full(len(source), NO_TIME)
        samples = Samples(column, time_us, status, whole, usable)
        mistyped = column[~usable & (status < StatusCodes.Bad)]
        return Notification(
            samples.where(~real),
            replace(samples, raw=reals).where(real),
            frozenset(np.unique(mistyped).tolist()),
        )

    def _pick_parts(
        self,
        variant: ua.Variant,
        place: int,
        rows: range,
        into: tuple[Ints, Values, Flags],
        layouts: Mapping[ua.NodeId, Layout],
    ) -> None:
        """Put the scalars that points reach for in an array or a structure into the columns."""
        whole, reals, usable = into
        for row, (column, part) in zip(rows, self._targets[place], strict=True):
            raw = self._pick(variant, column, part, layouts) if part else None
            if raw is None:
                continue
            usable[row] = True
            if self._real[column]:
                reals[row] = raw
            else:
                whole[row] = bits_of([raw])[0]

    def _pick(
        self,
        variant: ua.Variant,
        column: int,
        part: Part,
        layouts: Mapping[ua.NodeId, Layout],
    ) -> Any:
        try:
            return pick(variant, part, self._types[column], layouts)
        except Exception as error:  # noqa: BLE001 what a server packs into a structure can trip its reader anyhow
            _log.debug("a structure does not follow its layout (%s)", type(error).__name__)
            return None

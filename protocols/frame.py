"""Frame: one device's samples as columns, the only form in which values travel inside.

A frame is a rectangle of rows (moments) by columns (points). Points that the frame does
not mention were not sampled; cells marked ABSENT inside it were not sampled either.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bytes: TypeAlias = NDArray[np.uint8]
Flags: TypeAlias = NDArray[np.bool_]
Values: TypeAlias = NDArray[Any]

NowNs: TypeAlias = Callable[[], int]
"""A wall clock: nanoseconds since 1970-01-01 UTC."""

SECOND: Final = 10**9
"""Nanoseconds in a second."""


class Quality(IntEnum):
    """What a cell is worth."""

    GOOD = 0
    UNCERTAIN = 1
    BAD = 2
    """The device answered, but not with a usable value; the value is meaningless."""
    ABSENT = 3
    """Nothing was sampled for this cell; it counts nowhere."""
    LOST = 4
    """Contact with the point was lost at this time; put in by the collector, not by the device."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Samples of one device.

    Attributes:
        device: the device's local id.
        columns: shape (c,), positions of the columns in the device's point table.
        time: shape (r, 1) or (r, c), int64 nanoseconds since 1970 UTC, not decreasing by row.
        values: shape (r, c). int64: the value is the number x 10**exponent of its point.
            float64: the value itself. One frame holds one of the two.
        quality: shape (r, c), codes of `Quality`.
        clock: the latest moment the device is known to have reached, for devices that bring
            their own time; None for devices that live on the wall clock.
    """

    device: str
    columns: NDArray[np.int32]
    time: Ints
    values: Ints | Floats
    quality: Bytes
    clock: int | None = None

    def __repr__(self) -> str:
        """Return its shape alone: what it holds must not get into a log by accident."""
        rows, columns = self.values.shape
        return f"<frame of {rows} x {columns}>"

    @property
    def samples(self) -> int:
        """Number of values the device produced in this frame."""
        return int(np.count_nonzero(self.quality < Quality.ABSENT))

    def cell_times(self) -> Ints:
        """Return the time of each cell, shape (r, c)."""
        return np.broadcast_to(self.time, self.values.shape)


def lost_frame(device: str, columns: NDArray[np.int32], at_ns: int) -> Frame:
    """Return the mark that contact with these points was lost at `at_ns`."""
    shape = (1, len(columns))
    return Frame(
        device=device,
        columns=columns,
        time=np.full((1, 1), at_ns, np.int64),
        values=np.zeros(shape, np.int64),
        quality=np.full(shape, Quality.LOST, np.uint8),
    )

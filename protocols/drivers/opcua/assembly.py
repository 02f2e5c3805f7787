"""Lays the samples of a notification out as frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocols.drivers.opcua.columns import NO_TIME
from protocols.drivers.opcua.grid import Grid
from protocols.drivers.opcua.notification import Notification, Samples
from protocols.frame import Bytes, Flags, Frame, Ints, Quality, Values
from protocols.points import Point

_MICROSECOND: Final = 1_000
_EARLIEST_US: Final = 946_684_800 * 1_000_000  # 2000-01-01
_FURTHEST_AHEAD_US: Final = 86_400 * 1_000_000
_BY_SEVERITY: Final = np.array(
    [Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.BAD], np.uint8
)
# OPC UA Part 4, 7.39: info type DataValue with the Overflow bit.
_OVERFLOW_MASK: Final = 0x0C80
_OVERFLOW: Final = 0x0480
_ROOM: Final = 4
_SMALL: Final = 4096


@dataclass(slots=True)
class Counts:
    """What had to be handled by a rule since the driver was made.

    Attributes:
        absurd_times: timestamps before 2000 or over a day ahead; the receive time stands instead.
        backward_times: timestamps before the same point's previous one within a notification;
            the previous one stands instead, so that the order of the changes is kept.
        overflows: samples before which the server says it dropped changes of the point.
        unusable: samples without a usable value of the declared type.
        refilled: samples from the server's history.
    """

    absurd_times: int = 0
    backward_times: int = 0
    overflows: int = 0
    unusable: int = 0
    refilled: int = 0


class Assembler:
    """Turns notifications into frames of one device and counts what it had to mend."""

    def __init__(self, device: str, points: Sequence[Point]) -> None:
        self._device = device
        self._grid = Grid(points)
        self.counts = Counts()
        self.latest_us: Ints = np.full(len(points), NO_TIME, np.int64)
        """Shape (n,), the time of each point's newest sample, microseconds since 1970 UTC."""

    def frames(self, notification: Notification, received_ns: int) -> Iterator[Frame]:
        """Yield at most one frame of integers and one of floats, or more of uneven shape.

        Args:
            notification: what the server sent.
            received_ns: when it came, wall clock.
        """
        for samples, scale in (
            (notification.integers, self._grid.integers),
            (notification.reals, self._grid.reals),
        ):
            if len(samples.column):
                values, fits = scale(samples.column, samples.raw)
                yield from self._rectangles(samples, values, fits & samples.usable, received_ns)

    def _rectangles(
        self, samples: Samples, values: Values, usable: Flags, received_ns: int
    ) -> Iterator[Frame]:
        time = self._times(samples.time_us, received_ns)
        quality = np.where(usable, _BY_SEVERITY[samples.status >> 30], np.uint8(Quality.BAD))
        self.counts.overflows += _count((samples.status & _OVERFLOW_MASK) == _OVERFLOW)
        self.counts.unusable += _count(~usable)
        for part in _parts(samples.column):
            yield self._rectangle(samples.column[part], time[part], values[part], quality[part])

    def _times(self, time_us: Ints, received_ns: int) -> Ints:
        latest = received_ns // _MICROSECOND + _FURTHEST_AHEAD_US
        missing = time_us == NO_TIME
        absurd = ~missing & ((time_us < _EARLIEST_US) | (time_us > latest))
        self.counts.absurd_times += _count(absurd)
        return np.where(missing | absurd, received_ns, time_us * _MICROSECOND)

    def _rectangle(
        self, column: NDArray[np.int32], time: Ints, values: Values, quality: Bytes
    ) -> Frame:
        columns, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        row = _occurrences(place, counts)
        shape = (int(counts.max()), len(columns))
        cell_time = np.full(shape, np.iinfo(np.int64).min, np.int64)
        cell_values = np.zeros(shape, values.dtype)
        cell_quality = np.full(shape, Quality.ABSENT, np.uint8)
        cell_time[row, place] = time
        cell_values[row, place] = values
        cell_quality[row, place] = quality
        # Fills absent cells, which lie below the present ones, and keeps each column in order.
        cell_time = np.maximum.accumulate(cell_time, axis=0)
        self.counts.backward_times += _count(cell_time[row, place] != time)
        newest = cell_time[-1] // _MICROSECOND
        self.latest_us[columns] = np.maximum(self.latest_us[columns], newest)
        return Frame(
            device=self._device,
            columns=columns,
            time=cell_time,
            values=cell_values,
            quality=cell_quality,
        )


def _parts(column: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Split samples so that no rectangle is much larger than what it holds.

    One fast point among thousands of slow ones would else need a row of thousands for each of
    its changes. Points are parted by the number of their changes, to a power of two.
    """
    counts = np.bincount(column)
    most, points = int(counts.max()), int(np.count_nonzero(counts))
    if most * points <= max(_ROOM * len(column), _SMALL):
        return [np.arange(len(column))]
    magnitude = np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64)[column]
    return [np.flatnonzero(magnitude == size) for size in np.unique(magnitude)]


def _occurrences(place: NDArray[np.intp], counts: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how many samples of the same column come before each, shape (n,)."""
    order = np.argsort(place, kind="stable")
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    row = np.empty(len(place), np.intp)
    row[order] = np.arange(len(place)) - firsts
    return row


def _count(flags: Flags) -> int:
    return int(np.count_nonzero(flags))

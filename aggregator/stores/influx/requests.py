"""Requests: lines in portions that a server takes, which can be parted where it does not."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aggregator.storable import Table
from aggregator.stores.influx.lines import heads, lines

_MOST_LINES: Final = 5000
_MOST_CHARACTERS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """Lines of one request.

    Attributes:
        lines: the line protocol.
        owners: for each line the number of its series; not decreasing.
        measurements: the series' measurements, by that number.
    """

    lines: Sequence[str]
    owners: Sequence[int]
    measurements: Sequence[str]

    def body(self) -> bytes:
        """Return what to post."""
        return "\n".join(self.lines).encode()

    def measurement(self) -> str:
        """Return the first line's measurement."""
        return self.measurements[self.owners[0]]

    def smallest(self) -> bool:
        """Tell whether there is but one line."""
        return len(self.lines) == 1

    def one_series(self) -> bool:
        """Tell whether all lines are of one series."""
        return self.owners[0] == self.owners[-1]

    def halves(self) -> "tuple[Request, Request]":
        """Part the lines in the middle."""
        return self._parted(len(self.lines) // 2)

    def apart(self) -> "tuple[Request, Request]":
        """Part the lines between two series, as near to the middle as can be."""
        middle = self.owners[len(self.lines) // 2]
        before = bisect_left(self.owners, middle)
        return self._parted(before or bisect_right(self.owners, middle))

    def _parted(self, at: int) -> "tuple[Request, Request]":
        return (
            Request(self.lines[:at], self.owners[:at], self.measurements),
            Request(self.lines[at:], self.owners[at:], self.measurements),
        )


def requests(tables: Sequence[Table]) -> Iterator[Request]:
    """Yield all rows of the tables, in requests of up to 5000 lines and 1 Mi characters."""
    measurements: list[str] = []
    made: list[str] = []
    owners: list[int] = []
    size = 0
    for table in tables:
        number = len(measurements)
        measurements += [table.measurement] * len(table.keys)
        for part in _portions(table, number):
            too_many = len(made) + len(part.lines) > _MOST_LINES
            if made and (too_many or size + part.size > _MOST_CHARACTERS):
                yield Request(made, owners, measurements)
                made, owners, size = [], [], 0
            made += part.lines
            owners += part.owners
            size += part.size
    if made:
        yield Request(made, owners, measurements)


@dataclass(frozen=True, slots=True)
class _Portion:
    lines: list[str]
    owners: list[int]
    size: int


def _portions(table: Table, number: int) -> Iterator[_Portion]:
    """Yield a table's lines in portions that fit a request, its series counted from `number`."""
    beginnings = heads(table.keys)
    for first in range(0, len(table), _MOST_LINES):
        last = min(first + _MOST_LINES, len(table))
        owners = (table.owner[first:last] + number).tolist()
        yield from _fitting(lines(table, beginnings, first, last), owners)


def _fitting(made: list[str], owners: list[int]) -> Iterator[_Portion]:
    size = sum(map(len, made)) + len(made)
    if size <= _MOST_CHARACTERS or len(made) == 1:
        yield _Portion(made, owners, size)
        return
    half = len(made) // 2
    yield from _fitting(made[:half], owners[:half])
    yield from _fitting(made[half:], owners[half:])

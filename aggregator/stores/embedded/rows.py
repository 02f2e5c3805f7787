"""Rows of one or more series as columns, by field number: what chunks and pending parts hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from aggregator.storable import FieldType
from protocols.frame import Flags, Ints, Values

_NOTHING: Final = {FieldType.FLOAT: np.nan, FieldType.INTEGER: 0, FieldType.TEXT: ""}
_DTYPES: Final = {
    FieldType.FLOAT: np.dtype(np.float64),
    FieldType.INTEGER: np.dtype(np.int64),
    FieldType.TEXT: np.dtype(np.object_),
}


@dataclass(frozen=True, slots=True)
class Column:
    """One field of n rows.

    Attributes:
        kind: the type of its values.
        values: shape (n,): float64, int64 or str objects; any value where there is none.
        has: shape (n,), where there is a value.
    """

    kind: FieldType
    values: Values
    has: Flags

    def take(self, which: Ints | Flags | slice) -> "Column":
        """Return the cells at these positions."""
        return Column(self.kind, self.values[which], self.has[which])


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows as columns.

    Attributes:
        owner: shape (n,), each row's series number.
        time: shape (n,), nanoseconds since 1970 UTC.
        columns: by field number.
    """

    owner: Ints
    time: Ints
    columns: Mapping[int, Column]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def size(self) -> int:
        """About how many bytes the rows take in memory, with a byte per character."""
        texts = (one.values for one in self.columns.values() if one.kind is FieldType.TEXT)
        characters = sum(sum(map(len, filter(None, values.tolist()))) for values in texts)
        return len(self) * 8 * (2 + len(self.columns)) + characters

    def take(self, which: Ints | Flags | slice) -> "Rows":
        """Return the rows at these positions."""
        columns = {field: column.take(which) for field, column in self.columns.items()}
        return Rows(self.owner[which], self.time[which], columns)

    def pick(self, fields: Sequence[int]) -> "Rows":
        """Return all rows with only these fields."""
        columns = {field: self.columns[field] for field in fields if field in self.columns}
        return Rows(self.owner, self.time, columns)

    def filled(self) -> "Rows":
        """Return the rows that have at least one field."""
        if not self.columns:
            return EMPTY
        filled = np.logical_or.reduce([column.has for column in self.columns.values()])
        return self if filled.all() else self.take(filled)

    def between(self, start_ns: int, end_ns: int) -> "Rows":
        """Return the rows with start_ns <= time < end_ns; times must be sorted."""
        first, last = np.searchsorted(self.time, [start_ns, end_ns])
        return self.take(slice(int(first), int(last)))


EMPTY: Final = Rows(np.zeros(0, np.int64), np.zeros(0, np.int64), {})


def concat(parts: Sequence[Rows]) -> Rows:
    """Join rows one behind the other; fields that a part lacks are absent in its rows."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return EMPTY
    kinds = {field: column.kind for part in parts for field, column in part.columns.items()}
    return Rows(
        np.concatenate([part.owner for part in parts]),
        np.concatenate([part.time for part in parts]),
        {field: _join(field, kind, parts) for field, kind in kinds.items()},
    )


def _join(field: int, kind: FieldType, parts: Sequence[Rows]) -> Column:
    cells = [part.columns.get(field) or _absent(kind, len(part)) for part in parts]
    return Column(
        kind,
        np.concatenate([cell.values for cell in cells]),
        np.concatenate([cell.has for cell in cells]),
    )


def _absent(kind: FieldType, rows: int) -> Column:
    values = np.full(rows, _NOTHING[kind], _DTYPES[kind])
    return Column(kind, values, np.zeros(rows, np.bool_))


def newest_wins(rows: Rows) -> Rows:
    """Sort by series and time, keeping of rows with equal series and time the last one."""
    if _sorted(rows.owner, rows.time).all():
        return rows
    order = np.lexsort((rows.time, rows.owner))
    owner, time = rows.owner[order], rows.time[order]
    last = np.append((owner[1:] != owner[:-1]) | (time[1:] != time[:-1]), np.True_)
    return rows.take(order[last])


def _sorted(owner: Ints, time: Ints) -> Flags:
    later: Flags = (time[1:] > time[:-1]) & (owner[1:] == owner[:-1])
    next_series: Flags = owner[1:] > owner[:-1]
    return later | next_series


def of_series(rows: Rows, series: int) -> Rows:
    """Return one series' part of rows that are sorted by series."""
    first, last = np.searchsorted(rows.owner, [series, series + 1])
    return rows.take(slice(int(first), int(last)))


def by_series(rows: Rows) -> list[tuple[int, Rows]]:
    """Cut rows that are sorted by series into one part per series."""
    cuts = np.flatnonzero(rows.owner[1:] != rows.owner[:-1]) + 1
    edges = [0, *cuts.tolist(), len(rows)]
    return [
        (int(rows.owner[first]), rows.take(slice(first, last)))
        for first, last in pairwise(edges)
        if last > first
    ]

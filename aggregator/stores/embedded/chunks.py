"""Chunks: each series cut into pieces of at most 1024 rows, packed, in order of time.

Pieces of one series never overlap. A row belongs to the last piece that starts at or before
it; a piece that grows too long is cut, in halves where rows came between, at the full length
where they came behind, so that a series written in order has full pieces.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np

from aggregator.stores import RowSpan
from aggregator.stores.embedded.codec import Codec
from aggregator.stores.embedded.rows import EMPTY, Rows, concat, newest_wins
from protocols.frame import Flags, Ints

FULL: Final = 1024
"""Most rows of a piece: what one late row costs to put in, against what a long read costs."""
_LARGEST: Final = 8 << 20
"""Most bytes of a piece, unpacked: rows of long texts make shorter ones."""
_AT_ONCE: Final = 512


@dataclass(frozen=True, slots=True)
class _Piece:
    number: int
    start: int
    last: int
    rows: int
    final: int
    """1 where the series has no later piece."""


@dataclass(slots=True)
class _Changes:
    removed: list[tuple[int]] = field(default_factory=list)
    added: list[tuple[int, int, int, int, bytes]] = field(default_factory=list)

    def apply(self, db: sqlite3.Connection) -> None:
        db.executemany("DELETE FROM chunk WHERE id = ?", self.removed)
        db.executemany(
            "INSERT INTO chunk (series, start, last, rows, data) VALUES (?, ?, ?, ?, ?)", self.added
        )
        self.removed.clear()
        self.added.clear()


class Chunks:
    """The chunk table; every call belongs to the transaction that `db` is in."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def merge(self, db: sqlite3.Connection, parts: Iterable[tuple[int, Rows]]) -> None:
        """Put rows in, each part (series, its rows sorted by time) of another series."""
        changes = _Changes()
        for series, rows in parts:
            self._merge_one(db, series, rows, changes)
            if len(changes.added) > _AT_ONCE:
                changes.apply(db)
        changes.apply(db)

    def scan(
        self,
        db: sqlite3.Connection,
        series: int,
        start_ns: int,
        end_ns: int,
        fields: Collection[int],
    ) -> Iterator[Rows]:
        """Yield each piece that may hold rows of the span, whole, with these fields."""
        found = db.execute(
            "SELECT data FROM chunk WHERE series = ?1 AND start < ?3 AND last >= ?2 AND start >="
            " coalesce((SELECT max(start) FROM chunk WHERE series = ?1 AND start <= ?2), ?2)"
            " ORDER BY start",
            (series, start_ns, end_ns),
        )
        for (data,) in found:
            yield self._codec.unpack(data, fields)

    def newest(self, db: sqlite3.Connection, series: int) -> Rows:
        """Return the last row of a series, or none."""
        found = db.execute(
            "SELECT data FROM chunk WHERE series = ? ORDER BY start DESC LIMIT 1", (series,)
        ).fetchone()
        return EMPTY if found is None else self._codec.unpack(found[0]).take(slice(-1, None))

    def count(self, db: sqlite3.Connection, measurement: int) -> int:
        """Return the number of rows of a measurement that are in chunks."""
        (rows,) = db.execute(
            "SELECT coalesce(sum(rows), 0) FROM chunk WHERE series IN"
            " (SELECT id FROM series WHERE measurement = ?)",
            (measurement,),
        ).fetchone()
        return int(rows)

    def count_among(self, db: sqlite3.Connection, series: int, rows: Rows) -> int:
        """Return how many of these rows' times are in a series' chunks."""
        among = 0
        for piece in self._pieces(db, series, rows):
            part = rows.between(piece.start, piece.last + 1)
            if len(part):
                there = self._codec.unpack(self._data(db, piece), ())
                among += int(np.isin(part.time, there.time).sum())
        return among

    def cut_out(self, db: sqlite3.Connection, series: int, spans: Sequence[RowSpan]) -> None:
        """Remove a series' rows in some spans."""
        inside = _inside(spans)
        found = db.execute(
            "SELECT id, start, last, rows, 0 FROM chunk WHERE series = ? AND start < ? AND last >= ?",
            (series, max(one.end_ns for one in spans), min(one.start_ns for one in spans)),
        ).fetchall()
        changes = _Changes()
        for piece in (_Piece(*row) for row in found):
            if not any(one.start_ns <= piece.last and piece.start < one.end_ns for one in spans):
                continue
            rows = self._codec.unpack(self._data(db, piece))
            gone = inside(rows.time)
            if gone.any():
                changes.removed.append((piece.number,))
                self._add(series, [] if gone.all() else [rows.take(~gone)], changes)
        changes.apply(db)

    def remove(self, db: sqlite3.Connection, measurement: int) -> None:
        """Remove every chunk of a measurement."""
        db.execute(
            "DELETE FROM chunk WHERE series IN (SELECT id FROM series WHERE measurement = ?)",
            (measurement,),
        )

    def _merge_one(
        self, db: sqlite3.Connection, series: int, rows: Rows, changes: _Changes
    ) -> None:
        pieces = self._pieces(db, series, rows)
        if not pieces:
            self._add(series, _cut(rows, FULL), changes)
            return
        starts = np.array([piece.start for piece in pieces])
        # Rows and pieces are in order of time: the rows of each piece lie together.
        first = np.append(np.searchsorted(rows.time, starts[1:]), len(rows)).tolist()
        for piece, (start, end) in zip(pieces, pairwise([0, *first]), strict=True):
            if end > start:
                self._put(db, series, piece, rows.take(slice(start, end)), changes)

    def _put(
        self,
        db: sqlite3.Connection,
        series: int,
        piece: _Piece,
        rows: Rows,
        changes: _Changes,
    ) -> None:
        behind = piece.final and int(rows.time[0]) > piece.last
        if behind and piece.rows >= FULL:
            self._add(series, _cut(rows, FULL), changes)
            return
        merged = newest_wins(concat([self._codec.unpack(self._data(db, piece)), rows]))
        changes.removed.append((piece.number,))
        parts = 1 if behind else -(-len(merged) // FULL)
        self._add(series, _cut(merged, FULL if behind else -(-len(merged) // parts)), changes)

    def _add(self, series: int, parts: Iterable[Rows], changes: _Changes) -> None:
        for part in parts:
            ends = int(part.time[0]), int(part.time[-1])
            changes.added.append((series, *ends, len(part), self._codec.pack(part)))

    def _pieces(self, db: sqlite3.Connection, series: int, rows: Rows) -> list[_Piece]:
        """Return the pieces from the one the first row belongs to, to that of the last row."""
        first, last = int(rows.time[0]), int(rows.time[-1])
        found = db.execute(
            "WITH ends AS (SELECT min(start) AS head, max(start) AS tail FROM chunk WHERE series = ?1)"
            " SELECT id, start, last, rows, start = tail FROM chunk, ends WHERE series = ?1"
            " AND start >= coalesce("
            "  (SELECT max(start) FROM chunk WHERE series = ?1 AND start <= ?2), head)"
            " AND start <= max(?3, head) ORDER BY start",
            (series, first, last),
        )
        return [_Piece(*columns) for columns in found]

    def _data(self, db: sqlite3.Connection, piece: _Piece) -> bytes:
        found = db.execute("SELECT data FROM chunk WHERE id = ?", (piece.number,)).fetchone()
        return bytes(found[0])


def _inside(spans: Sequence[RowSpan]) -> Callable[[Ints], Flags]:
    """Return what tells which times (ns) lie in any of the spans."""
    ordered = sorted((one.start_ns, one.end_ns) for one in spans)
    starts = np.array([start for start, _ in ordered], np.int64)
    # So that a long span before a short one counts on.
    ends = np.maximum.accumulate(np.array([end for _, end in ordered], np.int64))

    def inside(time: Ints) -> Flags:
        at = np.searchsorted(starts, time, side="right") - 1
        found: Flags = (at >= 0) & (time < ends[at])
        return found

    return inside


def _cut(rows: Rows, length: int) -> Iterator[Rows]:
    for first in range(0, len(rows), length):
        part = rows.take(slice(first, first + length))
        if part.size > _LARGEST and len(part) > 1:
            yield from _cut(part, -(-len(part) // 2))
        else:
            yield part

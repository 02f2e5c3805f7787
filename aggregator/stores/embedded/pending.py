"""Pending parts: small writes kept as they came, until there are enough to go into chunks.

A live write brings one row for each of thousands of series; rewriting a chunk for each would
cost a thousand times what the row does. So its rows of one measurement become one part. Parts
of one level, sixteen at a time, join into one of the next level, which holds the newer of rows
written twice; parts of a higher level are older than all of a lower one. When a measurement's
parts outgrow a bound, all of them go into chunks. So a row is rewritten a few times, however
small the writes, and a reader has at most the bound to look through.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from aggregator.stores.embedded.codec import Codec
from aggregator.stores.embedded.rows import Rows, by_series, concat, newest_wins, of_series

LARGEST: Final = 8 << 20
"""Most bytes, unpacked, of one measurement's parts."""
_JOINED: Final = 16


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    level: int
    size: int


class Pending:
    """The pending table; every call belongs to the transaction that `db` is in."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._unpacked: dict[int, dict[int, Rows]] = {}

    def forget(self) -> None:
        """Drop what is remembered, as after a transaction that did not happen."""
        self._unpacked.clear()

    def rows(self, db: sqlite3.Connection, measurement: int) -> list[Rows]:
        """Return a measurement's parts, oldest first, each sorted by series and time."""
        return self._load(db, measurement, self._parts(db, measurement))

    def rows_of(self, db: sqlite3.Connection, measurement: int, series: int) -> Rows:
        """Return a series' rows in all parts, the newest of each time, sorted."""
        found = [of_series(part, series) for part in self.rows(db, measurement)]
        return newest_wins(concat([part for part in found if len(part)]))

    def fits(self, db: sqlite3.Connection, measurement: int, rows: Rows) -> bool:
        """Tell whether there is room for more rows."""
        there = sum(part.size for part in self._parts(db, measurement))
        return there + rows.size <= LARGEST

    def add(self, db: sqlite3.Connection, measurement: int, rows: Rows) -> None:
        """Put in rows that are sorted by series and time."""
        self._insert(db, measurement, 0, rows)
        level = 0
        while len(parts := self._level(db, measurement, level)) >= _JOINED:
            joined = newest_wins(concat(self._load(db, measurement, parts)))
            self._delete(db, measurement, parts)
            level += 1
            self._insert(db, measurement, level, joined)

    def take_all(self, db: sqlite3.Connection, measurement: int) -> list[Rows]:
        """Remove and return a measurement's parts, oldest first."""
        parts = self._parts(db, measurement)
        rows = self._load(db, measurement, parts)
        self._delete(db, measurement, parts)
        return rows

    def remove(self, db: sqlite3.Connection, measurement: int) -> None:
        """Remove a measurement's parts, unread."""
        db.execute("DELETE FROM pending WHERE measurement = ?", (measurement,))
        self._unpacked.pop(measurement, None)

    def _parts(self, db: sqlite3.Connection, measurement: int) -> list[_Part]:
        found = db.execute(
            "SELECT id, level, size FROM pending WHERE measurement = ? ORDER BY level DESC, id",
            (measurement,),
        )
        return [_Part(*columns) for columns in found]

    def _level(self, db: sqlite3.Connection, measurement: int, level: int) -> list[_Part]:
        return [part for part in self._parts(db, measurement) if part.level == level]

    def _load(self, db: sqlite3.Connection, measurement: int, parts: list[_Part]) -> list[Rows]:
        known = self._unpacked.setdefault(measurement, {})
        for gone in known.keys() - {part.number for part in self._parts(db, measurement)}:
            del known[gone]
        for part in parts:
            if part.number not in known:
                (data,) = db.execute(
                    "SELECT data FROM pending WHERE id = ?", (part.number,)
                ).fetchone()
                known[part.number] = self._codec.unpack(data)
        return [known[part.number] for part in parts]

    def _insert(self, db: sqlite3.Connection, measurement: int, level: int, rows: Rows) -> None:
        number = db.execute(
            "INSERT INTO pending (measurement, level, size, data) VALUES (?, ?, ?, ?)",
            (measurement, level, rows.size, self._codec.pack(rows)),
        ).lastrowid
        if number is not None:
            self._unpacked.setdefault(measurement, {})[number] = rows

    def _delete(self, db: sqlite3.Connection, measurement: int, parts: list[_Part]) -> None:
        db.executemany("DELETE FROM pending WHERE id = ?", [(part.number,) for part in parts])
        known = self._unpacked.get(measurement, {})
        for part in parts:
            known.pop(part.number, None)


def settled(older: list[Rows], newer: list[Rows]) -> list[tuple[int, Rows]]:
    """Return the rows of parts and of what came after them, by series, sorted by time."""
    return by_series(newest_wins(concat([*older, *newer])))

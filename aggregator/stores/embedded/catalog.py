"""Numbers of measurements, fields and series: what rows carry instead of names."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator.storable import FieldType
from aggregator.stores import SeriesKey
from protocols.frame import Ints

_MOST_REMEMBERED: Final = 200_000


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a measurement: its number and the type it has for good."""

    number: int
    kind: FieldType


class Catalog:
    """Finds numbers, and remembers them until another process has removed any."""

    def __init__(self) -> None:
        self._generation = 0
        self._measurements: dict[str, int] = {}
        self._fields: dict[tuple[int, str], Field] = {}
        self._series: dict[SeriesKey, int] = {}

    def forget(self) -> None:
        """Drop what is remembered, as after a transaction that did not happen."""
        self._generation = 0
        self._measurements.clear()
        self._fields.clear()
        self._series.clear()

    def refresh(self, db: sqlite3.Connection) -> bool:
        """Call first in every transaction; True says that what was remembered has been dropped.

        A file's first generation is random, so another file in its place has another one.
        """
        (generation,) = db.execute("SELECT number FROM generation").fetchone()
        stale = generation != self._generation or len(self._series) > _MOST_REMEMBERED
        if stale:
            self.forget()
        self._generation = generation
        return stale

    def measurement(self, db: sqlite3.Connection, name: str) -> int | None:
        """Return a measurement's number; None where there is none."""
        if name not in self._measurements:
            found = db.execute("SELECT id FROM measurement WHERE name = ?", (name,)).fetchone()
            if found is None:
                return None
            self._measurements[name] = found[0]
        return self._measurements[name]

    def add_measurement(self, db: sqlite3.Connection, name: str) -> int:
        """Return a measurement's number, giving it one where it has none."""
        number = self.measurement(db, name)
        if number is None:
            number = _inserted(db, "INSERT INTO measurement (name) VALUES (?)", (name,))
            self._measurements[name] = number
        return number

    def fields(
        self, db: sqlite3.Connection, measurement: int, names: Iterable[str]
    ) -> dict[str, Field]:
        """Return those of the fields that there are."""
        found: dict[str, Field] = {}
        for name in names:
            known = self._fields.get((measurement, name)) or self._read_field(db, measurement, name)
            if known is not None:
                found[name] = known
        return found

    def all_fields(self, db: sqlite3.Connection, measurement: int) -> dict[str, Field]:
        """Return every field of a measurement."""
        rows = db.execute("SELECT name FROM field WHERE measurement = ?", (measurement,)).fetchall()
        return self.fields(db, measurement, sorted(name for (name,) in rows))

    def add_fields(
        self, db: sqlite3.Connection, measurement: int, types: Mapping[str, FieldType]
    ) -> dict[str, Field]:
        """Return the fields, giving numbers to new ones."""
        known = self.fields(db, measurement, types)
        for name, kind in types.items():
            if name not in known:
                number = _inserted(
                    db,
                    "INSERT INTO field (measurement, name, kind) VALUES (?, ?, ?)",
                    (measurement, name, kind.value),
                )
                known[name] = self._fields[measurement, name] = Field(number, kind)
        return known

    def one_series(self, db: sqlite3.Connection, key: SeriesKey) -> int | None:
        """Return a series' number; None where there is none."""
        if key not in self._series:
            measurement = self.measurement(db, key.measurement)
            found = db.execute(
                "SELECT id FROM series WHERE measurement = ? AND tags = ?",
                (measurement, json.dumps(key.tags, ensure_ascii=False)),
            ).fetchone()
            if found is None:
                return None
            self._series[key] = found[0]
        return self._series[key]

    def add_series(
        self, db: sqlite3.Connection, measurement: int, keys: Sequence[SeriesKey]
    ) -> Ints:
        """Return the series' numbers in this order, giving numbers to new ones."""
        known = self._series
        for key in keys:
            if key not in known and self.one_series(db, key) is None:
                known[key] = _inserted(
                    db,
                    "INSERT INTO series (measurement, tags) VALUES (?, ?)",
                    (measurement, json.dumps(key.tags, ensure_ascii=False)),
                )
        return np.fromiter(map(known.__getitem__, keys), np.int64, len(keys))

    def remove(self, db: sqlite3.Connection, measurement: int) -> None:
        """Remove a measurement with its fields and series, and tell other processes."""
        for statement in (
            "DELETE FROM series WHERE measurement = ?",
            "DELETE FROM field WHERE measurement = ?",
            "DELETE FROM measurement WHERE id = ?",
        ):
            db.execute(statement, (measurement,))
        db.execute("UPDATE generation SET number = number + 1")
        self.forget()

    def _read_field(self, db: sqlite3.Connection, measurement: int, name: str) -> Field | None:
        found = db.execute(
            "SELECT id, kind FROM field WHERE measurement = ? AND name = ?", (measurement, name)
        ).fetchone()
        if found is None:
            return None
        self._fields[measurement, name] = field = Field(found[0], FieldType(found[1]))
        return field


def every_series(db: sqlite3.Connection, measurement: str | None) -> list[SeriesKey]:
    """Return all series, or those of one measurement, sorted."""
    rows = db.execute(
        "SELECT measurement.name, tags FROM series JOIN measurement"
        " ON measurement.id = series.measurement WHERE ?1 IS NULL OR measurement.name = ?1",
        (measurement,),
    )
    keys = [SeriesKey(name, tuple((k, v) for k, v in json.loads(tags))) for name, tags in rows]
    return sorted(keys, key=lambda key: (key.measurement, key.tags))


def _inserted(db: sqlite3.Connection, statement: str, values: tuple[object, ...]) -> int:
    number = db.execute(statement, values).lastrowid
    if number is None:
        raise RuntimeError("SQLite gave no row number to an insert")
    return number

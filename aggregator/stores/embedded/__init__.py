"""The embedded store: one SQLite file per bucket, series as compressed column blocks.

Needs nothing installed. In configuration:

    [store]
    kind = "embedded"
    path = "/var/lib/millgate/series"

Each `write` is one transaction, on disk when it returns. One process writes; any number may
read meanwhile, each seeing whole writes only. A row written again replaces the old one as a
whole. A field's type is fixed by its first write; rows with another type are refused, the
others of the same call are kept. The file is made, or found unfit, when it is first used.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import numpy as np

from aggregator.storable import (
    FieldType,
    Table,
    answer_column,
    check_steps,
    present,
    rounds,
    span,
)
from aggregator.stores import (
    Aggregate,
    FieldColumn,
    RowSpan,
    SeriesBlock,
    SeriesKey,
    StoreConfig,
    StoreRefused,
)
from aggregator.stores.embedded.catalog import Catalog, Field, every_series
from aggregator.stores.embedded.chunks import Chunks
from aggregator.stores.embedded.codec import Codec
from aggregator.stores.embedded.file import File
from aggregator.stores.embedded.pending import Pending, settled
from aggregator.stores.embedded.rows import Column, Rows, by_series, concat, newest_wins
from aggregator.stores.embedded.steps import by_step
from protocols.frame import Flags, Ints, Values
from protocols.language import tr

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_DIRECT: Final = 256
"""From how many rows of one series on a write goes into chunks at once."""


class Config(StoreConfig):
    """Where the embedded store keeps its files.

    Attributes:
        path: the folder; made when missing.
    """

    kind: Literal["embedded"] = "embedded"
    path: Path


class Store:
    """Keeps one bucket's series in `<path>/<bucket>.series`."""

    def __init__(self, config: Config, bucket: str) -> None:
        """Prepare without touching the disk.

        Raises:
            ValueError: the bucket's name is no plain word.
        """
        if _BUCKET.fullmatch(bucket) is None:
            raise ValueError(
                tr("a bucket has 1 to 64 of a-z, 0-9, _ and -", "桶名须为 a-z、0-9、_、-")
            )
        codec = Codec()
        self._file = File(config.path / f"{bucket}.series")
        self._catalog = Catalog()
        self._chunks = Chunks(codec)
        self._pending = Pending(codec)

    def write(self, blocks: Sequence[SeriesBlock]) -> None:
        """Write all rows; when it returns they are on disk.

        Raises:
            StoreUnavailable: nothing was written; write the same again later.
            StoreRefused: a field's values are of another type than before; all other rows
                were written.
            ValueError: a block cannot be stored at all; nothing was written.
        """
        turns = list(rounds(blocks))
        if not any(turns):
            return
        refused: list[str] = []
        with self._writing() as db:
            for table in (table for turn in turns for table in turn):
                refused += self._put(db, table)
        if refused:
            raise StoreRefused(
                tr(
                    f"field of another type than stored: {', '.join(sorted(set(refused)))}",
                    f"字段类型与已存不符：{'、'.join(sorted(set(refused)))}",
                ),
                where=str(self._file.path),
                remedy=tr(
                    "delete the measurement and rebuild it from the ledger",
                    "请删除该测量并由账本重建",
                ),
            )

    def delete(self, measurement: str) -> None:
        """Remove every row of a measurement, and the types of its fields.

        Raises:
            StoreUnavailable: try again later.
        """
        with self._writing() as db:
            number = self._catalog.measurement(db, measurement)
            if number is not None:
                self._chunks.remove(db, number)
                self._pending.remove(db, number)
                self._catalog.remove(db, number)

    def delete_rows(self, spans: Sequence[RowSpan]) -> None:
        """Remove rows, all of them or none.

        Raises:
            StoreUnavailable: nothing was removed; try again later.
        """
        by_key: dict[SeriesKey, list[RowSpan]] = {}
        for one in spans:
            by_key.setdefault(one.key, []).append(one)
        with self._writing() as db:
            for key, own in by_key.items():
                measurement = self._catalog.measurement(db, key.measurement)
                series = self._catalog.one_series(db, key)
                if measurement is not None and series is not None:
                    # Pending rows win over those in chunks, so they must go there first.
                    self._chunks.merge(db, settled(self._pending.take_all(db, measurement), []))
                    self._chunks.cut_out(db, series, own)

    def overwrite_removed(self) -> None:
        """Let nothing that was removed stay in the file or its log; see `File.overwrite`.

        Raises:
            StoreUnavailable: somebody reads all the time; try again later.
        """
        self._file.overwrite()

    def series(self, measurement: str | None = None) -> list[SeriesKey]:
        """Return the series there are, sorted, optionally of one measurement."""
        with self._reading() as db:
            return every_series(db, measurement)

    def query(
        self,
        key: SeriesKey,
        fields: Sequence[str],
        start_ns: int,
        end_ns: int,
        *,
        limit: int = 100_000,
    ) -> SeriesBlock:
        """Return the first `limit` rows with start_ns <= time < end_ns.

        Rows that have none of the fields are left out, as are fields without any value.
        """
        parts: list[Rows] = []
        limit = max(limit, 0)
        with self._reading() as db:
            asked = self._fields(db, key, fields)
            for rows in self._pieces(db, key, asked, start_ns, end_ns):
                parts.append(rows.take(slice(0, limit)))
                limit -= len(parts[-1])
                if limit <= 0:
                    break
        return _block(key, asked, concat(parts))

    def query_steps(
        self,
        key: SeriesKey,
        field: str,
        start_ns: int,
        end_ns: int,
        step_ns: int,
        aggregate: Aggregate,
    ) -> SeriesBlock:
        """Return one row per step that has data: its start (multiples of step_ns) and `field`.

        Raises:
            ValueError: the step is not positive, or a text is to be anything but `last`.
        """
        check_steps(step_ns)
        with self._reading() as db:
            asked = self._fields(db, key, [field])
            if field not in asked:
                return _block(key, {}, concat([]))
            wanted = asked[field]
            if wanted.kind is FieldType.TEXT and aggregate != "last":
                raise ValueError(tr("of a text there is only 'last'", "文本仅支持 'last'"))
            pieces = self._pieces(db, key, asked, start_ns, end_ns)
            columns = ((rows.time, rows.columns[wanted.number].values) for rows in pieces)
            time, values = by_step(columns, step_ns, aggregate)
        if not len(time):
            return _block(key, {}, concat([]))
        kind = FieldType.FLOAT if aggregate == "mean" else wanted.kind
        return SeriesBlock(key, time, {field: answer_column(kind, values, _all(time))})

    def newest(self, key: SeriesKey) -> SeriesBlock:
        """Return the newest row with all its fields; an empty block where there is none."""
        with self._reading() as db:
            measurement = self._catalog.measurement(db, key.measurement)
            series = self._catalog.one_series(db, key)
            if measurement is None or series is None:
                return _block(key, {}, concat([]))
            recent = self._pending.rows_of(db, measurement, series).take(slice(-1, None))
            rows = newest_wins(concat([self._chunks.newest(db, series), recent]))
            fields = self._catalog.all_fields(db, measurement)
        return _block(key, fields, rows.take(slice(-1, None)))

    def fields(self, measurement: str) -> list[str]:
        """Return the names of the fields that any row of a measurement was written with, sorted."""
        with self._reading() as db:
            number = self._catalog.measurement(db, measurement)
            return [] if number is None else sorted(self._catalog.all_fields(db, number))

    def count(self, measurement: str) -> int:
        """Return the number of rows of a measurement."""
        with self._reading() as db:
            number = self._catalog.measurement(db, measurement)
            if number is None:
                return 0
            recent = newest_wins(concat([rows.pick(()) for rows in self._pending.rows(db, number)]))
            twice = sum(self._chunks.count_among(db, *part) for part in by_series(recent))
            return self._chunks.count(db, number) + len(recent) - twice

    def close(self) -> None:
        """Close the file; the next call would open it again."""
        self._file.close()
        self._forget()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._file.writing() as db:
                self._refresh(db)
                yield db
        except BaseException:
            # What was remembered may be of rows that are not there.
            self._forget()
            raise

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._file.reading() as db:
            self._refresh(db)
            yield db

    def _refresh(self, db: sqlite3.Connection) -> None:
        if self._catalog.refresh(db):
            self._pending.forget()

    def _forget(self) -> None:
        self._catalog.forget()
        self._pending.forget()

    def _put(self, db: sqlite3.Connection, table: Table) -> list[str]:
        """Write a table, or name the fields for which it is refused."""
        measurement = self._catalog.add_measurement(db, table.measurement)
        known = self._catalog.fields(db, measurement, table.types)
        wrong = [name for name, field in known.items() if field.kind is not table.types[name]]
        if wrong:
            return [f"{table.measurement}.{name}" for name in wrong]
        fields = self._catalog.add_fields(db, measurement, table.types)
        columns = {
            fields[name].number: Column(
                kind, table.columns[name], present(kind, table.columns[name])
            )
            for name, kind in table.types.items()
        }
        series = self._catalog.add_series(db, measurement, table.keys)
        rows = newest_wins(Rows(series[table.owner], table.time, columns))
        large = np.repeat(*_large(rows))
        self._put_large(db, measurement, rows.take(large) if large.any() else concat([]))
        small = rows if not large.any() else rows.take(~large)
        if self._pending.fits(db, measurement, small):
            if len(small):
                self._pending.add(db, measurement, small)
        else:
            older = self._pending.take_all(db, measurement)
            self._chunks.merge(db, settled(older, [small]))
        return []

    def _put_large(self, db: sqlite3.Connection, measurement: int, rows: Rows) -> None:
        if not len(rows):
            return
        parts = by_series(rows)
        waiting = [part.owner for part in self._pending.rows(db, measurement)]
        if any(np.isin([series for series, _ in parts], owners).any() for owners in waiting):
            # Pending rows win over those in chunks, so older ones must go there first.
            self._chunks.merge(db, settled(self._pending.take_all(db, measurement), []))
        self._chunks.merge(db, parts)

    def _fields(
        self, db: sqlite3.Connection, key: SeriesKey, names: Sequence[str]
    ) -> dict[str, Field]:
        measurement = self._catalog.measurement(db, key.measurement)
        return {} if measurement is None else self._catalog.fields(db, measurement, names)

    def _pieces(
        self,
        db: sqlite3.Connection,
        key: SeriesKey,
        fields: dict[str, Field],
        start_ns: int,
        end_ns: int,
    ) -> Iterator[Rows]:
        """Yield the rows of a span that have any of the fields, in order of time."""
        start_ns, end_ns = span(start_ns, end_ns)
        measurement = self._catalog.measurement(db, key.measurement)
        series = self._catalog.one_series(db, key)
        if measurement is None or series is None or not fields or start_ns >= end_ns:
            return
        wanted = [field.number for field in fields.values()]
        recent = self._pending.rows_of(db, measurement, series).between(start_ns, end_ns)
        pieces = self._chunks.scan(db, series, start_ns, end_ns, wanted)
        for rows in _interleaved(pieces, recent.pick(wanted)):
            asked = rows.between(start_ns, end_ns).filled()
            if len(asked):
                yield asked


def _large(rows: Rows) -> tuple[Flags, Ints]:
    """Return per series of sorted rows whether it has many of them, and how many."""
    edges = np.flatnonzero(np.append(rows.owner[1:] != rows.owner[:-1], np.True_)) + 1
    lengths = np.diff(edges, prepend=0)
    return lengths >= _DIRECT, lengths


def _interleaved(pieces: Iterator[Rows], recent: Rows) -> Iterator[Rows]:
    """Yield chunks with the pending rows that belong into or before each, then the rest."""
    for rows in pieces:
        upto = int(np.searchsorted(recent.time, rows.time[-1], side="right"))
        yield newest_wins(concat([rows, recent.take(slice(0, upto))]))
        recent = recent.take(slice(upto, None))
    yield recent


def _block(key: SeriesKey, fields: dict[str, Field], rows: Rows) -> SeriesBlock:
    columns: dict[str, FieldColumn] = {}
    for name, field in fields.items():
        column = rows.columns.get(field.number)
        if column is not None and column.has.any():
            columns[name] = answer_column(field.kind, column.values, column.has)
    return SeriesBlock(key, rows.time, columns)


def _all(values: Values) -> Flags:
    return np.ones(len(values), np.bool_)

"""The change feed: which rows were written, revised or removed, in order, for whoever keeps a copy.

A change is noted after the store has taken it and before the projection goes on, so that a crash
in between notes it again, and never not at all. Readers copy rows, not differences: a change that
comes twice does no harm.
"""

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from aggregator.stores import (
    Aggregate,
    RowSpan,
    SeriesBlock,
    SeriesKey,
    Store,
    StoreRefused,
    StoreUnavailable,
)
from protocols.database import open_database
from protocols.errors import MillgateError
from protocols.frame import SECOND, NowNs
from protocols.language import tr

Kind = Literal["rows", "removed", "measurement"]

_MOST: Final = 1_000_000
_TRIM_EVERY: Final = 10_000
_KINDS: Final[tuple[Kind, ...]] = ("rows", "removed", "measurement")
_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE feed (mark TEXT NOT NULL);
INSERT INTO feed VALUES (lower(hex(randomblob(8))));
CREATE TABLE series (id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, measurement TEXT NOT NULL,
    tags TEXT NOT NULL, UNIQUE (bucket, measurement, tags));
CREATE TABLE change (id INTEGER PRIMARY KEY AUTOINCREMENT, at_s INTEGER NOT NULL,
    kind INTEGER NOT NULL, series INTEGER NOT NULL, first_ns INTEGER NOT NULL,
    last_ns INTEGER NOT NULL, rows INTEGER NOT NULL);
"""
_TAG: Final = "\x1f"
_PAIR: Final = "\x1e"


class FeedFault(MillgateError):
    """The feed's file cannot be used."""


class Gone(MillgateError):
    """A position that this feed does not reach back to; the copy must be made anew."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        number: its place in the feed; always growing.
        at_s: when it was noted, seconds since 1970 UTC.
        kind: `rows` were written or revised, rows were `removed`, or a whole `measurement` was.
        bucket: of the store.
        key: the series; without tags for a measurement.
        first_ns, last_ns: times of the first and the last row touched, nanoseconds since 1970 UTC.
        rows: how many rows were written; 0 for what was removed.
    """

    number: int
    at_s: int
    kind: Kind
    bucket: str
    key: SeriesKey
    first_ns: int
    last_ns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the feed.

    Attributes:
        changes: in order.
        next: position after the last of them.
        head: position after the newest change there is.
    """

    changes: Sequence[Change]
    next: str
    head: str


class Feed:
    """One connection to the feed's file; threads may share it.

    Args:
        path: the file; made when missing.
        most: how many changes are kept.

    Raises:
        FeedFault: when it cannot be opened.
    """

    def __init__(self, path: Path, now_ns: NowNs, most: int = _MOST) -> None:
        self._now = now_ns
        self._most = most
        self._where = str(path)
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, SeriesKey], int] = {}
        self._since_trim = 0
        try:
            self._db = open_database(path, _SCHEMA, _SCHEMA_VERSION)
            self._mark: str = self._db.execute("SELECT mark FROM feed").fetchone()[0]
        except (sqlite3.Error, TypeError) as error:
            raise FeedFault(
                tr("the change feed cannot be opened", "无法打开变更记录"),
                where=self._where,
                remedy=tr(
                    f"check disk and permissions, or move the file away ({type(error).__name__}); "
                    "who follows it then makes a new copy",
                    f"请检查磁盘与权限，或移走该文件（{type(error).__name__}）；订阅方随后须重建副本",
                ),
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def head(self) -> str:
        """Position after the newest change there is."""
        return self.read("", 0).head

    def wrote(self, bucket: str, blocks: Sequence[SeriesBlock]) -> None:
        """Note rows that a store has taken."""
        self._note(
            ("rows", bucket, block.key, int(block.time[0]), int(block.time[-1]), len(block))
            for block in blocks
            if len(block)
        )

    def removed(self, bucket: str, spans: Sequence[RowSpan]) -> None:
        """Note spans whose rows were taken out of a store."""
        self._note(("removed", bucket, s.key, s.start_ns, s.end_ns - 1, 0) for s in spans)

    def removed_measurement(self, bucket: str, measurement: str) -> None:
        """Note that every row of a measurement was taken out of a store."""
        self._note([("measurement", bucket, SeriesKey(measurement, ()), 0, 0, 0)])

    def _note(self, changes: Iterable[tuple[Kind, str, SeriesKey, int, int, int]]) -> None:
        at_s = self._now() // SECOND
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                rows = [
                    (at_s, _KINDS.index(kind), self._id(bucket, key), *touched)
                    for kind, bucket, key, *touched in changes
                ]
                self._db.executemany(
                    "INSERT INTO change (at_s, kind, series, first_ns, last_ns, rows)"
                    " VALUES (?,?,?,?,?,?)",
                    rows,
                )
                self._trim(len(rows))
                self._db.execute("COMMIT")
            except BaseException as error:
                self._ids.clear()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._full(error) from None
                raise

    def _full(self, error: sqlite3.Error) -> StoreUnavailable:
        return StoreUnavailable(
            tr("the change feed cannot be written, so series wait", "无法写入变更记录，序列暂缓"),
            where=self._where,
            remedy=tr(
                f"free some space, check the disk ({type(error).__name__})",
                f"请释放空间、检查磁盘（{type(error).__name__}）",
            ),
        )

    def _id(self, bucket: str, key: SeriesKey) -> int:
        found = self._ids.get((bucket, key))
        if found is None:
            tags = _TAG.join(f"{name}{_PAIR}{text}" for name, text in key.tags)
            place = (bucket, key.measurement, tags)
            self._db.execute(
                "INSERT OR IGNORE INTO series (bucket, measurement, tags) VALUES (?,?,?)", place
            )
            row = self._db.execute(
                "SELECT id FROM series WHERE bucket=? AND measurement=? AND tags=?", place
            ).fetchone()
            found = self._ids[bucket, key] = int(row[0])
        return found

    def _trim(self, new: int) -> None:
        self._since_trim += new
        if self._since_trim >= min(_TRIM_EVERY, self._most):
            self._since_trim = 0
            newest = self._db.execute("SELECT MAX(id) FROM change").fetchone()[0]
            self._db.execute("DELETE FROM change WHERE id<=?", (newest - self._most,))

    def read(self, position: str, limit: int) -> Page:
        """Return up to `limit` changes after a position; an empty one is the very beginning.

        Raises:
            Gone: when changes after it are no longer kept, or it is not of this feed.
        """
        with self._lock:
            oldest, newest = self._db.execute(
                "SELECT COALESCE(MIN(id), 0), COALESCE((SELECT seq FROM sqlite_sequence"
                " WHERE name='change'), 0) FROM change"
            ).fetchone()
            after = self._after(position, oldest, newest)
            found = self._db.execute(
                "SELECT change.id, at_s, kind, bucket, measurement, tags, first_ns, last_ns, rows"
                " FROM change JOIN series ON series.id=series WHERE change.id>? ORDER BY change.id"
                " LIMIT ?",
                (after, limit),
            ).fetchall()
        changes = [_change(row) for row in found]
        last = changes[-1].number if changes else after
        return Page(changes, self._position(last), self._position(newest))

    def _after(self, position: str, oldest: int, newest: int) -> int:
        if not position:
            return max(oldest - 1, 0)
        mark, _, number = position.partition(".")
        after = int(number) if number.isdecimal() and len(number) < 19 else -1
        reached = not oldest or after >= oldest - 1
        if mark != self._mark or not 0 <= after <= newest or not reached:
            raise Gone(tr("this position is not kept any longer", "该位置已不再保留"))
        return after

    def _position(self, number: int) -> str:
        return f"{self._mark}.{number}"


def _change(row: tuple[Any, ...]) -> Change:
    number, at_s, kind, bucket, measurement, tags, *touched = row
    pairs = [part.partition(_PAIR) for part in tags.split(_TAG)] if tags else []
    key = SeriesKey(measurement, tuple((name, text) for name, _, text in pairs))
    return Change(number, at_s, _KINDS[kind], bucket, key, *touched)


class Followed:
    """A store whose changes go into the feed; otherwise it is the store."""

    def __init__(self, store: Store, bucket: str, feed: Feed) -> None:
        self._store = store
        self._bucket = bucket
        self._feed = feed

    def write(self, blocks: Sequence[SeriesBlock]) -> None:
        """See `Store`; what was taken is noted, also where other rows were refused."""
        try:
            self._store.write(blocks)
        except StoreRefused:
            self._feed.wrote(self._bucket, blocks)
            raise
        self._feed.wrote(self._bucket, blocks)

    def delete(self, measurement: str) -> None:
        """See `Store`."""
        self._store.delete(measurement)
        self._feed.removed_measurement(self._bucket, measurement)

    def delete_rows(self, spans: Sequence[RowSpan]) -> None:
        """See `Store`."""
        self._store.delete_rows(spans)
        self._feed.removed(self._bucket, spans)

    def overwrite_removed(self) -> None:
        """See `Store`."""
        self._store.overwrite_removed()

    def series(self, measurement: str | None = None) -> list[SeriesKey]:
        """See `Store`."""
        return self._store.series(measurement)

    def fields(self, measurement: str) -> list[str]:
        """See `Store`."""
        return self._store.fields(measurement)

    def query(
        self,
        key: SeriesKey,
        fields: Sequence[str],
        start_ns: int,
        end_ns: int,
        *,
        limit: int = 100_000,
    ) -> SeriesBlock:
        """See `Store`."""
        return self._store.query(key, fields, start_ns, end_ns, limit=limit)

    def query_steps(
        self,
        key: SeriesKey,
        field: str,
        start_ns: int,
        end_ns: int,
        step_ns: int,
        aggregate: Aggregate,
    ) -> SeriesBlock:
        """See `Store`."""
        return self._store.query_steps(key, field, start_ns, end_ns, step_ns, aggregate)

    def newest(self, key: SeriesKey) -> SeriesBlock:
        """See `Store`."""
        return self._store.newest(key)

    def count(self, measurement: str) -> int:
        """See `Store`."""
        return self._store.count(measurement)

    def close(self) -> None:
        """See `Store`."""
        self._store.close()

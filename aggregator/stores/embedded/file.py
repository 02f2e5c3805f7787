"""The SQLite file of one bucket: opening it, its tables, and what its errors mean."""

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aggregator.stores import StoreRefused, StoreUnavailable
from aggregator.stores.embedded.codec import Damaged
from protocols.errors import MillgateError
from protocols.language import for_everyone, tr

_APPLICATION: Final = 0x4D475345
"""'MGSE': marks the file as ours."""
_VERSION: Final = 2
_OLDER_VERSION: Final = 1
_BUSY_SECONDS: Final = 10.0
_PAGE: Final = 8192
_LARGEST_LEFT_WAL: Final = 64 << 20
_REWRITTEN_A_DAY: Final = 256 << 20
_DAY_S: Final = 86_400

_TABLES: Final = """
CREATE TABLE generation (number INTEGER NOT NULL);
INSERT INTO generation VALUES (abs(random() / 2));
CREATE TABLE measurement (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
CREATE TABLE field (
    id INTEGER PRIMARY KEY AUTOINCREMENT, measurement INTEGER NOT NULL, name TEXT NOT NULL,
    kind TEXT NOT NULL, UNIQUE (measurement, name));
CREATE TABLE series (
    id INTEGER PRIMARY KEY AUTOINCREMENT, measurement INTEGER NOT NULL, tags TEXT NOT NULL,
    UNIQUE (measurement, tags));
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY, series INTEGER NOT NULL, start INTEGER NOT NULL,
    last INTEGER NOT NULL, rows INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX chunk_at ON chunk (series, start, last, rows);
CREATE TABLE pending (
    id INTEGER PRIMARY KEY AUTOINCREMENT, measurement INTEGER NOT NULL, level INTEGER NOT NULL,
    size INTEGER NOT NULL, data BLOB NOT NULL);
CREATE INDEX pending_of ON pending (measurement, level, id, size);
CREATE TABLE rewritten (at_s INTEGER NOT NULL);
INSERT INTO rewritten VALUES (CAST(strftime('%s', 'now') AS INTEGER));
"""

_FROM_1: Final = """
CREATE TABLE rewritten (at_s INTEGER NOT NULL);
INSERT INTO rewritten VALUES (0);
"""


_log = logging.getLogger(__name__)


class File:
    """One bucket's file, opened when it is first needed and again after it was found damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a snapshot: what others write meanwhile is not seen.

        Raises:
            StoreUnavailable: the file cannot be read now.
            StoreRefused: the file is not of this version.
        """
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the file to write; everything is durable when the block ends, or nothing is.

        Raises:
            StoreUnavailable: the file cannot be written now.
            StoreRefused: the file is not of this version.
        """
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    def overwrite(self) -> None:
        """Let nothing that was removed stay in the file or in its log.

        What is freed is overwritten as it is freed. Left are older pages in the log, which goes
        here, and copies that SQLite leaves in unused parts of pages when it moves rows: they go when
        the whole file is written anew, a quarter of a gigabyte a day on the average. A file from before what
        is freed was overwritten is written anew at once.

        Raises:
            StoreUnavailable: others read older pages all the time; call again later.
        """
        with self._telling():
            db = self._open()
            if self._is_due(db):
                self._rewrite(db)
            (busy, *_) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StoreUnavailable(
                tr("others are reading what was removed", "仍有程序在读取已删除的内容"),
                where=str(self.path),
                remedy=tr("it is tried again later", "稍后会重试"),
            )

    def _is_due(self, db: sqlite3.Connection) -> bool:
        (at_s,) = db.execute("SELECT at_s FROM rewritten").fetchone()
        days = max(1.0, self.path.stat().st_size / _REWRITTEN_A_DAY)
        return bool(time.time() - at_s >= days * _DAY_S)

    def _rewrite(self, db: sqlite3.Connection) -> None:
        try:
            db.execute("VACUUM")
        except sqlite3.OperationalError as error:
            # It needs as much room again; that it cannot be had must not keep anything from being erased.
            _log.warning(
                "%s: %s: %s",
                self.path,
                tr("the file could not be written anew", "文件未能重写"),
                _meaning(error, getattr(error, "sqlite_errorcode", 0) & 0xFF)[0]
                or type(error).__name__,
            )
            return
        db.execute("UPDATE rewritten SET at_s = ?", (int(time.time()),))

    def close(self) -> None:
        """Close the file, if it is open."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._telling():
            db = self._open()
            db.execute(begin)
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Close the file when anything is wrong with it, and say what."""
        try:
            yield
        except (sqlite3.Error, Damaged, OSError) as error:
            self.close()
            fault = self._fault(error)
            if fault is None:
                raise
            raise fault from error

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = not self.path.exists()
            # Calls come one at a time, though not always from the same thread.
            self._db = sqlite3.connect(
                self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._prepare(self._db)
            if fresh:
                _sync_folder(self.path.parent)
                _sync_folder(self.path.parent.parent)
        return self._db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute(f"PRAGMA page_size = {_PAGE}")
        if self._mark(db) in {(0, 0), (_APPLICATION, _OLDER_VERSION)}:
            db.execute("BEGIN IMMEDIATE")
            self._make(db)
            db.execute("COMMIT")
        if self._mark(db) != (_APPLICATION, _VERSION):
            raise self._foreign()
        if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            db.execute("PRAGMA journal_mode = WAL")
        # FULL syncs the log at every commit: NORMAL would lose the last ones with the power.
        db.execute("PRAGMA synchronous = FULL")
        # Pieces are written anew all the time: without this, old copies lie in what they free.
        db.execute("PRAGMA secure_delete = ON")
        db.execute(f"PRAGMA journal_size_limit = {_LARGEST_LEFT_WAL}")

    def _make(self, db: sqlite3.Connection) -> None:
        """Make the tables of this version, in a new file or one of the version before."""
        mark = self._mark(db)
        if mark == (_APPLICATION, _OLDER_VERSION):
            statements = _FROM_1
        elif mark == (0, 0) and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            statements = _TABLES
        else:
            return
        for statement in statements.split(";\n"):
            db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {_VERSION}")

    def _mark(self, db: sqlite3.Connection) -> tuple[int, int]:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        return application, version

    def _foreign(self) -> StoreRefused:
        self.close()
        return StoreRefused(
            tr(
                "is not a series file of this version of Millgate",
                "不是此版本 Millgate 的序列文件",
            ),
            where=str(self.path),
            remedy=tr(
                "move it away; the series are built anew from the ledger",
                "请移走该文件；序列将由账本重建",
            ),
        )

    @for_everyone()
    def _fault(self, error: Exception) -> MillgateError | None:
        if isinstance(error, sqlite3.Error) and not hasattr(error, "sqlite_errorcode"):
            return None
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        what, remedy = _meaning(error, code)
        return StoreUnavailable(what, where=str(self.path), remedy=remedy) if what else None


def _meaning(error: Exception, code: int) -> tuple[str, str]:
    if isinstance(error, Damaged) or code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return (
            tr("the file is damaged", "文件已损坏"),
            tr(
                "stop Millgate, move the file and its -wal and -shm away, and start again: the"
                " series are built anew from the ledger",
                "请停止 Millgate，移走该文件及其 -wal、-shm，再启动：序列将由账本重建",
            ),
        )
    if code == sqlite3.SQLITE_FULL:
        return tr("the disk is full", "磁盘已满"), tr("make room on it", "请腾出空间")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return (
            tr("another process holds the file", "文件被其他进程占用"),
            tr("let only one aggregator write to it", "只应有一个汇聚端写入该文件"),
        )
    reach = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM}
    if isinstance(error, OSError) or code in reach | {sqlite3.SQLITE_READONLY}:
        return (
            tr("the file cannot be opened or written", "文件无法打开或写入"),
            tr(
                "check the disk, and that its folder belongs to the user Millgate runs as",
                "请检查磁盘，并确认目录属于运行 Millgate 的用户",
            ),
        )
    return "", ""


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable: SQLite syncs its contents only."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

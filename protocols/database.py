"""SQLite files that are never half written: how they are opened and told apart."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType


def open_database(
    path: Path,
    schema: str,
    version: int,
    *,
    busy_ms: int = 10_000,
    upgrades: Mapping[int, str] = MappingProxyType({}),
    shrinks: bool = False,
) -> sqlite3.Connection:
    """Open a file that keeps what was committed through a power cut; make it where there is none.

    Args:
        path: the file; folders above it are made.
        schema: the statements that make its tables, each ended by a semicolon.
        version: number of the schema, kept in the file.
        busy_ms: how long a statement waits for another connection.
        upgrades: the statements that make this version out of an older one, by its number.
        shrinks: whether a new file can give unused pages back in small steps.

    Returns:
        A connection in autocommit mode that any one thread at a time may use.

    Raises:
        sqlite3.Error: when it cannot be opened, is damaged, or has another version.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if shrinks:
            # Only a file without tables takes this, and only before anything else.
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute(f"PRAGMA busy_timeout={busy_ms}")
        if _version(db) != version:
            _make(db, {0: schema, **upgrades}, version)
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _make(db: sqlite3.Connection, scripts: Mapping[int, str], version: int) -> None:
    """Run the script of the version that is found, all or nothing; another may just have done it."""
    db.execute("BEGIN IMMEDIATE")
    try:
        found = _version(db)
        if found != version:
            if found not in scripts:
                raise sqlite3.DatabaseError
            for statement in _statements(scripts[found]):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={version}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script: `executescript` would commit before it runs them."""
    part = ""
    for line in script.split(";"):
        part += line + ";"
        if part.strip(" \n;") and sqlite3.complete_statement(part):
            yield part
            part = ""

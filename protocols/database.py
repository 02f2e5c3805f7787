"""SQLite files that are never half written: how they are opened and told apart."""

import sqlite3
from collections.abc import Mapping
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
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            db.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version={version}; COMMIT;")
        elif found in upgrades:
            upgrade = upgrades[found]
            db.executescript(f"BEGIN IMMEDIATE; {upgrade} PRAGMA user_version={version}; COMMIT;")
        elif found != version:
            raise sqlite3.DatabaseError
    except BaseException:
        db.close()
        raise
    return db

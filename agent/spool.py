"""The spool: sealed batches on disk until the brain's receipt, then a bounded archive.

SQLite in WAL mode with synchronous=FULL. One transaction takes a whole message of the gate side:
all its batches, their places in the chains, and the gate memory. All calls are made from one
worker thread.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protocols.database import open_database
from protocols.errors import MillgateError
from protocols.language import tr
from security.answers import Erasure, Head, Refused, answer_kid
from security.envelope import REASON_REFUSED, Before, Gap

WAITING, ACKNOWLEDGED, REFUSED, LOST, GIVEN_UP = 0, 1, 2, 3, 4
"""What became of a message. LOST: sealed by an agent that ran from an old copy, and never sent.
GIVEN_UP: its content is gone, see `agent.giveup`; the brain is yet to be told."""

_MOST_REFUSED_BYTES: Final = 64 << 20
_MOST_REFUSED: Final = 4096
_MOST_ATTESTATIONS: Final = 2048
_LOG_PAGES: Final = 8192
_SCHEMA_VERSION: Final = 3
_OLDER_VERSION: Final = 2
_AUTO_VACUUM: Final = 2
_SHRINK_PAGES: Final = 2048
_LEAST_FREE_PAGES: Final = 64
_SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
CREATE TABLE chain (
    epoch INTEGER, stream INTEGER, next INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (epoch, stream)
) STRICT, WITHOUT ROWID;
CREATE TABLE batch (
    id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, stream INTEGER NOT NULL,
    sequence INTEGER NOT NULL, digest BLOB NOT NULL, sheet BLOB NOT NULL, is_sheet INTEGER NOT NULL,
    cells INTEGER NOT NULL, status INTEGER NOT NULL, code INTEGER NOT NULL, size INTEGER NOT NULL,
    at INTEGER NOT NULL DEFAULT 0, first INTEGER NOT NULL DEFAULT -1, sealed BLOB NOT NULL,
    UNIQUE (epoch, stream, sequence)
) STRICT;
CREATE INDEX batch_status ON batch (status, id, is_sheet, cells, size);
CREATE INDEX batch_due ON batch (status, epoch, stream, sequence, size, at);
CREATE TABLE gap (
    epoch INTEGER, stream INTEGER, first INTEGER, last INTEGER, reason INTEGER,
    PRIMARY KEY (epoch, stream, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE ending (
    epoch INTEGER, stream INTEGER, before INTEGER NOT NULL, count INTEGER NOT NULL,
    digest BLOB NOT NULL, reason INTEGER NOT NULL, PRIMARY KEY (epoch, stream)
) STRICT, WITHOUT ROWID;
CREATE TABLE attestation (number INTEGER PRIMARY KEY, signed BLOB NOT NULL) STRICT;
CREATE TABLE receipt (
    epoch INTEGER, stream INTEGER, signed BLOB NOT NULL, PRIMARY KEY (epoch, stream)
) STRICT, WITHOUT ROWID;
CREATE TABLE proof (
    id INTEGER PRIMARY KEY, what TEXT NOT NULL, at_s INTEGER NOT NULL, first BLOB NOT NULL,
    second BLOB NOT NULL
) STRICT;
"""


_FROM_2: Final = """
ALTER TABLE batch ADD COLUMN at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN first INTEGER NOT NULL DEFAULT -1;
CREATE INDEX batch_due ON batch (status, epoch, stream, sequence, size, at);
"""

SpoolError = sqlite3.Error
"""What a call raises when the disk or the file fails; nothing of it is kept then."""


class SpoolFault(MillgateError):
    """The spool cannot be used."""


class SpoolDamaged(SpoolFault):
    """The spool's file is damaged; `agent.mending` saves what is whole."""


def is_damage(error: BaseException) -> bool:
    """Tell whether SQLite says that the file itself is damaged."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True)
class Entry:
    """One sealed message to be committed.

    Attributes:
        sheet: hash of the release sheet it refers to, or is.
        is_sheet: whether it carries a sheet.
        cells: how many released values it holds.
        gaps: the gaps that it declares.
        at: when it was sealed, seconds since 1970 UTC.
    """

    stream: int
    sequence: int
    digest: bytes
    sheet: bytes
    is_sheet: bool
    cells: int
    sealed: bytes
    gaps: tuple[Gap, ...] = ()
    at: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """One sealed message that waits for its receipt."""

    id: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """The output sum as the agent knows it, in released values of its epoch.

    Attributes:
        released: committed since the epoch began.
        acknowledged, waiting, refused: where they are.
        waiting_batches, waiting_bytes: what waits.
        lost: sealed in earlier epochs by an agent that ran from an old copy, and declared lost.
        given_up: dropped from a full spool, too old, or damaged on the disk; declared lost.
    """

    released: int
    acknowledged: int
    waiting: int
    refused: int
    waiting_batches: int
    waiting_bytes: int
    lost: int = 0
    given_up: int = 0


class Spool:
    """The agent's spool file."""

    def __init__(self, path: Path) -> None:
        self.is_new = not path.exists()
        self._path = path
        try:
            self._db = open_database(
                path,
                _SCHEMA,
                _SCHEMA_VERSION,
                busy_ms=5_000,
                upgrades={_OLDER_VERSION: _FROM_2},
                shrinks=True,
            )
            # Every message writes the gate memory over the one before: what the write-ahead log
            # holds is written twice only when it is brought into the file, so that is done seldom.
            self._db.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
        except sqlite3.Error as error:
            damaged = is_damage(error)
            mend = tr(
                "start the agent: it mends the file and keeps what is whole",
                "请启动代理程序：它会修复文件并保留完好部分",
            )
            check = tr(
                f"check disk and permissions ({type(error).__name__}); if the file is of a newer "
                "version, update this program",
                f"请检查磁盘与权限（{type(error).__name__}）；若文件属于更新的版本，请升级本程序",
            )
            raise (SpoolDamaged if damaged else SpoolFault)(
                tr("the spool cannot be opened", "无法打开缓存库"),
                where=str(path),
                remedy=mend if damaged else check,
            ) from None

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, for reading; `transaction` is for writing."""
        return self._db

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def meta(self, key: str, default: Any = None) -> Any:
        """Return a small setting."""
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return default if row is None else row[0]

    def set_meta(self, values: dict[str, Any]) -> None:
        """Set small settings."""
        rows = list(values.items())
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def newest_id(self) -> int:
        """Return the id of the newest message; 0 before the first. Later ones have larger ids."""
        found: int = self._db.execute("SELECT COALESCE(MAX(id), 0) FROM batch").fetchone()[0]
        return found

    def chain(self, epoch: int, stream: int) -> tuple[int, bytes] | None:
        """Return the next sequence and the hash before it; None at the start of the chain."""
        row = self._db.execute(
            "SELECT next, digest FROM chain WHERE epoch = ? AND stream = ?", (epoch, stream)
        ).fetchone()
        return None if row is None else (row[0], row[1])

    def gaps(self, epoch: int, stream: int, limit: int) -> tuple[Gap, ...]:
        """Return the gaps of a stream that are not declared yet."""
        rows = self._db.execute(
            "SELECT first, last, reason FROM gap WHERE epoch = ? AND stream = ? LIMIT ?",
            (epoch, stream, limit),
        )
        return tuple(Gap(*row) for row in rows)

    def sheet_sent(self, epoch: int, sheet: bytes) -> bool:
        """Tell whether a sheet was committed in this epoch."""
        row = self._db.execute(
            "SELECT 1 FROM batch WHERE epoch = ? AND is_sheet = 1 AND sheet = ?", (epoch, sheet)
        ).fetchone()
        return row is not None

    def commit(
        self,
        epoch: int,
        number: int,
        policy_hash: bytes,
        memory: bytes,
        entries: Sequence[Entry],
        at: int | None = None,
    ) -> None:
        """Take one message of the gate side, all or nothing; `at` is when, seconds since 1970 UTC."""
        with _transaction(self._db):
            self._append(epoch, entries)
            self.set_meta({"number": number, "memory": memory, "memory_policy": policy_hash})
            if at is not None:
                self.set_meta({"at": at})

    def begin(self, epoch: int, policy_hash: bytes, entries: Sequence[Entry]) -> None:
        """Begin an epoch with its first messages: no memory, and the output sum starts anew."""
        with _transaction(self._db):
            self._append(epoch, entries)
            self.set_meta(
                {
                    "epoch": epoch,
                    "number": 0,
                    "memory": b"",
                    "memory_policy": policy_hash,
                    "released": 0,
                    "refused_gone": 0,
                    "given_up": 0,
                }
            )

    def before(self, epoch: int, stream: int) -> Before | None:
        """Return where the chain before ended; None when nothing is known of one."""
        row = self._db.execute(
            "SELECT before, count, digest, reason FROM ending WHERE epoch <= ? AND before < ?"
            " AND stream = ? ORDER BY epoch DESC LIMIT 1",
            (epoch, epoch, stream),
        ).fetchone()
        return None if row is None else Before(*row)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction, all or nothing."""
        with _transaction(self._db):
            yield self._db

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let all that is read inside be of one moment, while another process writes."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def chains(self, epoch: int) -> dict[int, int]:
        """Return the sequence that comes next in each stream of an epoch."""
        rows = self._db.execute("SELECT stream, next FROM chain WHERE epoch = ?", (epoch,))
        return dict(rows.fetchall())

    def append(
        self, epoch: int, entries: Sequence[Entry], settings: dict[str, Any] | None = None
    ) -> None:
        """Take messages of our own, all or nothing; the gate's place stays."""
        with _transaction(self._db):
            self._append(epoch, entries)
            self.set_meta(settings or {})

    def _append(self, epoch: int, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._insert(epoch, entry)
        released = sum(entry.cells for entry in entries)
        self.set_meta({"released": self.meta("released", 0) + released})

    def keep_sheet(self, sheet_hash: bytes, signed: bytes) -> None:
        """Keep a signed sheet for good: the brain may ask for it as long as batches refer to it."""
        self.set_meta({f"sheet:{sheet_hash.hex()}": signed})

    def kept_sheet(self, sheet_hash: bytes) -> bytes | None:
        """Return a signed sheet that was kept."""
        found: bytes | None = self.meta(f"sheet:{sheet_hash.hex()}")
        return found

    def keep_erasure(self, erasure: Erasure, signed: bytes) -> None:
        """Keep the newest verified statement of each brain about what it has deleted."""
        place = f"erasure:{answer_kid(signed).hex()}"
        at = f"{place}:at"
        if erasure.issued_at > self.meta(at, -1):
            self.set_meta({place: signed, at: erasure.issued_at})

    def erasures(self) -> list[bytes]:
        """Return the signed statements of brains about what they have deleted."""
        rows = self._db.execute(
            "SELECT value FROM meta WHERE key LIKE 'erasure:%' AND key NOT LIKE '%:at' ORDER BY key"
        )
        return [row[0] for row in rows]

    def sheets_waiting(self, sheet: bytes) -> list[bytes]:
        """Return the sealed messages with this sheet that have no receipt yet, oldest first."""
        rows = self._db.execute(
            "SELECT sealed FROM batch WHERE is_sheet = 1 AND sheet = ? AND status = ? ORDER BY id",
            (sheet, WAITING),
        )
        return [row[0] for row in rows]

    def _insert(self, epoch: int, entry: Entry) -> None:
        self._db.execute(
            "INSERT INTO batch (epoch, stream, sequence, digest, sheet, is_sheet, cells, status,"
            " code, size, sealed, at) VALUES (?,?,?,?,?,?,?,?,0,?,?,?)",
            (
                epoch,
                entry.stream,
                entry.sequence,
                entry.digest,
                entry.sheet,
                int(entry.is_sheet),
                entry.cells,
                WAITING,
                len(entry.sealed),
                entry.sealed,
                entry.at,
            ),
        )
        self._db.execute(
            "INSERT OR REPLACE INTO chain VALUES (?,?,?,?)",
            (epoch, entry.stream, entry.sequence + 1, entry.digest),
        )
        for gap in entry.gaps:
            self._db.execute(
                "DELETE FROM gap WHERE epoch = ? AND stream = ? AND first = ?",
                (epoch, entry.stream, gap.first),
            )

    def waiting(self, after_id: int, limit: int, *, only_sheets: bool = False) -> list[Waiting]:
        """Return the oldest messages that wait, from behind `after_id` on."""
        rows = self._db.execute(
            "SELECT id, sealed FROM batch WHERE status = ? AND id > ? AND is_sheet >= ?"
            " ORDER BY id LIMIT ?",
            (WAITING, after_id, int(only_sheets), limit),
        )
        return [Waiting(*row) for row in rows]

    def settle(
        self, heads: Iterable[Head], refused: Iterable[Refused], digest: bytes, signed: bytes = b""
    ) -> int:
        """Apply a receipt that was verified; return how many messages no longer wait.

        The newest receipt of each chain is kept: with it the brain cannot deny what it has. A head
        that is not of our chain settles nothing. A refused message is kept in the refused box and
        declared as a gap by the next batch of its stream.
        """
        settled = 0
        with _transaction(self._db):
            for one in refused:
                settled += self._refuse(one)
            for head in heads:
                if self._is_ours(head):
                    self._note_newest(head)
                    self._db.execute(
                        "INSERT OR REPLACE INTO receipt VALUES (?,?,?)",
                        (head.epoch, head.stream, signed),
                    )
                    settled += self._db.execute(
                        "UPDATE batch SET status = ? WHERE epoch = ? AND stream = ?"
                        " AND sequence <= ? AND status = ?",
                        (ACKNOWLEDGED, head.epoch, head.stream, head.sequence, WAITING),
                    ).rowcount
                    settled += self.forget_given_up(head.epoch, head.stream, head.sequence)
            self.set_meta({"receipts": self.meta("receipts", 0) + 1, "receipt": digest})
        return settled

    def forget_given_up(self, epoch: int, stream: int, through: int) -> int:
        """Forget what was given up and what the brain has gone past; inside a transaction.

        What was not declared lost by then, the brain had got before: it counts as acknowledged.
        """
        place = (GIVEN_UP, epoch, stream, through)
        where = "WHERE status = ? AND epoch = ? AND stream = ? AND sequence <= ?"
        declared = self._db.execute(
            f"SELECT COALESCE(SUM(cells), 0) FROM batch {where} AND code = 1",  # noqa: S608 - a constant
            place,
        ).fetchone()[0]
        if declared and epoch >= self.meta("epoch", 0):
            self.set_meta({"given_up": self.meta("given_up", 0) + declared})
        gone = self._db.execute(f"DELETE FROM batch {where}", place)  # noqa: S608 - a constant
        return gone.rowcount

    def _note_newest(self, head: Head) -> None:
        """Remember when the newest message that the brain has was sealed."""
        at = self._db.execute(
            "SELECT at FROM batch WHERE epoch = ? AND stream = ? AND sequence = ? AND is_sheet = 0",
            (head.epoch, head.stream, head.sequence),
        ).fetchone()
        if at is not None and at[0] > self.meta("acknowledged_at", 0):
            self.set_meta({"acknowledged_at": at[0]})

    def _is_ours(self, head: Head) -> bool:
        row = self._db.execute(
            "SELECT digest FROM batch WHERE epoch = ? AND stream = ? AND sequence = ?",
            (head.epoch, head.stream, head.sequence),
        ).fetchone()
        return row is not None and row[0] == head.digest

    def _refuse(self, one: Refused) -> int:
        head = one.head
        if not self._is_ours(head):
            return 0
        changed = self._db.execute(
            "UPDATE batch SET status = ?, code = ? WHERE epoch = ? AND stream = ?"
            " AND sequence = ? AND status NOT IN (?, ?)",
            (REFUSED, one.code, head.epoch, head.stream, head.sequence, REFUSED, GIVEN_UP),
        ).rowcount
        changed += self._refuse_given_up(head)
        if changed:
            self._db.execute(
                "INSERT OR IGNORE INTO gap VALUES (?,?,?,?,?)",
                (head.epoch, head.stream, head.sequence, head.sequence, REASON_REFUSED),
            )
        return changed

    def _refuse_given_up(self, head: Head) -> int:
        """Count what was given up while it was under way as refused: there is nothing of it to keep."""
        row = self._db.execute(
            "SELECT id, cells FROM batch WHERE epoch = ? AND stream = ? AND sequence = ?"
            " AND status = ? AND first = sequence",
            (head.epoch, head.stream, head.sequence, GIVEN_UP),
        ).fetchone()
        if row is None:
            return 0
        self._db.execute("DELETE FROM batch WHERE id = ?", (row[0],))
        if head.epoch >= self.meta("epoch", 0):
            self.set_meta({"refused_gone": self.meta("refused_gone", 0) + row[1]})
        return 1

    def trim(self, archive_bytes: int) -> int:
        """Delete the oldest acknowledged batches beyond the bound; sheets stay.

        So does the refused box, which is bounded as well.

        Returns:
            how many were deleted.
        """
        self._trim_refused()
        rows = self._db.execute(
            "SELECT id, size FROM batch WHERE status = ? AND is_sheet = 0 ORDER BY id DESC",
            (ACKNOWLEDGED,),
        )
        kept, bound = 0, None
        for row_id, size in rows:
            kept += size
            if kept > archive_bytes:
                bound = row_id
                break
        if bound is None:
            return 0
        gone = self._db.execute(
            "DELETE FROM batch WHERE status = ? AND is_sheet = 0 AND id <= ?", (ACKNOWLEDGED, bound)
        )
        return gone.rowcount

    def _trim_refused(self) -> None:
        rows = self._db.execute(
            "SELECT id, size FROM batch WHERE status IN (?, ?) ORDER BY id DESC", (REFUSED, LOST)
        )
        size, bound = 0, None
        for place, (row_id, bytes_) in enumerate(rows, 1):
            size += bytes_
            if size > _MOST_REFUSED_BYTES or place > _MOST_REFUSED:
                bound = row_id
                break
        if bound is None:
            return
        with _transaction(self._db):
            gone = self._db.execute(
                "SELECT COALESCE(SUM(cells), 0) FROM batch WHERE status = ? AND id <= ?"
                " AND epoch = ?",
                (REFUSED, bound, self.meta("epoch", 0)),
            ).fetchone()[0]
            self._db.execute(
                "DELETE FROM batch WHERE status IN (?, ?) AND id <= ?", (REFUSED, LOST, bound)
            )
            self.set_meta({"refused_gone": self.meta("refused_gone", 0) + gone})

    def keep_attestation(self, number: int, at_s: int, signed: bytes) -> None:
        """Keep an attestation until each brain has it; the oldest beyond a bound are forgotten."""
        with _transaction(self._db):
            self._db.execute("INSERT INTO attestation VALUES (?,?)", (number, signed))
            self._db.execute(
                "DELETE FROM attestation WHERE number <= ?", (number - _MOST_ATTESTATIONS,)
            )
            self.set_meta({"attestations": number, "attested_s": at_s})

    def attestations(self, limit: int, brains: Collection[bytes] = ()) -> list[bytes]:
        """Return the oldest attestations that each brain lacks, so many together at most.

        Args:
            limit: how many.
            brains: key ids of their receipt keys; without any, the oldest that are here.
        """
        found: dict[int, bytes] = {}
        for after in {self._attested(kid) for kid in brains} or {0}:
            rows = self._db.execute(
                "SELECT number, signed FROM attestation WHERE number > ? ORDER BY number LIMIT ?",
                (after, max(limit // max(len(brains), 1), 1)),
            )
            found.update(rows.fetchall())
        return [signed for _, signed in sorted(found.items())]

    def attested(self, kid: bytes, number: int, brains: Collection[bytes]) -> None:
        """Note that a brain keeps the attestations up to `number`; forget those that each of `brains` keeps."""
        if self._attested(kid) != number:
            self.set_meta({f"attested:{kid.hex()}": number})
        kept = min((self._attested(one) for one in brains), default=number)
        self._db.execute("DELETE FROM attestation WHERE number <= ?", (kept,))

    def _attested(self, kid: bytes) -> int:
        return int(self.meta(f"attested:{kid.hex()}", 0))

    def archived(self) -> Iterator[tuple[int, bytes]]:
        """Yield (status, sealed message) of all that is here, in the order it was sealed."""
        yield from self._db.execute(
            "SELECT status, sealed FROM batch WHERE status != ? ORDER BY id", (GIVEN_UP,)
        )

    def shrink(self) -> bool:
        """Give some unused pages back to the disk; return whether there is more to give back.

        A quarter of the file may stay unused: what comes next needs it again.
        """
        pages = self._pragma("page_count")
        spare = self._pragma("freelist_count") - max(pages // 4, _LEAST_FREE_PAGES)
        if spare <= 0 and not self._log_is_large():
            return False
        if self._pragma("auto_vacuum") == _AUTO_VACUUM:
            count = min(max(spare, 0), _SHRINK_PAGES)
            # It gives back a page with each step; only a script takes all of them.
            self._db.executescript(f"PRAGMA incremental_vacuum({count})")
        else:
            # A file of an older version; from now on it shrinks in steps.
            self._db.execute(f"PRAGMA auto_vacuum={_AUTO_VACUUM}")
            self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return spare > _SHRINK_PAGES

    def _log_is_large(self) -> bool:
        try:
            size = self._path.with_name(f"{self._path.name}-wal").stat().st_size
        except OSError:
            return False
        return size > _LOG_PAGES * self._pragma("page_size")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def waiting_bytes(self) -> int:
        """Return the size of what waits."""
        row = self._db.execute(
            "SELECT COALESCE(SUM(size), 0) FROM batch WHERE status = ?", (WAITING,)
        ).fetchone()
        return int(row[0])

    def tally(self) -> Tally:
        """Return the output sum."""
        rows = self._db.execute(
            "SELECT status, SUM(cells), COUNT(*), SUM(size) FROM batch WHERE epoch >= ?"
            " GROUP BY status",
            (self.meta("epoch", 0),),
        )
        by_status = {row[0]: row[1:] for row in rows}
        waiting, batches, size = by_status.get(WAITING, (0, 0, 0))
        refused = by_status.get(REFUSED, (0, 0, 0))[0] + self.meta("refused_gone", 0)
        given_up = by_status.get(GIVEN_UP, (0, 0, 0))[0] + self.meta("given_up", 0)
        released = self.meta("released", 0)
        acknowledged = released - waiting - refused - given_up
        lost = self.meta("lost", 0)
        return Tally(released, acknowledged, waiting, refused, batches, size, lost, given_up)


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK when anything is raised."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # When the disk is full, SQLite has rolled back by itself.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise

"""The ledger: every batch once, sealed as it came, with what was answered.

SQLite in WAL mode with synchronous=FULL; one writer. A batch is unique by its place in its chain,
and a point's slot has at most one value: covered time is kept as ranges per set of points.
"""

import hashlib
import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from aggregator.record import RECORD_SCHEMA, Record
from protocols.batch import NO_VALUE, Block
from protocols.database import open_database
from protocols.errors import MillgateError
from protocols.frame import Flags, Ints
from protocols.language import tr
from protocols.topics import Address
from security import evidence
from security.answers import Head, Refused
from security.envelope import Gap, Header, genesis

_SCHEMA_VERSION: Final = 3
_OLDER_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE agent (
    id INTEGER PRIMARY KEY, factory BLOB NOT NULL, agent BLOB NOT NULL, UNIQUE (factory, agent)
) STRICT;
CREATE TABLE chain (
    agent INTEGER, epoch INTEGER, stream INTEGER, next INTEGER NOT NULL, digest BLOB NOT NULL,
    receipt INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (agent, epoch, stream)
) STRICT, WITHOUT ROWID;
CREATE TABLE batch (
    id INTEGER PRIMARY KEY, agent INTEGER NOT NULL, epoch INTEGER NOT NULL,
    stream INTEGER NOT NULL, sequence INTEGER NOT NULL, digest BLOB NOT NULL, sheet BLOB NOT NULL,
    start_s INTEGER NOT NULL, end_s INTEGER NOT NULL, received_s INTEGER NOT NULL,
    cells INTEGER NOT NULL, sealed BLOB NOT NULL, UNIQUE (agent, epoch, stream, sequence)
) STRICT;
CREATE INDEX batch_window ON batch (agent, stream, end_s);
CREATE TABLE refused (
    agent INTEGER, epoch INTEGER, stream INTEGER, sequence INTEGER, digest BLOB, code INTEGER,
    received_s INTEGER NOT NULL, declared INTEGER NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (agent, epoch, stream, sequence, digest)
) STRICT;
CREATE TABLE sheet (
    hash BLOB, agent INTEGER, version INTEGER NOT NULL, received_s INTEGER NOT NULL,
    signed BLOB NOT NULL, PRIMARY KEY (agent, hash)
) STRICT;
CREATE TABLE points (
    id INTEGER PRIMARY KEY, agent INTEGER NOT NULL, hash BLOB NOT NULL, numbers BLOB NOT NULL,
    UNIQUE (agent, hash)
) STRICT;
CREATE TABLE covered (
    points INTEGER, start_s INTEGER, end_s INTEGER NOT NULL, PRIMARY KEY (points, start_s)
) STRICT, WITHOUT ROWID;
CREATE INDEX covered_end ON covered (points, end_s);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""
_TOTAL: Final = """
CREATE TABLE total (
    agent INTEGER PRIMARY KEY, batches INTEGER NOT NULL, cells INTEGER NOT NULL,
    received_s INTEGER NOT NULL, end_s INTEGER NOT NULL
) STRICT;
"""
_TOTAL_SO_FAR: Final = """
INSERT INTO total SELECT agent, COUNT(*), SUM(cells), MAX(received_s), MAX(end_s) FROM batch
    WHERE cells>0 GROUP BY agent;
"""

_MOST_REFUSED_BYTES: Final = 64 << 20
MOST_UNDECLARED: Final = 1024
"""How many refused messages of one chain may wait for the agent to declare them."""

_MOST_DECLARED: Final = 10_000


LedgerError = sqlite3.Error
"""What the ledger raises when the disk or the file fails; nothing of the transaction is kept."""


class LedgerFault(MillgateError):
    """The ledger cannot be used."""


class SlotTaken(MillgateError):
    """A point's slot has a value already."""


@dataclass(frozen=True, slots=True)
class Chain:
    """Where a chain stands.

    Attributes:
        agent: the agent's id in the ledger.
        next: the sequence that comes next.
        digest: hash of the message before it.
        receipt: the newest signed receipt; empty before the first.
        version: the policy version of the newest kept batch; 0 before the first.
    """

    agent: int
    next: int
    digest: bytes
    receipt: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A batch in the ledger."""

    id: int
    agent: int
    stream: int
    digest: bytes
    sheet: bytes
    start_s: int
    end_s: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What the ledger knows of a batch besides its content.

    Attributes:
        digest: hash of the sealed bytes, and of its leaf in the log.
        sheet: hash of its release sheet.
        start_s, end_s: the time it covers.
        received_s: when it was kept.
        cells: how many values it brought.
        erased: 1 where its content was deleted at the end of retention, else 0.
        place: which leaf of the log it is; None for one from before there was a log.
    """

    id: int
    epoch: int
    stream: int
    sequence: int
    digest: bytes
    sheet: bytes
    start_s: int
    end_s: int
    received_s: int
    cells: int
    erased: int
    place: int | None


@dataclass(frozen=True, slots=True)
class SheetRow:
    """Which release sheet it is, and when it came."""

    hash: bytes
    version: int
    received_s: int


Open = Callable[[Kept], Sequence[tuple[int, Block]]]
"""Opens a kept batch: its slot length in seconds with each of its blocks."""


class Ledger:
    """One connection to the ledger file; each thread that writes or reads has its own."""

    def __init__(self, path: Path) -> None:
        self._points: dict[int, _PointSets] = {}
        self._lock = threading.Lock()
        try:
            self._db = open_database(
                path,
                f"{_SCHEMA} {_TOTAL} {RECORD_SCHEMA}",
                _SCHEMA_VERSION,
                upgrades={_OLDER_VERSION: _TOTAL + _TOTAL_SO_FAR},
            )
            self.record = Record(self._db)
        except sqlite3.Error as error:
            raise LedgerFault(
                tr("the ledger cannot be opened", "无法打开账本"),
                where=str(path),
                remedy=tr(
                    f"check disk and permissions ({type(error).__name__}); restore it from a backup "
                    "if it is damaged; docs/operations.md says how agents send again what they keep",
                    f"请检查磁盘与权限（{type(error).__name__}）；若已损坏请从备份恢复；"
                    "代理程序如何补发见 docs/operations.zh-CN.md",
                ),
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # What was learnt inside is gone with it.
                self._points.clear()
                # When the disk is full, SQLite has rolled back by itself.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo what happens inside when it raises, and nothing else; within a transaction."""
        self._db.execute("SAVEPOINT attempt")
        try:
            yield
        except BaseException:
            self._points.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK TO attempt")
                self._db.execute("RELEASE attempt")
            raise
        self._db.execute("RELEASE attempt")

    # Writing.

    def chain(self, header: Header) -> Chain:
        """Return where the message's chain stands; a new one stands at its genesis."""
        address = header.address
        agent = self.agent(address)
        row = self._db.execute(
            "SELECT next, digest, COALESCE(signed, x''), version FROM chain"
            " LEFT JOIN receipt ON receipt.id = chain.receipt"
            " WHERE chain.agent=? AND epoch=? AND stream=?",
            (agent, header.epoch, header.stream),
        ).fetchone()
        if row is None:
            return Chain(agent, 0, genesis(address, header.epoch, header.stream), b"", 0)
        return Chain(agent, *row)

    def next_of(self, agent: int, epoch: int, stream: int) -> int:
        """Return the sequence that comes next in a chain."""
        row = self._db.execute(
            "SELECT next FROM chain WHERE agent=? AND epoch=? AND stream=?", (agent, epoch, stream)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def agent(self, address: Address) -> int:
        """Return the agent's id in the ledger; it gets one when it has none."""
        row = self._db.execute(
            "SELECT id FROM agent WHERE factory=? AND agent=?", (address.factory, address.agent)
        ).fetchone()
        if row is not None:
            return int(row[0])
        return int(
            self._db.execute(
                "INSERT INTO agent (factory, agent) VALUES (?,?)", (address.factory, address.agent)
            ).lastrowid
            or 0
        )

    def digest_at(self, agent: int, header: Header) -> bytes:
        """Return the hash of the message known at a place of a chain; empty when there is none."""
        return self._digest(agent, header.epoch, header.stream, header.sequence)

    def _digest(self, agent: int, *place: int) -> bytes:
        for table in ("batch", "refused"):
            row = self._db.execute(
                f"SELECT digest FROM {table} WHERE agent=? AND epoch=? AND stream=? AND sequence=?",  # noqa: S608 - one of two constants
                (agent, *place),
            ).fetchone()
            if row is not None:
                return bytes(row[0])
        return self.record.digest_at(agent, *place)

    def sealed_at(self, agent: int, header: Header) -> bytes:
        """Return the message kept at a place of a chain; empty when its bytes are not here."""
        for table in ("batch", "refused"):
            row = self._db.execute(
                f"SELECT sealed FROM {table} WHERE agent=? AND epoch=? AND stream=? AND sequence=?",  # noqa: S608 - one of two constants
                (agent, header.epoch, header.stream, header.sequence),
            ).fetchone()
            if row is not None:
                return bytes(row[0])
        return b""

    def keep(
        self, agent: int, header: Header, digest: bytes, sealed: bytes, cells: int, now_s: int
    ) -> int:
        """Keep a batch, or a sheet's message with 0 cells; return its id."""
        cursor = self._db.execute(
            "INSERT INTO batch (agent, epoch, stream, sequence, digest, sheet, start_s, end_s,"
            " received_s, cells, sealed) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                agent,
                header.epoch,
                header.stream,
                header.sequence,
                digest,
                header.sheet_hash,
                *header.window,
                now_s,
                cells,
                sealed,
            ),
        )
        if cells:
            self._db.execute(
                "INSERT INTO total VALUES (?,1,?,?,?) ON CONFLICT (agent) DO UPDATE SET"
                " batches=batches+1, cells=cells+excluded.cells,"
                " received_s=MAX(received_s, excluded.received_s), end_s=MAX(end_s, excluded.end_s)",
                (agent, cells, now_s, header.window[1]),
            )
        self._advance(agent, header, digest, header.policy_version if cells else 0)
        self.record.message(agent, evidence.KEPT, header, digest, now_s)
        return int(cursor.lastrowid or 0)

    def refuse(
        self, agent: int, header: Header, digest: bytes, sealed: bytes, code: int, now_s: int
    ) -> None:
        """Keep a refused message apart, its bytes within a bound, and let the chain go on."""
        kept = self._db.execute("SELECT COALESCE(SUM(LENGTH(sealed)),0) FROM refused").fetchone()[0]
        room = kept + len(sealed) <= _MOST_REFUSED_BYTES
        self._db.execute(
            "INSERT OR IGNORE INTO refused VALUES (?,?,?,?,?,?,?,0,?)",
            (
                agent,
                header.epoch,
                header.stream,
                header.sequence,
                digest,
                code,
                now_s,
                sealed if room else b"",
            ),
        )
        self._db.execute(
            "DELETE FROM refused WHERE rowid IN (SELECT rowid FROM refused WHERE declared=1"
            " ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
            (_MOST_DECLARED,),
        )
        self._advance(agent, header, digest, 0)
        self.record.message(agent, evidence.REFUSED, header, digest, now_s)

    def _advance(self, agent: int, header: Header, digest: bytes, version: int) -> None:
        self._db.execute(
            "INSERT INTO chain VALUES (?,?,?,?,?,0,?) ON CONFLICT (agent, epoch, stream)"
            " DO UPDATE SET next=excluded.next, digest=excluded.digest,"
            " version=MAX(version, excluded.version)",
            (agent, header.epoch, header.stream, header.sequence + 1, digest, version),
        )

    def declare(self, agent: int, header: Header, gaps: Sequence[Gap]) -> None:
        """Note which refused messages the agent has declared as gaps."""
        self._db.executemany(
            "UPDATE refused SET declared=1 WHERE agent=? AND epoch=? AND stream=?"
            " AND sequence BETWEEN ? AND ?",
            [(agent, header.epoch, header.stream, gap.first, gap.last) for gap in gaps],
        )

    def keep_sheet(self, agent: int, sheet: bytes, version: int, signed: bytes, now_s: int) -> None:
        """Keep a verified release sheet."""
        self._db.execute(
            "INSERT OR IGNORE INTO sheet VALUES (?,?,?,?,?)", (sheet, agent, version, now_s, signed)
        )

    def cover(self, agent: int, window_s: int, block: Block, overlap: "Overlap") -> None:
        """Mark the time that a block covers for its points; note it where that was covered."""
        start, end = block.slot * window_s, (block.slot + block.rows) * window_s
        own, related = self._point_set(agent, block.numbers)
        if any(self._overlaps(points, start, end) for points in related):
            overlap.note(block)
        self._extend(own, start, end)

    def _point_set(self, agent: int, numbers: Ints) -> tuple[int, list[int]]:
        """Return the id of a set of points, and the ids of all sets that share a point with it."""
        raw = numbers.astype(np.int64).tobytes()
        known = self._points.get(agent)
        if known is None:
            known = self._points[agent] = _PointSets()
            for row in self._db.execute("SELECT id, numbers FROM points WHERE agent=?", (agent,)):
                known.add(*row)
        found = known.find(raw)
        if found is None:
            cursor = self._db.execute(
                "INSERT INTO points (agent, hash, numbers) VALUES (?,?,?)",
                (agent, hashlib.sha256(raw).digest(), raw),
            )
            found = known.add(int(cursor.lastrowid or 0), raw)
        return found

    def _overlaps(self, points: int, start: int, end: int) -> bool:
        row = self._db.execute(
            "SELECT 1 FROM covered WHERE points=? AND end_s>? AND start_s<? LIMIT 1",
            (points, start, end),
        ).fetchone()
        return row is not None

    def _extend(self, points: int, start: int, end: int) -> None:
        """Add a range, joined with all that it touches, so that the table stays small."""
        touching = self._db.execute(
            "SELECT start_s, end_s FROM covered WHERE points=? AND end_s>=? AND start_s<=?",
            (points, start, end),
        ).fetchall()
        low = min([start, *(row[0] for row in touching)])
        high = max([end, *(row[1] for row in touching)])
        self._db.executemany(
            "DELETE FROM covered WHERE points=? AND start_s=?",
            [(points, row[0]) for row in touching],
        )
        self._db.execute("INSERT INTO covered VALUES (?,?,?)", (points, low, high))

    def answer(self, agent: int, heads: Sequence[Head], signed: bytes, now_s: int) -> None:
        """Note the receipt that was signed for these heads; replays get the same."""
        receipt = self.record.keep_receipt(agent, now_s, signed)
        self._db.executemany(
            "UPDATE chain SET receipt=? WHERE agent=? AND epoch=? AND stream=?",
            [(receipt, agent, head.epoch, head.stream) for head in heads],
        )

    def is_full_of_refused(self, agent: int, header: Header) -> bool:
        """Tell whether a chain has as many refused, undeclared messages as are kept."""
        found = self._db.execute(
            "SELECT COUNT(*) FROM refused WHERE agent=? AND epoch=? AND stream=? AND declared=0",
            (agent, header.epoch, header.stream),
        ).fetchone()[0]
        return int(found) >= MOST_UNDECLARED

    def undeclared(self, agent: int, head: Head, limit: int) -> list[Refused]:
        """Return what was refused up to a head and not declared yet, oldest first."""
        rows = self._db.execute(
            "SELECT sequence, digest, code FROM refused WHERE agent=? AND epoch=? AND stream=?"
            " AND declared=0 AND sequence<=? ORDER BY sequence LIMIT ?",
            (agent, head.epoch, head.stream, head.sequence, limit),
        )
        return [Refused(Head(head.epoch, head.stream, row[0], row[1]), row[2]) for row in rows]

    def head_before(self, agent: int, head: Head) -> Head | None:
        """Return the head of the same chain one message earlier; None at its beginning."""
        sequence = head.sequence - 1
        found = self._digest(agent, head.epoch, head.stream, sequence)
        return Head(head.epoch, head.stream, sequence, found) if found else None

    def count(self, counts: Counter[str]) -> None:
        """Add to durable counters."""
        self._db.executemany(
            "INSERT INTO counter VALUES (?,?) ON CONFLICT (name)"
            " DO UPDATE SET value=value+excluded.value",
            list(counts.items()),
        )

    def erase(self, batches: Sequence[Kept]) -> None:
        """Erase the content of batches; their places, hashes and covered time stay for good."""
        self._db.execute("PRAGMA secure_delete=ON")
        with self.transaction():
            self._db.executemany(
                "UPDATE batch SET sealed=x'' WHERE id=?", [(kept.id,) for kept in batches]
            )
        self.overwrite()

    def overwrite(self) -> bool:
        """Let go of the write-ahead log, which has pages as they were; tell whether it could be done.

        It cannot while others read these pages. Call it again later, and once at the start: what
        hindered it may have been a crash.
        """
        (busy, *_) = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    # Reading.

    def ended(
        self, agent: int, sheet: bytes, stream: int, end_s: int, limit: int, after_id: int = 0
    ) -> list[Kept]:
        """Return a stream's oldest batches under a sheet, ended by then and not erased yet.

        Args:
            end_s: seconds since 1970 UTC.
            limit: how many at most.
            after_id: only those whose id is above.
        """
        rows = self._db.execute(
            "SELECT id, agent, stream, digest, sheet, start_s, end_s, sealed FROM batch"
            " WHERE agent=? AND stream=? AND end_s<=? AND sheet=? AND cells>0 AND LENGTH(sealed)>0"
            " AND id>? ORDER BY id LIMIT ?",
            (agent, stream, end_s, sheet, after_id, limit),
        )
        return [Kept(*row) for row in rows]

    def sheet_hashes(self, agent: int, limit: int) -> list[bytes]:
        """Return the hashes of an agent's sheets, oldest first."""
        rows = self._db.execute(
            "SELECT hash FROM sheet WHERE agent=? ORDER BY received_s LIMIT ?", (agent, limit)
        )
        return [row[0] for row in rows]

    def sheets_in_order(self, agents: Sequence[int]) -> list[tuple[int, bytes]]:
        """Return (agent, hash) of all sheets of some agents in the order they were kept."""
        marks = ",".join("?" * len(agents))
        return self._db.execute(
            f"SELECT agent, hash FROM sheet WHERE agent IN ({marks}) ORDER BY received_s, rowid",  # noqa: S608 - only question marks
            tuple(agents),
        ).fetchall()

    def hours(self, after_id: int, up_to: int) -> list[tuple[int, int, int]]:
        """Return (agent, first, last) of UTC hours that batches touch, with the hour after each.

        Args:
            after_id, up_to: of batches with values whose id is above `after_id` and at most `up_to`.
        """
        return self._db.execute(
            "SELECT DISTINCT agent, start_s/3600, end_s/3600 FROM batch"
            " WHERE id>? AND id<=? AND cells>0",
            (after_id, up_to),
        ).fetchall()

    def erased(self, agent: int) -> list[tuple[int, int, int, bytes]]:
        """Return (epoch, stream, sequence, digest) of an agent's erased batches, in this order."""
        return self._db.execute(
            "SELECT epoch, stream, sequence, digest FROM batch"
            " WHERE agent=? AND cells>0 AND LENGTH(sealed)=0 ORDER BY epoch, stream, sequence",
            (agent,),
        ).fetchall()

    def sheet(self, agent: int, sheet_hash: bytes) -> bytes | None:
        """Return a signed sheet."""
        row = self._db.execute(
            "SELECT signed FROM sheet WHERE agent=? AND hash=?", (agent, sheet_hash)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def batches(self, after_id: int, limit: int) -> list[Kept]:
        """Return batches with values in the order they were kept."""
        rows = self._db.execute(
            "SELECT id, agent, stream, digest, sheet, start_s, end_s, sealed FROM batch"
            " WHERE id>? AND cells>0 AND LENGTH(sealed)>0 ORDER BY id LIMIT ?",
            (after_id, limit),
        )
        return [Kept(*row) for row in rows]

    def digest_of(self, batch: int) -> bytes:
        """Return the hash of a batch by its id; empty where there is none."""
        row = self._db.execute("SELECT digest FROM batch WHERE id=?", (batch,)).fetchone()
        return b"" if row is None else bytes(row[0])

    def waiting(self, after_id: int) -> tuple[int, int | None]:
        """Return how many batches with values came after one, and when the oldest was received."""
        row = self._db.execute(
            "SELECT COUNT(*), MIN(received_s) FROM batch"
            " WHERE id>? AND cells>0 AND LENGTH(sealed)>0",
            (after_id,),
        ).fetchone()
        return row[0], row[1]

    def has_batches(self, agent: int, up_to: int) -> bool:
        """Tell whether an agent has a batch with values whose id is at most `up_to`."""
        row = self._db.execute(
            "SELECT 1 FROM batch WHERE agent=? AND id<=? AND cells>0 LIMIT 1", (agent, up_to)
        ).fetchone()
        return row is not None

    def overlapping(self, agent: int, start_s: int, end_s: int) -> Iterator[Kept]:
        """Yield an agent's batches that touch a window, one at a time: there may be years of them."""
        # Streams are named since the index has them before the time.
        found = self._db.execute(
            "SELECT id FROM batch WHERE agent=?1 AND end_s>?2 AND start_s<?3 AND cells>0"
            " AND stream IN (SELECT stream FROM chain WHERE agent=?1) ORDER BY id",
            (agent, start_s, end_s),
        ).fetchall()
        for number in found:
            row = self._db.execute(
                "SELECT id, agent, stream, digest, sheet, start_s, end_s, sealed FROM batch"
                " WHERE id=?",
                number,
            ).fetchone()
            yield Kept(*row)

    def covering(
        self, agent: int, streams: Sequence[int], start_s: int, end_s: int, limit: int
    ) -> list[Batch]:
        """Return what is known of an agent's batches of some streams that touch a span, newest first."""
        rows = self._db.execute(
            "SELECT id, batch.epoch, batch.stream, batch.sequence, batch.digest, sheet, start_s,"
            " end_s, batch.received_s, cells, LENGTH(sealed)=0, place FROM batch"
            " LEFT JOIN log ON log.agent=batch.agent AND log.epoch=batch.epoch"
            " AND log.stream=batch.stream AND log.sequence=batch.sequence"
            " AND log.digest=batch.digest"
            " WHERE batch.agent=? AND batch.stream IN (SELECT value FROM json_each(?))"
            " AND end_s>? AND start_s<? AND cells>0 ORDER BY id DESC LIMIT ?",
            (agent, json.dumps(list(streams)), start_s, end_s, limit),
        )
        return [Batch(*row) for row in rows]

    def address(self, agent: int) -> Address:
        """Return an agent's address."""
        row = self._db.execute("SELECT factory, agent FROM agent WHERE id=?", (agent,)).fetchone()
        return Address(*row)

    def agents(self) -> dict[Address, int]:
        """Return all agents that ever sent something valid."""
        rows = self._db.execute("SELECT factory, agent, id FROM agent")
        return {Address(row[0], row[1]): row[2] for row in rows}

    def stored(self, agent: int) -> dict[int, int]:
        """Return how many values of an agent are kept, by epoch."""
        rows = self._db.execute(
            "SELECT epoch, SUM(cells) FROM batch WHERE agent=? GROUP BY epoch", (agent,)
        )
        return dict(rows.fetchall())

    def stored_before(self, agent: int, epoch: int, ends: Mapping[int, int]) -> int:
        """Return how many values are kept of what an epoch's streams held before these sequences."""
        return sum(
            self._db.execute(
                "SELECT COALESCE(SUM(cells), 0) FROM batch"
                " WHERE agent=? AND epoch=? AND stream=? AND sequence<?",
                (agent, epoch, stream, end),
            ).fetchone()[0]
            for stream, end in ends.items()
        )

    def begun(self, agent: int) -> list[tuple[int, int]]:
        """Return each epoch of an agent that brought values, and where (s) its first slot begins."""
        return self._db.execute(
            "SELECT epoch, MIN(start_s) FROM batch WHERE agent=? AND cells>0"
            " GROUP BY epoch ORDER BY epoch",
            (agent,),
        ).fetchall()

    def totals(self, agent: int) -> tuple[int, int, int, int | None, int | None]:
        """Return batches, values, refused batches, newest receive time and newest slot end (s)."""
        kept = self._db.execute(
            "SELECT batches, cells, received_s, end_s FROM total WHERE agent=?", (agent,)
        ).fetchone() or (0, 0, None, None)
        refused = self._db.execute(
            "SELECT COUNT(*) FROM refused WHERE agent=?", (agent,)
        ).fetchone()[0]
        return kept[0], kept[1], refused, kept[2], kept[3]

    def sheets(self, agent: int) -> list[tuple[bytes, int, bytes]]:
        """Return (hash, received_s, signed) of an agent's sheets, newest version first."""
        return self._db.execute(
            "SELECT hash, received_s, signed FROM sheet WHERE agent=? ORDER BY version DESC,"
            " received_s DESC LIMIT 16",
            (agent,),
        ).fetchall()

    def place_of(self, batch: int) -> tuple[int, int, int]:
        """Return epoch, stream and sequence of a batch that is here."""
        row = self._db.execute(
            "SELECT epoch, stream, sequence FROM batch WHERE id=?", (batch,)
        ).fetchone()
        return row[0], row[1], row[2]

    def newest_sheet(self, agent: int) -> SheetRow | None:
        """Return an agent's release sheet of the newest policy version; None before the first."""
        row = self._db.execute(
            "SELECT hash, version, received_s FROM sheet WHERE agent=?"
            " ORDER BY version DESC, received_s DESC LIMIT 1",
            (agent,),
        ).fetchone()
        return None if row is None else SheetRow(*row)

    def last_decided(self, agent: int) -> int:
        """Return when an agent's newest message was decided about, seconds; 0 before the first."""
        found = self._db.execute(
            "SELECT MAX(log.received_s) FROM chain JOIN log ON log.agent=chain.agent"
            " AND log.epoch=chain.epoch AND log.stream=chain.stream AND log.sequence=chain.next-1"
            " WHERE chain.agent=?",
            (agent,),
        ).fetchone()[0]
        return int(found or 0)

    def newest_received(self) -> int:
        """Return the newest time at which anything was kept, seconds; 0 before the first."""
        return int(self._db.execute("SELECT COALESCE(MAX(received_s), 0) FROM log").fetchone()[0])

    def last_received(self) -> int:
        """Return when the last was kept, by the clock of that moment; seconds, 0 before the first."""
        row = self._db.execute("SELECT received_s FROM log ORDER BY place DESC LIMIT 1").fetchone()
        return 0 if row is None else int(row[0])

    def counters(self) -> dict[str, int]:
        """Return the durable counters."""
        return dict(self._db.execute("SELECT name, value FROM counter ORDER BY name").fetchall())


class _PointSets:
    """The sets of points of one agent's blocks, and which of them share a point.

    There is a set for each device and more, so a new one is compared with each other only once,
    and closely only with those whose numbers lie in the same range.
    """

    def __init__(self) -> None:
        self._found: dict[bytes, tuple[int, list[int]]] = {}
        self._ranges: list[tuple[int, int, bytes]] = []

    def find(self, raw: bytes) -> tuple[int, list[int]] | None:
        """Return a set's id and the ids of all that share a point with it; None for a new one."""
        return self._found.get(raw)

    def add(self, number: int, raw: bytes) -> tuple[int, list[int]]:
        """Add a set, written as ascending int64; return what `find` will."""
        mine = np.frombuffer(raw, np.int64)
        first, last = int(mine[0]), int(mine[-1])
        related = [number]
        for other_first, other_last, other in self._ranges:
            if other_first <= last and other_last >= first and _share(mine, other):
                other_number, other_related = self._found[other]
                related.append(other_number)
                other_related.append(number)
        self._ranges.append((first, last, raw))
        self._found[raw] = (number, related)
        return self._found[raw]


def _share(mine: Ints, other: bytes) -> bool:
    return bool(np.isin(mine, np.frombuffer(other, np.int64), assume_unique=True).any())


class Overlap:
    """Looks whether the blocks of one batch that overlap covered time only fill what was missing."""

    def __init__(self, ledger: Ledger, open_blocks: Open) -> None:
        self._ledger = ledger
        self._open = open_blocks
        self._noted: list[Block] = []

    def note(self, block: Block) -> None:
        """Remember a block some of whose time was covered; without a value it cannot collide."""
        if block.values:
            self._noted.append(block)

    def check(self, agent: int, window_s: int) -> None:
        """Compare what was noted with what is kept.

        Raises:
            SlotTaken: when a point's slot has a value here and there.
        """
        if not self._noted:
            return
        starts = np.array([block.slot for block in self._noted], np.int64) * window_s
        rows = np.array([block.rows for block in self._noted], np.int64)
        ends = starts + rows * window_s
        for kept in self._touched(agent, starts, ends):
            if not kept.sealed:
                # What was erased cannot be compared any more, and must not come back.
                if ((starts < kept.end_s) & (ends > kept.start_s)).any():
                    raise SlotTaken("a slot was erased when its retention ended")
                continue
            for old_window_s, old in self._open(kept):
                start, end = old.slot * old_window_s, (old.slot + old.rows) * old_window_s
                for at in np.flatnonzero((starts < end) & (ends > start)).tolist():
                    block = self._noted[at]
                    taken = _filled(block, window_s, old, old_window_s)
                    if (taken & (block.quality != NO_VALUE)).any():
                        raise SlotTaken("a slot has a value already")

    def _touched(self, agent: int, starts: Ints, ends: Ints) -> Iterator[Kept]:
        """Yield the batches that touch any of some spans, and none that lies between them."""
        order = np.argsort(starts)
        spans = zip(starts[order].tolist(), ends[order].tolist(), strict=True)
        start, end = next(spans)
        for first, last in spans:
            if first > end:
                yield from self._ledger.overlapping(agent, start, end)
                start = first
            end = max(end, last)
        yield from self._ledger.overlapping(agent, start, end)


def repeats(blocks: Sequence[Block]) -> bool:
    """Tell whether a point has two values for one slot within these blocks."""
    ranges = sorted((int(block.numbers[0]), int(block.numbers[-1])) for block in blocks)
    if all(before[1] < after[0] for before, after in pairwise(ranges)):
        return False
    numbers = np.concatenate([block.numbers for block in blocks])
    if len(np.unique(numbers)) == len(numbers):
        return False
    cells = [np.nonzero(block.quality != NO_VALUE) for block in blocks]
    slots = np.concatenate([b.slot + rows for b, (rows, _) in zip(blocks, cells, strict=True)])
    points = np.concatenate([b.numbers[at] for b, (_, at) in zip(blocks, cells, strict=True)])
    order = np.lexsort((slots, points))
    same = (np.diff(slots[order]) == 0) & (np.diff(points[order]) == 0)
    return bool(same.any())


def _filled(block: Block, window_s: int, old: Block, old_window_s: int) -> Flags:
    """Return which cells of `block` overlap in time with a value of the same point in `old`."""
    found = np.zeros(block.mantissa.shape, np.bool_)
    _, mine, theirs = np.intersect1d(
        block.numbers, old.numbers, assume_unique=True, return_indices=True
    )
    if not len(mine):
        return found
    starts = (block.slot + np.arange(block.rows)) * window_s
    old_starts = (old.slot + np.arange(old.rows)) * old_window_s
    # The old slots that each slot touches are those from `first` to before `last`.
    first = np.searchsorted(old_starts + old_window_s, starts, side="right")
    last = np.searchsorted(old_starts, starts + window_s, side="left")
    before = np.zeros((old.rows + 1, len(theirs)), np.int64)
    np.cumsum(old.quality[:, theirs] != NO_VALUE, axis=0, out=before[1:])
    found[:, mine] = before[last] > before[first]
    return found

"""What the ledger keeps so that nobody has to be believed: the Merkle log, receipts, proofs, alarms.

All of it lives in the ledger's file and in its transactions; the ledger owns the connection.
"""

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from security import transparency
from security.answers import NO_LOG, Head, Log
from security.envelope import Header
from security.evidence import KEPT, LOSS, REFUSED
from security.statements import Attestation, Loss

RECORD_SCHEMA: Final = """
CREATE TABLE log (
    place INTEGER PRIMARY KEY, agent INTEGER NOT NULL, kind INTEGER NOT NULL,
    epoch INTEGER NOT NULL, stream INTEGER NOT NULL, sequence INTEGER NOT NULL,
    received_s INTEGER NOT NULL, digest BLOB NOT NULL
) STRICT;
CREATE INDEX log_place ON log (agent, epoch, stream, sequence);
CREATE INDEX log_time ON log (received_s);
CREATE TABLE node (
    level INTEGER, place INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE receipt (
    id INTEGER PRIMARY KEY, agent INTEGER NOT NULL, issued_s INTEGER NOT NULL,
    signed BLOB NOT NULL
) STRICT;
CREATE INDEX receipt_agent ON receipt (agent, issued_s);
CREATE TABLE loss (
    agent INTEGER, epoch INTEGER, stream INTEGER, first INTEGER, last INTEGER NOT NULL,
    reason INTEGER NOT NULL, received_s INTEGER NOT NULL, signed BLOB NOT NULL,
    PRIMARY KEY (agent, epoch, stream, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE equivocation (
    agent INTEGER, epoch INTEGER, stream INTEGER, sequence INTEGER, received_s INTEGER NOT NULL,
    first BLOB NOT NULL, second BLOB NOT NULL, PRIMARY KEY (agent, epoch, stream, sequence)
) STRICT;
CREATE TABLE quarantine (
    agent INTEGER PRIMARY KEY, since_s INTEGER NOT NULL, why TEXT NOT NULL
) STRICT;
CREATE TABLE attestation (
    agent INTEGER, number INTEGER, epoch INTEGER NOT NULL, issued_s INTEGER NOT NULL,
    received_s INTEGER NOT NULL, signed BLOB NOT NULL, PRIMARY KEY (agent, number)
) STRICT;
CREATE TABLE alarm (
    id INTEGER PRIMARY KEY, agent INTEGER NOT NULL, kind TEXT NOT NULL, epoch INTEGER NOT NULL,
    stream INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    since_s INTEGER NOT NULL, until_s INTEGER
) STRICT;
CREATE INDEX alarm_open ON alarm (agent, until_s);
"""

REVOKED: Final = "revoked"
"""Why an agent is quarantined whose certificates were revoked; see `aggregator.trust`."""

_MOST_PROOFS: Final = 16
_MOST_ATTESTATIONS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of the log.

    Attributes:
        place: which leaf.
        kind: KEPT, REFUSED, LOSS or ATTESTATION.
        sequence: of a message; the first of a loss; the number of an attestation.
        digest: what the leaf holds: the hash of the signed bytes.
    """

    place: int
    agent: int
    kind: int
    epoch: int
    stream: int
    sequence: int
    received_s: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something is missing or contradicts itself.

    Attributes:
        agent: whom it concerns; 0 for the brain itself.
        kind: its name, see `aggregator.alarms`.
        first, last: the exact range it concerns, see there.
        since_s, until_s: when it was raised and, once it is over, cleared.
        id: given by the record.
    """

    agent: int
    kind: str
    epoch: int
    stream: int
    first: int
    last: int
    since_s: int
    until_s: int | None = None
    id: int = 0


_ALARM = "SELECT agent, kind, epoch, stream, first, last, since_s, until_s, id FROM alarm"


class Record:
    """The evidence tables, on the ledger's connection."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    # The log.

    def size(self) -> int:
        """Return how many leaves the log has."""
        return int(self._db.execute("SELECT COALESCE(MAX(place) + 1, 0) FROM log").fetchone()[0])

    def node(self, level: int, place: int) -> bytes:
        """Return the hash of a perfect subtree."""
        row = self._db.execute(
            "SELECT hash FROM node WHERE level=? AND place=?", (level, place)
        ).fetchone()
        return bytes(row[0])

    def _put(self, level: int, place: int, found: bytes) -> None:
        self._db.execute("INSERT INTO node VALUES (?,?,?)", (level, place, found))

    def enter(self, leaf: Leaf) -> int:
        """Append a leaf; its `place` is given here and returned."""
        place = self.size()
        self._db.execute(
            "INSERT INTO log VALUES (?,?,?,?,?,?,?,?)",
            (
                place,
                leaf.agent,
                leaf.kind,
                leaf.epoch,
                leaf.stream,
                leaf.sequence,
                leaf.received_s,
                leaf.digest,
            ),
        )
        transparency.append(place, leaf.digest, self.node, self._put)
        return place

    def message(self, agent: int, kind: int, header: Header, digest: bytes, now_s: int) -> None:
        """Append the leaf of a message that was decided about."""
        place = header.epoch, header.stream, header.sequence
        self.enter(Leaf(-1, agent, kind, *place, now_s, digest))

    def log(self) -> Log:
        """Return the log's size and root."""
        size = self.size()
        return Log(size, transparency.root(size, self.node)) if size else NO_LOG

    def consistency(self, older: int, newer: int) -> list[bytes]:
        """Return the proof that the log only grew; empty where the older one is larger."""
        return transparency.consistency(older, newer, self.node) if older <= newer else []

    def inclusion(self, place: int, size: int) -> list[bytes]:
        """Return the proof that a leaf is in the log."""
        return transparency.inclusion(place, size, self.node)

    def leaves(self, from_s: int, to_s: int) -> list[Leaf]:
        """Return the leaves that came in a span of time, [from, to), in order."""
        rows = self._db.execute(
            "SELECT * FROM log WHERE received_s >= ? AND received_s < ? ORDER BY place",
            (from_s, to_s),
        )
        return [Leaf(*row) for row in rows]

    def digest_at(self, agent: int, *place: int) -> bytes:
        """Return the hash that the log has for a message of a chain; empty when it has none."""
        row = self._db.execute(
            "SELECT digest FROM log WHERE agent=? AND epoch=? AND stream=? AND sequence=?"
            " AND kind IN (?, ?)",
            (agent, *place, KEPT, REFUSED),
        ).fetchone()
        return b"" if row is None else bytes(row[0])

    # Receipts.

    def keep_receipt(self, agent: int, issued_s: int, signed: bytes) -> int:
        """Keep a signed receipt; return its id."""
        cursor = self._db.execute(
            "INSERT INTO receipt (agent, issued_s, signed) VALUES (?,?,?)",
            (agent, issued_s, signed),
        )
        return int(cursor.lastrowid or 0)

    def old_receipts(
        self, after_id: int, before_s: int, limit: int
    ) -> list[tuple[int, int, int, bytes]]:
        """Return (id, agent, issued_s, signed) of receipts issued before a time, in order."""
        return self._db.execute(
            "SELECT id, agent, issued_s, signed FROM receipt WHERE id>? AND issued_s<?"
            " ORDER BY id LIMIT ?",
            (after_id, before_s, limit),
        ).fetchall()

    def forget_receipts(self, numbers: Sequence[int]) -> None:
        """Delete receipts, but never one that replays are answered with."""
        self._db.executemany(
            "DELETE FROM receipt WHERE id=? AND id NOT IN (SELECT receipt FROM chain)",
            [(number,) for number in numbers],
        )

    def receipts(self, agent: int, from_s: int, to_s: int) -> list[bytes]:
        """Return the receipts signed in a span of time."""
        rows = self._db.execute(
            "SELECT signed FROM receipt WHERE agent=? AND issued_s>=? AND issued_s<? ORDER BY id",
            (agent, from_s, to_s),
        )
        return [row[0] for row in rows]

    def receipts_over(self, agent: int, from_s: int, to_s: int) -> list[bytes]:
        """Return the receipts of a span, and the first one after it: it may cover the last."""
        row = self._db.execute(
            "SELECT signed FROM receipt WHERE agent=? AND issued_s>=? ORDER BY id LIMIT 1",
            (agent, to_s),
        ).fetchone()
        return [*self.receipts(agent, from_s, to_s), *([row[0]] if row is not None else [])]

    # Losses.

    def keep_loss(self, agent: int, loss: Loss, signed: bytes, digest: bytes, now_s: int) -> None:
        """Keep a declared loss, and let the chain go on behind it."""
        self._db.execute(
            "INSERT INTO loss VALUES (?,?,?,?,?,?,?,?)",
            (
                agent,
                loss.epoch,
                loss.stream,
                loss.first,
                loss.last,
                loss.reason,
                now_s,
                signed,
            ),
        )
        self.enter(Leaf(-1, agent, LOSS, loss.epoch, loss.stream, loss.first, now_s, digest))
        self._db.execute(
            "INSERT INTO chain VALUES (?,?,?,?,?,0,0) ON CONFLICT (agent, epoch, stream)"
            " DO UPDATE SET next=excluded.next, digest=excluded.digest",
            (agent, loss.epoch, loss.stream, loss.last + 1, loss.digest),
        )

    def losses(self, agent: int, from_s: int, to_s: int) -> list[bytes]:
        """Return the signed losses that came in a span of time."""
        rows = self._db.execute(
            "SELECT signed FROM loss WHERE agent=? AND received_s>=? AND received_s<?"
            " ORDER BY received_s",
            (agent, from_s, to_s),
        )
        return [row[0] for row in rows]

    # Two messages for one place.

    def equivocation(
        self, agent: int, header: Header, first: bytes, second: bytes, now_s: int
    ) -> None:
        """Keep both messages as proof, the first few times, and quarantine the agent."""
        kept = self._db.execute(
            "SELECT COUNT(*) FROM equivocation WHERE agent=?", (agent,)
        ).fetchone()[0]
        place = (agent, header.epoch, header.stream, header.sequence)
        if kept < _MOST_PROOFS:
            self._db.execute(
                "INSERT OR IGNORE INTO equivocation VALUES (?,?,?,?,?,?,?)",
                (*place, now_s, first, second),
            )
        self.quarantine(agent, now_s, "equivocation")

    def quarantine(self, agent: int, now_s: int, why: str) -> None:
        """Take nothing more from an agent; the first reason stays, but being revoked is for good."""
        self._db.execute(
            "INSERT INTO quarantine VALUES (?,?,?) ON CONFLICT (agent) DO UPDATE"
            " SET since_s=excluded.since_s, why=excluded.why"
            " WHERE excluded.why=? AND why<>excluded.why",
            (agent, now_s, why, REVOKED),
        )

    def signed_leaf(self, leaf: Leaf) -> bytes:
        """Return the signed bytes that a leaf names; empty when they are no longer here."""
        place: tuple[int, ...] = (leaf.agent, leaf.epoch, leaf.stream, leaf.sequence)
        query = {
            KEPT: "SELECT sealed FROM batch WHERE agent=? AND epoch=? AND stream=? AND sequence=?",
            REFUSED: "SELECT sealed FROM refused WHERE agent=? AND epoch=? AND stream=?"
            " AND sequence=?",
            LOSS: "SELECT signed FROM loss WHERE agent=? AND epoch=? AND stream=? AND first=?",
        }.get(leaf.kind)
        if query is None:
            query, place = (
                "SELECT signed FROM attestation WHERE agent=? AND number=?",
                (
                    leaf.agent,
                    leaf.sequence,
                ),
            )
        row = self._db.execute(query, place).fetchone()
        return b"" if row is None or row[0] is None else bytes(row[0])

    def equivocations(self, agent: int) -> list[tuple[bytes, bytes]]:
        """Return the kept pairs of messages."""
        return self._db.execute(
            "SELECT first, second FROM equivocation WHERE agent=? ORDER BY received_s", (agent,)
        ).fetchall()

    def quarantined(self, agent: int) -> bool:
        """Tell whether nothing more is taken from an agent."""
        return bool(self.quarantine_of(agent))

    def quarantine_of(self, agent: int) -> str:
        """Return why nothing more is taken from an agent; empty where it is."""
        row = self._db.execute("SELECT why FROM quarantine WHERE agent=?", (agent,)).fetchone()
        return "" if row is None else str(row[0])

    def release(self, agent: int) -> bool:
        """End a quarantine; the proof stays. Return whether there was one."""
        gone = self._db.execute("DELETE FROM quarantine WHERE agent=?", (agent,)).rowcount
        return gone > 0

    # Attestations.

    def keep_attestation(self, agent: int, found: Attestation, signed: bytes, now_s: int) -> None:
        """Keep an attestation; the oldest beyond a bound are forgotten."""
        self._db.execute(
            "INSERT OR IGNORE INTO attestation VALUES (?,?,?,?,?,?)",
            (agent, found.number, found.epoch, found.issued_at, now_s, signed),
        )
        self._db.execute(
            "DELETE FROM attestation WHERE agent=? AND number<=?",
            (agent, found.number - _MOST_ATTESTATIONS),
        )

    def attested(self, agent: int) -> tuple[int, int]:
        """Return number and receive time (s) of the newest attestation; zeros before the first."""
        row = self._db.execute(
            "SELECT number, received_s FROM attestation WHERE agent=? ORDER BY number DESC LIMIT 1",
            (agent,),
        ).fetchone()
        return (0, 0) if row is None else (row[0], row[1])

    def attestation_of(self, agent: int, until_s: int) -> bytes:
        """Return the newest attestation received up to a time; empty when there is none."""
        row = self._db.execute(
            "SELECT signed FROM attestation WHERE agent=? AND received_s<=?"
            " ORDER BY number DESC LIMIT 1",
            (agent, until_s),
        ).fetchone()
        return b"" if row is None else bytes(row[0])

    def attestations(self, agent: int, from_s: int, to_s: int) -> list[bytes]:
        """Return the attestations that came in a span of time."""
        rows = self._db.execute(
            "SELECT signed FROM attestation WHERE agent=? AND received_s>=? AND received_s<?"
            " ORDER BY number",
            (agent, from_s, to_s),
        )
        return [row[0] for row in rows]

    # Chains and alarms.

    def heads(self, agent: int, limit: int) -> list[Head]:
        """Return the heads of an agent's chains, newest epoch first."""
        rows = self._db.execute(
            "SELECT epoch, stream, next, digest FROM chain WHERE agent=? AND next>0"
            " ORDER BY epoch DESC, stream LIMIT ?",
            (agent, limit),
        )
        return [Head(row[0], row[1], row[2] - 1, row[3]) for row in rows]

    def epoch_before(self, agent: int, epoch: int, stream: int) -> tuple[int, int, bytes] | None:
        """Return (epoch, next sequence, digest) of a stream's newest chain of an earlier epoch."""
        row = self._db.execute(
            "SELECT epoch, next, digest FROM chain WHERE agent=? AND stream=? AND epoch<?"
            " ORDER BY epoch DESC LIMIT 1",
            (agent, stream, epoch),
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def raise_alarm(self, alarm: Alarm) -> bool:
        """Note an alarm; return whether it is new or its range changed."""
        known = self.open_alarm(alarm.agent, alarm.kind, alarm.epoch, alarm.stream)
        if known is not None and (known.first, known.last) == (alarm.first, alarm.last):
            return False
        self._note(alarm, known, alarm.since_s if known is None else known.since_s)
        return True

    def add_to_alarm(self, alarm: Alarm) -> None:
        """Note one more of what has happened: the open alarm's range grows, and it is new again."""
        known = self.open_alarm(alarm.agent, alarm.kind, alarm.epoch, alarm.stream)
        if known is not None:
            first, last = min(known.first, alarm.first), max(known.last, alarm.last)
            alarm = replace(alarm, first=first, last=last)
        self._note(alarm, known, alarm.since_s)

    def _note(self, alarm: Alarm, known: Alarm | None, since_s: int) -> None:
        if known is not None:
            self._db.execute(
                "UPDATE alarm SET first=?, last=?, since_s=? WHERE id=?",
                (alarm.first, alarm.last, since_s, known.id),
            )
            return
        self._db.execute(
            "INSERT INTO alarm (agent, kind, epoch, stream, first, last, since_s)"
            " VALUES (?,?,?,?,?,?,?)",
            (
                alarm.agent,
                alarm.kind,
                alarm.epoch,
                alarm.stream,
                alarm.first,
                alarm.last,
                since_s,
            ),
        )

    def open_alarm(self, agent: int, kind: str, epoch: int = 0, stream: int = 0) -> Alarm | None:
        """Return the open alarm of a kind and place; None when there is none."""
        row = self._db.execute(
            f"{_ALARM} WHERE agent=? AND kind=? AND epoch=? AND stream=? AND until_s IS NULL"
            " ORDER BY id DESC LIMIT 1",
            (agent, kind, epoch, stream),
        ).fetchone()
        return None if row is None else Alarm(*row)

    def clear_alarms(self, agent: int, kind: str, now_s: int, *place: int) -> None:
        """End the open alarms of a kind: of one chain (epoch, stream), or of the whole agent."""
        where = " AND epoch=? AND stream=?" if place else ""
        self._db.execute(
            f"UPDATE alarm SET until_s=? WHERE agent=? AND kind=? AND until_s IS NULL{where}",  # noqa: S608 - one of two constants
            (now_s, agent, kind, *place),
        )

    def end_alarms(self, agent: int, now_s: int) -> None:
        """End all open alarms of an agent: a person has looked; what still holds is raised anew."""
        self._db.execute(
            "UPDATE alarm SET until_s=? WHERE agent=? AND until_s IS NULL", (now_s, agent)
        )

    def end_alarm(self, number: int, now_s: int) -> bool:
        """End one open alarm: a person has seen it; return whether there was one."""
        ended = self._db.execute(
            "UPDATE alarm SET until_s=? WHERE id=? AND until_s IS NULL", (now_s, number)
        )
        return ended.rowcount > 0

    def end_old_alarms(self, kinds: Collection[str], before_s: int, now_s: int) -> None:
        """End the alarms of some kinds that were raised before a time."""
        marks = ",".join("?" * len(kinds))
        self._db.execute(
            f"UPDATE alarm SET until_s=? WHERE until_s IS NULL AND since_s<? AND kind IN ({marks})",  # noqa: S608 - only question marks
            (now_s, before_s, *kinds),
        )

    def forget_alarms(self, before_s: int, most: int) -> None:
        """Delete alarms that ended before a time, and the oldest ended ones beyond a number."""
        self._db.execute("DELETE FROM alarm WHERE until_s<?", (before_s,))
        self._db.execute(
            "DELETE FROM alarm WHERE id IN (SELECT id FROM alarm WHERE until_s IS NOT NULL"
            " ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (most,),
        )

    def alarms(self, agent: int, *, from_s: int = 0) -> Sequence[Alarm]:
        """Return the open alarms of an agent, and those that ended after a time."""
        rows = self._db.execute(
            f"{_ALARM} WHERE agent=? AND (until_s IS NULL OR (? > 0 AND until_s >= ?)) ORDER BY id",
            (agent, from_s, from_s),
        )
        return [Alarm(*row) for row in rows]

    def all_alarms(self, from_s: int | None, limit: int) -> Sequence[Alarm]:
        """Return everybody's alarms, newest first: the open ones, and those that ended after a time."""
        rows = self._db.execute(
            f"{_ALARM} WHERE until_s IS NULL OR until_s >= ? ORDER BY id DESC LIMIT ?",
            (from_s, limit),
        )
        return [Alarm(*row) for row in rows]

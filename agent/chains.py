"""What the brain says of our chains, held against the spool: who of the two was restored?

A brain that has less than it acknowledged was restored from an old copy: it gets again what the
archive holds. A brain that has more than we do, or something else in the same place, tells that *we*
were restored: our chain may not go on, and a new epoch begins.
"""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.giveup import give_up_first, passed
from agent.spool import ACKNOWLEDGED, GIVEN_UP, LOST, REFUSED, WAITING, Spool
from protocols.topics import Address
from security.answers import MOST_HEADS, Head
from security.envelope import REASON_DROPPED, REASON_RESTORED, genesis, parse
from security.statements import ChainEnd

_MOST_PROOFS: Final = 16


@dataclass(frozen=True, slots=True)
class Missing:
    """Messages of a chain that the brain lacks and the spool no longer has, ends included.

    Attributes:
        digest: hash of the last of them.
    """

    epoch: int
    stream: int
    first: int
    last: int
    digest: bytes
    reason: int = REASON_DROPPED


@dataclass(slots=True)
class Verdict:
    """What a brain's word on our chains means.

    Attributes:
        forked: we were restored from an old copy; a new epoch is due.
        void: an epoch that is over here already ended otherwise at this brain.
        again: how many acknowledged messages wait once more.
        missing: what must be declared lost before the chains can go on.
    """

    forked: bool = False
    void: bool = False
    again: int = 0
    missing: list[Missing] = field(default_factory=list)


def compare(
    spool: Spool,
    address: Address,
    epoch_known: int,
    heads: Sequence[Head],
    streams: Collection[int],
) -> Verdict:
    """Hold the brain's heads against the spool, and do in one transaction what follows from it.

    Args:
        spool: the spool.
        address: whose it is.
        epoch_known: the newest epoch of ours that the brain has anything of.
        heads: how far the brain has our chains.
        streams: the streams that are meant for this brain; the others are none of its business.
    """
    verdict = Verdict()
    theirs = {(head.epoch, head.stream): head for head in heads if head.stream in streams}
    with spool.transaction() as db:
        epoch = int(spool.meta("epoch", 0))
        ours = db.execute(
            "SELECT epoch, stream, next, digest FROM chain ORDER BY epoch, stream"
        ).fetchall()
        known = {(row[0], row[1]) for row in ours}
        # The newest epochs come first: of older chains, one that is full says nothing.
        full = len(heads) == MOST_HEADS
        silent_through = min(head.epoch for head in heads) if full else -1
        if epoch_known > epoch or any(
            head.epoch == epoch and place not in known for place, head in theirs.items()
        ):
            verdict.forked = True
        for row in ours:
            place = (row[0], row[1])
            if row[1] in streams and (place in theirs or row[0] > silent_through):
                _compare_one(spool, db, place, row[2], row[3], theirs.get(place), epoch, verdict)
        for place, head in theirs.items():
            if place[0] < epoch and place not in known:
                verdict.void |= _explain(db, place, head, theirs, known)
        if verdict.forked:
            _begin_anew(spool, db, address, (epoch, max(epoch, epoch_known) + 1), theirs, streams)
    return verdict


def _compare_one(
    spool: Spool,
    db: sqlite3.Connection,
    place: tuple[int, int],
    following: int,
    digest: bytes,
    head: Head | None,
    epoch: int,
    verdict: Verdict,
) -> None:
    has = head.sequence + 1 if head is not None else 0
    if head is not None and (has > following or not _same(db, place, head, following, digest)):
        if place[0] == epoch:
            verdict.forked = True
        else:
            _void(spool, db, place, head)
            verdict.void = True
        return
    passed(spool, db, place, has)
    if has == following:
        return
    verdict.again += db.execute(
        "UPDATE batch SET status = ? WHERE epoch = ? AND stream = ? AND sequence >= ?"
        " AND status IN (?, ?)",
        (WAITING, *place, has, ACKNOWLEDGED, REFUSED),
    ).rowcount
    row = db.execute(
        "SELECT sequence, status, first, digest, sealed FROM batch WHERE epoch = ?"
        " AND stream = ? AND sequence >= ? AND status != ? ORDER BY sequence LIMIT 1",
        (*place, has, LOST),
    ).fetchone()
    if row is None:
        verdict.missing.append(Missing(*place, has, following - 1, digest))
    elif row[1] == GIVEN_UP and row[2] > has:
        # What is lost before it and what was given up are one range.
        verdict.missing.append(Missing(*place, has, row[0], row[3]))
    elif row[1] != GIVEN_UP and row[0] > has:
        before = parse(row[4]).header.previous
        verdict.missing.append(Missing(*place, has, row[0] - 1, before))


def _same(
    db: sqlite3.Connection, place: tuple[int, int], head: Head, following: int, digest: bytes
) -> bool:
    """Tell whether the brain has the same message at its head; what we no longer know is believed."""
    if head.sequence == following - 1:
        return head.digest == digest
    row = db.execute(
        "SELECT digest FROM batch WHERE epoch = ? AND stream = ? AND sequence = ? AND status != ?",
        (*place, head.sequence, LOST),
    ).fetchone()
    return row is None or row[0] == head.digest


def _void(spool: Spool, db: sqlite3.Connection, place: tuple[int, int], head: Head) -> None:
    """Take a brain's word on a chain of an epoch that another brain's answer has ended already.

    What waits in it was sealed beside what this brain has. The chain of the next epoch begins with the
    wrong word on where this one ended: where that is not sent yet, it is declared lost instead.
    """
    _lose(spool, db, place)
    count = head.sequence + 1
    db.execute(
        "UPDATE chain SET next = ?, digest = ? WHERE epoch = ? AND stream = ?",
        (count, head.digest, *place),
    )
    told = db.execute(
        "SELECT epoch FROM ending WHERE before = ? AND stream = ? AND (count != ? OR digest != ?)",
        (*place, count, head.digest),
    ).fetchall()
    for (later,) in told:
        give_up_first(db, (later, place[1]))
    db.execute(
        "UPDATE ending SET count = ?, digest = ? WHERE before = ? AND stream = ?",
        (count, head.digest, *place),
    )


def _explain(
    db: sqlite3.Connection,
    place: tuple[int, int],
    head: Head,
    theirs: Mapping[tuple[int, int], Head],
    known: Collection[tuple[int, int]],
) -> bool:
    """Let the next epoch tell where a chain ended that the brain has and this spool never had.

    Its first message does not: where it was sealed already, it is declared lost instead. Return whether
    there was something to do.
    """
    old, stream = place
    later = min((one[0] for one in known if one[1] == stream and one[0] > old), default=None)
    count = head.sequence + 1
    told = db.execute(
        "SELECT 1 FROM ending WHERE stream = ? AND (before > ? OR (before = ? AND count = ?"
        " AND digest = ?))",
        (stream, old, old, count, head.digest),
    ).fetchone()
    if told is not None or any(one[1] == stream and one[0] > old for one in theirs):
        return False
    if later is not None:
        give_up_first(db, (later, stream))
    db.execute(
        "INSERT OR REPLACE INTO ending VALUES (?,?,?,?,?,?)",
        (later or old + 1, stream, old, count, head.digest, REASON_RESTORED),
    )
    return True


def _lose(spool: Spool, db: sqlite3.Connection, place: tuple[int, int]) -> None:
    """Never send what waits in a chain, and count it."""
    lost = db.execute(
        "SELECT COALESCE(SUM(cells), 0) FROM batch WHERE epoch = ? AND stream = ?"
        " AND status IN (?, ?)",
        (*place, WAITING, GIVEN_UP),
    ).fetchone()[0]
    db.execute(
        "UPDATE batch SET status = ? WHERE epoch = ? AND stream = ? AND status = ?",
        (LOST, *place, WAITING),
    )
    db.execute(
        "DELETE FROM batch WHERE epoch = ? AND stream = ? AND status = ?", (*place, GIVEN_UP)
    )
    spool.set_meta({"lost": spool.meta("lost", 0) + lost})


def _begin_anew(
    spool: Spool,
    db: sqlite3.Connection,
    address: Address,
    epochs: tuple[int, int],
    theirs: dict[tuple[int, int], Head],
    streams: Collection[int],
) -> None:
    """Close the epoch: what waits in it for this brain was sealed beside what it has, and is lost.

    What waits for another brain is not: its chains end where they stand here, unless its own answer
    says otherwise.
    """
    old, new = epochs
    new = max(new, int(spool.meta("epoch_due", 0)))
    newest = max([epoch for epoch, _ in theirs], default=old)
    known = {row[0] for row in db.execute("SELECT stream FROM chain WHERE epoch = ?", (old,))}
    for stream in known & set(streams):
        _lose(spool, db, (old, stream))
    for stream in (known & set(streams)) | {stream for _, stream in theirs}:
        # A stream may have nothing in the newest epoch: then an older one is its last.
        last = max([epoch for epoch, other in theirs if other == stream], default=newest)
        head = theirs.get((last, stream))
        count, digest = (
            (head.sequence + 1, head.digest)
            if head is not None
            else (0, genesis(address, last, stream))
        )
        db.execute(
            "INSERT OR REPLACE INTO ending VALUES (?,?,?,?,?,?)",
            (new, stream, last, count, digest, REASON_RESTORED),
        )
        if last == old:
            db.execute(
                "UPDATE chain SET next = ?, digest = ? WHERE epoch = ? AND stream = ?",
                (count, digest, old, stream),
            )
    end_chains(spool, db, old, new)


def end_chains(spool: Spool, db: sqlite3.Connection, old: int, new: int) -> None:
    """Let a new epoch be due; chains of the old one end where they stand here, unless that is known.

    Inside a transaction.
    """
    db.execute(
        "INSERT INTO ending SELECT ?, stream, epoch, next, digest, ? FROM chain WHERE epoch = ?"
        " AND NOT EXISTS (SELECT 1 FROM ending WHERE ending.epoch > ?"
        " AND ending.stream = chain.stream)",
        (new, REASON_RESTORED, old, old),
    )
    spool.set_meta({"epoch_due": new})


def chain_ends(spool: Spool, epoch: int) -> tuple[ChainEnd, ...]:
    """Return how far all chains of an epoch have come, sorted by stream."""
    with spool.transaction() as db:
        rows = db.execute(
            "SELECT stream, next, digest FROM chain WHERE epoch = ? ORDER BY stream", (epoch,)
        ).fetchall()
    return tuple(ChainEnd(*row) for row in rows)


def keep_proof(spool: Spool, what: str, at_s: int, first: bytes, second: bytes) -> None:
    """Keep two signed answers of a brain that cannot both be true; the first few are kept."""
    with spool.transaction() as db:
        kept = db.execute("SELECT COUNT(*) FROM proof").fetchone()[0]
        if kept < _MOST_PROOFS:
            db.execute(
                "INSERT INTO proof (what, at_s, first, second) VALUES (?,?,?,?)",
                (what, at_s, first, second),
            )

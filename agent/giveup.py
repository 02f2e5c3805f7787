"""What the spool lets go of before the brain had it: too much, too old, or damaged on the disk.

A batch that is given up leaves its place, its hash and its count of values behind; the content is
gone. The uplink declares the place lost, signed, when it is the chain's turn, so that the brain keeps
the exact range and the chain goes on. Rule and reasons: docs/decisions/0058.
"""

import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from agent.spool import GIVEN_UP, WAITING, Spool
from agent.window import MOST_IN_FLIGHT

_AT_ONCE: Final = 512

Chain = tuple[int, int]
"""Epoch and stream."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """How much was let go of at once.

    Attributes:
        batches, values, bytes_: how much.
        from_s, to_s: when the oldest and the newest of it were sealed, seconds since 1970 UTC.
    """

    batches: int = 0
    values: int = 0
    bytes_: int = 0
    from_s: int = 0
    to_s: int = 0


def give_up_oldest(spool: Spool, least_bytes: int) -> GivenUp:
    """Give up the oldest batches until so many bytes are free; sheets stay."""
    with spool.transaction() as db:
        rows = db.execute(
            "SELECT id, size, cells, at FROM batch WHERE status = ? AND is_sheet = 0 ORDER BY id",
            (WAITING,),
        )
        chosen, size = [], 0
        for row in rows:
            if size >= least_bytes:
                break
            chosen.append(row)
            size += row[1]
        rows.close()
        return _give_up_rows(db, chosen)


def give_up_older(spool: Spool, before_s: int) -> GivenUp:
    """Give up what was sealed before a moment, seconds since 1970 UTC, some hundred at once."""
    with spool.transaction() as db:
        rows = db.execute(
            "SELECT id, size, cells, at FROM batch WHERE status = ? AND is_sheet = 0"
            " AND at > 0 AND at < ? ORDER BY id LIMIT ?",
            (WAITING, before_s, _AT_ONCE),
        ).fetchall()
        return _give_up_rows(db, rows)


def give_up_damaged(spool: Spool, ids: Iterable[int]) -> GivenUp:
    """Give up messages whose bytes are no longer what was sealed."""
    with spool.transaction() as db:
        rows = [
            row
            for one in ids
            for row in db.execute(
                "SELECT id, size, cells, at FROM batch WHERE id = ? AND status = ?", (one, WAITING)
            )
        ]
        return _give_up_rows(db, rows)


def give_up_first(db: sqlite3.Connection, place: Chain) -> None:
    """Give up the first message of a chain while it waits; inside a transaction."""
    row = db.execute(
        "SELECT id FROM batch WHERE epoch = ? AND stream = ? AND sequence = 0 AND status = ?",
        (*place, WAITING),
    ).fetchone()
    if row is not None:
        _give_up_one(db, row[0], {})


def declared(spool: Spool, ids: Sequence[int]) -> None:
    """Note that the brain was told of these losses."""
    with spool.transaction() as db:
        db.executemany("UPDATE batch SET code = 1 WHERE id = ?", [(one,) for one in ids])


def passed(spool: Spool, db: sqlite3.Connection, place: Chain, following: int) -> None:
    """Take the brain's word that it stands at `following` in a chain; inside a transaction."""
    spool.forget_given_up(*place, following - 1)
    db.execute(
        "UPDATE batch SET first = ? WHERE status = ? AND epoch = ? AND stream = ? AND first < ?",
        (following, GIVEN_UP, *place, following),
    )
    _join(db, place)


def _join(db: sqlite3.Connection, place: Chain) -> None:
    """Make one range of what is lost in a row: the brain has none of it."""
    rows = db.execute(
        "SELECT id, first, sequence, cells FROM batch WHERE status = ? AND epoch = ? AND stream = ?"
        " AND code = 0 ORDER BY sequence",
        (GIVEN_UP, *place),
    ).fetchall()
    for before, row in itertools.pairwise(rows):
        if before[2] + 1 != row[1]:
            continue
        first, cells = db.execute(
            "SELECT first, cells FROM batch WHERE id = ?", (before[0],)
        ).fetchone()
        db.execute("DELETE FROM batch WHERE id = ?", (before[0],))
        db.execute(
            "UPDATE batch SET first = ?, cells = cells + ? WHERE id = ?", (first, cells, row[0])
        )


def _give_up_rows(db: sqlite3.Connection, rows: Sequence[tuple[int, int, int, int]]) -> GivenUp:
    if not rows:
        return GivenUp()
    early: dict[Chain, frozenset[int]] = {}
    for row in rows:
        _give_up_one(db, row[0], early)
    times = [row[3] for row in rows]
    return GivenUp(
        batches=len(rows),
        values=sum(row[2] for row in rows),
        bytes_=sum(row[1] for row in rows),
        from_s=min(times),
        to_s=max(times),
    )


def _give_up_one(db: sqlite3.Connection, row_id: int, early: dict[Chain, frozenset[int]]) -> None:
    """Empty a row; one that was never sent joins the run before it, so that few rows are left."""
    epoch, stream, sequence = db.execute(
        "SELECT epoch, stream, sequence FROM batch WHERE id = ?", (row_id,)
    ).fetchone()
    place = (epoch, stream)
    if place not in early:
        early[place] = _may_be_under_way(db, place)
    first, cells = sequence, 0
    if row_id not in early[place]:
        before = db.execute(
            "SELECT id, first, cells FROM batch WHERE epoch = ? AND stream = ? AND sequence = ?"
            " AND status = ? AND code = 0",
            (*place, sequence - 1, GIVEN_UP),
        ).fetchone()
        if before is not None and before[0] not in early[place]:
            db.execute("DELETE FROM batch WHERE id = ?", (before[0],))
            first, cells = before[1], before[2]
    db.execute(
        "UPDATE batch SET status = ?, code = 0, size = 0, sealed = x'', first = ?,"
        " cells = cells + ? WHERE id = ?",
        (GIVEN_UP, first, cells, row_id),
    )


def _may_be_under_way(db: sqlite3.Connection, place: Chain) -> frozenset[int]:
    """Return the first rows of a chain that wait: no other can have been sent before.

    These are given up one by one: which of them the brain has got already is told by its answer.
    """
    found: list[tuple[int, int]] = []
    for status in (WAITING, GIVEN_UP):
        found += db.execute(
            "SELECT sequence, id FROM batch WHERE status = ? AND epoch = ? AND stream = ?"
            " ORDER BY sequence LIMIT ?",
            (status, *place, MOST_IN_FLIGHT),
        ).fetchall()
    return frozenset(row_id for _, row_id in sorted(found)[:MOST_IN_FLIGHT])

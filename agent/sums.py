"""The output sum of each stream as the spool has it, and whether its messages are what was sealed."""

import hashlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agent.spool import ACKNOWLEDGED, REFUSED, WAITING
from protocols.language import tr
from protocols.strict_cbor import Malformed
from security.envelope import parse

_AT_ONCE: Final = 256


@dataclass(slots=True)
class StreamSum:
    """One stream of the epoch, in messages.

    Attributes:
        sealed: all there were: `receipted + waiting + refused + lost`.
        receipted: the brain has signed for them; the older ones are in the archive no more.
        lost: declared, or about to be.
    """

    stream: int
    sealed: int
    receipted: int = 0
    waiting: int = 0
    refused: int = 0
    lost: int = 0


def stream_sums(path: Path, epoch: int) -> list[StreamSum]:
    """Return the sums of an epoch's streams.

    Raises:
        sqlite3.Error: when the file cannot be read.
    """
    with closing(_reading(path)) as db:
        chains = db.execute(
            "SELECT stream, next FROM chain WHERE epoch=? ORDER BY stream", (epoch,)
        ).fetchall()
        found = {stream: StreamSum(stream, following) for stream, following in chains}
        rows = db.execute(
            "SELECT stream, status, SUM(CASE WHEN first < 0 THEN 1 ELSE sequence - first + 1 END)"
            " FROM batch WHERE epoch=? GROUP BY stream, status",
            (epoch,),
        ).fetchall()
    for stream, status, count in rows:
        if stream in found:
            _add(found[stream], status, count)
    for one in found.values():
        # What is trimmed from the archive and the refused box was decided about long ago.
        one.receipted = one.sealed - one.waiting - one.refused - one.lost
    return list(found.values())


def _add(one: StreamSum, status: int, count: int) -> None:
    if status == WAITING:
        one.waiting += count
    elif status == REFUSED:
        one.refused += count
    elif status != ACKNOWLEDGED:
        one.lost += count


def first_altered(path: Path) -> str:
    """Return where the first message is that is not what was sealed; empty where all are.

    Each must have the hash that is noted beside it, and name the one before as the one before it.
    """
    with closing(_reading(path)) as db:
        before: dict[tuple[int, int], tuple[int, bytes]] = {}
        rows = db.execute(
            "SELECT epoch, stream, sequence, digest, sealed FROM batch"
            " ORDER BY epoch, stream, sequence"
        )
        while group := rows.fetchmany(_AT_ONCE):
            for epoch, stream, sequence, digest, sealed in group:
                if sealed and _is_altered(digest, sealed, sequence, before.get((epoch, stream))):
                    return _place(stream, sequence, sealed)
                before[epoch, stream] = sequence, digest
        ends = db.execute("SELECT epoch, stream, next, digest FROM chain").fetchall()
    for epoch, stream, following, digest in ends:
        last = before.get((epoch, stream))
        if last is not None and last[0] == following - 1 and last[1] != digest:
            return _place(stream, last[0], b"")
    return ""


def _is_altered(
    digest: bytes, sealed: bytes, sequence: int, before: tuple[int, bytes] | None
) -> bool:
    if hashlib.sha256(sealed).digest() != digest:
        return True
    follows = before is not None and before[0] == sequence - 1
    return follows and before is not None and parse(sealed).header.previous != before[1]


def _place(stream: int, sequence: int, sealed: bytes) -> str:
    said = tr(f"message {sequence} of stream {stream}", f"流 {stream} 的第 {sequence} 条消息")
    try:
        start_s = parse(sealed).header.window[0]
    except Malformed:
        return said
    return said + tr(f", slots from {_at(start_s)}", f"，时段始于 {_at(start_s)}")


def _at(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5.0)

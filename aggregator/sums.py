"""The ledger against itself: the output sum of every chain, and whether what is kept is what came."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from aggregator.ledger import Kept
from protocols.batch import Block
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security.evidence import KEPT, REFUSED
from security.keys import BadSignature

_AT_ONCE: Final = 256

_LOST: Final = """
SELECT factory, agent.agent, loss.epoch, loss.stream, first, last,
COALESCE((SELECT end_s FROM batch WHERE agent=loss.agent AND stream=loss.stream AND cells>0
AND (epoch, sequence)<(loss.epoch, loss.first) ORDER BY epoch DESC, sequence DESC LIMIT 1), 0),
(SELECT start_s FROM batch WHERE agent=loss.agent AND stream=loss.stream AND cells>0
AND (epoch, sequence)>(loss.epoch, loss.last) ORDER BY epoch, sequence LIMIT 1) AS next_s
FROM loss JOIN agent ON agent.id=loss.agent WHERE next_s IS NOT NULL
ORDER BY loss.agent, loss.epoch, loss.stream, first
"""

Open = Callable[[Kept], list[tuple[int, Block]]]


@dataclass(frozen=True, slots=True)
class ChainSum:
    """One chain, in messages: `decided = kept + refused + lost`.

    Attributes:
        decided: how many the chain has.
        lost: declared by the agent.
    """

    address: Address
    epoch: int
    stream: int
    decided: int
    kept: int
    refused: int
    lost: int

    @property
    def balanced(self) -> bool:
        """Whether the sum holds."""
        return self.decided == self.kept + self.refused + self.lost


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch that was held against the log.

    Attributes:
        id: its row; None where it is gone.
        altered: if it is not what came, which it is and the slots that it covers, in words; else empty.
    """

    id: int | None
    altered: str = ""


@dataclass(frozen=True, slots=True)
class LostRange:
    """Messages of a chain, first to last, that the agent declared lost.

    Attributes:
        start_s: the end of what is kept before them in their stream.
        end_s: the beginning of what is kept behind them.
    """

    epoch: int
    stream: int
    first: int
    last: int
    start_s: int
    end_s: int


def chain_sums(path: Path) -> list[ChainSum]:
    """Return the sums of all chains of a ledger.

    Raises:
        sqlite3.Error: when it cannot be read.
    """
    with closing(_reading(path)) as db:
        # All of one moment, while the brain may go on.
        db.execute("BEGIN")
        counts = {
            tuple(row[:4]): row[4]
            for row in db.execute(
                "SELECT agent, epoch, stream, kind, COUNT(*) FROM log WHERE kind IN (?, ?)"
                " GROUP BY agent, epoch, stream, kind",
                (KEPT, REFUSED),
            )
        }
        lost = {
            tuple(row[:3]): row[3]
            for row in db.execute(
                "SELECT agent, epoch, stream, SUM(last - first + 1) FROM loss"
                " GROUP BY agent, epoch, stream"
            )
        }
        chains = db.execute(
            "SELECT chain.agent, epoch, stream, next, factory, agent.agent FROM chain"
            " JOIN agent ON agent.id = chain.agent ORDER BY chain.agent, epoch, stream"
        ).fetchall()
    return [
        ChainSum(
            Address(factory, name),
            epoch,
            stream,
            decided,
            counts.get((agent, epoch, stream, KEPT), 0),
            counts.get((agent, epoch, stream, REFUSED), 0),
            lost.get((agent, epoch, stream), 0),
        )
        for agent, epoch, stream, decided, factory, name in chains
    ]


def lost_ranges(path: Path) -> dict[Address, list[LostRange]]:
    """Return which messages agents declared lost, as far as something is kept behind them.

    Raises:
        sqlite3.Error: when the ledger cannot be read.
    """
    found: dict[Address, list[LostRange]] = {}
    with closing(_reading(path)) as db:
        for factory, agent, *place in db.execute(_LOST):
            found.setdefault(Address(factory, agent), []).append(LostRange(*place))
    return found


def checked_batches(path: Path, open_blocks: Open) -> Iterator[Checked]:
    """Yield the batches that the log names, in the order they were kept.

    Each must be what its leaf of the log names, open, and hold as many values as is noted.
    """
    with closing(_reading(path)) as db:
        rows = db.execute(
            "SELECT log.digest, log.stream, log.sequence, batch.id, batch.agent, batch.digest,"
            " sheet, start_s, end_s, cells, sealed FROM log LEFT JOIN batch"
            " ON batch.agent=log.agent AND batch.epoch=log.epoch AND batch.stream=log.stream"
            " AND batch.sequence=log.sequence WHERE log.kind=? ORDER BY place",
            (KEPT,),
        )
        while group := rows.fetchmany(_AT_ONCE):
            for (
                leaf,
                stream,
                sequence,
                number,
                agent,
                digest,
                sheet,
                start,
                end,
                cells,
                sealed,
            ) in group:
                said = tr(
                    f"message {sequence} of stream {stream}", f"流 {stream} 的第 {sequence} 条消息"
                )
                if number is None:
                    yield Checked(None, said + tr(" is gone from the ledger", "已不在账本中"))
                    continue
                kept = Kept(number, agent, stream, digest, sheet, start, end, sealed)
                if digest != leaf or (sealed and not _is_whole(kept, cells, open_blocks)):
                    at = _at(start)
                    said += tr(f", slots from {at}, is altered", f"（时段始于 {at}）已被改动")
                    yield Checked(number, said)
                else:
                    yield Checked(number)


def _is_whole(kept: Kept, cells: int, open_blocks: Open) -> bool:
    if hashlib.sha256(kept.sealed).digest() != kept.digest:
        return False
    if not cells:
        return True
    try:
        found = open_blocks(kept)
    except (Malformed, BadSignature, MillgateError, KeyError):
        return False
    return sum(block.values for _, block in found) == cells


def _at(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0, isolation_level=None)

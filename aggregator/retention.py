"""Retention: when a release sheet's time is over, what came under it is deleted and that is said.

A batch may be kept until its last slot's end plus the `retention_days` of its sheet, or the shortest
of its stream's points; both are signed by the firm, so both ends know the moment. Rows in the stores
go first, combined ones with them, then the sealed content in the ledger; hashes, places in chains and
covered time stay, so that a batch that was erased cannot come again. What cannot be opened stays in the
ledger, its rows stay in the stores, also between those of batches that go, and no statement names it. A
statement names what the ledger has no content of: so whenever it is signed, also after a crash, nothing
made of it is left.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from aggregator.inbox import Opener
from aggregator.ledger import Kept, Ledger
from aggregator.stores import RowSpan, Store, StoreRefused
from protocols.language import tr
from protocols.topics import Address
from security.answers import MOST_ERASED, Erased, Erasure, sign_answer
from security.keys import Signer
from security.policy.compiled import ReleaseSheet

_DAY_S: Final = 86_400
_AT_ONCE: Final = 64
_MOST_SHEETS: Final = 100_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MadeOf:
    """What was made of batches.

    Attributes:
        rows: where its rows are, combined ones too, by bucket.
        unreadable: the ids of those that cannot be opened; where their rows are is not known.
    """

    rows: Mapping[str, Sequence[RowSpan]]
    unreadable: frozenset[int]


Made = Callable[[Sequence[Kept], int], MadeOf]
"""Looks what was made of batches whose slots are so long (seconds)."""


def forget_ended(
    ledger: Ledger,
    opener: Opener,
    made: Made,
    stores: Mapping[str, Store],
    agents: Iterable[int],
    now_s: int,
) -> set[int]:
    """Delete everything whose retention has ended; return the agents concerned.

    Where a store cannot remove rows nothing is erased, and nothing is claimed.

    Raises:
        StoreUnavailable: a part is deleted; call again later.
        LedgerError: same.
    """
    touched: set[int] = set()
    try:
        for agent in agents:
            for batches, window_s in _ended(ledger, opener, agent, now_s):
                if _forget(ledger, made(batches, window_s), stores, batches):
                    touched.add(agent)
    except StoreRefused as fault:
        _log.error(
            "%s",
            tr(
                f"retention has ended, but nothing is deleted: {fault}",
                f"保存期限已到，但未能删除：{fault}",
            ),
        )
    if not ledger.overwrite():
        _log.warning(
            "%s",
            tr(
                "what was erased is still in the ledger's log, since others read it; tried again in an hour",
                "已删除的内容仍在账本日志中，因有程序正在读取；一小时后重试",
            ),
        )
    return touched


def _ended(
    ledger: Ledger, opener: Opener, agent: int, now_s: int
) -> Iterator[tuple[list[Kept], int]]:
    """Yield an agent's batches whose retention has ended, of one stream each, and its slot length (s)."""
    for sheet_hash in ledger.sheet_hashes(agent, _MOST_SHEETS):
        known = opener.sheet(agent, sheet_hash)
        if known is None:
            continue
        for stream, days in _kept_days(known.signed.sheet).items():
            end_s, after_id = now_s - days * _DAY_S, 0
            while batches := ledger.ended(agent, sheet_hash, stream, end_s, _AT_ONCE, after_id):
                yield batches, known.streams[stream].window_s
                after_id = batches[-1].id


def _kept_days(sheet: ReleaseSheet) -> dict[int, int]:
    """Return for how many days the batches of each stream may be kept: as its shortest point."""
    return {
        stream.id: min(
            point.retention_days or sheet.retention_days
            for point in sheet.points
            if point.stream == stream.id
        )
        for stream in sheet.streams
    }


def _forget(
    ledger: Ledger, found: MadeOf, stores: Mapping[str, Store], batches: Sequence[Kept]
) -> bool:
    """Delete what was made of batches, then their content; tell whether anything was."""
    for kept in batches:
        if kept.id in found.unreadable:
            _log.error(
                "%s",
                tr(
                    f"retention has ended, but batch {kept.id} cannot be opened and stays",
                    f"保存期限已到，但批次 {kept.id} 无法打开，予以保留",
                ),
            )
    going = [kept for kept in batches if kept.id not in found.unreadable]
    if not going:
        return False
    for bucket, spans in found.rows.items():
        if spans:
            stores[bucket].delete_rows(spans)
            stores[bucket].overwrite_removed()
    ledger.erase(going)
    _log.info(
        "%s",
        tr(
            f"retention has ended: the content of {len(going)} batch(es) is deleted",
            f"保存期限已到：已删除 {len(going)} 个批次的内容",
        ),
    )
    return True


def signed_erasure(ledger: Ledger, key: Signer, address: Address, now_s: int) -> bytes | None:
    """Return the signed statement of all that was erased of an agent; None for nothing.

    Of more than MOST_ERASED ranges the newest are named.
    """
    agent = ledger.agents().get(address)
    ranges = [] if agent is None else _ranges(ledger.erased(agent))
    if not ranges:
        return None
    return sign_answer(Erasure(address, now_s, tuple(ranges[-MOST_ERASED:])), key)


def _ranges(places: Sequence[tuple[int, int, int, bytes]]) -> list[Erased]:
    """Join neighbouring places, sorted by epoch, stream and sequence."""
    found = []
    numbered = enumerate(places)
    for (epoch, stream, _), group in groupby(
        numbered, key=lambda one: (one[1][0], one[1][1], one[1][2] - one[0])
    ):
        run = [place for _, place in group]
        digest = hashlib.sha256(b"".join(place[3] for place in run)).digest()
        found.append(Erased(epoch, stream, run[0][2], run[-1][2], digest))
    return found

"""The sealed side: released slots in, sealed batches on disk. It never sees a raw value."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from agent.disk import SpoolThread
from agent.giveup import GivenUp, give_up_oldest
from agent.link import SealedLink
from agent.released import Committed, Ended, Hello, Released, Restore
from agent.spool import Entry, Spool
from protocols import batch
from protocols.batch import MAX_BLOCKS, Block
from protocols.broker import MAX_MESSAGE
from protocols.errors import MillgateError
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.moments import utc_words
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security.cards import BrainCard
from security.envelope import (
    BATCH,
    REASON_EXPIRED,
    REASON_STOPPED,
    SALT_BYTES,
    SHEET,
    Gap,
    Header,
    commitment,
    digest,
    genesis,
    pad,
    right_hash,
    seal,
)
from security.keys import BadSignature, SealingKey, Signer, VerifyKey
from security.policy.bundle import SignedSheet, read_sheet, signed_sheet
from security.policy.check import BeyondSheet, StreamTerms, stream_terms
from security.policy.compiled import pack_sheet
from security.policy.streams import stream_id
from security.policy.words import STATE_NUMBERS

_MOST_GAPS: Final = 64
_MOST_CELLS: Final = 100_000
# A multiple of the nine numbers that a state takes: they are never parted.
_MOST_COLUMNS: Final = 910 * STATE_NUMBERS
_MOST_PADDED: Final = 248 * 1024
_AROUND: Final = MAX_MESSAGE - _MOST_PADDED
_FULL_POLL_S: Final = 0.5
_ROOM_SHARE: Final = 20
_HEADS_S: Final = 5.0
_PAD: Final = 1024
_DECLARED: Final = {
    Ended.STOPPED: ("stop_declared", REASON_STOPPED),
    Ended.EXPIRED: ("expiry_declared", REASON_EXPIRED),
}
"""Where the spool notes that an end was declared, and the reason that is given."""

_log = logging.getLogger(__name__)


class NotOurs(MillgateError):
    """What the gate side said is not what its officers signed, or not its turn; nothing is kept."""


class Enforced(Protocol):
    """What the sealed side knows of a policy: its hash, and what each consumer may get.

    Attributes:
        hash: of the policy.
        sheets: one per consumer.
    """

    @property
    def hash(self) -> bytes:
        """Hash of the policy."""
        ...

    @property
    def sheets(self) -> tuple[SignedSheet, ...]:
        """One per consumer."""
        ...


@dataclass(frozen=True, slots=True)
class Sheets:
    """The release sheets of a policy, verified here; see `Enforced`."""

    hash: bytes
    sheets: tuple[SignedSheet, ...]

    @property
    def version(self) -> int:
        """The policy's version."""
        return min((sheet.sheet.policy_version for sheet in self.sheets), default=0)


def verified(
    hello: Hello,
    officers: Sequence[VerifyKey],
    threshold: int,
    consumers: Mapping[bytes, BrainCard],
) -> Sheets:
    """Return the sheets that the gate side gave, checked without believing it.

    Raises:
        NotOurs: when one is not signed by enough officers, not of this policy, or for a consumer
            whose card is not here.
    """
    try:
        sheets = tuple(read_sheet(signed, officers, threshold) for signed in hello.sheets)
    except (Malformed, BadSignature):
        raise NotOurs("a sheet that not enough officers signed") from None
    consumers_named = [sheet.sheet.consumer for sheet in sheets]
    versions = {sheet.sheet.policy_version for sheet in sheets}
    if len(set(consumers_named)) < len(sheets) or len(versions) > 1:
        raise NotOurs("sheets that do not belong together")
    if any(sheet.sheet.policy_hash != hello.policy_hash for sheet in sheets):
        raise NotOurs("a sheet of another policy")
    if not consumers.keys() >= set(consumers_named):
        raise NotOurs("a sheet for a consumer whose card is not here")
    return Sheets(hello.policy_hash, sheets)


@dataclass(frozen=True, slots=True)
class _Lane:
    """What is needed to seal one stream."""

    pad: int
    brain: SealingKey
    receipt_kid: bytes
    sheet: SignedSheet

    @property
    def right_hash(self) -> bytes:
        """How the header names the right; empty where there is none."""
        return right_hash(self.sheet.sheet.right)


class Sealer:
    """Seals the messages of the gate side into the spool. All calls come from one thread.

    Attributes:
        epoch: the epoch that it seals in.
        ended: whether the policy has ended: no value is sealed then.
    """

    def __init__(
        self,
        spool: Spool,
        policy: Enforced,
        consumers: Mapping[bytes, BrainCard],
        signer: Signer,
        audit: SealingKey,
        address: Address,
        now_ns: NowNs,
        *,
        ended: Ended = Ended.NOT,
        largest: Callable[[], int] = lambda: MAX_MESSAGE,
    ) -> None:
        self.epoch = 0
        self.ended = ended
        self._largest = largest
        self._spool = spool
        self._policy_hash = policy.hash
        self._signer = signer
        self._audit = audit
        self._address = address
        self._now = now_ns
        self._lanes: dict[int, _Lane] = {}
        self._sheets: dict[int, _Lane] = {}
        self._stream_terms: dict[int, StreamTerms] = {}
        for sheet in policy.sheets:
            pads = [stream.pad for stream in sheet.sheet.streams]
            consumer = sheet.sheet.consumer
            card = consumers[consumer]
            lane = _Lane(
                max(pads, default=_PAD), card.encryption_key, card.receipt_key.kid, sheet.at_rest()
            )
            for stream in sheet.sheet.streams:
                self._lanes[stream.id] = lane
            self._sheets[stream_id(consumer, 0)] = lane
            for stream_number, terms in stream_terms(sheet.sheet).items():
                # What the points mean to people is the brain's to know.
                self._stream_terms[stream_number] = replace(terms, points=())

    def restore(self, epoch: int) -> Restore:
        """Begin in this epoch: send the sheets that it has not seen, and say where to go on."""
        self.epoch = epoch
        spool = self._spool
        entries = [
            self._sheet_entry(stream, lane)
            for stream, lane in self._sheets.items()
            if not spool.sheet_sent(epoch, lane.sheet.hash)
        ]
        for lane in self._sheets.values():
            spool.keep_sheet(lane.sheet.hash, lane.sheet.signed)
        if spool.meta("epoch", 0) != epoch:
            spool.begin(epoch, self._policy_hash, entries)
        else:
            spool.append(epoch, entries)
        self._declare_end()
        return Restore(
            spool.meta("number", 0),
            epoch,
            spool.meta("memory_policy", self._policy_hash),
            spool.meta("memory", b""),
            spool.meta("at", 0),
        )

    @property
    def epoch_due(self) -> int:
        """The epoch that must begin now; 0 while the present one may go on."""
        due = int(self._spool.meta("epoch_due", 0))
        return due if due > self.epoch else 0

    def streams(self) -> dict[bytes, frozenset[int]]:
        """Return for each brain, by the key id of its receipt key, the streams meant for it."""
        found: dict[bytes, frozenset[int]] = {}
        for stream, lane in [*self._lanes.items(), *self._sheets.items()]:
            found[lane.receipt_kid] = found.get(lane.receipt_kid, frozenset()) | {stream}
        return found

    def resume(self, epoch: int) -> Restore:
        """Begin in the newest epoch that is known of, or due; see `restore`."""
        current = max(epoch, self.epoch, int(self._spool.meta("epoch", 0)))
        return self.restore(max(current, self.epoch_due))

    def _declare_end(self) -> None:
        """Say once to every consumer, signed and in its chain, that the policy has ended, and how.

        It is a gap over the declaration's own place in the chain of sheets: as of its time nothing
        of this policy leaves. What leads on is a newer policy's sheet; or the same one again, where
        a wrong clock had let its validity seem over.
        """
        key, reason = _DECLARED.get(self.ended, (_DECLARED[Ended.EXPIRED][0], None))
        mark = f"{self.epoch}:{self._policy_hash.hex()}"
        if (self._spool.meta(key) == mark) is (reason is not None):
            return
        entries = [
            self._sheet_entry(stream, lane, ended=reason) for stream, lane in self._sheets.items()
        ]
        self._spool.append(self.epoch, entries, {key: mark if reason else ""})

    def commit(self, message: Released) -> None:
        """Check, seal and commit one message of the gate side.

        Raises:
            BeyondSheet: when the gate let through more than the sheet releases.
            NotOurs: when it is of another policy, or not the next. Nothing is committed then.
        """
        if message.policy_hash != self._policy_hash:
            raise NotOurs("released under another policy")
        if message.number != self._spool.meta("number", 0) + 1:
            raise NotOurs("not the next message")
        if self.ended and message.streams:
            raise BeyondSheet("the policy has ended")
        entries: list[Entry] = []
        for stream, blocks in sorted(message.streams.items()):
            if stream not in self._stream_terms:
                raise BeyondSheet("a stream that no sheet has")
            self._stream_terms[stream].check(blocks)
            self._stream_terms[stream].check_time(blocks, self._now() // SECOND)
            entries += self._batch_entries(stream, blocks)
        self._spool.commit(
            self.epoch,
            message.number,
            message.policy_hash,
            message.memory,
            entries,
            at=self._now() // SECOND,
        )

    def _batch_entries(self, stream: int, blocks: Sequence[Block]) -> list[Entry]:
        lane, terms = self._lanes[stream], self._stream_terms[stream]
        chain = _Chain(self._spool, self._address, self.epoch, stream)
        entries = []
        room = max(self._largest() - _AROUND, terms.pad)
        for portion in _portions(blocks, room):
            for content, part in _fitting(portion, terms.pad, room):
                window = (
                    min(block.slot for block in part) * terms.window_s,
                    max(block.slot + block.rows for block in part) * terms.window_s,
                )
                cells = sum(block.values for block in part)
                padded = pad(content, terms.pad)
                entries.append(self._seal(chain, lane, padded, window, cells, is_sheet=False))
        return entries

    def waiting_bytes(self) -> int:
        """Return how much waits for the brain."""
        return self._spool.waiting_bytes()

    def make_room(self, max_bytes: int) -> GivenUp:
        """Give up the oldest that waits, until a twentieth of the bound is free."""
        over = self._spool.waiting_bytes() - max_bytes
        return give_up_oldest(self._spool, over + max_bytes // _ROOM_SHARE)

    def sheet_again(self, sheet_hash: bytes) -> list[bytes]:
        """Return the messages that carry a sheet the brain asks for; it must have lost or refused it.

        One that still waits is the answer. Else it is sealed anew, as the next of its stream.
        """
        waiting = self._spool.sheets_waiting(sheet_hash)
        signed = self._spool.kept_sheet(sheet_hash)
        if waiting or signed is None or self.epoch_due:
            return waiting
        sheet = signed_sheet(signed)
        stream = stream_id(sheet.sheet.consumer, 0)
        if stream not in self._sheets:
            return []
        entry = self._sheet_entry(stream, replace(self._sheets[stream], sheet=sheet))
        self._spool.append(self.epoch, [entry])
        return [entry.sealed]

    def _sheet_entry(self, stream: int, lane: _Lane, *, ended: int | None = None) -> Entry:
        chain = _Chain(self._spool, self._address, self.epoch, stream)
        if ended is not None:
            chain.declare(ended)
        padded = pad(pack_sheet(lane.sheet.signed), lane.pad)
        return self._seal(chain, lane, padded, (0, 0), 0, is_sheet=True)

    def _seal(
        self,
        chain: "_Chain",
        lane: _Lane,
        padded: bytes,
        window: tuple[int, int],
        cells: int,
        *,
        is_sheet: bool,
    ) -> Entry:
        recipients = [lane.brain, self._audit]
        gaps = chain.take_gaps()
        header = Header(
            factory=self._address.factory,
            agent=self._address.agent,
            epoch=self.epoch,
            stream=chain.stream,
            sequence=chain.next,
            previous=chain.previous,
            policy_version=lane.sheet.sheet.policy_version,
            policy_hash=lane.sheet.sheet.policy_hash,
            sheet_hash=lane.sheet.hash,
            window=window,
            issued_at=self._now() // SECOND,
            recipients=tuple(sorted(key.kid for key in recipients)),
            commitment=commitment(padded),
            receipt=(self._spool.meta("receipts", 0), self._spool.meta("receipt", bytes(32))),
            purpose=lane.sheet.sheet.purpose,
            right_hash=lane.right_hash,
            gaps=gaps,
            before=None if chain.next else self._spool.before(self.epoch, chain.stream),
        )
        sealed = seal(header, padded, self._signer, recipients, SHEET if is_sheet else BATCH)
        hashed = digest(sealed)
        entry = Entry(
            stream=chain.stream,
            sequence=chain.next,
            digest=hashed,
            sheet=lane.sheet.hash,
            is_sheet=is_sheet,
            cells=cells,
            sealed=sealed,
            gaps=gaps,
            at=header.issued_at,
        )
        chain.next, chain.previous = chain.next + 1, hashed
        return entry


class _Chain:
    """The end of one stream's chain while a message is sealed."""

    def __init__(self, spool: Spool, address: Address, epoch: int, stream: int) -> None:
        self.stream = stream
        found = spool.chain(epoch, stream)
        self.next, self.previous = found or (0, genesis(address, epoch, stream))
        self._gaps = spool.gaps(epoch, stream, _MOST_GAPS - 1)

    def declare(self, reason: int) -> None:
        """Let the next message declare its own place as a gap."""
        self._gaps += (Gap(self.next, self.next, reason),)

    def take_gaps(self) -> tuple[Gap, ...]:
        gaps, self._gaps = self._gaps, ()
        return gaps


def _portions(blocks: Sequence[Block], most_bytes: int = _MOST_PADDED) -> list[list[Block]]:
    """Group blocks so that no group has more than about 100,000 cells, nor more blocks than a batch may."""
    groups: list[list[Block]] = [[]]
    room = _MOST_CELLS
    for block in (part for whole in blocks for part in _narrow(whole, most_bytes)):
        rows = max(_MOST_CELLS // len(block.numbers), 1)
        for start in range(0, block.rows, rows):
            part = block.row_slice(start, min(start + rows, block.rows))
            if groups[-1] and (part.mantissa.size > room or len(groups[-1]) == MAX_BLOCKS):
                groups.append([])
                room = _MOST_CELLS
            groups[-1].append(part)
            room -= part.mantissa.size
    return [group for group in groups if group]


def _narrow(block: Block, most_bytes: int) -> list[Block]:
    """Part a block by columns so that a single slot of each always fits a sealed message.

    Always at the same columns, so that the brain meets the same few sets of points.
    """
    width, most = len(block.numbers), _MOST_COLUMNS
    if most_bytes < _MOST_PADDED:
        most = max(most * most_bytes // _MOST_PADDED // STATE_NUMBERS, 1) * STATE_NUMBERS
    if width <= most:
        return [block]
    return [
        _column_slice(block, start, min(start + most, width)) for start in range(0, width, most)
    ]


def _column_slice(block: Block, start: int, stop: int) -> Block:
    rows, columns = np.divmod(block.span_cells, len(block.numbers))
    kept = (columns >= start) & (columns < stop)
    return Block(
        slot=block.slot,
        numbers=block.numbers[start:stop],
        mantissa=block.mantissa[:, start:stop],
        quality=block.quality[:, start:stop],
        span_cells=rows[kept] * (stop - start) + columns[kept] - start,
        spans=block.spans[kept],
    )


def _fitting(
    blocks: list[Block], unit: int, most_bytes: int = _MOST_PADDED
) -> list[tuple[bytes, list[Block]]]:
    """Encode blocks, halving them until each part fits a sealed message."""
    content = batch.encode(blocks)
    size = -(-(SALT_BYTES + len(content) + 1) // unit) * unit
    single = len(blocks) == 1 and blocks[0].rows == 1
    if size <= min(most_bytes, _MOST_PADDED) or single:
        return [(content, blocks)]
    first, second = _halves(blocks)
    return _fitting(first, unit, most_bytes) + _fitting(second, unit, most_bytes)


def _halves(blocks: list[Block]) -> tuple[list[Block], list[Block]]:
    if len(blocks) > 1:
        return blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :]
    middle = blocks[0].rows // 2
    return [blocks[0].row_slice(0, middle)], [blocks[0].row_slice(middle, blocks[0].rows)]


class SealedSide:
    """Answers the gate side, with the sealer's work done in a thread."""

    def __init__(
        self,
        max_bytes: int,
        thread: SpoolThread,
        enforce: Callable[[Hello], Awaitable[tuple[Sealer, int]]],
        committed: Callable[[], None],
        heads_known: Callable[[float], Awaitable[None]],
        gave_up: Callable[[], None] | None = None,
    ) -> None:
        """Keep what it needs.

        Args:
            max_bytes: so much may wait for the brain; then the gate side is held back, or the oldest
                is given up.
            thread: the spool's.
            enforce: checks what a `Hello` brings, and gives the sealer for it and the epoch; raises
                NotOurs.
            committed: is called when there is more to send.
            heads_known: waits until the brain has said how far it has our chains, so long at most.
            gave_up: where the oldest is to be given up: is called when it was.
        """
        self._max_bytes = max_bytes
        self._gave_up = gave_up
        self._thread = thread
        self._enforce = enforce
        self._committed = committed
        self._heads_known = heads_known

    async def serve(self, link: SealedLink, stop: asyncio.Event) -> None:
        """Answer on a link until it is lost; after `stop`, nothing is held back any more.

        Raises:
            LinkLost: when the gate side is gone.
            Malformed, NotOurs, BeyondSheet: when it says what it may not; nothing of it is kept.
        """
        sealer: Sealer | None = None
        epoch = 0
        while True:
            message = await link.receive()
            if isinstance(message, Hello):
                sealer, epoch = await self._enforce(message)
                # A brain that cannot be reached must not keep the factory from collecting.
                await self._heads_known(_HEADS_S)
                await link.send(await self._thread.call(sealer.resume, epoch))
            elif sealer is None:
                raise NotOurs("released before hello")
            else:
                await self._wait_for_room(sealer, stop)
                await link.send(await self._thread.keep(_answer, sealer, message, epoch))
            # It is large, and the next may be long in coming.
            del message
            self._committed()

    async def _wait_for_room(self, sealer: Sealer, stop: asyncio.Event) -> None:
        """Hold the gate side back while too much waits for the brain; counters lose nothing.

        Where the firm chose so, the oldest that waits is given up instead.
        """
        said = False
        while not stop.is_set():
            waiting = await self._thread.call(sealer.waiting_bytes)
            if waiting < self._max_bytes:
                return
            if self._gave_up is not None and await self._drop_oldest(sealer, self._gave_up):
                return
            if not said:
                _log.warning("%s", _full())
                said = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FULL_POLL_S):
                    await stop.wait()

    async def _drop_oldest(self, sealer: Sealer, gave_up: Callable[[], None]) -> bool:
        gone = await self._thread.call(sealer.make_room, self._max_bytes)
        if not gone.batches:
            return False
        since, until = (utc_words(at) for at in (gone.from_s, gone.to_s))
        _log.error(
            "%s",
            tr(
                f"the spool is full: the oldest {gone.batches} batch(es) of {since} to {until} UTC "
                f"({gone.values} values) are given up, as [spool] when_full says; they are declared lost "
                "to the brain",
                f"缓存已满：按 [spool] when_full 放弃最早的 {gone.batches} 批数据（UTC {since} 至 {until}，"
                f"{gone.values} 个值）；已向产业大脑声明丢失",
            ),
        )
        gave_up()
        return True


def _full() -> str:
    return tr(
        "the spool is full: collecting pauses until the brain answers; "
        "raise [spool] max_mb or mend the connection",
        "缓存已满：暂停采集，直到产业大脑应答；请调大 [spool] max_mb 或恢复连接",
    )


def _answer(sealer: Sealer, message: Released, epoch: int) -> Restore | Committed:
    """Commit a message; but keep nothing of one that was made from memory of an old copy."""
    if sealer.epoch_due:
        return sealer.resume(epoch)
    sealer.commit(message)
    return Committed(message.number)

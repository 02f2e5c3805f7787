"""The inbox: decides about every message that claims to come from a factory.

Cheap checks first. Before a signature is verified nothing is kept and nobody is answered; after it,
everything is answered: a receipt, or a receipt that names the refusal.
"""

import logging
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aggregator.brain_time import BrainTime
from aggregator.config import Factory
from aggregator.early import Early
from aggregator.expiry import Expiring
from aggregator.keyring import Keyring
from aggregator.ledger import Chain, Kept, Ledger, LedgerError, Overlap, SlotTaken, repeats
from aggregator.others_streams import OthersStreams
from aggregator.outlook import Outlook
from aggregator.statements import Statements
from aggregator.watch import Watch
from protocols import batch, topics
from protocols.batch import Block
from protocols.errors import MillgateError
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security import answers, cose
from security.answers import MOST_REFUSED, Head, Receipt, Refused, Request, sign_answer
from security.envelope import (
    BATCH,
    CLAIMS,
    MAX_SEALED,
    SHEET,
    CannotOpen,
    Header,
    Sealed,
    open_sealed,
    parse,
    read,
    right_hash,
    unpad,
)
from security.key_list import KEYS, MAX_KEYS, Place, RevokedKey
from security.keys import BadSignature, OpeningKey, Signer
from security.policy.bundle import SignedSheet, read_sheet, signed_sheet
from security.policy.check import BeyondSheet, StreamTerms, stream_terms
from security.policy.compiled import ReleaseSheet, content_hash, unpack_sheet
from security.policy.streams import own_streams
from security.statements import ASK, LOSS, RUN_BYTES, Ask, Loss, claimed_address, read_statement

_MOST_HELD: Final = 64
_MOST_HELD_ALL: Final = 256
_ASK_AGAIN_S: Final = 3
_MOST_ASKED: Final = 1024
_MOST_RUNS: Final = 4096
_MOST_CACHED_CELLS: Final = 2_000_000
_KINDS: Final[dict[str, int | None]] = {BATCH: CLAIMS, SHEET: CLAIMS, ASK: None, LOSS: None}
_TWO_SIGNATURES: Final = bytes([0xD8, cose.TAG_SIGN])
"""How a COSE_Sign begins; only attestations are one."""

_LATEST_S: Final = (1 << 63) // SECOND
"""Series count nanoseconds in 64 bits; a slot must end before they do."""

_log = logging.getLogger(__name__)


class Discarded(MillgateError):
    """A message that is neither kept nor answered; `what` is the name of its counter."""


class RefusedMessage(MillgateError):
    """A message of a known agent that will never be taken."""

    def __init__(self, code: int) -> None:
        super().__init__("refused")
        self.code = code


class NotYet(MillgateError):
    """A message whose release sheet is not known yet."""


@dataclass(frozen=True, slots=True)
class KnownSheet:
    """A release sheet, ready for use."""

    signed: SignedSheet
    streams: Mapping[int, StreamTerms]


Factories = Mapping[Address, Factory]


class Opened:
    """Batches that were opened lately, by their hash, within a bound; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[bytes, list[Block]] = OrderedDict()
        self._cells = 0

    def put(self, digest: bytes, blocks: list[Block]) -> None:
        """Remember blocks; the oldest are forgotten."""
        with self._lock:
            self._cells += _cells(blocks) - _cells(self._blocks.get(digest, []))
            self._blocks[digest] = blocks
            while self._cells > _MOST_CACHED_CELLS and len(self._blocks) > 1:
                _, gone = self._blocks.popitem(last=False)
                self._cells -= _cells(gone)

    def take(self, digest: bytes) -> list[Block] | None:
        """Return blocks and forget them; None when they are not here."""
        with self._lock:
            found = self._blocks.pop(digest, None)
            self._cells -= _cells(found or [])
            return found


def _cells(blocks: list[Block]) -> int:
    return sum(block.mantissa.size for block in blocks)


class Opener:
    """Opens batches with the brain's key.

    The inbox and the projection each have one, with a ledger connection of their own; they
    share what was opened lately.
    """

    def __init__(
        self,
        ledger: Ledger,
        key: OpeningKey,
        opened: Opened,
    ) -> None:
        self._ledger = ledger
        self._key = key
        self._sheets: dict[tuple[int, bytes], KnownSheet] = {}
        self.opened = opened

    def sheet(self, agent: int, sheet_hash: bytes) -> KnownSheet | None:
        """Return a verified release sheet of an agent; None when it is not in the ledger."""
        known = self._sheets.get((agent, sheet_hash))
        if known is None:
            signed = self._ledger.sheet(agent, sheet_hash)
            if signed is None:
                return None
            read = signed_sheet(signed)
            known = KnownSheet(read, stream_terms(read.sheet))
            self._sheets[agent, sheet_hash] = known
        return known

    def terms(self, agent: int, sheet_hash: bytes) -> ReleaseSheet | None:
        """Return what a verified release sheet of an agent says; None when it is not in the ledger."""
        known = self.sheet(agent, sheet_hash)
        return None if known is None else known.signed.sheet

    def decrypt(self, sealed: Sealed, pad: int) -> bytes:
        """Return the content of a verified message.

        Raises:
            CannotOpen, Malformed: when it is not sealed or padded as it must be.
        """
        padded = open_sealed(sealed, self._key)
        if len(padded) % pad:
            raise Malformed("not padded to the stream's size")
        return unpad(padded)

    def blocks(self, kept: Kept) -> list[tuple[int, Block]]:
        """Return the blocks of a batch in the ledger, each with its slot length in seconds."""
        known = self.sheet(kept.agent, kept.sheet)
        if known is None:
            raise CannotOpen("its release sheet is not in the ledger")
        terms = known.streams[kept.stream]
        found = self.opened.take(kept.digest)
        if found is None:
            found = batch.decode(self.decrypt(parse(kept.sealed), terms.pad))
        return [(terms.window_s, block) for block in found]


@dataclass(slots=True)
class Outcome:
    """What one call of `Inbox.process` did.

    Attributes:
        answers: (topic, signed answer) to publish, after the transaction is durable.
        counts: what was counted, by name.
        kept: how many batches are new in the ledger.
    """

    answers: list[tuple[str, bytes]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kept: int = 0


class Inbox:
    """Takes groups of messages; all calls come from one thread."""

    def __init__(
        self,
        ledger: Ledger,
        opener: Opener,
        encryption_kid: bytes,
        encryption_pin: bytes,
        receipt_key: Signer,
        factories: Callable[[], Factories],
        now_ns: NowNs,
        expiring: Expiring = tuple,
        brain_time: BrainTime | None = None,
    ) -> None:
        self._ledger = ledger
        self._opener = opener
        self._kid = encryption_kid
        self._pin = encryption_pin
        self._own = own_streams(encryption_pin)
        self._others = OthersStreams()
        self._key = receipt_key
        self._factories = factories
        self._now = now_ns
        self._held: dict[tuple[Address, bytes], list[bytes]] = {}
        self._asked: dict[tuple[Address, bytes], int] = {}
        self._early = Early()
        self._runs: dict[Address, bytes] = {}
        self._keyring = Keyring()
        outlook = Outlook(ledger, opener.terms, now_ns, expiring, brain_time)
        self._watch = Watch(ledger, factories, outlook, now_ns, self._own)
        self._statements = Statements(ledger, receipt_key, self._watch, now_ns)

    def look(self) -> None:
        """Hold what agents attested against what came; call it every minute or so."""
        self._watch.look()

    def process(self, messages: Sequence[tuple[str, bytes]]) -> Outcome:
        """Decide about messages, in one durable transaction.

        Where one meets a fault that no check foresaw, each is decided about alone and that one
        discarded: it would come again at every start, and nothing else would ever be taken.

        Raises:
            LedgerError: nothing is decided; call again with the same.
        """
        try:
            return self._process(messages)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - the last wall: whatever one message does, the others go on
            _log.error("a message met a fault in the inbox: %s", type(error).__name__)
        whole = Outcome()
        if len(messages) == 1:
            whole.counts["unforeseen"] += 1
            with self._ledger.transaction():
                self._ledger.count(whole.counts)
            return whole
        for message in messages:
            part = self.process([message])
            whole.answers += part.answers
            whole.counts += part.counts
            whole.kept += part.kept
        return whole

    def _process(self, messages: Sequence[tuple[str, bytes]]) -> Outcome:
        outcome = Outcome()
        touched: dict[int, dict[tuple[int, int], Head]] = {}
        addresses: dict[int, Address] = {}
        with self._ledger.transaction():
            work = deque(messages)
            while work:
                topic, payload = work.popleft()
                self._one(topic, payload, outcome, touched, addresses, work)
            for agent, heads in touched.items():
                self._receipt(agent, addresses[agent], list(heads.values()), outcome)
            self._ledger.count(outcome.counts)
        return outcome

    def _one(
        self,
        topic: str,
        payload: bytes,
        outcome: Outcome,
        touched: dict[int, dict[tuple[int, int], Head]],
        addresses: dict[int, Address],
        work: "deque[tuple[str, bytes]]",
    ) -> None:
        try:
            found, factory = self._verified(topic, payload, outcome)
            if not isinstance(found, Sealed):
                self._state(found, payload, outcome, touched, addresses, work)
                return
            sealed = found
            if self._kid not in sealed.header.recipients:
                self._pass_over_others(sealed.header.address, sealed.header.stream)
            chain = self._ledger.chain(sealed.header)
            addresses[chain.agent] = sealed.header.address
            self._in_order(sealed, payload, chain, topic, outcome)
        except Discarded as discarded:
            outcome.counts[discarded.what] += 1
            return
        header = sealed.header
        try:
            self._attempt(sealed, payload, chain, factory)
        except NotYet:
            self._hold(topic, header, payload, outcome)
            return
        except RefusedMessage as refused:
            outcome.counts["refused"] += 1
            now_s = self._now() // SECOND
            self._ledger.refuse(chain.agent, header, sealed.digest, payload, refused.code, now_s)
            self._watch.refused(chain.agent, header)
            _log.warning(
                "%s",
                tr(
                    f"refused message {header.sequence} of stream {header.stream} of agent "
                    f"{header.agent.hex()} with code {refused.code}",
                    f"以代码 {refused.code} 拒收代理 {header.agent.hex()} 流 {header.stream} 的第 "
                    f"{header.sequence} 条消息",
                ),
            )
        else:
            outcome.kept += 1
            outcome.counts["kept"] += 1
            if sealed.content_type == SHEET:
                held = self._held.pop((header.address, header.sheet_hash), [])
                self._asked.pop((header.address, header.sheet_hash), None)
                work.extendleft((topic, message) for message in reversed(held))
        self._watch.decided(chain.agent, header)
        if header.sequence == 0:
            self._watch.epoch_began(chain.agent, header)
        self._next_early(topic, header.address, header.epoch, header.stream, header.sequence, work)
        self._ledger.declare(chain.agent, header, header.gaps)
        head = Head(header.epoch, header.stream, header.sequence, sealed.digest)
        touched.setdefault(chain.agent, {})[header.epoch, header.stream] = head

    def _attempt(self, sealed: Sealed, payload: bytes, chain: Chain, factory: Factory) -> None:
        """Take a message, or leave no trace of it.

        Raises:
            NotYet, RefusedMessage: see `_take`. A message that no check foresaw is refused, so
                that it cannot stop the others.
        """
        try:
            with self._ledger.attempt():
                self._take(sealed, payload, chain, factory)
        except (NotYet, RefusedMessage, LedgerError):
            raise
        except Exception as error:  # noqa: BLE001 - named above, logged, and the message is kept apart
            _log.error("a batch met a fault in the inbox: %s", type(error).__name__)
            raise RefusedMessage(answers.NOT_A_BATCH) from None

    def _next_early(
        self,
        topic: str,
        address: Address,
        epoch: int,
        stream: int,
        sequence: int,
        work: "deque[tuple[str, bytes]]",
    ) -> None:
        """Let the message that came early and whose turn it is now be the next."""
        early = self._early.take((address, epoch, stream), sequence + 1)
        if early is not None:
            work.appendleft((topic, early))

    def _state(
        self,
        statement: Ask | Loss | None,
        payload: bytes,
        outcome: Outcome,
        touched: dict[int, dict[tuple[int, int], Head]],
        addresses: dict[int, Address],
        work: "deque[tuple[str, bytes]]",
    ) -> None:
        """Take what an agent states; None stands for an attestation, which was taken."""
        if statement is None:
            outcome.counts["attested"] += 1
            return
        address = statement.address
        if isinstance(statement, Loss):
            self._pass_over_others(address, statement.stream)
        down = address.topic("down")
        if isinstance(statement, Ask):
            outcome.counts["asked"] += 1
            self._drop_undecided(address, statement.nonce[:RUN_BYTES])
            self._watch.asked(self._ledger.agent(address), statement)
            outcome.answers.append((down, self._statements.answer(statement)))
            return
        if not self._statements.lose(statement, payload):
            outcome.counts["loss_out_of_order"] += 1
            self._hint(address, outcome)
            return
        outcome.counts["declared_lost"] += 1
        agent = self._ledger.agent(address)
        self._watch.lost(agent, statement)
        addresses[agent] = address
        place = statement.epoch, statement.stream
        touched.setdefault(agent, {})[place] = Head(*place, statement.last, statement.digest)
        self._next_early(address.topic("up"), address, *place, statement.last, work)

    def _pass_over_others(self, address: Address, stream: int) -> None:
        """Pass over, without a trace but a count, what is of a stream that is not this brain's.

        Raises:
            Discarded: when it is.
        """
        if stream not in self._own:
            self._others.met(address, self._now() // SECOND)
            raise Discarded("not_for_us")

    def _drop_undecided(self, address: Address, run: bytes) -> None:
        """Forget what came of an agent and is not decided about, once another run of it asks.

        It may run from an old copy and seal other messages for these places. What was sent by the one
        before must not be taken behind the answer; what is still the agent's comes again.
        """
        if self._runs.get(address) == run:
            return
        if len(self._runs) >= _MOST_RUNS:
            self._runs.clear()
        self._runs[address] = run
        self._early.drop(address)
        for place in [place for place in self._held if place[0] == address]:
            del self._held[place]

    def _hint(self, address: Address, outcome: Outcome) -> None:
        hint = self._statements.hint(address)
        if hint is not None:
            outcome.answers.append((address.topic("down"), hint))

    def _verified(
        self, topic: str, payload: bytes, outcome: Outcome
    ) -> tuple[Sealed | Ask | Loss | None, Factory]:
        """Return a message whose signature is right; None for an attestation, which is kept.

        Raises:
            Discarded: named by the check that failed.
        """
        found = topics.parse(topic)
        if found is None or found[1] != "up":
            raise Discarded("wrong_topic")
        factory = self._factories().get(found[0])
        if factory is None:
            raise Discarded("unknown_agent")
        try:
            if payload.startswith(_TWO_SIGNATURES):
                if cose.content_type_of_many(payload, MAX_KEYS) == KEYS:
                    self._keyring.take(payload, factory)
                    raise Discarded("keys_listed")
                self._attest(found[0], payload, factory, outcome)
                return None, factory
            signed = cose.parse_sign1(payload, content_types=_KINDS, limit=MAX_SEALED)
            sealed = signed.headers[cose.CONTENT_TYPE] in {BATCH, SHEET}
            message = read(signed, payload) if sealed else read_statement(signed)
            if _address(message) != found[0]:
                raise Discarded("wrong_topic")
            self._verify(signed, message, factory)
        except Malformed:
            raise Discarded("malformed") from None
        except RevokedKey:
            raise Discarded("revoked_key") from None
        except BadSignature:
            raise Discarded("bad_signature") from None
        return message, factory

    def _verify(self, signed: cose.Signed, message: Sealed | Ask | Loss, factory: Factory) -> None:
        """Check a signature with the key that counts where the message stands.

        Raises:
            BadSignature: when none does; RevokedKey, noted, when it counts there no more.
        """
        keys = self._keyring.of(factory)
        if isinstance(message, Ask):
            keys.verify_word(signed)
            return
        place = _place(message)
        try:
            keys.verify(signed, place)
        except RevokedKey:
            self._watch.revoked(self._ledger.agent(_address(message)), place, _address(message))
            raise

    def _attest(self, address: Address, payload: bytes, factory: Factory, outcome: Outcome) -> None:
        """Keep an attestation and tell the agent which is the newest.

        Raises:
            Malformed, BadSignature, Discarded: when it is not one, or not this agent's.
        """
        if claimed_address(payload) != address:
            raise Discarded("wrong_topic")
        self._statements.attest(payload, factory, self._keyring.of(factory))
        outcome.answers.append((address.topic("down"), self._statements.standing(address)))

    def _in_order(
        self, sealed: Sealed, payload: bytes, chain: Chain, topic: str, outcome: Outcome
    ) -> None:
        """Let through only the next message of its chain; a replay gets its receipt again.

        One that is early is kept for its turn.

        Raises:
            Discarded: for everything else.
        """
        header = sealed.header
        if header.sequence < chain.next:
            known = self._ledger.digest_at(chain.agent, header)
            if known and known != sealed.digest:
                self._prove(sealed, payload, chain)
                self._hint(header.address, outcome)
                raise Discarded("equivocation")
            answer = (topic.removesuffix("up") + "down", chain.receipt)
            if chain.receipt and answer not in outcome.answers:
                outcome.answers.append(answer)
            raise Discarded("replayed")
        if self._ledger.record.quarantined(chain.agent):
            self._hint(header.address, outcome)
            raise Discarded("quarantined")
        if header.sequence > chain.next:
            place = (header.address, header.epoch, header.stream)
            now_s = self._now() // SECOND
            self._early.put(place, header.sequence, chain.next, payload, now_s)
            self._hint(header.address, outcome)
            raise Discarded("out_of_order")
        if header.previous != chain.digest:
            self._hint(header.address, outcome)
            raise Discarded("broken_chain")
        if self._ledger.is_full_of_refused(chain.agent, header):
            raise Discarded("too_many_refused")

    def _prove(self, sealed: Sealed, payload: bytes, chain: Chain) -> None:
        """Keep both messages that were signed for one place, and quarantine the agent."""
        header, now_s = sealed.header, self._now() // SECOND
        first = self._ledger.sealed_at(chain.agent, header)
        self._ledger.record.equivocation(chain.agent, header, first, payload, now_s)
        self._watch.equivocated(chain.agent, header)

    def _take(self, sealed: Sealed, payload: bytes, chain: Chain, factory: Factory) -> None:
        """Keep a message that is next in its chain.

        Raises:
            NotYet: when its sheet is not known.
            RefusedMessage: when it will never be taken.
        """
        if self._kid not in sealed.header.recipients:
            raise RefusedMessage(answers.CANNOT_OPEN)
        if sealed.content_type == SHEET:
            self._take_sheet(sealed, payload, chain, factory)
            return
        if sealed.header.policy_version < chain.version:
            raise RefusedMessage(answers.BEYOND_SHEET)
        known = self._opener.sheet(chain.agent, sealed.header.sheet_hash)
        if known is None:
            raise NotYet("sheet")
        try:
            blocks = self._checked(sealed, known)
        except CannotOpen:
            raise RefusedMessage(answers.CANNOT_OPEN) from None
        except Malformed:
            raise RefusedMessage(answers.NOT_A_BATCH) from None
        except BeyondSheet:
            raise RefusedMessage(answers.BEYOND_SHEET) from None
        self._cover(chain.agent, known.streams[sealed.header.stream].window_s, blocks)
        cells = sum(block.values for block in blocks)
        now_s = self._now() // SECOND
        self._ledger.keep(chain.agent, sealed.header, sealed.digest, payload, cells, now_s)
        self._opener.opened.put(sealed.digest, blocks)

    def _cover(self, agent: int, window_s: int, blocks: Sequence[Block]) -> None:
        """Mark the time that blocks cover.

        Raises:
            RefusedMessage: when a point's slot would have two values.
        """
        if repeats(blocks):
            raise RefusedMessage(answers.SLOT_TAKEN)
        overlap = Overlap(self._ledger, self._opener.blocks)
        for block in blocks:
            self._ledger.cover(agent, window_s, block, overlap)
        try:
            overlap.check(agent, window_s)
        except SlotTaken:
            raise RefusedMessage(answers.SLOT_TAKEN) from None

    def _checked(self, sealed: Sealed, known: KnownSheet) -> list[Block]:
        """Open a batch and check it against its sheet: no finer than released."""
        header, sheet = sealed.header, known.signed.sheet
        terms = known.streams.get(header.stream)
        if terms is None or not _names(header, sheet.policy_version, sheet.policy_hash):
            raise BeyondSheet("not what its sheet says")
        if header.purpose != sheet.purpose or header.right_hash != right_hash(sheet.right):
            raise BeyondSheet("another purpose or right")
        if not sheet.valid_from <= header.issued_at < sheet.valid_until:
            raise BeyondSheet("sealed while its sheet was not valid")
        blocks = batch.decode(self._opener.decrypt(sealed, terms.pad))
        start = min(block.slot for block in blocks) * terms.window_s
        end = max(block.slot + block.rows for block in blocks) * terms.window_s
        if header.window != (start, end) or end >= _LATEST_S:
            raise BeyondSheet("not the window that was signed")
        terms.check(blocks)
        terms.check_time(blocks, header.issued_at)
        return blocks

    def _take_sheet(self, sealed: Sealed, payload: bytes, chain: Chain, factory: Factory) -> None:
        header = sealed.header
        try:
            signed = unpack_sheet(self._opener.decrypt(sealed, 1))
            read = read_sheet(signed, factory.card.officers, factory.card.threshold)
            stream_terms(read.sheet)
        except CannotOpen:
            raise RefusedMessage(answers.CANNOT_OPEN) from None
        except (Malformed, BadSignature):
            raise RefusedMessage(answers.BAD_SHEET) from None
        sheet = read.sheet
        right = (
            read.hash == header.sheet_hash
            and sheet.consumer == self._pin
            and _names(header, sheet.policy_version, sheet.policy_hash)
        )
        if not right:
            raise RefusedMessage(answers.BAD_SHEET)
        now_s = self._now() // SECOND
        self._ledger.keep_sheet(chain.agent, read.hash, sheet.policy_version, signed, now_s)
        self._ledger.keep(chain.agent, header, sealed.digest, payload, 0, now_s)

    def _hold(self, topic: str, header: Header, payload: bytes, outcome: Outcome) -> None:
        """Keep a message for when its sheet comes, within a bound, and ask for the sheet.

        It is asked for again after a while, since a request can get lost.
        """
        outcome.counts["held_for_sheet"] += 1
        held = self._held.get((header.address, header.sheet_hash), [])
        if payload not in held and self._has_room(header.address):
            self._held[header.address, header.sheet_hash] = [*held, payload]
        now_s = self._now() // SECOND
        asked_s = self._asked.get((header.address, header.sheet_hash), 0)
        # A clock that was set back must not silence it.
        if asked_s <= now_s < asked_s + _ASK_AGAIN_S:
            return
        if len(self._asked) >= _MOST_ASKED:
            self._asked.clear()
        self._asked[header.address, header.sheet_hash] = now_s
        request = Request(header.address, now_s, header.sheet_hash)
        answer = (topic.removesuffix("up") + "down", sign_answer(request, self._key))
        if answer not in outcome.answers:
            outcome.answers.append(answer)

    def _has_room(self, address: Address) -> bool:
        """Tell whether one more message of an agent may be held."""
        sizes = [(owner, len(messages)) for (owner, _), messages in self._held.items()]
        own = sum(size for owner, size in sizes if owner == address)
        return own < _MOST_HELD and sum(size for _, size in sizes) < _MOST_HELD_ALL

    def _receipt(
        self, agent: int, address: Address, heads: Sequence[Head], outcome: Outcome
    ) -> None:
        reached, refused = self._nameable(agent, heads)
        now_s = self._now() // SECOND
        log = self._ledger.record.log()
        receipt = Receipt(address, now_s, tuple(reached), tuple(refused), log)
        signed = sign_answer(receipt, self._key)
        self._ledger.answer(agent, heads, signed, now_s)
        outcome.answers.append((address.topic("down"), signed))

    def _nameable(self, agent: int, heads: Sequence[Head]) -> tuple[list[Head], list[Refused]]:
        """Return heads and what was refused up to them, within the bound of a receipt.

        A refused message that is not named would count as kept, so a head ends before the first
        one that has no room; the agent declares those named, and then the next are.
        """
        reached: list[Head] = []
        named: list[Refused] = []
        for head in heads:
            room = MOST_REFUSED - len(named)
            found = self._ledger.undeclared(agent, head, room + 1)
            last = self._ledger.head_before(agent, found[room].head) if len(found) > room else head
            named += found[:room]
            reached += [last] if last is not None else []
        return reached, named


def _place(message: Sealed | Loss) -> Place:
    """Return where a message stands in its chain; a loss stands at the first that it declares."""
    if isinstance(message, Loss):
        return message.epoch, message.stream, message.first
    header = message.header
    return header.epoch, header.stream, header.sequence


def _address(message: Sealed | Ask | Loss) -> Address:
    return message.header.address if isinstance(message, Sealed) else message.address


def _names(header: Header, version: int, policy_hash: bytes) -> bool:
    return header.policy_version == version and header.policy_hash == policy_hash


def sheet_pin(public: bytes) -> bytes:
    """Return the pin by which sheets name a consumer's encryption key."""
    return content_hash(public)

"""Alarms with names: what an agent attested and did not send, sent twice, or left unexplained."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from aggregator.config import Factory
from aggregator.ledger import Ledger
from aggregator.record import Alarm
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security.envelope import Header
from security.keys import BadSignature
from security.statements import ATTEST_S, Attestation, read_attestation

MESSAGES_MISSING: Final = "messages_missing"
CHAIN_DIFFERS: Final = "chain_differs"
ATTESTATION_MISSING: Final = "attestation_missing"
ATTESTATION_LATE: Final = "attestation_late"
EQUIVOCATION: Final = "equivocation"
EPOCH_UNEXPLAINED: Final = "epoch_unexplained"

_LATE_S: Final = 2 * ATTEST_S

_log = logging.getLogger(__name__)


def in_words(alarm: Alarm) -> str:
    """Return an alarm as one line for a person."""
    span = f"{alarm.first}" if alarm.first == alarm.last else f"{alarm.first}-{alarm.last}"
    chain = tr(
        f"stream {alarm.stream}, epoch {alarm.epoch}", f"流 {alarm.stream}，纪元 {alarm.epoch}"
    )
    words = {
        MESSAGES_MISSING: tr(
            f"messages {span} of {chain} were attested an hour ago and have not come",
            f"{chain} 的消息 {span} 一小时前已被见证，但至今未到",
        ),
        CHAIN_DIFFERS: tr(
            f"message {span} of {chain} is not the one that was attested",
            f"{chain} 的消息 {span} 与所见证的不是同一条",
        ),
        ATTESTATION_MISSING: tr(
            f"attestation {span} never came, a later one did", f"见证 {span} 未到，而后续见证已到"
        ),
        ATTESTATION_LATE: tr(
            f"attestation {span} is overdue: none for more than two hours",
            f"见证 {span} 逾期：已超过两小时没有见证",
        ),
        EQUIVOCATION: tr(
            f"two different messages were signed for place {span} of {chain}; the agent is "
            "quarantined",
            f"{chain} 的位置 {span} 有两条不同的已签名消息；该代理程序已被隔离",
        ),
        EPOCH_UNEXPLAINED: tr(
            f"{chain} began without saying where the epoch before ended ({span} messages of it "
            "are here)",
            f"{chain} 开始时未说明上一纪元终于何处（此处有其 {span} 条消息）",
        ),
    }
    return words.get(alarm.kind, f"{alarm.kind} {span} {chain}")


class Watch:
    """Raises and clears alarms; all calls come from the inbox's thread, in its transactions."""

    def __init__(
        self, ledger: Ledger, factories: Callable[[], Mapping[Address, Factory]], now_ns: NowNs
    ) -> None:
        self._ledger = ledger
        self._record = ledger.record
        self._factories = factories
        self._now = now_ns

    def raise_for(self, alarm: Alarm, address: Address) -> None:
        """Note an alarm, and say it once."""
        if self._record.raise_alarm(alarm):
            _log.error("%s: %s: %s", address.agent.hex(), alarm.kind, in_words(alarm))

    def attested(self, agent: int, found: Attestation) -> None:
        """Look at an attestation that was just kept: are there any between it and the one before?"""
        before, _ = self._record.attested(agent)
        now_s = self._now() // SECOND
        if found.number > before + 1:
            self.raise_for(
                Alarm(agent, ATTESTATION_MISSING, 0, 0, before + 1, found.number - 1, now_s),
                found.address,
            )
        self._record.clear_alarms(agent, ATTESTATION_LATE, now_s)

    def epoch_began(self, agent: int, header: Header) -> None:
        """Look at the first message of a chain: does it say where the epoch before ended?"""
        found = self._record.epoch_before(agent, header.epoch, header.stream)
        if found is None:
            return
        before = header.before
        if before is not None and (before.epoch, before.count, before.digest) == tuple(found):
            return
        alarm = Alarm(
            agent,
            EPOCH_UNEXPLAINED,
            header.epoch,
            header.stream,
            found[1],
            found[1],
            self._now() // SECOND,
        )
        self.raise_for(alarm, header.address)

    def look(self) -> None:
        """Hold what was attested against what came; call it every minute or so."""
        with self._ledger.transaction():
            agents = self._ledger.agents()
            for address, factory in self._factories().items():
                if address in agents:
                    self._look_at(agents[address], address, factory)

    def _look_at(self, agent: int, address: Address, factory: Factory) -> None:
        now_s = self._now() // SECOND
        number, received_s = self._record.attested(agent)
        if number and now_s - received_s > _LATE_S:
            alarm = Alarm(agent, ATTESTATION_LATE, 0, 0, number + 1, number + 1, now_s)
            self.raise_for(alarm, address)
        signed = self._record.attestation_of(agent, now_s - ATTEST_S)
        if not signed:
            return
        card = factory.card
        try:
            found = read_attestation(signed, card.signing_key, card.attestation_key)
        except (Malformed, BadSignature):
            # The card names other keys since; what they attested is judged offline.
            return
        for chain in found.chains:
            self._compare(agent, address, found.epoch, chain.stream, chain.count, chain.digest)

    def _compare(
        self, agent: int, address: Address, epoch: int, stream: int, count: int, digest: bytes
    ) -> None:
        now_s = self._now() // SECOND
        following = self._ledger.next_of(agent, epoch, stream)
        if following < count:
            alarm = Alarm(agent, MESSAGES_MISSING, epoch, stream, following, count - 1, now_s)
            self.raise_for(alarm, address)
            return
        self._record.clear_alarms(agent, MESSAGES_MISSING, now_s, epoch, stream)
        known = self._record.digest_at(agent, epoch, stream, count - 1) if count else b""
        if known and known != digest:
            alarm = Alarm(agent, CHAIN_DIFFERS, epoch, stream, count - 1, count - 1, now_s)
            self.raise_for(alarm, address)

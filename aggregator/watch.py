"""Alarms from chains: what an agent attested and did not send, sent twice, lost or left unexplained."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from aggregator.alarms import (
    ATTESTATION_LATE,
    ATTESTATION_MISSING,
    AWAITING,
    CHAIN_DIFFERS,
    EPOCH_UNEXPLAINED,
    EQUIVOCATION,
    EXPIRED,
    GAP,
    MESSAGES_MISSING,
    REFUSAL,
    REVOKED_KEY,
    STOPPED,
)
from aggregator.config import Factory
from aggregator.ledger import Ledger
from aggregator.outlook import Outlook
from aggregator.raising import Raising
from aggregator.record import Alarm
from aggregator.trust import Trust, trust_of
from protocols.frame import NowNs
from protocols.topics import Address
from security.envelope import REASON_EXPIRED, REASON_REFUSED, REASON_STOPPED, Header
from security.key_list import Place
from security.statements import ATTEST_S, Ask, Attestation, Loss, attestation_in

_LATE_S: Final = 2 * ATTEST_S
_ENDED: Final = {REASON_STOPPED: STOPPED, REASON_EXPIRED: EXPIRED}
"""How a policy can end, in a declaration and as an alarm; what is declared so is no loss."""


class Watch:
    """Raises and clears alarms; all calls come from the inbox's thread, in its transactions."""

    def __init__(
        self,
        ledger: Ledger,
        factories: Callable[[], Mapping[Address, Factory]],
        outlook: Outlook,
        now_ns: NowNs,
        own: Collection[int],
    ) -> None:
        """Keep what it needs; `own` are the streams that are meant for this brain."""
        self._own = own
        self._ledger = ledger
        self._record = ledger.record
        self._factories = factories
        self._outlook = outlook
        self._raising = Raising(ledger.record, now_ns)

    def decided(self, agent: int, header: Header) -> None:
        """Look at a message whose turn it was, kept or refused."""
        self._outlook.heard(agent, header.address, header.issued_at)
        self._outlook.sealed_under(agent, header)
        self._ended(agent, header)
        for gap in header.gaps:
            if gap.reason not in {REASON_REFUSED, *_ENDED}:
                self._happened(GAP, agent, header, gap.first, gap.last)

    def _ended(self, agent: int, header: Header) -> None:
        """Look whether a message says that its policy has ended, or leads on after an end.

        Only a sheet leads on, which comes before all else that is sealed under a newer policy. After
        an officer's stop it takes a newer one; that a validity is over may have been a wrong clock's
        word, taken back by the same sheet again.
        """
        version = header.policy_version
        said = [_ENDED[gap.reason] for gap in header.gaps if gap.reason in _ENDED]
        if header.window == (0, 0):
            for kind, least in ((STOPPED, version - 1), (EXPIRED, version)):
                known = self._record.open_alarm(agent, kind)
                if known is not None and kind not in said and known.last <= least:
                    self._raising.over(agent, kind)
        for kind in said:
            alarm = Alarm(agent, kind, 0, 0, version, version, self._raising.now_s)
            self._raising.holds(alarm, header.address)

    def asked(self, agent: int, ask: Ask) -> None:
        """Look at a question, which is signed as it is sent."""
        self._outlook.heard(agent, ask.address, ask.issued_at)

    def lost(self, agent: int, loss: Loss) -> None:
        """Look at a declared loss that was taken."""
        self._happened(GAP, agent, loss, loss.first, loss.last)

    def refused(self, agent: int, header: Header) -> None:
        """Look at a message that was refused."""
        self._happened(REFUSAL, agent, header, header.sequence, header.sequence)

    def revoked(self, agent: int, place: Place, address: Address) -> None:
        """Look at a message that was rightly signed with a key that does not count there."""
        epoch, stream, sequence = place
        alarm = Alarm(agent, REVOKED_KEY, epoch, stream, sequence, sequence, self._raising.now_s)
        self._raising.happened(alarm, address)

    def equivocated(self, agent: int, header: Header) -> None:
        """Look at a second message for a place."""
        place = header.epoch, header.stream, header.sequence, header.sequence
        alarm = Alarm(agent, EQUIVOCATION, *place, self._raising.now_s)
        self._raising.holds(alarm, header.address)

    def attested(self, agent: int, found: Attestation) -> None:
        """Look at an attestation that was just kept: are there any between it and the one before?"""
        before, _ = self._record.attested(agent)
        # Those from before this brain was named were for others; counts go on from the first.
        if before and found.number > before + 1:
            alarm = Alarm(
                agent,
                ATTESTATION_MISSING,
                0,
                0,
                before + 1,
                found.number - 1,
                self._raising.now_s,
            )
            self._raising.happened(alarm, found.address)
        self._raising.over(agent, ATTESTATION_LATE)
        self._outlook.attested_under(agent, found)

    def epoch_began(self, agent: int, header: Header) -> None:
        """Look at the first message of a chain: does it say where the epoch before ended?"""
        found = self._record.epoch_before(agent, header.epoch, header.stream)
        if found is None:
            return
        before = header.before
        if before is not None and (before.epoch, before.count, before.digest) == tuple(found):
            return
        self._happened(EPOCH_UNEXPLAINED, agent, header, found[1], found[1])

    def look(self) -> None:
        """Hold what was attested against what came; call it every minute or so."""
        certificates = self._outlook.certificates()
        with self._ledger.transaction():
            agents = self._ledger.agents()
            for address, factory in self._factories().items():
                if address in agents and not self._is_revoked(agents[address], factory):
                    self._look_at(agents[address], address)
                    self._outlook.look_at(agents[address], address)
            self._outlook.look_at_brain()
            known = {one.agent: (agents[one], one) for one in self._factories() if one in agents}
            self._outlook.look_at_certificates(certificates, known)
            self._raising.tidy()

    def _is_revoked(self, agent: int, factory: Factory) -> bool:
        """Tell whether nothing more is awaited of an agent; what warned of it is over then."""
        if trust_of(self._record.quarantine_of(agent), factory) is not Trust.REVOKED:
            return False
        for kind in AWAITING:
            self._raising.over(agent, kind)
        return True

    def _look_at(self, agent: int, address: Address) -> None:
        now_s = self._raising.now_s
        number, received_s = self._record.attested(agent)
        if number and now_s - received_s > _LATE_S:
            alarm = Alarm(agent, ATTESTATION_LATE, 0, 0, number + 1, number + 1, now_s)
            self._raising.holds(alarm, address)
        signed = self._record.attestation_of(agent, now_s - ATTEST_S)
        if not signed:
            return
        # It was verified when it was kept.
        found = attestation_in(signed)
        for chain in found.chains:
            # What is meant for another brain does not come here.
            if chain.stream in self._own:
                self._compare(agent, address, found.epoch, chain.stream, chain.count, chain.digest)

    def _compare(
        self, agent: int, address: Address, epoch: int, stream: int, count: int, digest: bytes
    ) -> None:
        now_s = self._raising.now_s
        following = self._ledger.next_of(agent, epoch, stream)
        if following < count:
            alarm = Alarm(agent, MESSAGES_MISSING, epoch, stream, following, count - 1, now_s)
            self._raising.follows(alarm, address)
            return
        self._raising.over(agent, MESSAGES_MISSING, epoch, stream)
        known = self._record.digest_at(agent, epoch, stream, count - 1) if count else b""
        if known and known != digest:
            alarm = Alarm(agent, CHAIN_DIFFERS, epoch, stream, count - 1, count - 1, now_s)
            self._raising.holds(alarm, address)

    def _happened(self, kind: str, agent: int, where: Header | Loss, first: int, last: int) -> None:
        now_s = self._raising.now_s
        alarm = Alarm(agent, kind, where.epoch, where.stream, first, last, now_s)
        self._raising.happened(alarm, where.address)

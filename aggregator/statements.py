"""Takes what agents state beside their batches, and tells them where they stand."""

import hashlib
from collections.abc import Sequence
from typing import Final

from aggregator.config import Factory
from aggregator.ledger import Ledger
from aggregator.record import Leaf
from aggregator.watch import Watch
from protocols.frame import SECOND, NowNs
from protocols.topics import Address
from security.answers import MOST_HEADS, Standing, sign_answer
from security.evidence import ATTESTATION
from security.key_list import AgentKeys, read_attested
from security.keys import Signer
from security.statements import NONCE_BYTES, Ask, Loss

_HINT_S: Final = 5
_MOST_HINTED: Final = 4096
_UNASKED: Final = bytes(NONCE_BYTES)


class Statements:
    """Asks, losses and attestations; all calls come from the inbox's thread."""

    def __init__(self, ledger: Ledger, key: Signer, watch: Watch, now_ns: NowNs) -> None:
        self._ledger = ledger
        self._record = ledger.record
        self._key = key
        self._watch = watch
        self._now = now_ns
        self._hinted: dict[Address, int] = {}

    def standing(
        self, address: Address, nonce: bytes = _UNASKED, logs: Sequence[tuple[bytes, int]] = ()
    ) -> bytes:
        """Return the signed standing of an agent."""
        agent = self._ledger.agent(address)
        log = self._record.log()
        known = dict(logs).get(self._key.public.kid, 0)
        heads = self._record.heads(agent, MOST_HEADS)
        standing = Standing(
            address=address,
            issued_at=self._now() // SECOND,
            nonce=nonce,
            epoch=max((head.epoch for head in heads), default=0),
            quarantined=self._record.quarantined(agent),
            attested=self._record.attested(agent)[0],
            log=log,
            proof=tuple(self._record.consistency(known, log.size)),
            heads=tuple(heads),
        )
        return sign_answer(standing, self._key)

    def hint(self, address: Address) -> bytes | None:
        """Return a standing that nobody asked for, now and then: the agent may want to ask."""
        now_s = self._now() // SECOND
        hinted_s = self._hinted.get(address, 0)
        # A clock that was set back must not silence it.
        if hinted_s <= now_s < hinted_s + _HINT_S:
            return None
        if len(self._hinted) >= _MOST_HINTED:
            self._hinted.clear()
        self._hinted[address] = now_s
        return self.standing(address)

    def answer(self, ask: Ask) -> bytes:
        """Answer an agent's question."""
        return self.standing(ask.address, ask.nonce, ask.logs)

    def lose(self, loss: Loss, signed: bytes) -> bool:
        """Let a chain go on behind what its sender declares lost; return whether it did.

        Only what comes next can be lost: nothing that is kept, nothing with a gap before it.
        """
        agent = self._ledger.agent(loss.address)
        if self._record.quarantined(agent):
            return False
        if self._ledger.next_of(agent, loss.epoch, loss.stream) != loss.first:
            return False
        now_s = self._now() // SECOND
        digest = hashlib.sha256(signed).digest()
        self._record.keep_loss(agent, loss, signed, digest, now_s)
        return True

    def attest(self, signed: bytes, factory: Factory, keys: AgentKeys) -> bool:
        """Keep an attestation; return whether it is new.

        Raises:
            Malformed, BadSignature: when it is not one, or either of its signatures is not right.
        """
        found = read_attested(signed, keys, factory.card.attestation_key)
        agent = self._ledger.agent(found.address)
        if found.number <= self._record.attested(agent)[0]:
            return False
        now_s = self._now() // SECOND
        self._watch.attested(agent, found)
        self._record.keep_attestation(agent, found, signed, now_s)
        digest = hashlib.sha256(signed).digest()
        self._record.enter(
            Leaf(-1, agent, ATTESTATION, found.epoch, 0, found.number, now_s, digest)
        )
        return True

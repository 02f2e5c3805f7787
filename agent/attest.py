"""Makes the agent's attestations: once an hour, how far all chains have come, signed twice."""

from collections.abc import Collection
from typing import Final

from agent.chains import chain_ends
from agent.spool import Spool
from protocols.frame import SECOND, NowNs
from protocols.topics import Address
from security.keys import AttestationKey, Signer
from security.statements import ATTEST_S, Attestation, sign_attestation

MOST_AT_ONCE: Final = 16


class Attester:
    """Keeps an agent's attestations in its spool until each brain has them."""

    def __init__(
        self,
        spool: Spool,
        address: Address,
        keys: tuple[Signer, AttestationKey],
        policy: tuple[int, bytes],
        now_ns: NowNs,
        brains: Collection[bytes] = (),
    ) -> None:
        """Keep what it needs; `brains` are the key ids of the receipt keys of those that are to have them."""
        self._brains = brains
        self._spool = spool
        self._address = address
        self._keys = keys
        self._policy = policy
        self._now = now_ns

    def waiting(self, held: Collection[int] = ()) -> list[bytes]:
        """Make an attestation when one is due, and return the oldest that a brain lacks.

        Args:
            held: streams that are left out, since their brain has not said how far it has them.
        """
        now_s = self._now() // SECOND
        epoch = int(self._spool.meta("epoch", 0))
        last_s = int(self._spool.meta("attested_s", 0))
        # A clock that was set back must not silence it.
        if epoch and not last_s <= now_s < last_s + ATTEST_S:
            self._make(epoch, now_s, held)
        return self._spool.attestations(MOST_AT_ONCE, self._brains)

    def attest_now(self, held: Collection[int] = ()) -> None:
        """Make an attestation although none is due: the last one before this side ends."""
        epoch = int(self._spool.meta("epoch", 0))
        if epoch:
            self._make(epoch, self._now() // SECOND, held)

    def _make(self, epoch: int, now_s: int, held: Collection[int]) -> None:
        spool = self._spool
        number = int(spool.meta("attestations", 0)) + 1
        version, policy_hash = self._policy
        signed = sign_attestation(
            Attestation(
                address=self._address,
                epoch=epoch,
                number=number,
                issued_at=now_s,
                policy_version=version,
                policy_hash=policy_hash,
                receipt=(spool.meta("receipts", 0), spool.meta("receipt", bytes(32))),
                chains=tuple(one for one in chain_ends(spool, epoch) if one.stream not in held),
            ),
            *self._keys,
        )
        spool.keep_attestation(number, now_s, signed)

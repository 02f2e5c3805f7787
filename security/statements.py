"""What an agent states beside its batches: signed, not encrypted, and silent about values.

An *ask* asks the brain how far the agent's chains have come. A *loss* declares messages of a chain
that the sender no longer has, so that the chain can go on behind them. An *attestation* states once
an hour how far all chains have come; it carries an Ed25519 **and** an ML-DSA-65 signature.
"""

from dataclasses import dataclass
from typing import Final

from protocols import strict_cbor
from protocols.strict_cbor import Malformed, fixed, uint
from protocols.topics import ID_BYTES, Address
from security import cose
from security.envelope import (
    HASH_BYTES,
    MOST_REASON,
    REASON_REFUSED,
    sequence_in,
)
from security.keys import KID_BYTES, AttestationKey, AttestationVerifyKey, Signer, VerifyKey

ASK: Final = "application/mg1-ask+cbor"
LOSS: Final = "application/mg1-loss+cbor"
ATTESTATION: Final = "application/mg1-attestation+cbor"
NONCE_BYTES: Final = 16
RUN_BYTES: Final = 8
"""The beginning of a nonce: the same in all questions of one run of an agent, and of no other."""

MAX_STATEMENT: Final = 64 * 1024
ATTEST_S: Final = 3600
"""Seconds between two attestations."""

_MOST_CHAINS: Final = 512
_MOST_LOGS: Final = 8
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Ask:
    """How far have my chains come?

    Attributes:
        issued_at: seconds since 1970 UTC.
        nonce: 16 random bytes; the answer repeats them.
        logs: for each brain (key id of its receipt key) the size of its log as it showed it last.
    """

    address: Address
    issued_at: int
    nonce: bytes
    logs: tuple[tuple[bytes, int], ...] = ()

    @property
    def fields(self) -> list[object]:
        """The body behind the common start."""
        return [self.nonce, [list(one) for one in self.logs]]


@dataclass(frozen=True, slots=True)
class Loss:
    """Messages of a chain that the sender no longer has, ends included.

    Attributes:
        digest: hash of the message `last`; the next one names it as the one before.
        reason: see `security.envelope.REASON_*`.
    """

    address: Address
    issued_at: int
    epoch: int
    stream: int
    first: int
    last: int
    digest: bytes
    reason: int

    @property
    def fields(self) -> list[object]:
        """The body behind the common start."""
        return [self.epoch, self.stream, self.first, self.last, self.digest, self.reason]


Statement = Ask | Loss


@dataclass(frozen=True, slots=True)
class ChainEnd:
    """How far a chain has come.

    Attributes:
        count: how many messages it has: the next sequence.
        digest: hash of the newest.
    """

    stream: int
    count: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Attestation:
    """How far all chains of an epoch had come at one moment.

    Attributes:
        number: +1 with every attestation of the agent, over all epochs, from 1 on.
        issued_at: seconds since 1970 UTC.
        policy_version, policy_hash: what was enforced.
        receipt: how many receipts were seen, and the hash of the last.
        chains: sorted by stream.
    """

    address: Address
    epoch: int
    number: int
    issued_at: int
    policy_version: int
    policy_hash: bytes
    receipt: tuple[int, bytes]
    chains: tuple[ChainEnd, ...]


def sign_statement(statement: Statement, key: Signer) -> bytes:
    """Return the signed bytes of an ask or a loss."""
    address = statement.address
    start = [_VERSION, address.factory, address.agent, statement.issued_at]
    kind = ASK if isinstance(statement, Ask) else LOSS
    body = strict_cbor.encode([*start, *statement.fields])
    return cose.sign1(cose.protected_header(kind, key.public, {}), body, key)


def read_statement(signed: cose.Signed) -> Statement:
    """Read an ask or a loss from a COSE_Sign1 of their content types; it is not verified here.

    Raises:
        Malformed: when it is not exactly one.
    """
    item = strict_cbor.decode(signed.payload, max_bytes=MAX_STATEMENT)
    if not (isinstance(item, list) and len(item) >= 4 and item[0] == _VERSION):
        raise Malformed("not a statement of version 1")
    address = Address(fixed(item[1], ID_BYTES), fixed(item[2], ID_BYTES))
    at, rest = uint(item[3]), item[4:]
    kind = signed.headers[cose.CONTENT_TYPE]
    if kind == ASK and len(rest) == 2:
        return Ask(address, at, fixed(rest[0], NONCE_BYTES), _logs(rest[1]))
    if kind == LOSS and len(rest) == 6:
        return _loss(address, at, rest)
    raise Malformed("not a statement")


def parse_statement(data: bytes) -> tuple[cose.Signed, Statement]:
    """Read the bytes of an ask or a loss without believing them.

    Raises:
        Malformed: when they are not exactly one.
    """
    signed = cose.parse_sign1(data, content_types={ASK: None, LOSS: None}, limit=MAX_STATEMENT)
    return signed, read_statement(signed)


def _loss(address: Address, at: int, rest: list[object]) -> Loss:
    epoch, stream, first, reason = (uint(rest[place]) for place in (0, 1, 2, 5))
    last = sequence_in(rest[3])
    if first > last or not REASON_REFUSED <= reason <= MOST_REASON:
        raise Malformed("not a loss")
    return Loss(address, at, epoch, stream, first, last, fixed(rest[4], HASH_BYTES), reason)


def _logs(value: object) -> tuple[tuple[bytes, int], ...]:
    if not (isinstance(value, list) and len(value) <= _MOST_LOGS):
        raise Malformed("too many logs")
    found = []
    for one in value:
        if not (isinstance(one, list) and len(one) == 2):
            raise Malformed("not a log")
        found.append((fixed(one[0], KID_BYTES), uint(one[1])))
    return tuple(found)


def sign_attestation(attestation: Attestation, key: Signer, quantum: AttestationKey) -> bytes:
    """Return the bytes of an attestation with both signatures."""
    address = attestation.address
    body = [
        _VERSION,
        address.factory,
        address.agent,
        attestation.epoch,
        attestation.number,
        attestation.issued_at,
        attestation.policy_version,
        attestation.policy_hash,
        list(attestation.receipt),
        [[chain.stream, chain.count, chain.digest] for chain in attestation.chains],
    ]
    return cose.sign_many(ATTESTATION, strict_cbor.encode(body), [key, quantum])


def read_attestation(data: bytes, key: VerifyKey, quantum: AttestationVerifyKey) -> Attestation:
    """Verify and read an attestation: both signatures must be right, and there is no third.

    Raises:
        Malformed, BadSignature: when it is not exactly one, or either signature is not right.
    """
    payload = cose.verify_many(
        data, content_type=ATTESTATION, trusted=[key, quantum], threshold=2, limit=MAX_STATEMENT
    )
    return _attestation(payload)


def claimed_address(data: bytes) -> Address:
    """Return whose attestation it says it is, without believing it.

    Raises:
        Malformed: when it is not one.
    """
    return attestation_in(data).address


def attestation_in(data: bytes) -> Attestation:
    """Read an attestation without looking at its signatures: one that was verified when it was kept.

    Raises:
        Malformed: when it is not one.
    """
    return _attestation(cose.payload_of_many(data, MAX_STATEMENT))


def _attestation(payload: bytes) -> Attestation:
    item = strict_cbor.decode(payload, max_bytes=MAX_STATEMENT)
    if not (isinstance(item, list) and len(item) == 10 and item[0] == _VERSION):
        raise Malformed("not an attestation of version 1")
    receipt, chains = item[8], item[9]
    if not (isinstance(receipt, list) and len(receipt) == 2 and isinstance(chains, list)):
        raise Malformed("not an attestation")
    if len(chains) > _MOST_CHAINS:
        raise Malformed("too many chains")
    ends = tuple(_chain_end(one) for one in chains)
    if [end.stream for end in ends] != sorted({end.stream for end in ends}):
        raise Malformed("chains are not sorted and unique")
    return Attestation(
        address=Address(fixed(item[1], ID_BYTES), fixed(item[2], ID_BYTES)),
        epoch=uint(item[3]),
        number=uint(item[4]),
        issued_at=uint(item[5]),
        policy_version=uint(item[6]),
        policy_hash=fixed(item[7], HASH_BYTES),
        receipt=(uint(receipt[0]), fixed(receipt[1], HASH_BYTES)),
        chains=ends,
    )


def _chain_end(item: object) -> ChainEnd:
    if not (isinstance(item, list) and len(item) == 3):
        raise Malformed("not a chain")
    return ChainEnd(uint(item[0]), uint(item[1]), fixed(item[2], HASH_BYTES))

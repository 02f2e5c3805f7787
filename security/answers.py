"""What the brain answers, each a COSE_Sign1 of its receipt key.

A *receipt* acknowledges, cumulatively, everything of some streams up to a sequence, except the
messages it names as *refused*: those will never be taken. A *request* asks for a release sheet
that is not known. A *standing* tells an agent how far the brain has its chains, and shows that the
brain's log only grew. An *erasure* says that the content of batches is deleted, since their
retention has ended. A *tree head* is the brain's word on its log, for anybody.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from protocols import strict_cbor
from protocols.strict_cbor import Malformed, fixed, uint
from protocols.topics import Address
from security import cose
from security.envelope import HASH_BYTES
from security.keys import BadSignature, Signer, VerifyKey
from security.statements import NONCE_BYTES
from security.transparency import EMPTY_ROOT, MOST_LEVELS

RECEIPT: Final = "application/mg1-receipt+cbor"
REQUEST: Final = "application/mg1-request+cbor"
ERASURE: Final = "application/mg1-erasure+cbor"
STANDING: Final = "application/mg1-standing+cbor"
TREE_HEAD: Final = "application/mg1-tree-head+cbor"
MAX_ANSWER: Final = 64 * 1024
MOST_HEADS: Final = 512
MOST_REFUSED: Final = 64
MOST_ERASED: Final = 512
_MOST_PROOF: Final = 2 * MOST_LEVELS
_VERSION: Final = 1

# Why a batch is refused. The numbers are part of the wire format.
CANNOT_OPEN: Final = 1
NOT_A_BATCH: Final = 2
BEYOND_SHEET: Final = 3
SLOT_TAKEN: Final = 4
EQUIVOCATION: Final = 5
BAD_SHEET: Final = 6
_CODES: Final = range(CANNOT_OPEN, BAD_SHEET + 1)

_KINDS: Final[dict[str, int | None]] = {
    RECEIPT: None,
    REQUEST: None,
    STANDING: None,
    ERASURE: None,
}


@dataclass(frozen=True, slots=True)
class Head:
    """The newest acknowledged message of a stream.

    Attributes:
        digest: its hash; with it the whole chain before is acknowledged.
    """

    epoch: int
    stream: int
    sequence: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """One message that will never be taken.

    Attributes:
        head: which message.
        code: why, see above.
    """

    head: Head
    code: int


@dataclass(frozen=True, slots=True)
class Log:
    """A state of the brain's log (RFC 9162): its leaves are message hashes in order of arrival."""

    size: int
    root: bytes


NO_LOG: Final = Log(0, EMPTY_ROOT)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Everything of these streams up to their heads is kept, but for what was refused.

    Attributes:
        issued_at: seconds since 1970 UTC.
        refused: every refused message that the agent has not yet declared as a gap.
        log: the brain's log, which holds all of it.
    """

    address: Address
    issued_at: int
    heads: tuple[Head, ...]
    refused: tuple[Refused, ...] = ()
    log: Log = NO_LOG


@dataclass(frozen=True, slots=True)
class Request:
    """A release sheet is asked for.

    Attributes:
        sheet_hash: which.
    """

    address: Address
    issued_at: int
    sheet_hash: bytes


@dataclass(frozen=True, slots=True)
class Erased:
    """Batches of one stream whose content is deleted, sequences `first` to `last`.

    Attributes:
        digest: SHA-256 of their hashes, one after the other.
    """

    epoch: int
    stream: int
    first: int
    last: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Erasure:
    """All that was ever deleted of this agent's batches because their retention ended.

    Attributes:
        issued_at: seconds since 1970 UTC.
        erased: by epoch, stream and sequence.
    """

    address: Address
    issued_at: int
    erased: tuple[Erased, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the brain has an agent's chains.

    Attributes:
        nonce: of the ask that it answers; of zeros where nobody asked.
        epoch: the newest epoch of the agent that the brain has anything of; 0 for none.
        quarantined: the brain holds proof of two messages for one place, and takes no more
            until a person has looked.
        attested: number of the newest attestation that the brain keeps; 0 for none.
        log: the brain's log now.
        proof: that the log the agent named begins this one; empty where it named none.
        heads: of all chains of the newest epochs, as many as there is room for.
    """

    address: Address
    issued_at: int
    nonce: bytes
    epoch: int
    quarantined: bool
    attested: int
    log: Log
    proof: tuple[bytes, ...]
    heads: tuple[Head, ...]


Answer = Receipt | Request | Standing | Erasure


def answer_digest(signed: bytes) -> bytes:
    """Return the hash by which the next batch names the last receipt seen."""
    return hashlib.sha256(signed).digest()


def answer_kid(signed: bytes) -> bytes:
    """Return the key id that an answer names.

    Raises:
        Malformed: when it is not one.
    """
    return cose.parse_sign1(signed, content_types=_KINDS, limit=MAX_ANSWER).kid


def sign_answer(answer: Answer, key: Signer) -> bytes:
    """Return the signed bytes of an answer."""
    start = [_VERSION, answer.address.factory, answer.address.agent, answer.issued_at]
    rest: list[object]
    match answer:
        case Receipt():
            refused = [[*_head_item(one.head), one.code] for one in answer.refused]
            heads = [_head_item(head) for head in answer.heads]
            kind, rest = RECEIPT, [heads, refused, _log_item(answer.log)]
        case Request():
            kind, rest = REQUEST, [answer.sheet_hash]
        case Erasure():
            kind, rest = ERASURE, [[_erased_item(one) for one in answer.erased]]
        case Standing():
            kind, rest = STANDING, _standing_items(answer)
    protected = cose.protected_header(kind, key.public, {})
    return cose.sign1(protected, strict_cbor.encode([*start, *rest]), key)


def read_answer(data: bytes, address: Address, trusted: Sequence[VerifyKey]) -> Answer:
    """Verify and read an answer meant for this agent.

    Raises:
        Malformed: when it is not exactly one, or meant for another.
        BadSignature: when no trusted key made it.
    """
    signed = cose.parse_sign1(data, content_types=_KINDS, limit=MAX_ANSWER)
    key = next((key for key in trusted if key.kid == signed.kid), None)
    if key is None:
        raise BadSignature("not signed with a pinned key")
    signed.verify(key)
    item = strict_cbor.decode(signed.payload, max_bytes=MAX_ANSWER)
    if not (isinstance(item, list) and len(item) >= 5 and item[0] == _VERSION):
        raise Malformed("not an answer of version 1")
    if (item[1], item[2]) != (address.factory, address.agent):
        raise Malformed("meant for another agent")
    return _read_rest(signed.headers[cose.CONTENT_TYPE], address, item[3], item[4:])


def _read_rest(kind: str, address: Address, issued_at: object, rest: list[object]) -> Answer:
    at = uint(issued_at)
    if kind == RECEIPT and len(rest) == 3:
        heads, refused = _some(rest[0], 1, MOST_HEADS), _some(rest[1], 0, MOST_REFUSED)
        found = tuple(_read_head(head) for head in heads)
        declined = tuple(_read_refused(one) for one in refused)
        return Receipt(address, at, found, declined, _read_log(rest[2]))
    if kind == REQUEST and len(rest) == 1:
        return Request(address, at, fixed(rest[0], HASH_BYTES))
    if kind == STANDING and len(rest) == 7:
        return _read_standing(address, at, rest)
    if kind == ERASURE and len(rest) == 1:
        some = _some(rest[0], 1, MOST_ERASED)
        return Erasure(address, at, tuple(_read_erased(one) for one in some))
    raise Malformed("not an answer")


def _erased_item(one: Erased) -> list[object]:
    return [one.epoch, one.stream, one.first, one.last, one.digest]


def _read_erased(item: object) -> Erased:
    if not (isinstance(item, list) and len(item) == 5):
        raise Malformed("not an erased range")
    epoch, stream, first, last = (uint(part) for part in item[:4])
    if first > last:
        raise Malformed("not an erased range")
    return Erased(epoch, stream, first, last, fixed(item[4], HASH_BYTES))


def _read_standing(address: Address, at: int, rest: list[object]) -> Standing:
    quarantined = uint(rest[2])
    if quarantined > 1:
        raise Malformed("not a standing")
    return Standing(
        address=address,
        issued_at=at,
        nonce=fixed(rest[0], NONCE_BYTES),
        epoch=uint(rest[1]),
        quarantined=quarantined == 1,
        attested=uint(rest[3]),
        log=_read_log(rest[4]),
        proof=tuple(fixed(one, HASH_BYTES) for one in _some(rest[5], 0, _MOST_PROOF)),
        heads=tuple(_read_head(one) for one in _some(rest[6], 0, MOST_HEADS)),
    )


def _standing_items(standing: Standing) -> list[object]:
    return [
        standing.nonce,
        standing.epoch,
        int(standing.quarantined),
        standing.attested,
        _log_item(standing.log),
        list(standing.proof),
        [_head_item(head) for head in standing.heads],
    ]


def sign_tree_head(log: Log, issued_at: int, key: Signer) -> bytes:
    """Return the brain's signed word on its log at one moment."""
    protected = cose.protected_header(TREE_HEAD, key.public, {})
    return cose.sign1(protected, strict_cbor.encode([_VERSION, issued_at, *_log_item(log)]), key)


def read_tree_head(data: bytes, key: VerifyKey) -> tuple[Log, int]:
    """Verify and read a tree head; return the log and when it was signed.

    Raises:
        Malformed: when it is not exactly one.
        BadSignature: when the key did not make it.
    """
    signed = cose.parse_sign1(data, content_types={TREE_HEAD: None}, limit=MAX_ANSWER)
    signed.verify(key)
    item = strict_cbor.decode(signed.payload, max_bytes=MAX_ANSWER)
    if not (isinstance(item, list) and len(item) == 4 and item[0] == _VERSION):
        raise Malformed("not a tree head of version 1")
    return _read_log(item[2:]), uint(item[1])


def _some(value: object, low: int, high: int) -> list[object]:
    if not (isinstance(value, list) and low <= len(value) <= high):
        raise Malformed("not a list, or too short or too long")
    return value


def _log_item(log: Log) -> list[object]:
    return [log.size, log.root]


def _read_log(value: object) -> Log:
    size, root = _some(value, 2, 2)
    return Log(uint(size), fixed(root, HASH_BYTES))


def _head_item(head: Head) -> list[object]:
    return [head.epoch, head.stream, head.sequence, head.digest]


def _read_head(item: object) -> Head:
    if not (isinstance(item, list) and len(item) == 4):
        raise Malformed("not a head")
    return Head(uint(item[0]), uint(item[1]), uint(item[2]), fixed(item[3], HASH_BYTES))


def _read_refused(item: object) -> Refused:
    if not (isinstance(item, list) and len(item) == 5 and item[4] in _CODES):
        raise Malformed("not a refusal")
    return Refused(_read_head(item[:4]), int(item[4]))

"""What the brain answers, each a COSE_Sign1 of its receipt key.

A *receipt* acknowledges, cumulatively, everything of some streams up to a sequence, except the
messages it names as *refused*: those will never be taken. A *request* asks for a release sheet
that is not known. An *erasure* says that the content of batches is deleted, since their retention
has ended.
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
from security.keys import BadSignature, SigningKey, VerifyKey

RECEIPT: Final = "application/mg1-receipt+cbor"
REQUEST: Final = "application/mg1-request+cbor"
ERASURE: Final = "application/mg1-erasure+cbor"
_KINDS: Final = (RECEIPT, REQUEST, ERASURE)
MAX_ANSWER: Final = 64 * 1024
_MOST_HEADS: Final = 512
MOST_REFUSED: Final = 64
MOST_ERASED: Final = 512
_VERSION: Final = 1

# Why a batch is refused. The numbers are part of the wire format.
CANNOT_OPEN: Final = 1
NOT_A_BATCH: Final = 2
BEYOND_SHEET: Final = 3
SLOT_TAKEN: Final = 4
EQUIVOCATION: Final = 5
BAD_SHEET: Final = 6
_CODES: Final = range(CANNOT_OPEN, BAD_SHEET + 1)


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
class Receipt:
    """Everything of these streams up to their heads is kept, but for what was refused.

    Attributes:
        issued_at: seconds since 1970 UTC.
        refused: every refused message that the agent has not yet declared as a gap.
    """

    address: Address
    issued_at: int
    heads: tuple[Head, ...]
    refused: tuple[Refused, ...] = ()


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


Answer = Receipt | Request | Erasure


def answer_digest(signed: bytes) -> bytes:
    """Return the hash by which the next batch names the last receipt seen."""
    return hashlib.sha256(signed).digest()


def answer_kid(signed: bytes) -> bytes:
    """Return the id of the key that an answer names; whoever believes it has verified it.

    Raises:
        Malformed: when it is not an answer.
    """
    parsed = cose.parse_sign1(signed, content_types=_KINDS, label=None, limit=MAX_ANSWER)
    return parsed.kid


def sign_answer(answer: Answer, key: SigningKey) -> bytes:
    """Return the signed bytes of an answer."""
    start = [_VERSION, answer.address.factory, answer.address.agent, answer.issued_at]
    rest: list[object]
    match answer:
        case Receipt():
            refused = [[*_head_item(one.head), one.code] for one in answer.refused]
            kind, rest = RECEIPT, [[_head_item(head) for head in answer.heads], refused]
        case Request():
            kind, rest = REQUEST, [answer.sheet_hash]
        case Erasure():
            kind, rest = ERASURE, [[_erased_item(one) for one in answer.erased]]
    protected = cose.protected_header(kind, key.public, {})
    return cose.sign1(protected, strict_cbor.encode([*start, *rest]), key)


def read_answer(data: bytes, address: Address, trusted: Sequence[VerifyKey]) -> Answer:
    """Verify and read an answer meant for this agent.

    Raises:
        Malformed: when it is not exactly one, or meant for another.
        BadSignature: when no trusted key made it.
    """
    signed = cose.parse_sign1(data, content_types=_KINDS, label=None, limit=MAX_ANSWER)
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
    if kind == RECEIPT and len(rest) == 2:
        heads, refused = rest
        if isinstance(heads, list) and isinstance(refused, list):
            if not 0 < len(heads) <= _MOST_HEADS or len(refused) > MOST_REFUSED:
                raise Malformed("no heads, or too many")
            found = tuple(_read_head(head) for head in heads)
            return Receipt(address, at, found, tuple(_read_refused(one) for one in refused))
    if kind == REQUEST and len(rest) == 1:
        return Request(address, at, fixed(rest[0], HASH_BYTES))
    if kind == ERASURE and len(rest) == 1 and isinstance(rest[0], list):
        if not 0 < len(rest[0]) <= MOST_ERASED:
            raise Malformed("nothing is erased, or too much")
        return Erasure(address, at, tuple(_read_erased(one) for one in rest[0]))
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

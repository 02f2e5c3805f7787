"""Which keys sign for an agent, from where on and up to where: a numbered list that officers sign.

A key counts by the places of messages in their chains, never by time: who holds a stolen key can
write any time into a message, but not a place that is taken. Before the first list, the key on the
agent's card signs for everything.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from protocols import strict_cbor
from protocols.strict_cbor import Malformed, fixed, uint
from protocols.topics import ID_BYTES, Address
from security import cose
from security.cards import AgentCard
from security.envelope import HASH_BYTES
from security.keys import SIGNING_SCHEMES, AttestationVerifyKey, BadSignature, VerifyKey
from security.statements import MAX_STATEMENT, Attestation, read_attestation

KEYS: Final = "application/mg1-keys+cbor"
MAX_KEYS: Final = 64 * 1024
REPLACED, COMPROMISED, LOST = 1, 2, 3
"""Why a key ends: another took over; somebody else may have it; nobody has it any more."""

_VERSION: Final = 1
_MOST_KEYS: Final = 32
_MOST_STREAMS: Final = 512

Place = tuple[int, int, int]
"""Where a message stands: epoch, stream, sequence."""


class RevokedKey(BadSignature):
    """A right signature of a key that does not count at this place."""


class NotNext(BadSignature):
    """A list that does not go on from the one that is known."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in every chain of an agent.

    Attributes:
        epoch: chains of earlier epochs lie before the mark, those of later ones behind it.
        streams: in this epoch, stream -> first sequence behind the mark; 0 for one not named.
    """

    epoch: int = 0
    streams: Mapping[int, int] = field(default_factory=dict)

    def reached(self, place: Place) -> bool:
        """Tell whether a place lies behind the mark."""
        epoch, stream, sequence = place
        if epoch != self.epoch:
            return epoch > self.epoch
        return sequence >= self.streams.get(stream, 0)

    def not_after(self, other: "Mark") -> bool:
        """Tell whether no place lies behind the other mark and not behind this one."""
        if self.epoch != other.epoch:
            return self.epoch < other.epoch
        return all(count <= other.streams.get(one, 0) for one, count in self.streams.items())


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key, and where it counts.

    Attributes:
        since, until: from the one mark on, and before the other; None for no end.
        reason: why it ends; 0 while it does not.
    """

    key: VerifyKey
    since: Mark = field(default_factory=Mark)
    until: Mark | None = None
    reason: int = 0

    def covers(self, place: Place) -> bool:
        """Tell whether it counts at a place."""
        return self.since.reached(place) and not (self.until and self.until.reached(place))


@dataclass(frozen=True, slots=True)
class KeyList:
    """All keys that ever signed for an agent, oldest first.

    Attributes:
        number: +1 with every list, from 1 on.
        previous: hash of the list before; of the first: of the public key on the card.
        issued_at: seconds since 1970 UTC; it decides nothing.
    """

    address: Address
    number: int
    previous: bytes
    issued_at: int
    records: tuple[KeyRecord, ...]

    @property
    def hash(self) -> bytes:
        """What the next list names this one by."""
        return hashlib.sha256(to_bytes(self)).digest()


class AgentKeys:
    """The keys that count for an agent."""

    def __init__(self, card: AgentCard, found: KeyList | None = None) -> None:
        self.list = found
        self._records = found.records if found else (KeyRecord(card.signing_key),)

    @property
    def records(self) -> tuple[KeyRecord, ...]:
        """All keys, oldest first."""
        return self._records

    def verify(self, signed: cose.Signed, place: Place) -> None:
        """Check the signature of a message at a place of its chain.

        Raises:
            BadSignature: when no key of this agent made it.
            RevokedKey: when one made it that does not count there.
        """
        record = self.among([signed.kid])
        signed.verify(record.key)
        if not record.covers(place):
            raise RevokedKey("signed with a key that does not count here")

    def verify_word(self, signed: cose.Signed) -> None:
        """Check the signature of a statement that has no place; see `verify`."""
        record = self.among([signed.kid])
        signed.verify(record.key)
        _check_word(record)

    def among(self, kids: Sequence[bytes]) -> KeyRecord:
        """Return the record of the first key that these ids name.

        Raises:
            BadSignature: when they name none.
        """
        for record in self._records:
            if record.key.kid in kids:
                return record
        raise BadSignature("signed by an unknown key")


def read_attested(data: bytes, keys: AgentKeys, quantum: AttestationVerifyKey) -> Attestation:
    """Verify and read an attestation; it stands at the ends of the chains that it names.

    Raises:
        Malformed, BadSignature: see `security.statements.read_attestation`.
        RevokedKey: when its key does not count there any more.
    """
    record = keys.among(cose.signers_of_many(data, MAX_STATEMENT))
    found = read_attestation(data, record.key, quantum)
    ends = [(found.epoch, one.stream, one.count - 1) for one in found.chains if one.count]
    if not ends:
        _check_word(record)
    if record.until is not None and any(record.until.reached(place) for place in ends):
        raise RevokedKey("attested with a key that does not count here")
    return found


def _check_word(record: KeyRecord) -> None:
    """Let a replaced key still ask and attest: it was nobody else's, and what waits was its own."""
    if record.reason in {COMPROMISED, LOST}:
        raise RevokedKey("signed with a key that does not count any more")


# What an officer decides.


def first_list(address: Address, key: VerifyKey) -> KeyList:
    """Return what holds before there is a list, as number 0: the key on the card, from the start."""
    return KeyList(address, 0, hashlib.sha256(key.public).digest(), 0, (KeyRecord(key),))


def with_key(found: KeyList, key: VerifyKey, since: Mark, issued_at: int) -> KeyList:
    """Return the next list: one more key counts from a mark on, beside those that do.

    Raises:
        Malformed: when it is in the list already, or there is no room.
    """
    if any(record.key == key for record in found.records) or len(found.records) >= _MOST_KEYS:
        raise Malformed("the key is listed already, or there are too many")
    return _next(found, (*found.records, KeyRecord(key, since)), issued_at)


def without_key(found: KeyList, kid: bytes, until: Mark, reason: int, issued_at: int) -> KeyList:
    """Return the next list: a key counts no more from a mark on.

    Raises:
        Malformed: when there is no such key.
        NotNext: when it ended before that mark.
    """
    changed = tuple(
        replace(record, until=until, reason=reason) if record.key.kid == kid else record
        for record in found.records
    )
    following = _next(found, changed, issued_at)
    if changed == found.records:
        raise Malformed("there is no such key")
    check_next(following, found)
    return following


def _next(found: KeyList, records: tuple[KeyRecord, ...], issued_at: int) -> KeyList:
    previous = found.hash if found.number else found.previous
    return KeyList(found.address, found.number + 1, previous, issued_at, records)


def check_next(newer: KeyList, older: KeyList) -> None:
    """Check that a list goes on from another: nothing is taken back, no end is put off.

    Lists in between need not be known: each holds all that was before it.

    Raises:
        NotNext: when it does not.
    """
    if newer.address != older.address or newer.number <= older.number:
        raise NotNext("not a newer list of this agent")
    if newer.number == older.number + 1 and older.number and newer.previous != older.hash:
        raise NotNext("it does not follow the list before")
    if len(newer.records) < len(older.records):
        raise NotNext("a key is missing")
    for ours, theirs in zip(older.records, newer.records, strict=False):
        if (ours.key, ours.since) != (theirs.key, theirs.since) or not _ends_no_later(theirs, ours):
            raise NotNext("a key that was listed is not what it was")


def _ends_no_later(newer: KeyRecord, older: KeyRecord) -> bool:
    if older.until is None:
        return True
    return newer.until is not None and newer.until.not_after(older.until)


# Bytes.


def to_bytes(found: KeyList) -> bytes:
    """Return what officers sign."""
    address = found.address
    rows = [
        [record.key.alg, record.key.public, _mark_row(record.since), _end_row(record)]
        for record in found.records
    ]
    start = [_VERSION, address.factory, address.agent, found.number, found.previous]
    return strict_cbor.encode([*start, found.issued_at, rows])


def _mark_row(mark: Mark) -> list[object]:
    return [mark.epoch, [list(one) for one in sorted(mark.streams.items())]]


def _end_row(record: KeyRecord) -> list[object]:
    return [] if record.until is None else [*_mark_row(record.until), record.reason]


def from_bytes(payload: bytes) -> KeyList:
    """Read what `to_bytes` wrote, believing nothing.

    Raises:
        Malformed: when it is not exactly that.
    """
    item = strict_cbor.decode(payload, max_bytes=MAX_KEYS)
    if not (isinstance(item, list) and len(item) == 7 and item[0] == _VERSION):
        raise Malformed("not a list of keys of version 1")
    rows = item[6]
    if not (isinstance(rows, list) and 0 < len(rows) <= _MOST_KEYS and uint(item[3])):
        raise Malformed("not a list of keys")
    records = tuple(_record(row) for row in rows)
    if len({record.key.public for record in records}) != len(records):
        raise Malformed("a key twice")
    address = Address(fixed(item[1], ID_BYTES), fixed(item[2], ID_BYTES))
    found = KeyList(address, item[3], fixed(item[4], HASH_BYTES), uint(item[5]), records)
    if to_bytes(found) != payload:
        raise Malformed("not in its one form")
    return found


def _record(row: object) -> KeyRecord:
    if not (isinstance(row, list) and len(row) == 4 and isinstance(row[1], bytes)):
        raise Malformed("not a key")
    scheme = next((one for one in SIGNING_SCHEMES.values() if one.alg == row[0]), None)
    if scheme is None or len(row[1]) != scheme.public_bytes:
        raise Malformed("not a key of a known scheme")
    key = VerifyKey(row[1], scheme)
    if not key.is_sound():
        raise Malformed("not a key")
    if row[3] == []:
        return KeyRecord(key, _mark(row[2]))
    end = row[3]
    if not (isinstance(end, list) and len(end) == 3 and end[2] in {REPLACED, COMPROMISED, LOST}):
        raise Malformed("not an end")
    return KeyRecord(key, _mark(row[2]), _mark(end[:2]), end[2])


def _mark(row: object) -> Mark:
    if not (isinstance(row, list) and len(row) == 2 and isinstance(row[1], list)):
        raise Malformed("not a mark")
    if len(row[1]) > _MOST_STREAMS:
        raise Malformed("too many streams")
    pairs = [_pair(one) for one in row[1]]
    streams = [stream for stream, _ in pairs]
    if streams != sorted(set(streams)):
        raise Malformed("streams are not sorted and unique")
    return Mark(uint(row[0]), dict(pairs))


def _pair(item: object) -> tuple[int, int]:
    if not (isinstance(item, list) and len(item) == 2):
        raise Malformed("not a place")
    return uint(item[0]), uint(item[1])


def read_keys(signed: bytes, officers: Sequence[VerifyKey], threshold: int) -> KeyList:
    """Verify and read a list that officers signed.

    Raises:
        Malformed, BadSignature: when it is not one, or too few officers signed.
    """
    payload = cose.verify_many(
        signed, content_type=KEYS, trusted=officers, threshold=threshold, limit=MAX_KEYS
    )
    return from_bytes(payload)

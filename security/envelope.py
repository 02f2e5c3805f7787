"""The sealed batch of profile `mg1`: COSE_Sign1( COSE_Encrypt( padded plaintext ) ).

A random AES-256-GCM key encrypts the content; HPKE (MLKEM768-X25519, SHAKE256, AES-256-GCM)
wraps it for each recipient. The signed header names the recipients and commits to the
plaintext; it is bound into the encryption, so that nothing can be re-signed or re-addressed.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from protocols import strict_cbor
from protocols.broker import MAX_MESSAGE
from protocols.errors import MillgateError
from protocols.strict_cbor import Malformed, fixed, uint
from protocols.topics import ID_BYTES, Address
from security import cose
from security.keys import KID_BYTES, OpeningKey, SealingKey, Signer

PROFILE: Final = "mg1"
BATCH: Final = "application/mg1-batch+cbor"
SHEET: Final = "application/mg1-sheet+cbor"
CLAIMS: Final = -70001
MAX_SEALED: Final = MAX_MESSAGE
"""Bytes of a whole sealed message."""

HASH_BYTES: Final = 32
SALT_BYTES: Final = 16
_IV_BYTES: Final = 12
_CEK_BYTES: Final = 32
_ENCAPSULATED: Final = 1120
_WRAPPED: Final = 48
_ALG_A256GCM: Final = 3
_ALG_HPKE_9_KE: Final = 57
_EK: Final = -4
_IV: Final = 5
_MOST_RECIPIENTS: Final = 4
_MOST_GAPS: Final = 64
_LAST_SEQUENCE: Final = (1 << 63) - 2
"""The next one has 63 bits as well, which is what files keep."""

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.SHAKE256, AEAD.AES_256_GCM)


class CannotOpen(MillgateError):
    """The message is not sealed to this key, or was not sealed rightly."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences of this stream that the sender declares lost, ends included.

    Attributes:
        reason: see REASON_* .
    """

    first: int
    last: int
    reason: int


REASON_REFUSED: Final = 1
REASON_DROPPED: Final = 2
REASON_RESTORED: Final = 3
REASON_STOPPED: Final = 4
REASON_EXPIRED: Final = 5
MOST_REASON: Final = REASON_EXPIRED


@dataclass(frozen=True, slots=True)
class Before:
    """Where the chain of an earlier epoch ended, stated by the first message of a later one.

    Attributes:
        epoch: the earlier one.
        count: how many messages of it the sender stands by: the sequence that was next.
        digest: hash of the last of them; of the genesis when there is none.
        reason: why it ended, see REASON_* .
    """

    epoch: int
    count: int
    digest: bytes
    reason: int


@dataclass(frozen=True, slots=True)
class Header:
    """The signed claims of a sealed message.

    Attributes:
        factory, agent: opaque ids of 16 bytes.
        epoch: +1 whenever the agent's chain starts anew.
        stream, sequence: which chain, and the place in it (+1 exactly).
        previous: SHA-256 of the whole message before; `genesis` for sequence 0.
        policy_version, policy_hash: what was enforced.
        sheet_hash: the release sheet that tells what it means.
        window: [start, end) of the slots, seconds since 1970 UTC.
        issued_at: seconds since 1970 UTC.
        recipients: sorted key ids.
        commitment: salted hash of the padded plaintext.
        receipt: how many receipts were seen, and the hash of the last.
        purpose: code of what the data may be used for.
        right_hash: SHA-256 of the right's or contract's reference; empty when there is none.
        gaps: declared losses.
        before: in the first message of an epoch, where the epoch before it ended.
    """

    factory: bytes
    agent: bytes
    epoch: int
    stream: int
    sequence: int
    previous: bytes
    policy_version: int
    policy_hash: bytes
    sheet_hash: bytes
    window: tuple[int, int]
    issued_at: int
    recipients: tuple[bytes, ...]
    commitment: bytes
    receipt: tuple[int, bytes]
    purpose: int
    right_hash: bytes = b""
    gaps: tuple[Gap, ...] = field(default=())
    before: Before | None = None

    @property
    def address(self) -> Address:
        """Whose message it is."""
        return Address(self.factory, self.agent)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed message as it was read; nothing in it is to be believed before `verify`.

    Attributes:
        header: the claims.
        content_type: BATCH or SHEET.
        signed: the COSE_Sign1 around it.
        digest: SHA-256 of the whole message.
        wrapped: per recipient key id, its protected header and the wrapped key.
        body_header, iv, ciphertext: of the content.
    """

    header: Header
    content_type: str
    signed: cose.Signed
    digest: bytes
    wrapped: dict[bytes, tuple[bytes, bytes]]
    body_header: bytes
    iv: bytes
    ciphertext: bytes


def genesis(address: Address, epoch: int, stream: int) -> bytes:
    """Return what stands for the hash before the first message of a chain."""
    parts = ["mg1/genesis", address.factory, address.agent, epoch, stream]
    return hashlib.sha256(strict_cbor.encode(parts)).digest()


def digest(sealed: bytes) -> bytes:
    """Return the hash that chains and receipts name a message by."""
    return hashlib.sha256(sealed).digest()


def commitment(padded: bytes) -> bytes:
    """Return the salted commitment to a padded plaintext."""
    return hashlib.sha256(b"mg1/commit\x00" + padded).digest()


def right_hash(right: str) -> bytes:
    """Return how a header names the right's or contract's reference; empty for none."""
    return hashlib.sha256(right.encode()).digest() if right else b""


def pad(content: bytes, unit: int) -> bytes:
    """Salt content and pad it to a multiple of `unit` bytes (ISO 7816-4).

    The salt makes the commitment say nothing about the content.
    """
    size = SALT_BYTES + len(content) + 1
    return os.urandom(SALT_BYTES) + content + b"\x80" + bytes(-size % unit)


def unpad(padded: bytes) -> bytes:
    """Return the content of a padded plaintext.

    Raises:
        Malformed: when it is not padded so.
    """
    content = padded[SALT_BYTES:].rstrip(b"\x00")
    if not content.endswith(b"\x80"):
        raise Malformed("wrongly padded")
    return content[:-1]


def seal(
    header: Header,
    padded: bytes,
    signer: Signer,
    recipients: Sequence[SealingKey],
    content_type: str = BATCH,
) -> bytes:
    """Encrypt to the recipients and sign; `header.recipients` and `.commitment` must fit.

    Raises:
        ValueError: when they do not, or the message is larger than MAX_SEALED.
    """
    kids = tuple(sorted(key.kid for key in recipients))
    if kids != header.recipients or header.commitment != commitment(padded):
        raise ValueError("header does not fit what is sealed")
    protected = cose.protected_header(content_type, signer.public, {CLAIMS: _claims(header)})
    external = hashlib.sha256(protected).digest()
    cek, iv = os.urandom(_CEK_BYTES), os.urandom(_IV_BYTES)
    body_header = strict_cbor.encode({cose.ALG: _ALG_A256GCM})
    ciphertext = AESGCM(cek).encrypt(iv, padded, _encrypt_aad(body_header, external))
    wraps = []
    for key in sorted(recipients, key=lambda k: k.kid):
        recipient_header = strict_cbor.encode({cose.ALG: _ALG_HPKE_9_KE, cose.KID: key.kid})
        sealed_key = _SUITE.encrypt(
            cek, key.for_hpke(), _recipient_info(recipient_header, external)
        )
        encapsulated, wrapped = sealed_key[:_ENCAPSULATED], sealed_key[_ENCAPSULATED:]
        wraps.append([recipient_header, {_EK: encapsulated}, wrapped])
    content = cbor2.CBORTag(cose.TAG_ENCRYPT, [body_header, {_IV: iv}, ciphertext, wraps])
    message = cose.sign1(protected, strict_cbor.encode(content), signer)
    if len(message) > MAX_SEALED:
        raise ValueError("sealed message is too large")
    return message


def parse(data: bytes) -> Sealed:
    """Read a sealed message without believing it and without touching a key.

    Raises:
        Malformed: when anything is not exactly as profile `mg1` writes it.
    """
    signed = cose.parse_sign1(data, content_types={BATCH: CLAIMS, SHEET: CLAIMS}, limit=MAX_SEALED)
    return read(signed, data)


def read(signed: cose.Signed, data: bytes) -> Sealed:
    """Read a sealed message from its COSE_Sign1, which has one of its content types.

    Raises:
        Malformed: when anything is not exactly as profile `mg1` writes it.
    """
    header = _read_claims(signed.headers[CLAIMS])
    content = strict_cbor.decode(
        signed.payload, max_bytes=MAX_SEALED, tags=frozenset({cose.TAG_ENCRYPT})
    )
    if not (isinstance(content, cbor2.CBORTag) and isinstance(content.value, list)):
        raise Malformed("not a COSE_Encrypt")
    if len(content.value) != 4:
        raise Malformed("not a COSE_Encrypt")
    body_header, unprotected, ciphertext, recipients = content.value
    if body_header != strict_cbor.encode({cose.ALG: _ALG_A256GCM}):
        raise Malformed("content is not AES-256-GCM")
    if not (isinstance(unprotected, dict) and set(unprotected) == {_IV}):
        raise Malformed("content header has other labels")
    iv = unprotected[_IV]
    if not (_is_bytes(iv, _IV_BYTES) and isinstance(ciphertext, bytes)):
        raise Malformed("not a COSE_Encrypt")
    wrapped = _read_recipients(recipients)
    if tuple(wrapped) != header.recipients:
        raise Malformed("recipients are not those that were signed")
    kind = str(signed.headers[cose.CONTENT_TYPE])
    return Sealed(header, kind, signed, digest(data), wrapped, body_header, iv, ciphertext)


def open_sealed(sealed: Sealed, key: OpeningKey) -> bytes:
    """Return the padded plaintext of a message whose signature was verified.

    Raises:
        CannotOpen: when it is not sealed to this key, was not sealed rightly, or is not what
            the signed commitment says.
    """
    mine = sealed.wrapped.get(key.public.kid)
    if mine is None:
        raise CannotOpen("not sealed to this key")
    recipient_header, wrapped = mine
    external = hashlib.sha256(sealed.signed.protected).digest()
    try:
        cek = _SUITE.decrypt(wrapped, key.for_hpke(), _recipient_info(recipient_header, external))
        aad = _encrypt_aad(sealed.body_header, external)
        padded = AESGCM(cek).decrypt(sealed.iv, sealed.ciphertext, aad)
    except (InvalidTag, ValueError):
        raise CannotOpen("cannot be decrypted") from None
    if not hmac.compare_digest(commitment(padded), sealed.header.commitment):
        raise CannotOpen("plaintext is not what was committed to")
    return padded


def _encrypt_aad(body_header: bytes, external: bytes) -> bytes:
    return strict_cbor.encode(["Encrypt", body_header, external])


def _recipient_info(recipient_header: bytes, external: bytes) -> bytes:
    return strict_cbor.encode(["HPKE Recipient", _ALG_A256GCM, recipient_header, external])


def _read_recipients(recipients: object) -> dict[bytes, tuple[bytes, bytes]]:
    if not (isinstance(recipients, list) and 0 < len(recipients) <= _MOST_RECIPIENTS):
        raise Malformed("no recipients, or too many")
    wrapped: dict[bytes, tuple[bytes, bytes]] = {}
    for recipient in recipients:
        if not (isinstance(recipient, list) and len(recipient) == 3):
            raise Malformed("not a COSE_recipient")
        header, unprotected, key = recipient
        kid = _recipient_kid(header)
        right = isinstance(unprotected, dict) and set(unprotected) == {_EK}
        if not right or not _is_bytes(unprotected[_EK], _ENCAPSULATED):
            raise Malformed("not a COSE_recipient")
        if not _is_bytes(key, _WRAPPED) or kid in wrapped:
            raise Malformed("not a COSE_recipient")
        wrapped[kid] = (header, unprotected[_EK] + key)
    return wrapped


def _recipient_kid(header: object) -> bytes:
    fields = strict_cbor.decode(header, max_bytes=256) if isinstance(header, bytes) else None
    if not isinstance(fields, dict) or set(fields) != {cose.ALG, cose.KID}:
        raise Malformed("recipient header has other labels")
    kid = fields[cose.KID]
    if fields[cose.ALG] != _ALG_HPKE_9_KE or not _is_bytes(kid, KID_BYTES):
        raise Malformed("recipient is not HPKE-9-KE")
    return bytes(kid)


# The claims, in the order of docs/wire-format.md. Label 12 (expiry) is not used: a batch that
# waited out a long holiday is still good.


def _claims(header: Header) -> dict[int, Any]:
    claims: dict[int, Any] = {
        1: PROFILE,
        2: header.factory,
        3: header.agent,
        4: header.epoch,
        5: header.stream,
        6: header.sequence,
        7: header.previous,
        8: [header.policy_version, header.policy_hash],
        9: header.sheet_hash,
        10: list(header.window),
        11: header.issued_at,
        13: list(header.recipients),
        14: header.commitment,
        15: list(header.receipt),
        17: header.purpose,
    }
    if header.gaps:
        claims[16] = [[gap.first, gap.last, gap.reason] for gap in header.gaps]
    if header.right_hash:
        claims[18] = header.right_hash
    if header.before is not None:
        before = header.before
        claims[19] = [before.epoch, before.count, before.digest, before.reason]
    return claims


_REQUIRED: Final = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17})
_OPTIONAL: Final = frozenset({16, 18, 19})


def _read_claims(claims: object) -> Header:
    if not (isinstance(claims, dict) and set(claims) >= _REQUIRED):
        raise Malformed("claims are missing")
    if not set(claims) <= _REQUIRED | _OPTIONAL or claims[1] != PROFILE:
        raise Malformed("unknown claims or profile")
    policy_version, policy_hash = _pair(claims[8])
    window_start, window_end = _pair(claims[10])
    receipt_count, receipt_hash = _pair(claims[15])
    before = _before(claims[19]) if 19 in claims else None
    header = Header(
        factory=fixed(claims[2], ID_BYTES),
        agent=fixed(claims[3], ID_BYTES),
        epoch=uint(claims[4]),
        stream=uint(claims[5]),
        sequence=sequence_in(claims[6]),
        previous=fixed(claims[7], HASH_BYTES),
        policy_version=uint(policy_version),
        policy_hash=fixed(policy_hash, HASH_BYTES),
        sheet_hash=fixed(claims[9], HASH_BYTES),
        window=_window(uint(window_start), uint(window_end)),
        issued_at=uint(claims[11]),
        recipients=_kids(claims[13]),
        commitment=fixed(claims[14], HASH_BYTES),
        receipt=(uint(receipt_count), fixed(receipt_hash, HASH_BYTES)),
        purpose=uint(claims[17]),
        right_hash=fixed(claims[18], HASH_BYTES) if 18 in claims else b"",
        gaps=_gaps(claims[16]) if 16 in claims else (),
        before=before,
    )
    if before is not None and (header.sequence or before.epoch >= header.epoch):
        raise Malformed("an epoch before is named by the first message of a later one")
    return header


def sequence_in(value: object) -> int:
    """Return a place in a chain, which leaves room for the one behind it.

    Raises:
        Malformed: when it is none.
    """
    found = uint(value)
    if found > _LAST_SEQUENCE:
        raise Malformed("a chain does not go on behind this place")
    return found


def _is_bytes(value: object, length: int) -> bool:
    return isinstance(value, bytes) and len(value) == length


def _pair(value: object) -> tuple[object, object]:
    if not (isinstance(value, list) and len(value) == 2):
        raise Malformed("claim is not a pair")
    return value[0], value[1]


def _window(start: int, end: int) -> tuple[int, int]:
    if start > end:
        raise Malformed("window ends before it starts")
    return start, end


def _kids(value: object) -> tuple[bytes, ...]:
    if not (isinstance(value, list) and 0 < len(value) <= _MOST_RECIPIENTS):
        raise Malformed("no recipients, or too many")
    kids = tuple(fixed(kid, KID_BYTES) for kid in value)
    if list(kids) != sorted(set(kids)):
        raise Malformed("recipients are not sorted and unique")
    return kids


def _before(value: object) -> Before:
    if not (isinstance(value, list) and len(value) == 4):
        raise Malformed("not an epoch before")
    reason = uint(value[3])
    if not REASON_REFUSED <= reason <= MOST_REASON:
        raise Malformed("not an epoch before")
    return Before(uint(value[0]), uint(value[1]), fixed(value[2], HASH_BYTES), reason)


def _gaps(value: object) -> tuple[Gap, ...]:
    if not (isinstance(value, list) and 0 < len(value) <= _MOST_GAPS):
        raise Malformed("no gaps, or too many")
    gaps = []
    for item in value:
        if not (isinstance(item, list) and len(item) == 3):
            raise Malformed("not a gap")
        gap = Gap(*(uint(part) for part in item))
        if gap.first > gap.last or not REASON_REFUSED <= gap.reason <= MOST_REASON:
            raise Malformed("not a gap")
        gaps.append(gap)
    return tuple(gaps)

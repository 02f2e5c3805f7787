"""COSE structures (RFC 9052), only the forms that profile `mg1` uses, strictly.

Unprotected headers are always empty; `alg` belongs to the verifying key and must only match.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from protocols import strict_cbor
from protocols.strict_cbor import Malformed
from security.keys import BadSignature, Signer, Verifier

TAG_SIGN1: Final = 18
TAG_ENCRYPT: Final = 96
TAG_SIGN: Final = 98
ALG, CRIT, CONTENT_TYPE, KID = 1, 2, 3, 4
_SIGNATURE_BYTES: Final = 64
_MOST_SIGNATURES: Final = 16


@dataclass(frozen=True, slots=True)
class Signed:
    """A COSE_Sign1 as it was read; nothing in it is to be believed before `verify`.

    Attributes:
        headers: the protected header.
        protected: its bytes.
        payload, signature: as they stand.
    """

    headers: dict[int, Any]
    protected: bytes
    payload: bytes
    signature: bytes

    @property
    def kid(self) -> bytes:
        """The key id that the message names."""
        kid = self.headers.get(KID)
        return kid if isinstance(kid, bytes) else b""

    def verify(self, key: Verifier) -> None:
        """Check the signature with the pinned key.

        Raises:
            BadSignature: when key id, algorithm or signature do not match.
        """
        if self.kid != key.kid or self.headers.get(ALG) != key.alg:
            raise BadSignature("not signed with the pinned key")
        key.verify(self.signature, _to_be_signed("Signature1", self.protected, b"", self.payload))


def _to_be_signed(context: str, body: bytes, signer: bytes, payload: bytes) -> bytes:
    parts = [context, body, *([signer] if context == "Signature" else []), b"", payload]
    return strict_cbor.encode(parts)


def protected_header(content_type: str, key: Verifier, extra: dict[int, Any]) -> bytes:
    """Return the bytes of a protected header; labels in `extra` are made critical."""
    headers: dict[int, Any] = {ALG: key.alg, CONTENT_TYPE: content_type, KID: key.kid, **extra}
    if extra:
        headers[CRIT] = sorted(extra)
    return strict_cbor.encode(headers)


def sign1(protected: bytes, payload: bytes, key: Signer) -> bytes:
    """Return a tagged COSE_Sign1."""
    signature = key.sign(_to_be_signed("Signature1", protected, b"", payload))
    return strict_cbor.encode(cbor2.CBORTag(TAG_SIGN1, [protected, {}, payload, signature]))


def parse_sign1(data: bytes, *, content_types: Mapping[str, int | None], limit: int) -> Signed:
    """Read a COSE_Sign1 without believing it.

    Args:
        data: the bytes.
        content_types: which content types are expected here, each with the one private header
            label that it must carry as critical; None for none.
        limit: how many bytes there may be.

    Raises:
        Malformed: when anything is not exactly as profile `mg1` writes it.
    """
    item = strict_cbor.decode(data, max_bytes=limit, tags=frozenset({TAG_SIGN1}))
    if not (isinstance(item, cbor2.CBORTag) and isinstance(item.value, list)):
        raise Malformed("not a COSE_Sign1")
    if len(item.value) != 4 or item.value[1] != {}:
        raise Malformed("not a COSE_Sign1 with an empty unprotected header")
    protected, _, payload, signature = item.value
    if not all(isinstance(part, bytes) for part in (protected, payload, signature)):
        raise Malformed("not a COSE_Sign1")
    if len(signature) != _SIGNATURE_BYTES:
        raise Malformed("signature of the wrong length")
    headers = strict_cbor.decode(protected, max_bytes=limit)
    if not isinstance(headers, dict):
        raise Malformed("protected header is not a map")
    kind = headers.get(CONTENT_TYPE)
    if not isinstance(kind, str) or kind not in content_types:
        raise Malformed("unexpected content type")
    label = content_types[kind]
    if set(headers) != {ALG, CONTENT_TYPE, KID} | ({CRIT, label} if label is not None else set()):
        raise Malformed("protected header has other labels")
    if label is not None and headers[CRIT] != [label]:
        raise Malformed("unknown critical header")
    return Signed(headers, protected, payload, signature)


def sign_many(content_type: str, payload: bytes, keys: Sequence[Signer]) -> bytes:
    """Return a tagged COSE_Sign with one signature of each key, in the order of key ids."""
    body = strict_cbor.encode({CONTENT_TYPE: content_type})
    return _with_signatures(body, payload, [_signature(body, payload, key) for key in keys])


def add_signatures(data: bytes, keys: Sequence[Signer], limit: int) -> bytes:
    """Return a COSE_Sign with further signatures over the same bytes.

    The signatures that are there are not checked: that takes the keys of those who gave them. One
    of the same key is replaced.

    Raises:
        Malformed: when it is not a COSE_Sign, or would have too many signatures.
    """
    body, payload, found = _parse_many(data, limit)
    added = [_signature(body, payload, key) for key in keys]
    signers = [signer for signer, _, _ in added]
    kept = [one for one in found if one[0] not in signers]
    if len(kept) + len(added) > _MOST_SIGNATURES:
        raise Malformed("too many signatures")
    return _with_signatures(body, payload, [*kept, *added])


def signers_of_many(data: bytes, limit: int) -> tuple[bytes, ...]:
    """Return the key ids that a COSE_Sign names, believing nothing.

    Raises:
        Malformed: when it is not such a message.
    """
    kids = [_kid_of(signer) for signer, _, _ in _parse_many(data, limit)[2]]
    return tuple(kid for kid in kids if kid)


def _signature(body: bytes, payload: bytes, key: Signer) -> list[Any]:
    signer = _signer_header(key.public)
    return [signer, {}, key.sign(_to_be_signed("Signature", body, signer, payload))]


def _with_signatures(body: bytes, payload: bytes, signatures: list[list[Any]]) -> bytes:
    in_order = sorted(signatures, key=lambda one: _kid_of(one[0]))
    return strict_cbor.encode(cbor2.CBORTag(TAG_SIGN, [body, {}, payload, in_order]))


def _kid_of(signer: object) -> bytes:
    """Return the key id in a signer's header, empty where it has none."""
    if not isinstance(signer, bytes):
        return b""
    header = strict_cbor.decode(signer, max_bytes=len(signer) + 1)
    kid = header.get(KID) if isinstance(header, dict) else None
    return kid if isinstance(kid, bytes) else b""


def verify_many(
    data: bytes, *, content_type: str, trusted: Sequence[Verifier], threshold: int, limit: int
) -> bytes:
    """Return the payload of a COSE_Sign that enough distinct trusted keys signed.

    Every signature in it must be of a trusted key and right: one that is not spoils the whole.

    Raises:
        Malformed: when it is not exactly such a message.
        BadSignature: when a signature is wrong, of an unknown key, or there are too few.
    """
    if threshold < 1:
        raise BadSignature("a threshold below 1 would trust everybody")
    body, payload, signatures = _parse_many(data, limit)
    if body != strict_cbor.encode({CONTENT_TYPE: content_type}):
        raise Malformed("unexpected content type")
    by_signer = {_signer_header(key): key for key in trusted}
    counted: set[bytes] = set()
    for signer, unprotected, signature in signatures:
        key = by_signer.get(signer) if isinstance(signer, bytes) and unprotected == {} else None
        if key is None or key.public in counted or not isinstance(signature, bytes):
            raise BadSignature("signed by an unknown key, or twice by one")
        key.verify(signature, _to_be_signed("Signature", body, signer, payload))
        counted.add(key.public)
    if len(counted) < threshold:
        raise BadSignature("too few signatures")
    return payload


def content_type_of_many(data: bytes, limit: int) -> str:
    """Return what a COSE_Sign says it holds, believing nothing; empty where it does not say.

    Raises:
        Malformed: when it is not such a message.
    """
    header = strict_cbor.decode(_parse_many(data, limit)[0], max_bytes=limit)
    kind = header.get(CONTENT_TYPE) if isinstance(header, dict) else None
    return kind if isinstance(kind, str) else ""


def payload_of_many(data: bytes, limit: int) -> bytes:
    """Return the payload of a COSE_Sign without looking at its signatures.

    For one that was verified before, when it was kept, or to learn whose keys to verify it with.

    Raises:
        Malformed: when it is not such a message.
    """
    return _parse_many(data, limit)[1]


def _parse_many(data: bytes, limit: int) -> tuple[bytes, bytes, list[list[Any]]]:
    item = strict_cbor.decode(data, max_bytes=limit, tags=frozenset({TAG_SIGN}))
    if not (isinstance(item, cbor2.CBORTag) and isinstance(item.value, list)):
        raise Malformed("not a COSE_Sign")
    if len(item.value) != 4 or item.value[1] != {}:
        raise Malformed("not a COSE_Sign with an empty unprotected header")
    body, _, payload, signatures = item.value
    right = isinstance(body, bytes) and isinstance(payload, bytes) and isinstance(signatures, list)
    if not right or not 0 < len(signatures) <= _MOST_SIGNATURES:
        raise Malformed("not a COSE_Sign")
    if not all(isinstance(one, list) and len(one) == 3 for one in signatures):
        raise Malformed("not a COSE_Signature")
    return body, payload, signatures


def _signer_header(key: Verifier) -> bytes:
    return strict_cbor.encode({ALG: key.alg, KID: key.kid})

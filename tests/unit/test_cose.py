"""COSE: only what profile mg1 writes is read, and only pinned keys are believed."""

from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import strict_cbor
from protocols.strict_cbor import Malformed
from security import cose
from security.keys import ALG_EDDSA, BadSignature, SigningKey, VerifyKey
from tests.small_factory import signing_key

KIND = "application/test+cbor"
LABEL = -70001
LIMIT = 4096
KEYS = [signing_key(name) for name in ("one", "two", "three")]
KEY = KEYS[0]


def message(payload: bytes = b"payload", key: SigningKey = KEY) -> bytes:
    protected = cose.protected_header(KIND, key.public, {LABEL: [1, 2]})
    return cose.sign1(protected, payload, key)


def parse(data: bytes, **changes: Any) -> cose.Signed:
    terms: dict[str, Any] = {"content_types": {KIND: LABEL}, "limit": LIMIT}
    return cose.parse_sign1(data, **{**terms, **changes})


def accept(data: bytes) -> bytes:
    """Return the payload of what parses and verifies."""
    signed = parse(data)
    signed.verify(KEY.public)
    return signed.payload


def signed_by_hand(
    protected: bytes, unprotected: Any = None, payload: Any = b"payload", tag: int = 18
) -> bytes:
    """A message with any header, rightly signed over what it protects."""
    to_sign = strict_cbor.encode(["Signature1", protected, b"", payload])
    parts = [protected, unprotected or {}, payload, KEY.sign(to_sign)]
    return cbor2.dumps(cbor2.CBORTag(tag, parts), canonical=True)


def thawed(item: Any) -> Any:
    """Return a decoded item whose lists can be changed."""
    return [thawed(part) for part in item] if isinstance(item, list | tuple) else item


def parts_of(data: bytes) -> list[Any]:
    found: list[Any] = thawed(cbor2.loads(data).value)
    return found


def headers(**changes: Any) -> dict[Any, Any]:
    return {
        cose.ALG: ALG_EDDSA,
        cose.CRIT: [LABEL],
        cose.CONTENT_TYPE: KIND,
        cose.KID: KEY.public.kid,
        LABEL: [1, 2],
        **{int(name.removeprefix("h")): value for name, value in changes.items()},
    }


def encoded(fields: dict[Any, Any]) -> bytes:
    return cbor2.dumps(fields, canonical=True)


def test_a_signed_message_is_read_and_verified() -> None:
    signed = parse(message())
    signed.verify(KEY.public)
    assert (signed.payload, signed.kid) == (b"payload", KEY.public.kid)
    assert signed.headers[LABEL] == [1, 2]
    assert accept(signed_by_hand(encoded(headers()))) == b"payload"


def test_every_bit_flip_of_a_signed_message_is_refused() -> None:
    data = message()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, BadSignature)):
            accept(bytes(changed))


def without(*labels: int) -> dict[Any, Any]:
    return {label: value for label, value in headers().items() if label not in labels}


CRAFTED: dict[str, bytes] = {
    # What other COSE libraries were seen to accept.
    "alg only in the unprotected header": signed_by_hand(
        encoded(without(cose.ALG)), {cose.ALG: ALG_EDDSA}
    ),
    "alg in both headers": signed_by_hand(encoded(headers()), {cose.ALG: ALG_EDDSA}),
    "no alg": signed_by_hand(encoded(without(cose.ALG))),
    "alg of another family": signed_by_hand(
        encoded({**headers(), cose.ALG: -7}),
    ),
    "the old number of the same algorithm": signed_by_hand(encoded({**headers(), cose.ALG: -8})),
    "unknown crit": signed_by_hand(encoded({**headers(), cose.CRIT: [LABEL, -70002]})),
    "crit that names the label twice": signed_by_hand(
        encoded({**headers(), cose.CRIT: [LABEL, LABEL]})
    ),
    "crit that names nothing": signed_by_hand(encoded({**headers(), cose.CRIT: []})),
    "no crit": signed_by_hand(encoded(without(cose.CRIT))),
    "a header key twice": signed_by_hand(
        b"\xa6" + encoded(headers())[1:3] + encoded(headers())[1:]
    ),
    "trailing bytes": message() + b"\x00",
    "a message twice": message() * 2,
    # And its relatives.
    "kid only in the unprotected header": signed_by_hand(
        encoded(without(cose.KID)), {cose.KID: KEY.public.kid}
    ),
    "an unknown label": signed_by_hand(encoded({**headers(), 5: b"iv"})),
    "a text label": signed_by_hand(encoded({**headers(), "alg": ALG_EDDSA})),
    "no private label": signed_by_hand(encoded(without(LABEL))),
    "another content type": signed_by_hand(encoded({**headers(), cose.CONTENT_TYPE: "text/plain"})),
    "a content type that is a number": signed_by_hand(
        encoded({**headers(), cose.CONTENT_TYPE: 60})
    ),
    "an empty protected header": signed_by_hand(b""),
    "an empty protected map": signed_by_hand(b"\xa0"),
    "a protected list": signed_by_hand(b"\x80"),
    "headers in another order": signed_by_hand(
        b"\xa5" + encoded({LABEL: [1, 2]})[1:] + encoded(without(LABEL))[1:]
    ),
    "bytes after the protected header": signed_by_hand(encoded(headers()) + b"\x00"),
    "no tag": cbor2.dumps(parts_of(message()), canonical=True),
    "the tag of another structure": signed_by_hand(encoded(headers()), tag=98),
    "tagged twice": b"\xd2" + message(),
    "a detached payload": signed_by_hand(encoded(headers()), payload=None),
    "a payload that is text": signed_by_hand(encoded(headers()), payload="payload"),
    "a payload that is a list": signed_by_hand(encoded(headers()), payload=[b"payload"]),
    "an unprotected list": signed_by_hand(encoded(headers()), [0]),
    "three parts": cbor2.dumps(cbor2.CBORTag(18, parts_of(message())[:3])),
    "five parts": cbor2.dumps(cbor2.CBORTag(18, [*parts_of(message()), b""])),
}


@pytest.mark.parametrize("data", CRAFTED.values(), ids=CRAFTED.keys())
def test_a_crafted_message_is_refused(data: bytes) -> None:
    with pytest.raises((Malformed, BadSignature)):
        accept(data)


@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_a_signature_of_another_length_is_malformed(length: int) -> None:
    parts = parts_of(message())
    parts[3] = bytes(length)
    with pytest.raises(Malformed):
        parse(cbor2.dumps(cbor2.CBORTag(18, parts), canonical=True))


def test_a_zeroed_signature_is_refused() -> None:
    parts = parts_of(message())
    parts[3] = bytes(64)
    with pytest.raises(BadSignature):
        accept(cbor2.dumps(cbor2.CBORTag(18, parts), canonical=True))


def test_another_key_is_refused_even_under_the_kid_of_the_pinned_one() -> None:
    with pytest.raises(BadSignature):
        parse(message(key=KEYS[1])).verify(KEY.public)
    protected = encoded(headers())
    forged = cose.sign1(protected, b"payload", KEYS[1])
    assert parse(forged).kid == KEY.public.kid
    with pytest.raises(BadSignature):
        accept(forged)


def test_more_bytes_than_the_limit_are_malformed() -> None:
    data = message()
    parse(data, limit=len(data))
    with pytest.raises(Malformed):
        parse(data, limit=len(data) - 1)


def test_a_private_label_that_nobody_expects_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse(message(), content_types={KIND: None})
    plain = cose.sign1(cose.protected_header(KIND, KEY.public, {}), b"payload", KEY)
    assert parse(plain, content_types={KIND: None}).payload == b"payload"
    with pytest.raises(Malformed):
        parse(plain)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)
    with pytest.raises(Malformed):
        cose.verify_many(data, content_type=KIND, trusted=[KEY.public], threshold=1, limit=LIMIT)


# Several signatures.

PAYLOAD = b"compiled policy"


def sign(*keys: SigningKey) -> bytes:
    return cose.sign_many(KIND, PAYLOAD, keys)


def verify(data: bytes, threshold: int, *trusted: VerifyKey) -> bytes:
    keys = trusted or tuple(key.public for key in KEYS)
    return cose.verify_many(data, content_type=KIND, trusted=keys, threshold=threshold, limit=LIMIT)


def joined(parts: list[Any]) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(98, parts), canonical=True)


@pytest.mark.parametrize(("signers", "threshold"), [(1, 1), (2, 1), (2, 2), (3, 2), (3, 3)])
def test_enough_distinct_trusted_keys_are_believed(signers: int, threshold: int) -> None:
    assert verify(sign(*KEYS[:signers]), threshold) == PAYLOAD


def test_the_order_of_signers_does_not_change_the_bytes() -> None:
    assert sign(*KEYS) == sign(*reversed(KEYS))


@pytest.mark.parametrize(("signers", "threshold"), [(1, 2), (2, 3), (3, 4)])
def test_too_few_signatures_are_refused(signers: int, threshold: int) -> None:
    with pytest.raises(BadSignature):
        verify(sign(*KEYS[:signers]), threshold)


@pytest.mark.parametrize("threshold", [0, -1])
def test_a_threshold_below_one_trusts_nobody(threshold: int) -> None:
    with pytest.raises(BadSignature):
        verify(sign(*KEYS), threshold)


def test_one_key_that_signed_twice_is_refused_not_counted_twice() -> None:
    with pytest.raises(BadSignature):
        verify(sign(KEY, KEY), 2)
    with pytest.raises(BadSignature):
        verify(sign(KEY, KEY), 1)


def test_one_key_that_is_trusted_twice_counts_once() -> None:
    with pytest.raises(BadSignature):
        verify(sign(KEY), 2, KEY.public, KEY.public)


def test_a_signature_of_an_unknown_key_spoils_the_whole() -> None:
    with pytest.raises(BadSignature):
        verify(sign(*KEYS), 1, KEY.public)
    with pytest.raises(BadSignature):
        verify(sign(KEYS[1]), 1, KEY.public)


def test_nobody_trusted_means_nothing_believed() -> None:
    with pytest.raises(BadSignature):
        cose.verify_many(sign(KEY), content_type=KIND, trusted=[], threshold=1, limit=LIMIT)


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_two_signatures_zeroed_is_refused_whatever_the_threshold(which: int) -> None:
    parts = parts_of(sign(*KEYS[:2]))
    parts[3][which][2] = bytes(64)
    for threshold in (1, 2):
        with pytest.raises(BadSignature):
            verify(joined(parts), threshold)


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_two_signatures_removed_is_one_too_few(which: int) -> None:
    parts = parts_of(sign(*KEYS[:2]))
    del parts[3][which]
    with pytest.raises(BadSignature):
        verify(joined(parts), 2)


def test_signatures_swapped_between_signers_are_refused() -> None:
    parts = parts_of(sign(*KEYS[:2]))
    one, two = parts[3]
    one[2], two[2] = two[2], one[2]
    with pytest.raises(BadSignature):
        verify(joined(parts), 1)


def test_a_signature_does_not_serve_another_structure() -> None:
    """A Sign1 signature over the same bytes is no signature in a Sign, nor the other way round."""
    body = strict_cbor.encode({cose.CONTENT_TYPE: KIND})
    parts = parts_of(sign(KEY))
    parts[3][0][2] = KEY.sign(strict_cbor.encode(["Signature1", body, b"", PAYLOAD]))
    with pytest.raises(BadSignature):
        verify(joined(parts), 1)


MANGLED: dict[str, Any] = {
    "no signatures": lambda parts: parts.__setitem__(3, []),
    "too many signatures": lambda parts: parts.__setitem__(3, parts[3] * 9),
    "signatures that are a map": lambda parts: parts.__setitem__(3, {}),
    "a signature of two parts": lambda parts: parts[3].__setitem__(0, parts[3][0][:2]),
    "a signature that is bytes": lambda parts: parts[3].__setitem__(0, b""),
    "a signature whose value is text": lambda parts: parts[3][0].__setitem__(2, "x" * 64),
    "a signature of 63 bytes": lambda parts: parts[3][0].__setitem__(2, parts[3][0][2][:63]),
    "a signer that is a map": lambda parts: parts[3][0].__setitem__(0, {1: ALG_EDDSA}),
    "a signer without alg": lambda parts: parts[3][0].__setitem__(
        0, encoded({cose.KID: KEY.public.kid})
    ),
    "a signer whose alg is unprotected": lambda parts: parts[3].__setitem__(
        0, [encoded({cose.KID: KEY.public.kid}), {cose.ALG: ALG_EDDSA}, parts[3][0][2]]
    ),
    "unprotected headers of a signer": lambda parts: parts[3][0].__setitem__(1, {1: ALG_EDDSA}),
    "unprotected headers of the body": lambda parts: parts.__setitem__(1, {1: ALG_EDDSA}),
    "another content type": lambda parts: parts.__setitem__(0, encoded({3: "text/plain"})),
    "more in the body's header": lambda parts: parts.__setitem__(
        0, encoded({3: KIND, 1: ALG_EDDSA})
    ),
    "an empty body header": lambda parts: parts.__setitem__(0, b""),
    "a payload that is text": lambda parts: parts.__setitem__(2, "payload"),
    "no payload": lambda parts: parts.__setitem__(2, None),
    "five parts": lambda parts: parts.append(b""),
}


@pytest.mark.parametrize("mangle", MANGLED.values(), ids=MANGLED.keys())
def test_a_mangled_signed_policy_is_refused(mangle: Any) -> None:
    parts = parts_of(sign(*KEYS[:2]))
    mangle(parts)
    with pytest.raises((Malformed, BadSignature)):
        verify(joined(parts), 1)


def test_every_bit_flip_of_a_message_with_two_signatures_is_refused() -> None:
    data = sign(*KEYS[:2])
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, BadSignature)):
            verify(bytes(changed), 1)

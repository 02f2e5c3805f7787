"""Sealed messages: only the named recipients read them, and nobody changes anything in them."""

import dataclasses
import hashlib
import importlib.resources
import json
import os
import random
from collections.abc import Mapping
from typing import Any

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import strict_cbor
from protocols.errors import MillgateError
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security import cose, envelope
from security.envelope import (
    BATCH,
    CLAIMS,
    MAX_SEALED,
    SALT_BYTES,
    SHEET,
    CannotOpen,
    Gap,
    Header,
    Sealed,
    commitment,
    digest,
    genesis,
    open_sealed,
    pad,
    parse,
    seal,
    unpad,
)
from security.keys import BadSignature, OpeningKey, SealingKey, SigningKey, VerifyKey
from security.secret import Secret
from tests.small_factory import opening_key, signing_key

SIGNER = signing_key("agent")
RIVAL = signing_key("rival")
BRAIN, AUDIT, OTHER = opening_key("brain"), opening_key("audit"), opening_key("other")
ADDRESS = Address(b"F" * 16, b"A" * 16)
CONTENT = b"what leaves"


def header(padded: bytes, *keys: OpeningKey, **changes: Any) -> Header:
    plain = Header(
        factory=ADDRESS.factory,
        agent=ADDRESS.agent,
        epoch=3,
        stream=4,
        sequence=5,
        previous=b"p" * 32,
        policy_version=6,
        policy_hash=b"h" * 32,
        sheet_hash=b"s" * 32,
        window=(900, 1800),
        issued_at=1_770_000_000,
        recipients=tuple(sorted(key.public.kid for key in keys)),
        commitment=commitment(padded),
        receipt=(7, b"r" * 32),
        purpose=2,
        right_hash=b"R" * 32,
        gaps=(Gap(1, 2, 1), Gap(4, 4, 2)),
    )
    return dataclasses.replace(plain, **changes)


def sealed_message(
    content: bytes = CONTENT, unit: int = 256, keys: tuple[OpeningKey, ...] = (BRAIN, AUDIT)
) -> bytes:
    padded = pad(content, unit)
    return seal(header(padded, *keys), padded, SIGNER, [key.public for key in keys])


def accept(data: bytes, key: OpeningKey = BRAIN, signer: VerifyKey = SIGNER.public) -> bytes:
    """Take a message in the order the brain does; return its content."""
    sealed = parse(data)
    sealed.signed.verify(signer)
    return unpad(open_sealed(sealed, key))


REFUSED = (Malformed, BadSignature, CannotOpen)


# Messages made by hand, part by part, as a hostile holder of some keys would make them.


def thawed(item: Any) -> Any:
    """Return a decoded item whose lists and maps can be changed."""
    if isinstance(item, list | tuple):
        return [thawed(part) for part in item]
    if isinstance(item, Mapping):
        return {key: thawed(value) for key, value in item.items()}
    return item


def taken_apart(data: bytes) -> tuple[dict[Any, Any], list[Any]]:
    """Return the protected header and the four parts of the COSE_Encrypt inside."""
    outer = cbor2.loads(data).value
    return thawed(cbor2.loads(outer[0])), thawed(cbor2.loads(outer[2]).value)


def put_together(
    protected: dict[Any, Any], content: list[Any], signer: SigningKey = SIGNER
) -> bytes:
    written = cbor2.dumps(protected, canonical=True)
    inner = cbor2.dumps(cbor2.CBORTag(96, content), canonical=True)
    return cose.sign1(written, inner, signer)


def test_both_recipients_read_what_was_sealed_and_nobody_else() -> None:
    data = sealed_message()
    assert accept(data, BRAIN) == accept(data, AUDIT) == CONTENT
    with pytest.raises(CannotOpen):
        accept(data, OTHER)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=2000), st.sampled_from([1, 16, 256, 1024]))
def test_any_content_comes_back(content: bytes, unit: int) -> None:
    assert accept(sealed_message(content, unit)) == content


def test_the_header_comes_back_as_it_was() -> None:
    padded = pad(CONTENT, 256)
    for changes in ({}, {"right_hash": b"", "gaps": ()}, {"sequence": 0, "epoch": (1 << 63) - 1}):
        wanted = header(padded, BRAIN, **changes)
        sealed = parse(seal(wanted, padded, SIGNER, [BRAIN.public]))
        assert sealed.header == wanted
        assert sealed.header.address == ADDRESS
        assert sealed.content_type == BATCH


def test_a_sheet_says_that_it_is_one() -> None:
    padded = pad(CONTENT, 256)
    data = seal(header(padded, BRAIN), padded, SIGNER, [BRAIN.public], SHEET)
    assert parse(data).content_type == SHEET


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def taken(data: bytes) -> bool:
    try:
        accept(data)
    except REFUSED:
        return False
    return True


def test_every_bit_flip_of_a_sealed_message_is_refused() -> None:
    data = sealed_message(unit=64, keys=(BRAIN,))
    assert taken(data)
    assert [bit for bit in range(8 * len(data)) if taken(flipped(data, bit))] == []


@pytest.mark.parametrize("size", [0, 60_000], ids=["smallest", "large"])
def test_bit_flips_all_over_a_message_to_two_recipients_are_refused(size: int) -> None:
    data = sealed_message(os.urandom(size), 64 if size == 0 else 64 * 1024)
    chance = random.Random(5)
    assert taken(data)
    bits = [chance.randrange(8 * len(data)) for _ in range(800)]
    assert [bit for bit in bits if taken(flipped(data, bit))] == []


def test_a_message_cut_anywhere_is_malformed() -> None:
    data = sealed_message(unit=64)
    for end in range(len(data)):
        with pytest.raises(Malformed):
            parse(data[:end])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=500))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_message_never_raises_anything_but_a_refusal(data: Any) -> None:
    changed = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        if data.draw(st.booleans()):
            changed[at] = data.draw(st.integers(0, 255))
        else:
            del changed[at : at + data.draw(st.integers(1, 40))]
    if bytes(changed) != SMALL:
        with pytest.raises(REFUSED):
            accept(bytes(changed))


SMALL = sealed_message(unit=64, keys=(BRAIN,))
DEEPLY_BOUND = sealed_message(unit=64)


def test_bits_flipped_inside_and_signed_again_never_open() -> None:
    """Below the signature, encryption alone must hold: even the true signer cannot splice."""
    chance = random.Random(6)
    protected, content = taken_apart(DEEPLY_BOUND)
    inner = cbor2.dumps(cbor2.CBORTag(96, content), canonical=True)
    written = cbor2.dumps(protected, canonical=True)
    assert accept(cose.sign1(written, inner, SIGNER)) == CONTENT
    refused = 0
    for _ in range(500):
        changed = bytearray(inner)
        bit = chance.randrange(8 * len(inner))
        changed[bit // 8] ^= 1 << bit % 8
        data = cose.sign1(written, bytes(changed), SIGNER)
        # A flip in what wraps the key for one recipient leaves the other's intact.
        for key in (BRAIN, AUDIT):
            try:
                assert accept(data, key) == CONTENT
            except REFUSED:
                refused += 1
    assert refused > 500


CLAIM_CHANGES: dict[int, Any] = {
    2: b"G" * 16,
    3: b"B" * 16,
    4: 4,
    5: 5,
    6: 6,
    7: b"q" * 32,
    8: [7, b"h" * 32],
    9: b"t" * 32,
    10: [900, 1801],
    11: 1_770_000_001,
    15: [8, b"r" * 32],
    16: [[1, 2, 1]],
    17: 3,
    18: b"S" * 32,
}


@pytest.mark.parametrize("label", CLAIM_CHANGES)
def test_every_field_of_the_header_is_bound_into_the_encryption(label: int) -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    assert protected[CLAIMS][label] != CLAIM_CHANGES[label]
    protected[CLAIMS][label] = CLAIM_CHANGES[label]
    data = put_together(protected, content)
    parse(data).signed.verify(SIGNER.public)
    for key in (BRAIN, AUDIT):
        with pytest.raises(CannotOpen):
            accept(data, key)


def test_content_type_and_signer_are_bound_into_the_encryption() -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    with pytest.raises(CannotOpen):
        accept(put_together({**protected, cose.CONTENT_TYPE: SHEET}, content))
    as_rival = {**protected, cose.KID: RIVAL.public.kid}
    with pytest.raises(CannotOpen):
        accept(put_together(as_rival, content, RIVAL), signer=RIVAL.public)


def test_a_ciphertext_stripped_of_its_signature_does_not_open_under_another_name() -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    protected[cose.KID] = RIVAL.public.kid
    protected[CLAIMS] = {**protected[CLAIMS], 2: b"E" * 16, 3: b"V" * 16}
    stolen = put_together(protected, content, RIVAL)
    parse(stolen).signed.verify(RIVAL.public)
    for key in (BRAIN, AUDIT):
        with pytest.raises(CannotOpen):
            accept(stolen, key, RIVAL.public)


def test_a_message_re_sealed_to_a_third_party_is_not_believed() -> None:
    """A recipient cannot pass content on as if its sender had addressed it to somebody else."""
    padded = open_sealed(parse(DEEPLY_BOUND), BRAIN)
    protected, _ = taken_apart(DEEPLY_BOUND)
    forged = header(padded, OTHER)
    content = taken_apart(seal(forged, padded, RIVAL, [OTHER.public]))[1]
    written = cbor2.dumps(protected, canonical=True)
    inner = cbor2.dumps(cbor2.CBORTag(96, content), canonical=True)
    signature = cbor2.loads(DEEPLY_BOUND).value[3]
    data = cbor2.dumps(cbor2.CBORTag(18, [written, {}, inner, signature]), canonical=True)
    with pytest.raises(REFUSED):
        accept(data, OTHER)


def recipients_of(content: list[Any]) -> list[Any]:
    found: list[Any] = content[3]
    return found


def test_recipients_swapped_are_malformed() -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    recipients_of(content).reverse()
    with pytest.raises(Malformed):
        parse(put_together(protected, content))


def test_keys_wrapped_for_one_do_not_open_under_the_others_name() -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    one, two = recipients_of(content)
    one[0], two[0] = two[0], one[0]
    content[3] = [two, one]
    data = put_together(protected, content)
    for key in (BRAIN, AUDIT):
        with pytest.raises(CannotOpen):
            accept(data, key)


def test_a_recipient_that_was_not_signed_is_malformed() -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    stranger = taken_apart(sealed_message(keys=(OTHER,)))[1][3][0]
    content[3] = sorted([*recipients_of(content), stranger], key=lambda r: r[0])
    with pytest.raises(Malformed):
        parse(put_together(protected, content))


def test_a_recipient_left_out_is_malformed() -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    del content[3][0]
    with pytest.raises(Malformed):
        parse(put_together(protected, content))


def test_a_recipient_twice_is_malformed() -> None:
    protected, content = taken_apart(sealed_message(keys=(BRAIN,)))
    content[3] = content[3] * 2
    with pytest.raises(Malformed):
        parse(put_together(protected, content))
    protected[CLAIMS][13] = protected[CLAIMS][13] * 2
    with pytest.raises(Malformed):
        parse(put_together(protected, content))


def forged(padded: bytes, committed: bytes) -> bytes:
    """Seal a plaintext under a header that commits to another, all else right."""
    claimed = header(padded, BRAIN, AUDIT, commitment=committed)
    protected = cose.protected_header(BATCH, SIGNER.public, {CLAIMS: envelope._claims(claimed)})
    external = hashlib.sha256(protected).digest()
    cek, iv = os.urandom(32), os.urandom(12)
    body = strict_cbor.encode({1: 3})
    aad = strict_cbor.encode(["Encrypt", body, external])
    wraps = []
    for key in sorted((BRAIN, AUDIT), key=lambda k: k.public.kid):
        recipient = strict_cbor.encode({1: 57, 4: key.public.kid})
        info = strict_cbor.encode(["HPKE Recipient", 3, recipient, external])
        suite = Suite(KEM.MLKEM768_X25519, KDF.SHAKE256, AEAD.AES_256_GCM)
        both = suite.encrypt(cek, key.public.for_hpke(), info)
        wraps.append([recipient, {-4: both[:1120]}, both[1120:]])
    content = [body, {5: iv}, AESGCM(cek).encrypt(iv, padded, aad), wraps]
    inner = strict_cbor.encode(cbor2.CBORTag(96, content))
    return cose.sign1(protected, inner, SIGNER)


def test_a_plaintext_that_was_not_committed_to_is_refused_by_every_recipient() -> None:
    padded = pad(CONTENT, 256)
    assert accept(forged(padded, commitment(padded))) == CONTENT
    data = forged(padded, commitment(pad(CONTENT, 256)))
    parse(data).signed.verify(SIGNER.public)
    for key in (BRAIN, AUDIT):
        with pytest.raises(CannotOpen, match="committed"):
            accept(data, key)


def test_a_header_that_does_not_fit_what_is_sealed_is_not_sealed() -> None:
    padded = pad(CONTENT, 256)
    with pytest.raises(ValueError, match="fit"):
        seal(header(padded, BRAIN), padded, SIGNER, [BRAIN.public, AUDIT.public])
    with pytest.raises(ValueError, match="fit"):
        seal(header(padded, BRAIN), pad(CONTENT, 256), SIGNER, [BRAIN.public])


def test_a_message_larger_than_the_bound_is_not_sealed_and_not_read() -> None:
    padded = pad(bytes(MAX_SEALED), 256)
    with pytest.raises(ValueError, match="large"):
        seal(header(padded, BRAIN), padded, SIGNER, [BRAIN.public])
    with pytest.raises(Malformed):
        parse(sealed_message() + bytes(MAX_SEALED))


def test_the_kid_of_an_unknown_key_is_not_believed() -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    protected[cose.KID] = RIVAL.public.kid
    with pytest.raises(BadSignature):
        accept(put_together(protected, content))


def outer(**changes: Any) -> bytes:
    """The message with other parts of its COSE_Sign1, rightly signed."""
    protected, content = taken_apart(DEEPLY_BOUND)
    written = changes.get("protected", cbor2.dumps(protected, canonical=True))
    inner = changes.get("payload", cbor2.dumps(cbor2.CBORTag(96, content), canonical=True))
    signature = SIGNER.sign(strict_cbor.encode(["Signature1", written, b"", inner]))
    parts = [written, changes.get("unprotected", {}), inner, signature]
    rest: bytes = changes.get("rest", b"")
    return cbor2.dumps(cbor2.CBORTag(18, parts), canonical=True) + rest


def protected_with(**changes: Any) -> bytes:
    protected, _ = taken_apart(DEEPLY_BOUND)
    for name, value in changes.items():
        label = {"alg": 1, "crit": 2, "claims": CLAIMS}[name]
        if value is None:
            del protected[label]
        else:
            protected[label] = value
    return cbor2.dumps(protected, canonical=True)


def doubled_key() -> bytes:
    written = protected_with()
    # {1: alg, ...} becomes {1: alg, 1: alg, ...}.
    return bytes((written[0] + 1,)) + written[1:3] + written[1:]


def content_with(at: int, value: Any) -> bytes:
    _, content = taken_apart(DEEPLY_BOUND)
    content[at] = value
    return cbor2.dumps(cbor2.CBORTag(96, content), canonical=True)


def recipient_with(at: int, value: Any) -> bytes:
    _, content = taken_apart(DEEPLY_BOUND)
    content[3][0][at] = value
    return cbor2.dumps(cbor2.CBORTag(96, content), canonical=True)


WRAPPED_FOR = taken_apart(DEEPLY_BOUND)[1][3][0]
KID = cbor2.loads(WRAPPED_FOR[0])[4]

HOSTILE: dict[str, bytes] = {
    "alg only in the unprotected header": outer(
        protected=protected_with(alg=None), unprotected={1: -19}
    ),
    "alg in the unprotected header too": outer(unprotected={1: -19}),
    "no alg": outer(protected=protected_with(alg=None)),
    "alg of another algorithm": outer(protected=protected_with(alg=-7)),
    "unknown crit": outer(protected=protected_with(crit=[CLAIMS, -70002])),
    "crit without the claims": outer(protected=protected_with(crit=[-70002])),
    "a header key twice": outer(protected=doubled_key()),
    "trailing bytes": outer(rest=b"\x00"),
    "trailing bytes inside": outer(payload=content_with(1, {5: bytes(12)}) + b"\x00"),
    "content of another algorithm": outer(payload=content_with(0, cbor2.dumps({1: 1}))),
    "content without algorithm": outer(payload=content_with(0, b"")),
    "algorithm of the content unprotected": outer(payload=content_with(1, {1: 3, 5: bytes(12)})),
    "a short nonce": outer(payload=content_with(1, {5: bytes(8)})),
    "no nonce": outer(payload=content_with(1, {})),
    "no ciphertext": outer(payload=content_with(2, None)),
    "an empty ciphertext": outer(payload=content_with(2, b"")),
    "a ciphertext shorter than its tag": outer(payload=content_with(2, bytes(15))),
    "no recipients": outer(payload=content_with(3, [])),
    "recipients that are bytes": outer(payload=content_with(3, b"")),
    "five recipients": outer(payload=content_with(3, [WRAPPED_FOR] * 5)),
    "five parts": outer(
        payload=cbor2.dumps(cbor2.CBORTag(96, [*taken_apart(DEEPLY_BOUND)[1], 0]), canonical=True)
    ),
    "content that is not tagged": outer(
        payload=cbor2.dumps(taken_apart(DEEPLY_BOUND)[1], canonical=True)
    ),
    "content that is a list of nothing": outer(payload=cbor2.dumps(cbor2.CBORTag(96, []))),
    "content that is a number": outer(payload=cbor2.dumps(cbor2.CBORTag(96, 1))),
    "a recipient of a weaker suite": outer(
        payload=recipient_with(0, cbor2.dumps({1: 56, 4: KID}, canonical=True))
    ),
    "a recipient without suite": outer(
        payload=recipient_with(0, cbor2.dumps({4: KID}, canonical=True))
    ),
    "a recipient with more headers": outer(
        payload=recipient_with(0, cbor2.dumps({1: 57, 4: KID, 5: 0}, canonical=True))
    ),
    "a recipient with a short kid": outer(
        payload=recipient_with(0, cbor2.dumps({1: 57, 4: KID[:15]}, canonical=True))
    ),
    "a recipient header that is no map": outer(payload=recipient_with(0, b"\x80")),
    "a recipient header that is a map": outer(payload=recipient_with(0, {1: 57, 4: KID})),
    "no encapsulated key": outer(payload=recipient_with(1, {})),
    "a short encapsulated key": outer(payload=recipient_with(1, {-4: bytes(1119)})),
    "an encapsulated key under another label": outer(payload=recipient_with(1, {-5: bytes(1120)})),
    "a short wrapped key": outer(payload=recipient_with(2, bytes(47))),
    "a long wrapped key": outer(payload=recipient_with(2, bytes(49))),
    "no wrapped key": outer(payload=recipient_with(2, None)),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_message_of_a_true_signer_is_refused(data: bytes) -> None:
    assert accept(outer()) == CONTENT
    for key in (BRAIN, AUDIT):
        with pytest.raises(REFUSED):
            accept(data, key)


BAD_CLAIMS: dict[str, tuple[int, Any]] = {
    "another profile": (1, "mg2"),
    "a profile that is a number": (1, 1),
    "a short factory id": (2, b"F" * 15),
    "an agent id that is text": (3, "A" * 16),
    "a negative epoch": (4, -1),
    "an epoch that is bytes": (4, b"\x01"),
    "a stream that is a list": (5, [1]),
    "a negative sequence": (6, -1),
    "a short hash before": (7, b"p" * 31),
    "a policy without hash": (8, [6]),
    "a policy with a long hash": (8, [6, b"h" * 33]),
    "a policy with three parts": (8, [6, b"h" * 32, 0]),
    "a policy that is a map": (8, {0: 6, 1: b"h" * 32}),
    "no sheet": (9, b""),
    "a window that ends before it starts": (10, [1800, 900]),
    "a window of one number": (10, [900]),
    "a window with a negative start": (10, [-900, 0]),
    "a negative time": (11, -1),
    "no recipients": (13, []),
    "unsorted recipients": (13, [b"b" * 16, b"a" * 16]),
    "a short recipient": (13, [b"a" * 15]),
    "five recipients": (13, [bytes((at,)) * 16 for at in range(5)]),
    "a short commitment": (14, b"c" * 31),
    "a receipt without count": (15, b"r" * 32),
    "a negative count of receipts": (15, [-1, b"r" * 32]),
    "no gaps in a list of gaps": (16, []),
    "too many gaps": (16, [[at, at, 1] for at in range(65)]),
    "a gap that ends before it starts": (16, [[2, 1, 1]]),
    "a gap without a reason": (16, [[1, 2]]),
    "a gap with an unknown reason": (16, [[1, 2, 6]]),
    "a gap with reason 0": (16, [[1, 2, 0]]),
    "a negative gap": (16, [[-1, 2, 1]]),
    "a purpose that is text": (17, "energy"),
    "an empty right": (18, b""),
    "a short right": (18, b"R" * 31),
    "an expiry, which is not used": (12, 1_780_000_000),
    "an unknown claim": (19, 0),
    "a claim with a text label": (20, 0),
}


@pytest.mark.parametrize(("label", "value"), BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
def test_a_claim_that_is_not_as_the_profile_says_is_malformed(label: int, value: Any) -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    protected[CLAIMS]["x" if label == 20 else label] = value
    with pytest.raises(Malformed):
        parse(put_together(protected, content))


@pytest.mark.parametrize("label", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 17])
def test_a_missing_claim_is_malformed(label: int) -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    del protected[CLAIMS][label]
    with pytest.raises(Malformed):
        parse(put_together(protected, content))


@pytest.mark.parametrize("claims", [b"", [], 1, "claims", {}])
def test_claims_that_are_no_claims_are_malformed(claims: Any) -> None:
    protected, content = taken_apart(DEEPLY_BOUND)
    with pytest.raises(Malformed):
        parse(put_together({**protected, CLAIMS: claims}, content))


# An encapsulated key is chosen by whoever sends it: no choice may crash the recipient.


@pytest.mark.parametrize("filling", [0, 1, 255], ids=["zeros", "ones", "all bits"])
def test_a_nonsensical_encapsulated_key_cannot_be_opened(filling: int) -> None:
    data = outer(payload=recipient_with(1, {-4: bytes([filling]) * 1120}))
    sealed = parse(data)
    sealed.signed.verify(SIGNER.public)
    for key in (BRAIN, AUDIT):
        if key.public.kid == KID:
            with pytest.raises(CannotOpen):
                open_sealed(sealed, key)


def test_an_encapsulated_key_with_a_point_of_low_order_cannot_be_opened() -> None:
    share = WRAPPED_FOR[1][-4]
    data = outer(payload=recipient_with(1, {-4: share[:1088] + bytes(32)}))
    owner = BRAIN if BRAIN.public.kid == KID else AUDIT
    with pytest.raises(CannotOpen):
        accept(data, owner)


# Padding.


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=600), st.integers(1, 300))
def test_padding_comes_off_and_the_size_is_a_multiple_of_the_unit(
    content: bytes, unit: int
) -> None:
    padded = pad(content, unit)
    assert unpad(padded) == content
    assert len(padded) % unit == 0
    assert len(padded) - unit < SALT_BYTES + len(content) + 1 <= len(padded)


def test_all_contents_that_fit_a_unit_give_messages_of_one_size() -> None:
    sizes = {len(sealed_message(bytes(length), 1024)) for length in (0, 1, 7, 200, 800, 1007)}
    assert len(sizes) == 1
    assert len(sealed_message(bytes(1008), 1024)) == sizes.pop() + 1024


def test_the_salt_makes_two_commitments_to_one_content_differ() -> None:
    assert commitment(pad(b"", 64)) != commitment(pad(b"", 64))
    assert sealed_message() != sealed_message()


@pytest.mark.parametrize(
    "padded", [b"", bytes(16), bytes(64), bytes(16) + b"\x81", bytes(16) + b"content", b"\x80" * 16]
)
def test_a_plaintext_that_is_not_padded_is_malformed(padded: bytes) -> None:
    with pytest.raises(Malformed):
        unpad(padded)


def test_content_that_ends_like_padding_comes_back_whole() -> None:
    for content in (b"\x80", b"\x80\x00\x00", bytes(40), b"x\x80" + bytes(10)):
        assert unpad(pad(content, 64)) == content


def test_a_chain_begins_differently_for_every_agent_epoch_and_stream() -> None:
    addresses = [ADDRESS, Address(b"A" * 16, b"F" * 16), Address(b"F" * 16, b"F" * 16)]
    starts = {genesis(a, epoch, stream) for a in addresses for epoch in (1, 2) for stream in (1, 2)}
    assert len(starts) == 12
    assert digest(SMALL) == hashlib.sha256(SMALL).digest() == parse(SMALL).digest


def test_no_error_text_names_what_was_refused() -> None:
    """All that goes wrong with decryption looks the same from outside."""
    texts = set()
    for data in (HOSTILE["an empty ciphertext"], HOSTILE["alg in the unprotected header too"]):
        with pytest.raises(MillgateError) as caught:
            accept(data)
        texts.add(str(caught.value))
    assert all(KID.hex() not in text and "leaves" not in text for text in texts)


# Published vectors.


def vectors() -> list[dict[str, Any]]:
    try:
        folder = importlib.resources.files("cryptography_vectors") / "HPKE"
        found = json.loads((folder / "hpke-pq-test-vectors.json").read_text(encoding="utf-8"))
    except (ModuleNotFoundError, FileNotFoundError):
        pytest.skip("this release of cryptography_vectors has no HPKE vectors")
    mine = [one for one in found if one["mode"] == 0 and one["kem_id"] == 0x647A]
    if not mine:
        pytest.skip("no published vector is for MLKEM768-X25519")
    return mine


def vector_key(vector: dict[str, Any]) -> OpeningKey:
    return OpeningKey(Secret(bytes.fromhex(vector["skRm"])))


def test_keys_expand_from_their_seed_as_published() -> None:
    for vector in vectors():
        assert vector_key(vector).public.public.hex() == vector["pkRm"]


def test_hpke_agrees_with_the_published_key_schedule() -> None:
    """The vectors carry additional data that the public interface does not take, so their own key
    and nonce encrypt a plaintext without it; the suite must open that from `enc` alone."""
    kdfs = {0x0001: KDF.HKDF_SHA256, 0x0011: KDF.SHAKE256}
    for vector in vectors():
        assert vector["aead_id"] == 3
        key, nonce = bytes.fromhex(vector["key"]), bytes.fromhex(vector["base_nonce"])
        ciphertext = ChaCha20Poly1305(key).encrypt(nonce, b"Beauty is truth", None)
        suite = Suite(KEM.MLKEM768_X25519, kdfs[vector["kdf_id"]], AEAD.CHACHA20_POLY1305)
        opened = suite.decrypt(
            bytes.fromhex(vector["enc"]) + ciphertext,
            vector_key(vector).for_hpke(),
            bytes.fromhex(vector["info"]),
        )
        assert opened == b"Beauty is truth"


def test_the_public_half_of_a_sealing_key_is_the_two_public_keys() -> None:
    seed = bytes(range(32))
    wide = hashlib.shake_256(seed).digest(96)
    key = OpeningKey(Secret(seed)).public
    assert (
        key.public[1184:]
        == X25519PrivateKey.from_private_bytes(wide[64:]).public_key().public_bytes_raw()
    )
    assert isinstance(key, SealingKey)
    assert len(key.public) == 1216


def test_what_was_read_knows_its_parts() -> None:
    sealed = parse(DEEPLY_BOUND)
    assert isinstance(sealed, Sealed)
    assert tuple(sealed.wrapped) == sealed.header.recipients
    assert CONTENT not in sealed.ciphertext

"""P-256 beside Ed25519: one form of a signature, one form of a key, and a token that keeps its key."""

import base64
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from security import envelope
from security.envelope import commitment, pad
from security.keys import (
    BadSignature,
    SigningKey,
    VerifyKey,
    create_key_file,
    load_signing_key,
    new_seed,
)
from security.schemes import ED25519, P256, P256_ORDER
from security.secret import Secret
from security.signers import TokenFault, TokenSigner, load_signer
from tests.small_factory import opening_key
from tests.vectors.material import header

PRIVATE = ec.derive_private_key(0x1234567890, ec.SECP256R1())
KEY = SigningKey(Secret((0x1234567890).to_bytes(32, "big")), P256)
TEXT = b"what is signed"


def halves(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


def raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=100))
def test_a_signature_is_always_64_bytes_with_a_low_s_and_always_the_same(data: bytes) -> None:
    signature = KEY.sign(data)
    KEY.public.verify(signature, data)
    assert len(signature) == 64
    assert 0 < halves(signature)[1] <= P256_ORDER // 2
    assert KEY.sign(data) == signature


R, S = halves(KEY.sign(TEXT))
WRONG = {
    "the other s, as right by itself": raw(R, P256_ORDER - S),
    "DER": encode_dss_signature(R, S),
    "r is 0": raw(0, S),
    "s is 0": raw(R, 0),
    "both are 0": bytes(64),
    "r is the order": raw(P256_ORDER, S),
    "s is the order": raw(R, P256_ORDER),
    "r is one more than it may be": raw(min(R + P256_ORDER, (1 << 256) - 1), S),
    "halves swapped": raw(S, R),
    "a byte less": raw(R, S)[:-1],
    "a byte more": raw(R, S) + b"\0",
    "a byte more in front": b"\0" + raw(R, S),
    "empty": b"",
    "little-endian": R.to_bytes(32, "little") + S.to_bytes(32, "little"),
}


@pytest.mark.parametrize("signature", WRONG.values(), ids=WRONG.keys())
def test_a_signature_of_another_form_is_refused(signature: bytes) -> None:
    KEY.public.verify(raw(R, S), TEXT)
    with pytest.raises(BadSignature):
        KEY.public.verify(signature, TEXT)


def test_the_other_s_would_be_taken_by_a_library_and_is_why_low_s_is_asked_for() -> None:
    der = encode_dss_signature(R, P256_ORDER - S)
    PRIVATE.public_key().verify(der, TEXT, ec.ECDSA(SHA256()))


def test_a_key_of_either_kind_travels_as_text_and_says_its_kind() -> None:
    assert KEY.public.to_text().startswith("p256:")
    assert VerifyKey.from_text(KEY.public.to_text()) == KEY.public
    assert KEY.public.alg == -9
    assert len(KEY.public.public) == 65


POINT = KEY.public.public
NO_KEYS = {
    "compressed": PRIVATE.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint),
    "a point beside the curve": POINT[:-1] + bytes([POINT[-1] ^ 1]),
    "the point at infinity": b"\0",
    "the hybrid form": bytes([6 + POINT[-1] % 2]) + POINT[1:],
    "coordinates alone": POINT[1:],
    "zeros": b"\x04" + bytes(64),
}


@pytest.mark.parametrize("public", NO_KEYS.values(), ids=NO_KEYS.keys())
def test_what_is_no_uncompressed_point_of_the_curve_is_no_key(public: bytes) -> None:
    with pytest.raises(ValueError, match=r"p256|curve"):
        VerifyKey.from_text("p256:" + base64.b64encode(public).decode())
    with pytest.raises(BadSignature):
        VerifyKey(public, P256).verify(raw(R, S), TEXT)


def test_a_key_of_one_scheme_takes_no_signature_of_the_other() -> None:
    other = SigningKey(Secret(b"\x07" * 32))
    with pytest.raises(BadSignature):
        other.public.verify(KEY.sign(TEXT), TEXT)
    with pytest.raises(BadSignature):
        KEY.public.verify(other.sign(TEXT), TEXT)


def test_a_file_says_of_which_scheme_its_key_is(tmp_path: Path) -> None:
    for kind, scheme in (("ed25519", ED25519), ("p256", P256)):
        path = tmp_path / kind
        create_key_file(path, scheme.name)  # type: ignore[arg-type] # two of the literals
        assert load_signing_key(path).public.scheme is scheme
    assert 0 < int.from_bytes(new_seed("p256"), "big") < P256_ORDER


def seal_with(signer: SigningKey | TokenSigner) -> bytes:
    padded = pad(b"content", 64)
    brain = opening_key("brain").public
    full = header(recipients=(brain.kid,), commitment=commitment(padded))
    return envelope.seal(full, padded, signer, [brain])


def opened(data: bytes, key: VerifyKey) -> bytes:
    sealed = envelope.parse(data)
    sealed.signed.verify(key)
    return envelope.unpad(envelope.open_sealed(sealed, opening_key("brain")))


def test_a_batch_is_sealed_and_opened_with_a_p256_key() -> None:
    data = seal_with(KEY)
    assert opened(data, KEY.public) == b"content"
    with pytest.raises(BadSignature):
        opened(data, SigningKey(Secret(b"\x07" * 32)).public)


def test_the_hash_of_a_batch_cannot_be_changed_by_whoever_carries_it() -> None:
    data = seal_with(KEY)
    r, s = halves(data[-64:])
    with pytest.raises(BadSignature):
        opened(data[:-64] + raw(r, P256_ORDER - s), KEY.public)


# A token: another party that holds the key.

Answer = Callable[[bytes], bytes]


def token_answers(request: bytes) -> bytes:
    """Sign as a token does: of a digest, DER or raw inside, with whatever s comes out."""
    if request == b"P":
        return POINT
    der = PRIVATE.sign(request[1:], ec.ECDSA(Prehashed(SHA256())))
    return raw(*decode_dss_signature(der))


@contextmanager
def token(path: Path, answer: Answer = token_answers) -> Iterator[Path]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(answer(self.rfile.read()))

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield Path(f"token:{path}")
        finally:
            server.shutdown()
            thread.join()


def test_a_token_seals_and_its_key_never_comes_here(tmp_path: Path) -> None:
    with token(tmp_path / "signer") as place:
        signer = load_signer(place)
        assert signer.public == KEY.public
        assert isinstance(signer, TokenSigner)
        for _ in range(20):
            assert opened(seal_with(signer), KEY.public) == b"content"
        assert "0x1234567890" not in repr(signer)


def high(request: bytes) -> bytes:
    found = token_answers(request)
    if request == b"P":
        return found
    r, s = halves(found)
    return raw(r, max(s, P256_ORDER - s))


def test_a_token_whose_s_is_high_still_gives_the_one_form(tmp_path: Path) -> None:
    with token(tmp_path / "signer", high) as place:
        load_signer(place).public.verify(load_signer(place).sign(TEXT), TEXT)


def _but(what: bytes) -> Answer:
    return lambda request: POINT if request == b"P" else what


FAULTY: dict[str, Answer] = {
    "silence": _but(b""),
    "zeros": _but(bytes(64)),
    "ones": _but(b"\xff" * 64),
    "DER": _but(encode_dss_signature(R, S)),
    "a signature of something else": _but(raw(R, S)),
    "more than was asked for": _but(bytes(1 << 20)),
}


@pytest.mark.parametrize("answer", FAULTY.values(), ids=FAULTY.keys())
def test_a_token_that_answers_nonsense_signs_nothing(tmp_path: Path, answer: Answer) -> None:
    with token(tmp_path / "signer", answer) as place:
        signer = load_signer(place)
        with pytest.raises(TokenFault):
            signer.sign(b"another text")


@pytest.mark.parametrize("public", [b"", POINT[:-1], b"\x04" + bytes(64), POINT + b"\0"])
def test_a_token_without_a_p256_key_is_refused_when_it_is_met(
    tmp_path: Path, public: bytes
) -> None:
    with token(tmp_path / "signer", lambda _: public) as place, pytest.raises(TokenFault):
        load_signer(place)


def test_a_token_that_is_away_is_a_plain_fault(tmp_path: Path) -> None:
    with pytest.raises(TokenFault, match="does not answer"):
        load_signer(Path(f"token:{tmp_path / 'nobody'}"))

"""Keys: in files that only their owner reads, and never in any text."""

import base64
import copy
import json
import logging
import os
import pickle
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.at_rest import KeyFault, KeyKind
from security.keys import (
    AttestationKey,
    BadSignature,
    OpeningKey,
    SealingKey,
    SigningKey,
    VerifyKey,
    create_key_file,
    kid_of,
    load_key_file,
)
from security.schemes import P256
from security.secret import Secret

KINDS: tuple[KeyKind, ...] = ("ed25519", "p256", "xwing", "aes256", "mldsa65")
SEED = b"the seed that no text may show.."


def forms_of(secret: bytes) -> list[str]:
    """Return how a secret could appear in a text."""
    return [
        secret.hex(),
        base64.b64encode(secret).decode(),
        repr(secret)[2:-1],
        secret.decode("latin-1"),
        str(list(secret)),
    ]


def shows(text: str, secret: bytes = SEED) -> bool:
    return any(form in text for form in forms_of(secret))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_key_file_is_open_to_its_owner_alone(tmp_path: Path, kind: KeyKind) -> None:
    before = os.umask(0)
    try:
        create_key_file(tmp_path / "deep" / "one.key", kind)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "deep" / "one.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", KINDS)
def test_a_created_key_is_loaded_again(tmp_path: Path, kind: KeyKind) -> None:
    made = create_key_file(tmp_path / "one.key", kind)
    assert load_key_file(tmp_path / "one.key", kind).reveal() == made.reveal()
    assert len(made.reveal()) == 32
    assert create_key_file(tmp_path / "two.key", kind).reveal() != made.reveal()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o660, 0o777])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "one.key"
    create_key_file(path, "ed25519")
    path.chmod(mode)
    with pytest.raises(KeyFault, match="chmod 600") as caught:
        load_key_file(path, "ed25519")
    assert str(path) in str(caught.value)
    path.chmod(0o400)
    load_key_file(path, "ed25519")


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "one.key"
    first = create_key_file(path, "ed25519")
    with pytest.raises(KeyFault):
        create_key_file(path, "ed25519")
    assert load_key_file(path, "ed25519").reveal() == first.reveal()


def test_a_link_in_the_place_of_a_new_key_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "one.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFault):
        create_key_file(tmp_path / "one.key", "ed25519")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_a_key_of_one_kind_does_not_serve_as_another(
    tmp_path: Path, kind: KeyKind, wanted: KeyKind
) -> None:
    create_key_file(tmp_path / "one.key", kind)
    if kind != wanted:
        with pytest.raises(KeyFault, match=wanted):
            load_key_file(tmp_path / "one.key", wanted)


ENCODED = base64.b64encode(SEED).decode()
HEADER = "millgate-private-key/1 ed25519"
DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "no key": f"{HEADER}\n".encode(),
    "only the key": f"{ENCODED}\n".encode(),
    "another version": f"millgate-private-key/2 ed25519\n{ENCODED}\n".encode(),
    "an unknown kind": f"millgate-private-key/1 rsa\n{ENCODED}\n".encode(),
    "a short key": f"{HEADER}\n{base64.b64encode(SEED[:31]).decode()}\n".encode(),
    "a long key": f"{HEADER}\n{base64.b64encode(SEED + b'!').decode()}\n".encode(),
    "not base64": f"{HEADER}\n{ENCODED[:-4]}*{ENCODED[-3:]}\n".encode(),
    "cut base64": f"{HEADER}\n{ENCODED[:-1]}\n".encode(),
    "two keys": f"{HEADER}\n{ENCODED}\n{ENCODED}\n".encode(),
    "not text": b"\xff\xfe" + SEED,
    "not ASCII": f"{HEADER}\n{ENCODED}ä\n".encode(),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_key_file_is_refused_without_a_word_of_it(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "one.key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(KeyFault) as caught:
        load_key_file(path, "ed25519")
    text = "".join(traceback.format_exception(caught.value))
    assert str(path) in text
    assert not shows(text)
    assert ENCODED[:20] not in text


@pytest.mark.parametrize("name", ["missing.key", "folder"])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(KeyFault):
        load_key_file(tmp_path / name, "ed25519")


def test_a_key_file_that_cannot_be_made_is_a_plain_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFault):
        create_key_file(tmp_path / "file" / "one.key", "ed25519")


# Secrets and texts.

HOLDERS: dict[str, Callable[[], object]] = {
    "a secret": lambda: Secret(SEED),
    "a secret text": lambda: Secret(SEED.decode()),
    "a signing key": lambda: SigningKey(Secret(SEED)),
    "a P-256 key": lambda: SigningKey(Secret(SEED), P256),
    "an attestation key": lambda: AttestationKey(Secret(SEED)),
    "an opening key": lambda: OpeningKey(Secret(SEED)),
}


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS.keys())
def test_a_secret_shows_in_no_text(make: Callable[[], object]) -> None:
    holder = make()
    texts = [
        repr(holder),
        str(holder),
        f"{holder}",
        f"{holder!r:>60}",
        f"{holder!s:60}",
        "{}".format(holder),  # noqa: UP032 - every way of formatting is tried
        "%s %r" % (holder, holder),  # noqa: UP031 - same
        repr([holder]),
        repr({"key": holder}),
        ascii(holder),
    ]
    assert not any(shows(text) for text in texts)


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS.keys())
def test_a_secret_is_neither_pickled_nor_copied_nor_written_as_json(
    make: Callable[[], object],
) -> None:
    holder = make()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(holder, protocol)
    with pytest.raises(TypeError):
        copy.deepcopy(holder)
    with pytest.raises(TypeError):
        json.dumps({"key": holder})


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS.keys())
def test_a_secret_shows_in_no_traceback_even_with_its_variables(
    make: Callable[[], object],
) -> None:
    holder = make()

    def fails(key: object) -> None:
        held = {"key": key}
        raise RuntimeError(f"no use for {held}")

    with pytest.raises(RuntimeError) as caught:
        fails(holder)
    with_variables = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert not shows("".join(with_variables.format()))
    assert not shows("".join(traceback.format_exception(caught.value)))


def test_a_secret_shows_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("test")
    with caplog.at_level(logging.DEBUG):
        for make in HOLDERS.values():
            log.debug("%s %r", make(), make())
    assert len(caplog.records) == len(HOLDERS)
    assert not shows(caplog.text)


def test_only_reveal_gives_a_secret_back() -> None:
    secret = Secret(SEED)
    assert secret.reveal() == SEED
    assert not hasattr(secret, "__dict__")
    assert secret != Secret(SEED)


# Public keys.


def test_a_signature_is_of_one_key_and_one_text() -> None:
    key, other = SigningKey(Secret(SEED)), SigningKey(Secret(SEED[::-1]))
    signature = key.sign(b"text")
    key.public.verify(signature, b"text")
    for signed, data, verifier in (
        (signature, b"test", key.public),
        (signature, b"text", other.public),
        (bytes(64), b"text", key.public),
        (signature[:63], b"text", key.public),
        (signature + b"\x00", b"text", key.public),
        (b"", b"text", key.public),
    ):
        with pytest.raises(BadSignature):
            verifier.verify(signed, data)


def test_public_keys_travel_as_text() -> None:
    signing, opening = SigningKey(Secret(SEED)), OpeningKey(Secret(SEED))
    assert VerifyKey.from_text(signing.public.to_text()) == signing.public
    assert SealingKey.from_text(opening.public.to_text()) == opening.public
    assert signing.public.kid == kid_of(signing.public.public)
    assert len(opening.public.kid) == 16


def test_a_public_key_of_one_kind_is_not_read_as_another() -> None:
    signing, opening = SigningKey(Secret(SEED)), OpeningKey(Secret(SEED))
    with pytest.raises(ValueError, match="ed25519"):
        VerifyKey.from_text(opening.public.to_text())
    with pytest.raises(ValueError, match="mlkem768-x25519"):
        SealingKey.from_text(signing.public.to_text())


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=80) | st.text(max_size=60).map("ed25519:".__add__))
def test_any_other_text_is_no_public_key(text: str) -> None:
    for kind in (VerifyKey, SealingKey):
        with pytest.raises(ValueError, match="key"):
            kind.from_text(text)


def test_a_sealing_key_that_is_no_key_is_refused_at_the_door() -> None:
    """ML-KEM public keys have forbidden values; they must not be met when a batch is sealed."""
    text = "mlkem768-x25519:" + base64.b64encode(b"\xff" * 1216).decode()
    with pytest.raises(ValueError, match="key"):
        SealingKey.from_text(text)


def test_the_same_seed_always_gives_the_same_keys() -> None:
    assert OpeningKey(Secret(SEED)).public == OpeningKey(Secret(SEED)).public
    assert SigningKey(Secret(SEED)).public == SigningKey(Secret(SEED)).public
    assert SigningKey(Secret(SEED)).public != SigningKey(Secret(SEED[::-1])).public


@pytest.mark.parametrize(
    "point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
)
def test_a_key_whose_x25519_half_has_low_order_is_refused_when_it_is_read(point: bytes) -> None:
    sound = OpeningKey(Secret(bytes(range(32)))).public
    assert SealingKey.from_text(sound.to_text()) == sound
    weak = SealingKey(sound.public[:1184] + point)
    with pytest.raises(ValueError, match="low order"):
        SealingKey.from_text(weak.to_text())

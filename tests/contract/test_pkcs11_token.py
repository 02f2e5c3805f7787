"""A real token over PKCS#11 (SoftHSM2): keys that never leave it, PINs that never lock it."""

import asyncio
import hashlib
import importlib
from pathlib import Path
from typing import Any

import pytest

from agent.config import read_config
from agent.keys_cli import app as keys_app
from agent.listed_keys import read_list
from protocols.errors import MillgateError
from security import envelope
from security.at_rest import KeyFault
from security.cards import read_agent_card, write_card
from security.keys import VerifyKey
from security.pkcs11_token import Pkcs11Signer, TokenFault, read_place
from security.schemes import P256
from security.signers import load_signer
from tests.joining_site import Site, enter
from tests.mill_folder import call, told
from tests.servers.softhsm import PIN, Tokens
from tests.small_factory import Keys, opening_key
from tests.vectors.material import header


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens(tmp_path_factory.mktemp("softhsm"), "mill", "pins", "open")


@pytest.fixture
def key(tokens: Tokens, request: pytest.FixtureRequest) -> str:
    """The place of a key that was made in a token for one test."""
    place = tokens.place("mill", hashlib.sha256(request.node.name.encode()).hexdigest()[:16])
    done = call("token", place, "--make", room=keys_app)
    assert done.exit_code == 0, done.output
    return place


def test_a_key_made_in_a_token_signs_and_never_leaves_it(key: str) -> None:
    signer = load_signer(Path(key))
    assert signer.public.scheme is P256
    for number in range(20):
        data = b"message %d" % number
        signer.public.verify(signer.sign(data), data)
    shown = call("token", key, room=keys_app)
    assert VerifyKey.from_text(shown.stdout.split()[0]) == signer.public
    assert PIN not in shown.output
    assert "not overwritten" in told(call("token", key, "--make", room=keys_app))
    library: Any = importlib.import_module("pkcs11")
    assert isinstance(signer, Pkcs11Signer)
    for attribute, expected in (("EXTRACTABLE", False), ("SENSITIVE", True)):
        assert signer._key[library.Attribute[attribute]] is expected
    with pytest.raises(library.PKCS11Error):
        signer._key[library.Attribute.VALUE]


def test_a_batch_signed_in_a_token_is_opened_like_any_other(key: str) -> None:
    padded = envelope.pad(b"content", 64)
    brain = opening_key("brain").public
    full = header(recipients=(brain.kid,), commitment=envelope.commitment(padded))
    signer = load_signer(Path(key))
    sealed = envelope.parse(envelope.seal(full, padded, signer, [brain]))
    sealed.signed.verify(signer.public)
    assert envelope.unpad(envelope.open_sealed(sealed, opening_key("brain"))) == b"content"


def test_an_agent_is_founded_with_its_signing_key_in_a_token(key: str, tmp_path: Path) -> None:
    write_card(tmp_path / "brain.card", Keys().brain_card)
    folder = tmp_path / "mill"
    done = call("init", folder, "--brain", tmp_path / "brain.card", "--signer", key)
    assert done.exit_code == 0, done.output
    public = load_signer(Path(key)).public
    assert read_agent_card(folder / "agent.card").signing_key == public
    config = read_config(folder / "agent.toml")
    assert config.identity.signer().public == public
    assert not (folder / "keys" / "signing.key").exists()
    # And a key in a token can take over.
    other = key.replace("object=", "object=next-")
    assert call("token", other, "--make", room=keys_app).exit_code == 0
    officer = folder / "keys" / "officer.key"
    path = folder / "agent.toml"
    done = call("rotate", path, "--signer", other, "--key", officer, room=keys_app)
    assert done.exit_code == 0, done.output
    _, found = read_list(config)
    assert found is not None
    assert [one.key for one in found.records] == [public, load_signer(Path(other)).public]
    refused = call(
        "init", tmp_path / "two", "--brain", tmp_path / "brain.card", "--signer", "x.key"
    )
    assert "this names no token" in told(refused)


async def test_a_factory_joins_with_its_signing_key_in_a_token(key: str, tmp_path: Path) -> None:
    site = Site(tmp_path)
    mill = tmp_path / "mill"
    async with site.open():
        invitation = site.invite()
        async with asyncio.TaskGroup() as group:
            group.create_task(enter(invitation, mill, signer=Path(key)))
            await asyncio.to_thread(site.approve_when_there, invitation)
    (factory,) = site.config.factories().values()
    assert factory.card.signing_key == load_signer(Path(key)).public
    assert read_config(mill / "agent.toml").identity.signer().public == factory.card.signing_key
    assert not (mill / "keys" / "signing.key").exists()


def test_a_wrong_pin_is_given_to_a_token_once_and_not_again_by_itself(
    tokens: Tokens, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.pin"
    wrong.touch(mode=0o600)
    wrong.write_text("999999")
    bad = tokens.place("pins", "signing", str(wrong))
    with pytest.raises(TokenFault, match="the PIN is wrong"):
        load_signer(Path(bad))
    for _ in range(20):
        with pytest.raises(TokenFault, match="none is tried again by itself"):
            load_signer(Path(bad))
    wrong.write_text(tokens.pin("pins").read_text("ascii"))
    with pytest.raises(TokenFault, match="--try"):
        load_signer(Path(bad))
    # A person who has mended it tries it once; then it goes by itself again.
    assert "no such P-256 key" in told(call("token", bad, "--try", room=keys_app))
    assert call("token", bad, "--make", room=keys_app).exit_code == 0
    load_signer(Path(bad))


def test_a_pin_that_others_can_read_is_not_taken(tokens: Tokens) -> None:
    tokens.pin("open").chmod(0o644)
    with pytest.raises(KeyFault, match="open to other users"):
        load_signer(Path(tokens.place("open", "signing")))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("token=", "token=no-"), "there is no such token"),
        (("object=", "object=no-"), "no such P-256 key"),
        (("libsofthsm2", "libsofthsm3"), "does not do it"),
    ],
)
def test_a_token_or_key_that_is_not_there_is_named(
    key: str, change: tuple[str, str], fault: str
) -> None:
    with pytest.raises(TokenFault, match=fault):
        load_signer(Path(key.replace(*change)))


GOOD = "pkcs11:token=a;object=b?module-path=/l.so&pin-source=/p"


@pytest.mark.parametrize(
    "text",
    [
        "pkcs11:",
        GOOD.replace("token=a;", ""),
        GOOD.replace("object=b", ""),
        GOOD.replace("&pin-source=/p", ""),
        GOOD.replace("module-path=/l.so&", ""),
        GOOD.replace("pin-source=/p", f"pin-value={PIN}"),
        GOOD + f"&pin-value={PIN}",
        GOOD.replace("object=b", "object=b;object=c"),
        GOOD.replace("object=b", "object=b;colour=red"),
        GOOD.replace("object=b", f"{PIN}"),
        GOOD.replace("/l.so", "l.so"),
        GOOD.replace("/p", "p"),
        GOOD.replace("token=a", "token=%ff"),
    ],
)
def test_what_is_not_the_place_of_a_key_is_refused_and_a_pin_in_it_is_not_said_again(
    text: str,
) -> None:
    with pytest.raises(MillgateError) as fault:
        read_place(Path(text))
    assert PIN not in str(fault.value)
    assert read_place(Path(GOOD)).pin == Path("/p")
    assert read_place(Path(GOOD.replace("token=a", "token=%61"))).token == "a"  # noqa: S105 - a token's label

"""Keys as systemd hands them over, and one in a token: both ends run, and no key lies in their folders."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.cli import app as agent_app
from aggregator.cli import app as brain_app
from security.cards import AgentCard, read_agent_card, write_card
from security.keys import VerifyKey
from simulators.demo import Mill, command
from tests.servers.mosquitto import running
from tests.servers.softhsm import Tokens
from tests.system.mills import MOSQUITTO, edit, kept, replay_mill, until
from tests.system.services import said

HANDED_OVER = {
    "mill": ("gate", "attestation"),
    "brain": ("encryption", "receipt"),
}
LOADED = {"mill": ["attestation", "gate", "pin"], "brain": ["encryption", "receipt"]}
CONFIGS: dict[str, Callable[[Mill], Path]] = {
    "mill": lambda mill: mill.agent_toml,
    "brain": lambda mill: mill.aggregator_toml,
}

pytestmark = pytest.mark.timeout(240)


async def test_both_ends_run_with_keys_from_systemd_and_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "")
    tokens = Tokens(tmp_path / "softhsm", "mill")
    handed = tmp_path / "credentials"
    handed.mkdir(mode=0o700)
    (tmp_path / "site").mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(handed))
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with replay_mill(tmp_path / "site", broker, "mqtt311", "--generate", "400") as (
            mill,
            _,
        ):
            key = await in_a_token(mill, tokens, handed)
            hand_over(mill, handed)
            await mill.start("aggregator")
            await mill.start("agent", ready=False)
            await until(lambda: len(kept(mill)) > 1, 60, mill)
            assert {one.signed.kid for one in kept(mill)} == {key.kid}
            for side, room in (("mill", agent_app), ("brain", brain_app)):
                unit = await said(room, "service", CONFIGS[side](mill), "--user", "mill")
                assert re.findall(r"(?m)^LoadCredentialEncrypted=(\w+):", unit) == LOADED[side]
            left = [path.name for path in mill.folder.glob("*/keys/*.key")]
            assert sorted(left) == ["audit.key", "officer.key"]


async def in_a_token(mill: Mill, tokens: Tokens, handed: Path) -> VerifyKey:
    """Replace the agent's signing key by one in a token, as `agent init --signer` does."""
    place = tokens.place("mill", "signing", "credential:pin")
    tokens.pin("mill").rename(handed / "pin")
    # In a process of its own: the library looks for tokens once.
    made = await command("keys", "token", place, "--make")
    key = VerifyKey.from_text(next(word for word in made.split() if word.startswith("p256:")))
    edit(mill.agent_toml, '"keys/signing.key"', f'"{place}"')
    (mill.agent_toml.parent / "keys" / "signing.key").unlink()
    card: AgentCard = read_agent_card(mill.agent_toml.with_name("agent.card"))
    for path in (
        mill.agent_toml.with_name("agent.card"),
        mill.folder / "brain" / "factories" / "mill.card",
    ):
        write_card(path, card.model_copy(update={"signing_key": key}))
    return key


def hand_over(mill: Mill, handed: Path) -> None:
    """Move keys to where systemd puts credentials, and name them in the configurations."""
    for side, names in HANDED_OVER.items():
        for name in names:
            (mill.folder / side / "keys" / f"{name}.key").rename(handed / name)
            edit(CONFIGS[side](mill), f'"keys/{name}.key"', f'"credential:{name}"')

"""What of a changed configuration the sealed side gets, and what is refused before anything changes."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent import reloading
from agent.cli import app
from agent.config import AgentConfig, for_sealed_side, read_config, read_sealed
from protocols.errors import ConfigError
from security.cards import BrainCard, write_card
from security.keys import OpeningKey, SigningKey, create_key_file
from tests.system.mills import edit

DEVICE = """
[[device]]
id = "meter-1"
kind = "modbus"
host = "127.0.0.1"

[[device.points]]
id = "energy"
address = "holding:0"
type = "uint32"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    opening = OpeningKey(create_key_file(tmp_path / "brain.key", "xwing"))
    receipt = SigningKey(create_key_file(tmp_path / "receipt.key", "ed25519"))
    card = tmp_path / "brain.card"
    write_card(
        card,
        BrainCard(
            card="millgate-brain/1",
            name="brain",
            encryption_key=opening.public,
            receipt_key=receipt.public,
        ),
    )
    done = CliRunner().invoke(app, ["init", str(tmp_path / "mill"), "--brain", str(card)])
    assert done.exit_code == 0, done.output
    found = tmp_path / "mill" / "agent.toml"
    found.write_text(found.read_text("utf-8") + DEVICE, "utf-8")
    (found.parent / "data").mkdir()
    return found


@pytest.fixture
def old(path: Path) -> AgentConfig:
    return read_sealed(for_sealed_side(path))


def refused(path: Path, old: AgentConfig) -> str:
    with pytest.raises(ConfigError) as fault:
        reloading.changed_settings(path, old)
    return str(fault.value)


def test_a_change_of_devices_leaves_the_sealed_side_as_it_is(path: Path, old: AgentConfig) -> None:
    before = for_sealed_side(path)
    edit(path, 'host = "127.0.0.1"\n\n[[', 'host = "127.0.0.2"\n\n[[')
    assert reloading.changed_settings(path, old) == before
    edit(path, "[broker]\n", "[broker]\nkeepalive_s = 30\n")
    assert reloading.changed_settings(path, old) != before


@pytest.mark.parametrize(
    ("was", "becomes", "word"),
    [
        ('signing_key = "keys/', 'signing_key = "keys/../keys/', "identity"),
        ('\nid = "energy"', '\nid = "an energy"', "device"),
        ("port = 1883", "port = 0", "broker"),
        (DEVICE, "", "device"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(
    path: Path, old: AgentConfig, was: str, becomes: str, word: str
) -> None:
    edit(path, was, becomes)
    assert word in refused(path, old)


def test_officers_under_whom_the_policy_could_not_be_enforced_are_refused(
    path: Path, old: AgentConfig
) -> None:
    other = SigningKey(create_key_file(path.parent / "keys" / "other.key", "ed25519"))
    officer = read_config(path).policy.officers[0].to_text()
    edit(path, officer, other.public.to_text())
    assert "policy" in refused(path, old) or "策略" in refused(path, old)


def test_the_answer_says_what_is_faulty_and_nothing_else(path: Path) -> None:
    given, answer = (os.memfd_create(name) for name in ("given", "answer"))
    os.write(given, for_sealed_side(path))
    edit(path, '\nid = "energy"', "\nid = 7")
    assert reloading.main([str(path), str(given), str(answer)]) == 0
    found = json.loads(os.pread(answer, reloading.MOST_BYTES, 0))
    assert list(found) == ["faults"]
    assert "agent.toml" in found["faults"]
    for each in (given, answer):
        os.close(each)

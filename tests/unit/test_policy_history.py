"""History and stop: what was enforced, who signed it, what it changed; one officer ends it."""

import hashlib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from agent.authority import Authority, enforced_path
from agent.cli import app as agent_app
from agent.config import AgentConfig, read_config
from agent.policy_cli import app as policy_app
from agent.registry import Registry
from aggregator.cli import app as aggregator_app

DEVICE = """
[[device]]
id = "meter-1"
kind = "modbus"
host = "127.0.0.1"
interval = "1s"

[[device.points]]
id = "energy"
address = "holding:0"
type = "uint32"
unit = "kWh"
measurand = "energy.active_import"
"""
RELEASE = """\
consumer = "brain"
number = 1
equipment = "meter-1"
release = { aggregate = "delta", slot = "15m", round = 1 }
classes = { raw = "general-2", released = "general-1" }
"""


def run(app: typer.Typer, *arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


class Mill:
    """An agent's folder, made by the commands, and its authority."""

    def __init__(self, folder: Path) -> None:
        run(aggregator_app, "init", folder / "brain", "--name", "brain")
        run(agent_app, "init", folder / "mill", "--brain", folder / "brain" / "brain.card")
        self.folder = folder / "mill"
        self.agent = self.folder / "agent.toml"
        self.text = self.folder / "policy.toml"
        self.signed = self.folder / "policy.signed"
        self.key = self.folder / "keys" / "officer.key"
        text = self.agent.read_text("utf-8").split("[[device]]")[0] + DEVICE
        self.agent.write_text(text, encoding="utf-8")
        run(policy_app, "new", self.agent)
        self.edit(
            'measurand = "energy.active_import"\n', f'measurand = "energy.active_import"\n{RELEASE}'
        )
        self.config: AgentConfig = read_config(self.agent)
        self.registry = Registry(self.config.spool.folder / "registry.json")
        self.authority = Authority(self.config, self.registry)

    def edit(self, old: str, new: str) -> None:
        written = self.text.read_text("utf-8")
        assert old in written
        self.text.write_text(written.replace(old, new, 1), encoding="utf-8")

    def sign(self) -> str:
        return run(policy_app, "sign", self.text, "--key", self.key)

    def next_version(self, version: int) -> None:
        before = hashlib.sha256(enforced_path(self.config).read_bytes()).hexdigest()
        written = self.text.read_text("utf-8")
        lines = [
            f"version = {version}"
            if line.startswith("version = ")
            else f'previous = "sha256:{before}"'
            if line.startswith("previous = ")
            else line
            for line in written.splitlines()
        ]
        self.text.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def mill(tmp_path: Path) -> Mill:
    return Mill(tmp_path)


def test_history_tells_every_version_its_signers_and_its_changes(mill: Mill) -> None:
    assert "No policy was enforced" in run(policy_app, "history", mill.agent)
    mill.sign()
    assert mill.authority.look().policy is not None
    mill.next_version(2)
    mill.edit(
        '\nrelease = { aggregate = "delta", slot = "15m"',
        '\nrelease = { aggregate = "delta", slot = "5m"',
    )
    mill.sign()
    mill.authority.look()
    said = run(policy_app, "history", mill.agent)
    assert "version 1  signed by officer 1" in said
    assert "did not leave before" in said
    assert "version 2  signed by officer 1" in said
    assert "15 min → 5 min" in said


def test_one_officer_stops_it_and_only_a_newer_version_goes_on(mill: Mill) -> None:
    mill.sign()
    assert not mill.authority.look().stopped
    said = run(policy_app, "stop", mill.signed, "--key", mill.key, "--reason", "audit")
    assert "sign version 2" in said
    assert mill.authority.look().stopped
    assert "STOP of version 1" in run(policy_app, "history", mill.agent)
    (mill.folder / "policy.stop").unlink()
    assert mill.authority.look().stopped
    mill.next_version(2)
    mill.sign()
    assert not mill.authority.look().stopped


def test_history_tells_which_version_expired_and_not_one_that_was_followed_in_time(
    mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (1, 2):
        if version > 1:
            mill.next_version(version)
        mill.sign()
        mill.authority.look()
    assert "expired" not in run(policy_app, "history", mill.agent)
    monkeypatch.setattr("agent.policy_cli.time.time", lambda: 1e11)
    lines = run(policy_app, "history", mill.agent).splitlines()
    (told,) = (line for line in lines if "expired" in line)
    assert "version 2 expired: nothing left from then on" in told
    assert lines[-1] == told


def test_an_officer_confirms_that_a_policy_still_holds(mill: Mill) -> None:
    mill.sign()
    assert "version 1 is confirmed" in run(policy_app, "confirm", mill.signed, "--key", mill.key)
    assert (mill.folder / "policy.fresh").exists()

"""An agent whose two sides run as two services, each with a folder of its own (docs/operations.md)."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from agent.cli import app as agent_app
from aggregator.cli import app as brain_app
from protocols.status import NotRunning, ask, socket_path
from security.cli import policy_app
from simulators.demo import Mill
from tests.mill_folder import call

PYTHON: Final = (sys.executable, "-m")
SIDES: Final = {"gate": ("gate.key",), "sealed": ("signing.key", "attestation.key")}
"""The keys that each side has."""


@dataclass
class Services:
    """The two services of one agent.

    Attributes:
        mill: where their processes are, as `NAME-gate` and `NAME-sealed`.
        folder: holds `agent` (as `agent init` made it), `gate` and `sealed`.
    """

    mill: Mill
    name: str
    folder: Path

    def told(self, side: str) -> dict[str, Any]:
        """Return what a side tells who asks inside; nothing while it does not answer."""
        try:
            return ask(socket_path(self.folder / side / "data"))
        except NotRunning:
            return {}

    def acknowledged(self) -> int:
        """Return of how many values the brain has given a receipt."""
        return int(self.told("sealed").get("outputs", {}).get("acknowledged", 0))

    def log(self, side: str) -> str:
        return (self.mill.folder / f"{self.name}-{side}.log").read_text("utf-8")


async def said(room: typer.Typer, *arguments: object) -> str:
    """Run a command in this process, which is quicker than a new one, and return what it says."""
    done = await asyncio.to_thread(call, *arguments, room=room)
    assert done.exit_code == 0, done.output or done.exception
    return done.output


async def brain(mill: Mill, broker_port: int, protocol: str = "mqtt311") -> None:
    """Make the brain's folder."""
    words = ("--name", "brain", "--api-port", 0, "--broker-port", broker_port)
    await said(brain_app, "init", mill.folder / "brain", *words, "--protocol", protocol)


async def prepare(
    mill: Mill, name: str, broker_port: int, devices: str, protocol: str = "mqtt311"
) -> Path:
    """Make an agent's folder with devices, and let the brain know it; return its agent.toml."""
    folder = mill.folder / name / "agent"
    card = mill.folder / "brain" / "brain.card"
    ports = ("--broker-port", broker_port, "--protocol", protocol)
    await said(agent_app, "init", folder, "--brain", card, *ports)
    factories = mill.folder / "brain" / "factories"
    shutil.copy(folder / "agent.card", factories / f"{name}.card")
    with (folder / "agent.toml").open("a", encoding="utf-8") as file:
        file.write(devices)
    await said(policy_app, "new", folder / "agent.toml")
    return folder / "agent.toml"


async def sign(config: Path) -> None:
    """Let the data officer sign the policy beside an agent.toml."""
    text, key = config.with_name("policy.toml"), config.parent / "keys" / "officer.key"
    await said(policy_app, "sign", text, "--key", key)


def divide(agent: Path, devices: str) -> None:
    """Give each side a folder with its part of an agent's files, and nothing else."""
    whole = (agent / "agent.toml").read_text("utf-8")
    texts = {"gate": whole, "sealed": whole.replace(devices, "")}
    for side, keys in SIDES.items():
        folder = agent.parent / side
        (folder / "keys").mkdir(parents=True)
        (folder / "agent.toml").write_text(texts[side], encoding="utf-8")
        shutil.copy(agent / "brain.card", folder)
        for key in keys:
            shutil.copy(agent / "keys" / key, folder / "keys")
    shutil.copy(agent / "policy.signed", agent.parent / "gate")


@asynccontextmanager
async def running(
    mill: Mill, name: str, within: Mapping[str, Sequence[str]] | None = None
) -> AsyncIterator[Services]:
    """Run both services of a divided agent, each behind the words that `within` has for its side."""
    folder = mill.folder / name
    with tempfile.TemporaryDirectory(prefix="millgate-") as short:
        link = str(Path(short) / "link.sock")
        config = {side: str(folder / side / "agent.toml") for side in SIDES}
        sealed = ("agent.sealed_app", "--config", config["sealed"], "--listen", link)
        commands = {"sealed": sealed, "gate": ("agent.gate_app", config["gate"], "--connect", link)}
        for side, words in commands.items():
            ahead = tuple((within or {}).get(side, ()))
            mill.commands[f"{name}-{side}"] = (*ahead, *PYTHON, *words)
            await mill.start(f"{name}-{side}", ready=False)
        yield Services(mill, name, folder)

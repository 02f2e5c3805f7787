"""An agent's folder as `agent init` makes it, and its commands in this process."""

from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from agent.cli import app
from protocols.errors import MillgateError
from security.cards import write_card
from tests.small_factory import Keys


def make_mill(folder: Path, devices: str = "") -> Path:
    """Make an agent's folder, and return its agent.toml."""
    write_card(folder / "brain.card", Keys().brain_card)
    done = call("init", folder / "mill", "--brain", folder / "brain.card")
    assert done.exit_code == 0, done.output
    path = folder / "mill" / "agent.toml"
    with path.open("a", encoding="utf-8") as file:
        file.write(devices)
    return path


def call(*arguments: object, answer: str | None = None, room: typer.Typer = app) -> Result:
    """Run `millgate agent ...`."""
    return CliRunner().invoke(room, [str(argument) for argument in arguments], input=answer)


def told(result: Result) -> str:
    """Return the fault that a command ended with."""
    assert isinstance(result.exception, MillgateError), result.output
    return str(result.exception)

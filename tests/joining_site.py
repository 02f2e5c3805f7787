"""A brain that factories join by code, with its endpoint in this process, and a factory's steps."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.enroll_cli import enroll_now
from aggregator.authority import open_joining
from aggregator.cli import app
from aggregator.config import AggregatorConfig, read_config
from aggregator.joining_api import desk
from tests.mill_folder import call
from tests.servers.mosquitto import free_port


@dataclass(frozen=True)
class Invitation:
    code: str
    approval: str


class Site:
    """A brain's folder as `aggregator init --host` makes it."""

    def __init__(self, folder: Path, port: int | None = None, broker_port: int = 8883) -> None:
        self.folder = folder
        self.path = folder / "brain" / "aggregator.toml"
        self.port = port or free_port()
        self.run("init", folder / "brain", "--host", "localhost", "--broker-port", broker_port)
        text = self.path.read_text("utf-8").replace("8751", str(self.port))
        self.path.write_text(text.replace("0.0.0.0", "127.0.0.1"), "utf-8")  # noqa: S104 - replaced by loopback

    @property
    def config(self) -> AggregatorConfig:
        return read_config(self.path)

    def run(self, command: str, *arguments: object) -> str:
        """Run `millgate aggregator COMMAND`, and return what it printed."""
        where = () if command == "init" else (self.path,)
        done = call(command, *where, *arguments, room=app)
        if done.exception is not None:
            raise done.exception
        return done.output

    def invite(self, name: str = "mill", *options: object) -> Invitation:
        said = self.run("invite", name, *options)
        code = re.search(r"[0-9A-Z-]{39}@\S+", said)
        approval = re.search(r"\b\d{4}-\d{4}-\d{4}\b", said)
        assert code is not None, said
        assert approval is not None, said
        return Invitation(code[0], approval[0])

    def approve(self, invitation: Invitation, name: str = "mill") -> str:
        return self.run("approve", name, invitation.approval)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Let factories join."""
        async with desk(self.config):
            yield

    async def join(self, invitation: Invitation, mill: Path, name: str = "mill") -> None:
        """Go the whole way: the factory enrols, the brain approves."""
        async with asyncio.TaskGroup() as group:
            group.create_task(enter(invitation, mill))
            await asyncio.to_thread(self.approve_when_there, invitation, name)

    def approve_when_there(self, invitation: Invitation, name: str = "mill") -> None:
        """Approve as soon as the application is there."""
        joining = open_joining(self.config)
        try:
            while not joining.waiting():
                time.sleep(0.05)
        finally:
            joining.close()
        self.approve(invitation, name)


async def enter(
    invitation: Invitation,
    mill: Path,
    minutes: float = 1,
    url: str = "",
    signer: Path | None = None,
) -> None:
    """Do as `millgate agent enroll` does."""
    code, approval = invitation.code, invitation.approval
    await enroll_now(code, mill, approval=approval, minutes=minutes, url=url, signer=signer)

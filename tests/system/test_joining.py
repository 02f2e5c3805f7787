"""docs/joining.md, command by command: from the invitation to the receipt, over TLS all the way."""

import asyncio
import json
import re
import shlex
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import typer

from agent.cli import app as agent_app
from agent.config import read_config
from aggregator.authority import open_joining
from aggregator.cli import app as brain_app
from aggregator.config import read_config as read_brain
from aggregator.ledger import Ledger
from protocols.https import ask_server, believing
from protocols.status import NotRunning, ask
from security.admin_log import read_log
from security.cli import policy_app
from simulators.demo import Mill, stopping_all
from tests.documents import blocks, text
from tests.mill_folder import call
from tests.servers.mosquitto import Mosquitto, free_port
from tests.system.mills import REPLAY_DEVICE, edit, release, until

ROOMS = {"agent": agent_app, "aggregator": brain_app, "policy": policy_app}
PAGE = "docs/joining.md"
NAME = "huafeng"
ROWS = 40
"""About twice as many quarters of an hour as are waited for."""

pytestmark = pytest.mark.timeout(240)


def commands() -> list[list[str]]:
    lines = [line for block in blocks(text(PAGE), "") for line in block.splitlines()]
    return [shlex.split(line.removeprefix("./run ")) for line in lines]


@dataclass
class Walk:
    """Does what the page says, in a folder of its own."""

    folder: Path
    code: str = ""
    approval: str = ""
    port: int = field(default_factory=free_port)
    broker: Mosquitto = field(init=False)
    mill: Mill = field(init=False)
    said: dict[str, str] = field(default_factory=dict)
    ready: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        broker = self.folder / "broker"
        self.broker = Mosquitto(self.folder / "run", f"include_dir {broker}")
        self.mill = Mill(self.folder)

    @property
    def brain(self) -> Path:
        return self.folder / "brain" / "aggregator.toml"

    @property
    def agent(self) -> Path:
        return self.folder / "mill" / "agent.toml"

    def words(self, line: list[str]) -> list[str]:
        """Return a command of the page with the places and codes of this test."""
        known = {
            "CODE": self.code,
            "brain.example": "localhost",
            "officer.key": str(self.folder / "mill" / "keys" / "officer.key"),
        }
        places = ("brain", "broker", "mill")
        return [
            known.get(word) or (str(self.folder / word) if word.split("/")[0] in places else word)
            for word in line
        ]

    async def do(self, line: list[str], *more: object, answer: str | None = None) -> str:
        room: typer.Typer = ROOMS[line[0]]
        words = [*self.words(line[1:]), *more]
        done = await asyncio.to_thread(call, *words, answer=answer, room=room)
        assert done.exit_code == 0, (line, done.output, done.exception)
        self.said[" ".join(line[:2])] = done.output
        return done.output

    async def run(self, line: list[str]) -> None:
        """Start what runs on."""
        name = line[0]
        self.mill.commands[name] = tuple(self.words(line))
        self.ready |= await self.mill.start(name, ready=name == "aggregator")

    def acknowledged(self) -> bool:
        """the agent has receipts for what was read"""
        try:
            report = ask(read_config(self.agent).socket)
        except NotRunning:
            return False
        return int((report.get("outputs") or {}).get("acknowledged", 0)) > ROWS // 2

    def applied(self) -> bool:
        """the factory's application has come"""
        joining = open_joining(read_brain(self.brain))
        try:
            return bool(joining.waiting())
        finally:
            joining.close()


async def test_the_way_of_the_page_leads_from_the_invitation_to_the_receipt(tmp_path: Path) -> None:
    walk = Walk(tmp_path)
    try:
        async with stopping_all(walk.mill):
            await _go(walk)
            await asyncio.to_thread(_check, walk)
    finally:
        await asyncio.to_thread(walk.broker.stop)


async def _go(walk: Walk) -> None:
    init, broker, run, invite, enroll, approve, new, sign, agent, factories, log, revoke = (
        commands()
    )
    await walk.do(init, "--broker-port", walk.port, "--api-port", 0)
    edit(walk.brain, "0.0.0.0", "127.0.0.1")  # noqa: S104 - replaced by loopback
    toml = walk.brain.read_text("utf-8")
    walk.brain.write_text(toml.replace("8751", str(free_port())), "utf-8")
    await walk.do(broker, "--user", "root")
    await asyncio.to_thread(walk.broker.start)
    await run_and_invite(walk, run, invite)
    async with asyncio.TaskGroup() as group:
        group.create_task(walk.do(enroll, answer=f"{walk.approval}\n"))
        await until(walk.applied, 60, walk.mill)
        await walk.do(approve, answer=f"{walk.approval}\n")
    walk.mill.commands["replay"] = ("sim", "replay", "--generate", str(100 * ROWS), "--port", "0")
    replay = await walk.mill.start("replay")
    with walk.agent.open("a", encoding="utf-8") as file:
        device = REPLAY_DEVICE.format(port=replay["modbus_port"])
        # So that the agent still sends when it is revoked.
        file.write(device.replace('interval = "0s"', 'interval = "100ms"'))
    await walk.do(new)
    policy = walk.agent.with_name("policy.toml")
    release(policy, "steel-meter", "energy", slot="15m")
    edit(policy, 'consumer = "brain"', 'consumer = "zj-brain"')
    edit(policy, "retention_days = 730", "retention_days = 36500")
    await walk.do(sign)
    await walk.run(agent)
    await until(walk.acknowledged, 90, walk.mill)
    # The API too has a certificate of the authority that the agent was given.
    trust = believing((walk.agent.parent / "keys" / "ca.pem").read_bytes())
    status, _ = await ask_server(f"https://localhost:{walk.ready['port']}/", trust, 1 << 20)
    assert status == HTTPStatus.OK
    for room, path in (("agent", walk.agent), ("aggregator", walk.brain)):
        await asyncio.to_thread(call, "doctor", path, room=ROOMS[room])
    await walk.do(factories)
    walk.said["joined"] = await walk.do(factories, "--json")
    await walk.do(log)
    await walk.do(revoke)
    await refused_over_the_open_connection(walk)


async def refused_over_the_open_connection(walk: Walk) -> None:
    """The broker has not even read the list; the brain takes nothing all the same."""
    assert "systemctl restart mosquitto" in walk.said["aggregator revoke"]
    ledger = Ledger(read_brain(walk.brain).ledger)
    try:
        (agent,) = ledger.agents().values()
        kept = ledger.totals(agent)

        def refused() -> bool:
            """what came over the open connection is not taken"""
            return ledger.counters().get("quarantined", 0) > 2

        await until(refused, 60, walk.mill)
        assert ledger.totals(agent) == kept
    finally:
        ledger.close()
    (standing,) = json.loads(
        await walk.do(["aggregator", "factories", "brain/aggregator.toml"], "--json")
    )
    assert standing["trust"] == "revoked"


async def run_and_invite(walk: Walk, run: list[str], invite: list[str]) -> None:
    await walk.run(run)
    said = await walk.do(invite)
    code = re.search(r"[0-9A-Z-]{39}@\S+", said)
    approval = re.search(r"\b\d{4}-\d{4}-\d{4}\b", said)
    assert code is not None
    assert approval is not None
    walk.code, walk.approval = code[0], approval[0]


def _check(walk: Walk) -> None:
    config = read_brain(walk.brain)
    ((address, factory),) = config.factories().items()
    assert address == read_config(walk.agent).identity.address
    assert factory.enterprise == NAME
    ledger = Ledger(config.ledger)
    batches, values, refused, *_ = ledger.totals(ledger.agents()[address])
    ledger.close()
    assert values > ROWS // 2
    assert batches
    assert not refused
    (standing,) = json.loads(walk.said["joined"])
    assert (standing["trust"], standing["joined"], standing["policy_version"]) == (
        "good",
        "code",
        1,
    )
    assert standing["last_seen_s"]
    # The broker knew both by their certificates alone, and no doctor has thrown them out.
    users = re.findall(r"New client connected .* u'([^']+)'", walk.broker.log)
    assert sorted(users) == sorted(["brain", address.agent.hex()])
    actions = [entry.action for entry in read_log(config.ledger.with_name("admin.log"))]
    assert actions == ["authority", "broker-config", "invite", "approve", "revoke"]
    assert "4 entries, unchanged" in walk.said["aggregator log"]

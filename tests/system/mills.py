"""A mill of real processes for tests, with the broker and devices that the test chooses."""

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from agent.cli import app as agent_app
from aggregator.app import make_stores
from aggregator.cli import app as brain_app
from aggregator.config import read_config
from aggregator.stores import SeriesBlock, SeriesKey
from security.cli import policy_app
from security.envelope import Sealed, parse
from simulators.demo import SLOT, Mill, configure, stopping_all
from tests.servers.mosquitto import Mosquitto
from tests.system.services import said

FOREVER: Final = 2**62
_POLL_S: Final = 0.25

LAST_TRAFFIC_S: Final = 12.0
"""How long a mill runs on after the last thing that was done to it."""

MOSQUITTO: Final = "allow_anonymous true\nmax_queued_messages 10000"


@asynccontextmanager
async def plant_mill(
    folder: Path,
    seed: int,
    broker: Mosquitto | None = None,
    protocol: str = "mqtt311",
    *,
    slot: str = SLOT,
    adapt: Callable[[Mill], None] = lambda _: None,
) -> AsyncIterator[Mill]:
    """Run the demo's mill in a folder; with Mosquitto when given, else with the embedded broker.

    `adapt` may change what was configured before anything of it is started.
    """
    mill = Mill(folder)
    mill.commands |= {
        "plant": ("sim", "plant", "--seed", str(seed), "--truth", str(mill.truth)),
        "aggregator": ("aggregator", "run", str(mill.aggregator_toml)),
        "agent": ("agent", "run", str(mill.agent_toml)),
    }
    async with stopping_all(mill):
        plant = await mill.start("plant")
        if broker is None:
            mill.commands["broker"] = ("sim", "broker")
            port = (await mill.start("broker"))["mqtt_port"]
            mill.commands["broker"] = ("sim", "broker", "--port", str(port))
        else:
            port = broker.port
        await configure(mill, plant, port, protocol, slot=slot)
        adapt(mill)
        mill.port = (await mill.start("aggregator"))["port"]
        mill.token = (folder / "brain" / "keys" / "api.token").read_text("ascii").strip()
        await mill.start("agent", ready=False)
        yield mill


def check(report: dict[str, Any]) -> None:
    """Hold an account to: nothing lost, doubled or wrong, and all of it arrived."""
    assert report["first_wrong"] == ""
    assert (report["lost"], report["wrong"], report["doubled"]) == (0, 0, 0)
    assert (report["refused"], report["waiting"]) == (0, 0)
    assert report["balanced"]
    assert report["released"] == report["stored"] > 0
    assert report["judged"] > 0


REPLAY_DEVICE: Final = """
[[device]]
id = "steel-meter"
kind = "modbus"
host = "127.0.0.1"
port = {port}
interval = "0s"
slot_time = "clock"

[[device.points]]
id = "energy"
address = "holding:0"
type = "uint32"
scale = 0.01
unit = "kWh"
measurand = "energy.active_import"

[[device.points]]
id = "power"
address = "holding:2"
type = "uint32"
unit = "W"
measurand = "power.active"

[[device.points]]
id = "clock"
address = "holding:4"
type = "uint32"
unit = "s"
measurand = "time.device"
"""


@asynccontextmanager
async def replay_mill(
    folder: Path, broker: Mosquitto, protocol: str, *recording: str
) -> AsyncIterator[tuple[Mill, dict[str, Any]]]:
    """Run a mill whose only device replays a recording; the agent is not started yet."""
    mill = Mill(folder)
    mill.commands |= {
        "replay": ("sim", "replay", *recording),
        "aggregator": ("aggregator", "run", str(mill.aggregator_toml)),
        "agent": ("agent", "run", str(mill.agent_toml)),
    }
    async with stopping_all(mill):
        replay = await mill.start("replay")
        brain, agent = folder / "brain", folder / "mill"
        ports = ("--broker-port", str(broker.port), "--protocol", protocol)
        await said(brain_app, "init", brain, "--name", "brain", "--api-port", "0", *ports)
        await said(agent_app, "init", agent, "--brain", brain / "brain.card", *ports)
        with mill.agent_toml.open("a", encoding="utf-8") as file:
            file.write(REPLAY_DEVICE.format(port=replay["modbus_port"]))
        (brain / "factories" / "mill.card").write_bytes((agent / "agent.card").read_bytes())
        await said(policy_app, "new", mill.agent_toml)
        release(agent / "policy.toml", "steel-meter", "energy", slot="15m")
        # What was recorded years ago would else have passed its retention when it arrives.
        edit(agent / "policy.toml", "retention_days = 730", "retention_days = 36500")
        await sign(mill)
        yield mill, replay


def release(path: Path, device: str, point: str, slot: str, number: int = 1) -> None:
    """Release one point in a policy that withholds it: a counter's rise, or a last value."""
    text = path.read_text(encoding="utf-8")
    start = f'[[point]]\ndevice = "{device}"\npoint = "{point}"\n'
    assert text.count(start) == 1
    aggregate = "delta" if point == "energy" else "last"
    lines = (
        f'consumer = "brain"\nnumber = {number}\nequipment = "meter-1"\nrole = "main"\n'
        f'release = {{ aggregate = "{aggregate}", slot = "{slot}", round = 0.01 }}\n'
        'classes = { raw = "general-2", released = "general-1" }\n'
    )
    path.write_text(text.replace(start, start + lines), encoding="utf-8")


async def sign(mill: Mill) -> None:
    """Let the data officer sign the policy."""
    folder = mill.folder / "mill"
    await said(policy_app, "sign", folder / "policy.toml", "--key", folder / "keys" / "officer.key")


async def until(done: Callable[[], bool], seconds: float, mill: Mill | None = None) -> None:
    """Wait until something holds; fail with what it was waiting for."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(done):
        if mill is not None:
            mill.check_alive()
        assert time.monotonic() < deadline, f"did not happen within {seconds} s: {done.__doc__}"
        await asyncio.sleep(_POLL_S)


def rows(mill: Mill, bucket: str, measurement: str | None) -> list[tuple[SeriesKey, SeriesBlock]]:
    """Return every series of a measurement with all its rows."""
    stores = make_stores(read_config(mill.aggregator_toml))
    try:
        store = stores[bucket]
        return [
            (key, store.query(key, list(store.newest(key).fields), 0, FOREVER))
            for key in store.series(measurement)
        ]
    finally:
        for store in stores.values():
            store.close()


def exact(values: Any) -> list[Decimal]:
    """Return stored float64 values as the decimals that they stand for."""
    return [Decimal(repr(value)) for value in values.tolist()]


def edit(path: Path, old: str, new: str) -> None:
    """Replace one place of a text file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new), encoding="utf-8")


def python(*arguments: str) -> tuple[str, ...]:
    """Return the command line of a millgate command."""
    return (sys.executable, "-m", "millgate", *arguments)


def kept(mill: Mill) -> list[Sealed]:
    """Return the batches that the brain has, in the order of their coming."""
    path = mill.folder / "brain" / "data" / "ledger.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        found = ledger.execute("SELECT sealed FROM batch ORDER BY id").fetchall()
    return [parse(bytes(row[0])) for row in found]


def position(mill: Mill) -> dict[str, Any]:
    """Return how far the series are written."""
    path = mill.folder / "brain" / "data" / "projection.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"batch": 0}
    return found

"""Non-interference with real processes: past the gate two firms that differ in withheld data look alike."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from security.envelope import BATCH, parse
from simulators.demo import Mill, stopping_all
from tests.servers.mosquitto import running as broker_running
from tests.servers.registers import Memory, serving
from tests.system import services
from tests.system.mills import MOSQUITTO, release, until
from tests.system.spy import Spy, kind_of

SLOT_S: Final = 2
SLOTS: Final = 3
"""So many slots of both firms are compared at least."""

RELEASED: Final = ("energy", "power")

COUNTED: Final = ("mg1-sheet", "mg1-attestation")

DEVICE: Final = """
[[device]]
id = "{id}"
kind = "modbus"
host = "127.0.0.1"
port = {port}
interval = "{interval}"
"""
POINT: Final = """
[[device.points]]
id = "{id}"
address = "{address}"
type = "{type}"
{rest}"""
KWH: Final = 'scale = 0.01\nunit = "kWh"\nmeasurand = "energy.active_import"\n'
WATT: Final = 'unit = "W"\nmeasurand = "power.active"\n'

pytestmark = pytest.mark.timeout(180)


def meter(port: int, secret: str) -> str:
    """Return a meter with two points that leave and two, named after a secret, that do not."""
    points = [("energy", 0, "uint32", KWH), ("power", 2, "uint32", WATT)]
    points += [(f"{secret}-setpoint", 4, "float32", ""), (f"{secret}-count", 6, "uint32", "")]
    return device("meter", port, "250ms", points)


def device(name: str, port: int, interval: str, points: list[tuple[str, int, str, str]]) -> str:
    return DEVICE.format(id=name, port=port, interval=interval) + "".join(
        POINT.format(id=point, address=f"holding:{at}", type=kind, rest=rest)
        for point, at, kind, rest in points
    )


@asynccontextmanager
async def one_firm() -> AsyncIterator[tuple[str, Memory]]:
    """A meter whose withheld registers rest, and no furnace."""
    memory = Memory(between=0)
    public(memory)
    async with serving(memory) as server:
        yield meter(server.port, "a"), memory


@asynccontextmanager
async def other_firm() -> AsyncIterator[tuple[str, Memory]]:
    """A meter with other withheld points, whose registers change, and furnaces, of which one is dead."""
    memory, furnace = Memory(between=7), Memory()
    public(memory)
    furnace.put("holding:0", "float32", 1187.5)
    async with serving(memory) as server, serving(furnace) as hot:
        text = meter(server.port, "sulphidation-recipe")
        text += device("furnace-1", hot.port, "50ms", [("temperature", 0, "float32", "")])
        text += device("furnace-2", 1, "50ms", [("temperature", 0, "float32", "")])
        yield text, memory


def public(memory: Memory) -> None:
    memory.put("holding:0", "uint32", 123456)
    memory.put("holding:2", "uint32", 4200)


async def work(memory: Memory) -> None:
    """Let withheld registers change all the time, and now and then not be there at all."""
    for step in range(1 << 30):
        memory.put("holding:4", "float32", 850.0 + step % 17)
        memory.put("holding:6", "uint32", step)
        memory.between = None if step % 40 > 30 else 7
        if memory.between is None:
            for at in (6, 7):
                memory.words.pop(("holding", at), None)
        await asyncio.sleep(0.05)


def outside(spy: Spy, firm: services.Services, told: dict[str, Any]) -> dict[str, Any]:
    """Return what can be seen of a firm past the gate, by the slot where it has one.

    Args:
        told: what its sealed side said of itself at the end.
    """
    text = (firm.folder / "sealed" / "agent.toml").read_text("utf-8")
    ids = re.findall(r'(?m)^(?:factory|agent) = "([0-9a-f]+)"', text)
    mine = {topic: found for topic, found in spy.topics.items() if ids[1] in topic}
    up = list(dict.fromkeys(mine[f"mg1/{ids[0]}/{ids[1]}/up"]))
    batches = [parse(one) for one in up if kind_of(one) == kind_of(BATCH.encode())]
    sizes = [len(one) for one in up if kind_of(one) == kind_of(BATCH.encode())]
    rows = len(RELEASED) * len(batches)
    # How many batches one receipt covers, the brain decides.
    assert told["broker"].pop("receipts") > 0
    # What its clock is held against is when those came.
    assert told.pop("brain_clock")["line"] == ""
    return {
        "topics": sorted(topic.replace(ids[0], "F").replace(ids[1], "A") for topic in mine),
        "batches": {
            one.header.window: (one.header.stream, len(one.wrapped), size)
            for one, size in zip(batches, sizes, strict=True)
        },
        "others": Counter((kind_of(one), len(one)) for one in up if kind_of(one) in COUNTED),
        # How often an agent asks and says that it is there, the broker's and brain's haste decides.
        "asks": {len(one) for one in up if kind_of(one) == "mg1-ask"},
        "kinds": {kind_of(one) for one in up},
        "state": set(mine[f"mg1/{ids[0]}/{ids[1]}/state"]),
        # As many values as its slots have, whatever the devices of the firm say besides.
        "figures": (told["outputs"].pop("released") - rows, told["outputs"].pop("acknowledged") - rows),
        "rest": told,
        "log": list(lines(firm.log("sealed"))),
        "files": sorted(str(p.relative_to(firm.folder)) for p in (firm.folder / "sealed").rglob("*")),
    }  # fmt: skip


def lines(log: str) -> Iterator[str]:
    """Yield the lines of a log without their times."""
    for line in log.splitlines():
        yield re.sub(r"^\S+ \S+ ", "", line)


async def test_firms_that_differ_in_withheld_data_alone_look_the_same_to_broker_logs_and_figures(
    tmp_path: Path,
) -> None:
    mill = Mill(tmp_path)
    mill.commands["aggregator"] = ("aggregator", "run", str(mill.aggregator_toml))
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(broker_running(tmp_path / "mosquitto", MOSQUITTO))
        await services.brain(mill, broker.port)
        memories = []
        for name, make in (("one", one_firm), ("other", other_firm)):
            devices, memory = await stack.enter_async_context(make())
            memories.append(memory)
            config = await services.prepare(mill, name, broker.port, devices)
            for number, point in enumerate(RELEASED, 1):
                release(config.with_name("policy.toml"), "meter", point, f"{SLOT_S}s", number)
            await services.sign(config)
            services.divide(config.parent, devices)
        spy = await asyncio.to_thread(Spy, broker.port)
        await stack.enter_async_context(stopping_all(mill))
        await mill.start("aggregator")
        working = asyncio.create_task(work(memories[1]))
        stack.callback(working.cancel)
        firms = [
            await stack.enter_async_context(services.running(mill, name))
            for name in ("one", "other")
        ]
        enough = len(RELEASED) * SLOTS
        await until(lambda: all(firm.acknowledged() >= enough for firm in firms), 60, mill)
        for firm in firms:
            await mill.stop(f"{firm.name}-gate")
        await until(lambda: all(settled(firm) for firm in firms), 20, mill)
        told = [firm.told("sealed") for firm in firms]
        for firm in firms:
            await mill.stop(f"{firm.name}-sealed")
        await asyncio.to_thread(spy.stop)
    one, other = (outside(spy, *one) for one in zip(firms, told, strict=True))
    common = one["batches"].keys() & other["batches"].keys()
    assert len(common) >= SLOTS - 1
    for found in (one, other):
        slots = found.pop("batches")
        found["seen"] = {slot: slots[slot] for slot in sorted(common)}
    assert one == other
    # The firms do differ, and their gates tell so inside.
    inside = [firm.log("gate") for firm in firms]
    assert "furnace-2" in inside[1]
    assert "furnace" not in inside[0]


def settled(firm: services.Services) -> bool:
    """Tell whether nothing waits for a receipt any more."""
    outputs = firm.told("sealed")["outputs"]
    return bool(outputs["waiting"] == 0 and outputs["released"] == outputs["acknowledged"])

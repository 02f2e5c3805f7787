"""From the registers of a device to the brain's store, and what becomes of it: kept, stopped, erased."""

import asyncio
import time
from pathlib import Path
from typing import Final

import pytest

from agent.policy_cli import app as policy_app
from aggregator.cli import app as brain_app
from security.envelope import REASON_STOPPED, digest, parse
from simulators.demo import Mill, stopping_all
from tests.mill_folder import call
from tests.servers.mosquitto import running as broker_running
from tests.servers.registers import Memory, serving
from tests.system import services
from tests.system.mills import MOSQUITTO, edit, rows, until
from tests.system.spy import Spy, kind_of

DAY_S: Final = 86_400
SLOT_S: Final = 60
SLOTS: Final = 5
PER_SLOT: Final = 12
"""So many good parts come in every slot."""

CYCLE_S: Final = 4.0
"""Ideal time for one part; it is secret."""

DEVICE: Final = """
[[device]]
id = "press-3"
kind = "modbus"
host = "127.0.0.1"
port = {port}
interval = "0s"
slot_time = "clock"

[[device.points]]
id = "clock"
address = "holding:0"
type = "uint32"
unit = "s"
measurand = "time.device"

[[device.points]]
id = "power"
address = "holding:2"
type = "uint32"
unit = "W"
measurand = "power.active"

[[device.points]]
id = "state"
address = "holding:4"
type = "uint16"
measurand = "machine.state"
state_model = "operating"

[[device.points]]
id = "good"
address = "holding:5"
type = "uint32"
unit = "pcs"
measurand = "production.good"
"""
MEAN: Final = f"""
consumer = "brain"
number = 1
equipment = "press"
release = {{ aggregate = "mean", slot = "{SLOT_S}s", round = 0.1, min_samples = 10 }}
classes = {{ raw = "general-2", released = "general-1" }}
"""
OEE: Final = f"""
[[derive]]
name = "oee"
formula = "oee"
inputs = {{ state = "press-3/state", gq = "press-3/good" }}
constants = {{ pru = {CYCLE_S} }}
consumer = "brain"
number = 2
equipment = "press"
release = {{ slot = "{SLOT_S}s", round = 0.01 }}
classes = {{ raw = "general-2", released = "general-1" }}
"""

pytestmark = pytest.mark.timeout(180)


class Press(Memory):
    """A press of the day before yesterday; each time it is read a second has passed.

    Attributes:
        start: when it begins, a whole slot, seconds since 1970 UTC.
        end: then its time stands still.
    """

    def __init__(self, start: int, slots: int) -> None:
        super().__init__()
        self.now = self.start = start
        self.end = start
        self.more(slots)

    def more(self, slots: int) -> None:
        """Let it run on for so many slots, and one second of the next."""
        self.end += slots * SLOT_S + (self.end == self.start)

    def read(self, unit: int, function: int, first: int, count: int) -> bytes:
        self.now = min(self.now + 1, self.end)
        slot, second = divmod(self.now - self.start, SLOT_S)
        self.put("holding:0", "uint32", self.now)
        self.put("holding:2", "uint32", 5000 + 100 * slot + second % 2)
        # It idles for the last quarter of every slot.
        self.put("holding:4", "uint16", 1 if second < 3 * SLOT_S // 4 else 3)
        self.put("holding:5", "uint32", 1000 + PER_SLOT * slot + second * PER_SLOT // SLOT_S)
        return super().read(unit, function, first, count)


async def test_a_mean_and_a_derived_oee_reach_the_store_a_stop_ends_them_and_retention_erases_them(
    tmp_path: Path,
) -> None:
    mill = Mill(tmp_path)
    agent = tmp_path / "firm" / "agent"
    mill.commands |= {
        "aggregator": ("aggregator", "run", str(mill.aggregator_toml)),
        "agent": ("agent", "run", str(agent / "agent.toml")),
    }
    press = Press(int(time.time() - 3 * DAY_S) // SLOT_S * SLOT_S, SLOTS)
    with broker_running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with serving(press) as server, stopping_all(mill):
            await configure(mill, broker.port, server.port)
            spy = await asyncio.to_thread(Spy, broker.port)
            await mill.start("aggregator")
            await mill.start("agent", ready=False)
            # The slot in which the agent begins is never released.
            wanted = expected(press, SLOTS - 1)
            await until(lambda: readings(mill) == wanted, 60, mill)
            await check_stop(mill, press, agent, spy)
            assert readings(mill) == wanted
            await check_erasure(mill, agent, spy)
            await asyncio.to_thread(spy.stop)


async def configure(mill: Mill, broker_port: int, port: int) -> None:
    await services.brain(mill, broker_port)
    config = await services.prepare(mill, "firm", broker_port, DEVICE.format(port=port))
    policy = config.with_name("policy.toml")
    start = '[[point]]\ndevice = "press-3"\npoint = "power"\n'
    edit(policy, start, start + MEAN.lstrip())
    for point in ("state", "good"):
        start = f'[[point]]\ndevice = "press-3"\npoint = "{point}"\n'
        edit(policy, start, start + 'classes = { raw = "general-2" }\n')
    edit(policy, "retention_days = 730", "retention_days = 1")
    with policy.open("a", encoding="utf-8") as file:
        file.write(OEE)
    await services.sign(config)


def expected(press: Press, slots: int) -> dict[str, dict[int, float]]:
    """Return what is known of the press: rounded means in kW, and OEE = good parts x cycle / time."""
    starts = [press.start + (1 + at) * SLOT_S for at in range(slots)]
    means = {at: round(5.0 + 0.1 * (at - press.start) / SLOT_S, 1) for at in starts}
    return {"power.active": means, "kpi.oee": dict.fromkeys(starts, PER_SLOT * CYCLE_S / SLOT_S)}


def readings(mill: Mill) -> dict[str, dict[int, float]]:
    """Return the values of ff_reading in the brain's store: by measurand, by slot."""
    found: dict[str, dict[int, float]] = {}
    for key, block in rows(mill, "future_factory", "ff_reading"):
        tags = dict(key.tags)
        if not len(block):
            continue
        assert tags["equipment_id"] == "press"
        starts = (block.time // 10**9).tolist()
        found[tags["measurand"]] = dict(zip(starts, map(float, block.fields["value"]), strict=True))
    return found


def left(mill: Mill) -> list[str]:
    """Return the measurements of which the brain still has rows."""
    buckets = ("future_factory", "carbon_emission")
    found = [row for bucket in buckets for row in rows(mill, bucket, None)]
    return sorted({key.measurement for key, block in found if len(block)} - {"vocabulary"})


async def check_stop(mill: Mill, press: Press, agent: Path, spy: Spy) -> None:
    """One officer's word: the brain is told by a signed gap, and gets nothing after it."""
    key = agent / "keys" / "officer.key"
    await services.said(policy_app, "stop", agent / "policy.signed", "--key", key)
    await until(lambda: declared(spy) == [REASON_STOPPED], 30, mill)
    last = up(spy)[-1]
    press.more(3)
    await until(lambda: press.now == press.end, 30, mill)
    await asyncio.sleep(2)
    assert up(spy)[-1] == last
    assert kind_of(last) == "mg1-sheet"
    alarms = await asyncio.to_thread(call, "alarms", mill.aggregator_toml, room=brain_app)
    assert "stopped policy 1" in alarms.output
    assert "lost" not in alarms.output


def up(spy: Spy) -> list[bytes]:
    """Return what the agent has published, each once."""
    (found,) = (found for topic, found in spy.topics.items() if topic.endswith("/up"))
    return list(dict.fromkeys(found))


def declared(spy: Spy) -> list[int]:
    """Return the reasons of all declared gaps."""
    sealed = [parse(one) for one in up(spy) if kind_of(one) in {"mg1-batch", "mg1-sheet"}]
    return [gap.reason for one in sealed for gap in one.header.gaps]


async def check_erasure(mill: Mill, agent: Path, spy: Spy) -> None:
    """What is older than its retention goes from stores and ledger; the agent keeps the brain's word."""
    batches = [one for one in up(spy) if kind_of(one) == "mg1-batch"]
    ledger = read_brain(mill)
    assert all(one in ledger for one in batches)
    # It looks when it starts, and every hour.
    await mill.stop("aggregator")
    await mill.start("aggregator")
    statement = ("statement", agent / "agent.toml", "--key", agent / "keys" / "audit.key")
    await until(lambda: "deleted" in call(*statement, room=policy_app).output, 60, mill)
    # What was computed from it goes with it, a moment later.
    await until(lambda: left(mill) == [], 30, mill)
    await mill.stop("aggregator")
    ledger = read_brain(mill)
    assert not any(one in ledger for one in batches)
    assert all(digest(one) in ledger for one in batches)


def read_brain(mill: Mill) -> bytes:
    data = mill.folder / "brain" / "data"
    return b"".join(path.read_bytes() for path in sorted(data.glob("ledger.db*")))

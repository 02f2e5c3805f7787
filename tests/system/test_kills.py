"""Power cuts: any process is killed at any moment, and still everything arrives once and right."""

import asyncio
import random
from pathlib import Path
from typing import Any, Final

import pytest

from simulators.demo import Mill
from tests.servers.mosquitto import Mosquitto, running
from tests.system.mills import MOSQUITTO, plant_mill

SLOT: Final = "5s"
LAST_TRAFFIC_S: Final = 12.0

pytestmark = pytest.mark.timeout(900)


class Fate:
    """Who is killed, when, and for how long it stays down; the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def victim(self, at: int) -> str:
        # Each is hit, however few kills there are.
        return ("agent", "aggregator", "broker")[at % 3]

    def traffic_s(self) -> float:
        return self._random.uniform(1.0, 8.0)

    def down_s(self) -> float:
        return self._random.choice((0.0, self._random.uniform(0.0, 7.0)))


async def kill_and_revive(mill: Mill, victim: str, down_s: float, broker: Mosquitto | None) -> None:
    if victim == "broker" and broker is not None:
        await asyncio.to_thread(broker.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(broker.start)
        return
    await mill.kill(victim)
    await asyncio.sleep(down_s)
    await mill.start(victim, ready=victim != "agent")


async def torture(
    folder: Path, kills: int, seed: int, broker: Mosquitto | None, protocol: str
) -> dict[str, Any]:
    fate = Fate(seed)
    async with plant_mill(folder, seed, broker, protocol) as mill:
        await asyncio.sleep(LAST_TRAFFIC_S / 2)
        for at in range(kills):
            await asyncio.sleep(fate.traffic_s())
            await kill_and_revive(mill, fate.victim(at), fate.down_s(), broker)
        await asyncio.sleep(LAST_TRAFFIC_S)
        await mill.stop("agent")
        return await mill.settled_account(tolerance=SLOT)


def check(report: dict[str, Any]) -> None:
    assert report["first_wrong"] == ""
    assert (report["lost"], report["wrong"], report["doubled"]) == (0, 0, 0)
    assert (report["refused"], report["waiting"]) == (0, 0)
    assert report["balanced"]
    assert report["released"] == report["stored"] > 0
    assert report["judged"] > 0


async def test_nothing_is_lost_doubled_or_wrong_when_agent_aggregator_and_mosquitto_are_killed(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--seed")
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        check(await torture(tmp_path, kills, seed, broker, "mqtt5"))


async def test_nothing_is_lost_doubled_or_wrong_when_the_embedded_broker_is_killed_too(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--seed")
    check(await torture(tmp_path, kills, seed + 1000, None, "mqtt311"))

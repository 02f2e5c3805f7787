"""The OPC-UA driver against a server that misbehaves: never a wrong value, never a hang."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua.client.client import Client

from protocols.drivers import NotConnected
from protocols.drivers.opcua import Config, Driver
from protocols.frame import SECOND, Frame, Quality
from protocols.settings import check_settings
from simulators.faults.catalogue import OPCUA
from simulators.faults.door import doorway
from simulators.faults.opcua_nodes import BAD_CODES, LIES, NAMESPACES, telling_nodes
from simulators.faults.opcua_server import EVENTS, ChaosOpcua, chaos_opcua
from simulators.faults.proxy import FREE, Hindrance, Way, proxying

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMEOUT = 30
NODES = 120
DAY = 86_400 * SECOND


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[ChaosOpcua]:
    """One server for all tests, since making one takes seconds; it lives in a task of its own."""
    made: asyncio.Future[ChaosOpcua] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def keep() -> None:
        async with chaos_opcua(
            nodes=NODES, interval_s=0.1, delay_s=0.15, away_s=0.1, share=0.5
        ) as server:
            made.set_result(server)
            await over.wait()

    keeper = asyncio.get_running_loop().create_task(keep())
    yield await made
    over.set()
    await keeper


@pytest_asyncio.fixture(loop_scope="module")
async def server(running: ChaosOpcua) -> AsyncIterator[ChaosOpcua]:
    """The server, sound, and left without a session."""
    running.played.clear()
    yield running
    await running.suffer(())
    turn = running.turn
    await until(lambda: running.sessions == 0 and running.turn > turn + 1)


def driver_for(server: ChaosOpcua, nodes: int = NODES, **settings: Any) -> Driver:
    data: dict[str, Any] = {
        "id": "press",
        "kind": "opcua",
        "url": server.url,
        "security": "none",
        "publishing_interval": "50ms",
        "sampling_interval": "50ms",
        "keep_alive": "100ms",
        "timeout": "1s",
        "queue_size": 100,
        "points": [
            {"id": f"node-{node.number}", "address": node.address, "type": node.type}
            for node in telling_nodes(nodes)
        ],
    }
    return Driver(check_settings(data | settings, Config, Path("agent.toml")), time.time_ns)


@dataclass
class Witness:
    """Checks that every good value belongs to the node it is said to come from."""

    driver: Driver
    bad: int = 0
    faults: list[NotConnected] = field(default_factory=list)
    fresh: set[int] = field(default_factory=set)

    def see(self, frame: Frame) -> None:
        times = frame.cell_times()
        now = time.time_ns()
        for place, column in enumerate(frame.columns):
            for row in range(len(frame.values)):
                quality = Quality(int(frame.quality[row, place]))
                if quality is Quality.ABSENT:
                    continue
                assert now - DAY < times[row, place] < now + DAY
                if quality is Quality.GOOD:
                    assert frame.values[row, place] % 1000 == column + 1
                    self.fresh.add(int(column))
                else:
                    assert quality is Quality.BAD
                    self.bad += 1

    async def follow(self, enough: Callable[[], bool]) -> None:
        """Read as the collector does, connecting again after every loss."""
        async with asyncio.timeout(TIMEOUT):
            while not enough():
                try:
                    await self._read(enough)
                except NotConnected as fault:
                    self.faults.append(fault)
                    await asyncio.sleep(0.05)

    async def _read(self, enough: Callable[[], bool]) -> None:
        async with aclosing(self.driver.frames()) as frames:
            async for frame in frames:
                self.see(frame)
                if enough():
                    return

    async def recover(self, without: int = 0) -> None:
        """Read until every point, but so many, has shown a good value anew."""
        self.fresh.clear()
        await self.follow(lambda: len(self.fresh) >= len(self.driver._config.points) - without)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not holds():  # noqa: ASYNC110 - the server offers nothing to wait for
            await asyncio.sleep(0.01)


async def test_every_fault_has_a_name_that_people_can_look_up() -> None:
    assert set(OPCUA) >= EVENTS | set(LIES)
    assert len(set(BAD_CODES)) == 20


@pytest.mark.parametrize("name", sorted(EVENTS))
async def test_values_come_again_under_their_own_names_after(server: ChaosOpcua, name: str) -> None:
    witness = Witness(driver_for(server))
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(witness.follow(lambda: False))
        await until(lambda: len(witness.fresh) == NODES)
        await server.play(name)
        await until(lambda: bool(witness.faults))
        witness.fresh.clear()
        await until(lambda: len(witness.fresh) == NODES)
        reading.cancel()
    assert all(fault.where and fault.remedy for fault in witness.faults)
    assert not witness.bad


async def test_a_client_that_keeps_namespace_numbers_would_mislabel_values(
    server: ChaosOpcua,
) -> None:
    """What the fault is worth: this is what the driver is protected from."""
    shown = []
    for _ in range(2):
        async with Client(server.url) as client:
            index = len(await client.get_namespace_array()) - len(NAMESPACES)
            shown.append((await client.get_node(f"ns={index};s=v0").read_value()) % 1000)
        await server.play("namespace-order")
    assert shown[0] != shown[1]


@pytest.mark.parametrize("name", sorted(LIES))
async def test_no_lie_is_taken_for_a_value_and_the_connection_lasts(
    server: ChaosOpcua, name: str
) -> None:
    witness = Witness(driver_for(server, timeout="10s"))
    told = server.teller.told
    await server.suffer({name})
    await witness.follow(lambda: server.teller.told >= told + 200)
    assert witness.bad or name == "absurd-times"
    await server.suffer(())
    await witness.recover()
    assert not witness.faults


@pytest.mark.parametrize("name", ["limit-0", "limit-1", "limit-100", "silent-limit-10"])
async def test_every_point_is_had_whatever_the_server_takes_per_call(
    server: ChaosOpcua, name: str
) -> None:
    await server.suffer({name})
    refused = server.refused
    witness = Witness(driver_for(server, timeout="10s"))
    await witness.recover()
    assert not witness.faults
    assert not witness.bad
    if name != "silent-limit-10":
        assert server.refused == refused, "what is stated is kept to"


async def test_a_third_client_of_a_server_with_two_sessions_waits_its_turn(
    server: ChaosOpcua,
) -> None:
    await server.suffer({"two-sessions"})
    first, second, third = (Witness(driver_for(server, 10)) for _ in range(3))
    async with aclosing(first.driver.frames()) as one, aclosing(second.driver.frames()) as two:
        first.see(await anext(one))
        second.see(await anext(two))
        await third.follow(lambda: len(third.faults) >= 2)
        assert server.sessions == 2
        assert not third.fresh
    await third.recover()
    assert "BadTooManySessions" in third.faults[0].what


async def test_a_slow_server_is_followed(server: ChaosOpcua) -> None:
    await server.suffer({"slow"})
    witness = Witness(driver_for(server, timeout="20s"))
    await witness.recover()
    assert not witness.faults


async def test_a_frozen_server_is_noticed_and_read_again_when_it_goes_on(
    server: ChaosOpcua,
) -> None:
    witness = Witness(driver_for(server, 10, timeout="300ms"))
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(witness.follow(lambda: False))
        await until(lambda: len(witness.fresh) == 10)
        await server.suffer({"frozen"})
        await until(lambda: len(witness.faults) >= 2)
        await server.suffer(())
        witness.fresh.clear()
        await until(lambda: len(witness.fresh) == 10)
        reading.cancel()
    assert not witness.bad


async def test_a_node_that_is_not_there_costs_the_others_nothing(server: ChaosOpcua) -> None:
    await server.suffer({"bad-node"})
    witness = Witness(driver_for(server))
    await witness.recover(without=1)
    assert set(range(NODES)) - witness.fresh == {6}
    assert not witness.faults


async def test_a_server_that_does_not_answer_never_delays_another(server: ChaosOpcua) -> None:
    async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            continue

    async with doorway(mute) as silence:
        url = f"opc.tcp://{silence.host}:{silence.port}/"
        stuck = Witness(driver_for(server, 10, url=url, timeout="30s"))
        lively = Witness(driver_for(server, 10, timeout="10s"))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(stuck.recover())
            await until(lambda: silence.guests == 1)
            for _ in range(3):
                await lively.recover()
            assert not waiting.done()
            waiting.cancel()
    assert not stuck.fresh
    assert not stuck.faults
    assert not lively.faults


@pytest.mark.parametrize(
    ("fault", "way"), [("cut", Way.BACK), ("cut", Way.OUT), ("half-open", Way.BACK)]
)
async def test_a_bad_network_gives_right_values_or_none(
    server: ChaosOpcua, fault: str, way: Way
) -> None:
    async with proxying(("127.0.0.1", server.port), seed=2) as proxy:
        url = f"opc.tcp://{proxy.host}:{proxy.port}/"
        witness = Witness(driver_for(server, 10, url=url, timeout="500ms"))
        await witness.recover()
        proxy.hindrance = Hindrance(fault, way, pieces=20)
        await witness.follow(lambda: len(witness.faults) >= 2)
        proxy.hindrance = FREE
        await witness.recover()
        # Sessions of connections that broke are the server's to end; here they are told to.
        await server.play("session-drop")
    assert not witness.bad


async def test_one_fault_after_another_gives_right_values_or_none(server: ChaosOpcua) -> None:
    chance = random.Random(5)
    witness = Witness(driver_for(server, 30))
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(witness.follow(lambda: False))
        for _ in range(8):
            await server.suffer(chance.sample(sorted(LIES), 2))
            await asyncio.sleep(chance.uniform(0, 0.3))
            await server.play(chance.choice(sorted(EVENTS)))
        await server.suffer(())
        await asyncio.sleep(0.3)
        witness.fresh.clear()
        await until(lambda: len(witness.fresh) == 30)
        reading.cancel()
    assert witness.faults
    await until(lambda: server.subscriptions == 0)

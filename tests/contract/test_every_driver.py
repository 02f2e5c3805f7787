"""What every driver owes, whatever it speaks: a new kind needs a rig here, and then all of this.

Each device tells in every value which point it is, so a value under another point's name shows.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from protocols import drivers
from protocols.drivers import DeviceConfig, Driver, NotConnected, Noting, read_devices
from protocols.frame import Frame, Quality
from simulators.faults.modbus_server import chaos_modbus
from simulators.faults.modbus_wire import HOLDING, INPUT
from simulators.faults.opcua_nodes import telling_nodes
from simulators.faults.opcua_server import chaos_opcua
from simulators.faults.proxy import FREE, Hindrance, Proxy, Way, proxying
from simulators.faults.telling import TellingRegisters, word

pytestmark = pytest.mark.asyncio(loop_scope="module")
TIMEOUT = 60
COUNT = 40


@dataclass(frozen=True)
class Rig:
    """A device, reached by a relay.

    Attributes:
        settings: how it is configured, all but its points.
        points: id -> the rest of the point's table.
        meant: id -> what its value, modulo 1000, is.
    """

    proxy: Proxy
    settings: Callable[[int], dict[str, Any]]
    points: dict[str, dict[str, Any]]
    meant: dict[str, int]

    def config(self, chosen: list[str], name: str = "device") -> DeviceConfig:
        table = {
            "id": name,
            **self.settings(self.proxy.port),
            "points": [{"id": point, **self.points[point]} for point in chosen],
        }
        (made,) = read_devices([table], Path("agent.toml"))
        return made

    def driver(self, config: DeviceConfig) -> Driver:
        driver: Driver = drivers.load(config.kind).Driver(config, time.time_ns)
        return driver


@asynccontextmanager
async def opcua_rig() -> AsyncIterator[Rig]:
    nodes = telling_nodes(COUNT)
    async with (
        chaos_opcua(nodes=COUNT, interval_s=0.1) as server,
        proxying(("127.0.0.1", server.port)) as proxy,
    ):
        yield Rig(
            proxy,
            lambda port: {
                "kind": "opcua",
                "url": f"opc.tcp://127.0.0.1:{port}/",
                "security": "none",
                "publishing_interval": "50ms",
                "sampling_interval": "50ms",
                "keep_alive": "100ms",
                "timeout": "2s",
                "queue_size": 100,
            },
            {f"n{one.number}": {"address": one.address, "type": one.type} for one in nodes},
            {f"n{one.number}": one.number for one in nodes},
        )


@asynccontextmanager
async def modbus_rig() -> AsyncIterator[Rig]:
    places = [("holding", HOLDING, at) for at in range(0, 60, 3)]
    places += [("input", INPUT, at) for at in range(1, 61, 3)]
    named = {f"{table}-{at}": (table, function, at) for table, function, at in places}
    async with (
        chaos_modbus(TellingRegisters()) as device,
        proxying((device.host, device.port)) as proxy,
    ):
        yield Rig(
            proxy,
            lambda port: {
                "kind": "modbus",
                "host": "127.0.0.1",
                "port": port,
                "timeout": "2s",
                "interval": "50ms",
            },
            {
                point: {"address": f"{table}:{at}", "type": "uint16"}
                for point, (table, _, at) in named.items()
            },
            {point: word(1, function, at) % 1000 for point, (_, function, at) in named.items()},
        )


RIGS: dict[str, Callable[[], AbstractAsyncContextManager[Rig]]] = {
    "modbus": modbus_rig,
    "opcua": opcua_rig,
}


@pytest_asyncio.fixture(params=drivers.kinds(), scope="module", loop_scope="module")
async def standing(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    """One rig for each kind there is, in a task of its own."""
    made: asyncio.Future[Rig] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def keep() -> None:
        async with RIGS[request.param]() as rig:
            made.set_result(rig)
            await over.wait()

    keeper = asyncio.get_running_loop().create_task(keep())
    yield await made
    over.set()
    await keeper


@pytest_asyncio.fixture(loop_scope="module")
async def rig(standing: Rig) -> AsyncIterator[Rig]:
    """The rig, sound and without a connection."""
    yield standing
    standing.proxy.hindrance = FREE
    await standing.proxy.door.open()
    standing.proxy.door.drop()
    await alone(standing)


def check(frame: Frame, config: DeviceConfig, meant: dict[str, int]) -> dict[str, int]:
    """Check one frame's form and values; return the good values it brings, by point."""
    table = config.table()
    assert frame.device == config.id
    shape = frame.values.shape
    assert frame.quality.shape == shape
    assert frame.columns.shape == (shape[1],)
    assert len(set(frame.columns.tolist())) == shape[1]
    times = frame.cell_times()
    assert (np.diff(times, axis=0) >= 0).all()
    assert frame.values.dtype == (np.int64 if table.integer[frame.columns[0]] else np.float64)
    assert (table.integer[frame.columns] == table.integer[frame.columns[0]]).all()
    assert set(np.unique(frame.quality).tolist()) <= {0, 1, 2, 3}
    found = {}
    for place, column in enumerate(frame.columns.tolist()):
        point = config.points[column].id
        for row in np.flatnonzero(frame.quality[:, place] == Quality.GOOD).tolist():
            assert int(frame.values[row, place]) % 1000 == meant[point], point
            assert abs(int(times[row, place]) - time.time_ns()) < 86_400 * 10**9
            found[point] = int(frame.values[row, place])
    return found


async def see_all(frames: AsyncGenerator[Frame, None], config: DeviceConfig, rig: Rig) -> None:
    """Read until every point has shown a good value."""
    missing = {point.id for point in config.points}
    async with asyncio.timeout(TIMEOUT):
        while missing:
            missing -= check(await anext(frames), config, rig.meant).keys()


async def lost(frames: AsyncGenerator[Frame, None], config: DeviceConfig, rig: Rig) -> NotConnected:
    """Read until contact is lost."""
    async with asyncio.timeout(TIMEOUT):
        try:
            async for frame in frames:
                check(frame, config, rig.meant)
        except NotConnected as fault:
            return fault
    pytest.fail("the frames ended without saying why")


async def alone(rig: Rig) -> None:
    """Wait until the relay has no connection left."""
    async with asyncio.timeout(TIMEOUT):
        while rig.proxy.door.guests:  # noqa: ASYNC110 - the door has no event for it
            await asyncio.sleep(0.01)


async def test_every_kind_has_its_rig() -> None:
    assert sorted(RIGS) == drivers.kinds()


async def test_every_point_shows_its_own_value_whatever_their_order(rig: Rig) -> None:
    names = sorted(rig.points)
    for seed in range(3):
        chosen = random.Random(seed).sample(names, COUNT if seed == 0 else 11)
        config = rig.config(chosen)
        async with aclosing(rig.driver(config).frames()) as frames:
            await see_all(frames, config, rig)
        await alone(rig)


async def test_two_devices_at_one_place_keep_their_values_apart(rig: Rig) -> None:
    names = sorted(rig.points)
    configs = [rig.config(names[at::2], f"device-{at}") for at in range(2)]

    async def follow(config: DeviceConfig) -> None:
        async with aclosing(rig.driver(config).frames()) as frames:
            for _ in range(3):
                await see_all(frames, config, rig)

    async with asyncio.TaskGroup() as tasks:
        for config in configs:
            tasks.create_task(follow(config))
    await alone(rig)


async def test_what_is_not_there_is_told_in_one_line_with_a_remedy(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.proxy.door.shut()
    config = rig.config(sorted(rig.points)[:3])
    told = set()
    for language in ("en", "zh"):
        monkeypatch.setenv("MILLGATE_LANG", language)
        fault = await lost(rig.driver(config).frames(), config, rig)
        assert fault.what
        assert fault.remedy
        assert "device" in (fault.where or "")
        assert "\n" not in str(fault)
        told.add(fault.what)
    assert len(told) == 2
    await rig.proxy.door.open()


@pytest.mark.parametrize("how", ["refused", "cut", "half-open"])
async def test_a_loss_ends_the_frames_and_the_same_driver_comes_back(rig: Rig, how: str) -> None:
    config = rig.config(sorted(rig.points))
    driver = rig.driver(config)
    async with aclosing(driver.frames()) as frames:
        await see_all(frames, config, rig)
        if how == "refused":
            rig.proxy.door.shut()
        else:
            rig.proxy.hindrance = Hindrance(how, Way.BACK, pieces=2)
        assert isinstance(await lost(frames, config, rig), NotConnected)
    await rig.proxy.door.open()
    rig.proxy.hindrance = FREE
    rig.proxy.door.drop()
    async with aclosing(driver.frames()) as frames:
        await see_all(frames, config, rig)
    await alone(rig)


async def test_closing_or_cancelling_the_reader_gives_the_connection_back(rig: Rig) -> None:
    config = rig.config(sorted(rig.points))
    for _ in range(3):
        async with aclosing(rig.driver(config).frames()) as frames:
            await see_all(frames, config, rig)
        await alone(rig)
    seen = asyncio.Event()

    async def follow() -> None:
        async with aclosing(rig.driver(config).frames()) as frames:
            await see_all(frames, config, rig)
            seen.set()
            async for _ in frames:
                pass

    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(follow())
        async with asyncio.timeout(TIMEOUT):
            await seen.wait()
        following.cancel()
    await alone(rig)


async def test_notes_are_lines_and_never_a_value(rig: Rig) -> None:
    config = rig.config(sorted(rig.points))
    driver = rig.driver(config)
    shown: set[int] = set()
    async with aclosing(driver.frames()) as frames:
        async with asyncio.timeout(TIMEOUT):
            while len(shown) < COUNT:
                shown |= set(check(await anext(frames), config, rig.meant).values())
    assert isinstance(driver, Noting)
    text = " ".join(driver.notes())
    assert "\n" not in text
    # Small numbers can be counts; values beyond them are nobody's count here.
    assert not [value for value in shown if value > 300 and str(value) in text.split()]

"""The collector says from when on nothing is known of a device."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent import collect
from agent.collect import Collector
from protocols.drivers import NotConnected
from protocols.drivers.modbus import Config
from protocols.frame import Frame, Quality
from tests.unit.gate_material import T0, Clock

DEVICE = {
    "id": "meter",
    "kind": "modbus",
    "host": "127.0.0.1",
    "points": [{"id": "a", "address": "holding:0", "type": "uint16"}],
}


def failing(clock: Clock, fault: Exception) -> Callable[[str], SimpleNamespace]:
    """Return what loads a driver that gives one frame at 0 s and fails at 9 s, each time it is made."""

    class Driver:
        def __init__(self, *_: Any) -> None:
            pass

        async def frames(self) -> AsyncGenerator[Frame, None]:
            value = np.zeros((1, 1), np.int64)
            yield Frame("meter", np.zeros(1, np.int32), value + T0, value, value.astype(np.uint8))
            clock.set(9)
            raise fault

    return lambda _kind: SimpleNamespace(Driver=Driver)


@pytest.mark.parametrize(("since", "told"), [(None, 9), (4, 4), (30, 9)])
async def test_contact_is_lost_from_when_the_device_was_last_heard_of(
    monkeypatch: pytest.MonkeyPatch, since: int | None, told: int
) -> None:
    clock, stop, seen = Clock(), asyncio.Event(), list[Frame]()

    fault = NotConnected("gone")
    fault.since_ns = None if since is None else T0 + since * 10**9
    monkeypatch.setattr(collect, "load", failing(clock, fault))

    async def put(frame: Frame) -> None:
        seen.append(frame)
        if frame.quality[0, 0] == Quality.LOST:
            stop.set()

    async with asyncio.timeout(20):
        await Collector(Config.model_validate(DEVICE), clock).run(put, stop)
    assert [int(frame.time[0, 0] - T0) // 10**9 for frame in seen] == [0, told]


async def test_a_fault_that_no_driver_foresaw_is_that_devices_alone_and_says_no_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, stop, seen = Clock(), asyncio.Event(), list[int]()

    monkeypatch.setattr(collect, "load", failing(clock, ValueError("could not read 666")))

    async def put(frame: Frame) -> None:
        seen.append(int(frame.quality[0, 0]))
        if len(seen) == 4:
            stop.set()

    monkeypatch.setattr(collect, "_SHORTEST_WAIT_S", 0.0)
    async with asyncio.timeout(20):
        await Collector(Config.model_validate(DEVICE), clock).run(put, stop)
    assert seen == [Quality.GOOD, Quality.LOST] * 2
    assert "ValueError" in caplog.text
    assert "666" not in caplog.text

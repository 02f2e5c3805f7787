"""What a driver has learned is told on the console: bounded, and only by drivers that do."""

import asyncio
import time
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from agent import collect
from agent.collect import Collector
from protocols.drivers import DeviceConfig, NotConnected
from protocols.drivers.modbus import Config
from protocols.frame import Frame


class Mute:
    """A driver of which nothing comes."""

    config_type: ClassVar[type[DeviceConfig]] = Config

    def __init__(self, config: Any, now_ns: Any) -> None:
        del config, now_ns

    async def frames(self) -> AsyncGenerator[Frame, None]:
        raise NotConnected("nobody")
        yield  # type: ignore[unreachable] # makes it a generator


class Telling(Mute):
    def notes(self) -> list[str]:
        return ["holding 5: refused"] + ["x" * 10_000] * 1000


async def noted(driver: type[Mute], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(collect, "load", lambda _: SimpleNamespace(Driver=driver))
    point = {"id": "p", "address": "holding:0", "type": "uint16"}
    config = {"id": "meter", "kind": "modbus", "host": "127.0.0.1", "points": [point]}
    collector = Collector(Config.model_validate(config), time.time_ns)
    assert collector.notes() == []
    stop = asyncio.Event()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(collector.run(lambda _: asyncio.sleep(0), stop))
        while not collector.state.fault:  # noqa: ASYNC110 - the collector offers nothing to wait for
            await asyncio.sleep(0)
        stop.set()
    return collector.notes()


async def test_notes_of_a_driver_come_in_few_and_short_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = await noted(Telling, monkeypatch)
    assert found[0] == "holding 5: refused"
    assert 1 < len(found) < 100
    assert max(map(len, found)) < 1000


async def test_a_driver_need_not_tell_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await noted(Mute, monkeypatch) == []

"""A jump of the clock is met before anything is placed in time, and what was not heard meanwhile is asked for anew."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent import collect
from agent.clock import STEADY_NS, ClockWatch
from agent.collect import Collector
from agent.config import ClockConfig
from agent.devices import Devices
from protocols.drivers import read_devices
from protocols.drivers.modbus import Config
from protocols.frame import SECOND, Frame
from protocols.points import PointTable
from tests.unit.gate_material import T0, Clock, frame
from tests.unit.test_collect import DEVICE
from tests.unit.test_gate_side import OWNER, Sealed, feed, gate_in, running, side_of


def test_the_time_to_be_steady_is_five_minutes_unless_configured() -> None:
    assert ClockConfig().steady == STEADY_NS
    for wrong in ("0s", "2d", "soon"):
        with pytest.raises(ValueError, match="steady"):
            ClockConfig.model_validate({"steady": wrong})


@pytest.mark.parametrize("jump_s", [3600, -3600])
async def test_a_frame_of_a_wrong_hour_opens_no_slot_even_if_it_is_the_first_to_meet_the_jump(
    jump_s: int,
) -> None:
    clock, ran, sealed = Clock(), Clock(), Sealed()
    side = side_of(clock)
    side._clock = ClockWatch(clock, lambda: ran.ns)

    def go(second: int, shift_s: int = 0) -> None:
        clock.set(second + shift_s)
        ran.set(second)

    async with running(side, sealed):
        for second in range(25):
            ran.set(second)
            await feed(side, clock, range(second, second + 1))
        gate = gate_in(side)
        before, book = sealed.found, gate.accounts[OWNER.device]
        withheld = book.withheld
        go(25, jump_s)
        side._feed(frame(OWNER, 25 + jump_s, {"energy": 75}), OWNER)
        assert not gate.in_force
        assert (book.open, book.withheld) == (0, withheld + 1)
        # Set right, and even for long enough.
        for second in range(26, 27 + STEADY_NS // SECOND):
            go(second)
            side.step()
        assert gate.halted == ""
        assert side.resumed.is_set()
        for second in range(340, 375):
            ran.set(second)
            await feed(side, clock, range(second, second + 1))
    # Nothing lies in the wrong hour, nothing is there twice, and the counter goes on over the gap.
    new = {slot: cell for (_, slot), cell in sealed.found.items() if (1, slot) not in before}
    assert new
    assert all(25 // 10 <= slot < 375 // 10 for slot in new)
    first = min(new)
    mantissa, _, span = new[first]
    last = max(slot for _, slot in before)
    assert first - span == last
    assert mantissa == (first - last) * 10 * 3


async def test_a_clock_set_back_while_it_runs_is_held_against_what_was_released_as_after_a_restart() -> (
    None
):
    clock, ran, sealed = Clock(), Clock(), Sealed()
    side = side_of(clock)
    side._clock = ClockWatch(clock, lambda: ran.ns)
    async with running(side, sealed):
        for second in range(25):
            ran.set(second)
            await feed(side, clock, range(second, second + 1))
        for second in range(25, 30 + 2 * STEADY_NS // SECOND):
            clock.set(second - 3600)
            ran.set(second)
            side.step()
        assert "behind the last message" in gate_in(side).halted
        assert "new-epoch" in gate_in(side).halted


async def test_devices_that_tell_only_changes_are_listened_to_anew_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[str] = []
    points = [{"id": "p", "address": "nsu=urn:mill;i=1", "type": "Double"}]
    told = {"id": "told", "kind": "opcua", "url": "opc.tcp://127.0.0.1:9/", "security": "none"}
    polled = {**DEVICE, "id": "polled", "port": 9}
    configs = read_devices([{**told, "points": points}, polled], Path("agent.toml"))

    async def put(frame: Frame, _: PointTable) -> None:
        raise AssertionError(frame)

    found = Devices(configs, put, lambda: 0)
    for collector in found.collectors:

        async def run(
            _put: object, stop: asyncio.Event, name: str = collector.table.device
        ) -> None:
            started.append(name)
            await stop.wait()

        monkeypatch.setattr(collector, "run", run)
    tables = found.tables
    async with asyncio.TaskGroup() as group:
        found.start(group)
        await asyncio.sleep(0)
        await found.listen_anew()
        await asyncio.sleep(0)
        found.stop()
    assert started == ["told", "polled", "told"]
    assert all(found.tables[name] is table for name, table in tables.items())


async def test_a_devices_clock_that_differs_is_told_once_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()

    class Driver:
        def __init__(self, *_: Any) -> None:
            pass

        async def frames(self) -> AsyncGenerator[Frame, None]:
            value = np.zeros((1, 1), np.int64)
            for _ in range(3):
                at = value + T0 + 500 * SECOND
                yield Frame("meter", np.zeros(1, np.int32), at, value, value.astype(np.uint8))
            stop.set()
            yield Frame("meter", np.zeros(1, np.int32), at, value, value.astype(np.uint8))

    async def put(_: Frame) -> None:
        return

    monkeypatch.setattr(collect, "load", lambda _kind: SimpleNamespace(Driver=Driver))
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(20):
            await Collector(Config.model_validate(DEVICE), Clock()).run(put, stop)
    assert [line for line in caplog.messages if "500 s ahead" in line] == [
        "meter: its clock is 500 s ahead of this machine's (in the last 20 minutes); set one right"
    ]

"""A device that brings its own time: without one its values lie nowhere, and that is said."""

import logging

import numpy as np
import pytest

from protocols.drivers.modbus import Config, Driver
from protocols.drivers.modbus.image import Image, Layout
from protocols.drivers.modbus.planner import Rules, plan
from protocols.drivers.modbus.poller import Poll
from protocols.frame import SECOND

CONFIG = Config.model_validate(
    {
        "id": "meter",
        "kind": "modbus",
        "host": "127.0.0.1",
        "slot_time": "clock",
        "points": [
            {"id": "clock", "address": "holding:0", "type": "uint32", "unit": "s"},
            {"id": "power", "address": "holding:2", "type": "uint16"},
        ],
    }
)


async def polled(driver: Driver, monkeypatch: pytest.MonkeyPatch, times: list[int]) -> list[int]:
    """Return the times of the frames that polls with these times of the device give, seconds."""
    points = CONFIG.samples
    requests = plan(points, Rules({"holding": 125}, CONFIG.max_gap))
    layout, size = Layout(len(points), requests), Image(points, CONFIG.max_gap).size

    async def poll() -> Poll:
        row = np.zeros(size, np.uint16)
        row[:2] = divmod(times.pop(0), 1 << 16)
        return Poll(row, [1, 1], [False, True], layout)

    monkeypatch.setattr(driver._poller, "poll", poll)
    monkeypatch.setattr(driver, "_due", 0.0)
    frames = []
    while times:
        monkeypatch.setattr(driver, "_due", 0.0)
        frames += (await driver._gather())[0]
    return [int(frame.time[0, 0]) // SECOND for frame in frames]


async def test_a_device_without_its_own_time_gives_no_value_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver(CONFIG, lambda: 0)
    with caplog.at_level(logging.WARNING):
        assert await polled(driver, monkeypatch, [1000, 0, 0, 1001]) == [1000, 1001]
    assert [line for line in caplog.messages if "slot_time" in line] == caplog.messages
    assert len(caplog.messages) == 1
    assert [line for line in driver.notes() if line.startswith("2 polls")]

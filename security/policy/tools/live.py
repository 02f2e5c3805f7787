"""A past that is made now: the devices are read for a while, and nothing of it is written down."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

from protocols.drivers import DeviceConfig, NotConnected, load
from protocols.frame import SECOND, Frame
from protocols.language import tr
from security.policy.tools.past import MOST_CELLS, Past, tables_of


async def read_now(devices: Sequence[DeviceConfig], span_ns: int) -> Past:
    """Read all devices for `span_ns`; one that does not answer becomes a note."""
    frames: list[Frame] = []
    notes: list[str] = []
    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(_read(device, span_ns, frames, notes), name=f"read-{device.id}")
    frames.sort(key=lambda one: int(one.time.min()))
    return Past(tables_of(devices, None), frames, tuple(notes))


async def _read(device: DeviceConfig, span_ns: int, frames: list[Frame], notes: list[str]) -> None:
    driver: Any = load(device.kind).Driver(device, time.time_ns)
    cells = 0
    try:
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(span_ns / SECOND),
                contextlib.aclosing(driver.frames()) as found,
            ):
                async for frame in found:
                    cells += frame.values.size
                    if cells > MOST_CELLS // 10:
                        notes.append(
                            tr(f"{device.id}: too much, cut", f"{device.id}：过多，已截断")
                        )
                        return
                    frames.append(frame)
    except NotConnected as fault:
        notes.append(str(fault))

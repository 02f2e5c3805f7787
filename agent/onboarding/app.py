"""Runs what `agent read` shows: one task per device, in one TaskGroup."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

from agent.onboarding.seen import Seen

_AGAIN_S: Final = 5.0
_DRAWN_EACH_S: Final = 1.0


async def once(devices: Sequence[Seen], wait_s: float) -> None:
    """Wait until every point has said something, contact is lost, or time is up."""
    async with asyncio.TaskGroup() as tasks:
        for one in devices:
            tasks.create_task(_first_of(one, wait_s), name=f"read: {one.config.id}")


async def watch(devices: Sequence[Seen], draw: Callable[[], None]) -> None:
    """Follow devices and draw what they say every second, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        for one in devices:
            tasks.create_task(_on_and_on(one), name=f"read: {one.config.id}")
        while True:
            draw()
            await asyncio.sleep(_DRAWN_EACH_S)


async def _first_of(one: Seen, wait_s: float) -> None:
    try:
        async with asyncio.timeout(wait_s):
            await one.read_texts()
            await one.follow(until_all=True)
    except TimeoutError:
        # What has come by then is shown; what has not is shown as such.
        return


async def _on_and_on(one: Seen) -> None:
    await one.read_texts()
    while True:
        await one.follow(until_all=False)
        await asyncio.sleep(_AGAIN_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

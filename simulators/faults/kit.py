"""Runs a full disk until it is told to stop."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

from protocols.language import tr
from simulators.faults.app import Outing, Season, seasonal
from simulators.faults.disk import Fillable, small_disk
from simulators.running import Report, announce, stopping, until


async def run_small_disk(folder: Path, size: int, *, season: Season, outing: Outing) -> None:
    """Mount a small disk on a folder, and let it be full in its season.

    Raises:
        MillgateError: when it cannot be mounted, or the ready file not be written.
    """
    with ExitStack() as stack:
        disk = await asyncio.to_thread(stack.enter_context, small_disk(folder, size))
        await run_full(disk, {"folder": str(folder), "size": size}, season=season, outing=outing)


async def run_full(disk: Fillable, report: Report, *, season: Season, outing: Outing) -> None:
    """Let a disk be full in its season, and have room again at the end.

    Raises:
        MillgateError: when the ready file cannot be written.
    """
    async with stopping(outing.ready) as stop:

        async def begin() -> None:
            await asyncio.to_thread(disk.fill)

        async def end() -> None:
            await asyncio.to_thread(disk.free)

        try:
            async with seasonal(season, begin, end):
                await announce(outing.ready, report, tr("the disk stands ready", "磁盘已就绪"))
                await until(stop, outing.duration_s)
        finally:
            await asyncio.to_thread(disk.free)

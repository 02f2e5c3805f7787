"""The spool's own thread: all calls to the spool go through it, one at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

from agent.spool import SpoolError
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.patience import insist

Args = TypeVarTuple("Args")
Result = TypeVar("Result")


class SpoolThread:
    """Runs calls to the spool; one that the disk does not take waits until it does."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "spool")

    async def call(self, function: Callable[[*Args], Result], *args: *Args) -> Result:
        """Return what the call returns, however long the disk takes to be mended."""
        loop = asyncio.get_running_loop()
        return await insist(
            lambda: loop.run_in_executor(self._executor, function, *args),
            SpoolError,
            MillgateError(
                tr(
                    "the disk does not take the spool's data; collecting pauses, nothing is lost",
                    "磁盘无法写入缓存库；暂停采集，数据不会丢失",
                ),
                where="spool.db",
                remedy=tr("free some space, check the disk", "请释放空间并检查磁盘"),
            ),
        )

    def shutdown(self) -> None:
        """Wait for the running call and end the thread."""
        self._executor.shutdown()

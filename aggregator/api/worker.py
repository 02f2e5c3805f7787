"""One thread per thing that blocks, so that it is asked by one thread at a time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from aggregator.api.problems import busy, unavailable

_WAITING: Final = 64
_TIMEOUT_S: Final = 15.0

Result = TypeVar("Result")


class Worker:
    """Runs blocking calls one after another, off the event loop.

    Args:
        name: names the thread.
        waiting: how many requests may wait or run; more are answered at once with 503.
        timeout_s: how long a request waits, in seconds, the waiting in line included.
    """

    def __init__(
        self, name: str, *, waiting: int = _WAITING, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._free = asyncio.Lock()
        self._bound = waiting
        self._timeout_s = timeout_s
        self._waiting = 0
        self._running: asyncio.Future[Any] | None = None

    async def run(self, call: Callable[[], Result]) -> Result:
        """Return what `call` returns; what it raises is raised.

        A call that outlives its request is left to end, and the next waits for it.

        Raises:
            Problem: 503 when too many wait, or when the time is over.
        """
        if self._waiting >= self._bound:
            raise busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
                running = asyncio.get_running_loop().run_in_executor(self._threads, call)
                self._running = running
                running.add_done_callback(self._done)
                await asyncio.wait([running])
        except TimeoutError:
            raise unavailable() from None
        finally:
            self._waiting -= 1
        return running.result()

    def _done(self, ended: "asyncio.Future[Result]") -> None:
        self._free.release()
        if not ended.cancelled():
            ended.exception()  # read it, or asyncio reports it as forgotten when nobody waits

    async def close(self) -> None:
        """Wait for the running call, within the time a request has, and end the thread."""
        if self._running is not None:
            await asyncio.wait([self._running], timeout=self._timeout_s)
        self._threads.shutdown(wait=False, cancel_futures=True)

"""Looks after the spool now and then: what is too old, unused space, and the reserve."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from agent.clock import ClockWatch
from agent.config import SpoolConfig
from agent.disk import SpoolThread
from agent.giveup import GivenUp, give_up_older
from agent.spool import WAITING, Spool
from protocols.frame import SECOND, NowNs
from protocols.language import tr

_EVERY_S: Final = 30.0

_log = logging.getLogger(__name__)


class Upkeep:
    """One spool's upkeep."""

    def __init__(
        self,
        spool: Spool,
        config: SpoolConfig,
        thread: SpoolThread,
        gave_up: Callable[[], None],
        clock: ClockWatch | None = None,
        now_ns: NowNs = time.time_ns,
    ) -> None:
        self._spool = spool
        self._config = config
        self._thread = thread
        self._gave_up = gave_up
        self._clock = clock or ClockWatch()
        self._now = now_ns

    async def run(self) -> None:
        """Look after it until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.step()

    async def step(self) -> None:
        """Look after it once."""
        self._clock.check()
        await asyncio.to_thread(self._clock.keep)
        await self._forget_old()
        if self._thread.reserve is not None:
            await asyncio.to_thread(self._thread.reserve.take)
        more = True
        while more:
            more = await self._thread.call(self._spool.shrink)

    async def _forget_old(self) -> None:
        """Give up what has waited for too long; not while the clock cannot be believed."""
        most_s = self._config.max_age_s
        if most_s is None or self._clock.fault:
            return
        before_s = self._now() // SECOND - most_s
        batches = values = 0
        while (gone := await self._thread.call(give_up_older, self._spool, before_s)).batches:
            batches, values = batches + gone.batches, values + gone.values
        if batches:
            self._say_old(GivenUp(batches, values))
            self._gave_up()

    def _say_old(self, gone: GivenUp) -> None:
        _log.error(
            "%s",
            tr(
                f"{gone.batches} batch(es) ({gone.values} values) waited longer than [spool] max_age and "
                "are given up; they are declared lost to the brain",
                f"{gone.batches} 批数据（{gone.values} 个值）等待超过 [spool] max_age，已放弃；"
                "已向产业大脑声明丢失",
            ),
        )


def delivery_ages(spool: Spool, now_ns: int) -> dict[str, Any]:
    """Return how far delivery is behind, for `agent status`.

    `oldest_waiting_s`: how long ago the oldest batch that waits was sealed; None where none waits.
    `acknowledged_age_s`: how long ago the newest batch that the brain has was sealed; None for none.
    """
    now_s = now_ns // SECOND
    row = spool.db.execute(
        "SELECT at FROM batch WHERE status = ? AND is_sheet = 0 ORDER BY id LIMIT 1", (WAITING,)
    ).fetchone()
    newest = spool.meta("acknowledged_at", 0)
    return {
        "oldest_waiting_s": max(now_s - row[0], 0) if row is not None and row[0] else None,
        "acknowledged_age_s": max(now_s - newest, 0) if newest else None,
    }

"""Collect: keeps every driver running, and says when contact is lost.

Each device is supervised by itself; a dead one never delays another.
"""

import asyncio
import contextlib
import logging
import random
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.skew import Skew
from protocols.drivers import DeviceConfig, Driver, NotConnected, Noting, load
from protocols.frame import SECOND, Frame, NowNs, lost_frame
from protocols.language import shortened, tr
from protocols.points import PointTable

_SHORTEST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 30.0
_LONGEST_BLOCK_S: Final = 30.0
_MOST_NOTES: Final = 20
_LONGEST_NOTE: Final = 300

_log = logging.getLogger(__name__)

Put = Callable[[Frame], Awaitable[None]]


@dataclass(slots=True)
class LinkState:
    """How a device does; for the local console only.

    Attributes:
        connected: whether frames come.
        since_ns: since when, wall time.
        last_frame_ns: when the newest frame came; None before the first.
        fault: why it is not connected, in one line.
        losses: how often contact was lost.
    """

    connected: bool
    since_ns: int
    last_frame_ns: int | None = None
    fault: str = ""
    losses: int = 0


class Collector:
    """Supervises one device.

    Attributes:
        table: its point table.
        state: how it does.
        skew: how far its clock is from ours.
    """

    def __init__(self, config: DeviceConfig, now_ns: NowNs) -> None:
        self.table: PointTable = config.table()
        self.state = LinkState(connected=False, since_ns=now_ns())
        self._config = config
        self._now = now_ns
        self._wait_s = _SHORTEST_WAIT_S
        self._driver: Driver | None = None
        self._strange_clock = False
        self.skew = Skew()

    async def run(self, put: Put, stop: asyncio.Event) -> None:
        """Read frames and hand them on until `stop` is set.

        `put` may wait: then the device is not read meanwhile.
        """
        driver: Driver = load(self._config.kind).Driver(self._config, self._now)
        self._driver = driver
        while not stop.is_set():
            try:
                await self._read(driver, put, stop)
            except NotConnected as fault:
                await self._lost(fault, put)
                await self._pause(stop)
            except Exception as error:  # noqa: BLE001 - whatever a device brings about, the others go on
                await self._lost(self._unforeseen(error), put)
                await self._pause(stop)

    def _unforeseen(self, error: Exception) -> NotConnected:
        """Return what is said of a fault that no driver foresaw: its class and place, never its text."""
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__}, {Path(at.filename).name}:{at.lineno}"
        fault = NotConnected(
            tr(f"an unforeseen fault of the driver ({where})", f"驱动发生未预见的错误（{where}）"),
            where=self._config.id,
            remedy=tr("connecting anew; please report it", "正在重新连接；请反馈给我们"),
        )
        fault.since_ns = self.state.last_frame_ns
        return fault

    async def _read(self, driver: Driver, put: Put, stop: asyncio.Event) -> None:
        async with contextlib.aclosing(driver.frames()) as frames:
            async for frame in frames:
                if not self.state.connected:
                    _log.info("%s: connected", self._config.id)
                    self.state.connected, self.state.since_ns = True, self._now()
                    self.state.fault = ""
                self._wait_s = _SHORTEST_WAIT_S
                self.state.last_frame_ns = self._now()
                self.skew.take(frame, self.state.last_frame_ns)
                self._tell_clock()
                began = asyncio.get_running_loop().time()
                await put(frame)
                if stop.is_set() or self._missed_changes(began):
                    return

    def _tell_clock(self) -> None:
        """Say it once when the device's clock differs, and when it no longer does."""
        line = self.skew.line()
        if bool(line) == self._strange_clock:
            return
        self._strange_clock = bool(line)
        right = tr("its clock and this machine's agree", "其时钟与本机一致")
        _log.warning("%s: %s", self._config.id, line or right)

    def _missed_changes(self, began: float) -> bool:
        """Tell whether nobody could take frames for so long that a subscription must begin anew.

        The gate then no longer believes old values; new ones come with a new connection.
        """
        blocked = asyncio.get_running_loop().time() - began
        return self.table.hold_ns is None and blocked >= _LONGEST_BLOCK_S

    async def _lost(self, fault: NotConnected, put: Put) -> None:
        line = fault.line
        if self.state.connected or line != self.state.fault:
            _log.warning("%s", line)
        if self.state.connected:
            self.state.losses += 1
            self.state.connected, self.state.since_ns = False, self._now()
            if not self.table.brings_time:
                # What was not heard of for a while may have changed in that while.
                now_ns = self._now()
                at_ns = now_ns if fault.since_ns is None else min(fault.since_ns, now_ns)
                await put(lost_frame(self._config.id, self.table.columns(), at_ns))
        self.state.fault = line

    async def _pause(self, stop: asyncio.Event) -> None:
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - jitter, so that devices are not asked in step
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait_s * jitter):
                await stop.wait()
        self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    def age_s(self) -> float | None:
        """Return the age of the newest frame in seconds; None before the first."""
        last = self.state.last_frame_ns
        return None if last is None else (self._now() - last) / SECOND

    def clock_note(self) -> str:
        """Return what a person should know of the device's clock; of one that is away nobody knows it now."""
        return self.skew.line() if self.state.connected else ""

    def notes(self) -> list[str]:
        """Return what the driver has learned and counted, in a few short lines."""
        driver: object = self._driver
        lines = driver.notes() if isinstance(driver, Noting) else []
        lines = [*filter(None, [self.clock_note()]), *lines]
        return [shortened(line, _LONGEST_NOTE) for line in lines[:_MOST_NOTES]]

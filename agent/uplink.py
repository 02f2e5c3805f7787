"""The uplink: publishes what waits in the spool, oldest first, until the brain's receipt.

The broker's own acknowledgement is worth nothing. When receipts stop coming, everything that
waits is sent again from the oldest on, with back-off and jitter.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.disk import SpoolThread
from agent.spool import Spool
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.mqtt import BrokerConfig, Mqtt, NotConnected, connection
from protocols.topics import OFFLINE, ONLINE, Address
from security.answers import Receipt, Request, answer_digest, read_answer
from security.keys import VerifyKey

_WINDOW: Final = 32
_FIRST_WAIT_S: Final = 3.0
_LONGEST_WAIT_S: Final = 60.0
_ALARM_S: Final = 60.0
_TRIM_S: Final = 30.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class UplinkState:
    """How delivery does.

    Attributes:
        connected: whether the broker answers.
        receipts: valid receipts seen since start.
        strange: answers that were not valid.
        last_receipt_s: loop time of the newest receipt; None before the first.
        resent: how often everything that waits was sent again.
    """

    connected: bool = False
    receipts: int = 0
    strange: int = 0
    last_receipt_s: float | None = None
    resent: int = 0


class Uplink:
    """Delivers the spool.

    Attributes:
        state: how it does.
    """

    def __init__(
        self,
        spool: Spool,
        config: BrokerConfig,
        address: Address,
        receipt_keys: Sequence[VerifyKey],
        archive_bytes: int,
        thread: SpoolThread,
    ) -> None:
        self.state = UplinkState()
        self._spool = spool
        self._config = config
        self._address = address
        self._keys = list(receipt_keys)
        self._archive_bytes = archive_bytes
        self._thread = thread
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._cursor = 0
        self._in_flight = 0
        self._wait_s = _FIRST_WAIT_S
        self._silent_since: float | None = None
        self._alarmed = False
        self._trim_at = 0.0

    def wake(self) -> None:
        """Say that there is more to send."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        client_id = f"mg1-{self._address.agent.hex()}"
        state = self._address.topic("state")
        down = self._address.topic("down")
        async with connection(self._config, client_id, [down], will=(state, OFFLINE)) as link:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._send(link), name="uplink-send")
                    group.create_task(self._receive(link), name="uplink-receive")
            finally:
                with contextlib.suppress(NotConnected):
                    link.publish(state, OFFLINE, retain=True)

    async def flush(self, seconds: float) -> None:
        """Wait until nothing waits any more, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._thread.call(self._spool.waiting_bytes):
                    self._settled.clear()
                    await self._settled.wait()

    async def _send(self, link: Mqtt) -> None:
        while True:
            if not link.connected.is_set():
                self.state.connected = False
                await self._wait_for_broker(link)
            self.state.connected = True
            self._wake.clear()
            await self._send_more(link)
            try:
                async with asyncio.timeout(self._wait_s):
                    await self._wake.wait()
            except TimeoutError:
                if self._in_flight:
                    self._start_over()

    async def _wait_for_broker(self, link: Mqtt) -> None:
        while not link.connected.is_set():
            self._alarm_when_silent()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await link.connected.wait()
        self._cursor = self._in_flight = 0
        with contextlib.suppress(NotConnected):
            link.publish(self._address.topic("state"), ONLINE, retain=True)

    async def _send_more(self, link: Mqtt) -> None:
        room = _WINDOW - self._in_flight
        if room <= 0:
            return
        rows = await self._thread.call(self._spool.waiting, self._cursor, room)
        for row in rows:
            try:
                link.publish(self._address.topic("up"), row.sealed)
            except NotConnected:
                return
            self._cursor = row.id
            self._in_flight += 1
        if rows and self._silent_since is None:
            self._silent_since = asyncio.get_running_loop().time()

    def _start_over(self) -> None:
        """Send again from the oldest on: no receipt came in time."""
        self._cursor = self._in_flight = 0
        self.state.resent += 1
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - jitter, so that agents do not resend in step
        self._wait_s = min(self._wait_s * 2 * jitter, _LONGEST_WAIT_S)
        self._alarm_when_silent()
        self._wake.set()

    def _alarm_when_silent(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since > _ALARM_S and not self._alarmed:
            self._alarmed = True
            _log.warning(
                "%s",
                tr(
                    "no receipt from the brain for a minute; nothing is lost, it waits in the "
                    "spool; check the broker and the aggregator",
                    "一分钟未收到产业大脑回执；数据未丢失，在缓存中等待；请检查消息代理与聚合器",
                ),
            )

    async def _receive(self, link: Mqtt) -> None:
        while True:
            message = await link.messages.get()
            message.acknowledge()
            try:
                answer = read_answer(message.payload, self._address, self._keys)
            except MillgateError:
                self.state.strange += 1
                _log.warning("an answer that no pinned key signed for us was ignored")
                continue
            if isinstance(answer, Receipt):
                await self._settle(answer, message.payload)
            elif isinstance(answer, Request):
                await self._thread.call(self._spool.send_again, answer.sheet_hash)
                self._cursor = self._in_flight = 0
                self._wake.set()

    async def _settle(self, receipt: Receipt, signed: bytes) -> None:
        self.state.receipts += 1
        self.state.last_receipt_s = asyncio.get_running_loop().time()
        settled = await self._thread.call(
            self._spool.settle,
            receipt.heads,
            receipt.refused,
            self.state.receipts,
            answer_digest(signed),
        )
        for one in receipt.refused:
            _log.warning(
                "the brain refused batch %d of stream %d with code %d; it is kept in the refused box",
                one.head.sequence,
                one.head.stream,
                one.code,
            )
        if settled:
            self._in_flight = max(self._in_flight - settled, 0)
            self._wait_s = _FIRST_WAIT_S
            self._silent_since, self._alarmed = None, False
            await self._trim_now_and_then()
        self._settled.set()
        self._wake.set()

    async def _trim_now_and_then(self) -> None:
        """Keep the archive to its bound; looking at all of it with every receipt would cost."""
        now = asyncio.get_running_loop().time()
        if now >= self._trim_at:
            self._trim_at = now + _TRIM_S
            await self._thread.call(self._spool.trim, self._archive_bytes)

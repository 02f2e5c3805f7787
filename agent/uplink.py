"""The uplink: publishes what waits in the spool, oldest first, until the brain's receipt.

The broker's own acknowledgement is worth nothing. When receipts stop coming, everything that
waits is sent again from the oldest on, with back-off and jitter.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from agent.asking import Asker
from agent.attest import Attester
from agent.chains import Verdict
from agent.disk import SpoolThread
from agent.spool import Spool
from agent.window import Window
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.mqtt import BrokerConfig, Mqtt, NotConnected, connection
from protocols.topics import OFFLINE, ONLINE, Address
from security.answers import (
    Erasure,
    Receipt,
    Request,
    Standing,
    answer_digest,
    answer_kid,
    read_answer,
)
from security.keys import VerifyKey

_IDLE_S: Final = 5.0
_SHEET_S: Final = 10.0
_TRIM_S: Final = 30.0
_ATTEST_S: Final = 60.0
_KEYS_AGAIN_S: Final = 600.0

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


@dataclass(frozen=True, slots=True)
class Duty:
    """What a policy asks of delivery.

    Attributes:
        receipt_keys: whose receipts count.
        resend_sheet: gives the messages with a sheet that the brain asks for.
        asker: asks the brain how far it has our chains.
        attester: makes the hourly attestations.
        stopped: an officer stopped the policy: what waits stays here, but for sheets and the signed
            word that it was stopped.
    """

    receipt_keys: Sequence[VerifyKey]
    resend_sheet: Callable[[bytes], list[bytes]]
    asker: Asker
    attester: Attester
    stopped: bool = False


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
        archive_bytes: int,
        thread: SpoolThread,
        duty: Duty,
    ) -> None:
        self.state = UplinkState()
        self._spool = spool
        self._config = config
        self._address = address
        self._archive_bytes = archive_bytes
        self._thread = thread
        self._duty = duty
        self._cleared = asyncio.Event()
        self._attest_at = 0.0
        self._window = Window()
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._trim_at = 0.0
        self._sheets_at: dict[bytes, float] = {}
        self._key_list = b""
        self._keys_at = 0.0

    def enforce(self, duty: Duty) -> None:
        """Go on under another policy; the brain is asked again how far it has our chains."""
        if self._duty.stopped and not duty.stopped:
            # What was held back is older than what was sent meanwhile.
            self._window.reconnected()
        self._duty = duty
        self._cleared.clear()
        self._wake.set()

    def announce(self, key_list: bytes) -> None:
        """Tell the brain which keys sign for us, now and again later; nothing while it is empty."""
        self._key_list, self._keys_at = key_list, 0.0
        self._wake.set()

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

    async def heads_known(self, seconds: float) -> None:
        """Wait until the brain has said how far it has our chains, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._cleared.wait()

    async def flush(self, seconds: float) -> None:
        """Wait until nothing waits any more, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._thread.call(self._spool.waiting_bytes):
                    self._settled.clear()
                    await self._settled.wait()

    async def farewell(self, seconds: float) -> None:
        """Attest where all chains stand at the end, and wait until the brain has it, at most so long."""
        await self._thread.call(self._duty.attester.attest_now)
        self._attest_at = 0.0
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.state.connected else 0):
                while await self._thread.call(self._spool.attestations, 1):
                    self._settled.clear()
                    await self._settled.wait()

    async def _send(self, link: Mqtt) -> None:
        now = asyncio.get_running_loop().time
        while True:
            if not link.connected.is_set():
                self.state.connected = False
                await self._wait_for_broker(link)
            self.state.connected = True
            self._wake.clear()
            self._tell_keys(link)
            await self._ask(link)
            if self._duty.asker.cleared:
                await self._send_more(link)
                await self._attest(link)
            self._alarm_when_silent()
            left = self._window.left_s(now())
            if left == 0:
                self._window.start_over()
                self.state.resent = self._window.resent
                continue
            # New messages wake it, but put no receipt's deadline off.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s(left)):
                    await self._wake.wait()

    def _pause_s(self, left: float | None) -> float:
        question = self._duty.asker.left_s(asyncio.get_running_loop().time())
        return min(one for one in (left, question, _IDLE_S) if one is not None)

    def _tell_keys(self, link: Mqtt) -> None:
        """Send the list of keys ahead of what they sign: what a brain missed it gets again."""
        now = asyncio.get_running_loop().time()
        if self._key_list and now >= self._keys_at:
            self._keys_at = now + _KEYS_AGAIN_S
            with contextlib.suppress(NotConnected):
                link.publish(self._address.topic("up"), self._key_list)

    async def _ask(self, link: Mqtt) -> None:
        """Ask how far the brain has our chains, when that is due."""
        now = asyncio.get_running_loop().time()
        if self._duty.asker.left_s(now) == 0:
            question = await self._thread.call(self._duty.asker.ask, now)
            with contextlib.suppress(NotConnected):
                link.publish(self._address.topic("up"), question)

    async def _attest(self, link: Mqtt) -> None:
        """Send the attestations that the brain lacks, now and then."""
        now = asyncio.get_running_loop().time()
        if now < self._attest_at:
            return
        self._attest_at = now + _ATTEST_S
        for signed in await self._thread.call(self._duty.attester.waiting):
            with contextlib.suppress(NotConnected):
                link.publish(self._address.topic("up"), signed)

    async def _wait_for_broker(self, link: Mqtt) -> None:
        while not link.connected.is_set():
            self._alarm_when_silent()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await link.connected.wait()
        self._window.reconnected()
        self._keys_at = 0.0
        with contextlib.suppress(NotConnected):
            link.publish(self._address.topic("state"), ONLINE, retain=True)

    async def _send_more(self, link: Mqtt) -> None:
        room = self._window.room
        if not room:
            return
        waiting = partial(self._spool.waiting, only_sheets=self._duty.stopped)
        rows = await self._thread.call(waiting, self._window.cursor, room)
        for row in rows:
            try:
                link.publish(self._address.topic("up"), row.sealed)
            except NotConnected:
                return
            self._window.sent(row.id, asyncio.get_running_loop().time())

    def _alarm_when_silent(self) -> None:
        if self._window.waits_in_vain(asyncio.get_running_loop().time()):
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
                answer = read_answer(message.payload, self._address, self._duty.receipt_keys)
            except MillgateError:
                self.state.strange += 1
                _log.warning(
                    "%s",
                    tr(
                        "an answer that no pinned key signed for us was ignored",
                        "已忽略一条并非由指定密钥为本代理签署的应答",
                    ),
                )
                continue
            if isinstance(answer, Receipt):
                await self._settle(answer, message.payload)
            elif isinstance(answer, Request):
                await self._answer_request(link, answer.sheet_hash)
            else:
                await self._note(link, answer, message.payload)

    async def _note(self, link: Mqtt, answer: Erasure | Standing, signed: bytes) -> None:
        if isinstance(answer, Erasure):
            await self._thread.call(self._spool.keep_erasure, answer, signed)
            return
        await self._stand(link, answer, signed)

    async def _stand(self, link: Mqtt, standing: Standing, signed: bytes) -> None:
        kid = answer_kid(signed)
        verdict = await self._thread.call(self._duty.asker.take, standing, kid, signed)
        self._settled.set()
        if verdict is None:
            if self._duty.asker.hinted(asyncio.get_running_loop().time()):
                self._wake.set()
            return
        await self._follow(link, verdict)
        self._cleared.set()
        self._wake.set()

    async def _follow(self, link: Mqtt, verdict: Verdict) -> None:
        for signed in await self._thread.call(self._duty.asker.losses, verdict.missing):
            with contextlib.suppress(NotConnected):
                link.publish(self._address.topic("up"), signed)
        if verdict.again or verdict.missing or verdict.forked:
            # What waits now is not what was in flight.
            self._window.reconnected()

    async def _settle(self, receipt: Receipt, signed: bytes) -> None:
        self.state.receipts += 1
        self.state.last_receipt_s = asyncio.get_running_loop().time()
        settled = await self._thread.call(
            self._spool.settle,
            receipt.heads,
            receipt.refused,
            answer_digest(signed),
            signed,
        )
        for one in receipt.refused:
            head = one.head
            _log.warning(
                "%s",
                tr(
                    f"the brain refused message {head.sequence} of stream {head.stream} with code "
                    f"{one.code}; it is kept in the refused box",
                    f"产业大脑以代码 {one.code} 拒收流 {head.stream} 的第 {head.sequence} 条消息；已存入拒收箱",
                ),
            )
        if settled:
            self._window.settled(settled, asyncio.get_running_loop().time())
            await self._trim_now_and_then()
        self._settled.set()
        self._wake.set()

    async def _answer_request(self, link: Mqtt, sheet_hash: bytes) -> None:
        """Send a sheet that the brain lacks at once, ahead of what waits for it, now and then."""
        now = asyncio.get_running_loop().time()
        if now < self._sheets_at.get(sheet_hash, now):
            return
        self._sheets_at = {sheet_hash: now + _SHEET_S}
        for sealed in await self._thread.call(self._duty.resend_sheet, sheet_hash):
            with contextlib.suppress(NotConnected):
                link.publish(self._address.topic("up"), sealed)

    async def _trim_now_and_then(self) -> None:
        """Keep the archive to its bound; looking at all of it with every receipt would cost."""
        now = asyncio.get_running_loop().time()
        if now >= self._trim_at:
            self._trim_at = now + _TRIM_S
            await self._thread.call(self._spool.trim, self._archive_bytes)

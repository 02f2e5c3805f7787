"""The uplink: publishes what waits in the spool, in the order of its chains, until the brain's receipt.

The broker's own acknowledgement is worth nothing. When receipts stop coming, what waits is sent again
from the oldest on, with back-off and jitter; when nothing at all is heard of the brain, the connection
is made anew, at the next broker where there is one.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from agent.asking import Asker
from agent.attest import Attester
from agent.brain_clock import BrainClock
from agent.chains import Missing, Verdict
from agent.config import AgentConfig
from agent.disk import SpoolThread
from agent.giveup import Chain, declared, give_up_damaged
from agent.lanes import Lanes, Loaded, due, load
from agent.limits import note_largest
from agent.route import UNHEARD_S, Route, Silence
from agent.spool import Spool
from protocols.broker import BrokerConfig
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.mqtt import Mqtt, NotConnected, connection, greet
from protocols.topics import OFFLINE, ONLINE
from security.answers import (
    Erasure,
    Receipt,
    Request,
    Standing,
    answer_digest,
    answer_kid,
    read_answer,
)
from security.envelope import parse
from security.keys import BadSignature, VerifyKey

_IDLE_S: Final = 5.0
_SHEET_S: Final = 10.0
_TRIM_S: Final = 30.0
_ATTEST_S: Final = 60.0
_KEYS_AGAIN_S: Final = 600.0
_LOOK_S: Final = 1.0
_LONGEST_SILENCE_S: Final = 600.0
_LIMIT_S: Final = 600.0

_log = logging.getLogger(__name__)


class _Leave(Exception):
    """The connection in use is given up."""


@dataclass(slots=True)
class UplinkState:
    """How delivery does.

    Attributes:
        connected: whether the broker answers.
        fault: why it does not, in one line; empty while it does.
        broker: which one is in use, counted from 0 in order of preference.
        changes: how often another one was taken.
        receipts: valid receipts seen since start.
        strange: answers that were not valid.
        last_receipt_s: loop time of the newest receipt; None before the first.
        resent: how often a chain that waits was sent again from its oldest.
        damaged: batches whose bytes on the disk were no longer what was sealed.
        too_large: size of a message that no broker in use takes; 0 for none.
    """

    connected: bool = False
    fault: str = ""
    broker: int = 0
    changes: int = 0
    receipts: int = 0
    strange: int = 0
    last_receipt_s: float | None = None
    resent: int = 0
    damaged: int = 0
    too_large: int = 0


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
        brain_clock: how far our clock is from the brain's.
    """

    def __init__(self, spool: Spool, config: AgentConfig, thread: SpoolThread, duty: Duty) -> None:
        self.state = UplinkState()
        self.brain_clock = BrainClock()
        self._sealed_before = 0
        self._spool = spool
        self._brokers = config.brokers
        self._delivery = config.delivery
        self._address = config.identity.address
        self._archive_bytes = config.spool.archive_bytes
        self._thread = thread
        self._duty = duty
        self._cleared = asyncio.Event()
        self._attest_at = 0.0
        self._lanes = Lanes(config.delivery.catch_up_bytes_s)
        self._route = Route(len(config.brokers))
        self._begun = 0
        self._unmet = ""
        self._silence = Silence()
        self._silent_s = config.delivery.silent_s
        self._limits: dict[str, int] = {}
        self._limit_until = 0.0
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
            self._lanes.reconnected()
        self._duty = duty
        self._cleared.clear()
        self._wake.set()

    def announce(self, key_list: bytes) -> None:
        """Tell the brain which keys sign for us, now and again later; nothing while it is empty."""
        self._key_list, self._keys_at = key_list, 0.0
        self._wake.set()

    def silent_s(self) -> float:
        """Return for how long nothing was heard of the brain although something waits for an answer."""
        return self._silence.lasts_s(self._now())

    @property
    def quarantined(self) -> bool:
        """Whether a brain says that it takes nothing more from us."""
        return self._duty.asker.quarantined

    def wake(self) -> None:
        """Say that there is more to send."""
        self._wake.set()

    def gave_up(self) -> None:
        """Say that something was given up: the brain is asked how far it is, then it is told."""
        self._duty.asker.again(self._now())
        self._lanes.reconnected()
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled, through the most preferred broker that works."""
        # What was sealed before may have been answered before: its receipts tell no time of now.
        self._sealed_before = await self._thread.call(self._spool.newest_id)
        while True:
            self.state.broker = self._route.choose(self._now())
            self.state.changes = self._route.changes
            try:
                await self._run_on(self._brokers[self.state.broker])
            except MillgateError as fault:
                await self._rest(fault)

    async def _rest(self, fault: MillgateError) -> None:
        """Leave a broker that a file of ours does not let us meet; what is sealed meanwhile waits."""
        if fault.line != self._unmet:
            self._unmet = fault.line
            _log.error("%s", fault)
        self._route.failed(self._now())
        await asyncio.sleep(_LOOK_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret

    async def _run_on(self, config: BrokerConfig) -> None:
        """Deliver through one broker until it is to be left."""
        client_id = f"mg1-{self._address.agent.hex()}"
        state = self._address.topic("state")
        down = self._address.topic("down")
        async with connection(config, client_id, [down], will=(state, OFFLINE)) as link:
            link.largest = min(link.largest, self._limits.get(config.place, link.largest))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._send(link), name="uplink-send")
                    group.create_task(self._receive(link), name="uplink-receive")
                    group.create_task(self._watch(link), name="uplink-watch")
            except* _Leave:
                self.state.connected = False
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
        await self._thread.call(self._duty.attester.attest_now, self._duty.asker.held)
        self._attest_at = 0.0
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.state.connected else 0):
                while await self._thread.call(self._spool.attestations, 1):
                    self._settled.clear()
                    await self._settled.wait()

    # Which broker.

    async def _watch(self, link: Mqtt) -> None:
        """Leave a broker that cannot be reached, or through which nothing is heard of the brain."""
        began = up = self._now()
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - jitter, so that agents do not move in step
        look_back_at = began + self._delivery.back_s * jitter
        while True:
            await asyncio.sleep(_LOOK_S)
            now = self._now()
            self.state.fault = "" if link.connected.is_set() else link.trouble
            if link.connections != self._begun:
                self._wake.set()
            if link.connected.is_set():
                up = now
            elif self._route.has_others and now - up > self._delivery.connect_s * jitter:
                self._leave(tr("it cannot be reached", "无法连接"))
            if self._silence.lasts_s(now, began) > self._silent_s * jitter:
                self._silent_s = min(2 * self._silent_s, _LONGEST_SILENCE_S)
                self._leave(
                    tr("nothing is heard of the brain through it", "经其收不到产业大脑的应答")
                )
            self._mind_the_size(link, now)
            if now >= look_back_at:
                look_back_at = now + self._delivery.back_s * jitter
                await self._look_back(now)

    def _mind_the_size(self, link: Mqtt, now: float) -> None:
        """Connect anew when a message was too large for the broker, and later to see if it still is."""
        if link.suspects:
            self._limits[link.place], self._limit_until = link.largest, now + _LIMIT_S
            raise _Leave
        if self._limits and self.state.too_large and now >= self._limit_until:
            self._limits.clear()
            self.state.too_large = 0
            raise _Leave

    def _leave(self, why: str) -> None:
        self._route.failed(self._now())
        place = self._brokers[self.state.broker].place
        if self._route.has_others:
            _log.warning(
                "%s",
                tr(
                    f"broker {place}: {why}; trying the next one, nothing is lost",
                    f"消息代理 {place}：{why}；改用下一个，数据不会丢失",
                ),
            )
        else:
            _log.warning(
                "%s",
                tr(
                    f"broker {place}: {why}; connecting anew, nothing is lost",
                    f"消息代理 {place}：{why}；重新建立连接，数据不会丢失",
                ),
            )
        raise _Leave

    async def _look_back(self, now: float) -> None:
        """Go back to a preferred broker once it takes connections again."""
        at = self._route.better(now)
        if at is None:
            return
        config = self._brokers[at]
        try:
            # Under our own name: its access list may know no other.
            await greet(config, f"mg1-{self._address.agent.hex()}")
        except MillgateError:
            self._route.failed(self._now(), at)
            return
        _log.warning(
            "%s",
            tr(
                f"broker {config.place} answers again; going back to it",
                f"消息代理 {config.place} 恢复应答；切换回去",
            ),
        )
        raise _Leave

    # Sending.

    async def _send(self, link: Mqtt) -> None:
        self._begun = 0
        while True:
            if not link.connected.is_set():
                self.state.connected = False
                await self._wait_for_broker(link)
            self._wake.clear()
            if self._begun != link.connections:
                self._begun = link.connections
                await self._begin(link)
            self.state.connected = True
            await self._speak(link)
            self._alarm_when_silent()
            self._tell_clock()
            now = self._now()
            left = self._lanes.left_s(now)
            if left == 0:
                self._lanes.start_over(now)
                self.state.resent = self._lanes.resent
                continue
            # New messages wake it, but put no receipt's deadline off.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s(left)):
                    await self._wake.wait()

    async def _speak(self, link: Mqtt) -> None:
        """Send what is due now."""
        self._tell_keys(link)
        await self._ask(link)
        if self._duty.asker.begun:
            await self._send_more(link)
            await self._attest(link)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _pause_s(self, left: float | None) -> float:
        question = self._duty.asker.left_s(self._now())
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
        now = self._now()
        if self._duty.asker.left_s(now) == 0:
            question = await self._thread.call(self._duty.asker.ask, now)
            self.brain_clock.sent(self._duty.asker.nonce)
            self._publish(link, question)

    def _publish(self, link: Mqtt, message: bytes) -> bool:
        """Send what is to be answered; return whether there is a connection."""
        try:
            link.publish(self._address.topic("up"), message)
        except NotConnected:
            return False
        self._silence.asked(self._now())
        return True

    async def _attest(self, link: Mqtt) -> None:
        """Send the attestations that the brain lacks, now and then."""
        now = self._now()
        if now < self._attest_at:
            return
        self._attest_at = now + _ATTEST_S
        held = self._duty.asker.held
        for signed in await self._thread.call(self._duty.attester.waiting, held):
            self._publish(link, signed)

    async def _wait_for_broker(self, link: Mqtt) -> None:
        while not link.connected.is_set():
            self._alarm_when_silent()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await link.connected.wait()

    async def _begin(self, link: Mqtt) -> None:
        """Begin on a connection that was not there before, however short the break was."""
        self._unmet = ""
        self._lanes.reconnected()
        self._duty.asker.reconnected(self._now())
        await self._thread.call(note_largest, self._spool, link.place, link.largest)
        self._keys_at = 0.0
        with contextlib.suppress(NotConnected):
            link.publish(self._address.topic("state"), ONLINE, retain=True)

    async def _send_more(self, link: Mqtt) -> None:
        duty = self._duty
        waiting = partial(due, only_sheets=duty.stopped, held=duty.asker.held)
        found = await self._thread.call(waiting, self._spool, self._lanes.cursors())
        chosen = self._lanes.choose(found, self._now())
        if not chosen:
            return
        loaded = await self._thread.call(load, self._spool, chosen)
        damaged = [one.due.id for one in loaded if one.is_damaged]
        if damaged:
            await self._give_up_damaged(damaged)
            return
        held: set[Chain] = set()
        for one in loaded:
            if one.due.chain not in held and not await self._send_one(link, one):
                held.add(one.due.chain)

    async def _send_one(self, link: Mqtt, one: Loaded) -> bool:
        """Send one message, or the word that it is lost; return whether its chain may go on."""
        message = one.sealed
        if one.is_given_up:
            missing = Missing(*one.due.chain, one.first, one.due.sequence, one.digest)
            (message,) = await self._thread.call(self._duty.asker.losses, [missing])
        if len(message) > link.largest:
            await self._say_too_large(link, len(message))
            return False
        if one.is_given_up:
            await self._thread.call(declared, self._spool, [one.due.id])
        if one.due.id > self._sealed_before:
            self.brain_clock.sent((*one.due.chain, one.due.sequence))
        if not self._publish(link, message):
            return False
        self._lanes.sent(one.due, self._now())
        return True

    async def _say_too_large(self, link: Mqtt, size: int) -> None:
        await self._thread.call(note_largest, self._spool, link.place, link.largest)
        if self.state.too_large == size:
            return
        self.state.too_large = size
        _log.error(
            "%s",
            tr(
                f"broker {link.place} passes messages of {link.largest} bytes only; one of {size} waits: "
                "raise its limit (262144 is enough for all), or name another broker; other streams go on",
                f"消息代理 {link.place} 仅允许 {link.largest} 字节的消息；一条 {size} 字节的消息在等待："
                "请调大其限制（262144 足够），或配置另一消息代理；其他流继续",
            ),
        )

    async def _give_up_damaged(self, ids: Sequence[int]) -> None:
        self.state.damaged += len(ids)
        gone = await self._thread.call(give_up_damaged, self._spool, ids)
        _log.error(
            "%s",
            tr(
                f"{gone.batches} batch(es) in the spool are damaged ({gone.values} values); they are "
                "declared lost to the brain, all others are delivered; check the disk",
                f"缓存库中有 {gone.batches} 批数据损坏（{gone.values} 个值）；已向产业大脑声明丢失，"
                "其余照常投递；请检查磁盘",
            ),
        )
        self.gave_up()

    def _alarm_when_silent(self) -> None:
        if self._silence.told(self._now(), UNHEARD_S):
            _log.warning(
                "%s",
                tr(
                    "no receipt from the brain for a minute; nothing is lost, it waits in the "
                    "spool; check the broker and the aggregator",
                    "一分钟未收到产业大脑回执；数据未丢失，在缓存中等待；请检查消息代理与聚合器",
                ),
            )

    def _tell_clock(self) -> None:
        news = self.brain_clock.news()
        if news:
            _log.error("%s", news)
        elif news is not None:
            _log.warning(
                "%s",
                tr("this machine's clock and the brain's agree", "本机时钟与产业大脑的时钟一致"),
            )

    # Receiving.

    async def _receive(self, link: Mqtt) -> None:
        while True:
            message = await link.messages.get()
            message.acknowledge()
            await self._take(link, message.payload)

    async def _take(self, link: Mqtt, payload: bytes) -> None:
        """Do what an answer demands."""
        try:
            answer = read_answer(payload, self._address, self._duty.receipt_keys)
        except MillgateError as fault:
            self.state.strange += 1
            _log.warning("%s", ignored(fault))
            return
        self._heard()
        if isinstance(answer, Receipt):
            await self._settle(answer, payload)
        elif isinstance(answer, Request):
            await self._answer_request(link, answer.sheet_hash)
        else:
            await self._note(link, answer, payload)

    def _heard(self) -> None:
        self._silence.heard()
        self._silent_s = self._delivery.silent_s
        self._route.worked()

    async def _note(self, link: Mqtt, answer: Erasure | Standing, signed: bytes) -> None:
        if isinstance(answer, Erasure):
            await self._thread.call(self._spool.keep_erasure, answer, signed)
            return
        await self._stand(link, answer, signed)

    async def _stand(self, link: Mqtt, standing: Standing, signed: bytes) -> None:
        kid = answer_kid(signed)
        self.brain_clock.answered(standing.nonce, kid, standing.issued_at)
        verdict = await self._thread.call(self._duty.asker.take, standing, kid, signed)
        self._settled.set()
        if verdict is None:
            if self._duty.asker.hinted(self._now(), standing, kid):
                self._wake.set()
            return
        await self._follow(link, verdict)
        if self._duty.asker.cleared:
            self._cleared.set()
        self._wake.set()

    async def _follow(self, link: Mqtt, verdict: Verdict) -> None:
        for signed in await self._thread.call(self._duty.asker.losses, verdict.missing):
            self._publish(link, signed)
        if verdict.again or verdict.missing or verdict.forked or verdict.void:
            # What waits now is not what was in flight.
            self._lanes.reconnected()

    async def _settle(self, receipt: Receipt, signed: bytes) -> None:
        self.state.receipts += 1
        self.state.last_receipt_s = self._now()
        kid, asker = answer_kid(signed), self._duty.asker
        heads = [one for one in receipt.heads if asker.may_speak(kid, one.stream)]
        refused = [one for one in receipt.refused if asker.may_speak(kid, one.head.stream)]
        for head in heads:
            what = head.epoch, head.stream, head.sequence
            self.brain_clock.answered(what, kid, receipt.issued_at)
        settled = await self._thread.call(
            self._spool.settle,
            heads,
            refused,
            answer_digest(signed),
            signed,
        )
        for one in refused:
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
            for head in heads:
                self._lanes.settled((head.epoch, head.stream), head.sequence, self._now())
            await self._trim_now_and_then()
        self._settled.set()
        self._wake.set()

    async def _answer_request(self, link: Mqtt, sheet_hash: bytes) -> None:
        """Send a sheet that the brain lacks at once, ahead of what waits for it, now and then.

        Not before its brain has said how far it has our chains: it is sealed as the next of one. The
        brain asks again.
        """
        now, asker = self._now(), self._duty.asker
        if not asker.begun or now < self._sheets_at.get(sheet_hash, now):
            return
        asked = {one: at for one, at in self._sheets_at.items() if at > now}
        self._sheets_at = {**asked, sheet_hash: now + _SHEET_S}
        for sealed in await self._thread.call(self._duty.resend_sheet, sheet_hash):
            if parse(sealed).header.stream not in asker.held:
                self._publish(link, sealed)

    async def _trim_now_and_then(self) -> None:
        """Keep the archive to its bound; looking at all of it with every receipt would cost."""
        now = self._now()
        if now >= self._trim_at:
            self._trim_at = now + _TRIM_S
            await self._thread.call(self._spool.trim, self._archive_bytes)
            more = True
            while more:
                more = await self._thread.call(self._spool.shrink)


def ignored(fault: MillgateError) -> str:
    """Say why an answer counts for nothing: a wrong signature is another matter than a wrong content."""
    if isinstance(fault, BadSignature):
        return tr(
            "an answer that none of the brain's keys on its cards signed was ignored; where the brain has "
            "new keys, give this agent its new card",
            "已忽略一条应答：签名不属于名片所载的产业大脑密钥；如产业大脑已更换密钥，请为本代理程序更换名片",
        )
    return tr(
        f"an answer from the brain that is not one for us was ignored ({fault.what}); are agent and brain of "
        "one version?",
        f"已忽略一条产业大脑的应答：内容不是给本代理程序的有效应答（{fault.what}）；请核对双方版本是否一致",
    )

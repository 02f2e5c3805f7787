"""The aggregator's process: every task is born here, named, in one TaskGroup."""

import asyncio
import contextlib
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from aggregator import stores
from aggregator.api import server
from aggregator.api.terms import Terms, planned_by
from aggregator.authority import log_path
from aggregator.brain_time import BrainTime
from aggregator.condition import Examiner, Live
from aggregator.config import BUCKETS, AggregatorConfig, Factory
from aggregator.derivation import Derivation, People
from aggregator.expiry import expiring
from aggregator.fact_book import FactBook, SiteName
from aggregator.facts import FactFile
from aggregator.feed import Feed, Followed
from aggregator.inbox import Inbox, Opened, Opener, Outcome, sheet_pin
from aggregator.joining_api import desk
from aggregator.ledger import Ledger, LedgerError, LedgerFault
from aggregator.localtime import LocalTime
from aggregator.projection import Cursor, Projection
from aggregator.reporting import Reporter
from aggregator.retention import signed_erasure
from aggregator.revisions import Revisions
from aggregator.revocations import note_revocations
from aggregator.rules import calendars_folder, facts_path, read_rules
from aggregator.stores import Store, StoreUnavailable
from protocols import service, topics
from protocols.errors import ConfigError, MillgateError
from protocols.frame import SECOND
from protocols.language import for_everyone, tr
from protocols.mqtt import MAX_MESSAGE, Message, Mqtt, NotConnected, connection
from protocols.patience import insist
from protocols.places import located, open_to_others
from protocols.signals import stop_on_signals
from protocols.status import serving
from protocols.tls import server_context
from protocols.topics import Address

_GROUP: Final = 64
_IDLE_S: Final = 5.0
_STORE_WAIT_S: Final = 1.0
_STORE_LONGEST_S: Final = 60.0
_STORE_MOST_S: Final = 900.0
_DRAIN_S: Final = 10.0
_FACTORIES_S: Final = 3.0
_RETENTION_S: Final = 3600.0
_DOUBT_S: Final = 60.0
_DOUBTS_SAID: Final = 10
_ALARMS_S: Final = 60.0
_DERIVE_S: Final = 3.0
_DERIVE_LATEST_S: Final = 60.0
_DERIVE_REST: Final = 4.0

_log = logging.getLogger(__name__)

Factories = Mapping[Address, Factory]


class KnownFactories:
    """The cards in the folder, looked at again every few seconds."""

    def __init__(self, config: AggregatorConfig) -> None:
        self._config = config
        self._found: Factories = config.factories()
        self._said = ""

    def __call__(self) -> Factories:
        """Return the factories as of the last look."""
        return self._found

    def look(self) -> bool:
        """Read the folder; return whether anything changed. A faulty card changes nothing."""
        try:
            found = self._config.factories()
        except ConfigError as fault:
            if str(fault) != self._said:
                self._said = str(fault)
                _log.error("%s", fault)
            return False
        changed = found != self._found
        self._found = found
        return changed


def make_stores(config: AggregatorConfig) -> dict[str, Store]:
    """Open the configured store for each bucket."""
    module = stores.load(config.store.kind)
    return {bucket: module.Store(config.store, bucket) for bucket in BUCKETS}


def make_projection(
    config: AggregatorConfig,
    factories: Callable[[], Factories],
    opened: Opened,
    targets: Mapping[str, Store],
) -> Projection:
    """Build the projection with a ledger connection of its own."""
    rules = read_rules(config)
    ledger = Ledger(config.ledger)
    key = config.brain.opening()
    people = People(facts_path(config), calendars_folder(config))
    return Projection(
        ledger,
        Opener(ledger, key, opened),
        targets,
        rules.factors,
        factories,
        Cursor(config.ledger.with_name("projection.json")),
        rules.digest + config.store.model_dump_json(),
        rules.terms,
        rules.context.local,
        Revisions(config.ledger.with_name("factors.json"), rules.carbon),
        Derivation(targets, rules.context, people),
    )


class Aggregator:
    """One aggregator process."""

    def __init__(self, config: AggregatorConfig) -> None:
        self._config = config
        self._factories = KnownFactories(config)
        self._opened = Opened()
        self._online: dict[Address, bool] = {}
        self._states: dict[Address, dict[str, bool]] = {}
        self._live = Live()
        self._feed = Feed(config.ledger.with_name("feed.db"), time.time_ns)
        self._executor = ThreadPoolExecutor(1, "inbox")
        self._ledger = Ledger(config.ledger)
        note_revocations(config, self._ledger)
        self._time = BrainTime(config.ledger.with_name("clock.json"))
        self._doubts = 0
        encryption = config.brain.opening()
        receipt = self._receipt_key = config.brain.signer()
        self._inbox = Inbox(
            self._ledger,
            Opener(self._ledger, encryption, self._opened),
            encryption.public.kid,
            sheet_pin(encryption.public.public),
            receipt,
            self._factories,
            time.time_ns,
            expiring(config, self._shown_certificates),
            self._time,
        )
        self._client_id = f"mg1-brain-{encryption.public.kid.hex()[:16]}"
        # Faults of what series are computed with are told before anything is started.
        read_rules(config)
        self._more = asyncio.Event()
        self._ending = asyncio.Event()
        self._tell_erased: set[Address] = set()
        self._forget_at = 0.0
        self._derive_at = 0.0
        self._erased = asyncio.Event()
        self._joinable = asyncio.Event()
        self._port: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self, stop: asyncio.Event, ready: Path | None) -> None:
        """Run until `stop`; what was received is decided about, and written, before it ends."""
        subscriptions = [topics.ALL_UP, topics.ALL_STATE]
        try:
            async with asyncio.TaskGroup() as group:
                project = group.create_task(self._project(), name="projection")
                look = group.create_task(self._look(), name="factories")
                api = group.create_task(self._serve(stop), name="api")
                group.create_task(self._enrol(stop), name="enrolment")
                if ready is not None:
                    port = await self._port
                    await self._joinable.wait()
                    _write_ready(ready, port)
                async with contextlib.AsyncExitStack() as stack:
                    for config in self._config.brokers:
                        link = connection(config, self._client_id, subscriptions)
                        self._live.links.append(await stack.enter_async_context(link))
                    listening = [
                        group.create_task(self._receive(link, stop), name=f"inbox-{at}")
                        for at, link in enumerate(self._live.links)
                    ]
                    service.tell(service.READY)
                    watchdog = group.create_task(
                        service.keep_telling(self._is_alive), name="service-manager"
                    )
                    erasures = group.create_task(self._tell(), name="erasures")
                    await stop.wait()
                    service.tell(service.STOPPING)
                    erasures.cancel()
                    watchdog.cancel()
                    await asyncio.wait(listening, timeout=_DRAIN_S)
                    for task in listening:
                        task.cancel()
                    await asyncio.wait([*listening, erasures])
                self._ending.set()
                self._more.set()
                await asyncio.wait([project], timeout=_DRAIN_S)
                for task in (project, look):
                    task.cancel()
                await asyncio.wait([api])
        finally:
            self._executor.shutdown()
            with contextlib.suppress(OSError):
                # Without it the next start waits for an agent's word.
                self._time.keep()
            self._ledger.close()
            self._feed.close()

    def _shown_certificates(self) -> list[bytes]:
        """Return what brokers show now, DER; called from the inbox's thread."""
        return [link.shown for link in list(self._live.links) if link.shown]

    async def _is_alive(self) -> bool:
        """Tell whether the inbox's thread still takes work, beside this loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, bool, 1)

    async def _receive(self, link: Mqtt, stop: asyncio.Event) -> None:
        """Decide about what comes until `stop`, and then about what has come by then."""
        while not stop.is_set():
            first = await _first_message(link, stop)
            if first is not None:
                await self._decide(link, [first, *_waiting(link, _GROUP - 1)])
        left = link.messages.qsize()
        while left > 0 and (group := _waiting(link, min(left, _GROUP))):
            await self._decide(link, group)
            left -= len(group)

    async def _decide(self, link: Mqtt, group: Sequence[Message]) -> None:
        loop = asyncio.get_running_loop()
        batches = [message for message in group if not self._note_state(link, message)]
        if batches:
            pairs = [(message.topic, message.payload[: MAX_MESSAGE + 1]) for message in batches]
            outcome = await insist(
                partial(loop.run_in_executor, self._executor, self._inbox.process, pairs),
                LedgerError,
                _disk_fault(
                    tr("what comes waits at the broker", "新数据在消息代理处等待"),
                ),
            )
            self._answer(link, outcome)
        for message in group:
            message.acknowledge()

    def _note_state(self, link: Mqtt, message: Message) -> bool:
        found = topics.parse(message.topic)
        if found is None or found[1] != "state":
            return False
        if found[0] in self._factories() and message.payload in {topics.ONLINE, topics.OFFLINE}:
            here = self._states.setdefault(found[0], {})
            here[link.place] = message.payload == topics.ONLINE
            self._judge_states()
            if here[link.place]:
                self._tell_erased.add(found[0])
                self._erased.set()
        return True

    def _judge_states(self) -> None:
        """An agent is online where any broker that answers says so; the others' word is old."""
        answering = {link.place for link in self._live.links if link.connected.is_set()}
        for address, said in self._states.items():
            self._online[address] = any(said[place] for place in said if place in answering)

    def _answer(self, link: Mqtt, outcome: Outcome) -> None:
        for topic, answer in outcome.answers:
            # An answer that cannot be sent now is given again when the agent sends again.
            with contextlib.suppress(NotConnected):
                link.publish(topic, answer)
        if outcome.kept:
            self._more.set()

    async def _tell(self) -> None:
        """Tell agents what was erased when it happens, and again whenever they come online."""
        loop = asyncio.get_running_loop()
        while True:
            await self._erased.wait()
            self._erased.clear()
            while self._tell_erased:
                address = self._tell_erased.pop()
                signed = await insist(
                    partial(
                        loop.run_in_executor,
                        self._executor,
                        signed_erasure,
                        self._ledger,
                        self._receipt_key,
                        address,
                        time.time_ns() // SECOND,
                    ),
                    LedgerError,
                    _disk_fault(
                        tr("agents are told of deletions later", "稍后再通知代理已删除的内容")
                    ),
                )
                if signed is None:
                    continue
                for link in self._live.links:
                    with contextlib.suppress(NotConnected):
                        link.publish(address.topic("down"), signed)

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        alarms_at = loop.time()
        while True:
            await asyncio.sleep(_FACTORIES_S)
            self._judge_states()
            if await asyncio.to_thread(self._factories.look):
                self._more.set()
            if loop.time() >= alarms_at:
                alarms_at = loop.time() + _ALARMS_S
                # A full disk is told by the inbox; the next look finds what this one missed.
                with contextlib.suppress(LedgerError):
                    await loop.run_in_executor(self._executor, self._inbox.look)

    async def _project(self) -> None:
        """Write series; a store that is away is tried again, with back-off."""
        wait_s, said = _STORE_WAIT_S, ""
        with ThreadPoolExecutor(1, "projection") as executor:
            while not self._ending.is_set():
                try:
                    await self._project_on(executor)
                except (MillgateError, LedgerError, OSError) as error:
                    fault = self._as_unavailable(error)
                    if fault.line != said:
                        _log.error("%s", fault)
                    wait_s = min(2 * wait_s, _STORE_LONGEST_S) if said else _STORE_WAIT_S
                    said = self._live.store_fault = fault.line
                    await self._leave_alone(max(wait_s, min(fault.retry_after_s, _STORE_MOST_S)))

    @for_everyone()
    def _as_unavailable(self, error: Exception) -> StoreUnavailable:
        """Return why series wait.

        A disk that takes nothing delays them, as an absent store does, and so does a file of factors,
        calendars or facts that somebody is just writing.
        """
        if isinstance(error, StoreUnavailable):
            return error
        if isinstance(error, MillgateError) and not isinstance(error, LedgerFault):
            return StoreUnavailable(
                tr("series wait", "序列暂缓") + f": {error.what}",
                where=error.where,
                remedy=error.remedy or str(error),
            )
        return StoreUnavailable(
            tr(
                "the disk does not take the position of the series, so series wait",
                "磁盘无法写入序列位置，序列暂缓",
            ),
            where=str(self._config.ledger.parent),
            remedy=tr(
                f"free some space, check the disk ({type(error).__name__})",
                f"请释放空间、检查磁盘（{type(error).__name__}）",
            ),
        )

    async def _leave_alone(self, seconds: float) -> None:
        """Leave a store alone that takes nothing, and a little longer, or until the end."""
        jitter = random.uniform(1.0, 1.3)  # noqa: S311 - jitter, so that brains do not ask in step
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * jitter):
                await self._ending.wait()

    async def _project_on(self, executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        targets = await loop.run_in_executor(executor, self._followed_stores)
        projection: Projection | None = None
        try:
            projection = await loop.run_in_executor(
                executor, make_projection, self._config, self._factories, self._opened, targets
            )
            while True:
                self._more.clear()
                more = 1
                while more:
                    more = await loop.run_in_executor(executor, projection.step)
                    self._live.store_fault = ""
                    if not more or loop.time() >= self._derive_at + _DERIVE_LATEST_S:
                        await self._derive(executor, projection)
                if self._ending.is_set():
                    return
                if loop.time() >= self._forget_at:
                    await self._forget(executor, projection)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_IDLE_S):
                        await self._more.wait()
        finally:
            if projection is not None:
                await loop.run_in_executor(executor, projection.close)
            for store in targets.values():
                await loop.run_in_executor(executor, store.close)

    async def _derive(self, executor: ThreadPoolExecutor, projection: Projection) -> None:
        """Compute combined series, leaving most of the time to those of single points."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began < self._derive_at:
            return
        while await loop.run_in_executor(executor, projection.derive):
            # What comes meanwhile is not kept waiting.
            await loop.run_in_executor(executor, projection.step)
        ended = loop.time()
        self._derive_at = ended + max(_DERIVE_S, _DERIVE_REST * (ended - began))

    def _followed_stores(self) -> dict[str, Store]:
        found = make_stores(self._config)
        return {bucket: Followed(store, bucket, self._feed) for bucket, store in found.items()}

    async def _forget(self, executor: ThreadPoolExecutor, projection: Projection) -> None:
        """Delete what may not be kept any longer; what fails now is tried in an hour."""
        loop = asyncio.get_running_loop()
        self._forget_at = loop.time() + _RETENTION_S
        if await self._is_in_doubt(executor):
            self._forget_at = loop.time() + _DOUBT_S
            return
        try:
            now_s = time.time_ns() // SECOND
            touched = await loop.run_in_executor(executor, projection.forget_ended, now_s)
            key = self._receipt_key.public
            await loop.run_in_executor(executor, projection.forget_receipts, key, now_s)
        except LedgerError as error:
            _log.error("%s: %s", tr("retention", "保存期限"), type(error).__name__)
            return
        if touched:
            self._tell_erased |= touched
            self._erased.set()

    async def _is_in_doubt(self, executor: ThreadPoolExecutor) -> bool:
        """Tell whether the clock may not be believed enough to delete by it; say so once it lasts."""
        look = for_everyone()(self._time.doubt)
        doubt = await asyncio.get_running_loop().run_in_executor(executor, look)
        # At a start no agent has spoken yet.
        if doubt and doubt == self._live.erasure_waits:
            self._doubts += 1
            if self._doubts == _DOUBTS_SAID:
                _log.warning("%s", doubt)
        else:
            self._live.erasure_waits, self._doubts = doubt, 0
        return bool(doubt)

    def _sites(self) -> set[SiteName]:
        return {SiteName(one.enterprise, one.site) for one in self._factories().values()}

    async def _enrol(self, stop: asyncio.Event) -> None:
        async with desk(self._config) as port:
            if port is not None:
                _log.info("%s: %d (HTTPS)", tr("factories join at port", "工厂接入端口"), port)
            self._joinable.set()
            await stop.wait()

    async def _serve(self, stop: asyncio.Event) -> None:
        config = self._config.api
        token = await asyncio.to_thread(read_token, config.token_file)
        tls = (
            await asyncio.to_thread(server_context, config.certificate, config.private_key)
            if config.certificate is not None and config.private_key is not None
            else None
        )
        targets = await asyncio.to_thread(make_stores, self._config)
        reporter = await asyncio.to_thread(
            Reporter, self._config.ledger, self._factories, self._online
        )
        people = People(facts_path(self._config), calendars_folder(self._config))
        local = LocalTime(self._config.local.zone)
        terms = Terms(local, self._config.disclosure, planned_by(people, local))
        examiner = Examiner(self._config.ledger, reporter, self._live, time.time_ns)

        async def report() -> dict[str, Any]:
            return (await asyncio.to_thread(examiner.look)).as_dict()

        try:
            application = server.make_app(
                targets,
                reporter,
                token,
                time.time_ns,
                tokens=config.tokens,
                look=examiner.look,
                feed=self._feed,
                terms=terms,
                book=FactBook(
                    FactFile(facts_path(self._config)), self._sites, log_path(self._config)
                ),
            )
            async with (
                serving(self._config.socket, report),
                server.serving(application, config.host, config.port, tls) as port,
            ):
                self._port.set_result(port)
                scheme = "https" if tls else "http"
                _log.info("API and page: %s://%s:%d/", scheme, config.host, port)
                await stop.wait()
        finally:
            for store in targets.values():
                await asyncio.to_thread(store.close)
            reporter.close()


def read_token(path: Path) -> str:
    """Return the API's token.

    Raises:
        MillgateError: when it cannot be read, or others can read it too.
    """
    try:
        if open_to_others(path):
            raise MillgateError(
                tr("the API token is open to other users", "其他用户可读取 API 令牌"),
                where=str(path),
                remedy=f"chmod 600 {path}",
            )
        return located(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise MillgateError(
            tr("the API token cannot be read", "无法读取 API 令牌"),
            where=str(path),
            remedy=tr("make one with 'aggregator init'", "请用 'aggregator init' 生成"),
        ) from None


def _disk_fault(meanwhile: str) -> MillgateError:
    return MillgateError(
        tr("the disk does not take the ledger's data; ", "磁盘无法写入账本；") + meanwhile,
        where="ledger.db",
        remedy=tr("free some space, check the disk", "请释放空间并检查磁盘"),
    )


def _waiting(link: Mqtt, most: int) -> list[Message]:
    """Take messages that are there already."""
    found: list[Message] = []
    while len(found) < most and not link.messages.empty():
        found.append(link.messages.get_nowait())
    return found


async def _first_message(link: Mqtt, stop: asyncio.Event) -> Message | None:
    """Wait for a message; None when `stop` was set before one came."""
    async with asyncio.TaskGroup() as group:
        coming = group.create_task(link.messages.get(), name="next-message")
        stopping = group.create_task(stop.wait(), name="stop")
        await asyncio.wait([coming, stopping], return_when=asyncio.FIRST_COMPLETED)
        found = coming.result() if coming.done() else None
        coming.cancel()
        stopping.cancel()
    return found


def _write_ready(path: Path, port: int) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps({"port": port}), encoding="ascii")
    part.replace(path)


async def run(config: AggregatorConfig, ready: Path | None = None) -> None:
    """Run the aggregator until SIGTERM or SIGINT."""
    with stop_on_signals() as stop:
        await Aggregator(config).run(stop, ready)

"""Delivery through real brokers that die, fall silent or take only small messages: all arrives, once."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from agent import route
from agent.asking import Asker
from agent.attest import Attester
from agent.config import AgentConfig, DeliveryConfig, Identity, PolicySource, SpoolConfig
from agent.disk import SpoolThread
from agent.limits import largest_message
from agent.uplink import Duty, Uplink
from protocols import topics
from protocols.broker import BrokerConfig
from protocols.frame import SECOND
from protocols.mqtt import Mqtt, NotConnected, connection
from security.answers import Standing, answer_kid, read_answer
from simulators.faults.proxy import Hindrance, proxying
from tests.servers.mosquitto import HOST, Mosquitto, running
from tests.small_factory import ENERGY, HOURLY, NOW, Agent, Brain, block
from tests.small_factory import LONG_S as LONG_SLOT_S
from tests.unit.delivery_material import KEYS, SLOT, filled, kept_slots, started

LONG_S = 60
QUICK = DeliveryConfig.model_validate({"connect": "1s", "silence": "2s", "back": "1s"})
OPEN = "allow_anonymous true"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "FIRST_REST_S", 1.0)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Mosquitto, Mosquitto]]:
    with running(tmp_path / "one", OPEN) as one, running(tmp_path / "two", OPEN) as other:
        yield one, other


def at(port: int, **more: object) -> BrokerConfig:
    settings = {"host": HOST, "port": port, "keepalive_s": 2, "protocol": "mqtt5", **more}
    return BrokerConfig.model_validate(settings)


def uplink_of(agent: Agent, *brokers: BrokerConfig) -> Uplink:
    config = AgentConfig(
        path=Path("agent.toml"),
        identity=Identity.model_construct(factory=KEYS.address.factory, agent=KEYS.address.agent),
        policy=PolicySource.model_construct(),
        brokers=brokers,
        spool=SpoolConfig(),
        consumers={},
        devices=[],
        delivery=QUICK,
    )
    clock = (lambda: NOW * SECOND,)
    asker = Asker(agent.spool, KEYS.address, KEYS.signing, agent.sealer.streams(), *clock)
    keys = KEYS.signing, KEYS.attestation
    attester = Attester(agent.spool, KEYS.address, keys, (1, bytes(32)), *clock)
    duty = Duty([KEYS.receipt.public], agent.sealer.sheet_again, asker, attester)
    return Uplink(agent.spool, config, SpoolThread(), duty)


async def listen(brain: Brain, broker: BrokerConfig) -> None:
    """Be the brain at one broker, as the aggregator is."""
    async with connection(broker, "mg1-brain-test", [topics.ALL_UP]) as link:
        while True:
            message = await link.messages.get()
            for topic, answer in brain.inbox.process([(message.topic, message.payload)]).answers:
                with contextlib.suppress(NotConnected):
                    link.publish(topic, answer)
            message.acknowledge()


@asynccontextmanager
async def delivering(
    agent: Agent, brain: Brain, brokers: list[BrokerConfig], heard_at: list[BrokerConfig]
) -> AsyncIterator[Uplink]:
    uplink = uplink_of(agent, *brokers)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(uplink.run())]
        tasks += [group.create_task(listen(brain, one)) for one in heard_at]
        try:
            yield uplink
        finally:
            for task in tasks:
                task.cancel()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG_S):
        while not done():  # noqa: ASYNC110 - a ledger has no event
            await asyncio.sleep(0.05)


async def release(agent: Agent, uplink: Uplink, first: int, count: int = 10) -> None:
    """Release as the sealed side does: whatever uses the spool takes its turn in one thread."""
    for slot in range(first, first + count):
        await uplink._thread.call(agent.release, block(SLOT + slot, [ENERGY], [5]))
    uplink.wake()


async def test_the_next_broker_takes_over_and_the_preferred_one_gets_delivery_back(
    tmp_path: Path, brain: Brain, two: tuple[Mosquitto, Mosquitto]
) -> None:
    agent, brokers = filled(tmp_path / "a", 10), [at(one.port) for one in two]
    async with delivering(agent, brain, brokers, brokers) as uplink:
        await until(lambda: len(kept_slots(brain)) == 10)
        assert uplink.state.broker == 0
        two[0].kill()
        await release(agent, uplink, 10)
        await until(lambda: len(kept_slots(brain)) == 20)
        assert uplink.state.broker == 1
        two[0].start()
        await until(lambda: uplink.state.broker == 0)
        await release(agent, uplink, 20)
        await until(lambda: not agent.spool.tally().waiting_batches)
    assert kept_slots(brain) == list(range(30))
    assert agent.spool.tally().acknowledged == 30
    assert brain.ledger.record.losses(1, 0, 1 << 40) == []


async def test_a_broker_that_takes_everything_and_leads_nowhere_is_left(
    tmp_path: Path, brain: Brain, two: tuple[Mosquitto, Mosquitto], caplog: pytest.LogCaptureFixture
) -> None:
    agent, brokers = filled(tmp_path / "a", 10), [at(one.port) for one in two]
    async with delivering(agent, brain, brokers, brokers[1:]) as uplink:
        await until(lambda: not agent.spool.tally().waiting_batches)
        assert uplink.state.changes >= 1
    assert kept_slots(brain) == list(range(10))
    assert "nothing is heard of the brain through it; trying the next one" in caplog.text


async def test_a_half_open_connection_is_left_while_both_ends_think_it_stands(
    tmp_path: Path, brain: Brain, two: tuple[Mosquitto, Mosquitto]
) -> None:
    agent = filled(tmp_path / "a", 10)
    heard_at = [at(one.port) for one in two]
    async with proxying((HOST, two[0].port)) as proxy:
        brokers = [at(proxy.port), heard_at[1]]
        async with delivering(agent, brain, brokers, heard_at) as uplink:
            await until(lambda: len(kept_slots(brain)) == 10)
            proxy.hindrance = Hindrance("half-open")
            await release(agent, uplink, 10)
            await until(lambda: len(kept_slots(brain)) == 20)
            assert uplink.state.broker == 1
            await until(lambda: not agent.spool.tally().waiting_batches)
    assert kept_slots(brain) == list(range(20))


async def test_the_only_broker_is_connected_anew_when_it_is_silent_and_all_arrives_in_order(
    tmp_path: Path, brain: Brain, mosquitto: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    agent, only = filled(tmp_path / "a", 60), at(mosquitto.port)
    async with delivering(agent, brain, [only], []):
        await until(lambda: "connecting anew" in caplog.text)
        listening = asyncio.create_task(listen(brain, only))
        await until(lambda: not agent.spool.tally().waiting_batches)
        listening.cancel()
    assert kept_slots(brain) == list(range(60))


async def test_a_break_too_short_to_be_noticed_is_a_new_connection_all_the_same(
    tmp_path: Path, brain: Brain, mosquitto: Mosquitto
) -> None:
    agent, only = filled(tmp_path / "a", 10), at(mosquitto.port)
    state = KEYS.address.topic("state")
    async with delivering(agent, brain, [only], [only]) as uplink:
        await until(lambda: not agent.spool.tally().waiting_batches)
        heard = -1
        while heard != uplink.state.receipts:
            # A message on its way would hold the network thread while the loop is kept.
            heard = uplink.state.receipts
            await asyncio.sleep(1)
        mosquitto.kill()
        mosquitto.start()
        # Both ends of the break reach the loop at once: it was busy meanwhile.
        block_until_back(mosquitto, f"mg1-{KEYS.address.agent.hex()}")
        async with connection(only, "mg1-watch-test", [state]) as watch:
            async with asyncio.timeout(LONG_S):
                assert (await watch.messages.get()).payload == topics.ONLINE


def block_until_back(broker: Mosquitto, client: str) -> None:
    """Keep this thread, and with it the event loop, until the broker has the client for the second time."""
    deadline = time.monotonic() + LONG_S
    while broker.log.count(f" as {client} ") < 2:
        assert time.monotonic() < deadline, broker.log
        time.sleep(0.05)


@pytest.mark.parametrize("limit", ["max_packet_size 20000", "message_size_limit 20000"])
async def test_batches_fit_what_the_broker_passes_and_one_that_does_not_holds_up_its_stream_only(
    tmp_path: Path, brain: Brain, limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    agent = filled(tmp_path / "a", 1)
    with running(tmp_path / "broker", f"{OPEN}\n{limit}\n") as mosquitto:
        small = at(mosquitto.port)
        agent.sealer._largest = lambda: largest_message(agent.spool, [small])
        chance = random.Random(1)
        rises = [5 * chance.randrange(1 << 40) for _ in range(6_000)]
        # Sealed before anything was known of the broker.
        agent.release(block(NOW // LONG_SLOT_S - 6_000, [HOURLY], rises[:5_000]), stream=agent.long)
        async with delivering(agent, brain, [small], [small]) as uplink:
            await until(lambda: "passes messages of" in caplog.text)
            await uplink._thread.call(agent.release, block(SLOT - 20_000, [ENERGY], rises))
            sizes = [
                row[0]
                for row in agent.spool.db.execute(
                    "SELECT size FROM batch WHERE stream = ? AND cells > 1", (agent.short,)
                )
            ]
            assert len(sizes) > 1
            assert max(sizes) < 20_000
            await until(lambda: agent.spool.tally().waiting_batches == 1)
    assert len(kept_slots(brain)) == 6_001
    assert agent.spool.tally().given_up == 0


class Noted:
    """A link that notes what is sent over it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def publish(self, _topic: str, payload: bytes) -> None:
        self.sent.append(payload)


async def test_a_sheet_that_is_asked_for_is_sent_only_after_the_brain_said_how_far_it_is(
    tmp_path: Path, brain: Brain
) -> None:
    agent, link = Agent(tmp_path, KEYS), Noted()
    agent.start()
    uplink = uplink_of(agent, at(1))
    sheet = agent.policy.sheets[0].hash
    await uplink._answer_request(cast("Mqtt", link), sheet)
    assert link.sent == []
    asker = uplink._duty.asker
    (answer,) = brain.take(KEYS, asker.ask(0.0)).answers
    standing = read_answer(answer[1], KEYS.address, [KEYS.receipt.public])
    assert isinstance(standing, Standing)
    asker.take(standing, answer_kid(answer[1]), answer[1])
    await uplink._answer_request(cast("Mqtt", link), sheet)
    assert link.sent == agent.waiting()


async def test_a_broker_whose_files_cannot_be_used_is_left_for_the_next_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = started(tmp_path / "a")
    lost = at(1, tls=True, ca_file=tmp_path / "none.pem")
    uplink = uplink_of(agent, lost, at(2))
    async with asyncio.TaskGroup() as group:
        delivering = group.create_task(uplink.run())
        await until(lambda: uplink.state.broker == 1)
        delivering.cancel()
    assert "none.pem" in caplog.text
    agent.spool.close()

"""Our face on paho, against a real Mosquitto: nothing taken is forgotten, nothing is unbounded."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from protocols.mqtt import (
    MAX_MESSAGE,
    BrokerConfig,
    Message,
    Mqtt,
    NotConnected,
    connection,
)
from tests.servers.mosquitto import HOST, Mosquitto, free_port, running

LONG = 40
"""Seconds after which a test is stuck."""

Protocol = Literal["mqtt311", "mqtt5"]
PROTOCOLS: tuple[Protocol, ...] = ("mqtt311", "mqtt5")
both = pytest.mark.parametrize("protocol", PROTOCOLS)

OPEN = "allow_anonymous true\nlog_type all\n"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker whose log tells what it takes."""
    with running(tmp_path / "broker", OPEN) as started:
        yield started


@pytest.fixture
def generous(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that sends all it has, acknowledged or not."""
    with running(
        tmp_path / "generous", f"{OPEN}max_inflight_messages 0\nmax_queued_messages 0\n"
    ) as started:
        yield started


def config(broker: Mosquitto, protocol: Protocol = "mqtt311") -> BrokerConfig:
    return BrokerConfig(host=HOST, port=broker.port, protocol=protocol)


@asynccontextmanager
async def connected(
    broker: Mosquitto,
    name: str,
    *topics: str,
    protocol: Protocol = "mqtt311",
    will: tuple[str, bytes] | None = None,
) -> AsyncIterator[Mqtt]:
    before = subscriptions(broker, name)
    async with connection(config(broker, protocol), name, topics, will=will) as link:
        await up(link)
        if topics:
            await subscribed(broker, name, before)
        yield link


async def up(link: Mqtt) -> None:
    async with asyncio.timeout(LONG):
        await link.connected.wait()


def subscriptions(broker: Mosquitto, name: str) -> int:
    """Return how often the broker has taken a client's subscriptions."""
    return broker.log.count(f"Sending SUBACK to {name}\n")


async def subscribed(broker: Mosquitto, name: str, before: int) -> None:
    async with asyncio.timeout(LONG):
        while subscriptions(broker, name) == before:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.01)


async def take(link: Mqtt) -> Message:
    async with asyncio.timeout(LONG):
        return await link.messages.get()


async def taken(link: Mqtt, count: int) -> list[bytes]:
    """Take and acknowledge so many messages."""
    found = []
    for _ in range(count):
        message = await take(link)
        message.acknowledge()
        found.append(message.payload)
    return found


@both
async def test_bytes_arrive_as_they_were_sent(broker: Mosquitto, protocol: Protocol) -> None:
    payloads = [b"", b"\x00", bytes(range(256)), b"x" * MAX_MESSAGE]
    async with (
        connected(broker, "to", "a/+/up", protocol=protocol) as to,
        connected(broker, "from", protocol=protocol) as sender,
    ):
        for at, payload in enumerate(payloads):
            sender.publish(f"a/{at}/up", payload)
        sender.publish("a/other/down", b"not asked for")
        for at, payload in enumerate(payloads):
            message = await take(to)
            message.acknowledge()
            assert (message.topic, message.payload) == (f"a/{at}/up", payload)
        assert to.messages.empty()


async def test_both_protocols_speak_to_each_other(broker: Mosquitto) -> None:
    async with (
        connected(broker, "five", "t", protocol="mqtt5") as five,
        connected(broker, "three", "t") as three,
    ):
        five.publish("t", b"from five")
        assert await taken(three, 1) == [b"from five"]
        three.publish("t", b"from three")
        assert await taken(five, 2) == [b"from five", b"from three"]


async def test_a_message_longer_than_the_bound_is_not_taken_whole(broker: Mosquitto) -> None:
    """Many of them waiting must not fill the memory; one byte too many is enough to refuse one."""
    async with (
        connected(broker, "to", "t") as to,
        connected(broker, "from") as sender,
    ):
        sender.publish("t", bytes(20 * MAX_MESSAGE))
        sender.publish("t", b"next")
        assert len((await take(to)).payload) == MAX_MESSAGE + 1
        assert (await take(to)).payload == b"next"


async def test_a_retained_message_waits_for_who_comes_later(broker: Mosquitto) -> None:
    async with connected(broker, "from", "t") as sender:
        sender.publish("t", b"state", retain=True)
        assert await taken(sender, 1) == [b"state"]
    async with connected(broker, "late", "t") as late:
        assert await taken(late, 1) == [b"state"]


# Acknowledgements.


async def heard(broker: Mosquitto, acknowledgements: int) -> None:
    async with asyncio.timeout(LONG):
        while broker.log.count("Received PUBACK from to ") < acknowledgements:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.01)


@both
async def test_what_was_not_acknowledged_comes_again(broker: Mosquitto, protocol: Protocol) -> None:
    async with (
        connected(broker, "to", "t", protocol=protocol) as to,
        connected(broker, "from", protocol=protocol) as sender,
    ):
        for payload in (b"one", b"two", b"three"):
            sender.publish("t", payload)
        first = await take(to)
        first.acknowledge()
        await heard(broker, 1)
        assert [(await take(to)).payload for _ in range(2)] == [b"two", b"three"]
    async with connected(broker, "to", "t", protocol=protocol) as again:
        assert await taken(again, 2) == [b"two", b"three"]
        await heard(broker, 3)
    async with connected(broker, "to", "t", protocol=protocol) as last:
        last.publish("t", b"the end")
        assert await taken(last, 1) == [b"the end"]


@both
async def test_what_comes_while_we_are_away_waits_for_us(
    broker: Mosquitto, protocol: Protocol
) -> None:
    async with connected(broker, "to", "t", protocol=protocol):
        pass
    async with connected(broker, "from", protocol=protocol) as sender:
        for at in range(20):
            sender.publish("t", b"%d" % at)
        sender.publish("done", b"yes", retain=True)
        async with connected(broker, "check", "done") as check:
            await taken(check, 1)
    async with connected(broker, "to", "t", protocol=protocol) as to:
        assert await taken(to, 20) == [b"%d" % at for at in range(20)]


# The broker comes and goes.


async def test_without_a_broker_it_neither_waits_nor_queues(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = BrokerConfig(host=HOST, port=free_port())
    async with asyncio.timeout(LONG):
        async with connection(nobody, "early", ["t"]) as link:
            assert not link.connected.is_set()
            with pytest.raises(NotConnected) as caught:
                link.publish("t", b"too early")
            assert str(nobody.port) in str(caught.value)
            broker = Mosquitto(tmp_path / "late", OPEN)
            broker.port = nobody.port
            await asyncio.to_thread(broker.start)
            try:
                await up(link)
                await subscribed(broker, "early", 0)
                link.publish("t", b"in time")
                assert await taken(link, 1) == [b"in time"]
                assert link.messages.empty()
            finally:
                broker.stop()
    assert "too early" not in caplog.text


@both
async def test_after_a_restart_of_the_broker_everything_goes_on(
    broker: Mosquitto, protocol: Protocol
) -> None:
    async with (
        connected(broker, "to", "t", protocol=protocol) as to,
        connected(broker, "from", protocol=protocol) as sender,
    ):
        sender.publish("t", b"before")
        assert await taken(to, 1) == [b"before"]
        for way in (broker.stop, broker.kill):
            await asyncio.to_thread(way)
            async with asyncio.timeout(LONG):
                while to.connected.is_set() or sender.connected.is_set():  # noqa: ASYNC110 - the event is for the other way
                    await asyncio.sleep(0.01)
            with pytest.raises(NotConnected):
                sender.publish("t", b"meanwhile")
            before = subscriptions(broker, "to")
            await asyncio.to_thread(broker.start)
            await up(to)
            await up(sender)
            await subscribed(broker, "to", before)
            sender.publish("t", b"after")
            assert await taken(to, 1) == [b"after"]


async def test_a_broker_that_refuses_us_is_told_once_and_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path / "closed", "allow_anonymous false\nlog_type all") as broker:
        async with connection(config(broker), "stranger", ["t"]) as link:
            async with asyncio.timeout(LONG):
                while broker.log.count("not authorised") < 2:  # noqa: ASYNC110 - a log has no event
                    await asyncio.sleep(0.05)
            assert not link.connected.is_set()
            with pytest.raises(NotConnected):
                link.publish("t", b"x")
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len([line for line in told if "refuses" in line]) == 1


@both
async def test_a_broker_that_hangs_up_without_a_word_is_told_with_what_it_may_be(
    protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, connection(BrokerConfig(host=HOST, port=port, protocol=protocol), "c", []):
        async with asyncio.timeout(LONG):
            while not caplog.messages:  # noqa: ASYNC110 - a log has no event
                await asyncio.sleep(0.01)
    assert "the broker ended the connection at once" in caplog.messages[0]
    assert ('protocol = "mqtt311"' in caplog.messages[0]) is (protocol == "mqtt5")


@pytest.mark.parametrize("garbage", ["3001ff", "32060002c30003c3"])
async def test_bytes_that_no_broker_sends_cost_a_connection_and_not_the_way_to_the_broker(
    garbage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A line that loses bytes does that; without its thread nothing would ever arrive again."""
    taken = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        await reader.read(64)
        writer.write(bytes.fromhex("20020000" + (garbage if taken == 1 else "")))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, connection(BrokerConfig(host=HOST, port=port), "agent", []) as link:
        async with asyncio.timeout(LONG):
            while taken < 2 or not link.connected.is_set():  # noqa: ASYNC110 - a socket has no event
                await asyncio.sleep(0.05)
    assert all(record.exc_info is None for record in caplog.records)


async def test_the_will_is_published_when_we_vanish_and_not_when_we_leave(
    broker: Mosquitto,
) -> None:
    async with connected(broker, "watch", "will") as watch:
        async with connected(broker, "polite", will=("will", b"polite")):
            pass
        async with connected(broker, "rude", will=("will", b"rude")) as rude:
            socket_of(rude).shutdown(socket.SHUT_RDWR)
            assert await taken(watch, 1) == [b"rude"]
        async with connected(broker, "late", "will") as late:
            assert await taken(late, 1) == [b"rude"]


def socket_of(link: Mqtt) -> socket.socket:
    found = link._client.socket()
    assert isinstance(found, socket.socket)
    return found


# Bounds.


async def test_what_waits_is_bounded_and_nothing_of_it_is_lost(generous: Mosquitto) -> None:
    many = 1200
    async with (
        connected(generous, "to", "t") as to,
        connected(generous, "from") as sender,
    ):
        for at in range(many):
            sender.publish("t", b"%d" % at)
        async with asyncio.timeout(LONG):
            while not to.messages.full():  # noqa: ASYNC110 - a queue tells only when it empties
                await asyncio.sleep(0.01)
        most = to.messages.qsize()
        assert most == to.messages.maxsize == 256
        found: list[bytes] = []
        while len(set(found)) < many:
            found += await taken(to, 1)
            most = max(most, to.messages.qsize())
    assert most <= 256
    # A message may come again, none may be missing, and first arrivals are in their order.
    assert list(dict.fromkeys(found)) == [b"%d" % at for at in range(many)]


async def test_stopping_does_not_wait_for_a_queue_that_nobody_empties(generous: Mosquitto) -> None:
    async with asyncio.timeout(LONG):
        async with (
            connected(generous, "to", "t") as to,
            connected(generous, "from") as sender,
        ):
            for at in range(600):
                sender.publish("t", b"%d" % at)
            while not (to.messages.full() and generous.log.count("PUBLISH from from") == 600):  # noqa: ASYNC110 - neither has an event
                await asyncio.sleep(0.01)
        # What was not acknowledged is still with the broker.
        async with connected(generous, "to", "t") as again:
            found: list[bytes] = []
            while len(set(found)) < 600:
                found += await taken(again, 1)


async def test_stopping_ends_at_once_without_a_broker() -> None:
    async with asyncio.timeout(LONG):
        async with connection(BrokerConfig(host=HOST, port=free_port()), "nobody", []):
            pass


async def test_no_payload_is_ever_in_a_log(
    broker: Mosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with connected(broker, "to", "t") as to:
            to.publish("t", b"a canary in a payload")
            assert await taken(to, 1) == [b"a canary in a payload"]
            socket_of(to).shutdown(socket.SHUT_RDWR)
            async with asyncio.timeout(LONG):
                while to.connected.is_set():  # noqa: ASYNC110 - the event is for the other way
                    await asyncio.sleep(0.01)
    assert "canary" not in caplog.text
    assert b"a canary in a payload".hex() not in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 0},
        {"port": 65_536},
        {"protocol": "mqtt4"},
        {"keepalive_s": 1},
        {"keepalive_s": 3601},
        {"user": "x"},
    ],
    ids=str,
)
def test_what_no_broker_can_be_is_a_fault(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        BrokerConfig.model_validate(changes)

"""Servers that send what no server should: nothing of it hangs, nothing of it is kept."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.server.server import Server
from asyncua.ua.ua_binary import header_to_binary, struct_to_binary, uatcp_to_binary

from protocols.drivers.opcua import answers, bounds
from tests.servers.opcua import URI, Node, collect, driver_for, end_of, plant, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
NODES = [Node(URI, "a", "Int32", 1), Node(URI, "b", "Double", 2.5)]
# The library's annotations ask for wrappers of bytes that its own code does not use.
TO_BINARY: Callable[..., bytes] = uatcp_to_binary
HEADER: Callable[..., ua.Header] = ua.Header
CHANNEL, TOKEN = 5, 13
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with running() as shared, plant(shared, NODES):
        yield shared


def acknowledge() -> bytes:
    return TO_BINARY(ua.MessageType.Acknowledge, ua.Acknowledge())


def chunk(kind: bytes, security: Any, piece: bytes, number: int, body: bytes) -> bytes:
    lead = struct_to_binary(security) + struct.pack("<II", number, number)
    header = HEADER(kind, piece, ChannelId=CHANNEL)
    header.body_size = len(lead) + len(body)
    return header_to_binary(header) + lead + body


def opened() -> bytes:
    answer = ua.OpenSecureChannelResponse()
    answer.Parameters.SecurityToken.ChannelId = CHANNEL
    answer.Parameters.SecurityToken.TokenId = TOKEN
    answer.Parameters.SecurityToken.RevisedLifetime = 3_600_000
    lead = ua.AsymmetricAlgorithmHeader()
    kinds = ua.MessageType.SecureOpen, ua.ChunkType.Single
    return chunk(kinds[0], lead, kinds[1], 1, struct_to_binary(answer))


class Hostile:
    """A port that says hello and then sends what it likes."""

    def __init__(self, answer: Answer) -> None:
        self.sent = 0
        self.answer = answer

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(4096)
            writer.write(acknowledge())
            await reader.read(4096)
            await self.answer(writer)
            await reader.read()
        except ConnectionError:
            pass  # the client has gone, as it should
        finally:
            writer.close()

    async def endless(self, writer: asyncio.StreamWriter) -> None:
        """Open a channel, then answer the first question with pieces, none of them the last."""
        writer.write(opened())
        lead: Any = ua.SymmetricAlgorithmHeader()
        lead.TokenId = TOKEN
        kinds = ua.MessageType.SecureMessage, ua.ChunkType.Intermediate
        number = 1
        while self.sent < 20 * bounds.LARGEST_MESSAGE:
            number += 1
            piece = chunk(kinds[0], lead, kinds[1], number, bytes(60_000))
            # All pieces are of the same answer.
            piece = piece[:20] + struct.pack("<I", 2) + piece[24:]
            writer.write(piece)
            self.sent += len(piece)
            await writer.drain()


async def one_long_chunk(writer: asyncio.StreamWriter) -> None:
    writer.write(b"OPNF" + struct.pack("<I", 2**31 - 1) + bytes(1000))


async def a_chunk_of_nothing(writer: asyncio.StreamWriter) -> None:
    writer.write(b"OPNF" + struct.pack("<I", 0) * 100)


async def nonsense(writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 40)


@asynccontextmanager
async def listening(hostile: Hostile) -> AsyncIterator[int]:
    port = await asyncio.start_server(hostile.meet, "127.0.0.1", 0)
    async with port:
        yield port.sockets[0].getsockname()[1]


async def test_a_message_without_end_is_not_kept() -> None:
    hostile = Hostile(nonsense)
    hostile.answer = hostile.endless
    async with listening(hostile) as port:
        await end_of(driver_for(port, NODES, timeout="5s").frames())
        assert bounds.LARGEST_MESSAGE // 2 < hostile.sent < 4 * bounds.LARGEST_MESSAGE


@pytest.mark.parametrize("answer", [one_long_chunk, a_chunk_of_nothing, nonsense])
async def test_a_chunk_that_cannot_be_ends_the_connection(answer: Answer) -> None:
    async with listening(Hostile(answer)) as port:
        await end_of(driver_for(port, NODES, timeout="2s").frames())


async def test_a_notification_that_cannot_be_read_is_a_loss_and_is_said(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = answers.read_publish
    cut = 0

    def damaged(body: bytes) -> ua.PublishResponse:
        return usual(body[: len(body) - cut])

    monkeypatch.setattr(answers, "read_publish", damaged)
    assert server.bserver is not None
    driver = driver_for(server.bserver.port, NODES)
    async with aclosing(driver.frames()) as frames:
        await collect(frames, driver, {"a": 1, "b": 1})
        cut = 9
        assert (await end_of(frames)).what == "a notification cannot be read"


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_where_the_library_is_not_as_expected_it_reads_for_itself(
    server: Server, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(answers, "columns_work", lambda: False)
    assert server.bserver is not None
    driver = driver_for(server.bserver.port, NODES, mode=mode)
    async with aclosing(driver.frames()) as frames:
        got = await collect(frames, driver, {"a": 1, "b": 1})
    assert {name: samples[0][0] for name, samples in got.items()} == {"a": 1, "b": 2.5}
    assert any("one by one" in note for note in driver.notes())


async def test_the_library_still_asks_for_notifications_by_the_name_we_answer_to() -> None:
    """Without it everything would come by the slow way, and nobody would know."""
    assert asyncio.iscoroutinefunction(UaSession.publish)
    assert answers.ColumnSession.publish is not UaSession.publish
    loop: Any = UaSession._publish_loop
    assert "publish" in loop.__code__.co_names

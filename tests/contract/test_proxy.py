"""The hindering relay: what it does to connections, and that nothing of it is left behind."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from simulators.faults.catalogue import PROXY
from simulators.faults.door import Door, doorway
from simulators.faults.proxy import FREE, Hindrance, Proxy, Way, proxying

TIMEOUT = 30
MESSAGE = bytes(range(256)) * 8


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Proxy, Door]]:
    async with doorway(echo) as target, proxying((target.host, target.port), seed=3) as proxy:
        yield proxy, target


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def back(self, size: int) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """What still comes before the connection ends."""
        data = b""
        async with asyncio.timeout(TIMEOUT):
            try:
                while piece := await self.reader.read(65_536):
                    data += piece
            except ConnectionError:
                return data
        return data

    async def silent(self) -> bool:
        """Whether nothing comes although there was time for it."""
        try:
            async with asyncio.timeout(0.3):
                await self.reader.readexactly(1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not holds():  # noqa: ASYNC110 - the relay offers nothing to wait for
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("fault", ["", "delay", "throttle", "stall"])
async def test_what_only_takes_time_loses_no_byte(fault: str) -> None:
    async with relayed() as (proxy, _), client(proxy) as guest:
        proxy.hindrance = Hindrance(fault, delay_s=0.01, rate=40_000)
        guest.writer.write(MESSAGE)
        if fault == "stall":
            assert await guest.silent()
            proxy.hindrance = FREE
        assert await guest.back(len(MESSAGE)) == MESSAGE


async def test_a_cut_connection_ends_and_a_new_one_is_served() -> None:
    async with relayed() as (proxy, target):
        async with client(proxy) as guest:
            guest.writer.write(b"hello")
            assert await guest.back(5) == b"hello"
            proxy.hindrance = Hindrance("cut", pieces=1)
            guest.writer.write(MESSAGE)
            came = await guest.rest()
        assert len(came) < len(MESSAGE)
        assert MESSAGE.startswith(came)
        await until(lambda: target.guests == 0)
        proxy.hindrance = FREE
        async with client(proxy) as guest:
            guest.writer.write(b"again")
            assert await guest.back(5) == b"again"


async def test_half_open_connections_stay_dead_while_new_ones_work_once_it_is_over() -> None:
    async with relayed() as (proxy, _), client(proxy) as old:
        old.writer.write(b"hello")
        assert await old.back(5) == b"hello"
        proxy.hindrance = Hindrance("half-open")
        old.writer.write(b"are you there")
        async with client(proxy) as during:
            during.writer.write(b"hello")
            assert await during.silent()
            proxy.hindrance = FREE
            assert await old.silent()
            assert await during.silent()
        async with client(proxy) as new:
            new.writer.write(b"hello")
            assert await new.back(5) == b"hello"


async def test_only_the_way_that_was_named_is_hindered() -> None:
    heard = asyncio.Queue[bytes]()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            await heard.put(data)
            writer.write(data)

    async with doorway(hear) as target, proxying((target.host, target.port)) as proxy:
        proxy.hindrance = Hindrance("half-open", Way.BACK)
        async with client(proxy) as guest:
            assert proxy.hindrance.way is Way.BACK
            guest.writer.write(b"one")
            async with asyncio.timeout(TIMEOUT):
                assert await heard.get() == b"one"
            assert await guest.silent()


async def test_dropped_bytes_are_missing_in_the_middle() -> None:
    async with relayed() as (proxy, _), client(proxy) as guest:
        proxy.hindrance = Hindrance("drop-bytes", Way.OUT, pieces=1)
        guest.writer.write(MESSAGE)
        guest.writer.write_eof()
        came = await guest.rest()
    assert len(came) < len(MESSAGE)


async def test_every_connection_ends_with_the_relay_whatever_it_does() -> None:
    for fault in PROXY:
        async with relayed() as (proxy, target):
            async with client(proxy) as guest:
                guest.writer.write(b"hello")
                assert await guest.back(5) == b"hello"
                proxy.hindrance = Hindrance(fault, delay_s=60)
                guest.writer.write(MESSAGE)
                await guest.writer.drain()
            proxy.door.drop()
            await until(lambda target=target: target.guests == 0)  # type: ignore[misc] # mypy takes no default here


async def test_a_target_that_is_not_there_ends_the_connection() -> None:
    async with doorway(echo) as target:
        target.shut()
        async with proxying((target.host, target.port)) as proxy, client(proxy) as guest:
            assert await guest.rest() == b""


async def test_a_door_keeps_its_port_while_it_is_shut() -> None:
    async with doorway(echo) as door:
        port = door.port
        for _ in range(3):
            reader, writer = await asyncio.open_connection(door.host, port)
            writer.write(b"hello")
            async with asyncio.timeout(TIMEOUT):
                assert await reader.readexactly(5) == b"hello"
            door.shut()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(door.host, port)
            writer.close()
            await door.open()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)

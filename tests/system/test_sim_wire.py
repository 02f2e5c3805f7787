"""The Modbus server against every way a client can write to its socket."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from protocols.errors import MillgateError
from simulators.mbap import ModbusServer, cut

BLOCK = bytes(range(40))
REGISTERS = len(BLOCK) // 2
TIMEOUT = 20


def server(**limits: float) -> ModbusServer:
    def opened():  # type: ignore[no-untyped-def] # the alias it returns is spelt out by ModbusServer
        return lambda first, count: cut(BLOCK, first, count)

    return ModbusServer(opened, **limits)  # type: ignore[arg-type] # tests name their limits


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not happened():  # noqa: ASYNC110 - the server offers nothing to wait for
            await asyncio.sleep(0.001)


class Wire:
    """A client that writes what it is told and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, int, bytes]:
        """Return (transaction, unit, what follows)."""
        async with asyncio.timeout(TIMEOUT):
            transaction, protocol, length, unit = struct.unpack(
                ">HHHB", await self.reader.readexactly(7)
            )
            assert protocol == 0
            return transaction, unit, await self.reader.readexactly(length - 1)

    async def closed(self) -> bytes:
        """Return what still came before the server hung up."""
        rest = b""
        async with asyncio.timeout(TIMEOUT):
            try:
                while data := await self.reader.read(65_536):
                    rest += data
            except ConnectionError:
                return rest
        return rest


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


def request(pdu: bytes, transaction: int = 7, unit: int = 1, protocol: int = 0) -> bytes:
    return struct.pack(">HHHB", transaction, protocol, len(pdu) + 1, unit) + pdu


def read(first: int, count: int, function: int = 3) -> bytes:
    return struct.pack(">BHH", function, first, count)


@pytest.mark.parametrize("function", [3, 4])
async def test_holding_and_input_registers_are_the_same_block(function: int) -> None:
    async with server() as modbus, connected(modbus.port) as wire:
        wire.send(request(read(2, 3, function), transaction=65_535))
        assert await wire.answer() == (65_535, 1, bytes((function, 6)) + BLOCK[4:10])


@pytest.mark.parametrize(
    ("pdu", "unit", "answer"),
    [
        (b"\x05\x00\x00\xff\x00", 1, b"\x85\x01"),
        (b"\x10\x00\x00\x00\x01\x02\x00\x00", 1, b"\x90\x01"),
        (b"\x2b\x0e\x01\x00", 1, b"\xab\x01"),
        (b"\x00", 1, b"\x80\x01"),
        (read(0, REGISTERS + 1), 1, b"\x83\x02"),
        (read(REGISTERS, 1), 1, b"\x83\x02"),
        (read(65_535, 1, 4), 1, b"\x84\x02"),
        (read(65_535, 125), 1, b"\x83\x02"),
        (read(0, 0), 1, b"\x83\x03"),
        (read(0, 126), 1, b"\x83\x03"),
        (read(0, 65_535), 1, b"\x83\x03"),
        (b"\x03", 1, b"\x83\x03"),
        (b"\x03\x00\x00\x00", 1, b"\x83\x03"),
        (read(0, 1) + b"\x00", 1, b"\x83\x03"),
        (read(0, 1), 2, b"\x83\x0b"),
        (read(0, 1), 0, b"\x83\x0b"),
        (read(0, 1), 255, b"\x83\x0b"),
    ],
)
async def test_what_cannot_be_read_is_answered_with_its_exception(
    pdu: bytes, unit: int, answer: bytes
) -> None:
    async with server() as modbus, connected(modbus.port) as wire:
        wire.send(request(pdu, unit=unit))
        assert await wire.answer() == (7, unit, answer)
        wire.send(request(read(0, 1)))
        assert await wire.answer() == (7, 1, b"\x03\x02" + BLOCK[:2])


async def test_several_requests_in_one_segment_are_answered_in_order() -> None:
    async with server() as modbus, connected(modbus.port) as wire:
        wire.send(b"".join(request(read(at, 1), transaction=at) for at in range(REGISTERS)))
        for at in range(REGISTERS):
            expected = (at, 1, b"\x03\x02" + BLOCK[2 * at : 2 * at + 2])
            assert await wire.answer() == expected


async def test_a_request_in_single_bytes_is_answered() -> None:
    async with server() as modbus, connected(modbus.port) as wire:
        for byte in request(read(1, 2)) + request(read(3, 1), transaction=8):
            wire.send(bytes((byte,)))
            await wire.writer.drain()
            await asyncio.sleep(0)
        assert await wire.answer() == (7, 1, b"\x03\x04" + BLOCK[2:6])
        assert await wire.answer() == (8, 1, b"\x03\x02" + BLOCK[6:8])


async def test_a_split_between_two_requests_does_not_matter() -> None:
    both = request(read(1, 2)) + request(read(3, 1), transaction=8)
    async with server() as modbus:
        for split in range(1, len(both)):
            async with connected(modbus.port) as wire:
                wire.send(both[:split])
                await wire.writer.drain()
                await asyncio.sleep(0.001)
                wire.send(both[split:])
                assert (await wire.answer())[0] == 7
                assert (await wire.answer())[0] == 8


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        request(read(0, 1), protocol=1),
        struct.pack(">HHHB", 1, 0, 0, 1),
        struct.pack(">HHHB", 1, 0, 1, 1),
        struct.pack(">HHHB", 1, 0, 255, 1),
        b"\xff" * 1000,
    ],
)
async def test_what_is_not_modbus_ends_the_connection_and_no_other(garbage: bytes) -> None:
    async with server() as modbus, connected(modbus.port) as good:
        async with connected(modbus.port) as wire:
            wire.send(garbage)
            assert await wire.closed() == b""
        good.send(request(read(0, 1)))
        assert (await good.answer())[2] == b"\x03\x02" + BLOCK[:2]


async def test_requests_before_garbage_are_answered() -> None:
    async with server() as modbus, connected(modbus.port) as wire:
        wire.send(request(read(0, 1)))
        assert (await wire.answer())[0] == 7
        wire.send(request(read(0, 1)) + b"\xff" * 20)
        await wire.closed()
        await until(lambda: not modbus.connections)


async def test_a_request_that_never_ends_is_given_up() -> None:
    async with server(frame_s=0.05) as modbus, connected(modbus.port) as wire:
        wire.send(request(read(0, 1))[:-1])
        assert await wire.closed() == b""


async def test_dripping_bytes_do_not_prolong_a_request() -> None:
    async with (
        server(frame_s=0.2) as modbus,
        connected(modbus.port) as wire,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(drip(wire, request(b"\x03" + bytes(252))))
        assert await wire.closed() == b""


async def drip(wire: Wire, data: bytes) -> None:
    for byte in data:
        if wire.writer.is_closing():
            return
        wire.send(bytes((byte,)))
        await asyncio.sleep(0.02)


async def test_a_silent_connection_is_given_up() -> None:
    async with server(idle_s=0.05) as modbus, connected(modbus.port) as wire:
        assert await wire.closed() == b""


async def test_too_many_connections_are_turned_away() -> None:
    async with server(connections=2) as modbus, connected(modbus.port) as first:
        first.send(request(read(0, 1)))
        await first.answer()
        async with connected(modbus.port) as second:
            second.send(request(read(0, 1)))
            await second.answer()
            async with connected(modbus.port) as third:
                assert await third.closed() == b""
        await until(lambda: len(modbus.connections) == 1)
        async with connected(modbus.port) as fourth:
            fourth.send(request(read(0, 1)))
            assert (await fourth.answer())[0] == 7


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    many = 20_000
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.setblocking(False)
    async with ModbusServer(lambda: lambda _, count: bytes(2 * count)) as modbus:
        await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", modbus.port))
        reader, writer = await asyncio.open_connection(sock=deaf)
        wire = Wire(reader, writer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flood(wire, many))
            await until(lambda: any(one._paused for one in modbus.connections))
            for at in range(many):
                assert (await wire.answer())[0] == at
        writer.transport.abort()


async def flood(wire: Wire, many: int) -> None:
    for at in range(many):
        wire.send(request(read(0, 125), transaction=at))
        if at % 500 == 0:
            await wire.writer.drain()


async def test_leaving_drops_clients_and_frees_the_port() -> None:
    async with server() as modbus, connected(modbus.port) as wire:
        wire.send(request(read(0, 1)))
        await wire.answer()
        await modbus.__aexit__(None, None, None)
        assert await wire.closed() == b""
        port = modbus.port
    async with ModbusServer(server().opened, port=port) as again:
        assert again.port == port


async def test_a_taken_port_is_one_fault() -> None:
    async with server() as modbus:
        with pytest.raises(MillgateError, match="cannot listen"):
            async with ModbusServer(server().opened, port=modbus.port):
                pass

"""The Modbus driver against real servers, and against devices that misbehave on the wire."""

import asyncio
import contextlib
import itertools
import logging
import math
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from agent.collect import Collector
from protocols.drivers import NotConnected
from protocols.drivers.modbus import Config, Driver
from protocols.frame import SECOND, Frame, Quality

LONG = 30
"""Seconds after which a test is stuck; nothing is expected to take a tenth of it."""

GOOD, BAD, LOST = int(Quality.GOOD), int(Quality.BAD), int(Quality.LOST)
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
FORMATS = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "float32": ">f",
    "int64": ">q",
    "uint64": ">Q",
    "float64": ">d",
}


def laid_out(data: bytes, order: str) -> list[int]:
    """Return the registers in which a device of that order keeps a big-endian value."""
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if order in {"CDAB", "DCBA"}:
        words.reverse()
    if order in {"BADC", "DCBA"}:
        words = [word[::-1] for word in words]
    return [int.from_bytes(word, "big") for word in words]


def point(address: str, kind: str = "uint16", **fields: Any) -> dict[str, Any]:
    return {"id": address.replace(":", "-"), "address": address, "type": kind, **fields}


def config(port: int, points: Sequence[dict[str, Any]], **fields: Any) -> Config:
    return Config.model_validate(
        {
            "id": "meter",
            "kind": "modbus",
            "host": "127.0.0.1",
            "port": port,
            "interval": "0s",
            "timeout": "500ms",
            "points": list(points),
            **fields,
        }
    )


def driver(port: int, points: Sequence[dict[str, Any]], **fields: Any) -> Driver:
    return Driver(config(port, points, **fields), time.time_ns)


# A real server.


class Plc:
    """A pymodbus server: holding and input registers of their own, unit 1."""

    def __init__(self, holding: dict[int, int], inputs: dict[int, int] | None = None) -> None:
        self.port = 0
        self.refused: set[int] = set()
        self.asked: list[tuple[int, int, int]] = []
        self._holding = holding
        self._inputs = inputs or {0: 0}
        self._server: ModbusTcpServer | None = None

    async def start(self) -> None:
        coils = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
        tables = [
            [
                SimData(address, values=[value], datatype=DataType.REGISTERS)
                for address, value in sorted(registers.items())
            ]
            for registers in (self._holding, self._inputs)
        ]
        device = SimDevice(1, simdata=(coils, coils, tables[0], tables[1]), action=self._action)
        nobody = SimDevice(0, simdata=[SimData(0, values=[0], datatype=DataType.REGISTERS)])
        self._server = ModbusTcpServer([nobody, device], address=("127.0.0.1", self.port))
        await self._server.serve_forever(background=True)
        transport: Any = self._server.transport
        self.port = transport.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.shutdown()  # type: ignore[no-untyped-call] # pymodbus leaves it so
            self._server = None

    async def write(self, address: int, values: list[int]) -> None:
        assert self._server is not None
        await self._server.async_setValues(1, 16, address, values)

    async def _action(
        self, function: int, _start: int, address: int, count: int, _now: Any, values: Any
    ) -> ExcCodes | None:
        if values is None:
            self.asked.append((function, address, count))
            if address in self.refused:
                return ExcCodes.DEVICE_BUSY
        return None


@asynccontextmanager
async def plc(holding: dict[int, int], inputs: dict[int, int] | None = None) -> AsyncIterator[Plc]:
    server = Plc(holding, inputs)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


# Devices that say on the wire whatever a test wants.

Reply = Callable[[bytes, int], bytes | None]
"""(request without its header, which request of this connection) -> what follows, or hang up."""

HEADER = struct.Struct(">HHHB")


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tcp(handler: Handler) -> AsyncIterator[int]:
    """Let a handler serve connections on a port; at the end all of them are closed."""
    open_now: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_now[task] = writer
        try:
            await handler(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_now.values():
            writer.transport.abort()
        await asyncio.gather(*open_now)
        await server.wait_closed()


async def request_of(reader: asyncio.StreamReader) -> tuple[int, int, bytes]:
    """Return transaction, unit and the request itself."""
    transaction, _, length, unit = HEADER.unpack(await reader.readexactly(HEADER.size))
    return transaction, unit, await reader.readexactly(length - 1)


def framed(transaction: int, unit: int, answer: bytes) -> bytes:
    return HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer


class Wire:
    """A device that answers each request as it is told.

    Attributes:
        gone: set when a client has closed its connection.
        connections: how many there have been.
    """

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.port = 0
        self.gone = asyncio.Event()
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        count = 0
        try:
            while True:
                transaction, unit, request = await request_of(reader)
                answer = self.reply(request, count)
                count += 1
                if answer is None:
                    return
                if answer:
                    writer.write(framed(transaction, unit, answer))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()


@asynccontextmanager
async def wire(reply: Reply) -> AsyncIterator[Wire]:
    served = Wire(reply)
    async with tcp(served.serve) as served.port:
        yield served


def read_answer(request: bytes, registers: Sequence[int]) -> bytes:
    data = b"".join(register.to_bytes(2, "big") for register in registers)
    return bytes((request[0], len(data))) + data


def count_of(request: bytes) -> int:
    return int(struct.unpack(">BHH", request)[2])


# Reading frames.


async def frames_of(reader: Driver, enough: int) -> list[Frame]:
    found: list[Frame] = []
    async with asyncio.timeout(LONG):
        frames = reader.frames()
        try:
            async for frame in frames:
                found.append(frame)
                if len(found) >= enough:
                    break
        finally:
            await frames.aclose()
    return found


async def values_of(reader: Driver, points: int) -> dict[int, tuple[float, int]]:
    """Return (value, quality) of each column in the first rows read."""
    found: dict[int, tuple[float, int]] = {}
    async with asyncio.timeout(LONG):
        frames = reader.frames()
        try:
            async for frame in frames:
                for at, column in enumerate(frame.columns.tolist()):
                    found[column] = (frame.values[0, at].item(), int(frame.quality[0, at]))
                if len(found) == points:
                    break
        finally:
            await frames.aclose()
    return found


async def exhaust(frames: AsyncIterator[Frame]) -> None:
    async for _ in frames:
        pass


async def until_lost(reader: Driver) -> tuple[list[Frame], NotConnected]:
    found: list[Frame] = []
    async with asyncio.timeout(LONG):
        try:
            async for frame in reader.frames():
                found.append(frame)  # noqa: PERF401 - the frames before the fault are kept
        except NotConnected as fault:
            return found, fault
    pytest.fail("frames ended without a fault")


@pytest.mark.parametrize("order", ORDERS)
async def test_every_type_in_every_byte_order_comes_as_the_device_keeps_it(order: str) -> None:
    """Each value names its own point, so that no two can be mistaken."""
    holding: dict[int, int] = {}
    inputs: dict[int, int] = {}
    points, wanted = [], []
    for table, registers, sign in (("holding", holding, 1), ("input", inputs, 3)):
        first = 10
        for at, (kind, form) in enumerate(sorted(FORMATS.items())):
            value: float = sign * (0x0102 + 0x0101 * at)
            if kind.startswith("float"):
                value += 0.25
            data = struct.pack(form, value if kind.startswith("float") else int(value))
            for offset, register in enumerate(laid_out(data, order)):
                registers[first + offset] = register
            points.append(point(f"{table}:{first}", kind))
            wanted.append((value, GOOD))
            first += len(data) // 2
    async with plc(holding, inputs) as server:
        found = await values_of(driver(server.port, points, order=order), len(points))
    assert [found[at] for at in range(len(points))] == wanted


async def test_scaled_integers_are_exact_on_their_decimal_grid() -> None:
    points = [
        point("holding:0", "uint32", scale="0.01"),
        point("holding:2", "int16", scale="0.1", offset="-40"),
        point("holding:3", "uint16", scale="25"),
        point("holding:4", "int32", scale="-0.001"),
    ]
    registers = [0xFFFF, 0xFFFF, 0xFFFF, 3, 0, 7]
    async with plc(dict(enumerate(registers))) as server:
        reader = driver(server.port, points)
        found = await values_of(reader, 4)
        exponents = config(server.port, points).table().exponents()
    assert [found[at][0] for at in range(4)] == [(1 << 32) - 1, -401, 75, -7]
    assert exponents == [-2, -1, 0, -3]


async def test_what_is_no_number_or_too_large_is_bad_and_nothing_else_is() -> None:
    registers = [
        *laid_out(struct.pack(">f", math.nan), "ABCD"),
        *laid_out(struct.pack(">f", math.inf), "ABCD"),
        *laid_out(struct.pack(">f", 1.5), "ABCD"),
        *laid_out(struct.pack(">Q", 1 << 63), "ABCD"),
        *laid_out(struct.pack(">Q", (1 << 53) + 1), "ABCD"),
        *laid_out(struct.pack(">Q", 1 << 53), "ABCD"),
    ]
    points = [
        *[point(f"holding:{at}", "float32") for at in (0, 2, 4)],
        *[point(f"holding:{at}", "uint64") for at in (6, 10, 14)],
    ]
    async with plc(dict(enumerate(registers))) as server:
        found = await values_of(driver(server.port, points), 6)
    assert [found[at] for at in range(6)] == [
        (0.0, BAD),
        (0.0, BAD),
        (1.5, GOOD),
        (0, BAD),
        (0, BAD),
        (1 << 53, GOOD),
    ]


async def test_a_block_that_the_device_refuses_is_bad_and_the_others_are_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    points = [point("holding:0"), point("holding:500"), point("input:0")]
    async with plc({0: 7, 500: 8, 900: 0}, {0: 9}) as server:
        server.refused.add(500)
        reader = driver(server.port, points)
        found = await values_of(reader, 3)
        assert found == {0: (7, GOOD), 1: (0, BAD), 2: (9, GOOD)}
        assert len([r for r in caplog.records if "holding 500-500" in r.getMessage()]) == 1
        server.refused.clear()
        assert await values_of(reader, 3) == {0: (7, GOOD), 1: (8, GOOD), 2: (9, GOOD)}


async def test_a_refused_block_is_told_once_until_it_was_read_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def reply(request: bytes, at: int) -> bytes | None:
        return b"\x83\x04" if at % 4 < 2 else read_answer(request, [7])

    async with wire(reply) as server:
        await frames_of(driver(server.port, [point("holding:0")], interval="100ms"), 6)
    told = [record for record in caplog.records if "exception 4" in record.getMessage()]
    assert len(told) == 2
    assert "holding 0-0" in told[0].getMessage()


async def test_registers_that_the_device_has_not_are_bad_and_not_a_lost_device() -> None:
    async with plc({0: 7}) as server:
        found = await values_of(driver(server.port, [point("holding:0"), point("holding:100")]), 2)
    assert found == {0: (7, GOOD), 1: (0, BAD)}


async def test_requests_are_those_that_were_planned() -> None:
    points = [
        point("holding:0"),
        point("holding:3"),
        point("holding:40", "uint32"),
        point("input:7"),
    ]
    holding = dict.fromkeys(range(60), 5)
    async with plc(holding, dict.fromkeys(range(10), 6)) as server:
        await values_of(driver(server.port, points, max_gap=2, max_registers=10), 4)
        assert server.asked[:3] == [(3, 0, 4), (3, 40, 2), (4, 7, 1)]
        server.asked.clear()
        await values_of(driver(server.port, points, max_gap=1), 4)
        assert server.asked[:4] == [(3, 0, 1), (3, 3, 1), (3, 40, 2), (4, 7, 1)]


async def test_each_block_has_the_time_at_which_it_was_read() -> None:
    points = [point("holding:0"), point("holding:500"), point("input:0")]
    async with plc({0: 1, 500: 2}, {0: 3}) as server:
        before = time.time_ns()
        (frame,) = await frames_of(driver(server.port, points), 1)
        after = time.time_ns()
    assert frame.time.shape == frame.values.shape
    assert before <= frame.time.min()
    assert frame.time.max() <= after
    assert (np.diff(frame.time, axis=1) >= 0).all()
    assert (np.diff(frame.time, axis=0) >= 0).all()
    assert frame.clock is None
    assert frame.device == "meter"


async def test_points_of_one_block_share_their_time() -> None:
    async with plc({0: 1, 1: 2}) as server:
        (frame,) = await frames_of(driver(server.port, [point("holding:0"), point("holding:1")]), 1)
    assert frame.time.shape == (len(frame.values), 1)
    assert frame.samples == frame.values.size


async def test_the_first_values_do_not_wait_for_the_interval() -> None:
    async with plc({0: 1, 1: 2}) as server:
        reader = driver(server.port, [point("holding:0")], interval="1h")
        (frame,) = await frames_of(reader, 1)
    assert frame.values.tolist() == [[1]]


async def test_polls_keep_to_their_interval() -> None:
    """A poll that is due is neither left out nor doubled: times between polls are the interval."""
    async with plc({0: 1}) as server:
        frames = await frames_of(driver(server.port, [point("holding:0")], interval="120ms"), 4)
    times = [int(frame.time[0, 0]) for frame in frames]
    assert all(len(frame.values) == 1 for frame in frames)
    assert all(later - earlier >= 100_000_000 for earlier, later in itertools.pairwise(times))


async def test_polls_without_a_pause_are_gathered_row_by_row() -> None:
    def reply(request: bytes, at: int) -> bytes:
        return read_answer(request, [at % 65_536])

    async with wire(reply) as server:
        frames = await frames_of(driver(server.port, [point("holding:0")]), 3)
    rows = [value for frame in frames for value in frame.values[:, 0].tolist()]
    assert rows == list(range(len(rows)))
    assert max(len(frame.values) for frame in frames) > 1
    assert max(len(frame.values) for frame in frames) <= 256


# Contact lost and found again.


async def test_a_server_that_restarts_is_read_again() -> None:
    async with plc({0: 7}) as server:
        reader = driver(server.port, [point("holding:0")], timeout="2s")
        assert await values_of(reader, 1) == {0: (7, GOOD)}
        frames = reader.frames()
        async with asyncio.timeout(LONG):
            await anext(frames)
            await server.stop()
            with pytest.raises(NotConnected, match="meter") as caught:
                await exhaust(frames)
        assert "127.0.0.1" in caught.value.where
        with pytest.raises(NotConnected):
            await anext(reader.frames())
        await server.start()
        assert await values_of(reader, 1) == {0: (7, GOOD)}


async def test_nobody_listening_is_not_connected() -> None:
    async with plc({0: 7}) as server:
        port = server.port
    _, fault = await until_lost(driver(port, [point("holding:0")]))
    assert str(port) in fault.where
    assert fault.remedy


async def test_a_device_that_never_answers_is_given_up_in_bounded_time() -> None:
    async with wire(lambda *_: b"") as server:
        _, fault = await until_lost(driver(server.port, [point("holding:0")], timeout="100ms"))
        assert fault.what == "no answer"
        async with asyncio.timeout(LONG):
            await server.gone.wait()


async def test_a_device_that_falls_silent_is_given_up_in_bounded_time() -> None:
    def reply(request: bytes, at: int) -> bytes:
        return read_answer(request, [at]) if at < 3 else b""

    async with wire(reply) as server:
        reader = driver(server.port, [point("holding:0")], timeout="100ms", interval="100ms")
        frames, fault = await until_lost(reader)
    assert [frame.values[0, 0] for frame in frames] == [0, 1, 2]
    assert fault.what == "no answer"


async def test_rows_read_before_contact_was_lost_are_not_lost_with_it() -> None:
    """A recording that gives each row once must not lose those that wait to be gathered."""

    def reply(request: bytes, at: int) -> bytes | None:
        return read_answer(request, [at]) if at < 20 else None

    async with wire(reply) as server:
        frames, _ = await until_lost(driver(server.port, [point("holding:0")]))
    rows = [value for frame in frames for value in frame.values[:, 0].tolist()]
    assert rows == list(range(20))


async def test_a_poll_broken_off_in_the_middle_gives_no_row() -> None:
    def reply(request: bytes, at: int) -> bytes | None:
        return read_answer(request, [at]) if at < 5 else None

    async with wire(reply) as server:
        points = [point("holding:0"), point("holding:500")]
        frames, _ = await until_lost(driver(server.port, points))
    rows = [row for frame in frames for row in frame.values.tolist()]
    assert rows == [[0, 1], [2, 3]]


async def test_a_late_answer_is_never_taken_for_the_next() -> None:
    held: list[tuple[asyncio.StreamWriter, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                transaction, unit, request = await request_of(reader)
                first = int(struct.unpack(">BHH", request)[1])
                message = framed(transaction, unit, read_answer(request, [first]))
                if first == 500 and not held:
                    held.append((writer, message))
                    continue
                for waiting, late in held:
                    if not waiting.is_closing():
                        waiting.write(late)
                writer.write(message)
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async with tcp(serve) as port:
        reader = driver(port, [point("holding:100"), point("holding:500")], timeout="150ms")
        await until_lost(reader)
        for _ in range(3):
            assert await values_of(reader, 2) == {0: (100, GOOD), 1: (500, GOOD)}


@pytest.mark.parametrize("shift", [1, -1, 256])
async def test_an_answer_of_another_transaction_is_never_a_value(shift: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                transaction, unit, request = await request_of(reader)
                other = (transaction + shift) % 65_536
                writer.write(framed(other, unit, read_answer(request, [7])))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async with tcp(serve) as port:
        frames, _ = await until_lost(driver(port, [point("holding:0")], timeout="200ms"))
    assert frames == []


async def test_an_answer_of_another_unit_is_never_a_value() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                transaction, unit, request = await request_of(reader)
                writer.write(framed(transaction, unit + 1, read_answer(request, [7])))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    async with tcp(serve) as port:
        frames, _ = await until_lost(driver(port, [point("holding:0")], timeout="200ms"))
    assert frames == []


WRONG: dict[str, Reply] = {
    "too few registers": lambda request, _: read_answer(request, [1] * (count_of(request) - 1)),
    "too many registers": lambda request, _: read_answer(request, [1] * (count_of(request) + 1)),
    "no registers": lambda request, _: read_answer(request, []),
    "half a register": lambda *_: b"\x03\x03\x00\x01\x02",
    "a length that lies": lambda *_: b"\x03\x08\x00\x01",
    "another function": lambda request, _: b"\x04" + read_answer(request, [1, 2])[1:],
    "an unknown function": lambda *_: b"\x63\x00\x00",
    "a write that nobody asked for": lambda *_: b"\x10\x00\x00\x00\x02",
    "an exception of another function": lambda *_: b"\x90\x02",
    "half an exception": lambda *_: b"\x83",
    "hanging up": lambda *_: None,
}


@pytest.mark.parametrize("reply", WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_answer_is_never_a_value(reply: Reply) -> None:
    async with wire(reply) as server:
        points = [point("holding:0"), point("holding:1")]
        frames: list[Frame] = []
        async with asyncio.timeout(LONG):
            try:
                async for frame in driver(server.port, points, timeout="200ms").frames():
                    frames.append(frame)
                    break
            except NotConnected as fault:
                assert fault.where.startswith("meter")  # noqa: PT017 - either outcome is right
    assert not any((frame.quality == GOOD).any() for frame in frames)


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff" * 300,
        b"\x00" * 300,
        b"\x00\x01\x00\x00\xff\xff\x01\x03",
    ],
)
async def test_noise_on_the_wire_is_never_a_value(noise: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while await reader.read(100):
                writer.write(noise)

    async with tcp(serve) as port:
        frames, _ = await until_lost(driver(port, [point("holding:0")], timeout="200ms"))
    assert frames == []


async def test_closing_the_frames_closes_the_connection() -> None:
    async with wire(lambda request, at: read_answer(request, [at])) as server:
        frames = driver(server.port, [point("holding:0")]).frames()
        async with asyncio.timeout(LONG):
            await anext(frames)
            await frames.aclose()
            await server.gone.wait()
        assert server.connections == 1


async def test_cancelling_a_read_closes_the_connection() -> None:
    async with wire(lambda *_: b"") as server:
        frames = driver(server.port, [point("holding:0")]).frames()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(frames)
        async with asyncio.timeout(LONG):
            await server.gone.wait()


async def test_no_value_is_ever_in_a_log_or_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    canary = 54_321

    def reply(request: bytes, at: int) -> bytes | None:
        if at == 3:
            return b"\x83\x04"
        return read_answer(request, [canary] * (count_of(request) + (at == 6)))

    with caplog.at_level(logging.DEBUG):
        async with wire(reply) as server:
            frames, fault = await until_lost(
                driver(server.port, [point("holding:0")], interval="100ms")
            )
    assert any((frame.values == canary).any() for frame in frames)
    text = caplog.text + str(fault) + repr(fault)
    for form in (str(canary), f"{canary:x}", f"{canary:X}", repr(canary.to_bytes(2, "big"))[2:-1]):
        assert form not in text


# A device that brings its own time.


def timed(points: Sequence[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"points": points, "slot_time": "holding-0", **fields}


CLOCK = point("holding:0", "uint32", unit="s", measurand="time.device")
START = 1_500_000_000


def clock_reply(times: Sequence[int], late: Callable[[int], Sequence[int]]) -> Reply:
    """Row by row: a time of 32 bits, then what `late` says; at the end hang up."""

    def reply(request: bytes, at: int) -> bytes | None:
        if at >= len(times):
            return None
        return read_answer(request, [*laid_out(struct.pack(">I", times[at]), "ABCD"), *late(at)])

    return reply


async def test_rows_follow_the_devices_own_time() -> None:
    times = [START + 900 * at for at in range(40)]
    points = [CLOCK, point("holding:2"), point("holding:3", "float32")]

    def more(at: int) -> Sequence[int]:
        return [at, *laid_out(struct.pack(">f", at + 0.5), "ABCD")]

    async with wire(clock_reply(times, more)) as server:
        frames, _ = await until_lost(driver(server.port, **timed(points)))
    whole = [frame for frame in frames if 1 in frame.columns]
    real = [frame for frame in frames if 2 in frame.columns]
    for parts, column in ((whole, 1), (real, 2)):
        got = [
            (int(moment), value)
            for frame in parts
            for moment, value in zip(
                frame.time[:, 0].tolist(),
                frame.values[:, frame.columns.tolist().index(column)].tolist(),
                strict=True,
            )
        ]
        offset = 0.5 if column == 2 else 0
        assert got == [(moment * SECOND, at + offset) for at, moment in enumerate(times)]


async def test_the_clock_moves_on_only_with_the_last_frame_of_the_same_rows() -> None:
    """Slots close by the clock: it must not pass rows whose other half is still to come."""
    times = [START + 900 * at for at in range(60)]
    points = [CLOCK, point("holding:2", "float32")]
    async with wire(
        clock_reply(times, lambda at: laid_out(struct.pack(">f", at), "ABCD"))
    ) as server:
        frames, _ = await until_lost(driver(server.port, **timed(points)))
    clock = 0
    for frame in frames:
        assert frame.time.min() >= clock
        if frame.clock is not None:
            clock = frame.clock
    assert clock == times[-1] * SECOND
    columns: set[int] = set()
    seen = 0
    for frame in frames:
        columns |= set(frame.columns.tolist())
        if frame.clock is not None:
            assert columns == {0, 1}
            columns = set()
            seen += 1
    assert seen == len(frames) / 2


async def test_a_fraction_of_a_second_is_kept() -> None:
    fine = {**CLOCK, "scale": "0.001", "type": "uint64"}

    def reply(request: bytes, at: int) -> bytes | None:
        data = struct.pack(">Q", START * 1000 + 250 * at)
        return read_answer(request, [*laid_out(data, "ABCD"), at]) if at < 5 else None

    async with wire(reply) as server:
        frames, _ = await until_lost(driver(server.port, **timed([fine, point("holding:4")])))
    times = [moment for frame in frames for moment in frame.time[:, 0].tolist()]
    assert times == [START * SECOND + at * SECOND // 4 for at in range(5)]


async def test_rows_without_a_usable_time_are_left_out() -> None:
    times = [START, 0, START + 1, 0xFFFFFFFF, START + 2]
    async with wire(clock_reply(times, lambda at: [at])) as server:
        frames, _ = await until_lost(driver(server.port, **timed([CLOCK, point("holding:2")])))
    rows = [
        (int(moment) // SECOND, row[1])
        for frame in frames
        for moment, row in zip(frame.time[:, 0].tolist(), frame.values.tolist(), strict=True)
    ]
    # The year 2106 is a time like any other; the gate judges what is too far ahead.
    assert rows == [(START, 0), (START + 1, 2), (0xFFFFFFFF, 3), (START + 2, 4)]


async def test_a_block_that_is_refused_does_not_lose_the_time_of_the_others() -> None:
    def reply(request: bytes, at: int) -> bytes | None:
        first = struct.unpack(">BHH", request)[1]
        if at >= 8:
            return None
        if first == 500:
            return b"\x83\x02"
        return read_answer(request, [*laid_out(struct.pack(">I", START + at), "ABCD"), at])

    points = [CLOCK, point("holding:2"), point("holding:500")]
    async with wire(reply) as server:
        frames, _ = await until_lost(driver(server.port, **timed(points)))
    rows = [row for frame in frames for row in frame.quality.tolist()]
    # The refused block is not asked for again at once, so seven polls were answered.
    assert rows == [[GOOD, GOOD, BAD]] * 7


async def test_rows_whose_time_was_refused_are_left_out() -> None:
    def reply(request: bytes, at: int) -> bytes | None:
        first = struct.unpack(">BHH", request)[1]
        if at >= 8:
            return None
        if first == 0 and at < 4:
            return b"\x83\x06"
        registers = laid_out(struct.pack(">I", START + at), "ABCD") if first == 0 else [at]
        return read_answer(request, registers)

    async with wire(reply) as server:
        frames, _ = await until_lost(driver(server.port, **timed([CLOCK, point("holding:500")])))
    rows = [row[1] for frame in frames for row in frame.values.tolist()]
    assert rows == [5, 7]


# Supervised by the collector.


async def test_the_collector_says_that_contact_was_lost_and_goes_on_by_itself() -> None:
    async with plc({0: 7, 1: 8}) as server:
        points = [point("holding:0"), point("holding:1")]
        collector = Collector(config(server.port, points, timeout="1s"), time.time_ns)
        frames: asyncio.Queue[Frame] = asyncio.Queue()
        stop = asyncio.Event()
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
            running = group.create_task(collector.run(frames.put, stop))
            assert (await frames.get()).values[0].tolist() == [7, 8]
            assert collector.state.connected
            await server.stop()
            lost = await frame_of(frames, LOST)
            assert lost.columns.tolist() == [0, 1]
            assert lost.samples == 0
            assert collector.state.losses == 1
            await server.start()
            await server.write(0, [9])
            found = await frame_of(frames, GOOD)
            assert found.values[0].tolist() == [9, 8]
            assert collector.state.connected
            assert collector.state.fault == ""
            stop.set()
            await running


async def frame_of(frames: asyncio.Queue[Frame], quality: int) -> Frame:
    while True:
        frame = await frames.get()
        if frame.quality[0, 0] == quality:
            return frame


async def test_a_dead_device_does_not_delay_another() -> None:
    async with plc({0: 7}) as server, wire(lambda *_: b"") as silent:
        stop = asyncio.Event()
        frames: asyncio.Queue[Frame] = asyncio.Queue()
        dead = Collector(config(silent.port, [point("holding:0")], timeout="60s"), time.time_ns)
        alive = Collector(config(server.port, [point("holding:0")]), time.time_ns)
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
            silent_task = group.create_task(dead.run(frames.put, stop))
            group.create_task(alive.run(frames.put, stop))
            for _ in range(5):
                assert (await frames.get()).values[0, 0] == 7
            stop.set()
            silent_task.cancel()

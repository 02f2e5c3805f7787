"""What a Modbus request costs us, beside bare pymodbus and a bare socket: figures to read.

    python -m tests.benchmarks.bench_modbus
    python -m tests.benchmarks.bench_modbus --connections 1 16 --registers 10

All three read the same server process in the same run, one after the other, several times over.
"""

import argparse
import asyncio
import os
import statistics
import struct
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from typing import Final

import numpy as np
from pymodbus.client import AsyncModbusTcpClient

from protocols.drivers.modbus import Config, Driver
from tests.benchmarks import device
from tests.benchmarks.common import Cost, cpu_of, per, spent, table

_REQUEST: Final = struct.Struct(">HHHBBHH")
_HEADER: Final = 9

Run = Callable[[float], Coroutine[None, None, None]]
"""Reads until that monotonic time."""

Prepare = Callable[[str, int, int], Run]
"""(host, port, registers) -> a reader that is ready to begin; being made costs nothing here."""


class Bare(asyncio.Protocol):
    """Asks for one block over and over, and does nothing with it but look at it as an array."""

    def __init__(self, registers: int, until: float) -> None:
        self.registers = registers
        self.until = until
        self.done = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.transaction = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.transaction = (self.transaction + 1) & 0xFFFF
        self.transport.write(_REQUEST.pack(self.transaction, 0, 6, 1, 3, 0, self.registers))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if len(self.buffer) < _HEADER + 2 * self.registers:
            return
        np.frombuffer(self.buffer, ">u2", self.registers, _HEADER)
        self.buffer = b""
        if time.monotonic() < self.until:
            self.ask()
        elif not self.done.done():
            self.done.set_result(None)


def bare_socket(host: str, port: int, registers: int) -> Run:
    async def run(until: float) -> None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(
            lambda: Bare(registers, until), host, port
        )
        await protocol.done
        transport.close()

    return run


def bare_pymodbus(host: str, port: int, registers: int) -> Run:
    async def run(until: float) -> None:
        client = AsyncModbusTcpClient(host, port=port, timeout=3, retries=0)
        await client.connect()
        while time.monotonic() < until:
            answer = await client.read_holding_registers(0, count=registers, device_id=1)
            if len(answer.registers) != registers:
                raise RuntimeError("a wrong answer")
        client.close()

    return run


def our_driver(host: str, port: int, registers: int) -> Run:
    config = Config.model_validate(
        {
            "id": "device",
            "kind": "modbus",
            "host": host,
            "port": port,
            "interval": "0s",
            "points": [
                {"id": f"p{at}", "address": f"holding:{at}", "type": "uint16", "scale": "0.01"}
                for at in range(registers)
            ],
        }
    )
    driver = Driver(config, time.time_ns)

    async def run(until: float) -> None:
        async with aclosing(driver.frames()) as frames:
            async for frame in frames:
                if frame.quality.any():
                    raise RuntimeError("a bad value")
                if time.monotonic() >= until:
                    return

    return run


CLIENTS: Final[dict[str, Prepare]] = {
    "bare socket (asyncio)": bare_socket,
    "bare pymodbus": bare_pymodbus,
    "our driver, frames out": our_driver,
}


async def measure(
    prepare: Prepare, server: device.Device, registers: int, connections: int, seconds: float
) -> tuple[float, float, float]:
    """Return requests a second, our CPU and the server's, in µs a request."""
    cost = Cost()
    readers = [
        prepare(device.host(number), server.port, registers) for number in range(connections)
    ]
    before, server_before = server.served()[0], cpu_of(server.pid)
    with spent(cost):
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for run in readers:
                group.create_task(run(until))
    requests = server.served()[0] - before
    server_cpu = cpu_of(server.pid) - server_before
    return requests / cost.wall, cost.cpu / requests * 1e6, server_cpu / requests * 1e6


def bench(
    server: device.Device, registers: int, connections: int, seconds: float, rounds: int
) -> None:
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name, prepare in CLIENTS.items():
            result = asyncio.run(measure(prepare, server, registers, connections, seconds))
            found[name].append(result)
    medians = {
        name: [statistics.median(part) for part in zip(*results, strict=True)]
        for name, results in found.items()
    }
    reference = medians["bare pymodbus"][1]
    lines = [
        [
            name,
            f"{rate:,.0f}",
            f"{ours:.0f}",
            per(registers * 1e6, ours),
            f"{ours / reference:.2f}",
            f"{theirs:.0f}",
        ]
        for name, (rate, ours, theirs) in medians.items()
    ]
    heads = (
        "client",
        "requests/s",
        "CPU µs/request",
        "registers per CPU-s",
        "of pymodbus",
        "server µs/request",
    )
    title = (
        f"{registers} registers a request, {connections} connection(s), 1 request in flight on each"
    )
    table(title, heads, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--registers", type=int, nargs="+", default=[125, 10])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each stretch")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    args = parser.parse_args()
    os.environ.setdefault("MILLGATE_LANG", "en")
    with device.running(max(args.registers), hosts=max(args.connections)) as server:
        for registers in args.registers:
            for connections in args.connections:
                bench(server, registers, connections, args.seconds, args.rounds)


if __name__ == "__main__":
    main()

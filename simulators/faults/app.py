"""Runs the misbehaving devices until they are told to stop."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from protocols.language import tr
from simulators.captured import CapturedDevice
from simulators.faults.door import company
from simulators.faults.modbus_lies import Pace
from simulators.faults.modbus_server import chaos_modbus
from simulators.faults.modbus_wire import Registers, SerialFrames, TcpFrames
from simulators.faults.plan import Plan, Script
from simulators.faults.proxy import FREE, Hindrance, proxying
from simulators.running import Report, announce, stopping, until

Transport: TypeAlias = Literal["tcp", "rtu-over-tcp", "rtu"]
_SPOKEN: Final[dict[Transport, str]] = {
    "tcp": "TCP",
    "rtu-over-tcp": "RTU over TCP",
    "rtu": "RTU",
}
Turn: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Season:
    """When a device misbehaves.

    Attributes:
        after_s: for so many seconds it is sound.
        for_s: then it misbehaves for so many seconds, and is sound again; None is for ever.
    """

    after_s: float = 0.0
    for_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outing:
    """How long a simulator runs, and where it says that it is ready."""

    ready: Path | None
    duration_s: float | None


async def run_chaos_modbus(
    registers: Registers,
    *,
    plan: Plan,
    shapes: Collection[str],
    season: Season,
    pace: Pace,
    seed: int,
    port: int,
    outing: Outing,
    report: Report,
    what: str,
    transport: Transport = "tcp",
) -> None:
    """Serve registers over Modbus, with faults.

    Args:
        registers: what the device holds.
        plan, shapes, pace, seed: what goes wrong; see `chaos_modbus`.
        season: when.
        port: where it listens; 0 lets the kernel pick one.
        outing: how long.
        report: what the ready file says besides the address.
        what: what is served, for people.
        transport: with the TCP header, in serial frames over TCP, or on a pseudo terminal.

    Raises:
        MillgateError: when the port cannot be had or the ready file cannot be written.
    """
    async with (
        stopping(outing.ready) as stop,
        chaos_modbus(
            registers,
            seed=seed,
            pace=pace,
            port=port,
            frames=TcpFrames() if transport == "tcp" else SerialFrames(),
            serial=transport == "rtu",
        ) as device,
    ):

        async def begin() -> None:
            device.plan = plan
            await device.take_shape(shapes)

        async def end() -> None:
            device.plan = Script([])
            await device.take_shape(())

        async with seasonal(season, begin, end):
            where = device.host if transport == "rtu" else f"{device.host}:{device.port}"
            place: Report = {"modbus_host": device.host, "modbus_port": device.port}
            await announce(
                outing.ready,
                {**({"modbus_serial": where} if transport == "rtu" else place), **report},
                tr(
                    f"{what} at {where} (Modbus {_SPOKEN[transport]})",
                    f"{what}：{where}（Modbus {_SPOKEN[transport]}）",
                ),
            )
            await until(stop, outing.duration_s)
    _tell(device.requests, device.played, tr("requests", "个请求"))


async def run_capture(device: CapturedDevice, *, port: int, outing: Outing) -> None:
    """Serve a captured device over Modbus TCP.

    Raises:
        MillgateError: when the port cannot be had or the ready file cannot be written.
    """
    source = f"{device.end[0]}:{device.end[1]}"
    await run_chaos_modbus(
        device,
        plan=Script([]),
        shapes=(),
        season=Season(),
        pace=Pace(),
        seed=1,
        port=port,
        outing=outing,
        report={"source": source, "units": device.units, "values": device.values},
        what=tr(f"{device.values} values of {source}", f"{source} 的 {device.values} 个值"),
    )


@dataclass(frozen=True, slots=True)
class Chaos:
    """How an OPC UA server misbehaves.

    Attributes:
        faults: names, of those that last and of those that happen at a moment.
        every_s: how often each of the latter happens.
        nodes, share, interval_s, delay_s, away_s, seed: see `chaos_opcua`.
    """

    faults: Collection[str]
    every_s: float
    nodes: int
    share: float
    interval_s: float
    delay_s: float
    away_s: float
    seed: int


async def run_chaos_opcua(chaos: Chaos, *, season: Season, port: int, outing: Outing) -> None:
    """Serve telling nodes over OPC UA, with faults.

    Raises:
        MillgateError: when the port cannot be had or the ready file cannot be written.
    """
    from simulators.faults.opcua_server import EVENTS, chaos_opcua  # noqa: PLC0415 - slow to load

    events = [name for name in chaos.faults if name in EVENTS]
    async with (
        stopping(outing.ready) as stop,
        chaos_opcua(
            nodes=chaos.nodes,
            seed=chaos.seed,
            share=chaos.share,
            interval_s=chaos.interval_s,
            delay_s=chaos.delay_s,
            away_s=chaos.away_s,
            port=port,
        ) as server,
    ):
        playing = asyncio.Event()

        async def begin() -> None:
            await server.suffer(chaos.faults)
            playing.set()

        async def end() -> None:
            playing.clear()
            await server.suffer(())

        async def happen() -> None:
            while events:
                await playing.wait()
                await asyncio.sleep(chaos.every_s)
                for name in events if playing.is_set() else ():
                    await server.play(name)

        async with seasonal(season, begin, end), company() as tasks:
            happening = tasks.create_task(happen(), name="chaos: events")
            await announce(
                outing.ready,
                {
                    "opcua_url": server.url,
                    "opcua_port": server.port,
                    "nodes": [
                        {"address": node.address, "type": node.type} for node in server.nodes
                    ],
                    "faults": list(chaos.faults),
                    "seed": chaos.seed,
                },
                tr(f"server at {server.url} (OPC UA)", f"服务器：{server.url}（OPC UA）"),
            )
            await until(stop, outing.duration_s)
            happening.cancel()
    _tell(server.turn, server.played, tr("changes of all values", "次全部值变化"))


async def run_proxy(
    target: tuple[str, int],
    *,
    hindrance: Hindrance,
    season: Season,
    seed: int,
    port: int,
    outing: Outing,
) -> None:
    """Relay connections to a target, with hindrance.

    Raises:
        MillgateError: when the port cannot be had or the ready file cannot be written.
    """
    async with stopping(outing.ready) as stop, proxying(target, port=port, seed=seed) as proxy:

        async def begin() -> None:
            proxy.hindrance = hindrance

        async def end() -> None:
            proxy.hindrance = FREE

        async with seasonal(season, begin, end):
            where, to = f"{proxy.host}:{proxy.port}", f"{target[0]}:{target[1]}"
            await announce(
                outing.ready,
                {"host": proxy.host, "port": proxy.port, "to": to, "seed": seed},
                tr(f"relay at {where} to {to}", f"转发 {where} → {to}"),
            )
            await until(stop, outing.duration_s)


@asynccontextmanager
async def seasonal(season: Season, begin: Turn, end: Turn) -> AsyncIterator[None]:
    """Begin and end the misbehaviour when its time comes."""
    if not season.after_s:
        await begin()

    async def turn() -> None:
        if season.after_s:
            await asyncio.sleep(season.after_s)
            await begin()
        if season.for_s is not None:
            await asyncio.sleep(season.for_s)
            await end()

    async with company() as tasks:
        turning = tasks.create_task(turn(), name="season")
        try:
            yield
        finally:
            turning.cancel()


def _tell(number: int, played: Mapping[str, int], of_what: str) -> None:
    what = ", ".join(f"{name} {times}" for name, times in Counter(played).most_common())
    sys.stdout.write(f"{number} {of_what}; {what or tr('nothing went wrong', '没有发生故障')}\n")

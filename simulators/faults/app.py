"""Runs the misbehaving devices until they are told to stop."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from protocols.language import tr
from simulators.captured import CapturedDevice
from simulators.faults.door import company
from simulators.faults.modbus_lies import Pace
from simulators.faults.modbus_server import chaos_modbus
from simulators.faults.modbus_wire import Registers
from simulators.faults.plan import Plan, Script
from simulators.faults.proxy import FREE, Hindrance, proxying
from simulators.running import Report, announce, stopping, until

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
) -> None:
    """Serve registers over Modbus TCP, with faults.

    Args:
        registers: what the device holds.
        plan, shapes, pace, seed: what goes wrong; see `chaos_modbus`.
        season: when.
        port: where it listens; 0 lets the kernel pick one.
        outing: how long.
        report: what the ready file says besides the address.
        what: what is served, for people.

    Raises:
        MillgateError: when the port cannot be had or the ready file cannot be written.
    """
    async with (
        stopping(outing.ready) as stop,
        chaos_modbus(registers, seed=seed, pace=pace, port=port) as device,
    ):

        async def begin() -> None:
            device.plan = plan
            await device.take_shape(shapes)

        async def end() -> None:
            device.plan = Script([])
            await device.take_shape(())

        async with _seasonal(season, begin, end):
            where = f"{device.host}:{device.port}"
            await announce(
                outing.ready,
                {"modbus_host": device.host, "modbus_port": device.port, **report},
                tr(f"{what} at {where} (Modbus TCP)", f"{what}：{where}（Modbus TCP）"),
            )
            await until(stop, outing.duration_s)
    _tell(device.requests, device.played)


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

        async with _seasonal(season, begin, end):
            where, to = f"{proxy.host}:{proxy.port}", f"{target[0]}:{target[1]}"
            await announce(
                outing.ready,
                {"host": proxy.host, "port": proxy.port, "to": to, "seed": seed},
                tr(f"relay at {where} to {to}", f"转发 {where} → {to}"),
            )
            await until(stop, outing.duration_s)


@asynccontextmanager
async def _seasonal(season: Season, begin: Turn, end: Turn) -> AsyncIterator[None]:
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


def _tell(requests: int, played: Mapping[str, int]) -> None:
    what = ", ".join(f"{name} {times}" for name, times in Counter(played).most_common())
    nothing = tr("nothing went wrong", "没有发生故障")
    sys.stdout.write(
        tr(f"{requests} requests; {what or nothing}\n", f"{requests} 个请求；{what or nothing}\n")
    )

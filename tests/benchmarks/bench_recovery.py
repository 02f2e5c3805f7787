"""How long collection takes to notice each fault, and to be whole again: figures to read.

    python -m tests.benchmarks.bench_recovery modbus
    python -m tests.benchmarks.bench_recovery opcua --runs 5

Each device is read by the agent's own collector with the settings that a configuration has by
default (Modbus: every second, 3 s for an answer; OPC UA: published every 500 ms, keep-alive and
answers 5 s). A fault begins after everything was read once, lasts for `--fault-s` seconds (those
that happen at a moment: at once) and ends. `noticed` is from its begin to the first value that
is not good, or the loss of contact; `whole` is from its end until every point has shown a good
value again. Many devices are read at the same time, each by itself.
"""

import argparse
import asyncio
import contextlib
import platform
import statistics
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent.collect import Collector
from protocols.drivers import load
from protocols.frame import Frame, Quality
from protocols.settings import check_settings
from simulators.faults.catalogue import MODBUS, MODBUS_SHAPES, OPCUA
from simulators.faults.modbus_lies import Pace
from simulators.faults.modbus_server import DEAD_UNIT, chaos_modbus
from simulators.faults.opcua_nodes import telling_nodes
from simulators.faults.opcua_server import EVENTS, chaos_opcua
from simulators.faults.plan import Script, Step
from simulators.faults.telling import TellingRegisters
from tests.benchmarks.common import table

PATIENCE_S = 120.0
NODES = 10
AWAY_S = 2.0
FROZEN_S = 30.0
AT_ONCE = 4
"""OPC-UA servers that run at the same time; they share the processor with what reads them."""

Turn = Callable[[], Awaitable[None]]
AT_CONNECT = frozenset(
    {"limit-0", "limit-1", "limit-100", "silent-limit-10", "two-sessions", "bad-node"}
)
"""Faults that show at a connect only: there `whole` is from its begin."""

UNITS = {"dead-unit": DEAD_UNIT, "silent-unit": DEAD_UNIT}


@dataclass
class Watch:
    """What the collector of one device handed on.

    Attributes:
        good: when each point last showed a good value, monotonic seconds.
        trouble: when the first value was not good since it was last set to None.
    """

    points: int
    good: dict[int, float] = field(default_factory=dict)
    trouble: float | None = None

    async def put(self, frame: Frame) -> None:
        now = time.monotonic()
        for place, column in enumerate(frame.columns.tolist()):
            qualities = frame.quality[:, place]
            if np.any((qualities != Quality.GOOD) & (qualities != Quality.ABSENT)):
                self.trouble = self.trouble or now
            if np.any(qualities == Quality.GOOD):
                self.good[column] = now

    def forget(self) -> None:
        self.trouble = None

    def whole_since(self, moment: float) -> bool:
        return len([at for at in self.good.values() if at > moment]) == self.points


@dataclass
class Figure:
    """What one run of one fault showed; seconds, None where nothing came to pass."""

    name: str
    noticed: float | None
    whole: float | None
    said: str


async def until(holds: Callable[[], bool]) -> bool:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 - the collector offers nothing to wait for
                await asyncio.sleep(0.005)
    except TimeoutError:
        return False
    return True


async def measure(
    name: str, settings: dict[str, Any], begin: Turn, end: Turn, lasting_s: float | None
) -> Figure:
    """Collect from a device while a fault comes and goes; None lasts until it is noticed."""
    config = check_settings(settings, load(settings["kind"]).Config, Path("agent.toml"))
    collector, stop = Collector(config, time.time_ns), asyncio.Event()
    watch = Watch(len(config.points))
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(collector.run(watch.put, stop))
        await until(lambda: watch.whole_since(0.0))
        await asyncio.sleep(1.5)
        watch.forget()
        began = time.monotonic()
        await begin()
        ended = time.monotonic()
        if lasting_s is None:
            await until(lambda: watch.trouble is not None)
            since = watch.trouble or ended
        else:
            await asyncio.sleep(lasting_s)
            since = ended = time.monotonic()
        said = collector.state.fault
        await end()
        whole = await until(lambda: watch.whole_since(since))
        ready = max(watch.good.values()) if whole else None
        reading.cancel()
    return Figure(
        name,
        None if watch.trouble is None else watch.trouble - began,
        None if ready is None else max(ready - ended, 0.0),
        said.partition(": ")[2] or said,
    )


async def first_connect(name: str, settings: dict[str, Any], points: int) -> Figure:
    """Collect from a device that has its fault from the start, until so many points are good."""
    config = check_settings(settings, load(settings["kind"]).Config, Path("agent.toml"))
    collector, watch = Collector(config, time.time_ns), Watch(points)
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(collector.run(watch.put, asyncio.Event()))
        whole = await until(lambda: watch.whole_since(0.0))
        reading.cancel()
    return Figure(name, None, max(watch.good.values()) - began if whole else None, "")


async def modbus(name: str, lasting_s: float) -> Figure:
    """Measure one fault of a Modbus device: five registers in each of three blocks."""
    async with chaos_modbus(TellingRegisters(), pace=Pace(away_s=AWAY_S)) as device:
        points = [
            {"id": f"{table}-{at}", "address": f"{table}:{at}", "type": "uint16", "unit": "1"}
            for table, first in (("holding", 95), ("holding", 160), ("input", 60))
            for at in range(first, first + 30)
        ]
        settings = {
            "id": "device",
            "kind": "modbus",
            "host": device.host,
            "port": device.port,
            "unit": UNITS.get(name, 1),
            "points": points,
        }
        writers: list[asyncio.StreamWriter] = []

        async def begin() -> None:
            if name == "one-connection":
                device.door.drop()
                writers.append((await asyncio.open_connection(device.host, device.port))[1])
            if name in MODBUS_SHAPES:
                await device.take_shape({name})
            else:
                device.plan = Script([Step(name, 1 if name == "restart" else None)])

        async def end() -> None:
            device.plan = Script([])
            await device.take_shape(())
            for writer in writers:
                writer.close()

        lasts = AWAY_S if name == "restart" else lasting_s
        return await measure(name, settings, begin, end, lasts)


async def opcua(name: str, lasting_s: float) -> Figure:
    """Measure one fault of an OPC-UA server."""
    async with chaos_opcua(nodes=NODES, interval_s=0.25, away_s=AWAY_S, share=0.5) as server:
        settings = {
            "id": "server",
            "kind": "opcua",
            "url": server.url,
            "security": "none",
            "points": [
                {"id": f"node-{node.number}", "address": node.address, "type": node.type}
                for node in telling_nodes(NODES)
            ],
        }

        if name in AT_CONNECT:
            await server.suffer({name})
            return await first_connect(name, settings, NODES - (name == "bad-node"))

        async def begin() -> None:
            if name in EVENTS:
                await server.play(name)
            else:
                await server.suffer({name})

        async def end() -> None:
            await server.suffer(())

        # A short silence is no loss: the server says itself what has changed meanwhile.
        lasting = FROZEN_S if name == "frozen" else lasting_s
        return await measure(name, settings, begin, end, None if name in EVENTS else lasting)


async def run(kind: str, names: Collection[str], runs: int, lasting_s: float) -> list[Figure]:
    """Measure every fault so many times, many at once."""
    one, most = (modbus, 64) if kind == "modbus" else (opcua, AT_ONCE)
    gate = asyncio.Semaphore(most)

    async def guarded(name: str) -> Figure:
        async with gate:
            return await one(name, lasting_s)

    found = []
    for _ in range(runs):
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(guarded(name)) for name in names]
        found += [task.result() for task in waiting]
    return found


def told(values: Sequence[float | None]) -> str:
    """Median and largest of what was measured; a dash where nothing came to pass."""
    seen = [value for value in values if value is not None]
    if not seen:
        return "-"
    missing = f" ({len(values) - len(seen)} never)" if len(seen) < len(values) else ""
    return f"{statistics.median(seen):.1f} / {max(seen):.1f}{missing}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=["modbus", "opcua"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--fault-s", type=float, default=8.0)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    names = [*MODBUS, *MODBUS_SHAPES] if given.kind == "modbus" else list(OPCUA)
    names = given.only or names
    with contextlib.suppress(KeyboardInterrupt):
        figures = asyncio.run(run(given.kind, names, given.runs, given.fault_s))
        rows = []
        for name in names:
            these = [figure for figure in figures if figure.name == name]
            says = sorted({figure.said for figure in these if figure.said})
            noticed, whole = ([getattr(each, at) for each in these] for at in ("noticed", "whole"))
            rows.append((name, told(noticed), told(whole), "; ".join(says)))
        table(
            f"seconds, median / largest of {given.runs}; fault of {given.fault_s:g} s; "
            f"{platform.machine()}, Python {platform.python_version()}",
            ("fault", "noticed", "whole", "said"),
            rows,
        )


if __name__ == "__main__":
    main()

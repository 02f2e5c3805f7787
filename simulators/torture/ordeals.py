"""Does one step of a plan to a yard, and leaves everything running."""

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

from simulators.faults.proxy import FREE, Hindrance, Way
from simulators.torture.plan import (
    CUT,
    FORGET,
    FULL_AGENT,
    FULL_BRAIN,
    KILL,
    OLD_AGENT,
    OLD_LEDGER,
    Step,
)
from simulators.torture.yard import KEEPALIVE_S, Yard

_FULL_S: Final = 6.0
_CUT_S: Final = 2.0 * KEEPALIVE_S
_AGED_S: Final = 6.0
_QUEUED_S: Final = 5.0

Ordeal: TypeAlias = Callable[[Yard, Step], Awaitable[None]]


async def undergo(yard: Yard, step: Step) -> None:
    """Do a step.

    Raises:
        MillgateError: when something does not start again.
    """
    await asyncio.sleep(step.traffic_s)
    await _ORDEALS[step.what](yard, step)


async def _kill(yard: Yard, step: Step) -> None:
    for at, victim in enumerate(step.victims):
        await asyncio.sleep(step.apart_s if at else 0.0)
        await yard.kill(victim)
    await asyncio.sleep(step.down_s)
    for victim in step.back:
        await yard.revive(victim)


async def _full_agent(yard: Yard, step: Step) -> None:
    await _full(yard, step, "mill", "sealed")


async def _full_brain(yard: Yard, step: Step) -> None:
    await _full(yard, step, "brain", "aggregator")


async def _full(yard: Yard, step: Step, end: str, writer: str) -> None:
    """Fill a disk for a while. The harder kind: its writer is killed meanwhile and starts on it."""
    disk = await yard.disk(end)
    await asyncio.to_thread(disk.fill)
    try:
        await asyncio.sleep(_FULL_S)
        if step.hard:
            await yard.kill(writer)
    finally:
        if step.hard and writer == "sealed":
            # Its supervisor starts it again while the disk is still full.
            await asyncio.sleep(_FULL_S)
        await asyncio.to_thread(disk.free)
    if step.hard:
        await yard.revive(writer)


async def _cut(yard: Yard, step: Step) -> None:
    """Part both ends from the broker for longer than it keeps what it knows of them.

    Nobody is told: connections are swallowed. The harder kind: the agent starts anew meanwhile.
    """
    hindrance = Hindrance("half-open")
    yard.agent_way.hindrance = yard.brain_way.hindrance = hindrance
    await asyncio.sleep(_CUT_S + step.down_s)
    # Its sessions end with it: it keeps none on a disk.
    await yard.kill("broker")
    await yard.revive("broker")
    if step.hard:
        await yard.kill("agent")
        await yard.revive("agent")
        await asyncio.sleep(_CUT_S)
    yard.agent_way.hindrance = yard.brain_way.hindrance = FREE


async def _forget(yard: Yard, step: Step) -> None:
    """Let the broker acknowledge what it will forget: it holds messages for a brain that is away.

    The harder kind: what the brain answered is forgotten as well, since nothing comes back.
    """
    if step.hard:
        yard.agent_way.hindrance = Hindrance("half-open", Way.BACK)
        await asyncio.sleep(_QUEUED_S)
    await yard.kill("aggregator")
    await asyncio.sleep(_QUEUED_S)
    await yard.kill("broker")
    await asyncio.sleep(step.down_s)
    yard.agent_way.hindrance = FREE
    await yard.revive("broker")
    await yard.revive("aggregator")


async def _old_agent(yard: Yard, step: Step) -> None:
    """Put the agent's disk back to what it was some seconds before.

    The harder kind: the copy was made while it ran, after a kill, so that something was on the way.
    """
    data, copy = yard.data("mill"), yard.mill.folder / "copy-of-mill"
    await (yard.kill("agent") if step.hard else yard.mill.stop("agent"))
    await asyncio.to_thread(_copy, data, copy)
    await yard.revive("agent")
    await asyncio.sleep(_AGED_S + step.down_s)
    await yard.kill("agent")
    await asyncio.to_thread(_put_back, copy, data)
    await yard.revive("agent")


async def _old_ledger(yard: Yard, step: Step) -> None:
    """Put the ledger back to what it was some seconds before.

    As the documents say: a copy made by SQLite's own means while it runs, put back without the
    position of the series. The harder kind: the whole disk, as it was after a kill.
    """
    data, copy = yard.data("brain"), yard.mill.folder / "copy-of-brain"
    if step.hard:
        await yard.kill("aggregator")
        await asyncio.to_thread(_copy, data, copy)
        await yard.revive("aggregator")
    else:
        await asyncio.to_thread(_copy_ledger, data / "ledger.db", copy)
    await asyncio.sleep(_AGED_S + step.down_s)
    await yard.kill("aggregator")
    if step.hard:
        await asyncio.to_thread(_put_back, copy, data)
    else:
        await asyncio.to_thread(_put_ledger_back, copy / "ledger.db", data)
    await yard.revive("aggregator")


def _copy(data: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*.sock", ".ballast"))


def _put_back(copy: Path, data: Path) -> None:
    # The folder itself may be where a disk is mounted.
    for path in data.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(copy, data, dirs_exist_ok=True)
    shutil.rmtree(copy)


def _copy_ledger(ledger: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    with (
        closing(sqlite3.connect(ledger, timeout=30)) as source,
        closing(sqlite3.connect(copy / "ledger.db")) as target,
    ):
        source.backup(target)


def _put_ledger_back(copy: Path, data: Path) -> None:
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm", "projection.json"):
        (data / name).unlink(missing_ok=True)
    shutil.copy(copy, data / "ledger.db")
    shutil.rmtree(copy.parent)


_ORDEALS: Final[Mapping[str, Ordeal]] = {
    KILL: _kill,
    FULL_AGENT: _full_agent,
    FULL_BRAIN: _full_brain,
    CUT: _cut,
    FORGET: _forget,
    OLD_AGENT: _old_agent,
    OLD_LEDGER: _old_ledger,
}

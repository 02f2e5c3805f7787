"""Does one step of a plan to a yard, and leaves everything running."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

from protocols.frame import SECOND
from protocols.language import tr
from simulators.faults.clock import Shift, clock_environment
from simulators.faults.disk import SmallDisk
from simulators.faults.proxy import FREE, Hindrance, Way
from simulators.torture.plan import (
    BRIM,
    CLOCK,
    CUT,
    DROP,
    FORGET,
    FULL_AGENT,
    FULL_BRAIN,
    KILL,
    OLD_AGENT,
    OLD_LEDGER,
    RESERVE,
    Step,
)
from simulators.torture.yard import KEEPALIVE_S, Yard, edit

_FULL_SLOTS: Final = 3
_CUT_S: Final = 2.0 * KEEPALIVE_S
_AGED_S: Final = 6.0
_QUEUED_S: Final = 5.0
_BRIM: Final = 16 << 10
_SMALL_MB: Final = 0.0625
_WRONG_S: Final = 3600

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
        await asyncio.sleep(_FULL_SLOTS * yard.slot_s)
        if step.hard:
            await yard.kill(writer)
    finally:
        if step.hard and writer == "sealed":
            # Its supervisor starts it again while the disk is still full.
            await asyncio.sleep(_FULL_SLOTS * yard.slot_s)
        await asyncio.to_thread(disk.free)
    if step.hard:
        await yard.revive(writer)


async def _reserve(yard: Yard, step: Step) -> None:
    """Fill the agent's disk up to its reserve while something waits: that must be delivered all the same.

    What is released meanwhile waits for room, and the reserve is taken again when there is some. The
    harder kind: the side that writes is killed, and starts on what is left of the reserve.
    """
    disk, reserve = await yard.disk("mill"), yard.data("mill") / "reserve"
    if not isinstance(disk, SmallDisk):
        # What a process may write does not tell it how much room there is.
        await _full_agent(yard, step)
        return
    taken = tr("the reserve was not taken", "预留空间未能占用")
    await yard.until(taken, lambda: asyncio.to_thread(reserve.exists))
    yard.agent_way.hindrance = Hindrance("half-open")
    await asyncio.sleep(_AGED_S + step.down_s)
    await asyncio.to_thread(disk.fill)
    try:
        if step.hard:
            await yard.kill("sealed")
        yard.agent_way.hindrance = FREE
        await yard.until(
            tr("what waited was not delivered from a full disk", "磁盘写满时等待的数据未能投递"),
            lambda: _nothing_waits(yard),
        )
    finally:
        yard.agent_way.hindrance = FREE
        await asyncio.to_thread(disk.free)
    await yard.until(
        tr("the reserve was not taken again", "预留空间未能重新占用"),
        lambda: asyncio.to_thread(reserve.exists),
    )


async def _delivers(yard: Yard) -> bool:
    acknowledged = await yard.told("outputs", "acknowledged")
    await asyncio.sleep(_AGED_S)
    later = await yard.told("outputs", "acknowledged")
    return acknowledged is not None and later is not None and later > acknowledged


async def _nothing_waits(yard: Yard) -> bool:
    return bool(await yard.told("outputs", "waiting_batches") == 0)


async def _brim(yard: Yard, step: Step) -> None:
    """Fill the brain's disk but for a little: what it writes fails half-way, again and again.

    The harder kind: it is killed meanwhile, and starts on what is left.
    """
    disk = await yard.disk("brain")
    but = int(_BRIM * (1 + step.down_s))
    await asyncio.to_thread(*((disk.fill, but) if isinstance(disk, SmallDisk) else (disk.fill,)))
    try:
        await asyncio.sleep(_FULL_SLOTS * yard.slot_s + step.down_s)
        if step.hard:
            await yard.kill("aggregator")
    finally:
        await asyncio.to_thread(disk.free)
    if step.hard:
        await yard.revive("aggregator")


async def _drop(yard: Yard, step: Step) -> None:
    """Keep the brain away until an agent that may keep only a little gives up its oldest.

    The broker forgets what it was given. The harder kind: the agent is killed while it gives up.
    """
    config = yard.mill.agent_toml
    before = await asyncio.to_thread(config.read_text, "utf-8")
    await _configure(yard, lambda: _keep_little(config))
    gone = await _given_up(yard)
    # What the counters rose by meanwhile is delivered first: lost are then values of single slots.
    await yard.until(tr("nothing is delivered", "数据未能投递"), lambda: _delivers(yard))
    await yard.kill("aggregator")
    await yard.kill("broker")
    await yard.until(
        tr("nothing was given up", "未放弃任何数据"),
        lambda: _gave_up(yard, gone),
    )
    if step.hard:
        await yard.kill("agent")
        await yard.revive("agent")
    await asyncio.sleep(_AGED_S + step.down_s)
    await yard.revive("broker")
    await yard.revive("aggregator")
    await _configure(yard, lambda: config.write_text(before, "utf-8"))


def _keep_little(config: Path) -> None:
    edit(config, "max_mb = 1024 ", f"max_mb = {_SMALL_MB} ")
    edit(config, 'when_full = "pause"', 'when_full = "drop-oldest"')


async def _configure(yard: Yard, change: Callable[[], object]) -> None:
    await yard.mill.stop("agent")
    await asyncio.to_thread(change)
    await yard.revive("agent")


async def _given_up(yard: Yard) -> int:
    async def known() -> bool:
        return await yard.told("outputs", "given_up") is not None

    await yard.until(tr("the agent does not answer", "代理程序无应答"), known)
    return await yard.told("outputs", "given_up") or 0


async def _gave_up(yard: Yard, before: int) -> bool:
    return (await yard.told("outputs", "given_up") or 0) > before


async def _wrong_clock(yard: Yard, step: Step) -> None:
    """Start the agent with a clock that is an hour behind, and then with the right one.

    It must say so and release nothing meanwhile. The harder kind: an hour ahead, while the machine ran
    on, so that only its running time tells.
    """
    hours = _WRONG_S if step.hard else -_WRONG_S
    await yard.kill("agent")
    with tempfile.TemporaryDirectory(prefix="millgate-clock-") as folder:
        other = clock_environment(Path(folder), Shift(hours * SECOND))
        await yard.mill.start("agent", ready=False, environment=other)
        await yard.until(
            tr("the agent believes a wrong clock", "代理程序相信了错误的时钟"),
            lambda: _is_halted(yard),
        )
        await asyncio.sleep(_AGED_S + step.down_s)
        await yard.kill("agent")
    await yard.revive("agent")


async def _is_halted(yard: Yard) -> bool:
    # By a clock from before it was signed, a policy is not valid yet: no device is even read.
    found = await yard.told("policy", "halted")
    return bool(found) or bool(await yard.told("problem"))


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
    RESERVE: _reserve,
    BRIM: _brim,
    CUT: _cut,
    FORGET: _forget,
    DROP: _drop,
    OLD_AGENT: _old_agent,
    OLD_LEDGER: _old_ledger,
    CLOCK: _wrong_clock,
}

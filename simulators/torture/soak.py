"""A long run under load with a fault every minute: everything arrives, and nothing grows.

The processes of ours live all the time, so that growth would show: faults hit what is around them.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from protocols.language import tr
from simulators.faults.proxy import FREE, Hindrance
from simulators.torture.flat import Flatness, Watched, judge_flat
from simulators.torture.run import Figures, Violation, settle, values_since
from simulators.torture.session import console_for, equipment
from simulators.torture.yard import Wishes, Yard, yard

_LASTS_S: Final = 15.0
_DOWN_S: Final = 3.0
_SAMPLE_S: Final = 5.0
_WAYS: Final = ("delay", "throttle", "cut", "stall", "half-open", "drop-bytes")
_MEBI: Final = 1 << 20


@dataclass(slots=True)
class Soak:
    """A running soak.

    Attributes:
        watched: the processes of ours, by name.
        faults: what was done, in order.
    """

    yard: Yard
    seconds: float
    every_s: float
    chance: random.Random
    watched: dict[str, Watched] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    async def sample(self) -> None:
        """Look at every process now and then, for ever."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            pids = await self.yard.sides()
            for name in ("agent", "aggregator"):
                process = self.yard.mill.processes.get(name)
                if process is not None and process.returncode is None:
                    pids[name] = process.pid
            for name, pid in pids.items():
                self.watched.setdefault(name, Watched()).add(pid, loop.time() - began)
            await asyncio.sleep(_SAMPLE_S)

    async def suffer(self, console: Console) -> None:
        """Do something every minute until the time is over, and then wait until all is whole."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.seconds
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(self.every_s, left))
            self.yard.mill.check_alive()
            if loop.time() < until:
                name = self.chance.choice(self._possible())
                self.faults.append(name)
                console.print(f"[{len(self.faults)}] {name}", highlight=False)
                await self._do(name)

    def _possible(self) -> list[str]:
        ways = [f"{way} {fault}" for way in ("agent", "brain") for fault in _WAYS]
        servers = [f"kill {name}" for name in ("broker", *self.yard.servers) if name != "broker"]
        return [*ways, "kill broker", *servers, "full mill", "full brain"]

    async def _do(self, name: str) -> None:
        what, whom = name.split()
        if what == "kill":
            await self.yard.kill(whom)
            await asyncio.sleep(_DOWN_S)
            await self.yard.revive(whom)
        elif what == "full":
            disk = await self.yard.disk(whom)
            await asyncio.to_thread(disk.fill)
            await asyncio.sleep(_LASTS_S)
            await asyncio.to_thread(disk.free)
        else:
            way = self.yard.agent_way if what == "agent" else self.yard.brain_way
            way.hindrance = Hindrance(whom, rate=4000)
            await asyncio.sleep(_LASTS_S)
            way.hindrance = FREE


async def run_soak(folder: Path, seconds: float, wishes: Wishes, every_s: float) -> None:
    """Soak a mill in a folder and print what comes of it.

    Raises:
        MillgateError: when a promise was broken, something grew, or something does not start.
    """
    console = console_for()
    console.print(tr("Setting up a mill ...", "正在搭建工厂……"))
    async with yard(folder, wishes) as found:
        console.print(equipment(found), soft_wrap=True)
        await found.mill.first_values(asyncio.Event())
        chance = random.Random(wishes.seed)  # noqa: S311 - repeatable on purpose
        soak = Soak(found, seconds, every_s, chance)
        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(soak.sample(), name="soak: samples")
            await soak.suffer(console)
            sampling.cancel()
        await values_since(found, time.time_ns(), tr("the last fault", "最后一次故障"))
        end = await settle(found, 0)
    verdicts = {
        name: (one, judge_flat(one.samples, seconds / 3)) for name, one in soak.watched.items()
    }
    console.print(_table(verdicts, end, len(soak.faults), seconds))
    _check(verdicts)


def _table(
    verdicts: dict[str, tuple[Watched, Flatness]], end: Figures, faults: int, seconds: float
) -> Table:
    table = Table(
        title=tr(
            f"{seconds / 60:.0f} minutes, {faults} faults; {end.judged} values judged: lost {end.lost}, "
            f"doubled {end.doubled}, wrong {end.wrong}",
            f"{seconds / 60:.0f} 分钟，{faults} 次故障；核对 {end.judged} 个值：丢失 {end.lost}，"
            f"重复 {end.doubled}，错误 {end.wrong}",
        )
    )
    for head in (
        tr("process", "进程"),
        tr("memory, first half", "内存（前半）"),
        tr("second half", "后半"),
        tr("in an hour", "每小时"),
        tr("descriptors", "描述符"),
        tr("restarts", "重启"),
        tr("flat", "平稳"),
    ):
        table.add_column(head)
    for name, (watched, one) in sorted(verdicts.items()):
        table.add_row(
            name,
            f"{one.first / _MEBI:.1f} MiB",
            f"{one.second / _MEBI:.1f} MiB",
            f"{one.hourly / _MEBI:+.1f} MiB",
            f"{one.first_files} / {one.second_files}",
            str(watched.restarts),
            tr("yes", "是") if one.flat and not watched.restarts else tr("NO", "否"),
        )
    return table


def _check(verdicts: dict[str, tuple[Watched, Flatness]]) -> None:
    grown = [name for name, (_, one) in verdicts.items() if not one.flat]
    ended = [name for name, (watched, _) in verdicts.items() if watched.restarts]
    if grown or ended:
        raise Violation(
            tr(
                "memory or descriptors are not flat, or a process ended",
                "内存或描述符不平稳，或有进程退出",
            ),
            where=", ".join(sorted({*grown, *ended})),
        )

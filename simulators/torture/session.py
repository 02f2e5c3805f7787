"""One torture from begin to end, told step by step."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from protocols.language import tr
from simulators.torture.plan import Step, make_plan, title
from simulators.torture.report import make_report
from simulators.torture.run import Figures, Result, settle, torture
from simulators.torture.telling import line, summary
from simulators.torture.yard import Wishes, Yard, yard


async def run_torture(
    folder: Path,
    kills: int,
    wishes: Wishes,
    ordeals: Sequence[str],
    *,
    as_json: bool = False,
) -> None:
    """Torture a mill in a folder and print what comes of it.

    Args:
        folder: where.
        kills: how many processes are killed.
        wishes: how the mill is to be.
        ordeals: what else is done.
        as_json: print the figures at the end as one line of JSON, and nothing else to standard output.

    Raises:
        MillgateError: when a promise was broken, or something does not start.
    """
    console = console_for(aside=as_json)
    console.print(tr("Setting up a mill ...", "正在搭建工厂……"))
    results: list[Result] = []
    end: Figures | None = None
    began, planned, violation = time.monotonic(), 0, ""
    try:
        async with yard(folder, wishes) as found:
            console.print(equipment(found), soft_wrap=True)
            steps = make_plan(kills, wishes.seed, found.victims, ordeals)
            planned = len(steps)
            end = await _go_through(console, found, steps, results)
    except BaseException as fault:
        violation = str(fault) or type(fault).__name__
        raise
    finally:
        took_s = time.monotonic() - began
        report = make_report(
            results, end, seed=wishes.seed, planned=planned, took_s=took_s, violation=violation
        )
        console.print(summary(results, end))
        if as_json:
            print(report.as_json(), flush=True)
        else:
            console.print(report.in_words(), soft_wrap=True, highlight=False)


def console_for(*, aside: bool = False) -> Console:
    """A file has no width of its own, and tables are not to be cut there; aside is standard error."""
    console = Console(stderr=aside)
    return console if console.is_terminal else Console(width=120, stderr=aside)


async def _go_through(
    console: Console, found: Yard, steps: list[Step], results: list[Result]
) -> Figures:
    console.print(title(steps[0], len(steps)) if steps else "", highlight=False)
    async for result in torture(found, steps):
        results.append(result)
        console.print(line(result), soft_wrap=True, highlight=False)
        for step in steps[result.step.number : result.step.number + 1]:
            console.print(title(step, len(steps)), highlight=False)
    return await settle(found, results[-1].figures.declared if results else 0)


def equipment(found: Yard) -> str:
    """Return what the yard is made of, for people."""
    real = ", ".join(sorted(found.servers)) or tr("none", "无")
    disks = (
        tr("small disks of their own", "独立小磁盘") if found.disks else tr("quotas", "写入限额")
    )
    return tr(
        f"real servers: {real}; full disks by {disks}; slots of {found.wishes.slot}; "
        f"seed {found.wishes.seed}; page {found.mill.page}",
        f"真实服务：{real}；磁盘写满方式：{disks}；时段 {found.wishes.slot}；"
        f"种子 {found.wishes.seed}；页面 {found.mill.page}",
    )

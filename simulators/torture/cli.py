"""`millgate sim torture`: pull every plug, and judge after each."""

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from protocols.errors import MillgateError
from protocols.language import tr
from simulators.options import fail
from simulators.torture.plan import ORDEALS, VICTIMS, make_plan, title

TORTURE_HELP: Final = tr(
    "Kill, fill, cut and restore a whole mill of real processes, and judge it after each.\n\n"
    "SIGKILL at random moments for the agent, either of its sides, the aggregator, the broker and the "
    "store, alone and in pairs; full disks, long cuts, a broker that forgets, old copies put back. With "
    "Mosquitto and InfluxDB where they are installed, as root on small disks of its own. The same seed "
    "gives the same steps. The exit code is 0 only if nothing was lost but what was declared, nothing "
    "doubled, nothing wrong.\n\n"
    "\b\nExamples:\n  millgate sim torture --kills 10 --seed 7\n"
    "  millgate sim torture --kills 500 --seed 1 --folder torture",
    "对一座由真实进程组成的工厂反复强制终止、写满磁盘、断网、放回旧副本，每次之后都核对。\n\n"
    "在随机时刻以 SIGKILL 终止代理程序、其任一侧、聚合器、消息代理与存储，单独或成对；另有磁盘写满、长时间断网、"
    "会遗忘的消息代理、放回旧副本。已安装 Mosquitto 与 InfluxDB 时使用真实程序；以 root 运行时使用独立的小磁盘。"
    "相同种子得到相同步骤。仅当除已声明者外无丢失、无重复、无错误时，退出码为 0。\n\n"
    "\b\n示例：\n  millgate sim torture --kills 10 --seed 7\n"
    "  millgate sim torture --kills 500 --seed 1 --folder torture",
)


def torture_command(
    kills: Annotated[
        int,
        typer.Option(
            min=0, max=100_000, help=tr("how many processes are killed", "强制终止多少次")
        ),
    ] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help=tr("decides every choice", "决定所有随机选择"))
    ] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(help=tr("keep everything in this new folder", "在此新目录中保留全部文件")),
    ] = None,
    *,
    ordeals: Annotated[
        bool,
        typer.Option(
            help=tr(
                "also full disks, cuts, a forgetful broker, old copies",
                "同时进行磁盘写满、断网、代理遗忘、旧副本等考验",
            )
        ),
    ] = True,
    embedded: Annotated[
        bool,
        typer.Option(
            "--embedded",
            help=tr(
                "the embedded broker and store, even where others are installed",
                "即使装有其他程序也使用内置消息代理与存储",
            ),
        ),
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help=tr("print the steps and end", "只打印步骤"))
    ] = False,
) -> None:
    """Torture a mill."""
    if plan_only:
        steps = make_plan(kills, seed, VICTIMS, ORDEALS if ordeals else ())
        for step in steps:
            typer.echo(title(step, len(steps)))
        return
    from simulators.torture.session import run_torture  # noqa: PLC0415 - slow to load
    from simulators.torture.yard import Wishes  # noqa: PLC0415 - slow to load

    place = folder or Path(tempfile.mkdtemp(prefix="millgate-torture-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(run_torture(place, kills, Wishes(seed, embedded=embedded), ordeals=ordeals))
    except MillgateError as fault:
        typer.echo(tr(f"everything is kept in {place}", f"全部文件保留在 {place}"))
        fail(fault)
    if folder is None:
        shutil.rmtree(place, ignore_errors=True)

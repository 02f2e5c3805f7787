"""`millgate sim torture`: pull every plug, and judge after each."""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from enum import StrEnum
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


SOAK_HELP: Final = tr(
    "Run a whole mill for long, under load and with a fault every minute; judge what arrived and what grew.\n\n"
    "Faults hit the network, the broker, the store and the disks; the processes of ours live on. Flat means: "
    "after a third of the time, memory of the second half at most 5 % and 4 MiB above the first half, and at "
    "most 4 more descriptors.\n\n"
    "\b\nExample:\n  millgate sim soak --minutes 60 --rate 20",
    "在负载下长时间运行一座工厂，每分钟施加一次故障，核对到达的数据并检查资源增长。\n\n"
    "故障作用于网络、消息代理、存储与磁盘；本系统进程始终存活。平稳的含义：前三分之一时间为预热，其后后半段内存不超过"
    "前半段的 105% 加 4 MiB，描述符最多多 4 个。\n\n"
    "\b\n示例：\n  millgate sim soak --minutes 60 --rate 20",
)
_POLL_MS: Final = 500


class Report(StrEnum):
    """How figures are printed."""

    TEXT = "text"
    JSON = "json"


def soak_command(
    minutes: Annotated[
        float, typer.Option(min=0.1, max=10_000, help=tr("how long", "运行多少分钟"))
    ] = 60.0,
    rate: Annotated[
        int,
        typer.Option(
            min=1,
            max=100,
            help=tr(
                "how many times as often as in the demo devices are read", "抄表频率为演示的多少倍"
            ),
        ),
    ] = 20,
    every: Annotated[
        int, typer.Option(min=5, max=3600, help=tr("seconds between faults", "故障间隔，秒"))
    ] = 60,
    seed: Annotated[
        int, typer.Option(min=0, help=tr("decides every choice", "决定所有随机选择"))
    ] = 1,
    folder: Annotated[
        Path | None,
        typer.Option(help=tr("keep everything in this new folder", "在此新目录中保留全部文件")),
    ] = None,
    *,
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
) -> None:
    """Soak a mill."""
    from simulators.torture.soak import run_soak  # noqa: PLC0415 - slow to load
    from simulators.torture.yard import Wishes  # noqa: PLC0415 - slow to load

    poll = f"{max(_POLL_MS // rate, 1)}ms"
    wishes = Wishes(seed, slot="1s", poll=poll, embedded=embedded)
    _run_in(folder, lambda place: run_soak(place, minutes * 60, wishes, every))


def _run_in(
    folder: Path | None,
    work: Callable[[Path], Coroutine[None, None, None]],
    aside: bool = False,  # noqa: FBT001, FBT002 - where the last line goes
) -> None:
    """Run in a folder that is kept when it was named, or when something is found."""
    place = folder or Path(tempfile.mkdtemp(prefix="millgate-torture-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(work(place))
    except MillgateError as fault:
        typer.echo(tr(f"everything is kept in {place}", f"全部文件保留在 {place}"), err=aside)
        fail(fault)
    if folder is None:
        shutil.rmtree(place, ignore_errors=True)


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
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORDEAL",
            help=tr(
                "of the ordeals only this one; may be given several times: ",
                "只进行此项考验，可多次给出：",
            )
            + ", ".join(ORDEALS),
        ),
    ] = None,
    report: Annotated[
        Report,
        typer.Option(
            help=tr(
                "how the figures at the end are printed; json: one line, all else goes to standard error",
                "结尾数字的输出方式；json：单行输出，其余内容写到标准错误",
            )
        ),
    ] = Report.TEXT,
    plan_only: Annotated[
        bool, typer.Option("--plan", help=tr("print the steps and end", "只打印步骤"))
    ] = False,
) -> None:
    """Torture a mill."""
    try:
        chosen = _chosen(only or []) if ordeals else ()
    except MillgateError as fault:
        fail(fault)
    if plan_only:
        steps = make_plan(kills, seed, VICTIMS, chosen)
        for step in steps:
            typer.echo(title(step, len(steps)))
        return
    from simulators.torture.session import run_torture  # noqa: PLC0415 - slow to load
    from simulators.torture.yard import Wishes  # noqa: PLC0415 - slow to load

    wishes = Wishes(seed, embedded=embedded)
    as_json = report is Report.JSON
    _run_in(
        folder, lambda place: run_torture(place, kills, wishes, chosen, as_json=as_json), as_json
    )


def _chosen(only: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in only if name not in ORDEALS]
    if unknown:
        raise MillgateError(
            tr("there is no such ordeal", "没有这项考验"),
            where=f"--only {unknown[0]}",
            remedy=tr("choose of: ", "可选：") + ", ".join(ORDEALS),
        )
    return tuple(name for name in ORDEALS if name in only) or ORDEALS

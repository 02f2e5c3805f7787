"""`millgate agent new-epoch`: go on at once after a clock that was ahead was set right."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from agent.config import read_config
from protocols.frame import SECOND
from protocols.language import tr
from protocols.settings import duration_text

_HELP: Final = tr(
    "After a clock that was ahead was set right: let a stopped agent go on in a new epoch: after five "
    "even minutes ([clock] steady) where the clock was moved since it last ran.\n\n"
    "Counters take new baselines: what they rose by since the last release is lost, and that is declared, "
    "signed. Without this command nothing leaves until the time up to which slots are used up, and "
    "nothing that counters count is lost.\n\n"
    "Example: millgate agent new-epoch mill/agent.toml",
    "偏快的时钟校正之后：让已停止的代理程序在新纪元中继续；停止以来时钟被拨动过的，"
    "先平稳运行五分钟（[clock] steady）。\n\n"
    "计数器采用新基线：自上次放行以来的增量丢失，并作签名声明。不执行本命令，则到已用时段的时间为止"
    "不放行任何数据，但计数不丢失。\n\n"
    "示例：millgate agent new-epoch mill/agent.toml",
)


def new_epoch(
    path: Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))],
) -> None:
    """Let a stopped agent go on in a new epoch."""
    from agent.clock import ClockWatch  # noqa: PLC0415 - the command line starts fast without it
    from agent.kept_clock import KeptClock  # noqa: PLC0415 - same
    from agent.new_epoch import begin_new_epoch  # noqa: PLC0415 - same

    config = read_config(path)
    epoch = begin_new_epoch(config, time.time_ns() // SECOND)
    typer.echo(
        tr(
            f"It goes on in epoch {epoch} when it is started: millgate agent run {path}",
            f"启动后将在纪元 {epoch} 中继续：millgate agent run {path}",
        )
    )
    # The same look at the clock as the agent takes when it starts.
    steady = config.clock.steady
    moved = ClockWatch(steady_ns=steady, kept=KeptClock(config.spool.folder)).fault
    typer.echo(_wait(duration_text(steady)) if moved else _no_wait())


def _wait(span: str) -> str:
    return tr(
        f"The clock was moved since the agent ran last: once started it reads its devices, but nothing leaves for "
        f"{span}, longer only if the clock is moved or the agent started again. 'agent status' says until when.",
        f"代理程序上次运行以来时钟被拨动过：启动后照常读取设备，但 {span} 内不放行任何数据"
        "（再次拨动时钟或重启代理程序才会更久）。'agent status' 显示到何时为止。",
    )


def _no_wait() -> str:
    return tr(
        "The clock was not moved since the agent ran last, or the machine was started anew: it does not wait.",
        "代理程序上次运行以来时钟未被拨动，或机器已重新启动：无需等待。",
    )


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate agent`."""
    app.command("new-epoch", help=_HELP)(new_epoch)

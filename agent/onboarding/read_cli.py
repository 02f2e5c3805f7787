"""`millgate agent read`: what devices say now, as the agent would take it; for the eye only."""

import asyncio
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from agent.config import read_config
from agent.onboarding import app, terminal
from agent.onboarding.options import AgentToml, RawElsewhere
from agent.onboarding.points_cli import device_of
from agent.onboarding.seen import Seen
from protocols.language import tr

HELP: Final = tr(
    "Show what devices say now, with its quality, as the agent would take it.\n\n"
    "Values go to this terminal only; nothing is written or sent.\n\n"
    "\b\nExamples:\n"
    "  millgate agent read mill/agent.toml\n"
    "  millgate agent read mill/agent.toml meter-1 --watch",
    "显示设备当前读数及其质量，与代理程序所见一致。\n\n"
    "数值仅显示在本终端，不写入任何文件，也不发送。\n\n"
    "\b\n示例：\n"
    "  millgate agent read mill/agent.toml\n"
    "  millgate agent read mill/agent.toml meter-1 --watch",
)


def read(
    path: AgentToml,
    device: Annotated[
        str | None, typer.Argument(help=tr("id of the device; else all", "设备标识；默认全部"))
    ] = None,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help=tr("go on until Ctrl-C", "持续显示，直到 Ctrl-C"))
    ] = False,
    wait: Annotated[
        float,
        typer.Option(min=0.1, max=600, help=tr("wait so many seconds at most", "最多等待的秒数")),
    ] = 10.0,
    redirect: RawElsewhere = False,
) -> None:
    """Show what devices say now."""
    terminal.raw_values_may_be_shown(redirect=redirect)
    devices = [device_of(path, device)] if device is not None else read_config(path).devices
    console = Console()
    seen = [Seen(one) for one in devices]
    if watch:
        _watch(console, seen)
        return
    asyncio.run(app.once(seen, wait))
    for one in seen:
        console.print(one.table())
    if any(one.fault is not None or one.missing for one in seen):
        raise typer.Exit(1)


def _watch(console: Console, seen: list[Seen]) -> None:
    with Live(console=console, auto_refresh=False) as live:

        def draw() -> None:
            grid = Table.grid()
            for one in seen:
                grid.add_row(one.table())
            live.update(grid, refresh=True)

        try:
            asyncio.run(app.watch(seen, draw))
        except KeyboardInterrupt:
            return

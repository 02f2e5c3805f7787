"""`millgate aggregator service`: the systemd unit for an installation."""

from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.config import read_config
from protocols.language import tr
from protocols.unit import write_unit

_HELP: Final = tr(
    "Print a systemd unit with watchdog and sandbox for this installation.\n\n"
    "Example: millgate aggregator service brain/aggregator.toml --user millgate --out millgate-aggregator.service",
    "输出适用于此安装的 systemd 单元文件，带看门狗与沙箱。\n\n"
    "示例：millgate aggregator service brain/aggregator.toml --user millgate --out millgate-aggregator.service",
)


def service(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    user: Annotated[str, typer.Option(help=tr("whom it runs as", "运行用户"))] = "",
    out: Annotated[Path | None, typer.Option(help=tr("write it here", "写入此文件"))] = None,
) -> None:
    """Print a systemd unit."""
    config = read_config(path)
    store = getattr(config.store, "path", None)
    data = [config.ledger.parent, *([store] if isinstance(store, Path) else [])]
    write_unit("aggregator", path, data, user, out)


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate aggregator`."""
    app.command("service", help=_HELP)(service)

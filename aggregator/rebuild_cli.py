"""`millgate aggregator rebuild`: write all series anew from the ledger."""

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.alarms_cli import ledger_exists
from aggregator.authority import log_path
from aggregator.config import AggregatorConfig, read_config
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.status import NotRunning, ask, only_one
from security.admin_log import record_admin

_LOOK_S: Final = 1.0
_SAID_S: Final = 5.0
_HELP: Final = tr(
    "Write all series anew from the ledger, which is what they follow from.\n\n"
    "A running aggregator does it by itself and goes on receiving; else it is done here. Series are "
    "incomplete meanwhile. What is interrupted goes on at the next start.\n\n"
    "Example: millgate aggregator rebuild brain/aggregator.toml",
    "由账本重新生成全部序列（序列完全取决于账本）。\n\n"
    "聚合器运行时由它自己完成，并继续接收；否则在此完成。期间序列不完整。若被中断，下次启动时继续。\n\n"
    "示例：millgate aggregator rebuild brain/aggregator.toml",
)


def rebuild(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    wait: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option(
            help=tr("wait until a running aggregator has done it", "等待运行中的聚合器完成")
        ),
    ] = True,
) -> None:
    """Write all series anew."""
    from aggregator.projection import Cursor  # noqa: PLC0415 - the command line starts fast without it

    config = read_config(path)
    ledger_exists(config)
    # Without the key the series would be removed and could not be written.
    config.brain.opening()
    record_admin(log_path(config), "rebuild")
    cursor = Cursor(config.ledger.with_name("projection.json"))
    cursor.ask_anew()
    try:
        ask(config.socket)
    except NotRunning:
        with only_one(config.ledger.parent):
            _here(config)
    else:
        if wait:
            _watch(config, cursor.wanted)
        else:
            typer.echo(
                tr(
                    "the running aggregator writes all series anew",
                    "运行中的聚合器正在重新生成全部序列",
                )
            )


def _here(config: AggregatorConfig) -> None:
    from aggregator.app import make_projection, make_stores  # noqa: PLC0415 - same as above
    from aggregator.feed import Feed, Followed  # noqa: PLC0415 - same
    from aggregator.inbox import Opened  # noqa: PLC0415 - same

    factories = config.factories()
    feed = Feed(config.ledger.with_name("feed.db"), time.time_ns)
    found = make_stores(config)
    targets = {bucket: Followed(store, bucket, feed) for bucket, store in found.items()}
    projection = make_projection(config, lambda: factories, Opened(), targets)
    total, said = 0, time.monotonic()
    try:
        while more := projection.step():
            total += more
            if time.monotonic() - said > _SAID_S:
                said = time.monotonic()
                typer.echo(tr(f"{total} batches", f"{total} 个批次"))
        while projection.derive():
            pass
    except MillgateError as fault:
        raise MillgateError(
            fault.what,
            where=fault.where,
            remedy=tr(
                f"{fault.remedy}; then run this again, or start the aggregator: it goes on",
                f"{fault.remedy}；然后重新执行，或启动聚合器，将自动继续",
            ),
        ) from None
    finally:
        projection.close()
        for store in targets.values():
            store.close()
        feed.close()
    typer.echo(tr(f"all series are written: {total} batches", f"全部序列已生成：{total} 个批次"))


def _watch(config: AggregatorConfig, wanted: Path) -> None:
    said = time.monotonic()
    while True:
        time.sleep(_LOOK_S)
        report = ask(config.socket)
        if report["store_fault"]:
            raise MillgateError(
                str(report["store_fault"]),
                remedy=tr(
                    "mend the store; the running aggregator goes on by itself",
                    "请修复存储；运行中的聚合器会自动继续",
                ),
            )
        if not wanted.exists() and not report["waiting"]:
            typer.echo(tr("all series are written", "全部序列已生成"))
            return
        if time.monotonic() - said > _SAID_S:
            said = time.monotonic()
            left = report["waiting"]
            typer.echo(tr(f"{left} batches left", f"剩余 {left} 个批次"))


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate aggregator`."""
    app.command("rebuild", help=_HELP)(rebuild)

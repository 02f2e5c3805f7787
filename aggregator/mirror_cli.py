"""`millgate aggregator mirror`: keep the numbers in VictoriaMetrics in step."""

import random
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.config import BUCKETS, read_config
from aggregator.stores import StoreUnavailable
from protocols.language import tr
from protocols.settings import check_settings

_EVERY_S: Final = 5.0
_LONGEST_S: Final = 60.0


def mount(app: typer.Typer) -> None:
    """Put the command into the aggregator's."""
    app.command(
        "mirror",
        help=tr(
            "Copy all numbers to VictoriaMetrics, and go on as they change, until stopped. Start it "
            "with -retentionPeriod=100y -dedup.minScrapeInterval=1ms.\n\n"
            "Example: millgate aggregator mirror brain/aggregator.toml --url http://127.0.0.1:8428",
            "将全部数值复制到 VictoriaMetrics，并随变更持续更新，直到停止。VictoriaMetrics 须以 "
            "-retentionPeriod=100y -dedup.minScrapeInterval=1ms 启动。\n\n"
            "示例：millgate aggregator mirror brain/aggregator.toml --url http://127.0.0.1:8428",
        ),
    )(mirror)


def mirror(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    url: Annotated[str, typer.Option(help=tr("of VictoriaMetrics", "VictoriaMetrics 的地址"))],
    token_file: Annotated[
        Path | None, typer.Option(help=tr("token of a proxy before it", "前置代理的令牌文件"))
    ] = None,
    once: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option(help=tr("stop when it is in step", "同步后即停止"))
    ] = False,
) -> None:
    """Copy all numbers to VictoriaMetrics, and go on as they change."""
    from aggregator.app import make_stores  # noqa: PLC0415 - the command line starts fast without it
    from aggregator.feed import Feed  # noqa: PLC0415 - same
    from aggregator.mirror import Mirror  # noqa: PLC0415 - same
    from aggregator.stores.influx import Config, Store  # noqa: PLC0415 - same
    from aggregator.stores.influx.link import Called  # noqa: PLC0415 - same

    config = read_config(path)
    given = {"kind": "influx", "url": url, "token_file": token_file}
    target = check_settings(given, Config, Path("mirror"))
    called = Called("VictoriaMetrics", "--url", "--token-file", "")
    targets = {bucket: Store(target, bucket, called) for bucket in BUCKETS}
    sources = make_stores(config)
    feed = Feed(config.ledger.with_name("feed.db"), time.time_ns)
    copier = Mirror(feed, sources, targets, config.ledger.with_name("mirror.position"))
    rows, wait_s = 0, _EVERY_S
    try:
        while True:
            try:
                copied, more = copier.step()
                rows, wait_s = rows + copied, _EVERY_S
                if once and not more:
                    typer.echo(tr(f"in step: {rows} rows copied", f"已同步：复制 {rows} 行"))
                    return
                if more:
                    continue
            except StoreUnavailable as fault:
                if once:
                    raise
                typer.echo(str(fault), err=True)
                wait_s = min(2 * wait_s, _LONGEST_S)
            time.sleep(wait_s * (0.75 + random.random() / 2))  # noqa: S311 - jitter, no secret
    finally:
        feed.close()
        for store in (*sources.values(), *targets.values()):
            store.close()

"""`millgate aggregator peak`: when a firm's carbon is expected to peak, or that nobody can tell."""

import json
import time
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from aggregator.config import read_config
from protocols.errors import MillgateError
from protocols.language import tr

_MONTHS: Final = 120


def mount(app: typer.Typer) -> None:
    """Put the command into the aggregator's."""
    app.command(
        "peak",
        help=tr(
            "Tell when a firm's carbon is expected to peak, in scenarios with intervals; or that the "
            "peak is not identified.\n\n"
            "Example: millgate aggregator peak brain/aggregator.toml mill --reduction 0.02 --reduction 0.04",
            "估计企业碳排放何时达峰，按情景给出区间；无法判断时明确说明。\n\n"
            "示例：millgate aggregator peak brain/aggregator.toml mill --reduction 0.02 --reduction 0.04",
        ),
    )(peak)


def peak(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    enterprise: Annotated[
        str, typer.Argument(help=tr("NAME or NAME.SITE", "企业名，或 企业名.厂区"))
    ],
    until: Annotated[
        int, typer.Option(help=tr("last year to look at", "预测到哪一年"), min=2000, max=2100)
    ] = 2041,
    reduction: Annotated[
        list[float] | None,
        typer.Option(
            help=tr(
                "assumed saving per year, such as 0.03 (repeatable)",
                "假设的每年减排比例，如 0.03（可重复）",
            ),
            min=0.0,
            max=0.5,
        ),
    ] = None,
    fading: Annotated[
        float,
        typer.Option(
            help=tr(
                "assumed part of a year's growth that is left in the next",
                "假设：当年增长率在次年保留的比例",
            ),
            min=0.01,
            max=0.99,
        ),
    ] = 0.8,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Tell when a firm's carbon is expected to peak."""
    from aggregator.api.periods import months_before  # noqa: PLC0415 - the command line starts fast without it
    from aggregator.app import make_stores  # noqa: PLC0415 - same
    from aggregator.localtime import LocalTime  # noqa: PLC0415 - same
    from aggregator.stores import ENTERPRISE, SITE  # noqa: PLC0415 - same
    from aggregator.summaries import carbon  # noqa: PLC0415 - same
    from aggregator.summaries.peak import Assumptions, as_document, expect  # noqa: PLC0415 - same

    config = read_config(path)
    firm, _, site = enterprise.partition(".")
    own = {(ENTERPRISE, firm), *({(SITE, site)} if site else set())}
    store = make_stores(config)["carbon_emission"]
    first, cut = months_before(LocalTime(config.local.zone), time.time_ns(), _MONTHS)
    try:
        keys = [key for key in store.series("ce_emission") if own <= set(key.tags)]
        quality = [key for key in store.series("ce_quality") if own <= set(key.tags)]
        if not keys:
            raise MillgateError(
                tr(f"there is no carbon of '{enterprise}'", f"没有 '{enterprise}' 的碳排放数据"),
                where=str(path),
                remedy=tr("see 'aggregator status' for names", "企业名见 'aggregator status'"),
            )
        kg, coverage = carbon.months(store, keys, quality, cut)
    finally:
        store.close()
    assumed = Assumptions(
        fading, {f"{share:.1%}": share for share in reduction or (0.01, 0.03, 0.05)}
    )
    found = expect((first.year, first.month), kg, coverage, until, assumed)
    if as_json:
        typer.echo(json.dumps(as_document(found, assumed), ensure_ascii=False, indent=1))
        return
    if found.reason:
        typer.echo(
            tr(
                f"peak not identified: {found.months} complete months, at least 24 are needed",
                f"未能判断达峰：完整月份 {found.months} 个，至少需要 24 个",
            )
        )
        return
    typer.echo(
        tr(
            f"{found.months} complete months, growth {found.growth:+.1%} a year; assumed: {fading:.0%} "
            "of it is left a year later",
            f"完整月份 {found.months} 个，年增长 {found.growth:+.1%}；假设次年保留其 {fading:.0%}",
        )
    )
    why = {
        "edge": tr(
            "the largest year is the first or the last one", "最大值在首年或末年，峰值可能在此之外"
        ),
        "flat": tr(
            "no year stands out more than the error of a back-test", "各年差别不超过回测误差"
        ),
    }
    for one in found.scenarios:
        label = tr(f"saving {one.name} a year", f"每年减排 {one.name}")
        if one.peak_year is None:
            told = tr("peak not identified", "未能判断达峰")
            typer.echo(f"{label}: {told}: {why.get(one.reason, '')}")
            continue
        at = int(np.argmax(one.p50))
        tonnes = [float(column[at]) / 1000 for column in (one.p50, one.p10, one.p90)]
        typer.echo(
            tr(
                f"{label}: peak expected in {one.peak_year}, {tonnes[0]:,.0f} t "
                f"(80 % interval {tonnes[1]:,.0f} to {tonnes[2]:,.0f})",
                f"{label}：预计 {one.peak_year} 年达峰，{tonnes[0]:,.0f} 吨"
                f"（80 % 区间 {tonnes[1]:,.0f} 至 {tonnes[2]:,.0f}）",
            )
        )

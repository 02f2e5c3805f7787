"""`millgate aggregator alarms`: early warning (预警) at a terminal."""

import json
import re
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import typer

from aggregator.api.knowledge import Notice
from aggregator.config import AggregatorConfig, read_config
from aggregator.ledger import Ledger
from aggregator.reporting import Reporter
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr

_DAY_S: Final = 86_400
_MOMENT: Final = re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?Z")
_HELP: Final = tr(
    "List open alarms, newest first: gaps, silence, refusals, clocks, policies, certificates.\n\n"
    "An alarm ends when what it warns of is over. What has happened (a gap, a refusal) stays for a "
    "week, or until somebody has seen it: --seen NUMBER. The exit code is 1 while any is open.\n\n"
    "Example: millgate aggregator alarms brain/aggregator.toml --days 7",
    "列出未解除的告警（预警），最新在前：缺口、静默、拒收、时钟、策略、证书。\n\n"
    "情况消除后告警自动解除。已发生之事（缺口、拒收）保留一周，或由人确认：--seen 编号。"
    "有未解除的告警时退出码为 1。\n\n"
    "示例：millgate aggregator alarms brain/aggregator.toml --days 7",
)


def alarms(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    days: Annotated[
        int, typer.Option(help=tr("also those that ended in the last days", "含最近几天已解除的"))
    ] = 0,
    seen: Annotated[
        int | None,
        typer.Option(help=tr("end this alarm: I have seen it", "确认并解除此编号的告警")),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=tr("as JSON", "输出 JSON"))] = False,  # noqa: FBT002 - a flag
) -> None:
    """List alarms, or end one."""
    config = read_config(path)
    ledger_exists(config)
    if seen is not None:
        _end(config, seen)
        return
    from_ns = time.time_ns() - days * _DAY_S * SECOND if days else None
    reporter = Reporter(config.ledger, config.factories, {})
    try:
        found = reporter.alarms(from_ns)
    finally:
        reporter.close()
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=1))
    else:
        zone = ZoneInfo(config.local.zone)
        for one in found:
            typer.echo(_line(one, zone))
        if not found:
            typer.echo(tr("no alarms", "没有告警"))
    if any(one.until_ns is None for one in found):
        raise typer.Exit(1)


def ledger_exists(config: AggregatorConfig) -> None:
    """Check that there is a ledger: opening one would make it.

    Raises:
        MillgateError: when there is none.
    """
    if not config.ledger.exists():
        raise MillgateError(
            tr("the aggregator has not run yet", "聚合器尚未运行过"),
            where=str(config.ledger),
            remedy=tr(
                "start it with 'millgate aggregator run'", "请用 'millgate aggregator run' 启动"
            ),
        )


def _line(one: Notice, zone: ZoneInfo) -> str:
    since, until = _at(one.since_ns, zone), one.until_ns
    grave = tr("FAULT", "故障") if one.severity == "fault" else tr("warning", "警告")
    who = one.name or (one.agent[:8] if one.agent else tr("the brain", "产业大脑"))
    ended = (
        "" if until is None else tr(f" (over {_at(until, zone)})", f"（{_at(until, zone)} 解除）")
    )
    said = local_moments(tr(one.text["en"], one.text["zh"]), zone)
    return f"{one.id:>4}  {since}  {grave}  {who}  {one.kind}: {said}{ended}"


def local_moments(text: str, zone: ZoneInfo) -> str:
    """Return a warning's text with its moments, which are in UTC, in the factories' zone."""

    def local(found: re.Match[str]) -> str:
        return f"{datetime.fromisoformat(found[0]).astimezone(zone):%Y-%m-%d %H:%M:%S}"

    return _MOMENT.sub(local, text)


def _at(ns: int, zone: ZoneInfo) -> str:
    return f"{datetime.fromtimestamp(ns // SECOND, zone):%Y-%m-%d %H:%M}"


def _end(config: AggregatorConfig, number: int) -> None:
    ledger = Ledger(config.ledger)
    try:
        with ledger.transaction():
            ended = ledger.record.end_alarm(number, time.time_ns() // SECOND)
    finally:
        ledger.close()
    if not ended:
        raise MillgateError(
            tr("no open alarm has this number", "没有此编号的未解除告警"),
            where=f"--seen {number}",
            remedy=tr("list them without --seen", "请先不带 --seen 列出告警"),
        )
    typer.echo(
        tr(
            "ended; if it still holds, it is raised anew within a minute",
            "已解除；若情况仍在，一分钟内会重新告警",
        )
    )


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate aggregator`."""
    app.command("alarms", help=_HELP)(alarms)

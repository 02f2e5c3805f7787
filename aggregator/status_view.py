"""`aggregator status` for a terminal."""

import math
from typing import Any, Final
from zoneinfo import ZoneInfo

from rich.console import Console

from aggregator.alarms import Severity
from aggregator.alarms_cli import local_moments
from aggregator.condition import STATEMENTS, State
from aggregator.trust import Trust, in_words
from protocols.language import tr
from protocols.sheet import Row, screen, show_sheet

_MOST_SHOWN: Final = 20
_MEGABYTE: Final = 1 << 20
_STEPS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def show(report: dict[str, Any], zone: ZoneInfo) -> None:
    """Print a report of `condition.Condition`, with moments in a zone."""
    console = screen()
    _factories(console, report["agents"])
    broker = tr("connected", "已连接") if report["broker"] else tr("not connected", "未连接")
    store = report["store_fault"] or tr("takes rows", "正常写入")
    console.print(
        tr(
            f"broker: {broker}; store: {store}; ledger {report['ledger_bytes'] / _MEGABYTE:.1f} MB; "
            f"{report['waiting']} batch(es) not in the series yet",
            f"消息代理：{broker}；存储：{store}；账本 {report['ledger_bytes'] / _MEGABYTE:.1f} MB；"
            f"{report['waiting']} 个批次尚未进入序列",
        ),
        markup=False,
        highlight=False,
    )
    if report["erasure_waits"]:
        said = local_moments(report["erasure_waits"], zone)
        console.print(said, style="yellow", markup=False, highlight=False)
    _alarms(console, report["alarms"], zone)
    taken = {"kept", "replayed"} | STATEMENTS
    dropped = {n: c for n, c in report["counters"].items() if n not in taken and c}
    if dropped:
        said = ", ".join(f"{name} {count}" for name, count in dropped.items())
        console.print(
            tr(f"not taken so far: {said}", f"累计未接收：{said}"), markup=False, highlight=False
        )


def _alarms(console: Console, alarms: list[dict[str, Any]], zone: ZoneInfo) -> None:
    """Print the newest open alarms, one line each; `aggregator alarms` has all."""
    if not alarms:
        console.print(tr("no alarms", "没有告警"))
        return
    console.print(tr(f"{len(alarms)} open alarm(s):", f"{len(alarms)} 项未解除的告警："))
    for one in alarms[:_MOST_SHOWN]:
        who = one["name"] or tr("the brain", "产业大脑")
        style = "red" if one["severity"] == Severity.FAULT else "yellow"
        said = local_moments(tr(one["text"]["en"], one["text"]["zh"]), zone)
        line = f"  {one['id']:>4}  {who}  {one['kind']}: {said}"
        console.print(line, style=style, markup=False, highlight=False)
    if len(alarms) > _MOST_SHOWN:
        console.print(tr("  ... see 'aggregator alarms'", "  …… 全部见 'aggregator alarms'"))


def _factories(console: Console, agents: list[dict[str, Any]]) -> None:
    headings = (
        tr("firm", "企业"),
        tr("agent", "代理"),
        tr("state", "状态"),
        tr("trust", "信任"),
        tr("newest value", "最新值"),
        tr("last kept", "最近留存"),
        tr("policy", "策略"),
        tr("batches", "批次"),
        tr("values", "值"),
        tr("refused", "被拒"),
    )
    rows = []
    words = {
        State.AWAITED: (tr("awaited", "待接入"), "dim"),
        State.FRESH: (tr("fresh", "最新"), "green"),
        State.LATE: (tr("late", "滞后"), "yellow"),
        State.SILENT: (tr("silent", "静默"), "red"),
    }
    for one in agents:
        word, style = words[State(one["state"])]
        offline = tr(", offline", "，离线") if one["online"] is False else ""
        version, trust = one["policy_version"], Trust(one["trust"])
        cells = (
            one["name"],
            one["agent"][:8],
            f"{word}{offline}",
            in_words(trust),
            _age(one["value_age_s"]),
            _age(one["kept_age_s"]),
            "-" if version is None else f"v{version}",
            str(one["batches"]),
            str(one["values"]),
            str(one["refused"]),
        )
        rows.append(Row(cells, style if trust is Trust.GOOD else "red"))
    show_sheet(headings, rows, title=tr("Factories", "工厂"), console=console)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0:
        return tr("in the future", "在未来")
    for length, unit in _STEPS:
        if seconds >= length:
            return tr(
                f"{math.floor(seconds / length)} {unit} ago",
                f"{math.floor(seconds / length)} {_ZH[unit]}前",
            )
    return tr("now", "刚刚")


_ZH: Final = {"d": "天", "h": "小时", "min": "分钟", "s": "秒"}

"""`millgate aggregator factories | log`: who joined and can be believed; what administrators did."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.authority import log_path, open_joining
from aggregator.config import AggregatorConfig, Factory, read_config
from aggregator.joining import Applicant, Certificate
from aggregator.ledger import Ledger
from aggregator.trust import Trust, in_words, trust_of
from protocols.language import counted, tr
from protocols.sheet import Row, show_sheet
from protocols.topics import Address
from security.admin_log import as_text, read_log

_FACTORIES: Final = tr(
    "List the factories: who joined, under which release sheet, last seen, trust.\n\n"
    "Example: millgate aggregator factories brain/aggregator.toml",
    "列出各工厂：接入情况、当前发布目录、最近一次接收、信任状态。\n\n"
    "示例：millgate aggregator factories brain/aggregator.toml",
)
_LOG: Final = tr(
    "Show and check the log of administrators' actions; the exit code is 1 where it was changed.\n\n"
    "Note the last digest elsewhere; --head DIGEST tells later whether that entry is still there.\n\n"
    "Example: millgate aggregator log brain/aggregator.toml --last 20",
    "显示并校验管理操作日志；日志被改动时退出码为 1。\n\n"
    "请将最后的摘要另行记录；日后用 --head 摘要 核对该条目是否仍在。\n\n"
    "示例：millgate aggregator log brain/aggregator.toml --last 20",
)

ConfigPath = Annotated[
    Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
]
AsJson = Annotated[bool, typer.Option("--json", help=tr("as JSON", "输出 JSON"))]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a factory stands; times in seconds since 1970 UTC, None where there is none.

    Attributes:
        trust: as `aggregator.trust` says; instead of `good` also `waiting` for approval, `silent`
            (nothing came yet) and `alarms`.
        joined: `code` or `card`, as it came.
        sheet: hash of the newest release sheet, hex; empty before the first.
    """

    enterprise: str
    site: str
    agent: str
    trust: str
    alarms: int
    joined: str
    joined_s: int | None
    officers: int
    threshold: int
    policy_version: int | None
    sheet: str
    last_seen_s: int | None
    certificate_ends_s: int | None


def standings(config: AggregatorConfig) -> list[Standing]:
    """Return how all factories stand, by name; those that wait for approval come last."""
    joining = open_joining(config)
    try:
        applicants, certificates = joining.applicants(), joining.certificates()
        waiting = joining.waiting()
    finally:
        joining.close()
    came = {one.address: one for one in applicants if one.state == "granted"}
    ledger = Ledger(config.ledger) if config.ledger.exists() else None
    try:
        found = [
            _standing(ledger, address, factory, came.get(address), certificates)
            for address, factory in config.factories().items()
        ]
    finally:
        if ledger is not None:
            ledger.close()
    found.sort(key=lambda one: (one.enterprise, one.site))
    return found + [_waiting(one) for one in waiting]


def _standing(
    ledger: Ledger | None,
    address: Address,
    factory: Factory,
    came: Applicant | None,
    certificates: Sequence[Certificate],
) -> Standing:
    agent = ledger.agents().get(address) if ledger is not None else None
    trust, alarms, version, sheet, seen, quarantine = "silent", 0, None, "", None, ""
    if ledger is not None and agent is not None:
        quarantine = ledger.record.quarantine_of(agent)
        alarms = len(ledger.record.alarms(agent))
        seen = ledger.totals(agent)[3]
        trust = "good" if seen is not None else "silent"
        trust = "alarms" if alarms else trust
        newest = ledger.newest_sheet(agent)
        if newest is not None:
            version, sheet = newest.version, newest.hash.hex()
    own = [one for one in certificates if one.agent == address.agent]
    ends = [one.ends_s for one in own if one.revoked_s is None]
    believed = trust_of(quarantine, factory)
    return Standing(
        enterprise=factory.enterprise,
        site=factory.site,
        agent=address.agent.hex(),
        trust=trust if believed is Trust.GOOD else believed,
        alarms=alarms,
        joined="card" if came is None else "code",
        joined_s=None if came is None else came.decided_s,
        officers=len(factory.card.officers),
        threshold=factory.card.threshold,
        policy_version=version,
        sheet=sheet,
        last_seen_s=seen,
        certificate_ends_s=max(ends, default=None),
    )


def _waiting(one: Applicant) -> Standing:
    card = one.card()
    return Standing(
        enterprise=one.enterprise,
        site=one.site,
        agent=one.address.agent.hex(),
        trust="waiting",
        alarms=0,
        joined="code",
        joined_s=None,
        officers=len(card.officers),
        threshold=card.threshold,
        policy_version=None,
        sheet="",
        last_seen_s=None,
        certificate_ends_s=None,
    )


def factories(path: ConfigPath, as_json: AsJson = False) -> None:  # noqa: FBT002 - a flag
    """List the factories."""
    found = standings(read_config(path))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False, indent=1))
        return
    headings = (
        tr("factory, agent", "工厂、代理程序"),
        tr("trust", "信任"),
        tr("release sheet", "发布目录"),
        tr("last seen", "最近接收"),
        tr("joined", "接入"),
        tr("until", "证书至"),
    )
    rows = []
    for one in found:
        sheet = f"v{one.policy_version} {one.sheet[:8]}" if one.sheet else "-"
        how = tr("by card", "名片") if one.joined == "card" else _day(one.joined_s)
        cells = (
            f"{one.enterprise}/{one.site}\n{one.agent[:8]}",
            _in_words(one),
            sheet,
            _moment(one.last_seen_s),
            how,
            _day(one.certificate_ends_s),
        )
        rows.append(Row(cells))
    show_sheet(headings, rows)


def _in_words(one: Standing) -> str:
    return {
        "waiting": tr("to approve", "等待核准"),
        "silent": tr("no data yet", "尚无数据"),
        "alarms": tr(f"{counted(one.alarms, 'alarm')}", f"{one.alarms} 个告警"),
    }.get(one.trust) or in_words(Trust(one.trust))


def _moment(at_s: int | None) -> str:
    return "-" if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%MZ}"


def _day(at_s: int | None) -> str:
    return "-" if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d}"


def log(
    path: ConfigPath,
    last: Annotated[int, typer.Option(help=tr("how many entries", "显示条数"), min=1)] = 50,
    head: Annotated[
        str, typer.Option(help=tr("a digest that was noted earlier", "此前记录的摘要"))
    ] = "",
) -> None:
    """Show and check the log."""
    entries = read_log(log_path(read_config(path)), head)
    for entry in entries[-last:]:
        typer.echo(as_text(entry))
    digest = entries[-1].digest if entries else "-"
    typer.echo(
        tr(
            f"{len(entries)} entries, unchanged; last digest {digest}",
            f"共 {len(entries)} 条，未被改动；最后摘要 {digest}",
        ),
        err=True,
    )


def mount(app: typer.Typer) -> None:
    """Add the commands to `millgate aggregator`."""
    app.command("factories", help=_FACTORIES)(factories)
    app.command("log", help=_LOG)(log)

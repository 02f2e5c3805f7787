"""`millgate aggregator`: install and run the brain's side."""

import asyncio
import json
import logging
import os
import secrets
import time
from pathlib import Path
from string import Template
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from aggregator import (
    alarms_cli,
    broker_cli,
    factories_cli,
    facts_cli,
    joining_cli,
    keys_cli,
    mirror_cli,
    peak_cli,
    rebuild_cli,
    revoke_cli,
    service_cli,
    trust_cli,
)
from aggregator.authority import BRAIN_CERTIFICATE, BRAIN_KEY, log_path, make_authority
from aggregator.config import read_config
from protocols import logs
from protocols.broker import LOOPBACK, Protocol
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.hosts import given_host, given_name
from protocols.language import tr
from protocols.status import ask, only_one
from protocols.templates import switch_on, template
from protocols.vocabulary import export
from security.admin_log import record_admin
from security.cards import BrainCard, write_card
from security.keys import OpeningKey, SigningKey, create_key_file

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help=tr("Verify, keep and serve what factories send.", "验签、留存并提供各工厂发送的数据。"),
)


joining_cli.mount(app)
factories_cli.mount(app)
broker_cli.mount(app)
revoke_cli.mount(app)
trust_cli.mount(app)
alarms_cli.mount(app)
rebuild_cli.mount(app)
keys_cli.mount(app)
service_cli.mount(app)

ConfigPath = Annotated[
    Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
]
AsJson = Annotated[bool, typer.Option("--json", help=tr("as JSON", "输出 JSON"))]


app.add_typer(facts_cli.app, name="facts")
peak_cli.mount(app)
mirror_cli.mount(app)


@app.command(
    "init",
    help=tr(
        "Make keys, aggregator.toml and the brain's card in a new folder.\n\n"
        "Example: millgate aggregator init brain --name zj-brain",
        "在新目录中生成密钥、aggregator.toml 和产业大脑名片。\n\n示例：millgate aggregator init brain --name zj-brain",
    ),
)
def init(
    folder: Annotated[Path, typer.Argument(help=tr("new folder", "新目录"))],
    name: Annotated[str, typer.Option(help=tr("public name", "公开名称"))] = "brain",
    broker_host: Annotated[str, typer.Option(help=tr("broker", "消息代理主机"))] = "127.0.0.1",
    broker_port: Annotated[
        int | None,
        typer.Option(
            help=tr("its port (1883; 8883 with --host)", "端口（1883；用 --host 时 8883）"),
            min=1,
            max=65535,
        ),
    ] = None,
    protocol: Annotated[Protocol, typer.Option(help="MQTT 3.1.1 | MQTT 5")] = "mqtt311",
    api_port: Annotated[
        int, typer.Option(help=tr("port of API and page", "API 与页面端口"), min=0, max=65535)
    ] = 8750,
    host: Annotated[
        str,
        typer.Option(
            help=tr(
                "by which name factories reach this machine: they join by code, all with TLS",
                "工厂访问本机所用的名称：启用邀请码接入，全部使用 TLS",
            )
        ),
    ] = "",
) -> None:
    """Make a new aggregator."""
    given_name(name, "--name")
    given_host(broker_host, "--broker-host")
    if host:
        given_host(host, "--host")
    if (folder / "aggregator.toml").exists():
        raise MillgateError(
            tr("an aggregator is configured here already", "此处已有聚合器配置"),
            where=str(folder / "aggregator.toml"),
            remedy=tr("choose another folder", "请换一个目录"),
        )
    opening = OpeningKey(create_key_file(folder / "keys" / "encryption.key", "xwing"))
    receipt = SigningKey(create_key_file(folder / "keys" / "receipt.key", "ed25519"))
    _write_private(folder / "keys" / "api.token", secrets.token_urlsafe(32))
    (folder / "factories").mkdir(exist_ok=True)
    values = {
        "name": json.dumps(name, ensure_ascii=False),
        "broker_host": broker_host,
        "broker_port": broker_port or (8883 if host else 1883),
        "protocol": protocol,
        "api_port": api_port,
    }
    text = Template(template("aggregator.toml")).substitute(values)
    if host:
        text = _with_tls(text, host, broker_host)
    path = folder / "aggregator.toml"
    path.write_text(text, "utf-8")
    card = folder / "brain.card"
    write_card(
        card,
        BrainCard(
            card="millgate-brain/1",
            name=name,
            encryption_key=opening.public,
            receipt_key=receipt.public,
        ),
    )
    if host:
        make_authority(read_config(path))
        _say_next_with_codes(path)
        return
    typer.echo(
        tr(
            f"The aggregator is configured in {folder}. Give {card} to the factories, put their "
            f"cards into {folder / 'factories'}, then\n  millgate aggregator run {path}",
            f"聚合器已在 {folder} 中配置。请将 {card} 交给各工厂，把它们的名片放入 "
            f"{folder / 'factories'}，然后\n  millgate aggregator run {path}",
        )
    )


def _with_tls(text: str, host: str, broker_host: str) -> str:
    """Return aggregator.toml with TLS everywhere, and where factories join."""
    files: dict[str, str | bool] = {
        "tls": True,
        "ca_file": "keys/ca.pem",
        "certificate": str(BRAIN_CERTIFICATE),
        "private_key": str(BRAIN_KEY),
    }
    text = switch_on(text, "broker", files)
    own = {"certificate": "keys/server.pem", "private_key": "keys/server.key"}
    text = switch_on(text, "api", own)
    values = {"host": host, "broker_host": host if broker_host in LOOPBACK else broker_host}
    return text + Template(template("enrolment.toml")).substitute(values)


def _say_next_with_codes(path: Path) -> None:
    typer.echo(
        tr(
            f"The aggregator is configured in {path.parent}. Next:\n"
            f"  millgate aggregator broker-config {path} /etc/mosquitto/millgate\n"
            f"  millgate aggregator run {path}\n"
            f"  millgate aggregator invite {path} NAME      (again for each factory)",
            f"聚合器已在 {path.parent} 中配置。下一步：\n"
            f"  millgate aggregator broker-config {path} /etc/mosquitto/millgate\n"
            f"  millgate aggregator run {path}\n"
            f"  millgate aggregator invite {path} 企业名称      （每家工厂一次）",
        )
    )


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text + "\n")


@app.command(
    "run",
    help=tr(
        "Receive, keep, project and serve until stopped.\n\n"
        "Example: millgate aggregator run brain/aggregator.toml",
        "接收、留存、生成序列并提供服务，直到停止。\n\n示例：millgate aggregator run brain/aggregator.toml",
    ),
)
def run(
    path: ConfigPath,
    ready: Annotated[
        Path | None,
        typer.Option(
            help=tr("write the API's port here once it listens", "监听后将 API 端口写入此文件")
        ),
    ] = None,
    log: Annotated[
        logs.Kind | None,
        typer.Option(help=tr("how to log (MILLGATE_LOG)", "日志格式（MILLGATE_LOG）")),
    ] = None,
) -> None:
    """Run the aggregator."""
    from aggregator.app import run as run_aggregator  # noqa: PLC0415 - the command line starts fast without it

    config = read_config(path)
    config.factories()
    logs.choose(log)
    logs.log_plainly()
    with only_one(config.ledger.parent):
        asyncio.run(run_aggregator(config, ready))


@app.command(
    "status",
    help=tr(
        "Show how each factory and the process itself do.\n\n"
        "Example: millgate aggregator status brain/aggregator.toml",
        "显示各工厂与本进程的状况。\n\n示例：millgate aggregator status brain/aggregator.toml",
    ),
)
def status(path: ConfigPath, as_json: AsJson = False) -> None:  # noqa: FBT002 - a flag
    """Show how each factory and the process itself do."""
    from aggregator.status_view import show  # noqa: PLC0415 - the command line starts fast without it

    config = read_config(path)
    report = ask(config.socket)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
        return
    show(report, ZoneInfo(config.local.zone))


@app.command(
    "token",
    help=tr(
        "Make an API token that is good for certain firms and series only; it is shown once.\n\n"
        "Example: millgate aggregator token brain/aggregator.toml carbon-office "
        "--measurement ce_emission --days 90",
        "生成仅可访问指定企业与序列的 API 令牌；只显示一次。\n\n"
        "示例：millgate aggregator token brain/aggregator.toml carbon-office "
        "--measurement ce_emission --days 90",
    ),
)
def token(
    path: ConfigPath,
    name: Annotated[str, typer.Argument(help=tr("whose it is", "令牌名称"))],
    firm: Annotated[
        list[str] | None, typer.Option(help=tr("a firm (repeatable)", "企业（可重复）"))
    ] = None,
    measurement: Annotated[
        list[str] | None, typer.Option(help=tr("a series (repeatable)", "序列（可重复）"))
    ] = None,
    days: Annotated[int, typer.Option(help=tr("validity", "有效天数"), min=1, max=3650)] = 365,
    facts: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option(
            "--write-facts",
            help=tr("may enter facts of these firms over the API", "可经 API 填写这些企业的事实"),
        ),
    ] = False,
) -> None:
    """Make an API token that is good for certain firms and series only."""
    from aggregator.api.scopes import new_token  # noqa: PLC0415 - the command line starts fast without it
    from aggregator.token_notes import notes  # noqa: PLC0415 - same

    config = read_config(path)
    tokens = config.api.tokens
    rights = {"write": "facts"} if facts else {}
    record_admin(log_path(config), "token", name=name, firms=" ".join(firm or []), **rights)
    made = new_token(tokens, name, firm or [], measurement or [], days, write=["facts"] * facts)
    typer.echo(made)
    typer.echo(
        tr(
            f"This is shown only now. To revoke it, remove its entry from {tokens}.",
            f"以上令牌只显示这一次。撤销时从 {tokens} 中删除对应条目即可。",
        ),
        err=True,
    )
    for line in notes(config, firm or [], measurement or []):
        typer.echo(line, err=True)


@app.command(
    "doctor",
    help=tr(
        "Look over the installation and say what to mend; exit code 1 when something is at fault.\n\n"
        "Example: millgate aggregator doctor brain/aggregator.toml",
        "检查安装并说明如何修复；有故障时退出码为 1。\n\n"
        "示例：millgate aggregator doctor brain/aggregator.toml",
    ),
)
def doctor(path: ConfigPath) -> None:
    """Look over the installation and say what to mend."""
    from aggregator.doctor import examine  # noqa: PLC0415 - the command line starts fast without it
    from protocols.checkup import show_checkup  # noqa: PLC0415 - same

    # What goes wrong meanwhile is told as findings.
    logging.disable()
    if not show_checkup(asyncio.run(examine(read_config(path)))):
        raise typer.Exit(1)


@app.command(
    "anomalies",
    help=tr(
        "List what cross checks found, with reasons: balances, meters, counts, second sources.\n\n"
        "Example: millgate aggregator anomalies brain/aggregator.toml --days 7",
        "列出交叉校核发现的异常及原因：平衡、表计、数量、第二来源。\n\n"
        "示例：millgate aggregator anomalies brain/aggregator.toml --days 7",
    ),
)
def show_anomalies(
    path: ConfigPath,
    days: Annotated[int, typer.Option(help=tr("of the last days", "最近天数"), min=1)] = 7,
    as_json: AsJson = False,  # noqa: FBT002 - a flag
) -> None:
    """List what cross checks found."""
    from aggregator.anomalies import anomalies, as_rows  # noqa: PLC0415 - the command line starts fast without it
    from aggregator.app import make_stores  # noqa: PLC0415 - same

    config = read_config(path)
    store = make_stores(config)["future_factory"]
    now_ns = time.time_ns()
    try:
        found = anomalies(store, now_ns - days * 86_400 * SECOND, now_ns)
    finally:
        store.close()
    if as_json:
        typer.echo(json.dumps(as_rows(found), ensure_ascii=False, indent=1))
        return
    for one in found:
        when = one.time.astimezone(ZoneInfo(config.local.zone)).strftime("%Y-%m-%d %H:%M")
        value = "" if one.value is None else f" ({one.value:.4g})"
        typer.echo(f"{when}  {one.firm} {one.equipment}  {one.check}{value}: {one.reason}")
    typer.echo(
        tr(
            f"{len(found)} anomalies in the last {days} days",
            f"最近 {days} 天共 {len(found)} 项异常",
        ),
        err=True,
    )


@app.command(
    "vocabulary",
    help=tr(
        "Print the vocabulary (measurands, media, units, states, formulas) as JSON.\n\n"
        "Example: millgate aggregator vocabulary > vocabulary.json",
        "以 JSON 输出词汇表（测点含义、介质、单位、状态、公式）。\n\n"
        "示例：millgate aggregator vocabulary > vocabulary.json",
    ),
)
def vocabulary(
    page: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "instead renew the tables of this Markdown page", "改为更新此 Markdown 页的表格"
            )
        ),
    ] = None,
) -> None:
    """Print or write the vocabulary."""
    if page is None:
        typer.echo(export.as_json(), nl=False)
    else:
        page.write_text(export.fill(page.read_text("utf-8")), "utf-8")

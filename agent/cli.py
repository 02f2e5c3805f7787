"""`millgate agent`: install, check, run and look at the agent."""

import asyncio
import json
import logging
import secrets
import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from agent import audit_cli, enroll_cli, epoch_cli, opcua_cli, service_cli
from agent.config import PolicySource, no_devices, read_config
from agent.founding import (
    BrokerWords,
    make_keys,
    next_steps,
    notes_of,
    refuse_configured,
    write_agent,
)
from agent.onboarding.cli import mount
from agent.unheard import unheard
from protocols import logs
from protocols.broker import Protocol
from protocols.errors import ConfigError, MillgateError
from protocols.hosts import given_host
from protocols.language import counted, tr
from protocols.sheet import Row, screen, show_sheet
from protocols.status import ask
from protocols.topics import ID_BYTES
from security.cards import AgentCard, read_brain_card
from security.token_cli import SignerPlace

_OLD_MINUTES: Final = 15

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help=tr(
        "Read devices, let through what the policy releases, seal it and deliver it.",
        "读取设备，只放行策略允许的数据，封装并投递。",
    ),
)

app.add_typer(opcua_cli.app, name="cert")
mount(app)
audit_cli.mount(app)
enroll_cli.mount(app)
service_cli.mount(app)
epoch_cli.mount(app)

ConfigPath = Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))]


@app.command(
    "init",
    help=tr(
        "Make keys, agent.toml and the agent's card in a new folder.\n\n"
        "Example: millgate agent init mill --brain brain/brain.card",
        "在新目录中生成密钥、agent.toml 和代理程序名片。\n\n"
        "示例：millgate agent init mill --brain brain/brain.card",
    ),
)
def init(
    folder: Annotated[Path, typer.Argument(help=tr("new folder", "新目录"))],
    brain: Annotated[
        list[Path], typer.Option(help=tr("a brain's card (repeatable)", "产业大脑名片（可重复）"))
    ],
    officer: Annotated[
        list[str] | None,
        typer.Option(help=tr("a data officer's public key (repeatable)", "数据官公钥（可重复）")),
    ] = None,
    threshold: Annotated[
        int,
        typer.Option(
            help=tr("how many officers must sign a policy", "策略需要几名数据官签名"), min=1
        ),
    ] = 1,
    audit: Annotated[
        Path | None,
        typer.Option(help=tr("file with the firm's public audit key", "企业审计公钥文件")),
    ] = None,
    broker_host: Annotated[str, typer.Option(help=tr("broker", "消息代理主机"))] = "127.0.0.1",
    broker_port: Annotated[int, typer.Option(help=tr("its port", "端口"), min=1, max=65535)] = 1883,
    protocol: Annotated[Protocol, typer.Option(help="MQTT 3.1.1 | MQTT 5")] = "mqtt311",
    signer: SignerPlace = None,
) -> None:
    """Make keys, agent.toml and the agent's card in a new folder."""
    broker = BrokerWords(given_host(broker_host, "--broker-host"), broker_port, protocol)
    refuse_configured(folder)
    cards = [read_brain_card(path) for path in brain]
    folder.mkdir(parents=True, exist_ok=True)
    keys = make_keys(folder, officer or [], audit, signer=signer)
    card = AgentCard(
        card="millgate-agent/1",
        factory=secrets.token_bytes(ID_BYTES),
        agent=secrets.token_bytes(ID_BYTES),
        signing_key=keys.signing.public,
        attestation_key=keys.attestation.public,
        officers=keys.officers,
        threshold=threshold,
    )
    for path in brain:
        (folder / path.name).write_bytes(path.read_bytes())
    names = [path.name for path in brain]
    write_agent(folder, card, keys.audit, broker, names, {"signing_key": keys.signer})
    lines = [
        tr(f"The agent is configured in {folder}.", f"代理程序已在 {folder} 中配置。"),
        *notes_of(folder),
        tr(
            f"Give {folder / 'agent.card'} to {cards[0].name}.",
            f"请将 {folder / 'agent.card'} 交给 {cards[0].name}。",
        ),
        next_steps(folder),
    ]
    typer.echo("\n".join(lines))


@app.command(
    "check",
    help=tr(
        "Check configuration, keys and policy without touching a device.\n\n"
        "Example: millgate agent check mill/agent.toml",
        "检查配置、密钥与策略，不接触任何设备。\n\n示例：millgate agent check mill/agent.toml",
    ),
)
def check(path: ConfigPath) -> None:
    """Check configuration, keys and policy without touching a device."""
    from agent.authority import usable_policy  # noqa: PLC0415 - the command line starts fast without it
    from agent.registry import Registry  # noqa: PLC0415 - same
    from security.policy.gate import Gate  # noqa: PLC0415 - same

    config = read_config(path)
    problem = no_devices(config)
    if problem is not None:
        raise ConfigError([problem])
    config.identity.signer()
    config.identity.load(config.identity.gate_key, "aes256")
    config.identity.load(config.identity.attestation_key, "mldsa65")
    tables = {device.id: device.table() for device in config.devices}
    points = sum(len(table.points) for table in tables.values())
    typer.echo(
        tr(
            f"configuration: {counted(len(tables), 'device')}, {counted(points, 'point')}",
            f"配置：{len(tables)} 台设备，{points} 个点",
        )
    )
    _say_officers(config.policy)
    if not config.policy.file.exists():
        draft = config.policy.file.with_name("policy.toml")
        after = f"policy lint {draft}" if draft.exists() else f"policy new {path}"
        typer.echo(
            tr(
                f"policy: none yet, so nothing leaves; next: millgate {after}",
                f"策略：尚无，因此不放行任何数据；下一步：millgate {after}",
            )
        )
        return
    policy = usable_policy(config, Registry(config.spool.folder / "registry.json"))
    gate = Gate(policy.policy, tables, lambda: 0)
    released = sum(int(gate.released_points(device).sum()) for device in tables)
    for line in gate.suspended:
        typer.echo(line, err=True)
    typer.echo(
        tr(
            f"policy: version {policy.policy.version}; {counted(released, 'point')} released, "
            f"{points - released} kept in the factory",
            f"策略：版本 {policy.policy.version}；放行 {released} 个点，"
            f"{points - released} 个点留在厂内",
        )
    )
    if gate.suspended:
        raise typer.Exit(1)


def _say_officers(source: PolicySource) -> None:
    """Say how many officers it takes, and what a firm with one of them may not know."""
    from security.policy.bundle import officers_to_widen  # noqa: PLC0415 - the command line starts fast

    known = len({key.public for key in source.officers})
    to_widen = officers_to_widen(source.officers, source.threshold, source.widen_threshold)
    typer.echo(
        tr(
            f"officers: {known}; {source.threshold} must sign a policy, {to_widen} one that widens "
            "what leaves",
            f"数据官：{known} 名；策略须 {source.threshold} 名签署，放宽外发内容须 {to_widen} 名签署",
        )
    )
    if to_widen == 1:
        typer.echo(
            tr(
                "  one officer alone can widen what leaves; to ask for two: [policy] officers with a "
                "second public key ('millgate keys officer'), widen_threshold = 2",
                "  一名数据官即可单独放宽外发内容；如须两名：在 [policy] 的 officers 中加入第二个公钥"
                "（'millgate keys officer'），并写 widen_threshold = 2",
            )
        )


@app.command(
    "run",
    help=tr(
        "Collect and deliver until stopped.\n\nExample: millgate agent run mill/agent.toml",
        "采集并投递，直到停止。\n\n示例：millgate agent run mill/agent.toml",
    ),
)
def run(
    path: ConfigPath,
    log: Annotated[
        logs.Kind | None,
        typer.Option(help=tr("how to log (MILLGATE_LOG)", "日志格式（MILLGATE_LOG）")),
    ] = None,
) -> None:
    """Collect and deliver until stopped."""
    from agent.config import for_sealed_side  # noqa: PLC0415 - same as the line below
    from agent.supervisor import become  # noqa: PLC0415 - the command line starts fast without it

    config = read_config(path)
    problem = no_devices(config)
    if problem is not None:
        raise ConfigError([problem])
    # A side that cannot load its key is started again for ever, since a token may come back; a file
    # is for a person to mend, now.
    config.identity.check_files()
    logs.choose(log)
    monitor = config.monitor.port, config.monitor.devices
    become(path, config.spool.folder, for_sealed_side(path), monitor)


@app.command(
    "acknowledge",
    help=tr(
        "After you have looked: let what is suspended leave again.\n\n"
        "Example: millgate agent acknowledge mill/agent.toml meter-1/energy",
        "检查之后：让已挂起的点恢复外发。\n\n"
        "示例：millgate agent acknowledge mill/agent.toml meter-1/energy",
    ),
)
def acknowledge(
    path: ConfigPath,
    name: Annotated[
        list[str],
        typer.Argument(
            help=tr("DEVICE/POINT or stream-N (repeatable)", "设备/点 或 stream-N（可重复）")
        ),
    ],
) -> None:
    """After you have looked: let what is suspended leave again."""
    from agent.suspended import Keeper, suspended_path  # noqa: PLC0415 - the command line starts fast without it

    keeper = Keeper(suspended_path(read_config(path)))
    known = keeper.now.names()
    done = keeper.acknowledge(name)
    for one in done:
        typer.echo(tr(f"{one}: leaves again", f"{one}：恢复外发"))
    unknown = [one for one in name if one not in done]
    if unknown:
        raise MillgateError(
            tr(
                f"not suspended: {', '.join(unknown)}",
                f"未被挂起：{', '.join(unknown)}",
            ),
            where=str(path),
            remedy=tr(
                f"suspended: {', '.join(known) or 'nothing'}",
                f"已挂起：{', '.join(known) or '无'}",
            ),
        )


@app.command(
    "status",
    help=tr(
        "Show what is collected, what is released and what stays in the factory.\n\n"
        "Example: millgate agent status mill/agent.toml",
        "显示采集了什么、放行了什么、什么留在厂内。\n\n示例：millgate agent status mill/agent.toml",
    ),
)
def status(
    path: ConfigPath,
    as_json: Annotated[bool, typer.Option("--json", help=tr("as JSON", "输出 JSON"))] = False,  # noqa: FBT002 - a flag
) -> None:
    """Show what is collected, what is released and what stays in the factory."""
    report = ask(read_config(path).socket)
    if as_json:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
        return
    console = screen()
    # Of two services each shows what it knows; the supervisor of both shows all.
    sealed = "outputs" in report and "processes" not in report
    if report.get("policy") is None and not sealed:
        raise MillgateError(str(report.get("problem") or tr("starting", "正在启动")))
    if not sealed:
        _show_devices(console, report)
        _show_policy(console, report["policy"])
    if "outputs" in report:
        _show_outputs(console, report)
    problem = report.get("configuration", {}).get("problem")
    if problem:
        said = tr(
            f"the changed configuration is not used:\n{problem}", f"未采用更改后的配置：\n{problem}"
        )
        console.print(said, style="yellow", markup=False, highlight=False)


@app.command(
    "doctor",
    help=tr(
        "Look over the installation and say what to mend; exit code 1 when something is at fault.\n\n"
        "Example: millgate agent doctor mill/agent.toml",
        "检查安装并说明如何修复；有故障时退出码为 1。\n\n示例：millgate agent doctor mill/agent.toml",
    ),
)
def doctor(path: ConfigPath) -> None:
    """Look over the installation and say what to mend."""
    from agent.doctor import examine  # noqa: PLC0415 - the command line starts fast without it
    from protocols.checkup import show_checkup  # noqa: PLC0415 - same

    # What goes wrong meanwhile is told as findings.
    logging.disable()
    if not show_checkup(asyncio.run(examine(read_config(path)))):
        raise typer.Exit(1)


def _show_devices(console: Console, report: dict[str, Any]) -> None:
    headings = (
        tr("device", "设备"),
        tr("link", "连接"),
        tr("newest", "最新"),
        tr("leaves", "外发"),
        tr("stays", "留下"),
        tr("read", "读取"),
        tr("used", "已用"),
        tr("withheld", "未放行"),
        tr("open", "未结时段"),
        tr("dropped", "丢弃"),
    )
    rows = []
    for device in report["devices"]:
        book = device["account"]
        link = tr("up", "正常") if device["connected"] else tr("down", "断开")
        cells = (
            device["id"],
            link,
            "-" if device["age_s"] is None else f"{max(device['age_s'], 0):.0f} s",
            ", ".join(device["released"]) or "-",
            ", ".join(device["withheld"]) or "-",
            str(book["produced"]),
            str(book["consumed"]),
            str(book["withheld"]),
            str(book["open"]),
            ", ".join(f"{reason} {count}" for reason, count in book["dropped"].items()) or "0",
        )
        rows.append(Row(cells))
    title = tr("Inside the factory (this never leaves)", "厂内（以下内容不外发）")
    show_sheet(headings, rows, title=title, console=console)
    for device in report["devices"]:
        if device["fault"] and not device["connected"]:
            console.print(device["fault"], style="yellow", markup=False, highlight=False)
        for note in device["notes"]:
            console.print(f"{device['id']}: {note}", markup=False, highlight=False)
    for line in report["suspended"]:
        console.print(line, style="yellow")


def _show_policy(console: Console, policy: dict[str, Any]) -> None:
    force = tr("in force", "生效中") if policy["in_force"] else tr("NOT in force", "未生效")
    why = policy.get("halted", "")
    console.print(
        tr(
            f"policy version {policy['version']} ({force})" + (f": {why}" if why else ""),
            f"策略版本 {policy['version']}（{force}）" + (f"：{why}" if why else ""),
        ),
        markup=False,
        highlight=False,
        style=None if policy["in_force"] else "yellow",
    )


def _show_outputs(console: Console, report: dict[str, Any]) -> None:
    out, broker = report["outputs"], report["broker"]
    console.print(
        tr(
            f"released {out['released']} values = acknowledged {out['acknowledged']} + waiting "
            f"{out['waiting']} + refused {out['refused']} + given up {out['given_up']}",
            f"已放行 {out['released']} 个值 = 已确认 {out['acknowledged']} + 等待 "
            f"{out['waiting']} + 被拒 {out['refused']} + 放弃 {out['given_up']}",
        )
    )
    state = tr("connected", "已连接") if broker["connected"] else tr("not connected", "未连接")
    which = f" ({broker['preference']}/{broker['brokers']})" if broker["brokers"] > 1 else ""
    console.print(
        tr(
            f"broker {broker['place']}{which} {state}; epoch {report['epoch']}",
            f"消息代理 {broker['place']}{which} {state}；纪元 {report['epoch']}",
        )
    )
    of_no_use = unheard(report, time.time())
    trouble = broker["fault"] if of_no_use is None else of_no_use.line
    if trouble:
        console.print(trouble, style="yellow", markup=False, highlight=False)
    _show_clock(console, report.get("brain_clock"))
    ages = report["delivery"]
    newest, oldest = ages["acknowledged_age_s"], ages["oldest_waiting_s"]
    console.print(
        tr(
            f"newest batch that the brain has: {_ago(newest)}; oldest that waits: {_ago(oldest)}",
            f"产业大脑已有的最新批次：{_ago(newest)}；等待中最旧的批次：{_ago(oldest)}",
        )
    )


def _show_clock(console: Console, clock: dict[str, Any] | None) -> None:
    if clock is None:
        return
    if clock["line"]:
        console.print(clock["line"], style="yellow", markup=False, highlight=False)
        return
    ahead, within, minutes = clock["ahead_s"], clock["within_s"], int(clock["age_s"] // 60)
    old = minutes >= _OLD_MINUTES
    console.print(
        tr(
            f"clock against the brain's: {ahead:+.1f} s (give or take {within:.1f} s"
            + (f", as heard {minutes} min ago)" if old else ")"),
            f"时钟与产业大脑相差：{ahead:+.1f} 秒（误差 {within:.1f} 秒"
            + (f"，{minutes} 分钟前测得）" if old else "）"),
        )
    )


def _ago(seconds: int | None) -> str:
    if seconds is None:
        return tr("none", "无")
    return tr(f"sealed {seconds} s ago", f"{seconds} 秒前密封")

"""`millgate aggregator trust`: whom the brain can believe, what is missing, and who is quarantined."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.alarms import in_words
from aggregator.alarms_cli import ledger_exists
from aggregator.authority import log_path, open_joining
from aggregator.config import AggregatorConfig, Factory, read_config
from aggregator.ledger import Ledger
from aggregator.trust import Trust, trust_of
from aggregator.trust import in_words as trust_in_words
from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.topics import Address
from security.admin_log import record_admin

_HELP: Final = tr(
    "Show for every agent how far its chains and attestations have come, and open alarms.\n\n"
    "An agent that signed two messages for one place is quarantined; once the reason is known, "
    "--release takes its messages again. The proof stays.\n\n"
    "Example: millgate aggregator trust brain/aggregator.toml",
    "显示每个代理程序的链与见证进展，以及未解除的告警。\n\n"
    "为同一位置签署两条消息的代理程序会被隔离；查明原因后用 --release 恢复接收，证据保留。\n\n"
    "示例：millgate aggregator trust brain/aggregator.toml",
)


def trust(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    release: Annotated[
        str, typer.Option(help=tr("end the quarantine of this agent id", "解除此代理标识的隔离"))
    ] = "",
) -> None:
    """Show what can be believed, or release an agent."""
    config = read_config(path)
    ledger_exists(config)
    factories = config.factories()
    ledger = Ledger(config.ledger)
    try:
        if release:
            _release(ledger, release, config)
            return
        open_alarms = [
            _show(ledger, address, agent, factories.get(address))
            for address, agent in sorted(ledger.agents().items())
        ]
        log = ledger.record.log()
    finally:
        ledger.close()
    typer.echo(
        tr(
            f"log: {log.size} entries, root {log.root.hex()}",
            f"日志：{log.size} 条，根 {log.root.hex()}",
        )
    )
    if any(open_alarms):
        raise typer.Exit(1)


def _show(ledger: Ledger, address: Address, agent: int, factory: Factory | None) -> int:
    """Print an agent; return how many alarms are open."""
    record = ledger.record
    name = "?" if factory is None else factory.enterprise
    number, received_s = record.attested(agent)
    attested = (
        tr(f"attestation {number} at {_at(received_s)}", f"第 {number} 次见证，{_at(received_s)}")
        if number
        else tr("no attestation yet", "尚无见证")
    )
    heads = record.heads(agent, 512)
    typer.echo(
        f"{name}  {address.agent.hex()}  "
        + tr(f"{counted(len(heads), 'chain')}, {attested}", f"{len(heads)} 条链，{attested}")
    )
    believed = trust_of(record.quarantine_of(agent), factory)
    if believed is not Trust.GOOD:
        typer.echo(f"  {trust_in_words(believed)}")
    alarms = record.alarms(agent)
    for alarm in alarms:
        typer.echo(f"  {_at(alarm.since_s)}  {alarm.kind}: {in_words(alarm)}")
    return len(alarms)


def _release(ledger: Ledger, agent_hex: str, config: AggregatorConfig) -> None:
    found = [
        (address, number)
        for address, number in ledger.agents().items()
        if address.agent.hex().startswith(agent_hex.lower()) and len(agent_hex) >= 8
    ]
    if len(found) != 1:
        raise MillgateError(
            tr("no agent, or more than one, has this id", "没有或不止一个代理程序具有此标识"),
            where=f"--release {agent_hex}",
            remedy=tr("give 8 to 32 of its hex digits", "请给出 8 至 32 位十六进制"),
        )
    ((address, agent),) = found
    _refuse_revoked(config, address)
    record_admin(log_path(config), "lift-quarantine", agent=address.agent.hex())
    with ledger.transaction():
        was = ledger.record.release(agent)
        ledger.record.end_alarms(agent, int(datetime.now(UTC).timestamp()))
    typer.echo(
        tr("its messages are taken again", "已恢复接收其消息")
        if was
        else tr("it was not quarantined", "该代理程序未被隔离")
    )


def _refuse_revoked(config: AggregatorConfig, address: Address) -> None:
    joining = open_joining(config)
    try:
        revoked = address.agent in joining.revoked_agents()
    finally:
        joining.close()
    if revoked:
        raise MillgateError(
            tr("its certificates were revoked, for good", "其证书已被永久吊销"),
            where=address.agent.hex(),
            remedy=tr("invite the factory again", "请重新邀请该工厂接入"),
        )


def _at(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%SZ}"


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate aggregator`."""
    app.command("trust", help=_HELP)(trust)

"""`millgate aggregator keys`: which keys count for each agent, and a list that an officer brings."""

from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.authority import log_path
from aggregator.config import AggregatorConfig, Factory, read_config
from aggregator.keyring import Keyring
from aggregator.ledger import Ledger
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security.admin_log import record_admin
from security.key_list import MAX_KEYS, Mark, first_list
from security.key_signing import mark_text, read_unsigned, rows
from security.keys import BadSignature
from security.keys_cli import show_rows

_HELP: Final = tr(
    "Show which keys sign for each agent, and where its chains are now (for 'keys revoke --at'). "
    "With --take, a list that officers signed counts within seconds.\n\n"
    "Example: millgate aggregator keys brain/aggregator.toml --take keys.signed",
    "显示各代理程序的签名密钥及其各链当前位置（供 'keys revoke --at' 使用）。"
    "用 --take 可接收数据官签署的清单，数秒内生效。\n\n"
    "示例：millgate aggregator keys brain/aggregator.toml --take keys.signed",
)


def keys(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    take: Annotated[
        Path | None, typer.Option(help=tr("a signed list of keys", "已签署的密钥清单"))
    ] = None,
) -> None:
    """Show which keys count, or take a list."""
    config = read_config(path)
    factories = config.factories()
    if take is not None:
        record_admin(log_path(config), "take-keys", file=str(take))
        _take(take, factories)
        factories = config.factories()
    marks = _marks(config)
    for address, factory in sorted(factories.items()):
        known = factory.key_list or first_list(address, factory.card.signing_key)
        typer.echo(
            tr(
                f"{factory.enterprise}  {address.agent.hex()}  list {known.number}",
                f"{factory.enterprise}  {address.agent.hex()}  第 {known.number} 版清单",
            )
        )
        show_rows(rows(known))
        typer.echo(tr("  chains are at ", "  各链位于 ") + mark_text(marks.get(address, Mark())))


def _take(path: Path, factories: dict[Address, Factory]) -> None:
    signed, found = read_unsigned(path)
    factory = factories.get(found.address)
    if factory is None:
        raise MillgateError(
            tr("no card of this agent is here", "此处没有该代理程序的名片"),
            where=found.address.agent.hex(),
            remedy=tr("put its card into the folder of factories", "请将其名片放入工厂目录"),
        )
    try:
        new = Keyring().take(signed[:MAX_KEYS], factory)
    except (Malformed, BadSignature) as fault:
        raise MillgateError(
            tr(f"this list does not count: {fault}", f"此清单无效：{fault}"),
            where=str(path),
            remedy=tr(
                "it must be signed by enough officers and follow the list that is here",
                "须由足够的数据官签署，且承接此处的清单",
            ),
        ) from None
    typer.echo(
        tr(f"list {found.number} counts within seconds", f"第 {found.number} 版清单数秒内生效")
        if new
        else tr(
            "nothing new: this list or a newer one is here", "无变化：此清单或更新的清单已在此处"
        )
    )


def _marks(config: AggregatorConfig) -> dict[Address, Mark]:
    """Return where the brain has each agent's chains: what comes next in the newest epoch."""
    if not config.ledger.exists():
        return {}
    ledger = Ledger(config.ledger)
    try:
        found = {}
        for address, agent in ledger.agents().items():
            heads = ledger.record.heads(agent, 512)
            epoch = max((head.epoch for head in heads), default=0)
            ends = {head.stream: head.sequence + 1 for head in heads if head.epoch == epoch}
            found[address] = Mark(epoch, ends)
        return found
    finally:
        ledger.close()


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate aggregator`."""
    app.command("keys", help=_HELP)(keys)

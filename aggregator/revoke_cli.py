"""`millgate aggregator revoke`: let the broker refuse an agent's certificates."""

from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.authority import (
    REVOKED,
    log_path,
    open_authority,
    open_joining,
    write_revoked,
)
from aggregator.broker_files import ACCESS, access_list
from aggregator.config import AggregatorConfig, read_config
from aggregator.ledger import Ledger
from aggregator.revocations import take_nothing_more
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.topics import Address
from security.admin_log import record_admin
from security.files import PUBLIC, write_whole

_SHORTEST_ID: Final = 8
_MAIN: Final = "main"
_HELP: Final = tr(
    "Revoke the certificates by which an agent connects to the broker, for good, and take nothing more "
    "from it.\n\n"
    "What it sent before stays valid; its signing key is ended by the firm's officers "
    "('millgate keys revoke'). Reload the broker afterwards.\n\n"
    "Example: millgate aggregator revoke brain/aggregator.toml huafeng --broker /etc/mosquitto/millgate",
    "永久吊销代理程序连接消息代理所用的证书，并不再接收其内容。\n\n"
    "此前送达的内容仍然有效；其签名密钥由企业数据官终止（'millgate keys revoke'）。之后请重新加载消息代理。\n\n"
    "示例：millgate aggregator revoke brain/aggregator.toml 华丰 --broker /etc/mosquitto/millgate",
)


def revoke(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    place: Annotated[
        str,
        typer.Argument(help=tr("NAME, NAME/SITE or the agent's id", "企业、企业/厂区 或代理标识")),
    ],
    broker: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "folder of 'broker-config', so that the broker gets the list too",
                "broker-config 的目录，吊销列表一并写入",
            )
        ),
    ] = None,
) -> None:
    """Revoke an agent's certificates."""
    config = read_config(path)
    authority = open_authority(config)
    address, name = _find(config, place)
    record_admin(log_path(config), "revoke", agent=address.agent.hex(), name=name)
    joining = open_joining(config)
    try:
        revoked = joining.revoke_certificates(address.agent)
    finally:
        joining.close()
    _end_in_ledger(config, address)
    # Also where nothing was left to revoke: the list may be what is missing.
    found = write_revoked(config, authority)
    if broker is not None:
        _give(broker / REVOKED, found.certificates)
        _give(broker / ACCESS, access_list(found.agents))
    typer.echo(
        tr(
            f"{name}: {len(revoked)} certificate(s) revoked. From now on the brain takes nothing more "
            "from it, not over a connection that is open either.",
            f"{name}：已吊销 {len(revoked)} 个证书。自此产业大脑不再接收其任何内容，包括经由仍然打开的连接。",
        )
    )
    typer.echo(_what_now(path, broker))


def _what_now(path: Path, broker: Path | None) -> str:
    """Tell what ends the way to the broker: Mosquitto looks at no certificate twice."""
    written = tr(
        f"The broker does not know yet. Write its files, where you keep them:\n"
        f"  millgate aggregator broker-config {path} /etc/mosquitto/millgate\n",
        f"消息代理尚不知情。请写入其文件（按实际目录）：\n"
        f"  millgate aggregator broker-config {path} /etc/mosquitto/millgate\n",
    )
    return (written if broker is None else "") + tr(
        "Let the broker read its files again:\n"
        "  systemctl reload mosquitto\n"
        "It then lets no new connection of this agent in, and one that is open can neither write nor "
        "read any more. That one stays open, mute, until it breaks. To cut it as well:\n"
        "  systemctl restart mosquitto\n"
        "The other agents connect again by themselves; nothing of theirs is lost.",
        "请让消息代理重新读取其文件：\n"
        "  systemctl reload mosquitto\n"
        "此后该代理程序无法新建连接，仍然打开的连接也不能再写入或读取；该连接会保持打开（静默），直至断开。如需立即切断：\n"
        "  systemctl restart mosquitto\n"
        "其他代理程序会自动重新连接，其数据不会丢失。",
    )


def _end_in_ledger(config: AggregatorConfig, address: Address) -> None:
    ledger = Ledger(config.ledger)
    try:
        take_nothing_more(ledger, address)
    finally:
        ledger.close()


def _find(config: AggregatorConfig, place: str) -> tuple[Address, str]:
    enterprise, _, site = place.partition("/")
    found = [
        (address, f"{one.enterprise}/{one.site}")
        for address, one in config.factories().items()
        if (one.enterprise, one.site) == (enterprise, site or _MAIN)
        or (len(place) >= _SHORTEST_ID and address.agent.hex().startswith(place.lower()))
    ]
    if len(found) == 1:
        return found[0]
    raise MillgateError(
        tr("no agent, or more than one, is called so", "没有或不止一个代理程序与此相符"),
        where=place,
        remedy=tr("see 'millgate aggregator factories'", "请查看 'millgate aggregator factories'"),
    )


def _give(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data, PUBLIC)
    except OSError as error:
        raise MillgateError(
            tr("the broker's file cannot be written", "无法写入消息代理的文件"),
            where=str(path),
            remedy=str(error.strerror),
        ) from None


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate aggregator`."""
    app.command("revoke", help=_HELP)(revoke)

"""`millgate aggregator revoke`: let the broker refuse an agent's certificates."""

from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.authority import log_path, open_authority, open_joining, write_revoked
from aggregator.broker_files import REVOKED
from aggregator.config import AggregatorConfig, read_config
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.topics import Address
from security.admin_log import record_admin
from security.files import PUBLIC, write_whole

_SHORTEST_ID: Final = 8
_MAIN: Final = "main"
_HELP: Final = tr(
    "Revoke the certificates by which an agent connects to the broker, for good.\n\n"
    "What it signed before stays valid; its signing key is ended by the firm's officers "
    "('millgate keys revoke'). Reload the broker afterwards.\n\n"
    "Example: millgate aggregator revoke brain/aggregator.toml huafeng --broker /etc/mosquitto/millgate",
    "永久吊销代理程序连接消息代理所用的证书。\n\n"
    "此前签署的内容仍然有效；其签名密钥由企业数据官终止（'millgate keys revoke'）。之后请重新加载消息代理。\n\n"
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
    # Also where nothing was left to revoke: the list may be what is missing.
    found = write_revoked(config, authority)
    if broker is not None:
        _give(broker / REVOKED, found)
    typer.echo(
        tr(
            f"{name}: {len(revoked)} certificate(s) revoked. Reload the broker now, for example: "
            "systemctl reload mosquitto",
            f"{name}：已吊销 {len(revoked)} 个证书。请立即重新加载消息代理，例如：systemctl reload mosquitto",
        )
    )


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


def _give(path: Path, revoked: bytes) -> None:
    try:
        write_whole(path, revoked, PUBLIC)
    except OSError as error:
        raise MillgateError(
            tr("the revocation list cannot be written", "无法写入吊销列表"),
            where=str(path),
            remedy=str(error.strerror),
        ) from None


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate aggregator`."""
    app.command("revoke", help=_HELP)(revoke)

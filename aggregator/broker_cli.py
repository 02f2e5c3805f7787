"""`millgate aggregator broker-config`: what Mosquitto needs to let the right ones in."""

import ipaddress
import os
import pwd
from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.authority import enrolment_of, log_path, make_authority, write_revoked
from aggregator.broker_files import CONFIG, BrokerFiles, bound
from aggregator.config import read_config
from protocols.errors import MillgateError
from protocols.language import tr
from security.admin_log import record_admin

_HELP: Final = tr(
    "Write Mosquitto's configuration, access list and certificates into a folder.\n\n"
    "Who connects needs a certificate of the authority; an agent writes only its own topics and reads "
    "only its own. Writing them again keeps the broker's key and renews the rest.\n\n"
    "Example: millgate aggregator broker-config brain/aggregator.toml /etc/mosquitto/millgate",
    "在目录中生成 Mosquitto 的配置、访问控制与证书。\n\n"
    "连接者须持证书机构签发的证书；代理程序只能写入和读取自己的主题。重新生成时保留消息代理私钥，更新其余文件。\n\n"
    "示例：millgate aggregator broker-config brain/aggregator.toml /etc/mosquitto/millgate",
)
_USER: Final = "mosquitto"
_ALL: Final = "all"


def broker_config(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    folder: Annotated[Path, typer.Argument(help=tr("folder", "目录"))],
    port: Annotated[
        int | None, typer.Option(help=tr("where the broker listens", "消息代理监听端口"))
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help=tr("further name of the broker (repeatable)", "消息代理其他名称（可重复）")
        ),
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "the one address to listen on, or 'all'; as before by default, at first all",
                "只在此地址监听，或 all（全部地址）；默认沿用原设置，初次为全部",
            )
        ),
    ] = None,
    user: Annotated[
        str,
        typer.Option(help=tr("as whom the broker runs; root only", "消息代理运行用户；仅 root")),
    ] = _USER,
) -> None:
    """Write the broker's files."""
    config = read_config(path)
    enrolment = enrolment_of(config)
    authority = make_authority(config)
    place = enrolment.broker_place(config.broker)
    hosts = [place.host, config.broker.host, *(host or []), *enrolment.server_names()]
    record_admin(log_path(config), "broker-config", folder=str(folder.absolute()))
    files = BrokerFiles(
        folder,
        port or config.broker.port,
        list(dict.fromkeys(hosts)),
        _owner(user),
        bound(folder) if bind is None else _address(bind),
    )
    files.write(authority, write_revoked(config, authority))
    typer.echo(
        tr(
            f"Written to {folder}. Let Mosquitto read it, for example on Debian:\n"
            f"  echo 'include_dir {folder.absolute()}' > /etc/mosquitto/conf.d/millgate.conf\n"
            f"  systemctl restart mosquitto\n"
            f"or try it by hand: mosquitto -c {folder / CONFIG}",
            f"已写入 {folder}。让 Mosquitto 读取，例如在 Debian 上：\n"
            f"  echo 'include_dir {folder.absolute()}' > /etc/mosquitto/conf.d/millgate.conf\n"
            f"  systemctl restart mosquitto\n"
            f"或手工试运行：mosquitto -c {folder / CONFIG}",
        )
    )
    typer.echo(
        tr(
            f"It will listen on {files.bind} only, port {files.port}.",
            f"它只在 {files.bind} 端口 {files.port} 监听。",
        )
        if files.bind
        else tr(
            f"It will listen on every address of this machine, port {files.port}; it lets in who has a "
            "certificate and nobody else. To narrow it: --bind ADDRESS",
            f"它将在本机全部地址的端口 {files.port} 监听，只有持证书者可连接。如需缩小范围：--bind 地址",
        )
    )
    if not config.broker.tls:
        typer.echo(
            tr(
                f"\n{path} still says [broker] without tls: write tls = true, "
                'ca_file = "keys/ca.pem", certificate = "keys/brain.pem", private_key = "keys/brain.key"',
                f"\n{path} 的 [broker] 尚未启用 tls：请写 tls = true、"
                'ca_file = "keys/ca.pem"、certificate = "keys/brain.pem"、private_key = "keys/brain.key"',
            ),
            err=True,
        )


def _address(text: str) -> str:
    """Return the address to listen on; empty for all.

    Raises:
        MillgateError: it is none, which the broker would say only when it starts.
    """
    if text == _ALL:
        return ""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise MillgateError(
            tr(f"'{text}' is no address", f"'{text}' 不是地址"),
            where="--bind",
            remedy=tr(
                "write one of this machine's addresses, such as 192.168.1.10 or ::1, or 'all'",
                "请写本机的某个地址，如 192.168.1.10 或 ::1，或写 all",
            ),
        ) from None


def _owner(user: str) -> str:
    """Return whom the files should belong to; only root can give them away."""
    if os.geteuid() != 0:
        return ""
    return user if any(one.pw_name == user for one in pwd.getpwall()) else ""


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate aggregator`."""
    app.command("broker-config", help=_HELP)(broker_config)

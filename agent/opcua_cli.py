"""`millgate agent cert`: our certificate for OPC UA, and the servers that are trusted."""

import asyncio
import re
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent.onboarding.adding import bare_config
from protocols.drivers import read_devices
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.settings import read_toml
from protocols.words import instead_of
from security.application_certificate import create_application_certificate, new_application_uri

if TYPE_CHECKING:
    from protocols.drivers.opcua.certificates import Certificate
    from protocols.drivers.opcua.config import Config
    from protocols.drivers.opcua.pki import Trusted

_SHA256: Final = re.compile(r"[0-9a-f]{64}")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help=tr(
        "Certificates for OPC UA: our own, and the servers that are trusted.",
        "OPC UA 证书：本机证书与受信任的服务器。",
    ),
)

AgentToml = Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))]


@app.command(
    "init",
    help=tr(
        "Make the certificate by which OPC UA servers know this agent.\n\n"
        "Example: millgate agent cert init mill/agent.toml",
        "生成本机证书，供 OPC UA 服务器识别。\n\n示例：millgate agent cert init mill/agent.toml",
    ),
)
def init(
    path: AgentToml,
    days: Annotated[int, typer.Option(min=1, max=7300, help=tr("valid for", "有效天数"))] = 3650,
    bits: Annotated[int, typer.Option(min=2048, max=4096, help=tr("key", "密钥位数"))] = 2048,
    host: Annotated[str, typer.Option(help=tr("name of this machine", "本机名称"))] = "",
    renew: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--renew", help=tr("replace what is there", "替换现有证书"))
    ] = False,
) -> None:
    """Make our certificate, in every folder that a device names."""
    from protocols.drivers.opcua import pki  # noqa: PLC0415 - slow to load

    for folder in _folders(path):
        pem, der = folder / pki.OWN, folder / pki.OWN_DER
        uri = new_application_uri()
        if renew and pem.exists():
            uri = (pki.read_certificate(pem).uris or (uri,))[0]
        create_application_certificate(
            pem, der, uri=uri, host=host or socket.gethostname(), days=days, bits=bits, renew=renew
        )
        _show_own(folder)
        typer.echo(
            tr(f"Let each OPC UA server trust {der}.", f"请在每台 OPC UA 服务器上信任 {der}。")
        )


@app.command(
    "show",
    help=tr(
        "Show our certificate.\n\nExample: millgate agent cert show mill/agent.toml",
        "显示本机证书。\n\n示例：millgate agent cert show mill/agent.toml",
    ),
)
def show(path: AgentToml) -> None:
    """Show our certificate."""
    for folder in _folders(path):
        _show_own(folder)


@app.command(
    "trust",
    help=tr(
        "Show a server's certificate and trust it from now on.\n\n"
        "Example: millgate agent cert trust mill/agent.toml press-1",
        "显示服务器证书，并从此信任它。\n\n示例：millgate agent cert trust mill/agent.toml press-1",
    ),
)
def trust(
    path: AgentToml,
    device: Annotated[
        str,
        typer.Argument(
            help=tr("id of the device, or opc.tcp://HOST:PORT", "设备标识，或 opc.tcp://主机:端口")
        ),
    ],
    fingerprint: Annotated[
        str,
        typer.Option(
            help=tr(
                "SHA-256 fingerprint it must have; then nothing is asked",
                "须与之一致的 SHA-256 指纹；给出后不再询问",
            )
        ),
    ] = "",
) -> None:
    """Show a server's certificate and trust it from now on."""
    from protocols.drivers.opcua.pki import TrustFolder  # noqa: PLC0415 - slow to load

    config = _device(path, device)
    found, notes = asyncio.run(_server_of(config))
    _show(found.certificate)
    for note in notes:
        typer.echo(tr("note: ", "注意：") + note)
    if found.floor is not None:
        typer.echo(tr(f"protection: {found.floor}", f"保护方式：{found.floor}"))
    _confirm(found.certificate, fingerprint)
    kept = TrustFolder(config.pki).add(found)
    typer.echo(tr(f"{device} is trusted: {kept}", f"已信任 {device}：{kept}"))


@app.command(
    "list",
    help=tr(
        "List the servers that are trusted.\n\nExample: millgate agent cert list mill/agent.toml",
        "列出受信任的服务器。\n\n示例：millgate agent cert list mill/agent.toml",
    ),
)
def list_trusted(path: AgentToml) -> None:
    """List the servers that are trusted."""
    from protocols.drivers.opcua.pki import TrustFolder  # noqa: PLC0415 - slow to load

    for folder in _folders(path):
        for one in TrustFolder(folder).all():
            line = [one.certificate.sha256, one.device or "-", str(one.floor or "-")]
            until = tr("until ", "有效期至 ") + _day(one.certificate.ends_ns)
            typer.echo("  ".join([*line, until, one.certificate.subject]))


@app.command(
    "distrust",
    help=tr(
        "Trust a server no longer.\n\n"
        "Example: millgate agent cert distrust mill/agent.toml FINGERPRINT",
        "不再信任某服务器。\n\n示例：millgate agent cert distrust mill/agent.toml 指纹",
    ),
)
def distrust(
    path: AgentToml,
    fingerprint: Annotated[str, typer.Argument(help=tr("as 'list' shows it", "见 list"))],
) -> None:
    """Trust a server no longer."""
    from protocols.drivers.opcua.pki import TrustFolder  # noqa: PLC0415 - slow to load

    wanted = _plain(fingerprint)
    removed = False
    for folder in _folders(path):
        removed |= TrustFolder(folder).remove(wanted)
    if not removed:
        raise MillgateError(
            tr("no such certificate is trusted", "没有此受信任证书"),
            where=str(path),
            remedy=tr("see 'millgate agent cert list'", "见 'millgate agent cert list'"),
        )


def _folders(path: Path) -> list[Path]:
    """Return the folders of certificates that the devices name, of none the usual one."""
    tables = read_toml(path).get("device", [])
    named = [
        str(table.get("pki", "pki"))
        for table in tables
        if isinstance(table, dict) and table.get("kind") == "opcua"
    ]
    return [path.absolute().parent / name for name in sorted(set(named) or {"pki"})]


def _device(path: Path, wanted: str) -> "Config":
    from protocols.drivers.opcua.config import Config  # noqa: PLC0415 - slow to load

    devices = read_devices(read_toml(path).get("device", []), path)
    if wanted.startswith("opc.tcp://"):
        return _unconfigured(path, wanted)
    for device in devices:
        if device.id == wanted and isinstance(device, Config):
            return device
    names = [device.id for device in devices if isinstance(device, Config)]
    raise MillgateError(
        tr(f"no OPC UA device '{wanted}' is configured", f"未配置 OPC UA 设备 '{wanted}'"),
        where=str(path),
        remedy=instead_of(wanted, names),
    )


def _unconfigured(path: Path, url: str) -> "Config":
    """Return how to connect to a server that is not configured yet; its address is its name."""
    name = re.sub(r"[^a-z0-9]+", "-", url.removeprefix("opc.tcp://").lower()).strip("-")
    found: Config = bare_config(path, {"id": name[:64], "kind": "opcua", "url": url})
    return found


async def _server_of(config: "Config") -> "tuple[Trusted, list[str]]":
    """Ask a server for its certificate; nothing is sent to it but the question."""
    from protocols.drivers.opcua.checks import check_server  # noqa: PLC0415 - slow to load
    from protocols.drivers.opcua.endpoints import (  # noqa: PLC0415 - same
        ask_endpoints,
        certificate_at,
        choose,
    )
    from protocols.drivers.opcua.pki import Trusted  # noqa: PLC0415 - same

    where = f"{config.id} ({config.url})"
    endpoints = await ask_endpoints(config, where)
    if config.security == "none":
        # Its certificate protects no more than the user's password.
        shown = next((one for one in endpoints if one.ServerCertificate), endpoints[0])
        found = Trusted(certificate_at(shown, where), config.id)
    else:
        endpoint, level = choose(endpoints, config, where)
        found = Trusted(certificate_at(endpoint, where), config.id, level)
    tolerant = config.model_copy(update={"tolerate": frozenset({"time"})})
    return found, check_server(tolerant, found.certificate, where, time.time_ns())


def _confirm(certificate: "Certificate", fingerprint: str) -> None:
    if fingerprint:
        if _plain(fingerprint) != certificate.sha256:
            raise MillgateError(
                tr("the server shows another certificate", "服务器出示的是另一证书"),
                where="--fingerprint",
                remedy=tr(
                    "nothing was changed; compare with the server's own display",
                    "未作任何更改；请与服务器自身显示的核对",
                ),
            )
        return
    question = tr(
        "Does the server itself show this fingerprint? Trust it?",
        "服务器自身显示的指纹与此一致吗？是否信任？",
    )
    typer.confirm(question, abort=True)


def _plain(fingerprint: str) -> str:
    plain = re.sub(r"[\s:-]", "", fingerprint).lower()
    if _SHA256.fullmatch(plain) is None:
        raise MillgateError(
            tr("a SHA-256 fingerprint has 64 hex digits", "SHA-256 指纹为 64 位十六进制数"),
            remedy=tr("copy it whole", "请完整复制"),
        )
    return plain


def _show_own(folder: Path) -> None:
    from protocols.drivers.opcua import pki  # noqa: PLC0415 - slow to load

    remedy = tr("make it with 'millgate agent cert init'", "请用 'millgate agent cert init' 生成")
    path = folder / pki.OWN
    own = asyncio.run(pki.parse_own(pki.read_private(path, remedy), path, remedy))
    typer.echo(str(folder / pki.OWN_DER))
    _show(own.certificate)


def _show(certificate: "Certificate") -> None:
    for name, value in (
        (tr("subject", "主体"), certificate.subject),
        (tr("application URI", "应用 URI"), ", ".join(certificate.uris) or "-"),
        (tr("hosts", "主机"), ", ".join(certificate.hosts) or "-"),
        (tr("valid", "有效期"), f"{_day(certificate.starts_ns)} - {_day(certificate.ends_ns)}"),
        ("SHA-256", certificate.sha256),
        (tr("SHA-1 (thumbprint)", "SHA-1（指纹）"), certificate.thumbprint),
    ):
        typer.echo(f"  {name}: {value}")


def _day(moment_ns: int) -> str:
    return f"{datetime.fromtimestamp(moment_ns / SECOND, UTC):%Y-%m-%d}"

"""Whether a server is the one that is trusted, and as well protected as before.

What a server says before the channel is protected can have been changed on the way. So its
certificate must be in the trust folder, and once the channel is open the list of its endpoints is
looked at again: had a better one been hidden, the connection ends.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from asyncua import ua

from protocols.drivers import NotConnected
from protocols.drivers.opcua import pki
from protocols.drivers.opcua.certificates import Certificate
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.endpoints import strongest
from protocols.drivers.opcua.levels import Level, level_at
from protocols.frame import SECOND
from protocols.language import counted, tr

_SHORTEST_KEY: Final = 2048
_DAY_NS: Final = 86_400 * SECOND
_SOON_NS: Final = 30 * _DAY_NS


def trusted(config: Config, server: Certificate, where: str) -> pki.Trusted:
    """Return what is known of a server's certificate.

    Raises:
        NotConnected: when it is not trusted.
    """
    folder = pki.TrustFolder(config.pki)
    known = folder.find(server)
    if known is not None:
        return known
    before = folder.of_device(config.id)
    if before:
        what = tr(
            f"the server now shows another certificate (SHA-256 {server.sha256}) than the one "
            f"that is trusted ({before[0].certificate.sha256})",
            f"服务器出示的证书（SHA-256 {server.sha256}）与已信任的证书"
            f"（{before[0].certificate.sha256}）不同",
        )
        remedy = tr(
            "find out at the server why; if it is meant to be, compare the fingerprint there and "
            f"run 'millgate agent cert trust AGENT.TOML {config.id}'",
            "请在服务器侧查明原因；如确属更换，请核对指纹后运行 "
            f"'millgate agent cert trust AGENT.TOML {config.id}'",
        )
    else:
        what = tr(
            f"the server's certificate is not trusted yet (SHA-256 {server.sha256})",
            f"尚未信任该服务器的证书（SHA-256 {server.sha256}）",
        )
        remedy = tr(
            f"run 'millgate agent cert trust AGENT.TOML {config.id}' and compare the fingerprint "
            "with the server's own display",
            f"请运行 'millgate agent cert trust AGENT.TOML {config.id}'，并与服务器上显示的指纹核对",
        )
    raise NotConnected(what, where=where, remedy=remedy)


def check_server(config: Config, server: Certificate, where: str, now_ns: int) -> list[str]:
    """Check what a server's certificate says of itself.

    A wrong time ends the connection unless the configuration tolerates it. A wrong host is only
    told: devices are moved and renamed, and the certificate itself is what is trusted.

    Returns:
        what is tolerated, in one line each.

    Raises:
        NotConnected: for what is not tolerated.
    """
    if server.rsa_bits < _SHORTEST_KEY:
        raise NotConnected(
            tr(
                f"the server's key is not an RSA key of at least {_SHORTEST_KEY} bits",
                f"服务器密钥不是至少 {_SHORTEST_KEY} 位的 RSA 密钥",
            ),
            where=where,
            remedy=tr("give the server a new certificate", "请为服务器更换证书"),
        )
    warnings = []
    wrong_time = time_fault(server, now_ns)
    if wrong_time and "time" not in config.tolerate:
        raise NotConnected(
            tr("the server's certificate ", "服务器证书") + wrong_time,
            where=where,
            remedy=tr(
                "check the clocks of this machine and of the server, and renew the server's "
                'certificate; tolerate = ["time"] accepts it as it is',
                '请检查本机与服务器的时钟，并更新服务器证书；tolerate = ["time"] 表示照旧接受',
            ),
        )
    if wrong_time:
        warnings.append(tr("the server's certificate ", "服务器证书") + wrong_time)
    elif server.ends_ns - now_ns < _SOON_NS:
        warnings.append(tr("the server's certificate ", "服务器证书") + _ends_soon(server, now_ns))
    host = urlsplit(config.url).hostname or ""
    if not server.covers(host):
        warnings.append(
            tr(
                f"the server's certificate is not made out for {host}",
                f"服务器证书未列出主机 {host}",
            )
        )
    return warnings


def time_fault(certificate: Certificate, now_ns: int) -> str:
    """Return how a certificate is out of its time; empty when it is not."""
    if now_ns < certificate.starts_ns:
        day = _day(certificate.starts_ns)
        return tr(f"is not valid before {day}", f"自 {day} 起才有效")
    if now_ns > certificate.ends_ns:
        day = _day(certificate.ends_ns)
        return tr(f"has expired on {day}", f"已于 {day} 过期")
    return ""


def _ends_soon(certificate: Certificate, now_ns: int) -> str:
    days = (certificate.ends_ns - now_ns) // _DAY_NS
    return tr(f"expires in {counted(days, 'day')}", f"将在 {days} 天后过期")


def own_warnings(own: pki.Own, now_ns: int) -> list[str]:
    """Return what should be mended about our own certificate, in one line each."""
    renew = tr(
        "; renew it with 'millgate agent cert init --renew AGENT.TOML'",
        "；请用 'millgate agent cert init --renew AGENT.TOML' 更新",
    )
    wrong = time_fault(own.certificate, now_ns)
    if not wrong and own.certificate.ends_ns - now_ns < _SOON_NS:
        wrong = _ends_soon(own.certificate, now_ns)
    return [tr("our own certificate ", "本机证书") + wrong + renew] if wrong else []


def _day(moment_ns: int) -> str:
    return f"{datetime.fromtimestamp(moment_ns / SECOND, UTC):%Y-%m-%d %H:%M} UTC"


def check_floor(config: Config, level: Level, floor: Level | None, where: str) -> None:
    """Check that a connection is as well protected as before.

    Raises:
        NotConnected: when it is not, and the configuration does not name what is wanted.
    """
    if floor is None or config.security_mode != "best":
        return
    weaker = level < floor if config.security == "best" else level.encrypted < floor.encrypted
    if weaker:
        raise NotConnected(
            tr(
                f"the server offers at best {level}; before it offered {floor}",
                f"服务器现最多提供 {level}；此前为 {floor}",
            ),
            where=where,
            remedy=tr(
                "find out at the server why; if it is meant to be, name both security and "
                "security_mode, or trust the server again",
                "请在服务器侧查明原因；如确属有意，请写明 security 与 security_mode，或重新信任该服务器",
            ),
        )


def check_inside(
    endpoints: Iterable[ua.EndpointDescription],
    config: Config,
    level: Level,
    server: Certificate,
    where: str,
) -> None:
    """Check, once the channel is protected, that nothing better was hidden, and who speaks.

    Raises:
        NotConnected: when something was, or the server is another application than its
            certificate says.
    """
    known = list(endpoints)
    best = strongest(known, config)
    if best is not None and best[1] > level and config.server_certificate is None:
        raise NotConnected(
            tr(
                f"the server offers {best[1]}, but that was hidden before the channel was "
                "protected: someone on the way may be changing messages",
                f"服务器提供 {best[1]}，但在通道受保护之前被隐去：途中可能有人篡改报文",
            ),
            where=where,
            remedy=tr(
                f"name it: security = {best[1].policy!r}, security_mode = {best[1].mode!r}; and "
                "look at the network",
                f"请写明 security = {best[1].policy!r}、security_mode = {best[1].mode!r}，并检查网络",
            ),
        )
    uris = {str(one.Server.ApplicationUri) for one in known if level_at(one) == level}
    if "uri" not in config.tolerate and not uris & set(server.uris):
        raise NotConnected(
            tr(
                "the server's certificate is made out for another application URI than the "
                "server's own",
                "服务器证书中的应用 URI 与服务器自身的不一致",
            ),
            where=where,
            remedy=tr(
                "renew the server's certificate after its name or URI was changed; "
                'tolerate = ["uri"] accepts it as it is',
                '服务器更名或更改 URI 后须更新其证书；tolerate = ["uri"] 表示照旧接受',
            ),
        )

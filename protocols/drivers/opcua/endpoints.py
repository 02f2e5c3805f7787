"""What a server says of its endpoints, and which of them is taken."""

import asyncio
from collections.abc import Iterable
from typing import Final

from asyncua import ua

from protocols.drivers import NotConnected
from protocols.drivers.opcua.bounds import BoundedClient
from protocols.drivers.opcua.certificates import Certificate, parse_certificate
from protocols.drivers.opcua.config import Config, Identity
from protocols.drivers.opcua.faults import Situation, Stage, not_connected
from protocols.drivers.opcua.levels import Level, level_at, offered
from protocols.frame import SECOND
from protocols.language import tr

TOKENS: Final = {
    Identity.ANONYMOUS: ua.UserTokenType.Anonymous,
    Identity.USER: ua.UserTokenType.UserName,
    Identity.CERTIFICATE: ua.UserTokenType.Certificate,
}
"""How each kind of identity is called on the wire."""


async def ask_endpoints(config: Config, where: str) -> list[ua.EndpointDescription]:
    """Ask the server for its endpoints, over a channel that nothing protects.

    Raises:
        NotConnected: when it does not tell.
    """
    seconds = config.timeout / SECOND
    client = BoundedClient(config.url, timeout=seconds)
    try:
        # Four exchanges, each of which the library itself bounds.
        async with asyncio.timeout(4 * seconds):
            return await client.connect_and_get_server_endpoints()
    except Exception as error:  # noqa: BLE001 a misbehaving server surfaces as any exception; re-raised
        raise not_connected(error, where, Situation(Stage.DISCOVERY)) from None


def choose(
    endpoints: Iterable[ua.EndpointDescription], config: Config, where: str
) -> tuple[ua.EndpointDescription, Level]:
    """Return the strongest endpoint that fits the configuration.

    Raises:
        NotConnected: when there is none; a weaker one is never taken instead.
    """
    known = list(endpoints)
    best = strongest(known, config)
    if best is not None:
        return best
    wanted = (
        tr("any secured policy", "任一加密策略") if config.security == "best" else config.security
    )
    raise NotConnected(
        tr(
            f"the server does not offer what is asked for ({wanted}, {config.security_mode}, "
            f"{config.identity.value}); it offers: {offered(known)}",
            f"服务器不提供所要求的连接方式（{wanted}，{config.security_mode}，"
            f"{config.identity.value}）；它提供：{offered(known)}",
        ),
        where=where,
        remedy=tr(
            "enable it at the server, or name one of those that it offers in security and "
            'security_mode; only security = "none" gives up protection',
            "请在服务器上启用，或在 security 与 security_mode 中写明其所提供的方式；"
            '只有 security = "none" 才会放弃保护',
        ),
    )


def certificate_at(endpoint: ua.EndpointDescription, where: str) -> Certificate:
    """Return the certificate that an endpoint shows.

    Raises:
        NotConnected: when it shows none.
    """
    try:
        return parse_certificate(bytes(endpoint.ServerCertificate or b""))
    except ValueError:
        raise NotConnected(
            tr("the server shows no readable certificate", "服务器未出示可读的证书"),
            where=where,
            remedy=tr("give the server a certificate", "请为服务器配置证书"),
        ) from None


def strongest(
    endpoints: Iterable[ua.EndpointDescription], config: Config
) -> tuple[ua.EndpointDescription, Level] | None:
    """Return the strongest endpoint that fits the configuration; None when there is none."""
    best: tuple[ua.EndpointDescription, Level] | None = None
    for endpoint in endpoints:
        level = level_at(endpoint)
        if level is None or not _fits(level, config) or not _accepts(endpoint, config):
            continue
        if best is None or level > best[1]:
            best = endpoint, level
    return best


def _fits(level: Level, config: Config) -> bool:
    return config.security in {"best", level.policy} and config.security_mode in {
        "best",
        level.mode,
    }


def _accepts(endpoint: ua.EndpointDescription, config: Config) -> bool:
    tokens = endpoint.UserIdentityTokens or []
    # A server that lists none leaves it to the log-in to find out.
    return not tokens or any(token.TokenType == TOKENS[config.identity] for token in tokens)

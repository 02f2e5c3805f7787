"""Decides how a connection is made, before anything secret is said."""

import asyncio
from dataclasses import dataclass

from protocols.drivers.opcua import pki
from protocols.drivers.opcua.certificates import Certificate
from protocols.drivers.opcua.checks import check_floor, check_server, own_warnings, trusted
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.endpoints import ask_endpoints, certificate_at, choose
from protocols.drivers.opcua.levels import Level, level_of
from protocols.language import tr


@dataclass(frozen=True, slots=True)
class Door:
    """How a connection is to be made.

    Attributes:
        level: how it is protected; None is not at all, as the configuration says.
        server: the certificate that the server must have; None where there is none.
        own: our own certificate and key; None where none is needed.
        warnings: what is not as it should be, but not refused either.
    """

    level: Level | None = None
    server: Certificate | None = None
    own: pki.Own | None = None
    warnings: tuple[str, ...] = ()


async def find_door(config: Config, where: str, now_ns: int, floor: Level | None) -> Door:
    """Decide how to connect.

    Args:
        config: the device.
        where: the device, for messages.
        now_ns: the time, for certificates.
        floor: the best protection this server has had before.

    Raises:
        NotConnected: when the server cannot be asked, is not trusted, or offers too little.
    """
    if config.security == "none":
        return Door()
    own = await read_own(config)
    if config.server_certificate is not None:
        server = await asyncio.to_thread(pki.read_certificate, config.server_certificate)
        level = level_of(config.security, config.security_mode)
        known = pki.Trusted(server)
    else:
        endpoints = await ask_endpoints(config, where)
        endpoint, level = choose(endpoints, config, where)
        server = certificate_at(endpoint, where)
        known = await asyncio.to_thread(trusted, config, server, where)
    warnings = check_server(config, server, where, now_ns)
    check_floor(config, level, known.floor, where)
    check_floor(config, level, floor, where)
    return Door(level, server, own, (*warnings, *own_warnings(own, now_ns)))


async def read_own(config: Config) -> pki.Own:
    """Return our own certificate and key.

    Raises:
        NotConnected: when they are missing or cannot be used.
    """
    path = config.pki / pki.OWN
    remedy = tr(
        "make it with 'millgate agent cert init AGENT.TOML'",
        "请用 'millgate agent cert init AGENT.TOML' 生成",
    )
    data = await asyncio.to_thread(pki.read_private, path, remedy)
    return await pki.parse_own(data, path, remedy)

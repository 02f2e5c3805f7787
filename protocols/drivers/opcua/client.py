"""asyncua's client, with what it leaves out: who may be talked to, and how."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from asyncua import ua
from asyncua.common.shortcuts import Shortcuts
from asyncua.crypto import uacrypto
from asyncua.crypto.uacrypto import CertProperties

from protocols.drivers import NotConnected
from protocols.drivers.opcua import pki
from protocols.drivers.opcua.answers import ColumnSession
from protocols.drivers.opcua.bounds import LARGEST_MESSAGE, BoundedClient
from protocols.drivers.opcua.certificates import parse_certificate
from protocols.drivers.opcua.checks import check_inside, trusted
from protocols.drivers.opcua.columns import Changes
from protocols.drivers.opcua.config import Config, Identity
from protocols.drivers.opcua.door import Door
from protocols.drivers.opcua.endpoints import TOKENS
from protocols.drivers.opcua.faults import Situation, Stage
from protocols.drivers.opcua.levels import spoken
from protocols.frame import SECOND
from protocols.language import tr

_SHORTEST_SESSION_MS: Final = 60_000
_LONGEST_PASSWORD: Final = 128


class SecureClient(BoundedClient):
    """A client that logs in only where the configuration's conditions hold.

    Attributes:
        stage: how far it has come.
        on_unreadable: called when a notification came that cannot be read.
    """

    def __init__(self, config: Config, door: Door, where: str) -> None:
        timeout = config.timeout / SECOND
        # The library probes ServerStatus at this interval, and waits as long for the answer.
        super().__init__(config.url, timeout=timeout, watchdog_intervall=timeout)
        self.stage = Stage.REACH
        self.name = self.description = "Millgate"
        uris = door.own.certificate.uris if door.own is not None else ()
        self.application_uri = uris[0] if uris else "urn:millgate"
        self.product_uri = "urn:millgate"
        # A session that could not be closed goes away soon by itself.
        self.session_timeout = max(_SHORTEST_SESSION_MS, int(timeout * 10_000))
        self.max_messagesize = LARGEST_MESSAGE
        self.on_unreadable: Callable[[], None] = _nothing
        self._columns = ColumnSession(self.uaclient, self._unreadable)
        self.uaclient.session = self._columns
        self.nodes = Shortcuts(self._columns)
        self._config = config
        self._door = door
        self._where = where

    def _unreadable(self) -> None:
        self.on_unreadable()

    async def read_columns(self, parameters: ua.ReadParameters) -> Changes:
        """Read values as columns; see `ColumnSession.read_columns`."""
        return await self._columns.read_columns(parameters)

    @property
    def situation(self) -> Situation:
        """What a fault now would come in the middle of."""
        own = self._door.own
        return Situation(
            stage=self.stage,
            secured=self._door.level is not None,
            identity=self._config.identity.value,
            own=f"{own.path.with_name(pki.OWN_DER)} (SHA-1 {own.certificate.thumbprint})"
            if own is not None
            else "",
        )

    async def prepare(self) -> None:
        """Load keys and the user's identity.

        Raises:
            NotConnected: when a file is missing, open to others, or not what it should be.
        """
        door, config = self._door, self._config
        if door.level is not None and door.own is not None and door.server is not None:
            await self.set_security(
                door.level.policy_class,
                certificate=CertProperties(door.own.certificate.der, "der"),
                private_key=CertProperties(door.own.key_der, "der"),
                server_certificate=CertProperties(door.server.der, "der"),
                mode=door.level.message_mode,
            )
        if config.identity is Identity.USER:
            self.set_user(config.user or "")
            self.set_password(await asyncio.to_thread(_read_password, config))
        elif config.user_certificate is not None:
            user = await _read_user(config.user_certificate)
            self.user_certificate = await uacrypto.load_certificate(user.certificate.der, "der")
            self.user_private_key = await uacrypto.load_private_key(user.key_der, None, "der")
        self.stage = Stage.REACH

    async def open_secure_channel(self, renew: bool = False) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """Open or renew the secure channel."""
        if not renew:
            self.stage = Stage.CHANNEL
        await super().open_secure_channel(renew)

    async def create_session(self) -> ua.CreateSessionResult:
        """Create a session, and give it back when the server is not what it should be."""
        self.stage = Stage.SESSION
        try:
            result = await super().create_session()
            await self._look_at(result)
        except Exception:
            # The library itself only drops the channel here; the session would take up a place.
            with contextlib.suppress(Exception):
                await self.uaclient.close_session(delete_subscriptions=True)
            raise
        self.stage = Stage.LOGIN
        return result

    async def _look_at(self, result: ua.CreateSessionResult) -> None:
        endpoints = result.ServerEndpoints or []
        level, server = self._door.level, self._door.server
        if level is not None and server is not None:
            check_inside(endpoints, self._config, level, server, self._where)
        if self._config.identity is Identity.ANONYMOUS:
            return
        token = TOKENS[self._config.identity]
        protects = spoken(self.server_policy(token).SecurityPolicyUri)
        encrypted = level is not None and level.encrypted
        if not protects and not (encrypted and self._config.identity is Identity.USER):
            raise self._in_the_clear()
        if server is None:
            # Nothing has vouched for the server yet; what is encrypted now is for this certificate.
            der = bytes(result.ServerCertificate or b"")
            await asyncio.to_thread(self._vouch, der)

    def _in_the_clear(self) -> NotConnected:
        return NotConnected(
            tr(
                "the server wants the user's identity in the clear",
                "服务器要求以明文传送用户身份",
            ),
            where=self._where,
            remedy=tr(
                "let the server protect it (a user token policy such as Basic256Sha256), or "
                'connect with security_mode = "SignAndEncrypt"',
                "请在服务器上为用户令牌设置加密策略（如 Basic256Sha256），或使用 "
                'security_mode = "SignAndEncrypt"',
            ),
        )

    def _vouch(self, der: bytes) -> None:
        try:
            server = parse_certificate(der)
        except ValueError:
            raise self._in_the_clear() from None
        trusted(self._config, server, self._where)


def _nothing() -> None:
    """Do nothing, until somebody wants to know."""


def _read_password(config: Config) -> str:
    path = config.password_file or Path()
    remedy = tr(
        "write the password alone into it, in one line, and make it 0600",
        "请将口令单独写为一行，并设为 0600",
    )
    data = pki.read_private(path, remedy).rstrip(b"\r\n")
    try:
        word = data.decode("utf-8")
    except UnicodeDecodeError:
        word = ""
    if not word or "\n" in word or len(data) > _LONGEST_PASSWORD:
        raise NotConnected(
            tr(
                f"holds no password of 1 to {_LONGEST_PASSWORD} bytes",
                f"不含 1 至 {_LONGEST_PASSWORD} 字节的口令",
            ),
            where=str(path),
            remedy=remedy,
        )
    return word


async def _read_user(path: Path) -> pki.Own:
    remedy = tr(
        "put the user's private key and certificate into one PEM file, and make it 0600",
        "请将用户私钥与证书合并为一个 PEM 文件，并设为 0600",
    )
    data = await asyncio.to_thread(pki.read_private, path, remedy)
    return await pki.parse_own(data, path, remedy)

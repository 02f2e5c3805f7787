"""One session at an OPC-UA server: opened as the configuration says, given back at the end."""

import asyncio
import logging
from collections.abc import Callable

from protocols.drivers import NotConnected
from protocols.drivers.opcua import quiet
from protocols.drivers.opcua.client import SecureClient
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.door import Door, find_door
from protocols.drivers.opcua.faults import Stage, not_connected
from protocols.drivers.opcua.levels import Level
from protocols.frame import SECOND, NowNs
from protocols.language import tr

_log = logging.getLogger(__name__)


class Connection:
    """A session at a server.

    Attributes:
        client: the library's client; only after `open` has begun.
        door: how the connection is made.
    """

    def __init__(
        self, config: Config, now_ns: NowNs, where: str, on_lost: Callable[[NotConnected], None]
    ) -> None:
        self.client: SecureClient | None = None
        self.door = Door()
        self._config = config
        self._now = now_ns
        self._where = where
        self._on_lost = on_lost
        self._place = quiet.Place(where)

    async def open(self, floor: Level | None) -> SecureClient:
        """Connect and log in.

        Args:
            floor: the best protection this server has had before.

        Raises:
            NotConnected: when that fails.
        """
        quiet.at.set(self._place)
        self.door = await find_door(self._config, self._where, self._now(), floor)
        client = self.client = SecureClient(self._config, self.door, self._where)
        client.connection_lost_callback = self._lost
        try:
            await client.prepare()
            await client.connect()
        except Exception as error:  # noqa: BLE001 a misbehaving server surfaces as any exception; re-raised
            raise self.fault(error) from None
        client.stage = Stage.OPEN
        return client

    def fault(self, error: Exception) -> NotConnected:
        """Return what an exception of this connection means."""
        if isinstance(error, NotConnected):
            return error
        if self.client is None:
            raise error
        return not_connected(error, self._where, self.client.situation)

    async def _lost(self, error: Exception) -> None:
        self._on_lost(self.fault(error))

    async def close(self) -> None:
        """Give subscriptions and session back to the server, as far as it still listens."""
        self._place.over = True
        client = self.client
        if client is None or not client.uaclient.has_transport:
            return
        try:
            async with asyncio.timeout(2 * self._config.timeout / SECOND):
                await client.disconnect()
        except TimeoutError:
            _log.info("%s: %s", self._where, tr("closed without an answer", "关闭时无应答"))
        finally:
            client.disconnect_socket()

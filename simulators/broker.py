"""An MQTT broker for demo and tests: loopback only, anonymous, in memory, MQTT 3.1.1.

A broker that runs in production is a server of its own, with TLS, certificates and access
lists. This one keeps no message for a subscriber that is away and forgets everything when
it stops; nothing that Millgate promises rests on it.
"""

import asyncio
from types import TracebackType
from typing import Final, Self

from amqtt.broker import Broker  # type: ignore[import-untyped] # amqtt ships no type marker
from amqtt.contexts import (  # type: ignore[import-untyped] # amqtt ships no type marker
    BrokerConfig,
    ListenerConfig,
    ListenerType,
)

from protocols.errors import MillgateError
from protocols.language import tr
from simulators.running import cannot_listen

_HOST: Final = "127.0.0.1"
_LISTENER: Final = "default"
_STOP_S: Final = 10.0


class EmbeddedBroker:
    """Listens on a loopback port while its context is entered.

    Args:
        port: port to listen on; 0 lets the kernel pick one.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._broker: Broker | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._alone = asyncio.Event()

    @property
    def url(self) -> str:
        """Where clients connect; complete once the broker listens."""
        return f"mqtt://{_HOST}:{self.port}"

    async def __aenter__(self) -> Self:
        """Start to listen; `port` then is the real one.

        Raises:
            MillgateError: when the port cannot be had.
        """
        self._broker = Broker(_config())
        await self._broker.start()
        try:
            self._server = await asyncio.start_server(self._connected, _HOST, self.port)
        except OSError as error:
            await self._broker.shutdown()
            raise cannot_listen(_HOST, self.port) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening and drop every client.

        Raises:
            MillgateError: when a client could not be dropped in time.
        """
        if self._server is None or self._broker is None:
            return
        self._server.close()
        try:
            async with asyncio.timeout(_STOP_S):
                await self._broker.shutdown()
                for client in self._clients:
                    client.transport.abort()
                await self._server.wait_closed()
                if self._clients:
                    await self._alone.wait()
        except TimeoutError as late:
            raise MillgateError(
                tr("the broker did not stop in time", "代理未能按时停止"), where=self.url
            ) from late

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._broker is None:
            return
        self._clients.add(writer)
        self._alone.clear()
        try:
            await self._broker.stream_connected(reader, writer, _LISTENER)
        finally:
            self._clients.discard(writer)
            if not self._clients:
                self._alone.set()


def _config() -> BrokerConfig:
    # The listening socket is ours, because amqtt does not tell which port the kernel picked.
    # Only the listed plugins are loaded: the defaults would publish $SYS topics.
    return BrokerConfig(
        listeners={_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
        plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    )

"""One connection to an OPC-UA server and the nodes it is for."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from asyncua import ua

from protocols.drivers import NotConnected
from protocols.drivers.opcua.address import STANDARD_NAMESPACE
from protocols.drivers.opcua.client import SecureClient
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.connection import Connection
from protocols.drivers.opcua.door import Door
from protocols.drivers.opcua.items import Item
from protocols.drivers.opcua.levels import Level
from protocols.drivers.opcua.limits import NODE
from protocols.frame import SECOND, NowNs
from protocols.language import tr

_UNKNOWN_NAMESPACE: Final = "NamespaceUnknown"

Nodes = list[tuple[int, ua.NodeId]]
"""Nodes, each with the place of its item."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Values as they came.

    Attributes:
        items: what was monitored or read, in the server's order; handles are places plus one.
        received_ns: when they came, wall clock.
    """

    items: list[ua.MonitoredItemNotification]
    received_ns: int


class Link(ABC):
    """Connects once, and ends at the first sign of loss.

    It never mends itself: whoever supervises the driver connects anew, so that no value is
    ever taken to be valid across a gap.

    Attributes:
        refused: places of items that the server does not give, with the name of its reason.
        remarks: what the server does otherwise than asked, in one line each.
    """

    def __init__(self, config: Config, items: Sequence[Item], now_ns: NowNs, where: str) -> None:
        self.refused: dict[int, str] = {}
        self.remarks: list[str] = []
        self._config = config
        self._items = items
        self._now = now_ns
        self._where = where
        self._timeout = config.timeout / SECOND
        self._connection = Connection(config, now_ns, where, self._end)
        self._lost: NotConnected | None = None

    @property
    def _client(self) -> SecureClient:
        client = self._connection.client
        if client is None:
            raise NotConnected(tr("not connected yet", "尚未连接"), where=self._where)
        return client

    @property
    def door(self) -> Door:
        """How the connection is made."""
        return self._connection.door

    async def open(self, floor: Level | None) -> None:
        """Connect and find the nodes.

        Args:
            floor: the best protection this server has had before.

        Raises:
            NotConnected: when that fails, or no node at all can be had.
        """
        client = await self._connection.open(floor)
        try:
            nodes = self._resolve(range(len(self._items)), await client.get_namespace_array())
            await self._start(nodes)
        except Exception as error:  # noqa: BLE001 a misbehaving server surfaces as any exception; re-raised
            raise self._connection.fault(error) from None
        if len(self.refused) == len(self._items):
            raise NotConnected(
                tr("the server has none of the nodes", "服务器上没有任何所配置的节点"),
                where=self._where,
                remedy=tr(
                    f"check the addresses; its reason for the first: {self.refused[0]}",
                    f"请检查地址；第一个节点的原因：{self.refused[0]}",
                ),
            )

    @abstractmethod
    async def _start(self, nodes: Nodes) -> None:
        """Begin to watch or read nodes."""

    @abstractmethod
    async def next(self) -> Delivery:
        """Wait for the next values.

        Raises:
            NotConnected: when contact was lost, after all that came before has been returned.
        """

    async def close(self) -> None:
        """Give the session back to the server, as far as it still listens."""
        await self._connection.close()

    def _lose(self, what: str) -> None:
        remedy = tr("it is tried again; look at the server's log", "将自动重连；请查看服务器日志")
        self._end(NotConnected(what, where=self._where, remedy=remedy))

    def _end(self, fault: NotConnected) -> None:
        self._lost = self._lost or fault

    def _resolve(self, places: Iterable[int], namespaces: list[str]) -> Nodes:
        """Return place and node of every item whose namespace the server has now."""
        indices = {uri: index for index, uri in reversed(list(enumerate(namespaces)))}
        indices[STANDARD_NAMESPACE] = 0
        found = []
        for place in places:
            address = self._items[place].ask.address
            index = indices.get(address.namespace)
            if index is None:
                self.refused[place] = _UNKNOWN_NAMESPACE
            else:
                found.append((place, NODE(address.identifier, index)))
        return found

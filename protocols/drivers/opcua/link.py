"""One connection to an OPC-UA server and the nodes it is for."""

import asyncio
import contextlib
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from asyncua import ua
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.drivers import NotConnected
from protocols.drivers.opcua.client import SecureClient
from protocols.drivers.opcua.columns import Changes
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.connection import Connection
from protocols.drivers.opcua.door import Door
from protocols.drivers.opcua.history import Contact, Gap
from protocols.drivers.opcua.items import Item
from protocols.drivers.opcua.levels import Level
from protocols.drivers.opcua.nodes import Finder, Nodes
from protocols.drivers.opcua.structures import Layout
from protocols.frame import SECOND, NowNs
from protocols.language import tr

_FIRST_RETRY_S: Final = 30.0
_LONGEST_RETRY_S: Final = 3600.0
_MOST_RETRIED: Final = 1000


@dataclass(frozen=True, slots=True)
class Delivery:
    """Values as they came.

    Attributes:
        changes: what was monitored or read, in the server's order.
        received_ns: when they came, wall clock.
        refilled: whether they are from the server's history.
    """

    changes: Changes
    received_ns: int
    refilled: bool = False


class Link(ABC):
    """Connects once, and ends at the first sign of loss.

    It never mends itself: whoever supervises the driver connects anew, so that no value is
    ever taken to be valid across a gap. Only for nodes that the server does not give it asks
    again now and then.

    Attributes:
        refused: places of items that the server does not give, with the name of its reason.
        remarks: what the server does otherwise than asked, in one line each.
        changes: how often `refused` or `remarks` have changed since `open`.
        opened: whether `open` has succeeded.
    """

    def __init__(self, config: Config, items: Sequence[Item], now_ns: NowNs, where: str) -> None:
        self.refused: dict[int, str] = {}
        self.remarks: list[str] = []
        self.changes = 0
        self.opened = False
        self._config = config
        self._items = items
        self._now = now_ns
        self._where = where
        self._timeout = config.timeout / SECOND
        self._connection = Connection(config, now_ns, where, self._end)
        self._finder: Finder | None = None
        self._lost: NotConnected | None = None
        self._retry_at = math.inf
        self._retry_wait = _FIRST_RETRY_S
        self._retried = -1

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

    @property
    def layouts(self) -> Mapping[ua.NodeId, Layout]:
        """The structures that points reach into, by the mark of their values."""
        return {} if self._finder is None else self._finder.layouts.by_encoding

    @property
    def contact(self) -> Contact | None:
        """When the server was last heard of; None when that is not known."""
        return None

    @property
    def seen_ns(self) -> int | None:
        """Until when, by our clock, no change went unseen; None for values that do not hold."""
        return None

    async def open(self, floor: Level | None, gap: Gap | None, without: set[int]) -> None:
        """Connect and find the nodes.

        Args:
            floor: the best protection this server has had before.
            gap: what was not seen since the connection before; None at the first.
            without: places of items that have no history; more are put in.

        Raises:
            NotConnected: when that fails, or no node at all can be had.
        """
        client = await self._connection.open(floor)
        self._finder = Finder(client, self._items, self._where)
        try:
            await self._begin(without)
            nodes = await self._find(self._finder, range(len(self._items)))
            await self._take_up(nodes)
            if gap is not None:
                # What is new waits meanwhile: the gap ends where that begins.
                await self._refill(gap, nodes)
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
        self.opened = True
        self._plan_retry()

    @abstractmethod
    async def _begin(self, without: set[int]) -> None:
        """Prepare to watch or read."""

    @abstractmethod
    async def _refill(self, gap: Gap, nodes: Nodes) -> None:
        """Fetch what changed in a gap, where that is of use."""

    @abstractmethod
    async def _take_up(self, nodes: Nodes) -> None:
        """Begin to watch or read these nodes; note each that is or is not given at once."""

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

    async def _find(self, finder: Finder, places: Iterable[int]) -> Nodes:
        nodes, refused = await finder.find(places)
        self.refused |= refused
        return nodes

    async def _retry_if_due(self) -> None:
        """Ask again for what the server did not give; it may have it by now.

        Raises:
            NotConnected: when the connection does not bear it.
        """
        if asyncio.get_running_loop().time() < self._retry_at or self._finder is None:
            return
        places = sorted(self.refused)
        later = [place for place in places if place > self._retried]
        chosen = (later or places)[:_MOST_RETRIED]
        self._retried = chosen[-1]
        before = dict(self.refused)
        try:
            # A service that is refused as a whole has changed nothing.
            with contextlib.suppress(UaStatusCodeError):
                await self._take_up(await self._find(self._finder, chosen))
        except Exception as error:  # noqa: BLE001 a misbehaving server surfaces as any exception; re-raised
            raise self._connection.fault(error) from None
        self.changes += self.refused != before
        self._plan_retry()

    def _plan_retry(self) -> None:
        if not self.refused:
            self._retry_at = math.inf
            return
        jitter = random.uniform(0.5, 1.0)  # noqa: S311 - so that servers are not asked in step
        self._retry_at = asyncio.get_running_loop().time() + self._retry_wait * jitter
        self._retry_wait = min(2 * self._retry_wait, _LONGEST_RETRY_S)

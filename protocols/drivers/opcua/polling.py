"""Reads all nodes of a server over and over, for servers whose subscriptions are no use."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from protocols.drivers import NotConnected
from protocols.drivers.opcua.columns import Changes, changes_of
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.faults import status_name
from protocols.drivers.opcua.history import Gap
from protocols.drivers.opcua.items import Item
from protocols.drivers.opcua.limits import READ, Batches, batches_for
from protocols.drivers.opcua.link import Delivery, Link
from protocols.drivers.opcua.nodes import Nodes
from protocols.frame import SECOND, NowNs

_NOT_GIVEN: Final = frozenset(
    {
        "BadNodeIdInvalid",
        "BadNodeIdUnknown",
        "BadAttributeIdInvalid",
        "BadNotReadable",
        "BadUserAccessDenied",
        "BadSecurityModeInsufficient",
    }
)


class Polling(Link):
    """Reads a server's nodes every interval; a poll that comes too late is not made up for.

    What is read is what holds at that moment, so values carry the time of reading: a value that
    has not changed for an hour is as good as one that just has.
    """

    def __init__(self, config: Config, items: Sequence[Item], now_ns: NowNs, where: str) -> None:
        super().__init__(config, items, now_ns, where)
        self._nodes: Nodes = []
        self._batches = Batches(1, where)
        self._ready: deque[Delivery] = deque()
        self._due = 0.0
        self._gone = asyncio.Event()

    async def next(self) -> Delivery:
        """Wait for the next values; see `Link.next`."""
        loop = asyncio.get_running_loop()
        while not self._ready:
            await self._rest()
            if self._lost is not None:
                raise self._lost
            await self._retry_if_due()
            if loop.time() < self._due:
                continue
            self._due = max(self._due + self._config.interval / SECOND, loop.time())
            try:
                self._ready.extend(await self._poll())
            except Exception as error:  # noqa: BLE001 a misbehaving server surfaces as any exception; re-raised
                raise self._connection.fault(error) from None
        return self._ready.popleft()

    async def _begin(self, without: set[int]) -> None:
        del without
        self._batches = await batches_for(self._client, READ, self._where)
        self._due = asyncio.get_running_loop().time() + self._config.interval / SECOND

    async def _refill(self, gap: Gap, nodes: Nodes) -> None:
        """Leave the gap as it is: what is polled does not hold as long as one lasts."""

    async def _take_up(self, nodes: Nodes) -> None:
        self._ready.extend(await self._read(nodes))
        taken = [(place, node) for place, node in nodes if place not in self.refused]
        self._nodes = sorted([*self._nodes, *taken], key=itemgetter(0))

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(self._due, self._retry_at)):
                await self._gone.wait()

    def _end(self, fault: NotConnected) -> None:
        super()._end(fault)
        self._gone.set()

    async def _read(self, nodes: Nodes) -> list[Delivery]:
        """Read nodes for the first time; note which of them the server does not give."""
        found = []
        async for batch, answers in self._batches.call(nodes, self._service):
            values = []
            for (place, _), answer in zip(batch, answers, strict=True):
                name = status_name(answer.StatusCode.value) if answer.StatusCode.is_bad() else ""
                if name in _NOT_GIVEN:
                    self.refused[place] = name
                else:
                    self.refused.pop(place, None)
                    values.append((place, answer))
            if values:
                found.append(Delivery(changes_of(values), self._now()))
        return found

    async def _poll(self) -> list[Delivery]:
        found = []
        async for batch, answer in self._batches.call(self._nodes, self._columns):
            places = np.array([place for place, _ in batch], np.int64)
            found.append(Delivery(replace(answer, place=places), self._now()))
        return found

    async def _service(self, batch: Nodes) -> Sequence[Any]:
        return await self._client.uaclient.session.read(_wanted(batch))

    async def _columns(self, batch: Nodes) -> Changes:
        return await self._client.read_columns(_wanted(batch))


def _wanted(batch: Nodes) -> ua.ReadParameters:
    return ua.ReadParameters(
        MaxAge=0,
        TimestampsToReturn=ua.TimestampsToReturn.Neither,
        NodesToRead=[
            ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value) for _, node in batch
        ],
    )

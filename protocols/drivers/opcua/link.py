"""One connection to an OPC-UA server: session, subscription, and the watch over both."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.drivers import NotConnected
from protocols.drivers.opcua.address import STANDARD_NAMESPACE, NodeAddress
from protocols.drivers.opcua.client import SecureClient
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.connection import Connection
from protocols.drivers.opcua.door import Door
from protocols.drivers.opcua.faults import status_name
from protocols.drivers.opcua.levels import Level
from protocols.frame import SECOND, NowNs
from protocols.language import tr

_MILLISECOND: Final = 10**6
_MOST_PER_CALL: Final = 500
_MOST_PER_NOTIFICATION: Final = 10_000
_MOST_WAITING: Final = 8
_SHORTEST_LIFETIME: Final = 60 * SECOND
_TOO_MANY: Final = (StatusCodes.BadTooManyOperations, StatusCodes.BadRequestTooLarge)
# Its annotations ask for wrappers of int and str that its own code does not use.
_NODE: Final[Callable[..., ua.NodeId]] = ua.NodeId
_UNKNOWN_NAMESPACE: Final = "NamespaceUnknown"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notification as it came.

    Attributes:
        items: monitored items, in the server's order.
        received_ns: when it came, wall clock.
    """

    items: list[ua.MonitoredItemNotification]
    received_ns: int


class Link:
    """Connects once, subscribes once, and ends at the first sign of loss.

    It never mends itself: whoever supervises the driver connects anew, so that no value is
    ever taken to be valid across a gap. When notifications come faster than they are taken,
    the server is left without a publish request: its queues then overflow, and it says so.
    """

    def __init__(self, config: Config, now_ns: NowNs, where: str) -> None:
        self._config = config
        self._now = now_ns
        self._where = where
        self._timeout = config.timeout / SECOND
        self._connection = Connection(config, now_ns, where, self._end)
        self._waiting: asyncio.Queue[Delivery | None] = asyncio.Queue(_MOST_WAITING)
        self._lost: NotConnected | None = None
        self._heard = 0.0
        self._silence = self._timeout
        self._sequence: int | None = None
        self.refused: dict[int, str] = {}
        """Positions of points the server does not give, with the name of its reason."""

    @property
    def door(self) -> Door:
        """How the connection is made."""
        return self._connection.door

    async def open(self, addresses: list[NodeAddress], floor: Level | None) -> None:
        """Connect and subscribe to the nodes; the client handle of each is its position + 1.

        Args:
            addresses: the nodes.
            floor: the best protection this server has had before.

        Raises:
            NotConnected: when that fails, or no node at all can be had.
        """
        client = await self._connection.open(floor)
        try:
            await self._subscribe(client, addresses)
        except Exception as error:  # noqa: BLE001 a misbehaving server surfaces as any exception; re-raised
            raise self._connection.fault(error) from None
        if len(self.refused) == len(addresses):
            raise NotConnected(
                tr("the server has none of the nodes", "服务器上没有任何所配置的节点"),
                where=self._where,
                remedy=tr(
                    f"check the addresses; its reason for the first: {self.refused[0]}",
                    f"请检查地址；第一个节点的原因：{self.refused[0]}",
                ),
            )

    async def next(self) -> Delivery:
        """Wait for the next notification.

        Raises:
            NotConnected: when contact was lost, after all that came before has been returned.
        """
        while True:
            if self._waiting.empty() and self._lost is not None:
                raise self._lost
            delivery = await self._take()
            if delivery is not None:
                return delivery

    async def _take(self) -> Delivery | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(self._heard + self._silence):
                return await self._waiting.get()
        except TimeoutError:
            if loop.time() >= self._heard + self._silence and self._waiting.empty():
                self._lose(
                    tr("connected, but the subscription is silent", "已连接，但订阅无任何消息")
                )
            return None

    async def close(self) -> None:
        """Give subscription and session back to the server, as far as it still listens."""
        await self._connection.close()

    def _lose(self, what: str) -> None:
        remedy = tr("it is tried again; look at the server's log", "将自动重连；请查看服务器日志")
        self._end(NotConnected(what, where=self._where, remedy=remedy))

    def _end(self, fault: NotConnected) -> None:
        if self._lost is not None:
            return
        self._lost = fault
        if not self._waiting.full():
            # Wakes a reader that waits; with a full queue there is none.
            self._waiting.put_nowait(None)

    async def _subscribe(self, client: SecureClient, addresses: list[NodeAddress]) -> None:
        nodes = self._resolve(addresses, await client.get_namespace_array())
        limit = await _most_per_call(client)
        subscription = await self._create_subscription(client)
        await self._create_items(client, subscription, deque(nodes), limit)

    def _resolve(
        self, addresses: list[NodeAddress], namespaces: list[str]
    ) -> Iterator[tuple[int, ua.NodeId]]:
        """Yield position and node of every address whose namespace the server has now."""
        indices = {uri: index for index, uri in reversed(list(enumerate(namespaces)))}
        indices[STANDARD_NAMESPACE] = 0
        for position, address in enumerate(addresses):
            index = indices.get(address.namespace)
            if index is None:
                self.refused[position] = _UNKNOWN_NAMESPACE
            else:
                yield position, _NODE(address.identifier, index)

    async def _create_subscription(self, client: SecureClient) -> int:
        config = self._config
        keep_alive = -(-config.keep_alive // config.publishing_interval)
        lifetime = -(-_SHORTEST_LIFETIME // config.publishing_interval)
        wanted = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=config.publishing_interval / _MILLISECOND,
            RequestedLifetimeCount=max(3 * keep_alive, lifetime),
            RequestedMaxKeepAliveCount=keep_alive,
            MaxNotificationsPerPublish=_MOST_PER_NOTIFICATION,
            PublishingEnabled=True,
        )
        self._heard = asyncio.get_running_loop().time()
        # Below the library's own Subscription: its queue drops values, and its watchdog
        # replaces a dead subscription without telling that there was a gap.
        given = await client.uaclient.session.create_subscription(wanted, self._on_publish)
        period = given.RevisedPublishingInterval * given.RevisedMaxKeepAliveCount / 1000
        self._silence = 2 * period + self._timeout
        return int(given.SubscriptionId)

    async def _create_items(
        self,
        client: SecureClient,
        subscription: int,
        nodes: deque[tuple[int, ua.NodeId]],
        limit: int,
    ) -> None:
        while nodes:
            batch = [nodes.popleft() for _ in range(min(limit, len(nodes)))]
            wanted = ua.CreateMonitoredItemsParameters(
                SubscriptionId=subscription,
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ItemsToCreate=[self._item(position, node) for position, node in batch],
            )
            try:
                results = await client.uaclient.session.create_monitored_items(wanted)
            except UaStatusCodeError as error:
                if error.code not in _TOO_MANY or len(batch) == 1:
                    raise
                limit = len(batch) // 2
                nodes.extendleft(reversed(batch))
                continue
            self._note_refusals(batch, results)

    def _item(self, position: int, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=position + 1,
                SamplingInterval=self._config.sampling_interval / _MILLISECOND,
                QueueSize=self._config.queue,
                DiscardOldest=True,
            ),
        )

    def _note_refusals(self, batch: list[tuple[int, ua.NodeId]], results: list[Any]) -> None:
        if len(results) != len(batch):
            raise NotConnected(
                tr("the server answers for other nodes than asked", "服务器应答的节点数与请求不符"),
                where=self._where,
                remedy=tr("update the server's firmware", "请升级服务器固件"),
            )
        for (position, _), result in zip(batch, results, strict=True):
            if not result.StatusCode.is_good():
                self.refused[position] = status_name(result.StatusCode.value)

    async def _on_publish(self, result: ua.PublishResult) -> None:
        """Take what the server sends; while this waits, the server gets no further request."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        message = result.NotificationMessage
        for data in message.NotificationData or ():
            if isinstance(data, ua.StatusChangeNotification):
                name = status_name(data.Status.value)
                self._lose(tr(f"the subscription ended: {name}", f"订阅已终止：{name}"))
        if self._lost is not None or not self._in_sequence(message):
            return
        items = [
            item
            for data in message.NotificationData or ()
            if isinstance(data, ua.DataChangeNotification)
            for item in data.MonitoredItems or ()
        ]
        if items:
            await self._waiting.put(Delivery(items, self._now()))
            self._heard = loop.time()

    def _in_sequence(self, message: ua.NotificationMessage) -> bool:
        """Tell whether no notification is missing before this one; a keep-alive uses none up."""
        number = int(message.SequenceNumber)
        if number == 0 and not message.NotificationData:
            return True  # some servers do not number their keep-alives
        if self._sequence is not None and number != self._sequence:
            self._lose(tr("notifications are missing", "通知消息有缺失"))
            return False
        following = 1 if number == 2**32 - 1 else number + 1
        self._sequence = following if message.NotificationData else number
        return True


async def _most_per_call(client: SecureClient) -> int:
    limits = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
    node = client.get_node(_NODE(limits))
    answer = await node.read_data_value(raise_on_bad_status=False)
    stated = answer.Value.Value if answer.Value is not None else None
    # 0 is no limit; a server that says nothing sensible is taken to have none.
    if not isinstance(stated, int) or stated <= 0:
        return _MOST_PER_CALL
    return min(stated, _MOST_PER_CALL)

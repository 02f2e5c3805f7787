"""Has the server send what changes, and watches that nothing of it goes missing."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from protocols.drivers import NotConnected
from protocols.drivers.opcua.columns import Changes, changes_of
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.faults import status_name
from protocols.drivers.opcua.history import Contact, Gap, History, Values, joined
from protocols.drivers.opcua.items import Deadband, Item, columns_of, some
from protocols.drivers.opcua.limits import MONITOR, Batches, batches_for
from protocols.drivers.opcua.link import Delivery, Link
from protocols.drivers.opcua.nodes import Nodes
from protocols.frame import SECOND, NowNs
from protocols.language import tr

_MICROSECOND: Final = 10**3
_MILLISECOND: Final = 10**6
_MOST_PER_NOTIFICATION: Final = 10_000
_MOST_WAITING: Final = 8
_SHORTEST_LIFETIME: Final = 60 * SECOND
_NO_DEADBAND: Final = frozenset(
    {
        "BadDeadbandFilterInvalid",
        "BadFilterNotAllowed",
        "BadMonitoredItemFilterInvalid",
        "BadMonitoredItemFilterUnsupported",
    }
)
_DEADBANDS: Final = {
    "absolute": ua.DeadbandType.Absolute,
    "percent": ua.DeadbandType.Percent,
}
_SLOWER: Final = 1.5


class Subscription(Link):
    """Follows the changes of a server's nodes.

    When notifications come faster than they are taken, the server is left without a publish
    request: its queues then overflow, and it says so.
    """

    def __init__(self, config: Config, items: Sequence[Item], now_ns: NowNs, where: str) -> None:
        super().__init__(config, items, now_ns, where)
        self._waiting: asyncio.Queue[Delivery | None] = asyncio.Queue(_MOST_WAITING)
        self._heard = 0.0
        self._silence = self._timeout
        self._sequence: int | None = None
        self._id = 0
        self._batches = Batches(1, where)
        self._history: History | None = None
        self._heard_ns: int | None = None
        self._gap: Gap | None = None
        self._missed: dict[int, Values] = {}
        self._next: Delivery | None = None
        self._undamped: dict[int, str] = {}
        self._slower: dict[int, float] = {}

    async def next(self) -> Delivery:
        """Wait for the next notification; see `Link.next`."""
        if self._next is not None:
            delivery, self._next = self._next, None
            return delivery
        while True:
            if self._waiting.empty() and self._lost is not None:
                raise self._lost
            taken = await self._take()
            if taken is not None:
                return self._joined(taken)
            if self._lost is None:
                await self._retry_if_due()

    async def _take(self) -> Delivery | None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(self._heard + self._silence, self._retry_at)):
                return await self._waiting.get()
        except TimeoutError:
            if loop.time() >= self._heard + self._silence and self._waiting.empty():
                self._lose(
                    tr("connected, but the subscription is silent", "已连接，但订阅无任何消息")
                )
            return None

    def _joined(self, delivery: Delivery) -> Delivery:
        """Return what changed before the first values of items, if anything, and those next."""
        if not self._missed:
            return delivery
        changes = delivery.changes
        places, first = np.unique(changes.place, return_index=True)
        found: list[tuple[int, ua.DataValue]] = []
        for place, time_us in zip(places.tolist(), changes.time_us[first].tolist(), strict=True):
            missed = self._missed.pop(place, None)
            if missed is not None:
                found += ((place, value) for value in joined(missed, time_us))
        if not found:
            return delivery
        self._next = delivery
        return Delivery(changes_of(found), delivery.received_ns, refilled=True)

    def _end(self, fault: NotConnected) -> None:
        super()._end(fault)
        if not self._waiting.full():
            # Wakes a reader that waits; with a full queue there is none.
            self._waiting.put_nowait(None)

    @property
    def contact(self) -> Contact | None:
        """When the server was last heard of; None when that is not known."""
        if self._history is None or self._heard_ns is None:
            return None
        if self._missed and self._gap is not None:
            # The gap before this connection is not over for all items.
            return self._gap.contact
        return self._history.contact(self._heard_ns)

    @property
    def seen_ns(self) -> int | None:
        """Until when no change went unseen; see `Link.seen_ns`."""
        return self._heard_ns

    async def _begin(self, without: set[int]) -> None:
        self._batches = await batches_for(self._client, MONITOR, self._where)
        if self._config.refill:
            self._history = History(self._client, self._now, self._where, without)
            await self._history.meet()
        self._id = await self._create()

    async def _refill(self, gap: Gap, nodes: Nodes) -> None:
        """Fetch what changed in a gap; it is delivered before the first new value of its item."""
        if self._history is None:
            return
        longest = timedelta(microseconds=self._config.refill // _MICROSECOND)
        self._missed = await self._history.since(gap, nodes, longest)
        self._gap = gap

    async def _create(self) -> int:
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
        self._client.on_unreadable = self._unreadable
        given = await self._client.uaclient.session.create_subscription(wanted, self._on_publish)
        period = given.RevisedPublishingInterval * given.RevisedMaxKeepAliveCount / 1000
        self._silence = 2 * period + self._timeout
        return int(given.SubscriptionId)

    async def _take_up(self, nodes: Nodes) -> None:
        """Create monitored items; where a server refuses a deadband, every change is taken."""
        await self._create_items(nodes)
        again = [
            (place, node)
            for place, node in nodes
            if self.refused.get(place) in _NO_DEADBAND
            and self._items[place].ask.deadband is not None
        ]
        for place, _ in again:
            self._undamped[place] = self.refused[place]
        if again:
            await self._create_items(again)
        self._remark()

    async def _create_items(self, nodes: Nodes) -> None:

        async def create(batch: Nodes) -> Sequence[Any]:
            wanted = ua.CreateMonitoredItemsParameters(
                SubscriptionId=self._id,
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ItemsToCreate=[self._item(place, node) for place, node in batch],
            )
            return await self._client.uaclient.session.create_monitored_items(wanted)

        async for batch, answers in self._batches.call(nodes, create):
            for (place, _), answer in zip(batch, answers, strict=True):
                if answer.StatusCode.is_good():
                    self.refused.pop(place, None)
                    self._compare(place, answer)
                else:
                    self.refused[place] = status_name(answer.StatusCode.value)

    def _item(self, place: int, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        ask = self._items[place].ask
        deadband = None if place in self._undamped else ask.deadband
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=place + 1,
                SamplingInterval=ask.sampling_ns / _MILLISECOND,
                Filter=_filter(deadband),
                QueueSize=ask.queue,
                DiscardOldest=True,
            ),
        )

    def _compare(self, place: int, answer: ua.MonitoredItemCreateResult) -> None:
        wanted = self._items[place].ask.sampling_ns / _MILLISECOND
        if answer.RevisedSamplingInterval > max(wanted, 1) * _SLOWER:
            self._slower[place] = float(answer.RevisedSamplingInterval)

    def _remark(self) -> None:
        """Say what the server does otherwise than asked."""
        points = self._config.points
        self.remarks = []
        for reason in sorted(set(self._undamped.values())):
            places = [place for place, name in self._undamped.items() if name == reason]
            ids = [points[column].id for column in columns_of(self._items, places)]
            self.remarks.append(
                tr(
                    f"the server refuses the deadband ({reason}), so every change is taken: ",
                    f"服务器拒绝死区（{reason}），已改为接收每次变化：",
                )
                + some(ids)
            )
        for interval in sorted(set(self._slower.values())):
            places = [place for place, revised in self._slower.items() if revised == interval]
            count = len(columns_of(self._items, places))
            self.remarks.append(
                tr(
                    f"the server samples {count} point(s) only every {interval:g} ms",
                    f"服务器每 {interval:g} 毫秒才采样 {count} 个点",
                )
            )

    def _unreadable(self) -> None:
        self._lose(tr("a notification cannot be read", "有一条通知无法解读"))

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
        received_ns = self._now()
        if self.opened and not result.MoreNotifications:
            # With more to come, changes from before this moment are still with the server.
            self._heard_ns = received_ns
        for data in message.NotificationData or ():
            if isinstance(data, Changes) and data:
                await self._waiting.put(Delivery(data, received_ns))
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


def _filter(deadband: Deadband | None) -> ua.DataChangeFilter | None:
    if deadband is None:
        return None
    return ua.DataChangeFilter(
        Trigger=ua.DataChangeTrigger.StatusValue,
        DeadbandType=_DEADBANDS[deadband.kind],
        DeadbandValue=deadband.value,
    )

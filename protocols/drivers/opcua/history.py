"""Fetches what changed while contact was lost, from servers that keep history and ran through.

A gap is refilled only where the server ran all the time: it is the same run when its StartTime is
the same as before. A server that was restarted watched nothing meanwhile; its history would say
that nothing changed. The gap then stays a gap.

It is refilled only where the history joins on to what was seen, at both ends: it has the newest
value from before the gap, and the first one after it, by their times. A history that is sampled more
coarsely, lags behind, or was cut off has not. What is interpolated or calculated, or has no source
time, is no change that was seen, and a node with any of that keeps its gap.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.drivers.opcua.client import SecureClient
from protocols.drivers.opcua.limits import HISTORY, NODE, READ, batches_for
from protocols.drivers.opcua.nodes import Nodes
from protocols.frame import NowNs

Values = list[ua.DataValue]

_MOST_VALUES: Final = 1000
_MOST_NODES: Final = 20
_MOST_IN_ALL: Final = 50_000
_MOST_PAGES: Final = 8
_LONGEST_S: Final = 15.0
# What was in the server's queues when it was last heard of had changed before.
_SLACK: Final = timedelta(seconds=10)
# Histories are kept to the millisecond often enough.
_SAME: Final = timedelta(milliseconds=1)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
# OPC UA Part 11, 6.5.2: the lowest bits of a history's status.
_NOT_RAW: Final = 0x03
_HISTORIAN: Final = 0x0400
_MICROSECOND: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_BOUND: Final = (StatusCodes.BadBoundNotFound, StatusCodes.BadBoundNotSupported)
_NEVER: Final = (
    StatusCodes.BadHistoryOperationUnsupported,
    StatusCodes.BadHistoryOperationInvalid,
    StatusCodes.BadServiceUnsupported,
    StatusCodes.BadNotImplemented,
    StatusCodes.BadNotSupported,
    StatusCodes.BadNotReadable,
    StatusCodes.BadUserAccessDenied,
)
# Its annotations ask for wrappers of numbers and bytes that its own code does not use.
_DETAILS: Final[Callable[..., ua.ReadRawModifiedDetails]] = ua.ReadRawModifiedDetails
_REQUEST: Final[Callable[..., ua.HistoryReadParameters]] = ua.HistoryReadParameters
_NODE_TO_READ: Final[Callable[..., ua.HistoryReadValueId]] = ua.HistoryReadValueId


@dataclass(frozen=True, slots=True)
class Contact:
    """The last contact with a server, by the server's own clock.

    Attributes:
        run: when the server had been started.
        heard: when it was last heard of.
    """

    run: datetime
    heard: datetime


@dataclass(frozen=True, slots=True)
class Gap:
    """What was not seen.

    Attributes:
        contact: the last contact before it.
        known_us: the time of the newest value of each item before it, microseconds since 1970.
    """

    contact: Contact
    known_us: Sequence[int]


class History:
    """Reads a server's history over one connection.

    Attributes:
        without: places of items of which the server keeps no history, as far as is known.
    """

    def __init__(self, client: SecureClient, now_ns: NowNs, where: str, without: set[int]) -> None:
        self.without = without
        self._client = client
        self._now = now_ns
        self._where = where
        self._run: datetime | None = None
        self._ahead = timedelta(0)
        self._current = _EPOCH

    async def meet(self) -> None:
        """Ask the server since when it has been running, and what time it has."""
        names = (ObjectIds.Server_ServerStatus_StartTime, ObjectIds.Server_ServerStatus_CurrentTime)
        times: list[datetime] = []
        batches = await batches_for(self._client, READ, self._where)
        async for _, answers in batches.call([NODE(name) for name in names], self._read):
            values = [answer.Value.Value for answer in answers if answer.Value is not None]
            times += [value for value in values if isinstance(value, datetime)]
        self._run = None
        # A server that does not know when it began cannot say that it ran through.
        if len(times) == len(names) and _EARLIEST <= times[0] <= times[1]:
            self._run, self._current = times
            self._ahead = self._current - _here(self._now())

    async def _read(self, nodes: list[ua.NodeId]) -> Sequence[Any]:
        wanted = [ua.ReadValueId(NodeId=node, AttributeId=AttributeIds.Value) for node in nodes]
        return await self._client.uaclient.session.read(ua.ReadParameters(NodesToRead=wanted))

    def contact(self, heard_ns: int) -> Contact | None:
        """Return the contact at a moment of our clock; None when the server tells no times."""
        return None if self._run is None else Contact(self._run, _here(heard_ns) + self._ahead)

    async def since(self, gap: Gap, nodes: Nodes, longest: timedelta) -> dict[int, Values]:
        """Return what changed in a gap, by place, oldest first; `joined` says what is of use.

        It is to be called once the nodes are watched again, so that it goes up to what comes then.
        What the server does not have whole is left out whole.

        Args:
            gap: what was not seen.
            nodes: what to ask for.
            longest: how far back to go.
        """
        await self.meet()
        wanted = [(place, node) for place, node in nodes if place not in self.without]
        found: dict[int, Values] = {}
        if gap.contact.run != self._run or not wanted:
            return found
        start = max(gap.contact.heard - _SLACK, self._current - longest)
        try:
            async with asyncio.timeout(_LONGEST_S):
                await self._collect(found, gap, wanted, start)
        except TimeoutError:
            self.without.update(place for place, _ in wanted if place not in found)
        except UaStatusCodeError as error:
            if error.code in _NEVER:
                # The service as a whole: there is no history here.
                self.without.update(place for place, _ in wanted)
        return found

    async def _collect(
        self, found: dict[int, Values], gap: Gap, wanted: Nodes, start: datetime
    ) -> None:
        count = 0
        batches = await batches_for(self._client, HISTORY, self._where, _MOST_NODES)
        async for batch, answers in batches.call(wanted, self._raw(start)):
            for (place, _), values in zip(batch, answers, strict=True):
                if values is None:
                    self.without.add(place)
                elif new := _new(values, gap.known_us[place]):
                    found[place] = new
                    count += len(new)
            if count > _MOST_IN_ALL:
                break

    def _raw(self, start: datetime) -> Callable[[Nodes], Awaitable[Sequence[Values | None]]]:
        details = _DETAILS(
            IsReadModified=False,
            StartTime=start,
            EndTime=self._current,
            NumValuesPerNode=_MOST_VALUES + 1,
            ReturnBounds=True,
        )

        async def whole(batch: Nodes) -> Sequence[Values | None]:
            """Return each node's values; none where they are too many, None without history."""
            got: list[Values | None] = [[] for _ in batch]
            pending: list[tuple[int, bytes | None]] = [(at, None) for at in range(len(batch))]
            surplus: list[tuple[int, bytes | None]] = []
            for _ in range(_MOST_PAGES):
                answers = await self._page(details, batch, pending)
                more = [
                    (at, mark)
                    for (at, _), answer in zip(pending, answers, strict=True)
                    if (mark := _add(got, at, answer))
                ]
                pending = [one for one in more if len(got[one[0]] or ()) <= _MOST_VALUES]
                surplus += [one for one in more if one not in pending]
                if not pending:
                    break
            surplus += pending
            if surplus:
                await self._page(details, batch, surplus, release=True)
            for at, _ in surplus:
                got[at] = []
            return [values if len(values or ()) <= _MOST_VALUES else [] for values in got]

        return whole

    async def _page(
        self,
        details: ua.ReadRawModifiedDetails,
        batch: Nodes,
        pending: list[tuple[int, bytes | None]],
        *,
        release: bool = False,
    ) -> Sequence[Any]:
        wanted = [
            _NODE_TO_READ(NodeId=batch[at][1], ContinuationPoint=mark) for at, mark in pending
        ]
        return await self._client.uaclient.session.history_read(
            _REQUEST(
                HistoryReadDetails=details,
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ReleaseContinuationPoints=release,
                NodesToRead=wanted,
            )
        )


def _add(got: list[Values | None], at: int, answer: ua.HistoryReadResult) -> bytes | None:
    """Add a page to what there is of a node; return where the next one begins."""
    so_far = got[at]
    if so_far is None or answer.StatusCode.is_bad():
        got[at] = None if answer.StatusCode.value in _NEVER else []
        return None
    if isinstance(answer.HistoryData, ua.HistoryData):
        so_far += answer.HistoryData.DataValues or []
    return answer.ContinuationPoint or None


def _new(values: Values, known_us: int) -> Values:
    """Return what came after what is known, oldest first, with the known value itself before it.

    Nothing is returned where the history does not have what is known, though it goes back to it.
    """
    real = [value for value in values if _status(value) not in _NO_BOUND]
    if not all(_as_seen(value) for value in real):
        return []
    timed = sorted(((_moment(value), value) for value in real), key=itemgetter(0))
    known = _EPOCH + timedelta(microseconds=max(known_us, 0))
    after = [value for moment, value in timed if moment > known + _SAME]
    before = [(moment, value) for moment, value in timed if moment <= known + _SAME]
    if before and before[-1][0] < known - _SAME:
        return []
    return [*(value for _, value in before[-1:]), *after] if after else []


def joined(values: Values, first_us: int) -> Values:
    """Return what changed before the first value that was seen after a gap.

    Args:
        values: what `History.since` has of the item.
        first_us: the time of that value, microseconds since 1970.

    Returns:
        the values before it, oldest first; none where the history does not have that value as well.
    """
    if first_us < 0:
        return []
    first = _EPOCH + timedelta(microseconds=first_us)
    until = [value for value in values if _moment(value) <= first + _SAME]
    if len(until) < 2 or _moment(until[-1]) < first - _SAME:
        return []
    return until[:-1]


def _as_seen(value: ua.DataValue) -> bool:
    """Tell whether a value of history is one that the node once showed."""
    status = _status(value)
    made = status & _HISTORIAN and status & _NOT_RAW
    return value.SourceTimestamp is not None and not made


def _status(value: ua.DataValue) -> int:
    return 0 if value.StatusCode is None else int(value.StatusCode.value)


def _moment(value: ua.DataValue) -> datetime:
    moment: datetime | None = value.SourceTimestamp
    return moment or _EPOCH


def _here(now_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=now_ns // _MICROSECOND)

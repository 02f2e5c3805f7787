"""A server's answers to Publish and Read, with their values as columns.

The library takes apart what stands around the values, which is little; the values themselves are
read by `columns`. Whatever that does not understand, the library reads whole.
"""

import asyncio
import logging
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from asyncua import ua
from asyncua.client.ua_client import UaClient
from asyncua.client.ua_session import UaSession
from asyncua.common.utils import Buffer
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import (
    Primitives,
    extensionobject_from_binary,
    nodeid_from_binary,
    struct_from_binary,
    struct_to_binary,
)
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.drivers.opcua.columns import (
    NO_TIME,
    Changes,
    changes_of,
    read_changes,
    read_values,
)

_log = logging.getLogger(__name__)
# Their annotations ask for wrappers of numbers and times that their own code does not use.
_NODE: Final[Callable[..., ua.NodeId]] = ua.NodeId
_STATUS: Final[Callable[..., ua.StatusCode]] = ua.StatusCode
_VALUE: Final[Callable[..., ua.DataValue]] = ua.DataValue
_ITEM: Final[Callable[..., ua.MonitoredItemNotification]] = ua.MonitoredItemNotification
_DATA_CHANGE: Final = _NODE(ObjectIds.DataChangeNotification_Encoding_DefaultBinary)
_HAS_BODY: Final = 1
_MOST_NOTIFICATIONS: Final = 1000


class ColumnSession(UaSession):
    """A session whose data changes come as columns, where they can.

    `publish` is what the library's own loop calls; signatures and encryption have been dealt with
    before, below.
    """

    def __init__(self, client: UaClient, on_unreadable: Callable[[], None]) -> None:
        super().__init__(client)
        self._uaclient = client
        self._on_unreadable = on_unreadable

    async def publish(self, acks: list[ua.SubscriptionAcknowledgement]) -> ua.PublishResponse:
        """Ask for notifications; `Changes` stands where the library has a DataChangeNotification."""
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = acks or []
        try:
            body = bytes(await self._send_request(request, timeout=0))
        except Exception:
            if self._uaclient.protocol is None or self._uaclient.protocol.is_closed:
                # Nobody answers any more: the library's loop would log an error and ask again.
                raise asyncio.CancelledError from None
            raise
        try:
            return read_publish(body)
        except Exception:
            # The library would pass over it, and with it over what was in it.
            self._on_unreadable()
            raise

    async def read_columns(self, parameters: ua.ReadParameters) -> Changes:
        """Read values.

        Raises:
            UaError: when the server does not give them.
        """
        request = ua.ReadRequest()
        request.Parameters = parameters
        return read_read(bytes(await self._send_request(request)))


def read_publish(body: bytes) -> ua.PublishResponse:
    """Take an answer to Publish apart.

    Raises:
        Exception: of any kind, when it cannot be read.
    """
    if columns_work():
        try:
            return _publish(Buffer(body), body)
        except Exception as error:  # noqa: BLE001 any way in which it is not as expected
            _log.debug("a notification is left to the library (%s)", type(error).__name__)
    response = struct_from_binary(ua.PublishResponse, Buffer(body))
    message = response.Parameters.NotificationMessage
    message.NotificationData = [_as_columns(data) for data in message.NotificationData or ()]
    return response


def _as_columns(data: Any) -> Any:
    if not isinstance(data, ua.DataChangeNotification):
        return data
    return changes_of((item.ClientHandle - 1, item.Value) for item in data.MonitoredItems or ())


def _publish(data: Buffer, body: bytes) -> ua.PublishResponse:
    response = ua.PublishResponse(
        TypeId=nodeid_from_binary(data), ResponseHeader=struct_from_binary(ua.ResponseHeader, data)
    )
    found = response.Parameters
    found.SubscriptionId = Primitives.UInt32.unpack(data)
    available = Primitives.Int32.unpack(data)
    data.skip(4 * max(available, 0))
    found.MoreNotifications = Primitives.Boolean.unpack(data)
    message = found.NotificationMessage
    message.SequenceNumber = Primitives.UInt32.unpack(data)
    message.PublishTime = Primitives.DateTime.unpack(data)
    count = max(Primitives.Int32.unpack(data), 0)
    if count > _MOST_NOTIFICATIONS:
        raise ValueError("count")
    message.NotificationData = [_notification(data, body) for _ in range(count)]
    return response


def _notification(data: Buffer, body: bytes) -> Any:
    whole = data.copy()
    kind, encoding = nodeid_from_binary(data), data.read(1)[0]
    if kind != _DATA_CHANGE or encoding != _HAS_BODY:
        found = extensionobject_from_binary(whole)
        data.skip(whole.cur_pos - data.cur_pos)
        return found
    length = Primitives.Int32.unpack(data)
    begin = data.cur_pos
    if not 0 <= length <= len(data):
        raise ValueError("length")
    data.skip(length)
    return _changes(body[begin : begin + length], 0, read_changes)


def _changes(
    body: bytes, at: int, read: Callable[[bytes, int, int], tuple[Changes, int]]
) -> Changes:
    (count,) = struct.unpack_from("<i", body, at)
    changes, end = read(body, at + 4, max(count, 0))
    # Nothing but diagnostics may follow: 0 or -1 of them, else the library looks at it.
    (rest,) = struct.unpack_from("<i", body, end)
    if rest > 0:
        raise ValueError("diagnostics")
    return changes


@cache
def columns_work() -> bool:
    """Tell whether the columns are what the library itself makes of the same bytes.

    Asked once, before the first value: what is used of the library is not all promised by it.
    """
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    kinds = ua.VariantType
    values = (
        _VALUE(ua.Variant(-5, kinds.Int16), SourceTimestamp=moment),
        _VALUE(ua.Variant(2.5, kinds.Float), ServerTimestamp=moment),
        _VALUE(ua.Variant("text", kinds.String)),
        _VALUE(ua.Variant(2**64 - 1, kinds.UInt64), StatusCode=_STATUS(0x40000000)),
        _VALUE(StatusCode=_STATUS(0x80000000)),
    )
    items = [_ITEM(ClientHandle=handle, Value=value) for handle, value in enumerate(values)]
    try:
        answer = ua.PublishResponse()
        answer.Parameters.NotificationMessage.NotificationData = [
            ua.DataChangeNotification(MonitoredItems=items)
        ]
        body = struct_to_binary(answer)
        (found,) = _publish(Buffer(body), body).Parameters.NotificationMessage.NotificationData
        return _same(found)
    except Exception as error:  # noqa: BLE001 whatever has changed in the library
        _log.debug("the library is not as expected (%s)", type(error).__name__)
        return False


def _same(found: Changes) -> bool:
    time = 1_767_323_045_678_000
    return (
        found.place.tolist() == [-1, 0, 1, 2, 3]
        and found.kind.tolist() == [4, 10, 255, 9, 0]
        and found.whole.tolist() == [-5, 0, 0, -1, 0]
        and found.real.tolist() == [0, 2.5, 0, 0, 0]
        and found.status.tolist() == [0, 0, 0, 0x40000000, 0x80000000]
        and found.time_us.tolist() == [time, time, NO_TIME, NO_TIME, NO_TIME]
        and [(at, variant.Value) for at, variant in found.odd] == [(2, "text")]
    )


def read_read(body: bytes) -> Changes:
    """Take an answer to Read apart.

    Raises:
        Exception: of any kind, when it cannot be read, or the server refuses.
    """
    if columns_work():
        try:
            data = Buffer(body)
            nodeid_from_binary(data)
            header = struct_from_binary(ua.ResponseHeader, data)
            header.ServiceResult.check()
            return _changes(body, data.cur_pos, read_values)
        except UaStatusCodeError:
            raise
        except Exception as error:  # noqa: BLE001 any way in which it is not as expected
            _log.debug("an answer is left to the library (%s)", type(error).__name__)
    response = struct_from_binary(ua.ReadResponse, Buffer(body))
    response.ResponseHeader.ServiceResult.check()
    return changes_of(enumerate(response.Results or ()))

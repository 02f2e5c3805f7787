"""How much a server takes in one call: what it says, and what it then turns out to take."""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sized
from typing import Final, TypeVar

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.drivers import NotConnected
from protocols.drivers.opcua.client import SecureClient
from protocols.language import tr

Entry = TypeVar("Entry")
Answers = TypeVar("Answers", bound=Sized)

HISTORY: Final = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData
READ: Final = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead
TRANSLATE: Final = (
    ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIds
)
MONITOR: Final = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
_MOST_PER_CALL: Final = 500
_TOO_MANY: Final = (
    StatusCodes.BadTooManyOperations,
    StatusCodes.BadRequestTooLarge,
    StatusCodes.BadResponseTooLarge,
    StatusCodes.BadEncodingLimitsExceeded,
)
# Its annotations ask for wrappers of int and str that its own code does not use.
NODE: Final[Callable[..., ua.NodeId]] = ua.NodeId


class Batches:
    """Calls a service for many nodes, with no more of them at once than the server takes."""

    def __init__(self, most: int, where: str) -> None:
        self._most = most
        self._where = where

    async def call(
        self, entries: Iterable[Entry], service: Callable[[list[Entry]], Awaitable[Answers]]
    ) -> AsyncGenerator[tuple[list[Entry], Answers], None]:
        """Yield the entries of each call, and the server's answers to them.

        A server that says a call was too large gets half as much from then on.

        Raises:
            NotConnected: when it does not answer for each of them.
            UaStatusCodeError: for any other fault, or when even one is too much.
        """
        waiting = deque(entries)
        while waiting:
            batch = [waiting.popleft() for _ in range(min(self._most, len(waiting)))]
            try:
                answers = await service(batch)
            except UaStatusCodeError as error:
                if error.code not in _TOO_MANY or len(batch) == 1:
                    raise
                self._most = len(batch) // 2
                waiting.extendleft(reversed(batch))
                continue
            if len(answers) != len(batch):
                raise NotConnected(
                    tr(
                        "the server answers for other nodes than asked",
                        "服务器应答的节点数与请求不符",
                    ),
                    where=self._where,
                    remedy=tr("update the server's firmware", "请升级服务器固件"),
                )
            yield batch, answers


async def batches_for(
    client: SecureClient, limit: int, where: str, most: int = _MOST_PER_CALL
) -> Batches:
    """Return how to call a service, after what the server says of its limit.

    Args:
        client: the connection.
        limit: the node that tells the limit.
        where: the device, for messages.
        most: how many are sent at once to a server without a limit.
    """
    wanted = ua.ReadValueId(NodeId=NODE(limit), AttributeId=AttributeIds.Value)
    (answer,) = await client.uaclient.session.read(ua.ReadParameters(NodesToRead=[wanted]))
    stated = answer.Value.Value if answer.Value is not None else None
    # 0 is no limit; a server that says nothing sensible is taken to have none.
    if not isinstance(stated, int) or stated <= 0:
        return Batches(most, where)
    return Batches(min(stated, most), where)

"""An OPC UA server's inside that keeps limits which the library only states."""

from typing import Any, Final

from asyncua import ua as typed_ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_session import InternalSession, SessionState

# Its annotations ask for number types of its own that nothing in it makes or needs.
ua: Any = typed_ua

LIMITS: Final = tuple(
    getattr(ua.ObjectIds, f"Server_ServerCapabilities_OperationLimits_{name}")
    for name in (
        "MaxNodesPerRead",
        "MaxNodesPerHistoryReadData",
        "MaxNodesPerBrowse",
        "MaxNodesPerRegisterNodes",
        "MaxNodesPerTranslateBrowsePathsToNodeIds",
        "MaxMonitoredItemsPerCall",
    )
)
"""The nodes in which a server states how much one call may ask for."""


class Sessions(InternalServer):
    """Counts its sessions and the nodes of each call.

    Attributes:
        most_sessions: further ones are refused; None is any number.
        most_nodes: calls with more are refused; None is any number.
        open: the sessions of clients.
        refused: how many sessions and calls were refused.
    """

    most_sessions: int | None = None
    most_nodes: int | None = None

    def __init__(self, user_manager: Any) -> None:
        self.open: set[Session] = set()
        self.refused = 0
        super().__init__(user_manager)

    def create_session(self, name: str, user: Any = None, external: bool = False) -> Any:  # noqa: FBT001, FBT002 - the library's signature
        """Return a new session.

        Raises:
            ServiceError: BadTooManySessions.
        """
        if not external:
            return (
                super().create_session(name) if user is None else super().create_session(name, user)
            )
        if self.most_sessions is not None and len(self.open) >= self.most_sessions:
            self.refused += 1
            raise ServiceError(ua.StatusCodes.BadTooManySessions)
        session = Session(self, self.aspace, self.subscription_service, name, external=True)
        self.open.add(session)
        return session


class Session(InternalSession):
    """A client's session; once dropped it knows the client no more."""

    iserver: Sessions

    def _admit(self, many: int) -> None:
        if self.state is SessionState.Closed:
            raise ServiceError(ua.StatusCodes.BadSessionIdInvalid)
        most = self.iserver.most_nodes
        if most is not None and many > most:
            self.iserver.refused += 1
            raise ServiceError(ua.StatusCodes.BadTooManyOperations)

    async def close_session(self, delete_subs: bool = True) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """End; its subscriptions go with it when asked to."""
        self.iserver.open.discard(self)
        await super().close_session(delete_subs)

    async def read(self, params: Any) -> Any:
        """Read attributes."""
        self._admit(len(params.NodesToRead))
        return await super().read(params)

    async def browse(self, params: Any) -> Any:
        """Browse."""
        self._admit(len(params.NodesToBrowse))
        return await super().browse(params)

    async def translate_browsepaths_to_nodeids(self, params: Any) -> Any:
        """Find nodes by path."""
        self._admit(len(params))
        return await super().translate_browsepaths_to_nodeids(params)

    async def create_subscription(self, *args: Any, **more: Any) -> Any:
        """Subscribe."""
        self._admit(0)
        return await super().create_subscription(*args, **more)

    async def create_monitored_items(self, params: Any) -> Any:
        """Monitor nodes."""
        self._admit(len(params.ItemsToCreate))
        return await super().create_monitored_items(params)

    async def modify_monitored_items(self, params: Any) -> Any:
        """Monitor nodes in another way."""
        self._admit(len(params.ItemsToModify))
        return await super().modify_monitored_items(params)

    async def history_read(self, params: Any) -> Any:
        """Read history."""
        self._admit(len(params.NodesToRead))
        return await super().history_read(params)

    def publish(self, acks: Any = None) -> Any:
        """Take a publish request."""
        self._admit(0)
        return super().publish(acks)

"""The plant's machine over OPC UA, laid out as OPC 40001-1 lays out machines.

Namespace `urn:millgate:sim:plant` (its index is in the server's namespace array):

| browse path under Objects/Machines/machine-1 | node id                                  | type   |
|----------------------------------------------|------------------------------------------|--------|
| Monitoring/MachineryItemState                | s=machine-1.Monitoring.MachineryItemState | Int32  |
| Monitoring/secret_spindle_temperature        | s=machine-1.Monitoring.secret_spindle_temperature | Double |
| Monitoring/secret_recipe_temperature         | s=machine-1.Monitoring.secret_recipe_temperature | Double |
| Production/TotalCount                        | i=2001                                   | UInt32 |
| Production/GoodCount                         | i=2002                                   | UInt32 |
| Production/ScrapCount                        | i=2003                                   | UInt32 |
| Production/secret_ideal_cycle_time           | s=machine-1.Production.secret_ideal_cycle_time | Double |
| Production/secret_program_number             | s=machine-1.Production.secret_program_number | UInt32 |

Values are written when the plant's events happen, with the events' own exact times as source
timestamps. Clients are anonymous, may read, browse and subscribe, and may change nothing.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from asyncua import ua as typed_ua
from asyncua.common.node import Node
from asyncua.crypto.permission_rules import USER_TYPES, PermissionRuleset, User, UserRole
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager

from protocols.frame import SECOND, NowNs
from simulators.minute import MICROSECOND, MINUTE
from simulators.plant import MACHINE, Change, Plant, Signal
from simulators.running import cannot_listen

# Its annotations ask for number types of its own that nothing in it makes or needs.
ua: Any = typed_ua

NAMESPACE: Final = "urn:millgate:sim:plant"
FOLDERS: Final = {
    "Monitoring": (Signal.STATE, Signal.SPINDLE_TEMPERATURE, Signal.RECIPE_TEMPERATURE),
    "Production": (
        Signal.TOTAL,
        Signal.GOOD,
        Signal.SCRAP,
        Signal.IDEAL_CYCLE_TIME,
        Signal.PROGRAM_NUMBER,
    ),
}
_NUMBERS: Final = {Signal.TOTAL: 2001, Signal.GOOD: 2002, Signal.SCRAP: 2003}
_TYPES: Final = {
    Signal.STATE: ua.VariantType.Int32,
    Signal.TOTAL: ua.VariantType.UInt32,
    Signal.GOOD: ua.VariantType.UInt32,
    Signal.SCRAP: ua.VariantType.UInt32,
    Signal.SPINDLE_TEMPERATURE: ua.VariantType.Double,
    Signal.RECIPE_TEMPERATURE: ua.VariantType.Double,
    Signal.IDEAL_CYCLE_TIME: ua.VariantType.Double,
    Signal.PROGRAM_NUMBER: ua.VariantType.UInt32,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_WAIT_S: Final = 1.0
_WITHHELD: Final = (
    ua.ObjectIds.WriteRequest_Encoding_DefaultBinary,
    ua.ObjectIds.CallRequest_Encoding_DefaultBinary,
)


def node_identifier(signal: Signal) -> str:
    """Return how a signal's node is named inside the namespace: `i=2001` or `s=…`."""
    if signal in _NUMBERS:
        return f"i={_NUMBERS[signal]}"
    folder = next(name for name, signals in FOLDERS.items() if signal in signals)
    return f"s={MACHINE}.{folder}.{signal.value}"


class _Anonymous(UserManager):
    """Lets everyone in as a plain user; the library's default makes 'admin' an administrator."""

    def get_user(
        self,
        iserver: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: Any = None,
    ) -> User | None:
        return User(UserRole.User) if username is None else None


class _ReadOnly(PermissionRuleset):
    """Users may read, browse and subscribe; they may neither write nor call methods."""

    def __init__(self) -> None:
        self._allowed = {ua.NodeId(kind) for kind in USER_TYPES if kind not in _WITHHELD}

    def check_validity(self, user: User, action_type: Any, body: object) -> bool:
        return action_type in self._allowed


class MachineServer:
    """Serves machine-1 while its context is entered; `publish` keeps its values current.

    Args:
        plant: the factory.
        host: address to listen on.
        port: port to listen on; 0 lets the kernel pick one.
        now_ns: the wall clock.
    """

    def __init__(self, plant: Plant, *, now_ns: NowNs, host: str = "127.0.0.1", port: int = 0):
        self._plant = plant
        self._now_ns = now_ns
        self.host = host
        self.port = port
        self._server = Server(user_manager=_Anonymous())
        self._nodes: dict[Signal, Any] = {}
        self._published = 0

    @property
    def url(self) -> str:
        """The endpoint; complete once the server listens."""
        return f"opc.tcp://{self.host}:{self.port}/"

    async def __aenter__(self) -> Self:
        """Build the address space with the present values and start to listen.

        Raises:
            MillgateError: when the port cannot be had.
        """
        server = self._server
        server.set_endpoint(self.url)
        server.socket_address = (self.host, self.port)
        server.set_server_name("Millgate plant simulator")
        await server.init()
        await server.set_application_uri(NAMESPACE + ":server")
        rules: Any = _ReadOnly()
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity], rules)
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        server.allow_remote_admin(allow=False)
        await self._build()
        try:
            await server.start()
        except OSError as error:
            raise cannot_listen(self.host, self.port) from error
        self._name_port()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening and drop every client."""
        await self._server.stop()

    def _name_port(self) -> None:
        """The kernel picks the port after the endpoints were described; correct them."""
        if self._server.bserver is not None:
            self.port = self._server.bserver.port
        for endpoint in self._server.iserver.endpoints:
            endpoint.EndpointUrl = self.url
            endpoint.Server.DiscoveryUrls = [self.url]

    async def _build(self) -> None:
        index = await self._server.register_namespace(NAMESPACE)
        now = self._published = self._now()
        machines = await self._server.nodes.objects.add_folder(index, "Machines")
        machine = await machines.add_object(ua.NodeId(MACHINE, index), f"{index}:{MACHINE}")
        for folder, signals in FOLDERS.items():
            parent = await machine.add_object(
                ua.NodeId(f"{MACHINE}.{folder}", index), f"{index}:{folder}"
            )
            for signal in signals:
                await self._add(parent, signal, index, now)

    async def _add(self, parent: Node, signal: Signal, index: int, now: int) -> None:
        node_id = ua.NodeId.from_string(f"ns={index};{node_identifier(signal)}")
        newest = self._plant.newest(signal, now)
        await parent.add_variable(
            node_id, f"{index}:{signal.value}", newest.value, varianttype=_TYPES[signal]
        )
        self._nodes[signal] = node_id
        await self._write(newest)

    def _now(self) -> int:
        # A clock that was set back must not take the machine to before it was switched on.
        return max(self._now_ns(), self._plant.start_ns)

    async def publish(self) -> None:
        """Write every change as it happens, in order, until cancelled."""
        while True:
            until = min(self._now(), self._published + MINUTE)
            for change in self._plant.changes(self._published, until):
                await self._write(change)
            self._published = max(self._published, until)
            await asyncio.sleep(self._pause())

    def _pause(self) -> float:
        """Return the seconds until the next change, at most 1."""
        coming = self._plant.changes(self._published, self._published + SECOND)
        at = coming[0].time if coming else self._published + SECOND
        return min(max((at - self._now()) / SECOND, 0.0), _LONGEST_WAIT_S)

    async def _write(self, change: Change) -> None:
        moment = _EPOCH + timedelta(microseconds=change.time // MICROSECOND)
        value = ua.DataValue(
            Value=ua.Variant(change.value, _TYPES[change.signal]),
            StatusCode=ua.StatusCode(ua.StatusCodes.Good),
            SourceTimestamp=moment,
            ServerTimestamp=datetime.now(UTC),
        )
        await self._server.write_attribute_value(self._nodes[change.signal], value)

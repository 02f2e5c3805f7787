"""An OPC UA server that misbehaves on command.

It listens on a port of its own, and clients reach it through a relay: so it can refuse
connections, go slow or freeze as a whole, and come back on the same port.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final

from asyncua import ua as typed_ua
from asyncua.server.server import Server

from simulators.faults.door import company
from simulators.faults.opcua_nodes import (
    LIES,
    NAMESPACES,
    Teller,
    TellingNode,
    telling_nodes,
    truth,
)
from simulators.faults.opcua_sessions import LIMITS, Sessions
from simulators.faults.proxy import FREE, Hindrance, Proxy, Way, proxying

# Its annotations ask for number types of its own that nothing in it makes or needs.
ua: Any = typed_ua

EVENTS: Final = frozenset(
    {"restart", "namespace-order", "session-drop", "subscription-drop", "lost-notification"}
)
"""Faults that happen at a moment; the others last."""

_LIMITS: Final = {"limit-0": (0, None), "limit-1": (1, 1), "limit-100": (100, 100)}
"""Name -> (what is stated, what is kept); a stated 0 is no limit."""

_SILENT_LIMIT: Final = ("silent-limit-10", 10)
_UNLIMITED: Final = 10_000
_APPLICATION: Final = "urn:millgate:chaos:server"
_BAD_NODE: Final = 7
"""The number of the node that `bad-node` takes away."""


class ChaosOpcua:
    """The server; see `chaos_opcua`.

    Attributes:
        nodes: what it serves, in the order of their numbers.
        teller: says what the nodes show.
        turn: how often the values have changed.
        played: how often each fault was played; of those that last, how often it began.
    """

    def __init__(
        self, nodes: Collection[TellingNode], teller: Teller, *, delay_s: float, away_s: float
    ) -> None:
        self.nodes = tuple(nodes)
        self.teller = teller
        self.turn = 0
        self.played: Counter[str] = Counter()
        self._delay_s = delay_s
        self._away_s = away_s
        self._inside = Sessions(user_manager=None)
        self._server = Server(iserver=self._inside)
        self._order = list(NAMESPACES)
        self._missing: set[int] = set()
        self._placed: dict[int, Any] = {}
        self._rebuilding = asyncio.Lock()
        self._faults: frozenset[str] = frozenset()
        self.proxy: Proxy

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"opc.tcp://{self.proxy.host}:{self.proxy.port}/chaos"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.proxy.port

    @property
    def sessions(self) -> int:
        """Number of sessions that clients have."""
        return len(self._inside.open)

    @property
    def refused(self) -> int:
        """How many sessions and calls were refused as too many."""
        return self._inside.refused

    @property
    def subscriptions(self) -> int:
        """Number of subscriptions there are."""
        return len(self._inside.subscription_service.subscriptions)

    async def start(self) -> int:
        """Listen where only the relay goes; returns the port."""
        server = self._server
        await server.init()
        self._inside.disabled_clock = True  # its writes each second only slow the stop
        server.set_endpoint("opc.tcp://127.0.0.1:0/chaos")
        server.socket_address = ("127.0.0.1", 0)
        server.set_server_name("Millgate chaos server")
        await server.set_application_uri(_APPLICATION)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        server.allow_remote_admin(allow=False)
        await self._build()
        await server.start()
        if server.bserver is None:
            raise RuntimeError("the server has no socket although it started")
        return server.bserver.port

    async def stop(self) -> None:
        """Stop listening and drop every client."""
        await self._server.stop()

    async def tell(self, interval_s: float) -> None:
        """Change every value, turn by turn, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            async with self._rebuilding:
                self.turn += 1
                for node in self.nodes:
                    if node.number in self._placed:
                        await self._show(node, self.teller.say(node, self.turn))

    # What happens at a moment

    async def play(self, name: str) -> None:
        """Let a fault of EVENTS happen."""
        self.played[name] += 1
        match name:
            case "restart":
                await self.restart()
            case "namespace-order":
                self._order.reverse()
                await self.restart()
            case "session-drop":
                await self._drop_sessions()
            case "subscription-drop":
                service = self._inside.subscription_service
                await service.delete_subscriptions(list(service.subscriptions))
            case "lost-notification":
                for subscription in self._inside.subscription_service.subscriptions.values():
                    subscription._notification_seq += 1  # noqa: SLF001 - a fault needs the inside

    async def restart(self) -> None:
        """Go away with all sessions, come back after a while."""
        self.proxy.door.shut()
        await self._drop_sessions()
        async with self._rebuilding:
            await self._build()
        await asyncio.sleep(self._away_s)
        await self.proxy.door.open()

    async def _drop_sessions(self) -> None:
        for session in list(self._inside.open):
            await session.close_session(delete_subs=True)

    # What lasts

    async def suffer(self, faults: Collection[str]) -> None:
        """Have these lasting faults from now on, and no others."""
        wanted = frozenset(faults) - EVENTS
        self.played.update(wanted - self._faults)
        self._faults = wanted
        self.teller.lies = wanted & LIES.keys()
        self._inside.most_sessions = 2 if "two-sessions" in wanted else None
        await self._limit(wanted)
        missing = {_BAD_NODE} if "bad-node" in wanted else set()
        if missing != self._missing:
            self._missing = missing
            await self._drop_sessions()
            async with self._rebuilding:
                await self._build()
        if "frozen" in wanted:
            self.proxy.hindrance = Hindrance("stall")
        elif "slow" in wanted:
            self.proxy.hindrance = Hindrance("delay", Way.BACK, self._delay_s)
        else:
            self.proxy.hindrance = FREE

    async def _limit(self, wanted: Collection[str]) -> None:
        stated, kept = _UNLIMITED, None
        for name, limits in _LIMITS.items():
            if name in wanted:
                stated, kept = limits
        if _SILENT_LIMIT[0] in wanted:
            kept = _SILENT_LIMIT[1]
        self._inside.most_nodes = kept
        for identifier in LIMITS:
            node = self._server.get_node(ua.NodeId(identifier))
            await node.write_value(ua.Variant(stated, ua.VariantType.UInt32))

    # The address space

    async def _build(self) -> None:
        """Lay the nodes out, with the namespaces in the order of the moment.

        The library takes long to delete a node, so places that stay get other nodes.
        """
        array = self._server.get_node(ua.NodeId(ua.ObjectIds.Server_NamespaceArray))
        standard = (await array.read_value())[:2]
        await array.write_value([*standard, *self._order])
        before = set(self._placed.values())
        self._placed = {
            node.number: ua.NodeId(node.name, len(standard) + self._order.index(node.namespace))
            for node in self.nodes
            if node.number not in self._missing
        }
        for place in before - set(self._placed.values()):
            await self._server.delete_nodes([self._server.get_node(place)])
        for node in self.nodes:
            place = self._placed.get(node.number)
            if place is not None:
                await self._lay(node, place, new=place not in before)

    async def _lay(self, node: TellingNode, place: Any, *, new: bool) -> None:
        shown = truth(node, self.turn)
        kind = shown.Value.VariantType
        if new:
            await self._server.nodes.objects.add_variable(
                place, f"{place.NamespaceIndex}:{node.name}", shown.Value.Value, varianttype=kind
            )
        described = self._inside.aspace[place].attributes[ua.AttributeIds.DataType]
        described.value = ua.DataValue(ua.Variant(ua.NodeId(kind.value), ua.VariantType.NodeId))
        await self._show(node, shown)

    async def _show(self, node: TellingNode, shown: Any) -> None:
        """Put a value in past the library's checks, which would not let a lie through."""
        value = self._inside.aspace[self._placed[node.number]].attributes[ua.AttributeIds.Value]
        value.value = shown
        for handle, tell in list(value.datachange_callbacks.items()):
            await tell(handle, shown)


@asynccontextmanager
async def chaos_opcua(
    *,
    nodes: int = 30,
    faults: Collection[str] = (),
    seed: int = 1,
    share: float = 0.3,
    interval_s: float = 0.1,
    delay_s: float = 0.5,
    away_s: float = 1.0,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[ChaosOpcua]:
    """Serve telling nodes, with faults, while the context is entered.

    Args:
        nodes: how many, at most 999.
        faults: lasting faults to begin with.
        seed: decides every choice of the faults.
        share: of the values that lie, while lies are told.
        interval_s: how often all values change, in seconds.
        delay_s: by how much a slow server is late.
        away_s: how long a restart takes.
        host, port: where it listens; port 0 lets the kernel pick one.

    Raises:
        MillgateError: when the port cannot be had.
    """
    server = ChaosOpcua(telling_nodes(nodes), Teller(seed, share), delay_s=delay_s, away_s=away_s)
    inner = await server.start()
    try:
        async with proxying(("127.0.0.1", inner), host=host, port=port, seed=seed) as proxy:
            server.proxy = proxy
            await server.suffer(faults)
            async with company() as tasks:
                telling = tasks.create_task(server.tell(interval_s), name="chaos: values")
                try:
                    yield server
                finally:
                    telling.cancel()
    finally:
        await server.stop()

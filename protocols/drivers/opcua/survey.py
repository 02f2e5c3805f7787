"""Looks around at an OPC-UA server: its endpoints and its nodes with their types, never a value."""

import asyncio
import base64
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from asyncua import ua
from asyncua.common.ua_utils import data_type_to_variant_type
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from protocols.drivers import NotConnected
from protocols.drivers.opcua.address import STANDARD_NAMESPACE
from protocols.drivers.opcua.client import SecureClient
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.connection import Connection
from protocols.drivers.opcua.endpoints import TOKENS, ask_endpoints
from protocols.drivers.opcua.grid import TYPES
from protocols.drivers.opcua.levels import level_at
from protocols.drivers.opcua.limits import NODE, READ, Batches, batches_for
from protocols.frame import NowNs
from protocols.language import tr

_BROWSE: Final = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse
_MOST_BROWSED: Final = 20
_MOST_READ: Final = 100
_MOST_REFERENCES: Final = 1000
_ATTRIBUTES: Final = (AttributeIds.DataType, AttributeIds.ValueRank, AttributeIds.UserAccessLevel)
_READABLE: Final = 1
_SCALAR: Final = -1


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a look around goes, and how gently.

    Attributes:
        nodes: most nodes listed.
        depth: most steps from the Objects folder.
        seconds: how long it may take.
        per_second: most requests a second.
    """

    nodes: int = 5000
    depth: int = 16
    seconds: float = 60.0
    per_second: float = 20.0


@dataclass(frozen=True, slots=True)
class Offer:
    """An endpoint.

    Attributes:
        policy, mode: how it is protected; `none` is not at all, `other` is not spoken here.
        logins: as whom one may log in: anonymous, user, certificate.
    """

    policy: str
    mode: str
    logins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A node.

    Attributes:
        names: namespace URI and browse name of each step from the Objects folder on.
        address: the node as configuration names it.
        variable: whether it has a value.
        type: the built-in type of its value; empty where that is none that can be collected.
        array: whether its value is an array.
        readable: whether we may read it.
    """

    names: tuple[tuple[str, str], ...]
    address: str
    variable: bool
    type: str = ""
    array: bool = False
    readable: bool = False

    @property
    def path(self) -> str:
        """The names alone, for people."""
        return "/".join(name for _, name in self.names)

    @property
    def by_path(self) -> str:
        """The node as configuration names it by its path."""
        return path_address(self.names)


@dataclass
class Tree:
    """What was found.

    Attributes:
        nodes: in the order of their depth.
        namespaces: the URIs that the server knows.
        requests: how many were sent.
        left_out: why the look around ended early; empty when it did not.
    """

    nodes: list[Found] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    requests: int = 0
    left_out: str = ""


def path_address(names: Iterable[tuple[str, str]]) -> str:
    """Return the address of a path; see `address.parse_address`."""
    text, before = "path=", STANDARD_NAMESPACE
    for uri, name in names:
        space = "" if uri == before else f"{{{_escaped(uri, '%{}')}}}"
        text += f"/{space}{_escaped(name, '%{}/')}"
        before = uri
    return text


def _escaped(text: str, special: str) -> str:
    return "".join(f"%{ord(one):02X}" if one in special else one for one in text)


def node_address(uri: str, identifier: Any) -> str:
    """Return the address of a node by its identifier."""
    space = "" if uri == STANDARD_NAMESPACE else f"nsu={_escaped(uri, '%;')};"
    if isinstance(identifier, int):
        return f"{space}i={identifier}"
    if isinstance(identifier, uuid.UUID):
        return f"{space}g={identifier}"
    if isinstance(identifier, bytes):
        return f"{space}b={base64.b64encode(identifier).decode('ascii')}"
    return f"{space}s={identifier}"


async def offers(config: Config, where: str) -> list[Offer]:
    """Ask a server for its endpoints.

    Raises:
        NotConnected: when it does not tell.
    """
    names = {token: identity.value for identity, token in TOKENS.items()}
    found = []
    for endpoint in await ask_endpoints(config, where):
        level = level_at(endpoint)
        unprotected = endpoint.SecurityMode == ua.MessageSecurityMode.None_
        policy = level.policy if level else "none" if unprotected else "other"
        mode = level.mode if level else "none" if unprotected else "other"
        tokens = [token.TokenType for token in endpoint.UserIdentityTokens or []]
        logins = tuple(dict.fromkeys(names[token] for token in tokens if token in names))
        found.append(Offer(policy, mode, logins))
    return list(dict.fromkeys(found))


async def look_around(
    config: Config, where: str, now_ns: NowNs, bounds: Bounds, progress: Callable[[int], None]
) -> Tree:
    """List a server's nodes below the Objects folder, without the server's own.

    Args:
        config: how to connect.
        where: the device, for messages.
        now_ns: the wall clock.
        bounds: how far to go.
        progress: told how many nodes there are so far.

    Raises:
        NotConnected: when the server cannot be asked.
    """
    lost: list[NotConnected] = []
    connection = Connection(config, now_ns, where, lost.append)
    try:
        client = await connection.open(None)
        try:
            return await _Walk(client, where, bounds, progress).walk()
        except (UaError, OSError, TimeoutError, ConnectionError) as error:
            raise connection.fault(error) from None
    finally:
        await connection.close()


class _Walk:
    """One look around."""

    def __init__(
        self, client: SecureClient, where: str, bounds: Bounds, progress: Callable[[int], None]
    ) -> None:
        self._client = client
        self._where = where
        self._bounds = bounds
        self._progress = progress
        self._tree = Tree()
        self._types: dict[ua.NodeId, str] = {}
        self._next = 0.0
        self._until = asyncio.get_running_loop().time() + bounds.seconds

    async def walk(self) -> Tree:
        tree = self._tree
        tree.namespaces = await self._client.get_namespace_array()
        browsing = await batches_for(self._client, _BROWSE, self._where, _MOST_BROWSED)
        reading = await batches_for(self._client, READ, self._where, _MOST_READ)
        seen = {NODE(ObjectIds.ObjectsFolder), NODE(ObjectIds.Server)}
        level: list[tuple[ua.NodeId, tuple[tuple[str, str], ...]]] = [
            (NODE(ObjectIds.ObjectsFolder), ())
        ]
        for _ in range(self._bounds.depth):
            below = await self._below(level, browsing, seen)
            room = self._bounds.nodes - len(tree.nodes)
            if len(below) > room:
                tree.left_out = tree.left_out or tr("too many nodes", "节点过多")
            below = below[: max(room, 0)]
            tree.nodes += await self._described(below, reading)
            self._progress(len(tree.nodes))
            level = [(node, names) for node, names, _ in below]
            if not level or tree.left_out:
                return tree
        tree.left_out = tr("too deep", "层级过深")
        return tree

    async def _gently(self) -> None:
        """Wait until the next request may be sent; note when time is up."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._next - loop.time(), 0))
        self._next = loop.time() + 1 / self._bounds.per_second
        self._tree.requests += 1
        if loop.time() > self._until:
            self._tree.left_out = self._tree.left_out or tr("time is up", "时间已到")

    async def _below(
        self,
        level: Sequence[tuple[ua.NodeId, tuple[tuple[str, str], ...]]],
        browsing: Batches,
        seen: set[ua.NodeId],
    ) -> list[tuple[ua.NodeId, tuple[tuple[str, str], ...], bool]]:
        """Return the nodes below these that were not seen before: id, names, has a value."""

        async def service(batch: list[Any]) -> Sequence[Any]:
            await self._gently()
            wanted = [_description(node) for node, _ in batch]
            return await self._client.uaclient.session.browse(
                ua.BrowseParameters(
                    View=ua.ViewDescription(),
                    RequestedMaxReferencesPerNode=_MOST_REFERENCES,
                    NodesToBrowse=wanted,
                )
            )

        found: list[tuple[ua.NodeId, tuple[tuple[str, str], ...], bool]] = []
        async for batch, answers in browsing.call(level, service):
            for (_, names), answer in zip(batch, answers, strict=True):
                for reference in await self._all_references(answer):
                    node = self._local(reference)
                    if node is None or node in seen or len(found) > self._bounds.nodes:
                        continue
                    seen.add(node)
                    step = self._name(reference.BrowseName)
                    has_value = reference.NodeClass == ua.NodeClass.Variable
                    found.append((node, (*names, step), has_value))
            if self._tree.left_out:
                break
        return found

    async def _all_references(self, answer: ua.BrowseResult) -> list[ua.ReferenceDescription]:
        if answer.StatusCode.is_bad():
            return []
        references = list(answer.References or [])
        point = answer.ContinuationPoint
        while point:
            await self._gently()
            full = len(references) >= self._bounds.nodes or bool(self._tree.left_out)
            (more,) = await self._client.uaclient.session.browse_next(
                ua.BrowseNextParameters(
                    ReleaseContinuationPoints=full,
                    ContinuationPoints=[point],
                )
            )
            references += more.References or []
            point = None if full else more.ContinuationPoint
        return references

    def _local(self, reference: ua.ReferenceDescription) -> ua.NodeId | None:
        """Return the node that a reference leads to, when it is on this server and has a name."""
        target = reference.NodeId
        known = target.NamespaceIndex < len(self._tree.namespaces)
        named = reference.BrowseName.NamespaceIndex < len(self._tree.namespaces)
        kinds = {ua.NodeClass.Object, ua.NodeClass.Variable}
        if getattr(target, "ServerIndex", 0) or not known or not named:
            return None
        if reference.NodeClass not in kinds or not reference.BrowseName.Name:
            return None
        return NODE(target.Identifier, target.NamespaceIndex)

    def _name(self, name: ua.QualifiedName) -> tuple[str, str]:
        return self._uri(name.NamespaceIndex), str(name.Name)

    def _uri(self, index: int) -> str:
        return self._tree.namespaces[index] if index else STANDARD_NAMESPACE

    async def _described(
        self,
        nodes: Sequence[tuple[ua.NodeId, tuple[tuple[str, str], ...], bool]],
        reading: Batches,
    ) -> list[Found]:
        async def service(batch: list[Any]) -> Sequence[Any]:
            await self._gently()
            wanted = [ua.ReadValueId(NodeId=node, AttributeId=which) for node, which in batch]
            return await self._client.uaclient.session.read(ua.ReadParameters(NodesToRead=wanted))

        asked = [(node, which) for node, _, value in nodes if value for which in _ATTRIBUTES]
        answers: deque[Any] = deque()
        async for _, some in reading.call(asked, service):
            answers.extend(_value_of(one) for one in some)
        return [
            await self._found(
                node, names, tuple(answers.popleft() for _ in _ATTRIBUTES) if value else None
            )
            for node, names, value in nodes
        ]

    async def _found(
        self,
        node: ua.NodeId,
        names: tuple[tuple[str, str], ...],
        attributes: tuple[Any, ...] | None,
    ) -> Found:
        address = node_address(self._uri(node.NamespaceIndex), node.Identifier)
        if attributes is None:
            return Found(names, address, variable=False)
        data_type, rank, access = attributes
        return Found(
            names,
            address,
            variable=True,
            type=await self._type(data_type),
            array=rank != _SCALAR and rank is not None,
            readable=isinstance(access, int) and bool(access & _READABLE),
        )

    async def _type(self, data_type: Any) -> str:
        """Return the built-in type behind a data type; empty where it is none we collect."""
        if not isinstance(data_type, ua.NodeId):
            return ""
        if data_type not in self._types:
            await self._gently()
            try:
                kind = await data_type_to_variant_type(self._client.get_node(data_type))
                name = getattr(kind, "name", "")
            except (UaError, UaStatusCodeError, AttributeError, ValueError):
                name = ""
            self._types[data_type] = name
        name = self._types[data_type]
        return name if name in TYPES else ""


def _value_of(answer: ua.DataValue) -> Any:
    good = answer.StatusCode is None or answer.StatusCode.is_good()
    return answer.Value.Value if good and answer.Value is not None else None


def _description(node: ua.NodeId) -> ua.BrowseDescription:
    return ua.BrowseDescription(
        NodeId=node,
        BrowseDirection=ua.BrowseDirection.Forward,
        ReferenceTypeId=NODE(ObjectIds.HierarchicalReferences),
        IncludeSubtypes=True,
        NodeClassMask=ua.NodeClass.Object | ua.NodeClass.Variable,
        ResultMask=ua.BrowseResultMask.All,
    )

"""Finds the nodes that points name, as the server numbers them now."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from asyncua import ua
from asyncua.ua.object_ids import ObjectIds

from protocols.drivers.opcua.address import STANDARD_NAMESPACE, NodeAddress, PathAddress
from protocols.drivers.opcua.client import SecureClient
from protocols.drivers.opcua.faults import status_name
from protocols.drivers.opcua.items import Item
from protocols.drivers.opcua.limits import NODE, TRANSLATE, batches_for
from protocols.drivers.opcua.steps import needs_layout
from protocols.drivers.opcua.structures import Layouts, Unreadable

UNKNOWN_NAMESPACE: Final = "NamespaceUnknown"
AMBIGUOUS: Final = "PathAmbiguous"
UNREADABLE: Final = "StructureUnreadable"
# Its annotations ask for a wrapper of bool that its own code does not use.
_ELEMENT: Final[Callable[..., ua.RelativePathElement]] = ua.RelativePathElement
_WHOLE_PATH: Final = 2**32 - 1

Nodes = list[tuple[int, ua.NodeId]]
"""Nodes, each with the place of its item."""


class Finder:
    """Finds nodes at one server, over one connection.

    Attributes:
        layouts: of the structures that points reach into.
    """

    def __init__(self, client: SecureClient, items: Sequence[Item], where: str) -> None:
        self.layouts = Layouts(client)
        self._client = client
        self._items = items
        self._where = where

    async def find(self, places: Iterable[int]) -> tuple[Nodes, dict[int, str]]:
        """Return the nodes of items, and why there is none for the others.

        Raises:
            UaError: when the server cannot be asked.
        """
        namespaces = await self._client.get_namespace_array()
        indices = {uri: index for index, uri in reversed(list(enumerate(namespaces)))}
        indices[STANDARD_NAMESPACE] = 0
        nodes: Nodes = []
        paths: list[tuple[int, ua.BrowsePath]] = []
        refused: dict[int, str] = {}
        for place in places:
            address = self._items[place].ask.where
            if not _uris(address) <= indices.keys():
                refused[place] = UNKNOWN_NAMESPACE
            elif isinstance(address, PathAddress):
                paths.append((place, _browse_path(address, indices)))
            else:
                nodes.append((place, NODE(address.identifier, indices[address.namespace])))
        if paths:
            nodes += await self._translate(paths, refused)
        return await self._readable(sorted(nodes, key=_place), refused), refused

    async def _translate(
        self, paths: list[tuple[int, ua.BrowsePath]], refused: dict[int, str]
    ) -> Nodes:
        async def service(batch: list[tuple[int, ua.BrowsePath]]) -> Sequence[Any]:
            wanted = [path for _, path in batch]
            return await self._client.uaclient.session.translate_browsepaths_to_nodeids(wanted)

        nodes: Nodes = []
        batches = await batches_for(self._client, TRANSLATE, self._where)
        async for batch, answers in batches.call(paths, service):
            for (place, _), answer in zip(batch, answers, strict=True):
                found = _targets(answer)
                if len(found) == 1:
                    nodes.append((place, found.pop()))
                elif found:
                    refused[place] = AMBIGUOUS
                else:
                    bad = answer.StatusCode.is_bad()
                    refused[place] = status_name(answer.StatusCode.value) if bad else "BadNoMatch"
        return nodes

    async def _readable(self, nodes: Nodes, refused: dict[int, str]) -> Nodes:
        """Learn the structures that points reach into; leave out those that cannot be read."""
        readable = []
        for place, node in nodes:
            if any(needs_layout(part) for part in self._items[place].parts):
                try:
                    await self.layouts.learn(node)
                except Unreadable:
                    refused[place] = UNREADABLE
                    continue
            readable.append((place, node))
        return readable


def _place(entry: tuple[int, ua.NodeId]) -> int:
    return entry[0]


def _uris(address: NodeAddress | PathAddress) -> set[str]:
    if isinstance(address, NodeAddress):
        return {address.namespace}
    return {uri for uri, _ in address.names}


def _browse_path(address: PathAddress, indices: Mapping[str, int]) -> ua.BrowsePath:
    return ua.BrowsePath(
        StartingNode=NODE(ObjectIds.ObjectsFolder),
        RelativePath=ua.RelativePath(
            Elements=[
                _ELEMENT(
                    ReferenceTypeId=NODE(ObjectIds.HierarchicalReferences),
                    IsInverse=False,
                    IncludeSubtypes=True,
                    TargetName=ua.QualifiedName(name, indices[uri]),
                )
                for uri, name in address.names
            ]
        ),
    )


def _targets(answer: ua.BrowsePathResult) -> set[ua.NodeId]:
    """Return the different nodes that a path leads to, all the way and on this very server."""
    found = set()
    for target in answer.Targets or ():
        node = target.TargetId
        if target.RemainingPathIndex == _WHOLE_PATH and not getattr(node, "ServerIndex", 0):
            found.add(NODE(node.Identifier, node.NamespaceIndex))
    return found if answer.StatusCode.is_good() else set()

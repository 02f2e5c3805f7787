"""Captured OPC UA as servers: each variable as it was last read or sent.

Only conversations without security can be read; of others no more than that they were there is
told. An answer counts only with its request, a notification only with the creation of its items.
What was written to a server is not taken for what it holds.
"""

import struct
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from asyncua import ua as typed_ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary

from protocols.drivers.opcua import bounds
from protocols.errors import MillgateError
from protocols.language import tr
from simulators.capture import End, Packets, chosen, read_packets
from simulators.streams import Connections, Heard

# Its annotations ask for number types of its own that nothing in it makes or needs.
ua: Any = typed_ua

PORT: Final = 4840
_MOST_SERVERS: Final = 256
_MOST_VALUES: Final = 20_000
_MOST_WAITING: Final = 256
_MOST_ITEMS: Final = 100_000
_MOST_ENDPOINTS: Final = 64
_HEADER: Final = struct.Struct("<3scI")
_CHUNK: Final = struct.Struct("<IIII")
_NO_SECURITY: Final = b"http://opcfoundation.org/UA/SecurityPolicy#None"
_ENDING: Final = "_Encoding_DefaultBinary"
_NAMES: Final[dict[int, str]] = {
    getattr(ua.ObjectIds, name): name.removesuffix(_ENDING)
    for name in dir(ua.ObjectIds)
    if name.endswith(_ENDING)
}
"""Number of an encoding -> name of its structure."""
_READ: Final = frozenset(
    {
        "ReadRequest",
        "ReadResponse",
        "CreateMonitoredItemsRequest",
        "CreateMonitoredItemsResponse",
        "PublishResponse",
        "GetEndpointsResponse",
        "ServiceFault",
    }
)
"""What is taken apart; of everything else only the name is."""


@dataclass(slots=True)
class Counts:
    """What was seen of a server.

    Attributes:
        services: name -> answers.
        faults: status code -> refused requests.
        errors: times that the server ended a connection with an error.
        secured: channels that cannot be read.
        odd: messages that are damaged, or answers to nothing that was captured.
        gaps: times that bytes were missing.
        left_out: values beyond the bound on memory.
    """

    services: Counter[str] = field(default_factory=Counter)
    faults: Counter[int] = field(default_factory=Counter)
    errors: int = 0
    secured: int = 0
    odd: int = 0
    gaps: int = 0
    left_out: int = 0


class CapturedServer:
    """One server of a capture.

    Attributes:
        end: its address and port.
        counts: what was seen of it.
        endpoints: what it said of them: security policy and mode.
        namespaces: its namespace URIs, as far as they were read.
        values: node -> its newest value.
    """

    def __init__(self, end: End) -> None:
        self.end = end
        self.counts = Counts()
        self.endpoints: list[tuple[str, str]] = []
        self.namespaces: list[str] = []
        self.values: dict[Any, Any] = {}

    def note(self, node: Any, value: Any) -> None:
        """Take over what a node showed."""
        if node.NamespaceIndex == 0:
            if node.Identifier == ua.ObjectIds.Server_NamespaceArray and value.Value is not None:
                self.namespaces = [str(uri) for uri in value.Value.Value or ()]
            return
        if node not in self.values and len(self.values) >= _MOST_VALUES:
            self.counts.left_out += 1
            return
        self.values[node] = value

    def uri_of(self, index: int) -> str:
        """Return the namespace of a number, made up where it was not captured."""
        if index < len(self.namespaces):
            return self.namespaces[index]
        return f"urn:captured:{index}"


class _Conversation:
    """One connection of a client with a server."""

    def __init__(self, server: CapturedServer) -> None:
        self._server = server
        self._counts = server.counts
        self._buffers = (bytearray(), bytearray())
        self._parts: tuple[dict[int, bytes], dict[int, bytes]] = ({}, {})
        self._waiting: OrderedDict[int, Any] = OrderedDict()
        self._items: dict[tuple[int, int], Any] = {}
        self._open = True

    def hearers(self) -> tuple[Heard, Heard]:
        """Return who hears the client and who hears the server."""
        return (lambda piece: self._hear(0, piece)), (lambda piece: self._hear(1, piece))

    def _hear(self, side: int, piece: bytes | None) -> None:
        buffer = self._buffers[side]
        if piece is None:
            self._counts.gaps += 1
            self._lose(side)
            return
        buffer += piece
        while len(buffer) >= _HEADER.size:
            kind, mark, size = _HEADER.unpack_from(buffer)
            if not kind.isalpha() or not _HEADER.size <= size <= bounds.LARGEST_MESSAGE:
                self._counts.odd += 1
                self._lose(side)
                return
            if len(buffer) < size:
                return
            body = bytes(buffer[_HEADER.size : size])
            del buffer[:size]
            self._chunk(side, kind, mark, body)

    def _lose(self, side: int) -> None:
        """Which answer belongs to which request is no longer known."""
        self._buffers[side].clear()
        self._parts[side].clear()
        self._waiting.clear()

    def _chunk(self, side: int, kind: bytes, mark: bytes, body: bytes) -> None:
        if kind == b"ERR":
            self._counts.errors += side
        elif kind == b"OPN":
            # The policy's name follows the channel's number and its own length.
            self._open = body[8 : 8 + len(_NO_SECURITY)] == _NO_SECURITY
            self._counts.secured += side and not self._open
        elif kind == b"MSG" and self._open and len(body) >= _CHUNK.size:
            number = _CHUNK.unpack_from(body)[3]
            parts = self._parts[side]
            whole = parts.pop(number, b"") + body[_CHUNK.size :]
            if mark == b"C" and len(whole) <= bounds.LARGEST_MESSAGE and len(parts) < _MOST_WAITING:
                parts[number] = whole
            elif mark == b"F":
                self._message(side, number, whole)

    def _message(self, side: int, number: int, body: bytes) -> None:
        try:
            name, content = _decoded(body)
            (self._answer if side else self._request)(number, name, content)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, it is counted
            self._counts.odd += 1

    def _request(self, number: int, name: str, content: Any) -> None:
        del name
        self._waiting[number] = content
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)

    def _answer(self, number: int, name: str, content: Any) -> None:
        if number not in self._waiting:
            self._counts.odd += 1
            return
        asked = self._waiting.pop(number)
        if name == "ServiceFault":
            self._counts.faults[content.ResponseHeader.ServiceResult.value] += 1
            return
        self._counts.services[name.removesuffix("Response")] += 1
        if isinstance(content, ua.GetEndpointsResponse):
            self._server.endpoints = [
                (str(one.SecurityPolicyUri).rpartition("#")[2], one.SecurityMode.name.rstrip("_"))
                for one in content.Endpoints[:_MOST_ENDPOINTS]
            ]
        elif isinstance(content, ua.ReadResponse):
            self._take_read(asked, content)
        elif isinstance(content, ua.CreateMonitoredItemsResponse):
            self._take_items(asked, content)
        elif isinstance(content, ua.PublishResponse):
            self._take_changes(content.Parameters)

    def _take_read(self, asked: Any, content: Any) -> None:
        nodes = asked.Parameters.NodesToRead
        for one, value in zip(nodes, content.Results, strict=True):
            if one.AttributeId == ua.AttributeIds.Value and not one.IndexRange:
                self._note(one.NodeId, value)

    def _take_items(self, asked: Any, content: Any) -> None:
        wanted = asked.Parameters
        for one, given in zip(wanted.ItemsToCreate, content.Results, strict=True):
            handle = wanted.SubscriptionId, one.RequestedParameters.ClientHandle
            of_value = one.ItemToMonitor.AttributeId == ua.AttributeIds.Value
            if given.StatusCode.is_good() and of_value and len(self._items) < _MOST_ITEMS:
                self._items[handle] = one.ItemToMonitor.NodeId

    def _take_changes(self, found: Any) -> None:
        for data in found.NotificationMessage.NotificationData or ():
            if isinstance(data, ua.DataChangeNotification):
                for item in data.MonitoredItems:
                    node = self._items.get((found.SubscriptionId, item.ClientHandle))
                    if node is not None:
                        self._note(node, item.Value)

    def _note(self, node: Any, value: Any) -> None:
        # Encodings of one identifier differ in length; the server that we make has one.
        self._server.note(ua.NodeId(node.Identifier, node.NamespaceIndex), value)


def _decoded(body: bytes) -> tuple[str, Any]:
    """Return the name of a message, and its content where that is of use."""
    encoding: Any = nodeid_from_binary(Buffer(body)).Identifier
    name = _NAMES[encoding]
    if name not in _READ:
        return name, None
    return name, struct_from_binary(getattr(ua, name), Buffer(body))


@dataclass(frozen=True, slots=True)
class OpcuaCapture:
    """What a file held.

    Attributes:
        name: of the file.
        servers: those that answered something, those with most values first.
        damaged: the file ends in the middle.
    """

    name: str
    servers: tuple[CapturedServer, ...]
    damaged: bool

    def server(self, wanted: str | None) -> CapturedServer:
        """Return the server at an address (with or without port); None is the fullest.

        Raises:
            MillgateError: when there is none with values.
        """
        found = chosen({one.end: one for one in self.servers if one.values}, wanted)
        if found is None:
            raise MillgateError(
                tr(
                    "no value of an OPC UA server can be read in it",
                    "其中没有可读取的 OPC UA 数值",
                ),
                where=self.name,
                remedy=tr(
                    "see --list for what is in it; is the port another one (--captured-port)?",
                    "内容见 --list；端口是否不同（--captured-port）？",
                ),
            )
        return found


def read_opcua_capture(path: Path, port: int = PORT) -> OpcuaCapture:
    """Read a pcap file; what is no OPC UA to or from the port is left out.

    Raises:
        MillgateError: when it cannot be read or is not a classic pcap.
    """
    return read_packets(path, lambda packets: decode(packets, port))


def decode(packets: Packets, port: int = PORT) -> OpcuaCapture:
    """Decode packets; see `read_opcua_capture`."""
    bounds.install()
    servers: dict[End, CapturedServer] = {}

    def joined(client: End, end: End) -> tuple[Heard, Heard]:
        del client
        server = servers.get(end) or CapturedServer(end)
        if len(servers) < _MOST_SERVERS:
            servers[end] = server
        return _Conversation(server).hearers()

    connections = Connections(port, joined)
    for segment in packets.segments():
        connections.take(segment)
    connections.end()
    seen = [one for one in servers.values() if one.counts.services or one.counts.secured]
    ranked = sorted(seen, key=lambda one: (-len(one.values), one.end))
    return OpcuaCapture(packets.name, tuple(ranked), packets.damaged)


def describe(servers: Iterable[CapturedServer]) -> list[dict[str, object]]:
    """Return what is known of servers, without a single value, as plain JSON."""
    return [
        {
            "server": f"{one.end[0]}:{one.end[1]}",
            "values": len(one.values),
            "endpoints": sorted({f"{policy}, {mode}" for policy, mode in one.endpoints}),
            "services": dict(sorted(one.counts.services.items())),
            "faults": {f"0x{code:08X}": n for code, n in sorted(one.counts.faults.items())},
            "errors": one.counts.errors,
            "secured": one.counts.secured,
            "odd": one.counts.odd,
            "gaps": one.counts.gaps,
            "namespaces": sorted({one.uri_of(node.NamespaceIndex) for node in one.values}),
        }
        for one in servers
    ]

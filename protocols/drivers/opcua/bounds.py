"""What a server can make us hold, whatever it sends.

The library takes messages of any length, makes room for arrays of nothing and for extents that no
element fills, and goes backwards for a text of negative length, for ever if need be. Here all that
gets a bound: a message has a largest length, and what comes out of it is in proportion to what came
in.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_client import UASocketProtocol
from asyncua.common.connection import TransportLimits
from asyncua.common.utils import Buffer, NotEnoughData
from asyncua.ua import ua_binary
from asyncua.ua.uaerrors import UaError

LARGEST_MESSAGE: Final = 8 * 2**20
"""Bytes of a message; a notification of 10,000 values is well under one million."""
_MOST_CHUNKS: Final = 4096
_HEADER: Final = 8
_LARGEST_SENT: Final = 65_535


@dataclass
class _Limits(TransportLimits):
    """Our own bounds on what is received; the server's word counts only for what is sent."""

    def update_client_limits(self, msg: ua.Acknowledge) -> None:
        """Take note of the largest chunk that the server takes."""
        # The library keeps it as what we take, and takes no larger ones.
        self.max_send_buffer = min(int(msg.ReceiveBufferSize) or _LARGEST_SENT, _LARGEST_SENT)


def _limits() -> _Limits:
    return _Limits(LARGEST_MESSAGE, _LARGEST_SENT, _MOST_CHUNKS, LARGEST_MESSAGE)


class BoundedClient(Client):
    """The library's client, with a bound on what it takes."""

    async def connect_socket(self) -> None:
        """Connect to the server's port."""
        await super().connect_socket()
        protocol = self.uaclient.protocol
        if protocol is not None:
            protocol._connection._limits = _limits()  # noqa: SLF001 - it has no other place for them
            inlet = _Inlet(protocol)
            setattr(protocol, "data_received", inlet.take)  # noqa: B010 - of this one object alone


class _Inlet:
    """Hands whole chunks to the library, which would copy what it has with every byte that comes."""

    def __init__(self, protocol: UASocketProtocol) -> None:
        self._protocol = protocol
        self._usual: Callable[[bytes], None] = protocol.data_received
        self._waiting = bytearray()

    def take(self, data: bytes) -> None:
        """Take bytes as they come."""
        self._waiting += data
        if len(self._waiting) < _HEADER:
            return
        (needed,) = struct.unpack_from("<I", self._waiting, 4)
        if not _HEADER <= needed <= LARGEST_MESSAGE:
            self._waiting.clear()
            self._protocol.disconnect_socket()
        elif len(self._waiting) >= needed:
            whole = bytes(self._waiting)
            self._waiting.clear()
            self._usual(whole)
            self._waiting += self._protocol.receive_buffer or b""
            self._protocol.receive_buffer = None


class _NoNulls:
    """Refuses arrays of nothing: they take no bytes however long they are said to be."""

    @staticmethod
    def unpack_array(_data: object, length: int) -> tuple[Any, ...]:
        if length > 0:
            raise UaError("an array of nothing")
        return ()

    @staticmethod
    def pack_array(array: object) -> bytes:
        raise UaError(f"an array of nothing ({type(array).__name__})")


def _reshaped(flat: list[Any], extents: list[int] | None) -> list[Any]:
    """Return an array of several dimensions; its extents must hold its elements exactly."""
    if not flat or not extents:
        return flat
    if min(extents) < 1 or prod(extents) != len(flat):
        raise UaError("extents")
    for extent in reversed(extents[1:]):
        flat = [flat[at : at + extent] for at in range(0, len(flat), extent)]
    return flat


def _read(self: Any, size: int) -> bytes:
    """Return the next bytes of a buffer; never go backwards."""
    if not 0 <= size <= self._size:
        raise NotEnoughData("length")
    begin = self._cur_pos
    self._size -= size
    self._cur_pos += size
    taken: bytes = self._data[begin : self._cur_pos]
    return taken


def install() -> None:
    """Put the bounds into the library's decoder; doing it again changes nothing."""
    # Looked up by these names whenever something is decoded; the tests show that they still are.
    setattr(Buffer, "read", _read)  # noqa: B010 - a method of the library's own
    setattr(ua_binary, "_reshape", _reshaped)  # noqa: B010 - a name of the library's own
    setattr(ua_binary.Primitives1, "Null", _NoNulls)  # noqa: B010 - same

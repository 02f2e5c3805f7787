"""The link: the one socket between gate side and sealed side.

A message on it is its length in four bytes, then its bytes. Anything else ends the link, and with it
whatever was under way; the sides find together again by `Hello` and `Restore` on the next.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from agent.released import (
    MOST_BYTES,
    FromGate,
    FromSealed,
    decode_from_gate,
    decode_from_sealed,
    encode,
)
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed

_LENGTH: Final = struct.Struct(">I")
_PIECE: Final = 1 << 20

In = TypeVar("In")
Out = TypeVar("Out", bound=FromGate | FromSealed)


class LinkLost(MillgateError):
    """The other side is gone, or what came was not one of its messages."""


class Link(Generic[Out, In]):
    """One end of a link."""

    def __init__(self, end: socket.socket, decode: Callable[[bytes], In]) -> None:
        end.settimeout(0)
        self._end = end
        self._decode = decode

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    async def send(self, message: Out) -> None:
        """Send a message.

        Raises:
            LinkLost: when the other side is gone, or the message is larger than a message may be.
        """
        data = encode(message)
        if len(data) > MOST_BYTES:
            raise LinkLost(tr("a message is too large", "消息过大"))
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_sendall(self._end, _LENGTH.pack(len(data)))
            await loop.sock_sendall(self._end, data)
        except OSError:
            raise _gone() from None

    async def receive(self) -> In:
        """Return the next message.

        Raises:
            LinkLost: when the other side is gone.
            Malformed: when what came is not one of its messages.
        """
        (length,) = _LENGTH.unpack(await self._exactly(_LENGTH.size))
        if length > MOST_BYTES:
            raise Malformed("too many bytes")
        return self._decode(await self._exactly(length))

    async def silence(self, until: asyncio.Event) -> None:
        """Wait for an event while the other side has nothing to say.

        Raises:
            LinkLost: when the other side is gone.
            Malformed: when it says something all the same.
        """
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(self._broken())
            woken = group.create_task(until.wait())
            await asyncio.wait((heard, woken), return_when=asyncio.FIRST_COMPLETED)
            broken = heard.done()
            for task in (heard, woken):
                task.cancel()
        if broken:
            raise heard.result()

    async def _broken(self) -> MillgateError:
        try:
            await self._exactly(1)
        except LinkLost as lost:
            return lost
        return Malformed("out of turn")

    async def _exactly(self, count: int) -> bytes:
        """Read so many bytes; memory grows only as they come."""
        loop = asyncio.get_running_loop()
        data = bytearray()
        while len(data) < count:
            try:
                piece = await loop.sock_recv(self._end, min(count - len(data), _PIECE))
            except OSError:
                raise _gone() from None
            if not piece:
                raise _gone()
            data += piece
        return bytes(data)


GateLink = Link[FromGate, FromSealed]
SealedLink = Link[FromSealed, FromGate]


def gate_end(end: socket.socket) -> GateLink:
    """Return the gate side's end."""
    return Link(end, decode_from_sealed)


def sealed_end(end: socket.socket) -> SealedLink:
    """Return the sealed side's end."""
    return Link(end, decode_from_gate)


@contextmanager
def joined() -> Iterator[tuple[GateLink, SealedLink]]:
    """Give both ends of a new link within this process, and close them."""
    with contextlib.ExitStack() as stack:
        gate, sealed = (stack.enter_context(end) for end in socket.socketpair())
        yield gate_end(gate), sealed_end(sealed)


def _gone() -> LinkLost:
    return LinkLost(tr("the other side has ended", "另一侧已结束"))

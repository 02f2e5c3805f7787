"""Captured TCP segments, put in order: what each connection carried, either way.

Whatever was captured, memory stays bounded, and what was not captured is told as a gap and
never bridged.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

from simulators.capture import End, Segment

_MOST_PENDING: Final = 1 << 16
_MOST_PIECES: Final = 128
_MOST_CONNECTIONS: Final = 4096
_HALF: Final = 1 << 31
_TURN: Final = 1 << 32


class Stream:
    """One direction of a connection, put in order."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._pending: dict[int, bytes] = {}
        self._held = 0

    def take(self, segment: Segment) -> list[bytes | None]:
        """Return the bytes that are now in order; None stands where some are missing."""
        out: list[bytes | None] = []
        if segment.opens:
            if self._next is not None:
                out.append(None)
            self._forget()
            self._next = (segment.sequence + 1) % _TURN
        elif self._next is None:
            self._next = segment.sequence
        begin = segment.sequence + (1 if segment.opens else 0)
        if segment.data:
            self._place(begin % _TURN, segment.data, out)
        if segment.missing and self._next == (begin + len(segment.data)) % _TURN:
            self._next = (self._next + segment.missing) % _TURN
            out.append(None)
        if segment.closes and self._next == (begin + len(segment.data) + segment.missing) % _TURN:
            self._next = (self._next + 1) % _TURN
        return out

    def heard(self, sequence: int) -> list[bytes | None]:
        """Take it from the other side that everything before this byte has been sent.

        Returns:
            As `take`: what was not captured by now is a gap.
        """
        out: list[bytes | None] = []
        while self._pending and self._next is not None and self._ahead(sequence) > 0:
            self._skip(out)
        if self._next is not None and self._ahead(sequence) > 0:
            self._next = sequence
            out.append(None)
        return out

    def end(self) -> list[bytes | None]:
        """Return what was still waiting for bytes that never came."""
        out: list[bytes | None] = []
        while self._pending:
            self._skip(out)
        return out

    def _forget(self) -> None:
        self._pending.clear()
        self._held = 0

    def _place(self, sequence: int, data: bytes, out: list[bytes | None]) -> None:
        ahead = self._ahead(sequence)
        if ahead <= 0:
            if ahead + len(data) > 0:
                self._deliver(data[-ahead:], out)
            return
        if ahead > _MOST_PENDING:
            # Far away: the capture missed much, or this is another connection on these ports.
            self._forget()
            out.append(None)
            self._next = sequence
            self._deliver(data, out)
            return
        if len(self._pending.get(sequence, b"")) < len(data):
            self._held += len(data) - len(self._pending.get(sequence, b""))
            self._pending[sequence] = data
        if self._held > _MOST_PENDING or len(self._pending) > _MOST_PIECES:
            self._skip(out)

    def _ahead(self, sequence: int) -> int:
        return (sequence - (self._next or 0) + _HALF) % _TURN - _HALF

    def _deliver(self, data: bytes, out: list[bytes | None]) -> None:
        out.append(data)
        self._next = ((self._next or 0) + len(data)) % _TURN
        while self._pending:
            nearest = min(self._pending, key=self._ahead)
            ahead = self._ahead(nearest)
            if ahead > 0:
                return
            piece = self._pending.pop(nearest)
            self._held -= len(piece)
            if ahead + len(piece) > 0:
                out.append(piece[-ahead:])
                self._next = (self._next + ahead + len(piece)) % _TURN

    def _skip(self, out: list[bytes | None]) -> None:
        """Give up what is missing before the nearest piece that has come."""
        nearest = min(self._pending, key=self._ahead)
        piece = self._pending.pop(nearest)
        self._held -= len(piece)
        out.append(None)
        self._next = nearest
        self._deliver(piece, out)


Heard: TypeAlias = Callable[[bytes | None], None]
"""Called with bytes of one direction in order; None stands where some are missing."""


class Connections:
    """Sorts segments into connections; the longest unheard go when there are too many.

    Args:
        server_port: the port that tells which end is the server; other traffic is left out.
        joined: called for each new connection with client and server; returns who hears what
            the client says and who hears what the server says.
    """

    def __init__(self, server_port: int, joined: Callable[[End, End], tuple[Heard, Heard]]) -> None:
        self._port = server_port
        self._joined = joined
        self._known: OrderedDict[tuple[End, End], _Connection] = OrderedDict()

    def take(self, segment: Segment) -> None:
        """Hand on what a segment brings."""
        if segment.target[1] == self._port:
            client, server, side = segment.source, segment.target, 0
        elif segment.source[1] == self._port:
            client, server, side = segment.target, segment.source, 1
        else:
            return
        key = (client, server)
        connection = self._known.get(key)
        if connection is None:
            connection = self._known[key] = _Connection(self._joined(client, server))
            if len(self._known) > _MOST_CONNECTIONS:
                self._known.popitem(last=False)[1].end()
        self._known.move_to_end(key)
        connection.take(side, segment)

    def end(self) -> None:
        """Hand on what was still waiting for bytes that never came."""
        while self._known:
            self._known.popitem(last=False)[1].end()


class _Connection:
    def __init__(self, hearers: tuple[Heard, Heard]) -> None:
        self.streams = (Stream(), Stream())
        self._hearers = hearers

    def take(self, side: int, segment: Segment) -> None:
        if segment.heard is not None and not segment.opens:
            self._say(1 - side, self.streams[1 - side].heard(segment.heard))
        self._say(side, self.streams[side].take(segment))

    def _say(self, side: int, pieces: list[bytes | None]) -> None:
        for piece in pieces:
            self._hearers[side](piece)

    def end(self) -> None:
        for side in (0, 1):
            self._say(side, self.streams[side].end())

"""A Modbus TCP server that knows its connections: functions 3 and 4, both on one block.

pymodbus' server hands a device its requests without saying which connection they came on;
a recording that advances by one row for each further read on a connection has to know.
"""

import asyncio
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeAlias

from simulators.running import cannot_listen

Registers: TypeAlias = Callable[[int, int], bytes]
"""(first register, how many) -> their bytes; raises IllegalAddress."""

_HEADER: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">BHH")
_READING: Final = (3, 4)
_MOST_REGISTERS: Final = 125
_LONGEST: Final = 254
_ILLEGAL_FUNCTION: Final = 1
_ILLEGAL_ADDRESS: Final = 2
_ILLEGAL_VALUE: Final = 3
_NO_SUCH_UNIT: Final = 11
"""Gateway target device failed to respond: what a gateway answers for a unit it has not got."""


class IllegalAddress(Exception):
    """The device has no such registers."""


class ModbusServer:
    """Listens on a loopback port while its context is entered.

    Args:
        opened: called for each new connection; returns what answers its reads.
        host: address to listen on.
        port: port to listen on; 0 lets the kernel pick one.
        unit: the one Modbus unit id that is answered.
        connections: most connections at a time; further ones are closed at once.
        frame_s: seconds a request may take from its first byte to its last.
        idle_s: seconds without a request after which a connection is closed.
    """

    def __init__(
        self,
        opened: Callable[[], Registers],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unit: int = 1,
        connections: int = 64,
        frame_s: float = 10.0,
        idle_s: float = 3600.0,
    ) -> None:
        self.opened = opened
        self.host = host
        self.port = port
        self.unit = unit
        self.most_connections = connections
        self.frame_s = frame_s
        self.idle_s = idle_s
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Start to listen; `port` then is the real one.

        Raises:
            MillgateError: when the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Connection(self), self.host, self.port)
        except OSError as error:
            raise cannot_listen(self.host, self.port) from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
            for connection in list(self.connections):
                connection.drop()
            await self._server.wait_closed()


class _Connection(asyncio.Protocol):
    """One client; answers its requests in order, and hangs up on what is not Modbus TCP."""

    def __init__(self, server: ModbusServer) -> None:
        self._server = server
        self._registers = server.opened()
        self._buffer = bytearray()
        self._paused = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        self._transport = transport
        if len(self._server.connections) >= self._server.most_connections:
            self.drop()
            return
        self._server.connections.add(self)
        self._arm(self._server.idle_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None:
            self._transport.resume_reading()
        self._answer_all()

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._arm(self._server.frame_s)
        self._buffer += data
        self._answer_all()

    def drop(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.drop)

    def _answer_all(self) -> None:
        while self._transport is not None and not self._paused:
            if len(self._buffer) < _HEADER.size:
                return
            transaction, protocol, length, unit = _HEADER.unpack_from(self._buffer)
            if protocol != 0 or not 2 <= length <= _LONGEST:
                self.drop()
                return
            end = _HEADER.size - 1 + length
            if len(self._buffer) < end:
                return
            request = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            self._arm(self._server.frame_s if self._buffer else self._server.idle_s)
            answer = self._answer(unit, request)
            self._transport.write(_HEADER.pack(transaction, 0, len(answer) + 1, unit) + answer)

    def _answer(self, unit: int, request: bytes) -> bytes:
        function = request[0]
        if unit != self._server.unit:
            return _exception(function, _NO_SUCH_UNIT)
        if function not in _READING:
            return _exception(function, _ILLEGAL_FUNCTION)
        if len(request) != _READ.size:
            return _exception(function, _ILLEGAL_VALUE)
        _, first, count = _READ.unpack(request)
        if not 1 <= count <= _MOST_REGISTERS:
            return _exception(function, _ILLEGAL_VALUE)
        try:
            data = self._registers(first, count)
        except IllegalAddress:
            return _exception(function, _ILLEGAL_ADDRESS)
        return bytes((function, len(data))) + data


def _exception(function: int, code: int) -> bytes:
    return bytes((function | 0x80, code))


def cut(block: bytes, first: int, count: int) -> bytes:
    """Return `count` registers of a block that begins at register 0.

    Raises:
        IllegalAddress: when they reach past its end.
    """
    if first + count > len(block) // 2:
        raise IllegalAddress
    return block[2 * first : 2 * (first + count)]

"""Modbus as bytes, with the TCP header or as serial frames, and the right answer to a request."""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

COILS: Final = 1
DISCRETES: Final = 2
HOLDING: Final = 3
INPUT: Final = 4
READING: Final = {COILS: 2000, DISCRETES: 2000, HOLDING: 125, INPUT: 125}
"""The reading functions, and the most values one request may ask for."""

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
NO_ANSWER: Final = 11
"""Gateway target device failed to respond: what a gateway says for a unit it cannot reach."""

_HEADER: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">BHH")
_LONGEST: Final = 254
_SERIAL_READ: Final = 8


class Refusal(Exception):
    """The device answers with an exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class NotModbus(OSError):
    """What came is not Modbus TCP; the connection is worth nothing."""


class Frames(Protocol):
    """How messages are framed."""

    async def next_request(self, reader: asyncio.StreamReader) -> "Request":
        """Wait for the next request.

        Raises:
            NotModbus: when what comes cannot be one.
            asyncio.IncompleteReadError: when the client is gone.
        """
        ...

    def frame(
        self, transaction: int, unit: int, pdu: bytes, *, protocol: int = 0, more: int = 0
    ) -> bytes:
        """Return a PDU in its frame; `more` is by how much a length field lies."""
        ...


class Registers(Protocol):
    """What a device holds."""

    def read(self, unit: int, function: int, first: int, count: int) -> bytes:
        """Return the data bytes of an answer to functions 1 to 4.

        Raises:
            Refusal: when there is no such unit or address.
        """
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came.

    Attributes:
        transaction, unit: from its header.
        pdu: function code and what follows; at least one byte.
    """

    transaction: int
    unit: int
    pdu: bytes

    @property
    def function(self) -> int:
        """Its function code."""
        return self.pdu[0]

    @property
    def span(self) -> tuple[int, int]:
        """First address and count of a well-formed read; (0, 0) of anything else."""
        if self.function not in READING or len(self.pdu) != _READ.size:
            return 0, 0
        _, first, count = _READ.unpack(self.pdu)
        return first, count


def read_request(unit: int, function: int, first: int, count: int, transaction: int = 1) -> bytes:
    """Return a whole request for values."""
    return frame(transaction, unit, _READ.pack(function, first, count))


def frame(transaction: int, unit: int, pdu: bytes, *, protocol: int = 0, more: int = 0) -> bytes:
    """Return a PDU with its header; `more` is by how much the length field lies."""
    return _HEADER.pack(transaction, protocol, len(pdu) + 1 + more, unit) + pdu


async def next_request(reader: asyncio.StreamReader) -> Request:
    """Wait for the next request.

    Raises:
        NotModbus: when what comes cannot be one.
        asyncio.IncompleteReadError: when the client is gone.
    """
    transaction, protocol, length, unit = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if protocol != 0 or not 2 <= length <= _LONGEST:
        raise NotModbus
    return Request(transaction, unit, await reader.readexactly(length - 1))


class TcpFrames:
    """The header of Modbus TCP."""

    async def next_request(self, reader: asyncio.StreamReader) -> Request:
        """Wait for the next request; see `Frames`."""
        return await next_request(reader)

    def frame(
        self, transaction: int, unit: int, pdu: bytes, *, protocol: int = 0, more: int = 0
    ) -> bytes:
        """Return a PDU with its header; see `Frames`."""
        return frame(transaction, unit, pdu, protocol=protocol, more=more)


class SerialFrames:
    """Unit, PDU and checksum, without anything that says which request an answer is to."""

    async def next_request(self, reader: asyncio.StreamReader) -> Request:
        """Wait for the next read; bytes that are none are left out."""
        data = await reader.readexactly(_SERIAL_READ)
        while serial_checksum(data[:-2]) != data[-2:] or data[1] not in READING:
            data = data[1:] + await reader.readexactly(1)
        return Request(0, data[0], data[1:-2])

    def frame(
        self, transaction: int, unit: int, pdu: bytes, *, protocol: int = 0, more: int = 0
    ) -> bytes:
        """Return a PDU as a serial frame; there are no numbers in it that could lie."""
        del transaction, protocol, more
        message = bytes((unit,)) + pdu
        return message + serial_checksum(message)


def serial_checksum(message: bytes) -> bytes:
    """Return the CRC-16 of a serial frame, bit by bit as the standard defines it."""
    crc = 0xFFFF
    for byte in message:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return struct.pack("<H", crc)


def answer(registers: Registers, request: Request) -> bytes:
    """Return the PDU that answers a request rightly."""
    try:
        data = _data(registers, request)
    except Refusal as refusal:
        return exception(request.function, refusal.code)
    return bytes((request.function, len(data))) + data


def _data(registers: Registers, request: Request) -> bytes:
    most = READING.get(request.function)
    if most is None:
        raise Refusal(ILLEGAL_FUNCTION)
    first, count = request.span
    if not 1 <= count <= most:
        raise Refusal(ILLEGAL_VALUE)
    if first + count > 1 << 16:
        raise Refusal(ILLEGAL_ADDRESS)
    return registers.read(request.unit, request.function, first, count)


def exception(function: int, code: int) -> bytes:
    """Return the PDU that refuses a request."""
    return bytes((function | 0x80, code))


def pack_bits(bits: Sequence[bool]) -> bytes:
    """Return bits eight to a byte, the first in the lowest place."""
    packed = bytearray(-(-len(bits) // 8))
    for at, on in enumerate(bits):
        packed[at // 8] |= on << (at % 8)
    return bytes(packed)

"""Framing: from a read to the bytes that ask for it, and from bytes to its answer or nothing.

Every byte that comes is compared with what the request allows. The first that does not fit is a
fault: transaction, protocol, unit, function and byte count, and on serial lines the checksum. So
no buffer grows beyond one answer, and nothing but the answer to the question is ever an answer.
"""

import struct
from abc import ABC, abstractmethod
from typing import Final, NamedTuple, TypeAlias

from protocols.language import tr

_REFUSING: Final = 0x80
_BIT_FUNCTIONS: Final = (1, 2)
_MOST_ABANDONED: Final = 64
_LONGEST: Final = 260
_MBAP: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">BHH")
_RTU_READ: Final = struct.Struct(">BBHH")


class Ask(NamedTuple):
    """A read.

    Attributes:
        unit: whom it is for.
        function: 1 to 4.
        first, length: registers, or bits of functions 1 and 2.
    """

    unit: int
    function: int
    first: int
    length: int

    @property
    def size(self) -> int:
        """Data bytes of its answer."""
        return -(-self.length // 8) if self.function in _BIT_FUNCTIONS else 2 * self.length


class Misfit(Exception):
    """What came cannot be the answer; the text says why."""


class Refusal(NamedTuple):
    """The device answered with an exception.

    Attributes:
        code: its code.
    """

    code: int


Answer: TypeAlias = bytes | Refusal
"""The data bytes of an answer, or the device's refusal."""


class Framing(ABC):
    """One connection's way to write requests and to read answers."""

    counts_requests: bool
    """Whether an answer says which request it belongs to."""

    def __init__(self) -> None:
        self._buffer = b""
        self._right = b""
        self._refusal = b""
        self._size = 0

    @abstractmethod
    def request(self, ask: Ask) -> bytes:
        """Return the bytes that ask; from now on only their answer fits."""

    @abstractmethod
    def fed(self, data: bytes) -> Answer | None:
        """Take bytes that came; return the answer once it is whole.

        Raises:
            Misfit: when they cannot be part of the answer.
        """

    def give_up(self) -> None:
        """Expect no answer any more."""
        self._buffer = self._right = self._refusal = b""

    @property
    def begun(self) -> bool:
        """Whether a part of the answer has come."""
        return bool(self._buffer)

    def _begins(self, data: bytes, head: bytes, whole: int) -> bool:
        seen = min(len(data), len(head))
        return data[:seen] == head[:seen] and len(data) <= whole


class Mbap(Framing):
    """Modbus TCP: a transaction number before each message."""

    counts_requests = True

    def __init__(self) -> None:
        super().__init__()
        self._transaction = 0
        self._unit = self._function = 0
        self._abandoned: dict[int, tuple[int, int]] = {}
        self.late = 0

    def request(self, ask: Ask) -> bytes:
        """Return the bytes that ask; from now on only their answer fits."""
        # 0 is what devices answer that have lost count, so it is never one of ours.
        number = self._transaction = self._transaction % 0xFFFF + 1
        self._abandoned.pop(number, None)
        size = self._size = ask.size
        self._unit, self._function = ask.unit, ask.function
        self._right = _MBAP.pack(number, 0, size + 3, ask.unit) + bytes((ask.function, size))
        self._refusal = _MBAP.pack(number, 0, 3, ask.unit) + bytes((ask.function | _REFUSING,))
        return _MBAP.pack(number, 0, 6, ask.unit) + _READ.pack(ask.function, ask.first, ask.length)

    def fed(self, data: bytes) -> Answer | None:
        """Take bytes that came; return the answer once it is whole; see `Framing`."""
        data = self._buffer + data if self._buffer else data
        if self._abandoned:
            data = self._without_late(data)
        right = self._right
        if len(data) == len(right) + self._size and data.startswith(right) and right:
            self._buffer = b""
            return data[len(right) :]
        return self._judged(data)

    def give_up(self) -> None:
        """Expect no answer any more; should it come late, it is known as such."""
        if self._right:
            if len(self._abandoned) >= _MOST_ABANDONED:
                del self._abandoned[next(iter(self._abandoned))]
            self._abandoned[self._transaction] = (self._unit, self._function)
        # A part that has come stays: the rest of it is still to be left out.
        self._right = self._refusal = b""

    def _without_late(self, data: bytes) -> bytes:
        """Leave out whole answers to requests that were given up."""
        while len(data) >= _MBAP.size + 1:
            number, protocol, length, unit = _MBAP.unpack_from(data)
            known = self._abandoned.get(number)
            function = data[_MBAP.size] & ~_REFUSING
            if known != (unit, function) or protocol or not 3 <= length <= _LONGEST - 6:
                return data
            if len(data) < 6 + length:
                return data
            del self._abandoned[number]
            self.late += 1
            data = data[6 + length :]
        return data

    def _judged(self, data: bytes) -> Answer | None:
        self._buffer = data
        if not data or self._is_late(data):
            return None
        right, refusal = self._right, self._refusal
        if right and self._begins(data, right, len(right) + self._size):
            return None
        if right and self._begins(data, refusal, len(refusal) + 1):
            if len(data) <= len(refusal):
                return None
            self._buffer = b""
            return Refusal(data[-1])
        raise Misfit(self._fault(data))

    def _is_late(self, data: bytes) -> bool:
        """Tell whether this is a part of an answer that was given up."""
        if not self._abandoned:
            return False
        heads = (
            _MBAP.pack(number, 0, 0, unit)[:4] for number, (unit, _) in self._abandoned.items()
        )
        return len(data) <= _LONGEST and any(data[:4] == head[: len(data)] for head in heads)

    def _fault(self, data: bytes) -> str:
        right = self._right
        if not right:
            return tr("an answer that nobody asked for", "未经请求的应答")
        # Transaction and protocol, unit, function: all of it but the lengths.
        if any(data[at : at + 1] not in {right[at : at + 1], b""} for at in (0, 1, 2, 3, 6)):
            return tr("an answer to another request", "应答不属于该请求")
        return tr("an answer of another function or of the wrong length", "应答的功能码或长度不符")


class Rtu(Framing):
    """Serial frames: unit, message, checksum; nothing says which request an answer is to."""

    counts_requests = False

    def request(self, ask: Ask) -> bytes:
        """Return the bytes that ask; from now on only their answer fits."""
        self._size = ask.size
        self._right = bytes((ask.unit, ask.function, self._size))
        self._refusal = bytes((ask.unit, ask.function | _REFUSING))
        self._buffer = b""
        message = _RTU_READ.pack(ask.unit, ask.function, ask.first, ask.length)
        return message + checksum(message)

    def fed(self, data: bytes) -> Answer | None:
        """Take bytes that came; return the answer once it is whole; see `Framing`."""
        if not self._right:
            raise Misfit(tr("an answer that nobody asked for", "未经请求的应答"))
        data = self._buffer = self._buffer + data
        whole, refused = len(self._right) + self._size + 2, len(self._refusal) + 3
        if self._begins(data, self._right, whole):
            return self._checked(data)[3:-2] if len(data) == whole else None
        if self._begins(data, self._refusal, refused):
            return Refusal(self._checked(data)[2]) if len(data) == refused else None
        if data[:1] != self._right[:1]:
            raise Misfit(tr("an answer to another request", "应答不属于该请求"))
        raise Misfit(
            tr("an answer of another function or of the wrong length", "应答的功能码或长度不符")
        )

    def _checked(self, data: bytes) -> bytes:
        if data[-2:] != checksum(data[:-2]):
            raise Misfit(tr("a garbled answer (checksum)", "应答校验和错误"))
        self._buffer = b""
        return data


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC: Final = _crc_table()


def checksum(message: bytes) -> bytes:
    """Return the two checksum bytes of a serial frame, the low one first.

    CRC-16 with the reflected polynomial 0xA001 from 0xFFFF on: MODBUS over Serial Line
    Specification V1.02, 6.2.2.
    """
    crc = 0xFFFF
    for byte in message:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return bytes((crc & 0xFF, crc >> 8))

"""Captured Modbus TCP as devices: each value as it was last read, and nothing that was not.

An answer counts only with the request it belongs to, since it does not say itself which
registers it is about. What was written is not taken over: only what a device said of itself is.
"""

import struct
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.errors import MillgateError
from protocols.frame import Flags
from protocols.language import tr
from simulators.capture import End, Packets, chosen, read_packets
from simulators.faults.modbus_wire import (
    COILS,
    DISCRETES,
    ILLEGAL_ADDRESS,
    NO_ANSWER,
    READING,
    Refusal,
    pack_bits,
)
from simulators.streams import Connections, Heard

PORT: Final = 502
_PAGE: Final = 256
_MOST_PAGES: Final = 16_384
_MOST_DEVICES: Final = 1024
_MOST_WAITING: Final = 64
_MOST_BUFFERED: Final = 512
_HEADER: Final = struct.Struct(">HHHB")
_READ: Final = struct.Struct(">BHH")
_LONGEST: Final = 256
_REFUSING: Final = 0x80


class Asked(NamedTuple):
    """What a request asked: unit, function, first address, how many; no addresses for others."""

    unit: int
    function: int
    first: int
    many: int


class _Page(NamedTuple):
    values: NDArray[np.uint16]
    known: Flags


@dataclass(slots=True)
class Counts:
    """What a capture held.

    Attributes:
        requests: of any function.
        answers: to reads, whose values were taken over.
        others: answers to other functions.
        refusals: exception code -> answers.
        odd: answers that fit no request: of another length or function, or to nothing that
            was captured.
        unclear: answers that fit several requests for different addresses.
        foreign: times that a direction had to be taken up anew, since what it said is not
            Modbus TCP.
        gaps: times that bytes were missing.
        left_out: values beyond the bound on memory.
    """

    requests: int = 0
    answers: int = 0
    others: int = 0
    refusals: Counter[int] = field(default_factory=Counter)
    odd: int = 0
    unclear: int = 0
    foreign: int = 0
    gaps: int = 0
    left_out: int = 0


class CapturedDevice:
    """One server of a capture, with all its units.

    Attributes:
        end: its address and port.
        counts: what was seen of it.
    """

    def __init__(self, end: End, budget: "_Budget") -> None:
        self.end = end
        self.counts = Counts()
        self._budget = budget
        self._pages: dict[tuple[int, int, int], _Page] = {}
        self._units: set[int] = set()

    @property
    def units(self) -> list[int]:
        """The units of which values are known."""
        return sorted(self._units)

    @property
    def values(self) -> int:
        """How many registers and bits are known."""
        return sum(int(np.count_nonzero(page.known)) for page in self._pages.values())

    def note(self, asked: Asked, words: NDArray[np.uint16]) -> None:
        """Take over values that were read."""
        at = 0
        while at < len(words):
            number, offset = divmod(asked.first + at, _PAGE)
            size = min(_PAGE - offset, len(words) - at)
            page = self._page((asked.unit, asked.function, number))
            if page is None:
                self.counts.left_out += size
            else:
                page.values[offset : offset + size] = words[at : at + size]
                page.known[offset : offset + size] = True
            at += size

    def _page(self, key: tuple[int, int, int]) -> _Page | None:
        page = self._pages.get(key)
        if page is None and self._budget.spend():
            page = self._pages[key] = _Page(np.zeros(_PAGE, np.uint16), np.zeros(_PAGE, np.bool_))
            self._units.add(key[0])
        return page

    def read(self, unit: int, function: int, first: int, count: int) -> bytes:
        """Return the data bytes of an answer with the values as last seen.

        Raises:
            Refusal: for a unit that was not seen, or an address of which nothing is known.
        """
        if unit not in self._units:
            raise Refusal(NO_ANSWER)
        words = np.zeros(count, np.uint16)
        at = 0
        while at < count:
            number, offset = divmod(first + at, _PAGE)
            size = min(_PAGE - offset, count - at)
            page = self._pages.get((unit, function, number))
            if page is None or not page.known[offset : offset + size].all():
                raise Refusal(ILLEGAL_ADDRESS)
            words[at : at + size] = page.values[offset : offset + size]
            at += size
        if function in {COILS, DISCRETES}:
            return pack_bits([bool(word) for word in words])
        return words.astype(">u2").tobytes()

    def spans(self) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """Return, by unit and function, the known addresses as (first, last)."""
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for unit, function, number in sorted(self._pages):
            known = self._pages[unit, function, number].known
            edges = np.flatnonzero(np.diff(np.concatenate(([False], known, [False]))))
            runs = found.setdefault((unit, function), [])
            for begin, stop in edges.reshape(-1, 2).tolist():
                first, last = number * _PAGE + begin, number * _PAGE + stop - 1
                if runs and runs[-1][1] == first - 1:
                    runs[-1] = (runs[-1][0], last)
                else:
                    runs.append((first, last))
        return found


class _Budget:
    def __init__(self, pages: int) -> None:
        self._left = pages

    def spend(self) -> bool:
        self._left -= 1
        return self._left >= 0


class _Conversation:
    """One connection: requests, and the answers that belong to them."""

    def __init__(self, device: CapturedDevice) -> None:
        self._device = device
        self._counts = device.counts
        self._waiting: OrderedDict[tuple[int, int], deque[Asked]] = OrderedDict()
        self._buffers = (bytearray(), bytearray())

    def hearers(self) -> tuple[Heard, Heard]:
        """Return who hears the client and who hears the server."""
        return (lambda piece: self._hear(0, piece)), (lambda piece: self._hear(1, piece))

    def _hear(self, side: int, piece: bytes | None) -> None:
        buffer = self._buffers[side]
        if piece is None:
            # Which requests are still open is no longer known.
            self._counts.gaps += 1
            self._waiting.clear()
            buffer.clear()
            return
        buffer += piece
        while len(buffer) >= _HEADER.size:
            transaction, protocol, length, unit = _HEADER.unpack_from(buffer)
            if protocol != 0 or not 2 <= length <= _LONGEST:
                # The next piece probably begins with a header; the rest of this one is lost.
                self._counts.foreign += 1
                self._waiting.clear()
                buffer.clear()
                return
            if len(buffer) < length + 6:
                return
            pdu = bytes(buffer[_HEADER.size : length + 6])
            del buffer[: length + 6]
            (self._answer if side else self._request)((transaction, unit), pdu)

    def _request(self, key: tuple[int, int], pdu: bytes) -> None:
        self._counts.requests += 1
        function, first, count = pdu[0], 0, 0
        if function in READING and len(pdu) == _READ.size:
            _, first, count = _READ.unpack(pdu)
        line = self._waiting.setdefault(key, deque(maxlen=_MOST_WAITING))
        line.append(Asked(key[1], function, first, count))
        self._waiting.move_to_end(key)
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popitem(last=False)

    def _answer(self, key: tuple[int, int], pdu: bytes) -> None:
        line = self._waiting.get(key, deque())
        fitting = {asked for asked in line if _fits(asked, pdu)}
        if len(fitting) != 1:
            self._counts.odd += not fitting
            self._counts.unclear += bool(fitting)
            self._waiting.pop(key, None)
            return
        asked = fitting.pop()
        while line and line.popleft() != asked:
            continue
        if not line:
            self._waiting.pop(key, None)
        self._take(asked, pdu)

    def _take(self, asked: Asked, pdu: bytes) -> None:
        if pdu[0] & _REFUSING:
            self._counts.refusals[pdu[1]] += 1
        elif asked.function not in READING:
            self._counts.others += 1
        else:
            self._counts.answers += 1
            self._device.note(asked, _words(asked, pdu[2:]))


def _fits(asked: Asked, pdu: bytes) -> bool:
    """Tell whether an answer can belong to a request."""
    if pdu[0] & _REFUSING:
        return pdu[0] == asked.function | _REFUSING and len(pdu) == 2
    if pdu[0] != asked.function:
        return False
    most = READING.get(asked.function)
    if most is None:
        return True
    size = _size(asked)
    whole = 1 <= asked.many <= most and asked.first + asked.many <= 1 << 16
    return whole and len(pdu) == size + 2 and pdu[1] == size


def _size(asked: Asked) -> int:
    return -(-asked.many // 8) if asked.function in {COILS, DISCRETES} else 2 * asked.many


def _words(asked: Asked, data: bytes) -> NDArray[np.uint16]:
    if asked.function in {COILS, DISCRETES}:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        return bits[: asked.many].astype(np.uint16)
    return np.frombuffer(data, ">u2").astype(np.uint16)


@dataclass(frozen=True, slots=True)
class Capture:
    """What a file held.

    Attributes:
        name: of the file.
        devices: those of which at least a request was captured, those with most values first.
        damaged: the file ends in the middle.
        skipped: reason -> packets without a readable TCP segment.
    """

    name: str
    devices: tuple[CapturedDevice, ...]
    damaged: bool
    skipped: Counter[str]

    def device(self, wanted: str | None) -> CapturedDevice:
        """Return the device at an address (with or without port); None is the fullest.

        Raises:
            MillgateError: when there is none with values.
        """
        full = {device.end: device for device in self.devices if device.values}
        found = chosen(full, wanted)
        if found is None:
            raise MillgateError(
                tr("no Modbus device in it was read", "其中没有被读取的 Modbus 设备"),
                where=self.name,
                remedy=tr(
                    "is its port another one (--captured-port), or does it speak OPC UA "
                    "(--protocol opcua)?",
                    "端口是否不同（--captured-port），或是 OPC UA（--protocol opcua）？",
                ),
            )
        return found


def read_capture(path: Path, port: int = PORT) -> Capture:
    """Read a pcap file; what is no Modbus TCP to or from the port is left out.

    Raises:
        MillgateError: when it cannot be read or is not a classic pcap.
    """
    return read_packets(path, lambda packets: decode(packets, port))


def decode(packets: Packets, port: int = PORT) -> Capture:
    """Decode packets; see `read_capture`."""
    budget = _Budget(_MOST_PAGES)
    devices: dict[End, CapturedDevice] = {}

    def joined(client: End, server: End) -> tuple[Heard, Heard]:
        del client
        device = devices.get(server)
        if device is None:
            device = CapturedDevice(server, budget)
            if len(devices) < _MOST_DEVICES:
                devices[server] = device
        return _Conversation(device).hearers()

    connections = Connections(port, joined)
    for segment in packets.segments():
        connections.take(segment)
    connections.end()
    seen = [device for device in devices.values() if device.counts.requests]
    ranked = sorted(seen, key=lambda device: (-device.values, device.end))
    return Capture(packets.name, tuple(ranked), packets.damaged, packets.skipped)


def describe(devices: Iterable[CapturedDevice]) -> list[dict[str, object]]:
    """Return what is known of devices, without a single value, as plain JSON."""
    return [
        {
            "device": f"{device.end[0]}:{device.end[1]}",
            "values": device.values,
            "requests": device.counts.requests,
            "answers": device.counts.answers,
            "refusals": {str(code): n for code, n in sorted(device.counts.refusals.items())},
            "units": [
                {"unit": unit, "function": function, "addresses": runs}
                for (unit, function), runs in device.spans().items()
            ],
        }
        for device in devices
    ]

"""Makes captures: classic pcap files of Modbus TCP conversations, as a capturing machine would."""

import ipaddress
import struct
from collections.abc import Iterable

CLIENT, SERVER = ("10.0.0.9", 40_000), ("10.0.0.20", 502)
End = tuple[str, int]


def file_of(
    frames: Iterable[bytes], *, link: int = 1, order: str = "<", nanoseconds: bool = False
) -> bytes:
    """Return a pcap file of link-layer frames, one each millisecond."""
    magic = 0xA1B23C4D if nanoseconds else 0xA1B2C3D4
    unit = 10**6 if nanoseconds else 10**3
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65_535, link)
    records = [
        struct.pack(order + "IIII", 1_770_000_000, at * unit, len(frame), len(frame)) + frame
        for at, frame in enumerate(frames)
    ]
    return head + b"".join(records)


def ethernet(packet: bytes, *, kind: int = 0x0800, vlan: bool = False, pad: bool = True) -> bytes:
    tag = struct.pack(">HH", 0x8100, 7) if vlan else b""
    frame = bytes(12) + tag + struct.pack(">H", kind) + packet
    # Short frames are padded on the wire; the padding is no data.
    return frame.ljust(60, b"\xee") if pad else frame


def ipv4(
    source: str, target: str, carried: bytes, *, protocol: int = 6, fragment: int = 0
) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(carried), 0, fragment, 64, protocol, 0)
    ends = ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(target).packed
    return head + ends + carried


def ipv6(source: str, target: str, carried: bytes, *, hops: bool = False) -> bytes:
    extra = struct.pack(">BB6x", 6, 0) if hops else b""
    head = struct.pack(">IHBB", 6 << 28, len(extra) + len(carried), 0 if hops else 6, 64)
    ends = ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(target).packed
    return head + ends + extra + carried


def tcp(
    source: End, target: End, sequence: int, data: bytes, *, heard: int = 0, flags: int = 0x08
) -> bytes:
    ports = source[1], target[1]
    numbers = sequence % 2**32, heard % 2**32
    return struct.pack(">HHIIBBHHH", *ports, *numbers, 0x50, flags, 8192, 0, 0) + data


def segment(
    source: End, target: End, sequence: int, data: bytes, *, heard: int = 0, flags: int = 0x08
) -> bytes:
    """Return an Ethernet frame with a TCP segment over IPv4."""
    carried = tcp(source, target, sequence, data, heard=heard, flags=flags)
    return ethernet(ipv4(source[0], target[0], carried))


def adu(transaction: int, unit: int, pdu: bytes) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


def asking(transaction: int, unit: int, function: int, first: int, count: int) -> bytes:
    return adu(transaction, unit, struct.pack(">BHH", function, first, count))


def answering(transaction: int, unit: int, function: int, data: bytes) -> bytes:
    return adu(transaction, unit, bytes((function, len(data))) + data)


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


class Talk:
    """A conversation that remembers its sequence numbers."""

    def __init__(self, client: End = CLIENT, server: End = SERVER, start: int = 1000) -> None:
        self.client, self.server = client, server
        self._next = {client: start, server: start + 5000}
        self.frames: list[bytes] = []

    def ask(self, data: bytes, *, captured: bool = True) -> None:
        self._say(self.client, self.server, data, captured=captured)

    def answer(self, data: bytes, *, captured: bool = True) -> None:
        self._say(self.server, self.client, data, captured=captured)

    def _say(self, source: End, target: End, data: bytes, *, captured: bool) -> None:
        if captured:
            heard = self._next[target]
            self.frames.append(
                segment(source, target, self._next[source], data, heard=heard, flags=0x18)
            )
        self._next[source] += len(data)


def meter(client: End = CLIENT, server: End = SERVER) -> list[bytes]:
    """Return the frames of a small polling: two units, two tables, coils, and a refusal."""
    talk = Talk(client, server)
    talk.ask(asking(1, 1, 4, 10, 3))
    talk.answer(answering(1, 1, 4, words(100, 101, 102)))
    talk.ask(asking(2, 2, 3, 10, 2))
    talk.answer(answering(2, 2, 3, words(200, 201)))
    talk.ask(asking(3, 1, 1, 0, 10))
    talk.answer(answering(3, 1, 1, b"\x05\x02"))
    talk.ask(asking(4, 1, 3, 900, 1))
    talk.answer(adu(4, 1, b"\x83\x02"))
    talk.ask(asking(5, 1, 4, 11, 1))
    talk.answer(answering(5, 1, 4, words(555)))
    return talk.frames

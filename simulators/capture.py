"""Captured traffic: classic pcap files, down to their TCP segments."""

import ipaddress
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeAlias, TypeVar

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.words import instead_of

End: TypeAlias = tuple[str, int]
"""Address and port."""

_Found = TypeVar("_Found")

_ORDERS: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
"""Magic number -> byte order, and nanoseconds per unit of the fraction of a second."""

_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
_LARGEST_PACKET: Final = 1 << 18
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_VLANS: Final = frozenset({0x8100, 0x88A8, 0x9100})
_TCP: Final = 6
_SKIPPED_HEADERS: Final = frozenset({0, 43, 60})
_MOST_HEADERS: Final = 8
_LINKS: Final = {0: 4, 1: 14, 12: 0, 14: 0, 101: 0, 113: 16, 228: 0, 229: 0, 276: 20}
"""Link type -> bytes of its header: loopback, Ethernet, raw IP (several numbers), Linux cooked."""

_FIN: Final = 0x01
_SYN: Final = 0x02
_ACK: Final = 0x10


class Packet(NamedTuple):
    """A packet as captured.

    Attributes:
        time_ns: when, nanoseconds since 1970 UTC.
        link: the file's link type.
        data: its bytes, as far as they were captured.
    """

    time_ns: int
    link: int
    data: bytes


class Segment(NamedTuple):
    """A TCP segment.

    Attributes:
        time_ns: when, nanoseconds since 1970 UTC.
        source, target: from where to where.
        sequence: number of its first byte.
        heard: number of the byte the sender expects next from the other side; None if it does
            not say.
        opens, closes: whether it begins or ends its direction; either takes up a number.
        data: its bytes, as far as they were captured.
        missing: how many bytes at its end were not captured.
    """

    time_ns: int
    source: End
    target: End
    sequence: int
    heard: int | None
    opens: bool
    closes: bool
    data: bytes
    missing: int


@dataclass(slots=True)
class Packets:
    """The packets of a file, in its order; one pass.

    Attributes:
        skipped: reason -> packets that hold no readable TCP segment.
        damaged: the file ends in the middle of a packet, or a packet's length is absurd.
    """

    file: BinaryIO
    name: str
    skipped: Counter[str] = field(default_factory=Counter)
    damaged: bool = False

    def __iter__(self) -> Iterator[Packet]:
        """Yield what can be read.

        Raises:
            MillgateError: when the file is not a classic pcap.
        """
        order, unit, link = self._begin()
        record = struct.Struct(order + "IIII")
        while head := self.file.read(record.size):
            if len(head) < record.size:
                break
            seconds, fraction, length, _ = record.unpack(head)
            if length > _LARGEST_PACKET:
                break
            data = self.file.read(length)
            if len(data) < length:
                break
            yield Packet(seconds * 10**9 + fraction * unit, link, data)
        else:
            return
        self.damaged = True

    def _begin(self) -> tuple[str, int, int]:
        head = self.file.read(24)
        if head[:4] == _PCAPNG:
            raise self._refusal(
                tr("is a pcapng file", "是 pcapng 文件"),
                tr(
                    "convert it with 'editcap -F pcap IN OUT'",
                    "请用 'editcap -F pcap 输入 输出' 转换",
                ),
            )
        if head[:4] not in _ORDERS or len(head) < 24:
            raise self._refusal(
                tr("is not a pcap file", "不是 pcap 文件"),
                tr("give a capture of tcpdump or Wireshark", "请给出 tcpdump 或 Wireshark 的抓包"),
            )
        order, unit = _ORDERS[head[:4]]
        link = struct.unpack(order + "I", head[20:24])[0] & 0xFFFF
        if link not in _LINKS:
            raise self._refusal(
                tr(f"was captured on a link of type {link}", f"链路类型 {link} 不受支持"),
                tr("capture on Ethernet, loopback or 'any'", "请在以太网、回环或 any 接口上抓包"),
            )
        return order, unit, link

    def _refusal(self, what: str, remedy: str) -> MillgateError:
        return MillgateError(what, where=self.name, remedy=remedy)

    def segments(self) -> Iterator[Segment]:
        """Yield the TCP segments among the packets; the others are counted in `skipped`.

        Raises:
            MillgateError: when the file is not a classic pcap.
        """
        for packet in self:
            found = segment_of(packet)
            if isinstance(found, Segment):
                yield found
            else:
                self.skipped[found] += 1


def segment_of(packet: Packet) -> Segment | str:
    """Return a packet's TCP segment, or why there is none."""
    inner = _network(packet)
    if inner is None:
        return "not IP"
    carried = _version4(inner) if inner[0] >> 4 == 4 else _version6(inner)
    if isinstance(carried, str):
        return carried
    source, target, data, missing = carried
    if len(data) < 20 or not 20 <= (begin := (data[12] >> 4) * 4) <= len(data):
        return "damaged"
    from_port, to_port, sequence, heard = struct.unpack_from(">HHII", data)
    return Segment(
        packet.time_ns,
        (source, from_port),
        (target, to_port),
        sequence,
        heard if data[13] & _ACK else None,
        bool(data[13] & _SYN),
        bool(data[13] & _FIN),
        data[begin:],
        missing,
    )


def _network(packet: Packet) -> bytes | None:
    """Return the IP packet inside, or None."""
    data, at = packet.data, _LINKS[packet.link]
    kind = _IPV4
    if packet.link in {1, 113}:
        kind = int.from_bytes(data[at - 2 : at], "big")
    elif packet.link == 276:
        kind = int.from_bytes(data[:2], "big")
    for _ in range(_MOST_HEADERS):
        if kind not in _VLANS:
            break
        kind = int.from_bytes(data[at + 2 : at + 4], "big")
        at += 4
    inner = data[at:]
    if kind not in {_IPV4, _IPV6} or not inner or inner[0] >> 4 not in {4, 6}:
        return None
    return inner


_Carried: TypeAlias = tuple[str, str, bytes, int]
"""Source, target, TCP bytes, and how many at their end were not captured."""


def _version4(data: bytes) -> _Carried | str:
    if len(data) < 20:
        return "damaged"
    begin, length = (data[0] & 0x0F) * 4, int.from_bytes(data[2:4], "big")
    if not 20 <= begin <= min(length, len(data)):
        return "damaged"
    if data[9] != _TCP:
        return "not TCP"
    # More fragments follow, or this is not the first.
    if int.from_bytes(data[6:8], "big") & 0x3FFF:
        return "fragment"
    addresses = (str(ipaddress.IPv4Address(data[at : at + 4])) for at in (12, 16))
    return (*addresses, data[begin:length], max(length - len(data), 0))  # type: ignore[return-value] # two of them


def _version6(data: bytes) -> _Carried | str:
    if len(data) < 40:
        return "damaged"
    kind, at, end = data[6], 40, 40 + int.from_bytes(data[4:6], "big")
    for _ in range(_MOST_HEADERS):
        if kind not in _SKIPPED_HEADERS or len(data) < at + 2:
            break
        kind, at = data[at], at + (data[at + 1] + 1) * 8
    if kind != _TCP:
        return "not TCP"
    addresses = (str(ipaddress.IPv6Address(data[first : first + 16])) for first in (8, 24))
    return (*addresses, data[at:end], max(end - len(data), 0))  # type: ignore[return-value] # two of them


def read_packets(path: Path, decode: Callable[[Packets], _Found]) -> _Found:
    """Return what a decoder makes of a pcap file.

    Raises:
        MillgateError: when it cannot be read or is not a classic pcap.
    """
    try:
        with path.open("rb") as file:
            return decode(Packets(file, str(path)))
    except OSError as error:
        raise MillgateError(
            tr("the capture cannot be read", "无法读取抓包文件"),
            where=str(path),
            remedy=error.strerror or type(error).__name__,
        ) from error


def chosen(full: Mapping[End, _Found], wanted: str | None) -> _Found | None:
    """Return what was captured at an address, with or without its port.

    Args:
        full: everything with values, the fullest first.
        wanted: the address; None is the fullest.

    Returns:
        None when nothing has values.

    Raises:
        MillgateError: when there is something, but not at that address.
    """
    if not full or wanted is None:
        return next(iter(full.values()), None)
    for (host, port), found in full.items():
        if wanted in {host, f"{host}:{port}"}:
            return found
    raise MillgateError(
        tr("is not among those with values", "不在有数值的设备之中"),
        where=f"--device {wanted}",
        remedy=instead_of(wanted, [f"{host}:{port}" for host, port in full], "--list"),
    )

"""Values as they lie in a server's answer, taken as columns without an object for each.

A DataValue is a mask, then what the mask names, in this order (OPC UA Part 6, 5.2.2.17): value,
status, source time, its picoseconds, server time, its picoseconds. A scalar's length follows from
its type, so the mask and the type tell where the next one begins. Where all of an answer have the
same two, they are one table of records; else the two bytes of each are looked at once, and every
kind of record is gathered by itself. What has no fixed length (text, arrays, structures) is left to
the library, one by one, and keeps its place.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import numpy as np
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary
from numpy.typing import NDArray

from protocols.frame import Bytes, Floats, Ints

NO_TIME: Final = -(2**63)
"""In a column of times: the server gave none."""
ODD: Final = 255
"""In a column of types: not a scalar of fixed length; no type has this number."""
_VALUE, _STATUS, _SOURCE, _SERVER, _SOURCE_PICO, _SERVER_PICO = (1 << bit for bit in range(6))
_KNOWN_BITS: Final = 0x3F
_HANDLE: Final = ("place", "<u4")
_SCALARS: Final = {
    0: "V0",
    1: "u1",
    2: "i1",
    3: "u1",
    4: "<i2",
    5: "<u2",
    6: "<i4",
    7: "<u4",
    8: "<i8",
    9: "<u8",
    10: "<f4",
    11: "<f8",
    13: "V8",
    14: "V16",
    19: "V4",
}
"""Built-in types of fixed length, and how they lie; of a DateTime, a Guid and a StatusCode no more
than the length is of use."""
_REALS: Final = frozenset({10, 11})
_TICKS_PER_US: Final = 10
_DAY: Final = 86_400
_MILLION: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX_US: Final = 11_644_473_600 * _MILLION  # from 1601 to 1970
# Later times are one time, as the library has it: the last second of the year 9999.
_LAST_TICK: Final = 2_650_467_743_990_000_000
_PAD: Final = b"\0\0"


class Malformed(Exception):
    """Bytes that are not what they should be."""


@dataclass(frozen=True, slots=True)
class Changes:
    """DataValues as columns, in the order in which they came; every column has shape (n,).

    Attributes:
        place: places of the items that they are for; -1 for a handle that nobody gave out.
        kind: number of the built-in type, or ODD; 0 is no value.
        status: OPC UA status codes.
        time_us: microseconds since 1970 UTC, the source's or else the server's, or NO_TIME.
        whole: whole numbers; UInt64 as its bits, Boolean as 0 or 1, 0 for other types.
        real: Float and Double as float64, 0 for other types.
        odd: the values that are ODD: where in the columns, and what the library made of them.
    """

    place: Ints
    kind: Bytes
    status: NDArray[np.uint32]
    time_us: Ints
    whole: Ints
    real: Floats
    odd: list[tuple[int, ua.Variant]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.place)


def changes_of(values: Iterable[tuple[int, ua.DataValue]]) -> Changes:
    """Return values that the library has taken apart, each with its place, as columns."""
    known = list(values)
    count = len(known)
    table = Changes(
        np.array([place for place, _ in known], np.int64),
        np.zeros(count, np.uint8),
        np.array([_status(value) for _, value in known], np.uint32),
        np.array([microseconds(value) for _, value in known], np.int64),
        np.zeros(count, np.int64),
        np.zeros(count, np.float64),
    )
    for at, (_, value) in enumerate(known):
        variant = value.Value
        if variant is None:
            continue
        kind = int(variant.VariantType.value)
        if variant.is_array or kind not in _SCALARS:
            table.kind[at] = ODD
            table.odd.append((at, variant))
            continue
        table.kind[at] = kind
        if kind in _REALS:
            table.real[at] = variant.Value
        elif _is_whole(kind):
            table.whole[at] = _wrapped(variant.Value)
    return table


def _status(value: ua.DataValue) -> int:
    return 0 if value.StatusCode is None else int(value.StatusCode.value)


def _is_whole(kind: int) -> bool:
    return 0 < kind < min(_REALS)


def _wrapped(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def read_changes(body: bytes, start: int, count: int) -> tuple[Changes, int]:
    """Return monitored items, each a client handle and a DataValue, and where they end.

    Raises:
        Exception: of any kind, when the bytes are not that.
    """
    return _Table(body, start, count, lead=4).read()


def read_values(body: bytes, start: int, count: int) -> tuple[Changes, int]:
    """Return DataValues, the places being their numbers in the answer, and where they end.

    Raises:
        Exception: of any kind, when the bytes are not that.
    """
    return _Table(body, start, count, lead=0).read()


class _Table:
    """The records of one answer.

    Args:
        body: the answer.
        start: where its first record begins.
        count: how many there are, as the answer says.
        lead: bytes before each DataValue.
    """

    def __init__(self, body: bytes, start: int, count: int, lead: int) -> None:
        # A record takes a byte at least; no more are made room for than can be there.
        if not 0 <= count <= len(body) - start:
            raise Malformed("count")
        self._end = len(body)
        # The last record may end with its mask; what would be its type is then looked at in vain.
        self._body = body + _PAD
        self._start = start
        self._count = count
        self._lead = lead
        self._place: Ints = np.arange(count, dtype=np.int64)
        self._kind = np.full(count, ODD, np.uint8)
        self._status = np.zeros(count, np.uint32)
        self._time: Ints = np.full(count, NO_TIME, np.int64)
        self._whole: Ints = np.zeros(count, np.int64)
        self._real: Floats = np.zeros(count, np.float64)
        self._odd: list[tuple[int, ua.Variant]] = []

    def read(self) -> tuple[Changes, int]:
        end = self._read_alike()
        if end is None:
            end = self._read_each()
        if end > self._end:
            raise Malformed("end")
        changes = Changes(
            self._place,
            self._kind,
            self._status,
            self._time,
            self._whole,
            self._real,
            self._odd,
        )
        return changes, end

    def _read_alike(self) -> int | None:
        """Read records that are all of one kind; return where they end, None when they are not."""
        if not self._count:
            return self._start
        at = self._start + self._lead
        key = self._key_at(at)
        size = _SIZES[key] + self._lead
        end = self._start + size * self._count
        if size == self._lead or end > self._end:
            return None
        rows = np.frombuffer(self._body, np.uint8, size * self._count, self._start)
        heads = rows.reshape(self._count, size)[:, self._lead : self._lead + 2]
        compared = heads if key >> 8 & _VALUE else heads[:, :1]
        if not np.array_equal(compared, np.broadcast_to(compared[0], compared.shape)):
            return None
        record = _record(key, self._lead)
        self._put(slice(None), key, rows.view(record))
        return end

    def _read_each(self) -> int:
        """Look where each record begins, then gather those of each kind; return where they end."""
        begins = np.empty(self._count, np.int64)
        keys = np.empty(self._count, np.int64)
        end = self._walk(begins, keys)
        if end > self._end:
            raise Malformed("end")
        for key in np.unique(keys).tolist():
            size = _SIZES[key] + self._lead
            if size == self._lead:
                continue
            at = np.flatnonzero(keys == key)
            every = np.frombuffer(self._body, np.uint8)
            rows = every[begins[at, None] + np.arange(size)]
            self._put(at, key, rows.view(_record(key, self._lead))[:, 0])
        return end

    def _walk(self, begins: Ints, keys: Ints) -> int:
        # Where one begins is known only once the one before has been looked at, so this is a loop;
        # it touches two bytes of each, never a value.
        body, lead, sizes, at = self._body, self._lead, _SIZES, self._start
        found, kinds = [], []
        for number in range(self._count):
            key = body[at + lead] << 8 | body[at + lead + 1]
            found.append(at)
            kinds.append(key)
            size = sizes[key]
            at = at + lead + size if size else self._take_odd(number, at)
        begins[:], keys[:] = found, kinds
        without = keys >> 8 & _VALUE == 0
        keys[without] &= 0xFF00
        return at

    def _take_odd(self, number: int, at: int) -> int:
        """Let the library read one; return where the next begins."""
        if self._lead:
            self._place[number] = struct.unpack_from("<I", self._body, at)[0] - 1
        data = Buffer(self._body, at + self._lead, self._end - at - self._lead)
        value = struct_from_binary(ua.DataValue, data)
        self._status[number] = _status(value)
        self._time[number] = microseconds(value)
        if value.Value is not None:
            self._odd.append((number, value.Value))
        return data.cur_pos

    def _put(self, at: slice | NDArray[np.intp], key: int, rows: NDArray[Any]) -> None:
        """Put records of one kind into the columns."""
        mask, kind = key >> 8, key & 0xFF if key >> 8 & _VALUE else 0
        if self._lead:
            # Handles begin at 1.
            self._place[at] = rows["place"].astype(np.int64) - 1
        self._kind[at] = kind
        if kind in _REALS:
            with np.errstate(invalid="ignore"):  # a signalling NaN is no accident here
                self._real[at] = rows["value"]
        elif kind == 1:
            self._whole[at] = rows["value"] != 0
        elif _is_whole(kind):
            self._whole[at] = rows["value"].astype(np.int64)
        if mask & _STATUS:
            self._status[at] = rows["status"]
        if mask & (_SOURCE | _SERVER):
            ticks = rows["source" if mask & _SOURCE else "server"]
            self._time[at] = _from_ticks(ticks)

    def _key_at(self, at: int) -> int:
        if at >= self._end:
            raise Malformed("end")
        mask, kind = self._body[at], self._body[at + 1]
        return mask << 8 | (kind if mask & _VALUE else 0)


def _from_ticks(ticks: Ints) -> Ints:
    """Return microseconds since 1970 for 100 ns since 1601, no earlier or later than the library."""
    clipped: Ints = np.clip(ticks, 0, _LAST_TICK) // _TICKS_PER_US - _UNIX_US
    return clipped


def microseconds(value: ua.DataValue) -> int:
    """Return a DataValue's time, the source's or else the server's, or NO_TIME."""
    moment: datetime | None = value.SourceTimestamp
    if moment is None and value.SourcePicoseconds is None:
        # The library reads picoseconds behind both times, while the standard has each behind its
        # own: with them before it, what it takes for the server's time is none.
        moment = value.ServerTimestamp
    if moment is None:
        return NO_TIME
    since = moment - _EPOCH
    return (since.days * _DAY + since.seconds) * _MILLION + since.microseconds


@cache
def _record(key: int, lead: int) -> np.dtype[Any]:
    """Return how a record lies."""
    mask, kind = key >> 8, key & 0xFF
    parts: tuple[tuple[int, tuple[str, str]], ...] = (
        (_STATUS, ("status", "<u4")),
        (_SOURCE, ("source", "<i8")),
        (_SOURCE_PICO, ("source_pico", "<u2")),
        (_SERVER, ("server", "<i8")),
        (_SERVER_PICO, ("server_pico", "<u2")),
    )
    fields = [_HANDLE] if lead else []
    fields.append(("mask", "u1"))
    if mask & _VALUE:
        fields += [("kind", "u1"), ("value", _SCALARS[kind])]
    fields += [named for bit, named in parts if mask & bit]
    return np.dtype(fields)


def _size(key: int) -> int:
    mask, kind = key >> 8, key & 0xFF
    if mask & ~_KNOWN_BITS or (mask & _VALUE and kind not in _SCALARS):
        return 0
    if mask & (_SOURCE | _SOURCE_PICO) == _SOURCE_PICO:
        return 0
    return _record(key if mask & _VALUE else mask << 8, 0).itemsize


_SIZES: Final = bytes(_size(key) for key in range(1 << 16))
"""Bytes of a DataValue by mask and type, 0 where they do not tell."""

Read = Callable[[bytes, int, int], tuple[Changes, int]]
"""`read_changes` or `read_values`."""

"""From registers to columns, whole polls at a time."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.drivers.modbus.planner import Request
from protocols.drivers.modbus.point import LARGEST, ModbusPoint
from protocols.frame import Bytes, Flags, Floats, Ints, Quality, Values

_BIG_ENDIAN: Final = {
    "int16": ">i2",
    "uint16": ">u2",
    "int32": ">i4",
    "uint32": ">u4",
    "float32": ">f4",
    "int64": ">i8",
    "uint64": ">u8",
    "float64": ">f8",
}


class _Group(NamedTuple):
    """Points of one type: where their registers lie in a poll, and how they scale."""

    dtype: str
    registers: NDArray[np.intp]  # (n, words)
    slots: NDArray[np.intp]  # (n,) column in the integer or float part
    multiply: Ints | Floats  # (n,)
    add: Ints | Floats  # (n,)
    limit: Ints  # (n,) largest |raw| whose scaled value stays within 2**53


class Decoder:
    """Decodes polls: shape (r, registers of all requests) to the two parts of a frame.

    Attributes:
        integer_columns, float_columns: positions in the point table, as frames name them.
        block_of: shape (n,), which request each point of the table comes from.
    """

    def __init__(
        self, points: Sequence[ModbusPoint], requests: Sequence[Request], order: str
    ) -> None:
        self.block_of = np.zeros(len(points), np.int32)
        offsets = np.cumsum([0, *(request.count for request in requests)])
        place = np.zeros(len(points), np.intp)
        for number, request in enumerate(requests):
            for at in request.points:
                self.block_of[at] = number
                place[at] = offsets[number] + points[at].first - request.first
        whole = np.array([point.integer for point in points])
        self.integer_columns = np.flatnonzero(whole).astype(np.int32)
        self.float_columns = np.flatnonzero(~whole).astype(np.int32)
        self._swap_bytes = order in {"BADC", "DCBA"}
        self._groups = [
            _group(dtype, points, place, whole, reverse=order in {"CDAB", "DCBA"})
            for dtype in sorted({point.type for point in points})
        ]

    def decode(self, registers: NDArray[np.uint16]) -> tuple[Ints, Floats, Bytes, Bytes]:
        """Return integers (r, i), floats (r, f) and the quality of each.

        Values that are not finite, or too large to be exact, are BAD.
        """
        rows = len(registers)
        if self._swap_bytes:
            registers = registers.byteswap()
        integers = np.zeros((rows, len(self.integer_columns)), np.int64)
        floats = np.zeros((rows, len(self.float_columns)), np.float64)
        integer_quality = np.zeros(integers.shape, np.uint8)
        float_quality = np.zeros(floats.shape, np.uint8)
        for group in self._groups:
            raw = _raw(registers, group)
            if raw.dtype.kind == "f":
                floats[:, group.slots], good = _scaled_floats(raw, group)
                float_quality[:, group.slots] = np.where(good, Quality.GOOD, Quality.BAD)
            else:
                integers[:, group.slots], good = _scaled_integers(raw, group)
                integer_quality[:, group.slots] = np.where(good, Quality.GOOD, Quality.BAD)
        return integers, floats, integer_quality, float_quality


def _group(
    dtype: str,
    points: Sequence[ModbusPoint],
    place: NDArray[np.intp],
    whole: Flags,
    *,
    reverse: bool,
) -> _Group:
    members = [at for at, point in enumerate(points) if point.type == dtype]
    words = points[members[0]].words
    within = np.arange(words)[::-1] if reverse else np.arange(words)
    integer = points[members[0]].integer
    position = np.cumsum(whole if integer else ~whole) - 1
    chosen = [points[at] for at in members]
    multiply, add = _scaling(chosen, integer=integer)
    limits = [
        _raw_limit(int(m), int(a)) if integer else 0 for m, a in zip(multiply, add, strict=True)
    ]
    return _Group(
        dtype=_BIG_ENDIAN[dtype],
        registers=place[members][:, None] + within,
        slots=position[members],
        multiply=multiply,
        add=add,
        limit=np.array(limits, np.int64),
    )


def _scaling(
    points: Sequence[ModbusPoint], *, integer: bool
) -> tuple[Ints | Floats, Ints | Floats]:
    if not integer:
        return (
            np.array([float(point.scale) for point in points]),
            np.array([float(point.offset) for point in points]),
        )
    return (
        np.array([point.on_grid(point.scale) for point in points], np.int64),
        np.array([point.on_grid(point.offset) for point in points], np.int64),
    )


def _raw_limit(multiply: int, add: int) -> int:
    return max((LARGEST - abs(add)) // abs(multiply), 0)


def _raw(registers: NDArray[np.uint16], group: _Group) -> Values:
    words: Values = np.ascontiguousarray(registers[:, group.registers].astype(">u2"))
    return words.view(group.dtype)[:, :, 0]


def _scaled_integers(raw: Values, group: _Group) -> tuple[Ints, Flags]:
    if raw.dtype.kind == "u":
        good = raw <= group.limit.astype(np.uint64)
    else:
        good = (raw <= group.limit) & (raw >= -group.limit)
    kept = np.where(good, raw, raw.dtype.type(0)).astype(np.int64)
    return np.where(good, kept * group.multiply + group.add, 0), good


def _scaled_floats(raw: Values, group: _Group) -> tuple[Floats, Flags]:
    with np.errstate(all="ignore"):
        scaled = raw.astype(np.float64) * group.multiply + group.add
    good = np.isfinite(scaled)
    return np.where(good, scaled, 0.0), good

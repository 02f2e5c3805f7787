"""From registers to columns, whole polls at a time."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.drivers.modbus.image import Image
from protocols.drivers.modbus.point import BIT_TABLES, LARGEST, ModbusPoint
from protocols.frame import Bytes, Flags, Floats, Ints, Quality, Values

_BIG_ENDIAN: Final = {
    "bit": ">u2",
    "int16": ">i2",
    "uint16": ">u2",
    "int32": ">i4",
    "uint32": ">u4",
    "float32": ">f4",
    "int64": ">i8",
    "uint64": ">u8",
    "float64": ">f8",
    "bcd16": ">u2",
    "bcd32": ">u4",
    "bcd64": ">u8",
}
_DIGIT: Final = 4
_NINE: Final = 9


class _Way(NamedTuple):
    """How points are written; those that are written alike are decoded together."""

    kind: str
    swap: bool
    reverse: bool
    bits: bool
    sentinels: int


class _Group(NamedTuple):
    """Points of one way: where their registers lie in a poll, and how they scale."""

    way: _Way
    registers: NDArray[np.intp]  # (n, words)
    slots: NDArray[np.intp]  # (n,) column in the integer or float part
    multiply: Ints | Floats  # (n,)
    add: Ints | Floats  # (n,)
    limit: Ints  # (n,) largest |raw| whose scaled value stays within 2**53
    shift: Values  # (n,) how far down the lowest bit is
    mask: Values  # (n,)
    invalid: Values  # (sentinels, n) raw values that mean nothing


class Decoder:
    """Decodes polls: shape (r, places of the image) to the two parts of a frame.

    Attributes:
        integer_columns, float_columns: positions in the point table, as frames name them.
    """

    def __init__(self, points: Sequence[ModbusPoint], image: Image, order: str) -> None:
        whole = np.array([point.integer for point in points])
        self.integer_columns = np.flatnonzero(whole).astype(np.int32)
        self.float_columns = np.flatnonzero(~whole).astype(np.int32)
        alike: dict[_Way, list[int]] = defaultdict(list)
        for at, point in enumerate(points):
            alike[_way(point, order)].append(at)
        self._groups = [
            _group(way, points, members, image, whole) for way, members in sorted(alike.items())
        ]

    def decode(self, registers: NDArray[np.uint16]) -> tuple[Ints, Floats, Bytes, Bytes]:
        """Return integers (r, i), floats (r, f) and the quality of each.

        Values that are not finite, too large to be exact, no digits, or declared invalid are BAD.
        """
        rows = len(registers)
        integers = np.zeros((rows, len(self.integer_columns)), np.int64)
        floats = np.zeros((rows, len(self.float_columns)), np.float64)
        integer_quality = np.zeros(integers.shape, np.uint8)
        float_quality = np.zeros(floats.shape, np.uint8)
        for group in self._groups:
            raw, good = _raw(registers, group)
            real = raw.dtype.kind == "f"
            values, fits = (_scaled_floats if real else _scaled_integers)(raw, group)
            if good is not None:
                values, fits = np.where(good, values, 0), fits & good
            whole, quality = (floats, float_quality) if real else (integers, integer_quality)
            whole[:, group.slots] = values
            quality[:, group.slots] = np.where(fits, Quality.GOOD, Quality.BAD)
        return integers, floats, integer_quality, float_quality


def _way(point: ModbusPoint, order: str) -> _Way:
    chosen = "ABCD" if point.table in BIT_TABLES else point.order or order
    return _Way(
        kind=point.type,
        swap=chosen in {"BADC", "DCBA"},
        reverse=chosen in {"CDAB", "DCBA"},
        bits=point.bits is not None,
        sentinels=len(point.invalid),
    )


def _group(
    way: _Way, points: Sequence[ModbusPoint], members: list[int], image: Image, whole: Flags
) -> _Group:
    chosen = [points[at] for at in members]
    words = chosen[0].words
    within = np.arange(words)[::-1] if way.reverse else np.arange(words)
    integer = chosen[0].integer
    position = np.cumsum(whole if integer else ~whole) - 1
    multiply, add = _scaling(chosen, integer=integer)
    limits = [
        _raw_limit(int(m), int(a)) if integer else 0 for m, a in zip(multiply, add, strict=True)
    ]
    unsigned = np.dtype(f"u{2 * words}")
    bits = [point.bits or (0, 16 * words - 1) for point in chosen]
    return _Group(
        way=way,
        registers=image.places[members][:, None] + within,
        slots=position[members],
        multiply=multiply,
        add=add,
        limit=np.array(limits, np.int64),
        shift=np.array([low for low, _ in bits], unsigned),
        mask=np.array([(1 << high - low + 1) - 1 for low, high in bits], unsigned),
        invalid=_sentinels(way, chosen),
    )


def _sentinels(way: _Way, points: Sequence[ModbusPoint]) -> Values:
    """Return the raw values that mean nothing, shape (sentinels, n), as `_raw` compares them."""
    given = [[point.invalid[at] for point in points] for at in range(way.sentinels)]
    if way.kind.startswith("float"):
        with np.errstate(over="ignore"):
            return np.array(given, np.float64).astype(_BIG_ENDIAN[way.kind][1:])
    if way.kind.startswith("bcd"):
        return np.array(given, np.int64)
    native = np.dtype(_BIG_ENDIAN[way.kind][1:])
    patterns = [[int(value) % (1 << 8 * native.itemsize) for value in row] for row in given]
    return np.array(patterns, f"u{native.itemsize}").view(native)


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


def _raw(registers: NDArray[np.uint16], group: _Group) -> tuple[Values, Flags | None]:
    """Return the raw numbers, and where they are usable; None is everywhere."""
    way = group.way
    words: Values = registers[:, group.registers]
    words = np.ascontiguousarray(words.astype("<u2" if way.swap else ">u2"))
    raw: Values = words.view(_BIG_ENDIAN[way.kind])[:, :, 0]
    good: Flags | None = None
    if way.kind.startswith("bcd"):
        raw, good = _from_digits(raw)
    for value in group.invalid:
        real = raw != value
        good = real if good is None else good & real
    if way.bits:
        raw = raw.astype(group.mask.dtype) >> group.shift & group.mask
    return raw, good


def _from_digits(raw: Values) -> tuple[Ints, Flags]:
    """Return the numbers that decimal digits of four bits write, and where all are digits."""
    packed = raw.astype(np.uint64)
    number = np.zeros(raw.shape, np.int64)
    good = np.ones(raw.shape, np.bool_)
    for place in range(2 * raw.dtype.itemsize - 1, -1, -1):
        digit = packed >> np.uint64(_DIGIT * place) & np.uint64(0xF)
        good &= digit <= _NINE
        number = number * 10 + digit.astype(np.int64)
    return np.where(good, number, 0), good


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

"""Rows <-> bytes: each column packed after its kind, all of it under one zstd frame.

Times and integers are differences; floats that are short decimals are kept as integers of
10**-k, where that gives back the same bits, else as they are; texts are numbers of a word
list. Bytes of equal weight lie together, which is what lets zstd shrink them. The frame's
checksum tells damage.
"""

import struct
from collections.abc import Collection
from itertools import accumulate, pairwise
from typing import Final

import numpy as np
import zstandard

from aggregator.storable import FieldType, text_array
from aggregator.stores.embedded.rows import Column, Rows
from protocols.frame import Bytes, Flags, Ints, Values

_HEADER: Final = struct.Struct("<BIII")
"""Format, rows, columns, bytes of the series and time columns together."""
_COLUMN: Final = struct.Struct("<IBBI")
"""Field number, packing, parameter, bytes."""
_FORMAT: Final = 1
_LARGEST: Final = 1 << 28
_LEVEL: Final = 1

_RAW, _DECIMAL, _INTEGER, _TEXT = range(4)
_KINDS: Final = {
    _RAW: FieldType.FLOAT,
    _DECIMAL: FieldType.FLOAT,
    _INTEGER: FieldType.INTEGER,
    _TEXT: FieldType.TEXT,
}
_PARTLY: Final = 0x80
"""Set in the parameter where a bitmap of present rows goes before the values."""
_DECIMALS: Final = (0, 1, 2, 3, 4, 6)
_EXACT: Final = float(2**53)
_SAMPLE: Final = 16


class Damaged(Exception):
    """The bytes are not what was written."""


class Codec:
    """Packs and unpacks rows; its zstd contexts are for one thread at a time."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self._decompressor = zstandard.ZstdDecompressor()

    def pack(self, rows: Rows) -> bytes:
        """Return the rows as bytes."""
        keys = _differences(rows.owner) + _differences(rows.time)
        parts = [_HEADER.pack(_FORMAT, len(rows), len(rows.columns), len(keys)), keys]
        for field, column in rows.columns.items():
            packing, parameter, body = _pack_column(column)
            parts += [_COLUMN.pack(field, packing, parameter, len(body)), body]
        return self._compressor.compress(b"".join(parts))

    def unpack(self, data: bytes, fields: Collection[int] | None = None) -> Rows:
        """Return the rows, with all or only these fields.

        Raises:
            Damaged: the bytes are not what `pack` made.
        """
        try:
            if zstandard.frame_content_size(data) > _LARGEST:
                raise Damaged
            plain = self._decompressor.decompress(data, max_output_size=_LARGEST)
            return _unpack(plain, fields)
        except (zstandard.ZstdError, struct.error, ValueError, LookupError) as error:
            raise Damaged from error


def _unpack(plain: bytes, fields: Collection[int] | None) -> Rows:
    form, count, width, length = _HEADER.unpack_from(plain)
    if form != _FORMAT or length % 2:
        raise Damaged
    at = _HEADER.size
    owner = _sums(plain[at : at + length // 2], count)
    time = _sums(plain[at + length // 2 : at + length], count)
    at += length
    columns: dict[int, Column] = {}
    for _ in range(width):
        field, packing, parameter, size = _COLUMN.unpack_from(plain, at)
        at += _COLUMN.size
        if fields is None or field in fields:
            columns[field] = _unpack_column(packing, parameter, plain[at : at + size], count)
        at += size
    return Rows(owner, time, columns)


def _pack_column(column: Column) -> tuple[int, int, bytes]:
    whole = bool(column.has.all())
    values = column.values if whole else column.values[column.has]
    bitmap = b"" if whole else np.packbits(column.has).tobytes()
    packing, parameter, body = _pack_values(column.kind, values)
    return packing, parameter | (0 if whole else _PARTLY), bitmap + body


def _pack_values(kind: FieldType, values: Values) -> tuple[int, int, bytes]:
    if kind is FieldType.INTEGER:
        return _INTEGER, 0, _differences(values)
    if kind is FieldType.TEXT:
        return _TEXT, 0, _words(values)
    decimal = _as_decimal(values)
    if decimal is not None:
        return _DECIMAL, decimal[0], _differences(decimal[1])
    return _RAW, 0, _shuffled(values)


def _unpack_column(packing: int, parameter: int, body: bytes, rows: int) -> Column:
    kind = _KINDS[packing]
    if not parameter & _PARTLY:
        values = _unpack_values(packing, parameter, body, rows)
        return Column(kind, values, np.ones(rows, np.bool_))
    size = (rows + 7) // 8
    has: Flags = np.unpackbits(np.frombuffer(body[:size], np.uint8), count=rows).astype(np.bool_)
    there = _unpack_values(packing, parameter & ~_PARTLY, body[size:], int(has.sum()))
    values = np.zeros(rows, there.dtype)
    values[has] = there
    return Column(kind, values, has)


def _unpack_values(packing: int, parameter: int, body: bytes, rows: int) -> Values:
    if packing == _INTEGER:
        return _sums(body, rows)
    if packing == _TEXT:
        return _texts(body, rows)
    if packing == _DECIMAL:
        return _sums(body, rows).astype(np.float64) / 10.0**parameter
    return _unshuffled(body, rows).view(np.float64)


def _as_decimal(values: Values) -> tuple[int, Ints] | None:
    """Return (k, integers) such that integers / 10**k are these very floats, bit by bit."""
    sample = values[:: len(values) // _SAMPLE + 1]
    for places in _DECIMALS:
        if _scaled(sample, places) is not None:
            scaled = _scaled(values, places)
            if scaled is not None:
                return places, scaled
    return None


def _scaled(values: Values, places: int) -> Ints | None:
    power = 10.0**places
    with np.errstate(over="ignore"):
        near = np.rint(values * power)
    if not (np.abs(near) < _EXACT).all():
        return None
    scaled = near.astype(np.int64)
    back = scaled.astype(np.float64) / power
    # Compared as bits: -0.0 equals 0.0, and would come back without its sign.
    return scaled if (back.view(np.int64) == values.view(np.int64)).all() else None


def _differences(values: Ints) -> bytes:
    bits = values.view(np.uint64)
    steps = np.empty_like(bits)
    steps[:1] = bits[:1]
    np.subtract(bits[1:], bits[:-1], out=steps[1:])
    # Zigzag: small falls get as many leading zero bytes as small rises.
    falls = (steps.view(np.int64) >> 63).view(np.uint64)
    return _shuffled((steps << np.uint64(1)) ^ falls)


def _sums(body: bytes, rows: int) -> Ints:
    zigzag = _unshuffled(body, rows)
    steps = (zigzag >> np.uint64(1)) ^ (np.uint64(0) - (zigzag & np.uint64(1)))
    return np.cumsum(steps, dtype=np.uint64).view(np.int64)


def _shuffled(values: Values) -> bytes:
    cells: Bytes = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    return cells.T.tobytes()


def _unshuffled(body: bytes, rows: int) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    cells = np.frombuffer(body, np.uint8).reshape(8, rows)
    return np.ascontiguousarray(cells.T).view(np.uint64).reshape(rows)


def _words(values: Values) -> bytes:
    texts = values.tolist()
    numbers = {word: number for number, word in enumerate(dict.fromkeys(texts))}
    codes = np.zeros(len(texts), np.uint32)
    if len(numbers) > 1:
        codes[:] = list(map(numbers.__getitem__, texts))
    words = [word.encode() for word in numbers]
    lengths = np.fromiter(map(len, words), np.uint32, len(words))
    count = np.array([len(words)], np.uint32)
    return b"".join([array.tobytes() for array in (count, lengths, codes)] + words)


def _texts(body: bytes, rows: int) -> Values:
    count = int.from_bytes(body[:4], "little")
    numbers = np.frombuffer(body, np.uint32, count + rows, offset=4)
    ends = list(accumulate(numbers[:count].tolist(), initial=4 + 4 * (count + rows)))
    words = [body[first:last].decode() for first, last in pairwise(ends)]
    return text_array(words)[numbers[count:]]

"""Batch: released slots to bytes and back; integers only, columns, one form per content.

A batch body is CBOR `[1, [block, ...]]`, compressed with zstd. A block is a run of consecutive
slots of one set of points:

    block   = [slot, rows, numbers, first, widths, [* deltas], quality, span-cells, spans]
    numbers, first, deltas, span-cells, spans = RFC 8746 typed arrays, signed, little-endian,
              each as narrow as its content allows

`numbers` are the point numbers, ascending, as differences. `first` is the first row of
mantissas; every later row is written as the difference from the row before, column by column,
columns of the same width together, narrowest first (`widths`: 0, 1, 2, 3 for 1, 2, 4, 8 bytes).
A cell without a value repeats the one above it (0 in the first row), so it costs nothing.
`quality` is empty when all cells are good, else a byte per cell, row by row.
`span-cells` (as differences) are the positions of the cells that count over more than their own
slot, `spans` over how many.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import cbor2
import numpy as np
import zstandard
from numpy.typing import NDArray

from protocols import strict_cbor
from protocols.frame import Bytes, Ints
from protocols.strict_cbor import Malformed

GOOD: Final = 0
UNCERTAIN: Final = 1
NO_VALUE: Final = 2
"""Missing and suppressed share one code on purpose."""

LARGEST_MANTISSA: Final = 1 << 53
MAX_BODY: Final = 8 << 20
MAX_CELLS: Final = 1 << 21
MAX_BLOCKS: Final = 4096
_LARGEST_SLOT: Final = 1 << 48
_LARGEST_NUMBER: Final = 1 << 31

_DTYPES: Final = tuple(np.dtype(name) for name in ("<i1", "<i2", "<i4", "<i8"))
_LIMITS: Final = tuple((int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) for dtype in _DTYPES)
_TAGS: Final = (72, 77, 78, 79)
_TAG_SET: Final = frozenset(_TAGS)
_VERSION: Final = 1
_LEVEL: Final = 3


def _no_cells() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive slots of one set of points.

    Attributes:
        slot: index of the first slot: its start divided by the stream's slot length.
        numbers: shape (c,), point numbers, strictly ascending, int64.
        mantissa: shape (r, c), int64, |m| <= 2**53; 0 where there is no value.
        quality: shape (r, c), GOOD, UNCERTAIN or NO_VALUE.
        span_cells: shape (k,), row-major positions of cells that count over several slots.
        spans: shape (k,), over how many, each at least 2.
    """

    slot: int
    numbers: Ints
    mantissa: Ints
    quality: Bytes
    span_cells: Ints = field(default_factory=_no_cells)
    spans: Ints = field(default_factory=_no_cells)

    @property
    def rows(self) -> int:
        """Number of slots."""
        return len(self.mantissa)

    @property
    def values(self) -> int:
        """Number of cells that have a value."""
        return int(np.count_nonzero(self.quality != NO_VALUE))

    def span_matrix(self) -> Ints:
        """Return over how many slots each cell counts, shape (r, c)."""
        spans = np.ones(self.mantissa.size, np.int64)
        spans[self.span_cells] = self.spans
        return spans.reshape(self.mantissa.shape)

    def row_slice(self, start: int, stop: int) -> "Block":
        """Return the slots from row `start` to before `stop` as a block of their own."""
        width = len(self.numbers)
        kept = (self.span_cells >= start * width) & (self.span_cells < stop * width)
        return Block(
            slot=self.slot + start,
            numbers=self.numbers,
            mantissa=self.mantissa[start:stop],
            quality=self.quality[start:stop],
            span_cells=self.span_cells[kept] - start * width,
            spans=self.spans[kept],
        )


def encode(blocks: Sequence[Block]) -> bytes:
    """Return the compressed body of these blocks.

    Raises:
        ValueError: when a block breaks the rules of its docstring.
    """
    body = _body(blocks)
    return zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(body)


def decode(data: bytes) -> list[Block]:
    """Return the blocks of a compressed body.

    Raises:
        Malformed: when the bytes are not the one form of some blocks, or too large.
    """
    body = _decompress(data)
    item = strict_cbor.decode(body, max_bytes=MAX_BODY, tags=_TAG_SET)
    if not (isinstance(item, list) and len(item) == 2 and item[0] == _VERSION):
        raise Malformed("not a batch body of version 1")
    if not (isinstance(item[1], list) and 0 < len(item[1]) <= MAX_BLOCKS):
        raise Malformed("no blocks, or too many")
    try:
        blocks = [_read_block(parts) for parts in item[1]]
        same = _body(blocks) == body
    except (ValueError, TypeError, OverflowError):
        raise Malformed("a block breaks the rules") from None
    if not same:
        raise Malformed("not the one form of its content")
    return blocks


def _decompress(data: bytes) -> bytes:
    try:
        size = zstandard.get_frame_parameters(data).content_size
        if not 0 < size <= MAX_BODY:
            raise Malformed("decompresses to too much, or does not say how much")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError:
        raise Malformed("not a zstd frame") from None


def _body(blocks: Sequence[Block]) -> bytes:
    return strict_cbor.encode([_VERSION, [_write_block(block) for block in blocks]])


def _width(low: int, high: int) -> int:
    """Return the code of the narrowest width that holds all values from `low` to `high`."""
    return next(code for code, (least, most) in enumerate(_LIMITS) if least <= low and high <= most)


def _pack(values: Ints) -> cbor2.CBORTag:
    code = _width(int(values.min()), int(values.max())) if values.size else 0
    return cbor2.CBORTag(_TAGS[code], values.astype(_DTYPES[code]).tobytes())


def _unpack(item: object, count: int | None = None) -> Ints:
    if not (isinstance(item, cbor2.CBORTag) and isinstance(item.value, bytes)):
        raise Malformed("not a typed array")
    values = np.frombuffer(item.value, _DTYPES[_TAGS.index(item.tag)]).astype(np.int64)
    if count is not None and len(values) != count:
        raise Malformed("typed array of the wrong length")
    return values


def _column_widths(deltas: Ints) -> NDArray[np.uint8]:
    """Return the width code of each column of differences, shape (c,)."""
    low, high = deltas.min(axis=0), deltas.max(axis=0)
    codes = np.zeros(deltas.shape[1], np.uint8)
    for code in range(_width(int(low.min()), int(high.max()))):
        least, most = _LIMITS[code]
        codes[(low < least) | (high > most)] = code + 1
    return codes


def _differences(values: Ints) -> Ints:
    """Return the first value, then each one's difference from the one before."""
    steps = values.copy()
    np.subtract(values[1:], values[:-1], out=steps[1:])
    return steps


def _ascending(values: Ints) -> bool:
    return bool((values[1:] > values[:-1]).all())


def _held(mantissa: Ints, quality: Bytes) -> Ints:
    """Repeat the value above in cells that have none, so that their difference is 0."""
    if not quality.any():
        return mantissa
    empty = quality == NO_VALUE
    if not empty.any():
        return mantissa
    rows = np.where(empty, 0, np.arange(len(mantissa))[:, None])
    np.maximum.accumulate(rows, axis=0, out=rows)
    held: Ints = np.take_along_axis(np.where(empty, 0, mantissa), rows, axis=0)
    return held


def _write_block(block: Block) -> list[Any]:
    check_block(block)
    held = _held(block.mantissa, block.quality)
    widths, deltas = b"", []
    if block.rows > 1:
        steps = held[1:] - held[:-1]
        codes = _column_widths(steps)
        widths = codes.tobytes()
        for code in sorted(set(widths)):
            group = steps if widths.count(code) == len(widths) else steps[:, codes == code]
            packed = group.T.astype(_DTYPES[code], order="C").tobytes()
            deltas.append(cbor2.CBORTag(_TAGS[code], packed))
    return [
        block.slot,
        block.rows,
        _pack(_differences(block.numbers)),
        _pack(held[0]),
        widths,
        deltas,
        block.quality.tobytes() if block.quality.any() else b"",
        _pack(_differences(block.span_cells)),
        _pack(block.spans),
    ]


def check_block(block: Block) -> None:
    """Check that a block keeps the rules of its docstring.

    Raises:
        ValueError: when it does not.
    """
    shape = (block.rows, len(block.numbers))
    legal = (
        0 <= block.slot < _LARGEST_SLOT
        and 0 < shape[0] * shape[1] <= MAX_CELLS
        and block.mantissa.shape == shape == block.quality.shape
        and _legal_numbers(block.numbers)
        and _legal_cells(block.mantissa, block.quality)
    )
    if not (legal and _legal_spans(block)):
        raise ValueError("block breaks the rules")


def _legal_numbers(numbers: Ints) -> bool:
    return int(numbers[0]) >= 0 and int(numbers[-1]) < _LARGEST_NUMBER and _ascending(numbers)


def _legal_cells(mantissa: Ints, quality: Bytes) -> bool:
    if int(mantissa.min()) < -LARGEST_MANTISSA or int(mantissa.max()) > LARGEST_MANTISSA:
        return False
    worst = int(quality.max())
    return worst < NO_VALUE or (worst == NO_VALUE and not bool(mantissa[quality == NO_VALUE].any()))


def _legal_spans(block: Block) -> bool:
    cells, spans = block.span_cells, block.spans
    if len(cells) != len(spans):
        return False
    if len(cells) == 0:
        return True
    return (
        _ascending(cells)
        and int(cells[0]) >= 0
        and int(cells[-1]) < block.mantissa.size
        and bool((spans >= 2).all())
        and bool((spans < _LARGEST_SLOT).all())
        and not bool((block.quality.reshape(-1)[cells] == NO_VALUE).any())
    )


def _read_block(parts: object) -> Block:
    if not (isinstance(parts, list) and len(parts) == 9):
        raise Malformed("not a block")
    slot, rows, packed_numbers, first, widths, deltas, quality, span_cells, spans = parts
    if not (isinstance(slot, int) and isinstance(rows, int) and 0 < rows <= MAX_CELLS):
        raise Malformed("not a block")
    numbers = np.cumsum(_unpack(packed_numbers))
    width = len(numbers)
    if not 0 < rows * width <= MAX_CELLS:
        raise Malformed("too many cells")
    qualities = _read_quality(quality, rows, width)
    held = _read_mantissas(_unpack(first, width), rows, widths, deltas)
    return Block(
        slot=slot,
        numbers=numbers,
        mantissa=np.where(qualities == NO_VALUE, 0, held) if quality else held,
        quality=qualities,
        span_cells=np.cumsum(_unpack(span_cells)),
        spans=_unpack(spans),
    )


def _read_quality(quality: object, rows: int, width: int) -> Bytes:
    if quality == b"":
        return np.zeros((rows, width), np.uint8)
    if not (isinstance(quality, bytes) and len(quality) == rows * width):
        raise Malformed("quality of the wrong length")
    return np.frombuffer(quality, np.uint8).reshape(rows, width)


def _read_mantissas(first: Ints, rows: int, widths: object, deltas: object) -> Ints:
    if not (isinstance(widths, bytes) and isinstance(deltas, list)):
        raise Malformed("not a block")
    held = np.empty((rows, len(first)), np.int64)
    held[0] = first
    if rows == 1:
        if widths or deltas:
            raise Malformed("differences of a single row")
        return held
    codes = np.frombuffer(widths, np.uint8)
    used = sorted(set(widths))
    if len(codes) != len(first) or len(deltas) != len(used):
        raise Malformed("widths of the wrong length")
    for code, packed in zip(used, deltas, strict=True):
        count = widths.count(code)
        steps = _unpack(packed, (rows - 1) * count).reshape((rows - 1, count), order="F")
        if count == len(codes):
            held[1:] = steps
        else:
            held[1:, codes == code] = steps
    np.cumsum(held, axis=0, out=held)
    return held

"""Batches: what is encoded comes back exactly, and nothing but its one form is read."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import cbor2
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from protocols import batch
from protocols.batch import GOOD, LARGEST_MANTISSA, NO_VALUE, UNCERTAIN, Block, decode, encode
from protocols.frame import Bytes, Ints
from protocols.strict_cbor import Malformed

unlimited = settings(deadline=None, max_examples=100)
EXTREMES = [0, 1, -1, 127, 128, -128, -129, 32_767, 32_768, -32_769, 1 << 31, -(1 << 31) - 1]
mantissas = (
    st.sampled_from([*EXTREMES, LARGEST_MANTISSA, -LARGEST_MANTISSA])
    | st.integers(-300, 300)
    | st.integers(-LARGEST_MANTISSA, LARGEST_MANTISSA)
)
qualities = st.sampled_from([GOOD] * 6 + [UNCERTAIN, NO_VALUE, NO_VALUE])


def block(
    slot: int,
    numbers: Sequence[int],
    mantissa: Any,
    quality: Any = None,
    spans: dict[int, int] | None = None,
) -> Block:
    values: Ints = np.array(mantissa, np.int64).reshape(-1, len(numbers))
    codes: Bytes = (
        np.zeros(values.shape, np.uint8)
        if quality is None
        else np.array(quality, np.uint8).reshape(values.shape)
    )
    return Block(
        slot=slot,
        numbers=np.array(numbers, np.int64),
        mantissa=np.where(codes == NO_VALUE, 0, values),
        quality=codes,
        span_cells=np.array(sorted(spans or {}), np.int64),
        spans=np.array([(spans or {})[cell] for cell in sorted(spans or {})], np.int64),
    )


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    rows, width = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    numbers = draw(st.sets(st.integers(0, (1 << 31) - 1), min_size=width, max_size=width))
    cells = rows * width
    values = draw(st.lists(mantissas, min_size=cells, max_size=cells))
    codes = draw(st.lists(qualities, min_size=cells, max_size=cells))
    filled = [cell for cell in range(cells) if codes[cell] != NO_VALUE]
    long = draw(st.sets(st.sampled_from(filled), max_size=4)) if filled else set()
    spans = {cell: draw(st.integers(2, (1 << 48) - 1)) for cell in long}
    slot = draw(st.integers(0, (1 << 48) - 1) | st.integers(0, 300))
    return block(slot, sorted(numbers), values, codes, spans)


def assert_same(found: Sequence[Block], wanted: Sequence[Block]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.slot == other.slot
        for name in ("numbers", "mantissa", "quality", "span_cells", "spans"):
            mine, theirs = getattr(one, name), getattr(other, name)
            assert mine.dtype == theirs.dtype
            assert mine.shape == theirs.shape
            assert (mine == theirs).all(), name


def body_of(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(data)


def packed(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_content_size=True).compress(body)


def content_of(one: Block) -> list[Any]:
    """Return the parts of an encoded block, to be spoilt."""
    found: list[Any] = cbor2.loads(body_of(encode([one])))[1][0]
    return found


def read_content(*parts: list[Any]) -> list[Block]:
    return decode(packed(cbor2.dumps([1, list(parts)], canonical=True)))


@unlimited
@given(st.lists(blocks(), min_size=1, max_size=4))
def test_blocks_come_back_exactly_as_they_were(given_blocks: list[Block]) -> None:
    assert_same(decode(encode(given_blocks)), given_blocks)


@unlimited
@given(st.lists(blocks(), min_size=1, max_size=3))
def test_the_same_blocks_always_have_the_same_bytes(given_blocks: list[Block]) -> None:
    copies = [one.row_slice(0, one.rows) for one in given_blocks]
    assert encode(copies) == encode(given_blocks)
    assert encode(decode(encode(given_blocks))) == encode(given_blocks)


@pytest.mark.parametrize(
    ("rows", "width"), [(1, 1), (1, 20_000), (20_000, 1), (5_000, 40)], ids=str
)
def test_large_blocks_come_back_exactly_as_they_were(rows: int, width: int) -> None:
    chance = np.random.default_rng(rows + width)
    walk = chance.integers(-3, 4, (rows, width)).cumsum(axis=0)
    scale = 10 ** chance.integers(0, 12, width)
    codes = chance.choice([GOOD, UNCERTAIN, NO_VALUE], (rows, width), p=[0.9, 0.05, 0.05])
    filled = np.flatnonzero(codes.reshape(-1) != NO_VALUE)
    spans = {int(cell): 2 + int(cell) % 1000 for cell in filled[:: max(len(filled) // 50, 1)]}
    one = block(417_000, range(3, 3 + width), walk * scale, codes, spans)
    assert_same(decode(encode([one])), [one])


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_differences_at_the_edge_of_each_width_come_back_exactly(width: int) -> None:
    edge = min(1 << (8 * width - 1), LARGEST_MANTISSA)
    steps = [edge - 1, edge, -edge, -edge - 1]
    for step in steps:
        if abs(step) <= LARGEST_MANTISSA:
            one = block(0, [7], [0, step, 0, step])
            assert_same(decode(encode([one])), [one])


def test_the_largest_mantissas_may_alternate() -> None:
    one = block(0, [1, 2], [[LARGEST_MANTISSA, 1], [-LARGEST_MANTISSA, 1]] * 3)
    assert_same(decode(encode([one])), [one])


def test_a_cell_without_value_says_nothing_of_a_value() -> None:
    hidden = block(0, [1], [5, 0, 9], [GOOD, NO_VALUE, GOOD])
    (found,) = decode(encode([hidden]))
    assert found.mantissa[1, 0] == 0
    assert found.quality[1, 0] == NO_VALUE


def test_cells_that_miss_from_the_first_row_on_come_back_as_missing() -> None:
    one = block(3, [1, 2], [[0, 0], [0, 4], [5, 0]], [[2, 2], [2, 0], [0, 2]])
    assert_same(decode(encode([one])), [one])


@unlimited
@given(blocks(), st.data())
def test_rows_cut_from_a_block_keep_values_qualities_and_spans(one: Block, data: Any) -> None:
    start = data.draw(st.integers(0, one.rows - 1))
    stop = data.draw(st.integers(start + 1, one.rows))
    part = one.row_slice(start, stop)
    assert part.slot == one.slot + start
    assert (part.mantissa == one.mantissa[start:stop]).all()
    assert (part.quality == one.quality[start:stop]).all()
    assert (part.span_matrix() == one.span_matrix()[start:stop]).all()
    if part.slot < 1 << 48:
        assert_same(decode(encode([part])), [part])


ILLEGAL: dict[str, Block] = {
    "mantissa above 2**53": block(0, [1], [LARGEST_MANTISSA + 1]),
    "mantissa below -2**53": block(0, [1], [-LARGEST_MANTISSA - 1]),
    "numbers not ascending": block(0, [2, 1], [1, 2]),
    "a number twice": block(0, [1, 1], [1, 2]),
    "a negative number": block(0, [-1], [1]),
    "a number of more than 31 bits": block(0, [1 << 31], [1]),
    "a negative slot": block(-1, [1], [1]),
    "a slot of more than 48 bits": block(1 << 48, [1], [1]),
    "an unknown quality": block(0, [1], [1], [3]),
    "no rows": block(0, [1], []),
    "no columns": Block(
        0, np.zeros(0, np.int64), np.zeros((1, 0), np.int64), np.zeros((1, 0), np.uint8)
    ),
    "a value where there is none": Block(
        0, np.array([1]), np.array([[5]]), np.array([[NO_VALUE]], np.uint8)
    ),
    "a span of one": block(0, [1], [1], None, {0: 1}),
    "a span where there is no value": block(0, [1], [1], [NO_VALUE], {0: 2}),
    "a span outside": block(0, [1], [1], None, {1: 2}),
    "a span before": block(0, [1], [1], None, {-1: 2}),
    "qualities of another shape": Block(
        0, np.array([1]), np.array([[5]]), np.zeros((2, 1), np.uint8)
    ),
    "spans without cells": Block(
        0, np.array([1]), np.array([[5]]), np.zeros((1, 1), np.uint8), spans=np.array([2])
    ),
}


@pytest.mark.parametrize("bad", ILLEGAL.values(), ids=ILLEGAL.keys())
def test_a_block_that_breaks_a_rule_is_not_encoded(bad: Block) -> None:
    with pytest.raises(ValueError, match="rules"):
        encode([bad])


@settings(deadline=None, max_examples=250)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        decode(data)
    with pytest.raises(Malformed):
        decode(packed(data))


@settings(deadline=None, max_examples=250)
@given(st.lists(blocks(), min_size=1, max_size=2), st.data())
def test_a_changed_body_is_malformed_or_the_one_form_of_what_it_says(
    given_blocks: list[Block], data: Any
) -> None:
    body = bytearray(body_of(encode(given_blocks)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["bit", "byte", "lose", "put in"])):
            case "bit":
                body[at] ^= 1 << data.draw(st.integers(0, 7))
            case "byte":
                body[at] = data.draw(st.integers(0, 255))
            case "lose" if len(body) > 1:
                del body[at]
            case _:
                body.insert(at, data.draw(st.integers(0, 255)))
    try:
        found = decode(packed(bytes(body)))
    except Malformed:
        return
    assert body_of(encode(found)) == body


@settings(deadline=None, max_examples=200)
@given(st.lists(blocks(), min_size=1, max_size=2), st.data())
def test_changed_compressed_bytes_give_malformed_or_whole_blocks(
    given_blocks: list[Block], data: Any
) -> None:
    changed = bytearray(encode(given_blocks))
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode(bytes(changed))
    except Malformed:
        return
    encode(found)


SLOT, ROWS, NUMBERS, FIRST, WIDTHS, DELTAS, QUALITY, CELLS, SPANS = range(9)


def array(dtype: str, values: Sequence[int]) -> cbor2.CBORTag:
    tag = {"i1": 72, "i2": 77, "i4": 78, "i8": 79}[dtype]
    return cbor2.CBORTag(tag, np.array(values, f"<{dtype}").tobytes())


SECOND_FORMS: dict[str, tuple[int, Any]] = {
    "numbers wider than they need": (NUMBERS, array("i2", [1, 1])),
    "first row wider than it needs": (FIRST, array("i8", [5, 6])),
    "differences wider than they need": (DELTAS, [array("i2", [1, 1, 1, 1])]),
    "a width that is wider than it needs": (WIDTHS, b"\x01\x01"),
    "unknown widths": (WIDTHS, b"\x07\x07"),
    "qualities written out though all are good": (QUALITY, bytes(6)),
    "an unknown quality": (QUALITY, b"\x03" + bytes(5)),
    "a value hidden where there is none": (QUALITY, b"\x02" + bytes(5)),
    "a span of one": (SPANS, array("i1", [1])),
    "a span without a cell": (SPANS, array("i1", [2])),
    "cells of spans without spans": (CELLS, array("i1", [1])),
    "no rows": (ROWS, 0),
    "negative rows": (ROWS, -3),
    "more rows than differences": (ROWS, 4),
    "fewer rows than differences": (ROWS, 2),
    "a negative slot": (SLOT, -1),
    "a slot of more than 48 bits": (SLOT, 1 << 48),
    "a slot that is bytes": (SLOT, b"\x00"),
    "rows that are text": (ROWS, "3"),
    "numbers that are no typed array": (NUMBERS, b"\x01\x01"),
    "a number twice": (NUMBERS, array("i1", [1, 0])),
    "numbers that run over": (NUMBERS, array("i8", [(1 << 63) - 1, 1])),
    "no numbers": (NUMBERS, array("i1", [])),
    "a typed array with half a number": (FIRST, cbor2.CBORTag(77, b"\x01\x00\x02")),
    "differences that run over": (DELTAS, [array("i8", [1, 1, (1 << 63) - 1, (1 << 63) - 1])]),
    "differences in two groups": (DELTAS, [array("i1", [1, 1]), array("i1", [1, 1])]),
    "no differences": (DELTAS, []),
    "differences that are no list": (DELTAS, array("i1", [1, 1, 1, 1])),
    "a difference that is a number": (DELTAS, [1]),
    "widths that are text": (WIDTHS, "\x00\x00"),
    "nested typed arrays": (FIRST, cbor2.CBORTag(72, array("i1", [5, 6]))),
}


@pytest.mark.parametrize(("part", "value"), SECOND_FORMS.values(), ids=SECOND_FORMS.keys())
def test_a_second_form_of_a_block_is_malformed(part: int, value: Any) -> None:
    parts = content_of(block(7, [1, 2], [[5, 6], [6, 7], [7, 8]]))
    assert_same(read_content(parts), [block(7, [1, 2], [[5, 6], [6, 7], [7, 8]])])
    parts[part] = value
    with pytest.raises(Malformed):
        read_content(parts)


@pytest.mark.parametrize(
    "body",
    [
        [2, [[0, 1]]],
        [1, []],
        [1],
        [1, [1]],
        [1, [[]]],
        [1, {}],
        {},
        1,
        [1, [[0] * 9], 0],
        [1, [[0] * 9] * (batch.MAX_BLOCKS + 1)],
    ],
    ids=lambda body: repr(body)[:20],
)
def test_a_body_of_another_shape_is_malformed(body: Any) -> None:
    with pytest.raises(Malformed):
        decode(packed(cbor2.dumps(body, canonical=True)))


def test_more_blocks_than_the_bound_are_malformed() -> None:
    parts = content_of(block(0, [1], [1]))
    read_content(*[parts] * batch.MAX_BLOCKS)
    with pytest.raises(Malformed):
        read_content(*[parts] * (batch.MAX_BLOCKS + 1))


def test_bytes_after_the_compressed_frame_are_malformed() -> None:
    data = encode([block(0, [1], [1])])
    skippable = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"free"
    for rest in (b"\x00", data, skippable):
        with pytest.raises(Malformed):
            decode(data + rest)
    with pytest.raises(Malformed):
        decode(skippable + data)


def test_a_frame_that_does_not_say_its_size_is_malformed() -> None:
    body = body_of(encode([block(0, [1], [1])]))
    with pytest.raises(Malformed):
        decode(zstandard.ZstdCompressor(write_content_size=False).compress(body))


HOSTILE = """
import resource, sys
import cbor2, numpy as np, zstandard
from protocols.batch import MAX_BODY, MAX_CELLS, decode
from protocols.strict_cbor import Malformed

def packed(body):
    return zstandard.ZstdCompressor(level=1, write_content_size=True).compress(body)

def array(tag, values):
    return cbor2.CBORTag(tag, values)

def wide(rows, columns):
    first = array(72, bytes(columns))
    steps = [array(72, bytes((rows - 1) * columns))] if rows > 1 else []
    widths = bytes(columns) if rows > 1 else b""
    return [0, rows, array(72, b"\\x01" * columns), first, widths, steps, b"",
            array(72, b""), array(72, b"")]

def body(*blocks):
    return packed(cbor2.dumps([1, list(blocks)], canonical=True))

forged = bytearray(packed(bytes(1 << 20)))
cases = {
    "zeros": packed(bytes(MAX_BODY)),
    "more than the bound": packed(bytes(MAX_BODY + 1)),
    "a gigabyte": zstandard.ZstdCompressor(level=1).compress(bytes(1 << 30)),
    "says a terabyte": b"\\x28\\xb5\\x2f\\xfd\\xe0" + (1 << 40).to_bytes(8, "little") + b"\\x01\\x00\\x00",
    "wants a window of 2 GB": b"\\x28\\xb5\\x2f\\xfd\\x40\\xa8" + b"\\x10\\x00" + b"\\x01\\x00\\x00",
    "many columns in one block": body(wide(1, MAX_CELLS + 1)),
    "many rows in one block": body(wide(MAX_CELLS + 1, 1)),
    "a square": body([0, MAX_CELLS, *wide(1, 4096)[2:]]),
    "the most cells again and again": body(*[wide(MAX_CELLS // 2, 1)] * 7),
    "many wide rows": body(*[wide(1, 1000)] * 4000),
}
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
bound = used + (192 << 20)
resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
for name, data in cases.items():
    try:
        decode(data)
    except Malformed:
        print("malformed:", name)
    except MemoryError:
        print("took too much memory:", name)
    else:
        print("read:", name)
"""


def test_hostile_bodies_are_malformed_within_bounded_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    outcomes = dict(line.split(": ")[::-1] for line in done.stdout.splitlines())
    # As many cells as a body can name are read; the bound is on the bytes of the body.
    for name in ("the most cells again and again", "many wide rows"):
        assert outcomes.pop(name) == "read"
    assert len(outcomes) == 8
    assert set(outcomes.values()) == {"malformed"}


def test_arrays_that_were_read_do_not_depend_on_the_message() -> None:
    data = bytearray(encode([block(0, [1], [1, 2], [0, 1])]))
    (found,) = decode(bytes(data))
    data[:] = bytes(len(data))
    assert found.mantissa.tolist() == [[1], [2]]
    assert found.values == 2
    codes: NDArray[np.uint8] = found.quality
    assert codes.tolist() == [[0], [1]]

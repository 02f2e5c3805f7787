"""Cases of kind `body`: section 6."""

from collections.abc import Iterator
from typing import Any

import cbor2
import numpy as np
import zstandard

from protocols import batch
from protocols.batch import NO_VALUE, Block
from tests.vectors.cases_cbor import Case
from tests.vectors.material import encoded


def sample(rows: int = 2) -> Block:
    """Two points in consecutive slots, one value missing, one counting over three slots."""
    mantissa = np.array([[100, -7], [105, 0], [70_000, 3]], np.int64)[:rows]
    quality = np.zeros((rows, 2), np.uint8)
    if rows > 1:
        quality[1, 1] = NO_VALUE
    return Block(
        slot=354_000_000,
        numbers=np.array([1, 300], np.int64),
        mantissa=mantissa,
        quality=quality,
        span_cells=np.array([0], np.int64),
        spans=np.array([3], np.int64),
    )


def frame(body: object) -> bytes:
    data = body if isinstance(body, bytes) else encoded(body)
    return zstandard.ZstdCompressor(level=3, write_content_size=True).compress(data)


def body_of(*blocks: Block) -> Any:
    return thawed(cbor2.loads(zstandard.ZstdDecompressor().decompress(batch.encode(blocks))))


def thawed(item: Any) -> Any:
    return [thawed(one) for one in item] if isinstance(item, list | tuple) else item


def ints(width: int, *values: int) -> cbor2.CBORTag:
    tag = {1: 72, 2: 77, 4: 78, 8: 79}[width]
    return cbor2.CBORTag(tag, np.array(values, f"<i{width}").tobytes())


def changed(at: int, value: object, rows: int = 2) -> bytes:
    body = body_of(sample(rows))
    body[1][0][at] = value
    return frame(body)


def _two_frames() -> bytes:
    data = encoded(body_of(sample()))
    return frame(data) + frame(b"")


def _sizeless() -> bytes:
    compressor = zstandard.ZstdCompressor(level=3, write_content_size=False)
    return compressor.compress(encoded(body_of(sample())))


def cases() -> Iterator[Case]:
    for name, data in {
        "a block of two slots": batch.encode([sample()]),
        "a single slot": batch.encode([sample(1)]),
        "differences of two widths": batch.encode([sample(3)]),
        "two blocks": batch.encode([sample(), sample(1)]),
    }.items():
        yield "body", name, "-", data, []
    whole = body_of(sample())
    for name, data in {
        "nothing at all": b"",
        "no zstd frame": b"\x00" * 40,
        "a frame cut short": batch.encode([sample()])[:-1],
        "a byte behind the frame": batch.encode([sample()]) + b"\0",
        "a second frame": _two_frames(),
        "a frame that does not state its size": _sizeless(),
        "a frame that holds more than the bound": frame(bytes((8 << 20) + 1)),
        "another version": frame([2, whole[1]]),
        "no blocks": frame([1, []]),
        "a third member": frame([1, whole[1], 0]),
        "a block of eight parts": frame([1, [whole[1][0][:8]]]),
        "a block that is a map": frame([1, [{}]]),
        "a negative slot": changed(0, -1),
        "a slot beyond the bound": changed(0, 1 << 48),
        "no rows": changed(1, 0),
        "more rows than there are": changed(1, 3),
        "too many cells": changed(1, 1 << 21),
        "numbers as plain integers": changed(2, [1, 299]),
        "numbers wider than needed": changed(2, ints(4, 1, 299)),
        "a number twice": changed(2, ints(1, 1, 0)),
        "numbers that descend": changed(2, ints(1, 5, -1)),
        "a number beyond the bound": changed(2, ints(8, 1, 1 << 31)),
        "a negative number": changed(2, ints(2, -1, 299)),
        "no numbers": changed(2, ints(1)),
        "an unsigned typed array": changed(3, cbor2.CBORTag(64, b"\x64\x07")),
        "a first row too short": changed(3, ints(1, 100)),
        "a first row wider than needed": changed(3, ints(2, 100, -7)),
        "a mantissa beyond the bound": changed(3, ints(8, (1 << 53) + 1, -7)),
        "a typed array of half an integer": changed(3, cbor2.CBORTag(77, b"\1\2\3")),
        "a width that does not exist": changed(4, b"\x00\x04"),
        "widths for one column only": changed(4, b"\x00"),
        "a width wider than needed": changed(4, b"\x01\x00"),
        "widths of a single row": changed(4, b"\x00\x00", rows=1),
        "no differences": changed(5, []),
        "a difference too many": changed(5, [ints(1, 5, 0, 0)]),
        "a difference for a missing value": changed(5, [ints(1, 5, 1)]),
        "a quality that does not exist": changed(6, b"\0\0\0\3"),
        "a quality for three of four cells": changed(6, b"\0\0\0"),
        "qualities that are all good": changed(6, b"\0\0\0\0"),
        "quality as text": changed(6, "\0\0\0\2"),
        "a span of one slot": changed(8, ints(1, 1)),
        "a span of no slot": changed(8, ints(1, 0)),
        "a span for a cell that is not there": changed(7, ints(1, 4)),
        "a span for a missing value": changed(7, ints(1, 3)),
        "spans without their cells": changed(7, ints(1)),
        "a float in a block": frame(cbor2.dumps([1, [[1.5, *whole[1][0][1:]]]])),
        "a body in indefinite form": frame(b"\x9f\x01\x80\xff"),
        "bytes behind the body": frame(encoded(whole) + b"\0"),
    }.items():
        yield "body", name, "malformed", data, []

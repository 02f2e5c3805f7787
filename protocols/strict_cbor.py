"""The strict part of CBOR (RFC 8949 §4.2) that everything on the wire is written in.

Only integers of 64 bits, byte strings, text, arrays, maps and the tags a caller names; only
shortest heads, definite lengths, and map keys sorted and unique. What decodes here encodes
back to the same bytes, so that one meaning has one form and one hash.
"""

import sys
from collections.abc import Mapping
from typing import Any, Final

import cbor2

from protocols.errors import MillgateError

_UINT, _NEGINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
MAX_DEPTH: Final = 8
_MAX_ITEMS: Final = 1 << 20
_INT64: Final = 1 << 63
_SHORT: Final = 64


class Malformed(MillgateError):
    """Bytes that are not in the one form we accept."""


def encode(item: object) -> bytes:
    """Write an item in its one form; map keys must be integers from -2**31 to 23, or text."""
    return cbor2.dumps(item, canonical=True)


def decode(
    data: bytes,
    *,
    max_bytes: int,
    tags: frozenset[int] = frozenset(),
    max_depth: int = MAX_DEPTH,
) -> Any:
    """Read one item and nothing else.

    Args:
        data: the bytes.
        max_bytes: how many there may be.
        tags: the tag numbers that may occur; they come back as `cbor2.CBORTag`.
        max_depth: how deep containers may nest.

    Returns:
        int, bytes, str, list, dict or CBORTag.

    Raises:
        Malformed: when the bytes are not exactly one item in its one form.
    """
    if len(data) > max_bytes:
        raise Malformed("too many bytes")
    reader = _Reader(data, tags, max_depth)
    item = reader.item(0)
    if reader.at != len(data):
        raise Malformed("bytes after the end")
    return item


def uint(value: object) -> int:
    """Return a decoded item that must be an unsigned integer.

    Raises:
        Malformed: when it is not.
    """
    if not (isinstance(value, int) and value >= 0):
        raise Malformed("not an unsigned integer")
    return value


def fixed(value: object, length: int) -> bytes:
    """Return a decoded item that must be a byte string of that length.

    Raises:
        Malformed: when it is not.
    """
    if not (isinstance(value, bytes) and len(value) == length):
        raise Malformed("not a byte string of the right length")
    return value


class _Reader:
    """Walks the bytes once; every length is checked before anything is taken."""

    __slots__ = ("at", "data", "items", "max_depth", "tags")

    def __init__(self, data: bytes, tags: frozenset[int], max_depth: int) -> None:
        self.data = data
        self.tags = tags
        self.max_depth = max_depth
        self.at = 0
        self.items = 0

    def item(self, depth: int) -> Any:
        if depth > self.max_depth:
            raise Malformed("nested too deep")
        self.items += 1
        if self.items > _MAX_ITEMS:
            raise Malformed("too many items")
        major, value = self._head()
        if major in (_UINT, _NEGINT):
            return self._integer(major, value)
        if major in (_BYTES, _TEXT):
            return self._string(major, value)
        if major == _ARRAY:
            self._check_room(value)
            return [self.item(depth + 1) for _ in range(value)]
        if major == _MAP:
            self._check_room(2 * value)
            return self._map(value, depth)
        return self._tagged(major, value, depth)

    def _head(self) -> tuple[int, int]:
        first = self._take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        if info > 27:
            raise Malformed("indefinite or reserved length")
        width = 1 << (info - 24)
        value = int.from_bytes(self._take(width), "big")
        smallest = 24 if width == 1 else 1 << (4 * width)
        if value < smallest:
            raise Malformed("head is not the shortest")
        return major, value

    def _integer(self, major: int, value: int) -> int:
        if value >= _INT64:
            raise Malformed("integer does not fit 64 bits")
        return value if major == _UINT else -1 - value

    def _string(self, major: int, length: int) -> bytes | str:
        taken = self._take(length)
        if major == _BYTES:
            return taken
        try:
            text = taken.decode("utf-8")
            # Ten thousand points repeat a few names and words: one of each is enough.
            return sys.intern(text) if len(text) <= _SHORT else text
        except UnicodeDecodeError:
            raise Malformed("text is not UTF-8") from None

    def _map(self, count: int, depth: int) -> Mapping[Any, Any]:
        found: dict[Any, Any] = {}
        last: tuple[int, bytes] | None = None
        for _ in range(count):
            start = self.at
            key = self.item(depth + 1)
            if not isinstance(key, int | str):
                raise Malformed("map key is neither integer nor text")
            written = self.data[start : self.at]
            order = (len(written), written)
            if last is not None and order <= last:
                raise Malformed("map keys not sorted or not unique")
            last = order
            found[key] = self.item(depth + 1)
        return found

    def _tagged(self, major: int, value: int, depth: int) -> cbor2.CBORTag:
        if major != _TAG or value not in self.tags:
            raise Malformed("type or tag not allowed")
        return cbor2.CBORTag(value, self.item(depth + 1))

    def _check_room(self, items: int) -> None:
        if items > len(self.data) - self.at:
            raise Malformed("shorter than it says")

    def _take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise Malformed("shorter than it says")
        taken = self.data[self.at : end]
        self.at = end
        return taken

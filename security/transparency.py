"""An append-only Merkle log (RFC 9162 section 2.1): hashes, proofs, and their checks.

A log keeps the hash of every *perfect* subtree, one whose leaves are a power of two in number and
begin at a multiple of it. They never change, and every root and proof is made of them.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from protocols.errors import MillgateError

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
MOST_LEVELS: Final = 63
"""Hashes that a proof has at most: the log counts in 63 bits."""

Get = Callable[[int, int], bytes]
"""Returns the hash of a perfect subtree: its level (leaves are level 0), its place in the level."""
Put = Callable[[int, int, bytes], None]


class NotProven(MillgateError):
    """A proof that does not show what it is said to show."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf, RFC 9162 section 2.1.1."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node from those of its children, RFC 9162 section 2.1.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def append(size: int, data: bytes, get: Get, put: Put) -> None:
    """Add a leaf to a log of `size` leaves: the perfect subtrees that it completes are put."""
    found, level, place = leaf_hash(data), 0, size
    put(level, place, found)
    while place & 1:
        found = node_hash(get(level, place - 1), found)
        level, place = level + 1, place >> 1
        put(level, place, found)


def root(size: int, get: Get) -> bytes:
    """Return the root of the first `size` leaves."""
    return _range_hash(0, size, get) if size else EMPTY_ROOT


def _range_hash(start: int, end: int, get: Get) -> bytes:
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return get(level, start >> level)
    middle = start + _split(count)
    return node_hash(_range_hash(start, middle, get), _range_hash(middle, end, get))


def _split(count: int) -> int:
    """Return the largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def inclusion(index: int, size: int, get: Get) -> list[bytes]:
    """Return the proof that leaf `index` is in the log of `size` leaves, RFC 9162 section 2.1.3.1.

    Raises:
        ValueError: when there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range_hash(middle, end, get))
            end = middle
        else:
            path.append(_range_hash(start, middle, get))
            start = middle
    return path[::-1]


def consistency(older: int, newer: int, get: Get) -> list[bytes]:
    """Return the proof that the first `older` leaves of `newer` are unchanged, section 2.1.4.1.

    It is empty where nothing needs proof: from an empty log, or between equal sizes.

    Raises:
        ValueError: when `older` is not from 0 to `newer`.
    """
    if not 0 <= older <= newer:
        raise ValueError("the older log is larger than the newer one")
    if older in {0, newer}:
        return []
    path: list[bytes] = []
    start, end, whole = 0, newer, True
    while older != end:
        middle = start + _split(end - start)
        if older <= middle:
            path.append(_range_hash(middle, end, get))
            end = middle
        else:
            path.append(_range_hash(start, middle, get))
            start, whole = middle, False
    if not whole:
        path.append(_range_hash(start, end, get))
    return path[::-1]


def check_inclusion(index: int, size: int, data: bytes, path: Sequence[bytes], head: bytes) -> None:
    """Check an inclusion proof, RFC 9162 section 2.1.3.2.

    Raises:
        NotProven: when it does not show that `data` is leaf `index` of the log with this head.
    """
    if not 0 <= index < size or len(path) > MOST_LEVELS:
        raise NotProven("no such leaf")
    first, last, found = index, size - 1, leaf_hash(data)
    for part in path:
        if last == 0:
            raise NotProven("the proof is too long")
        if first & 1 or first == last:
            found = node_hash(part, found)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            found = node_hash(found, part)
        first, last = first >> 1, last >> 1
    if last or found != head:
        raise NotProven("the leaf is not in the log")


def check_consistency(
    older: int, older_head: bytes, newer: int, newer_head: bytes, path: Sequence[bytes]
) -> None:
    """Check a consistency proof, RFC 9162 section 2.1.4.2.

    Raises:
        NotProven: when it does not show that the newer log begins with the older one.
    """
    if not 0 <= older <= newer or len(path) > 2 * MOST_LEVELS:
        raise NotProven("the log has shrunk")
    if older in {0, newer}:
        expected = EMPTY_ROOT if older == 0 else newer_head
        if path or older_head != expected:
            raise NotProven("the log is another one")
        return
    parts = list(path) if older & (older - 1) else [older_head, *path]
    if (older_head, newer_head) != _heads_from(older, newer, parts):
        raise NotProven("the newer log does not begin with the older one")


def _heads_from(older: int, newer: int, parts: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the two roots that a consistency proof leads to."""
    if not parts:
        raise NotProven("the proof is too short")
    first, last = older - 1, newer - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    before = after = parts[0]
    for part in parts[1:]:
        if last == 0:
            raise NotProven("the proof is too long")
        if first & 1 or first == last:
            before, after = node_hash(part, before), node_hash(part, after)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            after = node_hash(after, part)
        first, last = first >> 1, last >> 1
    if last:
        raise NotProven("the proof is too short")
    return before, after

"""Numbers that look random but are a pure function of seed, name and index."""

import hashlib
import struct


def draws(seed: int, name: str, index: int, count: int) -> tuple[int, ...]:
    """Return `count` integers below 65,536."""
    digest = hashlib.shake_256(f"{seed}/{name}/{index}".encode()).digest(2 * count)
    return struct.unpack(f">{count}H", digest)


def draw(seed: int, name: str, index: int, below: int) -> int:
    """Return one integer in [0, below); `below` is far below 2**64, so no value is favoured."""
    digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % below


def wander(seed: int, name: str, index: int, step: int, spread: int) -> int:
    """Return step x index plus a draw below `spread`, less that of index 0.

    Neighbours differ by step +- (spread - 1), so with spread <= step the sum never falls:
    a cumulative total with random growth, known for any index without adding up.
    """
    return step * index + draw(seed, name, index, spread) - draw(seed, name, 0, spread)

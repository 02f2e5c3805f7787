"""How streams are numbered, so that whoever reads a topic knows which of them are whose."""

import hashlib
from typing import Final

from protocols import strict_cbor

_DAY_S: Final = 86_400


def stream_id(consumer_key: bytes, window_s: int) -> int:
    """Return the opaque number of a consumer's stream; window 0 is its stream of sheets.

    It depends on nothing else, so that a chain goes on when the policy changes.
    """
    digest = hashlib.sha256(strict_cbor.encode(["mg1/stream", consumer_key, window_s])).digest()
    return int.from_bytes(digest[:6], "big")


def own_streams(consumer_key: bytes) -> frozenset[int]:
    """Return the numbers of all streams that a consumer can have: slots divide a day.

    Args:
        consumer_key: the pin of its encryption key.
    """
    slots = (window_s for window_s in range(1, _DAY_S + 1) if _DAY_S % window_s == 0)
    return frozenset(stream_id(consumer_key, window_s) for window_s in (0, *slots))

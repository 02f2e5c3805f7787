"""How large a message may be: what the brokers pass, so that batches are sealed to fit."""

from collections.abc import Sequence

from agent.spool import Spool
from protocols.broker import LEAST_LIMIT, MAX_MESSAGE, BrokerConfig


def note_largest(spool: Spool, place: str, largest: int) -> None:
    """Remember the largest payload that a broker passes."""
    if spool.meta(_key(place), MAX_MESSAGE) != largest:
        spool.set_meta({_key(place): largest})


def largest_message(spool: Spool, brokers: Sequence[BrokerConfig]) -> int:
    """Return the largest payload that every configured broker passes, as far as is known."""
    known: list[int] = [spool.meta(_key(broker.place), MAX_MESSAGE) for broker in brokers]
    stated = [broker.max_kb * 1024 for broker in brokers]
    return max(min([*known, *stated, MAX_MESSAGE]), LEAST_LIMIT)


def _key(place: str) -> str:
    return f"largest:{place}"

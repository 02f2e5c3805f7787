"""Messages that came before their turn: kept a while, so that a reordering line costs no resending."""

from dataclasses import dataclass, field
from typing import Final

from protocols.topics import Address

WINDOW: Final = 64
"""How far ahead of its turn a message may be."""

_MOST_ALL: Final = 256
_LONGEST_S: Final = 600

Place = tuple[Address, int, int]
"""Whose chain: address, epoch, stream."""


@dataclass(slots=True)
class _Chain:
    since_s: int
    messages: dict[int, bytes] = field(default_factory=dict)


class Early:
    """A bounded buffer in memory; what it forgets is sent again, since no receipt came."""

    def __init__(self) -> None:
        self._chains: dict[Place, _Chain] = {}

    def put(self, place: Place, sequence: int, following: int, message: bytes, now_s: int) -> bool:
        """Keep a message whose turn is yet to come; return whether it was kept."""
        self._forget(now_s)
        own = sum(
            len(chain.messages) for other, chain in self._chains.items() if other[0] == place[0]
        )
        together = sum(len(chain.messages) for chain in self._chains.values())
        if sequence - following > WINDOW or own >= WINDOW or together >= _MOST_ALL:
            return False
        chain = self._chains.setdefault(place, _Chain(now_s))
        return chain.messages.setdefault(sequence, message) is message

    def take(self, place: Place, sequence: int) -> bytes | None:
        """Return the message whose turn it is; None when it is not here."""
        chain = self._chains.get(place)
        if chain is None:
            return None
        found = chain.messages.pop(sequence, None)
        for old in [one for one in chain.messages if one < sequence]:
            del chain.messages[old]
        if not chain.messages:
            del self._chains[place]
        return found

    def drop(self, address: Address) -> None:
        """Forget what came early of one agent."""
        for place in [place for place in self._chains if place[0] == address]:
            del self._chains[place]

    def _forget(self, now_s: int) -> None:
        # What came "later" than now came before the clock was set back.
        chains = self._chains.items()
        old = [one for one, chain in chains if not 0 <= now_s - chain.since_s <= _LONGEST_S]
        for place in old:
            del self._chains[place]

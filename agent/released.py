"""The four messages between gate side and sealed side, and the only link that carries them.

`Hello` -> `Restore`, then `Released` -> `Committed`, over and over. Nothing else passes. Where a new
epoch must begin, `Restore` answers a `Released`, of which nothing is kept then.
"""

import asyncio
from dataclasses import dataclass

from protocols.batch import Block


@dataclass(frozen=True, slots=True)
class Hello:
    """The gate side is there and enforces this policy."""

    policy_hash: bytes


@dataclass(frozen=True, slots=True)
class Restore:
    """Where the gate side goes on.

    Attributes:
        number: of the last committed message.
        epoch: the chain that this run belongs to.
        policy_hash: under which `memory` was sealed.
        memory: sealed gate memory as of `number`; empty at the start of an epoch.
    """

    number: int
    epoch: int
    policy_hash: bytes
    memory: bytes


@dataclass(frozen=True, slots=True)
class Released:
    """Slots that leave, and the memory to go on from when they are committed.

    Attributes:
        streams: the closed slots of each stream.
        memory: sealed gate memory.
    """

    number: int
    policy_hash: bytes
    streams: dict[int, list[Block]]
    memory: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """Message `number` is durable, all of it."""

    number: int


class Link:
    """Joins the two sides; at most one message waits in each direction."""

    def __init__(self) -> None:
        self.to_sealed: asyncio.Queue[Hello | Released] = asyncio.Queue(1)
        self.to_gate: asyncio.Queue[Restore | Committed] = asyncio.Queue(1)

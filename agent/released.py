"""The four messages between gate side and sealed side, and their one form on the socket.

`Hello` -> `Restore`, then `Released` -> `Committed`, over and over. Nothing else passes. Where a new
epoch must begin, `Restore` answers a `Released`, of which nothing is kept then. A message is CBOR
as `protocols.strict_cbor` reads it; arrays are byte strings of little-endian int64:

    hello     = [1, "mg-link/1", policy-hash, ended: 0..2, [* signed-sheet]]
    restore   = [2, number, epoch, policy-hash, gate-memory, at]
    released  = [3, number, policy-hash, [* [stream, [+ block]]], gate-memory]
    committed = [4, number]
    block     = [slot, numbers, mantissa, quality, span-cells, spans]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np

from protocols import strict_cbor
from protocols.batch import Block, check_block
from protocols.frame import Ints
from protocols.strict_cbor import Malformed, fixed, uint

MOST_BYTES: Final = 256 << 20
"""Bytes of a whole message; a gate that is full has closed 2 million cells."""

_LINK: Final = "mg-link/1"
_HASH: Final = 32
_INT64: Final = np.dtype("<i8")
_MOST_STREAMS: Final = 256
_MOST_SHEETS: Final = 16
_HELLO, _RESTORE, _RELEASED, _COMMITTED = 1, 2, 3, 4


class Ended(IntEnum):
    """Whether a policy has ended: nothing more is released, and that is said."""

    NOT = 0
    STOPPED = 1
    """An officer has stopped it."""
    EXPIRED = 2
    """Its validity is over."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The gate side is there and enforces this policy.

    Attributes:
        policy_hash: of the policy that is enforced from now on.
        sheets: its release sheets as the officers signed them; all that the sealed side learns
            about the policy.
        ended: whether it has ended.
    """

    policy_hash: bytes
    sheets: tuple[bytes, ...] = ()
    ended: Ended = Ended.NOT


@dataclass(frozen=True, slots=True)
class Restore:
    """Where the gate side goes on.

    Attributes:
        number: of the last committed message.
        epoch: the chain that this run belongs to.
        policy_hash: under which `memory` was sealed.
        memory: sealed gate memory as of `number`; empty at the start of an epoch.
        at: when that was committed, seconds since 1970 UTC; 0 for never.
    """

    number: int
    epoch: int
    policy_hash: bytes
    memory: bytes
    at: int = 0


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


FromGate = Hello | Released
FromSealed = Restore | Committed


def encode(message: FromGate | FromSealed) -> bytes:
    """Return a message's one form."""
    return strict_cbor.encode(_items(message))


def _items(message: FromGate | FromSealed) -> list[Any]:
    match message:
        case Hello(policy_hash, sheets, ended):
            return [_HELLO, _LINK, policy_hash, int(ended), list(sheets)]
        case Restore(number, epoch, policy_hash, memory, at):
            return [_RESTORE, number, epoch, policy_hash, memory, at]
        case Released(number, policy_hash, streams, memory):
            ordered = [
                [stream, [_write_block(block) for block in blocks]]
                for stream, blocks in sorted(streams.items())
            ]
            return [_RELEASED, number, policy_hash, ordered, memory]
        case Committed(number):
            return [_COMMITTED, number]


def decode_from_gate(data: bytes) -> FromGate:
    """Read what only the gate side may say.

    Raises:
        Malformed: when it is not a `Hello` or a `Released` in its one form.
    """
    match _decode(data):
        case [1, "mg-link/1", policy_hash, 0 | 1 | 2 as ended, [*sheets]] if (
            len(sheets) <= _MOST_SHEETS
        ):
            return Hello(fixed(policy_hash, _HASH), tuple(map(_bytes, sheets)), Ended(ended))
        case [3, number, policy_hash, [*streams], memory] if len(streams) <= _MOST_STREAMS:
            return Released(
                uint(number), fixed(policy_hash, _HASH), _read_streams(streams), _bytes(memory)
            )
    raise Malformed("not a message of the gate side")


def decode_from_sealed(data: bytes) -> FromSealed:
    """Read what only the sealed side may say.

    Raises:
        Malformed: when it is not a `Restore` or a `Committed` in its one form.
    """
    match _decode(data):
        case [2, number, epoch, policy_hash, memory, at]:
            return Restore(
                uint(number), uint(epoch), fixed(policy_hash, _HASH), _bytes(memory), uint(at)
            )
        case [4, number]:
            return Committed(uint(number))
    raise Malformed("not a message of the sealed side")


def _decode(data: bytes) -> Any:
    return strict_cbor.decode(data, max_bytes=MOST_BYTES)


def _bytes(item: object) -> bytes:
    if not isinstance(item, bytes):
        raise Malformed("not a byte string")
    return item


def _write_block(block: Block) -> list[Any]:
    arrays = (block.numbers, block.mantissa, block.quality, block.span_cells, block.spans)
    numbers, mantissa, quality, cells, spans = (_raw(array) for array in arrays)
    return [block.slot, numbers, mantissa, quality, cells, spans]


def _raw(array: "np.ndarray[Any, np.dtype[Any]]") -> bytes:
    return array.astype(np.uint8 if array.dtype == np.uint8 else _INT64, copy=False).tobytes()


def _read_streams(items: Sequence[object]) -> dict[int, list[Block]]:
    streams: dict[int, list[Block]] = {}
    last = -1
    for item in items:
        match item:
            case [int(stream), [_, *_] as blocks] if last < stream:
                streams[stream] = [_read_block(block) for block in blocks]
                last = stream
            case _:
                raise Malformed("not the slots of a stream")
    return streams


def _read_block(item: object) -> Block:
    if not (isinstance(item, list) and len(item) == 6):
        raise Malformed("not a block")
    slot = uint(item[0])
    numbers, mantissa = _ints(item[1]), _ints(item[2])
    quality = np.frombuffer(_bytes(item[3]), np.uint8)
    width = len(numbers)
    if not width or len(mantissa) % width or len(quality) != len(mantissa):
        raise Malformed("not a rectangle")
    block = Block(
        slot=slot,
        numbers=numbers,
        mantissa=mantissa.reshape(-1, width),
        quality=quality.reshape(-1, width),
        span_cells=_ints(item[4]),
        spans=_ints(item[5]),
    )
    try:
        check_block(block)
    except ValueError:
        raise Malformed("a block breaks the rules") from None
    return block


def _ints(item: object) -> Ints:
    data = _bytes(item)
    if len(data) % _INT64.itemsize:
        raise Malformed("not an array of int64")
    return np.frombuffer(data, _INT64)

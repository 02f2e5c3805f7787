"""Everything a Modbus device can do to a single answer.

Wherever an answer is wrong, its data is foreign: right values of other registers, so that a
client that takes it shows values under names they do not belong to.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from simulators.faults.modbus_wire import (
    COILS,
    DISCRETES,
    HOLDING,
    INPUT,
    NO_ANSWER,
    Frames,
    Registers,
    Request,
    TcpFrames,
    answer,
    exception,
)

_SIBLING: Final = {COILS: DISCRETES, DISCRETES: COILS, HOLDING: INPUT, INPUT: HOLDING}
_FLUSH_S: Final = 10.0
_TCP_HEAD: Final = 9
"""Of Modbus TCP only header, function and byte count can be told to be damaged."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How slow the slow faults are, in seconds.

    Attributes:
        late_s: a late answer that nobody's further question released is sent after this long.
        drip_s: between two bytes of an answer that drips.
        away_s: how long a restart takes.
        gateway_s: how long a gateway waits for a dead unit, while all its units wait.
    """

    late_s: float = 5.0
    drip_s: float = 0.05
    away_s: float = 1.0
    gateway_s: float = 1.0


class Wire:
    """The way back to one client.

    Attributes:
        held: late answers that are still to be sent.
        before: the PDU that answered the request before this one; empty for the first.
        over: whether the connection is to end.
        frame: puts a PDU into a frame; see `Frames`.
    """

    def __init__(self, writer: asyncio.StreamWriter, frames: Frames) -> None:
        self._writer = writer
        self.frame = frames.frame
        self.damageable = _TCP_HEAD if isinstance(frames, TcpFrames) else None
        self.held: deque[bytes] = deque(maxlen=16)
        self.before = b""
        self.over = False

    async def send(self, data: bytes) -> None:
        """Write some bytes.

        Raises:
            TimeoutError: when the client does not take them.
        """
        self._writer.write(data)
        async with asyncio.timeout(_FLUSH_S):
            await self._writer.drain()

    async def release(self) -> None:
        """Send the late answers."""
        while self.held:
            await self.send(self.held.popleft())

    def hang_up(self) -> None:
        """End the connection after what was sent."""
        self.over = True


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and what there is to answer it with.

    Attributes:
        request: what was asked.
        pdu: the right answer.
        registers: where foreign values come from.
        wire: the way back.
        chance, pace: as the server was told.
        restart: takes the whole device away for a while.
    """

    request: Request
    pdu: bytes
    registers: Registers
    wire: Wire
    chance: random.Random
    pace: Pace
    restart: Callable[[], None] = field(repr=False)

    @property
    def right(self) -> bytes:
        """The whole right answer."""
        return self.wire.frame(self.request.transaction, self.request.unit, self.pdu)

    def foreign(self, function: int | None = None, count: int | None = None) -> bytes:
        """Return an answer of another function or length with the values of other registers."""
        first, asked = self.request.span
        function = function or self.request.function
        wanted = asked if count is None else count
        # Not a neighbour, whose answer would overlap; and it wraps around inside the table.
        elsewhere = (first + 137) % 300
        moved = Request(0, self.request.unit, _read(function, elsewhere, max(wanted, 1)))
        pdu = answer(self.registers, moved)
        return bytes((function, 0)) if wanted == 0 else pdu

    async def say(
        self, pdu: bytes, *, unit: int | None = None, transaction: int | None = None
    ) -> None:
        """Send a PDU under a header of one's choice."""
        await self.wire.send(
            self.wire.frame(
                self.request.transaction if transaction is None else transaction,
                self.request.unit if unit is None else unit,
                pdu,
            )
        )


Lie: TypeAlias = Callable[[Exchange], Awaitable[None]]


def _read(function: int, first: int, count: int) -> bytes:
    return bytes((function,)) + first.to_bytes(2, "big") + count.to_bytes(2, "big")


async def truth(at: Exchange) -> None:
    """Answer rightly."""
    await at.wire.send(at.right)


async def late_reply(at: Exchange) -> None:
    """Hold the answer until the next request is asked; then that one gets it."""
    at.wire.held.append(at.right)


async def wrong_transaction(at: Exchange) -> None:
    """Answer as if to another request of this connection."""
    other = at.request.transaction ^ at.chance.randint(1, 0xFFFF)
    await at.say(at.foreign(), transaction=other or 0xFFFF)


async def zero_transaction(at: Exchange) -> None:
    """Answer with transaction 0, as gateways do that have lost count."""
    await at.say(at.foreign(), transaction=0)


async def stale_data(at: Exchange) -> None:
    """Answer with the previous answer's function and data, under a right header.

    So does a serial gateway that mistakes a late answer of its device for the awaited one. Where
    function and length are the same, no client can tell.
    """
    await at.say(at.wire.before or at.pdu)


async def wrong_unit(at: Exchange) -> None:
    """Answer with the values, and the number, of another unit."""
    other = at.request.unit % 3 + 1
    moved = Request(0, other, at.request.pdu)
    await at.say(answer(at.registers, moved), unit=other)


async def wrong_function(at: Exchange) -> None:
    """Answer with the same addresses of the sibling table, under its function code."""
    function = _SIBLING.get(at.request.function, HOLDING)
    first, count = at.request.span
    moved = Request(0, at.request.unit, _read(function, first, max(count, 1)))
    await at.say(answer(at.registers, moved))


async def wrong_protocol(at: Exchange) -> None:
    """Answer under a protocol number that is not Modbus."""
    request = at.request
    await at.wire.send(
        at.wire.frame(request.transaction, request.unit, at.foreign(), protocol=0x4D47)
    )


async def short_reply(at: Exchange) -> None:
    """Answer with fewer values than were asked for."""
    count = at.request.span[1]
    step = 1 if at.request.function in {HOLDING, INPUT} else 8
    await at.say(at.foreign(count=max(count - step, 0)))


async def long_reply(at: Exchange) -> None:
    """Answer with more values than were asked for."""
    count = at.request.span[1]
    step = 1 if at.request.function in {HOLDING, INPUT} else 8
    await at.say(at.foreign(count=count + step if count + step <= 125 else count - step))


async def empty_reply(at: Exchange) -> None:
    """Answer successfully, with nothing."""
    await at.say(bytes((at.request.function, 0)))


async def byte_count_lie(at: Exchange) -> None:
    """State another number of data bytes than follow."""
    pdu = bytearray(at.foreign())
    pdu[1] = max(pdu[1] + at.chance.choice((-2, -1, 1, 2, 100)), 0) & 0xFF
    await at.say(bytes(pdu))


async def length_lie(at: Exchange) -> None:
    """State another length in the header than follows."""
    request, pdu = at.request, at.foreign()
    # A length field cannot say less than nothing: a short answer lies upwards only.
    most = len(pdu) + 1
    more = at.chance.choice([by for by in (-4, -2, -1, 1, 2, 40) if most + by >= 0])
    await at.wire.send(at.wire.frame(request.transaction, request.unit, pdu, more=more))


async def garbage(at: Exchange) -> None:
    """Send noise, long or short."""
    await at.wire.send(at.chance.randbytes(at.chance.randint(1, 400)))


async def damaged(at: Exchange) -> None:
    """Answer with one bit flipped, where a client can notice it."""
    pdu = at.foreign()
    data = bytearray(at.wire.frame(at.request.transaction, at.request.unit, pdu))
    place = at.chance.randrange(at.wire.damageable or len(data))
    data[place] ^= 1 << at.chance.randrange(8)
    await at.wire.send(bytes(data))


async def noise_then_truth(at: Exchange) -> None:
    """Send a few stray bytes, then the right answer."""
    await at.wire.send(at.chance.randbytes(at.chance.randint(1, 12)) + at.right)


async def twice(at: Exchange) -> None:
    """Answer rightly, twice; the second answer meets the next request."""
    await at.wire.send(at.right * 2)


async def slow_drip(at: Exchange) -> None:
    """Answer rightly, a byte at a time."""
    for byte in at.right:
        await at.wire.send(bytes((byte,)))
        await asyncio.sleep(at.pace.drip_s)


async def no_reply(at: Exchange) -> None:
    """Say nothing; the next request is answered again."""


async def cut_reply(at: Exchange) -> None:
    """Hang up in the middle of the answer."""
    await at.wire.send(at.right[: at.chance.randrange(1, len(at.right))])
    at.wire.hang_up()


async def hang_up(at: Exchange) -> None:
    """Hang up instead of answering."""
    at.wire.hang_up()


async def restart(at: Exchange) -> None:
    """Go away, and come back after a while."""
    at.restart()


def _refusing(code: int) -> Lie:
    async def refuse(at: Exchange) -> None:
        await at.say(exception(at.request.function, code))

    return refuse


LIES: Final[Mapping[str, Lie]] = {
    "late-reply": late_reply,
    "wrong-transaction": wrong_transaction,
    "zero-transaction": zero_transaction,
    "stale-data": stale_data,
    "wrong-unit": wrong_unit,
    "wrong-function": wrong_function,
    "wrong-protocol": wrong_protocol,
    "short-reply": short_reply,
    "long-reply": long_reply,
    "empty-reply": empty_reply,
    "byte-count-lie": byte_count_lie,
    "length-lie": length_lie,
    "garbage": garbage,
    "damaged": damaged,
    "noise-then-truth": noise_then_truth,
    "twice": twice,
    "slow-drip": slow_drip,
    "no-reply": no_reply,
    "cut-reply": cut_reply,
    "hang-up": hang_up,
    "restart": restart,
    **{f"exception-{code}": _refusing(code) for code in (1, 2, 3, 4, 6, NO_ANSWER)},
}
"""By the name that a tester asks for."""

TCP_ONLY: Final = frozenset(
    {"wrong-transaction", "zero-transaction", "wrong-protocol", "length-lie"}
)
"""Those that lie in the header of Modbus TCP; serial frames have none."""

"""A TCP relay that hinders what passes: usable in front of any device, server or broker."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Final

from simulators.faults.door import Door, doorway

_CHUNK: Final = 1 << 16
_TICK_S: Final = 0.02
_CONNECT_S: Final = 10.0


class Way(Enum):
    """Which direction is hindered, seen from the client."""

    OUT = "out"
    BACK = "back"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Hindrance:
    """What is done to what passes.

    Attributes:
        fault: `delay`, `throttle`, `cut`, `stall`, `half-open`, `drop-bytes`; empty lets pass.
        way: in which direction.
        delay_s: how long each piece waits.
        rate: bytes per second that a throttled direction lets pass.
        pieces: after at most this many further pieces (drawn anew for each connection and
            direction) a connection is cut, or bytes of a piece are dropped.
    """

    fault: str = ""
    way: Way = Way.BOTH
    delay_s: float = 0.2
    rate: int = 1000
    pieces: int = 10


FREE: Final = Hindrance()


class Proxy:
    """Relays connections to a target; see `proxying`.

    Attributes:
        host, port: where it listens, once its door stands.
        hindrance: what is done at present; may be set at any time.
    """

    def __init__(self, target: tuple[str, int], seed: int) -> None:
        self._target = target
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._clear = asyncio.Event()
        self._clear.set()
        self._hindrance = FREE
        self.door: Door

    @property
    def hindrance(self) -> Hindrance:
        """What is done to what passes at present."""
        return self._hindrance

    @hindrance.setter
    def hindrance(self, hindrance: Hindrance) -> None:
        self._hindrance = hindrance
        if hindrance.fault == "stall":
            self._clear.clear()
        else:
            self._clear.set()

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self.door.host

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.door.port

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either end leaves, or it is cut."""
        if self._hindrance.fault == "half-open" and self._hindrance.way is Way.BOTH:
            await _swallow(reader)
            return
        async with asyncio.timeout(_CONNECT_S):
            inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as pumps:
                tasks = [
                    pumps.create_task(self._pump(reader, inner_writer, Way.OUT)),
                    pumps.create_task(self._pump(inner_reader, writer, Way.BACK)),
                ]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
        finally:
            inner_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        left = 0
        with contextlib.suppress(OSError):
            while piece := await reader.read(_CHUNK):
                hindrance = self._hindrance
                if hindrance.way not in {way, Way.BOTH} or not hindrance.fault:
                    await _pass(writer, piece)
                    continue
                if hindrance.fault in {"cut", "drop-bytes"}:
                    left = left or self._chance.randint(1, hindrance.pieces)
                    left -= 1
                if hindrance.fault == "half-open":
                    await _swallow(reader)
                elif not await self._hinder(hindrance, piece, writer, due=left == 0):
                    return

    async def _hinder(
        self, hindrance: Hindrance, piece: bytes, writer: asyncio.StreamWriter, *, due: bool
    ) -> bool:
        """Do to a piece what is to be done; tell whether the connection goes on."""
        match hindrance.fault:
            case "delay":
                await asyncio.sleep(hindrance.delay_s)
            case "stall":
                await self._clear.wait()
            case "throttle":
                await _trickle(writer, piece, hindrance.rate)
                return True
            case "cut" if due:
                await _pass(writer, piece[: self._chance.randrange(len(piece))])
                return False
            case "drop-bytes" if due:
                first = self._chance.randrange(len(piece))
                piece = piece[:first] + piece[self._chance.randint(first + 1, len(piece)) :]
        await _pass(writer, piece)
        return True


async def _pass(writer: asyncio.StreamWriter, piece: bytes) -> None:
    writer.write(piece)
    await writer.drain()


async def _trickle(writer: asyncio.StreamWriter, piece: bytes, rate: int) -> None:
    step = max(int(rate * _TICK_S), 1)
    for first in range(0, len(piece), step):
        await _pass(writer, piece[first : first + step])
        await asyncio.sleep(step / rate)


async def _swallow(reader: asyncio.StreamReader) -> None:
    """Let nothing through any more, even after the fault has ended, until the sender leaves."""
    while await reader.read(_CHUNK):
        pass


@asynccontextmanager
async def proxying(
    target: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0, seed: int = 1
) -> AsyncIterator[Proxy]:
    """Relay connections to a target while the context is entered.

    Raises:
        MillgateError: when the port cannot be had.
    """
    proxy = Proxy(target, seed)
    async with doorway(proxy.attend, host=host, port=port, most=1024) as door:
        proxy.door = door
        yield proxy

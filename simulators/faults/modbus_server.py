"""A Modbus device, or a gateway with several, that misbehaves on command: TCP, TLS or serial."""

import asyncio
import contextlib
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import asynccontextmanager
from typing import Final

from simulators.faults.door import Door, company, doorway
from simulators.faults.modbus_lies import LIES, Exchange, Pace, Wire, truth
from simulators.faults.modbus_wire import (
    ILLEGAL_ADDRESS,
    ILLEGAL_VALUE,
    NO_ANSWER,
    READING,
    Frames,
    Registers,
    Request,
    SerialFrames,
    TcpFrames,
    answer,
    exception,
)
from simulators.faults.plan import OK, Plan, Script
from simulators.faults.serial_door import SerialDoor, serial_doorway

_IDLE_S: Final = 3600.0
DEAD_UNIT: Final = 2
"""The unit that `dead-unit` and `silent-unit` silence."""

FEW_REGISTERS: Final = 20
"""The most registers that a device with `few-registers` gives in one answer."""

HOLES: Final = (range(100, 120), range(300, 310))
"""Addresses that a device with `holes` refuses, in every table."""

SHAPES: Final = frozenset(
    {
        "half-open",
        "refused",
        "one-connection",
        "dead-unit",
        "silent-unit",
        "holes",
        "few-registers",
    }
)
"""Faults that a device has all the time, not request by request."""


class ChaosModbus:
    """The device; see `chaos_modbus`.

    Attributes:
        requests: how many came.
        played: how often each fault was played.
        plan: what goes wrong request by request; may be set at any time.
    """

    def __init__(
        self,
        registers: Registers,
        tasks: asyncio.TaskGroup,
        *,
        plan: Plan,
        shapes: Collection[str],
        chance: random.Random,
        pace: Pace,
        frames: Frames,
    ) -> None:
        self._registers = registers
        self._tasks = tasks
        self._chance = chance
        self._pace = pace
        self._frames = frames
        self._shapes: frozenset[str] = frozenset(shapes)
        self._line = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()
        self.plan = plan
        self.requests = 0
        self.played: Counter[str] = Counter()
        self.door: Door | SerialDoor

    @property
    def host(self) -> str:
        """The address it listens on."""
        return self.door.host

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.door.port

    @property
    def shapes(self) -> frozenset[str]:
        """The faults it has all the time."""
        return self._shapes

    async def take_shape(self, shapes: Collection[str]) -> None:
        """Have these faults from now on, and no others."""
        self._shapes = frozenset(shapes)
        if "refused" in self._shapes:
            self.door.shut()
        else:
            await self.door.open()

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it leaves."""
        if "one-connection" in self._shapes and self.door.guests > 1:
            self.played["one-connection"] += 1
            return
        wire = Wire(writer, self._frames)
        while not wire.over:
            request = await self._next(reader, wire)
            self.requests += 1
            await wire.release()
            await self._handle(request, wire)

    async def _next(self, reader: asyncio.StreamReader, wire: Wire) -> Request:
        if wire.held:
            waiting = self._start(self._release_later(wire), "late answers")
            try:
                return await self._patiently(reader)
            finally:
                waiting.cancel()
        return await self._patiently(reader)

    async def _release_later(self, wire: Wire) -> None:
        await asyncio.sleep(self._pace.late_s)
        # The client may have left meanwhile.
        with contextlib.suppress(OSError, TimeoutError):
            await wire.release()

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        job = self._tasks.create_task(work, name=name)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    def give_up(self) -> None:
        """End what is still under way."""
        for job in self._jobs:
            job.cancel()

    async def _patiently(self, reader: asyncio.StreamReader) -> Request:
        async with asyncio.timeout(_IDLE_S):
            return await self._frames.next_request(reader)

    async def _handle(self, request: Request, wire: Wire) -> None:
        if "half-open" in self._shapes:
            self.played["half-open"] += 1
            return
        pdu = await self._shaped(request)
        if pdu is None:
            return
        name = self.plan.next()
        if name != OK:
            self.played[name] += 1
        exchange = Exchange(
            request, pdu, self._registers, wire, self._chance, self._pace, self._restart
        )
        await LIES.get(name, truth)(exchange)
        wire.before = pdu

    async def _shaped(self, request: Request) -> bytes | None:
        """Return what a device of this shape answers; None when it does not."""
        if "dead-unit" in self._shapes:
            async with self._line:
                if request.unit == DEAD_UNIT:
                    self.played["dead-unit"] += 1
                    await asyncio.sleep(self._pace.gateway_s)
                    return exception(request.function, NO_ANSWER)
        if "silent-unit" in self._shapes and request.unit == DEAD_UNIT:
            self.played["silent-unit"] += 1
            return None
        refusal = self._refusal(request)
        return answer(self._registers, request) if refusal is None else refusal

    def _refusal(self, request: Request) -> bytes | None:
        if request.function not in READING:
            return None
        first, count = request.span
        if "few-registers" in self._shapes and count > FEW_REGISTERS:
            self.played["few-registers"] += 1
            return exception(request.function, ILLEGAL_VALUE)
        touched = any(first < hole.stop and hole.start < first + count for hole in HOLES)
        if "holes" in self._shapes and touched:
            self.played["holes"] += 1
            return exception(request.function, ILLEGAL_ADDRESS)
        return None

    def _restart(self) -> None:
        self._start(self._go_and_come(), "restart")

    async def _go_and_come(self) -> None:
        self.door.shut()
        await asyncio.sleep(self._pace.away_s)
        if "refused" not in self._shapes:
            await self.door.open()


@asynccontextmanager
async def chaos_modbus(
    registers: Registers,
    *,
    plan: Plan | None = None,
    shapes: Collection[str] = (),
    seed: int = 1,
    pace: Pace | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    frames: Frames | None = None,
    secured: ssl.SSLContext | None = None,
    serial: bool = False,
) -> AsyncIterator[ChaosModbus]:
    """Serve registers, with faults, while the context is entered.

    Args:
        registers: what the device holds.
        plan: what goes wrong request by request; None is nothing.
        shapes: faults of SHAPES that the device has all the time.
        seed: decides every choice of the faults.
        pace: how slow the slow faults are.
        host, port: where it listens; port 0 lets the kernel pick one.
        frames: how messages are framed; None is the usual way of where it listens.
        secured: how it speaks TLS; None is not at all.
        serial: whether it hangs on a serial line instead, see `SerialDoor`.

    Raises:
        MillgateError: when the port cannot be had.
    """
    if frames is None:
        frames = SerialFrames() if serial else TcpFrames()
    async with company() as tasks:
        device = ChaosModbus(
            registers,
            tasks,
            plan=Script([]) if plan is None else plan,
            shapes=shapes,
            chance=random.Random(seed),  # noqa: S311 - repeatable on purpose
            pace=pace or Pace(),
            frames=frames,
        )
        way = (
            serial_doorway(device.attend)
            if serial
            else doorway(device.attend, host=host, port=port, secured=secured)
        )
        async with way as door:
            device.door = door
            await device.take_shape(shapes)
            try:
                yield device
            finally:
                device.give_up()

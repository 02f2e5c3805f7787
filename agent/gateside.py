"""The gate side: frames in, released slots out. Raw values exist only here."""

import asyncio
import contextlib
import logging
from typing import Final

from agent.released import Committed, Hello, Link, Released, Restore
from protocols.frame import Frame
from protocols.language import tr
from protocols.topics import Address
from security.policy.bundle import TrustedPolicy
from security.policy.gate import Gate, MemoryLost, open_memory, seal_memory
from security.secret import Secret

_FRAMES: Final = 64
_TICK_S: Final = 0.1
_LONG_TICK_S: Final = 1.0

_log = logging.getLogger(__name__)


class GateSide:
    """Runs the gate and talks to the sealed side.

    Attributes:
        gate: the gate.
        frames: where collectors put frames; a full queue stops them.
    """

    def __init__(
        self, gate: Gate, policy: TrustedPolicy, key: Secret[bytes], address: Address, link: Link
    ) -> None:
        self.gate = gate
        self.frames: asyncio.Queue[Frame] = asyncio.Queue(_FRAMES)
        self._policy_hash = policy.hash
        self._key = key
        self._address = address
        self._link = link
        self._epoch = 0
        self._number = 0
        self._room = asyncio.Event()
        self._in_force = True

    async def put(self, frame: Frame) -> None:
        """Take a frame from a collector; waits while the gate is full."""
        await self.frames.put(frame)

    async def restore(self) -> None:
        """Say hello and go on from where the last committed message left off."""
        await self._link.to_sealed.put(Hello(self._policy_hash))
        answer = await self._link.to_gate.get()
        if not isinstance(answer, Restore):
            raise TypeError("the sealed side must answer Hello with Restore")
        self._take(answer)

    def _take(self, answer: Restore) -> None:
        self._number, self._epoch = answer.number, answer.epoch
        if not answer.memory:
            return
        try:
            memory = open_memory(
                answer.memory,
                self._key,
                self._address,
                answer.epoch,
                answer.policy_hash,
                answer.number,
            )
            self.gate.restore(memory)
        except MemoryLost as fault:
            _log.error("%s", fault)

    async def take_frames(self) -> None:
        """Feed the gate until cancelled."""
        while True:
            if self.gate.full:
                self._room.clear()
                await self._room.wait()
            self.gate.feed(await self.frames.get())

    async def release(self, stop: asyncio.Event) -> None:
        """Hand over closed slots, one message at a time, until `stop`; then once more."""
        while not stop.is_set():
            self._say_when_force_changes()
            self.gate.advance()
            if self.gate.has_closed:
                await self._hand_over()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await stop.wait()
        self._drain_frames()
        self.gate.advance()
        await self._hand_over()

    def _say_when_force_changes(self) -> None:
        if self.gate.in_force == self._in_force:
            return
        self._in_force = self.gate.in_force
        if self._in_force:
            _log.warning("%s", tr("the policy is in force", "策略已生效"))
        else:
            _log.error(
                "%s",
                tr(
                    "nothing leaves: the policy has expired or is not yet valid; sign a new one",
                    "不放行任何数据：策略已过期或尚未生效；请签署新策略",
                ),
            )

    def _drain_frames(self) -> None:
        while not self.frames.empty():
            self.gate.feed(self.frames.get_nowait())

    async def _hand_over(self) -> None:
        streams = self.gate.take()
        self._room.set()
        number = self._number + 1
        memory = await asyncio.to_thread(
            seal_memory,
            self.gate.memory(),
            self._key,
            self._address,
            self._epoch,
            self._policy_hash,
            number,
        )
        await self._link.to_sealed.put(Released(number, self._policy_hash, streams, memory))
        answer = await self._answer()
        if isinstance(answer, Restore):
            # A new epoch: the message was not kept, and counters need new baselines.
            self.gate.start_over()
            self._take(answer)
            return
        if answer.number != number:
            raise TypeError("the sealed side must answer Released with its Committed")
        self._number = number

    async def _answer(self) -> Restore | Committed:
        """Wait for the sealed side; slots go on closing meanwhile, until the gate is full."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONG_TICK_S):
                    return await self._link.to_gate.get()
            if not self.gate.full:
                self.gate.advance()

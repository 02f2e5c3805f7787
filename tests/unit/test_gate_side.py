"""The gate side: frames in, one message at a time out, and on from where it was committed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from agent.gateside import GateSide
from agent.released import Committed, Hello, Link, Released, Restore
from protocols.topics import Address
from security.policy.bundle import TrustedPolicy
from security.policy.gate import seal_memory
from security.secret import Secret
from tests.unit.gate_material import (
    Clock,
    cells_of,
    counter,
    frame,
    gate_of,
    policy,
    rule,
    table,
)
from tests.unit.gate_material import (
    Released as Found,
)

ADDRESS = Address(b"f" * 16, b"a" * 16)
KEY = Secret(bytes(32))
OTHER_KEY = Secret(bytes(31) + b"\x01")
HASH = b"\x07" * 32
OWNER = table([counter("energy")])
RULES = [rule(OWNER, "energy", 1)]


class Sealed:
    """The sealed side as far as the gate side can tell: it keeps what was committed."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.number, self.memory = 0, b""
        self.kept: list[Released] = []

    @property
    def found(self) -> Found:
        """What was committed, all of it."""
        found: Found = {}
        for message in self.kept:
            new = cells_of(message.streams)
            assert not found.keys() & new.keys()
            found |= new
        return found

    async def greet(self, epoch: int = 1) -> None:
        assert await self.link.to_sealed.get() == Hello(HASH)
        await self.link.to_gate.put(Restore(self.number, epoch, HASH, self.memory))

    async def receive(self) -> Released:
        message = await self.link.to_sealed.get()
        assert isinstance(message, Released)
        assert message.number == self.number + 1
        assert message.policy_hash == HASH
        return message

    async def commit(self, message: Released) -> None:
        self.kept.append(message)
        self.number, self.memory = message.number, message.memory
        await self.link.to_gate.put(Committed(message.number))

    async def serve(self) -> None:
        while True:
            await self.commit(await self.receive())


def side_of(clock: Clock, link: Link, key: Secret[bytes] = KEY) -> GateSide:
    trusted = TrustedPolicy(policy(RULES), HASH, ())
    return GateSide(gate_of(OWNER, RULES, clock), trusted, key, ADDRESS, link)


@asynccontextmanager
async def running(side: GateSide, sealed: Sealed) -> AsyncIterator[asyncio.Event]:
    """Run the gate side against a sealed side that commits, until the block ends."""
    stop = asyncio.Event()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        greeting = group.create_task(sealed.greet())
        await side.restore()
        await greeting
        serving = group.create_task(sealed.serve())
        feeding = group.create_task(side.take_frames())
        release = group.create_task(side.release(stop))
        yield stop
        feeding.cancel()
        stop.set()
        await release
        serving.cancel()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)


async def feed(side: GateSide, clock: Clock, seconds: range) -> None:
    for s in seconds:
        clock.set(s)
        side.gate.advance()
        await side.put(frame(OWNER, s, {"energy": 3 * s}))
        await until(lambda: side.frames.empty() and not side.gate.has_closed)


async def test_what_closes_is_handed_over_and_goes_on_after_a_restart() -> None:
    clock, link = Clock(), Link()
    sealed = Sealed(link)
    for seconds in (range(25), range(25, 48), range(48, 63)):
        side = side_of(clock, link)
        async with running(side, sealed):
            await feed(side, clock, seconds)
        assert side.gate.accounts["dev"].balanced
    assert sealed.found == {(1, slot): (30, 0, 1) for slot in range(6)}
    assert sealed.number == len(sealed.kept)


async def test_at_the_end_what_is_open_is_kept_in_memory() -> None:
    clock, link = Clock(), Link()
    sealed = Sealed(link)
    async with running(side_of(clock, link), sealed) as stop:
        stop.set()
    assert len(sealed.kept) == 1
    assert sealed.kept[0].streams == {}
    assert sealed.memory


async def test_a_crash_before_the_commit_counts_nothing_twice() -> None:
    """The message was on its way, but never became durable."""
    clock, link = Clock(), Link()
    sealed = Sealed(link)
    side = side_of(clock, link)
    async with running(side, sealed):
        await feed(side, clock, range(25))
    before = len(sealed.kept)
    lost = side_of(clock, link)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        greeting = group.create_task(sealed.greet())
        await lost.restore()
        await greeting
        for s in range(25, 40):
            clock.set(s)
            lost.gate.feed(frame(OWNER, s, {"energy": 3 * s}))
            lost.gate.advance()
        handing = group.create_task(lost._hand_over())
        message = await sealed.receive()
        assert cells_of(message.streams)
        handing.cancel()
    assert len(sealed.kept) == before
    side = side_of(clock, link)
    async with running(side, sealed):
        await feed(side, clock, range(40, 63))
    found = sealed.found
    assert sum(m for m, _, _ in found.values()) == 3 * 60
    assert sum(span for _, _, span in found.values()) == 6


async def test_memory_that_cannot_be_opened_is_said_and_counters_start_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, link = Clock(), Link()
    sealed = Sealed(link)
    side = side_of(clock, link)
    async with running(side, sealed):
        await feed(side, clock, range(25))
    before = sealed.found
    side = side_of(clock, link, OTHER_KEY)
    with caplog.at_level(logging.ERROR):
        async with running(side, sealed):
            await feed(side, clock, range(25, 48))
    assert len(caplog.records) == 1
    assert "baseline" in caplog.text or "基线" in caplog.text
    new = {at: cell for at, cell in sealed.found.items() if at not in before}
    assert new == {(1, 3): (30, 0, 1)}


async def test_damaged_memory_is_said_and_counters_start_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, link = Clock(), Link()
    sealed = Sealed(link)
    sealed.number = 3
    sealed.memory = seal_memory(b"\0\0\0\1\xff", KEY, ADDRESS, 1, HASH, 3)
    side = side_of(clock, link)
    async with running(side, sealed):
        await feed(side, clock, range(25))
    assert len(caplog.records) == 1
    assert sealed.found == {(1, 0): (30, 0, 1), (1, 1): (30, 0, 1)}


async def test_slots_go_on_closing_while_the_sealed_side_is_busy() -> None:
    clock, link = Clock(), Link()
    sealed = Sealed(link)
    side = side_of(clock, link)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        greeting = group.create_task(sealed.greet())
        await side.restore()
        await greeting
        stop = asyncio.Event()
        for s in range(13):
            clock.set(s)
            side.gate.feed(frame(OWNER, s, {"energy": 3 * s}))
            side.gate.advance()
        release = group.create_task(side.release(stop))
        message = await sealed.receive()
        for s in range(13, 24):
            clock.set(s)
            side.gate.feed(frame(OWNER, s, {"energy": 3 * s}))
        await until(lambda: side.gate.has_closed)
        await sealed.commit(message)
        serving = group.create_task(sealed.serve())
        stop.set()
        await release
        serving.cancel()
    assert sealed.found == {(1, 0): (30, 0, 1), (1, 1): (30, 0, 1)}


async def test_a_full_gate_takes_no_frame_until_something_was_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, link = Clock(), Link()
    side = side_of(clock, link)
    full = True
    monkeypatch.setattr(type(side.gate), "full", property(lambda _: full))
    await side.put(frame(OWNER, 0, {"energy": 0}))
    async with asyncio.timeout(20):
        feeding = asyncio.create_task(side.take_frames())
        await asyncio.sleep(0.05)
        assert side.frames.qsize() == 1
        full = False
        handing = asyncio.create_task(side._hand_over())
        await until(side.frames.empty)
        for task in (feeding, handing):
            task.cancel()
        await asyncio.wait([feeding, handing])
    assert side.gate.accounts["dev"].produced == 1


async def test_a_new_epoch_begins_without_a_baseline_and_with_its_first_message() -> None:
    link = Link()
    side = side_of(Clock(), link)
    lanes = side.gate._lanes
    await link.to_gate.put(Restore(0, 7, HASH, b""))
    await side._hand_over()
    assert (side._number, side._epoch) == (0, 7)
    assert side.gate._lanes is not lanes
    link.to_sealed.get_nowait()
    await link.to_gate.put(Committed(1))
    await side._hand_over()
    assert side._number == 1


async def test_another_answer_than_its_own_commit_ends_it() -> None:
    link = Link()
    side = side_of(Clock(), link)
    await link.to_gate.put(Committed(2))
    with pytest.raises(TypeError):
        await side._hand_over()

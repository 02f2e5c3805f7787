"""The gate side: frames in, one message at a time out, and on from where it was committed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from agent.clock import ClockWatch
from agent.gateside import GateSide, OutOfTurn, Verdict
from agent.link import GateLink, LinkLost, SealedLink, joined
from agent.released import Committed, Hello, Released, Restore
from protocols.topics import Address
from security.policy.bundle import TrustedPolicy
from security.policy.gate import Gate, seal_memory
from security.secret import Secret
from tests.unit.gate_material import (
    Clock,
    cells_of,
    counter,
    frame,
    point,
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

    def __init__(self) -> None:
        self.number, self.epoch, self.memory = 0, 1, b""
        self.kept: list[Released] = []
        self.hellos: list[Hello] = []
        self.at = 0

    @property
    def found(self) -> Found:
        """What was committed, all of it."""
        found: Found = {}
        for message in self.kept:
            new = cells_of(message.streams)
            assert not found.keys() & new.keys()
            found |= new
        return found

    async def greet(self, link: SealedLink) -> None:
        hello = await link.receive()
        assert isinstance(hello, Hello)
        await self.answer(link, hello)

    async def answer(self, link: SealedLink, hello: Hello) -> None:
        self.hellos.append(hello)
        await link.send(Restore(self.number, self.epoch, HASH, self.memory, self.at))

    async def receive(self, link: SealedLink) -> Released:
        message = await link.receive()
        assert isinstance(message, Released)
        assert message.number == self.number + 1
        assert message.policy_hash == self.hellos[-1].policy_hash
        return message

    def keep(self, message: Released) -> None:
        self.kept.append(message)
        self.number, self.memory = message.number, message.memory

    async def commit(self, link: SealedLink, message: Released) -> None:
        self.keep(message)
        await link.send(Committed(message.number))

    async def serve(self, link: SealedLink) -> None:
        while True:
            message = await link.receive()
            if isinstance(message, Hello):
                await self.answer(link, message)
            else:
                await self.commit(link, message)


def trusted(version: int = 1) -> TrustedPolicy:
    what = policy(RULES).model_copy(update={"version": version})
    return TrustedPolicy(what, HASH if version == 1 else bytes([version]) * 32, ())


def side_of(clock: Clock, key: Secret[bytes] = KEY) -> GateSide:
    def make(what: TrustedPolicy) -> Gate:
        return Gate(what.policy, {OWNER.device: OWNER}, clock)

    side = GateSide(make, key, ADDRESS, ClockWatch(clock, lambda: clock.ns))
    side.want(Verdict(trusted()))
    return side


def gate_in(side: GateSide) -> Gate:
    assert side.gate is not None
    return side.gate


@asynccontextmanager
async def running(side: GateSide, sealed: Sealed) -> AsyncIterator[asyncio.Event]:
    """Run the gate side against a sealed side that commits, until the block ends."""
    stop = asyncio.Event()
    with joined() as (mine, its):
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            serving = group.create_task(sealed.serve(its))
            feeding = group.create_task(side.take_frames())
            ticking = group.create_task(side.tick())
            talking = group.create_task(side.converse(mine, stop))
            await until(lambda: side.gate is not None)
            yield stop
            feeding.cancel()
            ticking.cancel()
            stop.set()
            side.wake()
            await talking
            serving.cancel()


@asynccontextmanager
async def talking_to(side: GateSide) -> AsyncIterator[tuple[SealedLink, asyncio.Event]]:
    """Let the gate side talk to a sealed side that the test plays; its loss is expected."""
    stop = asyncio.Event()

    async def talk(mine: GateLink) -> None:
        with contextlib.suppress(LinkLost):
            await side.converse(mine, stop)

    with joined() as (mine, its):
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            talking = group.create_task(talk(mine))
            yield its, stop
            its.close()
            await talking


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)


async def feed(side: GateSide, clock: Clock, seconds: range) -> None:
    for s in seconds:
        clock.set(s)
        side.step()
        await side.put(frame(OWNER, s, {"energy": 3 * s}), OWNER)
        await until(lambda: side.frames.empty() and side._held is None)
        await until(lambda: not gate_in(side).has_closed)


def feed_now(side: GateSide, clock: Clock, seconds: range) -> None:
    """Feed the gate itself, while nobody takes what closes."""
    for s in seconds:
        clock.set(s)
        gate_in(side).feed(frame(OWNER, s, {"energy": 3 * s}))
        gate_in(side).advance()


async def test_what_closes_is_handed_over_and_goes_on_after_a_restart() -> None:
    clock, sealed = Clock(), Sealed()
    for seconds in (range(25), range(25, 48), range(48, 63)):
        side = side_of(clock)
        async with running(side, sealed):
            await feed(side, clock, seconds)
        assert gate_in(side).accounts["dev"].balanced
    assert sealed.found == {(1, slot): (30, 0, 1) for slot in range(6)}
    assert sealed.number == len(sealed.kept)


async def test_at_the_end_what_is_open_is_kept_in_memory() -> None:
    clock, sealed = Clock(), Sealed()
    async with running(side_of(clock), sealed) as stop:
        stop.set()
    assert len(sealed.kept) == 1
    assert sealed.kept[0].streams == {}
    assert sealed.memory


async def test_a_crash_before_the_commit_counts_nothing_twice() -> None:
    """The message was on its way, but never became durable."""
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(25))
    before = len(sealed.kept)
    lost = side_of(clock)
    async with talking_to(lost) as (link, _):
        await sealed.greet(link)
        await until(lambda: lost.gate is not None)
        feed_now(lost, clock, range(25, 40))
        lost.wake()
        assert cells_of((await sealed.receive(link)).streams)
    assert len(sealed.kept) == before
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(40, 63))
    found = sealed.found
    assert sum(m for m, _, _ in found.values()) == 3 * 60
    assert sum(span for _, _, span in found.values()) == 6


async def test_memory_that_cannot_be_opened_is_said_and_counters_start_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(25))
    before = sealed.found
    side = side_of(clock, OTHER_KEY)
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
    clock, sealed = Clock(), Sealed()
    sealed.number = 3
    sealed.memory = seal_memory(b"\0\0\0\1\xff", KEY, ADDRESS, 1, HASH, 3)
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(25))
    assert len(caplog.records) == 1
    assert sealed.found == {(1, 0): (30, 0, 1), (1, 1): (30, 0, 1)}


async def test_slots_go_on_closing_while_the_sealed_side_is_busy() -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with talking_to(side) as (link, stop):
        await sealed.greet(link)
        await until(lambda: side.gate is not None)
        feed_now(side, clock, range(13))
        side.wake()
        message = await sealed.receive(link)
        for s in range(13, 24):
            clock.set(s)
            gate_in(side).feed(frame(OWNER, s, {"energy": 3 * s}))
        side.step()
        assert gate_in(side).has_closed
        await sealed.commit(link, message)
        stop.set()
        await sealed.commit(link, await sealed.receive(link))
    assert sealed.found == {(1, 0): (30, 0, 1), (1, 1): (30, 0, 1)}


async def test_a_full_gate_takes_no_frame_until_something_was_handed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    full = True
    monkeypatch.setattr(Gate, "full", property(lambda _: full))
    async with running(side, sealed) as stop:
        await side.put(frame(OWNER, 0, {"energy": 0}), OWNER)
        await asyncio.sleep(0.05)
        assert gate_in(side).accounts["dev"].produced == 0
        full = False
        stop.set()
    assert gate_in(side).accounts["dev"].produced == 1


@pytest.mark.parametrize("committed", [True, False])
async def test_a_lost_sealed_side_loses_and_doubles_nothing(committed: bool) -> None:
    """Whether the message that was under way became durable or not, and open windows live on."""
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with talking_to(side) as (link, _):
        await sealed.greet(link)
        await until(lambda: side.gate is not None)
        first = gate_in(side)
        feed_now(side, clock, range(15))
        side.wake()
        message = await sealed.receive(link)
        feed_now(side, clock, range(15, 19))
        if committed:
            sealed.keep(message)
    async with running(side, sealed):
        await feed(side, clock, range(19, 33))
    assert side.gate is first
    assert sealed.found == {(1, slot): (30, 0, 1) for slot in range(3)}


async def test_a_sealed_side_that_dies_of_a_message_is_not_given_it_a_third_time() -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    for number in range(3):
        async with talking_to(side) as (link, _):
            await sealed.greet(link)
            if number == 0:
                await until(lambda: side.gate is not None)
                feed_now(side, clock, range(15))
                side.wake()
            if number < 2:
                assert cells_of((await sealed.receive(link)).streams)
            else:
                await until(lambda: side._pending is None)
    async with running(side, sealed):
        await feed(side, clock, range(15, 43))
    # What was read since the last commit is gone; the counter goes on from a new reading.
    assert sealed.found == {(1, slot): (30, 0, 1) for slot in (2, 3)}


async def test_a_message_that_was_kept_counts_no_try_against_the_next() -> None:
    clock, sealed = Clock(), Sealed()
    side, first = side_of(clock), None
    for kept, seconds in ((False, range(15)), (True, range(15, 19)), (False, range(19, 33))):
        async with talking_to(side) as (link, _):
            await sealed.greet(link)
            await until(lambda: side.gate is not None)
            first = first or gate_in(side)
            feed_now(side, clock, seconds)
            side.wake()
            message = await sealed.receive(link)
            if kept:
                sealed.keep(message)
    async with running(side, sealed):
        await feed(side, clock, range(33, 43))
    assert side.gate is first
    assert sealed.found == {(1, slot): (30, 0, 1) for slot in range(4)}


async def test_a_sealed_side_in_another_epoch_gets_a_gate_that_starts_anew() -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(25))
    sealed.number, sealed.epoch, sealed.memory, sealed.kept = 0, 2, b"", []
    async with running(side, sealed):
        await feed(side, clock, range(25, 53))
    assert sealed.found == {(1, slot): (30, 0, 1) for slot in (3, 4)}


async def test_a_newer_policy_takes_over_while_running_and_both_sides_name_it() -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(15))
        assert not side.resumed.is_set()
        side.want(Verdict(trusted(2)))
        await until(lambda: len(sealed.hellos) == 2 and side.gate is not None)
        # What a device tells only when it changes must be told to the new gate once more.
        assert side.resumed.is_set()
        await feed(side, clock, range(15, 33))
    assert [hello.policy_hash for hello in sealed.hellos] == [HASH, bytes([2]) * 32]
    assert {message.policy_hash for message in sealed.kept} == {HASH, bytes([2]) * 32}
    # HASH is what this sealed side says that its memory was sealed under: so the newer starts anew.
    assert gate_in(side).accounts["dev"].balanced


async def test_a_changed_configuration_loses_no_sample_though_the_sealed_side_is_busy() -> None:
    """What comes while the last message of the old gate is under way waits for the new one."""
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with talking_to(side) as (link, stop), asyncio.TaskGroup() as group:
        taking = group.create_task(side.take_frames())
        await sealed.greet(link)
        await until(lambda: side.gate is not None)
        first = gate_in(side)
        feed_now(side, clock, range(15))
        renewing = group.create_task(side.renew())
        message = await sealed.receive(link)
        for s in range(15, 19):
            clock.set(s)
            await side.put(frame(OWNER, s, {"energy": 3 * s}), OWNER)
        await asyncio.sleep(0.05)
        assert first.accounts["dev"].produced == 15
        await sealed.commit(link, message)
        await sealed.greet(link)
        await renewing
        await until(lambda: side.frames.empty() and side._held is None)
        assert gate_in(side) is not first
        assert gate_in(side).accounts["dev"].produced == 19
        feed_now(side, clock, range(19, 33))
        taking.cancel()
        stop.set()
        side.wake()
        while len(sealed.found) < 3:
            await sealed.commit(link, await sealed.receive(link))
    assert sealed.found == {(1, slot): (30, 0, 1) for slot in range(3)}


async def test_a_change_that_meets_a_lost_link_is_made_on_the_next_one() -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with talking_to(side) as (link, _):
        await sealed.greet(link)
        await until(lambda: side.gate is not None)
        first = gate_in(side)
        feed_now(side, clock, range(15))
        renewing = asyncio.ensure_future(side.renew())
        await sealed.receive(link)
    assert not renewing.done()
    async with running(side, sealed):
        async with asyncio.timeout(20):
            await renewing
        assert gate_in(side) is not first
        await feed(side, clock, range(15, 33))
    assert sealed.found == {(1, slot): (30, 0, 1) for slot in range(3)}


async def test_a_new_epoch_begins_without_a_baseline_and_with_its_first_message() -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with talking_to(side) as (link, stop):
        await sealed.greet(link)
        await until(lambda: side.gate is not None)
        feed_now(side, clock, range(15))
        side.wake()
        assert cells_of((await sealed.receive(link)).streams)
        await link.send(Restore(0, 7, HASH, b""))
        sealed.number = 0
        await until(lambda: side._epoch == 7)
        feed_now(side, clock, range(15, 33))
        side.wake()
        await sealed.commit(link, await sealed.receive(link))
        stop.set()
        side.wake()
        await sealed.commit(link, await sealed.receive(link))
    assert sealed.found == {(1, 2): (30, 0, 1)}


@pytest.mark.parametrize("answer", [Committed(2), Committed(0)])
async def test_another_answer_than_its_own_commit_ends_it(answer: Committed) -> None:
    side, stop = side_of(Clock()), asyncio.Event()
    stop.set()
    with joined() as (mine, its):
        async with asyncio.timeout(20):
            await its.send(Restore(0, 1, HASH, b""))
            await its.send(answer)
            with pytest.raises(OutOfTurn):
                await side.converse(mine, stop)


async def test_what_was_read_by_another_point_table_never_leaves_as_a_point_of_this_one() -> None:
    """While the sealed side is slow, a device's table may change behind frames that wait."""
    clock, sealed = Clock(), Sealed()
    before, after = (
        table([point(name, "power.active") for name in names])
        for names in (("withheld", "released"), ("released", "withheld"))
    )
    what = TrustedPolicy(policy([rule(after, "released", 1)]), HASH, ())
    tables = {"dev": before}
    side = GateSide(
        lambda one: Gate(one.policy, tables, clock),
        KEY,
        ADDRESS,
        ClockWatch(clock, lambda: clock.ns),
    )
    side.want(Verdict(what))
    await side.put(frame(before, 0, {"withheld": 666, "released": 1}), before)
    await side.put(frame(table([counter("gone")], device="gone"), 0, {"gone": 1}), before)
    tables["dev"] = after
    async with running(side, sealed):
        await side.put(frame(after, 0, {"released": 2}), after)
        await until(lambda: gate_in(side).accounts["dev"].produced > 0)
        clock.set(12)
    assert sealed.found == {(1, 0): (2, 1, 1)}

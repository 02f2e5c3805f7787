"""What a device tells only once, because it tells only changes: it holds as long as it is known to, and no longer."""

import asyncio
from dataclasses import replace

import pytest

from agent.clock import ClockWatch
from agent.gateside import GateSide, Verdict
from protocols.frame import SECOND
from security.policy import gate as gate_module
from security.policy.bundle import TrustedPolicy
from security.policy.gate import Gate
from tests.unit.gate_material import (
    Clock,
    cells_of,
    counter,
    frame,
    gate_of,
    point,
    policy,
    rule,
    table,
)
from tests.unit.test_gate_side import (
    ADDRESS,
    HASH,
    KEY,
    Sealed,
    gate_in,
    running,
    talking_to,
    until,
)

TOLD = table([point("state", "machine.state"), point("power", "power.active")], hold_ns=None)
RULES = [rule(TOLD, "state", 31), rule(TOLD, "power", 1)]


def side_of_told(clock: Clock, valid_from: int = 0) -> GateSide:
    side = GateSide(
        lambda what: Gate(what.policy, {TOLD.device: TOLD}, clock),
        KEY,
        ADDRESS,
        ClockWatch(clock, lambda: clock.ns),
    )
    side.want(Verdict(TrustedPolicy(policy(RULES, valid_from=valid_from), HASH, ())))
    return side


def test_no_value_holds_through_a_halt_in_which_it_may_have_changed() -> None:
    clock = Clock()
    gate = gate_of(TOLD, RULES, clock)
    gate.advance()
    gate.feed(frame(TOLD, 0, {"state": 1, "power": 7}))
    for second in range(26):
        clock.set(second)
        gate.advance()
    gate.halted = "a setting is wrong"
    clock.set(27)
    gate.feed(frame(TOLD, 27, {"state": 3, "power": 9}))
    gate.advance()
    clock.set(35)
    gate.halted = ""
    clock.set(52)
    gate.advance()
    found = cells_of(gate.take())
    assert {found[1, slot] for slot in (0, 1)} == {(7, 0, 1)}
    # Of the slot in which it began, the state is known up to there.
    assert {slot for number, slot in found if number in (1, 31)} == {0, 1}
    assert found[32, 2] == (5, 1, 1)


def test_what_is_told_after_a_start_was_not_seen_to_hold_while_nobody_looked() -> None:
    """The values of a new connection may come before anything else after a start."""
    clock = Clock()
    gate = gate_of(TOLD, RULES, clock)
    gate.advance()
    gate.feed(frame(TOLD, 0, {"state": 1, "power": 7}))
    clock.set(25)
    gate.advance()
    gate.take()
    memory = gate.memory()
    for hours in (0.1, 30):
        start = hours * 3600
        clock.set(start)
        gate = gate_of(TOLD, RULES, clock)
        gate.restore(memory)
        # One value has held since long before the start, the other has just changed.
        gate.feed(frame(TOLD, 3, {"power": 7}))
        gate.feed(frame(TOLD, start - 1, {"state": 1}))
        clock.set(start + 22)
        gate.advance()
        found = cells_of(gate.take())
        first = start // 10
        assert {slot for number, slot in found if number == 1} == {first - 1, first, first + 1}
        assert {slot for number, slot in found if number == 31 and slot > 2} == {
            first - 1,
            first,
            first + 1,
        }


def test_a_counter_of_another_device_goes_on_from_no_reading_of_the_one_before() -> None:
    meter = table([counter("energy")])
    old, new = (replace(meter, origins=(f"tcp {host}:502",)) for host in ("10.0.0.1", "10.0.0.2"))
    for now, slots in ((old, {2, 3}), (new, {3})):
        clock = Clock()
        gate = gate_of(old, [rule(old, "energy", 1)], clock)
        for second in range(25):
            clock.set(second)
            gate.feed(frame(old, second, {"energy": 1000 + second}))
            gate.advance()
        gate.take()
        memory = gate.memory()
        gate = gate_of(now, [rule(now, "energy", 1)], clock)
        gate.restore(memory)
        added = 0 if now is old else 500_000
        for second in range(25, 45):
            clock.set(second)
            gate.feed(frame(now, second, {"energy": 1000 + added + second}))
            gate.advance()
        assert cells_of(gate.take()) == {(1, slot): (10, 0, 1) for slot in slots}


async def test_a_device_that_tells_only_changes_tells_all_again_to_the_gate_of_a_new_policy() -> (
    None
):
    clock, sealed = Clock(), Sealed()
    side = side_of_told(clock)
    async with running(side, sealed):
        assert not side.resumed.is_set()
        newer = policy(RULES).model_copy(update={"version": 2})
        side.want(Verdict(TrustedPolicy(newer, bytes(32), ())))
        await until(lambda: len(sealed.hellos) == 2 and side.gate is not None)
        assert side.resumed.is_set()


async def test_a_device_tells_all_again_when_a_policy_comes_into_force() -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of_told(clock, valid_from=clock.ns // SECOND + 60)
    async with running(side, sealed):
        side.step()
        assert not gate_in(side).in_force
        assert not side.resumed.is_set()
        clock.set(60)
        side.step()
        assert side.resumed.is_set()


async def test_no_slot_is_closed_over_a_frame_that_waits_for_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was told in a slot counts in it, though the sealed side was slow meanwhile."""
    monkeypatch.setattr(gate_module, "_MOST_WAITING_CELLS", 10)
    clock, sealed = Clock(), Sealed()
    side = side_of_told(clock)
    async with talking_to(side) as (link, stop), asyncio.TaskGroup() as group:
        await sealed.greet(link)
        await until(lambda: side.gate is not None)
        taking = group.create_task(side.take_frames())
        await side.put(frame(TOLD, 0, {"state": 1, "power": 7}), TOLD)
        await until(lambda: gate_in(side).accounts["dev"].produced == 2)
        clock.set(12)
        side.step()
        slow = await sealed.receive(link)
        clock.set(32)
        side.step()
        assert gate_in(side).full
        await side.put(frame(TOLD, 33, {"power": 9}), TOLD)
        await until(lambda: side._held is not None)
        clock.set(45)
        side.step()
        await sealed.commit(link, slow)
        await sealed.commit(link, await sealed.receive(link))
        await until(lambda: side._held is None)
        side.step()
        await sealed.commit(link, await sealed.receive(link))
        taking.cancel()
        stop.set()
        side.wake()
        await sealed.commit(link, await sealed.receive(link))
    assert {slot: sealed.found[1, slot] for slot in (0, 1, 2, 3)} == {
        0: (7, 0, 1),
        1: (7, 0, 1),
        2: (7, 0, 1),
        3: (9, 0, 1),
    }

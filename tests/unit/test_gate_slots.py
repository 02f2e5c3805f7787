"""Slots: their edges, at most once each, pauses, late and early samples, faults."""

import itertools
from typing import Any

import numpy as np
import pytest

from protocols.frame import SECOND, Frame, Quality, lost_frame
from protocols.points import PointTable
from security.policy.gate import Gate
from security.policy.lane import Lane
from security.policy.rows import Row
from tests.unit.gate_material import (
    T0,
    Clock,
    Released,
    cells_of,
    counter,
    frame,
    gate_of,
    point,
    rule,
    table,
)

POLLED = table([point("power", "power.active"), counter("energy"), point("m", "machine.state")])
FOLLOWED = table(
    [point("power", "power.active"), counter("energy"), point("m", "machine.state")], hold_ns=None
)
DATED = table([point("power", "power.active"), counter("energy")], brings_time=True)
DAY = 86400


def gate_for(owner: PointTable, clock: Clock) -> Gate:
    names = [p.id for p in owner.points]
    rules = [rule(owner, name, 1 + 10 * names.index(name)) for name in names]
    return gate_of(owner, rules, clock)


def taken(gate: Gate) -> Released:
    return cells_of(gate.take())


def test_a_quantity_exactly_on_a_boundary_belongs_to_the_slot_that_starts() -> None:
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    for s in (0, 9, 10, 19.5):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"power": int(s * 10)}))
    clock.set(21.5)
    gate.advance()
    assert taken(gate) == {(1, 0): (90, 0, 1), (1, 1): (195, 0, 1)}


def test_a_counter_exactly_on_a_boundary_closes_the_slot_that_ends() -> None:
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    for s, reading in ((0, 100), (10, 107), (20, 120), (29.5, 121)):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"energy": reading}))
        gate.advance()
    clock.set(31.5)
    gate.advance()
    assert taken(gate) == {(11, 0): (7, 0, 1), (11, 1): (13, 0, 1), (11, 2): (1, 0, 1)}


def test_the_slot_in_which_the_gate_starts_is_not_released() -> None:
    clock = Clock(5)
    gate = gate_for(POLLED, clock)
    for s in (5, 8, 9, 18):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"power": 1, "energy": int(s)}))
        gate.advance()
    clock.set(21.5)
    gate.advance()
    assert taken(gate) == {(1, 1): (1, 0, 1), (11, 1): (9, 0, 1)}
    book = gate.accounts["dev"]
    assert book.dropped["before_first_slot"] == 3
    assert book.balanced


def test_a_slot_stays_open_for_what_is_still_on_its_way() -> None:
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    gate.feed(frame(POLLED, 0, {"power": 1}))
    clock.set(11.4)
    gate.advance()
    assert not gate.has_closed
    gate.feed(frame(POLLED, 9.9, {"power": 2}))
    clock.set(11.5)
    gate.advance()
    assert taken(gate) == {(1, 0): (2, 0, 1)}


def test_a_late_sample_of_a_polled_point_is_dropped_and_counted() -> None:
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    gate.feed(frame(POLLED, 0, {"power": 1}))
    clock.set(12)
    gate.advance()
    gate.feed(frame(POLLED, 9.9, {"power": 2}))
    clock.set(22)
    gate.advance()
    assert taken(gate) == {(1, 0): (1, 1, 1)}
    assert gate.accounts["dev"].dropped["late"] == 1
    assert gate.accounts["dev"].balanced


def test_late_samples_leave_nothing_behind() -> None:
    clock = Clock(1000)
    gate = gate_for(POLLED, clock)
    for s in range(1000, 1100):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"power": 1, "energy": s, "m": 1}))
        gate.feed(frame(POLLED, s - 900, {"power": 1, "energy": s, "m": 1}))
        gate.advance()
    taken(gate)
    size = len(gate.memory())
    for s in range(1100, 1900):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"power": 1, "energy": s, "m": 1}))
        gate.feed(frame(POLLED, s - 900, {"power": 1, "energy": s, "m": 1}))
        gate.advance()
    taken(gate)
    assert len(gate.memory()) == size
    for lane in gate._all_lanes():
        assert len(lane.open_slots()) <= 3
        assert len(lane.open_counts) <= 3


def test_a_late_sample_after_a_long_silence_opens_nothing() -> None:
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    gate.feed(frame(POLLED, 1, {"power": 1, "energy": 1, "m": 1}))
    clock.set(100)
    gate.advance()
    gate.feed(frame(POLLED, 50, {"power": 1, "energy": 1, "m": 1}))
    gate.feed(frame(POLLED, 99, {"power": 1, "energy": 1}, quality=Quality.ABSENT))
    assert [lane.open_slots() for lane in gate._all_lanes()] == [[], [], []]


def test_a_late_change_of_a_followed_point_belongs_to_the_oldest_open_slot() -> None:
    clock = Clock(0)
    gate = gate_for(FOLLOWED, clock)
    gate.feed(frame(FOLLOWED, 0, {"power": 1}))
    clock.set(12)
    gate.advance()
    gate.feed(frame(FOLLOWED, 4, {"power": 2}))
    clock.set(22)
    gate.advance()
    assert taken(gate) == {(1, 0): (1, 0, 1), (1, 1): (2, 0, 1)}


def test_a_sample_from_the_future_is_taken_as_of_now() -> None:
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    gate.feed(frame(POLLED, 0, {"power": 1}))
    clock.set(9)
    gate.feed(frame(POLLED, 4000, {"power": 2}))
    clock.set(12)
    gate.advance()
    assert taken(gate) == {(1, 0): (2, 0, 1)}


def test_a_point_keeps_the_order_of_its_samples_whatever_its_clock_says() -> None:
    """A source time that goes backwards over a boundary must not make a counter fall."""
    clock = Clock(0)
    gate = gate_for(FOLLOWED, clock)
    gate.feed(frame(FOLLOWED, 0, {"energy": 100, "power": 1}))
    clock.set(10.5)
    gate.feed(frame(FOLLOWED, 10.4, {"energy": 105, "power": 2}))
    gate.feed(frame(FOLLOWED, 9.0, {"energy": 106, "power": 3}))
    clock.set(31.5)
    gate.advance()
    assert taken(gate) == {
        (1, 0): (1, 0, 1),
        (1, 1): (3, 0, 1),
        (1, 2): (3, 0, 1),
        (11, 0): (0, 0, 1),
        (11, 1): (6, 0, 1),
        (11, 2): (0, 0, 1),
    }


def test_a_value_given_again_after_a_loss_holds_even_with_its_old_source_time() -> None:
    clock = Clock(0)
    gate = gate_for(FOLLOWED, clock)
    gate.feed(frame(FOLLOWED, 3, {"power": 5, "energy": 50, "m": 1}))
    clock.set(10.2)
    gate.feed(lost_frame("dev", FOLLOWED.columns(), clock.ns))
    clock.set(10.9)
    # The slot of second 3 is still open; the loss is in the one behind it.
    gate.feed(frame(FOLLOWED, 3, {"power": 5, "energy": 50, "m": 1}))
    clock.set(41.5)
    gate.advance()
    found = taken(gate)
    assert [found[1, slot] for slot in (1, 2, 3)] == [(5, 0, 1)] * 3
    assert [found[11, slot] for slot in (1, 2, 3)] == [(0, 0, 1)] * 3
    assert [found[21, slot] for slot in (2, 3)] == [(1, 0, 1)] * 2
    assert [found[22, slot] for slot in (2, 3)] == [(10, 0, 1)] * 2


@pytest.mark.parametrize("owner", [POLLED, FOLLOWED], ids=["polled", "followed"])
def test_a_long_pause_does_not_write_endless_rows(owner: PointTable) -> None:
    clock = Clock(0)
    gate = gate_for(owner, clock)
    for s in range(15):
        clock.set(s)
        gate.feed(frame(owner, s, {"power": 1, "energy": s, "m": 1}))
        gate.advance()
    clock.set(15 + 365 * DAY)
    gate.advance()
    rows = sum(block.rows for blocks in gate.take().values() for block in blocks)
    assert rows <= 3 * 130


def test_nothing_is_claimed_about_a_time_when_nobody_looked() -> None:
    """A value that holds until contact is lost was not seen to hold while the gate slept."""
    clock = Clock(0)
    gate = gate_for(FOLLOWED, clock)
    for s in [*range(15), *range(3600, 3622)]:
        clock.set(s)
        gate.advance()
        gate.feed(frame(FOLLOWED, s, {"power": s, "energy": s, "m": 1}))
    gate.advance()
    found = taken(gate)
    assert {at: cell for at, cell in found.items() if at[0] in (1, 11)} == {
        (1, 0): (9, 0, 1),
        (1, 1): (14, 1, 1),
        (1, 360): (3609, 0, 1),
        (11, 0): (10, 0, 1),
        (11, 359): (3590, 0, 359),
        (11, 360): (10, 0, 1),
    }
    running = {slot: cell for (number, slot), cell in found.items() if number == 22}
    assert running == {0: (10, 0, 1), 1: (4, 1, 1), 360: (10, 0, 1)}


def test_a_slot_behind_a_long_run_of_empty_ones_keeps_what_it_holds() -> None:
    """However many empty slots come before it."""
    for gap in range(60, 70):
        clock = Clock(0)
        gate = gate_for(DATED, clock)
        gate.feed(frame(DATED, 0, {"power": 1, "energy": 100}, clock_s=0))
        gate.feed(frame(DATED, 10 * gap + 4, {"power": 2, "energy": 150}, clock_s=10 * gap + 4))
        gate.feed(frame(DATED, 10 * gap + 10, {"power": 3, "energy": 160}, clock_s=10 * gap + 20))
        gate.advance()
        found = taken(gate)
        assert found[1, gap] == (2, 1, 1)
        assert found[11, gap] == (60, 0, gap + 1)
        assert gate.accounts["dev"].open == 0


def test_samples_of_unknown_meaning_do_not_stay_open_behind_a_long_pause() -> None:
    """A code that no model lists gives no value, yet its slot is closed and counted."""
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    for s in range(1, 1001, 10):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"m": 77}))
    clock.set(2000)
    gate.advance()
    book = gate.accounts["dev"]
    assert book.open == 0
    assert book.balanced


def failing(lane: Lane, name: str, times: int) -> None:
    """Let a method of a lane fail so often, then work again."""
    method = getattr(lane, name)
    left = [times]

    def fails(*args: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("injected")
        return method(*args)

    setattr(lane, name, fails)


@pytest.mark.parametrize("owner", [POLLED, FOLLOWED], ids=["polled", "followed"])
@pytest.mark.parametrize("after", range(4))
def test_a_fault_while_closing_leaves_a_gap_and_no_slot_twice(
    owner: PointTable, after: int
) -> None:
    clock = Clock(0)
    gate = gate_for(owner, clock)
    for s in range(60):
        clock.set(s)
        gate.feed(frame(owner, s, {"power": s, "energy": s, "m": 1}))
    lanes = gate._all_lanes()
    for lane in lanes:
        slots = itertools.count()

        def close(slot: int, works: Any = lane.close_slot, slots: Any = slots) -> Row:
            if next(slots) == after:
                raise RuntimeError("injected")
            row: Row = works(slot)
            return row

        def close_run(run: Any, works: Any = lane.close_run, slots: Any = slots) -> list[Row]:
            if after in [next(slots) for _ in run]:
                raise RuntimeError("injected")
            rows: list[Row] = works(run)
            return rows

        lane.close_slot = close  # type: ignore[method-assign] # a fault is injected
        lane.close_run = close_run  # type: ignore[method-assign, assignment] # same
    for s in range(60, 90):
        clock.set(s)
        gate.advance()
        gate.feed(frame(owner, s, {"power": s, "energy": s, "m": 1}))
    found = taken(gate)
    # The first call closes the slot before the first one.
    assert (1, after - 1) not in found
    assert (22, after - 1) not in found
    assert gate.accounts["dev"].balanced
    energy = [(slot, cell) for (number, slot), cell in sorted(found.items()) if number == 11]
    covered = [slot - step for slot, (_, _, span) in energy for step in range(span)]
    assert sorted(covered) == list(range(min(covered), max(covered) + 1))


def test_a_fault_that_stays_does_not_write_anything_over_and_over() -> None:
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    for lane in gate._all_lanes():
        failing(lane, "close_slot", 10**6)
    for s in range(200):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"power": 1, "energy": s, "m": 1}))
        gate.advance()
    assert not gate.has_closed
    assert gate.take() == {}
    assert gate.accounts["dev"].balanced
    # What could not be closed is past: none of it is tried again.
    assert {lane.cursor for lane in gate._all_lanes()} == {T0 // (10 * SECOND) + 19}


def test_a_clock_that_steps_back_releases_no_slot_twice() -> None:
    clock = Clock(100)
    gate = gate_for(POLLED, clock)
    found: Released = {}
    for s in [*range(100, 150), *range(50, 200)]:
        clock.set(s)
        gate.feed(frame(POLLED, s, {"power": s, "energy": s, "m": 1}))
        gate.advance()
        new = taken(gate)
        assert not found.keys() & new.keys()
        found |= new
    assert (1, 17) in found
    assert gate.accounts["dev"].balanced


@pytest.mark.parametrize("first", [True, False], ids=["at first", "later"])
def test_a_device_clock_that_cannot_be_true_closes_nothing_for_good(first: bool) -> None:
    clock = Clock(0)
    gate = gate_for(DATED, clock)
    absurd = 100 * 365 * DAY
    if not first:
        gate.feed(frame(DATED, 0, {"power": 1, "energy": 1}, clock_s=0))
    gate.feed(frame(DATED, absurd, {"power": 9, "energy": 9}, clock_s=absurd))
    gate.advance()
    for s in range(5, 50):
        gate.feed(frame(DATED, s, {"power": 2, "energy": s}, clock_s=s))
        gate.advance()
    found = taken(gate)
    assert found[1, 2] == (2, 0, 1)
    assert found[11, 2] == (10, 0, 1)
    book = gate.accounts["dev"]
    assert book.dropped["time_ahead"] == 2
    assert book.balanced


def test_a_device_may_live_in_the_past() -> None:
    clock = Clock(3 * 365 * DAY)
    gate = gate_for(DATED, clock)
    for s in range(0, 50, 5):
        gate.feed(frame(DATED, s, {"power": 2, "energy": s}, clock_s=s))
    gate.advance()
    found = taken(gate)
    assert {slot for number, slot in found if number == 11} == {0, 1, 2, 3}


def test_only_so_many_slots_are_open_at_once() -> None:
    clock = Clock(2 * DAY)
    gate = gate_for(DATED, clock)
    for s in range(0, 20_000, 10):
        gate.feed(frame(DATED, s, {"power": 1, "energy": s}))
    for lane in gate._all_lanes():
        assert len(lane.open_slots()) <= 1025
    assert gate.accounts["dev"].balanced


def test_so_much_closed_and_not_taken_stops_collecting() -> None:
    owner = table([point(f"p{at}", "power.active") for at in range(1000)], hold_ns=None)
    clock = Clock(0)
    gate = gate_of(owner, [rule(owner, f"p{at}", at + 1, window_s=1) for at in range(1000)], clock)
    gate.feed(frame(owner, 0, {p.id: 1 for p in owner.points}))
    for s in range(0, 2100, 50):
        clock.set(s)
        gate.advance()
        assert gate.full == (s > 2000)
    gate.take()
    assert not gate.full


def test_a_frame_may_hold_several_moments_and_absent_cells() -> None:
    clock = Clock(0)
    gate = gate_for(POLLED, clock)
    gate.feed(frame(POLLED, 0, {"power": 0, "energy": 100}))
    clock.set(31)
    gap = int(Quality.ABSENT)
    gate.feed(
        Frame(
            "dev",
            np.array([0, 1], np.int32),
            np.array([[T0 + s * SECOND] for s in (8, 10, 12, 20, 30)], np.int64),
            np.array([[1, 0], [2, 105], [0, 107], [3, 0], [4, 120]], np.int64),
            np.array([[0, gap], [0, 0], [gap, 0], [0, gap], [0, 0]], np.uint8),
        )
    )
    clock.set(31.5)
    gate.advance()
    found = taken(gate)
    assert found == {
        (1, 0): (1, 0, 1),
        (1, 1): (2, 1, 1),
        (1, 2): (3, 1, 1),
        (11, 0): (5, 0, 1),
        (11, 2): (15, 0, 2),
    }
    assert gate.accounts["dev"].produced == 9


@pytest.mark.parametrize("delay_s", [0, 15])
def test_what_closed_before_a_halt_leaves_after_it_so_that_no_rise_is_lost(delay_s: int) -> None:
    """A clock that is not believed, or a stop that cannot be read, comes between closing and leaving."""
    clock, found = Clock(0), dict[tuple[int, int], object]()
    gate = gate_of(POLLED, [rule(POLLED, "energy", 11, delay_s=delay_s)], clock)
    for s in range(93):
        clock.set(s)
        gate.halted = "the clock has jumped" if 33 <= s < 50 else ""
        gate.feed(frame(POLLED, s, {"energy": 3 * s}))
        gate.advance()
        if s in {25, 40, 49, 92}:
            before, out = gate.has_closed, cells_of(gate.take())
            assert not (out and gate.halted)
            assert (before, gate.has_closed) == (s != 49, False)
            found |= out
            memory = gate.memory()
            gate = gate_of(POLLED, [rule(POLLED, "energy", 11, delay_s=delay_s)], clock)
            gate.restore(memory)
    ends = range(9) if not delay_s else range(7)
    assert {slot for _, slot in found} | {3} == set(ends)
    assert found[11, 2] == (30, 0, 1)
    assert found[11, 4] == (60, 0, 2)

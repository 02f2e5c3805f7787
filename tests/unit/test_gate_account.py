"""The account: after every step, whatever fails, each sample is in exactly one place."""

import logging
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.frame import Quality, lost_frame
from security.policy.account import Account
from security.policy.gate import Gate
from security.policy.lane import Lane
from tests.unit.gate_material import Clock, cells_of, counter, frame, gate_of, point, rule, table

POINTS = [
    counter("energy"),
    point("power", "power.active"),
    point("m", "machine.state"),
    counter("withheld"),
    point("warmth", "temperature"),
]
POLLED = table(POINTS, real=["warmth"])
FOLLOWED = table(POINTS, device="followed", real=["warmth"], hold_ns=None)
RULES = [
    rule(owner, p.id, 100 * n + 10 * at + 1)
    for n, owner in enumerate((POLLED, FOLLOWED))
    for at, p in enumerate(POINTS)
    if p.id != "withheld"
]
FAILING = ("take", "close_slot", "close_run", "slot_of", "_place_in_time", "_count", "open_slots")


class Faults:
    """Lets methods of lanes fail now and then."""

    def __init__(self, chance: random.Random, often: float) -> None:
        self._chance = chance
        self.often = often

    def into(self, lane: Lane) -> None:
        for name in FAILING:
            setattr(lane, name, self._maybe(getattr(lane, name)))
        if hasattr(lane, "_latest"):
            lane._latest.take = self._maybe(lane._latest.take)

    def _maybe(self, method: Any) -> Any:
        def sometimes(*args: Any) -> Any:
            if self._chance.random() < self.often:
                raise RuntimeError("4711 is a raw value")
            return method(*args)

        return sometimes


def feed(gate: Gate, chance: random.Random, at_s: float) -> None:
    owner = chance.choice([POLLED, FOLLOWED])
    codes = [Quality.GOOD, Quality.GOOD, Quality.GOOD, Quality.UNCERTAIN, Quality.BAD]
    quality = {p.id: int(chance.choice([*codes, Quality.ABSENT])) for p in POINTS}
    back = chance.choice([0, 0, 0, 1, 30])
    if chance.random() < 0.1:
        gate.feed(lost_frame(owner.device, owner.columns(), gate._now()))
    elif chance.random() < 0.2:
        gate.feed(frame(owner, at_s - back, {"warmth": at_s / 3}, quality=quality))
    else:
        whole = {
            "energy": chance.choice([int(at_s), 3]),
            "power": 5,
            "m": chance.choice([1, 3]),
            "withheld": 9,
        }
        gate.feed(frame(owner, at_s - back, whole, quality=quality))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.02, 0.2]))
def test_every_sample_is_in_exactly_one_place_whatever_fails(seed: int, often: float) -> None:
    chance = random.Random(seed)
    faults, clock = Faults(chance, often), Clock()
    gate = gate_of([POLLED, FOLLOWED], RULES, clock)
    memory = gate.memory()
    seen: set[tuple[int, int]] = set()
    at_s = 0.0
    for lane in gate._all_lanes():
        faults.into(lane)
    for _ in range(60):
        at_s += chance.choice([0.3, 1.0, 4.0, 12.0])
        clock.set(at_s)
        feed(gate, chance, at_s)
        assert all(book.balanced for book in gate.accounts.values())
        gate.advance()
        assert all(book.balanced for book in gate.accounts.values())
        if chance.random() < 0.3:
            found = cells_of(gate.take())
            assert not seen & found.keys()
            seen |= found.keys()
            memory = gate.memory()
        elif chance.random() < 0.1:
            gate = gate_of([POLLED, FOLLOWED], RULES, clock)
            gate.restore(memory)
            for lane in gate._all_lanes():
                faults.into(lane)
        for book in gate.accounts.values():
            numbers = [book.produced, book.consumed, book.withheld, book.open]
            assert book.balanced
            assert min(numbers) >= 0
            assert min(book.dropped.values(), default=0) >= 0


def test_what_a_fault_drops_is_said_without_any_value(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    gate = gate_of([POLLED, FOLLOWED], RULES, clock)
    for lane in gate._all_lanes():
        Faults(random.Random(0), 1.0).into(lane)
    with caplog.at_level(logging.DEBUG):
        gate.feed(frame(POLLED, 0, {"energy": 4711, "power": 4711, "m": 1, "withheld": 1}))
    assert "RuntimeError" in caplog.text
    assert "4711" not in caplog.text
    assert len(caplog.records) == 3
    book = gate.accounts["dev"]
    assert book.dropped["gate_error"] == 3
    assert book.withheld == 1


def test_a_fault_in_one_lane_leaves_the_others_alone() -> None:
    clock = Clock()
    gate = gate_of(POLLED, [one for one in RULES if one.device == "dev"], clock)
    broken = next(lane for lane in gate._all_lanes() if lane.aggregate == "delta")
    Faults(random.Random(0), 1.0).into(broken)
    for s in range(13):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"energy": s, "power": s, "m": 1}))
        gate.advance()
    assert {number for number, _ in cells_of(gate.take())} == {11, *range(21, 30)}


def test_a_fault_that_stays_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    gate = gate_of(POLLED, [rule(POLLED, "power", 1)], clock)
    Faults(random.Random(0), 1.0).into(gate._all_lanes()[0])
    for s in range(180):
        clock.set(s)
        gate.feed(frame(POLLED, s, {"power": s}))
        gate.advance()
    assert len(caplog.records) == 3


def test_an_account_survives_its_own_writing() -> None:
    book = Account(produced=10, withheld=2, consumed=3, open=4)
    book.dropped["late"] = 1
    assert book.balanced
    assert Account.from_dict(book.as_dict()) == book
    book.open += 1
    assert not book.balanced


def test_a_reading_that_is_held_back_is_taken_out_of_the_slot_it_lay_in() -> None:
    clock = Clock(1)
    owner = table([counter("energy")])
    gate = gate_of(owner, [rule(owner, "energy", 1)], clock)
    book = gate.accounts["dev"]
    gate.feed(frame(owner, 1, {"energy": 100}))
    clock.set(11)
    gate.feed(frame(owner, [9, 11], {"energy": [99, 101]}))
    assert (book.open, book.dropped["unconfirmed_fall"]) == (2, 1)
    clock.set(11.5)
    gate.advance()
    assert (book.consumed, book.open) == (1, 1)

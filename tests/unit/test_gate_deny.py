"""What is not released never leaves, and leaves no trace in what does."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.frame import SECOND, Frame, Quality
from protocols.points import PointTable
from security.policy.compiled import Rule
from security.policy.gate import Gate
from tests.unit.gate_material import (
    T0,
    Clock,
    Released,
    cells_of,
    counter,
    frame,
    gate_of,
    point,
    policy,
    rule,
    table,
)

OWNER = table(
    [
        point("power", "power.active"),
        point("secret", "power.active"),
        counter("energy"),
        counter("recipe"),
        point("machine", "machine.state"),
        point("hidden", "machine.state"),
        point("warmth", "temperature"),
        point("furnace", "temperature"),
    ],
    real=["warmth", "furnace"],
)
RULES = [
    rule(OWNER, "power", 1),
    rule(OWNER, "energy", 2),
    rule(OWNER, "machine", 10),
    rule(OWNER, "warmth", 30, step="0.5"),
]
RELEASED = ("power", "energy", "machine", "warmth")


def run(gate: Gate, clock: Clock, frames: Sequence[tuple[float, Frame]]) -> Released:
    for at_s, one in frames:
        clock.set(at_s)
        gate.feed(one)
        gate.advance()
    clock.set(60)
    gate.advance()
    return cells_of(gate.take())


def test_a_point_without_a_rule_releases_nothing() -> None:
    clock = Clock(1)
    gate = gate_of(OWNER, RULES, clock)
    whole = {"secret": 5, "recipe": 100, "hidden": 1}
    frames = [(s, frame(OWNER, s, whole)) for s in range(1, 50)]
    frames += [(50, frame(OWNER, 50, {"furnace": 900.0}))]
    assert run(gate, clock, frames) == {}
    book = gate.accounts["dev"]
    assert book.produced == book.withheld == 3 * 49 + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "holding:other"},
        {"type": "uint32"},
        {"unit": "W"},
        {"scale": "0.1"},
        {"offset": "1"},
        {"measurand": "power.factor"},
        {"state_model": "packml"},
        {"device": "elsewhere"},
        {"point": "powder"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_source_that_is_not_what_was_signed_stays_withheld(changes: dict[str, str]) -> None:
    clock = Clock(1)
    gate = gate_of(OWNER, [rule(OWNER, "power", 1).model_copy(update=changes)], clock)
    frames = [(s, frame(OWNER, s, {"power": 5})) for s in range(1, 50)]
    assert run(gate, clock, frames) == {}
    assert len(gate.suspended) == 1
    assert gate.accounts["dev"].withheld == 49
    assert not gate.released_points("dev").any()


def test_an_equal_scale_written_otherwise_is_the_same_source() -> None:
    owner = table([point("power", "power.active", scale="0.10")])
    gate = gate_of(owner, [rule(owner, "power", 1, scale="0.100")], Clock())
    assert gate.suspended == []


def test_a_released_state_of_an_unknown_model_is_suspended_not_fatal() -> None:
    clock = Clock(1)
    gate = gate_of(OWNER, [rule(OWNER, "machine", 10, state_model="invented")], clock)
    frames = [(s, frame(OWNER, s, {"machine": 1})) for s in range(1, 50)]
    assert run(gate, clock, frames) == {}
    assert len(gate.suspended) == 1


@pytest.mark.parametrize(("valid_from", "valid_until"), [(0, T0 // SECOND), (1 << 40, 1 << 41)])
def test_outside_of_its_validity_a_policy_releases_nothing(
    valid_from: int, valid_until: int
) -> None:
    clock = Clock(1)
    limited = policy(RULES, valid_from=valid_from, valid_until=valid_until)
    gate = Gate(limited, {"dev": OWNER}, clock)
    frames = [(s, frame(OWNER, s, {"power": 5, "energy": s})) for s in range(1, 50)]
    assert run(gate, clock, frames) == {}
    assert gate.accounts["dev"].withheld == 2 * 49


def test_a_slot_that_ends_after_the_validity_is_not_released() -> None:
    clock = Clock(1)
    limited = policy(RULES, valid_until=T0 // SECOND + 25)
    gate = Gate(limited, {"dev": OWNER}, clock)
    for s in range(1, 60):
        clock.set(s)
        gate.feed(frame(OWNER, s, {"power": 5}))
        gate.advance()
        if s == 24:
            assert set(cells_of(gate.take())) == {(1, 1)}
    assert gate.take() == {}


def test_a_clock_outside_of_the_validity_uses_up_no_slots() -> None:
    clock = Clock(0)
    limited = policy(RULES, valid_from=T0 // SECOND, valid_until=T0 // SECOND + 3600)
    gate = Gate(limited, {"dev": OWNER}, clock)
    for s in range(45):
        for wrong_s in (400 * 86400, -400 * 86400):
            clock.set(wrong_s)
            gate.advance()
        clock.set(s)
        gate.feed(frame(OWNER, s, {"power": s, "energy": s}))
        gate.advance()
    found = cells_of(gate.take())
    assert [found[1, slot][0] for slot in range(4)] == [9, 19, 29, 39]
    assert [found[2, slot] for slot in range(4)] == [(10, 0, 1)] * 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e300, -1e18])
def test_a_number_that_cannot_be_released_exactly_has_no_value(value: float) -> None:
    clock = Clock(1)
    gate = gate_of(OWNER, [rule(OWNER, "warmth", 30)], clock)
    frames = [(s, frame(OWNER, s, {"warmth": value})) for s in range(1, 50)]
    assert run(gate, clock, frames) == {}
    assert gate.accounts["dev"].balanced


def test_the_lowest_number_of_64_bits_has_no_value() -> None:
    owner = table([point("power", "power.active", scale="10"), point("other", "power.active")])
    clock = Clock(1)
    gate = gate_of(owner, [rule(owner, "power", 1), rule(owner, "other", 2)], clock)
    lowest = -(2**63)
    frames = [(s, frame(owner, s, {"power": lowest, "other": lowest})) for s in range(1, 50)]
    assert run(gate, clock, frames) == {}


def test_integers_where_the_policy_names_a_float_are_not_taken_for_its_value() -> None:
    clock = Clock(1)
    gate = gate_of(OWNER, [rule(OWNER, "warmth", 30), rule(OWNER, "power", 1)], clock)
    for s in range(1, 50):
        clock.set(s)
        good = frame(OWNER, s, {"power": 7, "secret": 0})
        columns = good.columns.copy()
        columns[1] = 6  # warmth, which frames carry as float64
        gate.feed(Frame("dev", columns, good.time, good.values, good.quality))
    gate.advance()
    assert {number for number, _ in cells_of(gate.take())} == {1}
    assert gate.accounts["dev"].dropped["bad_quality"] == 49


def test_a_driver_that_writes_into_its_columns_lets_nothing_else_out() -> None:
    """The same array names a released point first, a withheld one then."""
    clock = Clock(0)
    gate = gate_of(OWNER, RULES, clock)
    columns = np.array([0], np.int32)
    for s in range(25):
        clock.set(s)
        columns[0] = s % 2
        one = frame(OWNER, s, {"power": 5 + 1000 * (s % 2)})
        gate.feed(Frame("dev", columns, one.time, one.values, one.quality))
        gate.advance()
    assert cells_of(gate.take()) == {(1, 0): (5, 0, 1), (1, 1): (5, 0, 1)}
    assert gate.accounts["dev"].withheld == 12


@st.composite
def two_worlds(draw: st.DrawFn) -> list[tuple[float, list[Frame], list[Frame]]]:
    """Draw frames of two devices that differ in the values and qualities of withheld points."""
    steps: list[tuple[float, list[Frame], list[Frame]]] = []
    at_s = 1.0
    small = st.integers(0, 12)
    quality = st.sampled_from([Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.LOST])
    anything = st.integers(-(2**62), 2**62) | small
    for _ in range(draw(st.integers(3, 12))):
        at_s += draw(st.sampled_from([0.25, 1.0, 2.5, 10.0, 14.75]))
        common = {"power": draw(small), "energy": draw(small), "machine": draw(st.integers(-1, 9))}
        codes = {name: int(draw(quality)) for name in common}
        warmth = draw(st.floats(-1e6, 1e6))
        worlds = []
        for _ in range(2):
            secret = {"secret": draw(anything), "recipe": draw(anything), "hidden": draw(anything)}
            hidden = {name: int(draw(st.sampled_from([0, 1, 2]))) for name in secret}
            furnace = draw(st.floats(allow_nan=True, allow_infinity=True))
            worlds.append(
                [
                    frame(OWNER, at_s, {**common, **secret}, quality={**codes, **hidden}),
                    frame(OWNER, at_s, {"warmth": warmth, "furnace": furnace}),
                ]
            )
        steps.append((at_s, worlds[0], worlds[1]))
    return steps


def observed(
    rules: Sequence[Rule], owner: PointTable, steps: Sequence[tuple[float, list[Frame]]]
) -> list[object]:
    """Return everything that could be seen outside: what was taken, when, and sizes."""
    clock = Clock()
    gate = gate_of(owner, rules, clock)
    seen: list[object] = []
    for at_s, frames in steps:
        clock.set(at_s)
        for one in frames:
            gate.feed(one)
        gate.advance()
        seen.append((gate.full, gate.has_closed))
        if gate.has_closed:
            seen.append(cells_of(gate.take()))
            seen.append(len(gate.memory()))
        assert gate.accounts[owner.device].balanced
    return seen


@settings(max_examples=60, deadline=None)
@given(two_worlds())
def test_withheld_values_leave_no_trace_in_what_is_released(
    steps: list[tuple[float, list[Frame], list[Frame]]],
) -> None:
    first = observed(RULES, OWNER, [(at_s, one) for at_s, one, _ in steps])
    second = observed(RULES, OWNER, [(at_s, two) for at_s, _, two in steps])
    assert first == second


def test_released_values_do_show() -> None:
    """Without this the test above could pass on a gate that releases nothing."""
    clock = Clock(1)
    gate = gate_of(OWNER, RULES, clock)
    whole = {"power": 5, "energy": 100, "machine": 1}
    frames = [(s, frame(OWNER, s, {**whole, "energy": 100 + s})) for s in range(1, 50)]
    numbers = {number for number, _ in run(gate, clock, frames)}
    assert numbers == {1, 2, *range(10, 19)}


def test_a_frame_of_points_nobody_knows_is_no_fault() -> None:
    owner = table([point("power", "power.active")])
    gate = gate_of([owner, OWNER], [rule(owner, "power", 1, device="other")], Clock(1))
    gate.feed(
        Frame(
            "dev",
            np.zeros(0, np.int32),
            np.full((1, 1), T0),
            np.zeros((1, 0), np.int64),
            np.zeros((1, 0), np.uint8),
        )
    )
    assert gate.accounts["dev"].produced == gate.accounts["dev"].withheld == 0

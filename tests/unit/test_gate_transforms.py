"""Each transform alone: what it does at its edges, and that none of them ever gives more away."""

import hashlib
import hmac
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import strict_cbor
from protocols.frame import Quality
from protocols.points import PointTable
from security.policy.clauses import grid_of
from security.policy.compiled import Rule
from tests.unit.gate_material import (
    GATE_KEY,
    T0_S,
    Cell,
    Clock,
    Released,
    cells_of,
    counter,
    derivation,
    frame,
    gate_of,
    point,
    policy,
    rule,
    table,
)

STATISTICS = ("mean", "min", "max", "sum")


def gauge(**how: Any) -> PointTable:
    return table([point("p", "other")], **how)


def run(
    owner: PointTable,
    rules: list[Rule],
    samples: Sequence[tuple[float, float]],
    *,
    until_s: float,
    window_s: int = 10,
    **how: Any,
) -> Released:
    """Feed samples of the first point one by one, and return what leaves until then."""
    clock = Clock()
    gate = gate_of(owner, rules, clock, **how)
    gate.advance()
    for at_s, value in samples:
        clock.set(at_s)
        gate.feed(frame(owner, at_s, {owner.points[0].id: value}))
    clock.set(until_s)
    gate.advance()
    return cells_of(gate.take(), window_s)


@pytest.mark.parametrize(
    ("aggregate", "value"), [("mean", 4), ("min", 1), ("max", 9), ("sum", 16), ("last", 2)]
)
def test_a_statistic_is_of_the_samples_of_its_slot_and_of_no_other(
    aggregate: str, value: int
) -> None:
    """10 belongs to the slot that begins there, 9.999 to the one before."""
    owner = gauge()
    samples = [(0, 4), (3, 9), (5, 1), (9.999, 2), (10, 50)]
    found = run(owner, [rule(owner, "p", 1, aggregate=aggregate)], samples, until_s=12)
    assert found == {(1, 0): (value, 0, 1)}


@pytest.mark.parametrize("aggregate", STATISTICS)
@pytest.mark.parametrize(("count", "leaves"), [(2, False), (3, True)])
def test_nothing_is_computed_from_fewer_samples_than_asked_for(
    aggregate: str, count: int, leaves: bool
) -> None:
    owner = gauge()
    rules = [rule(owner, "p", 1, aggregate=aggregate, min_samples=3)]
    assert bool(run(owner, rules, [(at, 7) for at in range(count)], until_s=12)) is leaves


@pytest.mark.parametrize("quality", [Quality.BAD, Quality.UNCERTAIN, Quality.LOST])
@pytest.mark.parametrize("aggregate", STATISTICS)
def test_what_is_known_to_be_incomplete_is_uncertain_and_a_sum_of_it_is_none(
    aggregate: str, quality: Quality
) -> None:
    owner, clock = gauge(), Clock()
    gate = gate_of(owner, [rule(owner, "p", 1, aggregate=aggregate)], clock)
    gate.advance()
    for at, code in ((1, Quality.GOOD), (2, quality), (3, Quality.GOOD)):
        clock.set(at)
        gate.feed(frame(owner, at, {"p": 6}, quality=code))
    clock.set(12)
    gate.advance()
    found = cells_of(gate.take())
    if aggregate == "sum" and quality != Quality.UNCERTAIN:
        assert found == {}
    else:
        assert found[1, 0][1] == 1


def test_a_mean_is_exact_however_large_its_samples_are() -> None:
    owner = gauge()
    rules = [rule(owner, "p", 1, aggregate="mean")]
    low, high = -(2**63), 2**63 - 1
    assert run(owner, rules, [(1, low), (2, high)], until_s=12) == {(1, 0): (0, 0, 1)}
    assert run(owner, rules, [(1, 2**53), (2, 2**53 - 1)], until_s=12)[1, 0][0] == 2**53
    assert run(owner, rules, [(at, high) for at in range(9)], until_s=12) == {}


def test_a_value_that_holds_counts_in_the_slots_of_a_subscribed_point() -> None:
    owner = gauge(hold_ns=None)
    for aggregate, third in (("mean", 6), ("min", 4), ("max", 8)):
        rules = [rule(owner, "p", 1, aggregate=aggregate)]
        found = run(owner, rules, [(1, 4), (21, 8)], until_s=32)
        assert found == {(1, 0): (4, 0, 1), (1, 1): (4, 0, 1), (1, 2): (third, 0, 1)}
    assert run(owner, [rule(owner, "p", 1, aggregate="sum")], [(1, 4), (21, 8)], until_s=32) == {
        (1, 0): (4, 0, 1),
        (1, 2): (8, 0, 1),
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
)
def test_a_mean_of_floats_does_not_depend_on_order_or_grouping(
    values: list[float], rng: Any
) -> None:
    owner = gauge(real=["p"])
    rules = [rule(owner, "p", 1, aggregate="mean", step="0.01")]
    shuffled = rng.sample(values, len(values))
    one = run(owner, rules, [(1, value) for value in values], until_s=12)
    clock = Clock()
    gate = gate_of(owner, rules, clock)
    gate.advance()
    clock.set(2)
    gate.feed(frame(owner, [2] * len(shuffled), {"p": shuffled}))
    clock.set(12)
    gate.advance()
    assert cells_of(gate.take()) == one


# Clamp, bands, range.


@pytest.mark.parametrize(
    ("value", "left"),
    [(-7, -5), (-5, -5), (3, 5), (7, 5), (8, 10), (20, 20), (21, 20), (10**17, 20)],
)
def test_what_is_beyond_the_clamp_counts_as_its_end(value: int, left: int) -> None:
    owner = gauge()
    rules = [rule(owner, "p", 1, aggregate="last", step="5", clamp=[-5, 20])]
    assert run(owner, rules, [(9, value)], until_s=12) == {(1, 0): (left, 0, 1)}


@pytest.mark.parametrize("real", [[], ["p"]])
@pytest.mark.parametrize(
    ("value", "band"), [(-1, 0), (0, 1), (24, 1), (25, 2), (26, 2), (49, 2), (50, 3), (10**9, 3)]
)
@pytest.mark.parametrize("aggregate", ["last", "min", "max", "mean", "sum"])
def test_a_value_on_an_edge_has_reached_it(
    real: list[str], value: int, band: int, aggregate: str
) -> None:
    owner = gauge(real=real)
    rules = [rule(owner, "p", 1, aggregate=aggregate, bands=[0, 25, 50])]
    assert run(owner, rules, [(9, value)], until_s=12) == {(1, 0): (band, 0, 1)}


def test_a_value_out_of_its_range_is_not_used_and_is_counted() -> None:
    owner, clock = gauge(), Clock()
    gate = gate_of(owner, [rule(owner, "p", 1, aggregate="max", range=["0", "100"])], clock)
    gate.advance()
    for at, value in ((1, 100), (2, 101), (3, -1), (4, 0)):
        clock.set(at)
        gate.feed(frame(owner, at, {"p": value}))
    clock.set(12)
    gate.advance()
    assert cells_of(gate.take()) == {(1, 0): (100, 1, 1)}
    assert gate.accounts["dev"].dropped["out_of_range"] == 2
    assert gate.accounts["dev"].balanced


# Delay and filling.


def test_a_delayed_slot_leaves_when_its_time_has_come_and_survives_a_crash() -> None:
    owner, clock = gauge(), Clock()
    rules = [rule(owner, "p", 1, aggregate="last", delay_s=60)]
    gate = gate_of(owner, rules, clock)
    gate.advance()
    clock.set(9)
    gate.feed(frame(owner, 9, {"p": 5}))
    for at in (12, 40, 69.9):
        clock.set(at)
        gate.advance()
        # What was closed must be committed, though it does not leave yet.
        before = gate.has_closed
        assert cells_of(gate.take()) == {}
        assert (before, gate.has_closed) == (True, False)
        memory = gate.memory()
        gate = gate_of(owner, rules, clock)
        gate.restore(memory)
    clock.set(70)
    gate.advance()
    assert gate.has_closed
    assert cells_of(gate.take())[1, 0] == (5, 0, 1)
    memory = gate.memory()
    gate = gate_of(owner, rules, clock)
    gate.restore(memory)
    gate.advance()
    assert (1, 0) not in cells_of(gate.take())


def test_what_waits_does_not_leave_under_a_policy_that_releases_it_otherwise() -> None:
    owner, clock = gauge(), Clock()
    gate = gate_of(owner, [rule(owner, "p", 1, aggregate="last", delay_s=60)], clock)
    gate.advance()
    clock.set(9)
    gate.feed(frame(owner, 9, {"p": 5}))
    clock.set(12)
    gate.advance()
    memory = gate.memory()
    for narrower in ([], [rule(owner, "p", 1, aggregate="last", delay_s=60, step="100")]):
        other = gate_of(owner, narrower, clock)
        other.restore(memory)
        clock.set(75)
        other.advance()
        assert (1, 0) not in cells_of(other.take())
        clock.set(12)


@pytest.mark.parametrize("aggregate", ["last", *STATISTICS])
def test_a_missing_slot_is_filled_once_and_only_within_its_time(aggregate: str) -> None:
    owner, clock = gauge(), Clock()
    gate = gate_of(owner, [rule(owner, "p", 1, aggregate=aggregate, fill_within_s=30)], clock)
    gate.advance()
    for at in (12, 22, 32):
        clock.set(at)
        gate.advance()
    assert cells_of(gate.take()) == {}
    gate.feed(frame(owner, [8, 9], {"p": [4, 4]}))
    gate.feed(frame(owner, 25, {"p": 7}))
    clock.set(41.4)
    gate.advance()
    assert (1, 0) not in cells_of(gate.take())  # late samples are still taken
    clock.set(41.6)
    gate.advance()
    first = cells_of(gate.take())
    assert first[1, 0][0] == (8 if aggregate == "sum" else 4)
    gate.feed(frame(owner, 9.5, {"p": 99}))
    clock.set(62)
    gate.advance()
    second = cells_of(gate.take())
    assert (1, 0) not in second
    assert second[1, 2][0] == 7
    assert gate.accounts["dev"].dropped["late"] == 1
    assert gate.accounts["dev"].balanced


def test_a_slot_that_has_a_value_is_never_filled() -> None:
    owner, clock = gauge(), Clock()
    gate = gate_of(owner, [rule(owner, "p", 1, aggregate="max", fill_within_s=30)], clock)
    gate.advance()
    clock.set(9)
    gate.feed(frame(owner, 9, {"p": 4}))
    clock.set(22)
    gate.advance()
    assert cells_of(gate.take())[1, 0] == (4, 0, 1)
    gate.feed(frame(owner, 9.5, {"p": 99}))
    clock.set(60)
    gate.advance()
    assert (1, 0) not in cells_of(gate.take())


# Pseudonyms.


def test_a_pseudonym_is_the_keyed_hash_that_the_page_describes_and_turns() -> None:
    owner = gauge()
    one = rule(owner, "p", 1, aggregate="last", pseudonym_s=20)
    found = run(owner, [one], [(9, 77), (19, 77), (29, 77), (39, 78)], until_s=42)
    key = hashlib.sha256(b"mg1/pseudonym-key\x00" + GATE_KEY).digest()

    def expected(slot: int, value: int) -> int:
        turn = (T0_S // 10 + slot) * 10 // 20
        said = strict_cbor.encode(["mg1/pseudonym", one.stream, 1, turn, value])
        return int.from_bytes(hmac.digest(key, said, "sha256")[:8], "big") % 2**52

    assert {slot: cell[0] for (_, slot), cell in found.items()} == {
        0: expected(0, 77), 1: expected(1, 77), 2: expected(2, 77), 3: expected(3, 78)
    }  # fmt: skip
    assert found[1, 0] == found[1, 1] != found[1, 2]


def test_without_the_key_no_pseudonym_and_no_value_leaves() -> None:
    from security.policy.gate import Gate  # noqa: PLC0415 - made by hand, without its key

    owner, clock = gauge(), Clock()
    rules = [rule(owner, "p", 1, aggregate="last", pseudonym_s=20)]
    gate = Gate(policy(rules), {"dev": owner}, clock)
    gate.advance()
    clock.set(9)
    gate.feed(frame(owner, 9, {"p": 5}))
    clock.set(12)
    gate.advance()
    assert cells_of(gate.take()) == {}


# Several ways, budgets, stops.


def test_a_point_that_leaves_in_several_ways_is_counted_once() -> None:
    owner, clock = gauge(), Clock()
    rules = [
        rule(owner, "p", at, aggregate=one)
        for at, one in enumerate(("min", "max", "mean", "last", "last"), 1)
    ]
    gate = gate_of(owner, rules, clock)
    gate.advance()
    for at in (1, 5):
        clock.set(at)
        gate.feed(frame(owner, at, {"p": at}))
    clock.set(12)
    gate.advance()
    found = cells_of(gate.take())
    values = {number: cell[0] for (number, _), cell in found.items()}
    assert values == {1: 1, 2: 5, 3: 3, 4: 5, 5: 5}
    book = gate.accounts["dev"]
    assert (book.produced, book.consumed, book.withheld) == (2, 2, 0)
    assert book.balanced


def test_a_spent_budget_of_rows_lets_nothing_more_out_until_the_next_day() -> None:
    owner, clock = gauge(hold_ns=None), Clock()
    rules = [rule(owner, "p", 1, aggregate="last")]
    gate = gate_of(owner, rules, clock, budget_rows=3)
    gate.advance()
    clock.set(1)
    gate.feed(frame(owner, 1, {"p": 5}))
    out: Released = {}
    for at in range(12, 72, 10):
        clock.set(at)
        gate.advance()
        out |= cells_of(gate.take())
        memory = gate.memory()
        gate = gate_of(owner, rules, clock, budget_rows=3)
        gate.restore(memory)
        gate.feed(frame(owner, at, {"p": 5}))
    assert sorted(slot for _, slot in out) == [0, 1, 2]
    assert gate.exceeded == {"brain"} or not gate.has_closed
    clock.set(86_400 + 11)
    gate.advance()
    found = cells_of(gate.take())
    assert len(found) <= 3


def test_a_budget_of_bytes_is_kept() -> None:
    owner = gauge(hold_ns=None)
    rules = [rule(owner, "p", 1, aggregate="last")]
    samples = [(float(at), at * 1_000_003) for at in range(1, 100, 10)]
    everything = run(owner, rules, samples, until_s=105)
    assert len(everything) == 10
    assert run(owner, rules, samples, until_s=105, budget_bytes=10) == {}
    assert run(owner, rules, samples, until_s=105, budget_bytes=10_000) == everything


def test_a_stopped_policy_lets_nothing_out_and_throws_away_what_waited() -> None:
    owner, clock = table([counter("p")]), Clock()
    rules = [rule(owner, "p", 1, delay_s=20)]
    gate = gate_of(owner, rules, clock)
    gate.advance()

    def read(at: float, value: int) -> None:
        clock.set(at)
        gate.feed(frame(owner, at, {"p": value}))
        gate.advance()

    for at, value in ((0, 100), (9, 110), (19, 120), (22, 123)):
        read(at, value)
    memory = gate.memory()
    stopped = policy(rules).model_copy(update={"stopped": 1})
    gate = type(gate)(stopped, {"dev": owner}, clock)
    gate.restore(memory)
    read(29, 130)
    read(60, 160)
    assert gate.take() == {}
    memory = gate.memory()
    gate = gate_of(owner, rules, clock)
    gate.restore(memory)
    for at, value in ((69, 170), (79, 180), (89, 190)):
        read(at, value)
    clock.set(130)
    gate.advance()
    found = cells_of(gate.take())
    assert min(slot for _, slot in found) == 7  # the first reading after the stop is a new baseline
    assert all(cell == (10, 0, 1) for cell in found.values())


# Derivations.


def mill() -> PointTable:
    good, total = point("good", "production.good"), point("total", "production.total")
    return table([point("state", "machine.state"), good, total, counter("energy")], hold_ns=None)


def shift(gate: Any, clock: Clock, owner: PointTable, states: list[tuple[float, int]]) -> None:
    """Let the mill go through states, with 3 good pieces of 4 and 8 kWh in a slot of 10 s."""
    for at, code in states:
        clock.set(at)
        gate.feed(frame(owner, at, {"state": code}))
    clock.set(10)
    gate.feed(frame(owner, 10, {"good": 103, "total": 204, "energy": 308}))
    clock.set(12)
    gate.advance()


@pytest.mark.parametrize(
    ("formula", "inputs", "value"),
    [
        ("availability", {"state": "state"}, Fraction(8, 10)),
        ("effectiveness", {"state": "state", "pq": "total"}, Fraction(2 * 4, 8)),
        ("quality_ratio", {"gq": "good", "pq": "total"}, Fraction(3, 4)),
        ("oee", {"state": "state", "gq": "good"}, Fraction(3 * 2, 10)),
        ("energy_per_unit", {"energy": "energy", "pq": "total"}, Fraction(8, 4)),
    ],
)
def test_a_key_figure_is_computed_from_inputs_that_do_not_leave(
    formula: str, inputs: dict[str, str], value: Fraction
) -> None:
    owner, clock = mill(), Clock(-5)
    one = derivation(owner, formula, inputs, 1)
    gate = gate_of(owner, [], clock, [one])
    gate.advance()
    gate.feed(frame(owner, -5, {"state": 1, "good": 100, "total": 200, "energy": 300}))
    clock.set(0)
    gate.feed(frame(owner, 0, {"good": 100, "total": 200, "energy": 300}))
    shift(gate, clock, owner, [(8, 6)])
    taken = gate.take()
    assert cells_of(taken) == {(1, 0): (int(value * 100), 0, 1)}
    assert sum(block.mantissa.size for blocks in taken.values() for block in blocks) == 1
    book = gate.accounts["dev"]
    assert book.withheld == book.produced > 0


def test_a_missing_input_is_a_missing_figure_and_never_0() -> None:
    owner, clock = mill(), Clock(-5)
    figures = [
        derivation(owner, "oee", {"state": "state", "gq": "good"}, 1),
        derivation(owner, "availability", {"state": "state"}, 2),
        derivation(owner, "quality_ratio", {"gq": "good", "pq": "total"}, 3),
    ]
    gate = gate_of(owner, [], clock, figures)
    gate.advance()
    # No count of pieces, and the state is known only from 4 s on.
    clock.set(4)
    gate.feed(frame(owner, 4, {"state": 1}))
    clock.set(12)
    gate.advance()
    assert cells_of(gate.take()) == {(2, 0): (100, 1, 1)}


def test_nothing_produced_is_no_quality_and_no_energy_per_unit() -> None:
    owner, clock = mill(), Clock(-5)
    figures = [
        derivation(owner, "quality_ratio", {"gq": "good", "pq": "total"}, 1),
        derivation(owner, "energy_per_unit", {"energy": "energy", "pq": "total"}, 2),
    ]
    gate = gate_of(owner, [], clock, figures)
    gate.advance()
    for at in (-5.0, 0.0, 10.0):
        clock.set(at)
        gate.feed(frame(owner, at, {"good": 100, "total": 200, "energy": 300 + at}))
    clock.set(12)
    gate.advance()
    assert cells_of(gate.take()) == {}


# All of them together.

SHAPES: list[dict[str, Any]] = [
    {"aggregate": "last"},
    {"aggregate": "mean", "min_samples": 2},
    {"aggregate": "min", "clamp": [-50, 50]},
    {"aggregate": "max", "bands": [-10, 0, 10]},
    {"aggregate": "sum"},
    {"aggregate": "last", "delay_s": 20},
    {"aggregate": "mean", "fill_within_s": 20},
    {"aggregate": "last", "pseudonym_s": 40},
]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.sampled_from(["1", "5", "0.5", "10"]),
    st.lists(st.tuples(st.floats(0, 99), st.integers(-(10**6), 10**6)), min_size=1, max_size=40),
    st.booleans(),
)
def test_no_transform_widens_precision_or_the_set_of_points_and_all_are_deterministic(
    shape: dict[str, Any], step: str, samples: list[tuple[float, int]], followed: bool
) -> None:
    points = [point("p", "other", scale="0.1"), point("hidden", "other")]
    owner = table(points, hold_ns=None if followed else 3 * 10**9)
    grid = "1" if shape.get("bands") else step
    more = {"clamp_exponent": 0, **shape}
    if "clamp" in more:
        most = grid_of(Decimal(step))
        more["clamp"] = [-50 * most[1], 50 * most[1]]
        more["clamp_exponent"] = most[0]
    one = rule(owner, "p", 7, step=grid, **more)

    def once() -> Released:
        clock = Clock()
        gate = gate_of(owner, [one], clock)
        gate.advance()
        out: Released = {}
        for at, value in sorted(samples):
            clock.set(at)
            gate.feed(frame(owner, at, {"p": value, "hidden": value + 1}))
            gate.advance()
            new = cells_of(gate.take())
            assert not out.keys() & new.keys()
            out |= new
        clock.set(140)
        gate.advance()
        return out | cells_of(gate.take())

    found = once()
    assert found == once()
    assert {number for number, _ in found} <= {7}
    assert all(-1 <= slot <= 14 for _, slot in found)
    check_coarse(one, list(found.values()))


def check_coarse(one: Rule, cells: list[Cell]) -> None:
    """Everything lies on the grid, or is a band or a pseudonym, and counts over its own slot."""
    for mantissa, quality, span in cells:
        assert (quality in {0, 1}, span) == (True, 1)
        if one.bands:
            assert 0 <= mantissa <= len(one.bands)
        elif one.pseudonym_s:
            assert 0 <= mantissa < 2**52
        else:
            assert mantissa % one.step == 0
    if one.clamp and not one.bands:
        shift = 10 ** (one.clamp_exponent - one.exponent)
        assert all(one.clamp[0] * shift <= cell[0] <= one.clamp[1] * shift for cell in cells)


def test_gate_memory_of_the_version_before_is_read() -> None:
    """Version 1 knew no waiting rows, no missing slots and no derivations."""
    owner, clock = table([counter("p")]), Clock()
    rules = [rule(owner, "p", 1)]
    gate = gate_of(owner, rules, clock)
    gate.advance()
    for at, value in ((0, 100), (10, 107)):
        clock.set(at)
        gate.feed(frame(owner, at, {"p": value}))
        gate.advance()
    memory = gate.memory()
    length = int.from_bytes(memory[:4], "big")
    content: Any = strict_cbor.decode(memory[4 : 4 + length], max_bytes=1 << 20, max_depth=12)
    for name in ("derived", "budgets"):
        del content[name]
    for _, lane in content["lanes"]:
        del lane["waiting"], lane["missing"]
    content["version"] = 1
    old = strict_cbor.encode(content)
    gate = gate_of(owner, rules, clock)
    gate.restore(len(old).to_bytes(4, "big") + old)
    clock.set(12)
    gate.advance()
    assert cells_of(gate.take()) == {(1, 0): (7, 0, 1)}


@pytest.mark.parametrize(("aggregate", "expected"), [("max", 50), ("min", 12), ("mean", 31)])
def test_what_came_late_and_had_ended_before_a_slot_began_counts_nowhere(
    aggregate: str, expected: int
) -> None:
    """History brings what changed meanwhile in one frame; only its end holds when the slot begins."""
    owner, clock = gauge(hold_ns=None), Clock()
    gate = gate_of(owner, [rule(owner, "p", 1, aggregate=aggregate)], clock)
    for moment in (0, 12, 22):
        clock.set(moment)
        gate.advance()
    clock.set(25)
    gate.feed(frame(owner, [5, 15, 23], {"p": [99, 50, 12]}))
    clock.set(32)
    gate.advance()
    assert cells_of(gate.take())[1, 2] == (expected, 0, 1)

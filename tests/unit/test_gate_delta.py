"""`delta`: what a counter rose by; nothing is counted twice and nothing is forgotten."""

from collections.abc import Sequence
from decimal import Decimal

import pytest

from protocols.frame import Quality
from protocols.points import Counter, Point, PointTable
from security.policy.gate import Gate
from tests.unit.gate_material import (
    Cell,
    Clock,
    cells_of,
    counter,
    frame,
    gate_of,
    point,
    rule,
    table,
)

GOOD, UNCERTAIN = 0, 1
Samples = Sequence[tuple[float, float] | tuple[float, float, int]]


def of(one: Point, *, real: bool = False, hold_ns: int | None = 3 * 10**9) -> PointTable:
    return table([one], real=[one.id] if real else [], hold_ns=hold_ns)


def deltas(
    owner: PointTable, samples: Samples, *, step: str = "1", until_s: float | None = None
) -> dict[int, Cell]:
    clock = Clock(samples[0][0])
    gate = gate_of(owner, [rule(owner, owner.points[0].id, 1, step=step)], clock)
    return follow(owner, gate, clock, samples, until_s)


def follow(
    owner: PointTable,
    gate: Gate,
    clock: Clock,
    samples: Samples,
    until_s: float | None = None,
) -> dict[int, Cell]:
    for sample in samples:
        at_s, value, quality = (*sample, GOOD)[:3]
        clock.set(at_s)
        gate.advance()
        gate.feed(frame(owner, at_s, {owner.points[0].id: value}, quality=int(quality)))
    clock.set((samples[-1][0] if until_s is None else until_s) + 1.5)
    gate.advance()
    assert gate.accounts["dev"].balanced
    return {slot: cell for (_, slot), cell in cells_of(gate.take()).items()}


def sums(found: dict[int, Cell]) -> int:
    return sum(mantissa for mantissa, _, _ in found.values())


def assert_chained(found: dict[int, Cell]) -> None:
    """The spans cover every slot once."""
    covered = [slot - at for slot, (_, _, span) in found.items() for at in range(span)]
    assert sorted(covered) == list(range(min(covered), max(covered) + 1))


def test_the_first_reading_gives_no_delta() -> None:
    assert deltas(of(counter("c")), [(0, 1000), (10, 1003)]) == {0: (3, GOOD, 1)}


def test_readings_are_rounded_not_deltas_so_that_sums_are_exact() -> None:
    readings = [(10 * at, 7 * at) for at in range(20)]
    found = deltas(of(counter("c")), readings, step="10")
    assert sums(found) == 130  # 133 rounds to 130
    assert {m for m, _, _ in found.values()} == {0, 10}


def test_a_missing_slot_is_covered_by_the_next_value() -> None:
    found = deltas(of(counter("c")), [(0, 10), (10, 11), (30.5, 20), (40, 21)])
    assert found == {0: (1, GOOD, 1), 3: (10, GOOD, 3)}
    assert_chained(found)


def test_a_reading_not_near_the_end_of_its_slot_does_not_close_it() -> None:
    found = deltas(of(counter("c")), [(0, 10), (5, 12), (20, 15)])
    assert found == {1: (5, GOOD, 2)}


def test_a_followed_counter_holds_until_contact_is_lost() -> None:
    owner = of(counter("c"), hold_ns=None)
    found = deltas(owner, [(0, 10), (5, 12), (35, 0, Quality.LOST), (52, 20)], until_s=60)
    assert found == {
        0: (2, GOOD, 1),
        1: (0, GOOD, 1),
        2: (0, GOOD, 1),
        5: (8, GOOD, 3),
    }


@pytest.mark.parametrize("gone", [Quality.BAD, Quality.LOST])
def test_a_bad_reading_is_not_a_reading(gone: int) -> None:
    found = deltas(of(counter("c")), [(0, 10), (10, 0, gone), (20, 15), (30, 16)])
    assert found == {1: (5, GOOD, 2), 2: (1, GOOD, 1)}


def test_a_counter_that_rolls_over_goes_on() -> None:
    owner = of(counter("c", rollover=1000))
    found = deltas(owner, [(0, 990), (10, 998), (20, 5), (30, 12), (40, 910), (50, 3)])
    assert [found[slot][0] for slot in range(5)] == [8, 7, 7, 898, 93]


def test_a_fall_that_is_no_rollover_waits_for_a_second_reading() -> None:
    owner = of(counter("c"))
    found = deltas(owner, [(0, 500), (10, 3), (20, 4), (30, 9)])
    # 3 is held back, 4 confirms the reset; the counter went from 500 on to 504.
    assert found == {1: (4, GOOD, 2), 2: (5, GOOD, 1)}


def test_a_meter_that_reads_zero_and_comes_back_lost_nothing() -> None:
    owner = of(counter("c"))
    found = deltas(owner, [(0, 500), (10, 0), (20, 0), (30, 0), (40, 510)])
    assert found == {3: (10, GOOD, 4)}


def test_a_reset_counts_from_zero_or_from_the_new_reading() -> None:
    samples: Samples = [(0, 500), (10, 40), (20, 42), (30, 45)]
    assert sums(deltas(of(counter("c")), samples)) == 45
    assert sums(deltas(of(counter("c", on_reset="rebase")), samples)) == 3


def test_a_fall_is_confirmed_by_samples_of_one_frame_too() -> None:
    owner = of(counter("c"))
    clock = Clock(0)
    gate = gate_of(owner, [rule(owner, "c", 1)], clock)
    gate.feed(frame(owner, 0, {"c": 500}))
    clock.set(10)
    gate.feed(frame(owner, [7, 8, 9, 10], {"c": [501, 2, 3, 4]}))
    clock.set(11.5)
    gate.advance()
    assert cells_of(gate.take()) == {(1, 0): (5, GOOD, 1)}
    assert gate.accounts["dev"].dropped["unconfirmed_fall"] == 1
    assert gate.accounts["dev"].balanced


def test_a_negative_reading_is_never_a_rollover() -> None:
    owner = of(counter("c", rollover=1000))
    found = deltas(owner, [(0, 990), (10, -5), (20, -4), (30, 995)])
    assert found == {2: (5, GOOD, 3)}


def test_a_rollover_too_large_for_floats_is_exact() -> None:
    """10**17 + 7 is no float; the 7 decides on which side of a tie the reading lies."""
    top = 10**17 + 7
    behaviour = Counter(rollover=Decimal(top).scaleb(-6))
    owner = of(point("c", "energy.active_import", scale="0.000001", counter=behaviour))
    found = deltas(owner, [(0, top - 7), (10, 2496)], step="0.001")
    assert found == {0: (3, GOOD, 1)}


def test_a_rollover_wider_than_64_bits_is_no_fault() -> None:
    owner = of(counter("c", rollover=2**64))
    assert deltas(owner, [(0, 990), (10, 998), (20, 1005)]) == {0: (8, 0, 1), 1: (7, 0, 1)}


def test_float_counters_are_rounded_by_their_exact_binary_value() -> None:
    owner = of(counter("c"), real=True)
    found = deltas(owner, [(0, 100.004), (10, 100.125), (20, 100.135)], step="0.01")
    assert found == {0: (12, GOOD, 1), 1: (2, GOOD, 1)}  # 100.125 is a tie, 100.135 a little more


def test_a_float_counter_rolls_over_and_resets() -> None:
    owner = of(counter("c", rollover=1000), real=True)
    found = deltas(owner, [(0, 990.5), (10, 999.5), (20, 0.5), (30, 500.0), (40, 2.0), (50, 3.0)])
    assert sums(found) == 1503 - 990


def test_unit_and_scale_move_the_grid_not_the_value() -> None:
    owner = table([point("c", "energy.active_import", unit="Wh", scale="0.5")])
    found = deltas(owner, [(0, 10005), (10, 20005)], step="0.001")
    assert found == {0: (2000 - 1000, GOOD, 1)}  # 1000.5 Wh rounds to 1.000, 2000.5 to 2.000 kWh


def test_an_uncertain_reading_makes_an_uncertain_delta() -> None:
    found = deltas(of(counter("c")), [(0, 10, GOOD), (10, 12, UNCERTAIN), (20, 13, GOOD)])
    assert found == {0: (2, UNCERTAIN, 1), 1: (1, GOOD, 1)}


def test_a_leap_beyond_all_bounds_is_a_new_baseline_not_a_fault() -> None:
    owner = of(counter("c"))
    found = deltas(owner, [(0, -(2**53)), (10, 2**53), (20, 2**53)])
    assert found == {1: (0, GOOD, 1)}


def test_a_reading_that_cannot_be_released_is_no_baseline() -> None:
    found = deltas(of(counter("c")), [(0, -(2**53) - 1), (10, 10), (20, 15)])
    assert found == {1: (5, GOOD, 1)}


def test_a_fault_in_between_costs_a_slot_and_no_count() -> None:
    owner = of(counter("c"), hold_ns=None)
    clock = Clock(0)
    gate = gate_of(owner, [rule(owner, "c", 1)], clock)
    before = follow(owner, gate, clock, [(0, 100), (5, 101), (10, 102), (13, 104)], 12)
    (lane,) = gate._all_lanes()
    clock.set(14)
    gate._drop(lane, RuntimeError("injected"))
    after = follow(owner, gate, clock, [(25, 110), (35, 111)], 40)
    assert before == {0: (2, GOOD, 1)}
    assert after == {2: (8, GOOD, 2), 3: (1, GOOD, 1)}

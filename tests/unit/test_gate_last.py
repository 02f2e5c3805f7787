"""`last`: the last value in the slot, rounded once."""

import pytest

from protocols.frame import Quality, lost_frame
from protocols.points import PointTable
from tests.unit.gate_material import Clock, Released, cells_of, frame, gate_of, point, rule, table

GOOD, UNCERTAIN = 0, 1
POLLED = table([point("p", "power.active")])
FOLLOWED = table([point("p", "power.active")], hold_ns=None)


def released(
    owner: PointTable, samples: list[tuple[float, float, int]], until_s: float, step: str = "1"
) -> Released:
    """Feed (time, value, quality) and return what was released of the point."""
    clock = Clock(0)
    gate = gate_of(owner, [rule(owner, "p", 1, step=step)], clock)
    gate.advance()
    for at_s, value, quality in samples:
        clock.set(at_s)
        gate.advance()
        gate.feed(frame(owner, at_s, {"p": value}, quality=quality))
    clock.set(until_s + 1.5)
    gate.advance()
    assert gate.accounts["dev"].balanced
    return {(0, slot): cell for (_, slot), cell in cells_of(gate.take()).items()}


def test_the_last_sample_of_the_slot_is_what_leaves() -> None:
    found = released(POLLED, [(s, s, GOOD) for s in range(20)], 20)
    assert found == {(0, 0): (9, GOOD, 1), (0, 1): (19, GOOD, 1)}


def test_a_followed_value_holds_until_contact_is_lost() -> None:
    found = released(FOLLOWED, [(3, 5, GOOD), (34, 0, Quality.LOST), (55, 6, GOOD)], 60)
    assert found == {
        (0, 0): (5, GOOD, 1),
        (0, 1): (5, GOOD, 1),
        (0, 2): (5, GOOD, 1),
        (0, 5): (6, GOOD, 1),
    }


def test_a_polled_value_holds_for_its_holding_time() -> None:
    found = released(POLLED, [(8, 5, GOOD)], 30)
    assert found == {(0, 0): (5, GOOD, 1)}
    assert released(POLLED, [(7, 5, GOOD)], 30) == {(0, 0): (5, GOOD, 1)}
    assert released(POLLED, [(6.9, 5, GOOD)], 30) == {(0, 0): (5, UNCERTAIN, 1)}


def test_a_value_of_the_slot_before_counts_while_it_holds() -> None:
    owner = table([point("p", "power.active")], hold_ns=15 * 10**9)
    assert released(owner, [(8, 5, GOOD)], 40) == {(0, 0): (5, GOOD, 1), (0, 1): (5, GOOD, 1)}


@pytest.mark.parametrize("gone", [Quality.BAD, Quality.LOST])
@pytest.mark.parametrize("owner", [POLLED, FOLLOWED], ids=["polled", "followed"])
def test_a_value_lost_before_the_slot_ends_is_uncertain(owner: PointTable, gone: int) -> None:
    assert released(owner, [(8, 5, GOOD), (9, 0, gone)], 30) == {(0, 0): (5, UNCERTAIN, 1)}


def test_what_the_device_calls_uncertain_stays_so() -> None:
    assert released(POLLED, [(9, 5, UNCERTAIN)], 10) == {(0, 0): (5, UNCERTAIN, 1)}


def test_what_is_no_number_is_a_bad_sample_not_a_value() -> None:
    owner = table([point("p", "power.active")], real=["p"])
    for nothing in (float("nan"), float("inf")):
        assert released(owner, [(8, 5.0, GOOD), (9, nothing, GOOD)], 10) == {
            (0, 0): (5, UNCERTAIN, 1)
        }


def test_no_sample_no_value() -> None:
    assert released(POLLED, [(9, 0, Quality.BAD), (19, 0, Quality.LOST)], 60) == {}


@pytest.mark.parametrize(
    ("step", "value", "mantissa"),
    [("5", 12, 10), ("5", 13, 15), ("4", 10, 8), ("4", 14, 16), ("25", -13, -25), ("0.5", 3, 30)],
)
def test_values_are_rounded_half_to_even_on_the_grid(step: str, value: int, mantissa: int) -> None:
    assert released(POLLED, [(9, value, GOOD)], 10, step) == {(0, 0): (mantissa, GOOD, 1)}


def test_scale_and_unit_are_applied_exactly() -> None:
    """A raw 12345 x 0.1 W is 1.2345 kW."""
    owner = table([point("p", "power.active", unit="W", scale="0.1")])
    assert released(owner, [(9, 12345, GOOD)], 10, "0.001") == {(0, 0): (1234, GOOD, 1)}
    assert released(owner, [(9, 12355, GOOD)], 10, "0.001") == {(0, 0): (1236, GOOD, 1)}


def test_the_exact_binary_value_of_a_float_is_rounded() -> None:
    """0.125 is a tie; 2.675 is a little less than it looks."""
    owner = table([point("p", "power.active")], real=["p"])
    assert released(owner, [(9, 0.125, GOOD)], 10, "0.01") == {(0, 0): (12, GOOD, 1)}
    assert released(owner, [(9, 0.375, GOOD)], 10, "0.01") == {(0, 0): (38, GOOD, 1)}
    assert released(owner, [(9, 2.675, GOOD)], 10, "0.01") == {(0, 0): (267, GOOD, 1)}


def test_a_value_beyond_the_largest_mantissa_has_no_value() -> None:
    assert released(POLLED, [(9, 2**53, GOOD)], 10) == {(0, 0): (2**53, GOOD, 1)}
    assert released(POLLED, [(9, 2**53 + 1, GOOD)], 10) == {}


def test_loss_is_told_per_point() -> None:
    owner = table([point("p", "power.active"), point("q", "power.active")], hold_ns=None)
    clock = Clock(0)
    gate = gate_of(owner, [rule(owner, "p", 1), rule(owner, "q", 2)], clock)
    gate.feed(frame(owner, 1, {"p": 1, "q": 2}))
    clock.set(12)
    gate.feed(lost_frame("dev", owner.columns()[:1], clock.ns))
    clock.set(31.5)
    gate.advance()
    found = cells_of(gate.take())
    assert found == {(1, 0): (1, 0, 1), (2, 0): (2, 0, 1), (2, 1): (2, 0, 1), (2, 2): (2, 0, 1)}

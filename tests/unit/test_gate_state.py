"""`state`: seconds in each state add up to the slot, less what is unknown."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.frame import Quality
from protocols.points import PointTable
from protocols.vocabulary.states import OperatingState as S
from tests.unit.gate_material import Clock, Released, cells_of, frame, gate_of, point, rule, table

FOLLOWED = table([point("m", "machine.state")], hold_ns=None)
POLLED = table([point("m", "machine.state")])
GOOD, UNCERTAIN = 0, 1
UNLISTED = 77


def released(
    owner: PointTable, samples: Sequence[tuple[float, float, int]], until_s: float, step: str = "1"
) -> Released:
    clock = Clock(0)
    gate = gate_of(owner, [rule(owner, "m", 1, step=step)], clock)
    for at_s, code, quality in samples:
        clock.set(at_s)
        gate.advance()
        gate.feed(frame(owner, at_s, {"m": code}, quality=quality))
    clock.set(until_s + 1.5)
    gate.advance()
    assert gate.accounts["dev"].balanced
    return cells_of(gate.take())


def seconds(found: Released, slot: int) -> dict[str, int]:
    """Return the seconds in each state of a slot, without those that are 0."""
    return {
        S(number - 1).name: mantissa
        for (number, at), (mantissa, _, _) in found.items()
        if at == slot and number > 1 and mantissa
    }


def end(found: Released, slot: int) -> int | None:
    cell = found.get((1, slot))
    return None if cell is None else cell[0]


def test_the_seconds_of_all_states_add_up_to_the_slot() -> None:
    found = released(FOLLOWED, [(0, 1, GOOD), (4, 3, GOOD), (7, 6, GOOD), (12, 1, GOOD)], 20)
    assert seconds(found, 0) == {"RUN": 4, "IDLE": 3, "FAULT": 3}
    assert seconds(found, 1) == {"FAULT": 2, "RUN": 8}
    assert (end(found, 0), end(found, 1)) == (S.FAULT, S.RUN)
    assert {quality for _, quality, _ in found.values()} == {GOOD}


def test_a_change_exactly_at_the_end_belongs_to_the_next_slot() -> None:
    found = released(FOLLOWED, [(0, 1, GOOD), (10, 3, GOOD)], 20)
    assert end(found, 0) == S.RUN
    assert seconds(found, 0) == {"RUN": 10}
    assert seconds(found, 1) == {"IDLE": 10}


def test_instants_are_rounded_not_durations() -> None:
    changes = [(0.0, 1, GOOD), (2.4, 3, GOOD), (4.8, 1, GOOD), (7.2, 3, GOOD), (9.6, 1, GOOD)]
    found = released(FOLLOWED, changes, 20)
    # 2.4 -> 2, 4.8 -> 5, 7.2 -> 7, 9.6 -> 10
    assert seconds(found, 0) == {"RUN": 2 + 2, "IDLE": 3 + 3}
    assert end(found, 0) == S.RUN
    assert seconds(found, 1) == {"RUN": 10}


@pytest.mark.parametrize(("at_s", "running"), [(2.5, 2), (3.5, 4), (2.25, 2), (2.75, 3)])
def test_an_instant_half_way_goes_to_the_even_one(at_s: float, running: int) -> None:
    found = released(FOLLOWED, [(0, 1, GOOD), (at_s, 3, GOOD)], 10)
    assert seconds(found, 0) == {"RUN": running, "IDLE": 10 - running}


def test_a_coarser_grid_is_kept() -> None:
    found = released(FOLLOWED, [(0, 1, GOOD), (3, 3, GOOD), (7, 6, GOOD)], 10, "5")
    assert seconds(found, 0) == {"RUN": 5, "FAULT": 5}
    fine = released(FOLLOWED, [(0, 1, GOOD), (3.04, 3, GOOD)], 10, "0.1")
    assert seconds(fine, 0) == {"RUN": 30, "IDLE": 70}


def test_lost_contact_is_unknown_never_downtime() -> None:
    found = released(FOLLOWED, [(0, 1, GOOD), (4, 0, Quality.LOST), (17, 3, GOOD)], 30)
    assert seconds(found, 0) == {"RUN": 4}
    assert end(found, 0) is None
    assert {q for (_, slot), (_, q, _) in found.items() if slot == 0} == {UNCERTAIN}
    assert seconds(found, 1) == {"IDLE": 3}
    assert end(found, 1) == S.IDLE
    assert seconds(found, 2) == {"IDLE": 10}


@pytest.mark.parametrize("code", [UNLISTED, -1, 256, 2**40])
def test_a_code_that_the_model_does_not_list_is_unknown(code: int) -> None:
    found = released(FOLLOWED, [(0, 1, GOOD), (4, code, GOOD), (8, 3, GOOD)], 10)
    assert seconds(found, 0) == {"RUN": 4, "IDLE": 2}


def test_a_bad_sample_is_unknown() -> None:
    found = released(FOLLOWED, [(0, 1, GOOD), (4, 3, Quality.BAD), (8, 3, GOOD)], 10)
    assert seconds(found, 0) == {"RUN": 4, "IDLE": 2}


def test_the_same_state_given_again_restores_knowledge() -> None:
    clock = Clock(0)
    gate = gate_of(FOLLOWED, [rule(FOLLOWED, "m", 1)], clock)
    gate.feed(frame(FOLLOWED, 0, {"m": 1}))
    clock.set(12)
    gate.advance()
    gate.feed(frame(FOLLOWED, 12, {"m": 0}, quality=Quality.LOST))
    clock.set(25)
    gate.advance()
    gate.feed(frame(FOLLOWED, 0, {"m": 1}))
    clock.set(41.5)
    gate.advance()
    found = cells_of(gate.take())
    assert seconds(found, 1) == {"RUN": 2}
    # Its source says it ran all along; what was told before as unknown stays so.
    assert seconds(found, 2) == {"RUN": 10}
    assert seconds(found, 3) == {"RUN": 10}


def test_a_state_lost_within_half_a_step_of_the_end_has_no_end_and_all_its_seconds() -> None:
    found = released(FOLLOWED, [(0, 1, GOOD), (9.6, 0, Quality.LOST)], 10)
    assert seconds(found, 0) == {"RUN": 10}
    assert end(found, 0) is None


def test_a_polled_state_does_not_outlive_its_holding_time() -> None:
    found = released(POLLED, [(0, 1, GOOD), (2, 1, GOOD), (9, 3, GOOD)], 20)
    assert seconds(found, 0) == {"RUN": 5, "IDLE": 1}
    assert seconds(found, 1) == {"IDLE": 2}
    assert end(found, 0) == S.IDLE
    assert end(found, 1) is None


def test_nothing_known_is_no_value() -> None:
    assert released(POLLED, [(0, UNLISTED, GOOD)], 40) == {}


def test_float_codes_are_states_only_where_they_are_whole() -> None:
    owner = table([point("m", "machine.state")], real=["m"], hold_ns=None)
    found = released(owner, [(0, 1.0, GOOD), (4, 1.4, GOOD), (6, 1e300, GOOD), (8, 3.0, GOOD)], 10)
    assert seconds(found, 0) == {"RUN": 4, "IDLE": 2}


@pytest.mark.parametrize(("scale", "raw"), [("0.1", 30), ("0.5", 6), ("3", 1), ("1.5", 2)])
def test_a_code_is_what_scale_and_offset_make_of_the_register(scale: str, raw: int) -> None:
    owner = table([point("m", "machine.state", scale=scale)], hold_ns=None)
    exponent = owner.points[0].grid_exponent()
    carried = round(raw * float(scale) / 10**exponent)
    assert seconds(released(owner, [(0, carried, GOOD)], 10), 0) == {"IDLE": 10}


def test_a_scaled_register_that_is_no_whole_code_is_unknown() -> None:
    owner = table([point("m", "machine.state", scale="0.1")], hold_ns=None)
    assert released(owner, [(0, 31, GOOD)], 10) == {}


def test_too_many_changes_drop_the_window_and_keep_the_account() -> None:
    clock = Clock(0)
    gate = gate_of(FOLLOWED, [rule(FOLLOWED, "m", 1)], clock)
    gate.feed(frame(FOLLOWED, 0, {"m": 1}))
    clock.set(9)
    times = np.linspace(1, 9, 6000).tolist()
    gate.feed(frame(FOLLOWED, times, {"m": [1 + at % 2 for at in range(6000)]}))
    book = gate.accounts["dev"]
    assert book.balanced
    assert book.dropped["gate_error"] == 6001
    clock.set(31.5)
    gate.feed(frame(FOLLOWED, 31, {"m": 1}))
    gate.advance()
    assert cells_of(gate.take()) == {}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 6000),
            st.integers(-1, 10),
            st.sampled_from([Quality.GOOD, Quality.UNCERTAIN, Quality.BAD, Quality.LOST]),
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(["1", "2", "0.5", "0.01"]),
    st.booleans(),
)
def test_seconds_never_exceed_the_slot_and_lie_on_the_grid(
    changes: list[tuple[int, int, Quality]], step: str, polled: bool
) -> None:
    """And where all is known, after rounding, they fill it exactly."""
    owner = POLLED if polled else FOLLOWED
    samples = [(at / 100, code, int(quality)) for at, code, quality in sorted(changes)]
    found = released(owner, samples, 60, step)
    window = round(10 / float(step))
    unit = {"1": 1, "2": 2, "0.5": 5, "0.01": 1}[step]
    for slot in range(6):
        parts = {n: cell for (n, at), cell in found.items() if at == slot}
        if not parts:
            continue
        total = sum(mantissa for number, (mantissa, _, _) in parts.items() if number > 1)
        good = all(quality == GOOD for _, quality, _ in parts.values())
        assert all(m % unit == 0 for number, (m, _, _) in parts.items() if number > 1)
        assert total <= window * unit
        assert not good or total == window * unit

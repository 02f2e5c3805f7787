"""The judge: finds nothing in honest data, and every single thing that is not honest."""

from collections.abc import Callable
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import MillgateError
from protocols.frame import SECOND
from simulators.judge import Kept, Verdict, judge, together
from simulators.machine_rules import OPERATING
from simulators.modbus_server import registers
from simulators.plant import MACHINE, METER, ROLLOVER, Plant, Signal
from simulators.truth import Truth
from simulators.verdict import Stretch, on_grid

START = 1_795_392_000 * SECOND
WINDOW = 5 * SECOND
SLOTS = 60
MILLI = 10**6
FIRST = START + 2 * WINDOW
ENDS = [FIRST + (at + 1) * WINDOW for at in range(SLOTS)]
BLOCK = len(registers(Plant(7, START).meter(START))) // 2
STATES = ("run", "setup", "idle", "starved_blocked", "held", "fault", "planned_down", "off")

calm = settings(deadline=None, max_examples=30)


def truth_of(plant: Plant) -> Truth:
    """What a reader that asks once a second, 0.37 s after the full second, was served."""
    time = [START + at * SECOND + 370 * MILLI for at in range((SLOTS + 4) * 5)]
    meters = [plant.meter(t) for t in time]
    return Truth(
        plant=plant,
        time=np.array(time),
        first=np.zeros(len(time), np.int64),
        registers=np.full(len(time), BLOCK),
        energy=np.array([meter.energy for meter in meters]),
        power=np.array([meter.power for meter in meters]),
    )


def last_served(t: int) -> int:
    """When the last reading at or before t was served."""
    return t - (t - START - 370 * MILLI) % SECOND


def series(
    measurand: str, aggregate: str, mantissa: list[int], exponent: int = 0, part: str = ""
) -> Kept:
    equipment = METER if measurand.partition(".")[0] in {"energy", "power"} else MACHINE
    assert aggregate in {"last", "delta", "state"}
    return Kept(
        equipment=equipment,
        measurand=measurand,
        part=part,
        aggregate=aggregate,  # type: ignore[arg-type] # checked in the line above
        window_ns=WINDOW,
        start_ns=np.array([end - WINDOW for end in ENDS]),
        mantissa=np.array(mantissa),
        exponent=exponent,
        span=np.ones(SLOTS, np.int64),
    )


def energy(plant: Plant, exponent: int = -2, step: int = 1) -> Kept:
    base = plant.energy_total(last_served(FIRST)) // ROLLOVER * ROLLOVER
    readings = [
        on_grid(plant.energy_total(last_served(t)) - base, -2, exponent, step)
        for t in (FIRST, *ENDS)
    ]
    deltas = [after - before for before, after in pairwise(readings)]
    return replace(series("energy.active_import", "delta", deltas, exponent), step=step)


def produced(plant: Plant, count: str) -> Kept:
    counts = [getattr(plant.counts(t), count) for t in (FIRST, *ENDS)]
    return series(
        f"production.{count}", "delta", [after - before for before, after in pairwise(counts)]
    )


def states(plant: Plant, grid: int = MILLI) -> list[Kept]:
    """Round the moments of change, not the durations, as the gate does."""
    codes = {int(state): STATES.index(name) for state, (name, _) in OPERATING.items()}
    spent = np.zeros((SLOTS, len(STATES)), np.int64)
    for slot, end in enumerate(ENDS):
        inside = plant.transitions(end - WINDOW + 1, end)
        marks = [end - WINDOW, *(round(edge.time / grid) * grid for edge in inside), end]
        path = [int(plant.state(end - WINDOW)), *(int(edge.value) for edge in inside)]
        for state, (mark, following) in zip(path, pairwise(marks), strict=True):
            spent[slot, codes[state]] += following - mark
    exponent = len(str(grid)) - 10
    return [
        series("machine.state", "state", (spent[:, at] // grid).tolist(), exponent, name)
        for at, name in enumerate(STATES)
    ]


def end_states(plant: Plant) -> Kept:
    codes = [OPERATING[plant.state(end - 1)][1] for end in ENDS]
    return series("machine.state", "state", codes, part="end")


def power(plant: Plant) -> Kept:
    watts = [plant.meter(last_served(end)).power for end in ENDS]
    return series("power.active", "last", [on_grid(value, -3, -1) for value in watts], -1)


def temperature(plant: Plant) -> Kept:
    degrees = [plant.newest(Signal.SPINDLE_TEMPERATURE, end).value for end in ENDS]
    return series("temperature", "last", [on_grid(value, 0, -1) for value in degrees], -1)


def everything(plant: Plant) -> list[Kept]:
    return [
        energy(plant),
        power(plant),
        temperature(plant),
        *(produced(plant, count) for count in ("total", "good", "scrap")),
        *states(plant),
        end_states(plant),
    ]


PLANT = Plant(7, START)
TRUTH = truth_of(PLANT)


def verdicts(kept: list[Kept], truth: Truth = TRUTH, **limits: int | None) -> list[Verdict]:
    return judge(truth, kept, tolerance_ns=SECOND, from_ns=FIRST, until_ns=ENDS[-1], **limits)  # type: ignore[arg-type] # limits override none of the three


def verdict(kept: Kept, truth: Truth = TRUTH) -> Verdict:
    return verdicts([kept], truth)[0]


def changed(kept: Kept, at: int, by: int) -> Kept:
    mantissa = kept.mantissa.copy()
    mantissa[at] += by
    return replace(kept, mantissa=mantissa)


def without(kept: Kept, at: int) -> Kept:
    return replace(
        kept,
        start_ns=np.delete(kept.start_ns, at),
        mantissa=np.delete(kept.mantissa, at),
        span=np.delete(kept.span, at),
    )


def joined(kept: Kept, at: int) -> Kept:
    """One value over two slots instead of two values."""
    both, span = kept.mantissa.copy(), kept.span.copy()
    both[at + 1] += both[at]
    span[at + 1] = 2
    return without(replace(kept, mantissa=both, span=span), at)


@calm
@given(st.integers(0, 2**32))
def test_honest_data_is_clean(seed: int) -> None:
    plant = Plant(seed, START)
    for found in verdicts(everything(plant), truth_of(plant)):
        assert found.clean, found
        assert (found.slots, found.partial, found.first_wrong) == (SLOTS, 0, "")


@pytest.mark.parametrize(("exponent", "step"), [(-2, 1), (-1, 1), (-1, 5), (0, 1), (-3, 1)])
@pytest.mark.parametrize("before_rollover", [100, 1007])
def test_a_register_that_starts_again_is_followed(
    exponent: int, step: int, before_rollover: int
) -> None:
    plant = Plant(7, START, ROLLOVER - before_rollover)
    assert plant.energy_total(ENDS[-1]) > ROLLOVER
    assert verdict(energy(plant, exponent, step), truth_of(plant)).clean


def test_a_reader_that_came_after_the_register_started_again_is_followed() -> None:
    plant = Plant(7, START, ROLLOVER - 3)
    assert plant.energy_total(last_served(FIRST)) > ROLLOVER
    assert verdict(energy(plant, -1), truth_of(plant)).clean


def test_coarser_rounding_of_every_kind_is_clean() -> None:
    kept = [energy(PLANT, 0), *states(PLANT, 100 * MILLI), end_states(PLANT)]
    assert together(verdicts(kept)).clean


@calm
@given(st.integers(0, SLOTS - 1), st.integers(-50, 50).filter(bool))
def test_any_change_of_one_energy_value_is_noticed(at: int, by: int) -> None:
    found = verdict(changed(energy(PLANT), at, by))
    assert found.wrong >= 1
    assert "energy.active_import" in found.first_wrong


@calm
@given(st.integers(0, SLOTS - 2), st.integers(-50, 50).filter(bool))
def test_energy_moved_into_the_next_slot_is_noticed(at: int, by: int) -> None:
    assert verdict(changed(changed(energy(PLANT), at, by), at + 1, -by)).wrong >= 1


def test_energy_one_slot_late_is_noticed() -> None:
    kept = energy(PLANT)
    late = replace(kept, start_ns=kept.start_ns + WINDOW)
    found = judge(TRUTH, [late], tolerance_ns=SECOND)[0]
    assert found.wrong > SLOTS // 2


def test_a_reading_that_is_not_the_last_of_its_slot_is_noticed() -> None:
    kept = energy(PLANT)
    earlier = PLANT.energy_total(last_served(ENDS[20]) - SECOND)
    by = earlier - PLANT.energy_total(last_served(ENDS[20]))
    assert by < 0
    assert verdict(changed(changed(kept, 20, by), 21, -by)).wrong >= 1


def test_energy_counted_twice_between_two_served_readings_is_noticed() -> None:
    kept = energy(PLANT)
    again = PLANT.energy_total(last_served(ENDS[20]))
    again -= PLANT.energy_total(last_served(ENDS[20]) - SECOND)
    assert again > 0
    wide = judge(TRUTH, [changed(kept, 21, again)], tolerance_ns=3 * SECOND)[0]
    assert wide.wrong == 1
    assert judge(TRUTH, [kept], tolerance_ns=3 * SECOND)[0].clean


def test_a_reading_nobody_was_served_is_noticed() -> None:
    gone = (TRUTH.time > ENDS[20] - WINDOW) & (TRUTH.time <= ENDS[20] + SECOND)
    left = Truth(PLANT, *(column[~gone] for column in columns(TRUTH)))
    found = verdict(energy(PLANT), left)
    assert found.wrong >= 1
    assert "2026-" in found.first_wrong


def columns(truth: Truth) -> tuple[np.ndarray, ...]:
    return truth.time, truth.first, truth.registers, truth.energy, truth.power


def test_a_reading_of_other_registers_proves_no_energy() -> None:
    others = replace(TRUTH, first=np.full(len(TRUTH.time), 4))
    assert verdict(energy(PLANT), others).wrong == SLOTS
    assert verdict(power(PLANT), others).wrong == SLOTS


@calm
@given(st.integers(0, SLOTS - 1))
def test_a_missing_slot_is_a_gap(at: int) -> None:
    for kept in everything(PLANT):
        found = verdict(without(kept, at))
        assert (found.gaps, found.doubled, found.wrong, found.slots) == (1, 0, 0, SLOTS - 1)


def test_what_is_missing_around_a_declared_restart_is_no_gap() -> None:
    kept = without(without(energy(PLANT), 20), 20)
    start = int(energy(PLANT).start_ns[20])
    for moment in (start, start + WINDOW, start + 2 * WINDOW):
        (found,) = judge(TRUTH, [kept], tolerance_ns=2 * SECOND, restarts=[moment])
        assert (found.gaps, found.declared, found.first_gap) == (0, 2, "")
    for moment in (start - 1, start + 2 * WINDOW + 1):
        (found,) = judge(TRUTH, [kept], tolerance_ns=2 * SECOND, restarts=[moment])
        assert (found.gaps, found.declared) == (2, 0)
        assert found.first_gap.startswith("meter-1 energy.active_import 20")


def test_what_is_missing_where_messages_were_declared_lost_is_no_gap() -> None:
    kept = without(without(energy(PLANT), 20), 20)
    start = int(energy(PLANT).start_ns[20])
    # What is lost may have counted from earlier on, but must end where it was declared lost.
    for begin in (start - WINDOW, start, start + WINDOW):
        losses = [(0, WINDOW), (begin, start + 2 * WINDOW)]
        (found,) = judge(TRUTH, [kept], tolerance_ns=2 * SECOND, losses=losses)
        assert (found.gaps, found.declared, found.given_up) == (0, 0, 2)
        gone = Stretch("meter-1 energy.active_import", True, start, start + 2 * WINDOW, WINDOW)
        assert found.missing == (gone,)
    for span in ((start, start + WINDOW), (start + 2 * WINDOW, start + 3 * WINDOW), (0, start)):
        (found,) = judge(TRUTH, [kept], tolerance_ns=2 * SECOND, losses=[span])
        assert (found.gaps, found.given_up) == (2, 0)


def test_all_slots_missing_is_a_gap_of_all() -> None:
    kept = energy(PLANT)
    empty = np.zeros(0, np.int64)
    nothing = replace(kept, start_ns=empty, mantissa=empty, span=empty)
    assert verdict(nothing).gaps == SLOTS


@calm
@given(st.integers(0, SLOTS - 2))
def test_a_value_over_two_slots_is_no_gap(at: int) -> None:
    for kept in (energy(PLANT), produced(PLANT, "good")):
        assert verdict(joined(kept, at)).clean


@calm
@given(st.integers(1, SLOTS - 1))
def test_a_slot_counted_again_by_a_span_is_doubled(at: int) -> None:
    for kept in (energy(PLANT), produced(PLANT, "total")):
        span, mantissa = kept.span.copy(), kept.mantissa.copy()
        span[at] = 2
        mantissa[at] += mantissa[at - 1]
        found = verdict(replace(kept, span=span, mantissa=mantissa))
        assert (found.doubled, found.gaps) == (1, 0)
        assert not found.clean


def test_a_slot_that_is_there_twice_is_doubled() -> None:
    kept = energy(PLANT)
    twice = replace(
        kept,
        start_ns=np.insert(kept.start_ns, 30, kept.start_ns[29]),
        mantissa=np.insert(kept.mantissa, 30, kept.mantissa[29]),
        span=np.insert(kept.span, 30, 1),
    )
    assert verdict(twice).doubled == 1


@calm
@given(
    st.sampled_from(["total", "good", "scrap"]),
    st.integers(0, SLOTS - 1),
    st.integers(-5, 5).filter(bool),
)
def test_any_change_of_a_count_is_noticed(count: str, at: int, by: int) -> None:
    assert verdict(changed(produced(PLANT, count), at, by)).wrong == 1


def test_a_part_finished_exactly_at_a_slots_end_belongs_to_it() -> None:
    part = next(change for change in PLANT.changes(FIRST, ENDS[0]) if change.signal is Signal.TOTAL)
    tiny = 1000
    kept = replace(
        produced(PLANT, "total"),
        window_ns=tiny,
        start_ns=np.array([part.time - tiny, part.time]),
        mantissa=np.array([1, 0]),
        span=np.ones(2, np.int64),
    )
    assert judge(TRUTH, [kept], tolerance_ns=0)[0].clean
    after = replace(kept, mantissa=np.array([0, 1]))
    assert judge(TRUTH, [after], tolerance_ns=0)[0].wrong == 2


@calm
@given(st.sampled_from([MILLI, 100 * MILLI]), st.integers(0, 7), st.integers(0, SLOTS - 1))
def test_more_time_in_a_state_than_there_was_is_noticed(grid: int, place: int, at: int) -> None:
    kept = states(PLANT, grid)
    kept[place] = changed(kept[place], at, 21)
    assert verdicts(kept)[place].wrong == 1


def test_time_moved_between_states_is_noticed() -> None:
    kept = states(PLANT)
    run, idle = STATES.index("run"), STATES.index("idle")
    at = int(np.flatnonzero(kept[run].mantissa == 5000)[0])
    kept[run], kept[idle] = changed(kept[run], at, -10), changed(kept[idle], at, 10)
    assert together(verdicts(kept)).wrong >= 1


def test_more_time_is_noticed_in_a_state_looked_at_alone() -> None:
    run = states(PLANT)[STATES.index("run")]
    at = int(np.flatnonzero(run.mantissa == 0)[0])
    assert verdict(changed(run, at, 1)).wrong == 1


def test_states_that_add_up_to_more_than_the_slot_are_noticed() -> None:
    kept = states(PLANT, 100 * MILLI)
    run = STATES.index("run")
    at = int(np.flatnonzero((kept[run].mantissa > 5) & (kept[run].mantissa < 45))[0])
    kept[run] = changed(kept[run], at, 1)
    found = verdicts(kept)[run]
    assert found.wrong == 1
    assert "add up" in found.first_wrong


def test_less_time_than_there_was_is_partial_not_wrong() -> None:
    kept = states(PLANT)
    run = STATES.index("run")
    at = int(np.flatnonzero(kept[run].mantissa == 5000)[0])
    kept[run] = changed(kept[run], at, -1500)
    found = verdicts(kept)
    assert together(found).wrong == 0
    assert found[run].partial == 1


def test_less_time_in_a_state_is_wrong_where_nothing_is_unknown() -> None:
    run = states(PLANT)[STATES.index("run")]
    at = int(np.flatnonzero(run.mantissa == 5000)[0])
    assert verdict(changed(run, at, -1)).wrong == 1


def test_unknown_time_must_be_what_the_states_leave() -> None:
    kept = states(PLANT)
    unknown = series("machine.state", "state", [0] * SLOTS, -3, "unknown")
    assert together(verdicts([*kept, unknown])).clean
    found = verdicts([*kept, changed(unknown, 7, 100)])
    assert (found[-1].wrong, together(found).wrong) == (1, 1)


def test_an_unknown_end_state_needs_unknown_time() -> None:
    kept, end = states(PLANT), end_states(PLANT)
    code = int(end.mantissa[9])
    assert verdicts([*kept, changed(end, 9, -code)])[-1].wrong == 1
    run = next(at for at, part in enumerate(kept) if part.mantissa[9])
    kept[run] = changed(kept[run], 9, -1)
    found = verdicts([*kept, changed(end, 9, -code)])[-1]
    assert (found.wrong, found.partial) == (0, 1)


@calm
@given(st.integers(0, SLOTS - 1), st.integers(1, 7))
def test_another_end_state_is_noticed(at: int, by: int) -> None:
    end = end_states(PLANT)
    other = (int(end.mantissa[at]) + by) % 8 + 1
    changed_end = changed(end, at, other - int(end.mantissa[at]))
    assert verdict(changed_end).wrong == (other != int(end.mantissa[at]))


@pytest.mark.parametrize("make", [power, temperature])
def test_a_value_of_another_slot_is_noticed(make: Callable[[Plant], Kept]) -> None:
    kept = make(PLANT)
    late = replace(kept, mantissa=np.roll(kept.mantissa, 3))
    assert verdict(late).wrong > SLOTS // 2
    assert verdict(changed(kept, 11, 1000)).wrong == 1


@pytest.mark.parametrize(("later", "wrong"), [(0, 0), (1, 0), (2, 0), (3, 1)])
def test_a_power_that_still_holds_in_a_later_slot_is_right_and_an_older_one_is_wrong(
    later: int, wrong: int
) -> None:
    then = last_served(ENDS[9])
    left = Truth(PLANT, *(column[TRUTH.time <= then] for column in columns(TRUTH)))
    kept = replace(
        power(PLANT),
        window_ns=SECOND,
        start_ns=np.array([(then // SECOND + later) * SECOND]),
        mantissa=np.array([on_grid(PLANT.meter(then).power, -3, -1)]),
        span=np.ones(1, np.int64),
    )
    assert judge(left, [kept], tolerance_ns=3 * SECOND)[0].wrong == wrong


def test_what_lies_before_the_plants_start_is_wrong() -> None:
    for kept in everything(PLANT):
        early = replace(kept, start_ns=kept.start_ns - 4 * WINDOW)
        found = judge(TRUTH, [early], tolerance_ns=SECOND)[0]
        assert found.wrong >= 2
        assert "plant" in found.first_wrong


def test_what_is_not_on_the_grid_of_slots_is_wrong() -> None:
    kept = energy(PLANT)
    off = replace(kept, start_ns=kept.start_ns + 1000)
    assert judge(TRUTH, [off], tolerance_ns=SECOND)[0].wrong == SLOTS


def test_a_value_over_no_slot_is_wrong() -> None:
    nothing = np.zeros(SLOTS, np.int64)
    for kept in (energy(PLANT), produced(PLANT, "total")):
        assert verdict(replace(kept, span=nothing, mantissa=nothing)).wrong == SLOTS


@pytest.mark.parametrize(
    "odd",
    [
        replace(energy(PLANT), measurand="gas.volume"),
        replace(energy(PLANT), equipment="meter-2"),
        replace(energy(PLANT), aggregate="last"),
        replace(energy(PLANT), part="run"),
        replace(end_states(PLANT), part=""),
    ],
)
def test_a_series_without_truth_is_not_judged(odd: Kept) -> None:
    with pytest.raises(MillgateError, match="no truth"):
        verdict(odd)


def test_a_truth_file_that_contradicts_its_plant_is_refused() -> None:
    with pytest.raises(MillgateError, match="contradicts"):
        verdict(energy(PLANT), replace(TRUTH, energy=TRUTH.energy + 1))


@calm
@given(st.integers(-(10**12), 10**12), st.integers(-4, 2), st.integers(-4, 4))
def test_rounding_is_half_to_even(value: int, exponent: int, wanted: int) -> None:
    exact = Decimal(value).scaleb(exponent).quantize(Decimal(1).scaleb(wanted), ROUND_HALF_EVEN)
    assert on_grid(value, exponent, wanted) == int(exact.scaleb(-wanted))


def test_rounding_to_steps_takes_ties_to_the_even_multiple() -> None:
    assert [on_grid(value, 0, 0, 5) for value in (2, 3, 7, 8)] == [0, 5, 5, 10]
    assert [on_grid(value, -1, 0, 5) for value in (25, 75, 125)] == [0, 10, 10]
    assert on_grid(46.45, 0, -1) == 465
    assert on_grid(46.5, 0, 0) == 46


def test_verdicts_add_up() -> None:
    kept = [without(energy(PLANT), 5), changed(produced(PLANT, "total"), 3, 1)]
    whole = together(verdicts(kept))
    assert (whole.slots, whole.wrong, whole.doubled, whole.gaps) == (2 * SLOTS - 1, 1, 0, 1)
    assert "production.total" in whole.first_wrong

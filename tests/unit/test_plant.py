"""The plant: pure in seed and time, exact, and consistent with itself."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.frame import SECOND
from protocols.vocabulary.states import STATE_MODELS
from simulators.machine_rules import OPERATING
from simulators.minute import JOULES_PER_COUNT, MINUTE, ItemState, minute_of
from simulators.plant import MACHINE, ROLLOVER, SECRETS, Plant, Signal

START = 1_795_392_000 * SECOND
DAY = 86_400 * SECOND

calm = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**64)
plants = st.builds(Plant, seeds, st.just(START))
moments = st.integers(START, START + DAY)
spans = st.tuples(moments, st.integers(0, 5 * MINUTE)).map(lambda it: (it[0], it[0] + it[1]))


@calm
@given(seeds, moments, moments)
def test_what_it_shows_depends_on_seed_and_time_alone(seed: int, first: int, second: int) -> None:
    plant = Plant(seed, START)
    shown = [(plant.meter(t), plant.state(t), plant.counts(t)) for t in (first, second)]
    minute_of.cache_clear()
    again = Plant(seed, START)
    assert [(again.meter(t), again.state(t), again.counts(t)) for t in (second, first)] == shown[
        ::-1
    ]


def test_a_later_version_continues_the_same_plant() -> None:
    plant, t = Plant(7, START), START + 1234 * SECOND + 567_891_234
    meter, counts = plant.meter(t), plant.counts(t)
    assert (meter.energy, meter.power, meter.power_factor) == (2627205119, 303725, 942)
    assert (plant.state(t), counts.total, counts.good, counts.scrap) == (3, 407983, 399422, 8561)


def test_another_seed_is_another_plant() -> None:
    one, other = Plant(1, START), Plant(2, START)
    assert one.transitions(START, START + MINUTE) != other.transitions(START, START + MINUTE)
    assert one.meter(START) != other.meter(START)
    assert one.constants() != other.constants()


@calm
@given(plants, moments, st.integers(0, DAY))
def test_energy_never_falls(plant: Plant, t: int, later: int) -> None:
    assert plant.energy_total(t) <= plant.energy_total(t + later)


@calm
@given(plants, st.integers(0, 86_000), st.integers(1, 200))
def test_energy_is_the_sum_of_power(plant: Plant, second: int, seconds: int) -> None:
    begin = START + second * SECOND
    joules = sum(plant.meter(begin + at * SECOND).power for at in range(seconds))
    counted = plant.energy_total(begin + seconds * SECOND) - plant.energy_total(begin)
    assert abs(counted * JOULES_PER_COUNT - joules) < JOULES_PER_COUNT


@calm
@given(seeds, st.integers(0, ROLLOVER - 1), moments)
def test_the_register_is_the_total_modulo_its_width(seed: int, energy_start: int, t: int) -> None:
    plant = Plant(seed, START, energy_start)
    assert plant.energy_total(START) == energy_start
    assert plant.meter(t).energy == plant.energy_total(t) % ROLLOVER


def test_the_register_starts_again_from_0() -> None:
    plant = Plant(7, START, ROLLOVER - 5)
    readings = [plant.meter(START + at * SECOND).energy for at in range(4)]
    assert readings[0] == ROLLOVER - 5
    assert readings[-1] < 100


@calm
@given(plants, moments)
def test_good_and_scrap_are_all_parts(plant: Plant, t: int) -> None:
    counts = plant.counts(t)
    assert counts.good + counts.scrap == counts.total
    assert counts.good > 0
    assert counts.scrap > 0


@calm
@given(plants, spans)
def test_parts_are_finished_only_while_executing(plant: Plant, span: tuple[int, int]) -> None:
    parts = [part for part in plant.changes(*span) if part.signal is Signal.TOTAL]
    for part in parts:
        assert plant.state(part.time) is ItemState.EXECUTING
        assert plant.state(part.time - 1) is ItemState.EXECUTING
        assert plant.counts(part.time).total == plant.counts(part.time - 1).total + 1 == part.value
    assert plant.counts(span[1]).total - plant.counts(span[0]).total == len(parts)


@calm
@given(plants, moments)
def test_a_minute_shows_several_states_each_for_2_to_20_seconds(plant: Plant, t: int) -> None:
    edges = plant.transitions(t + 1, t + 10 * MINUTE)
    assert len(edges) >= 60
    for edge, following in pairwise(edges):
        assert 2 * SECOND <= following.time - edge.time <= 20 * SECOND
        assert edge.value != following.value
        assert plant.state(edge.time) == edge.value != plant.state(edge.time - 1)
        assert plant.state(following.time - 1) == edge.value


def test_every_state_occurs() -> None:
    edges = Plant(7, START).transitions(START, START + 30 * MINUTE)
    assert {edge.value for edge in edges} == {int(state) for state in ItemState}


@calm
@given(plants, spans)
def test_time_in_states_is_what_lies_between_transitions(
    plant: Plant, span: tuple[int, int]
) -> None:
    begin, end = span
    marks = [begin, *(edge.time for edge in plant.transitions(begin + 1, end)), end]
    spent = dict.fromkeys(ItemState, 0)
    for mark, following in pairwise(marks):
        spent[plant.state(mark)] += following - mark
    assert plant.state_ns(begin, end) == spent
    assert sum(spent.values()) == end - begin


@calm
@given(plants, spans, st.integers(0, 5 * MINUTE))
def test_stretches_join_without_loss_or_repetition(
    plant: Plant, span: tuple[int, int], more: int
) -> None:
    (a, b), c = span, span[1] + more
    assert plant.transitions(a, b) + plant.transitions(b, c) == plant.transitions(a, c)
    assert plant.changes(a, b) + plant.changes(b, c) == plant.changes(a, c)
    joined = (plant.state_ns(a, b), plant.state_ns(b, c))
    assert {state: sum(part[state] for part in joined) for state in ItemState} == plant.state_ns(
        a, c
    )


@calm
@given(plants, spans)
def test_changes_come_in_order_on_whole_microseconds(plant: Plant, span: tuple[int, int]) -> None:
    changes = plant.changes(*span)
    assert all(change.time % 1000 == 0 for change in changes)
    assert all(span[0] < change.time <= span[1] for change in changes)
    assert [change.time for change in changes] == sorted(change.time for change in changes)


@calm
@given(plants, spans)
def test_the_newest_value_is_the_last_change(plant: Plant, span: tuple[int, int]) -> None:
    last = {change.signal: change for change in plant.changes(*span)}
    for signal, change in last.items():
        assert plant.newest(signal, span[1]) == change
    for signal in Signal:
        newest = plant.newest(signal, span[1])
        assert START <= newest.time <= span[1]
        assert plant.newest(signal, newest.time) == newest


def test_at_its_start_every_signal_has_a_value() -> None:
    plant = Plant(7, START)
    assert all(plant.newest(signal, START).time == START for signal in Signal)
    assert plant.newest(Signal.TOTAL, START).value == plant.counts(START).total


@pytest.mark.parametrize(
    "ask",
    [
        lambda plant: plant.meter(START - 1),
        lambda plant: plant.state(START - 1),
        lambda plant: plant.counts(START - 1),
        lambda plant: plant.state_ns(START - 1, START + 1),
        lambda plant: plant.changes(START - 1, START + 1),
    ],
)
def test_before_its_start_there_is_no_plant(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(ValueError, match="switched on"):
        ask(Plant(7, START))


@pytest.mark.parametrize(("start", "energy"), [(START + 1, None), (START, ROLLOVER), (START, -1)])
def test_a_plant_that_cannot_be_exact_is_refused(start: int, energy: int | None) -> None:
    with pytest.raises(ValueError, match=r"_ns|energy_start"):
        Plant(7, start, energy)


def test_secrets_are_recognisable_by_name_and_value() -> None:
    assert all(name.startswith("secret_") for name in SECRETS)
    known = {signal.value for signal in Signal if signal.value.startswith("secret_")}
    assert known == {name for name, device in SECRETS.items() if device == MACHINE}
    plant = Plant(7, START)
    numbers = (plant.meter(START).recipe_number, plant.constants()[Signal.PROGRAM_NUMBER])
    assert all(len(str(number)) == 10 for number in numbers)


def test_states_become_what_the_vocabulary_says() -> None:
    model = STATE_MODELS["machinery_item"]
    assert {int(state): code for state, (_, code) in OPERATING.items()} == model
    for state, (name, _) in OPERATING.items():
        assert model[int(state)].name.lower() == name

"""What was given up is exactly what is missing: one value more or less, on either side, is told."""

from dataclasses import replace

import pytest

from protocols.frame import SECOND
from simulators.torture.given_up import SLACK_NS, Cell, GivenUp, Place, Range, judge_given_up
from simulators.verdict import Stretch

WINDOW = 2 * SECOND
START = 1_000 * WINDOW
ENERGY, RUN = "meter-1 energy.active_import", "machine-1 machine.state run"
STREAM = 7
LOST = Range(1, STREAM, 4, 6)


def slot(number: int) -> int:
    return START + number * WINDOW


def cell(series: str, last: int, span: int = 1, *, filled: bool = True) -> Cell:
    return Cell(series, tuple(slot(last - back) for back in range(span)), filled)


CELLS: dict[Place, list[Cell]] = {
    (1, STREAM, 4): [cell(ENERGY, 10), cell(RUN, 10)],
    # After an outage: a counter counts over it, a state has no value there, nor in its first slot.
    (1, STREAM, 5): [cell(ENERGY, 14, span=4), cell(RUN, 14, filled=False)],
    (1, STREAM, 6): [cell(ENERGY, 15), cell(RUN, 15)],
    (1, STREAM, 7): [cell(ENERGY, 16), cell(RUN, 16)],
}
VALUES = 5
AWAY = [(slot(12), slot(13))]


def stretch(series: str, first: int, last: int) -> Stretch:
    return Stretch(series, series == ENERGY, slot(first), slot(last) + WINDOW, WINDOW)


MISSING = [stretch(ENERGY, 10, 15), stretch(RUN, 10, 15)]


def judged(
    said: int = VALUES,
    ranges: list[Range] | None = None,
    missing: list[Stretch] = MISSING,
    away: list[tuple[int, int]] = AWAY,
) -> GivenUp:
    return judge_given_up(said, [LOST] if ranges is None else ranges, CELLS, missing, away)


def test_what_is_lost_is_exactly_what_was_declared_and_the_rest_has_its_reason() -> None:
    assert judged() == GivenUp(values=VALUES, slots=8, unfilled=1, away=3)


@pytest.mark.parametrize("said", [0, VALUES - 1, VALUES + 1])
def test_an_agent_that_says_another_number_of_values_is_told(said: int) -> None:
    assert f"says that it gave up {said} values" in judged(said).fault


def test_one_that_gave_up_nothing_does_not_pass() -> None:
    assert judged(0, [], [], []).fault


@pytest.mark.parametrize("series", [ENERGY, RUN])
def test_a_value_that_was_declared_lost_and_is_there_is_told(series: str) -> None:
    missing = [stretch(one.series, 11, 15) if one.series == series else one for one in MISSING]
    said = f"{series} 1970-01-01T00:33:40Z was declared lost, and the brain has it"
    assert judged(missing=missing).fault == said


@pytest.mark.parametrize("series", [ENERGY, RUN])
def test_a_value_that_was_sealed_and_not_declared_lost_is_missed_whoever_was_away(
    series: str,
) -> None:
    missing = [stretch(one.series, 10, 16) if one.series == series else one for one in MISSING]
    found = judged(missing=missing, away=[(slot(0), slot(100))])
    assert found.fault == f"{series} 1970-01-01T00:33:52Z is missing, and nobody declared it"


def test_a_counter_lacks_nothing_because_the_agent_was_away() -> None:
    cells = {**CELLS, (1, STREAM, 5): [replace(CELLS[1, STREAM, 5][0], slots=(slot(14),))]}
    found = judge_given_up(VALUES, [LOST], cells, MISSING, [(slot(0), slot(100))])
    assert found.fault.startswith(ENERGY)
    assert "nobody declared" in found.fault


def test_away_excuses_what_lies_around_it_and_nothing_else() -> None:
    before = slot(11) - SLACK_NS
    assert (
        judged(away=[(0, slot(11) + SLACK_NS), (slot(13) + SLACK_NS, slot(14) + SLACK_NS)]).away
        == 3
    )
    assert "nobody declared" in judged(away=[(0, before - 1)]).fault


def test_a_message_declared_lost_that_never_was_there_is_told() -> None:
    fault = judged(ranges=[replace(LOST, last=8)]).fault
    assert fault == "message 8 of stream 7, epoch 1, was declared lost, and never waited"


def test_more_losses_add_up() -> None:
    assert judged() + judged() == GivenUp(2 * VALUES, 16, 2, 6)

"""Figures about several firms: what is shown protects every firm from every other one."""

from fractions import Fraction
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aggregator.config import DisclosureConfig
from aggregator.disclosure import breach, merged
from aggregator.summaries.ranking import FirmValue, Ranking, rank
from protocols.errors import ConfigError
from protocols.settings import check_settings

amounts = st.integers(0, 1000).map(Fraction)
cells = st.lists(amounts, max_size=7)
rules = st.builds(
    DisclosureConfig,
    least_firms=st.integers(3, 6),
    p_percent=st.sampled_from([0.5, 10.0, 12.5, 50.0]),
    dominant_firms=st.integers(1, 4),
    dominant_percent=st.sampled_from([60.0, 75.0, 85.0, 99.9]),
)


def is_safe(rule: DisclosureConfig, cell: list[Fraction]) -> bool:
    """The rules as they are told in words, by trying everyone against everyone."""
    there = [part for part in cell if part > 0]
    if len(there) < rule.least_firms:
        return False
    total, p = sum(there), Fraction(str(rule.p_percent)) / 100
    for who, whom in permutations(range(len(there)), 2):
        # He subtracts his own from the total; the rest is the most that the other can have.
        most = total - there[who]
        if most - there[whom] < p * there[whom]:
            return False
    k = Fraction(str(rule.dominant_percent)) / 100
    groups = combinations(there, min(rule.dominant_firms, len(there)))
    return all(sum(group) <= k * total for group in groups)


@given(rules, cells)
@example(DisclosureConfig(), [Fraction(50), Fraction(30), Fraction(5)])
@example(DisclosureConfig(), [Fraction(50), Fraction(35), Fraction(15)])
def test_a_cell_is_shown_exactly_when_no_firm_can_bound_or_dominate_another(
    rule: DisclosureConfig, cell: list[Fraction]
) -> None:
    assert (breach(rule, cell) == "") == is_safe(rule, cell)


@given(rules, st.lists(st.tuples(amounts, st.booleans()), max_size=7))
def test_a_reader_who_knows_some_firms_cannot_bound_the_others(
    rule: DisclosureConfig, cell: list[tuple[Fraction, bool]]
) -> None:
    if breach(rule, merged(cell)):
        return
    p = Fraction(str(rule.p_percent)) / 100
    left = sum(part for part, own in cell if not own)
    others = [part for part, own in cell if not own and part]
    assert len(others) >= rule.least_firms - 1
    for part in others:
        assert left - part >= p * part


def test_which_rule_a_cell_breaks_is_told() -> None:
    rule = DisclosureConfig()
    told = [
        breach(rule, map(Fraction, cell))
        for cell in ([5, 5], [5, 5, 0], [100, 50, 9], [100, 50, 10], [40, 30, 30])
    ]
    assert told == ["firms", "firms", "p-percent", "dominance", ""]
    with pytest.raises(ValueError, match="below 0"):
        breach(rule, [Fraction(1), Fraction(-1), Fraction(2), Fraction(3)])


@pytest.mark.parametrize("change", [{"least_firms": 2}, {"p_percent": 0}, {"least_ranked": 1}])
def test_protection_cannot_be_configured_away(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        check_settings(change, DisclosureConfig, Path("aggregator.toml"), ("disclosure",))


def firms(*values: float | None, coverage: float = 1.0) -> list[FirmValue]:
    return [FirmValue(f"firm-{at}", value, coverage) for at, value in enumerate(values)]


def ranked(
    values: list[FirmValue], own: set[str] | None = None, *, finished: bool = True
) -> Ranking:
    return rank(
        values,
        DisclosureConfig(),
        higher_is_better=True,
        finished=finished,
        sees=lambda firm: own is None or firm in own,
    )


def test_firms_are_ranked_best_first_and_equal_ones_share_their_place() -> None:
    found = ranked(firms(0.5, 0.8, 0.8, 0.7, 0.6))
    assert [(one.firm.enterprise, one.rank) for one in found.places] == [
        ("firm-1", 1),
        ("firm-2", 1),
        ("firm-3", 3),
        ("firm-4", 4),
        ("firm-0", 5),
    ]
    assert found.mean == pytest.approx(0.68)
    assert (found.taking_part, found.protected) == (5, "")


def test_who_has_too_little_coverage_or_no_value_is_told_and_not_ranked() -> None:
    values = [*firms(0.5, 0.8, 0.9, 0.7, 0.6, None), FirmValue("thin", 0.99, 0.89)]
    found = ranked(values)
    assert [(one.firm.enterprise, one.rank, one.excluded) for one in found.places][-2:] == [
        ("thin", None, "coverage"),
        ("firm-5", None, "absent"),
    ]
    assert found.taking_part == 5
    assert found.mean == pytest.approx(0.7)


def test_below_the_floor_there_are_no_places_and_no_mean_for_anybody() -> None:
    for own in (None, {"firm-0"}):
        found = ranked(firms(0.5, 0.8, 0.9, 0.7), own)
        assert {one.rank for one in found.places} == {None}
        assert (found.taking_part, found.mean, found.protected) == (None, None, "firms")


def test_a_reader_of_some_firms_sees_these_alone_with_their_places() -> None:
    found = ranked(firms(0.5, 0.8, 0.9, 0.7, 0.6), {"firm-1", "elsewhere"})
    assert [(one.firm.enterprise, one.rank) for one in found.places] == [("firm-1", 2)]
    assert found.mean == pytest.approx(0.7)


def test_while_a_period_runs_two_looks_tell_a_reader_of_some_firms_nothing() -> None:
    values = firms(0.5, 0.8, 0.9, 0.7, 0.6)
    found = ranked(values, {"firm-1"}, finished=False)
    assert (found.places[0].rank, found.mean, found.taking_part) == (None, None, None)
    assert found.protected == "unfinished"
    assert ranked(values, finished=False).mean is not None


def test_a_mean_that_gives_away_one_firm_is_kept_back_and_who_sees_few_is_not_told_why() -> None:
    values = firms(1000.0, 4.0, 3.0, 2.0, 1.0)
    everything, one = ranked(values), ranked(values, {"firm-4"})
    assert (everything.mean, everything.protected) == (None, "p-percent")
    assert (one.mean, one.protected) == (None, "protected")
    assert one.places[0].rank == 5


def test_what_a_reader_knows_already_does_not_protect_the_others() -> None:
    values = firms(100.0, 90.0, 80.0, 70.0, 5.0, 4.0, 3.0, 2.0)
    assert ranked(values).mean is not None
    # Without what he knows, one firm is nearly all of the rest.
    found = ranked(values, {"firm-0", "firm-1", "firm-2"})
    assert (found.mean, found.protected) == (None, "protected")
    # Nor do places of his own hide two others.
    found = ranked(values, {f"firm-{at}" for at in range(6)})
    assert ({one.rank for one in found.places}, found.protected) == ({None}, "firms")

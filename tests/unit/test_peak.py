"""Peak expectation: a year only where the data and the assumptions carry one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.summaries.peak import Assumptions, Expectation, Scenario, expect
from protocols.frame import Floats

FADING = Assumptions(0.8, {"slow": 0.01, "fast": 0.06})


def months(count: int, growth: float, *, noise: float = 0.01, season: float = 0.1) -> Floats:
    at = np.arange(count) / 12
    wobble = np.random.default_rng(5).normal(0, noise, count) if noise else np.zeros(count)
    carbon: Floats = 1e5 * np.exp(growth * at + season * np.sin(2 * np.pi * at) + wobble)
    return carbon


def answer(
    kg: Floats, coverage: Floats | None = None, until: int = 2040, assumed: Assumptions = FADING
) -> Expectation:
    covered = np.ones(len(kg)) if coverage is None else coverage
    return expect((2022, 1), kg, covered, until, assumed)


def named(found: Expectation, name: str) -> Scenario:
    return next(one for one in found.scenarios if one.name == name)


@pytest.mark.parametrize("count", [0, 1, 12, 23])
def test_below_24_months_the_peak_is_not_identified(count: int) -> None:
    found = answer(months(count, 0.05))
    assert (found.reason, found.months, found.scenarios) == ("months", count, [])


def test_months_that_were_not_received_do_not_count() -> None:
    coverage = np.ones(30)
    coverage[3:10] = 0.5
    assert answer(months(30, 0.05), coverage).reason == "months"
    gaps = months(30, 0.05)
    gaps[[4, 8]] = np.nan
    assert answer(gaps).months == 28


def test_growth_that_fades_peaks_inside_and_earlier_the_more_is_saved() -> None:
    found = answer(months(48, 0.06))
    slow, fast = named(found, "slow"), named(found, "fast")
    assert found.growth == pytest.approx(0.06, abs=0.005)
    assert slow.peak_year is not None
    assert fast.peak_year is not None
    assert 2025 <= fast.peak_year < slow.peak_year < 2040


def test_a_maximum_at_the_edge_of_the_horizon_is_no_peak() -> None:
    # It still grows in the last year that is looked at.
    near = answer(months(48, 0.06), until=2028)
    assert (named(near, "slow").peak_year, named(near, "slow").reason) == (None, "edge")
    # It has fallen ever since the first year: the peak may lie before.
    fallen = answer(months(48, -0.05))
    assert {one.reason for one in fallen.scenarios} == {"edge"}


def test_a_year_that_stands_out_less_than_the_error_is_no_peak() -> None:
    carbon = months(48, 0.0, noise=0.05)
    carbon[12:24] *= 1.01
    found = answer(carbon, assumed=Assumptions(0.8, {"none": 0.0}))
    assert named(found, "none").peak_year is None


def test_intervals_hold_the_middle_and_widen_with_time_and_with_error() -> None:
    calm, rough = (named(answer(months(60, 0.03, noise=noise)), "slow") for noise in (0.01, 0.1))
    for one in (calm, rough):
        assert np.all(one.p10 <= one.p50)
        assert np.all(one.p50 <= one.p90)
    width = np.log(calm.p90 / calm.p10)
    assert width[0] == 0
    assert width[6] < width[10] < width[18]
    assert np.log(rough.p90 / rough.p10)[10] > 2 * width[10]


def test_a_smooth_past_does_not_look_like_certainty() -> None:
    found = answer(months(24, 0.05, noise=0.03))
    assert found.error is not None
    assert found.error > 0.01


def test_years_that_are_over_are_as_they_were() -> None:
    carbon = months(40, 0.04)
    found = answer(carbon)
    slow = named(found, "slow")
    assert (found.years[:4], found.observed[:4]) == ([2022, 2023, 2024, 2025], [True] * 3 + [False])
    assert slow.p50[:3] == pytest.approx([carbon[at : at + 12].sum() for at in (0, 12, 24)])
    assert slow.p10[2] == pytest.approx(slow.p90[2])
    # Of the running year the months that are over are as they were, too.
    assert slow.p10[3] > carbon[36:40].sum()


def test_a_first_year_that_is_not_whole_is_left_out() -> None:
    kg = np.append(np.full(5, np.nan), months(36, 0.02))
    assert answer(kg).years[0] == 2023


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.floats(1e-3, 1e9), min_size=24, max_size=60),
    st.integers(2023, 2100),
)
def test_whatever_the_months_are_there_is_an_answer_without_nonsense(
    kg: list[float | None], until: int
) -> None:
    found = answer(np.array([np.nan if one is None else one for one in kg]), until=until)
    assert (found.reason == "months") == (sum(one is not None for one in kg) < 24)
    for one in found.scenarios:
        assert np.isfinite([one.p10, one.p50, one.p90]).all()
        assert np.all(one.p50 >= 0)
        if one.peak_year is not None:
            assert found.years[0] < one.peak_year < found.years[-1]
            assert found.years[int(np.argmax(one.p50))] == one.peak_year

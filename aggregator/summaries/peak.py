"""Peak expectation (碳达峰预期): carbon by year in scenarios, with intervals, and an honest "not identified".

log of monthly carbon = level + season of the month + growth x time, by least squares over complete
months. Ahead, growth fades by a factor every year and each scenario takes off a reduction per year:

    ahead(h) = growth x (1 - fading^h) / -ln(fading) - saving x h        h in years, saving = -log(1 - reduction)

Fading and reductions are assumptions that people make; the answer repeats them. Intervals are of
back-tests: what the same rule, given only the past, missed a year ahead; they widen with the root of h.
After the practice of scenarios in the literature (LEAP, STIRPAT), reduced to what monthly totals carry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from protocols.frame import Flags, Floats, Ints

MODEL: Final = "trend-1"
LEAST_MONTHS: Final = 24
LEAST_COVERAGE: Final = 0.9
_YEAR: Final = 12
_MOST: Final = 700.0
"""The logarithm of about the largest number there is."""
_TENTH: Final = 1.2815515655446004
"""Of a normal distribution, a tenth lies beyond this many standard deviations."""

Reason = Literal["", "months", "edge", "flat"]


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What people assume.

    Attributes:
        fading: part of the growth of one year that is left in the next, above 0 and below 1.
        reductions: scenario -> part of carbon that is saved every year beyond what the past shows.
    """

    fading: float = 0.8
    reductions: Mapping[str, float] = field(
        default_factory=lambda: {"slow": 0.01, "steady": 0.03, "fast": 0.05}
    )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario, by year.

    Attributes:
        p10, p50, p90: kg CO2e, shape (years,); a year that is over has three times the same.
        peak_year: None where the peak is not identified.
        reason: why not: `edge`, the largest year is the first or the last one, so that the peak may
            lie outside; `flat`, it is above these by no more than what back-tests missed.
    """

    name: str
    reduction: float
    p10: Floats
    p50: Floats
    p90: Floats
    peak_year: int | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Expectation:
    """The answer for one firm or site.

    Attributes:
        months: how many complete months there are.
        growth: of the past, per year; None with too few months.
        error: root mean square of what back-tests missed one year ahead, as a log ratio.
        years: of the scenarios.
        observed: which of these years are over.
        reason: `months` where there are fewer than 24 complete ones; then no scenarios either.
    """

    months: int
    growth: float | None
    error: float | None
    years: list[int]
    observed: list[bool]
    scenarios: list[Scenario]
    reason: Reason


def expect(
    first: tuple[int, int], kg: Floats, coverage: Floats, until: int, assumed: Assumptions
) -> Expectation:
    """Return what is to be expected.

    Args:
        first: year and month (1 to 12) of the first month.
        kg: shape (months,), carbon of months that are over; NaN where there is none.
        coverage: shape (months,), part of each month that was received.
        until: the last year to look at.
        assumed: see there.
    """
    good: Flags = (coverage >= LEAST_COVERAGE) & (np.nan_to_num(kg) > 0)
    count = int(good.sum())
    if count < LEAST_MONTHS:
        return Expectation(count, None, None, [], [], [], "months")
    place = np.arange(len(kg)) + first[1] - 1
    known = np.where(good, np.log(np.where(good, kg, 1.0)), np.nan)
    start = int(np.flatnonzero(good)[0])
    known, place = known[start:], place[start:]
    fit = _fit(place, known)
    error = _missed(place, known)
    year = first[0] + place // _YEAR
    years = np.arange(int(year[0]), max(until, int(year[-1]) + 1) + 1)
    # A first year that is not whole is no year to compare with.
    years = years[1:] if place[0] % _YEAR else years
    scenarios = [
        _scenario(name, share, (first[0], place, known), fit, (error, assumed.fading), years)
        for name, share in assumed.reductions.items()
    ]
    last = first[0] * _YEAR + int(place[-1])
    observed = [(one + 1) * _YEAR - 1 <= last for one in years.tolist()]
    return Expectation(count, float(fit[1]), error, years.tolist(), observed, scenarios, "")


def _design(place: Ints) -> Floats:
    season = np.eye(_YEAR)[place % _YEAR][:, 1:]
    return np.column_stack([np.ones(len(place)), place / _YEAR, season])


def _fit(place: Ints, known: Floats) -> Floats:
    """Return level, growth per year, and eleven seasons; the smallest where they are not unique."""
    rows = ~np.isnan(known)
    found = np.linalg.lstsq(_design(place[rows]), known[rows], rcond=None)[0]
    return np.asarray(found, np.float64)


def _missed(place: Ints, known: Floats) -> float:
    """Return the root mean square of log errors a year ahead, of fits to the past alone.

    With less than two years before it, a fit says nothing about seasons; then the last year but one
    stands in: what the months of a year differ from those of the year before by.
    """
    errors: list[float] = []
    for cut in range(LEAST_MONTHS, len(place) - 1):
        if np.count_nonzero(~np.isnan(known[:cut])) >= LEAST_MONTHS:
            fit = _fit(place[:cut], known[:cut])
            ahead = slice(cut, min(cut + _YEAR, len(place)))
            errors += (known[ahead] - _design(place[ahead]) @ fit).tolist()
    yearly = known[_YEAR:] - known[:-_YEAR]
    # Both count, the larger one: few back-tests of a smooth past must not look like certainty.
    kinds: list[Floats] = [np.array(errors), yearly - np.nanmean(yearly)]
    return max(
        (float(np.sqrt(np.nanmean(each**2))) for each in kinds if np.any(~np.isnan(each))),
        default=0.0,
    )


def _scenario(
    name: str,
    reduction: float,
    past: tuple[int, Ints, Floats],
    fit: Floats,
    spread: tuple[float, float],
    years: Ints,
) -> Scenario:
    (first, place, known), (error, fading) = past, spread
    wanted = (years[0] - first) * _YEAR + np.arange(len(years) * _YEAR)
    ahead = np.clip((wanted - place[-1]) / _YEAR, 0.0, None)
    # The trend runs to the last month; from there growth fades and the scenario saves.
    base = _design(np.minimum(wanted, place[-1])) @ fit
    base += (_design(wanted) - _design(np.minimum(wanted, place[-1])))[:, 2:] @ fit[2:]
    path = fit[1] * (1 - fading**ahead) / -np.log(fading) + np.log1p(-reduction) * ahead
    centre = base + path
    own = np.searchsorted(place, wanted)
    inside = (wanted >= place[0]) & (wanted <= place[-1])
    told = np.full(len(wanted), np.nan)
    told[inside] = known[own[inside]]
    observed = ~np.isnan(told)
    width = np.where(observed, 0.0, _TENTH * error * np.sqrt(np.maximum(ahead, 1.0)))
    middle = np.where(observed, told, centre)
    low, mid, high = (
        np.exp(np.minimum(middle + sign * width, _MOST)).reshape(-1, _YEAR).sum(axis=1)
        for sign in (-1, 0, 1)
    )
    reason = _unclear(mid, error)
    peak = None if reason else int(years[np.argmax(mid)])
    return Scenario(name, reduction, low, mid, high, peak, reason)


def _unclear(mid: Floats, error: float) -> Reason:
    at = int(np.argmax(mid))
    if at in {0, len(mid) - 1}:
        return "edge"
    above = np.log(mid[at] / max(mid[0], mid[-1]))
    return "flat" if above <= error else ""


def as_document(found: Expectation, assumed: Assumptions) -> dict[str, Any]:
    """Return an expectation as JSON has it, with what was assumed."""
    identified = any(one.peak_year is not None for one in found.scenarios)
    return {
        "identified": identified,
        "reason": found.reason or None,
        "model": MODEL,
        "months": found.months,
        "least_months": LEAST_MONTHS,
        "growth": found.growth,
        "error": found.error,
        "fading": assumed.fading,
        "years": found.years,
        "observed": found.observed,
        "scenarios": [
            {
                "name": one.name,
                "reduction": one.reduction,
                "peak_year": one.peak_year,
                "reason": one.reason or None,
                "p10_kg": one.p10.tolist(),
                "p50_kg": one.p50.tolist(),
                "p90_kg": one.p90.tolist(),
            }
            for one in found.scenarios
        ],
    }

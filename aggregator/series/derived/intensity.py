"""`ce_intensity`: carbon per product, per value added (L, K, grade) and per mu of land.

Counted is what is direct and what is location-based. L and K need what only people know; without
it they are absent. A grade needs nearly the whole period, for L of half a year over the value added
of a whole one would flatter.
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from decimal import Decimal

import numpy as np

from aggregator.localtime import DAY_S, HOUR_S
from aggregator.series.derived.energy import counted_points, decimal_sum
from aggregator.series.derived.site import HOUR_NS, Hours, Site, counted, floats, rows_of, summed
from aggregator.series.future_factory import medium_tags
from aggregator.stores import FieldColumn, RowSpan, SeriesBlock, SeriesKey, Store
from protocols.frame import SECOND, Flags, Floats, Ints
from protocols.vocabulary.measurands import MEASURANDS

LEAST_COVERAGE = 0.95
"""Of a period, for K and a grade; a choice of ours, no rule of the method."""

_PRODUCTS = {"production.good": "pcs", "production.good.mass": "kg", "production.good.length": "m"}


def emission_keys(site: Site, years: Iterable[int]) -> list[SeriesKey]:
    """Return the site's emission series that are counted in some local years, each carbon once.

    They follow from what it releases, so that nobody has to list what a store has.
    """
    found: dict[SeriesKey, None] = {}
    for year in years:
        for point in counted_points(site):
            chosen = site.context.factors.choose(MEASURANDS[point.measurand].medium, year)
            if chosen is not None and chosen.set.activity_unit == point.unit:
                key = site.key(
                    "ce_emission",
                    equipment_id=point.equipment,
                    scope=str(chosen.set.scope),
                    method=chosen.set.method,
                    gas=chosen.set.gas,
                    factor_id=chosen.id,
                    **medium_tags(point.measurand),
                )
                found[key] = None
    return list(found)


def years_of(hours: Hours) -> list[int]:
    """Return the local years that hours touch."""
    return sorted({day.year for day in hours.days()})


def per_product(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield carbon per good product of each local day, for each unit that products are counted in.

    Only of days that are wholly in `hours`: a zone with half hours begins its days within a UTC hour, so
    that the first or the last hour may be of another day.
    """
    local = hours.site.context.local
    days = local.seconds(hours.starts) // DAY_S
    first = days[0] if hours.count else 0
    keys = emission_keys(hours.site, years_of(hours))
    if not keys:
        return
    carbon = np.zeros(hours.count)
    for key in keys:
        block = hours.query("carbon_emission", key, ["co2e_kg"])
        carbon += summed(hours.place(block.time), floats(block, "co2e_kg"), hours.count)
    place = days - first
    count = int(place[-1]) + 1
    kg = summed(place, carbon, count)
    for measurand, unit in _PRODUCTS.items():
        rises = [
            hours.rise(points[measurand])
            for points in hours.site.by_equipment.values()
            if measurand in points and points[measurand].aggregate == "delta"
        ]
        if rises:
            made = summed(place, np.sum([rise.values for rise in rises], axis=0), count)
            covered = np.min([rise.coverage for rise in rises], axis=0)
            coverage = summed(place, covered, count) / counted(place, count)
            yield from _per_day(hours, unit, place, (kg, made, coverage))


def _per_day(
    hours: Hours, unit: str, place: Ints, sums: tuple[Floats, Floats, Floats]
) -> list[SeriesBlock]:
    kg, made, coverage = sums
    first_hour = np.searchsorted(place, np.arange(len(kg)))
    fields: dict[str, FieldColumn] = {
        "kgco2e_per_unit": kg / np.where(made > 0, made, 1.0),
        "co2e_kg": kg,
        "quantity": made,
        "coverage": coverage,
    }
    key = hours.site.key("ce_intensity", denominator=unit, period="day")
    whole = (made > 0) & (kg > 0) & _whole(hours, len(kg))
    return rows_of(key, hours.starts[first_hour], whole, fields, DAY_S)


def _whole(hours: Hours, count: int) -> Flags:
    """Tell which of the local days that hours touch are wholly in them, shape (count,)."""
    local, first = hours.site.context.local, hours.days()[0]
    days = [first + timedelta(days=at) for at in range(count + 1)]
    edges = np.array([local.start_of(day.year, day.month, day.day) for day in days])
    found: Flags = (edges[:-1] >= hours.start_ns) & (edges[1:] <= hours.end_ns)
    return found


def per_period(hours: Hours, store: Store) -> Iterator[SeriesBlock]:
    """Yield carbon per value added and per mu for periods that these hours touch."""
    for fact in hours.site.facts.periods("value_added"):
        if fact.valid_until is not None:
            yield from _per_value(hours, store, fact.valid_from, fact.valid_until, fact.value)
    for year in years_of(hours):
        area = hours.site.facts.on("land_area", date(year, 12, 31))
        if area is not None and area > 0:
            period = _Period(hours, date(year, 1, 1), date(year + 1, 1, 1))
            yield from _row(period, store, "亩", area, {})


def period_row(key: SeriesKey, site: Site, start_ns: int, end_ns: int) -> RowSpan | None:
    """Return where the row of a longer period is; None if it touches none of this time.

    Such a row is at the beginning of its period, which may be long before the hours it is made of.
    """
    first, between, until = dict(key.tags).get("period", "").partition("/")
    if key.measurement != "ce_intensity" or not between:
        return None
    days = (date.fromisoformat(first), date.fromisoformat(until))
    at, after = (site.context.local.start_of(day.year, day.month, day.day) for day in days)
    return RowSpan(key, at, at + 1) if at < end_ns and start_ns < after else None


class _Period:
    """A period of whole local days."""

    def __init__(self, hours: Hours, first: date, until: date) -> None:
        local = hours.site.context.local
        self.site = hours.site
        self.start_ns = local.start_of(first.year, first.month, first.day)
        self.end_ns = local.start_of(until.year, until.month, until.day)
        self.touched = self.start_ns < hours.end_ns and hours.start_ns < self.end_ns
        self.name = f"{first}/{until}"
        self.years = range(first.year, until.year + 1)

    def carbon(self, store: Store) -> tuple[Decimal, float]:
        """Return kg CO2e and the part of the period's hours that has any."""
        total, seen = Decimal(0), np.zeros(0, np.int64)
        for key in emission_keys(self.site, self.years):
            steps = store.query_steps(key, "co2e_kg", self.start_ns, self.end_ns, HOUR_NS, "sum")
            total += decimal_sum(floats(steps, "co2e_kg"))
            seen = np.union1d(seen, steps.time)
        return total, min(1.0, len(seen) * HOUR_S * SECOND / (self.end_ns - self.start_ns))


def _per_value(
    hours: Hours,
    store: Store,
    first: date,
    until: date,
    value: Decimal,
) -> list[SeriesBlock]:
    period = _Period(hours, first, until)
    means = [
        fact.value
        for fact in hours.site.facts.periods("industry_mean_carbon")
        if (fact.valid_from, fact.valid_until) == (first, until) and fact.value > 0
    ]
    if value <= 0:
        return []
    return _row(period, store, "万元", value, {"mean": means[0]} if means else {})


def _row(
    period: _Period,
    store: Store,
    denominator: str,
    amount: Decimal,
    more: dict[str, Decimal],
) -> list[SeriesBlock]:
    if not period.touched:
        return []
    kg, coverage = period.carbon(store)
    if kg <= 0:
        return []
    fields: dict[str, FieldColumn] = {
        "kgco2e_per_unit": np.array([float(kg / amount)]),
        "co2e_kg": np.array([float(kg)]),
        "quantity": np.array([float(amount)]),
        "coverage": np.array([coverage]),
    }
    if denominator == "万元":
        fields |= _code(period, kg / 1000 / amount, coverage, more.get("mean"))
    key = period.site.key("ce_intensity", denominator=denominator, period=period.name)
    window_s = (period.end_ns - period.start_ns) // SECOND
    start = np.array([period.start_ns], np.int64)
    return rows_of(key, start, np.ones(1, np.bool_), fields, window_s)


def _code(
    period: _Period, carbon: Decimal, coverage: float, mean: Decimal | None
) -> dict[str, FieldColumn]:
    profile = period.site.context.profile
    fields: dict[str, FieldColumn] = {"L": np.array([float(carbon)]), "code_profile": [profile.id]}
    if coverage >= LEAST_COVERAGE:
        fields["level"] = [profile.level_of(carbon)]
        if mean is not None:
            ratio = carbon / mean
            fields["K"] = np.array([float(ratio)])
            fields["grade"] = np.array([profile.grade_of(ratio)], np.int64)
    return fields

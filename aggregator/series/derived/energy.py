"""`ff_energy` that no meter counts (from power, own use of PV, load), `ce_balance`, market-based carbon.

Everything electric here is of main meters, PV meters and export meters of the whole site.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from aggregator.localtime import HOUR_S
from aggregator.series.carbon import counted_scope_of
from aggregator.series.derived.site import (
    HOUR_NS,
    Column,
    Hours,
    PlanPoint,
    Rise,
    Site,
    counted,
    exact,
    floats,
    quality,
    rows_of,
    summed,
)
from aggregator.series.future_factory import GENERATED, energy_medium, medium_tags
from aggregator.series.slots import QUALITY_ESTIMATED
from aggregator.stores import FieldColumn, SeriesBlock
from protocols.frame import SECOND, Flags, Floats

Fields: TypeAlias = dict[str, FieldColumn]

IMPORT, EXPORT, POWER = "energy.active_import", "energy.active_export", "power.active"


def from_power(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ff_energy` of equipment that has power and no counter, with how it was computed."""
    for equipment, points in hours.site.by_equipment.items():
        point = points.get(POWER)
        counted = IMPORT in points or GENERATED in points
        if point is not None and not counted and point.aggregate in {"last", "mean"}:
            method = "mean_power" if point.aggregate == "mean" else "integrated"
            column, energy = power_integral(hours, point)
            inside = ~np.isnan(energy) & (column.time >= hours.start_ns)
            key = hours.site.key(
                "ff_energy",
                equipment_id=equipment,
                medium="Electricity",
                meter_role=point.role or "main",
                basis="power",
            )
            fields: Fields = {
                "energy": energy,
                "span_s": column.window_s,
                "quality": [QUALITY_ESTIMATED] * len(column),
                "method": [method] * len(column),
            }
            yield from rows_of(key, column.time, inside, fields, column.window_s)


def power_integral(hours: Hours, point: PlanPoint) -> tuple[Column, Floats]:
    """Return a power's rows, from a slot before the hours on, and each slot's energy in kWh.

    A mean is the mean of its slot. Of last values, which stand at the ends of slots, the trapezoid
    of two neighbours; NaN where the slot before has no value.
    """
    column = hours.column(point, lead_ns=point.longest_s * SECOND)
    hour_share = column.window_s / HOUR_S
    if point.aggregate == "mean" or not len(column):
        return column, column.values * hour_share
    before = np.append(np.nan, column.values[:-1])
    follows = np.append(False, np.diff(column.time) == column.window_s[:-1] * SECOND)
    return column, np.where(follows, (before + column.values) / 2 * hour_share, np.nan)


def meters(site: Site, measurand: str, roles: Sequence[str]) -> list[PlanPoint]:
    """Return the counters of a measurand with one of some roles."""
    return [
        points[measurand]
        for points in site.by_equipment.values()
        if measurand in points
        and points[measurand].role in roles
        and points[measurand].aggregate == "delta"
    ]


def generation(site: Site) -> list[PlanPoint]:
    """Return the counters of what is generated on site: by their measurand, or by the role `pv`.

    An equipment that has both counts once.
    """
    own = meters(site, GENERATED, ("", "main", "sub", "pv"))
    known = {point.equipment for point in own}
    return own + [one for one in meters(site, IMPORT, ("pv",)) if one.equipment not in known]


def _sum(hours: Hours, points: Sequence[PlanPoint]) -> Rise | None:
    """Return the sum of several counters; known where all are."""
    rises = [hours.rise(point) for point in points]
    if not rises:
        return None
    return Rise(
        np.sum([rise.values for rise in rises], axis=0),
        np.min([rise.coverage for rise in rises], axis=0),
        np.all([rise.known for rise in rises], axis=0),
        np.any([rise.outside for rise in rises], axis=0),
        np.all([rise.complete for rise in rises], axis=0),
    )


def own_use(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ff_energy` of PV that the site uses itself and of its load, where PV is metered.

    Own use = PV generation - export; load = import + PV - export. Only for hours in which all
    meters are complete and own use is not below 0.
    """
    parts = _pv(hours)
    if parts is None:
        return
    drawn, generated, fed, usable = parts
    used = generated - fed
    usable = usable & (used >= 0)
    for role, energy in (("self_use", used), ("load", drawn + used)):
        key = hours.site.key("ff_energy", medium="Electricity", meter_role=role)
        fields: Fields = {
            "energy": np.round(energy, 9),
            "span_s": np.full(hours.count, HOUR_S, np.int64),
            "quality": ["GOOD"] * hours.count,
            "method": ["derived"] * hours.count,
        }
        yield from rows_of(key, hours.starts, usable, fields)
    activity: Fields = {
        "activity": np.round(used, 9),
        "span_s": np.full(hours.count, HOUR_S, np.int64),
        "unit": ["kWh"] * hours.count,
        "quality": ["GOOD"] * hours.count,
    }
    key = hours.site.key("ce_activity", medium="Electricity", scope="none", source_id="pv-self-use")
    yield from rows_of(key, hours.starts, usable, activity)


def _pv(hours: Hours) -> tuple[Floats, Floats, Floats, Flags] | None:
    """Return import, PV and export per hour, and where all are complete; None without PV."""
    generated = _sum(hours, generation(hours.site))
    drawn = _sum(hours, meters(hours.site, IMPORT, ("", "main")))
    fed = _sum(hours, meters(hours.site, EXPORT, ("", "main", "export")))
    if generated is None or drawn is None or fed is None:
        return None
    usable = generated.complete & drawn.complete & fed.complete
    return drawn.values, generated.values, fed.values, usable


def balance(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ce_balance`: main meters against the sub-meters behind them, per medium and hour.

    Never spread over the sub-meters: what none of them has is `unallocated`.
    """
    for measurand in sorted({one.measurand for one in hours.site.plan}):
        if energy_medium(measurand) and measurand != EXPORT:
            yield from _balance(hours, measurand)


def balance_of(hours: Hours, measurand: str) -> tuple[Floats, Floats, Flags] | None:
    """Return main and sum of sub-meters per hour, and where both are complete; None without."""
    main = _sum(hours, meters(hours.site, measurand, ("", "main")))
    subs = _sum(hours, meters(hours.site, measurand, ("sub",)))
    if main is None or subs is None:
        return None
    usable = main.complete & subs.complete
    supply = main.values
    pv = _pv(hours) if measurand == IMPORT else None
    if measurand == IMPORT and generation(hours.site):
        if pv is None:
            return None
        supply, usable = pv[0] + pv[1] - pv[2], usable & pv[3]
    return supply, subs.values, usable


def _balance(hours: Hours, measurand: str) -> list[SeriesBlock]:
    found = balance_of(hours, measurand)
    if found is None:
        return []
    main, subs, usable = found
    rest = np.round(main - subs, 9)
    ratio = np.where(main > 0, rest / np.where(main > 0, main, 1.0), np.nan)
    fields: Fields = {
        "main": np.round(main, 9),
        "sub_sum": np.round(subs, 9),
        "unallocated": rest,
        "residual_ratio": ratio,
    }
    key = hours.site.key("ce_balance", **medium_tags(measurand))
    return rows_of(key, hours.starts, usable, fields)


def market(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield market-based `ce_emission` of purchased electricity, where contracts are known.

    Scope 2 is told twice where contracts exist (GHG Protocol): what a contract of zero-carbon
    power covers has no emission, the rest has the factor of the residual mix.
    """
    shares = hours.fact("green_power_share")
    if np.isnan(shares).all():
        return
    for point in counted_points(hours.site):
        if point.measurand == IMPORT:
            key = hours.site.key(
                "ce_activity",
                equipment_id=point.equipment,
                medium="Electricity",
                scope="2",
                source_id=point.equipment,
            )
            block = hours.query("carbon_emission", key, ["activity", "span_s", "window_s"])
            yield from _market(hours, point.equipment, block, shares)


def _market(hours: Hours, meter: str, block: SeriesBlock, shares: Floats) -> Iterator[SeriesBlock]:
    share = shares[hours.place(block.time)]
    years = hours.site.context.local.years(block.time)
    for year in np.unique(years).tolist():
        chosen = hours.site.context.factors.residual("Electricity", year)
        own = (years == year) & ~np.isnan(share)
        if chosen is None or not own.any():
            continue
        values = [
            float(Fraction(exact(kwh)) * (1 - Fraction(exact(part))) * chosen.factor.exact)
            for kwh, part in zip(
                floats(block, "activity")[own].tolist(), share[own].tolist(), strict=True
            )
        ]
        key = hours.site.key(
            "ce_emission",
            equipment_id=meter,
            scope="2",
            method="market",
            medium="Electricity",
            gas=chosen.set.gas,
            factor_id=chosen.id,
        )
        spans = floats(block, "span_s")[own].astype(np.int64)
        count = len(values)
        fields: Fields = {
            "co2e_kg": np.array(values, np.float64),
            "factor_value": np.full(count, float(chosen.factor.exact)),
            "green_share": share[own],
            "factor_unit": [chosen.set.unit] * count,
            "factor_grade": [chosen.factor.grade] * count,
            "span_s": spans,
        }
        windows = floats(block, "window_s")[own].astype(np.int64)
        yield from rows_of(key, block.time[own], np.ones(count, np.bool_), fields, windows)


def exported(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield what exported electricity would have emitted: GB/T 32150 lets it be deducted.

    It has a method of its own, so no sum over location-based or market-based emissions has it.
    """
    for point in meters(hours.site, EXPORT, ("", "main", "export")):
        column = hours.column(point)
        years = hours.site.context.local.years(column.time)
        for year in np.unique(years).tolist():
            chosen = hours.site.context.factors.choose("Electricity", year)
            if chosen is None or chosen.set.activity_unit != point.unit:
                continue
            own = years == year
            values = [
                float(Fraction(exact(kwh)) * chosen.factor.exact)
                for kwh in column.values[own].tolist()
            ]
            key = hours.site.key(
                "ce_emission",
                equipment_id=point.equipment,
                method="export",
                medium="Electricity",
                gas=chosen.set.gas,
                factor_id=chosen.id,
            )
            fields: Fields = {
                "co2e_kg": np.array(values, np.float64),
                "factor_value": np.full(len(values), float(chosen.factor.exact)),
                "factor_unit": [chosen.set.unit] * len(values),
                "factor_grade": [chosen.factor.grade] * len(values),
                "span_s": column.span_s[own],
            }
            yield from rows_of(
                key, column.time[own], np.ones(len(values), np.bool_), fields, column.window_s[own]
            )


def counted_points(site: Site) -> list[PlanPoint]:
    """Return the points whose activity counts in scope 1 or 2."""
    return [
        point
        for point in site.plan
        if counted_scope_of(point.measurand, point.role, point.aggregate)
    ]


def data_quality(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ce_quality`: how much of what counts was received, and how much of it is estimated."""
    points = counted_points(hours.site)
    if not points:
        return
    rises = [hours.rise(point) for point in points]
    coverage = np.mean([rise.coverage for rise in rises], axis=0)
    known = np.any([rise.known for rise in rises], axis=0)
    estimated = np.zeros(hours.count)
    received = np.zeros(hours.count)
    age = np.zeros(hours.count)
    for point in points:
        column = hours.column(point)
        place = hours.place(column.time)
        received += summed(place, column.span_s, hours.count)
        age = np.maximum(age, _age(hours, column))
        over_one = column.span_s > column.window_s
        estimated += summed(place, np.where(over_one, column.span_s, 0), hours.count)
    share = np.where(received > 0, estimated / np.where(received > 0, received, 1.0), np.nan)
    fields: Fields = {
        "coverage": coverage,
        "estimated_share": share,
        "freshness_s": age,
        # Rows are made of nothing but batches whose signature verified.
        "verified": np.ones(hours.count, np.int64),
        "quality": quality(coverage),
    }
    yield from rows_of(hours.site.key("ce_quality"), hours.starts, known, fields)


def _age(hours: Hours, column: Column) -> Floats:
    """Return, at the end of each hour, how many seconds a point's newest value of it is behind."""
    newest = np.zeros(hours.count, np.int64)
    np.maximum.at(newest, hours.place(column.time), column.time + column.window_s * SECOND)
    behind = (hours.starts + HOUR_NS - newest) / SECOND
    return np.clip(behind, 0.0, float(HOUR_S))


def power(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ff_power`: the highest power of each hour, and the mean where a counter tells it.

    Of what is released the nearest to the truth counts: maxima of slots, else their means, else
    last values; `method` says which.
    """
    released = {(one.equipment, one.aggregate): one for one in hours.site.plan if _is_power(one)}
    for equipment in hours.site.equipments:
        found = [(how, released.get((equipment, how))) for how in ("max", "mean", "last")]
        for method, point in found:
            if point is not None:
                yield from _power(hours, equipment, point, method)
                break


def _is_power(point: PlanPoint) -> bool:
    return point.measurand == POWER and not point.part


def _power(hours: Hours, equipment: str, point: PlanPoint, method: str) -> list[SeriesBlock]:
    column = hours.column(point)
    place = hours.place(column.time)
    highest = np.full(hours.count, -np.inf)
    np.maximum.at(highest, place, column.values)
    known = counted(place, hours.count) > 0
    points = hours.site.by_equipment[equipment]
    counter = points.get(IMPORT) or points.get(GENERATED)
    average = np.full(hours.count, np.nan)
    if counter is not None and counter.aggregate == "delta":
        rise = hours.rise(counter)
        # The rise of a whole hour in kWh is its mean power in kW.
        average = np.where(rise.complete, rise.values, np.nan)
    coverage = np.minimum(summed(place, column.window_s, hours.count) / HOUR_S, 1.0)
    fields: Fields = {
        "power_max_kw": np.where(known, highest, np.nan),
        "power_avg_kw": average,
        "method": [method] * hours.count,
        "coverage": coverage,
        "quality": quality(coverage),
    }
    key = hours.site.key("ff_power", equipment_id=equipment, medium="Electricity")
    return rows_of(key, hours.starts, known, fields)


def decimal_sum(values: Floats) -> Decimal:
    """Return the exact sum of the decimals that stored numbers stand for."""
    return sum((exact(value) for value in values.tolist()), Decimal(0))

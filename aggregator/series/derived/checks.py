"""`ff_check` and `ff_connectivity`: cross checks beside the data, never over it (多元校核).

Each check has a row per hour that it could be made in, with status OK or ANOMALY and the reason; so
what a late slot mends is mended here too.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from aggregator.localtime import HOUR_S
from aggregator.series.derived.energy import (
    EXPORT,
    IMPORT,
    POWER,
    balance_of,
    generation,
    meters,
    power_integral,
)
from aggregator.series.derived.findings import check_rows
from aggregator.series.derived.site import Hours, PlanPoint, counted, rows_of, summed
from aggregator.series.derived.tariff_registers import registers
from aggregator.series.future_factory import GENERATED, energy_medium
from aggregator.stores import FieldColumn, SeriesBlock
from protocols.frame import Flags

RESIDUAL = (-0.02, 0.15)
"""Of main - sum of sub-meters, as a part of main: recommended bounds, no standard's."""

CT_STEPS = (2.0, 20.0, 40.0, 60.0, 80.0)
_CT_WITHIN = 0.02
"""A counter that is near such a multiple of the power's integral, or such a part of it."""

PLAUSIBLE = 1.1
"""Energy of a slot is at most rated power x time x this."""


def checks(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ff_check`."""
    for measurand in sorted({one.measurand for one in hours.site.plan}):
        if energy_medium(measurand) and measurand != EXPORT:
            yield from _residual(hours, measurand)
    yield from _own_use(hours)
    for equipment, points in hours.site.by_equipment.items():
        counter = points.get(IMPORT) or points.get(GENERATED)
        if POWER in points and counter is not None:
            yield from _integral(hours, equipment, points[POWER], counter)
        yield from registers(hours, equipment, points)
        for point in points.values():
            yield from _rated(hours, equipment, point)
        if "production.total" in points:
            yield from _pieces(hours, equipment, points)


def _residual(hours: Hours, measurand: str) -> list[SeriesBlock]:
    found = balance_of(hours, measurand)
    if found is None:
        return []
    main, subs, usable = found
    ratio = np.where(main > 0, (main - subs) / np.where(main > 0, main, 1.0), 0.0)
    # Without supply nothing may be used: a residual of any size is one too much then.
    ratio = np.where((main <= 0) & (subs > 0), -1.0, ratio)
    low, high = RESIDUAL
    bad = (ratio < low) | (ratio > high)
    reason = f"main meter - sub-meters is outside {low:+.0%} to {high:+.0%} of the main meter"
    return check_rows(hours, f"balance:{measurand}", "", usable, bad, ratio, reason)


def _own_use(hours: Hours) -> list[SeriesBlock]:
    generated = generation(hours.site)
    fed = meters(hours.site, EXPORT, ("", "main", "export"))
    if not generated or not fed:
        return []
    made = [hours.rise(point) for point in generated]
    out = [hours.rise(point) for point in fed]
    usable = np.all([rise.complete for rise in (*made, *out)], axis=0)
    used = np.sum([rise.values for rise in made], axis=0) - np.sum(
        [rise.values for rise in out], axis=0
    )
    reason = "more is exported than PV generates"
    return check_rows(hours, "pv-self-use", "", usable, used < 0, used, reason)


def _integral(
    hours: Hours, equipment: str, power: PlanPoint, counter: PlanPoint
) -> list[SeriesBlock]:
    column, energy = power_integral(hours, power)
    inside = (column.time >= hours.start_ns) & ~np.isnan(energy)
    place = hours.place(column.time[inside])
    total = summed(place, energy[inside], hours.count)
    seconds = summed(place, column.window_s[inside], hours.count)
    rise = hours.rise(counter)
    usable = rise.complete & (seconds == HOUR_S) & (total > 0) & (rise.values > 0)
    ratio = np.where(usable, rise.values / np.where(usable, total, 1.0), 1.0)
    larger = np.maximum(ratio, 1.0 / ratio)
    near = np.any([np.abs(larger / step - 1.0) <= _CT_WITHIN for step in CT_STEPS], axis=0)
    reason = "counter and power differ by a factor like that of a wrong CT ratio"
    return check_rows(hours, "power-integral", equipment, usable, near, ratio, reason)


def _rated(hours: Hours, equipment: str, point: PlanPoint) -> list[SeriesBlock]:
    if point.measurand not in {IMPORT, GENERATED} or point.aggregate != "delta":
        return []
    rated = hours.fact("rated_power", equipment)
    if np.isnan(rated).all():
        return []
    column = hours.column(point)
    place = hours.place(column.time)
    most = rated[place] * (column.span_s / 3600.0) * PLAUSIBLE
    above = summed(place, column.values > most, hours.count) > 0
    largest = np.zeros(hours.count)
    np.maximum.at(largest, place, column.values / (column.span_s / 3600.0))
    made = (counted(place, hours.count) > 0) & ~np.isnan(rated)
    reason = f"more energy than rated power x time x {PLAUSIBLE}"
    return check_rows(hours, "plausibility", equipment, made, above, largest, reason)


def _pieces(hours: Hours, equipment: str, own: Mapping[str, PlanPoint]) -> list[SeriesBlock]:
    names = [name for name in ("production.good", "production.scrap") if name in own]
    total = hours.rise(own["production.total"])
    parts = [hours.rise(own[name]) for name in names]
    if not parts:
        return []
    usable = np.all([rise.complete for rise in (total, *parts)], axis=0)
    rest = total.values - np.sum([rise.values for rise in parts], axis=0)
    reason = "good + scrap is more than the total"
    return check_rows(hours, "pieces", equipment, usable, rest < 0, rest, reason)


def connectivity(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ff_connectivity`: equipment that releases anything, and how much of it was heard of."""
    equipments = hours.site.equipments
    if not equipments:
        return
    online = np.zeros(hours.count, np.int64)
    for equipment in equipments:
        online += _heard(hours, equipment)
    digital = hours.fact("digital_devices")
    fields: dict[str, FieldColumn] = {
        "devices_total": np.full(hours.count, len(equipments), np.int64),
        "devices_online": online,
        "digital_rate": np.where(digital > 0, online / np.where(digital > 0, digital, 1.0), np.nan),
    }
    yield from rows_of(hours.site.key("ff_connectivity"), hours.starts, online > 0, fields)


def _heard(hours: Hours, equipment: str) -> Flags:
    heard = np.zeros(hours.count, np.bool_)
    if equipment in hours.site.with_state:
        key = hours.site.key("ff_equipment_state", equipment_id=equipment, state_model="operating")
        block = hours.query("future_factory", key, ["coverage"])
        coverage = np.asarray(block.fields.get("coverage", np.zeros(len(block))), np.float64)
        heard[hours.place(block.time[coverage > 0])] = True
    for point in hours.site.by_equipment.get(equipment, {}).values():
        if heard.all():
            break
        heard[hours.place(hours.column(point).time)] = True
    return heard

"""Tariff registers of meters (T1 to T4) against the total and against our own calendar.

Which register is which period differs from meter to meter, so it is configuration; without it only
the sum is checked.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from aggregator.series.derived.findings import check_rows
from aggregator.series.derived.site import Hours, PlanPoint, Rise, summed
from aggregator.stores import SeriesBlock
from aggregator.tariffs import PERIODS, Tariff
from protocols.frame import Floats

TOTAL: Final = "energy.active_import"
REGISTERS: Final = {f"t{number}": f"{TOTAL}.t{number}" for number in range(1, 5)}

WITHIN: Final = 0.01
"""Part of the total that registers may differ by; a choice of ours."""


def registers(hours: Hours, equipment: str, points: Mapping[str, PlanPoint]) -> list[SeriesBlock]:
    """Return the checks of one meter; none where it has no tariff registers."""
    own = {
        register: hours.rise(points[name])
        for register, name in REGISTERS.items()
        if name in points and points[name].aggregate == "delta"
    }
    total = points.get(TOTAL)
    if len(own) < 2 or total is None or total.aggregate != "delta":
        return []
    rise = hours.rise(total)
    usable = np.all([one.complete for one in (rise, *own.values())], axis=0)
    # Rounding alone may differ by a step of each register.
    step = 10.0**total.exponent * (len(own) + 1)
    apart = np.abs(np.sum([one.values for one in own.values()], axis=0) - rise.values)
    bad = apart > WITHIN * rise.values + step
    reason = "tariff registers do not add up to the total"
    found = check_rows(hours, "tariff-sum", equipment, usable, bad, apart, reason)
    tariff, which = hours.site.context.tariff, hours.site.context.registers
    if tariff is not None and set(own) <= set(which):
        expected = _by_period(hours, total, tariff)
        wrong = _elsewhere(own, which, expected)
        bad = wrong > WITHIN * rise.values + step
        told = np.all([~np.isnan(column) for column in expected.values()], axis=0)
        reason = "the meter files energy under another tariff period than the calendar"
        found += check_rows(hours, "tariff-split", equipment, usable & told, bad, wrong, reason)
    return found


def _by_period(hours: Hours, total: PlanPoint, tariff: Tariff) -> dict[str, Floats]:
    """Return per hour the energy of each period after our calendar; NaN where it says nothing."""
    column = hours.column(total)
    codes = tariff.codes(column.time, column.window_s, column.span_s // column.window_s)
    place = hours.place(column.time)
    unknown = summed(place, codes >= len(PERIODS), hours.count) > 0
    return {
        name: np.where(
            unknown, np.nan, summed(place, np.where(codes == code, column.values, 0.0), hours.count)
        )
        for code, name in enumerate(PERIODS)
    }


def _elsewhere(
    own: Mapping[str, Rise], which: Mapping[str, str], expected: Mapping[str, Floats]
) -> Floats:
    """Return per hour the energy that the meter has in another period, kWh."""
    metered = {name: np.zeros_like(column) for name, column in expected.items()}
    for register, rise in own.items():
        metered[which[register]] = metered[which[register]] + rise.values
    apart = [np.abs(metered[name] - column) for name, column in expected.items()]
    total: Floats = np.sum(apart, axis=0) / 2
    return total

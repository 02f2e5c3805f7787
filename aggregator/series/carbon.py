"""Carbon series: `ce_activity` and `ce_emission`.

Emission = activity x factor (GHG Protocol; GB/T 32150): computed in whole numbers and rounded once,
to the nearest float64, never before summing. What has no factor for its unit has no emission,
not 0.
"""

from collections.abc import Iterator
from decimal import Decimal

import numpy as np

from aggregator.factors import Chosen, Factors
from aggregator.series.future_factory import value_rows
from aggregator.series.slots import ReleasedSlots
from aggregator.stores import FieldColumn, SeriesBlock
from protocols.frame import Flags, Floats, Ints
from protocols.vocabulary.measurands import MEASURANDS

BUCKET = "carbon_emission"
MEASUREMENTS = ("ce_activity", "ce_emission")

_PURCHASED = {"energy.active_import": "2"}
_COUNTED_ROLES = ("", "main")


def project(slots: ReleasedSlots, factors: Factors) -> Iterator[SeriesBlock]:
    """Yield the series blocks of released slots.

    Purchased electricity is scope 2. Sub-meters, self-use and export count nowhere here, since
    the main meter already has them.
    """
    for column, point in enumerate(slots.points):
        scope = _PURCHASED.get(point.measurand)
        if scope is not None and point.role in _COUNTED_ROLES and slots.has_value(column).any():
            medium = MEASURANDS[point.measurand].medium
            yield from _activity(slots, column, medium, scope)
            yield from _emissions(slots, column, medium, factors)


def _activity(slots: ReleasedSlots, column: int, medium: str, scope: str) -> Iterator[SeriesBlock]:
    found = value_rows(slots, column, "activity")
    if found is None:
        return
    starts, fields = found
    point = slots.points[column]
    fields["unit"] = [point.unit] * len(starts)
    key = slots.key(
        "ce_activity", point.equipment, medium=medium, scope=scope, source_id=point.equipment
    )
    yield SeriesBlock(key, starts, fields)


def _emissions(
    slots: ReleasedSlots, column: int, medium: str, factors: Factors
) -> Iterator[SeriesBlock]:
    found = value_rows(slots, column, "co2e_kg")
    if found is None:
        return
    starts, fields = found
    years = starts.astype("datetime64[ns]").astype("datetime64[Y]").astype(np.int64) + 1970
    for year in np.unique(years).tolist():
        chosen = factors.choose(medium, year)
        if chosen is not None and chosen.set.activity_unit == slots.points[column].unit:
            of_year = years == year
            kept = fields if of_year.all() else _chosen_rows(fields, of_year)
            mantissa = slots.block.mantissa[slots.has_value(column), column][of_year]
            yield _emission(slots, column, starts[of_year], mantissa, kept, chosen)


def _chosen_rows(fields: dict[str, FieldColumn], rows: Flags) -> dict[str, FieldColumn]:
    return {
        name: [item for item, take in zip(values, rows, strict=True) if take]
        if isinstance(values, list)
        else values[rows]
        for name, values in fields.items()
    }


def _emission(
    slots: ReleasedSlots,
    column: int,
    starts: Ints,
    mantissa: Ints,
    fields: dict[str, FieldColumn],
    chosen: Chosen,
) -> SeriesBlock:
    point = slots.points[column]
    kept: dict[str, FieldColumn] = {
        **fields,
        "co2e_kg": exact_product(mantissa, point.exponent, chosen.factor.value),
        "factor_value": np.full(len(mantissa), float(chosen.factor.value)),
        "factor_unit": [chosen.set.unit] * len(mantissa),
        "factor_grade": [chosen.factor.grade] * len(mantissa),
    }
    key = slots.key(
        "ce_emission",
        point.equipment,
        scope=str(chosen.set.scope),
        method=chosen.set.method,
        medium=chosen.set.medium,
        gas=chosen.set.gas,
        factor_id=chosen.id,
    )
    return SeriesBlock(key, starts, kept)


def exact_product(mantissa: Ints, exponent: int, factor: Decimal) -> Floats:
    """Return mantissa x 10**exponent x factor, each the nearest float64 to the exact product."""
    sign, digits, factor_exponent = factor.as_tuple()
    whole = int("".join(map(str, digits))) * (-1 if sign else 1)
    power = exponent + int(factor_exponent)
    largest = int(np.abs(mantissa).max(initial=0)) * abs(whole)
    if max(largest, abs(whole)) < 1 << 53 and -22 <= power <= 22:
        product = (mantissa * whole).astype(np.float64)
        return product / 10.0**-power if power < 0 else product * 10.0**power
    return np.array([_nearest(m * whole, power) for m in mantissa.tolist()], np.float64)


def _nearest(number: int, power: int) -> float:
    """Return the nearest float64 to number x 10**power; dividing whole numbers rounds once."""
    return number / 10**-power if power < 0 else float(number * 10**power)

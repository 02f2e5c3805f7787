"""Carbon series of one released point: `ce_activity` and `ce_emission`.

Emission = activity x factor (GHG Protocol; GB/T 32150): computed in whole numbers and rounded once,
to the nearest float64, never before summing. What has no factor for its unit has no emission,
not 0.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from aggregator.factors import Chosen, Factors
from aggregator.localtime import UTC, LocalTime
from aggregator.series.future_factory import medium_tags, value_rows
from aggregator.series.products import exact_product
from aggregator.series.slots import ReleasedSlots, chosen_rows, statistic
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey
from protocols.frame import Ints
from protocols.vocabulary.measurands import MEASURANDS

BUCKET = "carbon_emission"
MEASUREMENTS = ("ce_activity", "ce_emission", "ce_superseded")

_COUNTED_ROLES = ("", "main")


def counted_scope_of(measurand: str, role: str, what: str) -> int:
    """Return the scope that a point's activity counts in: 1 direct, 2 purchased, 0 none.

    `what` its values are is what `statistic` says.

    Sub-meters, own generation and export count nowhere, since the main meter already has them.
    """
    known = MEASURANDS.get(measurand)
    if known is None or role not in _COUNTED_ROLES or what != "delta":
        return 0
    return known.scope


def project(
    slots: ReleasedSlots, factors: Factors, local: LocalTime = UTC
) -> Iterator[SeriesBlock]:
    """Yield the series blocks of released slots; `local` tells which year a slot is in."""
    for column, point in enumerate(slots.points):
        scope = counted_scope_of(point.measurand, point.role, statistic(point))
        if scope and slots.has_value(column).any():
            yield from _activity(slots, column, scope)
            yield from emissions(slots, column, factors, local)


def _activity(slots: ReleasedSlots, column: int, scope: int) -> Iterator[SeriesBlock]:
    found = value_rows(slots, column, "activity")
    if found is None:
        return
    starts, fields = found
    point = slots.points[column]
    fields["unit"] = [point.unit] * len(starts)
    key = slots.key(
        "ce_activity",
        point.equipment,
        scope=str(scope),
        source_id=point.equipment,
        **medium_tags(point.measurand),
    )
    yield SeriesBlock(key, starts, fields)


def emissions(
    slots: ReleasedSlots, column: int, factors: Factors, local: LocalTime
) -> Iterator[SeriesBlock]:
    """Yield the emissions of a point that is counted."""
    found = value_rows(slots, column, "co2e_kg")
    if found is None:
        return
    starts, fields = found
    point = slots.points[column]
    medium = MEASURANDS[point.measurand].medium
    plain = slots.plain[column]
    mantissa = slots.block.mantissa[:, column]
    mantissa = mantissa if plain else mantissa[slots.has_value(column)]
    for year, rows in local.by_year(starts):
        chosen = factors.choose(medium, year)
        if chosen is not None and chosen.set.activity_unit == point.unit:
            if rows is None:
                yield _emission(slots, column, starts, mantissa, fields, chosen)
            else:
                kept = chosen_rows(fields, rows)
                yield _emission(slots, column, starts[rows], mantissa[rows], kept, chosen)


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
        "co2e_kg": exact_product(mantissa, point.exponent, chosen.factor.exact),
        "factor_value": np.full(len(mantissa), float(chosen.factor.exact)),
        "factor_unit": [chosen.set.unit] * len(mantissa),
        "factor_grade": [chosen.factor.grade] * len(mantissa),
    }
    key = slots.key(
        "ce_emission",
        point.equipment,
        scope=str(chosen.set.scope),
        method=chosen.set.method,
        gas=chosen.set.gas,
        factor_id=chosen.id,
        **medium_tags(point.measurand),
    )
    return SeriesBlock(key, starts, kept)


def superseded(
    slots: ReleasedSlots,
    factors: Factors,
    local: LocalTime,
    revision: int,
    now: Sequence[SeriesBlock],
) -> Iterator[SeriesBlock]:
    """Yield what other factors gave: `ce_superseded`, never part of a sum over `ce_emission`.

    Args:
        factors: those of a revision that has been replaced.
        revision: its number, from 1.
        now: the emissions of these slots under today's factors; what is the same is left out.
    """
    current = {
        (block.key, _factor(block)) for block in now if block.key.measurement == "ce_emission"
    }
    for column, point in enumerate(slots.points):
        if counted_scope_of(point.measurand, point.role, statistic(point)):
            for block in emissions(slots, column, factors, local):
                if (block.key, _factor(block)) not in current:
                    tags = {**dict(block.key.tags), "revision": str(revision)}
                    key = SeriesKey.of("ce_superseded", tags)
                    yield SeriesBlock(key, block.time, block.fields)


def _factor(block: SeriesBlock) -> float:
    return float(block.fields["factor_value"][0])

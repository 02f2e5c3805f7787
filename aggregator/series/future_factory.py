"""Future-factory series: `ff_energy`, `ff_equipment_state`, `ff_reading`.

Pure functions of released slots. Rows are stamped with the start of their window.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from aggregator.series.products import exact_product
from aggregator.series.slots import (
    QUALITY_GOOD,
    QUALITY_PARTIAL,
    ReleasedSlots,
    chosen_rows,
    statistic,
    statistic_tag,
    to_float,
    value_quality,
)
from aggregator.stores import FieldColumn, SeriesBlock
from aggregator.tariffs import NAMES, Tariff
from protocols.batch import NO_VALUE
from protocols.frame import Ints
from protocols.vocabulary.measurands import MEASURANDS, Kind
from protocols.vocabulary.states import OperatingState
from security.policy.compiled import STATE_PARTS, SheetPoint

BUCKET = "future_factory"
MEASUREMENTS = ("ff_energy", "ff_equipment_state", "ff_reading", "ff_refused")


GENERATED = "energy.generated"

_FIELDS = {
    "run": "run_s",
    "setup": "setup_s",
    "idle": "idle_s",
    "starved_blocked": "starved_s",
    "held": "held_s",
    "fault": "fault_s",
    "planned_down": "planned_down_s",
    "off": "off_s",
}
_STATE_NAMES = [state.name for state in sorted(OperatingState)]


@dataclass(frozen=True)
class EnergyTerms:
    """What energy rows need besides the slots.

    Attributes:
        coal: tonnes of standard coal per unit, by (medium, unit).
        tariff: periods of electricity; None where none is configured.
    """

    coal: Mapping[tuple[str, str], Fraction] = field(default_factory=dict)
    tariff: Tariff | None = None


NO_TERMS = EnergyTerms()


def project(slots: ReleasedSlots, terms: EnergyTerms = NO_TERMS) -> Iterator[SeriesBlock]:
    """Yield the series blocks of released slots."""
    for column, point in enumerate(slots.points):
        if point.aggregate != "state":
            yield from _reading(slots, column)
            if statistic(point) == "delta" and energy_medium(point.measurand):
                yield from _energy(slots, column, terms)
        elif point.part == "end":
            yield from _state(slots, column)


def energy_medium(measurand: str) -> str:
    """Return the medium that a measurand counts as energy of; empty for none."""
    known = MEASURANDS.get(measurand)
    return known.medium if known is not None and known.kind is Kind.COUNTER else ""


def medium_tags(measurand: str) -> dict[str, str]:
    """Return the tags that tell what is metered.

    Two quantities of one medium (gas at line and at normal conditions, steam by mass and by heat)
    must not meet in one series; electricity has one, and its series keep their old name.
    """
    medium = energy_medium(measurand)
    plain = medium == "Electricity" and measurand != GENERATED
    return {"medium": medium, "measurand": "" if plain else measurand}


def _reading(slots: ReleasedSlots, column: int) -> Iterator[SeriesBlock]:
    """A released point as it is."""
    found = value_rows(slots, column, "value")
    if found is not None:
        point = slots.points[column]
        key = slots.key(
            "ff_reading",
            point.equipment,
            measurand=point.measurand,
            statistic=statistic_tag(statistic(point)),
        )
        yield SeriesBlock(key, *found)


def _energy(slots: ReleasedSlots, column: int, terms: EnergyTerms) -> Iterator[SeriesBlock]:
    """Energy of a medium per window, in the measurand's unit (kWh for electricity)."""
    found = value_rows(slots, column, "energy")
    if found is None:
        return
    starts, fields = found
    point = slots.points[column]
    mantissa = slots.block.mantissa[:, column]
    mantissa = mantissa if slots.plain[column] else mantissa[slots.has_value(column)]
    tags = medium_tags(point.measurand)
    coal = terms.coal.get((tags["medium"], point.unit))
    if coal is not None:
        fields["energy_tce"] = exact_product(mantissa, point.exponent, coal)
    if point.unit == "kWh":
        hours = np.asarray(fields["span_s"]) / 3600.0
        fields["power_avg_kw"] = np.asarray(fields["energy"]) / hours
    fields["method"] = ["counter"] * len(starts)
    tags["meter_role"] = meter_role(point)
    if terms.tariff is None or tags["medium"] != "Electricity":
        yield SeriesBlock(slots.key("ff_energy", point.equipment, **tags), starts, fields)
        return
    spans = np.asarray(fields["span_s"], np.int64) // slots.window_s
    codes = terms.tariff.codes(starts, slots.window_s, spans)
    for code in np.unique(codes).tolist():
        own = codes == code
        key = slots.key("ff_energy", point.equipment, tariff=NAMES[code], **tags)
        yield SeriesBlock(key, starts[own], chosen_rows(fields, own))


def meter_role(point: SheetPoint) -> str:
    """Return the role that a meter's energy is filed under."""
    if point.measurand == GENERATED:
        return "pv"
    return "export" if point.measurand.endswith("_export") else point.role or "main"


def value_rows(
    slots: ReleasedSlots, column: int, name: str
) -> tuple[Ints, dict[str, FieldColumn]] | None:
    """Return times and fields of a column's rows that have a value, its values under `name`.

    None where no row has one.
    """
    if slots.plain[column]:
        return slots.starts, {name: slots.values(column), **slots.plain_fields}
    rows = slots.has_value(column)
    if not rows.any():
        return None
    spans = slots.spans[rows, column]
    return slots.starts[rows], {
        name: slots.values(column)[rows],
        "window_s": np.full(len(spans), slots.window_s, np.int64),
        "span_s": spans * slots.window_s,
        "quality": value_quality(slots, column, spans, rows),
    }


def _state(slots: ReleasedSlots, column: int) -> Iterator[SeriesBlock]:
    """Seconds per operating state (they add up to the window) and the state at its end.

    Where a part of the state did not come along nothing can be said.
    """
    point, block = slots.points[column], slots.block
    found = [slots.parts.get((point.equipment, part)) for part in STATE_PARTS[1:]]
    columns = [at for at in found if at is not None]
    if len(columns) < len(found):
        return
    exponent = slots.points[columns[0]].exponent
    mantissa = block.mantissa[:, columns]
    window = slots.window_s * 10**-exponent if exponent < 0 else slots.window_s
    unknown = window - mantissa.sum(axis=1)
    ends = np.where(block.quality[:, column] == NO_VALUE, 0, block.mantissa[:, column])
    fields: dict[str, FieldColumn] = {
        _FIELDS[part]: to_float(mantissa[:, at], exponent)
        for at, part in enumerate(STATE_PARTS[1:])
    }
    fields["unknown_s"] = to_float(unknown, exponent)
    fields["state_code"] = ends
    fields["state"] = [_STATE_NAMES[code] for code in ends.tolist()]
    fields["coverage"] = 1.0 - to_float(unknown, exponent) / slots.window_s
    fields["window_s"] = np.full(block.rows, slots.window_s, np.int64)
    fields["quality"] = [QUALITY_PARTIAL if rest else QUALITY_GOOD for rest in unknown.tolist()]
    key = slots.key("ff_equipment_state", point.equipment, state_model="operating")
    yield SeriesBlock(key, slots.starts, fields)

"""Future-factory series: `ff_energy`, `ff_equipment_state`, `ff_reading`.

Pure functions of released slots. Rows are stamped with the start of their window.
"""

from collections.abc import Iterator

import numpy as np

from aggregator.series.slots import (
    QUALITY_GOOD,
    QUALITY_PARTIAL,
    ReleasedSlots,
    to_float,
    value_quality,
)
from aggregator.stores import FieldColumn, SeriesBlock
from protocols.batch import NO_VALUE
from protocols.frame import Ints
from protocols.vocabulary.measurands import MEASURANDS, Kind
from protocols.vocabulary.states import OperatingState
from security.policy.compiled import STATE_PARTS

BUCKET = "future_factory"
MEASUREMENTS = ("ff_energy", "ff_equipment_state", "ff_reading")

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


def project(slots: ReleasedSlots) -> Iterator[SeriesBlock]:
    """Yield the series blocks of released slots."""
    for column, point in enumerate(slots.points):
        if point.aggregate != "state":
            yield from _reading(slots, column)
            medium = energy_medium(point.measurand)
            if medium:
                yield from _energy(slots, column, medium)
        elif point.part == "end":
            yield from _state(slots, column)


def energy_medium(measurand: str) -> str:
    """Return the medium that a measurand counts as energy of; empty for none."""
    known = MEASURANDS.get(measurand)
    return known.medium if known is not None and known.kind is Kind.COUNTER else ""


def _reading(slots: ReleasedSlots, column: int) -> Iterator[SeriesBlock]:
    """A released point as it is."""
    found = value_rows(slots, column, "value")
    if found is not None:
        point = slots.points[column]
        key = slots.key("ff_reading", point.equipment, measurand=point.measurand)
        yield SeriesBlock(key, *found)


def _energy(slots: ReleasedSlots, column: int, medium: str) -> Iterator[SeriesBlock]:
    """Energy of a medium per window, in the measurand's unit (kWh for electricity)."""
    found = value_rows(slots, column, "energy")
    if found is None:
        return
    point = slots.points[column]
    role = point.role or "main"
    if point.measurand.endswith("_export"):
        role = "export"
    key = slots.key("ff_energy", point.equipment, medium=medium, meter_role=role)
    yield SeriesBlock(key, *found)


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

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


def project(slots: ReleasedSlots) -> Iterator[SeriesBlock]:
    """Yield the series blocks of released slots."""
    for column, point in enumerate(slots.points):
        if point.aggregate != "state":
            yield from _reading(slots, column)
            medium = _energy_medium(point.measurand)
            if medium:
                yield from _energy(slots, column, medium)
        elif point.part == "end":
            yield _state(slots, column)


def _energy_medium(measurand: str) -> str:
    known = MEASURANDS.get(measurand)
    return known.medium if known is not None and known.kind is Kind.COUNTER else ""


def _reading(slots: ReleasedSlots, column: int) -> Iterator[SeriesBlock]:
    """A released point as it is."""
    rows = slots.has_value(column)
    if not rows.any():
        return
    point = slots.points[column]
    key = slots.key("ff_reading", point.equipment, measurand=point.measurand)
    yield SeriesBlock(key, slots.starts[rows], value_fields(slots, column, "value"))


def _energy(slots: ReleasedSlots, column: int, medium: str) -> Iterator[SeriesBlock]:
    """Energy of a medium per window, in the measurand's unit (kWh for electricity)."""
    rows = slots.has_value(column)
    if not rows.any():
        return
    point = slots.points[column]
    role = point.role or "main"
    if point.measurand.endswith("_export"):
        role = "export"
    key = slots.key("ff_energy", point.equipment, medium=medium, meter_role=role)
    yield SeriesBlock(key, slots.starts[rows], value_fields(slots, column, "energy"))


def value_fields(slots: ReleasedSlots, column: int, name: str) -> dict[str, FieldColumn]:
    """Return the fields of a column's rows that have a value, its values under `name`."""
    rows = slots.has_value(column)
    spans = slots.block.span_matrix()[rows, column]
    return {
        name: slots.values(column)[rows],
        "window_s": np.full(len(spans), slots.window_s, np.int64),
        "span_s": spans * slots.window_s,
        "quality": value_quality(slots, column, spans, rows),
    }


def _state(slots: ReleasedSlots, column: int) -> SeriesBlock:
    """Seconds per operating state (they add up to the window) and the state at its end."""
    point, block = slots.points[column], slots.block
    parts = {
        p.part: at for at, p in enumerate(slots.points) if p.equipment == point.equipment and p.part
    }
    columns = [parts[part] for part in STATE_PARTS[1:]]
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
    fields["state"] = [OperatingState(code).name for code in ends.tolist()]
    fields["coverage"] = 1.0 - to_float(unknown, exponent) / slots.window_s
    fields["window_s"] = np.full(block.rows, slots.window_s, np.int64)
    fields["quality"] = [QUALITY_PARTIAL if rest else QUALITY_GOOD for rest in unknown.tolist()]
    key = slots.key("ff_equipment_state", point.equipment, state_model="operating")
    return SeriesBlock(key, slots.starts, fields)

"""`ff_production`, `ff_quality`, `ff_oee`: per equipment and hour, KPIs after ISO 22400-2."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from aggregator.localtime import HOUR_S
from aggregator.series.derived.site import (
    Column,
    Hours,
    PlanPoint,
    Rise,
    counted,
    floats,
    quality,
    rows_of,
    summed,
)
from aggregator.stores import FieldColumn, SeriesBlock
from protocols.frame import Floats, Ints
from protocols.vocabulary import kpi
from protocols.vocabulary.states import TIME_ELEMENTS, TimeElement

_QUANTITIES = {
    "production.total": "qty_total",
    "production.good": "qty_good",
    "production.scrap": "qty_scrap",
    "production.rework": "qty_rework",
}
_SUFFIXES = {"pcs": "", "kg": ".mass", "m": ".length"}
_STATE_FIELDS = {
    "run_s": "RUN",
    "setup_s": "SETUP",
    "idle_s": "IDLE",
    "starved_s": "STARVED_BLOCKED",
    "held_s": "HELD",
    "fault_s": "FAULT",
    "planned_down_s": "PLANNED_DOWN",
    "off_s": "OFF",
}
_ELEMENT_OF = {state.name: element for state, element in TIME_ELEMENTS.items()}


def production(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ff_production` and `ff_quality`."""
    for equipment, points in hours.site.by_equipment.items():
        for unit in _SUFFIXES:
            yield from _quantities(hours, equipment, unit, points)
        yield from _quality(hours, equipment, points)


def _rises(
    hours: Hours, points: Mapping[str, PlanPoint], names: Mapping[str, str]
) -> dict[str, Rise]:
    return {
        field: hours.rise(points[name])
        for name, field in names.items()
        if name in points and points[name].aggregate == "delta"
    }


def _quantities(
    hours: Hours, equipment: str, unit: str, points: Mapping[str, PlanPoint]
) -> list[SeriesBlock]:
    names = {name + _SUFFIXES[unit]: field for name, field in _QUANTITIES.items()}
    if unit == "pcs":
        names["machine.cycles"] = "cycles"
    rises = _rises(hours, points, names)
    if not rises or set(rises) == {"cycles"}:
        return []
    return _rows(hours, "ff_production", {"equipment_id": equipment, "unit": unit}, rises, {})


def _rows(
    hours: Hours,
    measurement: str,
    tags: Mapping[str, str],
    rises: Mapping[str, Rise],
    more: Mapping[str, Floats],
) -> list[SeriesBlock]:
    parts = tuple(rises.values())
    coverage = np.min([rise.coverage for rise in parts], axis=0)
    known = np.any([rise.known for rise in parts], axis=0)
    fields: dict[str, FieldColumn] = {field: rise.or_nan() for field, rise in rises.items()}
    fields |= more
    fields["coverage"] = coverage
    fields["quality"] = quality(coverage, *parts)
    return rows_of(hours.site.key(measurement, **tags), hours.starts, known, fields)


def _quality(hours: Hours, equipment: str, points: Mapping[str, PlanPoint]) -> list[SeriesBlock]:
    rises = _rises(
        hours, points, {"production.inspected": "inspected", "production.passed": "passed"}
    )
    ratios = _rises(hours, points, {"production.total": "total", "production.scrap": "scrap"})
    more: dict[str, Floats] = {}
    if len(rises) == 2:
        more["fpy"] = kpi.first_pass_yield(rises["passed"].or_nan(), rises["inspected"].or_nan())
    if len(ratios) == 2:
        more["scrap_ratio"] = kpi.scrap_ratio(ratios["scrap"].or_nan(), ratios["total"].or_nan())
    if not more:
        return []
    made = _rows(hours, "ff_quality", {"equipment_id": equipment}, {**rises, **ratios}, more)
    return [_without(block, {"total", "scrap"}) for block in made]


def _without(block: SeriesBlock, names: set[str]) -> SeriesBlock:
    fields = {name: column for name, column in block.fields.items() if name not in names}
    return SeriesBlock(block.key, block.time, fields)


@dataclass(frozen=True, slots=True)
class _Times:
    """Seconds per time element and hour, within planned busy time where that is known.

    Attributes:
        known_s: of which the state is known.
        rows: how many slots of the state there are.
        edges_s, up_to_s: known seconds before a moment, at the edges of slots, seconds from the first hour.
    """

    elements: Mapping[TimeElement, Floats]
    known_s: Floats
    planned_s: Floats
    rows: Ints
    edges_s: Floats
    up_to_s: Floats

    def between(self, start_s: Floats, end_s: Floats) -> Floats:
        """Return how much of spans is known and planned, seconds, shape as given."""
        first, last = (np.interp(at, self.edges_s, self.up_to_s) for at in (start_s, end_s))
        return np.asarray(last - first, np.float64)


def oee(hours: Hours) -> Iterator[SeriesBlock]:
    """Yield `ff_oee`: where the calendar or the cycle time is not known, what needs it is absent."""
    for equipment in hours.site.with_state:
        times = _times(hours, equipment)
        if times is not None:
            yield from _oee(hours, equipment, times)


def _planned_s(hours: Hours, starts: Ints, windows_s: Ints) -> Floats:
    """Return the planned seconds of windows; all of them where no calendar says otherwise."""
    planned = windows_s.astype(np.float64)
    calendar = hours.site.calendar
    if calendar is not None:
        for window_s in np.unique(windows_s).tolist():
            own = windows_s == window_s
            planned[own] = calendar.planned_s(starts[own], window_s)
    return planned


def _times(hours: Hours, equipment: str) -> _Times | None:
    key = hours.site.key("ff_equipment_state", equipment_id=equipment, state_model="operating")
    block = hours.query("future_factory", key, [*_STATE_FIELDS, "unknown_s", "window_s"])
    if not len(block):
        return None
    place = hours.place(block.time)
    windows = floats(block, "window_s").astype(np.int64)
    share = _planned_s(hours, block.time, windows) / windows

    def total(values: Floats) -> Floats:
        return summed(place, values * share, hours.count)

    elements = {element: np.zeros(hours.count) for element in TimeElement}
    for field, state in _STATE_FIELDS.items():
        elements[_ELEMENT_OF[state]] += total(floats(block, field))
    told = windows - floats(block, "unknown_s")
    starts_s = hours.seconds(block.time)
    after = np.cumsum(told * share)
    return _Times(
        elements,
        total(told),
        _planned_s(hours, hours.starts, np.full(hours.count, HOUR_S)),
        counted(place, hours.count),
        np.stack([starts_s, starts_s + windows], axis=1).ravel(),
        np.stack([after - told * share, after], axis=1).ravel(),
    )


def _oee(hours: Hours, equipment: str, times: _Times) -> list[SeriesBlock]:
    site = hours.site
    of = times.elements
    apt, aust, adet = of[TimeElement.PRODUCTION], of[TimeElement.SETUP], of[TimeElement.DELAY]
    # Without a calendar nobody knows what was planned. Unknown time is neither up nor down.
    pbt = (
        np.full(hours.count, np.nan)
        if site.calendar is None
        else times.known_s - of[TimeElement.PLANNED_DOWN] - of[TimeElement.OFF]
    )
    aupt = apt + aust
    aubt = aupt + adet
    points = site.by_equipment.get(equipment, {})
    made = _made(hours, points, times)
    pru = hours.fact("ideal_cycle_time", equipment)
    total, good = made.get("production.total"), made.get("production.good")
    none = np.full(hours.count, np.nan)
    pq, gq = none if total is None else total[0], none if good is None else good[0]
    parts = [column[1] for column in made.values()]
    coverage = np.min([kpi.ratio(times.known_s, times.planned_s), *parts], axis=0)
    coverage = np.clip(np.where(np.isnan(coverage), 0.0, coverage), 0.0, 1.0)
    fields: dict[str, FieldColumn] = {
        "apt_s": apt,
        "aupt_s": aupt,
        "pbt_s": pbt,
        # What ratios of longer spans are made of: a mean of ratios would not be one.
        "qty_total": pq,
        "qty_good": gq,
        "net_s": pru * pq,
        "valuable_s": pru * gq,
        "availability": kpi.availability(apt, pbt),
        "performance": kpi.effectiveness(pru, pq, apt),
        "quality_ratio": kpi.quality_ratio(gq, pq),
        "oee": kpi.oee(gq, pru, pbt),
        "nee": kpi.nee(aupt, apt, gq, pru, pbt),
        "utilization_eff": kpi.utilization_efficiency(apt, aubt),
        "allocation_eff": kpi.allocation_efficiency(aubt, pbt),
        "technical_eff": kpi.technical_efficiency(apt, adet),
        "coverage": coverage,
        "quality": quality(coverage),
    }
    version = "" if site.calendar is None else site.calendar.version
    key = site.key("ff_oee", equipment_id=equipment, calendar_ver=version)
    return rows_of(key, hours.starts, (times.rows > 0) & (times.planned_s > 0), fields)


def _made(
    hours: Hours, points: Mapping[str, PlanPoint], times: _Times
) -> dict[str, tuple[Floats, Floats]]:
    """Return per hour what was made in known planned time, and its coverage, by measurand."""
    found = {}
    for name in ("production.total", "production.good"):
        if name in points and points[name].aggregate == "delta":
            found[name] = _in_plan(hours, hours.column(points[name]), times)
    return found


def _in_plan(hours: Hours, column: Column, times: _Times) -> tuple[Floats, Floats]:
    place = hours.place(column.time)
    # What a machine makes outside its planned time, or while nobody knows its state, belongs to no
    # ratio over that time; nor what a counter made before the hour and tells now, after a gap.
    ends_s = hours.seconds(column.time) + column.window_s
    begins_s = np.maximum(ends_s - column.span_s, hours.seconds(hours.starts[place]))
    part = times.between(begins_s, ends_s) / column.span_s
    pieces = summed(place, column.values * part, hours.count)
    share = _planned_s(hours, column.time, column.window_s) / column.window_s
    received = summed(place, (ends_s - begins_s) * share, hours.count)
    known = counted(place, hours.count) > 0
    return np.where(known, pieces, np.nan), np.nan_to_num(kpi.ratio(received, times.planned_s))

"""What a site releases, and what people said of it: everything derived series are made of."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property

import numpy as np

from aggregator.calendars import Calendar
from aggregator.carbon_codes import CodeProfile
from aggregator.factors import Factors
from aggregator.facts import SiteFacts
from aggregator.localtime import HOUR_S, LocalTime
from aggregator.series.slots import (
    QUALITY_ESTIMATED,
    QUALITY_GOOD,
    QUALITY_PARTIAL,
    statistic,
    statistic_tag,
)
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey, Store
from aggregator.tariffs import Tariff
from protocols.frame import SECOND, Flags, Floats, Ints
from security.policy.compiled import SheetPoint

HOUR_NS = HOUR_S * SECOND
_MOST_ROWS = 4_000_000


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """One released point of a site, as its sheets together say.

    Attributes:
        aggregate: what its values are, as `statistic` says.
        exponent: values are whole multiples of 10**exponent.
        longest_s: its longest slot in seconds; each row says how long its own is.
    """

    equipment: str
    measurand: str
    part: str
    unit: str
    role: str
    aggregate: str
    exponent: int
    longest_s: int


def plan_of(lines: Iterable[tuple[SheetPoint, int]]) -> tuple[PlanPoint, ...]:
    """Return the points of all sheets of a site, each once; later lines win.

    Args:
        lines: sheet lines with their slot lengths in seconds, oldest sheet first.
    """
    found: dict[tuple[str, str, str, str], PlanPoint] = {}
    for line, window_s in lines:
        place = (line.equipment, line.measurand, line.part, statistic(line))
        before = found.get(place)
        exponent = min(line.exponent, before.exponent) if before else line.exponent
        longest_s = max(window_s, before.longest_s) if before else window_s
        found[place] = PlanPoint(
            line.equipment,
            line.measurand,
            line.part,
            line.unit,
            line.role,
            statistic(line),
            exponent,
            longest_s,
        )
    return tuple(found[place] for place in sorted(found))


@dataclass(frozen=True, slots=True)
class Context:
    """What holds for all sites.

    Attributes:
        tariff: periods of electricity; None where none is configured.
        registers: which period a tariff register of a meter is, such as t1 -> sharp.
    """

    local: LocalTime
    factors: Factors
    profile: CodeProfile
    tariff: Tariff | None = None
    registers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Site:
    """One site.

    Attributes:
        plan: what it releases.
        facts: what people entered.
        calendar: its planned busy time; None where it told none.
    """

    enterprise: str
    site: str
    plan: tuple[PlanPoint, ...]
    facts: SiteFacts
    calendar: Calendar | None
    context: Context

    def key(self, measurement: str, **tags: str) -> SeriesKey:
        """Return the key of a series of this site; empty tags are left out."""
        own = {"enterprise_id": self.enterprise, "site_id": self.site}
        return SeriesKey.of(measurement, {**own, **tags})

    @cached_property
    def by_equipment(self) -> Mapping[str, Mapping[str, PlanPoint]]:
        """Points that are no state, by equipment and measurand; the plain statistic wins."""
        found: dict[str, dict[str, PlanPoint]] = {}
        for point in self.plan:
            own = found.setdefault(point.equipment, {})
            plain = point.aggregate in {"last", "delta"}
            if not point.part and (plain or point.measurand not in own):
                own[point.measurand] = point
        return found

    @cached_property
    def with_state(self) -> Sequence[str]:
        """The equipment whose state is released."""
        return [one.equipment for one in self.plan if one.part == "end"]

    @property
    def equipments(self) -> list[str]:
        """All equipment that releases anything."""
        return sorted({point.equipment for point in self.plan})


@dataclass(frozen=True, slots=True)
class Column:
    """Rows of one point, each with its window's start (ns) and length, and how long its value counts for."""

    time: Ints
    values: Floats
    span_s: Ints
    window_s: Ints
    exponent: int

    def __len__(self) -> int:
        return len(self.time)


class Hours:
    """Hours of one site, and the rows of its points in them.

    Args:
        start_ns, end_ns: whole UTC hours.
    """

    def __init__(self, site: Site, stores: Mapping[str, Store], start_ns: int, end_ns: int) -> None:
        self.site = site
        self.start_ns, self.end_ns = start_ns, end_ns
        self.count = (end_ns - start_ns) // HOUR_NS
        self.starts = start_ns + np.arange(self.count) * HOUR_NS
        self._stores = stores
        self._columns: dict[tuple[PlanPoint, int], Column] = {}

    def days(self) -> list[date]:
        """Return the local day of each hour's start."""
        seconds = self.site.context.local.seconds(self.starts)
        days = (seconds // 86_400).astype("datetime64[D]")
        return list(days.astype(object))

    def fact(self, name: str, equipment: str = "") -> Floats:
        """Return a fact's value in each hour; NaN where it is not known."""
        values = [self.site.facts.on(name, day, equipment) for day in self.days()]
        return np.array([np.nan if v is None else float(v) for v in values], np.float64)

    def query(
        self, bucket: str, key: SeriesKey, fields: list[str], lead_ns: int = 0
    ) -> SeriesBlock:
        """Return a series' rows in these hours, and `lead_ns` before them."""
        store = self._stores[bucket]
        return store.query(key, fields, self.start_ns - lead_ns, self.end_ns, limit=_MOST_ROWS)

    def column(self, point: PlanPoint, lead_ns: int = 0) -> Column:
        """Return the rows of a point that has values of its own."""
        known = self._columns.get((point, lead_ns))
        if known is None:
            key = self.site.key(
                "ff_reading",
                equipment_id=point.equipment,
                measurand=point.measurand,
                statistic=statistic_tag(point.aggregate),
            )
            block = self.query("future_factory", key, ["value", "span_s", "window_s"], lead_ns)
            known = Column(
                block.time,
                floats(block, "value"),
                floats(block, "span_s").astype(np.int64),
                floats(block, "window_s").astype(np.int64),
                point.exponent,
            )
            self._columns[point, lead_ns] = known
        return known

    def place(self, time: Ints) -> Ints:
        """Return the position of the hour of each time."""
        hours: Ints = (time - self.start_ns) // HOUR_NS
        return hours

    def seconds(self, time: Ints) -> Floats:
        """Return times as seconds from the first hour on."""
        return (time - self.start_ns) / SECOND

    def total(self, place: Ints, values: Floats, exponent: int) -> Floats:
        """Return per hour the exact sum of values that are multiples of 10**exponent."""
        scale = 10.0 ** abs(exponent)
        whole = np.rint(values * scale if exponent < 0 else values / scale).astype(np.int64)
        sums = np.zeros(self.count, np.int64)
        np.add.at(sums, place, whole)
        wide = sums.astype(np.float64)
        return wide / scale if exponent < 0 else wide * scale

    def rise(self, point: PlanPoint) -> "Rise":
        """Return per hour what a counter rose by."""
        column = self.column(point)
        place = self.place(column.time)
        covered = summed(place, column.span_s, self.count)
        rows = counted(place, self.count)
        begins = column.time + (column.window_s - column.span_s) * SECOND
        outside = summed(place, begins < self.starts[place], self.count) > 0
        return Rise(
            self.total(place, column.values, column.exponent),
            np.minimum(covered, HOUR_S) / HOUR_S,
            rows > 0,
            outside,
            (covered == HOUR_S) & ~outside,
        )


@dataclass(frozen=True, slots=True)
class Rise:
    """What a counter rose by, hour by hour.

    Attributes:
        values: the sum; 0 where `known` is False.
        coverage: part of the hour for which it was received, 0 to 1.
        known: any value came.
        outside: a value counts from before the hour on.
        complete: values count for exactly this hour.
    """

    values: Floats
    coverage: Floats
    known: Flags
    outside: Flags
    complete: Flags

    def or_nan(self) -> Floats:
        """Return the sum, NaN where nothing came."""
        return np.where(self.known, self.values, np.nan)


def summed(place: Ints, values: Floats | Ints | Flags, count: int) -> Floats:
    """Return the sum of values at each of `count` places, shape (count,)."""
    return np.bincount(place, np.asarray(values, np.float64), count).astype(np.float64)


def counted(place: Ints, count: int) -> Ints:
    """Return how many rows are at each of `count` places, shape (count,)."""
    return np.bincount(place, minlength=count).astype(np.int64)


def floats(block: SeriesBlock, name: str) -> Floats:
    """Return a numeric field as floats; NaN where it is absent."""
    column = block.fields.get(name)
    if column is None or isinstance(column, list):
        return np.full(len(block), np.nan)
    return np.asarray(column, np.float64)


def rows_of(
    key: SeriesKey,
    time: Ints,
    keep: Flags,
    fields: Mapping[str, FieldColumn],
    window_s: int | Ints = HOUR_S,
) -> list[SeriesBlock]:
    """Return a block of the rows to keep, with the fields that all measurements have.

    Args:
        window_s: of all rows, or shape (n,).
    """
    if not keep.any():
        return []
    kept: dict[str, FieldColumn] = {
        name: [text for text, take in zip(column, keep, strict=True) if take]
        if isinstance(column, list)
        else column[keep]
        for name, column in fields.items()
    }
    kept["window_s"] = np.broadcast_to(np.asarray(window_s, np.int64), time.shape)[keep]
    return [SeriesBlock(key, time[keep], kept)]


def quality(coverage: Floats, *rises: Rise) -> list[str]:
    """Return the quality that goes with a coverage; a rise that has more than its hour is ESTIMATED."""
    found = [QUALITY_GOOD if part >= 1.0 else QUALITY_PARTIAL for part in coverage.tolist()]
    for rise in rises:
        for at in np.flatnonzero(rise.outside).tolist():
            found[at] = QUALITY_ESTIMATED
    return found


def exact(value: float) -> Decimal:
    """Return the decimal that a stored number stands for."""
    return Decimal(repr(value))

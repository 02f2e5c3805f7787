"""Carbon over a span: sums of `ce_emission` by scope, method, medium and factor.

`ce_superseded` is never read here, so nothing is counted twice when factors change. Scope 2 is told
twice where contracts are known (GHG Protocol): location-based and market-based stand side by side
and are never added up; what was exported stands apart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Final

import numpy as np

from aggregator.series.derived.site import floats
from aggregator.stores import SeriesKey, Store
from protocols.frame import SECOND, Floats, Ints

QUARTER_NS: Final = 900 * SECOND
DAY_NS: Final = 86_400 * SECOND


@dataclass(frozen=True, slots=True)
class Line:
    """What one factor gave for one medium.

    Attributes:
        scope: `1`, `2`, or empty for what is exported.
        method: `location`, `market`, `direct` or `export`.
        factor_id: set and region; `factor_set` is the first part.
        kg: shape (periods,), kg CO2e; NaN where there is nothing.
        steps: how many steps there is anything in.
    """

    scope: str
    method: str
    medium: str
    gas: str
    factor_id: str
    factor_value: float | None
    factor_unit: str
    factor_grade: str
    kg: Floats
    steps: int

    @property
    def factor_set(self) -> str:
        """The set that the factor is from."""
        return self.factor_id.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Periods:
    """Spans that follow each other; what is written for a window counts where it begins.

    Attributes:
        edges: shape (periods + 1,), nanoseconds since 1970 UTC.
        step_ns: sums are asked for in steps of this length, which the edges are multiples of
            unless there is only one period.
    """

    edges: Ints
    step_ns: int

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.edges) - 1


def lines(store: Store, keys: Iterable[SeriesKey], periods: Periods) -> list[Line]:
    """Return the sums of `ce_emission` series, those of all meters of one factor as one line.

    Raises:
        StoreUnavailable: ask again later.
    """
    groups: dict[tuple[str, ...], list[SeriesKey]] = {}
    for key in keys:
        tags = dict(key.tags)
        name = ("scope", "method", "medium", "gas", "factor_id")
        groups.setdefault(tuple(tags.get(each, "") for each in name), []).append(key)
    found = [_line(store, name, group, periods) for name, group in sorted(groups.items())]
    return [line for line in found if not np.isnan(line.kg).all()]


def _line(store: Store, name: tuple[str, ...], keys: Sequence[SeriesKey], periods: Periods) -> Line:
    cells: list[list[float]] = [[] for _ in range(periods.count)]
    seen = 0
    for key in keys:
        time, values = _sums(store, key, "co2e_kg", periods)
        seen += len(time)
        places = np.searchsorted(periods.edges, time, side="right") - 1
        for place, value in zip(np.clip(places, 0, None).tolist(), values.tolist(), strict=True):
            cells[place].append(value)
    about = store.newest(keys[-1]).fields
    scope, method, medium, gas, factor = name
    return Line(
        scope,
        method,
        medium,
        gas,
        factor,
        _cell(about, "factor_value"),
        _text(about, "factor_unit"),
        _text(about, "factor_grade"),
        # Each step was added up by the store; these sums add no rounding of their own.
        np.array([fsum(values) if values else np.nan for values in cells]),
        seen,
    )


def _sums(store: Store, key: SeriesKey, field: str, periods: Periods) -> tuple[Ints, Floats]:
    start, end = int(periods.edges[0]), int(periods.edges[-1])
    block = store.query_steps(key, field, start, end, periods.step_ns, "sum")
    values = floats(block, field)
    has = ~np.isnan(values)
    return block.time[has], values[has]


def _cell(fields: Mapping[str, object], name: str) -> float | None:
    column = fields.get(name)
    return float(column[-1]) if isinstance(column, np.ndarray) and len(column) else None


def _text(fields: Mapping[str, object], name: str) -> str:
    column = fields.get(name)
    return str(column[-1]) if isinstance(column, list) and column else ""


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of lines by period, shape (periods,), kg CO2e; None where there is nothing at all.

    Attributes:
        scope1, scope2_location, scope2_market: of the scopes. Market-based is absent unless
            contracts are known for as many days as there is purchased power.
        location, market: scope 1 and 2; two views of the same carbon, never to be added up.
        export: what exported power would have emitted; part of no other sum.
    """

    scope1: Floats | None
    scope2_location: Floats | None
    scope2_market: Floats | None
    location: Floats | None
    market: Floats | None
    export: Floats | None


def totals(found: Sequence[Line]) -> Totals:
    """Return the sums of lines, each carbon once in each of them."""
    direct = [line for line in found if line.method == "direct"]
    location = [line for line in found if line.method == "location"]
    market = _market_lines(found, location)
    return Totals(
        _sum(direct),
        _sum(location),
        _sum(market),
        _sum([*direct, *location]),
        _sum([*direct, *market]) if market else None,
        _sum([line for line in found if line.method == "export"]),
    )


def _market_lines(found: Sequence[Line], location: Sequence[Line]) -> list[Line]:
    """Return what makes up scope 2 market-based: media without contracts have their location's."""
    own = [line for line in found if line.method == "market"]
    media = {line.medium for line in own}
    for medium in media:
        told = sum(line.steps for line in own if line.medium == medium)
        all_of_it = sum(line.steps for line in location if line.medium == medium)
        if told < all_of_it:
            return []
    return [*own, *(line for line in location if line.medium not in media)] if own else []


def _sum(lines_: Sequence[Line]) -> Floats | None:
    if not lines_:
        return None
    table = np.array([line.kg for line in lines_])
    return np.where(np.isnan(table).all(axis=0), np.nan, np.nansum(table, axis=0))


@dataclass(frozen=True, slots=True)
class Trust:
    """How much of what counts was received.

    Attributes:
        coverage: part of the hours of a span, 0 to 1; hours without any row count as nothing.
        estimated: part of what was received that is the total of a gap; None without anything.
    """

    coverage: float
    estimated: float | None


def trust(store: Store, key: SeriesKey, start_ns: int, end_ns: int) -> Trust | None:
    """Return what `ce_quality` says of a span that ends not after now; None where it says nothing.

    Raises:
        StoreUnavailable: ask again later.
    """
    hours = max(1.0, (end_ns - start_ns) / (3600 * SECOND))
    received = store.query_steps(key, "coverage", start_ns, end_ns, DAY_NS, "sum")
    if not len(received):
        return None
    shares = store.query_steps(key, "estimated_share", start_ns, end_ns, DAY_NS, "mean")
    known = floats(shares, "estimated_share")
    known = known[~np.isnan(known)]
    return Trust(
        min(1.0, float(np.nansum(floats(received, "coverage"))) / hours),
        float(known.mean()) if len(known) else None,
    )


def months(
    store: Store, keys: Sequence[SeriesKey], quality: Sequence[SeriesKey], periods: Periods
) -> tuple[Floats, Floats]:
    """Return carbon (location-based and direct, kg) and coverage of each period.

    Args:
        keys: `ce_emission` series.
        quality: the `ce_quality` series of the same sites; the worst site counts.

    Raises:
        StoreUnavailable: ask again later.
    """
    kg = totals(lines(store, keys, periods)).location
    hours = np.diff(periods.edges) / (3600 * SECOND)
    worst = np.ones(periods.count)
    for key in quality:
        time, values = _sums(store, key, "coverage", periods)
        places = np.clip(np.searchsorted(periods.edges, time, side="right") - 1, 0, None)
        worst = np.minimum(worst, np.bincount(places, values, periods.count) / hours)
    return np.full(periods.count, np.nan) if kg is None else kg, worst

"""Derivation: computes a site's combined series for spans of time, and replaces what was there."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from aggregator.calendars import Calendar, CalendarFile, read_calendar
from aggregator.facts import KINDS, Fact, FactFile, SiteFacts
from aggregator.localtime import DAY_S
from aggregator.series.derived import checks, energy, intensity, production
from aggregator.series.derived.site import HOUR_NS, Context, Hours, PlanPoint, Site
from aggregator.stores import RowSpan, SeriesBlock, SeriesKey, Store, StoreRefused
from protocols.errors import ConfigError

FACTORY, CARBON = "future_factory", "carbon_emission"

MEASUREMENTS: Final = {
    FACTORY: (
        "ff_production",
        "ff_quality",
        "ff_oee",
        "ff_power",
        "ff_connectivity",
        "ff_check",
        "ff_fact",
    ),
    CARBON: ("ce_balance", "ce_quality", "ce_intensity"),
}
"""Measurements that only derivation writes."""

_SHARED: Final = {FACTORY: ("ff_energy",), CARBON: ("ce_activity", "ce_emission")}
_PER_HOUR: Final = (
    production.production,
    production.oee,
    energy.from_power,
    energy.power,
    energy.own_use,
    energy.balance,
    energy.market,
    energy.exported,
    energy.data_quality,
    intensity.per_product,
    checks.checks,
    checks.connectivity,
)
_DAYS_AT_ONCE: Final = 31
_LAST_HOUR: Final = (1 << 62) // HOUR_NS

_log = logging.getLogger(__name__)


class People:
    """What people entered, read again when it has changed; a faulty file changes nothing."""

    def __init__(self, facts: Path, calendars: Path) -> None:
        self._file = FactFile(facts)
        self._calendars = calendars
        self._facts: list[Fact] = []
        self._found: dict[tuple[str, str], CalendarFile | None] = {}
        self._said = ""
        self._seen: list[tuple[str, int, int]] = []

    def look(self) -> bool:
        """Read the facts where a file has changed; return whether one has."""
        seen = _seen([self._file.path, self._calendars, *sorted(self._calendars.glob("*.toml"))])
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._facts = self._file.read()
        except ConfigError as fault:
            self._say(fault)
        return True

    def facts(self, enterprise: str, site: str) -> SiteFacts:
        """Return a site's facts."""
        return SiteFacts(
            fact for fact in self._facts if (fact.enterprise, fact.site) == (enterprise, site)
        )

    def calendar(self, enterprise: str, site: str) -> CalendarFile | None:
        """Return a site's calendar, as it was when it was last without faults."""
        try:
            self._found[enterprise, site] = read_calendar(self._calendars, enterprise, site)
        except ConfigError as fault:
            self._say(fault)
        return self._found.get((enterprise, site))

    def _say(self, fault: ConfigError) -> None:
        if str(fault) != self._said:
            self._said = str(fault)
            _log.error("%s", fault)


def _seen(paths: Sequence[Path]) -> list[tuple[str, int, int]]:
    found = []
    for path in paths:
        try:
            state = path.stat()
            found.append((str(path), state.st_mtime_ns, state.st_size))
        except OSError:
            found.append((str(path), 0, 0))
    return found


class Derivation:
    """Writes combined series of sites."""

    def __init__(self, stores: Mapping[str, Store], context: Context, people: People) -> None:
        self._stores = stores
        self._context = context
        self._people = people

    def look(self) -> bool:
        """Read what people entered; return whether that has changed."""
        return self._people.look()

    def site(self, enterprise: str, name: str, plan: tuple[PlanPoint, ...]) -> tuple[Site, str]:
        """Return a site, and a fingerprint of everything beside rows that decides its series."""
        facts = self._people.facts(enterprise, name)
        file = self._people.calendar(enterprise, name)
        calendar = Calendar(file, self._context.local) if file is not None else None
        parts = [repr(plan), facts.text(), file.model_dump_json() if file else ""]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return Site(enterprise, name, plan, facts, calendar, self._context), digest

    def ranges(self, site: Site, hours: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return spans of hours widened to local days, joined, and cut into months.

        Args:
            hours: (first, last) UTC hours since 1970.
        """
        days: set[int] = set()
        for first, last in hours:
            moments = np.array([first, min(last, _LAST_HOUR)], np.int64) * HOUR_NS
            low, high = (site.context.local.seconds(moments) // DAY_S).tolist()
            days.update(range(low, high + 1))
        return [self._span(site, group) for group in _groups(sorted(days))]

    def _span(self, site: Site, days: Sequence[int]) -> tuple[int, int]:
        local = site.context.local
        edges = np.array([days[0], days[-1] + 1]).astype("datetime64[D]").astype(object)
        first, last = (local.start_of(day.year, day.month, day.day) for day in edges)
        # A zone with half hours begins its days within a UTC hour.
        return first // HOUR_NS, -(-last // HOUR_NS)

    def clear(self, site: Site, span: tuple[int, int] = (0, _LAST_HOUR)) -> None:
        """Remove a site's derived rows of some UTC hours (first, and the one after the last)."""
        for bucket, spans in self.made_of(site, span).items():
            try:
                if spans:
                    self._stores[bucket].delete_rows(spans)
            except StoreRefused as fault:
                _log.error("%s", fault)

    def made_of(self, site: Site, span: tuple[int, int]) -> dict[str, list[RowSpan]]:
        """Return where a site's derived rows of some UTC hours are, by bucket.

        Rows of longer periods that these hours are a part of are among them.
        """
        start_ns, end_ns = span[0] * HOUR_NS, span[1] * HOUR_NS
        found: dict[str, list[RowSpan]] = {}
        for bucket, measurements in MEASUREMENTS.items():
            names = (*measurements, *_SHARED[bucket])
            keys = [key for name in names for key in self._keys(site, bucket, name)]
            longer = [intensity.period_row(key, site, start_ns, end_ns) for key in keys]
            found[bucket] = [RowSpan(key, start_ns, end_ns) for key in keys]
            found[bucket] += [row for row in longer if row is not None]
        return found

    def _keys(self, site: Site, bucket: str, measurement: str) -> list[SeriesKey]:
        own = {("enterprise_id", site.enterprise), ("site_id", site.site)}
        return [
            key
            for key in self._stores[bucket].series(measurement)
            if own.issubset(key.tags)
            and (measurement.startswith(MEASUREMENTS[bucket]) or is_derived(key))
        ]

    def derive(self, site: Site, first: int, last: int) -> None:
        """Compute and write everything of UTC hours `first` to before `last`.

        Raises:
            StoreUnavailable: a part was written; call again later.
        """
        hours = Hours(site, self._stores, first * HOUR_NS, last * HOUR_NS)
        found: list[SeriesBlock] = []
        for of_hours in _PER_HOUR:
            found += of_hours(hours)
        self._write(found)
        self._write(list(intensity.per_period(hours, self._stores[CARBON])))

    def tell_facts(self, site: Site) -> None:
        """Write what people entered as `ff_fact`, each with its source, for whoever shows it."""
        self._write(list(fact_rows(site)))

    def _write(self, blocks: Sequence[SeriesBlock]) -> None:
        for bucket, prefix in ((FACTORY, "ff_"), (CARBON, "ce_")):
            own = [block for block in blocks if block.key.measurement.startswith(prefix)]
            try:
                if own:
                    self._stores[bucket].write(own)
            except StoreRefused as fault:
                _log.error("%s", fault)


def is_derived(key: SeriesKey) -> bool:
    """Tell whether a series of a measurement shared with the projection is made by derivation."""
    tags = dict(key.tags)
    return (
        tags.get("basis") == "power"
        or tags.get("meter_role") in {"self_use", "load"}
        or tags.get("method") in {"market", "export"}
        or tags.get("scope") == "none"
    )


def _groups(days: Sequence[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for day in days:
        if group and (day != group[-1] + 1 or len(group) >= _DAYS_AT_ONCE):
            yield group
            group = []
        group.append(day)
    if group:
        yield group


def fact_rows(site: Site) -> Iterator[SeriesBlock]:
    """Yield `ff_fact`: one row per fact at the beginning of the time that it holds for."""
    by_key: dict[SeriesKey, list[Fact]] = {}
    for fact in site.facts.all:
        key = site.key("ff_fact", fact=fact.name, equipment_id=fact.equipment)
        by_key.setdefault(key, []).append(fact)
    local = site.context.local
    for key, facts in by_key.items():
        days = [fact.valid_from for fact in facts]
        time = np.array([local.start_of(d.year, d.month, d.day) for d in days], np.int64)
        yield SeriesBlock(
            key,
            time,
            {
                "value": np.array([float(fact.value) for fact in facts]),
                "unit": [KINDS[fact.name].unit for fact in facts],
                "until": [str(fact.valid_until or "") for fact in facts],
                "source": [fact.source for fact in facts],
                "entered": [str(fact.entered) for fact in facts],
            },
        )

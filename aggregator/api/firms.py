"""Figures of every firm, which rankings are made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from aggregator.api.catalog import Catalog, Entry
from aggregator.api.periods import day_of
from aggregator.api.scopes import Scope
from aggregator.api.terms import Terms
from aggregator.api.worker import Worker
from aggregator.series.derived.site import HOUR_NS, floats
from aggregator.stores import ENTERPRISE, EQUIPMENT, SITE, SeriesKey, Store
from aggregator.summaries import carbon, oee
from aggregator.summaries.ranking import FirmValue
from protocols.frame import Floats, Ints

_ALL: Final = Scope("rankings")
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What firms are ranked by.

    Attributes:
        measurement: what it is computed from.
        monthly: of a local month; else of a local year. One length only: a year and eleven of
            its months would tell the twelfth.
        denominator: tag of the `ce_intensity` series it is from; empty for other measurements.
        thousands: how many kg make the unit.
    """

    measurement: str
    unit: str
    monthly: bool
    higher_is_better: bool
    denominator: str = ""
    thousands: float = 1.0


KINDS: Final = {
    "oee": Kind("ff_oee", "1", monthly=True, higher_is_better=True),
    "co2e": Kind("ce_emission", "kg", monthly=True, higher_is_better=False),
    "carbon_per_value": Kind(
        "ce_intensity",
        "t/万元",
        monthly=False,
        higher_is_better=False,
        denominator="万元",
        thousands=1000.0,
    ),
    "carbon_per_area": Kind(
        "ce_intensity",
        "t/亩",
        monthly=False,
        higher_is_better=False,
        denominator="亩",
        thousands=1000.0,
    ),
}


class Firms:
    """Computes figures of firms, each firm in a request of its own so that others get their turn.

    Args:
        files: the thread in which shift calendars are read.
    """

    def __init__(self, catalog: Catalog, terms: Terms, files: Worker) -> None:
        self._catalog = catalog
        self._terms = terms
        self._files = files

    async def values(self, kind: Kind, start: int, end: int, now_ns: int) -> list[FirmValue]:
        """Return the figure of every firm that has any series of this kind.

        Raises:
            Problem: 503 when a store cannot be asked.
        """
        by_firm: dict[str, list[Entry]] = {}
        for entry in await self._catalog.list(_ALL, kind.measurement):
            by_firm.setdefault(dict(entry.key.tags).get(ENTERPRISE, ""), []).append(entry)
        return [
            await self._value(kind, firm, entries, start, end, now_ns)
            for firm, entries in sorted(by_firm.items())
        ]

    async def _value(
        self, kind: Kind, firm: str, entries: list[Entry], start: int, end: int, now_ns: int
    ) -> FirmValue:
        if kind.measurement == "ff_oee":
            hours, coverage = await self.oee_hours(entries, start, end, now_ns)
            return FirmValue(firm, oee.over(hours).oee, coverage or 0.0)
        if kind.measurement == "ce_emission":
            return await self._carbon(firm, entries, start, end, now_ns)
        return await self._intensity(kind, firm, entries, start, end)

    async def oee_hours(
        self, entries: Sequence[Entry], start: int, end: int, now_ns: int
    ) -> tuple[oee.OeeHours, float | None]:
        """Return the hours of some `ff_oee` series, and how much of planned time was received.

        The coverage is None where nothing was planned. Hours that nothing came from count as
        planned and not received.
        """
        found, received, planned = [], 0.0, 0.0
        starts = np.arange(-(-start // HOUR_NS), -(-min(end, now_ns) // HOUR_NS)) * HOUR_NS
        by_equipment: dict[tuple[str, ...], list[Entry]] = {}
        for entry in entries:
            tags = dict(entry.key.tags)
            place = tuple(tags.get(name, "") for name in (ENTERPRISE, SITE, EQUIPMENT))
            by_equipment.setdefault(place, []).append(entry)
        for (firm, site, _), own in by_equipment.items():
            hours = await self._catalog.ask(own[0].bucket, _reading(own, start, end))
            received += oee.received(hours, await self._planned(firm, site, hours.time))
            planned += float((await self._planned(firm, site, starts)).sum())
            found.append(hours)
        return oee.OeeHours.joined(found), min(1.0, received / planned) if planned else None

    async def _planned(self, firm: str, site: str, hours: Ints) -> Floats:
        """Return the planned seconds of hours; without a calendar all of them are."""
        told = await self._files.run(partial(self._terms.planned, firm, site, hours))
        return np.full(len(hours), _HOUR_S) if told is None else told

    async def trust(self, firm: str, site: str, start: int, end: int) -> carbon.Trust | None:
        """Return how much of a site's carbon data was received; None where nothing says so."""
        key = SeriesKey.of("ce_quality", {ENTERPRISE: firm, SITE: site})
        ask = partial(carbon.trust, key=key, start_ns=start, end_ns=end)
        return await self._catalog.ask("carbon_emission", ask)

    async def _carbon(
        self, firm: str, entries: list[Entry], start: int, end: int, now_ns: int
    ) -> FirmValue:
        cut = carbon.Periods(np.array([start, end], np.int64), carbon.DAY_NS)
        keys = [entry.key for entry in entries]
        found = await self._catalog.ask(
            entries[0].bucket, partial(carbon.lines, keys=keys, periods=cut)
        )
        total = carbon.totals(found).location
        sites = sorted({dict(key.tags).get(SITE, "") for key in keys})
        trusts = [await self.trust(firm, site, start, min(end, now_ns)) for site in sites]
        value = None if total is None or np.isnan(total[0]) else float(total[0])
        return FirmValue(firm, value, min((t.coverage if t else 0.0 for t in trusts), default=0.0))

    async def _intensity(
        self, kind: Kind, firm: str, entries: list[Entry], start: int, end: int
    ) -> FirmValue:
        first, until = (day_of(self._terms.local, moment) for moment in (start, end))
        wanted = {"denominator": kind.denominator, "period": f"{first}/{until}"}
        keys = [entry.key for entry in entries if wanted.items() <= dict(entry.key.tags).items()]
        if not keys:
            return FirmValue(firm, None, 0.0)
        kg, amount, coverage = await self._catalog.ask(entries[0].bucket, _summed(keys))
        value = kg / amount / kind.thousands if amount > 0 else None
        return FirmValue(firm, value, coverage)


def _reading(entries: list[Entry], start: int, end: int) -> Callable[[Store], oee.OeeHours]:
    def read(store: Store) -> oee.OeeHours:
        return oee.OeeHours.joined(oee.read(store, entry.key, start, end) for entry in entries)

    return read


def _summed(keys: list[SeriesKey]) -> Callable[[Store], tuple[float, float, float]]:
    """Return carbon (kg), denominator and least coverage of a firm's sites together."""

    def read(store: Store) -> tuple[float, float, float]:
        newest = [store.newest(key) for key in keys]
        columns = [
            [float(floats(block, name)[-1]) if len(block) else 0.0 for block in newest]
            for name in ("co2e_kg", "quantity", "coverage")
        ]
        return sum(columns[0]), sum(columns[1]), min(columns[2])

    return read

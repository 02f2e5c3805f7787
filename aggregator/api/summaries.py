"""OEE, carbon and rankings over HTTP; what is computed is in `aggregator.summaries`."""

import asyncio
import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np
from aiohttp import web

from aggregator.api import periods, render
from aggregator.api.catalog import Catalog, Entry, page
from aggregator.api.firms import KINDS, Firms
from aggregator.api.guard import SCOPE
from aggregator.api.parameters import Parameters, missing
from aggregator.api.problems import Text, unavailable
from aggregator.api.scopes import Scope
from aggregator.api.terms import Terms
from aggregator.api.worker import Worker
from aggregator.factors import FactorSet, FuelSet, shipped_fuels, shipped_sets
from aggregator.stores import ENTERPRISE, EQUIPMENT, SITE, SeriesKey
from aggregator.summaries import carbon, oee, peak, ranking
from protocols.frame import SECOND, Floats, NowNs

_DAY_NS: Final = 86_400 * SECOND
_LONGEST_NS: Final = 3_660 * _DAY_NS
_LONGEST_OEE_NS: Final = 1_100 * _DAY_NS
_PLACES: Final = (100, 500)
_SITES: Final = (20, 100)
_RANKED: Final = (200, 1_000)
_MONTHS: Final = 120
_BY: Final = {
    "equipment": (ENTERPRISE, SITE, EQUIPMENT),
    "site": (ENTERPRISE, SITE),
    "enterprise": (ENTERPRISE,),
}
_KEEP_S: Final = 30.0
_RANKING_S: Final = 120.0
_MOST_KEPT: Final = 32

Place = tuple[str, ...]


class Summaries:
    """Answers requests for summaries.

    Args:
        catalog: the series; shared with the other views, which close it.
        terms: local time, disclosure rules, planned time.
        now_ns: the wall clock.
    """

    def __init__(self, catalog: Catalog, terms: Terms, now_ns: NowNs) -> None:
        self._catalog = catalog
        self._terms = terms
        self._now_ns = now_ns
        self._files = Worker("api-files")
        self._firms = Firms(catalog, terms, self._files)
        self._ranking = asyncio.Lock()
        self._kept: dict[tuple[str, str], tuple[float, list[ranking.FirmValue]]] = {}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, all under /api/v1."""
        return [
            web.get("/api/v1/oee", self.oee),
            web.get("/api/v1/carbon/summary", self.carbon_summary),
            web.get("/api/v1/carbon/peak", self.peak),
            web.get("/api/v1/rankings", self.rankings),
        ]

    async def close(self) -> None:
        """End the thread."""
        await self._files.close()

    async def oee(self, request: web.Request) -> web.Response:
        """Return OEE over a period for each equipment, site or firm, a page at a time."""
        asked = Parameters(
            request.query,
            "start",
            "end",
            "by",
            "enterprise",
            "site",
            "equipment",
            "limit",
            "cursor",
        )
        start, end = asked.period(self._now_ns(), _DAY_NS)
        if end - start > _LONGEST_OEE_NS:
            raise periods.too_long(Text("at most 1100 days", "至多 1100 天"))
        by = asked.choice("by", tuple(_BY))
        limit, cursor = asked.integer("limit", _PLACES[0], 1, _PLACES[1]), asked.cursor()
        groups = await self._groups(request[SCOPE], asked, "ff_oee", _BY[by])
        shown, following = page(list(groups), _place_id, cursor, limit)
        found = []
        for place in shown:
            hours, coverage = await self._firms.oee_hours(groups[place], start, end, self._now_ns())
            versions = {dict(entry.key.tags).get("calendar_ver", "") for entry in groups[place]}
            found.append(
                {
                    **_named(place),
                    "calendars": sorted(versions - {""}),
                    "coverage": coverage,
                    **asdict(oee.over(hours)),
                }
            )
        return self._answer({**_span(start, end), "by": by, "items": found, "next": following})

    async def carbon_summary(self, request: web.Request) -> web.Response:
        """Return carbon by scope, method, medium and factor for each site, a page at a time."""
        asked = Parameters(
            request.query, "start", "end", "each", "enterprise", "site", "limit", "cursor"
        )
        start, end = asked.period(self._now_ns(), _DAY_NS)
        each = asked.choice("each", periods.EACH)
        if end - start > _LONGEST_NS:
            raise periods.too_long(Text("at most ten years", "至多十年"))
        cut = periods.cut(self._terms.local, start, end, each)
        limit, cursor = asked.integer("limit", _SITES[0], 1, _SITES[1]), asked.cursor()
        groups = await self._groups(request[SCOPE], asked, "ce_emission", _BY["site"])
        shown, following = page(list(groups), _place_id, cursor, limit)
        sites = [await self._site(place, groups[place], cut) for place in shown]
        used = {line["factor_set"] for site in sites for line in site["lines"]}
        known = await self._files.run(publications)
        document = {
            **_span(start, end),
            "each": each,
            "periods": [_span(*one) for one in periods.spans(cut)],
            "sites": sites,
            "factor_sets": {name: known[name] for name in sorted(used & known.keys())},
            "next": following,
        }
        return self._answer(document)

    async def _site(
        self, place: Place, entries: Sequence[Entry], cut: carbon.Periods
    ) -> dict[str, Any]:
        keys = [entry.key for entry in entries]
        found = await self._catalog.ask(
            entries[0].bucket, partial(carbon.lines, keys=keys, periods=cut)
        )
        edges = cut.edges.tolist()
        trust = await self._firms.trust(
            place[0], place[1], edges[0], min(edges[-1], self._now_ns())
        )
        return {
            **_named(place),
            "coverage": trust.coverage if trust else None,
            "estimated_share": trust.estimated if trust else None,
            "totals": _columns(carbon.totals(found)),
            "lines": [_line(line) for line in found],
        }

    async def peak(self, request: web.Request) -> web.Response:
        """Return when a firm's carbon is expected to peak, by scenario; or that nobody can tell."""
        asked = Parameters(request.query, "enterprise", "site", "until")
        firm = asked.label("enterprise")
        if firm is None:
            raise missing("enterprise")
        first, cut = periods.months_before(self._terms.local, self._now_ns(), _MONTHS)
        until = asked.integer("until", first.year + _MONTHS // 12 + 15, 2000, 2100)
        groups = await self._groups(request[SCOPE], asked, "ce_emission", _BY["site"])
        keys = [entry.key for entries in groups.values() for entry in entries]
        quality = [SeriesKey.of("ce_quality", {ENTERPRISE: one, SITE: at}) for one, at in groups]
        ask = partial(carbon.months, keys=keys, quality=quality, periods=cut)
        kg, coverage = await self._catalog.ask("carbon_emission", ask)
        assumed = peak.Assumptions()
        found = peak.expect((first.year, first.month), kg, coverage, until, assumed)
        return self._answer({"enterprise": firm, **peak.as_document(found, assumed)})

    async def rankings(self, request: web.Request) -> web.Response:
        """Return firms by one figure of a month or year, as far as the caller may see it."""
        asked = Parameters(request.query, "kind", "period", "limit", "cursor")
        name = asked.choice("kind", tuple(KINDS))
        kind = KINDS[name]
        today = periods.day_of(self._terms.local, self._now_ns())
        period = asked.text("period") or str(today)[: 7 if kind.monthly else 4]
        start, end = periods.named(self._terms.local, period, monthly=kind.monthly)
        limit, cursor = asked.integer("limit", _RANKED[0], 1, _RANKED[1]), asked.position()
        scope: Scope = request[SCOPE]
        values = []
        if scope.sees_measurement(kind.measurement):
            values = await self._values(name, period, start, end)
        finished = end <= self._now_ns()
        found = ranking.rank(
            values,
            self._terms.disclosure,
            higher_is_better=kind.higher_is_better,
            finished=finished,
            sees=scope.sees_firm,
        )
        more = len(found.places) > cursor + limit
        document = {
            **_span(start, end),
            "kind": name,
            "period": period,
            "finished": finished,
            "unit": kind.unit,
            "better": "higher" if kind.higher_is_better else "lower",
            "least_coverage": self._terms.disclosure.least_coverage,
            "least_ranked": self._terms.disclosure.least_ranked,
            "taking_part": found.taking_part,
            "mean": found.mean,
            "protected": found.protected or None,
            "firms": [_ranked(one) for one in found.places[cursor : cursor + limit]],
            "next": str(cursor + limit) if more else None,
        }
        return self._answer(document)

    async def _values(
        self, name: str, period: str, start: int, end: int
    ) -> list[ranking.FirmValue]:
        """Return all firms' figures; what was computed a moment ago is not computed again."""
        # It goes over all firms: whoever asks for the same meanwhile waits for the same answer.
        try:
            async with asyncio.timeout(_RANKING_S), self._ranking:
                return await self._figures(name, period, start, end)
        except TimeoutError:
            raise unavailable() from None

    async def _figures(
        self, name: str, period: str, start: int, end: int
    ) -> list[ranking.FirmValue]:
        kept = self._kept.get((name, period))
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        values = await self._firms.values(KINDS[name], start, end, self._now_ns())
        while len(self._kept) >= _MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._kept[name, period] = (time.monotonic() + _KEEP_S, values)
        return values

    async def _groups(
        self, scope: Scope, asked: Parameters, measurement: str, tags: Sequence[str]
    ) -> dict[Place, list[Entry]]:
        wanted = {
            tag: text
            for tag, name in ((ENTERPRISE, "enterprise"), (SITE, "site"), (EQUIPMENT, "equipment"))
            if (text := asked.label(name)) is not None
        }
        groups: dict[Place, list[Entry]] = {}
        for entry in await self._catalog.list(scope, measurement):
            own = dict(entry.key.tags)
            if all(own.get(tag) == text for tag, text in wanted.items()):
                groups.setdefault(tuple(own.get(tag, "") for tag in tags), []).append(entry)
        return groups

    def _answer(self, document: dict[str, Any]) -> web.Response:
        body = render.encode({"now": render.time_text(self._now_ns()), **document})
        return web.Response(body=body, content_type="application/json", charset="utf-8")


@lru_cache(1)
def publications() -> Mapping[str, dict[str, Any]]:
    """Return where each shipped set of factors is from; it reads files."""
    sets: list[FactorSet | FuelSet] = [*shipped_sets().values(), *shipped_fuels().values()]
    return {
        one.id: {"publication": one.publication, "data_year": one.data_year or None} for one in sets
    }


def _place_id(place: Place) -> str:
    """Return a name for a page's cursor: names of firms are no header-safe text."""
    digest = hashlib.sha256("\0".join(place).encode()).digest()
    return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()


def _named(place: Place) -> dict[str, str]:
    return dict(zip(("enterprise", "site", "equipment"), place, strict=False))


def _span(start: int, end: int) -> dict[str, str]:
    return {"start": render.time_text(start), "end": render.time_text(end)}


def _numbers(values: Floats) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def _columns(found: carbon.Totals) -> dict[str, list[float | None] | None]:
    columns = {one.name: getattr(found, one.name) for one in fields(found)}
    return {
        f"{name}_kg": None if values is None else _numbers(values)
        for name, values in columns.items()
    }


def _line(line: carbon.Line) -> dict[str, Any]:
    return {
        "scope": line.scope or None,
        "method": line.method,
        "medium": line.medium,
        "gas": line.gas,
        "factor_set": line.factor_set,
        "factor_id": line.factor_id,
        "factor_value": line.factor_value,
        "factor_unit": line.factor_unit,
        "factor_grade": line.factor_grade,
        "co2e_kg": _numbers(line.kg),
    }


def _ranked(place: ranking.Place) -> dict[str, Any]:
    return {
        "enterprise": place.firm.enterprise,
        "value": place.firm.value,
        "coverage": place.firm.coverage,
        "rank": place.rank,
        "excluded": place.excluded or None,
    }

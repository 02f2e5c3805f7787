"""The endpoints of /api/v1: parameters in, JSON out; all work that blocks is done by workers."""

import itertools
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import numpy as np
from aiohttp import web

from aggregator.api import export, openapi, render
from aggregator.api.catalog import Catalog, Entry, page
from aggregator.api.filling import FILLS, filled, grid
from aggregator.api.guard import SCOPE
from aggregator.api.knowledge import MOST_SOURCES, Knowledge
from aggregator.api.known import check_fields, check_measurement
from aggregator.api.parameters import Parameters, missing
from aggregator.api.problems import Problem, Text, bad_parameter
from aggregator.api.worker import Worker
from aggregator.localtime import LocalTime
from aggregator.stores import Aggregate, SeriesBlock, Store
from protocols.frame import SECOND, NowNs
from protocols.version import VERSION

_DAY_NS: Final = 86400 * SECOND
_QUARTER_NS: Final = 900 * SECOND
_ROWS: Final = (1_000, 10_000)
_LISTED: Final = (500, 1_000)
_NEWEST: Final = (200, 500)
_AGENTS: Final = (100, 500)
_ALARMS: Final = (200, 1_000)
_NEWEST_ID: Final = 2 * 10**18
"""Ids of alarms counted from here backwards sort as text, newest first."""

_PLACES: Final = {"enterprise": "enterprise_id", "site": "site_id"}
_NARROWED: Final = ("measurement", *_PLACES)
_SHEETS: Final = (3, 20)
_MOST_SHEETS: Final = 500
_MAX_STEPS: Final = 5_000
_MAX_STEP_NS: Final = 366 * _DAY_NS


class Views:
    """Answers requests.

    Args:
        catalog: the series.
        knowledge: who sends, under which release sheets; asked in a thread of its own.
        now_ns: the wall clock.
        local: where the factories' clocks are.
    """

    def __init__(
        self, catalog: Catalog, knowledge: Knowledge, now_ns: NowNs, local: LocalTime
    ) -> None:
        self._catalog = catalog
        self._knowledge = knowledge
        self._now_ns = now_ns
        self._local = local
        self._asker = Worker("api-knowledge")

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, all under /api/v1."""
        one = "/api/v1/series/{id:[A-Za-z0-9_-]{22}}"
        return [
            web.get("/api/v1/series", self.series),
            web.get(f"{one}/rows", self.rows),
            web.get(f"{one}/steps", self.steps),
            web.get(f"{one}/newest", self.newest_of_one),
            web.get(f"{one}/provenance", self.provenance),
            web.get(f"{one}/export", self.export),
            web.get("/api/v1/newest", self.newest),
            web.get("/api/v1/factories", self.factories),
            web.get("/api/v1/alarms", self.alarms),
            web.get("/api/v1/health", self.health),
            web.get("/api/v1/openapi.json", self.openapi),
        ]

    async def series(self, request: web.Request) -> web.Response:
        """List series, optionally of one measurement, firm or site, a page at a time."""
        asked = Parameters(request.query, *_NARROWED, "limit", "cursor")
        entries, following = await self._page(request, asked, _LISTED)
        return _answer({"series": [render.series(*entry) for entry in entries], "next": following})

    async def rows(self, request: web.Request) -> web.Response:
        """Return a series' rows of a period as columns; without `fields`, all there are."""
        asked = Parameters(request.query, "start", "end", "fields", "limit")
        start, end = asked.period(self._now_ns(), _DAY_NS)
        fields = asked.names("fields")
        limit = asked.integer("limit", _ROWS[0], 1, _ROWS[1])
        entry = await self._entry(request)
        await check_fields(self._catalog, entry, "fields", fields)

        def read(store: Store) -> bytes:
            # Not those of the newest row, which may lack what the others have.
            names = fields or store.fields(entry.key.measurement)
            block = store.query(entry.key, names, start, end, limit=limit + 1)
            return _encode_rows(entry, block, limit)

        return _json(await self._catalog.ask(entry.bucket, read))

    async def steps(self, request: web.Request) -> web.Response:
        """Return one or more numeric fields of a series, aggregated over even steps."""
        asked = Parameters(request.query, "field", "start", "end", "step", "aggregate", "fill")
        fields = asked.names("field")
        if not fields:
            raise missing("field")
        start, end = asked.period(self._now_ns(), _DAY_NS)
        step, aggregate = asked.step(_QUARTER_NS, _MAX_STEP_NS), asked.aggregate()
        fill = asked.choice("fill", FILLS)
        if (end - start) // step > _MAX_STEPS:
            raise bad_parameter(
                "step",
                Text("too many steps in this period", "该时段内步数过多"),
                Text(
                    f"give a longer step or a shorter period: at most {_MAX_STEPS} steps",
                    f"请增大步长或缩短时段：至多 {_MAX_STEPS} 步",
                ),
            )
        entry = await self._entry(request)
        await check_fields(self._catalog, entry, "field", fields)

        def read(store: Store) -> bytes:
            times = (start, end, step)
            blocks = [_steps_of(store, entry, field, times, aggregate) for field in fields]
            return _encode_steps(entry, blocks, times, aggregate, fill)

        return _json(await self._catalog.ask(entry.bucket, read))

    async def newest_of_one(self, request: web.Request) -> web.Response:
        """Return the newest row of a series."""
        Parameters(request.query)
        entry = await self._entry(request)
        newest = await self._catalog.ask(
            entry.bucket, lambda store: render.newest(store.newest(entry.key))
        )
        return _answer({**render.series(*entry), **newest})

    async def provenance(self, request: web.Request) -> web.Response:
        """Tell which batches the rows of a period come from; without a period, the newest row."""
        asked = Parameters(request.query, "start", "end")
        entry = await self._entry(request)
        start, end = asked.time("start", -1), asked.time("end", -1)
        if start < 0 and end < 0:
            newest = await self._catalog.ask(entry.bucket, lambda store: store.newest(entry.key))
            start = int(newest.time[-1]) if len(newest) else 0
        start, end = max(start, 0), end if end >= 0 else max(start, 0) + 1
        sources = await self._asker.run(lambda: self._knowledge.sources(entry.key, start, end))
        document = {
            **render.series(*entry),
            "start": render.time_text(start),
            "end": render.time_text(end),
            "factor": dict(entry.key.tags).get("factor_id"),
            "sources": [render.source(each) for each in sources[-MOST_SOURCES:]],
            "more": len(sources) > MOST_SOURCES,
        }
        return _answer(document)

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Send a period's rows as CSV or Parquet, however many, a portion at a time."""
        asked = Parameters(request.query, "start", "end", "fields", "format")
        span = asked.period(self._now_ns(), _DAY_NS)
        names, form = asked.names("fields"), asked.choice("format", export.FORMATS)
        entry = await self._entry(request)
        await check_fields(self._catalog, entry, "fields", names)
        if not names:
            measurement = entry.key.measurement
            names = await self._catalog.ask(entry.bucket, lambda store: store.fields(measurement))
        return await export.send(request, self._catalog, entry, names, span, form)

    async def newest(self, request: web.Request) -> web.Response:
        """Return the newest row of every series, or those of a firm or site, a page at a time."""
        asked = Parameters(request.query, *_NARROWED, "limit", "cursor")
        entries, following = await self._page(request, asked, _NEWEST)
        found: list[dict[str, Any]] = []
        by_bucket = sorted(entries, key=lambda entry: (entry.bucket, entry.id))
        for bucket, group in itertools.groupby(by_bucket, key=lambda entry: entry.bucket):
            found += await self._catalog.ask(bucket, _newest_of(list(group)))
        return _answer(
            {"now": self._now(), "zone": self._local.name, "series": found, "next": following}
        )

    async def factories(self, request: web.Request) -> web.Response:
        """Return the agents known, with what each may send."""
        asked = Parameters(request.query, "limit", "cursor", "sheets")
        limit, cursor = asked.integer("limit", _AGENTS[0], 1, _AGENTS[1]), asked.cursor()
        sheets = asked.integer("sheets", _SHEETS[0], 0, _SHEETS[1])
        if limit * sheets > _MOST_SHEETS:
            raise bad_parameter(
                "sheets",
                Text("too many release sheets at once", "一次请求的发布目录过多"),
                Text(
                    f"ask for fewer agents or sheets: limit x sheets at most {_MOST_SHEETS}",
                    f"请减小 limit 或 sheets：两者乘积至多 {_MOST_SHEETS}",
                ),
            )

        scope = request[SCOPE]

        def read() -> bytes:
            arrivals = [each for each in self._knowledge.arrivals() if scope.sees_firm(each.name)]
            shown, following = page(
                arrivals, lambda each: f"{each.factory}.{each.agent}", cursor, limit
            )
            return render.encode(
                {
                    "now": self._now(),
                    "factories": [render.arrival(each, sheets) for each in shown],
                    "next": following,
                }
            )

        return _json(await self._asker.run(read))

    async def alarms(self, request: web.Request) -> web.Response:
        """Return the open alarms, newest first, and on demand those that ended since a moment."""
        asked = Parameters(request.query, "start", "limit", "cursor")
        limit, cursor = asked.integer("limit", _ALARMS[0], 1, _ALARMS[1]), asked.cursor()
        start = asked.time("start", -1)
        scope = request[SCOPE]

        def read() -> bytes:
            found = [
                each
                for each in self._knowledge.alarms(None if start < 0 else start)
                # What concerns the brain itself is for whom everything is for.
                if (scope.sees_firm(each.name) if each.agent else scope.everything)
            ]
            shown, following = page(found, lambda each: f"{_NEWEST_ID - each.id}", cursor, limit)
            return render.encode(
                {
                    "now": self._now(),
                    "open": sum(each.until_ns is None for each in found),
                    "alarms": [render.notice(each) for each in shown],
                    "next": following,
                }
            )

        return _json(await self._asker.run(read))

    async def health(self, request: web.Request) -> web.Response:
        """Tell which of the things the API asks do answer; 503 when one does not."""
        Parameters(request.query)
        parts = {
            f"store:{bucket}": await _answers(self._catalog.ask(bucket, _touch))
            for bucket in self._catalog.buckets
        }
        parts["ledger"] = await _answers(self._asker.run(self._knowledge.arrivals))
        good = all(parts.values())
        document = {
            "now": self._now(),
            "status": "ok" if good else "degraded",
            "parts": {name: "ok" if each else "unavailable" for name, each in parts.items()},
        }
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(render.encode(document), status)

    async def openapi(self, request: web.Request) -> web.Response:
        """Return the OpenAPI document."""
        Parameters(request.query)
        return _answer(openapi.document(VERSION))

    async def close(self) -> None:
        """End the threads."""
        await self._catalog.close()
        await self._asker.close()

    async def _page(
        self, request: web.Request, asked: Parameters, bounds: tuple[int, int]
    ) -> tuple[list[Entry], str | None]:
        measurement, cursor = asked.name("measurement"), asked.cursor()
        limit = asked.integer("limit", bounds[0], 1, bounds[1])
        wanted = {
            tag: label for name, tag in _PLACES.items() if (label := asked.label(name)) is not None
        }
        entries = await self._catalog.list(request[SCOPE], measurement)
        check_measurement(measurement, entries)
        if wanted:
            entries = [one for one in entries if wanted.items() <= dict(one.key.tags).items()]
        return page(entries, lambda entry: entry.id, cursor, limit)

    async def _entry(self, request: web.Request) -> Entry:
        entry = await self._catalog.find(request[SCOPE], request.match_info["id"])
        if entry is None:
            raise Problem(
                HTTPStatus.NOT_FOUND,
                "no-series",
                Text("there is no series with this id", "没有此标识的序列"),
                Text("take an id from /api/v1/series", "请从 /api/v1/series 取得标识"),
            )
        return entry

    def _now(self) -> str:
        return render.time_text(self._now_ns())


async def _answers(question: Awaitable[object]) -> bool:
    try:
        await question
    except Problem:
        return False
    return True


def _touch(store: Store) -> None:
    store.series("health")


def _newest_of(entries: list[Entry]) -> Callable[[Store], list[dict[str, Any]]]:
    def read(store: Store) -> list[dict[str, Any]]:
        return [
            {**render.series(*entry), **render.newest(store.newest(entry.key))} for entry in entries
        ]

    return read


def _steps_of(
    store: Store, entry: Entry, field: str, times: tuple[int, int, int], aggregate: Aggregate
) -> SeriesBlock:
    try:
        block = store.query_steps(entry.key, field, *times, aggregate)
    except ValueError:
        raise _text_field() from None
    if any(isinstance(values, list) for values in block.fields.values()):
        raise _text_field()
    return block


def _text_field() -> Problem:
    return bad_parameter(
        "field",
        Text("this field is text", "该字段为文本"),
        Text("take a numeric field, or ask for rows", "请选数值字段，或改用 rows"),
    )


def _encode_rows(entry: Entry, block: SeriesBlock, limit: int) -> bytes:
    following = render.time_text(int(block.time[limit])) if len(block) > limit else None
    shown = SeriesBlock(
        block.key,
        block.time[:limit],
        {name: values[:limit] for name, values in block.fields.items()},
    )
    return render.encode({**render.series(*entry), **render.rows(shown), "next": following})


def _encode_steps(
    entry: Entry,
    blocks: list[SeriesBlock],
    span: tuple[int, int, int],
    aggregate: Aggregate,
    fill: str,
) -> bytes:
    """Join steps of several fields on one time column; a step that a field lacks is null."""
    start, end, step_ns = span
    times = (
        np.unique(np.concatenate([block.time for block in blocks]))
        if fill == "none"
        else grid(start, end, step_ns)
    )
    fields: dict[str, list[Any]] = {}
    marks: dict[str, list[bool]] = {}
    for block in blocks:
        for name, values in block.fields.items():
            fields[name], marks[name] = filled(block.time, render.column(values), times, fill)
    return render.encode(
        {
            **render.series(*entry),
            "step_s": step_ns // SECOND,
            "aggregate": aggregate,
            "time": render.times_text(times),
            "fields": fields,
            **({"filled": marks} if fill in {"previous", "linear"} else {}),
        }
    )


def _answer(document: dict[str, Any]) -> web.Response:
    return _json(render.encode(document))


def _json(body: bytes, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", charset="utf-8")

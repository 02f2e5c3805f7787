"""Facts over HTTP: read by who may see them, written with tokens made for that alone."""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

from aiohttp import web

from aggregator.api import render
from aggregator.api.guard import SCOPE
from aggregator.api.parameters import Parameters, missing
from aggregator.api.problems import Problem, Text, forbidden, prefers_chinese, unavailable
from aggregator.api.scopes import Scope
from aggregator.api.worker import Worker
from aggregator.fact_book import OWN_COLUMNS, Absent, FactBook
from aggregator.facts import COLUMNS, Fact
from protocols.errors import ConfigError, MillgateError
from protocols.language import spoken_to

_LARGEST_BODY: Final = 65_536
_BODY_S: Final = 10.0
_AT_ONCE: Final = 100
_LISTED: Final = (200, 1_000)
_MEASUREMENT: Final = "ff_fact"
_PLACE: Final = ("enterprise", "site", "equipment", "name", "from")

_log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Facts:
    """Answers what is known of facts, and takes new ones."""

    def __init__(self, book: FactBook) -> None:
        self._book = book
        self._worker = Worker("api-facts")

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, all under /api/v1."""
        return [
            web.get("/api/v1/facts", self.list),
            web.put("/api/v1/facts", self.put),
            web.delete("/api/v1/facts", self.remove),
        ]

    async def close(self) -> None:
        """End the thread."""
        await self._worker.close()

    async def list(self, request: web.Request) -> web.Response:
        """List facts, a page at a time."""
        asked = Parameters(request.query, "enterprise", "name", "limit", "cursor")
        limit, cursor = asked.integer("limit", _LISTED[0], 1, _LISTED[1]), asked.position()
        firm, name = asked.label("enterprise"), asked.name("name")
        scope: Scope = request[SCOPE]
        facts = await self._ask(request, self._book.all)
        own = [
            _as_row(fact)
            for fact in sorted(facts, key=lambda one: (*one.place, one.valid_from))
            if scope.sees_measurement(_MEASUREMENT)
            and scope.sees_firm(fact.enterprise)
            and firm in {None, fact.enterprise}
            and name in {None, fact.name}
        ]
        more = len(own) > cursor + limit
        document = {
            "facts": own[cursor : cursor + limit],
            "next": str(cursor + limit) if more else None,
        }
        return _answer(document)

    async def put(self, request: web.Request) -> web.Response:
        """Enter facts, all or none."""
        Parameters(request.query)
        scope = _writer(request)
        rows = _rows(await _body(request))
        put = partial(self._book.put, rows, scope.sees_firm, token=scope.name)
        facts = await self._ask(request, put)
        _log.info("token %s entered %d facts", scope.name, len(facts))
        return _answer({"facts": [_as_row(fact) for fact in facts]})

    async def remove(self, request: web.Request) -> web.Response:
        """Remove one fact."""
        asked = Parameters(request.query, *_PLACE)
        scope = _writer(request)
        firm, name, first = (asked.label(each) for each in ("enterprise", "name", "from"))
        for each, text in (("enterprise", firm), ("name", name), ("from", first)):
            if text is None:
                raise missing(each)
        place = (
            firm or "",
            asked.label("site") or "main",
            asked.label("equipment") or "",
            name or "",
        )
        if not scope.sees_firm(place[0]):
            raise _no_fact()
        try:
            remove = partial(self._book.remove, place, first or "", token=scope.name)
            await self._ask(request, remove)
        except Absent:
            raise _no_fact() from None
        _log.info("token %s removed a fact", scope.name)
        return _answer({})

    async def _ask(self, request: web.Request, call: Callable[[], Result]) -> Result:
        chinese = prefers_chinese(request.headers.get("Accept-Language", ""))

        def run() -> Result:
            # Faults are worded where they are found.
            with spoken_to(chinese=chinese):
                return call()

        try:
            return await self._worker.run(run)
        except ConfigError as error:
            raise _faulty(error.faults) from None
        except TimeoutError:
            raise unavailable() from None


def _writer(request: web.Request) -> Scope:
    scope: Scope = request[SCOPE]
    if not scope.writes_facts:
        raise forbidden()
    return scope


async def _body(request: web.Request) -> bytes:
    """Return the body.

    Raises:
        Problem: it is too large, or does not come.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            while len(data) <= _LARGEST_BODY:
                part = await request.content.read(_LARGEST_BODY + 1 - len(data))
                if not part:
                    return bytes(data)
                data += part
    except TimeoutError:
        raise _malformed() from None
    raise Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too-large",
        Text("too much at once", "一次提交过多"),
        Text(f"send at most {_LARGEST_BODY} bytes", f"请至多发送 {_LARGEST_BODY} 字节"),
    )


def _rows(body: bytes) -> list[dict[str, str]]:
    """Return the facts of a body as texts: a number counts as it was written.

    Raises:
        Problem: it is something else.
    """
    try:
        document = json.loads(
            body.decode("utf-8"),
            parse_float=str,
            parse_int=str,
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )
    except (ValueError, RecursionError):
        raise _malformed() from None
    if not isinstance(document, dict) or set(document) != {"facts"}:
        raise _malformed()
    rows = document["facts"]
    if not isinstance(rows, list) or not 1 <= len(rows) <= _AT_ONCE:
        raise _malformed()
    return [_row(row) for row in rows]


def _row(row: Any) -> dict[str, str]:
    if not isinstance(row, dict) or not set(row) <= set(OWN_COLUMNS):
        raise _malformed()
    cells = {name: row.get(name, "") for name in OWN_COLUMNS}
    cells = {name: "" if cell is None else cell for name, cell in cells.items()}
    texts = {name: cell.strip() for name, cell in cells.items() if isinstance(cell, str)}
    if len(texts) < len(cells) or not all(text.isprintable() for text in texts.values()):
        raise _malformed()
    return texts


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _malformed() -> Problem:
    names = ", ".join(OWN_COLUMNS)
    return Problem(
        HTTPStatus.BAD_REQUEST,
        "bad-body",
        Text("not a list of facts", "不是事实列表"),
        Text(
            f'send JSON such as {{"facts": [{{…}}]}} with 1 to {_AT_ONCE} facts of {names}',
            f'请发送 JSON：{{"facts": [{{…}}]}}，1 至 {_AT_ONCE} 项，字段为 {names}',
        ),
    )


def _faulty(faults: list[MillgateError]) -> Problem:
    first = faults[0]
    title = f"{first.where}: {first.what}" if first.where.startswith("facts[") else first.what
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "bad-fact",
        Text(title, title),
        Text(first.remedy, first.remedy),
        faults=[
            {"where": one.where, "title": one.what, "remedy": one.remedy}
            for one in faults
            if one.where.startswith("facts[")
        ],
    )


def _no_fact() -> Problem:
    return Problem(
        HTTPStatus.NOT_FOUND,
        "no-fact",
        Text("there is no such fact", "没有这项事实"),
        Text("see /api/v1/facts", "请查看 /api/v1/facts"),
    )


def _as_row(fact: Fact) -> dict[str, str | None]:
    cells = dict(zip(COLUMNS, astuple(fact), strict=True))
    return {
        name: None if cell is None or (name == "equipment" and not cell) else str(cell)
        for name, cell in cells.items()
    }


def _answer(document: dict[str, Any]) -> web.Response:
    body = render.encode(document)
    return web.Response(body=body, content_type="application/json", charset="utf-8")

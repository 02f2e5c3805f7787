"""The change feed over HTTP: page by page, or as a stream of server-sent events."""

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

from aiohttp import web

from aggregator.api import render
from aggregator.api.catalog import series_id
from aggregator.api.guard import SCOPE
from aggregator.api.parameters import Parameters
from aggregator.api.problems import Problem, Text, busy
from aggregator.api.scopes import Scope
from aggregator.api.worker import Worker
from aggregator.feed import Change, Feed, Gone, Page
from protocols.frame import SECOND

_LISTED: Final = (500, 5_000)
_AT_ONCE: Final = 500
_MOST_STREAMS: Final = 32
_LOOK_S: Final = 1.0
_ALIVE_EVERY: Final = 15
_LONGEST_S: Final = 600.0

Result = TypeVar("Result")


class Changes:
    """Answers what has changed since a position, so that a platform keeps its copy in step.

    A copy begins with `head`: note it, read every series, then follow from there. Copying rows of
    a change again does no harm.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._worker = Worker("api-feed")
        self._streams = 0

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, all under /api/v1."""
        return [
            web.get("/api/v1/changes", self.changes),
            web.get("/api/v1/stream", self.stream),
        ]

    async def changes(self, request: web.Request) -> web.Response:
        """Return changes after `cursor`; without one, from the oldest that is kept."""
        asked = Parameters(request.query, "cursor", "limit")
        position, limit = asked.cursor(), asked.integer("limit", _LISTED[0], 0, _LISTED[1])

        scope = request[SCOPE]

        def read() -> bytes:
            page = self._feed.read(position, limit)
            document = {
                "changes": [_change(one) for one in page.changes if _sees(scope, one)],
                "next": page.next,
                "head": page.head,
            }
            return render.encode(document)

        body = await self._ask(read)
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send changes as they come; each event's id is the position after it.

        A client that lost the connection goes on from the header Last-Event-ID, as browsers do.
        Without `cursor` and header the stream begins now.
        """
        asked = Parameters(request.query, "cursor")
        position = request.headers.get("Last-Event-ID", "")[:64] or asked.cursor()
        if self._streams >= _MOST_STREAMS:
            raise busy()
        # Asked before the answer begins, so that a position that is gone is refused with 410.
        head = (await self._page(position, 0)).head
        answer = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        self._streams += 1
        try:
            await answer.prepare(request)
            async with asyncio.timeout(_LONGEST_S):
                await self._follow(answer, request[SCOPE], position or head)
        except (TimeoutError, ConnectionResetError):
            return answer
        finally:
            self._streams -= 1
        return answer

    async def _follow(self, answer: web.StreamResponse, scope: Scope, position: str) -> None:
        quiet = 0
        while True:
            try:
                page = await self._page(position, _AT_ONCE)
            except Problem:
                # The client comes again with its position, and is told then.
                return
            mark = position.partition(".")[0]
            for one in filter(partial(_sees, scope), page.changes):
                data = render.encode(_change(one)).decode()
                await answer.write(
                    f"id: {mark}.{one.number}\nevent: change\ndata: {data}\n\n".encode()
                )
            position = page.next
            if page.changes:
                quiet = 0
                continue
            quiet += 1
            if quiet % _ALIVE_EVERY == 1:
                await answer.write(b": alive\n\n")
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """End the thread."""
        await self._worker.close()

    async def _page(self, position: str, limit: int) -> Page:
        return await self._ask(lambda: self._feed.read(position, limit))

    async def _ask(self, call: Callable[[], Result]) -> Result:
        try:
            return await self._worker.run(call)
        except Gone:
            raise Problem(
                HTTPStatus.GONE,
                "position-gone",
                Text("the feed does not reach back to this position", "变更记录已不含此位置"),
                Text(
                    "ask once without cursor and with limit=0, note 'head', read every series anew, "
                    "then follow from there",
                    "请以 limit=0、不带 cursor 请求一次，记下 head，重新读取全部序列，再从 head 继续",
                ),
                parameter="cursor",
            ) from None


def _sees(scope: Scope, one: Change) -> bool:
    if one.kind == "measurement":
        return scope.sees_measurement(one.key.measurement)
    return scope.sees(one.key)


def _change(one: Change) -> dict[str, Any]:
    document: dict[str, Any] = {
        "number": one.number,
        "at": render.time_text(one.at_s * SECOND),
        "kind": one.kind,
    }
    if one.kind == "measurement":
        return document | {"bucket": one.bucket, "measurement": one.key.measurement}
    return document | {
        "series": render.series(series_id(one.bucket, one.key), one.bucket, one.key),
        "first": render.time_text(one.first_ns),
        "last": render.time_text(one.last_ns),
        "rows": one.rows,
    }

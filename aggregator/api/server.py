"""The web server of the aggregator: the read API and the one page."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aiohttp import web

from aggregator import cockpit
from aggregator.api.catalog import Catalog
from aggregator.api.changes import Changes
from aggregator.api.facts import Facts
from aggregator.api.guard import LONGEST_TARGET, AccessLog, add_headers, check_token, guarding
from aggregator.api.knowledge import Knowledge
from aggregator.api.monitoring import Look, Monitoring
from aggregator.api.scopes import Tokens
from aggregator.api.summaries import Summaries
from aggregator.api.terms import Terms
from aggregator.api.views import Views
from aggregator.fact_book import FactBook
from aggregator.feed import Feed
from aggregator.stores import Store
from protocols.errors import ConfigError, MillgateError
from protocols.frame import NowNs
from protocols.language import tr

_LARGEST_BODY: Final = 1024
_LONGEST_LINE: Final = 8 * LONGEST_TARGET
"""What is longer is refused by the library, in its own words, before anybody here sees it."""
_IDLE_S: Final = 75.0
_SHUTDOWN_S: Final = 3.0
_LOOK_S: Final = 3.0

_log = logging.getLogger(__name__)


def make_app(
    stores: Mapping[str, Store],
    knowledge: Knowledge,
    token: str,
    now_ns: NowNs,
    *,
    tokens: Path | None = None,
    look: Look | None = None,
    feed: Feed | None = None,
    terms: Terms | None = None,
    book: FactBook | None = None,
) -> web.Application:
    """Build the web application; call it with an event loop running.

    Args:
        stores: bucket -> store, instances that nothing else uses meanwhile; the caller closes
            them after the server has ended.
        knowledge: who sends, under which release sheets.
        token: what callers of /api must show; the page itself carries no data and needs none.
        tokens: file of further tokens, each good for certain firms and series only.
        now_ns: the wall clock.
        look: tells the condition of the process; without it there are no metrics.
        feed: what has changed; without it changes cannot be asked for.
        terms: local time, disclosure rules and planned time; defaults are UTC, those shipped, none.
        book: what people entered; without it there are no facts to ask for.

    Raises:
        MillgateError: when the token is too weak to be used.
        ConfigError: when the file of tokens has a fault.
    """
    known = Tokens(check_token(token), tokens)
    app = web.Application(middlewares=[guarding(known)], client_max_size=_LARGEST_BODY)
    app.cleanup_ctx.append(_looking(known))
    catalog = Catalog(stores)
    terms = terms or Terms()
    views = Views(catalog, knowledge, now_ns, terms.local)
    app.add_routes(views.routes())
    summaries = Summaries(catalog, terms, now_ns)
    app.add_routes(summaries.routes())
    facts = None if book is None else Facts(book)
    if facts is not None:
        app.add_routes(facts.routes())
    app.add_routes(_page_routes())
    monitoring = Monitoring(look)
    app.add_routes(monitoring.routes())
    changes = None if feed is None else Changes(feed)
    if changes is not None:
        app.add_routes(changes.routes())
    app.on_response_prepare.append(add_headers)

    async def close(_: web.Application) -> None:
        await views.close()
        await summaries.close()
        await monitoring.close()
        if facts is not None:
            await facts.close()
        if changes is not None:
            await changes.close()

    app.on_cleanup.append(close)
    return app


def _looking(tokens: Tokens) -> Callable[[web.Application], AsyncIterator[None]]:
    """Look at the file of tokens every few seconds, so that one that was taken out ends soon."""

    async def look() -> None:
        said = ""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await asyncio.to_thread(tokens.look)
                said = ""
            except ConfigError as fault:
                if str(fault) != said:
                    said = str(fault)
                    _log.error("%s", fault)

    async def run(_: web.Application) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(look(), name="api-tokens")
            yield
            task.cancel()

    return run


@asynccontextmanager
async def serving(
    app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve the application until the context ends; yields the port, chosen by the kernel for 0.

    Raises:
        MillgateError: when the address cannot be listened on.
    """
    runner = web.AppRunner(
        app,
        access_log_class=AccessLog,
        handler_cancellation=True,
        keepalive_timeout=_IDLE_S,
        max_line_size=_LONGEST_LINE,
        shutdown_timeout=_SHUTDOWN_S,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise MillgateError(
                tr("cannot listen here", "无法在此监听"),
                where=f"{host}:{port}",
                remedy=tr(
                    f"choose another address or port ({error.strerror})",
                    f"请更换地址或端口（{error.strerror}）",
                ),
            ) from None
        yield site.port
    finally:
        await runner.cleanup()


def _page_routes() -> list[web.RouteDef]:
    routes: list[web.RouteDef] = []
    for file in cockpit.load():
        serve = _serving_file(file)
        routes.append(web.get(f"/{file.name}", serve))
        if file.name == "index.html":
            routes.append(web.get("/", serve))
    return routes


def _serving_file(file: cockpit.PageFile) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(request: web.Request) -> web.Response:
        known = any(tag.value == file.etag for tag in request.if_none_match or ())
        answer = web.Response(
            status=HTTPStatus.NOT_MODIFIED if known else HTTPStatus.OK,
            body=None if known else file.body,
            content_type=file.content_type,
            charset="utf-8",
            headers={"Cache-Control": "no-cache"},
        )
        answer.etag = file.etag
        return answer

    return serve

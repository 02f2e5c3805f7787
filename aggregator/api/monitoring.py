"""What machines ask that watch over the process: alive, ready, metrics."""

from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from aggregator.api.guard import SCOPE
from aggregator.api.problems import forbidden
from aggregator.api.worker import Worker
from aggregator.condition import Condition
from aggregator.metrics import exposition
from protocols.metrics import CONTENT_TYPE

Look = Callable[[], Condition]


class Monitoring:
    """Answers monitoring.

    `/healthz` and `/readyz` need no token and say one word; `/api/v1/metrics` names factories, so
    it needs the token as all of the API does (Prometheus: `authorization: credentials_file`).

    Args:
        look: tells the condition; it blocks. None where there is no process around the API.
    """

    def __init__(self, look: Look | None) -> None:
        self._look = look
        self._worker = Worker("api-monitoring")

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        alive = [web.get("/healthz", self.healthz)]
        if self._look is None:
            return alive
        return [
            *alive,
            web.get("/readyz", self.readyz),
            web.get("/api/v1/metrics", self.metrics),
        ]

    async def healthz(self, _: web.Request) -> web.Response:
        """Say that the event loop runs."""
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        """Say whether batches can come and series are written."""
        ready = (await self._condition()).ready
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return web.Response(text="ready\n" if ready else "not ready\n", status=status)

    async def metrics(self, request: web.Request) -> web.Response:
        """Return all metrics for Prometheus; they name all firms."""
        if not request[SCOPE].everything:
            raise forbidden()
        text = exposition(await self._condition())
        return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})

    async def close(self) -> None:
        """End the thread."""
        await self._worker.close()

    async def _condition(self) -> Condition:
        if self._look is None:
            raise web.HTTPNotFound
        return await self._worker.run(self._look)

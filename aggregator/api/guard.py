"""What stands around every request: the token, strict headers, one form of refusal, a quiet log."""

import logging
import math
import re
import traceback
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler, Middleware

from aggregator.api.problems import (
    Problem,
    failed,
    of_http,
    response,
    too_long,
    too_many,
    unauthorized,
)
from aggregator.api.scopes import RateLimit, Scope, Tokens, failure_limit, request_limit
from protocols.errors import MillgateError
from protocols.language import tr

_log = logging.getLogger(__name__)

_SHORTEST_TOKEN: Final = 16
_TOKEN: Final = re.compile(rf"[!-~]{{{_SHORTEST_TOKEN},512}}")
_LONGEST_PATH: Final = 200
LONGEST_TARGET: Final = 8190
"""Bytes that path and query of a request may have."""

SCOPE: Final = web.RequestKey("scope", Scope)
"""What the token of a request is good for; every request under /api has one."""

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "object-src 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Server": "millgate",
}


def check_token(token: str) -> bytes:
    """Return the token as the bytes that requests are compared with.

    Raises:
        MillgateError: when it is too short to keep anybody out, or cannot stand in a header.
    """
    if _TOKEN.fullmatch(token) is None:
        raise MillgateError(
            tr("the API token cannot be used", "API 令牌不可用"),
            remedy=tr(
                f"give at least {_SHORTEST_TOKEN} letters and digits, drawn at random",
                f"请用至少 {_SHORTEST_TOKEN} 个随机字母和数字",
            ),
        )
    return token.encode()


def guarding(tokens: Tokens) -> Middleware:
    """Return the middleware that asks for a token and turns every fault into a problem."""
    requests, failures = request_limit(), failure_limit()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if len(request.rel_url.raw_path_qs) > LONGEST_TARGET:
                raise too_long(LONGEST_TARGET)
            if _is_api(request):
                request[SCOPE] = _admitted(request, tokens, requests, failures)
            return await handler(request)
        except Problem as problem:
            return _refuse(request, problem)
        except web.HTTPException as error:
            return _refuse(request, of_http(error))
        except Exception as error:  # noqa: BLE001 - the last wall: text of a fault must not get out
            _log.error("%s %s: %s", request.method, _path(request), _fault(error))
            return _refuse(request, failed())

    return guard


async def add_headers(request: web.Request, answer: web.StreamResponse) -> None:
    """Put the security headers on every answer, refusals included."""
    answer.headers.update(_HEADERS)
    if _is_api(request):
        answer.headers["Cache-Control"] = "no-store"


class AccessLog(AbstractAccessLogger):
    """Logs method, path, status, size and time: no query, no header, no address."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write one line."""
        self.logger.info(
            "%s %s %d %dB %.0fms",
            request.method,
            _path(request),
            response.status,
            response.body_length,
            time * 1000,
        )


def _is_api(request: web.Request) -> bool:
    return request.path == "/api" or request.path.startswith("/api/")


def _admitted(
    request: web.Request, tokens: Tokens, requests: RateLimit, failures: RateLimit
) -> Scope:
    """Return what the request's token is good for.

    Raises:
        Problem: without a right token, or when its owner, or whoever tries tokens, asks too often.
    """
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    offered = given.strip().encode("utf-8", "surrogateescape")
    scope = tokens.find(offered) if scheme.lower() == "bearer" else None
    if scope is None:
        _limit(failures, request.remote or "")
        raise unauthorized()
    _limit(requests, scope.name)
    return scope


def _limit(limit: RateLimit, caller: str) -> None:
    wait_s = limit.take(caller)
    if wait_s:
        raise too_many(math.ceil(wait_s))


def _refuse(request: web.Request, problem: Problem) -> web.Response:
    return response(problem, request.headers.get("Accept-Language", ""))


def _path(request: web.BaseRequest) -> str:
    return request.rel_url.raw_path[:_LONGEST_PATH]  # still percent-encoded: one line stays one


def _fault(error: Exception) -> str:
    if isinstance(error, MillgateError):
        return str(error)  # made for people, and by rule without values
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}"

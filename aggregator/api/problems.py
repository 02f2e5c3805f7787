"""Refusals of the API as RFC 9457 problem documents, in the language the caller asked for."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import web

_LANGUAGES: Final = ("en", "zh")
RETRY_AFTER_S: Final = 5


class Text(NamedTuple):
    """One text in both languages; which one is read is known only when a request comes."""

    en: str
    zh: str


class Problem(Exception):
    """A request that is answered with a problem document.

    Args:
        status: the HTTP status.
        kind: last part of the problem's `type`, a name that never changes.
        title: what is wrong.
        remedy: what the caller can do about it.
        parameter: the query parameter at fault; empty where there is none.
        headers: further headers of the answer.
        faults: every fault of what was sent, where there can be several.
    """

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        title: Text,
        remedy: Text,
        *,
        parameter: str = "",
        headers: Mapping[str, str] | None = None,
        faults: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(title.en)
        self.status = status
        self.kind = kind
        self.title = title
        self.remedy = remedy
        self.parameter = parameter
        self.headers = headers or {}
        self.faults = faults


def bad_parameter(name: str, title: Text, remedy: Text) -> Problem:
    """Return the refusal of a request whose parameter `name` cannot be used."""
    return Problem(HTTPStatus.BAD_REQUEST, "bad-parameter", title, remedy, parameter=name)


def unauthorized() -> Problem:
    """Return the one answer to a missing and to a wrong token; it tells nothing of either."""
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "token-needed",
        Text("a valid token is needed", "需要有效的令牌"),
        Text(
            "send the header 'Authorization: Bearer TOKEN'",
            "请发送请求头 Authorization: Bearer 令牌",
        ),
        headers={"WWW-Authenticate": "Bearer"},
    )


def too_many(after_s: int) -> Problem:
    """Return the answer to a caller that asks too often."""
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too-many",
        Text("too many requests", "请求过多"),
        Text("ask less often; see Retry-After", "请降低频率；见 Retry-After"),
        headers={"Retry-After": str(after_s)},
    )


def too_long(most: int) -> Problem:
    """Return the answer to an address longer than `most` bytes."""
    return Problem(
        HTTPStatus.REQUEST_URI_TOO_LONG,
        "address-too-long",
        Text("the address is too long", "请求地址过长"),
        Text(
            f"send at most {most} bytes: ask for fewer fields, or in several requests",
            f"至多 {most} 字节：请减少字段，或分多次请求",
        ),
    )


def forbidden() -> Problem:
    """Return the answer to a token that is good for other things."""
    return Problem(
        HTTPStatus.FORBIDDEN,
        "not-for-this-token",
        Text("this token is not good for this", "此令牌无权访问该内容"),
        Text("ask the brain's operator for another", "请向产业大脑运维方申请其他令牌"),
    )


def unavailable() -> Problem:
    """Return the answer while a store or the ledger cannot be asked."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        Text("the store does not answer now", "存储暂时没有应答"),
        Text("ask again later; nothing is lost", "请稍后再试；数据没有丢失"),
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def busy() -> Problem:
    """Return the answer to a request that would have to wait behind too many others."""
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "busy",
        Text("too many requests are waiting", "等待中的请求过多"),
        Text("ask again later, and less often", "请稍后再试，并降低频率"),
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def failed() -> Problem:
    """Return the answer to a fault of our own; its cause is in the log, never in the answer."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "failed",
        Text("the request could not be answered", "请求未能完成"),
        Text("the aggregator's log tells why", "原因见汇聚端日志"),
    )


def of_http(error: web.HTTPException) -> Problem:
    """Return the refusal for a path or method that there is none of."""
    status = HTTPStatus(error.status)
    allowed = error.headers.get("Allow")
    return Problem(
        status,
        status.phrase.lower().replace(" ", "-"),
        Text("there is no such thing here", "此处没有所请求的内容"),
        Text("check path and method", "请检查路径与方法"),
        headers={"Allow": allowed} if allowed else None,
    )


def response(problem: Problem, accept_language: str) -> web.Response:
    """Render a problem as application/problem+json."""
    chinese = prefers_chinese(accept_language)
    document: dict[str, object] = {
        "type": f"urn:millgate:problem:{problem.kind}",
        "title": problem.title.zh if chinese else problem.title.en,
        "status": int(problem.status),
        "remedy": problem.remedy.zh if chinese else problem.remedy.en,
    }
    if problem.parameter:
        document["parameter"] = problem.parameter
    if problem.faults:
        document["faults"] = list(problem.faults)
    return web.Response(
        status=problem.status,
        body=json.dumps(document, ensure_ascii=False).encode(),
        content_type="application/problem+json",
        headers={
            **problem.headers,
            "Content-Language": "zh-CN" if chinese else "en",
            "Vary": "Accept-Language",
        },
    )


def prefers_chinese(accept_language: str) -> bool:
    """Tell whether an Accept-Language header ranks Chinese above English; English is default."""
    ranks = dict.fromkeys(_LANGUAGES, 0.0)
    for entry in accept_language[:500].split(","):
        tag, _, weight = entry.partition(";")
        language = tag.strip().lower().partition("-")[0]
        if language in ranks:
            ranks[language] = max(ranks[language], _weight(weight))
    return ranks["zh"] > ranks["en"]


def _weight(text: str) -> float:
    name, _, number = text.strip().partition("=")
    if not name:
        return 1.0
    try:
        return min(max(float(number), 0.0), 1.0) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0

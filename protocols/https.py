"""Our one face on an HTTPS client: one question, one bounded answer, no redirects."""

import ssl
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.tls import refusal

_WAIT_S: Final = 20.0
_CHUNK: Final = 16_384
_HTTPS_PORT: Final = 443


class Unreachable(MillgateError):
    """No answer came; asking again later may help."""


class NotBelieved(MillgateError):
    """The server could not show who it is; asking again does not help."""


def believing(bundle: bytes) -> ssl.SSLContext:
    """Return a context that believes servers of these authorities (PEM) only, by their names.

    Raises:
        NotBelieved: when it holds none.
    """
    try:
        context = ssl.create_default_context(cadata=bundle.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise NotBelieved(tr("not an authority's certificate", "不是证书机构的证书")) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def unbelieving() -> ssl.SSLContext:
    """Return a context that takes any server: good for asking what is then checked otherwise."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def ask_server(
    url: str, context: ssl.SSLContext, limit: int, *, body: bytes | None = None, token: str = ""
) -> tuple[HTTPStatus, bytes]:
    """Ask a server once.

    Args:
        url: https only.
        limit: largest answer, bytes.
        body: what to send, with POST; without it, GET.
        token: shown as bearer token.

    Raises:
        Unreachable: when no whole answer came within the time.
        NotBelieved: when TLS does not take the server for who it should be.
    """
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    method = "GET" if body is None else "POST"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_WAIT_S)) as session,
            session.request(
                method, url, data=body, ssl=context, headers=headers, allow_redirects=False
            ) as answer,
        ):
            found = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                found += chunk
                if len(found) > limit:
                    raise _unreachable(url, tr("its answer is too long", "应答过长"))
            return HTTPStatus(answer.status), bytes(found)
    except aiohttp.ClientConnectorCertificateError as error:
        raise NotBelieved(refusal(error.certificate_error), where=tried(url)) from None
    except aiohttp.ClientSSLError as error:
        raise NotBelieved(
            refusal(error.os_error) or tr("TLS fails", "TLS 失败"), where=tried(url)
        ) from None
    except (aiohttp.ClientConnectorError, TimeoutError):
        raise Unreachable(
            tr("the server cannot be reached", "无法连接服务器"),
            where=tried(url),
            remedy=_look(url),
        ) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _unreachable(url, type(error).__name__) from None


def _unreachable(url: str, why: str) -> Unreachable:
    return Unreachable(
        tr(f"the server does not answer as it should ({why})", f"服务器未正常应答（{why}）"),
        where=tried(url),
        remedy=_look(url),
    )


def tried(url: str) -> str:
    """Return an address with the port that is tried, also where it names none."""
    parts = urlsplit(url)
    if parts.port is not None:
        return url
    host = parts.netloc.rpartition("@")[2].rstrip(":")
    return urlunsplit(parts._replace(netloc=f"{host}:{_HTTPS_PORT}"))


def _look(url: str) -> str:
    look = tr(
        "check address and port, whether it runs, and the network between",
        "请检查地址、端口、对方是否在运行以及网络",
    )
    if urlsplit(url).port is not None:
        return look
    return tr(
        f"no port was given, so {_HTTPS_PORT} was tried; {look}",
        f"未给出端口，因此尝试了 {_HTTPS_PORT}；{look}",
    )

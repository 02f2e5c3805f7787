"""The HTTPS endpoint where factories join."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from aiohttp import web

from aggregator.api.scopes import RateLimit
from aggregator.api.server import serving
from aggregator.authority import log_path, open_authority, open_joining, renew_own
from aggregator.config import AggregatorConfig
from aggregator.joining import Joining, JoiningFault, Terms
from protocols.language import tr
from protocols.tls import server_context
from security.admin_log import record_admin
from security.ca import Authority, Issued, RequestRefused
from security.cards import BrainCard, card_text
from security.certificate_request import life_of
from security.enrolment import (
    AUTHORITY_PATH,
    MOST_BODY,
    PATH,
    RENEWAL_PATH,
    Application,
    Progress,
    Unsound,
    read_message,
)

_BURST: Final = 30.0
_PER_SECOND: Final = 1.0
_AT_ONCE: Final = 16
_BODY_S: Final = 10.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Renewing:
    """What renews certificates.

    Attributes:
        days: how long a new one is valid.
        log: where it is recorded.
    """

    authority: Authority
    days: int
    log: Path


def make_app(
    joining: Joining, terms: Terms, bundle: bytes, renewing: Renewing | None = None
) -> web.Application:
    """Build the endpoint's web application; call it with an event loop running.

    Args:
        joining: used by nothing else meanwhile.
        terms: what every factory that joins is told.
        bundle: the authority's certificates, PEM; anybody may ask for them.
        renewing: what renews certificates; without it, none is.
    """
    desk = _Desk(joining, terms, bundle, renewing)
    app = web.Application(client_max_size=MOST_BODY)
    app.add_routes(
        [
            web.get(AUTHORITY_PATH, desk.authority),
            web.post(PATH, desk.apply),
            web.get(PATH, desk.progress),
            web.post(RENEWAL_PATH, desk.renew),
        ]
    )
    app.on_response_prepare.append(_add_headers)
    return app


@asynccontextmanager
async def desk(config: AggregatorConfig) -> AsyncIterator[int | None]:
    """Let factories join until the context ends; yields the port, None where they cannot join.

    Raises:
        MillgateError: when a key or certificate cannot be used, or the address not be listened on.
    """
    if config.enrolment is None:
        yield None
        return
    enrolment = config.enrolment
    authority = await asyncio.to_thread(open_authority, config)
    await asyncio.to_thread(renew_own, config, authority)
    tls = await asyncio.to_thread(server_context, enrolment.certificate, enrolment.private_key)
    card = BrainCard(
        card="millgate-brain/1",
        name=config.brain.name,
        encryption_key=(await asyncio.to_thread(config.brain.opening)).public,
        receipt_key=(await asyncio.to_thread(config.brain.signer)).public,
    )
    terms = Terms(authority.fingerprint, card_text(card), enrolment.broker_place(config.broker))
    joining = await asyncio.to_thread(open_joining, config)
    try:
        renewing = Renewing(authority, enrolment.client_days, log_path(config))
        app = make_app(joining, terms, authority.bundle, renewing)
        context = believing_clients(tls, authority.bundle)
        async with serving(app, enrolment.host, enrolment.port, context) as port:
            yield port
    finally:
        joining.close()


def believing_clients(context: ssl.SSLContext, bundle: bytes) -> ssl.SSLContext:
    """Let a server's context take certificates of the authority, without asking for one."""
    context.load_verify_locations(cadata=bundle.decode("ascii"))
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


async def _add_headers(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers["Server"] = "millgate"
    answer.headers["Cache-Control"] = "no-store"


class _Desk:
    def __init__(
        self, joining: Joining, terms: Terms, bundle: bytes, renewing: Renewing | None
    ) -> None:
        self._renewing = renewing
        self._joining = joining
        self._terms = terms
        self._bundle = bundle
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._limit = RateLimit(_BURST, _PER_SECOND)

    async def authority(self, _: web.Request) -> web.Response:
        return web.Response(body=self._bundle, content_type="application/x-pem-file")

    async def apply(self, request: web.Request) -> web.Response:
        self._count(request)
        async with self._places:
            try:
                given = read_message(await _body(request), Application)
            except Unsound:
                return _answer(Progress(state="refused", refusal="unsound"))
            async with self._turn:
                progress = await asyncio.to_thread(self._joining.apply, given, self._terms)
        self._tell(given.invitation, progress)
        return _answer(progress)

    async def progress(self, request: web.Request) -> web.Response:
        self._count(request)
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            ticket = bytes.fromhex(shown)
        except ValueError:
            ticket = b""
        async with self._turn:
            found = await asyncio.to_thread(self._joining.progress, ticket, self._terms)
        return _answer(found)

    async def renew(self, request: web.Request) -> web.Response:
        """Give another certificate to whoever shows one that counts."""
        self._count(request)
        serial = _serial_shown(request)
        if serial is None or self._renewing is None:
            raise web.HTTPForbidden
        async with self._places:
            asked = await _body(request)
            async with self._turn:
                try:
                    issued = await asyncio.to_thread(self._issue, serial, asked, self._renewing)
                except (JoiningFault, RequestRefused) as fault:
                    _log.warning("%s: %s", tr("renewal refused", "拒绝续签"), fault)
                    raise web.HTTPForbidden from None
        return web.Response(body=issued.certificate, content_type="application/x-pem-file")

    def _issue(self, serial: int, asked: bytes, renewing: Renewing) -> Issued:
        issued = self._joining.renew(serial, asked, renewing.authority, renewing.days)
        name = life_of(issued.certificate).name
        record_admin(renewing.log, "renew", agent=name, serial=f"{issued.serial:x}")
        return issued

    def _count(self, request: web.Request) -> None:
        wait_s = self._limit.take(request.remote or "")
        if wait_s:
            raise web.HTTPTooManyRequests(headers={"Retry-After": str(int(wait_s) + 1)})

    def _tell(self, invitation: int, progress: Progress) -> None:
        said = {
            "refused": tr(f"refused ({progress.refusal})", f"拒绝（{progress.refusal}）"),
            "waiting": tr("used, waits for approval", "已使用，等待核准"),
            "granted": tr("approved, fetched", "已核准，已取走"),
        }[progress.state]
        _log.log(
            logging.WARNING if progress.state == "refused" else logging.INFO,
            "%s",
            tr(
                f"enrolment: invitation {invitation:04x}: {said}",
                f"接入：邀请 {invitation:04x}：{said}",
            ),
        )


async def _body(request: web.Request) -> bytes:
    """Return the body; who sends it slowly keeps a place that others wait for."""
    try:
        async with asyncio.timeout(_BODY_S):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def _serial_shown(request: web.Request) -> int | None:
    """Return the number of the certificate that the client showed; TLS has verified it."""
    link = request.transport.get_extra_info("ssl_object") if request.transport else None
    shown = link.getpeercert() if link is not None else None
    return int(str(shown["serialNumber"]), 16) if shown else None


def _answer(progress: Progress) -> web.Response:
    status = {
        "waiting": HTTPStatus.ACCEPTED,
        "granted": HTTPStatus.OK,
        "refused": HTTPStatus.FORBIDDEN,
    }[progress.state]
    body = json.dumps(progress.model_dump(mode="json"))
    return web.Response(status=status, text=body, content_type="application/json")

"""Renews the certificate that is shown to the broker, once two thirds of its life have passed.

The brain's endpoint takes the present certificate as proof of who asks. The key stays; a connection
that is made later shows the new certificate, and none is ended for it.
"""

import asyncio
import contextlib
import logging
import random
import time
from http import HTTPStatus
from pathlib import Path
from typing import Final

from agent.config import AgentConfig
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.tls import show_certificate
from security.certificate_request import Life, certifies, life_of, request_for
from security.enrolment import MOST_BODY, RENEWAL_PATH
from security.files import PUBLIC, write_whole

_LOOK_S: Final = 3600.0
_WARN_S: Final = 14 * 86_400
_DAY_S: Final = 86_400

_log = logging.getLogger(__name__)


class NotRenewed(MillgateError):
    """The brain gave no certificate, or one that does not fit."""


async def renew(config: AgentConfig, now_s: int) -> Life | None:
    """Renew the certificate when it is due; return what the new one says, None where nothing was due.

    Raises:
        NotRenewed: when the brain refuses, its answer does not fit, or the disk does not take it.
        Unreachable, NotBelieved: see `protocols.https`.
        KeyFault, TlsFault: when a file of ours cannot be used.
    """
    broker, url = config.broker, config.identity.enrolment
    if not url or broker.certificate is None or broker.private_key is None:
        return None
    old = await asyncio.to_thread(life_in, broker.certificate)
    if now_s < old.renew_s:
        return None
    request = await asyncio.to_thread(request_for, broker.private_key)
    bundle = await asyncio.to_thread(_read, broker.ca_file or broker.certificate)
    from protocols.https import ask_server, believing  # noqa: PLC0415 - its library is large, and few ever need it

    context = believing(bundle)
    await asyncio.to_thread(show_certificate, context, broker.certificate, broker.private_key)
    status, answer = await ask_server(url + RENEWAL_PATH, context, MOST_BODY, body=request)
    if status != HTTPStatus.OK:
        raise _refused(url, tr(f"answer {int(status)}", f"应答 {int(status)}"))
    new = _fitting(answer, request, old, url)
    try:
        await asyncio.to_thread(write_whole, broker.certificate, answer, PUBLIC)
    except OSError as error:
        raise NotRenewed(
            tr("the new certificate cannot be kept", "无法保存新证书"),
            where=str(broker.certificate),
            remedy=error.strerror or "",
        ) from None
    return new


def life_in(path: Path) -> Life:
    """Read what a certificate in a file says of itself.

    Raises:
        MillgateError: when there is none.
    """
    return life_of(_read(path))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MillgateError(
            tr("the certificate cannot be read", "无法读取证书"),
            where=str(path),
            remedy=error.strerror or "",
        ) from None


def _fitting(answer: bytes, request: bytes, old: Life, url: str) -> Life:
    try:
        new = life_of(answer)
    except MillgateError:
        new = old
    if not certifies(answer, request) or new.name != old.name or new.ends_s <= old.ends_s:
        raise _refused(url, tr("what it gave does not fit", "所发证书不符"))
    return new


def _refused(url: str, why: str) -> NotRenewed:
    return NotRenewed(
        tr(f"the brain does not renew our certificate ({why})", f"产业大脑未续签本机证书（{why}）"),
        where=url,
        remedy=tr(
            "ask its operator; or join again with a new code",
            "请询问其管理员；或用新邀请码重新接入",
        ),
    )


async def keep_renewed(config: AgentConfig) -> None:
    """Look every hour until cancelled; what fails is told, and tried again in an hour."""
    while True:
        await _look(config)
        await asyncio.sleep(_LOOK_S * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret


async def _look(config: AgentConfig) -> None:
    now_s = time.time_ns() // SECOND
    try:
        new = await renew(config, now_s)
    except MillgateError as fault:
        _log.warning("certificate_not_renewed: %s", fault)
    else:
        if new is not None:
            days = (new.ends_s - now_s) // _DAY_S
            _log.info(
                "%s",
                tr(
                    f"the certificate for the broker is renewed, for {days} days",
                    f"与消息代理连接的证书已续签，有效期 {days} 天",
                ),
            )
    if config.broker.certificate is not None:
        with contextlib.suppress(MillgateError):
            await asyncio.to_thread(_warn, config.broker.certificate, now_s)


def _warn(path: Path, now_s: int) -> None:
    left_s = life_in(path).ends_s - now_s
    if left_s <= 0:
        _log.error(
            "certificate_ended: %s",
            tr(
                "the broker takes our certificate no more; join again with a new code",
                "消息代理不再接受本机证书；请用新邀请码重新接入",
            ),
        )
    elif left_s < _WARN_S:
        _log.warning(
            "certificate_ends: %s",
            tr(
                f"the certificate for the broker ends in {left_s // _DAY_S} days",
                f"与消息代理连接的证书将在 {left_s // _DAY_S} 天后到期",
            ),
        )

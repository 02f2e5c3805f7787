"""Joining a brain with a code: the factory's side.

Everything that is sent is written down first, so that the same step done twice, after a crash or a
lost answer, says the same again and gets the same. Nothing is sent before the server's authority was
compared with the code.
"""

import asyncio
import hashlib
import json
import random
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from agent.founding import SIGNING, BrokerWords, Keys, write_agent
from protocols.errors import MillgateError
from protocols.https import Unreachable, ask_server, believing, unbelieving
from protocols.language import tr
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security.at_rest import KeyFault
from security.ca import fingerprint_of
from security.cards import AgentCard, BrainCard, card_from_text, check_threshold
from security.certificate_request import certifies, life_of, make_private_key
from security.enrolment import (
    AUTHORITY_PATH,
    MOST_BODY,
    PATH,
    Application,
    Grant,
    Progress,
    Record,
    Refusal,
    make_record,
    read_message,
    sign_record,
)
from security.files import PUBLIC, write_whole
from security.joining_code import PIN_BYTES, Code, bind
from security.keys import SealingKey

_FIRST_S: Final = 1.0
_LONGEST_S: Final = 10.0
_TICKET_BYTES: Final = 32
_UNDER_WAY: Final = "joining.json"


class JoiningFault(MillgateError):
    """The factory did not join, or not yet."""


@dataclass(frozen=True, slots=True)
class Errand:
    """A joining under way, as it is written down.

    Attributes:
        ticket: by which this agent asks how its application goes.
        audit: the firm's public audit key.
        authority: PEM of the authority that the code names.
        signer: where the signing key is.
    """

    application: Application
    ticket: bytes
    audit: SealingKey
    authority: bytes
    signer: str

    def card(self, address: Address) -> AgentCard:
        """Return the agent's card."""
        return Record.model_validate_json(self.application.record).card(address)


def base_url(code: Code, url: str) -> str:
    """Return where the endpoint is; `url` wins over what the code says.

    Raises:
        JoiningFault: when neither says it, or it is not HTTPS.
    """
    found = url or (f"https://{code.host}" if code.host else "")
    parts = urlsplit(found if "//" in found else f"https://{found}")
    try:
        sound = parts.scheme == "https" and parts.hostname and (parts.port or True)
    except ValueError:
        sound = False
    if not sound or parts.query or parts.username:
        raise JoiningFault(
            tr(
                "where is the brain? This is no HTTPS address",
                "缺少产业大脑地址，或不是 HTTPS 地址",
            ),
            where=found or "--url",
            remedy=tr(
                "give the whole code, or --url https://HOST:PORT",
                "请提供完整邀请码，或 --url https://主机:端口",
            ),
        )
    return f"https://{parts.netloc}{parts.path.rstrip('/')}"


async def meet(base: str, code: Code) -> bytes:
    """Ask the server for its authority, and compare it with the code; return it, PEM.

    Raises:
        JoiningFault: when it is another; nothing but the question was sent.
        Unreachable: when no answer came.
    """
    status, bundle = await ask_server(f"{base}{AUTHORITY_PATH}", unbelieving(), MOST_BODY)
    try:
        right = status == HTTPStatus.OK and fingerprint_of(bundle)[:PIN_BYTES] == code.pin
    except KeyFault:
        right = False
    if not right:
        raise JoiningFault(
            tr(
                "this server is not the one that the code names; nothing was sent",
                "此服务器不是邀请码所指的服务器；未发送任何内容",
            ),
            where=base,
            remedy=tr(
                "check code and address; if both are right, somebody is in between: tell the brain "
                "by phone",
                "请核对邀请码与地址；若均无误，则有人从中拦截：请电话告知产业大脑",
            ),
        )
    return bundle


def prepare(
    folder: Path, code: Code, approval: str, keys: Keys, threshold: int, ca: bytes
) -> Errand:
    """Make the application, and write it down before anything is sent.

    Args:
        approval: digits of the approval code; they are bound to the application and forgotten.
        ca: the authority, PEM.

    Raises:
        KeyFault: when the key for the certificate cannot be made.
        JoiningFault: when fewer officers are named than must sign.
    """
    try:
        check_threshold(keys.officers, threshold)
    except ValueError as error:
        raise JoiningFault(str(error), where="--threshold") from None
    request = make_private_key(folder / "keys" / "client.key")
    ticket = secrets.token_bytes(_TICKET_BYTES)
    record = make_record(
        Record(
            record="millgate-enrolment/1",
            authority=fingerprint_of(ca),
            request=hashlib.sha256(request).digest(),
            ticket=hashlib.sha256(ticket).digest(),
            signing_key=keys.signing.public,
            attestation_key=keys.attestation.public,
            officers=keys.officers,
            threshold=threshold,
        )
    )
    application = Application(
        invitation=code.invitation,
        secret=code.secret.reveal(),
        record=record,
        request=request.decode(),
        signature=sign_record(record, keys.signing),
        attestation=sign_record(record, keys.attestation),
        approval=bind(approval, record.encode()),
    )
    errand = Errand(application, ticket, keys.audit, ca, keys.signer)
    body = {
        "application": application.model_dump(mode="json"),
        "ticket": ticket.hex(),
        "audit": keys.audit.to_text(),
        "authority": ca.decode(),
        "signer": keys.signer,
    }
    write_whole(folder / _UNDER_WAY, json.dumps(body, indent=1).encode())
    return errand


def under_way(folder: Path, code: Code) -> Errand | None:
    """Return what was written down for this code; None where there is nothing."""
    try:
        body = json.loads((folder / _UNDER_WAY).read_bytes())
        application = Application.model_validate(body["application"])
        errand = Errand(
            application,
            bytes.fromhex(body["ticket"]),
            SealingKey.from_text(body["audit"]),
            body["authority"].encode(),
            str(body.get("signer", SIGNING)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    same = application.invitation == code.invitation
    return errand if same and application.secret == code.secret.reveal() else None


async def apply(base: str, errand: Errand) -> Progress:
    """Send the application; sent again, it changes nothing.

    Raises:
        JoiningFault: when it is refused.
        Unreachable, NotBelieved: see `protocols.https`.
    """
    body = json.dumps(errand.application.model_dump(mode="json")).encode()
    context = believing(errand.authority)
    return _judged(await ask_server(base + PATH, context, MOST_BODY, body=body), base)


async def wait(
    base: str, errand: Errand, progress: Progress, wait_s: float, say: Callable[[str], None]
) -> Grant:
    """Ask how it goes until it is decided.

    Args:
        progress: what was heard last.
        say: tells the person something.

    Raises:
        JoiningFault: when it is refused, or not decided within `wait_s` seconds.
    """
    context = believing(errand.authority)
    pause = _FIRST_S
    try:
        async with asyncio.timeout(wait_s):
            while progress.grant is None:
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret
                pause = min(1.5 * pause, _LONGEST_S)
                progress = await _ask(base, context, errand, progress, say)
    except TimeoutError:
        raise JoiningFault(
            tr("not approved yet", "尚未核准"),
            where=base,
            remedy=tr(
                "give the same command again later; it goes on where it was",
                "请稍后执行同一命令；将从中断处继续",
            ),
        ) from None
    return progress.grant


async def _ask(
    base: str,
    context: ssl.SSLContext,
    errand: Errand,
    last: Progress,
    say: Callable[[str], None],
) -> Progress:
    try:
        answer = await ask_server(base + PATH, context, MOST_BODY, token=errand.ticket.hex())
    except Unreachable as fault:
        say(str(fault))
        return last
    return last if answer[0] == HTTPStatus.TOO_MANY_REQUESTS else _judged(answer, base)


def install(folder: Path, errand: Errand, grant: Grant, base: str = "") -> AgentCard:
    """Write what was granted, so that `agent run` can go on; agent.toml comes last.

    Raises:
        JoiningFault: when what was granted does not fit what was asked for.
    """
    card = errand.card(Address(grant.factory, grant.agent))
    certificate = grant.certificate.encode()
    try:
        card_from_text(grant.brain.encode(), BrainCard)
        right = certifies(certificate, errand.application.request.encode())
        right = right and life_of(certificate).name == grant.agent.hex()
    except (Malformed, MillgateError):
        right = False
    if not right:
        raise JoiningFault(
            tr("what was granted does not fit what was asked for", "所授予内容与申请不符"),
            remedy=tr(
                "tell the brain; begin again with a new code", "请告知产业大脑，并用新邀请码重来"
            ),
        )
    write_whole(folder / "keys" / "ca.pem", errand.authority, PUBLIC)
    write_whole(folder / "keys" / "client.pem", certificate, PUBLIC)
    write_whole(folder / "brain.card", grant.brain.encode(), PUBLIC)
    place = grant.broker
    tls: dict[str, str | bool] = (
        {
            "tls": True,
            "ca_file": "keys/ca.pem",
            "certificate": "keys/client.pem",
            "private_key": "keys/client.key",
        }
        if place.tls
        else {}
    )
    broker = BrokerWords(place.host, place.port, place.protocol, tls)
    identity = {"signing_key": errand.signer}
    if base and place.tls:
        identity["enrolment"] = base
    write_agent(folder, card, errand.audit, broker, ["brain.card"], identity)
    (folder / _UNDER_WAY).unlink(missing_ok=True)
    return card


def _judged(answer: tuple[HTTPStatus, bytes], base: str) -> Progress:
    status, body = answer
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        raise JoiningFault(
            tr("the brain was asked too often", "请求过于频繁"),
            where=base,
            remedy=tr("wait a minute, then give the same command again", "请一分钟后重试"),
        )
    progress = read_message(body, Progress)
    if progress.state == "refused" or (progress.state == "granted" and progress.grant is None):
        what, remedy = _words(progress.refusal or "unsound")
        raise JoiningFault(what, where=base, remedy=remedy)
    return progress


def _words(why: Refusal) -> tuple[str, str]:
    """Return what a refusal means, and what to do."""
    again = tr("ask the brain for a new code", "请向产业大脑索取新的邀请码")
    return {
        "unknown": (tr("the brain does not know this code", "产业大脑不认识此邀请码"), again),
        "expired": (tr("the code has expired", "邀请码已过期"), again),
        "used": (
            tr("the code was used already, by another machine", "邀请码已被另一台机器使用"),
            tr(
                "tell the brain by phone: somebody else may have it",
                "请电话告知产业大脑：邀请码可能已泄露",
            ),
        ),
        "locked": (
            tr("the code is locked: wrong ones were tried too often", "邀请码已锁定：错误尝试过多"),
            again,
        ),
        "unsound": (
            tr("the brain cannot use what was sent", "产业大脑无法使用所发送的内容"),
            again,
        ),
        "refused": (tr("the brain refused the application", "产业大脑拒绝了申请"), again),
        "late": (tr("the application was not approved in time", "申请未在期限内核准"), again),
    }[why]

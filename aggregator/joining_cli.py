"""`millgate aggregator authority | invite | approve | refuse`: who may join."""

import re
import secrets
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from aggregator.authority import (
    REVOKED,
    enrolment_of,
    log_path,
    make_authority,
    open_authority,
    open_joining,
)
from aggregator.config import AggregatorConfig, read_config
from aggregator.joining import Applicant, Joining, JoiningFault
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.status import ask
from protocols.topics import ID_BYTES, Address
from security.admin_log import record_admin
from security.cards import AgentCard, card_text
from security.files import PUBLIC, write_whole
from security.joining_code import new_approval, read_approval

_MAIN: Final = "main"
_NAME: Final = re.compile(r"[^\W_](?:[\w\- ]{0,62}[\w])?")

ConfigPath = Annotated[
    Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
]
Place = Annotated[str, typer.Argument(help=tr("name, or NAME/SITE", "企业名称，或 企业/厂区"))]

_AUTHORITY: Final = tr(
    "Make the certificate authority and this machine's certificates, or show the authority.\n\n"
    "Example: millgate aggregator authority brain/aggregator.toml",
    "生成证书机构及本机证书，或显示证书机构。\n\n"
    "示例：millgate aggregator authority brain/aggregator.toml",
)
_INVITE: Final = tr(
    "Invite a factory: one code to send, one to read out by phone. Nothing is accepted before "
    "'approve'.\n\n"
    "Example: millgate aggregator invite brain/aggregator.toml huafeng --site weaving",
    "邀请工厂接入：一个邀请码用于发送，一个核准码电话告知。执行 approve 之前不接受任何数据。\n\n"
    "示例：millgate aggregator invite brain/aggregator.toml 华丰 --site 织造",
)
_APPROVE: Final = tr(
    "Approve a factory that used its invitation, with the approval code of that invitation.\n\n"
    "Example: millgate aggregator approve brain/aggregator.toml huafeng 4821-9930-1250",
    "用邀请时的核准码核准工厂接入。\n\n"
    "示例：millgate aggregator approve brain/aggregator.toml 华丰 4821-9930-1250",
)
_REFUSE: Final = tr(
    "Refuse a factory that waits for approval.\n\n"
    "Example: millgate aggregator refuse brain/aggregator.toml huafeng",
    "拒绝等待核准的工厂。\n\n示例：millgate aggregator refuse brain/aggregator.toml 华丰",
)


def authority(path: ConfigPath) -> None:
    """Make the authority, or show it."""
    config = read_config(path)
    made = make_authority(config)
    enrolment = enrolment_of(config)
    ends = datetime.fromtimestamp(made.ends_s, UTC)
    encryption, receipt = config.brain.opening().public.kid, config.brain.signer().public.kid
    typer.echo(
        tr(
            f"authority   {enrolment.authority}, until {ends:%Y-%m-%d}\n"
            f"fingerprint {made.fingerprint.hex()}\n"
            f"encryption  {encryption.hex()}\n"
            f"receipt     {receipt.hex()}\n"
            f"servers     {enrolment.certificate}: {', '.join(enrolment.server_names())}\n"
            f"revoked     {enrolment.authority.with_name(REVOKED)}",
            f"证书机构 {enrolment.authority}，有效至 {ends:%Y-%m-%d}\n"
            f"指纹     {made.fingerprint.hex()}\n"
            f"加密密钥 {encryption.hex()}\n"
            f"回执密钥 {receipt.hex()}\n"
            f"服务器   {enrolment.certificate}：{', '.join(enrolment.server_names())}\n"
            f"吊销列表 {enrolment.authority.with_name(REVOKED)}",
        )
    )


def invite(
    path: ConfigPath,
    name: Annotated[str, typer.Argument(help=tr("what the brain calls the firm", "企业名称"))],
    site: Annotated[str, typer.Option(help=tr("and its site", "厂区"))] = _MAIN,
    minutes: Annotated[
        int, typer.Option(help=tr("how long the code is good", "邀请码有效分钟数"), min=1, max=120)
    ] = 15,
) -> None:
    """Invite a factory."""
    config = read_config(path)
    enterprise, site = _word(name), _word(site)
    enrolment = enrolment_of(config)
    fingerprint = open_authority(config).fingerprint
    _check_free(config, enterprise, site)
    joining = open_joining(config)
    try:
        factory = _factory_id(config, joining, enterprise)
        if joining.is_invited(enterprise, site):
            typer.echo(
                tr(
                    "The code that was given before for this place no longer counts.",
                    "此前为该处发出的邀请码即告失效。",
                )
            )
        record_admin(log_path(config), "invite", enterprise=enterprise, site=site, minutes=minutes)
        code = joining.invite(enterprise, site, factory, minutes, fingerprint, enrolment.reached_at)
    finally:
        joining.close()
    approval = new_approval()
    typer.echo(
        tr(
            f"Invitation {code.invitation:04x} for {enterprise}/{site}: once, within {minutes} minutes.\n\n"
            f"  Send this code to the factory:\n    {code.to_text()}\n"
            f"  Read this approval code out by phone to its data officer; never write it down "
            f"beside the code:\n    {approval}\n\n"
            f"In the factory:  millgate agent enroll CODE\n"
            f"Then here:       millgate aggregator approve {path} {_shown(enterprise, site)}",
            f"{enterprise}/{site} 的邀请 {code.invitation:04x}：{minutes} 分钟内有效，仅限一次。\n\n"
            f"  将此邀请码发送给工厂：\n    {code.to_text()}\n"
            f"  将此核准码电话告知其数据官，切勿与邀请码写在一起：\n    {approval}\n\n"
            f"在工厂执行：  millgate agent enroll 邀请码\n"
            f"随后在此执行：millgate aggregator approve {path} {_shown(enterprise, site)}",
        )
    )
    _warn_unless_running(config)


def approve(
    path: ConfigPath,
    place: Place,
    approval: Annotated[
        str,
        typer.Argument(
            help=tr("the approval code; asked for without it", "核准码；不给出则会询问")
        ),
    ] = "",
) -> None:
    """Approve a factory."""
    config = read_config(path)
    joining = open_joining(config)
    try:
        found = _find(joining, place)
        if found.state == "granted":
            _keep_card(config, found.enterprise, found.site, found.card())
            typer.echo(tr(f"{found.name} is approved already.", f"{found.name} 已核准。"))
            return
        _check_free(config, found.enterprise, found.site, found.address)
        _show(found)
        digits = read_approval(
            approval or typer.prompt(tr("approval code of the invitation", "邀请时的核准码"))
        )
        _approve(config, joining, found, digits)
    finally:
        joining.close()
    typer.echo(
        tr(
            f"{found.name} has joined. Its data counts once its officers have signed a policy.",
            f"{found.name} 已接入。其数据官签署策略后，数据即生效。",
        )
    )


def _approve(config: AggregatorConfig, joining: Joining, found: Applicant, digits: str) -> None:
    log = log_path(config)
    who = {"agent": found.address.agent.hex(), "enterprise": found.enterprise, "site": found.site}
    try:
        joining.check_approval(found, digits)
    except JoiningFault:
        record_admin(log, "approval-failed", **who)
        raise
    officers = " ".join(key.kid.hex() for key in found.card().officers)
    record_admin(log, "approve", **who, officers=officers)
    issued = open_authority(config).issue_client(
        found.request, found.address.agent.hex(), enrolment_of(config).client_days
    )
    joining.approve(
        found, issued, lambda card: _keep_card(config, found.enterprise, found.site, card)
    )


def refuse(path: ConfigPath, place: Place) -> None:
    """Refuse a factory."""
    config = read_config(path)
    joining = open_joining(config)
    try:
        found = _find(joining, place)
        if found.state == "granted":
            raise MillgateError(
                tr("this factory has joined already", "该工厂已接入"),
                where=found.name,
                remedy=tr("revoke its keys instead", "请改为吊销其密钥"),
            )
        record_admin(
            log_path(config), "refuse", agent=found.address.agent.hex(), enterprise=found.enterprise
        )
        joining.refuse(found)
    finally:
        joining.close()
    typer.echo(tr(f"{found.name} is refused.", f"已拒绝 {found.name}。"))


def _show(found: Applicant) -> None:
    card = found.card()
    officers = "\n".join(f"  {key.kid.hex()}  {key.to_text()}" for key in card.officers)
    at = datetime.fromtimestamp(found.at_s, UTC)
    typer.echo(
        tr(
            f"{found.name} applied at {at:%Y-%m-%d %H:%M}Z as agent {card.agent.hex()}.\n"
            f"{card.threshold} of these officers must sign a policy:\n{officers}",
            f"{found.name} 于 {at:%Y-%m-%d %H:%M}Z 申请，代理程序 {card.agent.hex()}。\n"
            f"策略须由以下数据官中的 {card.threshold} 人签署：\n{officers}",
        )
    )


def _find(joining: Joining, place: str) -> Applicant:
    enterprise, _, site = place.partition("/")
    wanted = (_word(enterprise), _word(site or _MAIN))
    waiting = [one for one in joining.waiting() if (one.enterprise, one.site) == wanted]
    if waiting:
        return waiting[-1]
    joined = [
        one
        for one in joining.applicants()
        if (one.enterprise, one.site) == wanted and one.state == "granted"
    ]
    if joined:
        return joined[-1]
    names = ", ".join(one.name for one in joining.waiting()) or tr("nobody", "无")
    raise MillgateError(
        tr("nobody of this name waits for approval", "没有此名称的工厂等待核准"),
        where=place,
        remedy=tr(f"waiting: {names}", f"等待核准：{names}"),
    )


def _keep_card(config: AggregatorConfig, enterprise: str, site: str, card: AgentCard) -> None:
    write_whole(_card_path(config, enterprise, site), card_text(card).encode(), PUBLIC)


def _card_path(config: AggregatorConfig, enterprise: str, site: str) -> Path:
    name = enterprise if site == _MAIN else f"{enterprise}.{site}"
    return config.brain.factories / f"{name}.card"


def _check_free(
    config: AggregatorConfig, enterprise: str, site: str, own: Address | None = None
) -> None:
    """Check that no other agent has this name; its own card may be there after a crash."""
    taken = any(
        (one.enterprise, one.site) == (enterprise, site) and address != own
        for address, one in config.factories().items()
    )
    if taken:
        raise MillgateError(
            tr("there is an agent of this name already", "已有同名的代理程序"),
            where=_shown(enterprise, site),
            remedy=tr(
                "give another --site, or take its card out of the folder of factories first",
                "请用 --site 指定其他厂区，或先将其名片移出 factories 目录",
            ),
        )


def _factory_id(config: AggregatorConfig, joining: Joining, enterprise: str) -> bytes:
    """Return the id of the firm: that of its other agents, or a new one."""
    known = [
        address.factory
        for address, one in config.factories().items()
        if one.enterprise == enterprise
    ]
    known += [
        one.address.factory
        for one in joining.applicants()
        if one.enterprise == enterprise and one.state != "refused"
    ]
    return known[0] if known else secrets.token_bytes(ID_BYTES)


def _word(text: str) -> str:
    """Return a name that may stand in a file's name and in a column."""
    plain = unicodedata.normalize("NFC", text.strip())
    if _NAME.fullmatch(plain) is None:
        raise MillgateError(
            tr("this name cannot be used", "此名称不可用"),
            where=text[:64],
            remedy=tr(
                "use letters (also Chinese), digits, '-', '_' and spaces, at most 64",
                "请使用文字、数字、-、_ 和空格，最多 64 个字符",
            ),
        )
    return plain


def _shown(enterprise: str, site: str) -> str:
    return enterprise if site == _MAIN else f"{enterprise}/{site}"


def _warn_unless_running(config: AggregatorConfig) -> None:
    try:
        ask(config.socket)
    except MillgateError:
        typer.echo(
            tr(
                f"\nThe aggregator does not run: start it, or nobody can join "
                f"(millgate aggregator run {config.path}).",
                f"\n聚合器未运行：请先启动，否则无法接入（millgate aggregator run {config.path}）。",
            ),
            err=True,
        )


def mount(app: typer.Typer) -> None:
    """Add the commands to `millgate aggregator`."""
    app.command("authority", help=_AUTHORITY)(authority)
    app.command("invite", help=_INVITE)(invite)
    app.command("approve", help=_APPROVE)(approve)
    app.command("refuse", help=_REFUSE)(refuse)

"""`millgate agent enroll`: join a brain with one code."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from agent.founding import (
    make_keys,
    next_steps,
    notes_of,
    refuse_configured,
)
from protocols.language import tr
from security.cards import read_brain_card
from security.joining_code import read_approval, read_code
from security.token_cli import SignerPlace

_HELP: Final = tr(
    "Join a brain with the code of an invitation.\n\n"
    "Makes the keys here, compares the server with the code before anything is sent, and waits for "
    "the brain's approval. Stopped in between, the same command goes on where it was.\n\n"
    "Example: millgate agent enroll 7Q2M-…-X4KD@brain.example:8751 mill",
    "用邀请码接入产业大脑。\n\n"
    "密钥在本机生成；发送任何内容之前先核对服务器与邀请码，然后等待产业大脑核准。"
    "中途停止后，执行同一命令即可继续。\n\n"
    "示例：millgate agent enroll 7Q2M-…-X4KD@brain.example:8751 mill",
)


def enroll(
    code: Annotated[str, typer.Argument(help=tr("the invitation's code", "邀请码"))],
    folder: Annotated[Path, typer.Argument(help=tr("new folder", "新目录"))] = Path("mill"),
    url: Annotated[
        str, typer.Option(help=tr("where the brain is, instead of as the code says", "改用此地址"))
    ] = "",
    approval: Annotated[
        str,
        typer.Option(
            help=tr(
                "the approval code that was read out by phone; asked for without it",
                "电话告知的核准码；不给出则会询问",
            )
        ),
    ] = "",
    officer: Annotated[
        list[str] | None,
        typer.Option(help=tr("a data officer's public key (repeatable)", "数据官公钥（可重复）")),
    ] = None,
    threshold: Annotated[
        int,
        typer.Option(
            help=tr("how many officers must sign a policy", "策略需要几名数据官签名"), min=1, max=16
        ),
    ] = 1,
    audit: Annotated[
        Path | None,
        typer.Option(help=tr("file with the firm's public audit key", "企业审计公钥文件")),
    ] = None,
    wait: Annotated[
        int, typer.Option(help=tr("minutes to wait for approval", "等待核准的分钟数"), min=0)
    ] = 30,
    signer: SignerPlace = None,
) -> None:
    """Join a brain with one code."""
    asyncio.run(
        enroll_now(
            code,
            folder,
            approval=approval,
            minutes=wait,
            url=url,
            officers=officer or [],
            threshold=threshold,
            audit=audit,
            signer=signer,
        )
    )


async def enroll_now(
    text: str,
    folder: Path,
    *,
    approval: str,
    minutes: float,
    url: str = "",
    officers: Sequence[str] = (),
    threshold: int = 1,
    audit: Path | None = None,
    signer: Path | None = None,
) -> None:
    """Join with the code in `text`, or go on where that was left; see the command's help.

    Raises:
        MillgateError: when the factory did not join.
    """
    from agent import enrolling  # noqa: PLC0415 - the command line starts fast without it

    code = read_code(text)
    refuse_configured(folder)
    base = enrolling.base_url(code, url)
    errand = enrolling.under_way(folder, code)
    if errand is None:
        digits = read_approval(approval or _ask_approval())
        authority = await enrolling.meet(base, code)
        making = partial(make_keys, signer=signer, again=True)
        keys = await asyncio.to_thread(making, folder, officers, audit)
        errand = await asyncio.to_thread(
            enrolling.prepare, folder, code, digits, keys, threshold, authority
        )
    progress = await enrolling.apply(base, errand)
    if progress.grant is None:
        typer.echo(
            tr(
                "The application is there. Waiting for the brain to approve it.",
                "申请已送达，等待产业大脑核准。",
            )
        )
    grant = progress.grant or await enrolling.wait(base, errand, progress, 60.0 * minutes, _say)
    await asyncio.to_thread(enrolling.install, folder, errand, grant, base)
    brain = read_brain_card(folder / "brain.card")
    lines = [
        tr(
            f"This factory has joined {brain.name}. The agent is configured in {folder}.",
            f"本厂已接入 {brain.name}。代理程序已在 {folder} 中配置。",
        ),
        *notes_of(folder),
        tr(
            "Nothing leaves before the data officer has signed a policy that names the brain's keys. "
            "Compare them by phone:",
            "在数据官签署写明产业大脑密钥的策略之前，不外发任何数据。请电话核对密钥：",
        ),
        "  " + tr("encryption", "加密密钥") + f" {brain.encryption_key.kid.hex()}",
        "  " + tr("receipt   ", "回执密钥") + f" {brain.receipt_key.kid.hex()}",
        next_steps(folder),
    ]
    typer.echo("\n".join(lines))


def _ask_approval() -> str:
    asked: str = typer.prompt(
        tr("approval code (read out by phone, 12 digits)", "核准码（电话告知，12 位数字）")
    )
    return asked


def _say(text: str) -> None:
    typer.echo(text, err=True)


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate agent`."""
    app.command("enroll", help=_HELP)(enroll)
    # The other spelling of the word is right as well.
    app.command("enrol", help=_HELP, hidden=True)(enroll)

"""`millgate keys`, with the commands that look into the agent's folder: list, rotate, revoke."""

import time
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from agent.chains import chain_ends
from agent.config import AgentConfig, read_config
from agent.listed_keys import NoSuchKey, choose, list_path, next_key, ours, read_list
from agent.spool import Spool
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.strict_cbor import Malformed
from protocols.words import instead_of
from security.at_rest import asked
from security.cli import keys_app
from security.files import write_whole
from security.key_list import (
    COMPROMISED,
    LOST,
    REPLACED,
    KeyList,
    Mark,
    NotNext,
    first_list,
    with_key,
    without_key,
)
from security.key_signing import read_mark, rows, sign_list, write_draft
from security.keys import create_key_file
from security.keys_cli import say_progress, show_rows
from security.schemes import ED25519, P256
from security.signers import load_signer, load_token
from security.token_cli import SignerPlace

app = keys_app

AgentPath = Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))]
OfficerKeys = Annotated[
    list[Path] | None,
    typer.Option(
        help=tr(
            "sign with this officer's key at once (repeatable)", "立即用此数据官私钥签署（可重复）"
        )
    ),
]

_WHY: Final = {"replaced": REPLACED, "compromised": COMPROMISED, "lost": LOST}


@app.command(
    "list",
    help=tr(
        "List the keys that sign for an agent: since where, until where, and which is here.\n\n"
        "Example: millgate keys list mill/agent.toml",
        "列出为代理程序签名的密钥：起止位置，以及哪个在本机。\n\n示例：millgate keys list mill/agent.toml",
    ),
)
def show(path: AgentPath) -> None:
    """List the keys that sign for an agent."""
    config = read_config(path)
    here = ours(config)
    _, found = read_list(config)
    known = found or first_list(config.identity.address, here[0].public)
    typer.echo(
        tr(f"list {known.number}:", f"第 {known.number} 版清单：")
        if found
        else tr("no list yet; the key on the card counts:", "尚无清单，以名片上的密钥为准：")
    )
    show_rows(rows(known))
    try:
        kid = choose(here, found).public.kid.hex()[:8]
        typer.echo(tr(f"{kid} signs", f"当前由 {kid} 签署"))
    except NoSuchKey as fault:
        typer.echo(str(fault), err=True)
        raise typer.Exit(1) from None
    if next_key(config).exists() and here[-1].public not in [one.key for one in known.records]:
        typer.echo(
            tr(
                f"{next_key(config)} waits for the officers' signatures",
                f"{next_key(config)} 等待数据官签名",
            )
        )


@app.command(
    "rotate",
    help=tr(
        "Make a new signing key and the list that lets it take over. The old key counts beside it until "
        "it is revoked.\n\nExample: millgate keys rotate mill/agent.toml",
        "生成新签名密钥及其接替清单。旧密钥在撤销前同时有效。\n\n示例：millgate keys rotate mill/agent.toml",
    ),
)
def rotate(
    path: AgentPath,
    key: OfficerKeys = None,
    scheme: Annotated[str, typer.Option(help="ed25519 | p256")] = "ed25519",
    token: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "socket of a token's service that holds the new key", "保存新密钥的令牌服务套接字"
            )
        ),
    ] = None,
    signer: SignerPlace = None,
) -> None:
    """Make a new signing key and the list that lets it take over."""
    config = read_config(path)
    known = _known(config)
    held = Path(f"token:{token}") if token is not None else signer
    if held is not None:
        public = load_token(held).public
    else:
        place = _place_for_next(config, known)
        kind = _kind(scheme)
        create_key_file(place, kind, config.identity.words())
        public = config.identity.signer_at(place).public
        typer.echo(tr(f"{place}: the new key", f"{place}：新密钥"))
    try:
        following = with_key(known, public, _here(config), _now_s())
    except Malformed:
        raise MillgateError(
            tr(
                "this key is listed already, or no further one has room in the list",
                "此密钥已在清单中，或清单已满",
            ),
            where=str(held or path),
            remedy=tr(
                "give a new key; for what a list is, see docs/keys.md",
                "请提供新密钥；清单的说明见 docs/keys.zh-CN.md",
            ),
        ) from None
    _hand_on(config, following, key or [])


@app.command(
    "revoke",
    help=tr(
        "Let a key count no more, from where the agent's chains are now, or from another place.\n\n"
        "Example: millgate keys revoke mill/agent.toml 3fa1b2c4 --why replaced",
        "撤销密钥：自代理程序各链当前位置起（或自指定位置起）不再有效。\n\n"
        "示例：millgate keys revoke mill/agent.toml 3fa1b2c4 --why replaced",
    ),
)
def revoke(
    path: AgentPath,
    kid: Annotated[str, typer.Argument(help=tr("first hex digits of its id", "密钥标识前几位"))],
    why: Annotated[str, typer.Option(help="replaced | compromised | lost")] = "replaced",
    at: Annotated[
        str,
        typer.Option(
            help=tr(
                "place from which it counts no more, as 'aggregator keys' prints it",
                "自此位置起失效，格式同 'aggregator keys' 的输出",
            )
        ),
    ] = "",
    key: OfficerKeys = None,
    last: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option(
            "--last",
            help=tr(
                "even if no key is left: nothing leaves any more", "即使不再有有效密钥（停止外发）"
            ),
        ),
    ] = False,
) -> None:
    """Let a key count no more."""
    config = read_config(path)
    known = _known(config)
    if why not in _WHY:
        raise MillgateError(
            tr("there is no such reason", "没有此原因"),
            where=f"--why {why}",
            remedy=instead_of(why, _WHY),
        )
    full = _full_kid(known, kid)
    until = read_mark(at) if at else _here(config)
    try:
        following = without_key(known, full, until, _WHY[why], _now_s())
    except (Malformed, NotNext) as fault:
        raise MillgateError(
            tr(f"the key cannot be ended there: {fault}", f"无法在此处终止密钥：{fault}"),
            where=kid,
            remedy=tr("give an earlier place", "请给出更早的位置"),
        ) from None
    if not last and all(record.until for record in following.records):
        raise MillgateError(
            tr("no key would be left, and nothing could leave", "将没有有效密钥，数据无法外发"),
            where=kid,
            remedy=tr(
                "first 'millgate keys rotate'; or say --last",
                "请先 'millgate keys rotate'，或加 --last",
            ),
        )
    _hand_on(config, following, key or [])


def _known(config: AgentConfig) -> KeyList:
    _, found = read_list(config)
    return found or first_list(config.identity.address, config.identity.signer().public)


def _kind(scheme: str) -> Literal["ed25519", "p256"]:
    if scheme == P256.name:
        return "p256"
    if scheme != ED25519.name:
        raise MillgateError(
            tr("there is no such scheme", "没有此签名算法"),
            where=f"--scheme {scheme}",
            remedy="ed25519 | p256",
        )
    return "ed25519"


def _place_for_next(config: AgentConfig, known: KeyList) -> Path:
    """Return where the new key goes; one that waited and took over becomes the one in use.

    Raises:
        MillgateError: when one still waits, or the key in use is no file.
    """
    place = next_key(config)
    if not place.exists():
        return place
    waiting = config.identity.signer_at(place).public
    current = config.identity.signing_key
    open_keys = [record.key for record in known.records if record.until is None]
    if not open_keys or open_keys[-1] != waiting or not current.is_file():
        raise MillgateError(
            tr("a new key waits already", "已有新密钥在等待"),
            where=str(place),
            remedy=tr("have the list with it signed, or remove it", "请签署包含它的清单，或删除它"),
        )
    # A copy first: a crash between two moves would leave the agent without a key.
    write_whole(current.with_name(f"{current.name}.{_now_s()}.old"), current.read_bytes())
    place.replace(current)
    return place


def _full_kid(known: KeyList, start: str) -> bytes:
    found = [
        record.key.kid
        for record in known.records
        if record.key.kid.hex().startswith(start.lower()) and len(start) >= 4
    ]
    if len(found) != 1:
        raise MillgateError(
            tr("no key, or more than one, has this id", "没有或不止一个密钥具有此标识"),
            where=start,
            remedy=tr("see 'millgate keys list'", "见 'millgate keys list'"),
        )
    return found[0]


def _here(config: AgentConfig) -> Mark:
    """Return where the agent's chains are now; the beginning before it ran."""
    database = config.spool.folder / "spool.db"
    if not database.exists():
        return Mark()
    spool = Spool(database)
    try:
        epoch = int(spool.meta("epoch", 0))
        return Mark(epoch, {end.stream: end.count for end in chain_ends(spool, epoch)})
    finally:
        spool.close()


def _hand_on(config: AgentConfig, found: KeyList, officers: list[Path]) -> None:
    """Write the draft, and sign it with the officers' keys that are at hand."""
    draft = write_draft(list_path(config).parent, found)
    show_rows(rows(found))
    if not officers:
        typer.echo(
            tr(
                f"{draft}: for the officers to sign: millgate keys sign {draft} --key OFFICER.key",
                f"{draft}：请数据官签署：millgate keys sign {draft} --key OFFICER.key",
            )
        )
        return
    signers = [load_signer(one, asked) for one in officers]
    say_progress(sign_list(draft, signers, config.policy.officers, config.policy.threshold))


def _now_s() -> int:
    return time.time_ns() // SECOND

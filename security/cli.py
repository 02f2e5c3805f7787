"""`millgate policy` and `millgate keys`: the data officer's commands."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from protocols.drivers import DeviceConfig, read_devices
from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.points import PointTable
from protocols.settings import read_toml
from protocols.sheet import Row, show_sheet
from protocols.vocabulary.purposes import PURPOSES
from security import keys_cli, officer_cli, token_cli
from security.at_rest import asked, asked_twice, encrypt_file, read_passphrase
from security.cards import BrainCard, read_brain_card
from security.keys import OpeningKey, SigningKey, create_key_file
from security.policy.bundle import read_bundle
from security.policy.compiled import (
    CompiledPolicy,
    Derivation,
    Rule,
    content_hash,
)
from security.policy.tools.diff import grid_words
from security.policy.tools.drafting import numbers_of, secrets_text, suggestion
from security.policy.tools.lines import span_words
from security.policy.tools.officers import read_trusted
from security.policy.tools.shelf import read_bundle_file

policy_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help=tr(
        "Write, sign and read the publishable-data policy.", "编写、签署和查看可公开数据策略。"
    ),
)
keys_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help=tr("Make keys and show their public halves.", "生成密钥，显示公钥。"),
)


@policy_app.command(
    "new",
    help=tr(
        "Write a policy that lists every configured point, all of them withheld.\n\n"
        "Example: millgate policy new mill/agent.toml",
        "生成策略草稿：列出所有已配置的点，全部不放行。\n\n示例：millgate policy new mill/agent.toml",
    ),
)
def new(
    agent: Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))],
    out: Annotated[
        Path | None,
        typer.Option(help=tr("default: policy.toml beside it", "默认为同目录 policy.toml")),
    ] = None,
    days: Annotated[int, typer.Option(help=tr("validity", "有效天数"), min=1, max=3650)] = 365,
) -> None:
    """Write a policy that withholds everything."""
    target = out or agent.with_name("policy.toml")
    if target.exists():
        raise MillgateError(
            tr("there is a policy already", "策略文件已存在"),
            where=str(target),
            remedy=tr("edit it, or give another --out", "请编辑它，或用 --out 指定其他文件"),
        )
    raw = read_toml(agent)
    devices = read_devices(raw.get("device", []), agent)
    entries = raw.get("consumer", [])
    cards = [read_brain_card(agent.parent / str(entry.get("card", ""))) for entry in entries]
    now = datetime.now(UTC).replace(microsecond=0)
    consumer = _consumer_id(cards[0]) if cards else "brain"
    values = {
        "consumer": consumer,
        "version": 1,
        "previous": "",
        "valid_from": now.isoformat(),
        "valid_until": (now + timedelta(days=days)).isoformat(),
        "consumers": "".join(_consumer_text(card) for card in cards),
        "points": _points_text(devices, consumer),
        "secrets": secrets_text(devices),
    }
    template = (resources.files("configs.templates") / "policy.toml").read_text(encoding="utf-8")
    target.write_text(Template(template).substitute(values), encoding="utf-8")
    count = sum(len(device.table().points) for device in devices)
    typer.echo(
        tr(
            f"{target}: {counted(count, 'point')}, all withheld. Release what may leave, then\n"
            f"  millgate policy sign {target} --key OFFICER.key",
            f"{target}：{count} 个点，均不放行。写明可放行的点，然后\n"
            f"  millgate policy sign {target} --key OFFICER.key",
        )
    )


def _consumer_id(card: BrainCard) -> str:
    return (
        "".join(c if c.isascii() and c.isalnum() else "-" for c in card.name.lower()).strip("-")
        or "brain"
    )


def _consumer_text(card: BrainCard) -> str:
    purposes = ", ".join(PURPOSES)
    return (
        "[[consumer]]\n"
        f'id = "{_consumer_id(card)}"\n'
        f'encryption_key = "sha256:{content_hash(card.encryption_key.public).hex()}"\n'
        f'receipt_key = "sha256:{content_hash(card.receipt_key.public).hex()}"\n'
        f'purpose = "industrial-brain"      # {purposes}\n'
        'right = ""                        # data right or contract / 数据知识产权登记或合同编号\n'
        "retention_days = 730\n"
        "pad = 1024\n\n"
    )


def _points_text(devices: Sequence[DeviceConfig], consumer: str) -> str:
    texts, number = [], 1
    for device in devices:
        table = device.table()
        for at, point in enumerate(table.points):
            texts.append(_point_text(table, at, consumer, number))
            number += numbers_of(point)
    return "".join(texts)


def _point_text(table: PointTable, at: int, consumer: str, number: int) -> str:
    point, origin = table.points[at], table.origin(at)
    address = point.address.replace("\\", "\\\\").replace('"', '\\"')
    lines = [
        "[[point]]",
        f'device = "{table.device}"',
        f'point = "{point.id}"',
        f'address = "{address}"',
        f'type = "{point.type}"',
        f'unit = "{point.unit}"',
        f"scale = {format(point.scale.normalize(), 'f')}",
        f"offset = {format(point.offset.normalize(), 'f')}",
        f'measurand = "{point.measurand}"',
    ]
    if point.state_model is not None:
        lines.append(f'state_model = "{point.state_model}"')
    if origin:
        lines.append(f"origin = {json.dumps(origin, ensure_ascii=False)}")
    return "\n".join([*lines, *suggestion(table.device, point, consumer, number)]) + "\n\n"


officer_cli.register(policy_app)


@policy_app.command(
    "show",
    help=tr(
        "Show what a signed policy lets out.\n\n"
        "Example: millgate policy show mill/policy.signed --agent mill/agent.toml",
        "显示已签署策略放行的内容。\n\n示例：millgate policy show mill/policy.signed --agent mill/agent.toml",
    ),
)
def show(
    path: Annotated[Path, typer.Argument(help=tr("path of policy.signed", "policy.signed 的路径"))],
    agent: Annotated[
        Path | None,
        typer.Option(
            help=tr("agent.toml whose officers must have signed", "按其数据官名单验签的 agent.toml")
        ),
    ] = None,
) -> None:
    """Show a signed policy."""
    data, draft = read_bundle_file(path)
    if agent is None:
        policy = draft.policy
        typer.echo(
            tr("signatures NOT checked (give --agent)", "未验签（请给出 --agent）"), err=True
        )
    else:
        trusted = read_trusted(agent)
        policy = read_bundle(data, trusted.officers, trusted.threshold).policy
        typer.echo(tr("signed by the trusted officers", "已由受信任的数据官签名"))
    typer.echo(tr("hash ", "哈希 ") + f"sha256:{draft.hash.hex()}")
    _show(policy)


def _show(policy: CompiledPolicy) -> None:
    until = datetime.fromtimestamp(policy.valid_until, UTC).isoformat()
    title = tr(
        f"Policy version {policy.version}, valid until {until}: what leaves",
        f"策略版本 {policy.version}，有效期至 {until}：外发内容",
    )
    if time.time() >= policy.valid_until:
        title += tr(
            " (this time is over: nothing leaves under it)", "（有效期已过：不会放行任何数据）"
        )
    rows = [Row((str(one.number), *_cells(policy, one))) for one in policy.leaving]
    show_sheet(("#", *_columns()), rows, title=title)
    typer.echo(tr("Everything else stays in the factory.", "其余一切数据均留在厂内。"))


def _columns() -> tuple[str, ...]:
    return (
        tr("point", "点"),
        tr("becomes", "公开为"),
        tr("how", "方式"),
        tr("step", "精度"),
        tr("slot", "时段"),
        tr("class", "分级"),
        tr("to", "接收方"),
    )


def _cells(policy: CompiledPolicy, one: Rule | Derivation) -> tuple[str, ...]:
    formula = one.formula if isinstance(one, Derivation) else ""
    measurand, how = (
        ("", formula) if isinstance(one, Derivation) else (one.measurand, one.aggregate)
    )
    return (
        one.source,
        f"{one.equipment} {measurand or formula}",
        how,
        grid_words(one, policy),
        span_words(one.window_s),
        f"{one.class_raw} → {one.class_released}",
        policy.consumers[one.consumer].id,
    )


@keys_app.command(
    "officer",
    help=tr(
        "Make a data officer's key and print its public half.\n\nExample: millgate keys officer officer.key",
        "生成数据官密钥并打印公钥。\n\n示例：millgate keys officer officer.key",
    ),
)
def officer(path: Annotated[Path, typer.Argument(help=tr("new key file", "新密钥文件"))]) -> None:
    """Make an officer's key."""
    typer.echo(SigningKey(create_key_file(path, "ed25519")).public.to_text())


@keys_app.command(
    "audit",
    help=tr(
        "Make the firm's audit key; the public half goes to PATH.public.\n\n"
        "Example: millgate keys audit audit.key",
        "生成企业审计密钥；公钥写入 PATH.public。\n\n示例：millgate keys audit audit.key",
    ),
)
def audit(path: Annotated[Path, typer.Argument(help=tr("new key file", "新密钥文件"))]) -> None:
    """Make the firm's audit key."""
    public = OpeningKey(create_key_file(path, "xwing")).public
    target = path.with_name(path.name + ".public")
    target.write_text(public.to_text() + "\n", encoding="ascii")
    typer.echo(str(target))


keys_cli.register(keys_app)
token_cli.register(keys_app)


@keys_app.command(
    "encrypt",
    help=tr(
        "Put private key files under a passphrase, in their place.\n\n"
        "Example: millgate keys encrypt mill/keys/signing.key mill/keys/gate.key "
        "mill/keys/attestation.key --passphrase-file mill/keys/passphrase",
        "为私钥文件加上口令（就地加密）。\n\n"
        "示例：millgate keys encrypt mill/keys/signing.key mill/keys/gate.key "
        "mill/keys/attestation.key --passphrase-file mill/keys/passphrase",
    ),
)
def encrypt(
    paths: Annotated[list[Path], typer.Argument(help=tr("private key files", "私钥文件"))],
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "file of mode 0600 with the passphrase, or credential:NAME; without it, it is asked for",
                "口令文件（权限 0600）或 credential:名称；不给出则询问",
            )
        ),
    ] = None,
) -> None:
    """Put key files under a passphrase."""
    words = asked_twice() if passphrase_file is None else read_passphrase(passphrase_file)
    for path in paths:
        # The present passphrase, where there is one, is always asked for.
        encrypt_file(path, words, asked)
        typer.echo(tr(f"{path}: encrypted", f"{path}：已加密"))

"""`millgate evidence verify` and `disclose`: offline, with nothing but the bundle and public cards."""

import csv
import hashlib
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer

from protocols import batch
from protocols.batch import NO_VALUE
from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.strict_cbor import Malformed
from security.at_rest import asked
from security.cards import (
    AgentCard,
    BrainCard,
    card_from_text,
    card_text,
    read_agent_card,
    read_brain_card,
)
from security.envelope import BATCH, CannotOpen, Sealed, open_sealed, parse, unpad
from security.evidence import Bundle, reading, writing
from security.evidence_check import Cards, Grade, Report, check
from security.keys import OpeningKey, load_key_file

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help=tr(
        "Who sent what under which policy, received when: evidence that anybody can check.",
        "谁依据哪份策略发送了什么、何时收到：任何人都可验证的证据。",
    ),
)

_MARKS: Final = {
    Grade.PROVEN: ("proven  ", "已证明"),
    Grade.NOTE: ("note    ", "说明  "),
    Grade.MISSING: ("MISSING ", "缺失  "),
    Grade.FORGED: ("FORGED  ", "伪造  "),
}

BundlePath = Annotated[
    Path, typer.Argument(help=tr("the bundle, a zip file", "证据包（zip 文件）"))
]


@app.command(
    "verify",
    help=tr(
        "Check a bundle: no network, no secrets. Ends with 0 when nothing is missing or forged.\n\n"
        "The cards in the bundle say whose keys they are. Give the cards you hold yourself, or "
        "compare the fingerprints with the parties.\n\n"
        "Example: millgate evidence verify january.zip --brain-card brain.card --agent-card mill.card",
        "验证证据包：不联网，不需要任何秘密。无缺失、无伪造时返回 0。\n\n"
        "包内名片说明密钥归属。请提供您自己持有的名片，或与各方核对指纹。\n\n"
        "示例：millgate evidence verify january.zip --brain-card brain.card --agent-card mill.card",
    ),
)
def verify(
    bundle: BundlePath,
    brain_card: Annotated[
        Path | None,
        typer.Option(help=tr("the brain's card as you hold it", "您持有的产业大脑名片")),
    ] = None,
    agent_card: Annotated[
        list[Path] | None,
        typer.Option(help=tr("an agent's card as you hold it (repeatable)", "您持有的代理名片")),
    ] = None,
    csv_path: Annotated[
        Path | None, typer.Option("--csv", help=tr("write the disclosed values", "写出已披露的值"))
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=tr("as JSON", "输出 JSON"))] = False,  # noqa: FBT002 - a flag
) -> None:
    """Check a bundle and say what it shows."""
    with reading(bundle) as opened:
        brain, agents = _cards(opened, brain_card, agent_card or [])
        report = check(opened, brain, agents)
        span = opened.span
    if csv_path is not None:
        _write_values(report, csv_path)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "holds": report.holds,
                    "findings": [[one.grade.value, one.text] for one in report.findings],
                },
                ensure_ascii=False,
                indent=1,
            )
        )
    else:
        _print(report, span, brain, agents, pinned=(brain_card is not None, bool(agent_card)))
    if not report.holds:
        raise typer.Exit(1)


def _print(
    report: Report,
    span: tuple[int, int],
    brain: BrainCard,
    agents: Cards,
    *,
    pinned: tuple[bool, bool],
) -> None:
    start, end = (datetime.fromtimestamp(min(at, 1 << 37), UTC) for at in span)
    typer.echo(
        tr(
            f"evidence of what came from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC",
            f"{start:%Y-%m-%d %H:%M} 至 {end:%Y-%m-%d %H:%M} UTC 收到数据的证据",
        )
    )
    if not pinned[0]:
        _compare(brain)
    if not pinned[1]:
        for _, card in sorted(agents.items()):
            _compare(card)
    for one in report.findings:
        typer.echo(tr(*_MARKS[one.grade]) + " " + one.text)
    typer.echo(
        tr("nothing is missing, nothing is forged", "无缺失，无伪造")
        if report.holds
        else tr("THE EVIDENCE IS NOT COMPLETE AND SOUND", "证据不完整或不可信")
    )


def _compare(card: BrainCard | AgentCard) -> None:
    typer.echo(
        tr(
            f"the card of {_whose(card)} is taken from the bundle; compare: {_fingerprint(card)}",
            f"{_whose(card)}的名片取自证据包，请核对：{_fingerprint(card)}",
        )
    )


def _whose(card: BrainCard | AgentCard) -> str:
    if isinstance(card, BrainCard):
        return tr(f"brain {card.name}", f"产业大脑 {card.name}")
    short = card.address.agent.hex()[:8]
    return tr(f"agent {short}", f"代理程序 {short}")


def _fingerprint(card: BrainCard | AgentCard) -> str:
    """Return 128 bits over the whole card: all its keys, officers and threshold count here."""
    return hashlib.sha256(card_text(card).encode()).hexdigest()[:32]


@app.command(
    "fingerprint",
    help=tr(
        "Print the fingerprint of a card, to compare with what 'verify' prints.\n\n"
        "Example: millgate evidence fingerprint mill/agent.card",
        "打印名片的指纹，与 verify 所打印的核对。\n\n"
        "示例：millgate evidence fingerprint mill/agent.card",
    ),
)
def fingerprint(
    cards: Annotated[
        list[Path], typer.Argument(help=tr("cards of brains or agents", "产业大脑或代理程序的名片"))
    ],
) -> None:
    """Print fingerprints of cards."""
    for path in cards:
        card = _any_card(path)
        typer.echo(f"{_fingerprint(card)}  {_whose(card)}")


def _any_card(path: Path) -> BrainCard | AgentCard:
    try:
        return read_agent_card(path)
    except MillgateError as fault:
        try:
            return read_brain_card(path)
        except MillgateError:
            raise fault from None


def _cards(
    bundle: Bundle, brain_card: Path | None, agent_cards: list[Path]
) -> tuple[BrainCard, Cards]:
    """Return the cards to believe: those that were given, else those of the bundle.

    Raises:
        MillgateError: when an agent's card was given and the bundle's of the same agent differs.
    """
    brain = (
        read_brain_card(brain_card)
        if brain_card is not None
        else card_from_text(bundle.file("brain.card"), BrainCard)
    )
    inside = [card_from_text(bundle.file(name), AgentCard) for name in bundle.files("agents")]
    if not agent_cards:
        return brain, {card.address: card for card in inside}
    # An agent whose card was not given is not believed: its entries come out as forged.
    return brain, {card.address: card for card in map(read_agent_card, agent_cards)}


@app.command(
    "disclose",
    help=tr(
        "Write a new bundle that also shows the content of some messages, opened with the audit key "
        "or the brain's key. All others stay closed.\n\n"
        "Example: millgate evidence disclose january.zip --key audit.key --message 3fa1b2c4 "
        "--out court.zip",
        "生成新的证据包，另外披露部分消息的内容（用审计私钥或产业大脑私钥打开）。其余保持密封。\n\n"
        "示例：millgate evidence disclose january.zip --key audit.key --message 3fa1b2c4 --out court.zip",
    ),
)
def disclose(
    bundle: BundlePath,
    key: Annotated[
        Path, typer.Option(help=tr("private audit or encryption key", "审计或解密私钥"))
    ],
    message: Annotated[
        list[str],
        typer.Option(
            help=tr(
                "first hex digits of a message's hash (repeatable)", "消息哈希的前几位（可重复）"
            )
        ),
    ],
    out: Annotated[Path, typer.Option(help=tr("the new bundle", "新证据包"))],
) -> None:
    """Disclose the content of some messages."""
    opening = OpeningKey(load_key_file(key, "xwing", asked))
    with reading(bundle) as opened:
        digests = [_digest(opened, one) for one in message]
        with writing(out, opened.span, opened.made_s) as writer:
            opened.copy_into(writer)
            for digest in digests:
                writer.disclosed(digest, _open(opened, digest, opening))
    typer.echo(
        tr(
            f"{out} discloses {counted(len(digests), 'message')}",
            f"{out} 中披露了 {len(digests)} 条消息",
        )
    )


def _digest(bundle: Bundle, start: str) -> bytes:
    names = [name.split("/")[1].removesuffix(".cose") for name in bundle.files("messages")]
    found = [name for name in names if name.startswith(start.lower())]
    if len(found) != 1:
        raise MillgateError(
            tr(
                f"{len(found)} messages of the bundle begin so",
                f"证据包中有 {len(found)} 条消息以此开头",
            ),
            where=f"--message {start}",
            remedy=tr(
                "give more digits; 'agent audit --csv' lists them in its column 'message'",
                "请多给几位；'agent audit --csv' 的 message 列列出了全部",
            ),
        )
    return bytes.fromhex(found[0])


def _open(bundle: Bundle, digest: bytes, key: OpeningKey) -> bytes:
    try:
        return open_sealed(parse(bundle.message(digest)), key)
    except (CannotOpen, Malformed):
        raise MillgateError(
            tr("this message is not sealed to this key", "此消息并非为此密钥密封"),
            where=digest.hex()[:16],
            remedy=tr(
                "give the firm's audit key or the brain's encryption key",
                "请提供企业审计私钥或产业大脑解密私钥",
            ),
        ) from None


def _write_values(report: Report, path: Path) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["message", "slot_start", "number", "equipment", "measurand", "part", "unit", "value"]
        )
        for digest, (sealed, padded) in sorted(report.disclosed.items()):
            if sealed.content_type == BATCH:
                writer.writerows(_values(report, digest, sealed, padded))


def _values(report: Report, digest: bytes, sealed: Sealed, padded: bytes) -> list[list[str]]:
    known = report.sheets.get(sealed.header.sheet_hash)
    points = {point.number: point for point in known.sheet.points} if known else {}
    blocks = batch.decode(unpad(padded))
    start, end = sealed.header.window
    last = max(block.slot + block.rows for block in blocks)
    window_s = (end - start) // (last - min(block.slot for block in blocks))
    found = []
    for block in blocks:
        for row, column in np.argwhere(block.quality != NO_VALUE).tolist():
            point = points.get(int(block.numbers[column]))
            at = datetime.fromtimestamp((block.slot + row) * window_s, UTC)
            labels = (
                [point.equipment, point.measurand, point.part, point.unit] if point else [""] * 4
            )
            value = Decimal(int(block.mantissa[row, column])).scaleb(point.exponent if point else 0)
            found.append(
                [
                    digest.hex(),
                    f"{at:%Y-%m-%dT%H:%M:%SZ}",
                    str(block.numbers[column]),
                    *labels,
                    format(value, "f"),
                ]
            )
    return found

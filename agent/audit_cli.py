"""`millgate agent audit`: the firm reads back exactly what left."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from agent.audit import COLUMNS, Left, read_back, rows, status_word
from agent.config import AgentConfig, read_config
from agent.spool import Spool
from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.moments import read_moment
from protocols.sheet import Row, show_sheet
from protocols.strict_cbor import Malformed
from security.at_rest import asked
from security.envelope import SHEET, CannotOpen
from security.keys import OpeningKey, load_key_file

_FOREVER_S: Final = 1 << 40

_HELP: Final = tr(
    "Read back from the archive exactly what left, with the firm's audit key.\n\n"
    "Prints one line per message; --csv writes every value. The archive is bounded: what is older "
    "than [spool] archive_mb is no longer there.\n\n"
    "Example: millgate agent audit mill/agent.toml --key audit.key --csv left.csv",
    "用企业审计私钥从归档中读出究竟外发了什么。\n\n"
    "每条消息打印一行；--csv 写出每个值。归档有上限：超出 [spool] archive_mb 的旧数据不在其中。\n\n"
    "示例：millgate agent audit mill/agent.toml --key audit.key --csv left.csv",
)


def audit(
    path: Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))],
    key: Annotated[Path, typer.Option(help=tr("the firm's private audit key", "企业审计私钥文件"))],
    since: Annotated[
        str, typer.Option("--from", help=tr("first slot, e.g. 2026-01-31", "起始时段"))
    ] = "",
    until: Annotated[
        str, typer.Option("--to", help=tr("up to this slot, excluded", "截止时段（不含）"))
    ] = "",
    csv_path: Annotated[
        Path | None, typer.Option("--csv", help=tr("write every value here", "把每个值写入此文件"))
    ] = None,
) -> None:
    """Read back what left."""
    span = read_moment(since, 0, "--from"), read_moment(until, _FOREVER_S, "--to")
    with archive(read_config(path), key) as (spool, opening):
        _show(read_back(spool, opening, *span), csv_path)


@contextmanager
def archive(config: AgentConfig, key: Path) -> Iterator[tuple[Spool, OpeningKey]]:
    """Open the spool with the firm's audit key, to read back what left.

    Raises:
        MillgateError: when there is none, the key is another, or a message was changed.
    """
    database = config.spool.folder / "spool.db"
    if not database.exists():
        raise MillgateError(
            tr("the agent has not run yet", "代理程序尚未运行过"),
            where=str(database),
            remedy=tr("start it with 'millgate agent run'", "请用 'millgate agent run' 启动"),
        )
    opening = OpeningKey(load_key_file(key, "xwing", asked))
    if opening.public != config.policy.audit_key:
        raise MillgateError(
            tr("this is not the audit key that batches are sealed to", "数据并非为此审计密钥加密"),
            where=str(key),
            remedy=tr(
                "give the private half of [policy] audit_key",
                "请提供 [policy] audit_key 对应的私钥",
            ),
        )
    spool = Spool(database)
    try:
        yield spool, opening
    except (CannotOpen, Malformed):
        raise MillgateError(
            tr(
                "a message in the archive is not what was sealed: the file was changed",
                "归档中有消息与封装时不符：文件已被改动",
            ),
            where=str(database),
            remedy=tr(
                "compare with the brain's ledger: millgate evidence export",
                "请与产业大脑账本核对：millgate evidence export",
            ),
        ) from None
    finally:
        spool.close()


def _show(messages: Iterable[Left], csv_path: Path | None) -> None:
    headings = (
        tr("slots (UTC)", "时段 (UTC)"),
        tr("epoch/stream/seq.", "纪元/流/序号"),
        tr("policy", "策略"),
        tr("values", "值"),
        tr("bytes", "字节"),
        tr("state", "状态"),
    )
    lines: list[Row] = []
    counts: Counter[int] = Counter()
    values: Counter[int] = Counter()
    writer, file = None, None
    if csv_path is not None:
        # A byte order mark, so that spreadsheets read the labels right.
        file = csv_path.open("w", encoding="utf-8-sig", newline="")
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
    try:
        for left in messages:
            counts[left.status] += 1
            values[left.status] += left.values
            lines.append(Row(_line(left)))
            if writer is not None:
                writer.writerows(rows(left))
    finally:
        if file is not None:
            file.close()
    show_sheet(headings, lines, framed=False)
    for status in sorted(counts):
        typer.echo(
            f"{status_word(status)}: "
            + tr(
                f"{counted(counts[status], 'message')}, {counted(values[status], 'value')}",
                f"{counts[status]} 条消息，{values[status]} 个值",
            )
        )
    if csv_path is not None:
        typer.echo(tr(f"every value is in {csv_path}", f"全部值已写入 {csv_path}"))


def _line(left: Left) -> tuple[str, ...]:
    header = left.sealed.header
    sheet = left.sealed.content_type == SHEET
    window = tr("release sheet", "发布目录") if sheet else _span(*header.window)
    return (
        window,
        f"{header.epoch}/{header.stream}/{header.sequence}",
        str(header.policy_version),
        str(left.values),
        str(left.size),
        status_word(left.status),
    )


def _span(start_s: int, end_s: int) -> str:
    start, end = (datetime.fromtimestamp(at, UTC) for at in (start_s, end_s))
    return f"{start:%m-%d %H:%M:%S}–{end:%H:%M:%S}"


def mount(app: typer.Typer) -> None:
    """Add the command to `millgate agent`."""
    app.command("audit", help=_HELP)(audit)

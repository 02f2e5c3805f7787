"""`millgate evidence`: export from a ledger, beside what security checks offline."""

import time
from pathlib import Path
from typing import Annotated

import typer

from aggregator.config import read_config
from aggregator.evidence import export as export_bundle
from aggregator.ledger import Ledger
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.moments import read_moment
from protocols.words import instead_of
from security.cards import BrainCard
from security.evidence_cli import app

__all__ = ["app"]


@app.command(
    "export",
    help=tr(
        "Write what came in a span of time, with all proofs, into one file.\n\n"
        "Example: millgate evidence export brain/aggregator.toml --from 2026-01-01 --to 2026-02-01 "
        "--out january.zip",
        "把一段时间内收到的内容连同全部证明写入一个文件。\n\n"
        "示例：millgate evidence export brain/aggregator.toml --from 2026-01-01 --to 2026-02-01 "
        "--out january.zip",
    ),
)
def export(
    path: Annotated[
        Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
    ],
    since: Annotated[str, typer.Option("--from", help=tr("received from", "收到起始时刻"))],
    until: Annotated[str, typer.Option("--to", help=tr("until, excluded", "截止时刻（不含）"))],
    out: Annotated[Path, typer.Option(help=tr("the file to write", "输出文件"))],
    factory: Annotated[
        list[str] | None,
        typer.Option(help=tr("only this factory (repeatable)", "仅此工厂（可重复）")),
    ] = None,
) -> None:
    """Write a bundle."""
    config = read_config(path)
    span = read_moment(since, 0, "--from"), read_moment(until, 0, "--to")
    if span[0] >= span[1]:
        raise MillgateError(
            tr("the span ends before it starts", "时间段的终点早于起点"),
            where=f"--from {since} --to {until}",
        )
    known = config.factories()
    chosen = {a: one for a, one in known.items() if not factory or one.enterprise in factory}
    unknown = set(factory or []) - {one.enterprise for one in known.values()}
    if unknown:
        raise MillgateError(
            tr("no such factory", "没有此工厂"),
            where=f"--factory {', '.join(sorted(unknown))}",
            remedy=instead_of(
                min(unknown),
                sorted({f.enterprise for f in known.values()}),
                "millgate aggregator factories",
            ),
        )
    receipt = config.brain.signer()
    encryption = config.brain.opening()
    card = BrainCard(
        card="millgate-brain/1",
        name=config.brain.name,
        encryption_key=encryption.public,
        receipt_key=receipt.public,
    )
    ledger = Ledger(config.ledger)
    try:
        count = export_bundle(ledger, out, span, card, receipt, chosen, time.time_ns)
    finally:
        ledger.close()
    typer.echo(
        tr(
            f"{count} log entries are in {out}; anybody checks it with\n"
            f"  millgate evidence verify {out}",
            f"{out} 含 {count} 条日志记录；任何人可用以下命令验证\n  millgate evidence verify {out}",
        )
    )

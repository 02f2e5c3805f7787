"""`millgate aggregator facts`: enter what only people know, with source and date."""

import json
from collections.abc import Sequence
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from aggregator.authority import log_path
from aggregator.config import AggregatorConfig, read_config
from aggregator.fact_book import FactBook, SiteName, check_site
from aggregator.fact_log import noting
from aggregator.facts import (
    COLUMNS,
    KINDS,
    Fact,
    FactFile,
    decoded,
    merged,
    parse_csv,
    read_fact,
    to_csv,
)
from aggregator.rules import facts_path
from protocols.errors import MillgateError
from protocols.language import counted, tr

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help=tr(
        "Facts that only people know: value added, land, head count, cycle times. Without them what "
        "needs them is absent, never 0.",
        "只有人知道的事实：工业增加值、用地、职工数、理想节拍等。未填写时，依赖它们的指标缺失，绝不为 0。",
    ),
)

ConfigPath = Annotated[
    Path, typer.Argument(help=tr("path of aggregator.toml", "aggregator.toml 的路径"))
]
Enterprise = Annotated[
    str, typer.Argument(help=tr("NAME or NAME.SITE, as its card's file", "企业名，或 企业名.厂区"))
]
Equipment = Annotated[
    str, typer.Option(help=tr("public label of one equipment", "单台设备的公开标签"))
]
Name = Annotated[str, typer.Argument(help=tr("see 'facts kinds'", "见 'facts kinds'"))]


@app.command(
    "kinds",
    help=tr(
        "List which facts there are.\n\nExample: millgate aggregator facts kinds",
        "列出可填写的事实项。\n\n示例：millgate aggregator facts kinds",
    ),
)
def kinds() -> None:
    """List which facts there are."""
    width = max(map(len, KINDS))
    for name, kind in KINDS.items():
        of = tr(
            f"of {'a site' if kind.of == 'site' else 'an equipment'}",
            "厂区" if kind.of == "site" else "设备",
        )
        when = tr(
            "for a period" if kind.time == "period" else "from a day on",
            "按时段" if kind.time == "period" else "自某日起",
        )
        typer.echo(f"{name:<{width}}  {kind.unit:<10}  {of}, {when}: {tr(kind.en, kind.zh)}")


@app.command(
    "set",
    help=tr(
        "Enter one fact; one of the same first day is replaced.\n\n"
        "Example: millgate aggregator facts set brain/aggregator.toml mill value_added 1234.5 "
        "--from 2026-01-01 --until 2027-01-01 --source 'annual return 2026'",
        "填写一项事实；首日相同的旧值被替换。\n\n"
        "示例：millgate aggregator facts set brain/aggregator.toml mill value_added 1234.5 "
        "--from 2026-01-01 --until 2027-01-01 --source '2026 年统计年报'",
    ),
)
def set_fact(
    path: ConfigPath,
    enterprise: Enterprise,
    name: Name,
    value: Annotated[str, typer.Argument(help=tr("a decimal number", "十进制数"))],
    first: Annotated[str, typer.Option("--from", help=tr("first day", "首日，如 2026-01-01"))],
    source: Annotated[str, typer.Option(help=tr("where it is from", "数据出处"))],
    until: Annotated[
        str, typer.Option(help=tr("first day it no longer holds", "不再有效的首日"))
    ] = "",
    equipment: Equipment = "",
) -> None:
    """Enter one fact."""
    config = read_config(path)
    firm, site = _place(config, enterprise)
    cells = (firm, site, equipment, name, value, first, until, source, _today())
    fact = read_fact(dict(zip(COLUMNS, cells, strict=True)), tr("this fact", "该事实"))
    _check_equipment(config, [fact])
    _enter(config, [fact])
    what = (
        f"{firm}.{site} {equipment}{' ' * bool(equipment)}{name} = {fact.value} {KINDS[name].unit}"
    )
    typer.echo(
        tr(
            f"Noted: {what}. The series follow within seconds while the aggregator runs.",
            f"已记录：{what}。聚合器运行时序列会在数秒内更新。",
        )
    )


@app.command(
    "import",
    help=tr(
        "Enter all facts of a CSV file, or none if any line is faulty.\n\n"
        "Columns: enterprise,site,equipment,name,value,from,until,source,entered\n\n"
        "Example: millgate aggregator facts import brain/aggregator.toml facts.csv",
        "导入 CSV 文件中的全部事实；任一行有误则全部不导入。\n\n"
        "列：enterprise,site,equipment,name,value,from,until,source,entered\n\n"
        "示例：millgate aggregator facts import brain/aggregator.toml facts.csv",
    ),
)
def import_facts(
    path: ConfigPath, table: Annotated[Path, typer.Argument(help=tr("a CSV file", "CSV 文件"))]
) -> None:
    """Enter all facts of a CSV file."""
    config = read_config(path)
    try:
        text = decoded(table.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise MillgateError(
            tr("the CSV file cannot be read", "无法读取 CSV 文件"),
            where=str(table),
            remedy=tr(
                f"check the path, save it as UTF-8 or GBK ({type(error).__name__})",
                f"请检查路径，并保存为 UTF-8 或 GBK（{type(error).__name__}）",
            ),
        ) from None
    facts = parse_csv(text, str(table))
    for fact in facts:
        _place(config, f"{fact.enterprise}.{fact.site}")
    _check_equipment(config, facts)
    _enter(config, facts)
    typer.echo(tr(f"{counted(len(facts), 'fact')} noted", f"已记录 {len(facts)} 项事实"))


@app.command(
    "list",
    help=tr(
        "Show all facts, as CSV that 'facts import' takes, or JSON.\n\n"
        "Example: millgate aggregator facts list brain/aggregator.toml",
        "以 CSV（可供 'facts import' 使用）或 JSON 列出全部事实。\n\n"
        "示例：millgate aggregator facts list brain/aggregator.toml",
    ),
)
def list_facts(
    path: ConfigPath,
    as_json: Annotated[bool, typer.Option("--json", help="JSON")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Show all facts."""
    facts = FactFile(facts_path(read_config(path))).read()
    if not as_json:
        typer.echo(to_csv(facts), nl=False)
        return
    rows = [dict(zip(COLUMNS, _cells(fact), strict=True)) for fact in facts]
    typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))


@app.command(
    "remove",
    help=tr(
        "Remove one fact; what was computed from it becomes absent.\n\n"
        "Example: millgate aggregator facts remove brain/aggregator.toml mill value_added --from 2026-01-01",
        "删除一项事实；由其计算的指标随之缺失。\n\n"
        "示例：millgate aggregator facts remove brain/aggregator.toml mill value_added --from 2026-01-01",
    ),
)
def remove_fact(
    path: ConfigPath,
    enterprise: Enterprise,
    name: Name,
    first: Annotated[str, typer.Option("--from", help=tr("its first day", "首日"))],
    equipment: Equipment = "",
) -> None:
    """Remove one fact."""
    config = read_config(path)
    firm, _, site = enterprise.partition(".")
    place = (firm, site or "main", equipment, name)
    FactBook(FactFile(facts_path(config)), tuple, log_path(config)).remove(place, first)
    typer.echo(tr("removed", "已删除"))


def _enter(config: AggregatorConfig, facts: Sequence[Fact]) -> None:
    note = noting(log_path(config))
    FactFile(facts_path(config)).change(lambda known: merged(known, facts), note)


def _cells(fact: Fact) -> list[str]:
    return ["" if cell is None else str(cell) for cell in astuple(fact)]


def _today() -> str:
    return str(datetime.now(UTC).date())


def _place(config: AggregatorConfig, text: str) -> tuple[str, str]:
    """Return enterprise and site.

    Raises:
        MillgateError: no card is of them.
    """
    firm, _, site = text.partition(".")
    place = SiteName(firm, site or "main")
    known = {SiteName(one.enterprise, one.site) for one in config.factories().values()}
    check_site(place, known, str(config.brain.factories))
    return place


def _check_equipment(config: AggregatorConfig, facts: Sequence[Fact]) -> None:
    """Say where a fact is of an equipment that no release sheet names: most likely a typing error."""
    asked = {(fact.enterprise, fact.equipment) for fact in facts if fact.equipment}
    if not asked or not config.ledger.is_file():
        return
    from aggregator.reporting import Reporter  # noqa: PLC0415 - only facts of equipment need the ledger

    reporter = Reporter(config.ledger, config.factories, {})
    try:
        named = {
            (arrival.name, point.equipment)
            for arrival in reporter.arrivals()
            for sheet in arrival.sheets
            for point in sheet.points
        }
    finally:
        reporter.close()
    for enterprise, equipment in sorted(asked - named):
        typer.echo(
            tr(
                f"note: no release sheet of {enterprise} names '{equipment}' yet",
                f"注意：{enterprise} 的发布目录中尚无 '{equipment}'",
            ),
            err=True,
        )

"""`millgate agent profiles`: what equipment is known, and who says so."""

from typing import Annotated, Final

import typer
from rich.console import Console

from agent.onboarding.adding import title
from agent.onboarding.profiles import (
    Alternative,
    ModbusProfile,
    Profile,
    choose_profile,
    shipped,
)
from protocols.language import tr
from protocols.sheet import Row, screen, show_sheet

HELP: Final = tr(
    "List the device profiles, or show one: its points, sources, and what sources disagree on.\n\n"
    "\b\nExamples:\n  millgate agent profiles\n  millgate agent profiles chint-dtsu666",
    "列出设备模板，或显示其一：点、来源，以及来源之间的分歧。\n\n"
    "\b\n示例：\n  millgate agent profiles\n  millgate agent profiles chint-dtsu666",
)


def profiles(
    name: Annotated[
        str | None, typer.Argument(help=tr("a profile, or a file", "模板名称或文件"))
    ] = None,
) -> None:
    """List the device profiles, or show one."""
    console = screen()
    if name is None:
        _list(console)
    else:
        _show(console, choose_profile(name))


def _list(console: Console) -> None:
    headings = (
        tr("profile", "模板"),
        tr("maker", "厂商"),
        tr("models", "型号"),
        tr("what", "类别"),
        tr("points", "点数"),
        tr("read from the device", "须读取设备判断"),
    )
    rows = []
    for one in shipped().values():
        asked = [alt.id for alt in one.alternative] if isinstance(one, ModbusProfile) else []
        cells = (
            one.id,
            tr(one.maker, one.maker_zh),
            ", ".join(one.models),
            tr(one.what, one.what_zh),
            str(len(one.point)),
            ", ".join(asked) or "-",
        )
        rows.append(Row(cells))
    show_sheet(headings, rows, console=console)


def _show(console: Console, profile: Profile) -> None:
    console.print(title(profile), style="bold", highlight=False)
    for note in tr("\n".join(profile.notes), "\n".join(profile.notes_zh)).splitlines():
        console.print(f"  {note}", highlight=False)
    console.print(
        tr(
            "Sources (P primary, S2 two secondary, S one secondary, U unsure):",
            "来源（P 原始，S2 两个二手，S 一个二手，U 不确定）：",
        ),
        highlight=False,
    )
    for source in profile.source:
        console.print(
            f"  {source.id} [{source.grade}] {source.text}", highlight=False, markup=False
        )
    if isinstance(profile, ModbusProfile):
        for alternative in profile.alternative:
            _show_alternative(console, profile, alternative)
    _show_points(console, profile)


def _show_alternative(console: Console, profile: ModbusProfile, alternative: Alternative) -> None:
    question = tr(alternative.question, alternative.question_zh)
    console.print(f"{alternative.id}: {question}", style="bold", highlight=False, markup=False)
    for choice in alternative.choice:
        says = tr(choice.says, choice.says_zh)
        who = ", ".join(f"{one.id} [{one.grade}]" for one in profile.cites(choice.source))
        console.print(f"  {choice.id}: {says} ({who})", highlight=False, markup=False)
        for test in choice.test:
            console.print(
                f"    {_formula(test.value, test.times, test.over, test.over_sum)} "
                f"{tr('within', '在')} {test.low} … {test.high}",
                highlight=False,
                markup=False,
            )


def _formula(value: list[str], times: list[str], over: list[str], over_sum: list[str]) -> str:
    text = tr(" or ", " 或 ").join(value)
    text += "".join(f" × {one}" for one in times)
    text += "".join(f" ÷ {one}" for one in over)
    return text + (f" ÷ ({' + '.join(over_sum)})" if over_sum else "")


def _show_points(console: Console, profile: Profile) -> None:
    headings = (
        tr("point", "点"),
        tr("what", "含义"),
        tr("address", "地址"),
        tr("type", "类型"),
        tr("scale", "倍率"),
        tr("unit", "单位"),
        tr("measurand", "测量量"),
        tr("source", "来源"),
    )
    rows = []
    for datum in profile.point:
        address = getattr(datum, "address", "") or getattr(datum, "path", "")
        cells = (
            datum.id,
            tr(datum.title, datum.title_zh),
            address,
            datum.type or "-",
            datum.scale,
            datum.unit,
            datum.measurand,
            f"{', '.join(datum.source)} ({profile.grade(datum.source)})",
        )
        rows.append(Row(cells))
    show_sheet(headings, rows, console=console)

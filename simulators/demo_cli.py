"""`millgate demo`: watch the whole way on this machine."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from protocols.language import tr
from protocols.settings import parse_duration
from protocols.signals import stop_on_signals
from simulators.demo import SLOT, Mill, running

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_HELP: Final = tr(
    "Run a simulated mill, its agent and the brain on this machine, and judge the end.\n\n"
    "Nothing else needs to be installed. The exit code is 0 only if everything released "
    "arrived once and right.\n\nExample: millgate demo --duration 60 --report demo.json",
    "在本机运行模拟工厂、代理程序与产业大脑，并在结束时核对。\n\n"
    "无需另装其他软件。仅当所有放行数据恰好一次且正确到达时，退出码为 0。\n\n"
    "示例：millgate demo --duration 60 --report demo.json",
)
_REFRESH_S: Final = 1.0
_TELLING: Final = ("equipment_id", "measurand", "denominator", "method")
"""Tags that tell one series of a measurement from the next."""
_WORTH_SHOWING: Final = (
    "energy",
    "value",
    "activity",
    "kgco2e_per_unit",
    "co2e_kg",
    "state",
    "oee",
    "power_max_kw",
    "qty_total",
    "devices_online",
    "estimated_share",
)
"""Fields to show as a series' newest value: the first that is there."""
_KEYS: Final = (
    "produced",
    "consumed",
    "withheld",
    "open",
    "dropped",
    "released",
    "stored",
    "waiting",
    "refused",
    "lost",
    "wrong",
    "series",
    "balanced",
)


@app.command(help=_HELP)
def demo(
    duration: Annotated[
        str, typer.Option(help=tr("how long, such as 60 or 5m", "运行多久，例如 60 或 5m"))
    ] = "120",
    report: Annotated[
        Path | None, typer.Option(help=tr("write the account here as JSON", "将账目写为 JSON 文件"))
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help=tr("keep everything in this new folder", "在此新目录中保留全部文件")),
    ] = None,
    seed: Annotated[int, typer.Option(help=tr("which mill", "哪座工厂"))] = 1,
) -> None:
    """Run the demo."""
    seconds = float(duration) if duration.isdecimal() else parse_duration(duration) / 1e9
    place = folder or Path(tempfile.mkdtemp(prefix="millgate-demo-"))
    place.mkdir(parents=True, exist_ok=True)
    try:
        found = asyncio.run(_run(place, seconds, seed))
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    if report is not None:
        chosen = {key: found[key] for key in _KEYS}
        report.write_text(json.dumps(chosen, ensure_ascii=False, indent=2) + "\n", "utf-8")
    if not _clean(found):
        raise typer.Exit(1)


def _clean(found: dict[str, Any]) -> bool:
    faults = found["lost"] or found["refused"] or found["wrong"]
    told = found["stored"] and found["partial"] <= found["judged"] // 2
    return bool(found["balanced"] and told) and not faults


async def _run(folder: Path, seconds: float, seed: int) -> dict[str, Any]:
    console = Console()
    console.print(tr("Setting up a mill ...", "正在搭建工厂……"))
    with stop_on_signals() as stop:
        found = await _watched(console, folder, seconds, seed, stop)
    console.print(_account(found))
    return found


async def _watched(
    console: Console, folder: Path, seconds: float, seed: int, stop: asyncio.Event
) -> dict[str, Any]:
    async with running(folder, seed) as mill:
        console.print(
            tr(f"The brain's page: {mill.page}", f"产业大脑页面：{mill.page}"), soft_wrap=True
        )
        console.print(tr("Waiting for the first values ...", "正在等待首批数据……"))
        await mill.first_values(stop)
        await _watch(console, mill, seconds, stop)
        console.print(
            tr("Stopping the agent, settling the account ...", "正在停止代理程序并对账……")
        )
        await mill.stop("agent")
        return await mill.settled_account()


async def _watch(console: Console, mill: Mill, seconds: float, stop: asyncio.Event) -> None:
    until = asyncio.get_running_loop().time() + seconds
    live = Live(console=console, auto_refresh=False, transient=False)
    with live if console.is_terminal else contextlib.nullcontext():
        while not stop.is_set():
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                break
            mill.check_alive()
            view = _view(await mill.inside(), await mill.arrived(), left)
            if console.is_terminal:
                live.update(view, refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_REFRESH_S, left)):
                    await stop.wait()
    if not console.is_terminal:
        console.print(_view(await mill.inside(), await mill.arrived(), 0))


def _view(inside: dict[str, Any] | None, arrived: list[dict[str, Any]], left: float) -> Group:
    tables: list[RenderableType] = [_inside(inside), _arrived(arrived)]
    line = Text(
        tr(
            f"slots of {SLOT}; {left:.0f} s left; Ctrl-C ends early",
            f"时段 {SLOT}；剩余 {left:.0f} 秒；Ctrl-C 提前结束",
        ),
        style="dim",
    )
    return Group(Columns(tables), line)


def _inside(inside: dict[str, Any] | None) -> Table:
    table = Table(title=tr("Inside the mill: what stays", "厂内：留下的"))
    table.add_column(tr("device", "设备"))
    table.add_column(tr("point", "点"))
    table.add_column(tr("leaves?", "外发？"))
    for device in (inside or {}).get("devices", []):
        for name in device["released"]:
            table.add_row(device["id"], name, Text(tr("released", "放行"), style="green"))
        for name in device["withheld"]:
            table.add_row(device["id"], name, Text(tr("stays", "留在厂内"), style="yellow"))
        book = device["account"]
        table.add_row(
            device["id"],
            tr("values read / withheld", "读取 / 未放行"),
            f"{book['produced']} / {book['withheld']}",
            style="bold",
            end_section=True,
        )
    return table


def _arrived(arrived: list[dict[str, Any]]) -> Table:
    table = Table(title=tr("At the brain: what arrived", "产业大脑：收到的"))
    table.add_column(tr("series", "序列"))
    table.add_column(tr("of", "对象"))
    table.add_column(tr("newest", "最新值"))
    # What people said of the mill did not come from it.
    shown = [one for one in arrived if one["measurement"] != "ff_fact"]
    rows = sorted(
        (one["measurement"], _whose(one["tags"]), _newest(one["fields"])) for one in shown
    )
    for row in rows:
        table.add_row(*row)
    return table


def _whose(tags: dict[str, str]) -> str:
    return " ".join(tags[name] for name in _TELLING if tags.get(name))


def _newest(fields: dict[str, Any]) -> str:
    for name in _WORTH_SHOWING:
        value = fields.get(name)
        if value is not None:
            return f"{value:.6g}" if isinstance(value, float) else str(value)
    return "-"


def _account(found: dict[str, Any]) -> Table:
    good = _clean(found)
    title = (
        tr("the account holds", "账目相符") if good else tr("THE ACCOUNT DOES NOT HOLD", "账目不符")
    )
    table = Table(title=title, title_style="bold green" if good else "bold red", show_header=False)
    table.caption = tr(
        "open: in a slot that had not ended when the agent stopped; dropped: not used, most of them "
        "read before the first whole slot",
        "未结：代理停止时尚未结束的时段中的读数；丢弃：未使用的读数，多在第一个完整时段之前",
    )
    table.add_column()
    table.add_column()
    table.add_row(
        tr("inside the factory", "厂内"),
        tr(
            "produced {produced} = consumed {consumed} + withheld {withheld} + open {open} "
            "+ dropped {dropped}",
            "读取 {produced} = 已用 {consumed} + 未放行 {withheld} + 未结 {open} + 丢弃 {dropped}",
        ).format(**found),
    )
    table.add_row(
        tr("between the ends", "两端之间"),
        tr(
            "released {released} = stored {stored} + waiting {waiting} + refused {refused} "
            "+ lost {lost}",
            "放行 {released} = 入库 {stored} + 等待 {waiting} + 被拒 {refused} + 丢失 {lost}",
        ).format(**found),
    )
    table.add_row(
        tr("against the plant's truth", "与工厂真值核对"),
        tr("{judged} values judged, {wrong} wrong", "核对 {judged} 个值，错误 {wrong}").format(
            **found
        ),
    )
    rows = ", ".join(f"{name} {count}" for name, count in found["series"].items())
    table.add_row(tr("series rows", "序列行数"), rows)
    if found["first_wrong"]:
        table.add_row(tr("first wrong", "首个错误"), found["first_wrong"])
    return table

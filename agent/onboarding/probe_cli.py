"""`millgate agent probe`: what a place in a device holds, under every type and byte order."""

import asyncio
import math
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from agent.onboarding import terminal
from agent.onboarding.deciding import Decision, decide, refusing
from agent.onboarding.looking import View, views
from agent.onboarding.options import AgentToml, RawElsewhere
from agent.onboarding.points_cli import device_of
from agent.onboarding.profiles import ModbusProfile, Profile, choose_profile
from protocols.drivers import DeviceConfig
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.points import Point
from protocols.sheet import Row, screen, show_sheet
from protocols.words import instead_of

if TYPE_CHECKING:
    from protocols.drivers.modbus.config import Config

_WORDS: Final = (4, 2, 1)
_ORDERS: Final = ("ABCD", "CDAB", "BADC", "DCBA")

HELP: Final = tr(
    "Show what is at a point or an address of a Modbus device, read in every way.\n\n"
    "It is read several times, so that counters can be told. Values go to this terminal only. With "
    "--profile it tells what the device shows of what a profile leaves open.\n\n"
    "\b\nExamples:\n"
    "  millgate agent probe mill/agent.toml meter-1 energy\n"
    "  millgate agent probe mill/agent.toml meter-1 holding:8198\n"
    "  millgate agent probe mill/agent.toml meter-1 --profile chint-dtsu666",
    "以各种类型与字节序显示 Modbus 设备某个点或地址的内容。\n\n"
    "会读取多次，以便识别计数器。数值仅显示在本终端。加 --profile 则说明设备读数如何判定模板的未定之处。\n\n"
    "\b\n示例：\n"
    "  millgate agent probe mill/agent.toml meter-1 energy\n"
    "  millgate agent probe mill/agent.toml meter-1 holding:8198\n"
    "  millgate agent probe mill/agent.toml meter-1 --profile chint-dtsu666",
)


def probe(
    path: AgentToml,
    device: Annotated[str, typer.Argument(help=tr("id of the device", "设备标识"))],
    place: Annotated[
        str | None, typer.Argument(help=tr("a point's id, or an address", "点标识，或地址"))
    ] = None,
    *,
    profile: Annotated[
        str | None, typer.Option(help=tr("a profile to compare with", "要对照的设备模板"))
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, max=60, help=tr("how often it is read", "读取次数"))
    ] = 3,
    redirect: RawElsewhere = False,
) -> None:
    """Show what is at a place of a device."""
    if profile is None:
        terminal.raw_values_may_be_shown(redirect=redirect)
    config: Any = device_of(path, device)
    if config.kind != "modbus":
        raise MillgateError(
            tr("only registers have to be probed", "只有寄存器需要探查"),
            where=device,
            remedy=tr(
                "an OPC UA server tells its types: see 'millgate agent scan' and 'agent read'",
                "OPC UA 服务器会说明类型：见 'millgate agent scan' 与 'agent read'",
            ),
        )
    if profile is not None:
        _compare(config, choose_profile(profile))
        return
    if place is None:
        raise MillgateError(
            tr("what to look at is not said", "未说明要查看什么"),
            where="probe",
            remedy=tr("give a point, an address, or --profile", "请给出点、地址或 --profile"),
        )
    point = next((one for one in config.points if one.id == place), None)
    address = place if point is None else point.address
    data = asyncio.run(_samples(config, address, samples))
    _show(screen(), config, point, address, data)


def _compare(config: "Config", profile: Profile) -> None:
    """Say what a device shows of what a profile leaves open; no values."""
    if not isinstance(profile, ModbusProfile):
        raise MillgateError(
            tr(f"{profile.id} is not for registers", f"{profile.id} 不用于寄存器设备"),
            where="--profile",
        )
    decision = Decision()
    try:
        asyncio.run(_decide(config, profile, decision))
    finally:
        for line in decision.reasons:
            typer.echo(line)
    typer.echo(tr(f"nothing of {profile.id} is open", f"{profile.id} 已无未定之处"))


async def _decide(config: "Config", profile: ModbusProfile, decision: Decision) -> None:
    from protocols.drivers.modbus.survey import Survey  # noqa: PLC0415 - slow to load

    async with Survey(config) as survey:
        await decide(profile, {}, survey, refusing, decision)


async def _samples(config: "Config", address: str, samples: int) -> list[bytes]:
    from protocols.drivers.modbus.point import ADDRESS  # noqa: PLC0415 - slow to load
    from protocols.drivers.modbus.survey import Bounds, Survey  # noqa: PLC0415 - same

    if ADDRESS.fullmatch(address) is None:
        known = instead_of(address, [point.id for point in config.points])
        raise MillgateError(
            tr(f"'{address}' is neither a point nor an address", f"'{address}' 既不是点也不是地址"),
            where=config.id,
            remedy=tr(
                f"write an address such as holding:0, or a point — {known}",
                f"请写 holding:0 之类的地址，或点名：{known}",
            ),
        )
    async with Survey(config, Bounds(per_second=5.0)) as survey:
        for words in _WORDS:
            first = await survey.registers(address, words)
            if first is not None:
                break
        else:
            raise MillgateError(
                tr(
                    "the device refuses this address, or it is forbidden",
                    "设备拒绝此地址，或配置禁止访问",
                ),
                where=f"{config.id}, {address}",
                remedy=tr(
                    "documented numbers often count from 1 or 40001; 'millgate agent scan' "
                    "shows what it gives",
                    "手册编号常从 1 或 40001 起；可用 'millgate agent scan' 查看",
                ),
            )
        found = [first]
        for _ in range(samples - 1):
            await asyncio.sleep(1)
            more = await survey.registers(address, words)
            found += [more] if more is not None else []
        return found


def _show(
    console: Console, config: DeviceConfig, point: Point | None, address: str, data: list[bytes]
) -> None:
    last = data[-1]
    words = " ".join(last[at : at + 2].hex() for at in range(0, len(last), 2))
    console.print(f"{config.id}, {address}: {words}", highlight=False, markup=False)
    if ":" in address and address.split(":", maxsplit=1)[0] in {"coil", "discrete"}:
        console.print(tr("bits, the first is the lowest", "位，最低位在前"), highlight=False)
        return
    meant = None if point is None else (point.type, _order(config, point))
    rows = []
    found = views(data)
    for kind in dict.fromkeys(view.kind for view in found):
        by_order = {view.order: view for view in found if view.kind == kind}
        cells = [_cell(by_order.get(order), point, meant) for order in _ORDERS]
        rows.append(
            Row((kind, *(text for text, _ in cells)), styles=("", *(style for _, style in cells)))
        )
    title = tr("Only this terminal sees these values", "以下数值仅本终端可见")
    show_sheet((tr("type", "类型"), *_ORDERS), rows, title=title, console=console)
    if point is not None:
        console.print(
            tr("* as configured", "* 现配置") + f": {point.type} {_order(config, point)}",
            highlight=False,
        )


def _order(config: DeviceConfig, point: Point) -> str:
    return str(getattr(point, "order", None) or getattr(config, "order", "ABCD"))


def _cell(view: View | None, point: Point | None, meant: tuple[str, str] | None) -> tuple[str, str]:
    """Return a cell's text and style."""
    if view is None:
        return "", ""
    shown = "-" if math.isnan(view.value) else f"{view.value:.12g}"
    hints = [] if math.isnan(view.value) else list(view.hints)
    here = point is not None and meant == (view.kind, view.order)
    if here and point is not None:
        value = view.value * float(point.scale) + float(point.offset)
        shown = f"* {shown} = {value:.10g} {point.unit}"
    lines = "\n".join([shown, *hints])
    style = "bold" if here else "dim" if view.odd else "green" if view.likely else ""
    return lines, style

"""`millgate agent add`: write a device into agent.toml."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from agent.config import read_config
from agent.onboarding import terminal
from agent.onboarding.adding import Made, Wish, bare_config, from_profile, from_scan, title
from agent.onboarding.deciding import Ask, Evidence, Undecided, described, refusing
from agent.onboarding.document import add_device
from agent.onboarding.layouts import Machine
from agent.onboarding.options import (
    AgentToml,
    Security,
    Settings,
    changes,
    pairs,
    place,
    toml_value,
)
from agent.onboarding.profiles import Alternative, Profile, choose_profile, shipped
from agent.onboarding.writing import DeviceText, PointText, device_block
from protocols.drivers import load, point_model, read_devices
from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.tables import write_points

_MOST_INLINE: Final = 40

HELP: Final = tr(
    "Write a device into agent.toml: from a profile, a point table, or a scan of its server.\n\n"
    "At a terminal it asks for what is missing. What a profile leaves open is decided by reading "
    "the device; where that does not tell, it asks, and never guesses.\n\n"
    "\b\nExamples:\n"
    "  millgate agent add mill/agent.toml\n"
    "  millgate agent add mill/agent.toml 192.168.1.20 --id meter-1 --profile chint-dtsu666\n"
    "  millgate agent add mill/agent.toml 192.168.1.21:502 --id oven --table oven.csv\n"
    "  millgate agent add mill/agent.toml opc.tcp://192.168.1.30:4840 --id press-1 --from-scan",
    "把设备写入 agent.toml：可用设备模板、点表或对服务器的扫描结果。\n\n"
    "在终端上会询问缺少的内容。模板未定之处通过读取设备判断；读不出来时询问，绝不猜测。\n\n"
    "\b\n示例：\n"
    "  millgate agent add mill/agent.toml\n"
    "  millgate agent add mill/agent.toml 192.168.1.20 --id meter-1 --profile chint-dtsu666\n"
    "  millgate agent add mill/agent.toml 192.168.1.21:502 --id oven --table oven.csv\n"
    "  millgate agent add mill/agent.toml opc.tcp://192.168.1.30:4840 --id press-1 --from-scan",
)


def add(
    path: AgentToml,
    target: Annotated[
        str | None,
        typer.Argument(
            help=tr(
                "HOST[:PORT], opc.tcp://HOST:PORT/PATH or /dev/ttyUSB0",
                "主机[:端口]、opc.tcp://主机:端口/路径 或 /dev/ttyUSB0",
            )
        ),
    ] = None,
    *,
    device: Annotated[
        str | None,
        typer.Option("--id", help=tr("id of the device, yours to choose", "设备标识，自定")),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "what it is; see 'millgate agent profiles'",
                "设备模板，见 'millgate agent profiles'",
            )
        ),
    ] = None,
    table: Annotated[Path | None, typer.Option(help=tr("its points as CSV", "点表（CSV）"))] = None,
    scan: Annotated[
        bool,
        typer.Option(
            "--from-scan",
            help=tr("take what an OPC UA server offers", "取 OPC UA 服务器所提供的点"),
        ),
    ] = False,
    select: Annotated[
        list[str] | None,
        typer.Option(
            help=tr(
                "with --from-scan: paths to take, such as 'Machines/*/Production/*' (repeatable)",
                "与 --from-scan 一起：要取的路径，例如 'Machines/*/Production/*'（可重复）",
            )
        ),
    ] = None,
    unit: Annotated[
        int | None, typer.Option(min=0, max=255, help=tr("Modbus unit id", "Modbus 站号"))
    ] = None,
    security: Security = None,
    settings: Settings = None,
    choose: Annotated[
        list[str] | None,
        typer.Option(
            help=tr(
                "what the profile leaves open, such as scale=tenths (repeatable)",
                "模板未定之处，例如 scale=tenths（可重复）",
            )
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help=tr("take this point only (repeatable)", "只取此点（可重复）")),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help=tr(
                "change a point, such as total.measurand=production.total (repeatable)",
                "修改某个点，例如 total.measurand=production.total（可重复）",
            ),
        ),
    ] = None,
    machine: Annotated[
        str, typer.Option(help=tr("which machine of the server", "服务器上的哪台机器"))
    ] = "",
    offline: Annotated[
        bool, typer.Option("--offline", help=tr("leave the device alone", "不接触设备"))
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help=tr("show it, write nothing", "只显示，不写入"))
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help=tr("ask nothing", "不询问"))] = False,
) -> None:
    """Write a device into agent.toml."""
    config = read_config(path)
    asking = terminal.interactive() and not yes
    chosen = None if profile is None else choose_profile(profile)
    if asking and chosen is None and table is None and not scan:
        chosen, table, scan = _source()
    keys = _keys(target, asking=asking, kind=chosen.kind if chosen else "")
    keys |= {"unit": unit} if unit is not None else {}
    keys |= {"security": security} if security is not None else {}
    keys |= {key: toml_value(value) for key, value in pairs(settings or [], "--with").items()}
    if asking and keys["kind"] == "modbus" and "unit" not in keys:
        keys["unit"] = typer.prompt(tr("Modbus unit id", "Modbus 站号"), default=1, type=int)
    known = [one.id for one in config.devices]
    keys = {"id": _id(device, known, asking=asking, path=path), **keys}
    if chosen is not None and chosen.kind != keys["kind"]:
        raise MillgateError(
            tr(f"{chosen.id} is for {chosen.kind} devices", f"{chosen.id} 用于 {chosen.kind} 设备"),
            where="--profile",
            remedy=tr("give the right target", "请给出正确的目标"),
        )
    wish = Wish(
        path,
        keys,
        given=pairs(choose or [], "--choose"),
        only=only or [],
        changes=changes(change or []),
        machine=machine,
        select=select or [],
        offline=offline,
    )
    bare_config(path, keys if chosen is None else {**_settings(chosen), **keys})
    if sum((chosen is not None, table is not None, scan)) != 1:
        raise _one_source()
    if table is not None:
        _add_table(wish, table, dry_run=dry_run)
        return
    if chosen is not None:
        made = asyncio.run(from_profile(wish, chosen, _ask(asking=asking), _pick(asking=asking)))
    else:
        made = asyncio.run(from_scan(wish))
    _write(wish, made, asking=asking, dry_run=dry_run)


def _settings(profile: Profile) -> Mapping[str, Any]:
    return profile.settings if profile.kind == "modbus" else {}


def _one_source() -> MillgateError:
    return MillgateError(
        tr("where the points come from is not said", "未说明点的来源"),
        where="--profile, --table, --from-scan",
        remedy=tr("give one of them", "请给出其中之一"),
    )


def _source() -> tuple[Profile | None, Path | None, bool]:
    """Have a person say where the points come from."""
    known = list(shipped().values())
    others = [
        tr("none of these: its points are in a table (CSV)", "以上都不是：点在表格（CSV）中"),
        tr(
            "none of these: look what its OPC UA server offers",
            "以上都不是：查看 OPC UA 服务器提供什么",
        ),
    ]
    question = tr("Which device is it?", "是哪种设备？")
    at = terminal.choose(question, [*(title(one) for one in known), *others])
    if at < len(known):
        return known[at], None, False
    if at > len(known):
        return None, None, True
    name = str(typer.prompt(tr("The CSV file", "CSV 文件")))
    return None, Path(name), False


def _keys(target: str | None, *, asking: bool, kind: str) -> dict[str, Any]:
    if target is None:
        if not asking:
            raise MillgateError(
                tr("where the device is is not said", "未说明设备地址"),
                remedy=tr(
                    "give HOST[:PORT], opc.tcp://HOST:PORT/PATH or /dev/ttyUSB0",
                    "请给出 主机[:端口]、opc.tcp://主机:端口/路径 或 /dev/ttyUSB0",
                ),
            )
        example = "opc.tcp://192.168.1.30:4840" if kind == "opcua" else "192.168.1.20"
        target = typer.prompt(
            tr(f"Where is it, such as {example}", f"设备地址，例如 {example}"), type=str
        )
    return place(str(target))


def _id(given: str | None, known: Sequence[str], *, asking: bool, path: Path) -> str:
    while given is None and asking:
        given = str(typer.prompt(tr("Your id for it, such as meter-1", "设备标识，例如 meter-1")))
        if given in known:
            typer.echo(tr(f"'{given}' is there already", f"'{given}' 已存在"))
            given = None
    if given is None:
        raise MillgateError(
            tr("the device needs an id", "设备须有标识"),
            where="--id",
            remedy=tr("such as meter-1", "例如 meter-1"),
        )
    if given in known:
        raise MillgateError(
            tr(f"device '{given}' is configured already", f"设备 '{given}' 已配置"),
            where=str(path),
            remedy=tr("give it another --id, or edit the file", "请另取 --id，或编辑该文件"),
        )
    return given


def _ask(*, asking: bool) -> Ask:
    def ask(alternative: Alternative, evidence: Mapping[str, Evidence]) -> str:
        question = tr(alternative.question, alternative.question_zh)
        at = terminal.choose(question, described(alternative, evidence))
        return alternative.choice[at].id

    return ask if asking else refusing


def _pick(*, asking: bool) -> Any:
    def pick(known: Sequence[Machine]) -> Machine:
        if len(known) == 1:
            return known[0]
        names = ["/".join(one.path) for one in known]
        if asking:
            return known[terminal.choose(tr("Which machine?", "哪台机器？"), names)]
        raise Undecided(
            tr("the server has several machines", "服务器上有多台机器"),
            where="--machine",
            remedy=tr(f"name one of {', '.join(names)}", f"请指定其一：{', '.join(names)}"),
        )

    return pick


def _add_table(wish: Wish, table: Path, *, dry_run: bool) -> None:
    """Add a device whose points are in a CSV file; the file is put beside agent.toml."""
    read_devices([{**wish.table, "points": str(table.absolute())}], wish.path)
    target = wish.path.parent / f"{wish.table['id']}.csv"
    here = table.resolve().parent == wish.path.resolve().parent
    name = table.name if here else target.name
    if not here and target.exists():
        raise _in_the_way(target)
    block = device_block(DeviceText({**wish.table, "points": name}))
    if dry_run:
        typer.echo(block, nl=False)
        return
    if not here:
        shutil.copyfile(table, target)
    try:
        add_device(wish.path, block)
    except MillgateError:
        if not here:
            target.unlink()
        raise
    _say_next(wish)


def _in_the_way(target: Path) -> MillgateError:
    return MillgateError(
        tr("another file of this name is there already", "同名文件已存在"),
        where=str(target),
        remedy=tr("move it away first", "请先将其移走"),
    )


def _write(wish: Wish, made: Made, *, asking: bool, dry_run: bool) -> None:
    for line in made.lines:
        typer.echo(line)
    for line in made.warnings:
        typer.echo(tr("note: ", "注意：") + line, err=True)
    device, points = made.device, made.device.points
    target = wish.path.parent / f"{wish.table['id']}.csv"
    as_table = len(points) > _MOST_INLINE
    if as_table:
        device = DeviceText({**device.table, "points": target.name}, (), device.notes)
    block = device_block(device)
    if dry_run or asking:
        typer.echo(block, nl=False)
    if dry_run:
        return
    if asking:
        question = tr(f"Write this into {wish.path}?", f"写入 {wish.path} 吗？")
        typer.confirm(question, default=True, abort=True)
    _put(wish, block, target if as_table else None, points)
    _say_next(wish, len(points))


def _put(wish: Wish, block: str, target: Path | None, points: Sequence[PointText]) -> None:
    """Write a device, with its points beside it where there is a target; both or nothing."""
    if target is None:
        add_device(wish.path, block)
        return
    if target.exists():
        raise _in_the_way(target)
    model = point_model(load(str(wish.table["kind"])).Config)
    write_points(target, [model.model_validate(point.table) for point in points])
    try:
        add_device(wish.path, block)
    except MillgateError:
        target.unlink()
        raise


def _say_next(wish: Wish, points: int | None = None) -> None:
    name = wish.table["id"]
    if points is not None:
        typer.echo(
            tr(f"{name}: {counted(points, 'point')} written", f"{name}：已写入 {points} 个点")
        )
    typer.echo(
        tr(
            f"Next:\n  millgate agent read {wish.path} {name}\n  millgate agent check {wish.path}",
            f"下一步：\n  millgate agent read {wish.path} {name}\n  millgate agent check {wish.path}",
        )
    )

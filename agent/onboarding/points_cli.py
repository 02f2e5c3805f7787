"""`millgate agent points`: a device's points to a spreadsheet and back."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from agent.config import read_config
from agent.onboarding.document import use_table
from agent.onboarding.options import AgentToml
from protocols.drivers import DeviceConfig, read_devices
from protocols.errors import MillgateError
from protocols.language import chinese, counted, tr
from protocols.settings import read_toml
from protocols.tables import write_points
from protocols.words import instead_of

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    help=tr(
        "A device's points as a table for spreadsheets (CSV), and back.",
        "把设备的点导出为电子表格（CSV），或导入回来。",
    ),
)

DeviceId = Annotated[str, typer.Argument(help=tr("id of the device", "设备标识"))]


class Separator(StrEnum):
    """What stands between two cells."""

    COMMA = "comma"
    SEMICOLON = "semicolon"
    TAB = "tab"


class Headers(StrEnum):
    """The language of the first row."""

    ENGLISH = "en"
    CHINESE = "zh"


_DELIMITERS: Final = {Separator.COMMA: ",", Separator.SEMICOLON: ";", Separator.TAB: "\t"}


@app.command(
    "export",
    help=tr(
        "Write a device's points into a CSV file that spreadsheets open.\n\n"
        "Example: millgate agent points export mill/agent.toml meter-1 --out meter-1.csv",
        "把设备的点写入电子表格可打开的 CSV 文件。\n\n"
        "示例：millgate agent points export mill/agent.toml meter-1 --out meter-1.csv",
    ),
)
def export(
    path: AgentToml,
    device: DeviceId,
    *,
    out: Annotated[
        Path | None, typer.Option(help=tr("file; default: DEVICE.csv", "文件；默认为 设备标识.csv"))
    ] = None,
    headers: Annotated[
        Headers | None, typer.Option(help=tr("names of columns: en or zh", "列名：en 或 zh"))
    ] = None,
    separator: Annotated[
        Separator, typer.Option(help=tr("between two cells", "单元格分隔符"))
    ] = Separator.COMMA,
    replace: Annotated[
        bool, typer.Option("--replace", help=tr("replace what is there", "覆盖现有文件"))
    ] = False,
) -> None:
    """Write a device's points into a CSV file."""
    config = device_of(path, device)
    target = out or Path(f"{device}.csv")
    if target.exists() and not replace:
        raise MillgateError(
            tr("the file is there already", "文件已存在"),
            where=str(target),
            remedy=tr(
                "give another --out, or --replace", "请用 --out 指定其他文件，或加 --replace"
            ),
        )
    in_chinese = chinese() if headers is None else headers is Headers.CHINESE
    try:
        write_points(target, config.points, chinese=in_chinese, delimiter=_DELIMITERS[separator])
    except OSError as error:
        raise MillgateError(
            tr("cannot be written", "无法写入"), where=str(target), remedy=error.strerror or ""
        ) from None
    count = len(config.points)
    typer.echo(tr(f"{target}: {counted(count, 'point')}", f"{target}：{count} 个点"))


@app.command(
    "import",
    help=tr(
        "Let a device take its points from a CSV file; nothing changes unless all of it is right.\n\n"
        "Example: millgate agent points import mill/agent.toml meter-1 meter-1.csv",
        "让设备改用 CSV 文件中的点；只要有一处不对就不作任何更改。\n\n"
        "示例：millgate agent points import mill/agent.toml meter-1 meter-1.csv",
    ),
)
def import_(
    path: AgentToml,
    device: DeviceId,
    table: Annotated[Path, typer.Argument(help=tr("the CSV file", "CSV 文件"))],
) -> None:
    """Let a device take its points from a CSV file."""
    read_config(path)
    at, raw = _find(path, device)
    named = raw.get("points")
    name = named if isinstance(named, str) else f"{device}.csv"
    target = path.parent / name
    (read,) = read_devices([{**raw, "points": str(table.absolute())}], path)
    new = not isinstance(named, str) and target.resolve() != table.resolve()
    if new and target.exists():
        raise MillgateError(
            tr("another file of this name is there already", "同名文件已存在"),
            where=str(target),
            remedy=tr("move it away first", "请先将其移走"),
        )
    _copy(table, target)
    if not isinstance(named, str):
        try:
            use_table(path, at, name)
        except MillgateError:
            if new:
                target.unlink()
            raise
    count = len(read.points)
    typer.echo(
        tr(
            f"{device} now has {counted(count, 'point')}, from {target}",
            f"{device} 现有 {count} 个点，取自 {target}",
        )
    )
    typer.echo(
        tr(
            "A policy names points exactly: have it written anew where they changed.",
            "策略精确指定每个点：如有变化，请重新编写并签署策略。",
        )
    )


def _copy(source: Path, target: Path) -> None:
    """Put a file's bytes, with the notes people wrote, in another's place."""
    if source.resolve() == target.resolve():
        return
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(source.read_bytes())
    part.replace(target)


def _find(path: Path, device: str) -> tuple[int, dict[str, Any]]:
    tables = read_toml(path).get("device", [])
    for at, table in enumerate(tables):
        if table.get("id") == device:
            return at, table
    raise unknown_device(path, device, [str(table.get("id")) for table in tables])


def device_of(path: Path, device: str) -> DeviceConfig:
    """Return a configured device.

    Raises:
        ConfigError: when the file has faults.
        MillgateError: when there is no such device.
    """
    config = read_config(path)
    for one in config.devices:
        if one.id == device:
            return one
    raise unknown_device(path, device, [one.id for one in config.devices])


def unknown_device(path: Path, device: str, known: list[str]) -> MillgateError:
    """Return the fault of a device that is not configured."""
    return MillgateError(
        tr(f"no device '{device}' is configured", f"未配置设备 '{device}'"),
        where=str(path),
        remedy=instead_of(device, known),
    )

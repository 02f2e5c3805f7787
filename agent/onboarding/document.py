"""Changes agent.toml as a careful person would: what is there stays as it is, or nothing changes.

The new text is written beside the file and read by the agent's own loader before it takes the
file's place; and every device that was not meant must be read as before.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from agent.config import read_config
from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.toml_faults import toml_fault

_HEADER: Final = re.compile(r"\s*\[{1,2}\s*([^\]\s#]+)\s*\]{1,2}\s*(#.*)?")
_KEY: Final = re.compile(r"\s*[A-Za-z0-9_\-\"'.]+\s*=")
_MARK: Final = "\ufeff"
_POINTS: Final = "device.points"


def add_device(path: Path, block: str) -> None:
    """Append a `[[device]]` to agent.toml.

    Raises:
        ConfigError: when the whole would not be valid; nothing is changed then.
    """
    old = _read(path)
    before = _devices(old, path)
    gap = "" if old.endswith("\n\n") else "\n" if old.endswith("\n") else "\n\n"
    new = old + _as_in(old, gap + block)
    _replace(path, old, new, [*before, *_devices(block, path)])


def use_table(path: Path, device: int, name: str) -> None:
    """Let a device take its points from a point table, instead of those written under it.

    Args:
        path: agent.toml.
        device: which, counted from 0.
        name: the point table, relative to agent.toml.

    Raises:
        ConfigError: when the whole would not be valid, or the points are not written as
            `[[device.points]]`; nothing is changed then.
    """
    old = _read(path)
    expected = _devices(old, path)
    expected[device] = {**expected[device], "points": name}
    lines = old.splitlines(keepends=True)
    first, last = _device_lines(lines, device)
    inside = _without_points(lines[first:last])
    at = max((n for n, line in enumerate(inside) if _KEY.match(line)), default=0) + 1
    inside.insert(at, _as_in(old, f"points = {quoted(name)}\n"))
    new = "".join([*lines[:first], *inside, *lines[last:]])
    _replace(path, old, new, expected)


def quoted(text: str) -> str:
    """Return a TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    plain = "".join(c if c.isprintable() else f"\\u{ord(c):04X}" for c in escaped)
    return f'"{plain}"'


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(
            [
                MillgateError(
                    tr("cannot be read as UTF-8 text", "无法按 UTF-8 文本读取"), where=str(path)
                )
            ]
        ) from None


def _as_in(old: str, block: str) -> str:
    """Return text with the line ends of a file."""
    return block.replace("\n", "\r\n") if "\r\n" in old else block


def _devices(text: str, path: Path) -> list[dict[str, Any]]:
    try:
        found = tomllib.loads(text.removeprefix(_MARK)).get("device", [])
    except tomllib.TOMLDecodeError as error:
        line, what, remedy = toml_fault(text, str(error))
        where = str(path) if line is None else f"{path}:{line}"
        fault = MillgateError(what, where=where, remedy=remedy)
        raise ConfigError([fault]) from None
    return list(found)


def _device_lines(lines: list[str], device: int) -> tuple[int, int]:
    """Return where a device begins and ends."""
    count, first = -1, len(lines)
    for number, line in enumerate(lines):
        header = _HEADER.fullmatch(line.rstrip("\r\n"))
        if header is None:
            continue
        if header[1] == "device":
            count += 1
        if first < number and not header[1].startswith("device."):
            return first, number
        if header[1] == "device" and count == device:
            first = number
    return first, len(lines)


def _without_points(lines: list[str]) -> list[str]:
    """Return a device's lines without its points; comments before another header stay."""
    kept: list[str] = []
    dropped: list[str] = []
    dropping = False
    for line in lines:
        header = _HEADER.fullmatch(line.rstrip("\r\n"))
        if header is not None:
            if dropping and not header[1].startswith(_POINTS):
                kept += _last_comment(dropped)
            dropping = header[1] == _POINTS or header[1].startswith(f"{_POINTS}.")
            dropped = []
        (dropped if dropping else kept).append(line)
    return [*kept, *_last_comment(dropped)]


def _last_comment(lines: list[str]) -> list[str]:
    """Return the blank lines and comments at the end: they belong to what follows."""
    at = len(lines)
    while at and (not lines[at - 1].strip() or lines[at - 1].lstrip().startswith("#")):
        at -= 1
    return lines[at:]


def _replace(path: Path, old: str, new: str, expected: list[dict[str, Any]]) -> None:
    """Put a new text in the file's place, once it has been found to be right.

    Raises:
        ConfigError: when it is not.
    """
    path = path.resolve()
    if _devices(new, path) != expected:
        fault = MillgateError(
            tr("cannot be changed without changing more", "无法在不影响其他内容的情况下修改"),
            where=str(path),
            remedy=tr("edit it by hand; nothing was changed", "请手工编辑；未作任何更改"),
        )
        raise ConfigError([fault])
    part = path.with_name(f".{path.name}.part")
    try:
        _write(part, new, path.stat().st_mode & 0o777)
        _check(part, path)
        if _read(path) != old:
            raise ConfigError(
                [
                    MillgateError(
                        tr("was changed by somebody else meanwhile", "期间已被他人修改"),
                        where=str(path),
                        remedy=tr("try again", "请重试"),
                    )
                ]
            )
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _write(path: Path, text: str, mode: int) -> None:
    with path.open("wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check(part: Path, path: Path) -> None:
    try:
        read_config(part)
    except ConfigError as error:
        faults = [
            MillgateError(
                fault.what, where=fault.where.replace(str(part), str(path)), remedy=fault.remedy
            )
            for fault in error.faults
        ]
        raise ConfigError(faults) from None

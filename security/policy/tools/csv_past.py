"""A past from a CSV file, as historians export it: a column `time` and one of each point.

    time,meter-1/energy,meter-1/power
    2026-11-20T08:00:00+08:00,10234.5,81.2

Times are ISO 8601 with a zone, or seconds since 1970, and do not go back. Values are in the point's
unit, after scale and offset. An empty cell was not sampled.
"""

import csv
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, TextIO

import numpy as np

from protocols.drivers import DeviceConfig
from protocols.errors import MillgateError
from protocols.frame import SECOND, Frame, Quality, Values
from protocols.language import tr
from protocols.points import PointTable
from protocols.words import instead_of
from security.policy.tools.past import MOST_CELLS, Past, coarse_notes, slices, tables_of

_TIME: Final = "time"
_SPAN_NS: Final = 10 * SECOND
_LARGEST: Final = 1 << 62

Cells = list[list[str]]


def read_csv_past(path: Path, devices: Sequence[DeviceConfig]) -> Past:
    """Read a past from a CSV file.

    Raises:
        MillgateError: on the first cell that is not what it must be, with its line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, times, rows = _cells(file, path)
    except (OSError, UnicodeDecodeError) as error:
        raise MillgateError(
            tr("the history cannot be read", "无法读取历史数据"),
            where=str(path),
            remedy=type(error).__name__,
        ) from None
    time = np.array(times, np.int64)
    row_ns = int(np.median(np.diff(time))) if len(time) > 1 else None
    tables = tables_of(devices, row_ns)
    places = _places(path, header[1:], tables)
    frames = [
        frame
        for device, table in tables.items()
        for whole in (True, False)
        for frame in _frames(path, table, whole, places.get(device, {}), time, rows)
    ]
    frames.sort(key=lambda one: int(one.time[0, 0]))
    missing = [
        f"{device}/{point.id}"
        for device, table in tables.items()
        for point in table.points
        if point.id not in places.get(device, {})
    ]
    return Past(tables, frames, (*coarse_notes(tables, devices), *_missing_note(missing)))


def _missing_note(missing: Sequence[str]) -> Iterator[str]:
    if missing:
        first = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        yield tr(
            f"{len(missing)} configured point(s) are not in the history: {first}",
            f"历史数据缺少 {len(missing)} 个已配置的点：{first}",
        )


def _cells(file: TextIO, path: Path) -> tuple[list[str], list[int], Cells]:
    lines = csv.reader(file, strict=True)
    header = next(lines, [])
    if not header or header[0] != _TIME or len(header) < 2:
        raise _fault(path, 1, tr("the first column must be 'time'", "首列须为 time"), "")
    times: list[int] = []
    rows: Cells = []
    try:
        for row in lines:
            if len(row) != len(header):
                raise _fault(path, lines.line_num, tr("too few or too many cells", "列数不符"), "")
            times.append(_time(path, lines.line_num, row[0], times))
            rows.append(row[1:])
            if len(rows) * len(header) > MOST_CELLS:
                what = tr("the history is too long", "历史数据过长")
                raise _fault(path, lines.line_num, what, f"≤ {MOST_CELLS}")
    except csv.Error:
        raise _fault(path, lines.line_num, tr("is not valid CSV", "不是有效的 CSV"), "") from None
    return header, times, rows


def _time(path: Path, line: int, text: str, before: Sequence[int]) -> int:
    try:
        if text.isascii() and text.replace(".", "", 1).isdigit():
            found = int(Decimal(text) * SECOND)
        else:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise ValueError(text)
            found = round(moment.timestamp() * 1000) * (SECOND // 1000)
    except (ValueError, OverflowError):
        raise _fault(
            path,
            line,
            tr("time is not a time with a zone", "time 不是带时区的时间"),
            tr("write it like 2026-11-20T08:00:00+08:00", "请写成 2026-11-20T08:00:00+08:00 之类"),
        ) from None
    if (before and found < before[-1]) or not 0 <= found < _LARGEST:
        raise _fault(path, line, tr("time goes back", "时间倒退"), tr("sort it", "请按时间排序"))
    return found


def _places(
    path: Path, names: Sequence[str], tables: dict[str, PointTable]
) -> dict[str, dict[str, int]]:
    """Return the CSV column of each point, by device."""
    known = {f"{device}/{one.id}" for device, table in tables.items() for one in table.points}
    found: dict[str, dict[str, int]] = {}
    for at, name in enumerate(names):
        device, _, point = name.partition("/")
        if name not in known or point in found.get(device, {}):
            raise _fault(
                path,
                1,
                tr(f"'{name}' is no configured point, or is there twice", f"'{name}' 未配置或重复"),
                "" if name in known else instead_of(name, sorted(known)),
            )
        found.setdefault(device, {})[point] = at
    return found


def _frames(
    path: Path,
    table: PointTable,
    whole: bool,  # noqa: FBT001 - integer points and float points travel in frames of their own
    places: dict[str, int],
    time: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    rows: Cells,
) -> Iterator[Frame]:
    chosen = [
        (at, places[one.id])
        for at, one in enumerate(table.points)
        if one.id in places and bool(table.integer[at]) is whole
    ]
    if not chosen:
        return
    exponents = table.exponents()
    values: Values = np.zeros((len(rows), len(chosen)), np.int64 if whole else np.float64)
    quality = np.full(values.shape, Quality.ABSENT, np.uint8)
    for to, (at, column) in enumerate(chosen):
        for line, row in enumerate(rows):
            if row[column] != "":
                values[line, to] = _value(path, line + 2, row[column], whole, exponents[at])
                quality[line, to] = Quality.GOOD
    columns = np.array([at for at, _ in chosen], np.int32)
    for start, stop in slices(time, _SPAN_NS):
        yield Frame(
            device=table.device,
            columns=columns,
            time=time[start:stop, None],
            values=values[start:stop],
            quality=quality[start:stop],
            clock=int(time[stop - 1]) if table.brings_time else None,
        )


def _value(path: Path, line: int, text: str, whole: bool, exponent: int) -> int | float:  # noqa: FBT001 - see _frames
    try:
        number = Decimal(text)
        if not whole:
            return float(number)
        mantissa = number.scaleb(-exponent)
        if mantissa != int(mantissa) or abs(mantissa) >= _LARGEST:
            raise ValueError
        return int(mantissa)
    except (InvalidOperation, ValueError, OverflowError):
        raise _fault(
            path,
            line,
            tr("a value is not one that its point can have", "有值不是该点可能的取值"),
            tr("check unit, decimals and type", "请检查单位、小数位与类型"),
        ) from None


def _fault(path: Path, line: int, what: str, remedy: str) -> MillgateError:
    # The cell itself is raw data: it is not repeated.
    return MillgateError(what, where=f"{path}:{line}", remedy=remedy)

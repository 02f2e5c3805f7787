"""Point tables: a device's points as CSV, as spreadsheets write and read it.

    [[device]]
    id = "meter-1"
    kind = "modbus"
    host = "192.168.1.20"
    points = "meter-1.csv"

The first row names the columns as the keys of `[[device.points]]` are named, a key inside a key
with a dot (`counter.rollover`), or in Chinese. A cell left empty is a key left out; lists have
spaces between their members. The column `note` is for people. Commas, semicolons and tabs
separate cells; UTF-8, UTF-16 and GB18030 are read, UTF-8 with a byte order mark is written.

A cell of text that a spreadsheet would take for a formula is written with a `'` before it; one
`'` at the beginning of a cell is taken off again.
"""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.settings import Place, duration_text, parse_duration
from protocols.words import instead_of

_LARGEST_BYTES: Final = 64 << 20
_MOST_ROWS: Final = 100_000
_MOST_FAULTS: Final = 100
_DELIMITERS: Final = (",", ";", "\t")
_NOTE: Final = "note"
_ALWAYS: Final = ("id", "address", "type", "unit", "measurand", "scale")
_AS_IT_IS: Final = "address"
_FORMULA: Final = tuple("=+-@\t\r\n'＝＋－＠")
_SHORTENED: Final = re.compile(r"[+-]?\d*[.,]\d+[eE]\+?\d+")
_WIDEST: Final = 60

_CHINESE: Final[dict[str, tuple[str, ...]]] = {
    "id": ("点标识", "标识", "点名"),
    "address": ("地址", "寄存器地址", "节点"),
    "type": ("类型", "数据类型"),
    "unit": ("单位",),
    "measurand": ("测量量", "被测量", "含义"),
    "scale": ("倍率", "系数", "比例"),
    "offset": ("偏移", "偏移量"),
    "cadence": ("周期", "采集周期"),
    "counter.rollover": ("回绕值", "满量程"),
    "counter.on_reset": ("清零处理",),
    "state_model": ("状态模型",),
    "order": ("字节序", "字节顺序"),
    "invalid": ("无效值",),
    "length": ("长度",),
    "sampling_interval": ("采样间隔",),
    "queue_size": ("队列长度",),
    "deadband": ("死区",),
    "deadband_percent": ("百分比死区",),
    _NOTE: ("备注", "说明", "注释"),
}
"""The Chinese names of columns; the first is the one written."""


@dataclass(frozen=True, slots=True)
class PointRows:
    """The rows of a point table.

    Attributes:
        points: one table per point, as TOML would give it, but every value is text.
        places: where each stands; as long as `points`.
        faults: what is wrong with the file itself.
    """

    points: list[dict[str, Any]]
    places: list[Place]
    faults: list[MillgateError]


def read_points(path: Path, model: type[BaseModel]) -> PointRows:
    """Read a point table; its values are checked by whoever puts them into the model."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        return _refuse(
            path,
            tr("the point table cannot be read", "无法读取点表"),
            error.strerror or type(error).__name__,
        )
    if len(data) > _LARGEST_BYTES:
        return _refuse(path, tr("the point table is too large", "点表过大"), "64 MB")
    columns = columns_of(model)
    text = _decode(data, columns)
    if text is None:
        return _refuse(
            path,
            tr("is in an unknown character encoding", "字符编码无法识别"),
            tr("save it as 'CSV UTF-8'", "请另存为“CSV UTF-8”"),
        )
    return _Reading(path, columns, text).rows()


def _refuse(path: Path, what: str, remedy: str) -> PointRows:
    return PointRows([], [], [MillgateError(what, where=str(path), remedy=remedy)])


def _decode(data: bytes, columns: Mapping[str, FieldInfo]) -> str | None:
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return text if encoding != "gb18030" or _is_chinese(text, columns) else None
    return None


def _is_chinese(text: str, columns: Mapping[str, FieldInfo]) -> bool:
    """Tell a Chinese file from a Western one, whose '°C' would else be read as '癈'."""
    names = _names(columns)
    if any(not key.isascii() and key in text.partition("\n")[0] for key in names):
        return True
    try:
        text.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


class _Reading:
    """One file being read."""

    def __init__(self, path: Path, columns: Mapping[str, FieldInfo], text: str) -> None:
        self._path = path
        self._columns = columns
        self._faults: list[MillgateError] = []
        first, _, rest = text.partition("\n")
        told = re.fullmatch(r"sep=(.)\r?", first)
        self._ahead = 1 if told else 0
        self._text = rest if told else text
        self._delimiter = told[1] if told else _delimiter(text, _names(columns))

    def rows(self) -> PointRows:
        records = self._records()
        line, header = next(records, (1, []))
        keys = self._keys(line, header)
        labels = {
            key: tr(f"column {_letters(at)} ({header[at]})", f"{_letters(at)} 列（{header[at]}）")
            for at, key in enumerate(keys)
            if key
        }
        for key, field in self._columns.items():
            if field.is_required() and key not in keys:
                self._fault(line, tr(f"has no column '{key}'", f"缺少列 '{key}'"))
        if self._faults:
            return PointRows([], [], self._faults)
        points: list[dict[str, Any]] = []
        places: list[Place] = []
        seen: dict[str, int] = {}
        for line, cells in records:
            found = self._point(line, cells, keys, labels)
            point_id = str(found.get("id", ""))
            if point_id in seen and point_id:
                what = tr(f"point id '{point_id}' is used twice", f"点标识 '{point_id}' 重复")
                remedy = tr(f"first in line {seen[point_id]}", f"首次见于第 {seen[point_id]} 行")
                self._fault(line, what, labels["id"], remedy)
            elif found:
                seen[point_id] = line
                points.append(found)
                places.append(Place(f"{self._path}:{line}", labels))
        return PointRows(points, places, self._bounded())

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield line and cells of every row that is not empty."""
        reader = csv.reader(io.StringIO(self._text, newline=""), delimiter=self._delimiter)
        line = self._ahead + 1
        count = 0
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    count += 1
                    if count > _MOST_ROWS + 1:
                        self._fault(line, tr("has more than 100000 rows", "超过 100000 行"))
                        return
                    yield line, cells
                line = self._ahead + reader.line_num + 1
        except csv.Error:
            self._fault(
                line,
                tr("is not a CSV row", "不是有效的 CSV 行"),
                remedy=tr("look for a quote that is not closed", "请检查未闭合的引号"),
            )

    def _keys(self, line: int, header: Sequence[str]) -> list[str]:
        names = _names(self._columns)
        keys: list[str] = []
        for at, title in enumerate(header):
            key = names.get(_plain(title), "")
            column = tr(f"column {_letters(at)}", f"{_letters(at)} 列")
            if not key and title.strip():
                what = tr(f"there is no column '{title}'", f"没有名为 '{title}' 的列")
                self._fault(line, what, column, instead_of(_plain(title), names))
            elif key and key in keys:
                self._fault(line, tr(f"column '{key}' is there twice", f"列 '{key}' 重复"), column)
            keys.append(key)
        return keys

    def _point(
        self, line: int, cells: Sequence[str], keys: Sequence[str], labels: Mapping[str, str]
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for at, cell in enumerate(cells):
            key = keys[at] if at < len(keys) else ""
            if not key and cell.strip():
                column = tr(f"column {_letters(at)}", f"{_letters(at)} 列")
                self._fault(line, tr("a value without a column name", "该列没有列名"), column)
            elif key and key != _NOTE and cell.strip():
                if _is_number(self._columns[key]) and _SHORTENED.fullmatch(cell.strip()):
                    what = tr("a spreadsheet has shortened this number", "该数字被电子表格截短")
                    remedy = tr("write all of its digits", "请写出全部数字")
                    self._fault(line, what, labels[key], remedy)
                self._put(found, key, cell)
        return found

    def _put(self, found: dict[str, Any], key: str, cell: str) -> None:
        *outer, last = key.split(".")
        for name in outer:
            found = found.setdefault(name, {})
        text = cell if key == _AS_IT_IS else cell.strip()
        text = text.removeprefix("'")
        found[last] = text.split() if _is_list(self._columns[key]) else text

    def _fault(self, line: int, what: str, column: str = "", remedy: str = "") -> None:
        where = f"{self._path}:{line}" + (f", {column}" if column else "")
        self._faults.append(MillgateError(what, where=where, remedy=remedy))

    def _bounded(self) -> list[MillgateError]:
        more = len(self._faults) - _MOST_FAULTS
        if more <= 0:
            return self._faults
        rest = MillgateError(tr(f"and {more} more faults", f"另有 {more} 处错误"))
        return [*self._faults[:_MOST_FAULTS], rest]


def _delimiter(text: str, names: Mapping[str, str]) -> str:
    """Return what separates cells: whatever makes most names of columns out of the first row."""

    def known(delimiter: str) -> int:
        row: list[str] = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        return sum(_plain(cell) in names for cell in row)

    try:
        return max(_DELIMITERS, key=known)
    except csv.Error:
        return ","


def columns_of(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Return the columns of a model's point table: dotted key -> field."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= columns_of(inner, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = field
    return found


def _names(columns: Mapping[str, FieldInfo]) -> dict[str, str]:
    """Return all names of columns, as people may write them -> dotted key."""
    known = [*columns, _NOTE]
    found = {key: key for key in known}
    return found | {name: key for key in known for name in _CHINESE.get(key, ())}


def _plain(title: str) -> str:
    return unicodedata.normalize("NFKC", title).strip().removeprefix("'").casefold()


def _letters(at: int) -> str:
    """Return what spreadsheets call a column."""
    letters = ""
    at += 1
    while at:
        at, rest = divmod(at - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def write_points(
    path: Path, points: Sequence[BaseModel], *, chinese: bool = False, delimiter: str = ","
) -> None:
    """Write a point table; the file is the old one or the whole new one.

    Raises:
        OSError: when it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8-sig", newline="") as file:
        file.write(points_text(points, chinese=chinese, delimiter=delimiter))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def points_text(points: Sequence[BaseModel], *, chinese: bool = False, delimiter: str = ",") -> str:
    """Return points as CSV, with the columns that say something; read again, they are the same."""
    columns = columns_of(type(points[0])) if points else {}
    rows = [{key: _cell(point, key, field) for key, field in columns.items()} for point in points]
    used = [key for key in columns if key in _ALWAYS or any(row[key] for row in rows)]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow([_CHINESE.get(key, (key,))[0] if chinese else key for key in used])
    writer.writerows([[row[key] for key in used] for row in rows])
    return out.getvalue()


def _cell(point: BaseModel, key: str, field: FieldInfo) -> str:
    value: Any = point
    for name in key.split("."):
        value = getattr(value, name)
    if not field.is_required() and value == field.get_default(call_default_factory=True):
        return ""
    if isinstance(value, str):
        return f"'{value}" if not value or value.startswith(_FORMULA) else value
    return _written(value, field)


def _written(value: Any, field: FieldInfo) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return " ".join(_written(one, field) for one in _ordered(value))
    if isinstance(value, int) and _is_duration(field):
        return duration_text(value)
    return str(value)


def _ordered(values: Iterable[Any]) -> list[Any]:
    return sorted(values) if isinstance(values, (set, frozenset)) else list(values)


def decimal_text(value: Decimal) -> str:
    """Write a number in full digits, as people and spreadsheets read it."""
    plain = value.normalize()
    return f"{plain:f}" if abs(plain.adjusted()) <= _WIDEST else str(plain)


def _is_duration(field: FieldInfo) -> bool:
    return any(getattr(one, "func", None) is parse_duration for one in _inside(field))


def _is_number(field: FieldInfo) -> bool:
    return any(one in {Decimal, int} for one in (field.annotation, *get_args(field.annotation)))


def _is_list(field: FieldInfo) -> bool:
    kinds = {list, tuple, set, frozenset}
    return any(get_origin(one) in kinds for one in _inside(field))


def _inside(field: FieldInfo) -> Iterator[Any]:
    """Yield a field's annotations, with what unions and Annotated hold."""
    waiting: list[Any] = [field.annotation, *field.metadata]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += [*get_args(one), *getattr(one, "__metadata__", ())]

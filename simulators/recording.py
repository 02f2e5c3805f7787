"""Recorded energy: a CSV file of one year, or a generated one, as exact counts of 0.01 kWh."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.words import instead_of
from simulators.chance import draws

LABEL: Final = "date"
_LABEL_FORMAT: Final = "%d/%m/%Y %H:%M"
_LABEL_SHAPE: Final = re.compile(r"\d\d/\d\d/\d{4} \d\d:\d\d")
_NUMBER: Final = re.compile(r"(0|[1-9]\d{0,8})(\.\d{1,6})?")
_OFFSET: Final = re.compile(r"([+-])(\d\d):(\d\d)")
_LARGEST_FILE: Final = 64 * 2**20
_MOST_ROWS: Final = 1_000_000
_COUNT: Final = Decimal("0.01")
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Recording:
    """Energy used in one interval after another, without a gap.

    Attributes:
        first_ns: when the first interval began, nanoseconds since 1970 UTC.
        interval_ns: how long each is.
        counts: energy used in each, in 0.01 kWh.
        mended: labels of midnight that carried the day just ended, and were read as its end.
    """

    first_ns: int
    interval_ns: int
    counts: tuple[int, ...]
    mended: int = 0

    @property
    def total_kwh(self) -> Decimal:
        """Energy of all rows, exactly."""
        return sum(self.counts) * _COUNT


def zone(name: str) -> tzinfo:
    """Turn 'Asia/Seoul' or '+09:00' into a time zone.

    Raises:
        MillgateError: for anything else.
    """
    match = _OFFSET.fullmatch(name)
    if match is not None and int(match[2]) < 24 and int(match[3]) < 60:
        offset = timedelta(hours=int(match[2]), minutes=int(match[3]))
        return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise MillgateError(
            tr("there is no such time zone", "没有这个时区"),
            where="--timezone",
            remedy=tr(
                "write a name such as Asia/Seoul, or +09:00", "请写 Asia/Seoul 之类的名称或 +09:00"
            ),
        ) from None


def read_recording(path: Path, column: str, local: tzinfo, interval_ns: int) -> Recording:
    """Read a CSV file whose column `date` labels each interval by its end, dd/mm/yyyy HH:MM.

    Rows are taken in file order. A label of midnight may carry the day just ended instead of
    the new one; it is read as its end and counted in `mended`.

    Raises:
        MillgateError: on the first row that is not what it must be, with its line.
    """
    _check_interval(interval_ns)
    rows = _rows(path, column)
    steps = _Steps(path, local, interval_ns)
    counts: list[int] = []
    for line, label, number in rows:
        if len(counts) == _MOST_ROWS:
            raise _fault(path, line, tr("there are too many rows", "行数过多"), f"≤ {_MOST_ROWS}")
        steps.check(line, label)
        counts.append(_to_counts(path, line, column, number))
    if not counts:
        raise _fault(path, 1, tr("there are no rows", "没有数据行"), "")
    return Recording(steps.first_ns, interval_ns, tuple(counts), steps.mended)


def _check_interval(interval_ns: int) -> None:
    if interval_ns % SECOND or not SECOND <= interval_ns <= 86_400 * SECOND:
        raise MillgateError(
            tr("the interval must be whole seconds, at most a day", "间隔须为整秒，且不超过一天"),
            where="--interval",
            remedy=tr("write it like 15m", "请写成 15m 之类"),
        )


class _Steps:
    """Follows the labels of the rows; each must be one interval after the one before."""

    def __init__(self, path: Path, local: tzinfo, interval_ns: int) -> None:
        self._path = path
        self._local = local
        self._interval = timedelta(microseconds=interval_ns // 1000)
        self._expected: datetime | None = None
        self.first_ns = 0
        self.mended = 0

    def check(self, line: int, text: str) -> None:
        """Take the next label; raise MillgateError where it is not the expected one."""
        label = self._parse(line, text)
        if self._expected is None:
            self._expected = self._utc(line, label)
            begin = self._expected - self._interval
            self.first_ns = (begin - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
            self.first_ns *= 1000
        expected = self._expected.astimezone(self._local).replace(tzinfo=None)
        if label == expected - _DAY and (expected.hour, expected.minute) == (0, 0):
            self.mended += 1
        elif label != expected:
            raise _fault(
                self._path,
                line,
                tr("the label does not follow the row before", "时间标签与上一行不连续"),
                tr(
                    f"expected {expected:{_LABEL_FORMAT}}; check the interval and the time zone",
                    f"应为 {expected:{_LABEL_FORMAT}}；请检查间隔与时区",
                ),
            )
        self._expected += self._interval

    def _parse(self, line: int, text: str) -> datetime:
        try:
            if _LABEL_SHAPE.fullmatch(text) is None:
                raise ValueError(text)
            # Labels are local by definition; their zone is stated beside the file.
            label = datetime.strptime(text, _LABEL_FORMAT)  # noqa: DTZ007 - see above
            if not 1970 < label.year < 2106:
                raise ValueError(text)
        except ValueError:
            raise _fault(
                self._path,
                line,
                tr(f"column {LABEL} is not a time", f"{LABEL} 列不是时间"),
                tr(
                    "write it as dd/mm/yyyy HH:MM, from 1971 to 2105",
                    "请写成 dd/mm/yyyy HH:MM，1971 至 2105 年",
                ),
            ) from None
        return label

    def _utc(self, line: int, label: datetime) -> datetime:
        moment = label.replace(tzinfo=self._local).astimezone(UTC)
        if moment.astimezone(self._local).replace(tzinfo=None) != label:
            raise _fault(
                self._path,
                line,
                tr("there is no such moment in this time zone", "该时区没有这一时刻"),
                tr("check the time zone", "请检查时区"),
            )
        return moment


def _rows(path: Path, column: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, label, number) of each row."""
    # newline='' leaves line ends to the CSV reader; str.splitlines would also split elsewhere.
    lines = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = next(lines, [])
        at, label_at = _find(path, header, column), _find(path, header, LABEL)
        for row in lines:
            if len(row) != len(header):
                raise _fault(
                    path,
                    lines.line_num,
                    tr("the row has too few or too many fields", "该行字段数不对"),
                    tr(f"the header has {len(header)}", f"表头有 {len(header)} 个字段"),
                )
            yield lines.line_num, row[label_at], row[at]
    except csv.Error:
        raise _fault(
            path, lines.line_num, tr("is not valid CSV", "不是有效的 CSV"), tr("mend it", "请更正")
        ) from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise MillgateError(
            tr("the recording cannot be read", "无法读取记录文件"),
            where=str(path),
            remedy=error.strerror or type(error).__name__,
        ) from error
    if len(data) > _LARGEST_FILE:
        raise MillgateError(
            tr("the recording is too large", "记录文件过大"),
            where=str(path),
            remedy=tr("split it; 64 MiB is the most", "请拆分；上限为 64 MiB"),
        )
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _fault(
            path,
            line,
            tr("is not UTF-8 text", "不是 UTF-8 文本"),
            tr("save it as UTF-8", "请存为 UTF-8"),
        ) from None


def _find(path: Path, header: list[str], column: str) -> int:
    if header.count(column) == 1:
        return header.index(column)
    remedy = (
        tr("the header must name it once", "表头须恰好有一列以此为名")
        if column in header
        else instead_of(column, header)
    )
    raise _fault(
        path, 1, tr(f"there is no single column {column}", f"没有唯一的 {column} 列"), remedy
    )


def _to_counts(path: Path, line: int, column: str, text: str) -> int:
    counts = Decimal(text) / _COUNT if _NUMBER.fullmatch(text) else None
    if counts is None or counts != int(counts):
        raise _fault(
            path,
            line,
            tr(f"column {column} is not energy in kWh", f"{column} 列不是以 kWh 计的电量"),
            tr(
                "write digits with at most two decimals and without leading zeros",
                "请只写数字，最多两位小数，不带前导零",
            ),
        )
    return int(counts)


def _fault(path: Path, line: int, what: str, remedy: str) -> MillgateError:
    return MillgateError(what, where=f"{path}:{line}", remedy=remedy)


def generate(rows: int, seed: int, local: tzinfo, interval_ns: int) -> Recording:
    """Make up a plant's year from 1 January 2018 on: quiet nights, busy working days.

    Raises:
        MillgateError: when there would be no row, or too many.
    """
    _check_interval(interval_ns)
    if not 1 <= rows <= _MOST_ROWS:
        raise MillgateError(
            tr("the number of rows is out of range", "行数超出范围"),
            where="--generate",
            remedy=f"1 … {_MOST_ROWS}",
        )
    first = datetime(2018, 1, 1, tzinfo=local)
    first_ns = int(first.timestamp()) * SECOND
    counts: list[int] = []
    while len(counts) < rows:
        day = len(counts) // 96
        picks = draws(seed, "energy", day, 96)
        counts += [
            300 + pick % 200 if _quiet(day, at) else 2_000 + pick % 12_000
            for at, pick in enumerate(picks)
        ]
    return Recording(first_ns, interval_ns, tuple(counts[:rows]))


def _quiet(day: int, at: int) -> bool:
    # 1 January 2018 was a Monday; shifts run from 07:00 to 22:00.
    return day % 7 == 6 or not 28 <= at < 88

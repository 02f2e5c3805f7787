"""Facts that only people know: value added, land, head count, cycle times; with source and date.

A CSV file, `facts.csv` beside the ledger, one fact a line. What is not entered stays absent, and so
does everything computed from it.
"""

import csv
import fcntl
import io
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.words import instead_of

_MOST: Final = 100_000
_LONGEST: Final = 200
_WAIT_S: Final = 5.0
_LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class FactKind:
    """One kind of fact.

    Attributes:
        unit: of its value.
        of: whether it is of the whole site or of one equipment.
        time: `period` counts for the time from `from` to before `until`, which must be given;
            `since` holds from a day on.
        en, zh: for people.
        value: what its value can be.
    """

    unit: str
    of: Literal["site", "equipment"]
    time: Literal["period", "since"]
    en: str
    zh: str
    value: Literal["any", "amount", "positive", "share"] = "amount"


KINDS: Final = {
    "value_added": FactKind(
        "万元", "site", "period", "value added (income method)", "工业增加值（万元）", "any"
    ),
    "industry_mean_carbon": FactKind(
        "t/万元", "site", "period", "mean L of the industry", "同行业平均碳排放强度（吨/万元）"
    ),
    "revenue": FactKind("万元", "site", "period", "revenue", "营业收入（万元）"),
    "profit": FactKind("万元", "site", "period", "profit", "利润（万元）", "any"),
    "tax": FactKind("万元", "site", "period", "tax paid", "税收（万元）", "any"),
    "rd_spending": FactKind("万元", "site", "period", "spending on R&D", "研发经费支出（万元）"),
    "land_area": FactKind("亩", "site", "since", "land area", "用地面积（亩）", "positive"),
    "headcount": FactKind("1", "site", "since", "employees", "职工人数"),
    "digital_devices": FactKind(
        "1", "site", "since", "digital devices there are", "数字化设备总数"
    ),
    "green_power_share": FactKind(
        "1",
        "site",
        "period",
        "share of purchased power under contracts of zero-carbon power",
        "绿电合同占外购电量比例",
        "share",
    ),
    "ideal_cycle_time": FactKind(
        "s", "equipment", "since", "planned run time per unit", "理想节拍（秒/件）", "positive"
    ),
    "rated_power": FactKind(
        "kW", "equipment", "since", "rated power", "额定功率（千瓦）", "positive"
    ),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact, as it is written.

    Attributes:
        enterprise, site: whose it is, as the brain names them.
        equipment: public label; empty for the whole site.
        name: its kind.
        value: in the kind's unit.
        valid_from, valid_until: local days; `valid_until` is the first day it no longer holds,
            None: until another is entered.
        source: where the number is from.
        entered: the day it was entered.
    """

    enterprise: str
    site: str
    equipment: str
    name: str
    value: Decimal
    valid_from: date
    valid_until: date | None
    source: str
    entered: date

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What may have one value at a time."""
        return self.enterprise, self.site, self.equipment, self.name

    def holds_on(self, day: date) -> bool:
        """Tell whether it holds on a local day."""
        return self.valid_from <= day and (self.valid_until is None or day < self.valid_until)


COLUMNS: Final = (
    "enterprise", "site", "equipment", "name", "value", "from", "until", "source", "entered",
)  # fmt: skip


_CHINESE: Final = dict(
    zip(
        ("企业", "厂区", "设备", "事实项", "数值", "首日", "截止日", "出处", "填写日"),
        COLUMNS,
        strict=True,
    )
)
"""Chinese names of the columns are taken too."""

_DELIMITERS: Final = (",", ";", "\t")
_DAY: Final = re.compile(r"([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})")


def _fault(what: str, where: str, remedy: str) -> MillgateError:
    return MillgateError(what, where=where, remedy=remedy)


def read_fact(row: Mapping[str, str], where: str) -> Fact:
    """Return a fact out of a line's cells.

    Raises:
        MillgateError: the first thing that is wrong with it.
    """
    kind = KINDS.get(row["name"])
    if kind is None:
        raise _fault(
            tr(f"there is no fact '{row['name']}'", f"没有事实项 '{row['name']}'"),
            where,
            instead_of(row["name"], KINDS, "millgate aggregator facts kinds"),
        )
    _check_place(row, kind, where)
    value = _number(row["value"], where)
    _check_value(kind, value, where)
    start, end = _day(row["from"], where), _day(row["until"], where) if row["until"] else None
    _check_period(kind, start, end, where)
    if not 0 < len(row["source"].strip()) <= _LONGEST:
        raise _fault(
            tr("a fact has a source", "事实须注明来源"),
            where,
            tr("say where the number is from, up to 200 characters", "请写明数字出处，至多 200 字"),
        )
    return Fact(
        row["enterprise"],
        row["site"] or "main",
        row["equipment"],
        row["name"],
        value,
        start,
        end,
        row["source"].strip(),
        _day(row["entered"], where),
    )


def _check_place(row: Mapping[str, str], kind: FactKind, where: str) -> None:
    if not row["enterprise"]:
        raise _fault(
            tr("whose fact it is is missing", "缺少企业名"),
            where,
            tr("give the enterprise's name", "请填写企业名"),
        )
    if bool(row["equipment"]) != (kind.of == "equipment"):
        raise _fault(
            tr(
                f"{row['name']} is of {'one equipment' if kind.of == 'equipment' else 'the whole site'}",
                f"{row['name']} 属于{'单台设备' if kind.of == 'equipment' else '整个厂区'}",
            ),
            where,
            tr("give or leave out the equipment", "请填写或去掉设备"),
        )


def _check_period(kind: FactKind, start: date, end: date | None, where: str) -> None:
    if end is None and kind.time == "period":
        raise _fault(
            tr("it is of a period whose end is missing", "该项属于某一时段，缺少结束日期"),
            where,
            tr(
                "give the first day after it, such as 2027-01-01", "请填写结束后首日，如 2027-01-01"
            ),
        )
    if end is not None and end <= start:
        raise _fault(
            tr("its end is not after its beginning", "结束日期不晚于开始日期"),
            where,
            tr("correct the dates", "请更正日期"),
        )


def _number(text: str, where: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or abs(value.adjusted()) > 15:
        raise _fault(
            tr(f"'{text}' is no number", f"'{text}' 不是数字"),
            where,
            tr("write it like 1234.5", "请写作 1234.5"),
        )
    return value


def _check_value(kind: FactKind, value: Decimal, where: str) -> None:
    """Keep out what no such fact can be: a share of 30 would make carbon negative.

    Raises:
        MillgateError: with what it can be.
    """
    if kind.value == "share" and not 0 <= value <= 1:
        raise _fault(
            tr(f"{value} is no share", f"{value} 不是比例"),
            where,
            tr("write a number from 0 to 1: 30 % is 0.3", "请写 0 至 1 的数：30% 写作 0.3"),
        )
    if kind.value in {"amount", "positive"} and (
        value < 0 or (kind.value == "positive" and not value)
    ):
        raise _fault(
            tr(f"{kind.en} cannot be {value}", f"{kind.zh}不能是 {value}"),
            where,
            tr(
                "correct it, or remove the fact where it is not known: then nothing is computed from it",
                "请更正；若数值未知，请删除该事实：届时不做相关计算",
            ),
        )


def decoded(data: bytes) -> str:
    """Return the text of a CSV file in UTF-8 or GB18030.

    Raises:
        UnicodeDecodeError: it is in neither.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("gb18030")


def _day(text: str, where: str) -> date:
    # Spreadsheets write 2026/1/31 for a day.
    parts = _DAY.fullmatch(text)
    try:
        found = date(*map(int, parts.groups())) if parts else date.min
    except ValueError:
        found = date.min
    if not 1970 <= found.year <= 2200:
        raise _fault(
            tr(f"'{text}' is no day", f"'{text}' 不是日期"),
            where,
            tr("write it like 2026-01-31", "请写作 2026-01-31"),
        )
    return found


def parse_csv(text: str, where: str) -> list[Fact]:
    """Return the facts of a CSV text with the columns of `COLUMNS`.

    Raises:
        ConfigError: with every line's first fault; nothing is taken.
    """
    text = text.removeprefix("\ufeff")
    head = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=head.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    reader.fieldnames = [
        _CHINESE.get(name.strip(), name.strip()) for name in reader.fieldnames or ()
    ]
    missing = [name for name in COLUMNS if name not in reader.fieldnames]
    if missing:
        raise ConfigError(
            [
                _fault(
                    tr(
                        f"columns are missing: {', '.join(missing)}",
                        f"缺少列：{', '.join(missing)}",
                    ),
                    where,
                    tr(f"the first line is {','.join(COLUMNS)}", f"首行为 {','.join(COLUMNS)}"),
                )
            ]
        )
    facts: list[Fact] = []
    faults: list[MillgateError] = []
    for number, row in enumerate(reader, 2):
        cells = {name: (row.get(name) or "").strip() for name in COLUMNS}
        try:
            facts.append(read_fact(cells, f"{where}:{number}"))
        except MillgateError as fault:
            faults.append(fault)
    faults += _whole(facts, where)
    if faults:
        raise ConfigError(faults)
    return facts


def _whole(facts: Sequence[Fact], where: str) -> list[MillgateError]:
    """Return what is wrong with facts together."""
    faults = _overlaps(facts, where)
    if len(facts) > _MOST:
        faults.append(
            _fault(
                tr("too many facts", "事实过多"),
                where,
                tr(f"keep at most {_MOST}: remove old ones", f"至多 {_MOST} 项：请删除旧的事实"),
            )
        )
    return faults


def _overlaps(facts: Sequence[Fact], where: str) -> list[MillgateError]:
    """One datum has one source: two values of one fact for one day are a fault."""
    faults = []
    by_place: dict[tuple[str, str, str, str], list[Fact]] = {}
    for fact in facts:
        by_place.setdefault(fact.place, []).append(fact)
    for place, group in by_place.items():
        group.sort(key=lambda fact: fact.valid_from)
        for before, after in pairwise(group):
            closed = before.valid_until is not None and before.valid_until <= after.valid_from
            replaced = before.valid_until is None and before.valid_from < after.valid_from
            if not closed and not replaced:
                faults.append(
                    _fault(
                        tr(
                            f"{' '.join(filter(None, place))}: two values for {after.valid_from}",
                            f"{' '.join(filter(None, place))}：{after.valid_from} 有两个值",
                        ),
                        where,
                        tr("remove one, or correct its days", "请删除其一或更正日期"),
                    )
                )
    return faults


def to_csv(facts: Iterable[Fact]) -> str:
    """Return facts as CSV, sorted, so that a file has one form."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for fact in sorted(facts, key=lambda one: (*one.place, one.valid_from)):
        writer.writerow("" if cell is None else str(cell) for cell in astuple(fact))
    return out.getvalue()


Note = Callable[[Sequence[Fact], Sequence[Fact]], None]
"""Records a change, from the facts before to those after, before it is made."""


def _nobody(_before: Sequence[Fact], _after: Sequence[Fact]) -> None:
    pass


class FactFile:
    """The facts' file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Fact]:
        """Return all facts; none when there is no file.

        Raises:
            ConfigError: the file is faulty.
        """
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                [
                    _fault(
                        tr("the facts cannot be read", "无法读取事实文件"),
                        str(self.path),
                        tr(
                            f"check the file ({type(error).__name__})",
                            f"请检查文件（{type(error).__name__}）",
                        ),
                    )
                ]
            ) from None
        return parse_csv(text, str(self.path))

    def change(self, make: Callable[[list[Fact]], Sequence[Fact]], note: Note = _nobody) -> None:
        """Replace the facts by what `make` makes of them; nobody else changes them meanwhile.

        Args:
            make: makes the new facts of the old ones.
            note: records the change; what it raises keeps the change from being made.

        Raises:
            ConfigError: the file is faulty, two facts are of one day, or somebody else has been
                changing them for long.
        """
        with self._alone():
            before = self.read()
            after = make(before)
            self._check(after)
            note(before, after)
            self._put(after)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            until = time.monotonic() + _WAIT_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise ConfigError(
                            [
                                _fault(
                                    tr("the facts are being changed", "事实正在被修改"),
                                    str(self.path),
                                    tr("try again", "请重试"),
                                )
                            ]
                        ) from None
                    time.sleep(_LOOK_S * random.random())  # noqa: S311 - jitter, no secret
            yield

    def write(self, facts: Sequence[Fact]) -> None:
        """Replace all facts, atomically.

        Raises:
            ConfigError: two facts are of one day.
        """
        self._check(facts)
        self._put(facts)

    def _check(self, facts: Sequence[Fact]) -> None:
        faults = _whole(facts, str(self.path))
        if faults:
            raise ConfigError(faults)

    def _put(self, facts: Sequence[Fact]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.part")
        with part.open("w", encoding="utf-8", newline="") as file:
            file.write(to_csv(facts))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)


def merged(known: Sequence[Fact], new: Sequence[Fact]) -> list[Fact]:
    """Return all facts; a new one replaces what it says anew: same place, same first day."""
    replaced = {(fact.place, fact.valid_from) for fact in new}
    return [fact for fact in known if (fact.place, fact.valid_from) not in replaced] + list(new)


class SiteFacts:
    """The facts of one site."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self.all = sorted(facts, key=lambda fact: (fact.place, fact.valid_from))

    def on(self, name: str, day: date, equipment: str = "") -> Decimal | None:
        """Return a fact's value on a local day; None when it is not known."""
        found = None
        for fact in self.all:
            if fact.name == name and fact.equipment == equipment and fact.holds_on(day):
                # Sorted by first day: of open-ended ones the newer holds.
                found = fact.value
        return found

    def periods(self, name: str) -> list[Fact]:
        """Return all facts of a name."""
        return [fact for fact in self.all if fact.name == name]

    def text(self) -> str:
        """Return what these facts are, for a fingerprint."""
        return to_csv(self.all)

r"""What a store can keep: one rule for all stores, so that series can move between them.

It is what InfluxDB 1, 2 and 3 and the embedded store keep alike. Everything else is refused
with ValueError before any store sees it:

- measurement, tag keys and field names: 1 to 1000 bytes of UTF-8, no leading `_`, not `time`;
  a measurement does not start with `#`; a tag and a field of one series differ in name.
- tag values: 1 to 1000 bytes. At most 30 tags, sorted by key.
- none of these holds a control character, or a backslash at its end or before `,`, `=`, `"`,
  a blank or another backslash (line protocol has no spelling for those).
- text values: up to 16,000 characters, any characters that UTF-8 can spell.
- times: 1970-01-01 up to the last nanosecond InfluxDB knows (in the year 2262).

Not-a-number and infinite values are no values: the row has no such field. A row without any
field is no row.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import chain
from typing import Final, cast

import numpy as np

from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey
from protocols.frame import Flags, Ints, Values
from protocols.language import tr

LAST_NS: Final = 2**63 - 2
"""The last nanosecond that can be stored."""

_LONGEST_NAME: Final = 1000
_MOST_TAGS: Final = 30
_LONGEST_TEXT: Final = 16_000
_UNSPEAKABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]|\\(?=[,= \x22\\]|\Z)")


class FieldType(StrEnum):
    """What a field's values are."""

    FLOAT = "float"
    INTEGER = "integer"
    TEXT = "text"


_TYPES: Final = {
    np.dtype(np.float64).str: FieldType.FLOAT,
    np.dtype(np.int64).str: FieldType.INTEGER,
}

Signature = tuple[str, tuple[tuple[str, FieldType], ...]]
"""A measurement and its fields, as one block has them."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of many series of one measurement that have the same fields.

    Attributes:
        measurement: such as `ff_energy`.
        types: each field's type.
        keys: the series, each once.
        owner: shape (n,), position of each row's series in `keys`; not decreasing.
        time: shape (n,), nanoseconds since 1970 UTC, strictly increasing within a series.
        columns: each field's n values: float64 (NaN where absent), int64, or str objects
            ("" where absent). Every row has at least one.
    """

    measurement: str
    types: Mapping[str, FieldType]
    keys: Sequence[SeriesKey]
    owner: Ints
    time: Ints
    columns: Mapping[str, Values]

    def __len__(self) -> int:
        return len(self.time)


def rounds(blocks: Iterable[SeriesBlock]) -> Iterator[list[Table]]:
    """Check all blocks and gather them into tables, each series at most once per round.

    Rounds are to be written one after the other: a later one replaces rows of an earlier one.

    Raises:
        ValueError: a block cannot be stored; nothing has been yielded yet.
    """
    turns: list[dict[SeriesKey, SeriesBlock]] = []
    seen: dict[SeriesKey, int] = {}
    for block in blocks:
        turn = seen.get(block.key, 0)
        seen[block.key] = turn + 1
        if turn == len(turns):
            turns.append({})
        turns[turn][block.key] = block
    return iter([_tables(turn.values()) for turn in turns])


def _tables(blocks: Iterable[SeriesBlock]) -> list[Table]:
    groups: dict[Signature, list[SeriesBlock]] = {}
    for block in blocks:
        tags = check_key(block.key)
        if len(block) and block.fields:
            if not tags.isdisjoint(block.fields):
                raise _unfit(
                    block.key.measurement,
                    tr("a tag and a field have the same name", "标签与字段同名"),
                )
            groups.setdefault(_signature(block), []).append(block)
    tables = [_table(signature, group) for signature, group in groups.items()]
    return [table for table in tables if len(table)]


def _signature(block: SeriesBlock) -> Signature:
    rows, name = len(block), block.key.measurement
    fields = []
    for field, column in block.fields.items():
        check_field(field)
        if len(column) != rows:
            raise _unfit(name, tr("a column has not one value per row", "列长与行数不符"))
        fields.append((field, field_type(column)))
    return name, tuple(fields)


def field_type(column: FieldColumn) -> FieldType:
    """Return the type of a column.

    Raises:
        ValueError: it is neither float64, int64 nor a list.
    """
    kind = FieldType.TEXT if isinstance(column, list) else _TYPES.get(column.dtype.str)
    if kind is None:
        raise ValueError(
            tr("a column is float64, int64 or a list of text", "列须为 float64、int64 或文本列表")
        )
    return kind


def _table(signature: Signature, blocks: Sequence[SeriesBlock]) -> Table:
    measurement, fields = signature
    owner = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    time = np.concatenate([block.time for block in blocks])
    _check_time(measurement, owner, time)
    columns: dict[str, Values] = {}
    filled = np.zeros(len(time), np.bool_)
    for name, kind in fields:
        column = _column(measurement, kind, [block.fields[name] for block in blocks])
        filled |= present(kind, column)
        columns[name] = column
    if not filled.all():
        owner, time = owner[filled], time[filled]
        columns = {name: column[filled] for name, column in columns.items()}
    keys = [block.key for block in blocks]
    return Table(measurement, dict(fields), keys, owner, time, columns)


def _column(measurement: str, kind: FieldType, parts: Sequence[FieldColumn]) -> Values:
    if kind is FieldType.TEXT:
        return _text(measurement, list(chain.from_iterable(cast("Sequence[list[str]]", parts))))
    column = np.concatenate(cast("Sequence[Values]", parts))
    if kind is FieldType.FLOAT and not np.isfinite(column).all():
        column[~np.isfinite(column)] = np.nan
    return column


def _text(measurement: str, values: list[str]) -> Values:
    if max(map(len, values)) > _LONGEST_TEXT:
        raise _unfit(
            measurement,
            tr(f"a text is longer than {_LONGEST_TEXT}", f"文本超过 {_LONGEST_TEXT} 字符"),
        )
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        raise _unfit(measurement, tr("a text is not Unicode", "文本不是有效 Unicode")) from None
    return text_array(values)


def text_array(values: Sequence[str]) -> Values:
    """Return texts as an object array, shape (n,)."""
    column = np.empty(len(values), np.object_)
    column[:] = values
    return column


def present(kind: FieldType, column: Values) -> Flags:
    """Tell which cells of a column hold a value, shape (n,)."""
    if kind is FieldType.FLOAT:
        return ~np.isnan(column)
    if kind is FieldType.TEXT:
        filled: Flags = column != ""
        return filled
    return np.ones(len(column), np.bool_)


def _check_time(measurement: str, owner: Ints, time: Ints) -> None:
    if time.dtype != np.int64 or time.min() < 0 or time.max() > LAST_NS:
        raise _unfit(measurement, tr("a time is out of range", "时间超出范围"))
    if not ((time[1:] > time[:-1]) | (owner[1:] != owner[:-1])).all():
        raise _unfit(measurement, tr("times are not strictly increasing", "时间未严格递增"))


@lru_cache(maxsize=65_536)
def check_key(key: SeriesKey) -> frozenset[str]:
    """Check a series' name, and return its tags' keys.

    Raises:
        ValueError: some store could not keep it.
    """
    _check_name(key.measurement)
    if key.measurement.startswith("#"):
        raise _unfit(key.measurement, tr("a measurement starts with '#'", "测量名以 '#' 开头"))
    names = [name for name, _ in key.tags]
    if names != sorted(set(names)) or len(names) > _MOST_TAGS:
        raise _unfit(
            key.measurement,
            tr(
                f"tags are up to {_MOST_TAGS}, sorted, each once",
                f"标签须排序、不重复且至多 {_MOST_TAGS} 个",
            ),
        )
    for name, value in key.tags:
        _check_name(name)
        _check_word(value)
    return frozenset(names)


@lru_cache(maxsize=4096)
def check_field(name: str) -> None:
    """Check a field's name.

    Raises:
        ValueError: some store could not keep it.
    """
    _check_name(name)


def check_steps(step_ns: int) -> None:
    """Check the length of a step.

    Raises:
        ValueError: it is not at least 1 ns.
    """
    if step_ns < 1:
        raise ValueError(tr("a step lasts at least 1 ns", "步长至少为 1 纳秒"))


def span(start_ns: int, end_ns: int) -> tuple[int, int]:
    """Return the part of [start, end) in which rows can be; empty ones have start >= end."""
    return max(start_ns, 0), min(end_ns, LAST_NS + 1)


def _check_name(name: str) -> None:
    _check_word(name)
    if name.startswith("_") or name == "time":
        raise ValueError(
            tr(
                f"'{name}' is reserved: no name is 'time' or starts with '_'",
                f"'{name}' 是保留名：不得为 'time' 或以 '_' 开头",
            )
        )


def _check_word(word: str) -> None:
    try:
        size = len(word.encode())
    except UnicodeEncodeError:
        raise ValueError(tr("a name is not Unicode", "名称不是有效 Unicode")) from None
    if not 0 < size <= _LONGEST_NAME:
        raise ValueError(
            tr(
                f"names and tags have 1 to {_LONGEST_NAME} bytes",
                f"名称与标签须为 1 至 {_LONGEST_NAME} 字节",
            )
        )
    if _UNSPEAKABLE.search(word):
        raise ValueError(
            tr(
                f"{word!r} holds a control character, or a backslash at the end or before ',', '=',"
                " '\"', a blank or another backslash",
                f"{word!r} 含控制字符，或反斜杠位于末尾或 ','、'='、'\"'、空格、反斜杠之前",
            )
        )


def _unfit(measurement: str, why: str) -> ValueError:
    return ValueError(f"{measurement}: {why}")


def answer_column(kind: FieldType, values: Values, has: Flags) -> FieldColumn:
    """Return a column as readers get it.

    Args:
        kind: the field's type.
        values: shape (n,); what stands where there is no value does not matter.
        has: shape (n,), where there is one.

    Returns:
        Integers stay int64 where every row has one; else they become float64 with NaN.
    """
    if kind is FieldType.TEXT:
        return [text if there else "" for text, there in zip(values, has, strict=True)]
    if kind is FieldType.INTEGER and has.all():
        return values.astype(np.int64)
    return np.where(has, values, np.nan).astype(np.float64)

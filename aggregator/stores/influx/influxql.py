"""InfluxQL: statements whose names and texts are always quoted, and what answers mean."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from aggregator.storable import FieldType
from aggregator.stores import Aggregate, FieldColumn, SeriesKey
from protocols.frame import Ints

_FUNCTIONS: Final[dict[Aggregate, str]] = {
    "mean": "MEAN",
    "sum": "SUM",
    "min": "MIN",
    "max": "MAX",
    "last": "LAST",
}
_TYPES: Final = {
    "float": FieldType.FLOAT,
    "integer": FieldType.INTEGER,
    "unsigned": FieldType.INTEGER,
    "string": FieldType.TEXT,
}
_STRONGEST: Final = (FieldType.FLOAT, FieldType.INTEGER, FieldType.TEXT)
"""What values of a field are read as, if parts of the database hold it in several types."""
_ESCAPED: Final = re.compile(r"\\([,= ])")
_COMMA: Final = re.compile(r"(?<!\\),")
_EQUALS: Final = re.compile(r"(?<!\\)=")


@dataclass(frozen=True, slots=True)
class Answer:
    """One series of an answer.

    Attributes:
        tags: as the statement grouped them; empty values stand for none.
        columns: names of the columns; the first is `time` or the like.
        rows: the values, None where there is none.
    """

    tags: Mapping[str, str]
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def parse(body: bytes) -> tuple[list[Answer], str, bool]:
    """Return an answer's series, its error ('' where none), and whether more rows were cut off.

    Raises:
        ValueError, TypeError, LookupError, AttributeError: it is no answer to a query.
    """
    found = json.loads(body, parse_int=_whole)
    if not isinstance(found, dict):
        raise TypeError("the answer is not an object")
    results = found.get("results") or [{}]
    error = found.get("error") or results[0].get("error") or ""
    series = results[0].get("series") or []
    cut = bool(results[0].get("partial")) or any(one.get("partial") for one in series)
    answers = [
        Answer(one.get("tags") or {}, one["columns"], one.get("values") or []) for one in series
    ]
    return answers, str(error), cut


def _whole(digits: str) -> int | float:
    """Read a number without a point; a float's -0 is written so, and would lose its sign."""
    return -0.0 if digits == "-0" else int(digits)


def name(text: str) -> str:
    """Quote an identifier."""
    return '"' + _escaped(text).replace('"', r"\"") + '"'


def literal(text: str) -> str:
    """Quote a text."""
    return "'" + _escaped(text).replace("'", r"\'") + "'"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def condition(key: SeriesKey, other_tags: Iterable[str], start_ns: int, last_ns: int) -> str:
    """Return a WHERE clause: this very series (no `other_tags`), start_ns <= time <= last_ns."""
    terms = [f"{name(tag)} = {literal(word)}" for tag, word in key.tags]
    terms += [f"{name(tag)} = ''" for tag in sorted(other_tags)]
    terms += [f"time >= {start_ns:d}", f"time <= {last_ns:d}"]
    return " AND ".join(terms)


def select(
    key: SeriesKey, columns: Sequence[str], where: str, *, group: str = "", tail: str = ""
) -> str:
    """Return a SELECT over a series; `columns` are already quoted expressions."""
    grouped = f"{group}, *" if group else "*"
    source = f"{name(key.measurement)} WHERE {where} GROUP BY {grouped} {tail}"
    return f"SELECT {', '.join(columns)} FROM {source}".rstrip()  # noqa: S608  # quoted by name()


def delete(key: SeriesKey, where: str) -> str:
    """Return a statement that deletes the rows of a measurement that meet a condition."""
    return f"DELETE FROM {name(key.measurement)} WHERE {where}"  # noqa: S608  # quoted by name()


def one_row_each(measurement: str) -> str:
    """Return a statement that answers one row of each series."""
    return f"SELECT *::field FROM {name(measurement)} GROUP BY * LIMIT 1"  # noqa: S608  # quoted


def counts(measurement: str, where: str = "") -> str:
    """Return a statement that answers how many values each field has, where a condition holds."""
    met = f" WHERE {where}" if where else ""
    return f"SELECT COUNT(*::field) FROM {name(measurement)}{met}"  # noqa: S608  # quoted


def has(field: str, kind: FieldType) -> str:
    """Return a condition that holds where a row has a field."""
    if kind is FieldType.TEXT:
        return f"{name(field)} = '' OR {name(field)} != ''"
    return f"{name(field)} >= 0 OR {name(field)} < 0"


def aggregated(field: str, kind: FieldType, aggregate: Aggregate) -> str:
    """Return the expression of a field's aggregate, whose column is named `value`."""
    cast = "::float" if kind is FieldType.FLOAT else ""
    return f"{_FUNCTIONS[aggregate]}({name(field)}{cast}) AS value"


def typed(field: str, kind: FieldType) -> str:
    """Return the expression of a field, in one type wherever it was written in several."""
    return f"{name(field)}{'::float' if kind is FieldType.FLOAT else ''}"


def field_types(answers: Sequence[Answer]) -> dict[str, FieldType]:
    """Read an answer to SHOW FIELD KEYS; fields of types we do not know are left out."""
    found: dict[str, set[FieldType]] = {}
    for answer in answers:
        for field, kind in answer.rows:
            if kind in _TYPES:
                found.setdefault(field, set()).add(_TYPES[kind])
    return {field: next(k for k in _STRONGEST if k in kinds) for field, kinds in found.items()}


def first_column(answers: Sequence[Answer]) -> list[str]:
    """Read an answer that lists names."""
    return [row[0] for answer in answers for row in answer.rows]


def series_key(line: str) -> SeriesKey:
    """Read a series as SHOW SERIES spells it: with line protocol's escapes."""
    measurement, *tags = (part for part in _COMMA.split(line))
    pairs = (_EQUALS.split(tag, maxsplit=1) for tag in tags)
    return SeriesKey.of(_plain(measurement), {_plain(tag): _plain(word) for tag, word in pairs})


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)


def is_of(answer: Answer, key: SeriesKey) -> bool:
    """Tell whether an answer grouped by all tags is of this very series."""
    return {tag: word for tag, word in answer.tags.items() if word} == dict(key.tags)


def times(rows: Sequence[Sequence[Any]]) -> Ints:
    """Return the rows' times, shape (n,), nanoseconds."""
    return np.fromiter((row[0] for row in rows), np.int64, len(rows))


def column(kind: FieldType, cells: Sequence[Any]) -> FieldColumn:
    """Return cells, of which at least one is not None, as a column of an answer."""
    if kind is FieldType.TEXT:
        return [cell or "" for cell in cells]
    if kind is FieldType.INTEGER and None not in cells:
        return np.array(cells, np.int64)
    return np.array(cells, np.float64)

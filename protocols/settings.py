"""Reading the files people write: TOML into pydantic models, every fault at once.

Each fault names the file, the line where it can be had, the key path and the remedy.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple, TypeVar, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from protocols.errors import ConfigError, MillgateError, Misfit, Misfits
from protocols.language import tr
from protocols.toml_faults import encoding_fault, read_text, toml_fault
from protocols.words import instead_of, nearest, no_such

KeyPath = tuple[str | int, ...]

_UNITS: Final = {
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 86400 * 10**9,
}
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")
_TABLE: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_\-\"'. ]+?)\s*\]\]?\s*(#.*)?")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_\-\"'.]+)\s*=")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_LONG_WORD: Final = re.compile(r"'([^']{60})[^']{20,}'")


class Strict(BaseModel):
    """Base of every configuration model: unknown keys are faults, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class _Nanoseconds(int):
    """A duration that was read; a validator that meets it again lets it be."""


def parse_duration(value: object) -> int:
    """Turn '500ms', '5s', '15m', '1h' or '7d' into nanoseconds.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, _Nanoseconds):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            tr(
                "not a duration; write a number and ms, s, m, h or d, such as '15m'",
                "不是时长；请写数字加 ms、s、m、h 或 d，例如 '15m'",
            )
        )
    return _Nanoseconds(int(match[1]) * _UNITS[match[2]])


def duration_text(span_ns: int) -> str:
    """Write whole milliseconds, given in nanoseconds, as `parse_duration` reads them."""
    unit = next(name for name, size in reversed(_UNITS.items()) if span_ns % size == 0)
    return f"{span_ns // _UNITS[unit]}{unit}"


Duration = Annotated[int, BeforeValidator(parse_duration)]
"""A span of time in nanoseconds, written as text such as '15m'."""

Model = TypeVar("Model", bound=BaseModel)


class Place(NamedTuple):
    """Where a table stands that came from another file.

    Attributes:
        where: the file and the line.
        columns: dotted key -> the column that holds it.
    """

    where: str
    columns: Mapping[str, str]


_NO_PLACES: Final[Mapping[KeyPath, Place]] = MappingProxyType({})


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; duplicate keys are faults.

    Raises:
        ConfigError: when the file cannot be read or is not TOML.
    """
    data = b""
    try:
        data = path.read_bytes()
        return tomllib.loads(read_text(data))
    except FileNotFoundError:
        fault = MillgateError(
            tr("there is no such file", "文件不存在"),
            where=str(path),
            remedy=tr("give the right path, or make one with 'init'", "请检查路径，或用 init 生成"),
        )
    except tomllib.TOMLDecodeError as error:
        line, what, remedy = toml_fault(read_text(data), str(error))
        where = str(path) if line is None else f"{path}:{line}"
        fault = MillgateError(what, where=where, remedy=remedy)
    except UnicodeDecodeError:
        what, remedy = encoding_fault(data)
        fault = MillgateError(what, where=str(path), remedy=remedy)
    except (OSError, ValueError) as error:
        # ValueError: a path that no file can have, or a number of thousands of digits.
        reason = error.strerror if isinstance(error, OSError) else None
        fault = MillgateError(
            tr("cannot be read", "无法读取"),
            where=str(path),
            remedy=reason or type(error).__name__,
        )
    raise ConfigError([fault])


def load_settings(path: Path, model: type[Model]) -> Model:
    """Read a TOML file into a model.

    Raises:
        ConfigError: with every fault found, each on one line.
    """
    return check_settings(read_toml(path), model, path)


def check_settings(
    data: Mapping[str, Any],
    model: type[Model],
    path: Path,
    prefix: KeyPath = (),
    places: Mapping[KeyPath, Place] = _NO_PLACES,
) -> Model:
    """Validate parsed TOML against a model.

    Args:
        data: the table.
        model: what it must be.
        path, prefix: the file and the key path of the table in it, for the text of faults.
        places: key paths of tables that another file holds.

    Raises:
        ConfigError: with every fault found, each on one line.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = _lines_in(path)
        faults = [
            _fault(misfit, path, prefix, lines, places)
            for detail in error.errors(include_url=False)
            for misfit in _misfits(detail, model, prefix)
        ]
        raise ConfigError(faults) from None


def check_kind(table: object, known: Iterable[str], path: Path, prefix: KeyPath) -> str:
    """Return the `kind` of a table whose other keys depend on it.

    Raises:
        ConfigError: when it is no table, or has no kind that is known.
    """

    def one_of_them(kind: str) -> str:
        if not kind:
            raise Misfit(tr("is missing", "缺少此项"), instead_of("", known))
        if kind not in known:
            raise no_such(kind, known)
        return kind

    class Kinded(BaseModel):
        kind: Annotated[str, AfterValidator(one_of_them)] = Field("", validate_default=True)

    return check_settings(cast("Mapping[str, Any]", table), Kinded, path, prefix).kind


def fault_at(path: Path, misfit: Misfit) -> MillgateError:
    """Return the fault of a file at a key path of it, with the line where there is one."""
    return _fault(misfit, path, (), _lines_in(path), _NO_PLACES)


def _lines_in(path: Path) -> dict[KeyPath, int]:
    return key_lines(read_text(path.read_bytes())) if path.is_file() else {}


def _misfits(detail: ErrorDetails, model: type[BaseModel], prefix: KeyPath) -> Iterator[Misfit]:
    """Yield what one finding of pydantic says, with key paths from the model on."""
    error = cast("Mapping[str, Any]", detail.get("ctx", {})).get("error")
    if isinstance(error, Misfits):
        for one in error.found:
            yield Misfit(one.what, one.remedy, (*detail["loc"], *one.keys))
    elif isinstance(error, Misfit):
        yield Misfit(error.what, error.remedy, (*detail["loc"], *error.keys))
    else:
        yield Misfit(*_explain(detail, model, prefix), detail["loc"])


def _fault(
    misfit: Misfit,
    path: Path,
    prefix: KeyPath,
    lines: Mapping[KeyPath, int],
    places: Mapping[KeyPath, Place],
) -> MillgateError:
    keys = (*prefix, *misfit.keys)
    depth = next((n for n in range(len(keys), 0, -1) if keys[:n] in places), 0)
    name = _dotted(keys[depth:])
    if depth:
        place = places[keys[:depth]]
        column = place.columns.get(name)
        where = f"{place.where}, {column}" if column else place.where
    else:
        line = _line_of(keys, lines)
        where = f"{path}:{line}" if line else str(path)
    what = f"{name}: {misfit.what}" if name else misfit.what
    return MillgateError(_in_one_line(what), where=where, remedy=_in_one_line(misfit.remedy))


def _in_one_line(text: str) -> str:
    """Return a text that may quote what was written: nothing of it moves the cursor or fills the page."""
    plain = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return _LONG_WORD.sub(r"'\1…'", plain)


def _dotted(keys: KeyPath) -> str:
    name = "".join(f"[{key + 1}]" if isinstance(key, int) else f".{key}" for key in keys)
    return name.removeprefix(".")


def _explain(detail: ErrorDetails, model: type[BaseModel], prefix: KeyPath) -> tuple[str, str]:
    kind = detail["type"]
    context = cast("Mapping[str, Any]", detail.get("ctx", {}))
    correct = tr("correct the value", "请更正取值")
    if kind == "extra_forbidden":
        return tr("unknown key", "未知的键"), _instead_of_key(detail["loc"], model)
    if kind == "missing":
        return tr("is missing", "缺少此项"), tr("add it", "请补上")
    if kind == "value_error":
        return str(context["error"]), ""
    if kind == "literal_error":
        expected = str(context["expected"])
        choices = re.findall(r"'([^']*)'", expected) or re.findall(r"[0-9]+", expected)
        if len(choices) == 1:
            return tr(f"must be '{choices[0]}'", f"应为 '{choices[0]}'"), correct
        word = detail["input"]
        return tr(f"there is no '{word}'", f"没有 '{word}'"), instead_of(word, choices)
    if kind.startswith("datetime_"):
        correct = tr(
            "write it without quotes, such as 2026-01-31T08:00:00+08:00",
            "请不加引号书写，例如 2026-01-31T08:00:00+08:00",
        )
    elif kind.startswith("date_"):
        correct = tr("write it as 2026-01-31", "请写作 2026-01-31")
    elif (kind, type(detail["input"])) in _BRACKETS:
        name = ".".join(key for key in (*prefix, *detail["loc"]) if isinstance(key, str))
        wanted = _BRACKETS[kind, type(detail["input"])].format(name)
        correct = tr(f"write {wanted}", f"请写 {wanted}")
    template = _WORDS.get(kind)
    return (tr(*template).format(**context) if template else detail["msg"]), correct


def _instead_of_key(keys: KeyPath, model: type[BaseModel]) -> str:
    own, last = _own_names(keys[:-1], model), str(keys[-1])
    # A key of another table is meant next.
    near = nearest(last, own) or nearest(last, sorted(_field_names(model)))
    if near:
        return tr(f"did you mean '{near}'?", f"是否应为 '{near}'？")
    return tr("remove it or correct it", "请删除或更正")


_WORDS: Final = {
    "int_type": ("must be a whole number", "须为整数"),
    "int_parsing": ("must be a whole number", "须为整数"),
    "int_from_float": ("must be a whole number", "须为整数"),
    "float_type": ("must be a number", "须为数字"),
    "float_parsing": ("must be a number", "须为数字"),
    "decimal_type": ("must be a number", "须为数字"),
    "decimal_parsing": ("must be a number", "须为数字"),
    "finite_number": ("must be finite", "须为有限数"),
    "bool_type": ("must be true or false", "须为 true 或 false"),
    "bool_parsing": ("must be true or false", "须为 true 或 false"),
    "string_type": ("must be text in quotes", "须为带引号的文本"),
    "path_type": ("must be a path in quotes", "须为带引号的路径"),
    "list_type": ("must be a list", "须为列表"),
    "tuple_type": ("must be a list", "须为列表"),
    "model_type": ("must be a table", "须为表"),
    "dict_type": ("must be a table", "须为表"),
    "date_type": ("must be a day", "须为日期"),
    "date_parsing": ("must be a day", "须为日期"),
    "date_from_datetime_parsing": ("must be a day", "须为日期"),
    "date_from_datetime_inexact": ("must be a day", "须为日期"),
    "datetime_parsing": ("must be a date and time", "须为日期时间"),
    "datetime_type": ("must be a date and time", "须为日期时间"),
    "datetime_from_date_parsing": ("must be a date and time", "须为日期时间"),
    "string_too_short": (
        "must not be so short (at least {min_length})",
        "太短（至少 {min_length} 个字符）",
    ),
    "string_too_long": ("is too long (at most {max_length})", "太长（至多 {max_length} 个字符）"),
    "string_pattern_mismatch": ("is not written as it must be: {pattern}", "格式不符：{pattern}"),
    "too_short": ("needs at least {min_length}", "至少需要 {min_length} 项"),
    "too_long": ("may have at most {max_length}", "至多 {max_length} 项"),
    "greater_than": ("must be greater than {gt}", "须大于 {gt}"),
    "greater_than_equal": ("must be at least {ge}", "不得小于 {ge}"),
    "less_than": ("must be less than {lt}", "须小于 {lt}"),
    "less_than_equal": ("must be at most {le}", "不得大于 {le}"),
}
"""What pydantic finds, in both languages; its own words are used for anything else."""

_BRACKETS: Final[dict[tuple[str, type], str]] = {
    ("model_type", list): "[{}]",
    ("list_type", dict): "[[{}]]",
}
"""How a table is written where one, or any number, is meant and the other was found."""


def _field_names(model: type[BaseModel], seen: frozenset[type] = frozenset()) -> set[str]:
    names: set[str] = set()
    for name, field in model.model_fields.items():
        names.add(field.alias or name)
        for inner in _models_in(field.annotation):
            if inner not in seen:
                names |= _field_names(inner, seen | {model, inner})
    return names


def _own_names(keys: KeyPath, model: type[BaseModel]) -> list[str]:
    """Return the keys that the table at a key path may have, as far as the models tell."""
    tables = [model]
    for key in keys:
        inner = [one for table in tables for one in _tables_of(table, key)]
        tables = inner or tables
    return sorted({name for table in tables for name in _keys_of(table)})


def _tables_of(table: type[BaseModel], key: str | int) -> list[type[BaseModel]]:
    field = _keys_of(table).get(str(key))
    return [] if field is None else _models_in(field.annotation)


def _keys_of(table: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in table.model_fields.items()}


def _models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner: Sequence[object] = getattr(annotation, "__args__", ())
    return [model for part in inner for model in _models_in(part)]


def _line_of(keys: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    for length in range(len(keys), 0, -1):
        if keys[:length] in lines:
            return lines[keys[:length]]
    return None


def key_lines(text: str) -> dict[KeyPath, int]:
    """Map every key path of a TOML text to its line, counted from 1, as far as lines tell."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _TABLE.fullmatch(line), _KEY.match(line)
        if header is not None:
            table = _resolve(tuple(_parts(header[2])), counts, repeated=header[1] == "[[")
            lines.setdefault(table, number)
            if header[1] == "[[":
                lines.setdefault(table[:-1], number)
        elif key is not None:
            lines.setdefault((*table, *_parts(key[1])), number)
    return lines


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


def _resolve(names: tuple[str, ...], counts: dict[KeyPath, int], *, repeated: bool) -> KeyPath:
    path: KeyPath = ()
    for at, name in enumerate(names):
        path = (*path, name)
        if repeated and at == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def share_parts(models: Iterable[BaseModel]) -> None:
    """Let models share what is equal in them: text, decimals, and the note of which fields were given.

    Each keeps its own otherwise, which for ten thousand points takes more than the points.
    """
    known: dict[frozenset[str], set[str]] = {}
    values: dict[tuple[type, str], str | Decimal] = {}
    for model in models:
        given = model.model_fields_set
        shared = known.setdefault(frozenset(given), given)
        object.__setattr__(model, "__pydantic_fields_set__", shared)
        fields = model.__dict__
        for name, value in fields.items():
            if isinstance(value, (str, Decimal)):
                fields[name] = values.setdefault((type(value), str(value)), value)

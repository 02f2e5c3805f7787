"""A small reader of CDDL (RFC 8610): as much of it as the documents use.

Rules, maps, arrays, literals, ranges, choices, tags, `.size` and `.cbor`, and occurrences.
Maps are matched by their keys, arrays from left to right, greedily.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cbor2

from protocols import strict_cbor

_TOKEN = re.compile(
    r"\s+|;[^\n]*"
    r"|(?P<text>\"[^\"]*\")"
    r"|(?P<tag>#6\.\d+)"
    r"|(?P<occurs>\d+\*\d+|\*|\?|\+)"
    r"|(?P<number>-?\d+)"
    r"|(?P<range>\.\.)"
    r"|(?P<control>\.size|\.cbor)"
    r"|(?P<name>[A-Za-z_][\w-]*)"
    r"|(?P<mark>=>|[=:,/(){}\[\]])"
)
_TAGS = frozenset({18, 72, 77, 78, 79, 96, 98})
_LARGEST = 64 << 20

Check = Callable[[Any], bool]


@dataclass
class Entry:
    """One member of a map or an array."""

    check: Check
    key: object = None
    low: int = 1
    high: int = 1


@dataclass
class Schema:
    """The rules of some CDDL text."""

    rules: dict[str, Check] = field(default_factory=dict)

    def valid(self, rule: str, data: bytes) -> bool:
        """Tell whether some bytes are what a rule says."""
        item = strict_cbor.decode(data, max_bytes=_LARGEST, tags=_TAGS, max_depth=16)
        return self.rules[rule](item)


def read(text: str) -> Schema:
    """Read the rules of a CDDL text."""
    schema = Schema(dict(_PRELUDE))
    reader = _Reader(_tokens(text), schema)
    while reader.left():
        name = reader.take("name")
        reader.take("mark", "=")
        schema.rules[name] = reader.choice()
    return schema


_PRELUDE: dict[str, Check] = {
    "int": lambda item: isinstance(item, int),
    "uint": lambda item: isinstance(item, int) and item >= 0,
    "text": lambda item: isinstance(item, str),
    "bstr": lambda item: isinstance(item, bytes),
}


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"not CDDL: {text[at : at + 40]!r}")
        if match.lastgroup is not None:
            found.append((match.lastgroup, match[0]))
        at = match.end()
    return found


class _Reader:
    def __init__(self, tokens: Sequence[tuple[str, str]], schema: Schema) -> None:
        self._tokens = tokens
        self._schema = schema
        self._at = 0

    def left(self) -> bool:
        return self._at < len(self._tokens)

    def is_next(self, kind: str, word: str | None = None, ahead: int = 0) -> bool:
        at = self._at + ahead
        if at >= len(self._tokens):
            return False
        found, text = self._tokens[at]
        return found == kind and word in {None, text}

    def take(self, kind: str, word: str | None = None) -> str:
        if not self.is_next(kind, word):
            raise ValueError(
                f"expected {word or kind} before {self._tokens[self._at : self._at + 5]}"
            )
        self._at += 1
        return self._tokens[self._at - 1][1]

    def choice(self) -> Check:
        checks = [self._type()]
        while self.is_next("mark", "/"):
            self.take("mark")
            checks.append(self._type())
        return lambda item: any(check(item) for check in checks)

    def _type(self) -> Check:
        if self.is_next("number") and self.is_next("range", ahead=1):
            low = int(self.take("number"))
            self.take("range")
            high = int(self.take("number"))
            return lambda item: isinstance(item, int) and low <= item <= high
        check = self._plain()
        if self.is_next("control", ".size"):
            self.take("control")
            size = int(self.take("number"))
            return lambda item: check(item) and len(item) == size
        if self.is_next("control", ".cbor"):
            self.take("control")
            inner = self._plain()
            return lambda item: (
                check(item)
                and inner(strict_cbor.decode(item, max_bytes=_LARGEST, tags=_TAGS, max_depth=16))
            )
        return check

    def _plain(self) -> Check:
        if self.is_next("number") or self.is_next("text"):
            literal = self._literal()
            return lambda item: type(item) is type(literal) and item == literal
        if self.is_next("tag"):
            return self._tagged()
        if self.is_next("mark", "{"):
            return _map(self._group("{", "}", in_map=True))
        if self.is_next("mark", "["):
            return _array(self._group("[", "]", in_map=False))
        return self._by_name(self.take("name"))

    def _by_name(self, name: str) -> Check:
        """Look the rule up when it is used: it may stand further down."""

        def check(item: Any) -> bool:
            return self._schema.rules[name](item)

        return check

    def _literal(self) -> object:
        if self.is_next("number"):
            return int(self.take("number"))
        return self.take("text").strip('"')

    def _tagged(self) -> Check:
        number = int(self.take("tag").removeprefix("#6."))
        self.take("mark", "(")
        inner = self.choice()
        self.take("mark", ")")
        return lambda item: (
            isinstance(item, cbor2.CBORTag) and item.tag == number and inner(item.value)
        )

    def _group(self, opening: str, closing: str, *, in_map: bool) -> list[Entry]:
        self.take("mark", opening)
        entries = []
        while not self.is_next("mark", closing):
            low, high = self._occurs()
            key = self._key(in_map=in_map)
            entries.append(Entry(self.choice(), key, low, high))
            if self.is_next("mark", ","):
                self.take("mark")
        self.take("mark", closing)
        return entries

    def _occurs(self) -> tuple[int, int]:
        if not self.is_next("occurs"):
            return 1, 1
        word = self.take("occurs")
        if word == "?":
            return 0, 1
        if word == "+":
            return 1, 1 << 30
        low, _, high = word.partition("*")
        return int(low or 0), int(high or 1 << 30)

    def _key(self, *, in_map: bool) -> object:
        if in_map:
            key = self._literal()
            self.take("mark", "=>")
            return key
        if self.is_next("name") and self.is_next("mark", ":", ahead=1):
            self.take("name")
            self.take("mark", ":")
        return None


def _map(entries: Sequence[Entry]) -> Check:
    by_key = {entry.key: entry for entry in entries}
    needed = {entry.key for entry in entries if entry.low}

    def check(item: Any) -> bool:
        if not isinstance(item, dict) or not needed <= set(item) <= set(by_key):
            return False
        return all(by_key[key].check(value) for key, value in item.items())

    return check


def _array(entries: Sequence[Entry]) -> Check:
    def check(item: Any) -> bool:
        if not isinstance(item, list):
            return False
        at = 0
        for entry in entries:
            taken = 0
            while taken < entry.high and at < len(item) and entry.check(item[at]):
                taken, at = taken + 1, at + 1
            if taken < entry.low:
                return False
        return at == len(item)

    return check

"""The two languages of every text a person sees: English and Simplified Chinese.

Who reads a text is mostly who runs the command. What a process that runs for long keeps of a fault is
read by others later: such a text is made for everyone, holds both languages, and is told in that of
whoever asks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum, auto
from typing import Any, Final

_VARIABLES = ("MILLGATE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")
# Unicode keeps these code points for use inside a program; no text that comes from outside has them.
_BEGIN, _BETWEEN, _END = "\ufdd0", "\ufdd1", "\ufdd2"


class _Reader(Enum):
    ENGLISH = auto()
    CHINESE = auto()
    EVERYONE = auto()


_reader: Final[ContextVar[_Reader | None]] = ContextVar("reader", default=None)


class _Process:
    """Who reads what this process says where nothing narrower was chosen; None: who started it."""

    reader: _Reader | None = None


@contextmanager
def spoken_to(*, chinese: bool) -> Iterator[None]:
    """Make texts for a reader other than who started the process, such as a caller of the API."""
    with _chosen(_Reader.CHINESE if chinese else _Reader.ENGLISH):
        yield


@contextmanager
def for_everyone() -> Iterator[None]:
    """Make texts that hold both languages, for `heard` to choose from."""
    with _chosen(_Reader.EVERYONE):
        yield


@contextmanager
def _chosen(reader: _Reader) -> Iterator[None]:
    token = _reader.set(reader)
    try:
        yield
    finally:
        _reader.reset(token)


def speak_to_everyone() -> None:
    """Let this whole process, all its threads, make texts that hold both languages."""
    _Process.reader = _Reader.EVERYONE


def chinese() -> bool:
    """Tell whether the reader prefers Simplified Chinese.

    Within `spoken_to` that decides; else the first of MILLGATE_LANG, LC_ALL, LC_MESSAGES and LANG that is set decides.
    """
    reader = _reader.get()
    if reader in {_Reader.CHINESE, _Reader.ENGLISH}:
        return reader is _Reader.CHINESE
    for name in _VARIABLES:
        chosen = os.environ.get(name)
        if chosen:
            return chosen.lower().startswith("zh")
    return False


def tr(english: str, chinese_text: str) -> str:
    """Return the text in the reader's language, or in both where everyone may read it."""
    if (_reader.get() or _Process.reader) is _Reader.EVERYONE:
        return f"{_BEGIN}{english}{_BETWEEN}{chinese_text}{_END}"
    return chinese_text if chinese() else english


def counted(count: int, noun: str, several: str = "") -> str:
    """Return a number with its English noun: `1 value`, `2 values`; Chinese needs no such thing.

    Args:
        count: how many.
        noun: of one of them.
        several: of more; by default with an `s`, or `es` where that is how it is said.
    """
    if count == 1:
        return f"1 {noun}"
    ending = "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{count} {several or noun + ending}"


def heard(text: str) -> str:
    """Return a text that may hold both languages in the reader's.

    A text that was cut off keeps what there is of it.
    """
    if not any(mark in text for mark in (_BEGIN, _BETWEEN, _END)):
        return text
    wanted, opened = chinese(), [_Part()]
    for piece in _pieces(text):
        if piece == _BEGIN:
            opened.append(_Part())
        elif piece == _BETWEEN:
            opened[-1].second = len(opened) > 1
        elif piece != _END:
            opened[-1].add(piece)
        elif len(opened) > 1:
            done = opened.pop()
            opened[-1].add(done.said(chinese_text=wanted))
    while len(opened) > 1:
        done = opened.pop()
        opened[-1].add(done.said(chinese_text=wanted))
    return opened[0].said(chinese_text=False)


def heard_all(document: Any) -> Any:
    """Return a JSON document with every text in the reader's language."""
    if isinstance(document, str):
        return heard(document)
    if isinstance(document, list):
        return [heard_all(one) for one in document]
    if isinstance(document, dict):
        return {name: heard_all(one) for name, one in document.items()}
    return document


def shortened(text: str, most: int) -> str:
    """Cut a text to `most` characters in each of the languages that it holds."""
    with spoken_to(chinese=False):
        english = heard(text)[:most]
    with spoken_to(chinese=True):
        other = heard(text)[:most]
    return english if english == other else f"{_BEGIN}{english}{_BETWEEN}{other}{_END}"


class _Part:
    """A text in both languages, as far as it was read."""

    def __init__(self) -> None:
        self.second = False
        self._texts: tuple[list[str], list[str]] = ([], [])

    def add(self, text: str) -> None:
        self._texts[self.second].append(text)

    def said(self, *, chinese_text: bool) -> str:
        english, other = ("".join(texts) for texts in self._texts)
        return other if chinese_text and other else english


def _pieces(text: str) -> Iterator[str]:
    """Yield the marks of a text, and what is between them."""
    begin = 0
    for at, sign in enumerate(text):
        if sign in {_BEGIN, _BETWEEN, _END}:
            yield text[begin:at]
            yield sign
            begin = at + 1
    yield text[begin:]

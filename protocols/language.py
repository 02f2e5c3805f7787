"""The two languages of every text a person sees: English and Simplified Chinese."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_VARIABLES = ("MILLGATE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


_reader: Final[ContextVar[bool | None]] = ContextVar("reader", default=None)


@contextmanager
def spoken_to(*, chinese: bool) -> Iterator[None]:
    """Make texts for a reader other than who started the process, such as a caller of the API."""
    token = _reader.set(chinese)
    try:
        yield
    finally:
        _reader.reset(token)


def chinese() -> bool:
    """Tell whether the reader prefers Simplified Chinese.

    Within `spoken_to` that decides; else the first of MILLGATE_LANG, LC_ALL, LC_MESSAGES and LANG that is set decides.
    """
    reader = _reader.get()
    if reader is not None:
        return reader
    chosen = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    return chosen.lower().startswith("zh")


def tr(english: str, chinese_text: str) -> str:
    """Return the text in the reader's language."""
    return chinese_text if chinese() else english

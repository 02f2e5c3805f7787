"""Rows as CSV after RFC 4180, safe to open in a spreadsheet."""

import re
from collections.abc import Sequence
from typing import Any, Final

from aggregator.api import render
from aggregator.stores import SeriesBlock

_QUOTED: Final = re.compile(r'[",\r\n]')
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def header(names: Sequence[str]) -> bytes:
    """Return the first line: `time` and the fields."""
    return (",".join(["time", *names]) + "\r\n").encode()


def lines(block: SeriesBlock, names: Sequence[str]) -> bytes:
    """Return a line for each row; what a row lacks is empty, never 0."""
    columns: list[list[Any]] = [render.times_text(block.time)]
    columns += [
        [_cell(value) for value in render.column(block.fields[name])]
        if name in block.fields
        else [""] * len(block)
        for name in names
    ]
    return "".join(f"{','.join(row)}\r\n" for row in zip(*columns, strict=True)).encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    # A number that JSON would have to write as text is one here.
    if value.removeprefix("-").isdecimal():
        return value
    # A spreadsheet would run a text that begins like a formula.
    text = f"'{value}" if value.startswith(_FORMULA) else value
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text

"""Shipped configuration texts, filled in for one installation."""

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Final

_TABLE: Final = re.compile(r"\[\[?\s*([\w.]+)\s*\]\]?")
_KEY: Final = re.compile(r"(?:# )?(\w+)\s*=")


def template(name: str) -> str:
    """Return a shipped text."""
    return (resources.files("configs.templates") / name).read_text(encoding="utf-8")


def switch_on(text: str, table: str, settings: Mapping[str, str | int | bool]) -> str:
    """Set keys of one table of a shipped text, also those that stand there as comments.

    Raises:
        KeyError: when the table has no such key.
    """
    lines, current, missing = [], "", dict(settings)
    for line in text.splitlines(keepends=True):
        header, key = _TABLE.match(line), _KEY.match(line)
        current = header[1] if header else current
        name = key[1] if key and current == table else ""
        if name in missing:
            value = json.dumps(missing.pop(name), ensure_ascii=False)
            lines.append(f"{name} = {value}\n")
        else:
            lines.append(line)
    if missing:
        raise KeyError(table, *missing)
    return "".join(lines)

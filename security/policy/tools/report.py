"""How findings are printed: file, line, key, what, and how to mend it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from protocols.language import counted, tr
from protocols.settings import KeyPath, key_lines
from security.policy.tools.findings import Finding, Severity, key_text

_MOST_NAMES: Final = 5
_POINT: Final = re.compile(r"(?:#\d+ )?[a-z0-9][a-z0-9_.-]*/[a-z0-9][a-z0-9_.-]*")


def line_numbers(path: Path) -> dict[KeyPath, int]:
    """Return the line of every key of a text; empty for a signed policy."""
    if path.suffix != ".toml":
        return {}
    return key_lines(path.read_text(encoding="utf-8-sig"))


def line_of(place: KeyPath, lines: dict[KeyPath, int]) -> int | None:
    """Return the line of a key, or of the nearest table around it."""
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return lines[place[:length]]
    return None


def in_words(findings: Sequence[Finding], path: Path) -> str:
    """Return findings as text, four lines each at most; what differs in its point only is one."""
    lines = line_numbers(path)
    parts = []
    for one, *more in _alike(findings):
        line = line_of(one.place, lines)
        where = f"{path}:{line}" if line else str(path)
        key = f" {key_text(one.place)}" if one.place else ""
        times = f" × {1 + len(more)}" if more else ""
        parts.append(f"{where}:{key} [{one.rule}] {one.severity.word}{times}\n  {one.what}")
        if more:
            parts.append(f"  {_others(more)}")
        if one.remedy:
            parts.append(f"  → {one.remedy}")
    return "\n".join(parts)


def _alike(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return findings in groups, in the order of their first ones."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for one in findings:
        words = (_POINT.sub("*", one.what), _POINT.sub("*", one.remedy))
        groups.setdefault((one.rule, one.severity.name, *words), []).append(one)
    return list(groups.values())


def _others(more: Sequence[Finding]) -> str:
    found = [_POINT.search(one.what) for one in more]
    names = list(dict.fromkeys(match[0] for match in found if match))[:_MOST_NAMES]
    rest = len(more) - len(names)
    listed = ", ".join(names) + (", …" if rest > 0 and names else "")
    return tr(f"and {len(more)} more alike: {listed}", f"另有 {len(more)} 处相同：{listed}")


def as_data(findings: Sequence[Finding], path: Path) -> list[dict[str, Any]]:
    """Return findings as plain data."""
    lines = line_numbers(path)
    return [
        {
            "rule": one.rule,
            "severity": one.severity.name.lower(),
            "file": str(path),
            "line": line_of(one.place, lines),
            "key": key_text(one.place),
            "what": one.what,
            "remedy": one.remedy,
        }
        for one in findings
    ]


def count(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each severity."""
    numbers = {severity: sum(one.severity is severity for one in findings) for severity in Severity}
    return tr(
        f"{counted(numbers[Severity.ERROR], 'error')}, {counted(numbers[Severity.WARNING], 'warning')}, "
        f"{counted(numbers[Severity.NOTE], 'note')}",
        f"错误 {numbers[Severity.ERROR]}，警告 {numbers[Severity.WARNING]}，提示 {numbers[Severity.NOTE]}",
    )

"""How findings are printed: file, line, key, what, and how to mend it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from protocols.language import tr
from protocols.settings import KeyPath, key_lines
from security.policy.tools.findings import Finding, Severity, key_text


def line_numbers(path: Path) -> dict[KeyPath, int]:
    """Return the line of every key of a text; empty for a signed policy."""
    if path.suffix != ".toml":
        return {}
    return key_lines(path.read_text(encoding="utf-8"))


def line_of(place: KeyPath, lines: dict[KeyPath, int]) -> int | None:
    """Return the line of a key, or of the nearest table around it."""
    for length in range(len(place), 0, -1):
        if place[:length] in lines:
            return lines[place[:length]]
    return None


def in_words(findings: Sequence[Finding], path: Path) -> str:
    """Return findings as text, three lines each at most."""
    lines = line_numbers(path)
    parts = []
    for one in findings:
        line = line_of(one.place, lines)
        where = f"{path}:{line}" if line else str(path)
        key = f" {key_text(one.place)}" if one.place else ""
        parts.append(f"{where}:{key} [{one.rule}] {one.severity.word}\n  {one.what}")
        if one.remedy:
            parts.append(f"  → {one.remedy}")
    return "\n".join(parts)


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
        f"{numbers[Severity.ERROR]} error(s), {numbers[Severity.WARNING]} warning(s), "
        f"{numbers[Severity.NOTE]} note(s)",
        f"错误 {numbers[Severity.ERROR]}，警告 {numbers[Severity.WARNING]}，提示 {numbers[Severity.NOTE]}",
    )

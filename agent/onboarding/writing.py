"""Devices as text of agent.toml, with the reasons beside the figures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from agent.onboarding.document import quoted
from protocols.tables import decimal_text

_LONGEST_LINE: Final = 100


@dataclass(frozen=True, slots=True)
class PointText:
    """A point to write.

    Attributes:
        table: its keys.
        note: what it is and who says so, in one line.
    """

    table: Mapping[str, Any]
    note: str = ""


@dataclass(frozen=True, slots=True)
class DeviceText:
    """A device to write.

    Attributes:
        table: its keys but the points.
        points: its points; empty where `table` names a point table.
        notes: what to know of it, one line each.
    """

    table: Mapping[str, Any]
    points: Sequence[PointText] = ()
    notes: Sequence[str] = field(default=())


def device_block(device: DeviceText) -> str:
    """Return a `[[device]]` as text of agent.toml."""
    lines = [*comments(device.notes), "[[device]]", *_keys(device.table)]
    for point in device.points:
        lines += ["", *comments([point.note] if point.note else []), "[[device.points]]"]
        lines += _keys(point.table)
    return "\n".join(lines) + "\n"


def comments(notes: Iterable[str]) -> list[str]:
    """Return notes as comment lines, the long ones broken."""
    lines: list[str] = []
    for note in notes:
        rest = " ".join(note.split())
        while len(rest) > _LONGEST_LINE:
            at = rest.rfind(" ", 0, _LONGEST_LINE)
            at = at if at > 0 else _LONGEST_LINE
            lines.append(f"# {rest[:at]}")
            rest = rest[at:].strip()
        lines.append(f"# {rest}")
    return lines


def _keys(table: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {written(value)}" for key, value in table.items()]


def written(value: Any) -> str:
    """Return a value as TOML; a number that a TOML float would round is written as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        text = decimal_text(value)
        whole = value == value.to_integral_value()
        exact = abs(value) < 1 << 53 if whole else Decimal(repr(float(text))) == value
        return text if exact else quoted(text)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {written(one)}" for key, one in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(written(one) for one in value)}]"
    return quoted(str(value))

"""The way to a scalar inside an array or a structure, as people write it."""

import re
from typing import Final

from protocols.language import tr

Step = str | tuple[int, ...]
"""A field by name, or an element by its indices, counted from 0."""
Part = tuple[Step, ...]
"""The way from a node's value to a scalar inside it; empty is the value itself."""

_STEP: Final = re.compile(r"\[(\d{1,9}(?:,\d{1,9})*)\]|(\.?)([^.\[\];]+)")
_LONGEST: Final = 16


def parse_part(text: str) -> Part:
    """Parse `[2]`, `[0,3]`, `Spindle.Speed` or `Axes[2].Load`.

    Raises:
        ValueError: with the remedy, for anything else.
    """
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        # A field has a dot before it, unless it is the first step.
        if match is None or (match[3] is not None and (match[2] == ".") != bool(steps)):
            break
        steps.append(tuple(map(int, match[1].split(","))) if match[1] else match[3])
        at = match.end()
    if not steps or at < len(text) or len(steps) > _LONGEST:
        raise ValueError(
            tr(
                "write the part as '[2]' for an element, counted from 0, 'Spindle.Speed' for a "
                "field, or 'Axes[2].Load'",
                "part 请写作：元素 '[2]'（从 0 起），字段 'Spindle.Speed'，或 'Axes[2].Load'",
            )
        )
    return tuple(steps)


def needs_layout(part: Part) -> bool:
    """Tell whether a part goes through a structure."""
    return any(isinstance(step, str) for step in part)

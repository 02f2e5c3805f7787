"""Wildcards of authoring: `[[each]]` is written into the listed points before anything else.

What is compiled and signed has no wildcard any more: a point that is configured later is not
matched, whatever its name.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from protocols.language import tr
from security.policy.clauses import width

_COPIED: Final = ("consumer", "role", "retention_days", "classes", "release")


def expand(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parsed policy whose points have what `[[each]]` says of them.

    Only points without a release of their own are filled in. What is not of the right form is left
    for the models to refuse.

    Raises:
        ValueError: when a pattern matches nothing, or a point is matched twice.
    """
    points, entries = data.get("point"), data.get("each", [])
    if not (isinstance(points, list) and isinstance(entries, list) and entries):
        return dict(data)
    listed = [dict(point) if isinstance(point, Mapping) else point for point in points]
    named = sorted((_name(point), at) for at, point in enumerate(listed) if _name(point))
    filled: set[int] = set()
    for entry in entries:
        if isinstance(entry, Mapping) and isinstance(entry.get("points"), str):
            _fill(entry, listed, named, filled)
    return {**data, "point": listed}


def _name(point: object) -> str:
    if not isinstance(point, Mapping):
        return ""
    device, name = point.get("device"), point.get("point")
    return f"{device}/{name}" if isinstance(device, str) and isinstance(name, str) else ""


def _fill(
    entry: Mapping[str, Any], listed: list[Any], named: list[tuple[str, int]], filled: set[int]
) -> None:
    pattern = str(entry["points"])
    wanted = re.compile("[^/]*".join(re.escape(part) for part in pattern.split("*")))
    matched = [at for name, at in named if wanted.fullmatch(name)]
    if not matched:
        raise ValueError(
            tr(f"[[each]] {pattern}: no listed point matches", f"[[each]] {pattern}：没有匹配的点")
        )
    number = entry.get("number")
    for at in matched:
        point = listed[at]
        if "release" in point and at not in filled:
            continue
        if at in filled:
            raise ValueError(
                tr(
                    f"{_name(point)}: two [[each]] match it",
                    f"{_name(point)}：有两个 [[each]] 匹配",
                )
            )
        filled.add(at)
        for key in _COPIED:
            if key in entry:
                point.setdefault(key, entry[key])
        point.setdefault("equipment", _label(entry.get("equipment"), point))
        if "number" not in point and isinstance(number, int):
            point["number"] = number
            number += width(_aggregate(entry.get("release")))


def _aggregate(release: object) -> str:
    return str(release.get("aggregate")) if isinstance(release, Mapping) else ""


def _label(template: object, point: Mapping[str, Any]) -> object:
    if not isinstance(template, str):
        return template
    label = template.replace("{device}", str(point["device"]))
    return label.replace("{point}", str(point["point"])).replace(".", "-").replace("_", "-")

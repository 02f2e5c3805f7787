"""Wildcards of authoring: `[[each]]` is written into the listed points before anything else.

What is compiled and signed has no wildcard any more: a point that is configured later is not
matched, whatever its name.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from protocols.errors import Misfit
from protocols.language import tr
from protocols.settings import KeyPath
from security.policy.clauses import Each, width

_COPIED: Final = ("consumer", "role", "retention_days", "classes", "release")


def expand(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parsed policy whose points have what `[[each]]` says of them.

    Only points without a release of their own are filled in. What is not of the right form is left
    for the models to refuse.

    Raises:
        Misfit: when a pattern matches nothing, or a point is matched twice.
    """
    points, entries = data.get("point"), data.get("each", [])
    if not (isinstance(points, list) and isinstance(entries, list) and entries):
        return dict(data)
    listed = [dict(point) if isinstance(point, Mapping) else point for point in points]
    named = sorted((_name(point), at) for at, point in enumerate(listed) if _name(point))
    filled: set[int] = set()
    for number, entry in enumerate(entries):
        if _is_whole(entry):
            _fill(entry, listed, named, filled, ("each", number, "points"))
    return {**data, "point": listed}


def _is_whole(entry: object) -> bool:
    """Tell whether a table can be written into points: a fault in it is then told once, not of each."""
    try:
        Each.model_validate(entry)
    except ValidationError:
        return False
    return True


def _name(point: object) -> str:
    if not isinstance(point, Mapping):
        return ""
    device, name = point.get("device"), point.get("point")
    return f"{device}/{name}" if isinstance(device, str) and isinstance(name, str) else ""


def _fill(
    entry: Mapping[str, Any],
    listed: list[Any],
    named: list[tuple[str, int]],
    filled: set[int],
    place: KeyPath,
) -> None:
    pattern = str(entry["points"])
    wanted = re.compile("[^/]*".join(re.escape(part) for part in pattern.split("*")))
    matched = [at for name, at in named if wanted.fullmatch(name)]
    if not matched:
        raise Misfit(
            tr(f"no listed point matches {pattern}", f"没有与 {pattern} 匹配的点"),
            tr("name points that are listed as [[point]]", "请写 [[point]] 中已列出的点"),
            place,
        )
    number = entry.get("number")
    for at in matched:
        point = listed[at]
        if "release" in point and at not in filled:
            continue
        if at in filled:
            raise Misfit(
                tr(
                    f"{_name(point)}: another [[each]] matches it",
                    f"{_name(point)}：另一个 [[each]] 也与之匹配",
                ),
                tr("let one pattern match it only", "请只让一个模式与之匹配"),
                place,
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

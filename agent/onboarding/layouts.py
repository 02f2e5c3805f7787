"""Finds the layouts of companion specifications among a server's nodes, by their names."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent.onboarding.profiles import OpcuaDatum, OpcuaProfile, product
from agent.onboarding.writing import PointText
from protocols.errors import MillgateError
from protocols.language import tr

if TYPE_CHECKING:
    from protocols.drivers.opcua.survey import Found, Tree

Names = tuple[str, ...]
_LONGEST_ID: Final = 64


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine found at a server.

    Attributes:
        name: its browse name.
        path: the names on the way to it.
    """

    name: str
    path: Names


def machines(profile: OpcuaProfile, tree: "Tree") -> list[Machine]:
    """Return the machines at a server that have a profile's layout.

    Raises:
        MillgateError: when there is none.
    """
    if profile.namespace not in tree.namespaces:
        raise MillgateError(
            tr("the server does not have this layout", "服务器不具备此布局"),
            where=profile.id,
            remedy=tr(
                f"its namespaces lack {profile.namespace}; add it from a scan instead",
                f"其命名空间中没有 {profile.namespace}；请改用 --from-scan 添加",
            ),
        )
    known = {tuple(name for _, name in node.names) for node in tree.nodes}
    found = [
        Machine(path[-1], path)
        for path in sorted(known)
        if all((*path, *needed.split("/")) in known for needed in profile.root_has)
    ]
    if not found:
        raise MillgateError(
            tr("the server has no such machine", "服务器上没有此类机器"),
            where=profile.id,
            remedy=tr(
                f"none of its nodes has {' and '.join(profile.root_has)} below it",
                f"没有任何节点下同时具有 {'、'.join(profile.root_has)}",
            ),
        )
    return found


def points_of(profile: OpcuaProfile, tree: "Tree", machine: Machine) -> list[PointText]:
    """Return the points of a machine that the server really has, by their paths."""
    # A maker may put a node of the same name beside the layout's own, which is the one that counts.
    own_last = sorted(tree.nodes, key=lambda node: node.names[-1][0] == profile.namespace)
    nodes = {tuple(name for _, name in node.names): node for node in own_last}
    points: dict[str, PointText] = {}
    for datum in profile.point:
        before = set(points)
        for wild, node in _matches(datum.path.split("/"), machine.path, nodes):
            kind = datum.type or node.type
            if not node.variable or not kind or (node.array and not datum.part):
                continue
            table = _table(datum, wild, node, kind)
            # A second way to the same datum is not needed; a second channel is.
            if table["id"] in before:
                continue
            table["id"] = unused(table["id"], points)
            grade = profile.grade(datum.source)
            note = f"{tr(datum.title, datum.title_zh)} [{grade}]"
            points[table["id"]] = PointText(table, note)
    return list(points.values())


def unused(point_id: str, used: Collection[str]) -> str:
    """Return an id that is not used yet: this one, or with a number behind it."""
    found, number = point_id, 1
    while found in used:
        number += 1
        found = f"{point_id[: _LONGEST_ID - 6]}-{number}"
    return found


def _table(datum: OpcuaDatum, wild: Names, node: "Found", kind: str) -> dict[str, Any]:
    part = f"part={datum.part};" if datum.part else ""
    point_id = datum.id
    for number, name in enumerate(wild, 1):
        point_id = point_id.replace(f"{{{number}}}", slug(name))
    table: dict[str, Any] = {
        "id": point_id[:_LONGEST_ID],
        "address": part + node.by_path,
        "type": kind,
    }
    scale = product(datum.scale)
    if scale != 1:
        table["scale"] = scale
    if datum.unit != "1":
        table["unit"] = datum.unit
    if datum.measurand != "other":
        table["measurand"] = datum.measurand
    if datum.state_model is not None:
        table["state_model"] = datum.state_model
    return table


def _matches(
    wanted: Sequence[str], path: Names, nodes: Mapping[Names, "Found"], wild: Names = ()
) -> Iterator[tuple[Names, "Found"]]:
    """Yield every node below a path whose names fit, with what stands for each `*`."""
    if not wanted:
        if path in nodes:
            yield wild, nodes[path]
        return
    first, rest = wanted[0], wanted[1:]
    if first != "*":
        yield from _matches(rest, (*path, first), nodes, wild)
        return
    below = sorted(
        {one[len(path)] for one in nodes if len(one) > len(path) and one[: len(path)] == path}
    )
    for name in below:
        yield from _matches(rest, (*path, name), nodes, (*wild, name))


def slug(name: str) -> str:
    """Return a name as ids are written."""
    plain = re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-._")
    return plain[:_LONGEST_ID] or "x"

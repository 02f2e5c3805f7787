"""Puts a device together: from a profile, a point table or a look around at its server."""

import fnmatch
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.onboarding.deciding import Ask, Decision, decide
from agent.onboarding.layouts import Machine, machines, points_of, slug, unused
from agent.onboarding.profiles import ModbusDatum, ModbusProfile, OpcuaProfile, Profile, rendered
from agent.onboarding.writing import DeviceText, PointText
from protocols.drivers import DeviceConfig, NotConnected, load
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.settings import check_settings
from protocols.words import instead_of

if TYPE_CHECKING:
    from protocols.drivers.modbus.survey import Survey
    from protocols.drivers.opcua.survey import Found, Tree

_PLACEHOLDER: Final = {
    "modbus": {"id": "x", "address": "holding:0", "type": "uint16"},
    "opcua": {"id": "x", "address": "i=2258", "type": "Int32"},
}
"""A device without points is none; while its points are looked for it has this one."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to add.

    Attributes:
        path: agent.toml.
        table: keys of the device, without its points.
        given: choices already made, id of alternative -> id of choice.
        only: points that are wanted; empty is all.
        changes: by point id, keys to set.
        machine: which machine of a server; empty when there is one only.
        select: patterns of paths, of which nodes are taken.
        offline: leave the device alone.
    """

    path: Path
    table: Mapping[str, Any]
    given: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] = ()
    changes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    machine: str = ""
    select: Sequence[str] = ()
    offline: bool = False


@dataclass
class Made:
    """A device that was put together.

    Attributes:
        device: as it will be written.
        lines: what was chosen and seen, for the person.
        warnings: what does not look right.
    """

    device: DeviceText
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def bare_config(wish_path: Path, table: Mapping[str, Any]) -> Any:
    """Return the configuration of a device whose points are not known yet.

    Raises:
        ConfigError: when its other keys are not right.
    """
    kind = str(table["kind"])
    whole = {**table, "points": [_PLACEHOLDER[kind]]}
    model: type[DeviceConfig] = load(kind).Config
    return check_settings(whole, model, wish_path).located(wish_path.absolute().parent)


async def from_profile(wish: Wish, profile: Profile, ask: Ask, pick: "Pick") -> Made:
    """Return a device as a profile has it, with what the device itself decides.

    Raises:
        MillgateError: when it cannot be told what the device is.
        NotConnected: when it does not answer.
    """
    if isinstance(profile, OpcuaProfile):
        return await _from_layout(wish, profile, pick)
    table = {**wish.table, **{k: v for k, v in profile.settings.items() if k not in wish.table}}
    if wish.offline:
        decision = await decide(profile, wish.given, None, ask)
        return _chosen(replace(wish, table=table), profile, decision, {})
    from protocols.drivers.modbus.survey import Survey  # noqa: PLC0415 - slow to load

    async with Survey(bare_config(wish.path, table)) as survey:
        decision = await decide(profile, wish.given, survey, ask)
        seen = await _seen(survey, rendered(profile, decision.variables, decision.absent))
    return _chosen(replace(wish, table=table), profile, decision, seen)


Pick = Callable[[Sequence[Machine]], Machine]
"""Has a person say which machine is meant."""

_OK, _REFUSED, _ODD, _NOTHING = "ok", "refused", "odd", "nothing"


async def _seen(
    survey: "Survey", points: Sequence[tuple[ModbusDatum, dict[str, Any]]]
) -> dict[str, str]:
    """Read every point once, and return what is to be said of it; no value is kept."""
    found: dict[str, str] = {}
    for datum, table in points:
        if datum.type == "string" or "." in table["address"]:
            continue
        raw = await survey.number(table["address"], datum.type, datum.order)
        found[datum.id] = _looks(datum, table, raw)
    return found


def _looks(datum: ModbusDatum, table: Mapping[str, Any], raw: float | None) -> str:
    if raw is None:
        return _REFUSED
    if not math.isfinite(raw) or raw in datum.invalid:
        return _NOTHING
    value = raw * float(table.get("scale", 1))
    if datum.plausible is not None and value != 0:
        low, high = datum.plausible
        return _OK if float(low) <= value <= float(high) else _ODD
    return _OK


def _chosen(
    wish: Wish, profile: ModbusProfile, decision: Decision, seen: Mapping[str, str]
) -> Made:
    points = []
    refused: list[str] = []
    for datum, table in rendered(profile, decision.variables, decision.absent):
        if seen.get(datum.id) == _REFUSED:
            refused.append(datum.id)
            continue
        note = f"{tr(datum.title, datum.title_zh)} [{profile.grade(datum.source)}]"
        points.append(PointText(table, note))
    if refused and all(point.table["type"] == "string" for point in points):
        raise MillgateError(
            tr(
                f"the device refuses every point of {profile.id}", f"设备拒绝 {profile.id} 的所有点"
            ),
            where=str(wish.table["id"]),
            remedy=tr(
                "check unit id and profile; 'millgate agent scan' shows what it gives",
                "请核对站号与设备模板；可用 'millgate agent scan' 查看设备提供的地址",
            ),
        )
    notes = [
        title(profile),
        *(tr(en, zh) for en, zh in zip(profile.notes, profile.notes_zh, strict=True)),
        *(f"{source.id} [{source.grade}]: {source.text}" for source in profile.source),
        *decision.reasons,
    ]
    found = Made(DeviceText(wish.table, points, notes), list(decision.reasons))
    if refused:
        names = ", ".join(refused)
        line = tr(f"left out, the device refuses them: {names}", f"已略去（设备拒绝）：{names}")
        found.warnings.append(line)
        found.device = replace(found.device, notes=[*notes, line])
    odd = [name for name, look in seen.items() if look == _ODD]
    if odd:
        found.warnings.append(
            tr(
                f"not plausible now: {', '.join(odd)}; look with 'millgate agent probe'",
                f"当前读数不合理：{', '.join(odd)}；请用 'millgate agent probe' 查看",
            )
        )
    nothing = [name for name, look in seen.items() if look == _NOTHING]
    if nothing:
        found.warnings.append(
            tr(f"without a value now: {', '.join(nothing)}", f"当前无值：{', '.join(nothing)}")
        )
    return narrowed(found, wish)


def title(profile: Profile) -> str:
    """Return what a profile is for, in one line."""
    maker, what = tr(profile.maker, profile.maker_zh), tr(profile.what, profile.what_zh)
    name = tr(f"profile {profile.id}", f"模板 {profile.id}")
    return f"{maker} {', '.join(profile.models)}: {what}, {name}"


async def _tree(wish: Wish) -> "Tree":
    from protocols.drivers.opcua.survey import Bounds, look_around  # noqa: PLC0415 - slow to load

    if wish.offline:
        raise MillgateError(
            tr("nodes have to be looked for at the server", "须在服务器上查找节点"),
            where="--offline",
            remedy=tr("leave it out", "请去掉该选项"),
        )
    config = bare_config(wish.path, wish.table)
    where = f"{config.id} ({config.url})"
    try:
        return await look_around(config, where, time.time_ns, Bounds(), lambda _: None)
    except NotConnected as fault:
        raise before_configured(fault, config.id, config.url) from None


def before_configured(fault: NotConnected, device: str, url: str) -> NotConnected:
    """Return a fault whose remedy names the server, not a device that is not configured yet."""
    remedy = fault.remedy.replace(f"AGENT.TOML {device}", f"AGENT.TOML {url}")
    return NotConnected(fault.what, where=fault.where, remedy=remedy)


async def _from_layout(wish: Wish, profile: OpcuaProfile, pick: Pick) -> Made:
    tree = await _tree(wish)
    known = machines(profile, tree)
    machine = _the_machine(known, wish.machine) if wish.machine else pick(known)
    points = points_of(profile, tree, machine)
    if not points:
        raise MillgateError(
            tr("the machine has none of the points", "机器没有任何可用的点"), where=machine.name
        )
    given = {point.table["id"] for point in points}
    missing = [one.id for one in profile.point if "{" not in one.id and one.id not in given]
    notes = [
        f"{machine.name}: {title(profile)}",
        *(tr(en, zh) for en, zh in zip(profile.notes, profile.notes_zh, strict=True)),
        *(f"{source.id} [{source.grade}]: {source.text}" for source in profile.source),
    ]
    found = Made(DeviceText(wish.table, points, notes))
    if missing:
        names = ", ".join(missing)
        line = tr(f"the server does not have: {names}", f"服务器没有：{names}")
        found.warnings.append(line)
    return narrowed(found, wish)


def _the_machine(known: Sequence[Machine], name: str) -> Machine:
    for one in known:
        if name in {one.name, "/".join(one.path)}:
            return one
    names = ["/".join(one.path) for one in known]
    raise MillgateError(
        tr(f"there is no machine '{name}'", f"没有机器 '{name}'"),
        where="--machine",
        remedy=instead_of(name, names),
    )


async def from_scan(wish: Wish) -> Made:
    """Return a device with every number that its server offers, or those that are selected.

    What a number means is not known: its measurand is left to a person.

    Raises:
        MillgateError: when there is none.
        NotConnected: when it does not answer.
    """
    tree = await _tree(wish)
    patterns = list(wish.select) or ["*"]
    chosen = [
        node
        for node in tree.nodes
        if node.type
        and node.readable
        and not node.array
        and _own(node)
        and any(fnmatch.fnmatchcase(node.path, pattern) for pattern in patterns)
    ]
    if not chosen:
        raise MillgateError(
            tr("no readable number fits", "没有符合的可读数值"),
            where="--select",
            remedy=tr("see 'millgate agent scan'", "见 'millgate agent scan'"),
        )
    used: set[str] = set()
    points = []
    for node in chosen:
        point_id = unused(slug(node.names[-1][1]), used)
        used.add(point_id)
        table = {"id": point_id, "address": node.address, "type": node.type}
        points.append(PointText(table, node.path))
    found = Made(DeviceText(wish.table, points))
    if tree.left_out:
        found.warnings.append(tr(f"not all was seen: {tree.left_out}", f"未看完：{tree.left_out}"))
    found.warnings.append(
        tr(
            "what the points mean is not known: set unit and measurand of those you need",
            "点的含义未知：请为所需的点填写 unit 与 measurand",
        )
    )
    return narrowed(found, wish)


def _own(node: "Found") -> bool:
    """Tell whether a node is the device's, not one that every server has."""
    return any(uri != "http://opcfoundation.org/UA/" for uri, _ in node.names)


def narrowed(found: Made, wish: Wish) -> Made:
    """Return a device with the points that are wanted, and what is to be changed of them.

    Raises:
        MillgateError: when one of them does not exist.
    """
    points = {point.table["id"]: point for point in found.device.points}
    for option, names in (("--only", wish.only), ("--set", wish.changes)):
        unknown = [name for name in names if name not in points]
        if unknown:
            raise MillgateError(
                tr(f"no point '{unknown[0]}'", f"没有点 '{unknown[0]}'"),
                where=option,
                remedy=instead_of(unknown[0], points),
            )
    kept = [
        PointText({**point.table, **wish.changes.get(name, {})}, point.note)
        for name, point in points.items()
        if not wish.only or name in wish.only
    ]
    found.device = replace(found.device, points=kept)
    return found

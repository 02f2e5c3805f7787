"""Whether a configured point is exactly what was signed, and which transform computes what."""

import importlib
import pkgutil
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.points import PointTable
from security.policy import transforms
from security.policy.compiled import Input, Rule
from security.policy.lane import Lane


def transform(aggregate: str) -> type[Lane]:
    """Return the lane that computes an aggregate: the file in `transforms/` of this name."""
    known = {module.name for module in pkgutil.iter_modules(transforms.__path__)}
    if aggregate not in known:
        raise MillgateError(tr("unknown transform", "未知的变换"), where=aggregate)
    lane: type[Lane] = importlib.import_module(f"{transforms.__name__}.{aggregate}").Lane
    return lane


def columns_of(table: PointTable, rules: Sequence[Rule], suspended: list[str]) -> NDArray[np.int32]:
    """Return the rules' columns, shape (p,), -1 where the source is not exactly what was signed.

    Adds a line to `suspended` for each of those.
    """
    places = {point.id: at for at, point in enumerate(table.points)}
    return np.array(
        [_column(places.get(rule.point), table, rule, suspended) for rule in rules], np.int32
    )


def differences(
    signed: Rule | Input, table: PointTable, at: int
) -> dict[str, tuple[object, object]]:
    """Return the keys in which a configured point is not what the policy names: (there, configured).

    Args:
        at: the point's position in the table.
    """
    point = table.points[at]
    pairs: dict[str, tuple[object, object]] = {
        "address": (signed.address, point.address),
        "type": (signed.type, point.type),
        "unit": (signed.unit, point.unit),
        "scale": (Decimal(signed.scale), point.scale),
        "offset": (Decimal(signed.offset), point.offset),
        "measurand": (signed.measurand, point.measurand),
        "state_model": (signed.state_model, point.state_model or ""),
        "origin": (signed.origin or table.origin(at), table.origin(at)),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def no_device(device: str) -> str:
    """Return the line that says so."""
    return tr(f"{device}: no such device is configured", f"{device}：未配置此设备")


def _other_origin(where: str) -> str:
    return tr(
        f"{where}: the device's place, byte order or another setting of how it is read is not what the "
        "policy names ('origin'); it stays withheld",
        f"{where}：设备的地址、字节序或其他读取设置与策略所载（origin）不符，保持不放行",
    )


def _column(at: int | None, table: PointTable, rule: Rule, suspended: list[str]) -> int:
    where = f"{rule.device}/{rule.point}"
    if at is None:
        what = tr("no such point is configured", "未配置此点")
        suspended.append(tr(f"{where}: {what}", f"{where}：{what}"))
        return -1
    found = differences(rule, table, at)
    if not found:
        return at
    names = ", ".join(found)
    suspended.append(
        _other_origin(where)
        if [*found] == ["origin"]
        else tr(
            f"{where}: {names}: not what the policy names; it stays withheld",
            f"{where}：{names} 与策略不符，保持不放行",
        )
    )
    return -1

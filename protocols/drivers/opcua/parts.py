"""Scalars inside arrays and structures: how they are picked."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from asyncua import ua

from protocols.drivers.opcua.steps import Part
from protocols.drivers.opcua.structures import Layout, Typed, decode

_NUMBERS: Final[dict[str, type[bool] | type[float]]] = {
    "Boolean": bool,
    "Float": float,
    "Double": float,
}


def pick(
    variant: ua.Variant,
    part: Part,
    expected: ua.VariantType,
    layouts: Mapping[ua.NodeId, Layout],
) -> Any:
    """Return the scalar that a part names; None when it is not there or of another type.

    Raises:
        Exception: of any kind, when a structure is not what the server says it is.
    """
    found: Typed | None = Typed(variant.VariantType, variant.Value)
    for step in part:
        if found is None:
            return None
        found = _field(found, step, layouts) if isinstance(step, str) else _element(found, step)
    if found is None or not isinstance(found.value, bool | int | float):
        return None
    if found.kind is None:
        return _plain_number(found.value, expected)
    return found.value if found.kind is expected else None


def _element(found: Typed, indices: tuple[int, ...]) -> Typed | None:
    value = found.value
    for index in indices:
        if not isinstance(value, list) or index >= len(value):
            return None
        value = value[index]
    return Typed(found.kind, value)


def _field(found: Typed, name: str, layouts: Mapping[ua.NodeId, Layout]) -> Typed | None:
    value = found.value
    if isinstance(value, ua.ExtensionObject):
        layout = layouts.get(value.TypeId)
        if layout is None or value.Body is None:
            return None
        value = decode(layout, value.Body)
    if isinstance(value, dict):
        return value.get(name)
    if is_dataclass(value) and name in {field.name for field in fields(value)}:
        # A structure of the standard itself, which the library has taken apart.
        return Typed(None, getattr(value, name))
    return None


def _plain_number(value: bool | float, expected: ua.VariantType) -> bool | float | None:  # noqa: FBT001 - a value, not a flag
    """Return a number of a known class as a plain one, if it is of the declared kind."""
    kind = _NUMBERS.get(expected.name, int)
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        return None
    return kind(value)

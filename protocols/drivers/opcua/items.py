"""What a server is asked to watch or read: each node once, for all points that want the same."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from protocols.drivers.opcua.address import Where, parse_address
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.point import OpcuaPoint
from protocols.drivers.opcua.steps import Part
from protocols.language import tr

_MOST_NAMED: Final = 20


class Deadband(NamedTuple):
    """How far a value has to move before the server sends it.

    Attributes:
        kind: `absolute`, in the node's own numbers, or `percent` of its EURange.
        value: how far.
    """

    kind: Literal["absolute", "percent"]
    value: float


class Ask(NamedTuple):
    """What is asked of the server for a node.

    Attributes:
        where: the node.
        sampling_ns: how often the server looks at it.
        queue: changes it keeps between two sendings.
        deadband: which changes it leaves out; None is none.
    """

    where: Where
    sampling_ns: int
    queue: int
    deadband: Deadband | None


class Item(NamedTuple):
    """A node, asked once; the number of its place is its client handle, less one.

    Attributes:
        ask: what is asked.
        columns: the points that it is for.
        parts: of each of them, the part of the value that it reads.
    """

    ask: Ask
    columns: tuple[int, ...]
    parts: tuple[Part, ...]


def items_of(config: Config) -> list[Item]:
    """Return what to ask for, in the order of the points."""
    found: dict[Ask, list[tuple[int, Part]]] = {}
    for column, point in enumerate(config.points):
        address = parse_address(point.address)
        sampling, queue = config.sampling_of(point)
        ask = Ask(address.where, sampling, queue, _deadband(point))
        found.setdefault(ask, []).append((column, address.part))
    return [
        Item(ask, tuple(column for column, _ in points), tuple(part for _, part in points))
        for ask, points in found.items()
    ]


def _deadband(point: OpcuaPoint) -> Deadband | None:
    if point.deadband is not None:
        return Deadband("absolute", float(point.deadband / abs(point.scale)))
    if point.deadband_percent is not None:
        return Deadband("percent", float(point.deadband_percent))
    return None


def columns_of(items: Sequence[Item], places: Sequence[int]) -> list[int]:
    """Return the points of some of the items, ascending."""
    return sorted(column for place in places for column in items[place].columns)


def some(ids: Sequence[str]) -> str:
    """Return a list of names that stays a line."""
    more = len(ids) - _MOST_NAMED
    return ", ".join(ids[:_MOST_NAMED]) + (
        tr(f" and {more} more", f" 等另 {more} 个") if more > 0 else ""
    )

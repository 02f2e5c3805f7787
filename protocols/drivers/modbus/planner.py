"""Planner: from points to the cheapest requests that read them all.

What a plan costs: each request costs as much as `gap` registers, each register that is read costs
one. Among plans of the same cost the one with fewer requests wins. For bits 16 count as a
register. So a gap that nobody asked for is read along where that costs no more than a request of
its own, and never else.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocols.drivers.modbus.point import BIT_TABLES, ModbusPoint, Table

_BITS_PER_REGISTER: Final = 16


@dataclass(frozen=True, slots=True)
class Request:
    """One block read.

    Attributes:
        table: which table.
        first, count: the registers, or the bits.
        points: positions of the points it covers, in the order they were given.
    """

    table: Table
    first: int
    count: int
    points: tuple[int, ...]

    @property
    def end(self) -> int:
        """The address behind the last."""
        return self.first + self.count


@dataclass(slots=True)
class Rules:
    """What a device allows.

    Attributes:
        most: per table, the most registers or bits in one request.
        gap: what a request costs, in registers.
        barred: per table, ranges (first, end) that no request may touch.
        apart: per table, ranges (first, end) that are not read in one piece: no request may
            contain the whole of one.
    """

    most: Mapping[Table, int]
    gap: int
    barred: Mapping[Table, Iterable[tuple[int, int]]] = field(default_factory=dict)
    apart: Mapping[Table, Iterable[tuple[int, int]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Block:
    """Points that are read whenever the widest of them is."""

    first: int
    end: int
    points: list[int]


def plan(points: Sequence[ModbusPoint], rules: Rules) -> list[Request]:
    """Return the cheapest requests that read every point whole, by table and address.

    A point that is wider than a request may be, or touches a barred range, is read alone.
    """
    requests: list[Request] = []
    for table in sorted({point.table for point in points}):
        members = [at for at, point in enumerate(points) if point.table == table]
        blocks = _blocks(points, members)
        gap = rules.gap * (_BITS_PER_REGISTER if table in BIT_TABLES else 1)
        walls = _walls(rules.barred.get(table, ()), rules.apart.get(table, ()))
        requests += [
            Request(
                table,
                group[0].first,
                group[-1].end - group[0].first,
                tuple(at for block in group for at in block.points),
            )
            for group in _cheapest(blocks, rules.most[table], gap, walls)
        ]
    return requests


def _blocks(points: Sequence[ModbusPoint], members: list[int]) -> list[_Block]:
    """Return the distinct ranges, with those that lie inside another one put into it.

    Both their beginnings and their ends rise.
    """
    spans = {at: (points[at].first, points[at].first + points[at].words) for at in members}
    blocks: list[_Block] = []
    for at in sorted(members, key=lambda at: (spans[at][0], -spans[at][1])):
        first, end = spans[at]
        if blocks and end <= blocks[-1].end:
            blocks[-1].points.append(at)
        else:
            blocks.append(_Block(first, end, [at]))
    return blocks


def _cheapest(
    blocks: Sequence[_Block], most: int, gap: int, walls: Sequence[tuple[int, int]]
) -> list[Sequence[_Block]]:
    """Divide blocks into groups at the least cost.

    A request that reads the blocks i to j costs gap + end(j) - first(i). The least cost up to j is
    gap + end(j) + the least of (cost up to i) - first(i) over all i from which j can be reached;
    how far back that is only moves on, so a sliding window's minimum gives it in linear time.
    """
    costs, counts, begins = [0], [0], [0]
    window: deque[int] = deque()
    reached = 0
    furthest = _furthest(blocks, most, walls)

    def key(at: int) -> tuple[int, int]:
        return costs[at] - blocks[at].first, counts[at]

    for at, block in enumerate(blocks):
        reached = max(reached, furthest[at])
        while window and key(window[-1]) >= key(at):
            window.pop()
        window.append(at)
        while window[0] < reached:
            window.popleft()
        best = window[0]
        costs.append(key(best)[0] + gap + block.end)
        counts.append(counts[best] + 1)
        begins.append(best)
    groups: list[Sequence[_Block]] = []
    end = len(blocks)
    while end:
        groups.append(blocks[begins[end] : end])
        end = begins[end]
    return groups[::-1]


def _walls(
    barred: Iterable[tuple[int, int]], apart: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return pairs (e, a): a request that ends at e or later begins at a or later."""
    return sorted(
        [(first + 1, end) for first, end in barred] + [(end, first + 1) for first, end in apart]
    )


def _furthest(blocks: Sequence[_Block], most: int, walls: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each block the first block that may be in one request with it."""
    found = []
    begin = wall = latest = 0
    for at, block in enumerate(blocks):
        while wall < len(walls) and walls[wall][0] <= block.end:
            latest = max(latest, walls[wall][1])
            wall += 1
        # A block alone may always be asked for: whether it is to be is not decided here.
        while begin < at and (
            block.end - blocks[begin].first > most or blocks[begin].first < latest
        ):
            begin += 1
        found.append(begin)
    return found

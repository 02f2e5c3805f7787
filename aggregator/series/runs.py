"""Runs: blocks of the same points that follow each other in time, joined into one.

A batch often holds one slot of thousands of points. What the series of a point cost once per
block, they cost once per run. The order of rows within a series stays that of the ledger.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator.series.future_factory import energy_medium
from aggregator.series.slots import ReleasedSlots
from protocols.batch import Block
from security.policy.compiled import SheetPoint

_MOST_CELLS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class PointSet:
    """The points of a block, and what of which series their rows are.

    Attributes:
        enterprise, site: whose they are.
        window_s: slot length in seconds.
        points: the release sheet's line of each column.
        series: names of all series that they can have rows in.
    """

    enterprise: str
    site: str
    window_s: int
    points: tuple[SheetPoint, ...]
    series: frozenset[tuple[str, ...]]

    @staticmethod
    def of(enterprise: str, site: str, window_s: int, points: tuple[SheetPoint, ...]) -> "PointSet":
        """Look up which series the points can have rows in."""
        where = (enterprise, site)
        series = frozenset((*where, *name) for point in points for name in _series_of(point))
        return PointSet(enterprise, site, window_s, points, series)


def _series_of(point: SheetPoint) -> list[tuple[str, ...]]:
    """Return names that differ whenever the series of two points do not meet."""
    if point.aggregate == "state":
        return [("state", point.equipment)]
    medium = energy_medium(point.measurand)
    reading = ("reading", point.equipment, point.measurand)
    return [reading, ("energy", point.equipment, medium)] if medium else [reading]


class Runs:
    """Joins blocks as they come."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[PointSet, list[Block]]] = {}
        self._owner: dict[tuple[str, ...], int] = {}
        self._cells = 0

    def add(self, points: PointSet, block: Block) -> Iterator[ReleasedSlots]:
        """Take a block; yield what must be projected before it.

        The same points must always be given as the same object.
        """
        found = self._open.get(id(points))
        if found is not None and _follows(block, found[1][-1]) and self._cells <= _MOST_CELLS:
            found[1].append(block)
            self._cells += block.mantissa.size
            return
        if self._cells > _MOST_CELLS:
            yield from self.rest()
        # A row of another run with these series must not come after a row of this block.
        for other in {self._owner[name] for name in points.series if name in self._owner}:
            if other in self._open:
                yield _joined(*self._open.pop(other))
        self._owner |= dict.fromkeys(points.series, id(points))
        self._open[id(points)] = (points, [block])
        self._cells += block.mantissa.size

    def rest(self) -> Iterator[ReleasedSlots]:
        """Yield everything that is left."""
        for points, blocks in self._open.values():
            yield _joined(points, blocks)
        self._open.clear()
        self._owner.clear()
        self._cells = 0


def _follows(block: Block, before: Block) -> bool:
    return block.slot == before.slot + before.rows


def _joined(points: PointSet, blocks: list[Block]) -> ReleasedSlots:
    block = blocks[0] if len(blocks) == 1 else _stack(blocks)
    return ReleasedSlots(points.enterprise, points.site, points.window_s, points.points, block)


def _stack(blocks: list[Block]) -> Block:
    sizes = [block.mantissa.size for block in blocks]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    cells = [block.span_cells + start for block, start in zip(blocks, starts, strict=True)]
    return Block(
        slot=blocks[0].slot,
        numbers=blocks[0].numbers,
        mantissa=np.concatenate([block.mantissa for block in blocks]),
        quality=np.concatenate([block.quality for block in blocks]),
        span_cells=np.concatenate(cells),
        spans=np.concatenate([block.spans for block in blocks]),
    )

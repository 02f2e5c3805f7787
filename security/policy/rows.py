"""Samples on their way into slots, and closed slots on their way out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.batch import MAX_CELLS, NO_VALUE, Block
from protocols.frame import Bytes, Ints, Values


class Samples(NamedTuple):
    """What a lane takes of one frame.

    Attributes:
        places: shape (c,), positions of the columns in this lane.
        slots: shape (r, 1) or (r, c), each sample's slot; of a point they never decrease.
        time: shape (r, 1) or (r, c), ns.
        values: shape (r, c), int64 or float64.
        quality: shape (r, c); what is not for this lane is ABSENT.
        given: shape (r, c), the quality before what fills a missing slot, or is late, was taken out.
        slot: the slot of all of them; None where there are several.
        clean: whether all of them are usable.
    """

    places: NDArray[np.int32]
    slots: Ints
    time: Ints
    values: Values
    quality: Bytes
    given: Bytes
    slot: int | None
    clean: bool


class Row(NamedTuple):
    """One closed slot of a lane; arrays have shape (numbers,)."""

    slot: int
    mantissa: Ints
    quality: Bytes
    spans: Ints


def row_of(slot: int, mantissa: Ints, quality: Bytes) -> Row:
    """Return a row whose values count over their own slot alone; without value they are 0."""
    (row,) = rows_of([slot], mantissa[None], quality[None])
    return row


def rows_of(slots: Sequence[int], mantissa: Ints, quality: Bytes) -> list[Row]:
    """Return a row as `row_of` does for each of k slots; arrays have shape (k, numbers)."""
    own = np.where(quality == NO_VALUE, 0, mantissa)
    spans = np.ones(own.shape[1], np.int64)
    return [Row(*row, spans) for row in zip(slots, own, quality, strict=True)]


def blocks_of(rows: Sequence[Row], numbers: Ints) -> list[Block]:
    """Return rows as blocks of consecutive slots, none larger than a block may be."""
    blocks = []
    start = 0
    most = MAX_CELLS // len(numbers)
    for at in range(1, len(rows) + 1):
        ends = at == len(rows) or rows[at].slot != rows[at - 1].slot + 1
        if ends or at - start == most:
            blocks.append(_block(rows[start:at], numbers))
            start = at
    return blocks


def _block(rows: Sequence[Row], numbers: Ints) -> Block:
    spans = np.concatenate([row.spans for row in rows])
    quality = np.stack([row.quality for row in rows])
    cells = np.flatnonzero((spans > 1) & (quality.reshape(-1) != NO_VALUE))
    return Block(
        slot=rows[0].slot,
        numbers=numbers,
        mantissa=np.stack([row.mantissa for row in rows]),
        quality=quality,
        span_cells=cells,
        spans=spans[cells],
    )

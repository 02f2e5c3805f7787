"""No finer than released: what a batch may hold under a release sheet.

The sealed side asks before it seals, the brain asks again before it keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from protocols.batch import Block
from protocols.errors import MillgateError
from protocols.frame import Ints
from protocols.vocabulary.states import OperatingState
from security.policy.compiled import ReleaseSheet, SheetPoint


class BeyondSheet(MillgateError):
    """Something finer than, or other than, what the sheet releases."""


@dataclass(frozen=True, slots=True)
class StreamTerms:
    """What one stream may hold, as arrays over its points.

    Attributes:
        window_s, pad: of the stream.
        numbers: shape (n,), ascending.
        points: the sheet's lines in the same order.
        step: shape (n,), mantissas are multiples of it.
        highest, lowest: shape (n,), bounds of the mantissas that have meaning.
        may_span: shape (n,), whether a value may count over several slots.
    """

    window_s: int
    pad: int
    numbers: Ints
    points: tuple[SheetPoint, ...]
    step: Ints
    lowest: Ints
    highest: Ints
    may_span: "np.ndarray[tuple[int], np.dtype[np.bool_]]"

    def check(self, blocks: Sequence[Block]) -> None:
        """Check the blocks of one batch.

        Raises:
            BeyondSheet: when anything is not within the sheet.
        """
        for block in blocks:
            places = self.places(block.numbers)
            mantissa = block.mantissa
            if (mantissa % self.step[places]).any():
                raise BeyondSheet("a value is not on the rounding grid")
            if (mantissa < self.lowest[places]).any() or (mantissa > self.highest[places]).any():
                raise BeyondSheet("a value is out of its bounds")
            if len(block.span_cells):
                columns = block.span_cells % len(block.numbers)
                if not self.may_span[places][columns].all():
                    raise BeyondSheet("a value may not count over several slots")

    def places(self, numbers: Ints) -> Ints:
        """Return the positions of point numbers in this stream.

        Raises:
            BeyondSheet: when one is not released in it.
        """
        places = np.searchsorted(self.numbers, numbers)
        places_in = np.minimum(places, len(self.numbers) - 1)
        if not len(self.numbers) or (self.numbers[places_in] != numbers).any():
            raise BeyondSheet("a point is not released in this stream")
        return places_in


def stream_terms(sheet: ReleaseSheet) -> dict[int, StreamTerms]:
    """Return the terms of every stream of a sheet."""
    return {
        stream.id: _terms(
            stream.window_s,
            stream.pad,
            sorted((p for p in sheet.points if p.stream == stream.id), key=lambda p: p.number),
        )
        for stream in sheet.streams
    }


_FREE = 1 << 53


def _terms(window_s: int, pad: int, points: Sequence[SheetPoint]) -> StreamTerms:
    bounds = [_bounds(point, window_s) for point in points]
    return StreamTerms(
        window_s=window_s,
        pad=pad,
        numbers=np.array([point.number for point in points], np.int64),
        points=tuple(points),
        step=np.array([point.step for point in points], np.int64),
        lowest=np.array([low for low, _ in bounds], np.int64),
        highest=np.array([high for _, high in bounds], np.int64),
        may_span=np.array([point.aggregate == "delta" for point in points], np.bool_),
    )


def _bounds(point: SheetPoint, window_s: int) -> tuple[int, int]:
    if point.part == "end":
        return 0, max(OperatingState)
    if point.part:
        return 0, window_s * 10**-point.exponent if point.exponent <= 0 else window_s
    return (0, _FREE) if point.aggregate == "delta" else (-_FREE, _FREE)

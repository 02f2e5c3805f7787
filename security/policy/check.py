"""No finer than released: what a batch may hold under a release sheet.

The sealed side asks before it seals, the brain asks again before it keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from protocols.batch import NO_VALUE, Block
from protocols.errors import MillgateError
from protocols.frame import Ints
from protocols.strict_cbor import Malformed
from protocols.vocabulary.states import OperatingState
from security.policy.compiled import LARGEST_PSEUDONYM, STATE_PARTS, ReleaseSheet, SheetPoint

FURTHEST_AHEAD_S: Final = 86400
"""How far a device's own time may be ahead of the clock; see `security.policy.lane`."""


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
        state: shape (n,), for each number of a state the position of its first, else -1.
    """

    window_s: int
    pad: int
    numbers: Ints
    points: tuple[SheetPoint, ...]
    step: Ints
    lowest: Ints
    highest: Ints
    may_span: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    state: Ints
    delay_s: Ints

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
            beyond = (mantissa < self.lowest[places]) | (mantissa > self.highest[places])
            if (beyond & (block.quality != NO_VALUE)).any():
                raise BeyondSheet("a value is out of its bounds")
            if len(block.span_cells):
                columns = block.span_cells % len(block.numbers)
                if not self.may_span[places][columns].all():
                    raise BeyondSheet("a value may not count over several slots")
            self._check_states(mantissa, places)

    def check_time(self, blocks: Sequence[Block], sealed_at_s: int) -> None:
        """Check that no slot left before its time.

        A slot leaves after its end, and where a delay was released, after that. Only a device that
        brings its own time may be ahead of the clock, by a day.

        Args:
            blocks: of one batch.
            sealed_at_s: when it was sealed, seconds since 1970 UTC.

        Raises:
            BeyondSheet: when one left too early.
        """
        for block in blocks:
            delays = self.delay_s[self.places(block.numbers)]
            end_s = (block.slot + block.rows) * self.window_s
            earliest_s = end_s + np.where(delays > 0, delays, -FURTHEST_AHEAD_S)
            if (earliest_s > sealed_at_s).any():
                raise BeyondSheet("a slot left before its time")

    def _check_states(self, mantissa: Ints, places: Ints) -> None:
        """Seconds in states mean something only together, and are not more than the slot has."""
        states = self.state[places]
        ends = np.flatnonzero(states == places)
        if np.count_nonzero(states >= 0) != len(STATE_PARTS) * len(ends):
            raise BeyondSheet("a state is not whole")
        if len(ends):
            seconds = mantissa[:, ends[:, None] + np.arange(1, len(STATE_PARTS))].sum(axis=2)
            if (seconds > self.highest[places[ends] + 1]).any():
                raise BeyondSheet("a state has more seconds than its slot")

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
    """Return the terms of every stream of a sheet.

    Raises:
        Malformed: when a number is there twice or a state is not whole.
    """
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
        state=_states(points),
        delay_s=np.array([point.delay_s for point in points], np.int64),
    )


def _states(points: Sequence[SheetPoint]) -> Ints:
    """Return for each point the position of its state's end, -1 where it is of no state.

    Raises:
        Malformed: see `stream_terms`.
    """
    numbers = [point.number for point in points]
    if len(set(numbers)) < len(numbers):
        raise Malformed("a sheet has a number twice")
    found = np.full(len(points), -1, np.int64)
    for at, point in enumerate(points):
        whole = points[at : at + len(STATE_PARTS)]
        if point.part == "end" and _is_state(whole):
            found[at : at + len(STATE_PARTS)] = at
    if any(
        (point.aggregate == "state") != (at >= 0) for point, at in zip(points, found, strict=True)
    ):
        raise Malformed("a sheet has a state that is not whole")
    return found


def _is_state(points: Sequence[SheetPoint]) -> bool:
    """Tell whether these are the numbers of one state, in their order and on one grid."""
    first = points[0].number
    return (
        tuple(point.part for point in points) == STATE_PARTS
        and [point.number for point in points] == list(range(first, first + len(points)))
        and len({(point.equipment, point.aggregate) for point in points}) == 1
        and len({(point.exponent, point.unit) for point in points[1:]}) == 1
        and points[0].exponent == 0 >= points[1].exponent
    )


def _bounds(point: SheetPoint, window_s: int) -> tuple[int, int]:
    if point.part == "end":
        return 0, max(OperatingState)
    if point.part:
        return 0, window_s * 10**-point.exponent if point.exponent <= 0 else window_s
    if point.bands:
        return 0, len(point.bands)
    if point.pseudonym_s:
        return 0, LARGEST_PSEUDONYM
    if point.clamp and point.aggregate != "sum":
        return point.clamp[0], point.clamp[1]
    return (0, _FREE) if point.aggregate == "delta" else (-_FREE, _FREE)

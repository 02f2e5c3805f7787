"""The arithmetic of a device's columns: raw numbers to values on each point's decimal grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocols.frame import Flags, Floats, Ints
from protocols.points import Point

REAL_TYPES: Final = frozenset({"Float", "Double"})
BITS: Final = {
    "Boolean": 1,
    "SByte": 8,
    "Byte": 8,
    "Int16": 16,
    "UInt16": 16,
    "Int32": 32,
    "UInt32": 32,
    "Int64": 64,
    "UInt64": 64,
}
TYPES: Final = (*BITS, "Float", "Double")
SIGNED_TYPES: Final = frozenset({"SByte", "Int16", "Int32", "Int64"})
_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**63 - 1
_TURN: Final = 2**64


@dataclass(frozen=True, slots=True)
class GridLine:
    """An integer point: value = (raw x factor + shift) x 10**exponent.

    Attributes:
        factor, shift: whole numbers.
        lowest, highest: the raw numbers whose values fit in 64 bits; none where they cross.
    """

    factor: int
    shift: int
    lowest: int
    highest: int


def grid_line(point: Point) -> GridLine:
    """Return the arithmetic of an integer point, exactly."""
    unit = Fraction(10) ** point.grid_exponent()
    factor, shift = int(Fraction(point.scale) / unit), int(Fraction(point.offset) / unit)
    ends = Fraction(_LOWEST - shift, factor), Fraction(_HIGHEST - shift, factor)
    bits = BITS[point.type]
    signed = point.type in SIGNED_TYPES
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    # The ends are inclusive, so they are rounded inwards.
    return GridLine(factor, shift, max(lowest, -(-min(ends) // 1)), min(highest, max(ends) // 1))


class Grid:
    """Scales whole columns at once.

    Numbers of 64 bits travel as int64 whatever their sign: all sums are taken modulo 2**64,
    and where the true value fits in 64 bits that is the true value.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        lines = [
            grid_line(point) if point.type in BITS else GridLine(0, 0, 0, 0) for point in points
        ]
        self._unsigned: Flags = np.array([point.type == "UInt64" for point in points])
        self._factor = np.array([_wrapped(line.factor) for line in lines], np.int64)
        self._shift = np.array([_wrapped(line.shift) for line in lines], np.int64)
        self._lowest = np.array([_wrapped(line.lowest) for line in lines], np.int64)
        self._highest = np.array([_wrapped(line.highest) for line in lines], np.int64)
        self._scale = np.array([float(point.scale) for point in points])
        self._offset = np.array([float(point.offset) for point in points])

    def integers(self, column: NDArray[np.int32], raw: Ints) -> tuple[Ints, Flags]:
        """Return the values on the grid of each number's point, and which of them fit.

        Args:
            column: shape (n,), positions of integer points.
            raw: shape (n,); UInt64 numbers above 2**63 - 1 as their 64 bits.
        """
        low, high = self._lowest[column], self._highest[column]
        fits = np.where(
            self._unsigned[column],
            (raw.view(np.uint64) >= low.view(np.uint64))
            & (raw.view(np.uint64) <= high.view(np.uint64)),
            (raw >= low) & (raw <= high),
        )
        values = raw * self._factor[column] + self._shift[column]
        return np.where(fits, values, 0), fits

    def reals(self, column: NDArray[np.int32], raw: Floats) -> tuple[Floats, Flags]:
        """Return the scaled values of float points, and which of them are finite numbers."""
        # Overflow is not an accident here: an infinite result is marked as bad.
        with np.errstate(over="ignore", invalid="ignore"):
            values = raw * self._scale[column] + self._offset[column]
        fits = np.isfinite(values)
        return np.where(fits, values, 0.0), fits


def bits_of(numbers: Sequence[int]) -> Ints:
    """Return numbers between -2**63 and 2**64 - 1 as 64 bits each, shape (n,)."""
    try:
        return np.array(numbers, np.int64)
    except OverflowError:
        return np.array([number % _TURN for number in numbers], np.uint64).view(np.int64)


def _wrapped(number: int) -> int:
    return (number - _LOWEST) % _TURN + _LOWEST

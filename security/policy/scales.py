"""From a policy's exact decimals, in the measurand's unit, to the numbers that frames carry."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from protocols.frame import Flags, Floats, Ints
from protocols.points import Point, PointTable
from protocols.vocabulary.measurands import unit_factor

_LOWEST = np.iinfo(np.int64).min
_HIGHEST = np.iinfo(np.int64).max


def point_factor(point: Point) -> tuple[int, int]:
    """Return (m, k): a value in the point's unit x m x 10**k is in the measurand's unit."""
    factor = unit_factor(point.unit, point.standard)
    if factor is None:
        return 1, 0
    _, digits, exponent = factor.normalize().as_tuple()
    return int("".join(map(str, digits))), int(exponent)


@dataclass(frozen=True, slots=True)
class Scales:
    """How the carried numbers of a lane's points relate to their measurands' units.

    A carried number x factor x 10**exponent is in the measurand's unit. All have shape (p,).

    Attributes:
        integer: whether the point is carried as integers.
    """

    integer: Flags
    factor: Ints
    exponent: Ints

    @staticmethod
    def of(table: PointTable, columns: Sequence[int]) -> "Scales":
        """Look up the columns of a point table; a suspended one, -1, is a plain integer."""
        integer = [bool(table.integer[column]) if column >= 0 else True for column in columns]
        pairs = [
            point_factor(table.points[column]) if column >= 0 else (1, 0) for column in columns
        ]
        own = [
            table.points[column].grid_exponent() if column >= 0 and whole else 0
            for column, whole in zip(columns, integer, strict=True)
        ]
        return Scales(
            np.array(integer, np.bool_),
            np.array([factor for factor, _ in pairs], np.int64),
            np.array([k + e for (_, k), e in zip(pairs, own, strict=True)], np.int64),
        )

    @property
    def plain(self) -> bool:
        """Whether all factors are 1."""
        return bool((self.factor == 1).all())

    def carried(self, at: int, value: Fraction) -> Fraction:
        """Return the exact carried number of a value in the measurand's unit."""
        return value / (int(self.factor[at]) * Fraction(10) ** int(self.exponent[at]))


def at_least(value: Fraction) -> tuple[int, float]:
    """Return the lowest int64 and the lowest float64 that are not below an exact number."""
    whole = min(max(math.ceil(value), _LOWEST), _HIGHEST)
    try:
        real = float(value)
    except OverflowError:
        return whole, math.inf if value > 0 else -math.inf
    return whole, real if Fraction(real) >= value else math.nextafter(real, math.inf)


def at_most(value: Fraction) -> tuple[int, float]:
    """Return the highest int64 and the highest float64 that are not above an exact number."""
    whole, real = at_least(-value)
    # The lowest int64 has no positive twin; one more makes no difference at that end.
    return -max(whole, _LOWEST + 1), -real


@dataclass(frozen=True, slots=True)
class Bounds:
    """The lowest and highest carried number of each point, all of shape (p,)."""

    low: Ints
    high: Ints
    real_low: Floats
    real_high: Floats

    @staticmethod
    def of(scales: Scales, pairs: Sequence[tuple[Fraction, Fraction] | None]) -> "Bounds | None":
        """Return bounds given in measurands' units; None where no point has any."""
        if not any(pairs):
            return None
        ends = [
            (at_least(scales.carried(at, pair[0])), at_most(scales.carried(at, pair[1])))
            if pair is not None
            else ((_LOWEST, -math.inf), (_HIGHEST, math.inf))
            for at, pair in enumerate(pairs)
        ]
        return Bounds(
            np.array([low for (low, _), _ in ends], np.int64),
            np.array([high for _, (high, _) in ends], np.int64),
            np.array([low for (_, low), _ in ends], np.float64),
            np.array([high for _, (_, high) in ends], np.float64),
        )

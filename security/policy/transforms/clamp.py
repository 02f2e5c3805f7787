"""Clamp: what is beyond the lowest or the highest value counts as that.

Every sample is clamped, an integer one to its outermost reading within the bounds; and so is what
leaves of several, for the bounds are on its grid.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from protocols.batch import LARGEST_MANTISSA
from protocols.frame import Ints, Values
from security.policy.compiled import Leaving, Rule
from security.policy.scales import Bounds, Scales
from security.policy.transforms.generalise import edges_of


class Clamp:
    """Clamps the values of one lane's points."""

    def __init__(self, scales: Scales, rules: Sequence[Rule]) -> None:
        self._bounds = Bounds.of(scales, [clamp_of(rule) for rule in rules])
        self._ends = Ends(rules)

    def clamped(self, places: NDArray[np.int32], values: Values) -> Values:
        """Return values of shape (r, c) within their bounds."""
        bounds = self._bounds
        if bounds is None:
            return values
        if values.dtype.kind == "i":
            return np.clip(values, bounds.low[places], bounds.high[places])
        return np.clip(values, bounds.real_low[places], bounds.real_high[places])

    def leaving(self, mantissa: Ints) -> Ints:
        """Return what leaves, rounded or as bands, shape (p,), within its bounds."""
        return self._ends.clipped(mantissa)


class Ends:
    """The lowest and highest mantissa, or band, of everything in one lane."""

    def __init__(self, rules: Sequence[Leaving]) -> None:
        ends = [_ends(rule) for rule in rules]
        self._any = any(rule.clamp for rule in rules)
        self._low = np.array([low for low, _ in ends], np.int64)
        self._high = np.array([high for _, high in ends], np.int64)

    def clipped(self, mantissa: Ints) -> Ints:
        """Return mantissas of shape (p,) within their ends."""
        return np.clip(mantissa, self._low, self._high) if self._any else mantissa


def clamp_of(one: Leaving) -> tuple[Fraction, Fraction] | None:
    """Return the exact lowest and highest value; None for no clamp."""
    if not one.clamp:
        return None
    unit = Fraction(10) ** one.clamp_exponent
    return one.clamp[0] * unit, one.clamp[1] * unit


def _ends(one: Leaving) -> tuple[int, int]:
    bounds = clamp_of(one)
    if bounds is None:
        return -LARGEST_MANTISSA, LARGEST_MANTISSA
    if one.bands:
        edges = edges_of(one)
        return bisect_right(edges, bounds[0]), bisect_right(edges, bounds[1])
    unit = Fraction(10) ** one.exponent
    return int(bounds[0] / unit), int(bounds[1] / unit)

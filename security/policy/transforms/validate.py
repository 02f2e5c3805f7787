"""Validate: a value is of the type that was signed, a finite number, and believable.

The first of all transforms: what fails is not used for anything.
"""

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocols.frame import Bytes, Flags, Quality, Values
from security.policy.compiled import Rule
from security.policy.scales import Bounds, Scales

_BAD: Final = int(Quality.BAD)


class Validate:
    """Checks the values of one lane's points."""

    def __init__(self, scales: Scales, rules: Sequence[Rule]) -> None:
        self._integer = scales.integer
        pairs = [
            (Fraction(Decimal(rule.range[0])), Fraction(Decimal(rule.range[1])))
            if rule.range
            else None
            for rule in rules
        ]
        self._bounds = Bounds.of(scales, pairs)

    def sound(self, places: NDArray[np.int32], values: Values, quality: Bytes) -> Bytes:
        """Return the quality, BAD where a value is not of its type or not finite."""
        whole = values.dtype.kind == "i"
        wrong: Flags = self._integer[places] != whole
        if not whole:
            wrong = wrong | ~np.isfinite(values)
        if not wrong.any():
            return quality
        return np.where(wrong & (quality < _BAD), np.uint8(_BAD), quality)

    def beyond(self, places: NDArray[np.int32], values: Values, quality: Bytes) -> Flags | None:
        """Tell which usable values are out of their range, shape (r, c); None for none at all."""
        bounds = self._bounds
        if bounds is None:
            return None
        low: Values = bounds.low if values.dtype.kind == "i" else bounds.real_low
        high: Values = bounds.high if values.dtype.kind == "i" else bounds.real_high
        wrong: Flags = (values < low[places]) | (values > high[places])
        wrong &= quality < _BAD
        return wrong if wrong.any() else None

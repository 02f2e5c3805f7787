"""Products of whole numbers and exact factors, rounded once."""

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

import numpy as np

from protocols.frame import Floats, Ints


@lru_cache(maxsize=4096)
def _whole(factor: Decimal | Fraction, exponent: int) -> tuple[int, int]:
    exact = Fraction(factor) * Fraction(10) ** exponent
    return exact.numerator, exact.denominator


def exact_product(mantissa: Ints, exponent: int, factor: Decimal | Fraction) -> Floats:
    """Return mantissa x 10**exponent x factor, each the nearest float64 to the exact product."""
    up, down = _whole(factor, exponent)
    largest = int(np.abs(mantissa).max(initial=0)) * abs(up)
    if max(largest, abs(up)) < 1 << 53 and down < 1 << 53:
        # Both are exact in float64, so that the division rounds once.
        return (mantissa * up).astype(np.float64) / float(down)
    return np.array([m * up / down for m in mantissa.tolist()], np.float64)

"""Rounding to a decimal grid, exactly, half to even, whole arrays at a time."""

from fractions import Fraction
from typing import Final

import numpy as np

from protocols.batch import LARGEST_MANTISSA
from protocols.frame import Flags, Floats, Ints

_ROOM: Final = (1 << 62) - 1
_SMALL_HIGH: Final = 1 << 29
_DOUBT: Final = 2.0**-50


def round_values(
    integer: Flags,
    whole: Ints,
    real: Floats,
    exponents: Ints,
    grid: Ints,
    step: Ints,
    factor: Ints | None = None,
) -> tuple[Ints, Flags]:
    """Round what is held of integer and of float points, each by its own rule.

    All arguments have shape (n,); `integer` tells which of `whole` and `real` counts, and these may
    have shape (k, n). A value is that x factor x 10**exponents. Returns as the two functions below.
    """
    if integer.all():
        return round_integers(whole, exponents, grid, step, factor)
    mantissa, fits = round_floats(real, grid - exponents, step, factor)
    if integer.any():
        from_whole, whole_fits = round_integers(whole, exponents, grid, step, factor)
        mantissa = np.where(integer, from_whole, mantissa)
        fits = np.where(integer, whole_fits, fits)
    return mantissa, fits


def round_integers(
    values: Ints, exponents: Ints, grid: Ints, step: Ints, factor: Ints | None = None
) -> tuple[Ints, Flags]:
    """Round values x factor x 10**exponents to multiples of step x 10**grid.

    All arguments have shape (n,); values may have shape (k, n). Returns the mantissas in units of
    10**grid, shaped as the values, and which of them could be computed exactly and fit 2**53.
    """
    shift = exponents - grid
    multiply = 10 ** np.clip(shift, 0, 18)
    if factor is not None:
        multiply = np.where(factor <= _ROOM // multiply, multiply * factor, _ROOM)
    power = 10 ** np.clip(-shift, 0, 18)
    room = _ROOM // multiply
    # Not by their absolute value: the lowest number of 64 bits has none.
    fits = (values <= room) & (values >= -room) & (np.abs(shift) <= 18) & (step <= _ROOM // power)
    divide = np.where(fits, step * power, 1)
    numerator = np.where(fits, values, 0) * multiply
    quotient, rest = np.divmod(numerator, divide)
    up = (rest > divide - rest) | ((rest == divide - rest) & (quotient & 1 == 1))
    multiple = quotient + up
    fits &= np.abs(multiple) <= LARGEST_MANTISSA // step
    return np.where(fits, multiple * step, 0), fits


def round_means(
    high: Ints, low: Ints, counts: Ints, exponents: Ints, grid: Ints, step: Ints, factor: Ints
) -> tuple[Ints, Flags]:
    """Round (high x 2**32 + low) x factor / counts x 10**exponents to multiples of step x 10**grid.

    All have shape (n,); 0 <= low < 2**32, counts are above 0. Returns as `round_integers`. What does
    not fit 64 bits on the way is computed one by one.
    """
    shift = exponents - grid
    multiply, power = 10 ** np.clip(shift, 0, 18), 10 ** np.clip(-shift, 0, 18)
    multiply = np.where(factor <= _ROOM // multiply, multiply * factor, _ROOM)
    small = (np.abs(high) < _SMALL_HIGH) & (np.abs(shift) <= 18)
    values = np.where(small, (high << 32) + low, 0)
    room = _ROOM // multiply
    small &= (values <= room) & (values >= -room) & (step <= _ROOM // power)
    small &= counts <= _ROOM // np.where(small, step * power, 1)
    divide = np.where(small, step * power * counts, 1)
    quotient, rest = np.divmod(np.where(small, values, 0) * np.where(small, multiply, 1), divide)
    up = (rest > divide - rest) | ((rest == divide - rest) & (quotient & 1 == 1))
    multiple: Ints = quotient + up
    most = LARGEST_MANTISSA // step
    fits = np.abs(multiple) <= most
    for at in np.flatnonzero(~small).tolist():
        total = ((int(high[at]) << 32) + int(low[at])) * int(factor[at])
        unit = Fraction(int(step[at]) * int(counts[at])) * Fraction(10) ** int(-shift[at])
        exact = round(Fraction(total) / unit)
        fits[at] = abs(exact) <= most[at]
        multiple[at] = exact if fits[at] else 0
    return np.where(fits, multiple * step, 0), fits


def round_floats(
    values: Floats, grid: Ints, step: Ints, factor: Ints | None = None
) -> tuple[Ints, Flags]:
    """Round float64 values x factor to multiples of step x 10**grid.

    The exact binary value is what is rounded: where float arithmetic cannot tell the side of a
    tie, exact fractions decide. All arguments have shape (n,); values may have shape (k, n). Returns
    the mantissas in units of 10**grid, shaped as the values, and which of them fit 2**53.
    """
    times = np.ones_like(step) if factor is None else factor
    unit = step * 10.0**grid / times
    most = LARGEST_MANTISSA // step
    with np.errstate(all="ignore"):
        ratio = values / unit
    fits = np.isfinite(values) & (np.abs(ratio) <= most + 1.0)
    ratio = np.where(fits, ratio, 0.0)
    multiple = np.rint(ratio).astype(np.int64)
    distance = np.abs(np.abs(ratio - np.floor(ratio)) - 0.5)
    doubtful = fits & (distance <= np.maximum(np.abs(ratio), 1.0) * _DOUBT)
    for cell in map(tuple, np.argwhere(doubtful).tolist()):
        at = cell[-1]
        exact = Fraction(float(values[cell])) / (
            Fraction(int(step[at]), int(times[at])) * Fraction(10) ** int(grid[at])
        )
        multiple[cell] = round(exact)
    fits &= np.abs(multiple) <= most
    return np.where(fits, multiple * step, 0), fits


def round_times(times: Ints, step_ns: Ints) -> Ints:
    """Round nanoseconds to multiples of step_ns, half to even; both have shape (n,)."""
    quotient, rest = np.divmod(times, step_ns)
    up = (rest > step_ns - rest) | ((rest == step_ns - rest) & (quotient & 1 == 1))
    rounded: Ints = (quotient + up) * step_ns
    return rounded

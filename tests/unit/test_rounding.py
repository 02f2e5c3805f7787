"""Rounding is exact and half to even, for integers, floats and instants."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocols.batch import LARGEST_MANTISSA
from security.policy.rounding import round_floats, round_integers, round_times, round_values

STEPS = st.sampled_from([1, 2, 3, 5, 10, 25, 50, 100, 7919, 10**9, LARGEST_MANTISSA])


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def exactly(value: Fraction, grid: int, step: int) -> int | None:
    """Return the mantissa; None where it is too large."""
    multiple = round(value / (step * Fraction(10) ** grid))
    return multiple * step if abs(multiple) <= LARGEST_MANTISSA // step else None


@settings(max_examples=400, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(-12, 12), st.integers(-9, 9), STEPS)
@example(-(2**63), 1, 0, 1)
@example(-(2**63), 0, 0, 1)
@example(2**53, 0, 0, 1)
@example(2**53 + 1, 0, 0, 1)
@example(-(2**53) - 1, 0, 0, 2)
def test_integers_are_rounded_as_fractions_are(value: int, own: int, grid: int, step: int) -> None:
    """What fits 64 bits on the way is exact, and what does not is never a wrong number."""
    mantissa, fits = round_integers(ints(value), ints(own), ints(grid), ints(step))
    expected = exactly(Fraction(value) * Fraction(10) ** own, grid, step)
    assert not fits[0] or int(mantissa[0]) == expected
    assert fits[0] or int(mantissa[0]) == 0
    small = (
        abs(value) * 10 ** max(own - grid, 0) < 2**61 and step * 10 ** max(grid - own, 0) < 2**61
    )
    assert fits[0] or expected is None or not small


@settings(max_examples=400, deadline=None)
@given(st.floats(), st.integers(-9, 9), STEPS)
@example(2.675, -2, 1)
@example(0.125, -2, 1)
@example(float(2**53), 0, 5)
@example(-0.0, 0, 1)
@example(5e-324, -9, 1)
@example(90071992547409.93, -2, 1)
@example(1.7976931348623157e308, -9, 1)
@example(-27.516210135, -8, 3)  # the float quotient of these lies on the wrong side of a tie
@example(9234.45, -1, 3)
@example(-147.120405, -5, 3)
def test_floats_are_rounded_by_their_exact_binary_value(value: float, grid: int, step: int) -> None:
    mantissa, fits = round_floats(np.array([value]), ints(grid), ints(step))
    finite = np.isfinite(value)
    expected = exactly(Fraction(value), grid, step) if finite else None
    assert bool(fits[0]) == (expected is not None)
    assert int(mantissa[0]) == (expected or 0)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(-(10**6), 10**6),
    st.integers(-9, 3),
    st.sampled_from([1, 2, 3, 5, 7, 25, 7919, 123457]),
)
def test_floats_next_to_a_tie_go_to_the_right_side(half_steps: int, grid: int, step: int) -> None:
    """At a tie, and one float above and below it, where float arithmetic alone is wrong."""
    tie = float(Fraction(2 * half_steps + 1, 2) * step * Fraction(10) ** grid)
    values = np.array([np.nextafter(tie, -np.inf), tie, np.nextafter(tie, np.inf)])
    mantissa, fits = round_floats(values, ints(grid, grid, grid), ints(step, step, step))
    assert fits.all()
    assert mantissa.tolist() == [exactly(Fraction(v), grid, step) for v in values.tolist()]


@pytest.mark.parametrize(
    ("step", "pairs"),
    [
        (2, {-3: -4, -1: 0, 1: 0, 3: 4, 5: 4}),
        (10, {-25: -20, -15: -20, -5: 0, 5: 0, 14: 10, 15: 20, 16: 20, 25: 20}),
    ],
)
def test_half_goes_to_even_multiples_of_the_step(step: int, pairs: dict[int, int]) -> None:
    values = ints(*pairs)
    zeros, steps = np.zeros(len(pairs), np.int64), np.full(len(pairs), step)
    expected = list(pairs.values())
    assert round_integers(values, zeros, zeros, steps)[0].tolist() == expected
    assert round_floats(values.astype(np.float64), zeros, steps)[0].tolist() == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**62), st.sampled_from([1, 10**6, 5 * 10**8, 10**9, 9 * 10**11]))
def test_instants_are_rounded_half_to_even(time: int, step: int) -> None:
    rounded = int(round_times(ints(time), ints(step))[0])
    assert rounded == round(Fraction(time, step)) * step


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(-999, 999)), min_size=1, max_size=20))
def test_each_point_is_rounded_by_its_own_rule(points: list[tuple[bool, int]]) -> None:
    """Integer points x 10**-1, float points as they are; all to whole fives."""
    integer = np.array([whole for whole, _ in points])
    whole = ints(*(value for _, value in points))
    real = whole / 8
    count = len(points)
    exponents = np.where(integer, -1, 0)
    grid, step = np.zeros(count, np.int64), np.full(count, 5)
    mantissa, fits = round_values(integer, whole, real, exponents, grid, step)
    assert fits.all()
    assert mantissa.tolist() == [
        exactly(Fraction(value, 10 if is_whole else 8), 0, 5) for is_whole, value in points
    ]


def test_arrays_are_rounded_as_their_elements_are() -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(-(2**40), 2**40, 500)
    own, grid = rng.integers(-4, 4, 500), rng.integers(-4, 1, 500)
    step = rng.choice([1, 5, 20], 500)
    mantissa, fits = round_integers(values, own, grid, step)
    for at in range(500):
        alone, alone_fits = round_integers(*(a[at : at + 1] for a in (values, own, grid, step)))
        assert (mantissa[at], fits[at]) == (alone[0], alone_fits[0])

"""Generalise: instead of a value, how many edges it has reached leaves; 0 is below the first.

Comparisons are exact: a value on an edge has reached it.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Final

import numpy as np

from protocols.frame import Flags, Floats, Ints
from security.policy.compiled import Leaving
from security.policy.scales import Scales, at_least

_DOUBT: Final = 2.0**-48


class Bands:
    """The bands of one lane's points.

    Attributes:
        at: positions of the points that have bands.
    """

    def __init__(self, scales: Scales, rules: Sequence[Leaving]) -> None:
        self.at = np.array([at for at, rule in enumerate(rules) if rule.bands], np.intp)
        self._exact = [
            [scales.carried(at, edge) for edge in edges_of(rules[at])] for at in self.at.tolist()
        ]
        width = max((len(edges) for edges in self._exact), default=0)
        ends = [[at_least(edge) for edge in edges] for edges in self._exact]
        shape = (len(self._exact), width)
        self._whole: Ints = np.zeros(shape, np.int64)
        self._real: Floats = np.full(shape, np.inf)
        self._there: Flags = np.zeros(shape, np.bool_)
        for row, edges in enumerate(ends):
            self._whole[row, : len(edges)] = [whole for whole, _ in edges]
            self._real[row, : len(edges)] = [real for _, real in edges]
            self._there[row, : len(edges)] = True

    def of_values(self, integer: Flags, whole: Ints, real: Floats) -> Ints:
        """Return the band of each banded point, shape (b,) or (k, b).

        Args:
            integer: shape (p,).
            whole, real: shape (p,) or (k, p).
        """
        reached = np.where(
            integer[self.at][:, None],
            whole[..., self.at, None] >= self._whole,
            real[..., self.at, None] >= self._real,
        )
        bands: Ints = (reached & self._there).sum(axis=-1, dtype=np.int64)
        return bands

    def of_means(self, high: Ints, low: Ints, count: Ints) -> Ints:
        """Return the band of each banded point's mean, shape (b,).

        Args:
            high, low: shape (p,); the exact sum of the carried integers is high x 2**32 + low.
            count: shape (p,), how many they are; above 0.
        """
        high, low, count = high[self.at], low[self.at], count[self.at]
        means = (high * 2.0**32 + low) / count
        reached = means[:, None] >= self._real
        near = np.abs(means[:, None] - self._real) <= _DOUBT * np.maximum(np.abs(self._real), 1.0)
        for row, column in np.argwhere(near & self._there).tolist():
            exact = Fraction((int(high[row]) << 32) + int(low[row]), int(count[row]))
            reached[row, column] = exact >= self._exact[row][column]
        bands: Ints = (reached & self._there).sum(axis=1, dtype=np.int64)
        return bands


def edges_of(one: Leaving) -> list[Fraction]:
    """Return the exact edges in the measurand's unit."""
    return [edge * Fraction(10) ** one.bands_exponent for edge in one.bands]


def band_of(one: Leaving, values: Floats) -> Ints:
    """Return the bands of float64 values in the measurand's unit, any shape."""
    edges = np.array([at_least(edge)[1] for edge in edges_of(one)])
    return np.searchsorted(edges, values, side="right")

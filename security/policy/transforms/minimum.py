"""Minimum samples: nothing leaves that was computed from fewer values than the rule asks for."""

from collections.abc import Sequence

import numpy as np

from protocols.frame import Flags, Ints
from security.policy.compiled import Rule


class Minimum:
    """How many samples each of one lane's points needs."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._needed: Ints = np.array([max(rule.min_samples, 1) for rule in rules], np.int64)

    def enough(self, count: Ints) -> Flags:
        """Tell which points have enough samples, shape (p,)."""
        found: Flags = count >= self._needed
        return found

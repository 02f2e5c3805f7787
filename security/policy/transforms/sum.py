"""`sum`: the sum of all samples in the slot, for readings that each stand for something of its own.

A slot of which something is known to be missing has no sum: it would be too small.
"""

import numpy as np

from protocols.frame import Flags, Ints
from security.policy.statistics import Tally, Total


class Lane(Total):
    """Sum of the samples in the slot."""

    carries = False
    whole_only = True

    def result(self, slot: int, tally: Tally, valid: Flags) -> tuple[Ints, Flags]:
        """Round the sum."""
        del slot
        return self.total(tally, np.ones(self.size, np.int64), valid)

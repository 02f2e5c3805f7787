"""`mean`: the mean of all samples in the slot, exact before it is rounded.

A sample counts once, however long it held.
"""

import numpy as np

from protocols.frame import Flags, Ints
from security.policy.statistics import Tally, Total


class Lane(Total):
    """Mean of the samples in the slot."""

    def result(self, slot: int, tally: Tally, valid: Flags) -> tuple[Ints, Flags]:
        """Divide the sum by how many there are."""
        del slot
        mantissa, valid = self.total(tally, np.maximum(tally.count, 1), valid)
        return self.clamp.leaving(mantissa), valid

"""`min`: the lowest sample in the slot."""

import numpy as np

from security.policy.statistics import Extreme


class Lane(Extreme):
    """Lowest sample in the slot."""

    pick = np.minimum
    none = (np.iinfo(np.int64).max, np.inf)

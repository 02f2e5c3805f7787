"""`max`: the highest sample in the slot."""

import numpy as np

from security.policy.statistics import Extreme


class Lane(Extreme):
    """Highest sample in the slot."""

    pick = np.maximum
    none = (np.iinfo(np.int64).min, -np.inf)

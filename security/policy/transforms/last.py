"""`last`: the last value in the slot.

A value that still holds counts as well: that of a subscription until contact is lost, that of a
polled point for its holding time. A value seen in the slot that no longer holds at its end is
released as uncertain.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.batch import GOOD, NO_VALUE, UNCERTAIN
from security.policy import lane
from security.policy.lane import Row, Samples
from security.policy.latest import Latest
from security.policy.rounding import round_values


class Lane(lane.Lane):
    """Last value in the slot."""

    memory_per_point = 128

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._latest = Latest(self.size)

    def take(self, samples: Samples) -> int:
        """Keep the newest sample of each slot."""
        self._latest.take(samples)
        return 0

    def close_slot(self, slot: int) -> Row:
        """Round what was last."""
        cells, inside, fresh = self._latest.close(slot, self.end_of(slot), self.hold_ns)
        mantissa, fits = round_values(
            self.integer, cells.value, cells.real, self.exponents, self.grid, self.step
        )
        valid = (inside | fresh) & fits
        uncertain = ~fresh | (cells.quality > 0)
        quality = np.where(valid, np.where(uncertain, UNCERTAIN, GOOD), NO_VALUE).astype(np.uint8)
        return Row(slot, np.where(valid, mantissa, 0), quality, np.ones(self.size, np.int64))

    def open_slots(self) -> list[int]:
        """Return the slots that hold something."""
        return list(self._latest.slots)

    def forget_open(self) -> None:
        """Drop what open slots hold, and what was last before them."""
        self._latest = Latest(self.size)

    def arrays(self) -> dict[str, Any]:
        """Return the lane's state."""
        return self._latest.dump()

    def load(self, state: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take over state."""
        self._latest.load(state, new, old, self.hold_ns)

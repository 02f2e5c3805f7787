"""`last`: the last value in the slot.

A value that still holds counts as well: that of a subscription until contact is lost, that of a
polled point for its holding time. A value seen in the slot that no longer holds at its end is
released as uncertain.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.batch import GOOD, NO_VALUE, UNCERTAIN
from protocols.frame import Bytes, Flags
from security.policy import lane
from security.policy.latest import Latest
from security.policy.rows import Row, Samples, row_of, rows_of


class Lane(lane.Lane):
    """Last value in the slot."""

    memory_per_point = 128
    memory_per_slot = 32
    at_once = 64

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._latest = Latest(self.size)

    def take(self, samples: Samples) -> None:
        """Keep the newest sample of each slot."""
        self._latest.take(samples)

    def close_slot(self, slot: int) -> Row:
        """Round what was last."""
        (row,) = self.close_run([slot])
        return row

    def close_run(self, slots: Sequence[int]) -> list[Row]:
        """Round what was last in each."""
        run = np.array(slots, np.int64)
        cells, inside, fresh = self._latest.close(slots, self.ends_of(run), self.hold_ns)
        mantissa, valid = self._leaving(run, cells.value, cells.real, inside | fresh)
        return rows_of(slots, mantissa, _quality(valid, ~fresh | (cells.quality > 0)))

    def refill(self, samples: Samples) -> None:
        """Keep the newest late sample of a closed slot."""
        self._latest.take(samples)

    def fill_slot(self, slot: int) -> Row | None:
        """Round what was last among the late samples."""
        cells = self._latest.slots.pop(slot, None)
        if cells is None:
            return None
        mantissa, valid = self._leaving(np.array(slot), cells.value, cells.real, cells.seen)
        over = cells.lost | (cells.quality > 0)
        if self.hold_ns is not None:
            over |= self.end_of(slot) - cells.time > self.hold_ns
        return row_of(slot, mantissa, _quality(valid, over))

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


def _quality(valid: Flags, uncertain: Flags) -> Bytes:
    return np.where(valid, np.where(uncertain, UNCERTAIN, GOOD), NO_VALUE).astype(np.uint8)

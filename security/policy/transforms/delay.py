"""Delay: a closed slot leaves so long after its end at the earliest.

What waits is in the gate memory: a crash neither loses nor doubles it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.batch import NO_VALUE
from protocols.frame import Ints
from security.policy.rows import Row


class Waiting:
    """Closed rows of one lane, in the order in which they were closed.

    Attributes:
        delay_ns: after the end of its slot a row leaves so much later; 0 is at once.
        fresh: whether a row came since `take` was last called: it is in no committed memory yet.
    """

    def __init__(self, window_ns: int, delay_ns: int, width: int) -> None:
        self.delay_ns = delay_ns
        self.fresh = False
        self._window_ns = window_ns
        self._width = width
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> list[Row]:
        """All that waits."""
        return self._rows

    def add(self, row: Row) -> None:
        """Take a closed row."""
        self._rows.append(row)
        self.fresh = True

    def has_due(self, now_ns: int) -> bool:
        """Tell whether anything may leave now."""
        return any(self._is_due(row, now_ns) for row in self._rows)

    def take(self, now_ns: int) -> list[Row]:
        """Return what may leave now, and forget it."""
        self.fresh = False
        if not self.delay_ns:
            due, self._rows = self._rows, []
            return due
        due = [row for row in self._rows if self._is_due(row, now_ns)]
        if due:
            self._rows = [row for row in self._rows if not self._is_due(row, now_ns)]
        return due

    def forget_through(self, slot: int) -> None:
        """Drop the rows up to and with a slot."""
        self._rows = [row for row in self._rows if row.slot > slot]

    def _is_due(self, row: Row, now_ns: int) -> bool:
        if not self.delay_ns:
            return True
        return (row.slot + 1) * self._window_ns + self.delay_ns <= now_ns

    def room(self, slots: int) -> int:
        """Return how many bytes so many rows take in memory."""
        return slots * (17 * self._width + 32)

    def dump(self) -> list[Any]:
        """Return the rows as CBOR-able data."""
        return [
            [
                row.slot,
                row.mantissa.astype("<i8").tobytes(),
                row.quality.tobytes(),
                row.spans.astype("<i8").tobytes() if (row.spans != 1).any() else b"",
            ]
            for row in self._rows
        ]

    def load(self, data: list[Any], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take over rows: number new[i] takes what old[i] had, all others have no value."""
        for slot, mantissa, quality, spans in data:
            row = Row(
                slot,
                np.zeros(self._width, np.int64),
                np.full(self._width, NO_VALUE, np.uint8),
                np.ones(self._width, np.int64),
            )
            row.mantissa[new] = _ints(mantissa)[old]
            row.quality[new] = np.frombuffer(quality, np.uint8)[old]
            if spans:
                row.spans[new] = _ints(spans)[old]
            self._rows.append(row)


def _ints(data: bytes) -> Ints:
    return np.frombuffer(data, "<i8").astype(np.int64)

"""`delta`: what a counter rose by in the slot.

The cumulative reading is unwrapped, rounded on its exact decimal grid (half to even), and the
last committed rounded reading is subtracted; so the sum of all deltas is exactly the last rounded
reading minus the first. A reading exactly on a boundary closes the slot that ends there.

A slot whose counter could not be read near its end has no value; the next one that has says over
how many slots it counts. A fall of the reading is a rollover when it falls from the last tenth
of the range to the first; otherwise it is held back until a second reading, not 0, confirms it,
and then it is a reset. (Meters that lose their link often read 0 and then go on as before.)
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocols.batch import GOOD, NO_VALUE, UNCERTAIN
from protocols.frame import Bytes, Flags, Ints, Quality, Values
from security.policy import account, lane
from security.policy.lane import Cells, Latest, Row
from security.policy.rounding import round_floats, round_integers

_NEAR_TOP: Final = 0.9
_NEAR_ZERO: Final = 0.1


class Lane(lane.Lane):
    """Differences of cumulative readings."""

    closing_edge = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._latest = Latest(self.size)
        # The newest reading as the device gave it; `lost` marks a fall that waits for a second one.
        self._raw = Cells(self.size)
        self._offset = Cells(self.size)
        # The last committed rounded reading, and the slot it closed.
        self._base = Cells(self.size)
        points = [self._point(at) for at in range(self.size)]
        self._modulus = [float(modulus) for _, modulus in points]
        self._rebase = [policy == "rebase" for policy, _ in points]

    def _point(self, at: int) -> tuple[str, float]:
        columns = np.flatnonzero(self._place == at)
        if not len(columns):
            return "from_zero", 0.0
        column = int(columns[0])
        return self.table.points[column].counter.on_reset, float(self.table.modulus[column])

    def take(
        self, places: NDArray[np.int32], slots: Ints, time: Ints, values: Values, quality: Bytes
    ) -> int:
        """Unwrap the readings and keep the newest of each slot."""
        readings, kept = self._unwrap(places, values, quality)
        dropped = int(np.count_nonzero((kept == Quality.ABSENT) & (quality != Quality.ABSENT)))
        if dropped:
            self.account.dropped[account.UNCONFIRMED] += dropped
        self._latest.take(places, slots, time, readings, kept)
        return dropped

    def close_slot(self, slot: int) -> Row:
        """Subtract the last committed reading."""
        cells, _, fresh = self._latest.close(slot, self.end_of(slot), self.hold_ns)
        rounded, fits = self._rounded(cells)
        usable = fresh & fits
        valid = usable & self._base.seen
        mantissa = np.where(valid, rounded - self._base.value, 0)
        spans = np.where(valid, slot - self._base.time, 1)
        quality = np.where(valid, np.where(cells.quality > 0, UNCERTAIN, GOOD), NO_VALUE)
        self._base.value[usable] = rounded[usable]
        self._base.time[usable] = slot
        self._base.seen |= usable
        return Row(slot, mantissa, quality.astype(np.uint8), spans)

    def open_slots(self) -> list[int]:
        """Return the slots that hold something."""
        return list(self._latest.slots)

    def forget_open(self) -> None:
        """Drop what open slots hold; the next reading goes on from the last committed one."""
        self._latest.slots.clear()

    def arrays(self) -> dict[str, Any]:
        """Return the lane's state."""
        return {
            "latest": self._latest.dump(),
            "raw": self._raw.dump(),
            "offset": self._offset.dump(),
            "base": self._base.dump(),
        }

    def load(self, state: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take over state."""
        self._latest.load(state["latest"], new, old)
        self._raw.load(state["raw"], new, old)
        self._offset.load(state["offset"], new, old)
        self._base.load(state["base"], new, old)

    def _rounded(self, cells: Cells) -> tuple[Ints, Flags]:
        whole, whole_fits = round_integers(cells.value, self.exponents, self.grid, self.step)
        real, real_fits = round_floats(cells.real, self.grid - self.exponents, self.step)
        return np.where(self.integer, whole, real), np.where(self.integer, whole_fits, real_fits)

    def _unwrap(
        self, places: NDArray[np.int32], values: Values, quality: Bytes
    ) -> tuple[Values, Bytes]:
        """Return cumulative readings that never fall, and the quality without held-back ones."""
        whole = values.dtype.kind == "i"
        last: Values = self._raw.value if whole else self._raw.real
        offset: Values = self._offset.value if whole else self._offset.real
        usable = quality <= Quality.UNCERTAIN
        if usable.all() and self._raw.seen[places].all() and not self._raw.lost[places].any():
            steps = np.diff(values, axis=0, prepend=last[places][None, :])
            if bool((steps >= 0).all()):
                last[places] = values[-1]
                return values + offset[places], quality
        readings, kept = values.copy(), quality.copy()
        for row in range(len(values)):
            for column in self._falls(places, values[row], usable[row], last).tolist():
                place = int(places[column])
                if not self._accept_fall(place, values[row, column], last, offset):
                    kept[row, column] = Quality.ABSENT
            good = kept[row] <= Quality.UNCERTAIN
            at = places[good]
            last[at] = values[row, good]
            self._raw.seen[at] = True
            self._raw.lost[at] = False
            readings[row, good] = values[row, good] + offset[at]
        return readings, kept

    def _falls(
        self, places: NDArray[np.int32], row: Values, usable: Flags, last: Values
    ) -> NDArray[np.intp]:
        return np.flatnonzero(usable & self._raw.seen[places] & (row < last[places]))

    def _accept_fall(self, place: int, raw: Any, last: Values, offset: Values) -> bool:
        """Take a fallen reading as a rollover or a confirmed reset; else hold it back."""
        modulus = self._modulus[place]
        if modulus and last[place] > _NEAR_TOP * modulus and raw < _NEAR_ZERO * modulus:
            offset[place] += modulus if offset.dtype.kind == "f" else int(modulus)
            return True
        if not self._raw.lost[place] or raw <= 0:
            self._raw.lost[place] = True
            return False
        offset[place] += last[place] - raw if self._rebase[place] else last[place]
        return True

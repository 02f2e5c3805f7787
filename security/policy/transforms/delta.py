"""`delta`: what a counter rose by in the slot.

The cumulative reading is unwrapped, rounded on its exact decimal grid (half to even), and the
last committed rounded reading is subtracted; so the sum of all deltas is exactly the last rounded
reading minus the first. A reading exactly on a boundary closes the slot that ends there.

A slot in which a polled counter was not read, or not near its end, has no value; nor has one at
whose end contact with a subscribed counter was lost. The next one that has a value says over how
many slots it counts. A fall of the reading is a rollover when it falls from the last tenth
of the range to the first. One by less than a tenth is noise, and held back until the reading is
above where it was. Any other is held back until a second reading, not 0, confirms it, and then it is
a reset. (Meters that lose their link often read 0 and then go on as before.)
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocols.batch import GOOD, LARGEST_MANTISSA, NO_VALUE, UNCERTAIN
from protocols.frame import Bytes, Flags, Ints, Quality, Values
from security.policy import account, lane
from security.policy.latest import Cells, Latest
from security.policy.rounding import round_values
from security.policy.rows import Row, Samples

_LARGEST_MODULUS: Final = 1 << 62
_BAD: Final = int(Quality.BAD)


class Lane(lane.Lane):
    """Differences of cumulative readings."""

    closing_edge = True
    memory_per_point = 224
    at_once = 64

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._latest = Latest(self.size)
        # The newest reading as the device gave it; `lost` marks a fall that waits for a second one.
        self._raw = Cells.none(self.size)
        self._offset = Cells.none(self.size)
        # The last committed rounded reading, and the slot it closed.
        self._base = Cells.none(self.size)
        points = [self._point(at) for at in range(self.size)]
        self._modulus = [modulus for _, modulus in points]
        self._rebase = [policy == "rebase" for policy, _ in points]

    def _point(self, at: int) -> tuple[str, int | float]:
        """Return what a fall means, and where the counter starts again from 0; 0 is never."""
        column = self.columns[at]
        if column < 0:
            return "from_zero", 0
        on_reset, modulus = self.table.points[column].counter.on_reset, self.table.modulus[column]
        if not self.integer[at]:
            return on_reset, float(modulus)
        exact = modulus == Decimal(int(modulus)) and modulus <= _LARGEST_MODULUS
        return on_reset, int(modulus) if exact else 0

    def take(self, samples: Samples) -> Flags | None:
        """Unwrap the readings and keep the newest of each slot."""
        readings, kept = self._unwrap(samples)
        if kept is samples.quality:
            self._latest.take(samples._replace(values=readings))
            return None
        dropped: Flags = kept != samples.quality
        self.account.dropped[account.UNCONFIRMED] += int(np.count_nonzero(dropped))
        self._latest.take(samples._replace(values=readings, quality=kept, clean=False))
        return dropped

    def close_slot(self, slot: int) -> Row:
        """Subtract the last committed reading."""
        (row,) = self.close_run([slot])
        return row

    def close_run(self, slots: Sequence[int]) -> list[Row]:
        """Subtract from each reading the last committed one."""
        run = np.array(slots, np.int64)
        cells, inside, fresh = self._latest.close(slots, self.ends_of(run), self.hold_ns)
        if self.hold_ns is not None:
            # A polled counter may have risen since it was read: no reading, no rise of 0.
            fresh &= inside
        rounded, fits = round_values(
            self.integer,
            cells.value,
            cells.real,
            self.exponents,
            self.grid,
            self.step,
            self.factor,
        )
        usable = fresh & fits
        before, since, known = self._bases(run, rounded, usable)
        rise = rounded - before
        # Beyond these bounds the sealed side would stop; such a reading is a new baseline.
        valid = usable & known & (rise >= 0) & (rise <= LARGEST_MANTISSA)
        mantissa = np.where(valid, rise, 0)
        spans = np.where(valid, run[:, None] - since, 1)
        quality = np.where(valid, np.where(cells.quality > 0, UNCERTAIN, GOOD), NO_VALUE)
        columns = mantissa, quality.astype(np.uint8), spans
        return [Row(*row) for row in zip(slots, *columns, strict=True)]

    def _bases(self, run: Ints, rounded: Ints, usable: Flags) -> tuple[Ints, Ints, Flags]:
        """Return what each slot's readings count from, and make the newest of them the base.

        Args:
            run: shape (k,), the slots.
            rounded, usable: shape (k, p), their readings, and which of them there are.

        Returns:
            the last reading before, the slot that it closed, and whether there is one; shape (k, p).
        """
        base = self._base
        readings = np.concatenate([base.value[None], rounded])
        closed = np.append(0, run)
        # By slot, the row of the newest reading; row 0 is what was before all of them.
        newest = np.zeros(readings.shape, np.intp)
        np.multiply(usable, np.arange(1, len(readings))[:, None], out=newest[1:])
        np.maximum.accumulate(newest, axis=0, out=newest)
        before, last = newest[:-1], newest[-1]
        value = np.take_along_axis(readings, before, axis=0)
        since = np.where(before > 0, closed[before], base.time)
        known = base.seen | (before > 0)
        risen = np.flatnonzero(last)
        base.value[risen] = readings[last[risen], risen]
        base.time[risen] = closed[last[risen]]
        base.seen[risen] = True
        return value, since, known

    def open_slots(self) -> list[int]:
        """Return the slots that hold something."""
        return list(self._latest.slots)

    def forget_open(self) -> None:
        """Drop what open slots hold; the next reading goes on from the last committed one."""
        self._latest.slots.clear()
        self._latest.held.lost[:] = True

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
        self._latest.load(state["latest"], new, old, self.hold_ns)
        self._raw.load(state["raw"], new, old)
        self._offset.load(state["offset"], new, old)
        self._base.load(state["base"], new, old)

    def _unwrap(self, samples: Samples) -> tuple[Values, Bytes]:
        """Return cumulative readings that never fall, and the quality without held-back ones."""
        places, values, quality = samples.places, samples.values, samples.quality
        whole = values.dtype.kind == "i"
        last: Values = self._raw.value if whole else self._raw.real
        offset: Values = self._offset.value if whole else self._offset.real
        usable: Flags = quality < _BAD
        lowest = np.iinfo(np.int64).min if whole else -np.inf
        highest = np.empty((len(values) + 1, len(places)), values.dtype)
        highest[0] = np.where(self._raw.seen[places], last[places], lowest)
        highest[1:] = values if samples.clean else np.where(usable, values, lowest)
        np.maximum.accumulate(highest, axis=0, out=highest)
        readings = values + offset[places]
        falls = usable & (values < highest[1:])
        given: Flags = np.logical_or.reduce(usable, axis=0)
        if falls.any():
            fallen = np.flatnonzero(falls.any(axis=0))
            given[fallen] = False
            quality = quality.copy()
            for at in fallen.tolist():
                place = int(places[at])
                self._follow(place, usable[:, at], values[:, at], readings[:, at], quality[:, at])
        chosen = places[given]
        last[chosen] = highest[-1, given]
        self._raw.seen[chosen] = True
        self._raw.lost[chosen] = False
        return readings, quality

    def _follow(
        self, place: int, usable: Flags, values: Values, readings: Values, quality: Bytes
    ) -> None:
        """Unwrap one point whose reading falls, sample by sample; all arrays have shape (r,)."""
        raw = self._raw
        last: Values = raw.value if values.dtype.kind == "i" else raw.real
        offset: Values = self._offset.value if values.dtype.kind == "i" else self._offset.real
        for row in np.flatnonzero(usable).tolist():
            value, before = values[row].item(), last[place].item()
            if raw.seen[place] and value < before:
                if 10 * value > 9 * before:
                    quality[row] = Quality.ABSENT
                    continue
                rise = self._rise_of_fall(place, value, before)
                raw.lost[place] = rise is None
                if rise is None:
                    quality[row] = Quality.ABSENT
                    continue
                offset[place] += rise
            last[place] = value
            raw.seen[place] = True
            raw.lost[place] = False
            readings[row] = value + offset[place]

    def _rise_of_fall(self, place: int, value: Any, last: Any) -> Any:
        """Return what to add to all readings from a fallen one on; None holds it back."""
        modulus = self._modulus[place]
        if modulus and 10 * last > 9 * modulus and 0 <= 10 * value < modulus:
            return modulus
        if not self._raw.lost[place] or value <= 0:
            return None
        return last - value if self._rebase[place] else last

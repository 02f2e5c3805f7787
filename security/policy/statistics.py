"""What `sum`, `mean`, `min` and `max` have in common: tallies of all samples of a slot.

Every sample of a slot counts once. Of a subscribed point, the value that still holds when a slot begins
counts as one more sample, but not for a sum. Nothing is computed from fewer samples than the rule
asks for.
"""

from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from protocols.batch import GOOD, LARGEST_MANTISSA, NO_VALUE, UNCERTAIN
from protocols.frame import Flags, Floats, Ints, Quality, Values
from protocols.points import PointTable
from security.policy import lane
from security.policy.compiled import Rule
from security.policy.latest import Cells, Latest
from security.policy.rounding import round_means
from security.policy.rows import Row, Samples, row_of
from security.policy.scales import Scales
from security.policy.transforms.generalise import Bands
from security.policy.transforms.minimum import Minimum

_BAD: Final = int(Quality.BAD)
_ABSENT: Final = int(Quality.ABSENT)
_LOW_BITS: Final = (1 << 32) - 1
_FINER: Final = 6


class Tally:
    """The samples of one slot, arrays of shape (p,).

    Attributes:
        high, low: of integers: their sum is high x 2**32 + low; or, for an extreme, `high` is it.
        real: of floats: their extreme.
        count: how many usable ones there are.
        uncertain: whether one of them was uncertain.
        broken: whether something is known to be missing.
    """

    __slots__ = ("broken", "count", "high", "low", "real", "uncertain")
    _LAYOUT: Final = (
        ("high", "<i8"),
        ("low", "<i8"),
        ("real", "<f8"),
        ("count", "<i8"),
        ("uncertain", "?"),
        ("broken", "?"),
    )

    def __init__(self, size: int) -> None:
        self.high: Ints = np.zeros(size, np.int64)
        self.low: Ints = np.zeros(size, np.int64)
        self.real: Floats = np.zeros(size, np.float64)
        self.count: Ints = np.zeros(size, np.int64)
        self.uncertain: Flags = np.zeros(size, np.bool_)
        self.broken: Flags = np.zeros(size, np.bool_)

    def dump(self) -> dict[str, bytes]:
        """Return the arrays as bytes."""
        return {name: getattr(self, name).astype(kind).tobytes() for name, kind in self._LAYOUT}

    def load(self, data: dict[str, bytes], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take positions `old` of dumped arrays to positions `new`."""
        for name, kind in self._LAYOUT:
            getattr(self, name)[new] = np.frombuffer(data[name], kind)[old]


class Lane(lane.Lane):
    """Base of statistics over all samples of a slot.

    Attributes:
        carries: whether a value that still holds at the start of a slot counts in it.
        whole_only: whether a slot of which something is missing has no value at all.
    """

    memory_per_point = 256
    memory_per_slot = 48
    carries: ClassVar[bool] = True
    whole_only: ClassVar[bool] = False

    def __init__(self, table: PointTable, rules: Sequence[Rule], *args: Any, **more: Any) -> None:
        super().__init__(table, rules, *args, **more)
        self.tallies: dict[int, Tally] = {}
        self._minimum = Minimum(rules)
        # After a crash: samples are missing up to the first one that comes again.
        self._pending: Flags = np.zeros(self.size, np.bool_)
        # The newest slot that a sample of each point lay in by its own time.
        self._inside: Ints = np.full(self.size, -1, np.int64)
        # By open slot, what came late and holds when it begins; a crash loses it with the rest.
        self._late: dict[int, Cells] = {}
        subscribed = self.hold_ns is None and self.carries
        self._latest = Latest(self.size) if subscribed else None

    # What a statistic fills in.

    @abstractmethod
    def fold(self, tally: Tally, places: NDArray[np.int32], values: Values, usable: Flags) -> Flags:
        """Add usable samples, shape (r, c), of a slot; `count` is still as it was before them.

        Returns:
            which of them were added.
        """

    @abstractmethod
    def result(self, slot: int, tally: Tally, valid: Flags) -> tuple[Ints, Flags]:
        """Return what leaves of each point, shape (p,), and which of it may."""

    # What all share.

    def take(self, samples: Samples) -> None:
        """Add samples to the tallies of their slots."""
        if self._latest is not None:
            self._latest.take(samples)
            samples = self._without_late(samples)
        self._tally_all(samples, late=False)

    def _without_late(self, samples: Samples) -> Samples:
        """Set aside the newest late sample of each point, as what holds when its slot begins.

        Late ones before that one had ended when the slot began, so they count nowhere.
        """
        places, cursor, given = samples.places, self.cursor or 0, samples.given
        own = np.broadcast_to(self.slot_of(samples.time), given.shape)
        own = np.where(given < _ABSENT, own, -1)
        reached = np.maximum.accumulate(np.maximum(own, self._inside[places]), axis=0)
        self._inside[places] = reached[-1]
        # What fills a slot that was missing holds on as well.
        late = (given < _BAD) & (reached < cursor)
        if not late.any():
            return samples
        slots = np.maximum(np.broadcast_to(samples.slots, late.shape), cursor)
        mixed = samples._replace(clean=False)
        for slot in np.unique(slots[late]).tolist():
            here = late & (slots == slot)
            self._late.setdefault(slot, Cells.none(self.size)).put(
                mixed._replace(quality=given), here
            )
            came = places[here.any(axis=0)]
            self._tally(slot).broken[came] |= self._pending[came]
            self._pending[came] = False
        return mixed._replace(quality=np.where(late, np.uint8(_ABSENT), samples.quality))

    def _tally(self, slot: int) -> Tally:
        found = self.tallies.get(slot)
        if found is None:
            found = self.tallies[slot] = Tally(self.size)
        return found

    def refill(self, samples: Samples) -> None:
        """Add late samples to the tally of their closed slot."""
        self._tally_all(samples, late=True)

    def _tally_all(self, samples: Samples, *, late: bool) -> None:
        present = samples.quality != _ABSENT
        if samples.slot is not None:
            if samples.clean or bool(present.any()):
                self._add(samples.slot, samples, present, late=late)
            return
        slots = np.broadcast_to(samples.slots, samples.quality.shape)
        for slot in np.unique(slots[present]).tolist():
            self._add(slot, samples, present & (slots == slot), late=late)

    def _add(self, slot: int, samples: Samples, inside: Flags, *, late: bool) -> None:
        tally = self._tally(slot)
        places, quality = samples.places, samples.quality
        used = self.fold(tally, places, samples.values, inside & (quality < _BAD))
        count = np.count_nonzero(used, axis=0)
        tally.count[places] += count
        if not samples.clean or quality.any() or bool((count < len(quality)).any()):
            tally.uncertain[places] |= (used & (quality > 0)).any(axis=0)
            tally.broken[places] |= (inside & ~used).any(axis=0)
        if not late and self._pending.any():
            came = places[inside.any(axis=0)]
            tally.broken[came] |= self._pending[came]
            self._pending[came] = False

    def close_slot(self, slot: int) -> Row:
        """Compute the statistic of all samples of the slot."""
        tally = self.tallies.pop(slot, None) or Tally(self.size)
        if self._latest is not None:
            held = self._latest.held
            late = self._late.pop(slot, None) or Cells.none(self.size)
            self._carry(tally, held, held.seen & ~held.lost & ~late.seen)
            self._carry(tally, late, late.seen)
            self._latest.close([slot], np.array([self.end_of(slot)]), self.hold_ns)
        tally.broken |= self._pending
        return self._row(slot, tally)

    def fill_slot(self, slot: int) -> Row | None:
        """Compute the statistic of the late samples of a closed slot."""
        tally = self.tallies.pop(slot, None)
        return None if tally is None else self._row(slot, tally)

    def _carry(self, tally: Tally, held: Cells, good: Flags) -> None:
        """Count what holds when the slot begins as one more sample, where it is good."""
        for whole, values in ((True, held.value), (False, held.real)):
            places = np.flatnonzero(good & (self.integer == whole)).astype(np.int32)
            if len(places):
                used = self.fold(
                    tally, places, values[places][None], np.ones((1, len(places)), np.bool_)
                )
                tally.count[places] += used[0]
                tally.uncertain[places] |= held.quality[places] > 0
                tally.broken[places] |= ~used[0]

    def _row(self, slot: int, tally: Tally) -> Row:
        valid = self._minimum.enough(tally.count)
        if self.whole_only:
            valid &= ~tally.broken
        mantissa, valid = self.result(slot, tally, valid)
        uncertain = tally.uncertain | tally.broken
        quality = np.where(valid, np.where(uncertain, UNCERTAIN, GOOD), NO_VALUE).astype(np.uint8)
        return row_of(slot, mantissa, quality)

    def open_slots(self) -> list[int]:
        """Return the slots that hold something."""
        return list(self.tallies)

    def forget_open(self) -> None:
        """Drop what open slots hold; the samples that come now do not make them whole again."""
        self.tallies.clear()
        self._late.clear()
        self._pending[:] = True
        if self._latest is not None:
            self._latest = Latest(self.size)

    def arrays(self) -> dict[str, Any]:
        """Return the lane's state."""
        return {
            "tallies": [[slot, tally.dump()] for slot, tally in sorted(self.tallies.items())],
            "pending": self._pending.tobytes(),
            "latest": [] if self._latest is None else self._latest.dump(),
        }

    def load(self, state: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take over state."""
        for slot, dumped in state["tallies"]:
            tally = self.tallies[slot] = Tally(self.size)
            tally.load(dumped, new, old)
        if self._latest is not None and state["latest"]:
            self._latest.load(state["latest"], new, old, self.hold_ns)

    def restore(self, memory: dict[str, Any]) -> None:
        """Take over memory; what came between it and now is missing."""
        super().restore(memory)
        self._pending[:] = True


class Extreme(Lane):
    """The lowest or the highest sample of a slot.

    Attributes:
        pick: of two samples, the one that counts.
        none: what any sample replaces, for integers and for floats.
    """

    pick: ClassVar[np.ufunc]
    none: ClassVar[tuple[int, float]]

    def fold(self, tally: Tally, places: NDArray[np.int32], values: Values, usable: Flags) -> Flags:
        """Keep the extreme of all usable samples."""
        whole = values.dtype.kind == "i"
        none = self.none[0] if whole else self.none[1]
        kept: Values = tally.high if whole else tally.real
        found = self.pick.reduce(np.where(usable, values, none), axis=0)
        before = np.where(tally.count[places] > 0, kept[places], none)
        kept[places] = self.pick(before, found)
        return usable

    def result(self, slot: int, tally: Tally, valid: Flags) -> tuple[Ints, Flags]:
        """Round the extreme."""
        return self._leaving(np.array(slot), tally.high, tally.real, valid)


class Total(Lane):
    """Sums, exact: in 128 bits, from integers.

    Of float points, each sample is first rounded to a millionth of the last place of the grid, so that
    a sum does not depend on the order or the grouping of its samples.
    """

    def __init__(self, table: PointTable, rules: Sequence[Rule], *args: Any, **more: Any) -> None:
        super().__init__(table, rules, *args, **more)
        grid = np.array([r.bands_exponent if r.bands else r.exponent for r in rules], np.int64)
        own, scales = grid - _FINER, self.scales
        self._fine: Floats = np.array(
            [
                float(int(factor) * Fraction(10) ** int(exponent - fine))
                for factor, exponent, fine in zip(scales.factor, scales.exponent, own, strict=True)
            ],
            np.float64,
        )
        self._total_scales = Scales(
            np.ones(self.size, np.bool_),
            np.where(scales.integer, scales.factor, 1),
            np.where(scales.integer, scales.exponent, own),
        )
        self._total_bands = Bands(self._total_scales, rules)

    def fold(self, tally: Tally, places: NDArray[np.int32], values: Values, usable: Flags) -> Flags:
        """Add the usable samples up."""
        if values.dtype.kind != "i":
            scaled = np.rint(np.where(usable, values, 0.0) * self._fine[places])
            usable = usable & (np.abs(scaled) <= LARGEST_MANTISSA)
            values = np.where(usable, scaled, 0.0).astype(np.int64)
        elif not usable.all():
            values = np.where(usable, values, 0)
        tally.high[places] += (values >> 32).sum(axis=0)
        tally.low[places] += (values & _LOW_BITS).sum(axis=0)
        return usable

    def total(self, tally: Tally, count: Ints, valid: Flags) -> tuple[Ints, Flags]:
        """Return the rounded sum, or its band, divided by counts above 0."""
        high, low = tally.high + (tally.low >> 32), tally.low & _LOW_BITS
        scales = self._total_scales
        mantissa, fits = round_means(
            high, low, count, scales.exponent, self.grid, self.step, scales.factor
        )
        bands = self._total_bands
        if len(bands.at):
            mantissa[bands.at] = bands.of_means(high, low, count)
            fits[bands.at] = True
        return mantissa, valid & fits

"""The newest sample of each point of a lane: per open slot, and as of the last closed one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocols.frame import Bytes, Flags, Floats, Ints, Quality, Values
from security.policy.rows import Samples

Arrays = dict[str, bytes]
_LAYOUT: Final = (
    ("value", np.dtype("<i8")),
    ("real", np.dtype("<f8")),
    ("time", np.dtype("<i8")),
    ("quality", np.dtype("u1")),
    ("seen", np.dtype("?")),
    ("lost", np.dtype("?")),
)
# Members of an enum are slow to look up.
_BAD: Final = int(Quality.BAD)
_ABSENT: Final = int(Quality.ABSENT)


@dataclass(slots=True, eq=False)
class Cells:
    """The newest sample of each point: arrays of shape (p,), or (k, p) for that of k slots.

    Attributes:
        value, real: the reading, for integer and for float points.
        time: its time, ns.
        quality: GOOD or UNCERTAIN.
        seen: whether there is one.
        lost: whether contact was lost, or the device gave no usable value, after it.
    """

    value: Ints
    real: Floats
    time: Ints
    quality: Bytes
    seen: Flags
    lost: Flags

    @staticmethod
    def none(*shape: int) -> "Cells":
        """Return cells without any sample."""
        return Cells(*(np.zeros(shape, dtype) for _, dtype in _LAYOUT))

    @staticmethod
    def stacked(parts: "Sequence[Cells]") -> "Cells":
        """Return copies of k cells as rows of shape (k, p)."""
        return Cells(*(np.stack([getattr(one, name) for one in parts]) for name, _ in _LAYOUT))

    def rows(self) -> "list[Cells]":
        """Return cells of shape (k, p) one by one; they share their arrays."""
        arrays = (getattr(self, name) for name, _ in _LAYOUT)
        return [Cells(*row) for row in zip(*arrays, strict=True)]

    def copy(self) -> "Cells":
        """Return cells with arrays of their own."""
        return Cells(*(getattr(self, name).copy() for name, _ in _LAYOUT))

    def put(self, samples: Samples, inside: Flags | None = None) -> None:
        """Take samples, oldest row first; ABSENT changes nothing.

        What comes last is newest: devices keep their order, but not always their clocks.

        Args:
            samples: of shape (r, c).
            inside: shape (r, c), which of them to take; None takes all.
        """
        places, time, quality = samples.places, samples.time, samples.quality
        if samples.clean and inside is None:
            self.put_usable(places, time[-1], samples.values[-1], quality[-1])
            return
        usable, gone = quality < _BAD, (quality >= _BAD) & (quality != _ABSENT)
        if inside is not None:
            usable, gone = usable & inside, gone & inside
        newest, end = _last_row(usable), _last_row(gone)
        column = np.flatnonzero(newest >= 0)
        row = newest[column]
        times = np.broadcast_to(time, quality.shape)[row, column]
        self._set(places[column], times, samples.values[row, column], quality[row, column])
        self.lost[places] = np.where(newest >= 0, end > newest, self.lost[places] | (end >= 0))

    def put_usable(
        self, places: NDArray[np.int32], time: Ints, values: Values, quality: Bytes
    ) -> None:
        """Take one usable sample of each place, in each row."""
        self._set(places, time, values, quality)
        self.lost[..., places] = False

    def _set(self, at: NDArray[np.int32], time: Ints, values: Values, quality: Bytes) -> None:
        target: Values = self.value if values.dtype.kind == "i" else self.real
        target[..., at] = values
        self.time[..., at] = time
        self.quality[..., at] = quality
        self.seen[..., at] = True

    def fill_from(self, earlier: "Cells") -> None:
        """Take over what `earlier` has of the points without a sample here."""
        if self.seen.all():
            return
        at = ~self.seen
        for name in ("value", "real", "time", "quality"):
            getattr(self, name)[at] = getattr(earlier, name)[at]
        self.lost |= at & earlier.lost
        self.seen |= earlier.seen

    def dump(self) -> Arrays:
        """Return the arrays as bytes."""
        return {name: getattr(self, name).astype(dtype).tobytes() for name, dtype in _LAYOUT}

    def load(self, data: Arrays, new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take positions `old` of dumped arrays to positions `new`."""
        for name, dtype in _LAYOUT:
            getattr(self, name)[new] = np.frombuffer(data[name], dtype)[old]


class Latest:
    """The newest sample of each point, per open slot, and as of the last closed slot.

    Attributes:
        held: as of the end of the last closed slot.
        slots: the open slots.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.held = Cells.none(size)
        self.slots: dict[int, Cells] = {}

    def take(self, samples: Samples) -> None:
        """Put samples into their slots."""
        if samples.slot is not None:
            if samples.clean or bool((samples.quality != _ABSENT).any()):
                self._cells(samples.slot).put(samples)
            return
        of_rows = samples.slots[:, 0]
        if samples.clean and bool((samples.slots == of_rows[:, None]).all()):
            self._take_rows(samples, of_rows)
            return
        slots = np.broadcast_to(samples.slots, samples.quality.shape)
        for slot in np.unique(slots[samples.quality != _ABSENT]).tolist():
            self._cells(slot).put(samples, slots == slot)

    def _take_rows(self, samples: Samples, slots: Ints) -> None:
        """Put usable samples, each row of one slot, into them; slots are of shape (r,), ascending."""
        last = np.append(slots[1:] != slots[:-1], np.True_)
        new = last & ~np.isin(slots, list(self.slots))
        for row in np.flatnonzero(last & ~new).tolist():
            self._cells(int(slots[row])).put_usable(*_part(samples, row))
        stack = Cells.none(int(np.count_nonzero(new)), self.size)
        stack.put_usable(*_part(samples, new))
        self.slots.update(zip(slots[new].tolist(), stack.rows(), strict=True))

    def _cells(self, slot: int) -> Cells:
        found = self.slots.get(slot)
        if found is None:
            found = self.slots[slot] = Cells.none(self.size)
        return found

    def close(
        self, slots: Sequence[int], ends_ns: Ints, hold_ns: int | None
    ) -> tuple[Cells, Flags, Flags]:
        """Close k slots, one after the other; `ends_ns` is of shape (k,).

        Returns:
            the newest samples as of each slot's end (valid where `seen` was ever set), which points
            had a sample in this very slot, and for which the value still holds at the slot's end;
            all of shape (k, p).
        """
        parts = [self._cells(slot) for slot in slots]
        for slot in slots:
            del self.slots[slot]
        inside = np.stack([part.seen for part in parts])
        for earlier, part in pairwise([self.held, *parts]):
            part.fill_from(earlier)
        # The rows of one frame lie in arrays that all of its slots share: those are to go.
        self.held = parts[-1].copy()
        cells = Cells.stacked(parts)
        fresh = cells.seen & ~cells.lost
        if hold_ns is not None:
            fresh &= ends_ns[:, None] - cells.time <= hold_ns
        return cells, inside, fresh

    def dump(self) -> dict[str, Any]:
        """Return the arrays as CBOR-able data."""
        slots = [[slot, cells.dump()] for slot, cells in sorted(self.slots.items())]
        return {"held": self.held.dump(), "slots": slots}

    def load(
        self,
        data: dict[str, Any],
        new: NDArray[np.intp],
        old: NDArray[np.intp],
        hold_ns: int | None,
    ) -> None:
        """Take over what `dump` gave.

        A value that holds until contact is lost holds no longer: nobody watched since.
        """
        self.held.load(data["held"], new, old)
        for slot, dumped in data["slots"]:
            self._cells(slot).load(dumped, new, old)
        if hold_ns is None:
            for cells in (self.held, *self.slots.values()):
                cells.lost[new] = True


def _part(samples: Samples, rows: "int | Flags") -> tuple[NDArray[np.int32], Ints, Values, Bytes]:
    """Return what `put_usable` takes of one or more rows."""
    return samples.places, samples.time[rows], samples.values[rows], samples.quality[rows]


def _last_row(chosen: Flags) -> NDArray[np.intp]:
    """Return the last row where each column is chosen, shape (c,); -1 where none is."""
    row: NDArray[np.intp] = len(chosen) - 1 - np.argmax(chosen[::-1], axis=0)
    return np.where(chosen.any(axis=0), row, -1)

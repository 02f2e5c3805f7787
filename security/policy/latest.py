"""The newest sample of each point of a lane: per open slot, and as of the last closed one."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocols.frame import Bytes, Flags, Floats, Ints, Quality, Values
from security.policy.rows import Samples

Arrays = dict[str, bytes]
# Members of an enum are slow to look up.
_BAD: Final = int(Quality.BAD)
_ABSENT: Final = int(Quality.ABSENT)


class Cells:
    """The newest sample of each point, arrays of shape (p,).

    Attributes:
        value, real: the reading, for integer and for float points.
        time: its time, ns.
        quality: GOOD or UNCERTAIN.
        seen: whether there is one.
        lost: whether contact was lost, or the device gave no usable value, after it.
    """

    __slots__ = ("lost", "quality", "real", "seen", "time", "value")
    _LAYOUT: Final = (
        ("value", np.dtype("<i8")),
        ("real", np.dtype("<f8")),
        ("time", np.dtype("<i8")),
        ("quality", np.dtype("u1")),
        ("seen", np.dtype("?")),
        ("lost", np.dtype("?")),
    )

    def __init__(self, size: int) -> None:
        self.value: Ints = np.zeros(size, np.int64)
        self.real: Floats = np.zeros(size, np.float64)
        self.time: Ints = np.zeros(size, np.int64)
        self.quality: Bytes = np.zeros(size, np.uint8)
        self.seen: Flags = np.zeros(size, np.bool_)
        self.lost: Flags = np.zeros(size, np.bool_)

    def put(self, samples: Samples, inside: Flags | None = None) -> None:
        """Take samples, oldest row first; ABSENT changes nothing.

        What comes last is newest: devices keep their order, but not always their clocks.

        Args:
            samples: of shape (r, c).
            inside: shape (r, c), which of them to take; None takes all.
        """
        places, time, quality = samples.places, samples.time, samples.quality
        if samples.clean and inside is None:
            self._set(places, time[-1], samples.values[-1], quality[-1])
            self.lost[places] = False
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

    def _set(self, at: NDArray[np.int32], time: Ints, values: Values, quality: Bytes) -> None:
        target: Values = self.value if values.dtype.kind == "i" else self.real
        target[at] = values
        self.time[at] = time
        self.quality[at] = quality
        self.seen[at] = True

    def merge(self, later: "Cells") -> None:
        """Take over everything that `later` has."""
        at = later.seen
        for name in ("value", "real", "time", "quality"):
            getattr(self, name)[at] = getattr(later, name)[at]
        self.lost = np.where(at, later.lost, self.lost | later.lost)
        self.seen |= at

    def dump(self) -> Arrays:
        """Return the arrays as bytes."""
        return {name: getattr(self, name).astype(dtype).tobytes() for name, dtype in self._LAYOUT}

    def load(self, data: Arrays, new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take positions `old` of dumped arrays to positions `new`."""
        for name, dtype in self._LAYOUT:
            getattr(self, name)[new] = np.frombuffer(data[name], dtype)[old]


class Latest:
    """The newest sample of each point, per open slot, and as of the last closed slot.

    Attributes:
        held: as of the end of the last closed slot.
        slots: the open slots.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.held = Cells(size)
        self.slots: dict[int, Cells] = {}

    def take(self, samples: Samples) -> None:
        """Put samples into their slots."""
        if samples.slot is not None:
            if samples.clean or bool((samples.quality != _ABSENT).any()):
                self._cells(samples.slot).put(samples)
            return
        slots = np.broadcast_to(samples.slots, samples.quality.shape)
        for slot in np.unique(slots[samples.quality != _ABSENT]).tolist():
            self._cells(slot).put(samples, slots == slot)

    def _cells(self, slot: int) -> Cells:
        found = self.slots.get(slot)
        if found is None:
            found = self.slots[slot] = Cells(self.size)
        return found

    def close(self, slot: int, end_ns: int, hold_ns: int | None) -> tuple[Cells, Flags, Flags]:
        """Close a slot.

        Returns:
            the newest samples (valid where `seen` was ever set), which points had a sample in
            this very slot, and for which the value still holds at the slot's end.
        """
        cells = self.slots.pop(slot, None)
        inside = cells.seen if cells is not None else np.zeros(self.size, np.bool_)
        if cells is not None:
            self.held.merge(cells)
        fresh = self.held.seen & ~self.held.lost
        if hold_ns is not None:
            fresh &= end_ns - self.held.time <= hold_ns
        return self.held, inside, fresh

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


def _last_row(chosen: Flags) -> NDArray[np.intp]:
    """Return the last row where each column is chosen, shape (c,); -1 where none is."""
    row: NDArray[np.intp] = len(chosen) - 1 - np.argmax(chosen[::-1], axis=0)
    return np.where(chosen.any(axis=0), row, -1)

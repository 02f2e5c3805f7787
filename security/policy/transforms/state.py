"""`state`: seconds in each operating state in the slot, and the state at its end.

Each point fills nine numbers: the operating state's code just before the slot's end, then the
seconds in states 1 to 8. What is missing to the length of the slot is UNKNOWN: lost contact, codes
that the state model does not list, and time without a sample beyond the holding time.

The instants of change are rounded to the grid, not the durations, so that they always add up.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocols.batch import GOOD, NO_VALUE, UNCERTAIN
from protocols.frame import SECOND, Bytes, Flags, Ints, Quality, Values
from protocols.points import PointTable
from protocols.vocabulary.states import (
    LARGEST_CODE,
    STATE_MODELS,
    OperatingState,
    lookup_table,
)
from security.policy import lane
from security.policy.compiled import Rule
from security.policy.rounding import round_times
from security.policy.rows import Row, Samples
from security.policy.words import STATE_NUMBERS

_UNKNOWN: Final = int(OperatingState.UNKNOWN)
_STATES: Final = STATE_NUMBERS - 1
_MOST_CHANGES: Final = 4096
_NO_TIME: Final = -1
_NO_CODE: Final = -1
_BAD: Final = int(Quality.BAD)
_ABSENT: Final = int(Quality.ABSENT)


class Lane(lane.Lane):
    """Durations in states."""

    numbers_per_point = STATE_NUMBERS

    def __init__(self, table: PointTable, rules: Sequence[Rule], *args: Any, **more: Any) -> None:
        super().__init__(table, rules, *args, **more)
        self._models = np.stack([_model(rule.state_model) for rule in rules])
        self._grid_ns = np.array(
            [int(s) * SECOND // 10 ** int(-g) for s, g in zip(self.step, self.grid, strict=True)],
            np.int64,
        )
        # The state at the start of the oldest open slot, and the newest one.
        self._start: Bytes = np.zeros(self.size, np.uint8)
        self._newest: Bytes = np.zeros(self.size, np.uint8)
        self._sampled: Ints = np.full(self.size, _NO_TIME, np.int64)
        self._changed: Ints = np.zeros(self.size, np.int64)
        self._changes: list[tuple[int, int, int]] = []  # (time, place, state), in order by place

    def take(self, samples: Samples) -> None:
        """Note the changes of state; only they cost something."""
        places, quality = samples.places, samples.quality
        cursor_ns = (self.cursor or 0) * self.window_ns
        # Row 0 is what was before the frame; row i + 1 is row i of the frame.
        times = np.empty((len(quality) + 1, len(places)), np.int64)
        times[0], times[1:] = self._sampled[places], np.maximum(samples.time, cursor_ns)
        states = np.empty(times.shape, np.uint8)
        states[0], states[1:] = self._newest[places], self._operating(samples)
        present: Flags = quality != _ABSENT
        before, newest = _rows_before(present)
        columns = np.arange(len(places))
        was, since = states[before, columns], times[before, columns]
        expired = present & self._expired(was, times[1:] - since)
        for row, at in np.argwhere(expired | (present & (states[1:] != was))).tolist():
            place, state = int(places[at]), int(states[row + 1, at])
            if expired[row, at]:
                self._change(int(since[row, at]) + (self.hold_ns or 0), place, _UNKNOWN)
            if state != self._newest[place]:
                self._change(int(times[row + 1, at]), place, state)
        self._sampled[places] = times[newest, columns]

    def close_slot(self, slot: int) -> Row:
        """Add up the seconds."""
        start, end = slot * self.window_ns, self.end_of(slot)
        self._expire(end)
        due = [change for change in self._changes if change[0] < end]
        self._changes = [change for change in self._changes if change[0] >= end]
        nanoseconds = np.zeros((self.size, _STATES + 1), np.int64)
        since = np.full(self.size, start, np.int64)
        state = self._start
        times = np.array([time for time, _, _ in due], np.int64)
        moments = round_times(times, self._grid_ns[[place for _, place, _ in due]])
        for moment, (_, place, new) in zip(moments.tolist(), due, strict=True):
            at = min(max(moment, int(since[place])), end)
            nanoseconds[place, state[place]] += at - since[place]
            since[place] = at
            state[place] = new
        nanoseconds[np.arange(self.size), state] += end - since
        return self._row(slot, nanoseconds, state)

    def open_slots(self) -> list[int]:
        """Return the slots that hold something."""
        slots = {time // self.window_ns for time, _, _ in self._changes}
        if bool((self._newest != _UNKNOWN).any()) and self.cursor is not None:
            slots.add(self.cursor)
        return sorted(slots)

    def forget_open(self) -> None:
        """Drop what open slots hold: every state is unknown until the next sample."""
        self._changes = []
        self._start[:] = _UNKNOWN
        self._newest[:] = _UNKNOWN

    def arrays(self) -> dict[str, Any]:
        """Return the lane's state."""
        times, places, states = (
            np.array([change[part] for change in self._changes], dtype)
            for part, dtype in enumerate(("<i8", "<u4", "u1"))
        )
        return {
            "start": self._start.tobytes(),
            "newest": self._newest.tobytes(),
            "sampled": self._sampled.astype("<i8").tobytes(),
            "changes": [times.tobytes(), places.tobytes(), states.tobytes()],
        }

    def load(self, state: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take over state, up to the last sample before the crash; from there on it is unknown."""
        self._start[new] = np.frombuffer(state["start"], np.uint8)[old]
        self._newest[new] = np.frombuffer(state["newest"], np.uint8)[old]
        self._sampled[new] = np.frombuffer(state["sampled"], "<i8")[old]
        moved = dict(zip(old.tolist(), new.tolist(), strict=True))
        times, places, states = (
            np.frombuffer(part, dtype).tolist()
            for part, dtype in zip(state["changes"], ("<i8", "<u4", "u1"), strict=True)
        )
        for time, place, code in zip(times, places, states, strict=True):
            if place in moved:
                self._changes.append((time, moved[place], code))
                self._changed[moved[place]] = time
        for place in new[self._newest[new] != _UNKNOWN].tolist():
            self._change(int(self._sampled[place]), place, _UNKNOWN)

    def _operating(self, samples: Samples) -> Bytes:
        """Return the operating state of each sample, shape (r, c)."""
        codes = self._codes(samples.places, samples.values)
        listed = (samples.quality < _BAD) & (codes >= 0) & (codes <= LARGEST_CODE)
        states = self._models[samples.places, np.where(listed, codes, 0)]
        return np.where(listed, states, np.uint8(_UNKNOWN))

    def _codes(self, places: NDArray[np.int32], values: Values) -> Ints:
        """Return the codes; what is no whole number from 0 to 255 has none."""
        if values.dtype.kind == "f":
            whole = (values == np.rint(values)) & (np.abs(values) <= LARGEST_CODE)
            return np.where(whole, values, _NO_CODE).astype(np.int64)
        exponents = self.exponents[places]
        if not exponents.any():
            return values
        multiply, divide = 10 ** np.clip(exponents, 0, 3), 10 ** np.clip(-exponents, 0, 18)
        codes = values // divide
        whole = (codes * divide == values) & (np.abs(codes) <= LARGEST_CODE)
        return np.where(whole, codes * multiply, _NO_CODE)

    def _expired(self, states: Bytes, ages: Ints) -> Flags:
        """Tell which known states no longer held at such an age."""
        if self.hold_ns is None:
            return np.zeros(states.shape, np.bool_)
        expired: Flags = (states != _UNKNOWN) & (ages > self.hold_ns)
        return expired

    def _change(self, time: int, place: int, state: int) -> None:
        if len(self._changes) >= _MOST_CHANGES * self.size:
            raise OverflowError("too many changes of state in open slots")
        # A change never comes before the one before it: the order of arrival is the device's own.
        time = max(time, (self.cursor or 0) * self.window_ns, int(self._changed[place]))
        self._changes.append((time, place, state))
        self._changed[place] = time
        self._newest[place] = state

    def _expire(self, end: int) -> None:
        """Make states unknown whose last sample no longer holds before `end`."""
        for place in np.flatnonzero(self._expired(self._newest, end - self._sampled)).tolist():
            self._change(int(self._sampled[place]) + (self.hold_ns or 0), place, _UNKNOWN)

    def _row(self, slot: int, nanoseconds: Ints, state: Bytes) -> Row:
        unknown = nanoseconds[:, _UNKNOWN]
        nothing = unknown >= self.window_ns
        seconds = nanoseconds[:, 1:] // self._grid_ns[:, None] * self.step[:, None]
        mantissa = np.concatenate([state[:, None].astype(np.int64), seconds], axis=1)
        quality = np.empty(mantissa.shape, np.uint8)
        quality[:] = np.where(unknown > 0, UNCERTAIN, GOOD)[:, None]
        quality[state == _UNKNOWN, 0] = NO_VALUE
        quality[nothing] = NO_VALUE
        mantissa[quality == NO_VALUE] = 0
        flat = mantissa.reshape(-1)
        return Row(slot, flat, quality.reshape(-1), np.ones(len(flat), np.int64))


def _model(name: str) -> Bytes:
    """Return the operating state of each code; all are UNKNOWN in a model that is not known."""
    return lookup_table(name) if name in STATE_MODELS else np.zeros(LARGEST_CODE + 1, np.uint8)


def _rows_before(present: Flags) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the row of the sample before each one, shape (r, c), and of the newest, shape (c,).

    Rows are counted from 1; row 0 is what was before the frame.
    """
    rows = np.zeros((len(present) + 1, present.shape[1]), np.intp)
    np.multiply(present, np.arange(1, len(present) + 1)[:, None], out=rows[1:])
    np.maximum.accumulate(rows, axis=0, out=rows)
    return rows[:-1], rows[-1]

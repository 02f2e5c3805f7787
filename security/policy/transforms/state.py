"""`state`: seconds in each operating state in the slot, and the state at its end.

Each point fills nine numbers: the operating state's code just before the slot's end, then the
seconds in states 1 to 8. What is missing to the length of the slot is UNKNOWN: lost contact, codes
that the state model does not list, and time without a sample beyond the holding time.

The instants of change are rounded to the grid, not the durations, so that they always add up.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocols.batch import GOOD, NO_VALUE, UNCERTAIN
from protocols.frame import SECOND, Bytes, Ints, Quality, Values
from protocols.vocabulary.states import OperatingState, lookup_table, to_operating
from security.policy import lane
from security.policy.lane import Row
from security.policy.language import STATE_NUMBERS
from security.policy.rounding import round_times

_UNKNOWN: Final = int(OperatingState.UNKNOWN)
_STATES: Final = STATE_NUMBERS - 1
_MOST_CHANGES: Final = 4096
_NO_TIME: Final = -1


class Lane(lane.Lane):
    """Durations in states."""

    numbers_per_point = STATE_NUMBERS

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._models = np.stack([lookup_table(rule.state_model) for rule in self.rules])
        # The state at the start of the oldest open slot, and the newest one.
        self._start: Bytes = np.zeros(self.size, np.uint8)
        self._newest: Bytes = np.zeros(self.size, np.uint8)
        self._sampled: Ints = np.full(self.size, _NO_TIME, np.int64)
        self._changed: Ints = np.zeros(self.size, np.int64)
        self._changes: list[tuple[int, int, int]] = []  # (time, place, state), in order by place

    def take(
        self, places: NDArray[np.int32], slots: Ints, time: Ints, values: Values, quality: Bytes
    ) -> int:
        """Note the changes of state; only they cost something."""
        del slots
        cursor_ns = (self.cursor or 0) * self.window_ns
        times = np.broadcast_to(np.maximum(time, cursor_ns), values.shape)
        codes = values if values.dtype.kind == "i" else np.rint(values).astype(np.int64)
        for row in range(len(values)):
            present = np.flatnonzero(quality[row] != Quality.ABSENT)
            if len(present):
                self._take_row(
                    places[present],
                    times[row, present],
                    self._operating(places[present], codes[row, present], quality[row, present]),
                )
        return 0

    def close_slot(self, slot: int) -> Row:
        """Add up the seconds."""
        start, end = slot * self.window_ns, self.end_of(slot)
        self._expire(end)
        due = [change for change in self._changes if change[0] < end]
        self._changes = [change for change in self._changes if change[0] >= end]
        nanoseconds = np.zeros((self.size, _STATES + 1), np.int64)
        since = np.full(self.size, start, np.int64)
        state = self._start
        grid_ns = [
            int(s) * SECOND // 10 ** int(-g) for s, g in zip(self.step, self.grid, strict=True)
        ]
        for time, place, new in due:
            at = int(round_times(np.array([time]), grid_ns[place])[0])
            at = min(max(at, int(since[place])), end)
            nanoseconds[place, state[place]] += at - since[place]
            since[place] = at
            state[place] = new
        nanoseconds[np.arange(self.size), state] += end - since
        return self._row(slot, nanoseconds, state, np.array(grid_ns, np.int64))

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
        return {
            "start": self._start.tobytes(),
            "newest": self._newest.tobytes(),
            "sampled": self._sampled.astype("<i8").tobytes(),
            "changes": [list(change) for change in self._changes],
        }

    def load(self, state: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take over state, up to the last sample before the crash; from there on it is unknown."""
        self._start[new] = np.frombuffer(state["start"], np.uint8)[old]
        self._newest[new] = np.frombuffer(state["newest"], np.uint8)[old]
        self._sampled[new] = np.frombuffer(state["sampled"], "<i8")[old]
        moved = dict(zip(old.tolist(), new.tolist(), strict=True))
        self._changes = [
            (time, moved[place], code) for time, place, code in state["changes"] if place in moved
        ]
        for time, place, _ in self._changes:
            self._changed[place] = max(time, int(self._changed[place]))
        for place in new.tolist():
            self._change(max(int(self._sampled[place]), 0), place, _UNKNOWN)

    def _operating(self, places: NDArray[np.int32], codes: Ints, quality: Bytes) -> Bytes:
        states = np.zeros(len(places), np.uint8)
        for model in np.unique(self._models[places], axis=0):
            chosen = (self._models[places] == model).all(axis=1)
            states[chosen] = to_operating(codes[chosen], model)
        return np.where(quality <= Quality.UNCERTAIN, states, np.uint8(_UNKNOWN))

    def _take_row(self, places: NDArray[np.int32], times: Ints, states: Bytes) -> None:
        if self.hold_ns is not None:
            late = (self._newest[places] != _UNKNOWN) & (
                times - self._sampled[places] > self.hold_ns
            )
            for column in np.flatnonzero(late).tolist():
                place = int(places[column])
                self._change(int(self._sampled[place]) + self.hold_ns, place, _UNKNOWN)
        for column in np.flatnonzero(states != self._newest[places]).tolist():
            self._change(int(times[column]), int(places[column]), int(states[column]))
        self._sampled[places] = times

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
        if self.hold_ns is None:
            return
        known = self._newest != _UNKNOWN
        for place in np.flatnonzero(known & (self._sampled + self.hold_ns < end)).tolist():
            self._change(int(self._sampled[place]) + self.hold_ns, place, _UNKNOWN)

    def _row(self, slot: int, nanoseconds: Ints, state: Bytes, grid_ns: Ints) -> Row:
        unknown = nanoseconds[:, _UNKNOWN]
        nothing = unknown >= self.window_ns
        seconds = nanoseconds[:, 1:] // grid_ns[:, None] * self.step[:, None]
        mantissa = np.concatenate([state[:, None].astype(np.int64), seconds], axis=1)
        quality = np.empty(mantissa.shape, np.uint8)
        quality[:] = np.where(unknown > 0, UNCERTAIN, GOOD)[:, None]
        quality[state == _UNKNOWN, 0] = NO_VALUE
        quality[nothing] = NO_VALUE
        mantissa[quality == NO_VALUE] = 0
        flat = mantissa.reshape(-1)
        return Row(slot, flat, quality.reshape(-1), np.ones(len(flat), np.int64))

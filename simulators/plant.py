"""A small factory as a pure function of seed and time: a restarted simulator continues exactly.

The plant has a meter, `meter-1`, that is polled, and a machine, `machine-1`, that reports its
changes with the exact moments at which they happened. Both also know things a firm would keep
to itself; those are listed in `SECRETS`, so that a test can search for them where they must
not be. All times are nanoseconds since 1970 UTC; events happen on whole microseconds, which
OPC UA carries exactly.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final

from protocols.frame import SECOND
from simulators.chance import draw, draws
from simulators.minute import (
    JOULES_PER_COUNT,
    MICROSECOND,
    MINUTE,
    ItemState,
    Minute,
    constant,
    minute_of,
)

METER: Final = "meter-1"
MACHINE: Final = "machine-1"
ROLLOVER: Final = 2**32
"""Where the meter's energy register starts again from 0."""

SECRETS: Final = {
    "secret_furnace_setpoint": METER,
    "secret_phase_current_1": METER,
    "secret_phase_current_2": METER,
    "secret_phase_current_3": METER,
    "secret_recipe_number": METER,
    "secret_ideal_cycle_time": MACHINE,
    "secret_program_number": MACHINE,
    "secret_spindle_temperature": MACHINE,
    "secret_recipe_temperature": MACHINE,
}
"""Names of what the firm keeps to itself, and the device that knows it."""


class Signal(StrEnum):
    """What the machine reports."""

    STATE = "MachineryItemState"
    TOTAL = "TotalCount"
    GOOD = "GoodCount"
    SCRAP = "ScrapCount"
    SPINDLE_TEMPERATURE = "secret_spindle_temperature"
    RECIPE_TEMPERATURE = "secret_recipe_temperature"
    IDEAL_CYCLE_TIME = "secret_ideal_cycle_time"
    PROGRAM_NUMBER = "secret_program_number"


_COUNTS: Final = (Signal.TOTAL, Signal.GOOD, Signal.SCRAP)


@dataclass(frozen=True, slots=True)
class Change:
    """A value the machine took on.

    Attributes:
        time: when.
        signal: which of its signals.
        value: int for states, counts and numbers, float for measured quantities.
    """

    time: int
    signal: Signal
    value: int | float


@dataclass(frozen=True, slots=True)
class Counts:
    """Parts finished so far; good + scrap = total."""

    total: int
    good: int
    scrap: int


@dataclass(frozen=True, slots=True)
class MeterReading:
    """What the meter shows at one moment.

    Attributes:
        energy: register in 0.01 kWh, below `ROLLOVER`.
        power: active power in W.
        power_factor: in 0.001.
        currents: of the three phases, in 0.1 A; secret.
        furnace_setpoint: in degC; secret.
        recipe_number: secret.
    """

    energy: int
    power: int
    power_factor: int
    currents: tuple[int, int, int]
    furnace_setpoint: float
    recipe_number: int


@dataclass(frozen=True, slots=True)
class Plant:
    """The factory.

    Attributes:
        seed: which factory.
        start_ns: when it was switched on; it knows nothing of earlier moments.
        energy_start: the meter's register then; None takes one from the seed.

    Methods raise ValueError for moments before the start.
    """

    seed: int
    start_ns: int
    energy_start: int | None = None
    _energy_base: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.start_ns % MICROSECOND:
            raise ValueError("start_ns must be a whole microsecond")
        drawn = constant(self.seed, "energy", 10**6, ROLLOVER)
        base = drawn if self.energy_start is None else self.energy_start
        if not 0 <= base < ROLLOVER:
            raise ValueError("energy_start must fit the register")
        object.__setattr__(self, "_energy_base", base)

    def _at(self, t_ns: int) -> tuple[int, int, Minute]:
        """Return the number of the minute, the time inside it, and the minute."""
        if t_ns < self.start_ns:
            raise ValueError("the plant was not switched on yet")
        index, inside = divmod(t_ns - self.start_ns, MINUTE)
        return index, inside, minute_of(self.seed, index)

    # The meter

    def energy_total(self, t_ns: int) -> int:
        """Return the meter's count in 0.01 kWh as if its register never started again from 0."""
        _, inside, minute = self._at(t_ns)
        second, rest = divmod(inside, SECOND)
        begin, end = minute.joules[second], minute.joules[second + 1]
        return self._energy_base + (begin + (end - begin) * rest // SECOND) // JOULES_PER_COUNT

    def meter(self, t_ns: int) -> MeterReading:
        """Return what the meter shows."""
        index, inside, minute = self._at(t_ns)
        second = inside // SECOND
        power = minute.joules[second + 1] - minute.joules[second]
        noise = draws(self.seed, "meter", index * 60 + second, 4)
        # Three phases of 400 V at a power factor near 0.95: I = P / 658.
        first, second_, third = (power * (9_900 + pick % 200) // 658_000 for pick in noise[:3])
        return MeterReading(
            energy=self.energy_total(t_ns) % ROLLOVER,
            power=power,
            power_factor=930 + noise[3] % 50,
            currents=(first, second_, third),
            furnace_setpoint=constant(self.seed, "furnace", 118_000, 126_000) / 100,
            recipe_number=constant(self.seed, "recipe", 10**9, 4 * 10**9),
        )

    # The machine

    def state(self, t_ns: int) -> ItemState:
        """Return the machine's state; at the moment of a transition it is the new one."""
        _, inside, minute = self._at(t_ns)
        return minute.states[_last_at_or_before(minute.edges, inside)]

    def transitions(self, begin_ns: int, end_ns: int) -> list[Change]:
        """Return the changes of state in [begin_ns, end_ns); neighbours differ."""
        return [
            Change(time, Signal.STATE, int(state))
            for time, state in self._edges(begin_ns, end_ns)
            if begin_ns <= time
        ]

    def state_ns(self, begin_ns: int, end_ns: int) -> dict[ItemState, int]:
        """Return the nanoseconds in each state in [begin_ns, end_ns); they add up to its length."""
        spent = dict.fromkeys(ItemState, 0)
        marks = [(max(time, begin_ns), state) for time, state in self._edges(begin_ns, end_ns)]
        end = (end_ns, ItemState.NOT_AVAILABLE)
        for (time, state), (until, _) in pairwise([*marks, end]):
            spent[state] += until - time
        return spent

    def _edges(self, begin_ns: int, end_ns: int) -> list[tuple[int, ItemState]]:
        """Return (time, state) from the state at begin_ns on, before end_ns."""
        if begin_ns >= end_ns:
            return []
        index, _, _ = self._at(begin_ns)
        edges: list[tuple[int, ItemState]] = []
        while (start := self.start_ns + index * MINUTE) < end_ns:
            minute = minute_of(self.seed, index)
            edges += zip((start + edge for edge in minute.edges), minute.states, strict=True)
            index += 1
        first = _last_at_or_before(tuple(time for time, _ in edges), begin_ns)
        return [(time, state) for time, state in edges[first:] if time < end_ns]

    def counts(self, t_ns: int) -> Counts:
        """Return the production counters; a part finished exactly then is counted."""
        _, inside, minute = self._at(t_ns)
        return self._counts(minute, _last_at_or_before(minute.parts, inside) + 1)

    def _counts(self, minute: Minute, parts: int) -> Counts:
        base = constant(self.seed, "total", 50_000, 900_000)
        base_scrap = constant(self.seed, "scrapped", 1_000, 40_000)
        total = base + minute.total + parts
        scrap = base_scrap + minute.scrapped + sum(minute.scrap[:parts])
        return Counts(total=total, good=total - scrap, scrap=scrap)

    def spindle_temperature(self, t_ns: int) -> int:
        """Return the spindle's temperature in 0.001 degC at the last full second; secret."""
        index, inside, _ = self._at(t_ns)
        here, there = (draw(self.seed, "spindle", at, 9_000) for at in (index, index + 1))
        second = inside // SECOND
        noise = draw(self.seed, "bearing", index * 60 + second, 80)
        return 41_000 + here + (there - here) * second // 60 + noise

    def changes(self, after_ns: int, until_ns: int) -> list[Change]:
        """Return what the machine reports in (after_ns, until_ns], by time.

        States and counts are reported when they change, the spindle's temperature every
        second after the start, on the second.
        """
        if after_ns >= until_ns:
            return []
        found = self.transitions(after_ns + 1, until_ns + 1)
        found += self._part_changes(after_ns, until_ns)
        first = (after_ns - self.start_ns) // SECOND + 1
        last = (until_ns - self.start_ns) // SECOND
        for tick in range(first, last + 1):
            time = self.start_ns + tick * SECOND
            found.append(_spindle(time, self.spindle_temperature(time)))
        return sorted(found, key=lambda change: change.time)

    def _part_changes(self, after_ns: int, until_ns: int) -> list[Change]:
        index, _, _ = self._at(after_ns)
        found: list[Change] = []
        while (start := self.start_ns + index * MINUTE) <= until_ns:
            minute = minute_of(self.seed, index)
            for at, offset in enumerate(minute.parts):
                if after_ns < start + offset <= until_ns:
                    found += self._part(minute, at, start + offset)
            index += 1
        return found

    def _part(self, minute: Minute, at: int, time: int) -> list[Change]:
        counts = self._counts(minute, at + 1)
        outcome = Signal.SCRAP if minute.scrap[at] else Signal.GOOD
        value = counts.scrap if minute.scrap[at] else counts.good
        return [Change(time, Signal.TOTAL, counts.total), Change(time, outcome, value)]

    def newest(self, signal: Signal, t_ns: int) -> Change:
        """Return the last value a signal took on at or before a moment, and when it did."""
        constants = self.constants()
        if signal in constants:
            return Change(self.start_ns, signal, constants[signal])
        if signal is Signal.SPINDLE_TEMPERATURE:
            tick = t_ns - (t_ns - self.start_ns) % SECOND
            return _spindle(tick, self.spindle_temperature(tick))
        if signal is Signal.STATE:
            time, state = self._edges(t_ns, t_ns + 1)[0]
            return Change(time, signal, int(state))
        return self._newest_count(signal, t_ns)

    def _newest_count(self, signal: Signal, t_ns: int) -> Change:
        now = self.counts(t_ns)
        value = {Signal.TOTAL: now.total, Signal.GOOD: now.good, Signal.SCRAP: now.scrap}[signal]
        since = t_ns
        while since > self.start_ns:
            before = max(self.start_ns, since - MINUTE)
            found = [part for part in self._part_changes(before, since) if part.signal is signal]
            if found:
                return found[-1]
            since = before
        return Change(self.start_ns, signal, value)

    def constants(self) -> dict[Signal, int | float]:
        """Return the machine's signals that never change; all secret."""
        return {
            Signal.RECIPE_TEMPERATURE: constant(self.seed, "melt", 180_000, 240_000) / 1000,
            Signal.IDEAL_CYCLE_TIME: constant(self.seed, "ideal", 700_000, 800_000) / 10**6,
            Signal.PROGRAM_NUMBER: constant(self.seed, "program", 10**9, 4 * 10**9),
        }


def _spindle(time: int, milli: int) -> Change:
    return Change(time, Signal.SPINDLE_TEMPERATURE, milli / 1000)


def _last_at_or_before(times: tuple[int, ...], t: int) -> int:
    """Return the position of the last time <= t, or -1; times ascend."""
    return bisect_right(times, t) - 1

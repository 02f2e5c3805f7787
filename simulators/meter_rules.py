"""Rules for what was polled from the meter: only what was served can be right."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from protocols.errors import MillgateError
from protocols.frame import Ints
from protocols.language import tr
from simulators.plant import ROLLOVER
from simulators.truth import ENERGY_AT, POWER_AT, Truth
from simulators.verdict import Finding, Kept, Row, on_grid, right_if, too_early, wrong

_ENERGY_EXPONENT: Final = -2
_POWER_EXPONENT: Final = -3


class MeterRules:
    """Judges the meter's energy and power.

    Args:
        truth: what was served.
        tolerance_ns: how long before a slot's end its last reading may have been served.
        skew_ns: how long outside its slot a reading may have been served, since request and
            answer take time.
    """

    def __init__(self, truth: Truth, tolerance_ns: int, skew_ns: int) -> None:
        energy, power = truth.serving(ENERGY_AT), truth.serving(POWER_AT)
        self._plant = truth.plant
        self._energy: tuple[Ints, Ints] = truth.time[energy], truth.energy[energy]
        self._power: tuple[Ints, Ints] = truth.time[power], truth.power[power]
        self._tolerance_ns = tolerance_ns
        self._skew_ns = skew_ns

    def energy_delta(self, series: Kept, rows: Iterator[Row]) -> Iterator[Finding]:
        """Ask that each slot's end show a reading served there, by the running sum of deltas.

        Which reading the first delta counts from is not known; all that were served at that
        time are followed until one value after the other leaves only those that fit.
        """
        bases: set[tuple[int, int]] = set()
        for row in rows:
            if fault := too_early(row, self._plant.start_ns):
                yield wrong(row, fault)
                bases = self._possible(row.end, series)
                continue
            if row.fresh:
                bases = self._possible(row.begin, series)
            possible = self._possible(row.end, series)
            reached = {(base + row.mantissa, wraps) for base, wraps in bases} & possible
            why = (
                tr("fits no reading that was served", "与任何送出的读数不符")
                if possible
                else tr("no reading was served at its end", "时段末没有送出读数")
            )
            yield right_if(row, bool(reached), why)
            # After a wrong value, anything that was served may be what the next counts from.
            bases = reached or possible

    def power_last(self, series: Kept, rows: Iterator[Row]) -> Iterator[Finding]:
        """Ask that the value be one that was served within the slot, or so late that it still holds."""
        for row in rows:
            if fault := too_early(row, self._plant.start_ns):
                yield wrong(row, fault)
                continue
            oldest = min(row.start, row.end - self._tolerance_ns) - self._skew_ns
            served = _between(self._power, oldest, row.end + self._skew_ns)
            values = {
                on_grid(watts, _POWER_EXPONENT, series.exponent, series.step) for _, watts in served
            }
            yield right_if(
                row,
                row.mantissa in values,
                tr("was not served within its slot", "时段内未送出过该值"),
            )

    def _possible(self, at_ns: int, series: Kept) -> set[tuple[int, int]]:
        """Return what a reader may hold at a moment: (rounded reading, wraps before its first).

        A reader counts the register's wraps from its own first reading on, and rounding to a
        grid that does not divide 2**32 depends on how many it has seen.
        """
        oldest = at_ns - self._tolerance_ns - self._skew_ns
        served = _between(self._energy, oldest, at_ns + self._skew_ns)
        totals = {self._unwrapped(time, energy) for time, energy in served}
        return {
            (
                on_grid(total - wraps * ROLLOVER, _ENERGY_EXPONENT, series.exponent, series.step),
                wraps,
            )
            for total in totals
            for wraps in range(total // ROLLOVER + 1)
        }

    def _unwrapped(self, time: int, energy: int) -> int:
        """Return a reading as if the register never started again from 0."""
        total = self._plant.energy_total(time)
        if total % ROLLOVER != energy:
            raise MillgateError(
                tr("the truth file contradicts its own plant", "真值文件与其工厂相矛盾"),
                remedy=tr(
                    "it was changed, or written by another version", "文件被改动，或由其他版本写出"
                ),
            )
        return total


def _between(readings: tuple[Ints, Ints], begin_ns: int, end_ns: int) -> Iterator[tuple[int, int]]:
    """Return (time, value) of the readings in [begin_ns, end_ns]."""
    time, value = readings
    low = int(np.searchsorted(time, begin_ns, "left"))
    high = int(np.searchsorted(time, end_ns, "right"))
    return zip(time[low:high].tolist(), value[low:high].tolist(), strict=True)

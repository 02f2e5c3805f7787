"""Rules for what the machine reported with exact times: the plant itself says what is right."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

from protocols.frame import SECOND
from protocols.language import tr
from simulators.minute import ItemState
from simulators.plant import Plant, Signal
from simulators.verdict import (
    END,
    STATE,
    UNKNOWN,
    Finding,
    Kept,
    Outcome,
    Row,
    on_grid,
    right_if,
    too_early,
    wrong,
)

OPERATING: Final = {
    ItemState.NOT_AVAILABLE: ("off", 8),
    ItemState.OUT_OF_SERVICE: ("fault", 6),
    ItemState.NOT_EXECUTING: ("idle", 3),
    ItemState.EXECUTING: ("run", 1),
}
"""What each of the machine's states must have become: operating state and its code."""

_UNKNOWN_CODE: Final = 0
_ITEM_STATES: Final = {name: state for state, (name, _) in OPERATING.items()}
_NANO: Final = -9


class MachineRules:
    """Judges the machine's states, counts and temperature.

    Args:
        plant: the truth.
        kept: all series; the parts of one state model are looked at together.
    """

    def __init__(self, plant: Plant, kept: Sequence[Kept]) -> None:
        self._plant = plant
        self._parts: dict[int, dict[str, dict[int, int]]] = {}
        for series in kept:
            if series.measurand == STATE and series.part != END:
                parts = self._parts.setdefault(series.window_ns, {})
                parts[series.part] = dict(
                    zip(series.start_ns.tolist(), _nanoseconds(series), strict=True)
                )

    def production_delta(self, series: Kept, rows: Iterator[Row]) -> Iterator[Finding]:
        """Ask for exactly the parts finished in (begin, end]."""
        count = series.measurand.removeprefix("production.")
        for row in rows:
            if fault := too_early(row, self._plant.start_ns):
                yield wrong(row, fault)
                continue
            before, after = (
                on_grid(getattr(self._plant.counts(at), count), 0, series.exponent, series.step)
                for at in (row.begin, row.end)
            )
            yield right_if(
                row,
                row.mantissa == after - before,
                tr("is not what was produced", "与实际产量不符"),
            )

    def temperature_last(self, series: Kept, rows: Iterator[Row]) -> Iterator[Finding]:
        """Ask that the value be one that the machine reported within the slot."""
        for row in rows:
            if fault := too_early(row, self._plant.start_ns):
                yield wrong(row, fault)
                continue
            first = row.start + (self._plant.start_ns - row.start) % SECOND
            values = {
                on_grid(self._reported(tick), 0, series.exponent, series.step)
                for tick in range(first, row.end + 1, SECOND)
            }
            yield right_if(
                row,
                row.mantissa in values,
                tr("was not reported within its slot", "时段内未报告过该值"),
            )

    def _reported(self, tick: int) -> float:
        return float(self._plant.newest(Signal.SPINDLE_TEMPERATURE, tick).value)

    def state(self, series: Kept, rows: Iterator[Row]) -> Iterator[Finding]:
        """Judge the state at slot ends, unknown time, or the time in one state."""
        for row in rows:
            if fault := too_early(row, self._plant.start_ns):
                yield wrong(row, fault)
            elif series.part == END:
                yield self._end(series, row)
            elif series.part == UNKNOWN:
                yield self._unknown(series, row)
            else:
                yield self._time_in_state(series, row)

    def _end(self, series: Kept, row: Row) -> Finding:
        _, code = OPERATING[self._plant.state(row.end - 1)]
        if row.mantissa == on_grid(code, 0, series.exponent):
            return row, Outcome.RIGHT, ""
        if row.mantissa == _UNKNOWN_CODE and self._lost(series, row) != 0:
            return row, Outcome.PARTIAL, ""
        return wrong(row, tr("is not the state at the slot's end", "不是时段末的状态"))

    def _unknown(self, series: Kept, row: Row) -> Finding:
        lost = self._parts[series.window_ns][UNKNOWN][row.start]
        rest = self._unaccounted(series, row)
        if lost < 0 or rest not in (None, lost):
            return wrong(
                row, tr("the states do not add up to the slot", "各状态时间之和不等于时段")
            )
        return row, Outcome.PARTIAL if lost else Outcome.RIGHT, ""

    def _time_in_state(self, series: Kept, row: Row) -> Finding:
        """Rounding moves each transition by up to half a step of the value's grid."""
        true, transitions = self._truth_of(series.part, row)
        given = on_grid(row.mantissa, series.exponent, _NANO)
        slack = transitions * on_grid(series.step, series.exponent, _NANO)
        lost = self._lost(series, row) or 0
        if lost < 0:
            return wrong(
                row, tr("the states do not add up to the slot", "各状态时间之和不等于时段")
            )
        if not true - lost - slack <= given <= true + slack or given < 0:
            return wrong(row, tr("is not the time spent in that state", "不是处于该状态的时间"))
        return row, Outcome.PARTIAL if lost else Outcome.RIGHT, ""

    def _truth_of(self, part: str, row: Row) -> tuple[int, int]:
        """Return nanoseconds in a state, and how often it began or ended within the slot."""
        state = _ITEM_STATES.get(part)
        if state is None:
            return 0, 0
        inside = self._plant.transitions(row.start + 1, row.end)
        path = [self._plant.state(row.start), *(ItemState(int(one.value)) for one in inside)]
        touched = sum(state in pair for pair in pairwise(path))
        return self._plant.state_ns(row.start, row.end)[state], touched

    def _lost(self, series: Kept, row: Row) -> int | None:
        """Return the slot's unknown nanoseconds; None where what is kept does not tell."""
        kept = self._parts.get(series.window_ns, {}).get(UNKNOWN, {}).get(row.start)
        return self._unaccounted(series, row) if kept is None else kept

    def _unaccounted(self, series: Kept, row: Row) -> int | None:
        """Return what the known states leave of the slot; None unless all of them are kept."""
        parts = self._parts.get(series.window_ns, {})
        known = [part for name, part in parts.items() if name != UNKNOWN]
        if not set(parts) >= set(_ITEM_STATES) or any(row.start not in part for part in known):
            return None
        return series.window_ns - sum(part[row.start] for part in known)


def _nanoseconds(series: Kept) -> list[int]:
    return [on_grid(mantissa, series.exponent, _NANO) for mantissa in series.mantissa.tolist()]

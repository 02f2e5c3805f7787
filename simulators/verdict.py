"""What a judge is given and what it says; see `judge`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from protocols.frame import Ints
from protocols.language import tr

STATE: Final = "machine.state"
END: Final = "end"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """One released series as the brain keeps it.

    Attributes:
        equipment: the plant's own name of the device.
        measurand: standard name.
        part: '' for a whole; of a state, an operating state's name in small letters (its
            seconds; 'unknown' where it is kept) or 'end' (the operating state's code at the
            slot's end).
        aggregate: what the slot's value is of the samples.
        window_ns: length of a slot.
        start_ns: shape (n,), slot starts, strictly increasing.
        mantissa: shape (n,), values are mantissa x 10**exponent in the measurand's unit.
        exponent: the same for all slots.
        span: shape (n,), how many slots a delta counts over, the last of them its own.
        step: mantissas were rounded to multiples of it.
    """

    equipment: str
    measurand: str
    part: str
    aggregate: Literal["last", "delta", "state"]
    window_ns: int
    start_ns: Ints
    mantissa: Ints
    exponent: int
    span: Ints
    step: int = 1

    @property
    def name(self) -> str:
        """What the series is, for people."""
        return " ".join(word for word in (self.equipment, self.measurand, self.part) if word)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Slots in a row that one series lacks.

    Attributes:
        series: its name.
        counter: whether each value counts from the one before on, so that no slot is left out.
        begin_ns, end_ns: from when to when.
        window_ns: length of a slot.
    """

    series: str
    counter: bool
    begin_ns: int
    end_ns: int
    window_ns: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one series, or about several together.

    Attributes:
        name: which.
        slots: values judged.
        wrong: values that the truth contradicts.
        doubled: slots counted more than once.
        gaps: slots missing between the first and the last, or from the stretch asked for.
        partial: slots with unknown time: bounded by the truth, not settled by it.
        first_wrong: where the first wrong value is, and why; '' if there is none.
        declared: slots that are missing where the sender began anew and said so; they are no gaps.
        given_up: slots that are missing where the sender declared messages lost; they are no gaps.
        first_gap: where the first gap begins; '' if there is none.
        missing: all that is missing and touches a time in which messages were declared lost,
            whatever it was counted as.
    """

    name: str
    slots: int
    wrong: int
    doubled: int
    gaps: int
    partial: int
    first_wrong: str
    declared: int = 0
    given_up: int = 0
    first_gap: str = ""
    missing: tuple[Stretch, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong, doubled or missing."""
        return self.wrong == self.doubled == self.gaps == 0


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Add verdicts up."""
    return Verdict(
        name=", ".join(verdict.name for verdict in verdicts),
        slots=sum(verdict.slots for verdict in verdicts),
        wrong=sum(verdict.wrong for verdict in verdicts),
        doubled=sum(verdict.doubled for verdict in verdicts),
        gaps=sum(verdict.gaps for verdict in verdicts),
        partial=sum(verdict.partial for verdict in verdicts),
        first_wrong=next((verdict.first_wrong for verdict in verdicts if verdict.first_wrong), ""),
        declared=sum(verdict.declared for verdict in verdicts),
        given_up=sum(verdict.given_up for verdict in verdicts),
        first_gap=next((verdict.first_gap for verdict in verdicts if verdict.first_gap), ""),
        missing=tuple(stretch for verdict in verdicts for stretch in verdict.missing),
    )


class Outcome(Enum):
    """What a rule says about one value."""

    RIGHT = "right"
    PARTIAL = "partial"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a series.

    Attributes:
        begin, end: the time it counts over, nanoseconds.
        start: start of its own slot; later than `begin` where it counts over several.
        mantissa: the value.
        fresh: it does not follow on from the value before.
        fault: why its value need not even be looked at, or ''.
    """

    begin: int
    end: int
    start: int
    mantissa: int
    fresh: bool
    fault: str


Loss: TypeAlias = tuple[int, int]
"""From when to when messages were declared lost, nanoseconds."""

Finding: TypeAlias = tuple[Row, Outcome, str]
Rule: TypeAlias = Callable[[Kept, Iterator[Row]], Iterator[Finding]]


def wrong(row: Row, why: str) -> Finding:
    """Return that a value is wrong."""
    return row, Outcome.WRONG, why


def right_if(row: Row, truth: bool, why: str) -> Finding:  # noqa: FBT001 - it is the verdict itself
    """Return that a value is right if it is, else that it is wrong."""
    return (row, Outcome.RIGHT, "") if truth else wrong(row, why)


def too_early(row: Row, start_ns: int) -> str:
    """Return why a value need not be looked at: its own fault, or none could know it."""
    if row.fault or row.begin >= start_ns:
        return row.fault
    return tr("reaches to before the plant was switched on", "早于工厂启动时刻")


def on_grid(value: float, exponent: int, wanted: int, step: int = 1) -> int:
    """Return value x 10**exponent in units of 10**wanted, rounded half to even to whole steps.

    A float counts as exactly the binary number it is.
    """
    exact = Fraction(value) * Fraction(10) ** (exponent - wanted)
    return round(exact / step) * step

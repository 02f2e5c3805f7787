"""How narrowly can a quantity be enclosed? Bounds by linear programming, in exact fractions.

Each unknown lies in a range, each known combination in an interval (released values are rounded).
Since a point that fulfils all of it is known beforehand (the firm's own history, or the middle of
the ranges), the simplex method needs no first phase: it starts there. Bland's rule (R. G. Bland,
Mathematics of Operations Research 2, 1977) keeps it from going in circles.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Generic, TypeVar

from protocols.errors import MillgateError
from protocols.language import tr

Name = TypeVar("Name", bound=Hashable)

MOST_UNKNOWNS: Final = 48
"""A larger group is not enclosed: it would take minutes, and says so instead."""

_MOST_STEPS: Final = 20_000


class TooLarge(MillgateError):
    """A group of unknowns is too large to be enclosed exactly."""


@dataclass(frozen=True, slots=True)
class Range:
    """A closed interval; None is without bound."""

    low: Fraction | None
    high: Fraction | None


@dataclass(frozen=True, slots=True)
class Known(Generic[Name]):
    """A combination of unknowns that is known to lie within `slack` of its true value."""

    terms: Mapping[Name, Fraction]
    slack: Fraction


def enclose(
    target: Mapping[Name, Fraction],
    known: Sequence[Known[Name]],
    ranges: Mapping[Name, Range],
    truth: Mapping[Name, Fraction],
) -> Range:
    """Return the smallest interval that surely holds the target.

    Args:
        target: coefficients of the quantity.
        known: what an analyst knows, each to within its slack.
        ranges: where each unknown may lie; unknowns without one are unbounded.
        truth: a value of every unknown that lies in its range.

    Raises:
        TooLarge: when there are more than MOST_UNKNOWNS unknowns.
    """
    names = sorted({name for one in known for name in one.terms} | set(target), key=repr)
    if len(names) > MOST_UNKNOWNS:
        raise _too_large()
    rows, rights = _constraints(names, known, ranges, truth)
    centre = sum((amount * truth[name] for name, amount in target.items()), Fraction(0))
    goal = [target.get(name, Fraction(0)) for name in names]
    up = _maximum(rows, rights, goal)
    down = _maximum(rows, rights, [-amount for amount in goal])
    return Range(
        None if down is None else centre - down,
        None if up is None else centre + up,
    )


def _too_large() -> TooLarge:
    return TooLarge(
        tr(
            f"more than {MOST_UNKNOWNS} related unknowns are not enclosed",
            f"相互关联的未知量超过 {MOST_UNKNOWNS} 个，不做区间估计",
        )
    )


def _constraints(
    names: Sequence[Name],
    known: Sequence[Known[Name]],
    ranges: Mapping[Name, Range],
    truth: Mapping[Name, Fraction],
) -> tuple[list[list[Fraction]], list[Fraction]]:
    """Return rows and right sides of `row . d <= right`, d being the distance from the truth."""
    rows: list[list[Fraction]] = []
    rights: list[Fraction] = []
    for one in known:
        row = [Fraction(one.terms.get(name, 0)) for name in names]
        rows += [row, [-amount for amount in row]]
        rights += [one.slack, one.slack]
    for at, name in enumerate(names):
        span = ranges.get(name, Range(None, None))
        unit = [Fraction(int(at == other)) for other in range(len(names))]
        if span.high is not None:
            rows.append(unit)
            rights.append(span.high - truth[name])
        if span.low is not None:
            rows.append([-amount for amount in unit])
            rights.append(truth[name] - span.low)
    if any(right < 0 for right in rights):
        raise ValueError("the truth must lie in its ranges")
    return rows, rights


def feasible(
    zero: Sequence[Mapping[Name, Fraction]],
    ranges: Mapping[Name, Range],
    start: Mapping[Name, Fraction],
) -> dict[Name, Fraction] | None:
    """Return values in their ranges with every combination in `zero` 0; None where there are none.

    One more unknown t goes from 0 at `start`, where everything is off by its residue, to 1, where
    nothing is off: if it gets there, so do the values.

    Raises:
        TooLarge: when there are more than MOST_UNKNOWNS unknowns.
    """
    names = sorted(start, key=repr)
    if len(names) > MOST_UNKNOWNS:
        raise _too_large()
    rows, rights = _constraints(names, [], ranges, start)
    rows = [[*row, Fraction(0)] for row in rows]
    for one in zero:
        off = sum((share * start[name] for name, share in one.items()), Fraction(0))
        row = [*(Fraction(one.get(name, 0)) for name in names), off]
        rows += [row, [-amount for amount in row]]
        rights += [Fraction(0), Fraction(0)]
    rows.append([*(Fraction(0) for _ in names), Fraction(1)])
    rights.append(Fraction(1))
    found = _best(rows, rights, [*(Fraction(0) for _ in names), Fraction(1)])
    if found is None or found[0] != 1:
        return None
    return {name: start[name] + found[1][at] for at, name in enumerate(names)}


def _maximum(
    rows: list[list[Fraction]], rights: list[Fraction], goal: list[Fraction]
) -> Fraction | None:
    """Return the largest goal . d with rows . d <= rights (all >= 0), d free; None: unbounded."""
    found = _best(rows, rights, goal)
    return None if found is None else found[0]


def _best(
    rows: list[list[Fraction]], rights: list[Fraction], goal: list[Fraction]
) -> tuple[Fraction, list[Fraction]] | None:
    """Return the largest goal . d and such a d; None: unbounded."""
    # A free d is the difference of two numbers >= 0; each row gets a slack of its own.
    count = len(rows)
    table = [
        [*row, *(-amount for amount in row), *(Fraction(int(at == one)) for one in range(count)), b]
        for at, (row, b) in enumerate(zip(rows, rights, strict=True))
    ]
    cost = [*(-g for g in goal), *goal, *(Fraction(0) for _ in range(count + 1))]
    basis = [2 * len(goal) + at for at in range(count)]
    for _ in range(_MOST_STEPS):
        entering = next((at for at, amount in enumerate(cost[:-1]) if amount < 0), None)
        if entering is None:
            return cost[-1], _distance(table, basis, len(goal))
        leaving = _leaving(table, basis, entering)
        if leaving is None:
            return None
        _pivot(table, cost, leaving, entering)
        basis[leaving] = entering
    raise TooLarge(tr("the enclosure takes too long", "区间估计耗时过长"))


def _distance(table: list[list[Fraction]], basis: list[int], count: int) -> list[Fraction]:
    values = {at: row[-1] for at, row in zip(basis, table, strict=True)}
    zero = Fraction(0)
    return [values.get(at, zero) - values.get(count + at, zero) for at in range(count)]


def _leaving(table: list[list[Fraction]], basis: list[int], entering: int) -> int | None:
    """Return the row with the smallest ratio, of these the one whose basis comes first."""
    candidates = [
        (row[-1] / row[entering], basis[at], at)
        for at, row in enumerate(table)
        if row[entering] > 0
    ]
    return min(candidates)[2] if candidates else None


def _pivot(table: list[list[Fraction]], cost: list[Fraction], leaving: int, entering: int) -> None:
    factor = table[leaving][entering]
    pivot = [amount / factor if amount else amount for amount in table[leaving]]
    table[leaving] = pivot
    for row in (*(one for at, one in enumerate(table) if at != leaving), cost):
        share = row[entering]
        if share:
            for at, amount in enumerate(pivot):
                if amount:
                    row[at] -= share * amount

"""Exact linear algebra: does a quantity follow from others, and how?

All numbers are fractions, so that a verdict is never a matter of rounding. Both verdicts carry
their proof: a quantity that follows comes with the combination that gives it; one that does not
comes with a *witness*, a change of the unknowns that no equation notices but the quantity does.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeAlias, TypeVar

Name = TypeVar("Name", bound=Hashable)
Sparse: TypeAlias = dict[Name, Fraction]


@dataclass(frozen=True, slots=True)
class Equation(Generic[Name]):
    """A linear combination of unknowns whose value is known.

    Attributes:
        label: names it in the proof.
        terms: coefficient of each unknown.
    """

    label: str
    terms: Mapping[Name, Fraction]


@dataclass(frozen=True, slots=True)
class Verdict(Generic[Name]):
    """Whether a target follows from the equations.

    Attributes:
        follows: whether it does.
        combination: if so, by label, how often each equation is taken; their sum is the target.
        witness: if not, a change of the unknowns with every equation 0 and the target not 0.
    """

    follows: bool
    combination: Mapping[str, Fraction]
    witness: Mapping[Name, Fraction]


@dataclass(frozen=True, slots=True)
class _Pivot(Generic[Name]):
    """A row with coefficient 1 at its pivot, and of which equations it was made."""

    name: Name
    row: Sparse[Name]
    made_of: dict[str, Fraction]


class Span(Generic[Name]):
    """The row space of equations, in sparse echelon form.

    Every pivot row is free of the pivots before it, so that eliminating in their order ends.
    """

    def __init__(self, equations: Iterable[Equation[Name]]) -> None:
        rows = sorted(equations, key=lambda one: len(one.terms))
        self._uses = Counter(name for one in rows for name in one.terms)
        self._pivots: list[_Pivot[Name]] = []
        self._place: dict[Name, int] = {}
        for one in rows:
            self._add(one)

    @property
    def rank(self) -> int:
        """Number of independent equations."""
        return len(self._pivots)

    def _add(self, equation: Equation[Name]) -> None:
        row, made_of = self._reduce(equation.terms)
        if not row:
            return
        # The unknown that fewest equations name fills in least.
        name = min(row, key=lambda one: (self._uses[one], repr(one)))
        factor = 1 / row[name]
        combination = {label: -factor * amount for label, amount in made_of.items()}
        _accumulate(combination, equation.label, factor)
        self._place[name] = len(self._pivots)
        scaled = {one: factor * amount for one, amount in row.items()}
        self._pivots.append(_Pivot(name, scaled, combination))

    def _reduce(self, terms: Mapping[Name, Fraction]) -> tuple[Sparse[Name], dict[str, Fraction]]:
        """Return what is left of a row, and of which equations the rest was made."""
        row = {name: amount for name, amount in terms.items() if amount}
        made_of: dict[str, Fraction] = {}
        due = [self._place[name] for name in row if name in self._place]
        heapq.heapify(due)
        while due:
            pivot = self._pivots[heapq.heappop(due)]
            amount = row.get(pivot.name)
            if amount is None:
                continue
            for name, share in pivot.row.items():
                if name not in row and name in self._place:
                    heapq.heappush(due, self._place[name])
                _accumulate(row, name, -amount * share)
            for label, share in pivot.made_of.items():
                _accumulate(made_of, label, amount * share)
        return row, made_of

    def judge(self, target: Mapping[Name, Fraction]) -> Verdict[Name]:
        """Tell whether a target follows."""
        rest, made_of = self._reduce(target)
        if not rest:
            return Verdict(follows=True, combination=made_of, witness={})
        free = min(rest, key=repr)
        return Verdict(follows=False, combination={}, witness=self._witness(free))

    def _witness(self, free: Name) -> Sparse[Name]:
        """Return the change that moves one free unknown by 1 and keeps every equation."""
        change: Sparse[Name] = {free: Fraction(1)}
        for pivot in reversed(self._pivots):
            moved = sum(
                (share * change[name] for name, share in pivot.row.items() if name in change),
                Fraction(0),
            )
            if moved:
                change[pivot.name] = -moved
        return change


def components(equations: Sequence[Equation[Name]]) -> list[list[Equation[Name]]]:
    """Split equations into groups that share no unknown; each can be judged by itself."""
    parent: dict[Name, Name] = {}

    def root(name: Name) -> Name:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one in equations:
        names = iter(one.terms)
        first = next(names, None)
        for other in names:
            if first is not None:
                parent[root(other)] = root(first)
    groups: dict[Name, list[Equation[Name]]] = defaultdict(list)
    for one in equations:
        first = next(iter(one.terms), None)
        if first is not None:
            groups[root(first)].append(one)
    return list(groups.values())


def judge_all(
    equations: Sequence[Equation[Name]], targets: Mapping[str, Mapping[Name, Fraction]]
) -> dict[str, Verdict[Name]]:
    """Judge every target against all equations, touching only what is connected to it."""
    group_of: dict[Name, int] = {}
    groups = components(equations)
    for at, group in enumerate(groups):
        group_of.update(dict.fromkeys((name for one in group for name in one.terms), at))
    spans: dict[frozenset[int], Span[Name]] = {}
    verdicts = {}
    for label, target in targets.items():
        touched = frozenset(group_of[name] for name in target if name in group_of)
        if touched not in spans:
            spans[touched] = Span([one for at in sorted(touched) for one in groups[at]])
        verdicts[label] = spans[touched].judge(target)
    return verdicts


_Key = TypeVar("_Key", bound=Hashable)


def _accumulate(row: dict[_Key, Fraction], key: _Key, amount: Fraction) -> None:
    """Add to a sparse row and keep it free of zeros."""
    total = row.get(key, 0) + amount
    if total:
        row[key] = Fraction(total)
    else:
        row.pop(key, None)

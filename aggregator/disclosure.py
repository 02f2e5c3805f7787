"""Which figures about several firms may be shown to others: a rule for each cell of a table.

A cell is a sum (or mean) over firms. It is shown only if all of these hold:

- at least `least_firms` firms contribute something above 0;
- p% rule: whoever knows one contribution cannot bound another one more narrowly than p % of it;
- (n,k) dominance: the n largest contribute at most k % of the sum.

These are the rules of statistical offices. Which numbers protect enough is a decision: they are
configuration, and what is shipped is a choice of ours.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Final, Literal

from aggregator.config import DisclosureConfig

Breach = Literal["", "firms", "p-percent", "dominance"]

_WHOLE: Final = 100


def breach(rule: DisclosureConfig, contributions: Iterable[Fraction]) -> Breach:
    """Return which rule a cell breaks; empty for one that may be shown.

    Args:
        contributions: what each firm has in the cell; those that the reader knows already are to
            be given as one, since together they are what he can subtract.

    Raises:
        ValueError: for a contribution below 0: the rules say nothing about it.
    """
    parts = sorted((part for part in contributions if part), reverse=True)
    if parts and parts[-1] < 0:
        raise ValueError("contributions are never below 0")
    if len(parts) < rule.least_firms:
        return "firms"
    total = sum(parts, Fraction(0))
    # The second largest knows most about the largest; what neither of them has must hide it.
    if total - parts[0] - parts[1] < _share(rule.p_percent) * parts[0]:
        return "p-percent"
    if sum(parts[: rule.dominant_firms], Fraction(0)) > _share(rule.dominant_percent) * total:
        return "dominance"
    return ""


def merged(contributions: Sequence[tuple[Fraction, bool]]) -> list[Fraction]:
    """Return contributions with all those as one that the reader knows.

    Args:
        contributions: each with whether the reader may see it by itself.
    """
    known = sum((part for part, own in contributions if own), Fraction(0))
    return [known, *(part for part, own in contributions if not own)]


def _share(percent: float) -> Fraction:
    return Fraction(str(percent)) / _WHOLE

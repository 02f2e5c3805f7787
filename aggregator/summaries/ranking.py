"""Rankings of firms: who takes part, in which place, and which mean may be told.

A firm takes part when enough of it was received. Places are given only where enough firms take part
(k-anonymity), and a mean only where its cell satisfies the rules of `aggregator.disclosure`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from aggregator.config import DisclosureConfig
from aggregator.disclosure import Breach, breach, merged

Kept = Breach | Literal["unfinished", "protected"]


@dataclass(frozen=True, slots=True)
class FirmValue:
    """One firm's figure.

    Attributes:
        value: None where it cannot be computed.
        coverage: part of what it is made of that was received, 0 to 1.
    """

    enterprise: str
    value: float | None
    coverage: float


@dataclass(frozen=True, slots=True)
class Place:
    """One firm's line.

    Attributes:
        rank: 1 is best; the same value has the same rank. None where it is not ranked.
        excluded: why not: `absent` (no value), `coverage`; empty for one that takes part.
    """

    firm: FirmValue
    rank: int | None
    excluded: Literal["", "absent", "coverage"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """What a reader is told.

    Attributes:
        places: of the firms that he may see, best first, those that do not take part last.
        taking_part: how many firms do; None where too few do, or where he may not know.
        mean: arithmetic mean of all that take part; None where its cell is protected.
        protected: what keeps back the mean, and in the case of `firms` and `unfinished` the places.
            Who sees all firms is told the rule, others only `protected`: which rule it is tells
            something about the others.
    """

    places: list[Place]
    taking_part: int | None
    mean: float | None
    protected: Kept


def rank(
    firms: Sequence[FirmValue],
    rule: DisclosureConfig,
    *,
    higher_is_better: bool,
    finished: bool,
    sees: Callable[[str], bool],
) -> Ranking:
    """Return the ranking as one reader may see it.

    Args:
        firms: all that there are.
        finished: whether the period is over. While it is not, who sees only some firms gets
            neither places nor mean: two looks would tell him what came in between.
        sees: tells which firms he may see by themselves.
    """
    part = [one for one in firms if _excluded(one, rule) == ""]
    own = [one for one in firms if sees(one.enterprise)]
    whole = len(own) == len(firms)
    # What the reader knows already hides nobody: all that he sees counts as one.
    others = [one for one in part if whole or not sees(one.enterprise)]
    enough = len(part) >= rule.least_ranked and len(others) >= rule.least_ranked - 1
    shown = enough and (finished or whole)
    values = [one.value for one in part if one.value is not None]
    best = sorted(values, reverse=higher_is_better)
    places = [
        Place(
            one,
            best.index(one.value) + 1
            if shown and one.value is not None and not _excluded(one, rule)
            else None,
            _excluded(one, rule),
        )
        for one in own
    ]
    protected = _protected(part, rule, enough=enough, shown=shown, sees=None if whole else sees)
    return Ranking(
        sorted(places, key=lambda one: _order(one, higher_is_better=higher_is_better)),
        len(part) if shown else None,
        sum(values) / len(values) if shown and not protected and values else None,
        protected,
    )


def _protected(
    part: Sequence[FirmValue],
    rule: DisclosureConfig,
    *,
    enough: bool,
    shown: bool,
    sees: Callable[[str], bool] | None,
) -> Kept:
    if not enough:
        return "firms"
    if not shown:
        return "unfinished"
    parts = [
        (Fraction(one.value), sees is not None and sees(one.enterprise))
        for one in part
        if one.value is not None
    ]
    broken = breach(rule, merged(parts))
    return "protected" if broken and sees is not None else broken


def _excluded(firm: FirmValue, rule: DisclosureConfig) -> Literal["", "absent", "coverage"]:
    # The rules say nothing about sums with parts below 0, so such a value takes no part.
    if firm.value is None or firm.value < 0:
        return "absent"
    return "coverage" if firm.coverage < rule.least_coverage else ""


def _order(place: Place, *, higher_is_better: bool) -> tuple[bool, bool, float, str]:
    value = place.firm.value
    sign = -1.0 if higher_is_better else 1.0
    return bool(place.excluded), value is None, sign * (value or 0.0), place.firm.enterprise

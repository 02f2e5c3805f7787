"""How narrowly an analyst can enclose a secret that does not follow exactly.

Everything released is known to half a rounding step, relations hold exactly, and every point lies in
its range. The width depends on the values; the lint takes such in the middle of the ranges, the attack
takes those of the firm's own past.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from protocols.language import tr
from security.policy.compiled import SecretSource
from security.policy.tools.exact import Equation, components
from security.policy.tools.findings import Finding, Severity
from security.policy.tools.inference import Judged, quantity_words
from security.policy.tools.intervals import Known, Range, TooLarge, enclose, feasible
from security.policy.tools.model import AMOUNT, MOMENT, Model, Unknown

Place = Callable[[str], tuple[str | int, ...]]


@dataclass(frozen=True, slots=True)
class Enclosure:
    """An interval that surely holds a secret.

    Attributes:
        low, high: its ends; None is without bound.
        truth: the value that was assumed or is known.
    """

    low: Fraction | None
    high: Fraction | None
    truth: Fraction

    def within(self, percent: Fraction) -> bool:
        """Tell whether its middle is an estimate that is closer than so many percent."""
        if self.low is None or self.high is None:
            return False
        return (self.high - self.low) / 2 < percent / 100 * abs(self.truth)


def enclosed(
    model: Model,
    judged: Judged,
    secret: SecretSource,
    ranges: Mapping[str, tuple[Fraction, Fraction]],
    place: Place,
) -> Iterator[Finding]:
    """Yield a finding where a secret is enclosed more narrowly than its protection."""
    for unknown in ((AMOUNT, secret.point), (MOMENT, secret.point)):
        group = related(model, unknown)
        if unknown in judged.disclosed or not group or secret.point not in ranges:
            continue
        try:
            found = _in_the_middle(model, unknown, group, ranges)
        except TooLarge as fault:
            yield Finding("not-enclosed", Severity.WARNING, place(secret.point), fault.what)
            return
        if found is not None and found.within(Fraction(secret.protect)):
            yield Finding(
                "enclosed",
                Severity.ERROR,
                place(secret.point),
                tr(
                    f"{quantity_words(unknown)} can be enclosed in {_words(found)} where values lie in "
                    f"the middle of their ranges: closer than {secret.protect} %",
                    f"各点取范围中部时，{quantity_words(unknown)}可被限定在 {_words(found)}："
                    f"误差小于 {secret.protect}%",
                ),
                tr(
                    "withhold a part, or release it more coarsely",
                    "请不放行其中一部分，或放行得更粗",
                ),
            )
            return


def _words(found: Enclosure) -> str:
    low = 0 if found.low is None else found.low
    high = 0 if found.high is None else found.high
    return f"{float(low):.6g} … {float(high):.6g}"


def related(model: Model, unknown: Unknown) -> list[Equation[Unknown]]:
    """Return the relations that are connected with an unknown."""
    relations = [one for one in model.relations if unknown[0] in {name[0] for name in one.terms}]
    for group in components(relations):
        if any(unknown in one.terms for one in group):
            return group
    return []


def slacks(model: Model) -> dict[Unknown, Fraction]:
    """Return to within what each released unknown is known; bands are left out."""
    found: dict[Unknown, Fraction] = {}
    for one in model.statistics:
        if one.step is not None:
            found[one.unknown] = min(one.step / 2, found.get(one.unknown, one.step))
    return found


def _in_the_middle(
    model: Model,
    unknown: Unknown,
    group: Sequence[Equation[Unknown]],
    ranges: Mapping[str, tuple[Fraction, Fraction]],
) -> Enclosure | None:
    names = {name for one in group for name in one.terms}
    bounds = {name: Range(*ranges[name[1]]) for name in names if name[1] in ranges}
    start = {
        name: sum(ranges[name[1]], Fraction(0)) / 2 if name in bounds else Fraction(0)
        for name in names
    }
    truth = feasible([one.terms for one in group], bounds, start)
    return None if truth is None else enclosure(unknown, group, slacks(model), bounds, truth)


def enclosure(
    unknown: Unknown,
    group: Sequence[Equation[Unknown]],
    known_to: Mapping[Unknown, Fraction],
    bounds: Mapping[Unknown, Range],
    truth: Mapping[Unknown, Fraction],
) -> Enclosure:
    """Enclose an unknown.

    A relation that the true values miss, as measured ones do, is only known to within that miss. What
    is released and occurs in one relation only is folded into what that relation is known to.

    Raises:
        TooLarge: when there are too many unknowns that are not released.
    """
    uses = Counter(name for one in group for name in one.terms)
    known: list[Known[Unknown]] = []
    for one in group:
        slack = abs(sum((share * truth[name] for name, share in one.terms.items()), Fraction(0)))
        terms: dict[Unknown, Fraction] = {}
        for name, share in one.terms.items():
            if name in known_to and uses[name] == 1 and name != unknown:
                slack += abs(share) * known_to[name]
            else:
                terms[name] = share
        known.append(Known(terms, slack))
    left = {name for one in known for name in one.terms}
    known += [Known({name: Fraction(1)}, known_to[name]) for name in left if name in known_to]
    found = enclose({unknown: Fraction(1)}, known, bounds, truth)
    return Enclosure(found.low, found.high, truth[unknown])

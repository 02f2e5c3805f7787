"""What leaves, what the firm knows and what is secret, as linear systems over named unknowns.

Two systems, judged by one engine. In the *linear* one an unknown is a point's amount (what a counter
rose by, a sum, or the mean: a sum but for a constant) or its momentary value; relations hold for each.
In the *logarithmic* one products and quotients become sums, so that the vocabulary's key figures are
linear as well: effectiveness = PRU x PQ / APT says log(PRU) + log(PQ) - log(APT).

Versions and consumers are not kept apart: whoever gets anything is taken to talk to all others, and
to have kept what was released before for as long as its retention lasts.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from math import lcm
from typing import Final

from protocols.language import tr
from protocols.vocabulary.elements import STATE
from security.policy.compiled import CompiledPolicy, Derivation, Rule
from security.policy.tools.exact import Equation
from security.policy.tools.lines import span_words

Unknown = tuple[str, str]
"""A quantity, and the point (or the derivation's constant) that it is of. Quantities are AMOUNT,
MOMENT, CONSTANT, and the time elements of a machine's state, such as `apt`."""

AMOUNT: Final = "amount"
MOMENT: Final = "moment"
CONSTANT: Final = "constant"
RUN: Final = "apt"
BUSY: Final = "pbt"

_AMOUNTS: Final = ("delta", "sum", "mean")
_WORKING: Final = "apt + adet"
_TIMES: Final = ("apt", "aust", "aupt", "adet", "pbt", _WORKING)

EXPONENTS: Final = {
    "availability": {"apt": 1, "pbt": -1},
    "effectiveness": {"pru": 1, "pq": 1, "apt": -1},
    "quality_ratio": {"gq": 1, "pq": -1},
    "oee": {"gq": 1, "pru": 1, "pbt": -1},
    "nee": {"aupt": 1, "pbt": -1, "gq": 1, "pru": 1, "apt": -1},
    "technical_efficiency": {"apt": 1, _WORKING: -1},
    "setup_ratio": {"aust": 1, "aupt": -1},
    "scrap_ratio": {"sq": 1, "pq": -1},
    "rework_ratio": {"rq": 1, "pq": -1},
    "first_pass_yield": {"gp": 1, "ip": -1},
    "throughput_rate": {"pq": 1, "pbt": -1},
    "energy_per_unit": {"energy": 1, "pq": -1},
}
"""Each formula that a factory can compute, as a product of powers of its elements; a test holds them
to the formulas. AOET is here PBT, as it is where elements come from a state."""

_SUMS: Final = (({"aupt": 1, "apt": -1, "aust": -1}), ({_WORKING: 1, "apt": -1, "adet": -1}))
"""Time elements that add up."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One thing that is released, or was and may still be kept.

    Attributes:
        label: names it in proofs.
        unknown: what it tells.
        window_s: how often.
        step: rounding step, in the measurand's unit; None where it leaves as bands.
    """

    label: str
    unknown: Unknown
    window_s: int
    step: Fraction | None


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that an analyst has, and what must not follow from it.

    Attributes:
        statistics: everything linear that was released.
        relations: linear equations that always hold, for amounts and for momentary values.
        products: equations between logarithms: released key figures.
        secrets: points.
        constants: constants of derivations: their owners keep them inside.
    """

    statistics: tuple[Statistic, ...]
    relations: tuple[Equation[Unknown], ...]
    products: tuple[tuple[Equation[Unknown], int], ...]
    secrets: tuple[str, ...]
    constants: tuple[Unknown, ...]

    @property
    def windows(self) -> list[int]:
        """Slot lengths at which something may follow, ascending."""
        found = {one.window_s for one in self.statistics} | {w for _, w in self.products}
        return sorted(
            found | {lcm(*pair) for pair in combinations(found, 2)} | {lcm(*found or {1})}
        )

    def released(self, window_s: int) -> list[Equation[Unknown]]:
        """Return what is known of every slot of this length."""
        return [
            Equation(one.label, {one.unknown: Fraction(1)})
            for one in self.statistics
            if window_s % one.window_s == 0
        ]


def build(policies: Sequence[CompiledPolicy]) -> Model:
    """Build the model of all policies whose releases may still be kept; the newest comes first."""
    statistics = [one for policy in policies for one in _statistics(policy)]
    products = [one for policy in policies for one in _products(policy)]
    relations: dict[str, Equation[Unknown]] = {}
    for policy in policies:
        for equation in (*_relations(policy), *_times(policy)):
            relations.setdefault(equation.label, equation)
    newest = policies[0]
    constants = {
        (CONSTANT, f"{one.name}.{name}"): None
        for policy in policies
        for one in policy.derived
        for name in one.constants
    }
    return Model(
        statistics=tuple(statistics),
        relations=tuple(relations.values()),
        products=tuple(products),
        secrets=tuple(one.point for one in newest.secrets),
        constants=tuple(constants),
    )


def label_of(policy: CompiledPolicy, one: Rule | Derivation) -> str:
    """Return how proofs name something that is released."""
    kind = one.formula if isinstance(one, Derivation) else one.aggregate
    name, span = f"v{policy.version} #{one.number} {one.source}", span_words(one.window_s)
    return tr(f"{name} ({kind}, {span})", f"{name}（{kind}，{span}）")


def _statistics(policy: CompiledPolicy) -> Iterator[Statistic]:
    for rule in policy.rules:
        label = label_of(policy, rule)
        step = None if rule.bands else Fraction(rule.step) * Fraction(10) ** rule.exponent
        for quantity in _quantities(rule):
            yield Statistic(
                label if quantity in {AMOUNT, MOMENT} else f"{label}: {quantity.upper()}",
                (quantity, rule.source),
                rule.window_s,
                step,
            )


def _quantities(rule: Rule) -> tuple[str, ...]:
    """Return what a rule tells that adds up; extremes and pseudonyms tell nothing that does."""
    if rule.pseudonym_s:
        return ()
    if rule.aggregate in _AMOUNTS:
        return (AMOUNT,)
    if rule.aggregate == "state":
        return _TIMES
    return (MOMENT,) if rule.aggregate == "last" else ()


def _relations(policy: CompiledPolicy) -> Iterator[Equation[Unknown]]:
    for relation in policy.relations:
        factors = [Fraction(Decimal(factor)) for factor in relation.factors]
        for quantity in (AMOUNT, MOMENT):
            yield Equation(
                tr(f"relation {relation.name}", f"关系 {relation.name}")
                + ("" if quantity == AMOUNT else tr(" (momentary)", "（瞬时）")),
                {
                    (quantity, point): factor
                    for factor, point in zip(factors, relation.points, strict=True)
                },
            )


def _times(policy: CompiledPolicy) -> Iterator[Equation[Unknown]]:
    for source in sorted(
        {f"{i.device}/{i.point}" for one in policy.derived for i in one.inputs if i.name == STATE}
    ):
        for at, terms in enumerate(_SUMS):
            yield Equation(
                f"{source}: {at}",
                {(name, source): Fraction(share) for name, share in terms.items()},
            )


def _products(policy: CompiledPolicy) -> Iterator[tuple[Equation[Unknown], int]]:
    for one in policy.derived:
        yield Equation(label_of(policy, one), dict(_powers(one))), one.window_s


def _powers(one: Derivation) -> Iterator[tuple[Unknown, Fraction]]:
    sources = {found.name: f"{found.device}/{found.point}" for found in one.inputs}
    for name, power in EXPONENTS[one.formula].items():
        if name in one.constants:
            yield (CONSTANT, f"{one.name}.{name}"), Fraction(power)
        elif name in _TIMES:
            yield (name, sources[STATE]), Fraction(power)
        else:
            yield (AMOUNT, sources[name]), Fraction(power)


def unknowns(equations: Iterable[Equation[Unknown]]) -> set[Unknown]:
    """Return all unknowns that equations name."""
    return {name for one in equations for name in one.terms}

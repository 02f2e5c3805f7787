"""Does a secret follow from what leaves? Exact verdicts, each with its proof."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from protocols.language import tr
from security.policy.tools.exact import Equation, Verdict, judge_all
from security.policy.tools.model import (
    AMOUNT,
    BUSY,
    CONSTANT,
    MOMENT,
    RUN,
    Model,
    Unknown,
    unknowns,
)

_MOST_ROUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Something that follows from what leaves.

    Attributes:
        unknown: what.
        window_s: of every slot of this length at least; the shortest that was found.
        combination: by label, how often each released thing or relation is taken.
        product: whether they are multiplied (powers) instead of added.
    """

    unknown: Unknown
    window_s: int
    combination: Mapping[str, Fraction]
    product: bool = False

    def words(self) -> str:
        """Return the combination as people write it."""
        join, one = (" × ", _power) if self.product else (" ", _share)
        return join.join(
            one(label, share, first=at == 0)
            for at, (label, share) in enumerate(
                sorted(self.combination.items(), key=_released_first)
            )
        )


def _released_first(item: tuple[str, Fraction]) -> tuple[bool, str]:
    return not item[0].startswith("v"), item[0]


def _share(label: str, share: Fraction, *, first: bool) -> str:
    sign = "−" if share < 0 else "" if first else "+"
    size = "" if abs(share) == 1 else f"{abs(share)} × "
    return f"{sign} {size}[{label}]".strip()


def _power(label: str, share: Fraction, *, first: bool) -> str:
    del first
    return f"[{label}]" if share == 1 else f"[{label}]^{share}"


@dataclass(slots=True)
class Judged:
    """What follows and what does not.

    Attributes:
        disclosed: by unknown.
        hidden: by unknown that does not follow, a change that nothing released would notice.
        multiplied: those of them whose change is of logarithms: it multiplies.
    """

    disclosed: dict[Unknown, Disclosure] = field(default_factory=dict)
    hidden: dict[Unknown, Mapping[Unknown, Fraction]] = field(default_factory=dict)
    multiplied: set[Unknown] = field(default_factory=set)


def secret_unknowns(model: Model) -> list[Unknown]:
    """Return every quantity that must not follow."""
    of_points = [
        (quantity, point) for point in model.secrets for quantity in (AMOUNT, MOMENT, RUN, BUSY)
    ]
    return [*of_points, *model.constants]


def judge(model: Model, targets: Sequence[Unknown] | None = None) -> Judged:
    """Judge every secret, exactly, against everything that was released at any slot length."""
    wanted = list(secret_unknowns(model) if targets is None else targets)
    judged = Judged()
    at_all = model.windows[-1]
    for target, (verdict, product) in _verdicts(model, wanted, at_all).items():
        if verdict.follows:
            judged.disclosed[target] = Disclosure(target, at_all, verdict.combination, product)
        else:
            judged.hidden[target] = verdict.witness
            if product:
                judged.multiplied.add(target)
    _refine(model, judged)
    return judged


def _refine(model: Model, judged: Judged) -> None:
    """Find the shortest slots at which each disclosure happens."""
    left = list(judged.disclosed)
    for window_s in model.windows[:-1]:
        found = {
            target: Disclosure(target, window_s, verdict.combination, product)
            for target, (verdict, product) in _verdicts(model, left, window_s).items()
            if verdict.follows
        }
        judged.disclosed |= found
        left = [target for target in left if target not in found]


def _verdicts(
    model: Model, targets: Sequence[Unknown], window_s: int
) -> dict[Unknown, tuple[Verdict[Unknown], bool]]:
    """Return each target's verdict, and whether it is from the system of products."""
    if not targets:
        return {}
    linear, products = _known(model, window_s)
    terms = {repr(target): {target: Fraction(1)} for target in targets}
    sums = judge_all(linear, terms)
    factors = unknowns(products)
    multiplied = judge_all(products, {repr(t): terms[repr(t)] for t in targets if t in factors})
    return {
        target: (multiplied[name], True)
        if not sums[name].follows and name in multiplied
        else (sums[name], False)
        for target in targets
        for name in (repr(target),)
    }


Equations = list[Equation[Unknown]]


def _known(model: Model, window_s: int) -> tuple[Equations, Equations]:
    """Return both systems, each enriched by what follows in the other, until nothing new does."""
    linear = [*model.released(window_s), *model.relations]
    products = [one for one, w in model.products if window_s % w == 0]
    factors = unknowns(one for one, _ in model.products)
    products += [one for one in model.released(window_s) if factors & set(one.terms)]
    for _ in range(_MOST_ROUNDS):
        shared = unknowns(products) & unknowns(linear)
        new_products = _follow(linear, shared - _singles(products))
        new_linear = _follow(products, shared - _singles(linear))
        if not new_products and not new_linear:
            break
        products += new_products
        linear += new_linear
    return linear, products


def _singles(equations: Equations) -> set[Unknown]:
    return {name for one in equations if len(one.terms) == 1 for name in one.terms}


def _follow(equations: Equations, names: set[Unknown]) -> Equations:
    targets = {repr(name): {name: Fraction(1)} for name in names}
    verdicts = judge_all(equations, targets)
    return [
        Equation(tr(f"{name[1]}, which follows", f"{name[1]}（可推出）"), {name: Fraction(1)})
        for name in sorted(names)
        if verdicts[repr(name)].follows
    ]


def quantity_words(unknown: Unknown) -> str:
    """Return an unknown as people say it."""
    quantity, name = unknown
    words = {
        AMOUNT: tr(f"the amount or mean of {name}", f"{name} 的累计量或均值"),
        MOMENT: tr(f"the momentary value of {name}", f"{name} 的瞬时值"),
        RUN: tr(f"the run time of {name}", f"{name} 的运行时间"),
        BUSY: tr(f"the planned busy time of {name}", f"{name} 的计划工作时间"),
        CONSTANT: tr(f"the constant {name}", f"常数 {name}"),
    }
    element = quantity.upper()
    return words.get(quantity) or tr(f"{element} of {name}", f"{name} 的 {element}")

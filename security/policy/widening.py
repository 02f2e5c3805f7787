"""What a new policy lets out that the one before did not: decided by the machine, not by feeling.

Whatever cannot be shown to be as narrow as before counts as wider. Widening needs more officers than
narrowing, and `policy diff` tells the same reasons in words.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

from protocols.language import tr
from security.policy.compiled import CompiledPolicy, Derivation, Input, Rule, Terms
from security.policy.words import CLASSES


@dataclass(frozen=True, slots=True)
class Widening:
    """One way in which more leaves than before.

    Attributes:
        kind: fixed word, such as `new-point` or `finer-rounding`.
        where: `device/point`, the name of a derivation, a consumer's id, or empty for the whole.
        number: of the point, 0 where it is not one.
        text: for people, in their language.
    """

    kind: str
    where: str
    number: int
    text: str


_SOURCE: Final = ("address", "type", "unit", "scale", "offset", "measurand", "state_model")


def widens(old: CompiledPolicy | None, new: CompiledPolicy) -> list[Widening]:
    """Return every way in which `new` lets out more than `old`; None is a policy of nothing.

    An empty list means: whoever sees what leaves under `new` sees nothing that `old` would not have
    let out, and nobody else sees it, or keeps it for longer.
    """
    if old is None:
        return list(_from_nothing(new))
    return [*_of_whole(old, new), *_of_consumers(old, new), *_of_points(old, new)]


def _from_nothing(new: CompiledPolicy) -> Iterator[Widening]:
    for one in new.leaving:
        yield _new_point(one)


def _new_point(one: Rule | Derivation) -> Widening:
    return _at(one, "new-point", tr("did not leave before", "此前不外发"))


def _at(one: Rule | Derivation, kind: str, text: str) -> Widening:
    return Widening(kind, one.source, one.number, text)


def _of_whole(old: CompiledPolicy, new: CompiledPolicy) -> Iterator[Widening]:
    if old.stopped and not new.stopped:
        yield Widening("resumed", "", 0, tr("what was stopped goes on", "恢复已停止的外发"))
    if new.valid_until > old.valid_until or new.valid_from < old.valid_from:
        yield Widening("longer-validity", "", 0, tr("it is valid for longer", "有效期变长"))
    if CLASSES.index(new.class_ceiling) > CLASSES.index(old.class_ceiling):
        yield Widening("higher-ceiling", "", 0, tr("the class ceiling rises", "级别上限提高"))
    if _version(new.minimum_agent) < _version(old.minimum_agent):
        yield Widening(
            "older-agent", "", 0, tr("an older agent may enforce it", "允许更旧的代理程序执行")
        )
    yield from _protections(old, new)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part)


def _protections(old: CompiledPolicy, new: CompiledPolicy) -> Iterator[Widening]:
    """A secret or a relation that is no longer declared is no longer guarded by the lint."""
    kept = {one.point: one for one in new.secrets}
    for secret in old.secrets:
        now = kept.get(secret.point)
        if now is None or Decimal(now.protect) < Decimal(secret.protect):
            text = tr("is less of a secret than before", "秘密保护减弱")
            yield Widening("weaker-secret", secret.point, 0, text)
        elif secret.canary and not now.canary:
            text = tr("is no longer a canary", "不再是金丝雀点")
            yield Widening("weaker-secret", secret.point, 0, text)
    relations = {one.name: one for one in new.relations}
    for relation in old.relations:
        if relations.get(relation.name) != relation:
            text = tr("a relation is dropped or changed", "关系被删除或更改")
            yield Widening("weaker-relation", relation.name, 0, text)


def _of_consumers(old: CompiledPolicy, new: CompiledPolicy) -> Iterator[Widening]:
    before = {terms.encryption_key: terms for terms in old.consumers}
    for terms in new.consumers:
        known = before.get(terms.encryption_key)
        if known is None:
            text = tr("is a new consumer", "新的接收方")
            yield Widening("new-consumer", terms.id, 0, text)
        else:
            for kind, text in _of_terms(known, terms):
                yield Widening(kind, terms.id, 0, text)


def _of_terms(old: Terms, new: Terms) -> Iterator[tuple[str, str]]:
    if new.receipt_key != old.receipt_key:
        yield "other-key", tr("has another receipt key", "回执密钥已更换")
    if new.purpose != old.purpose:
        yield "other-purpose", tr("may use it for another purpose", "用途改变")
    if new.right != old.right:
        yield "other-right", tr("refers to another right", "权利依据改变")
    if new.retention_days > old.retention_days:
        yield "longer-retention", tr("may keep it for longer", "保存期限变长")
    if new.pad % old.pad:
        yield "finer-padding", tr("is padded more finely", "填充变细")
    budgets = (
        (old.budget_points, new.budget_points),
        (old.budget_rows, new.budget_rows),
        (old.budget_bytes, new.budget_bytes),
    )
    if any(before and (not now or now > before) for before, now in budgets):
        yield "larger-budget", tr("has a larger leak budget", "外发额度变大")


def _of_points(old: CompiledPolicy, new: CompiledPolicy) -> Iterator[Widening]:
    before = {one.number: one for one in old.leaving}
    for one in new.leaving:
        known = before.get(one.number)
        if known is None or known.source != one.source or type(known) is not type(one):
            yield _new_point(one)
            continue
        receiver = new.consumers[one.consumer].encryption_key
        if old.consumers[known.consumer].encryption_key != receiver:
            yield _at(one, "other-consumer", tr("goes to another consumer", "改发其他接收方"))
        for kind, text in (*_of_grid(known, one), *_of_labels(known, one), *_of_kind(known, one)):
            yield _at(one, kind, text)


def _of_grid(old: Rule | Derivation, new: Rule | Derivation) -> Iterator[tuple[str, str]]:
    if new.window_s % old.window_s:
        yield (
            ("shorter-window", tr("has a shorter slot", "时段变短"))
            if new.window_s < old.window_s
            else ("shifted-window", tr("has slots that cut the old ones", "新时段切开旧时段"))
        )
    if not _coarser(old, new):
        yield "finer-rounding", tr("is rounded more finely, or otherwise", "精度变细或网格不同")
    if new.delay_s < old.delay_s:
        yield "shorter-delay", tr("leaves sooner", "延迟变短")
    if _wider_clamp(old, new):
        yield "wider-clamp", tr("is clamped less", "截断放宽")
    if _kept_days(new) > _kept_days(old) and _kept_days(old):
        yield "longer-retention", tr("may be kept for longer", "保存期限变长")


def _kept_days(one: Rule | Derivation) -> int:
    return one.retention_days or (1 << 31)


def _coarser(old: Rule | Derivation, new: Rule | Derivation) -> bool:
    """Tell whether every value of the new grid follows from one of the old grid."""
    if old.bands:
        edges = {_scaled(edge, old.bands_exponent) for edge in old.bands}
        return bool(new.bands) and edges.issuperset(
            _scaled(edge, new.bands_exponent) for edge in new.bands
        )
    if new.bands:
        # A band of the exact value can tell on which side of an edge inside a rounding step it is.
        return False
    steps = _scaled(new.step, new.exponent) / _scaled(old.step, old.exponent)
    # Rounding twice is not rounding once; but a multiple is no finer.
    return steps.denominator == 1


def _scaled(mantissa: int, exponent: int) -> Fraction:
    return Fraction(mantissa) * Fraction(10) ** exponent


def _bounds(one: Rule | Derivation) -> list[Fraction]:
    return [_scaled(bound, one.clamp_exponent) for bound in one.clamp]


def _wider_clamp(old: Rule | Derivation, new: Rule | Derivation) -> bool:
    if not old.clamp:
        return False
    if not new.clamp:
        return True
    (low, high), (new_low, new_high) = _bounds(old), _bounds(new)
    return new_low < low or new_high > high


def _of_labels(old: Rule | Derivation, new: Rule | Derivation) -> Iterator[tuple[str, str]]:
    if (new.equipment, new.role) != (old.equipment, old.role):
        yield "other-label", tr("has another public label", "公开标签改变")
    if CLASSES.index(new.class_released) < CLASSES.index(old.class_released):
        yield "lower-class", tr("is protected by a lower class", "公开后级别降低")
    elif CLASSES.index(new.class_raw) < CLASSES.index(old.class_raw):
        yield "lower-class", tr("is said to be of a lower class", "原始级别降低")


def _of_kind(old: Rule | Derivation, new: Rule | Derivation) -> Iterator[tuple[str, str]]:
    if isinstance(old, Derivation) and isinstance(new, Derivation):
        inputs = [_as_signed_before(old.inputs, one) for one in new.inputs]
        if (old.formula, old.inputs, old.constants) != (new.formula, inputs, new.constants):
            yield "other-source", tr("is computed otherwise", "计算方式改变")
        return
    if isinstance(old, Rule) and isinstance(new, Rule):
        yield from _of_rule(old, new)


def _as_signed_before(before: Sequence[Input], now: Input) -> Input:
    """Return an input without an origin that was not signed before; to sign it too only narrows."""
    known = next((one for one in before if one.name == now.name), None)
    unsigned = known is not None and not known.origin
    return now.model_copy(update={"origin": ""}) if unsigned else now


def _of_rule(old: Rule, new: Rule) -> Iterator[tuple[str, str]]:
    moved = old.origin and new.origin != old.origin
    if moved or any(getattr(old, name) != getattr(new, name) for name in _SOURCE):
        yield "other-source", tr("comes from another source", "来源改变")
    if old.range and (
        not new.range
        or Decimal(new.range[0]) < Decimal(old.range[0])
        or Decimal(new.range[1]) > Decimal(old.range[1])
    ):
        yield "wider-range", tr("may take more values", "取值范围放宽")
    elif _of_other_samples(old, new):
        yield "new-statistic", tr("is of other samples", "统计所用的样本改变")
    if old.aggregate != new.aggregate:
        yield (
            "new-statistic",
            tr(
                f"leaves as {new.aggregate}, not {old.aggregate}",
                f"改以 {new.aggregate} 外发，原为 {old.aggregate}",
            ),
        )
    if new.min_samples < _least_samples(old, new):
        yield (
            "fewer-samples",
            tr("needs fewer samples for its slot", "按时段长度计，最少样本数降低"),
        )
    if new.fill_within_s > old.fill_within_s:
        yield "longer-filling", tr("may be filled for longer", "补填时限变长")
    # A turn that is no part of the one before links what lay on both sides of a change.
    if old.pseudonym_s and (not new.pseudonym_s or old.pseudonym_s % new.pseudonym_s):
        yield "weaker-pseudonym", tr("has weaker pseudonyms", "假名减弱")


def _of_other_samples(old: Rule, new: Rule) -> bool:
    """Tell whether a statistic does not follow from the old one: of what lay below a peak, say.

    A sum is only of slots without a sample out of range; an extreme of clamped samples is the
    clamped extreme.
    """
    of_range = new.aggregate in {"mean", "min", "max"} and list(map(Decimal, old.range)) != list(
        map(Decimal, new.range)
    )
    return of_range or (
        new.aggregate in {"mean", "sum"} and bool(new.clamp) and _bounds(old) != _bounds(new)
    )


def _least_samples(old: Rule, new: Rule) -> int:
    """Return from how many samples on one of the old slots in a new slot had enough of them."""
    slots = max(new.window_s // old.window_s, 1)
    return slots * (old.min_samples - 1) + 1

"""`policy explain`: one point's way from its source to what the brain sees, and why secrets hold."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.words import nearest
from security.policy.compiled import CompiledPolicy, Derivation, Rule
from security.policy.tools.diff import grid_words
from security.policy.tools.inference import Judged, judge, quantity_words
from security.policy.tools.lines import amount, lines_of, span_words
from security.policy.tools.model import AMOUNT, MOMENT, Model, Unknown, build

_MOST_NUMBERS = 10


def explain(
    policy: CompiledPolicy,
    retained: Sequence[CompiledPolicy],
    name: str,
    listed: Collection[str] | None = None,
) -> str:
    """Return everything about one point, key figure, number or secret.

    Args:
        policy, retained: what leaves, and what left before and may still be kept.
        name: of it.
        listed: all points that the policy's text lists; None where only the signed form is there.

    Raises:
        MillgateError: when nothing has this name.
    """
    found = [one for one in policy.leaving if name in {one.source, str(one.number)}]
    model = build([policy, *retained])
    secrets = [one.point for one in policy.secrets]
    if not found and ("/" not in name if listed is None else name not in listed):
        near = nearest(name, listed or [one.source for one in policy.leaving])
        raise MillgateError(
            tr(f"nothing is named '{name}'", f"没有名为 '{name}' 的点或编号"),
            remedy=tr(f"did you mean '{near}'?", f"是否应为 '{near}'？")
            if near
            else tr(
                "give device/point, a number, or the name of a derivation",
                "请给出 device/point、编号或 derive 的名称",
            ),
        )
    parts: list[str] = []
    for one in found:
        parts += [_way(policy, one), ""]
    if not found:
        parts += [_withheld(name, model, secret=name in secrets), ""]
    if secrets or model.constants:
        parts.append(_secrets(model))
    return "\n".join(parts).rstrip()


def _way(policy: CompiledPolicy, one: Rule | Derivation) -> str:
    title = f"#{one.number} {one.source}"
    steps = [*_source(one), *_transforms(policy, one)]
    numbered = [f"  {at}. {step}" for at, step in enumerate(steps, 1)]
    return "\n".join([title, *numbered, *_seen(policy, one)])


def _source(one: Rule | Derivation) -> Iterator[str]:
    if isinstance(one, Derivation):
        inputs = ", ".join(f"{found.device}/{found.point}" for found in one.inputs)
        yield tr(
            f"computed in the factory: {one.formula} of {inputs}; its inputs and constants stay here",
            f"在厂内计算：{one.formula}，输入为 {inputs}；输入与常数均留在厂内",
        )
        return
    scaling = "" if (one.scale, one.offset) == ("1", "0") else f" × {one.scale} + {one.offset}"
    yield tr(
        f"source: {one.address} ({one.type}, {one.unit}{scaling}); if it is anything else, the point is "
        "suspended",
        f"来源：{one.address}（{one.type}，{one.unit}{scaling}）；与此不符即暂停",
    )
    if one.origin:
        yield tr(
            f"only from: {one.origin}; from elsewhere, or read otherwise, it is suspended",
            f"仅来自：{one.origin}；来自别处或读法不同即暂停",
        )
    if one.range:
        yield tr(
            f"validated: values outside {one.range[0]} … {one.range[1]} are not used",
            f"校验：超出 {one.range[0]} … {one.range[1]} 的值不采用",
        )


def _transforms(policy: CompiledPolicy, one: Rule | Derivation) -> Iterator[str]:
    if one.clamp:
        low, high = (amount(bound, one.clamp_exponent) for bound in one.clamp)
        yield tr(f"clamped to {low} … {high}", f"截断到 {low} … {high}")
    slot = span_words(one.window_s)
    if isinstance(one, Rule):
        yield _aggregate(one, slot)
        if one.min_samples > 1:
            yield tr(
                f"with fewer than {one.min_samples} values in a slot nothing leaves for it",
                f"时段内少于 {one.min_samples} 个值则不外发",
            )
    else:
        yield tr(f"one value every {slot}", f"每{slot}一个值")
    yield tr(f"rounded {grid_words(one, policy)}", f"取整：{grid_words(one, policy)}")
    if one.delay_s:
        yield tr(
            f"leaves {span_words(one.delay_s)} after its slot's end at the earliest",
            f"最早在时段结束 {span_words(one.delay_s)} 后外发",
        )
    if isinstance(one, Rule) and one.pseudonym_s:
        yield tr(
            f"replaced by a pseudonym that changes every {span_words(one.pseudonym_s)}",
            f"以假名代替，每{span_words(one.pseudonym_s)}更换",
        )


def _aggregate(rule: Rule, slot: str) -> str:
    words = {
        "last": tr(f"of every {slot}, only the last value", f"每{slot}只取最后一个值"),
        "delta": tr(f"of every {slot}, only what the counter rose by", f"每{slot}只取计数器增量"),
        "state": tr(
            f"of every {slot}, the seconds in each state and the state at its end",
            f"每{slot}各状态的秒数及时段末状态",
        ),
        "mean": tr(f"of every {slot}, only the mean", f"每{slot}只取均值"),
        "sum": tr(f"of every {slot}, only the sum", f"每{slot}只取总和"),
        "min": tr(f"of every {slot}, only the lowest value", f"每{slot}只取最小值"),
        "max": tr(f"of every {slot}, only the highest value", f"每{slot}只取最大值"),
    }
    return words[rule.aggregate]


def _seen(policy: CompiledPolicy, one: Rule | Derivation) -> Iterator[str]:
    terms = policy.consumers[one.consumer]
    days = one.retention_days or terms.retention_days
    yield tr(f"  The brain ({terms.id}) sees:", f"  接收方（{terms.id}）看到：")
    lines = lines_of(policy)
    numbers = range(one.number, one.number + one.width)
    for number in list(numbers)[:_MOST_NUMBERS]:
        line = lines[number]
        unit = f", {line.unit}" if line.unit else ""
        yield f"    {number}: {line.public_name}{unit}"
    yield tr(
        f"    class {one.class_raw} → {one.class_released}; kept for {days} days at most; never the name, "
        "address or raw value",
        f"    级别 {one.class_raw} → {one.class_released}；最多保存 {days} 天；绝无点名、地址与原始值",
    )


def _withheld(name: str, model: Model, *, secret: bool) -> str:
    judged = judge(model, [(AMOUNT, name), (MOMENT, name)])
    lines = [
        tr(
            f"{name}: stays in the factory" + (", and is declared a secret" if secret else ""),
            f"{name}：留在厂内" + ("，且已声明为秘密" if secret else ""),
        )
    ]
    lines += [
        tr(
            f"  but {quantity_words(found.unknown)} follows every {span_words(found.window_s)}: "
            f"{found.words()}",
            f"  但{quantity_words(found.unknown)}每{span_words(found.window_s)}可推出：{found.words()}",
        )
        for found in judged.disclosed.values()
    ]
    return "\n".join(lines)


def _secrets(model: Model) -> str:
    judged = judge(model)
    lines = [tr("Secrets:", "秘密：")]
    for unknown, found in judged.disclosed.items():
        lines.append(
            tr(
                f"  ✗ {quantity_words(unknown)} FOLLOWS every {span_words(found.window_s)}: {found.words()}",
                f"  ✗ {quantity_words(unknown)}每{span_words(found.window_s)}可推出：{found.words()}",
            )
        )
    lines += [f"  ✓ {line}" for line in _why_hidden(model, judged)]
    return "\n".join(lines)


def _why_hidden(model: Model, judged: Judged) -> Iterator[str]:
    """Yield for each secret why it does not follow; quantities that nothing tells of are left out."""
    named = {name for one in model.relations for name in one.terms}
    named |= {name for one, _ in model.products for name in one.terms}
    told = {one.unknown[0] for one in model.statistics}
    for unknown, witness in judged.hidden.items():
        quiet = unknown[0] == MOMENT and MOMENT not in told
        if unknown not in named or quiet:
            continue
        change = _change_words(unknown, witness, product=unknown in judged.multiplied)
        yield tr(
            f"{quantity_words(unknown)} does not follow: {change}, and everything "
            "that leaves would stay the same",
            f"{quantity_words(unknown)}无法推出：{change}，外发内容完全不变",
        )
    for point in model.secrets:
        if not any((quantity, point) in named for quantity in (AMOUNT, MOMENT)) and not any(
            name[1] == point for name in named
        ):
            yield tr(
                f"{point}: is not released, and no relation names it",
                f"{point}：未放行，也没有关系涉及它",
            )


def _signed(share: Fraction) -> str:
    return f"+{share}" if share > 0 else f"−{-share}"


def _times(power: Fraction) -> str:
    """Return by what a factor changes when the secret doubles."""
    if power.denominator > 1:
        return f"× 2^{power}"
    return f"× {Fraction(2) ** int(power)}"


def _change_words(unknown: Unknown, witness: Mapping[Unknown, Fraction], *, product: bool) -> str:
    changes = dict(witness)
    size = changes.get(unknown, Fraction(1))
    others = [
        f"{name[1]} {_times(share / size) if product else _signed(share / size)}"
        for name, share in sorted(changes.items())
        if name != unknown
    ]
    if not others:
        return tr("it could be anything", "它可以是任意值")
    words = ", ".join(others[:4]) + (" …" if len(others) > 4 else "")
    if product:
        return tr(f"it could be twice as large with {words}", f"它可以加倍，同时 {words}")
    return tr(f"it could be 1 higher with {words}", f"它可以增加 1，同时 {words}")

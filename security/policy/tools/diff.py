"""`policy diff`: in plain words, what becomes newly visible, and what no longer is."""

from collections.abc import Iterator
from dataclasses import dataclass

from protocols.language import tr
from security.policy.compiled import CompiledPolicy, Derivation, Rule
from security.policy.tools.lines import Line, amount, band_text, lines_of, once, span_words
from security.policy.widening import Widening, widens


@dataclass(frozen=True, slots=True)
class Difference:
    """What a new version changes for those who see what leaves.

    Attributes:
        visible: what becomes newly visible, one sentence each.
        hidden: what is no longer visible.
        widening: the machine's own reasons; what decides how many officers must sign.
    """

    visible: tuple[str, ...]
    hidden: tuple[str, ...]
    widening: tuple[Widening, ...]


def compare(old: CompiledPolicy | None, new: CompiledPolicy) -> Difference:
    """Compare two versions."""
    wider = widens(old, new)
    narrower = [] if old is None else widens(new, old)
    return Difference(
        visible=tuple(_sentence(one, old, new) for one in wider),
        hidden=tuple(_narrowed(old, new, narrower)),
        widening=tuple(wider),
    )


def _sentence(one: Widening, old: CompiledPolicy | None, new: CompiledPolicy) -> str:
    mine = _find(new, one.number)
    if one.kind == "new-point" and mine is not None:
        said = how(mine, new)
        return tr(f"{_named(mine)}: {one.text}: {said}", f"{_named(mine)}：{one.text}：{said}")
    change = _change(_find(old, one.number), mine)
    name = _named(mine) if mine is not None else one.where or tr("the whole policy", "整个策略")
    return tr(f"{name}: {one.text}{change}", f"{name}：{one.text}{change}")


def _narrowed(
    old: CompiledPolicy | None, new: CompiledPolicy, narrower: list[Widening]
) -> Iterator[str]:
    """Say what `old` let out beyond `new`: seen from there it would be widening."""
    for one in narrower:
        before, now = _find(old, one.number), _find(new, one.number)
        if one.kind == "new-point" and before is not None:
            yield tr(f"{_named(before)}: leaves no more", f"{_named(before)}：不再外发")
            continue
        name = (
            _named(before)
            if before is not None
            else one.where or tr("the whole policy", "整个策略")
        )
        yield f"{name}{tr(': ', '：')}{_NARROW.get(one.kind, _less)()}{_change(before, now)}"


def _less() -> str:
    return tr("tells less than before", "透露得比此前少")


_NARROW = {
    "shorter-window": lambda: tr("has a longer slot", "时段变长"),
    "finer-rounding": lambda: tr("is rounded more coarsely, or otherwise", "精度变粗或网格不同"),
    "shorter-delay": lambda: tr("leaves later", "延迟变长"),
    "wider-clamp": lambda: tr("is clamped more", "截断收紧"),
    "longer-retention": lambda: tr("may be kept for a shorter time", "保存期限变短"),
    "longer-validity": lambda: tr("is valid for a shorter time", "有效期变短"),
    "resumed": lambda: tr("everything is stopped", "全部停止外发"),
    "new-consumer": lambda: tr("gets nothing any more", "不再接收任何数据"),
    "fewer-samples": lambda: tr("needs more samples", "最少样本数提高"),
    "weaker-secret": lambda: tr("is guarded as a secret", "作为秘密受到保护"),
    "weaker-relation": lambda: tr("a relation is declared for the lint", "为检查声明了关系"),
    "lower-class": lambda: tr("is protected by a higher class", "级别提高"),
    "higher-ceiling": lambda: tr("the class ceiling falls", "级别上限降低"),
    "larger-budget": lambda: tr("has a smaller leak budget", "外发额度变小"),
    "other-label": lambda: tr("has another public label", "公开标签改变"),
    "other-source": lambda: tr("comes from another source", "来源改变"),
    "other-consumer": lambda: tr("goes to another consumer", "改发其他接收方"),
    "other-key": lambda: tr("has another receipt key", "回执密钥已更换"),
    "other-purpose": lambda: tr("may use it for another purpose", "用途改变"),
    "other-right": lambda: tr("refers to another right", "权利依据改变"),
}


def _find(policy: CompiledPolicy | None, number: int) -> Rule | Derivation | None:
    if policy is None or not number:
        return None
    return _by_number(policy).get(number)


@once
def _by_number(policy: CompiledPolicy) -> dict[int, Rule | Derivation]:
    return {one.number: one for one in policy.leaving}


def _named(one: Rule | Derivation) -> str:
    return f"#{one.number} {one.source}"


def how(one: Rule | Derivation, policy: CompiledPolicy) -> str:
    """Return in one line how something leaves and to whom."""
    kind = one.formula if isinstance(one, Derivation) else one.aggregate
    span = span_words(one.window_s)
    return tr(", ", "，").join(
        [
            tr(f"{kind} every {span}", f"每{span}的 {kind}"),
            grid_words(one, policy),
            tr(
                f"to {policy.consumers[one.consumer].id} as {one.equipment}",
                f"以 {one.equipment} 之名发给 {policy.consumers[one.consumer].id}",
            ),
        ]
    )


def grid_words(one: Rule | Derivation, policy: CompiledPolicy) -> str:
    """Return how coarse something leaves."""
    line = lines_of(policy)[one.number + (1 if getattr(one, "aggregate", "") == "state" else 0)]
    return _coarseness(one, line)


def _coarseness(one: Rule | Derivation, line: Line | None) -> str:
    if one.bands:
        edges = list(one.bands)
        words = [band_text(edges, one.bands_exponent, at) for at in range(len(edges) + 1)]
        return tr("as one of ", "仅为以下之一：") + " / ".join(words)
    unit = "" if line is None else line.unit
    step = f"{amount(one.step, one.exponent)} {unit}".rstrip()
    return tr(f"to {step}", f"精确到 {step}")


def _change(old: Rule | Derivation | None, new: Rule | Derivation | None) -> str:
    """Return the figures that changed, in brackets; empty for none."""
    if old is None or new is None:
        return ""
    parts = []
    if old.window_s != new.window_s:
        parts.append(f"{span_words(old.window_s)} → {span_words(new.window_s)}")
    grids = _coarseness(old, None), _coarseness(new, None)
    if grids[0] != grids[1]:
        parts.append(f"{grids[0]} → {grids[1]}")
    if old.delay_s != new.delay_s:
        parts.append(
            tr(
                f"delay {span_words(old.delay_s)} → {span_words(new.delay_s)}",
                f"延迟 {span_words(old.delay_s)} → {span_words(new.delay_s)}",
            )
        )
    return tr(f" ({'; '.join(parts)})", f"（{'；'.join(parts)}）") if parts else ""


def measures(policy: CompiledPolicy) -> list[tuple[str, str]]:
    """Return what GB/T 43697-2024 grades data by: precision, scale, depth and coverage."""
    numbers = sum(one.width for one in policy.leaving)
    rows = sum(one.width * (86_400 // one.window_s) for one in policy.leaving)
    shortest = min((one.window_s for one in policy.leaving), default=0)
    return [
        (tr("scale: numbers", "规模：编号数"), str(numbers)),
        (tr("scale: values a day", "规模：每日值数"), str(rows)),
        (
            tr("depth: shortest slot", "深度：最短时段"),
            span_words(shortest) if shortest else "–",
        ),
        (
            tr("coverage: points", "覆盖度：点数"),
            str(len({one.source for one in policy.leaving})),
        ),
        (tr("consumers", "接收方"), str(len({one.consumer for one in policy.leaving}))),
    ]


def as_text(found: Difference, old: CompiledPolicy | None, new: CompiledPolicy) -> str:
    """Return a difference as text."""
    before = tr("nothing", "无") if old is None else str(old.version)
    lines = [tr(f"version {before} → version {new.version}", f"版本 {before} → 版本 {new.version}")]
    lines += ["", tr("Becomes newly visible:", "新增可见：")]
    lines += [f"  + {one}" for one in found.visible] or [tr("  nothing", "  无")]
    lines += ["", tr("No longer visible, or less:", "不再可见，或可见得更少：")]
    lines += [f"  - {one}" for one in found.hidden] or [tr("  nothing", "  无")]
    lines.append("")
    old_measures = dict(measures(old)) if old is not None else {}
    for name, value in measures(new):
        was = old_measures.get(name)
        change = f"{value}" if was in {None, value} else f"{was} → {value}"
        lines.append(name + tr(": ", "：") + change)
    return "\n".join(lines)

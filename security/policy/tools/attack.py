"""`policy attack`: tries to find the secrets out from what would leave, on the firm's own past.

Each attack sees only the rows that the gate let out, the declared relations and the ranges that the
policy states. What it finds is then compared with the truth, which it does not see.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import lcm
from typing import Final

import numpy as np

from protocols.frame import SECOND
from protocols.language import tr
from security.policy.compiled import CompiledPolicy, Rule
from security.policy.tools.activity import BINS, information, works_in
from security.policy.tools.enclosing import enclosure, related, slacks
from security.policy.tools.inference import Disclosure, judge
from security.policy.tools.intervals import Range, TooLarge
from security.policy.tools.lines import span_words
from security.policy.tools.model import AMOUNT, MOMENT, Model, Unknown, build
from security.policy.tools.past import Past
from security.policy.tools.playback import Played, play
from security.policy.tools.rebuilding import (
    at_moments,
    coarsened,
    combine,
    is_counter,
    sorted_column,
    true_series,
)
from security.policy.words import STATISTICS

_SLOTS_ENCLOSED: Final = 12
_DEFAULT_PERCENT: Final = Fraction(5)


@dataclass(frozen=True, slots=True)
class Result:
    """What one attack found out.

    Attributes:
        name: `differencing`, `averaging`, `overlap`, `samples`, `enclosing` or `activity`.
        target: the secret, or the point.
        succeeded: whether it found out what is secret; None where it is only an estimate.
        what: for people. It tells how closely, never a value of the past.
    """

    name: str
    target: str
    succeeded: bool | None
    what: str


@dataclass(frozen=True, slots=True)
class _Stage:
    """What the attacks play on."""

    policy: CompiledPolicy
    past: Past
    played: Played
    model: Model


def attack(
    policy: CompiledPolicy,
    past: Past,
    ranges: Mapping[str, tuple[Fraction, Fraction]] | None = None,
) -> list[Result]:
    """Try everything; the attacks that succeeded come first."""
    stage = _Stage(policy, past, play(policy, past), build([policy]))
    found = [
        *_differencing(stage),
        *_overlap(stage),
        *_samples(stage),
        *_enclosing(stage, ranges or {}),
        *_activity(stage),
    ]
    return sorted(found, key=lambda one: (not one.succeeded, one.succeeded is None, one.target))


# Differencing: secondary suppression, by the combination that the lint proves.


def _differencing(stage: _Stage) -> Iterator[Result]:
    judged = judge(stage.model)
    for unknown, found in judged.disclosed.items():
        if unknown[0] not in {AMOUNT, MOMENT} or found.product:
            yield Result(
                "differencing",
                unknown[1],
                succeeded=True,
                what=tr(
                    f"follows by proof every {span_words(found.window_s)}: {found.words()}",
                    f"可证明每{span_words(found.window_s)}推出：{found.words()}",
                ),
            )
            continue
        yield from _rebuilt(stage, unknown, found)


def _rebuilt(stage: _Stage, unknown: Unknown, found: Disclosure) -> Iterator[Result]:
    estimate = combine(stage.policy, stage.played, found)
    truth = true_series(stage.past, unknown, found.window_s)
    common = sorted(estimate.keys() & truth.keys())
    if not common:
        return
    mine = np.array([estimate[slot] for slot in common])
    real = np.array([truth[slot] for slot in common])
    size = float(np.mean(np.abs(real))) or 1.0
    each = float(np.mean(np.abs(mine - real))) / size
    mean = abs(float(np.mean(mine - real))) / size
    limit = float(_percent(stage.policy, unknown[1])) / 100
    yield Result(
        "differencing",
        unknown[1],
        each <= limit,
        tr(
            f"rebuilt in {len(common)} slots of {span_words(found.window_s)}, off by {each:.2%} on average: "
            f"{found.words()}",
            f"在 {len(common)} 个{span_words(found.window_s)}时段中重建，平均误差 {each:.2%}：{found.words()}",
        ),
    )
    if each > limit or len(common) > 1:
        yield Result(
            "averaging",
            unknown[1],
            mean <= limit,
            tr(
                f"its mean over {len(common)} slots is off by {mean:.3%} only: rounding averages out",
                f"{len(common)} 个时段的均值误差仅 {mean:.3%}：取整误差相互抵消",
            ),
        )


def _percent(policy: CompiledPolicy, point: str) -> Fraction:
    found = next(
        (Fraction(one.protect) for one in policy.secrets if one.point == point), Fraction(0)
    )
    return found or _DEFAULT_PERCENT


# Overlap: two slot lengths of one point that cut each other.


def _overlap(stage: _Stage) -> Iterator[Result]:
    by_source: dict[str, list[Rule]] = {}
    for rule in stage.policy.rules:
        if rule.aggregate in {"mean", "sum", "delta"}:
            by_source.setdefault(rule.source, []).append(rule)
    for source, rules in by_source.items():
        for short in rules:
            for long in rules:
                if short.window_s < long.window_s and long.window_s % short.window_s:
                    yield _cut(stage, source, short, long)


def _cut(stage: _Stage, source: str, short: Rule, long: Rule) -> Result:
    """Rebuild the pieces between neighbouring boundaries of both kinds of slots."""
    pieces: dict[tuple[int, int], float] = {}
    common = lcm(short.window_s, long.window_s)
    totals = {rule.window_s: _totals(stage, rule) for rule in (short, long)}
    for start in _common_starts(totals, common):
        known = {start: 0.0}
        for window_s, values in totals.items():
            running = 0.0
            for at in range(start, start + common, window_s):
                running += values[at // window_s]
                known[at + window_s] = running
        moments = sorted(known)
        pieces |= {
            (before, after): known[after] - known[before]
            for before, after in pairwise(moments)
            if after - before < short.window_s
        }
    errors = []
    for (before, after), value in pieces.items():
        truth = _true_total(stage.past, short, before, after)
        if truth is not None:
            errors.append(abs(value - truth) / (abs(truth) or 1.0))
    off = float(np.mean(errors)) if errors else 1.0
    shortest = min((after - before for before, after in pieces), default=0)
    words = span_words(short.window_s), span_words(long.window_s)
    return Result(
        "overlap",
        source,
        bool(errors) and off <= float(_DEFAULT_PERCENT) / 100,
        tr(
            f"{len(errors)} pieces of down to {span_words(shortest)} were cut out of slots of {words[0]} "
            f"and {words[1]}, off by {off:.2%} on average",
            f"由{words[0]}与{words[1]}的时段相减得到 {len(errors)} 个短至{span_words(shortest)}的片段，"
            f"平均误差 {off:.2%}",
        ),
    )


def _totals(stage: _Stage, rule: Rule) -> dict[int, float]:
    values = coarsened(rule, stage.played.released, rule.window_s)
    scale = rule.window_s if rule.aggregate == "mean" else 1
    return {slot: value * scale for slot, value in values.items()}


def _common_starts(totals: Mapping[int, Mapping[int, float]], common: int) -> list[int]:
    """Return where both kinds of slots begin together and all of them left."""
    starts = {
        slot * window_s
        for window_s, values in totals.items()
        for slot in values
        if slot * window_s % common == 0
    }
    return [
        start
        for start in sorted(starts)
        if all(
            start // window_s + at in values
            for window_s, values in totals.items()
            for at in range(common // window_s)
        )
    ]


def _true_total(past: Past, rule: Rule, before_s: int, after_s: int) -> float | None:
    time, values = sorted_column(past, rule.device, rule.point)
    begin, end = before_s * SECOND, after_s * SECOND
    if rule.aggregate == "delta":
        first, last = at_moments(time, values, np.array([begin, end], np.int64)).tolist()
        return float(last - first)
    inside = values[np.searchsorted(time, begin) : np.searchsorted(time, end)]
    if not len(inside):
        return None
    return float(inside.sum() if rule.aggregate == "sum" else inside.mean() * (after_s - before_s))


# Degrees of freedom: as many statistics as samples give the samples.


def _samples(stage: _Stage) -> Iterator[Result]:
    groups: dict[tuple[str, int], dict[str, Rule]] = {}
    for rule in stage.policy.rules:
        if rule.aggregate in STATISTICS:
            groups.setdefault((rule.source, rule.window_s), {})[rule.aggregate] = rule
    for (source, window_s), rules in groups.items():
        yield _solved(stage, source, window_s, rules)


def _solved(stage: _Stage, source: str, window_s: int, rules: Mapping[str, Rule]) -> Result:
    """Solve for the samples of every slot that has no more of them than can be solved for."""
    series = {
        kind: coarsened(rule, stage.played.released, window_s) for kind, rule in rules.items()
    }
    device, _, point = source.partition("/")
    time, values = sorted_column(stage.past, device, point)
    index = time // (window_s * SECOND)
    step = max(float(Fraction(r.step) * Fraction(10) ** r.exponent) for r in rules.values())
    slots, solved = set.union(set(), *series.values()), 0
    for slot in slots:
        inside = np.sort(values[np.searchsorted(index, slot) : np.searchsorted(index, slot + 1)])
        guess = _solve({k: v[slot] for k, v in series.items() if slot in v}, len(inside))
        if guess is not None and np.allclose(guess, inside, rtol=0, atol=2 * step):
            solved += 1
    return Result(
        "samples",
        source,
        solved > 0,
        tr(
            f"every single sample was found in {solved} of {len(slots)} slots of {span_words(window_s)}",
            f"在 {len(slots)} 个{span_words(window_s)}时段中，有 {solved} 个的全部样本被还原",
        ),
    )


def _solve(told: Mapping[str, float], count: int) -> list[float] | None:
    """Return the samples in rising order; None where there are too many of them."""
    low, high = told.get("min"), told.get("max")
    total = told.get("sum", told["mean"] * count if "mean" in told else None)
    if count == 1:
        return [next(iter(told.values()))] if told else None
    if count == 2 and low is not None and high is not None:
        return [low, high]
    if count == 2 and total is not None and (low is not None or high is not None):
        one = low if low is not None else high
        return sorted([one, total - one]) if one is not None else None
    if count == 3 and low is not None and high is not None and total is not None:
        return [low, total - low - high, high]
    return None


# Enclosing, by linear programming on the true values.


def _enclosing(stage: _Stage, ranges: Mapping[str, tuple[Fraction, Fraction]]) -> Iterator[Result]:
    judged = judge(stage.model)
    for secret in stage.policy.secrets:
        for quantity in (AMOUNT, MOMENT):
            unknown = (quantity, secret.point)
            group = related(stage.model, unknown)
            if unknown not in judged.disclosed and group:
                yield from _enclosed(stage, unknown, ranges)


def _enclosed(
    stage: _Stage, unknown: Unknown, ranges: Mapping[str, tuple[Fraction, Fraction]]
) -> Iterator[Result]:
    group = related(stage.model, unknown)
    names = sorted({name for one in group for name in one.terms})
    window_s = max(
        (one.window_s for one in stage.model.statistics if one.unknown in names), default=0
    )
    points = {name[1].partition("/")[::2] for name in names}
    if not window_s or any(device not in stage.past.tables for device, _ in points):
        return
    truths = {name: true_series(stage.past, name, window_s) for name in names}
    common = sorted(set.intersection(*(set(found) for found in truths.values())))
    bounds = {name: _bounds(stage, name, ranges) for name in names}
    widths, within = [], 0
    percent = _percent(stage.policy, unknown[1])
    for slot in common[:: max(1, len(common) // _SLOTS_ENCLOSED)][:_SLOTS_ENCLOSED]:
        truth = {name: Fraction(truths[name][slot]).limit_denominator(10**6) for name in names}
        if any(not _inside(truth[name], bounds[name]) for name in names):
            continue
        try:
            found = enclosure(unknown, group, slacks(stage.model), bounds, truth)
        except TooLarge as fault:
            yield Result("enclosing", unknown[1], None, fault.what)
            return
        within += found.within(percent)
        if found.low is not None and found.high is not None and found.truth:
            widths.append(float((found.high - found.low) / 2 / abs(found.truth)))
    if not widths:
        what = tr("it is not bounded by what leaves", "外发内容不能限定其范围")
        yield Result("enclosing", unknown[1], succeeded=False, what=what)
        return
    yield Result(
        "enclosing",
        unknown[1],
        within > 0,
        tr(
            f"enclosed to ± {min(widths):.1%} at best, ± {np.mean(widths):.1%} on average, in slots of "
            f"{span_words(window_s)}; protected are ± {float(percent):g} %",
            f"在{span_words(window_s)}时段中最紧限定为 ±{min(widths):.1%}，平均 ±{np.mean(widths):.1%}；"
            f"保护要求 ±{float(percent):g}%",
        ),
    )


def _bounds(stage: _Stage, name: Unknown, ranges: Mapping[str, tuple[Fraction, Fraction]]) -> Range:
    device, _, point = name[1].partition("/")
    if is_counter(stage.past, device, point):
        # A counter never falls; its range is of its readings.
        return Range(Fraction(0), None)
    return Range(*ranges[name[1]]) if name[1] in ranges else Range(None, None)


def _inside(value: Fraction, span: Range) -> bool:
    above = span.low is None or value >= span.low
    return above and (span.high is None or value <= span.high)


# Activity: how much of when a machine works can be read from a series.


def _activity(stage: _Stage) -> Iterator[Result]:
    for rule in stage.policy.rules:
        if rule.device not in stage.past.tables or rule.aggregate == "state":
            continue
        series = coarsened(rule, stage.played.released, rule.window_s)
        works = works_in(stage.past, rule)
        common = sorted(series.keys() & works.keys())
        if len(common) < 4 * BINS:
            continue
        share = information(
            np.array([series[slot] for slot in common]), np.array([works[slot] for slot in common])
        )
        if share is not None:
            yield Result(
                "activity",
                rule.source,
                None,
                tr(
                    f"#{rule.number} tells about {share:.0%} of when the machine works "
                    f"(mutual information, {len(common)} slots)",
                    f"#{rule.number} 透露了约 {share:.0%} 的开工时间信息（互信息，{len(common)} 个时段）",
                ),
            )


def as_text(results: Sequence[Result]) -> str:
    """Return results as text."""
    if not results:
        return tr(
            "There was nothing to attack: no secret is related to anything that leaves.",
            "没有可攻击的对象：没有秘密与外发内容相关。",
        )
    marks = {True: "✗", False: "✓", None: "·"}
    names = {
        "differencing": tr("differencing", "差分"),
        "averaging": tr("averaging", "平均"),
        "overlap": tr("overlapping slots", "时段重叠"),
        "samples": tr("few samples", "样本过少"),
        "enclosing": tr("enclosing", "区间限定"),
        "activity": tr("activity", "开工推断"),
    }
    lines = [
        f"{marks[one.succeeded]} {one.target} – {names[one.name]}{tr(': ', '：')}{one.what}"
        for one in results
    ]
    won = sum(bool(one.succeeded) for one in results)
    lines.append(
        tr(
            f"{won} attack(s) succeeded. What failed here may succeed with other knowledge.",
            f"{won} 项攻击得手。此处未得手者，在他人掌握其他知识时仍可能得手。",
        )
    )
    return "\n".join(lines)

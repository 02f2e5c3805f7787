"""`policy lint`: what a policy lets out beyond what its officer may think.

Each rule is a function that yields findings; the list at the end is the whole lint. An error keeps a
policy from being signed without a stated reason.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from protocols.language import tr
from protocols.points import PointTable
from protocols.settings import KeyPath
from protocols.vocabulary.measurands import MEASURANDS, Kind
from security.policy.compiled import CompiledPolicy, Input, Rule
from security.policy.language import PolicyText
from security.policy.sources import differences
from security.policy.tools.deny import sounds_secret
from security.policy.tools.enclosing import enclosed
from security.policy.tools.findings import Finding, Severity
from security.policy.tools.inference import Judged, judge, quantity_words
from security.policy.tools.lines import span_words
from security.policy.tools.model import Model, build
from security.policy.words import STATISTICS

SAMPLES_PER_STATISTIC: Final = 10
_ACTIVITY_S: Final = 3600
_TIME_UNITS: Final = ("s", "ms", "min", "h")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is linted.

    Attributes:
        text: as the officer wrote it; None where only the signed form is there.
        policy: the same, compiled.
        retained: older versions whose releases may still be kept.
        model, judged: what an analyst has, and what follows from it.
        places: key path in the text of every point and derivation, by name.
        secret_places: the same of every secret, by its point.
        tables: the configured points by device; None where they are not known.
    """

    text: PolicyText | None
    policy: CompiledPolicy
    retained: tuple[CompiledPolicy, ...]
    model: Model
    judged: Judged
    places: Mapping[str, KeyPath]
    secret_places: Mapping[str, KeyPath]
    tables: Mapping[str, PointTable] | None

    @staticmethod
    def of(
        policy: CompiledPolicy,
        text: PolicyText | None = None,
        retained: Sequence[CompiledPolicy] = (),
        tables: Mapping[str, PointTable] | None = None,
    ) -> "Subject":
        """Build the model and judge it."""
        model = build([policy, *retained])
        places: dict[str, KeyPath] = {}
        guarded: dict[str, KeyPath] = {
            one.point: ("secret", at) for at, one in enumerate(policy.secrets)
        }
        if text is not None:
            # A point comes before a derivation of the same name.
            places = {one.name: ("derive", at) for at, one in enumerate(text.derive)}
            places |= {one.name: ("point", at) for at, one in enumerate(text.point)}
            guarded = {one.point: ("secret", at) for at, one in enumerate(text.secret)}
        return Subject(text, policy, tuple(retained), model, judge(model), places, guarded, tables)

    @property
    def versions(self) -> list[CompiledPolicy]:
        """The policy and all that may still be kept."""
        return [self.policy, *self.retained]

    def place(self, source: str) -> KeyPath:
        """Return the key path of a point or a derivation in the text."""
        return self.places.get(source, (source,))

    def secret_place(self, source: str) -> KeyPath:
        """Return the key path of a secret in the text."""
        return self.secret_places.get(source) or self.place(source.partition(".")[0])


def lint(subject: Subject) -> list[Finding]:
    """Return all findings, the worst first."""
    found = [finding for rule in _RULES for finding in rule(subject)]
    return sorted(found, key=lambda one: (-one.severity, [str(key) for key in one.place]))


def _derivable(subject: Subject) -> Iterator[Finding]:
    """A secret follows exactly from what is released."""
    for unknown, found in subject.judged.disclosed.items():
        direct = len(found.combination) == 1 and not found.product
        words = quantity_words(unknown)
        yield Finding(
            "released-secret" if direct else "derivable",
            Severity.ERROR,
            subject.secret_place(unknown[1]),
            tr(
                f"{words} follows every {span_words(found.window_s)}: it is {found.words()}",
                f"{words}每{span_words(found.window_s)}都可推出：等于 {found.words()}",
            ),
            tr(
                "withhold one of these, or one more part of the relation, so that two stay unknown; rounding "
                "more coarsely or longer slots do not help: they average out, or give it less often",
                "请不放行其中一项，或再保留关系中的另一项，使至少两项未知；加大 round 或加长时段无济于事："
                "前者可相互平均，后者只是推出得慢一些",
            ),
        )


def _enclosed(subject: Subject) -> Iterator[Finding]:
    """A secret is enclosed more narrowly than its protection."""
    ranges = ranges_of(subject.text)
    for secret in subject.policy.secrets:
        if Fraction(secret.protect) > 0:
            yield from enclosed(subject.model, subject.judged, secret, ranges, subject.secret_place)


def ranges_of(text: PolicyText | None) -> dict[str, tuple[Fraction, Fraction]]:
    """Return where values lie; the range of a counter is of its readings and says nothing here."""
    rules = [] if text is None else text.point
    return {
        rule.name: (Fraction(rule.range[0]), Fraction(rule.range[1]))
        for rule in rules
        if rule.range and MEASURANDS[rule.measurand].kind in {Kind.GAUGE, Kind.OTHER}
    }


def _overlapping(subject: Subject) -> Iterator[Finding]:
    """Slots of one point that cut each other give pieces shorter than both."""
    windows: dict[str, dict[int, str]] = defaultdict(dict)
    for policy in subject.versions:
        for one in policy.leaving:
            windows[one.source].setdefault(one.window_s, f"v{policy.version} #{one.number}")
    for source, found in windows.items():
        lengths = sorted(found)
        for at, short in enumerate(lengths):
            long = next((w for w in lengths[at + 1 :] if w % short), None)
            if long is not None:
                yield Finding(
                    "overlapping-slots",
                    Severity.ERROR,
                    subject.place(source),
                    tr(
                        f"{source} leaves every {span_words(short)} ({found[short]}) and every "
                        f"{span_words(long)} ({found[long]}): their differences are shorter slots",
                        f"{source} 既按 {span_words(short)}（{found[short]}）又按 "
                        f"{span_words(long)}（{found[long]}）外发：相减可得更短时段的值",
                    ),
                    tr("let one length divide the other", "请使一个时段整除另一个"),
                )


def _too_few_samples(subject: Subject) -> Iterator[Finding]:
    """Few samples and several statistics give the samples themselves."""
    rules: dict[str, list[Rule]] = defaultdict(list)
    for policy in subject.versions:
        for rule in policy.rules:
            if rule.aggregate in STATISTICS:
                rules[rule.source].append(rule)
    for source, found in rules.items():
        kinds = {(rule.aggregate, rule.window_s) for rule in found}
        need = SAMPLES_PER_STATISTIC * len(kinds)
        least = min(rule.min_samples for rule in found)
        if least < need:
            yield Finding(
                "too-few-samples",
                Severity.ERROR,
                subject.place(source),
                tr(
                    f"{source}: {len(kinds)} statistic(s) may be of only {least} sample(s); "
                    "from few samples they give the samples themselves",
                    f"{source}：{len(kinds)} 个统计量可能只基于 {least} 个样本；样本少时可由统计量反推原值",
                ),
                f"min_samples = {need}",
            )


def _cycle_time(subject: Subject) -> Iterator[Finding]:
    """Run time and parts of the same slots give the mean cycle time."""
    totals = {
        rule.source: rule
        for rule in subject.policy.rules
        if rule.measurand in {"production.total", "production.good"}
    }
    states = [rule for rule in subject.policy.rules if rule.aggregate == "state"]
    for state in states:
        for source, total in totals.items():
            if state.device != total.device and state.equipment != total.equipment:
                continue
            severity = Severity.ERROR if _keeps_cycle(subject, state) else Severity.WARNING
            yield Finding(
                "cycle-time",
                severity,
                subject.place(source),
                tr(
                    f"#{state.number} (run time of {state.source}) divided by #{total.number} "
                    f"(parts, {source}) is the mean cycle time",
                    f"#{state.number}（{state.source} 的运行时间）除以 #{total.number}"
                    f"（件数，{source}）即平均节拍",
                ),
                tr(
                    "release a key figure of [[derive]] instead of one of them",
                    "请改用 [[derive]] 计算的指标代替其中一项",
                ),
            )


def _keeps_cycle(subject: Subject, state: Rule) -> bool:
    """Tell whether the firm says that the cycle time of this machine is its own."""
    units = {} if subject.text is None else {one.name: one.unit for one in subject.text.point}
    secret = any(
        name.partition("/")[0] == state.device and units.get(name, "") in _TIME_UNITS
        for name in subject.model.secrets
    )
    inputs = {
        f"{found.device}/{found.point}"
        for one in subject.policy.derived
        if one.constants
        for found in one.inputs
    }
    return secret or state.source in inputs


def _activity(subject: Subject) -> Iterator[Finding]:
    """Short slots show shifts, breaks and stoppages."""
    fast = [
        rule
        for rule in subject.policy.rules
        if rule.window_s < _ACTIVITY_S and (rule.aggregate == "state" or rule.delay_s == 0)
    ]
    if fast:
        names = ", ".join(f"#{rule.number}" for rule in fast[:5]) + (" …" if len(fast) > 5 else "")
        yield Finding(
            "activity",
            Severity.NOTE,
            ("point",),
            tr(
                f"{len(fast)} point(s) leave with slots shorter than an hour ({names}): shifts, breaks "
                "and stoppages can be read from them; 'policy attack' says how well",
                f"{len(fast)} 个点的时段短于一小时（{names}）：可由此看出班次、休息与停机；"
                "“policy attack”可给出程度",
            ),
        )


def _averaging(subject: Subject) -> Iterator[Finding]:
    """The mean of many momentary values is finer than their rounding."""
    for rule in subject.policy.rules:
        if rule.aggregate == "last" and not rule.pseudonym_s and MEASURANDS[rule.measurand].unit:
            steps = 86_400 // rule.window_s
            if steps >= 1440:
                yield Finding(
                    "averaging",
                    Severity.WARNING,
                    subject.place(rule.source),
                    tr(
                        f"#{rule.number} {rule.source}: {steps} momentary values a day; their mean is "
                        f"about {round(steps**0.5)} times finer than 'round'",
                        f"#{rule.number} {rule.source}：每天 {steps} 个瞬时值，其均值约比 round 精细 "
                        f"{round(steps**0.5)} 倍",
                    ),
                    tr(
                        "release a mean with longer slots, so that rounding comes last",
                        "请改为较长时段的均值，使取整在最后进行",
                    ),
                )


def _finer_elsewhere(subject: Subject) -> Iterator[Finding]:
    """What is coarse for one consumer is no protection when another gets it finely."""
    found: dict[tuple[str, str], list[Rule]] = defaultdict(list)
    for rule in subject.policy.rules:
        found[rule.source, rule.aggregate].append(rule)
    for (source, _), rules in found.items():
        consumers = {rule.consumer for rule in rules}
        sizes = {_fineness(rule) for rule in rules}
        if len(consumers) > 1 and len(sizes) > 1:
            yield Finding(
                "finer-elsewhere",
                Severity.WARNING,
                subject.place(source),
                tr(
                    f"{source} leaves to {len(consumers)} consumers at different coarseness; together "
                    "they have the finest",
                    f"{source} 以不同粗细发给 {len(consumers)} 个接收方；合在一起即为最细的一份",
                ),
            )


def _fineness(rule: Rule) -> tuple[int, Fraction, tuple[int, ...]]:
    step = Fraction(rule.step) * Fraction(10) ** rule.exponent
    return rule.window_s, step, tuple(rule.bands)


def _unguarded(subject: Subject) -> Iterator[Finding]:
    """Of a secret that no relation names nothing can follow that the lint would see."""
    related = {name for one in subject.model.relations for _, name in one.terms}
    inputs = {name for one, _ in subject.model.products for _, name in one.terms}
    for secret in subject.policy.secrets:
        if secret.point not in related | inputs and not secret.canary:
            yield Finding(
                "no-relation",
                Severity.NOTE,
                subject.secret_place(secret.point),
                tr(
                    f"no [[relation]] names {secret.point}: the lint knows only that it is not released",
                    f"没有 [[relation]] 涉及 {secret.point}：检查只能确认它未被放行",
                ),
                tr(
                    "declare what it adds up with, such as a total and its parts",
                    "请写明它与哪些点相加减，例如总量与分量",
                ),
            )


def _sounds_secret(subject: Subject) -> Iterator[Finding]:
    """Names that companion specifications give to recipes, orders, programs and assets."""
    for rule in subject.policy.rules:
        word = sounds_secret(f"{rule.point} {rule.address}")
        if word and not rule.pseudonym_s:
            yield Finding(
                "sounds-secret",
                Severity.WARNING,
                subject.place(rule.source),
                tr(
                    f"{rule.source} leaves, and its name has '{word}', as recipes, orders, programs, "
                    "set-points and serial numbers have",
                    f"{rule.source} 将外发，其名称含 '{word}'，多见于配方、订单、程序、设定值或序列号",
                ),
                tr(
                    "withhold it, or release an identity with 'pseudonymise'",
                    "请不放行；若为身份标识，请用 pseudonymise",
                ),
            )


def _origin_unsigned(subject: Subject) -> Iterator[Finding]:
    """A source of which only the device's local name is signed, not where it is."""
    names = [rule.source for rule in subject.policy.rules if not rule.origin]
    inputs = [one for found in subject.policy.derived for one in found.inputs if not one.origin]
    names += [f"{one.device}/{one.point}" for one in inputs]
    for name in dict.fromkeys(names):
        yield Finding(
            "origin-unsigned",
            Severity.WARNING,
            subject.place(name),
            tr(
                f"{name} has no 'origin': whoever may change agent.toml can let another device answer, or "
                "its bytes be read otherwise",
                f"{name} 没有 origin：能修改 agent.toml 的人可让别的设备应答，或改变字节的读法",
            ),
            tr(
                "take the line 'origin = …' from a fresh list ('millgate policy new … --out fresh.toml')",
                "请从新生成的清单中抄入 origin 一行（'millgate policy new … --out fresh.toml'）",
            ),
        )


def _configured(subject: Subject) -> Iterator[Finding]:
    """What agent.toml says otherwise: the agent would suspend the point."""
    if subject.tables is None:
        return
    sources: dict[str, Rule | Input] = {rule.source: rule for rule in subject.policy.rules}
    inputs = [one for found in subject.policy.derived for one in found.inputs]
    sources |= {f"{one.device}/{one.point}": one for one in inputs}
    places = {
        f"{device}/{point.id}": (table, at)
        for device, table in subject.tables.items()
        for at, point in enumerate(table.points)
    }
    for name, signed in sources.items():
        if name not in places:
            what = tr(f"{name}: agent.toml has no such point", f"{name}：agent.toml 中没有此点")
            yield _suspended(subject.place(name), what)
            continue
        for key, (here, there) in differences(signed, *places[name]).items():
            what = tr(
                f"{name}: {key} is '{here}' here and '{there}' in agent.toml",
                f"{name}：{key} 在此为 '{here}'，在 agent.toml 中为 '{there}'",
            )
            yield _suspended((*subject.place(name), key), what)


def _suspended(place: KeyPath, what: str) -> Finding:
    remedy = tr(
        "correct one of them: until then the agent suspends the point, and nothing of it leaves",
        "请更正其一：在此之前代理程序会挂起该点，不外发其任何数据",
    )
    return Finding("source-differs", Severity.WARNING, place, what, remedy)


def _nothing_guarded(subject: Subject) -> Iterator[Finding]:
    if subject.policy.leaving and not subject.policy.secrets:
        yield Finding(
            "no-secret",
            Severity.NOTE,
            (),
            tr(
                "no [[secret]] is declared, so there is nothing to look for in what leaves",
                "未声明任何 [[secret]]，因此无从检查可否推出秘密",
            ),
            tr("declare what must never be known", "请声明绝不能被得知的点"),
        )


def _no_budget(subject: Subject) -> Iterator[Finding]:
    for at, terms in enumerate(subject.policy.consumers):
        if not (terms.budget_rows or terms.budget_bytes or terms.budget_points):
            yield Finding(
                "no-budget",
                Severity.NOTE,
                ("consumer", at),
                tr(f"{terms.id} has no daily budget", f"{terms.id} 未设每日外发额度"),
                "budget = { rows = … }",
            )


def scope(subject: Subject) -> str:
    """Say what the verdict covers, and what it does not."""
    policy = subject.policy
    consumers = {
        p.consumers[one.consumer].encryption_key for p in subject.versions for one in p.leaving
    }
    return tr(
        f"Covered, exactly: {len(policy.secrets)} secret(s) and {len(subject.model.constants)} constant(s) "
        f"against everything that leaves ({len(subject.model.statistics)} statistics, "
        f"{len(subject.model.products)} key figures, {len(consumers)} consumer(s) taken as one, "
        f"{len(subject.versions)} version(s)), with {len(policy.relations)} declared linear relation(s) and "
        "the formulas of the vocabulary. Not covered: relations that are not declared, what others know "
        "from elsewhere, and inference that is not linear; 'policy attack' tries some of it on your own past.",
        f"检查范围（精确）：{len(policy.secrets)} 个秘密、{len(subject.model.constants)} 个常数，对照全部外发内容"
        f"（{len(subject.model.statistics)} 个统计量、{len(subject.model.products)} 个指标，"
        f"{len(consumers)} 个接收方视为一方，{len(subject.versions)} 个版本），"
        f"以及 {len(policy.relations)} 条已声明的线性关系和词表公式。不在范围内：未声明的关系、他人另行掌握的知识、"
        "非线性推断；其中一部分可用“policy attack”在企业自有历史数据上试验。",
    )


_RULES: Final[tuple[Callable[[Subject], Iterator[Finding]], ...]] = (
    _derivable,
    _enclosed,
    _overlapping,
    _too_few_samples,
    _cycle_time,
    _activity,
    _averaging,
    _finer_elsewhere,
    _unguarded,
    _sounds_secret,
    _origin_unsigned,
    _configured,
    _nothing_guarded,
    _no_budget,
)

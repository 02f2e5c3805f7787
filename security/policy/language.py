"""What a data officer writes: `policy.toml`.

Default deny: a point without `release` is withheld, and so is every point not listed.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from protocols.language import tr
from protocols.settings import Strict, load_settings
from protocols.vocabulary.elements import FROM_COUNTER, STATE, figure_of
from protocols.vocabulary.states import STATE_MODELS
from protocols.words import instead_of
from security.policy.authoring import expand
from security.policy.characters import check_file, check_values
from security.policy.clauses import (
    CLASSES,
    Consumer,
    Derive,
    Each,
    Grid,
    Outlet,
    PointRule,
    Previous,
    Relation,
    SecretPoint,
    width,
)

MOST_RELEASED: Final = 20_000
MOST_NUMBERS: Final = 40_000
"""How many points one policy may release, and how many numbers to one consumer: what is signed
must be small enough to be read again by the strict decoder."""

MOST_WAITING: Final = 250_000
"""How many values may wait in the gate for their delay to pass, or to be filled."""


class Leaving(NamedTuple):
    """One way in which something leaves.

    Attributes:
        name: `device/point`, or the name of a derivation.
        measurand: what it is.
        aggregate: such as `last`, or `derived`.
        statistic: what the brain tells its series by: the aggregate, or `band` or `pseudonym`.
        numbers: all that it takes on the wire.
    """

    name: str
    measurand: str
    aggregate: str
    statistic: str
    numbers: frozenset[int]
    outlet: Outlet


class PolicyText(Strict):
    """The whole policy.

    Attributes:
        version: larger than that of every policy before.
        previous: `sha256:` hash of the version before; empty for the first.
        valid_from, valid_until: outside of this time nothing leaves.
        class_ceiling: the highest data class that may leave.
        minimum_agent: an older agent enforces nothing of it.
        stop: nothing leaves at all; everything else stays as it is, to be resumed.
    """

    policy: Literal["mg-policy/1"]
    version: int = Field(ge=1, lt=1 << 31)
    previous: Previous = ""
    valid_from: datetime
    valid_until: datetime
    class_ceiling: Literal["general-1", "general-2", "general-3", "general-4"] = "general-2"
    minimum_agent: Annotated[str, Field(pattern=r"^([0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4})?$")] = ""
    stop: bool = False
    consumer: list[Consumer] = Field(min_length=1, max_length=16)
    point: list[PointRule] = Field(max_length=100_000)
    each: list[Each] = Field(default=[], max_length=1000)
    derive: list[Derive] = Field(default=[], max_length=1000)
    secret: list[SecretPoint] = Field(default=[], max_length=1000)
    relation: list[Relation] = Field(default=[], max_length=1000)

    @model_validator(mode="before")
    @classmethod
    def _expanded(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        check_values(data)
        return expand(data)

    @model_validator(mode="after")
    def _consistent(self) -> "PolicyText":
        faults = [
            *self._time_faults(),
            *self._reference_faults(),
            *self._derive_faults(),
            *self._secret_faults(),
            *self._class_faults(),
            *self._size_faults(),
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _time_faults(self) -> list[str]:
        if self.valid_from.tzinfo is None or self.valid_until.tzinfo is None:
            return [
                tr(
                    "valid_from and valid_until need a zone, such as Z or +08:00",
                    "valid_from、valid_until 须带时区，如 Z 或 +08:00",
                )
            ]
        if self.valid_from >= self.valid_until:
            return [tr("valid_until is not after valid_from", "valid_until 不晚于 valid_from")]
        return []

    def _reference_faults(self) -> list[str]:
        ids = [consumer.id for consumer in self.consumer]
        keys = {consumer.encryption_key for consumer in self.consumer}
        faults = []
        if len(set(ids)) < len(ids):
            faults.append(tr("two consumers have one id", "两个消费方标识相同"))
        if len(keys) < len(ids):
            faults.append(tr("two consumers have one encryption key", "两个消费方的加密密钥相同"))
        sources = [(rule.device, rule.point) for rule in self.point]
        if len(set(sources)) < len(sources):
            faults.append(tr("a point is listed twice", "有点被重复列出"))
        names = [one.name for one in self.derive]
        if len(set(names)) < len(names):
            faults.append(tr("two derivations have one name", "两个 derive 名称相同"))
        faults += self._label_faults()
        used: set[int] = set()
        for one in self.leaving():
            faults += self._outlet_faults(one, set(ids), used)
            used |= one.numbers
        return faults

    def _outlet_faults(self, one: Leaving, ids: set[str], used: set[int]) -> list[str]:
        faults = []
        if one.outlet.consumer not in ids:
            faults.append(_no_consumer(one, ids))
        if used & one.numbers:
            faults.append(
                tr(
                    f"{one.name}: its number is taken (a state takes nine)",
                    f"{one.name}：编号已被占用（状态占九个编号）",
                )
            )
        allowed = {consumer.id: consumer.retention_days for consumer in self.consumer}
        if (one.outlet.retention_days or 0) > allowed.get(one.outlet.consumer or "", 1 << 31):
            faults.append(
                tr(
                    f"{one.name}: retention_days is more than its consumer's",
                    f"{one.name}：retention_days 超过其消费方的期限",
                )
            )
        return faults

    def _label_faults(self) -> list[str]:
        """Two points of one consumer with the same public name would overwrite each other."""
        seen: set[tuple[str | None, str | None, str, str]] = set()
        faults = []
        for one in self.leaving():
            outlet = one.outlet
            name = (outlet.consumer, outlet.equipment, one.measurand, one.statistic)
            if name in seen:
                faults.append(
                    tr(
                        f"{one.name}: {outlet.equipment} {one.measurand} is released "
                        "already; give this one another equipment",
                        f"{one.name}：{outlet.equipment} {one.measurand} 已放行；请使用其他 equipment",
                    )
                )
            seen.add(name)
        return faults

    def _derive_faults(self) -> list[str]:
        points = {rule.name: rule for rule in self.point}
        faults = []
        for one in self.derive:
            for name, source in one.inputs.items():
                rule = points.get(source)
                if rule is None:
                    faults.append(_unlisted(f"derive {one.name}", source, points))
                elif not _is_input(rule, name):
                    fitting = ", ".join(FROM_COUNTER.get(name, ("machine.state",)))
                    faults.append(
                        tr(
                            f"derive {one.name}: {source} is not {fitting}",
                            f"derive {one.name}：{source} 不是 {fitting}",
                        )
                    )
        return faults

    def _secret_faults(self) -> list[str]:
        points = {rule.name: rule for rule in self.point}
        faults = []
        for secret in self.secret:
            rule = points.get(secret.point)
            if rule is None:
                faults.append(_unlisted("secret", secret.point, points))
            elif rule.release is not None:
                faults.append(
                    tr(
                        f"{secret.point}: it is declared a secret, and released",
                        f"{secret.point}：既声明为秘密又放行",
                    )
                )
        if len({secret.point for secret in self.secret}) < len(self.secret):
            faults.append(tr("a secret is declared twice", "有秘密被重复声明"))
        canaries = {secret.point for secret in self.secret if secret.canary}
        faults += [
            tr(
                f"derive {one.name}: a canary is no input",
                f"derive {one.name}：金丝雀点不得作为输入",
            )
            for one in self.derive
            if canaries & set(one.inputs.values())
        ]
        names = [relation.name for relation in self.relation]
        if len(set(names)) < len(names):
            faults.append(tr("two relations have one name", "两个 relation 名称相同"))
        faults += [
            _unlisted(f"relation {relation.name}", source, points)
            for relation in self.relation
            for _, source in relation.zero
            if source not in points
        ]
        return faults

    def _class_faults(self) -> list[str]:
        ceiling = CLASSES.index(self.class_ceiling)
        faults = []
        for one in self.leaving():
            classes = one.outlet.classes
            if classes is None or classes.released is None:
                continue
            raw, released = CLASSES.index(classes.raw), CLASSES.index(classes.released)
            if released > raw or released > ceiling or classes.raw in {"important", "core"}:
                faults.append(
                    tr(
                        f"{one.name}: its data class may not leave "
                        f"(ceiling {self.class_ceiling}; important and core data never)",
                        f"{one.name}：该数据级别不得外发"
                        f"（上限 {self.class_ceiling}；重要与核心数据一律不外发）",
                    )
                )
        return faults + list(self._derived_class_faults())

    def _derived_class_faults(self) -> Iterator[str]:
        """就高从严: what is computed is protected like the most protected of its inputs."""
        points = {rule.name: rule for rule in self.point}
        for one in self.derive:
            rules = [points[source] for source in one.inputs.values() if source in points]
            unknown = [rule.name for rule in rules if rule.classes is None]
            if unknown:
                names = ", ".join(unknown)
                yield tr(
                    f"derive {one.name}: its inputs need classes: {names}",
                    f"derive {one.name}：输入点须写 classes：{names}",
                )
                continue
            highest = max(CLASSES.index(rule.classes.raw) for rule in rules if rule.classes)
            if one.classes is not None and CLASSES.index(one.classes.raw) < highest:
                yield tr(
                    f"derive {one.name}: its raw class is at least {CLASSES[highest]}, "
                    "like the highest of its inputs",
                    f"derive {one.name}：raw 级别不得低于输入中的最高级别 {CLASSES[highest]}",
                )

    def _size_faults(self) -> list[str]:
        numbers: Counter[str] = Counter()
        leaving = self.leaving()
        for one in leaving:
            numbers[one.outlet.consumer or ""] += len(one.numbers)
        faults = []
        if len(leaving) > MOST_RELEASED or max(numbers.values(), default=0) > MOST_NUMBERS:
            faults.append(
                tr(
                    f"too much is released: at most {MOST_RELEASED} points, and {MOST_NUMBERS} "
                    "numbers to one consumer (a state takes nine); use a second agent",
                    f"放行过多：最多 {MOST_RELEASED} 个点，每个消费方最多 {MOST_NUMBERS} 个编号"
                    "（状态占九个）；请使用第二个代理程序",
                )
            )
        if self._waiting() > MOST_WAITING:
            faults.append(
                tr(
                    f"more than {MOST_WAITING} values would wait in the gate: shorten delay or "
                    "fill_within, or lengthen slot",
                    f"闸门内等待的值将超过 {MOST_WAITING} 个：请缩短 delay 或 fill_within，或加长 slot",
                )
            )
        return faults + self._budget_faults(numbers)

    def _budget_faults(self, numbers: Counter[str]) -> list[str]:
        return [
            tr(
                f"{consumer.id}: {numbers[consumer.id]} numbers are more than budget.points",
                f"{consumer.id}：{numbers[consumer.id]} 个编号超过 budget.points",
            )
            for consumer in self.consumer
            if consumer.budget.points is not None and numbers[consumer.id] > consumer.budget.points
        ]

    def _waiting(self) -> int:
        """Return how many values wait at most for their delay or to be filled."""
        return sum(
            width(release.aggregate) * -(-(release.delay + release.fill_within) // release.slot)
            for rule in self.point
            for _, release in rule.outlets()
        ) + sum(-(-one.release.delay // one.release.slot) for one in self.derive)

    def released(self) -> list[PointRule]:
        """Return the points that leave, those that are stopped aside."""
        return [rule for rule in self.point if rule.release is not None and not rule.stop]

    def derived(self) -> list[Derive]:
        """Return the derivations that leave, those that are stopped aside."""
        return [one for one in self.derive if not one.stop]

    def leaving(self) -> list[Leaving]:
        """Return every way in which anything leaves; what is stopped keeps its numbers."""
        found = [
            Leaving(
                rule.name,
                rule.measurand,
                release.aggregate,
                "pseudonym" if release.pseudonymise else _statistic(release, release.aggregate),
                frozenset(numbers),
                outlet,
            )
            for rule in self.point
            for (outlet, release), numbers in zip(rule.outlets(), rule.numbers(), strict=True)
        ]
        found += [
            Leaving(
                one.name,
                figure_of(one.formula),
                "derived",
                _statistic(one.release, "derived"),
                frozenset({one.number or 0}),
                one,
            )
            for one in self.derive
        ]
        return found


def read_policy(path: Path) -> PolicyText:
    """Read a policy's text from its file.

    Raises:
        ConfigError: with every fault found, each on one line.
    """
    check_file(path)
    return load_settings(path, PolicyText)


def _statistic(grid: Grid, aggregate: str) -> str:
    return "band" if grid.bands else aggregate


def _is_input(rule: PointRule, name: str) -> bool:
    if name == STATE:
        return rule.measurand == "machine.state" and rule.state_model in STATE_MODELS
    return rule.measurand in FROM_COUNTER[name]


def _unlisted(where: str, source: str, points: Iterable[str]) -> str:
    mend = instead_of(source, points, "[[point]]")
    return tr(f"{where}: there is no point {source} — {mend}", f"{where}：没有点 {source}；{mend}")


def _no_consumer(one: Leaving, ids: set[str]) -> str:
    wanted = one.outlet.consumer
    mend = (
        instead_of(wanted, sorted(ids))
        if ids
        else tr(
            "add a [[consumer]]; 'millgate policy new' writes one for each in agent.toml",
            "请加入 [[consumer]]；'millgate policy new' 会为 agent.toml 中的每个消费方写好一个",
        )
    )
    return tr(
        f"{one.name}: there is no [[consumer]] with id = '{wanted}' — {mend}",
        f"{one.name}：没有 id = '{wanted}' 的 [[consumer]]；{mend}",
    )

"""What a data officer writes: `policy.toml`.

Default deny: a point without `release` is withheld, and so is every point not listed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, model_validator

from protocols.errors import Misfit, Misfits
from protocols.language import tr
from protocols.settings import KeyPath, Strict, load_settings
from protocols.vocabulary.elements import FROM_COUNTER, STATE, figure_of
from protocols.vocabulary.states import STATE_MODELS
from protocols.words import instead_of
from security.policy.authoring import expand
from security.policy.characters import check_file, check_values
from security.policy.clauses import (
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
from security.policy.words import CLASSES

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
        place: key path in the text.
    """

    name: str
    measurand: str
    aggregate: str
    statistic: str
    numbers: frozenset[int]
    outlet: Outlet
    place: KeyPath


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
            raise Misfits(faults)
        return self

    def _time_faults(self) -> Iterator[Misfit]:
        for name in ("valid_from", "valid_until"):
            if getattr(self, name).tzinfo is None:
                yield Misfit(
                    tr("has no time zone", "没有时区"),
                    tr("write Z or +08:00 behind it", "请在其后写明时区，如 Z 或 +08:00"),
                    (name,),
                )
                return
        if self.valid_from >= self.valid_until:
            yield Misfit(
                tr("is not after valid_from", "不晚于 valid_from"),
                tr("write a later time", "请改晚"),
                ("valid_until",),
            )

    def _reference_faults(self) -> Iterator[Misfit]:
        ids = [consumer.id for consumer in self.consumer]
        keys = [consumer.encryption_key for consumer in self.consumer]
        yield from _repeated("consumer", "id", ids)
        yield from _repeated("consumer", "encryption_key", keys)
        yield from _repeated("point", "point", [rule.name for rule in self.point])
        yield from _repeated("derive", "name", [one.name for one in self.derive])
        yield from self._label_faults()
        yield from _no_consumers(self.leaving, sorted(set(ids)))
        allowed = {consumer.id: consumer.retention_days for consumer in self.consumer}
        owners: dict[int, str] = {}
        for one in self.leaving:
            taken = next((owners[number] for number in one.numbers if number in owners), None)
            if taken is not None:
                yield Misfit(
                    tr(
                        f"{one.name}: its number is taken by {taken} (a state takes nine)",
                        f"{one.name}：编号已被 {taken} 占用（状态占九个编号）",
                    ),
                    tr("write another number", "请使用其他编号"),
                    (*one.place, "number"),
                )
            owners.update(dict.fromkeys(one.numbers, one.name))
            most = allowed.get(one.outlet.consumer or "", 1 << 31)
            if (one.outlet.retention_days or 0) > most:
                yield Misfit(
                    tr(
                        f"{one.name}: is more than its consumer's",
                        f"{one.name}：超过其消费方的期限",
                    ),
                    tr(f"write at most {most}", f"至多 {most}"),
                    (*one.place, "retention_days"),
                )

    def _label_faults(self) -> Iterator[Misfit]:
        """Two points of one consumer with the same public name would overwrite each other."""
        seen: dict[tuple[str | None, str | None, str, str], str] = {}
        for one in self.leaving:
            outlet = one.outlet
            name = (outlet.consumer, outlet.equipment, one.measurand, one.statistic)
            other = seen.get(name)
            if other is None:
                seen[name] = one.name
            else:
                yield Misfit(
                    tr(
                        f"{one.name}: {other} is released as {outlet.equipment} {one.measurand} already",
                        f"{one.name}：{other} 已以 {outlet.equipment} {one.measurand} 放行",
                    ),
                    tr("give this one another equipment", "请使用其他 equipment"),
                    (*one.place, "equipment"),
                )

    def _derive_faults(self) -> Iterator[Misfit]:
        points = {rule.name: rule for rule in self.point}
        for at, one in enumerate(self.derive):
            for name, source in one.inputs.items():
                rule = points.get(source)
                place = ("derive", at, "inputs", name)
                if rule is None:
                    yield _unlisted(source, points, place)
                elif not _is_input(rule, name):
                    fitting = ", ".join(FROM_COUNTER.get(name, ("machine.state",)))
                    yield Misfit(
                        tr(f"{source} is not {fitting}", f"{source} 不是 {fitting}"),
                        tr("name a point of this measurand", "请写此测量量的点"),
                        place,
                    )

    def _secret_faults(self) -> Iterator[Misfit]:
        points = {rule.name: rule for rule in self.point}
        for at, secret in enumerate(self.secret):
            rule = points.get(secret.point)
            if rule is None:
                yield _unlisted(secret.point, points, ("secret", at, "point"))
            elif rule.release is not None:
                yield Misfit(
                    tr(
                        f"{secret.point} is declared a secret, and released",
                        f"{secret.point} 既声明为秘密又放行",
                    ),
                    tr("remove one of them", "请删除其一"),
                    ("secret", at, "point"),
                )
        yield from _repeated("secret", "point", [secret.point for secret in self.secret])
        canaries = {secret.point for secret in self.secret if secret.canary}
        for at, one in enumerate(self.derive):
            if canaries & set(one.inputs.values()):
                yield Misfit(
                    tr("a canary is no input", "金丝雀点不得作为输入"),
                    tr("name another point", "请写其他点"),
                    ("derive", at, "inputs"),
                )
        yield from _repeated("relation", "name", [relation.name for relation in self.relation])
        for at, relation in enumerate(self.relation):
            for source in [source for _, source in relation.zero if source not in points]:
                yield _unlisted(source, points, ("relation", at, "zero"))

    def _class_faults(self) -> Iterator[Misfit]:
        ceiling = CLASSES.index(self.class_ceiling)
        for one in self.leaving:
            classes = one.outlet.classes
            if classes is None or classes.released is None:
                continue
            raw, released = CLASSES.index(classes.raw), CLASSES.index(classes.released)
            if released > raw or released > ceiling or classes.raw in {"important", "core"}:
                yield Misfit(
                    tr(
                        f"{one.name}: its data class may not leave",
                        f"{one.name}：该数据级别不得外发",
                    ),
                    tr(
                        f"at most {self.class_ceiling} (class_ceiling), and never above raw; withhold "
                        "important and core data",
                        f"不得高于上限 {self.class_ceiling}（class_ceiling），也不得高于 raw；重要与核心数据一律不外发",
                    ),
                    (*one.place, "classes"),
                )
        yield from self._derived_class_faults()

    def _derived_class_faults(self) -> Iterator[Misfit]:
        """就高从严: what is computed is protected like the most protected of its inputs."""
        points = {rule.name: rule for rule in self.point}
        for at, one in enumerate(self.derive):
            rules = [points[source] for source in one.inputs.values() if source in points]
            if not rules:
                continue
            unknown = [rule.name for rule in rules if rule.classes is None]
            if unknown:
                names = ", ".join(unknown)
                yield Misfit(
                    tr(f"its inputs need classes: {names}", f"输入点须写 classes：{names}"),
                    tr("write classes at these points", "请在这些点写明 classes"),
                    ("derive", at, "inputs"),
                )
                continue
            highest = max(CLASSES.index(rule.classes.raw) for rule in rules if rule.classes)
            if one.classes is not None and CLASSES.index(one.classes.raw) < highest:
                yield Misfit(
                    tr(
                        "is below the highest raw class of its inputs",
                        "低于输入中的最高级别（就高从严）",
                    ),
                    tr(f"write at least {CLASSES[highest]}", f"至少为 {CLASSES[highest]}"),
                    ("derive", at, "classes", "raw"),
                )

    def _size_faults(self) -> Iterator[Misfit]:
        numbers: Counter[str] = Counter()
        for one in self.leaving:
            numbers[one.outlet.consumer or ""] += len(one.numbers)
        if len(self.leaving) > MOST_RELEASED or max(numbers.values(), default=0) > MOST_NUMBERS:
            yield Misfit(
                tr("too much is released", "放行过多"),
                tr(
                    f"at most {MOST_RELEASED} points, and {MOST_NUMBERS} numbers to one consumer (a state "
                    "takes nine); use a second agent",
                    f"最多 {MOST_RELEASED} 个点，每个消费方最多 {MOST_NUMBERS} 个编号（状态占九个）；"
                    "请使用第二个代理程序",
                ),
                ("point",),
            )
        if self._waiting() > MOST_WAITING:
            yield Misfit(
                tr(
                    f"more than {MOST_WAITING} values would wait in the gate",
                    f"闸门内等待的值将超过 {MOST_WAITING} 个",
                ),
                tr(
                    "shorten delay or fill_within, or lengthen slot",
                    "请缩短 delay 或 fill_within，或加长 slot",
                ),
                ("point",),
            )
        yield from self._budget_faults(numbers)

    def _budget_faults(self, numbers: Counter[str]) -> Iterator[Misfit]:
        for at, consumer in enumerate(self.consumer):
            most = consumer.budget.points
            if most is not None and numbers[consumer.id] > most:
                yield Misfit(
                    tr(
                        f"{numbers[consumer.id]} numbers leave",
                        f"将外发 {numbers[consumer.id]} 个编号",
                    ),
                    tr("raise it, or release less", "请调高，或减少放行"),
                    ("consumer", at, "budget", "points"),
                )

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

    @cached_property
    def leaving(self) -> list[Leaving]:
        """Every way in which anything leaves; what is stopped keeps its numbers."""
        found = [
            Leaving(
                rule.name,
                rule.measurand,
                release.aggregate,
                "pseudonym" if release.pseudonymise else _statistic(release, release.aggregate),
                frozenset(numbers),
                outlet,
                ("point", at, "also", way - 1) if way else ("point", at),
            )
            for at, rule in enumerate(self.point)
            for way, ((outlet, release), numbers) in enumerate(
                zip(rule.outlets(), rule.numbers(), strict=True)
            )
        ]
        found += [
            Leaving(
                one.name,
                figure_of(one.formula),
                "derived",
                _statistic(one.release, "derived"),
                frozenset({one.number or 0}),
                one,
                ("derive", at),
            )
            for at, one in enumerate(self.derive)
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


def _repeated(table: str, key: str, names: list[str]) -> Iterator[Misfit]:
    """Yield a fault for every table that is named as one before it is."""
    first: dict[str, int] = {}
    for at, name in enumerate(names):
        if first.setdefault(name, at) != at:
            yield Misfit(
                tr(
                    f"'{name}' is that of {table}[{first[name] + 1}] already",
                    f"'{name}' 已用于 {table}[{first[name] + 1}]",
                ),
                tr("remove one of them, or name it otherwise", "请删除其一，或改用其他名称"),
                (table, at, key),
            )


def _unlisted(source: str, points: Iterable[str], place: KeyPath) -> Misfit:
    mend = instead_of(source, points, "[[point]]")
    return Misfit(tr(f"there is no point {source}", f"没有点 {source}"), mend, place)


def _no_consumers(leaving: Iterable[Leaving], ids: list[str]) -> Iterator[Misfit]:
    """Yield one fault for each consumer that there is not, whatever its points."""
    wanted: dict[str, list[Leaving]] = defaultdict(list)
    for one in leaving:
        if one.outlet.consumer not in ids:
            wanted[one.outlet.consumer or ""].append(one)
    mend = tr(
        "add a [[consumer]]; 'millgate policy new' writes one for each in agent.toml",
        "请加入 [[consumer]]；'millgate policy new' 会为 agent.toml 中的每个消费方写好一个",
    )
    for name, (first, *more) in wanted.items():
        rest = tr(f" (and {len(more)} more)", f"（另有 {len(more)} 处）") if more else ""
        yield Misfit(
            tr(
                f"{first.name}: there is no [[consumer]] with id = '{name}'{rest}",
                f"{first.name}：没有 id = '{name}' 的 [[consumer]]{rest}",
            ),
            instead_of(name, ids) if ids else mend,
            (*first.place, "consumer"),
        )

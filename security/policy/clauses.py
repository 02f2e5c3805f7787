"""The tables of `policy.toml`: consumers, points, derivations, secrets and relations.

Each checks what can be told from itself; what several have to agree on is in `language`.
"""

import re
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from protocols.batch import LARGEST_MANTISSA
from protocols.errors import Misfit, Misfits
from protocols.frame import SECOND
from protocols.language import tr
from protocols.points import LocalId
from protocols.settings import Duration, KeyPath, Strict
from protocols.vocabulary.elements import COMPUTABLE, constants_of, inputs_of
from protocols.vocabulary.measurands import MEASURANDS, Kind, unit_factor
from protocols.vocabulary.missing import LISTED, no_such_measurand, no_such_model, wrong_unit
from protocols.vocabulary.purposes import PURPOSES
from protocols.vocabulary.states import STATE_MODELS
from protocols.words import instead_of
from security.policy.words import FITS, LARGEST_NUMBER, STATE_NUMBERS, STATISTICS, Aggregate, Role

DataClass = Literal["general-1", "general-2", "general-3", "general-4", "important", "core"]

LONGEST_ORIGIN: Final = 1024
MOST_SLOTS: Final = 1024
"""Over how many slots a delay, or the time to fill, may reach."""

_VALUES: Final = ("last", *STATISTICS)
_PIN: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SOURCE: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}/[a-z0-9][a-z0-9_.-]{0,63}")
_PATTERN: Final = re.compile(r"[a-z0-9_.*-]{1,64}/[a-z0-9_.*-]{1,64}")
_DAY_S: Final = 86400
_DECIMALS: Final = 9


def _previous(value: str) -> str:
    if value and _PIN.fullmatch(value) is None:
        raise Misfit(
            tr("is no hash of the version before", "不是前一版本的哈希"),
            tr(
                "write 'sha256:' and 64 hex digits, as 'policy sign' and 'policy show' print it; empty for "
                "the first",
                "请写 'sha256:' 加 64 位十六进制，照抄 'policy sign' 或 'policy show' 所显示的；第一版为空",
            ),
        )
    return value


def _pin(value: str) -> str:
    if _PIN.fullmatch(value) is None:
        raise Misfit(
            tr("is no pin", "不是指纹"),
            tr("write 'sha256:' and 64 hex digits", "请写 'sha256:' 加 64 位十六进制"),
        )
    return value


def _label(value: str) -> str:
    if _LABEL.fullmatch(value) is None:
        raise Misfit(
            tr("is no public label", "不是公开标签"),
            tr("write 1 to 32 of a-z, 0-9 and '-'", "请写 1 至 32 个字符：a-z、0-9、'-'"),
        )
    return value


def _source(value: str) -> str:
    if _SOURCE.fullmatch(value) is None:
        raise Misfit(
            tr("names no point", "不是点名"),
            tr("name a listed point as 'device/point'", "请以 'device/point' 写明已列出的点"),
        )
    return value


def _pattern(value: str) -> str:
    if _PATTERN.fullmatch(value) is None:
        raise Misfit(
            tr("is no pattern", "不是匹配模式"),
            tr(
                "write 'device/point', where '*' stands for any characters",
                "请写作 'device/point'，'*' 代表任意字符",
            ),
        )
    return value


def _no_span() -> tuple[str, str]:
    what = tr("is no lowest and highest value", "不是下限与上限")
    return what, tr("write the lowest, then a higher highest one", "请先写下限，再写更大的上限")


Pin = Annotated[str, AfterValidator(_pin)]
Previous = Annotated[str, AfterValidator(_previous)]
Label = Annotated[str, AfterValidator(_label)]
Source = Annotated[str, AfterValidator(_source)]


class Budget(Strict):
    """How much may leave to a consumer at most, whatever the points say.

    Attributes:
        points: point numbers.
        rows: values (of one number in one slot) in a day of UTC.
        bytes: bytes of encoded batches in a day of UTC, before sealing.
    """

    points: int | None = Field(default=None, ge=1, le=1 << 31)
    rows: int | None = Field(default=None, ge=1, le=1 << 40)
    bytes: int | None = Field(default=None, ge=1, le=1 << 40)


class Consumer(Strict):
    """Somebody who may get data.

    Attributes:
        encryption_key, receipt_key: SHA-256 pins of the consumer's two public keys.
        purpose: what the data may be used for.
        right: reference of the data right or contract.
        retention_days: how long the data may be kept.
        pad: batches are padded to a multiple of so many bytes, so that their size says nothing.
        budget: the most that may leave.
    """

    id: LocalId
    encryption_key: Pin
    receipt_key: Pin
    purpose: str
    right: str = Field(default="", max_length=256)
    retention_days: int = Field(ge=1, le=36_500)
    pad: int = Field(default=1024, ge=256, le=65_536)
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _known_purpose(self) -> "Consumer":
        if self.purpose not in PURPOSES:
            what = tr(
                f"there is no purpose '{self.purpose}'", f"没有用途（purpose）'{self.purpose}'"
            )
            raise Misfit(what, instead_of(self.purpose, PURPOSES, LISTED), ("purpose",))
        return self


class Grid(Strict):
    """How coarse values leave, and when.

    Attributes:
        slot: length of the slots, which are counted from 1970-01-01 UTC.
        round: values are rounded to multiples of this, half to even.
        bands: instead of a value its band leaves: how many of these edges it has reached.
        clamp: lowest and highest value; what is beyond counts as that.
        delay: a slot leaves so long after its end at the earliest.
    """

    slot: Duration
    round: Decimal | None = Field(default=None, gt=0)
    bands: tuple[Decimal, ...] = Field(default=(), max_length=32)
    clamp: tuple[Decimal, Decimal] | None = None
    delay: Duration = 0

    @model_validator(mode="after")
    def _coarse(self) -> "Grid":
        seconds = self.slot // SECOND
        if self.slot % SECOND or not 1 <= seconds <= _DAY_S or _DAY_S % seconds:
            raise Misfit(
                tr("must be whole seconds and divide a day", "须为整秒并能整除一天"),
                tr("write such as 5s, 1m, 15m, 1h", "例如 5s、1m、15m、1h"),
                ("slot",),
            )
        if (self.round is None) == (not self.bands):
            raise Misfit(
                tr("says twice, or not at all, how coarse it leaves", "外发精度重复或未写明"),
                tr("give either round or bands", "round 与 bands 须写其一，且只写其一"),
            )
        self._check_round()
        self._check_bands()
        self._check_clamp()
        self._check_reach("delay", self.delay)
        return self

    def _check_round(self) -> None:
        if self.round is None:
            return
        if not -9 <= _exponent(self.round) <= 9 or grid_of(self.round)[1] > LARGEST_MANTISSA:
            raise Misfit(
                tr("is out of range", "超出范围"),
                tr(
                    "write a step of at most 9 decimals, such as 0.1, 1 or 100",
                    "请写至多 9 位小数的步长，例如 0.1、1、100",
                ),
                ("round",),
            )

    def _check_bands(self) -> None:
        edges = self.bands
        wrong = any(not _writable(edge) for edge in edges) or list(edges) != sorted(set(edges))
        if wrong or not _writable(
            Decimal(0) if not edges else max(map(abs, edges)) + _finest(edges)
        ):
            raise Misfit(
                tr("are no bands", "不是有效的档位"),
                tr(
                    "write edges in rising order, with at most 9 decimals",
                    "请写由小到大的界值，至多 9 位小数",
                ),
                ("bands",),
            )

    def _check_clamp(self) -> None:
        if self.clamp is None:
            return
        low, high = self.clamp
        if not (_writable(low) and _writable(high) and low < high):
            raise Misfit(*_no_span(), ("clamp",))
        if self.round is None:
            return
        most = LARGEST_MANTISSA * Decimal(1).scaleb(grid_of(self.round)[0])
        if low % self.round or high % self.round or max(abs(low), abs(high)) > most:
            raise Misfit(
                tr("must lie on multiples of round", "两端须为 round 的整数倍"),
                tr(
                    f"write multiples of {self.round}, or another round",
                    f"请写 {self.round} 的整数倍，或改用其他 round",
                ),
                ("clamp",),
            )

    def _check_reach(self, name: str, span: int) -> None:
        if span % SECOND or not 0 <= span <= MOST_SLOTS * self.slot:
            raise Misfit(
                tr("is too long, or no whole seconds", "过长，或不是整秒"),
                tr(
                    f"write whole seconds, at most {MOST_SLOTS} slots",
                    f"请写整秒，且不超过 {MOST_SLOTS} 个时段",
                ),
                (name,),
            )


class Release(Grid):
    """How a point leaves.

    Attributes:
        aggregate: `last` (the last value in the slot), `sum`, `mean`, `min` or `max` (of all
            values in it), `delta` (what a counter rose by) or `state` (seconds in each operating
            state, and the state at the end).
        min_samples: with fewer values in the slot nothing leaves for it.
        fill_within: so long after its end a slot that was sent as missing may still be filled,
            once.
        pseudonymise: the value is replaced by a pseudonym, which changes after so long.
    """

    aggregate: Aggregate
    min_samples: int = Field(default=1, ge=1, le=1_000_000)
    fill_within: Duration = 0
    pseudonymise: Duration | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Release":
        self._check_reach("fill_within", self.fill_within)
        self._check_state()
        self._check_pseudonym()
        wrong = [
            name
            for name, used, allowed in (
                ("min_samples", self.min_samples > 1, STATISTICS),
                ("clamp", self.clamp is not None, _VALUES),
                ("bands", bool(self.bands), _VALUES),
                ("fill_within", self.fill_within > 0, _VALUES),
            )
            if used and self.aggregate not in allowed
        ]
        if wrong:
            raise Misfits(
                Misfit(
                    tr(f"does not go with '{self.aggregate}'", f"不能与 '{self.aggregate}' 同用"),
                    tr("remove it, or change the aggregate", "请删除它，或改用其他 aggregate"),
                    (name,),
                )
                for name in wrong
            )
        return self

    def _check_state(self) -> None:
        if self.aggregate != "state" or self.round is None:
            return
        if Decimal(self.slot // SECOND) % self.round:
            raise Misfit(
                tr("must divide the slot of a state", "状态的 round 须能整除 slot"),
                tr("write seconds such as 1, 10 or 60", "请写秒数，例如 1、10、60"),
                ("round",),
            )

    def _check_pseudonym(self) -> None:
        turn = self.pseudonymise
        if turn is None:
            return
        if self.aggregate != "last" or self.round is None or self.clamp is not None:
            raise Misfit(
                tr(
                    "goes with 'last' and round only, and without clamp",
                    "只能与 'last' 和 round 同用，且不得写 clamp",
                ),
                tr("remove it, or what does not go with it", "请删除它，或删除与其冲突的项"),
                ("pseudonymise",),
            )
        if not 0 < turn <= 366 * _DAY_S * SECOND or turn % self.slot:
            raise Misfit(
                tr("is no multiple of slot, or too long", "不是 slot 的整数倍，或过长"),
                tr("write a multiple of slot, at most 366d", "请写 slot 的整数倍，且不超过 366d"),
                ("pseudonymise",),
            )


class DerivedRelease(Grid):
    """How a computed value leaves; it has no aggregate of its own."""


class Classes(Strict):
    """Data class before and after the transforms (就高从严: never higher after than before).

    Attributes:
        reason: why the class is lower after than before; recorded and signed.
    """

    raw: DataClass
    released: DataClass | None = None
    reason: str = Field(default="", max_length=256)


class Outlet(Strict):
    """To whom something leaves, and under which public name.

    Attributes:
        number: on the wire; a state takes nine.
        equipment, role: public labels.
        retention_days: how long it may be kept, where that is shorter than the consumer's.
    """

    consumer: LocalId | None = None
    number: int | None = Field(default=None, ge=1, le=LARGEST_NUMBER)
    equipment: Label | None = None
    role: Role = ""
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    classes: Classes | None = None

    def _check_complete(self) -> None:
        needed = {
            "consumer": self.consumer,
            "number": self.number,
            "equipment": self.equipment,
            "classes": self.classes,
            "classes.released": self.classes is None or self.classes.released,
        }
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise Misfits(
                Misfit(
                    tr("is missing: what leaves needs it", "缺少此项：放行须写明"),
                    tr("add it, or remove release", "请补上，或删去 release"),
                    tuple(name.split(".")),
                )
                for name in missing
            )


class Also(Outlet):
    """A further way in which a point leaves: another statistic, slot or consumer."""

    release: Release

    @model_validator(mode="after")
    def _complete(self) -> "Also":
        self._check_complete()
        return self


class PointRule(Outlet):
    """One point of one device, exactly as it is configured, and what becomes of it.

    Attributes:
        device, point, address, type, unit, scale, offset, measurand, state_model: the exact
            typed source; if the configuration says otherwise, the point is suspended.
        origin: which device answers and how its bytes are read, as its driver writes it; without
            it that is not signed.
        range: lowest and highest believable value, in the measurand's unit; others are not used.
        release: how it leaves; without it, it does not.
        also: further ways in which it leaves.
        stop: the point's own stop: nothing of it leaves, and all its numbers stay its own.
    """

    device: LocalId
    point: LocalId
    address: str
    type: str
    unit: str
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    measurand: str
    state_model: str | None = None
    origin: str = Field(default="", max_length=LONGEST_ORIGIN)
    range: tuple[Decimal, Decimal] | None = None
    release: Release | None = None
    also: list[Also] = Field(default=[], max_length=16)
    stop: bool = False

    @property
    def name(self) -> str:
        """How other tables name the point."""
        return f"{self.device}/{self.point}"

    @model_validator(mode="after")
    def _complete(self) -> "PointRule":
        if self.range is not None and not self.range[0] < self.range[1]:
            raise Misfit(*_no_span(), ("range",))
        measurand = MEASURANDS.get(self.measurand)
        if measurand is not None and unit_factor(self.unit, measurand) is None:
            raise wrong_unit(self.unit, measurand)
        if self.release is None:
            if self.also:
                raise Misfit(
                    tr("comes after release", "先写 release，才能写 also"),
                    tr("release the point first, or remove it", "请先放行该点，或删去 also"),
                    ("also",),
                )
            return self
        self._check_complete()
        self._check_transform(self.release, ())
        for at, one in enumerate(self.also):
            self._check_transform(one.release, ("also", at))
        if max(max(numbers) for numbers in self.numbers()) > LARGEST_NUMBER:
            raise Misfit(
                tr("leaves no room for all nine numbers", "之后容不下九个编号"),
                tr("write a smaller one", "请改小"),
                ("number",),
            )
        return self

    def _check_transform(self, release: Release, place: KeyPath) -> None:
        measurand = MEASURANDS.get(self.measurand)
        if measurand is None:
            raise no_such_measurand(self.measurand, self.unit)
        if measurand.kind not in FITS[release.aggregate]:
            fitting = ", ".join(f"'{a}'" for a, kinds in FITS.items() if measurand.kind in kinds)
            raise Misfit(
                tr(
                    f"'{release.aggregate}' does not fit {measurand.name}, a {measurand.kind}",
                    f"'{release.aggregate}' 不适用于 {measurand.name}（{measurand.kind}）",
                ),
                tr(f"release it as {fitting}", f"请用 {fitting} 放行"),
                (*place, "release", "aggregate"),
            )
        if release.aggregate == "state" and self.state_model not in STATE_MODELS:
            raise no_such_model(self.state_model)
        if release.pseudonymise is not None and measurand.kind is not Kind.OTHER:
            raise Misfit(
                tr("is for measurand 'other' only", "只用于测量量 'other'"),
                tr("remove it", "请删除"),
                (*place, "release", "pseudonymise"),
            )
        if self.range is not None and measurand.kind is Kind.STATE:
            raise Misfit(
                tr("a state has no range", "状态点不写 range"),
                tr("remove it", "请删除"),
                ("range",),
            )

    def outlets(self) -> list[tuple[Outlet, Release]]:
        """Return every way in which the point leaves, also while it is stopped."""
        if self.release is None:
            return []
        return [(self, self.release), *((one, one.release) for one in self.also)]

    def numbers(self) -> list[set[int]]:
        """Return the point numbers that each outlet takes on the wire."""
        return [
            set(range(outlet.number or 0, (outlet.number or 0) + width(release.aggregate)))
            for outlet, release in self.outlets()
        ]


class Each(Strict):
    """The same release for many points: a shorthand that is expanded and frozen when compiled.

    Attributes:
        points: which of the listed points: `device/point`, where `*` stands for any characters.
        number: the first of them gets this one, the others those that follow, in the order of
            their names; a point that has its own keeps it.
        equipment: `{device}` and `{point}` in it stand for the point's names.
    """

    points: Annotated[str, AfterValidator(_pattern)]
    consumer: LocalId
    number: int = Field(ge=1, le=LARGEST_NUMBER)
    equipment: str = Field(max_length=64)
    role: Role = ""
    retention_days: int | None = Field(default=None, ge=1, le=36_500)
    classes: Classes
    release: Release


class Derive(Outlet):
    """A key figure that is computed in the factory from points that need not leave.

    Attributes:
        name: local id.
        formula: of the vocabulary, such as `oee`.
        inputs: the formula's inputs as `device/point`: a machine's `state`, and counters.
        constants: its constants, such as a secret `pru`, the ideal cycle time in seconds.
        release: how the result leaves.
        stop: nothing of it leaves.
    """

    name: LocalId
    formula: str
    inputs: dict[str, Source]
    constants: dict[str, Decimal] = Field(default={})
    release: DerivedRelease
    stop: bool = False

    @model_validator(mode="after")
    def _complete(self) -> "Derive":
        self._check_complete()
        formula = COMPUTABLE.get(self.formula)
        if formula is None:
            what = tr(
                f"there is no formula '{self.formula}'", f"没有公式（formula）'{self.formula}'"
            )
            raise Misfit(what, instead_of(self.formula, COMPUTABLE, LISTED), ("formula",))
        inputs, constants = inputs_of(formula), constants_of(formula)
        if set(self.inputs) != inputs or set(self.constants) != constants:
            wanted, fixed = ", ".join(sorted(inputs)), ", ".join(sorted(constants)) or "-"
            raise Misfit(
                tr(
                    f"{self.formula} has other inputs or constants",
                    f"{self.formula} 的输入或常数不符",
                ),
                tr(
                    f"write exactly the inputs {wanted} and the constants {fixed}",
                    f"请恰好写明输入 {wanted} 和常数 {fixed}",
                ),
                ("inputs" if set(self.inputs) != inputs else "constants",),
            )
        if any(not value.is_finite() or value <= 0 for value in self.constants.values()):
            raise Misfit(
                tr("constants are above 0", "常数须大于 0"),
                tr("correct the value", "请更正取值"),
                ("constants",),
            )
        return self


class SecretPoint(Strict):
    """A listed point that must never follow from what leaves.

    Attributes:
        what: what it is, for people.
        protect: percent; an estimate that is closer counts as disclosed.
        canary: a point whose value must turn up nowhere: it cannot be released in the same
            version that takes the mark away.
    """

    point: Source
    what: str = Field(default="", max_length=256)
    protect: Decimal = Field(default=Decimal(0), ge=0, le=100)
    canary: bool = False


class Relation(Strict):
    """What the firm knows of its physics: a sum of listed points that is always 0.

    Attributes:
        zero: pairs of a factor and a point, such as [[1, "main/power"], [-1, "line/power"]].
    """

    name: LocalId
    zero: list[tuple[Decimal, Source]] = Field(min_length=2, max_length=64)

    @model_validator(mode="after")
    def _whole(self) -> "Relation":
        names = [name for _, name in self.zero]
        if len(set(names)) < len(names) or any(
            factor == 0 or not factor.is_finite() for factor, _ in self.zero
        ):
            raise Misfit(
                tr("is no such sum", "不是有效的关系式"),
                tr(
                    "write every point once, with a factor that is not 0",
                    "每个点只写一次，系数不为 0",
                ),
                ("zero",),
            )
        return self


def width(aggregate: str) -> int:
    """Return how many numbers an aggregate takes on the wire."""
    return STATE_NUMBERS if aggregate == "state" else 1


def _exponent(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def _writable(value: Decimal) -> bool:
    """Tell whether a value is a mantissa on a grid of at most 9 decimals."""
    if not value.is_finite() or _exponent(value) < -_DECIMALS:
        return False
    return abs(value).scaleb(-min(_exponent(value), 0)) <= LARGEST_MANTISSA


def _finest(values: tuple[Decimal, ...]) -> Decimal:
    return Decimal(1).scaleb(min([0, *map(_exponent, values)]))


def bands_grid(edges: tuple[Decimal, ...]) -> tuple[int, list[int]]:
    """Return (exponent, mantissas): each edge is its mantissa x 10**exponent, exponent <= 0."""
    exponent = min([0, *map(_exponent, edges)])
    return exponent, [int(edge.scaleb(-exponent)) for edge in edges]


def grid_of(step: Decimal) -> tuple[int, int]:
    """Return (exponent, whole step): step = whole step x 10**exponent, exponent <= 0 kept small.

    A step of 25 is (0, 25), of 0.25 is (-2, 25), of 100 is (0, 100).
    """
    exponent = min(_exponent(step), 0)
    return exponent, int(step.scaleb(-exponent))

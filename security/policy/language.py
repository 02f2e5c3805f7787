"""What a data officer writes: `policy.toml`.

Default deny: a point without `release` is withheld, and so is every point not listed.
"""

import re
from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from protocols.batch import LARGEST_MANTISSA
from protocols.frame import SECOND
from protocols.language import tr
from protocols.points import LocalId
from protocols.settings import Duration, Strict
from protocols.vocabulary.measurands import MEASURANDS, Kind
from protocols.vocabulary.purposes import PURPOSES
from protocols.vocabulary.states import STATE_MODELS

CLASSES: Final = ("general-1", "general-2", "general-3", "general-4", "important", "core")
"""Data classes after GB/T 43697-2024, least protected first; a general class has four levels."""

DataClass = Literal["general-1", "general-2", "general-3", "general-4", "important", "core"]
Aggregate = Literal["last", "delta", "state"]

STATE_NUMBERS: Final = 9
"""How many point numbers a state takes: the state at the slot's end, then seconds in 1 to 8."""

MOST_RELEASED: Final = 20_000
MOST_NUMBERS: Final = 40_000
"""How many points one policy may release, and how many numbers to one consumer: what is signed
must be small enough to be read again by the strict decoder."""

_PIN: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_DAY_S: Final = 86400
_LARGEST_NUMBER: Final = (1 << 31) - 1
_FITS: Final = {"last": (Kind.GAUGE, Kind.OTHER), "delta": (Kind.COUNTER,), "state": (Kind.STATE,)}


def _pin(value: str) -> str:
    if _PIN.fullmatch(value) is None:
        raise ValueError(
            tr("a pin is 'sha256:' and 64 hex digits", "指纹为 'sha256:' 加 64 位十六进制")
        )
    return value


def _label(value: str) -> str:
    if _LABEL.fullmatch(value) is None:
        raise ValueError(
            tr(
                "a public label has 1 to 32 of a-z, 0-9 and '-'",
                "公开标签须为 1 至 32 个字符：a-z、0-9、'-'",
            )
        )
    return value


Pin = Annotated[str, AfterValidator(_pin)]
Label = Annotated[str, AfterValidator(_label)]


class Consumer(Strict):
    """Somebody who may get data.

    Attributes:
        encryption_key, receipt_key: SHA-256 pins of the consumer's two public keys.
        purpose: what the data may be used for.
        right: reference of the data right or contract.
        retention_days: how long the data may be kept.
        pad: batches are padded to a multiple of so many bytes, so that their size says nothing.
    """

    id: LocalId
    encryption_key: Pin
    receipt_key: Pin
    purpose: str
    right: str = Field(default="", max_length=256)
    retention_days: int = Field(ge=1, le=36_500)
    pad: int = Field(default=1024, ge=256, le=65_536)

    @model_validator(mode="after")
    def _known_purpose(self) -> "Consumer":
        if self.purpose not in PURPOSES:
            names = ", ".join(PURPOSES)
            raise ValueError(tr(f"purpose is not one of {names}", f"purpose 应为 {names} 之一"))
        return self


class Release(Strict):
    """How a point leaves.

    Attributes:
        aggregate: `last` (the last value in the slot), `delta` (what a counter rose by) or
            `state` (seconds in each operating state, and the state at the end).
        slot: length of the slots, which are counted from 1970-01-01 UTC.
        round: values are rounded to multiples of this, half to even.
    """

    aggregate: Aggregate
    slot: Duration
    round: Decimal = Field(gt=0)

    @model_validator(mode="after")
    def _whole_slots(self) -> "Release":
        seconds = self.slot // SECOND
        if self.slot % SECOND or not 1 <= seconds <= _DAY_S or _DAY_S % seconds:
            raise ValueError(
                tr(
                    "slot must be whole seconds and divide a day, such as 5s, 1m, 15m, 1h",
                    "slot 须为整秒并能整除一天，例如 5s、1m、15m、1h",
                )
            )
        if not -9 <= _exponent(self.round) <= 9 or grid_of(self.round)[1] > LARGEST_MANTISSA:
            raise ValueError(tr("round is out of range", "round 超出范围"))
        if self.aggregate == "state" and Decimal(self.slot // SECOND) % self.round:
            raise ValueError(
                tr("round must divide the slot of a state", "状态的 round 须能整除 slot")
            )
        return self


class Classes(Strict):
    """Data class before and after the transforms (就高从严: never higher after than before)."""

    raw: DataClass
    released: DataClass


class PointRule(Strict):
    """One point of one device, exactly as it is configured, and what becomes of it.

    Attributes:
        device, point, address, type, unit, scale, offset, measurand, state_model: the exact
            typed source; if the configuration says otherwise, the point is suspended.
        consumer, number, equipment, role, release, classes: only where it is released. `number`
            is the point's number on the wire (a state takes nine), `equipment` and `role` are
            public labels.
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
    consumer: LocalId | None = None
    number: int | None = Field(default=None, ge=1, le=_LARGEST_NUMBER)
    equipment: Label | None = None
    role: Literal["", "main", "sub", "pv", "export"] = ""
    release: Release | None = None
    classes: Classes | None = None

    @model_validator(mode="after")
    def _complete(self) -> "PointRule":
        if self.release is None:
            return self
        needed = {
            "consumer": self.consumer,
            "number": self.number,
            "equipment": self.equipment,
            "classes": self.classes,
        }
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            names = ", ".join(missing)
            raise ValueError(
                tr(f"a released point also needs {names}", f"放行的点还须写明 {names}")
            )
        self._check_transform(self.release)
        return self

    def _check_transform(self, release: Release) -> None:
        measurand = MEASURANDS.get(self.measurand)
        if measurand is None:
            raise ValueError(tr("unknown measurand", "未知的 measurand"))
        if measurand.kind not in _FITS[release.aggregate]:
            fitting = next((a for a, kinds in _FITS.items() if measurand.kind in kinds), "last")
            raise ValueError(
                tr(
                    f"{measurand.name} is a {measurand.kind}; release it as '{fitting}'",
                    f"{measurand.name} 属于 {measurand.kind}；请用 '{fitting}' 放行",
                )
            )
        if release.aggregate == "state" and self.state_model not in STATE_MODELS:
            models = ", ".join(sorted(STATE_MODELS))
            raise ValueError(
                tr(
                    f"a state needs state_model, one of {models}",
                    f"状态点须有 state_model：{models}",
                )
            )
        if max(rule_numbers(self)) > _LARGEST_NUMBER:
            raise ValueError(
                tr("number leaves no room for all nine numbers", "number 之后容不下九个编号")
            )


class PolicyText(Strict):
    """The whole policy.

    Attributes:
        version: larger than that of every policy before.
        previous: `sha256:` hash of the version before; empty for the first.
        valid_from, valid_until: outside of this time nothing leaves.
        class_ceiling: the highest data class that may leave.
    """

    policy: Literal["mg-policy/1"]
    version: int = Field(ge=1, lt=1 << 31)
    previous: Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")] = ""
    valid_from: datetime
    valid_until: datetime
    class_ceiling: Literal["general-1", "general-2", "general-3", "general-4"] = "general-2"
    consumer: list[Consumer] = Field(min_length=1, max_length=16)
    point: list[PointRule] = Field(max_length=100_000)

    @model_validator(mode="after")
    def _consistent(self) -> "PolicyText":
        faults = [
            *self._time_faults(),
            *self._reference_faults(),
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
        faults += self._label_faults()
        used: set[int] = set()
        for rule in self.released():
            if rule.consumer not in ids:
                faults.append(
                    tr(
                        f"{rule.device}/{rule.point}: no consumer has this id",
                        f"{rule.device}/{rule.point}：没有此消费方",
                    )
                )
            if used & rule_numbers(rule):
                faults.append(
                    tr(
                        f"{rule.device}/{rule.point}: its number is taken (a state takes nine)",
                        f"{rule.device}/{rule.point}：编号已被占用（状态占九个编号）",
                    )
                )
            used |= rule_numbers(rule)
        return faults

    def _label_faults(self) -> list[str]:
        """Two points of one consumer with the same public name would overwrite each other."""
        seen: set[tuple[str | None, str | None, str]] = set()
        faults = []
        for rule in self.released():
            name = (rule.consumer, rule.equipment, rule.measurand)
            if name in seen:
                faults.append(
                    tr(
                        f"{rule.device}/{rule.point}: {rule.equipment} {rule.measurand} is released "
                        "already; give this one another equipment",
                        f"{rule.device}/{rule.point}：{rule.equipment} {rule.measurand} 已放行；请使用其他 equipment",
                    )
                )
            seen.add(name)
        return faults

    def _class_faults(self) -> list[str]:
        ceiling = CLASSES.index(self.class_ceiling)
        faults = []
        for rule in self.released():
            if rule.classes is None:
                continue
            raw, released = CLASSES.index(rule.classes.raw), CLASSES.index(rule.classes.released)
            if released > raw or released > ceiling or rule.classes.raw in {"important", "core"}:
                faults.append(
                    tr(
                        f"{rule.device}/{rule.point}: its data class may not leave "
                        f"(ceiling {self.class_ceiling}; important and core data never)",
                        f"{rule.device}/{rule.point}：该数据级别不得外发"
                        f"（上限 {self.class_ceiling}；重要与核心数据一律不外发）",
                    )
                )
        return faults

    def _size_faults(self) -> list[str]:
        numbers: Counter[str] = Counter()
        released = self.released()
        for rule in released:
            numbers[rule.consumer or ""] += len(rule_numbers(rule))
        if len(released) <= MOST_RELEASED and max(numbers.values(), default=0) <= MOST_NUMBERS:
            return []
        return [
            tr(
                f"too much is released: at most {MOST_RELEASED} points, and {MOST_NUMBERS} numbers "
                "to one consumer (a state takes nine); use a second agent",
                f"放行过多：最多 {MOST_RELEASED} 个点，每个消费方最多 {MOST_NUMBERS} 个编号"
                "（状态占九个）；请使用第二个代理程序",
            )
        ]

    def released(self) -> list[PointRule]:
        """Return the rules that release something."""
        return [rule for rule in self.point if rule.release is not None]


def rule_numbers(rule: PointRule) -> set[int]:
    """Return the point numbers that a released rule takes on the wire."""
    if rule.release is None or rule.number is None:
        return set()
    count = STATE_NUMBERS if rule.release.aggregate == "state" else 1
    return set(range(rule.number, rule.number + count))


def _exponent(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


def grid_of(step: Decimal) -> tuple[int, int]:
    """Return (exponent, whole step): step = whole step x 10**exponent, exponent <= 0 kept small.

    A step of 25 is (0, 25), of 0.25 is (-2, 25), of 100 is (0, 100).
    """
    exponent = min(_exponent(step), 0)
    return exponent, int(step.scaleb(-exponent))

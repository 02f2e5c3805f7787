"""Points: what a technician declares of each value a device offers."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Final, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from protocols.errors import Misfit
from protocols.frame import Flags
from protocols.language import tr
from protocols.settings import Duration, Strict
from protocols.vocabulary.measurands import MEASURANDS, Kind, Measurand, unit_factor
from protocols.vocabulary.missing import no_such_measurand, no_such_model, wrong_unit
from protocols.vocabulary.states import STATE_MODELS

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def _check_id(value: str) -> str:
    if _ID.fullmatch(value) is None:
        raise Misfit(
            tr("is no id", "不是有效的标识"),
            tr(
                "write 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first",
                "请写 1 至 64 个字符：a-z、0-9、'.'、'_'、'-'，且以字母或数字开头",
            ),
        )
    return value


LocalId = Annotated[str, AfterValidator(_check_id)]
"""A device's or point's local id; plain ASCII, so that no two look alike."""


class Counter(Strict):
    """How a cumulative reading behaves.

    Attributes:
        rollover: the value at which the register starts again from 0, in the point's unit;
            None takes the register's own width, where it has one.
        on_reset: what a confirmed fall of the reading means: `from_zero` counts what has come
            since 0, `rebase` counts nothing and starts from the new reading.
    """

    rollover: Decimal | None = Field(default=None, gt=0)
    on_reset: Literal["from_zero", "rebase"] = "from_zero"


class Point(Strict):
    """One value of a device.

    Attributes:
        id: local id, unique within its device.
        address: where the device keeps it; the driver says how it is written.
        type: the device's own type name; the driver says which there are.
        unit: the unit of the value after scale and offset.
        measurand: its standard meaning.
        scale, offset: value = raw x scale + offset, in exact decimals.
        cadence: how often a value is expected.
        counter: how a cumulative reading rolls over.
        state_model: how state codes map to operating states.
    """

    id: LocalId
    address: str = Field(min_length=1, max_length=512)
    type: str
    unit: str = Field(default="1", max_length=16)
    measurand: str = "other"
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)
    cadence: Duration | None = None
    counter: Counter = Counter()
    state_model: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "Point":
        measurand = MEASURANDS.get(self.measurand)
        if measurand is None:
            raise no_such_measurand(self.measurand, self.unit)
        if unit_factor(self.unit, measurand) is None:
            raise wrong_unit(self.unit, measurand)
        if measurand.kind is Kind.STATE and self.state_model not in STATE_MODELS:
            raise no_such_model(self.state_model)
        if not (self.scale.is_finite() and self.offset.is_finite()) or self.scale == 0:
            raise Misfit(
                tr("gives no value", "无法得出数值"),
                tr(
                    "write a finite scale other than 0, and a finite offset",
                    "scale 须为非 0 的有限数，offset 须为有限数",
                ),
                ("scale",),
            )
        return self

    @property
    def standard(self) -> Measurand:
        """The point's measurand."""
        return MEASURANDS[self.measurand]

    def grid_exponent(self) -> int:
        """Return e such that every integer raw value lands on a whole multiple of 10**e."""
        return min(_exponent(self.scale), _exponent(self.offset))


def _exponent(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0


Part = TypeVar("Part", Decimal, str)


def shared(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Return what each point has; points for which it is equal have the very same."""
    known: dict[Part, Part] = {}
    return tuple(known.setdefault(part, part) for part in parts)


@dataclass(frozen=True, slots=True)
class PointTable:
    """A device's points in the order that frames refer to.

    Attributes:
        device: the device's local id.
        kind: the driver's name.
        points: the points; a frame's column number is the position here.
        integer: shape (n,), True where frames carry the point as int64 x 10**exponent.
        modulus: per point, at which integer reading a counter starts again from 0; 0 is never.
            In units of 10**exponent for integer points, in the point's unit for the others.
        hold_ns: how long a value stays valid without a new sample; None is until contact is lost.
        brings_time: True for a device whose slots follow its own time, not the wall clock.
        origins: per point, everything else that decides which value it shows, as one text: which
            device answers, and how its bytes are read; empty where nobody asks.
    """

    device: str
    kind: str
    points: tuple[Point, ...]
    integer: Flags
    modulus: tuple[Decimal, ...]
    hold_ns: int | None = None
    brings_time: bool = False
    origins: tuple[str, ...] = ()

    def origin(self, at: int) -> str:
        """Return the origin of the point at a position."""
        return self.origins[at] if self.origins else ""

    def columns(self) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
        """Return the positions of all points, shape (n,)."""
        return np.arange(len(self.points), dtype=np.int32)

    def exponents(self) -> list[int]:
        """Return each point's decimal exponent: 0 for points carried as float64."""
        return [
            point.grid_exponent() if whole else 0
            for point, whole in zip(self.points, self.integer, strict=True)
        ]

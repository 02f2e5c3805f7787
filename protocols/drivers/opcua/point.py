"""A point of an OPC-UA server, as a technician writes it."""

from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, Field, field_validator, model_validator

from protocols.drivers.opcua.address import parse_address
from protocols.drivers.opcua.grid import BITS, REAL_TYPES, SIGNED_TYPES, TYPES, grid_line
from protocols.language import tr
from protocols.points import Point
from protocols.settings import Duration
from protocols.vocabulary.measurands import Kind
from protocols.words import no_such

LARGEST_QUEUE: Final = 10_000
_SECOND: Final = 10**9
_WIDEST_EXPONENT: Final = 30


def _bounded(span: int) -> int:
    if not 0 <= span <= 3600 * _SECOND:
        raise ValueError(tr("must be from 0s to 1h", "须为 0s 至 1h"))
    return span


Sampling = Annotated[Duration, AfterValidator(_bounded)]
"""How often a server looks at a node, in nanoseconds; 0 is as fast as it can."""


class OpcuaPoint(Point):
    """A point in a node's value.

    Attributes:
        address: `nsu=<namespace uri>;s=<name>`, `nsu=<namespace uri>;i=<number>`, or
            `path=/{<namespace uri>}Line/Press/Speed` from the Objects folder on. Before it may
            stand which scalar of an array or structure: `part=[2];`, `part=Spindle.Speed;`.
        type: the node's built-in type: Boolean, SByte, Byte, Int16, UInt16, Int32, UInt32,
            Int64, UInt64, Float or Double; another type is never converted.
        sampling_interval, queue_size: as the device's, for this point alone.
        deadband: the server leaves out changes smaller than this, in the point's own unit.
        deadband_percent: the same in percent of the range that the server knows of the node.
    """

    sampling_interval: Sampling | None = None
    queue_size: int | None = Field(default=None, ge=1, le=LARGEST_QUEUE)
    deadband: Decimal | None = Field(default=None, gt=0)
    deadband_percent: Decimal | None = Field(default=None, gt=0, le=100)

    @field_validator("address")
    @classmethod
    def _address(cls, address: str) -> str:
        parse_address(address)
        return address

    @field_validator("type")
    @classmethod
    def _type(cls, name: str) -> str:
        if name not in TYPES:
            raise no_such(name, TYPES, "docs/devices.md")
        return name

    @model_validator(mode="after")
    def _fits(self) -> "OpcuaPoint":
        if self.integer and not self._values_fit():
            raise ValueError(
                tr(
                    "with this scale and offset no value of the type fits in 64 bits",
                    "按此 scale 与 offset，该类型的任何值都超出 64 位整数",
                )
            )
        return self

    @model_validator(mode="after")
    def _deadband_fits(self) -> "OpcuaPoint":
        if self.deadband is None and self.deadband_percent is None:
            return self
        if self.deadband is not None and self.deadband_percent is not None:
            raise ValueError(
                tr(
                    "write either deadband or deadband_percent, not both",
                    "deadband 与 deadband_percent 只能写其一",
                )
            )
        if self.type == "Boolean" or self.standard.kind is Kind.STATE:
            raise ValueError(
                tr(
                    "a deadband would hide changes of state; leave it out",
                    "死区会掩盖状态变化；请去掉",
                )
            )
        return self

    @property
    def follows(self) -> bool:
        """Whether something is said of the point that only a subscription can do."""
        said = (self.sampling_interval, self.queue_size, self.deadband, self.deadband_percent)
        return any(one is not None for one in said)

    def _values_fit(self) -> bool:
        wide = abs(self.scale.adjusted()), abs(self.offset.adjusted()), abs(self.grid_exponent())
        if max(wide) > _WIDEST_EXPONENT:
            return False
        line = grid_line(self)
        return line.lowest <= line.highest

    @property
    def integer(self) -> bool:
        """Whether frames carry the point as integers."""
        return self.type not in REAL_TYPES

    def modulus(self) -> Decimal:
        """Return where the counter starts again from 0; see PointTable. 0 is never."""
        if self.standard.kind is not Kind.COUNTER:
            return Decimal(0)
        rollover = self.counter.rollover
        if not self.integer:
            return rollover or Decimal(0)
        if rollover is not None:
            return rollover.scaleb(-self.grid_exponent())
        if self.type in SIGNED_TYPES:
            # Where a signed counter goes behind its end is not known.
            return Decimal(0)
        return Decimal(2 ** BITS[self.type] * abs(grid_line(self).factor))

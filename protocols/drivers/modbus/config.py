"""What a technician writes of a Modbus device."""

import re
from decimal import Decimal
from typing import Final, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from protocols.drivers import DeviceConfig
from protocols.language import tr
from protocols.points import Point, PointTable
from protocols.settings import Duration

ADDRESS: Final = re.compile(r"(holding|input):(\d{1,5})")
WORDS: Final = {
    "int16": 1,
    "uint16": 1,
    "int32": 2,
    "uint32": 2,
    "float32": 2,
    "int64": 4,
    "uint64": 4,
    "float64": 4,
}
LARGEST: Final = 1 << 53
"""Scaled integers beyond this are not exact everywhere, so they are no values."""

_WIDEST_EXPONENT: Final = 30
_HOLD_INTERVALS: Final = 3
_NANO: Final = -9
_SHORTEST_HOLD: Final = 2 * 10**9


class ModbusPoint(Point):
    """A point in registers.

    Attributes:
        address: `holding:N` (function 3) or `input:N` (function 4), N counted from 0 as in the
            request, not the 4xxxx of manuals.
        type: int16, uint16, int32, uint32, float32, int64, uint64 or float64.
    """

    type: Literal["int16", "uint16", "int32", "uint32", "float32", "int64", "uint64", "float64"]

    @field_validator("address")
    @classmethod
    def _address(cls, address: str) -> str:
        match = ADDRESS.fullmatch(address)
        if match is None or int(match[2]) > 65535:
            raise ValueError(
                tr(
                    "write 'holding:N' or 'input:N' with N from 0 to 65535",
                    "请写 'holding:N' 或 'input:N'，N 为 0 至 65535",
                )
            )
        return address

    @model_validator(mode="after")
    def _fits(self) -> "ModbusPoint":
        if self.first + self.words > 65536:
            raise ValueError(tr("reaches past register 65535", "超出寄存器 65535"))
        if not self._exact():
            raise ValueError(
                tr(
                    "with this scale and offset no value of the type is exact",
                    "按此 scale 与 offset，该类型没有可精确表示的值",
                )
            )
        return self

    def _exact(self) -> bool:
        exponents = self.scale.adjusted(), self.offset.adjusted(), self.grid_exponent()
        if max(map(abs, exponents)) > _WIDEST_EXPONENT:
            return False
        smallest = abs(self.on_grid(self.scale)) + abs(self.on_grid(self.offset))
        return not self.integer or smallest <= LARGEST

    def on_grid(self, value: Decimal) -> int:
        """Return scale or offset in units of 10**grid_exponent."""
        return int(value.scaleb(-self.grid_exponent()))

    @property
    def table(self) -> str:
        """`holding` or `input`."""
        return self.address.split(":")[0]

    @property
    def first(self) -> int:
        """Number of the first register."""
        return int(self.address.split(":")[1])

    @property
    def words(self) -> int:
        """Number of registers."""
        return WORDS[self.type]

    @property
    def integer(self) -> bool:
        """Whether the register holds an integer."""
        return not self.type.startswith("float")

    def modulus(self) -> Decimal:
        """Return where the counter starts again from 0; see PointTable. 0 is never."""
        rollover = self.counter.rollover
        if rollover is None:
            if not self.type.startswith("u"):
                # Floats have no end, and where a signed counter goes behind its own is not known.
                return Decimal(0)
            rollover = Decimal(2 ** (16 * self.words)) * abs(self.scale)
        return rollover.scaleb(-self.grid_exponent()) if self.integer else rollover


class Config(DeviceConfig):
    """A Modbus TCP device.

    Attributes:
        host, port: its address.
        unit: Modbus unit id.
        interval: how often all points are read; '0s' reads without a pause.
        timeout: how long an answer may take.
        order: how the bytes A B C D of a 32-bit value lie in its registers.
        max_registers: the most registers the device answers in one request.
        max_gap: registers nobody asked for that may be read along to save a request.
        slot_time: id of the point that holds the device's own time in seconds since 1970 UTC;
            then slots follow that time instead of the wall clock.
    """

    kind: Literal["modbus"]
    host: str = Field(min_length=1, max_length=253)
    port: int = Field(default=502, ge=1, le=65535)
    unit: int = Field(default=1, ge=0, le=255)
    interval: Duration = Field(default=10**9, ge=0, le=86400 * 10**9)
    timeout: Duration = Field(default=3 * 10**9, ge=10**7, le=60 * 10**9)
    order: Literal["ABCD", "CDAB", "BADC", "DCBA"] = "ABCD"
    max_registers: int = Field(default=125, ge=4, le=125)
    max_gap: int = Field(default=8, ge=0, le=120)
    slot_time: str | None = None
    points: list[ModbusPoint] = Field(min_length=1, max_length=100_000)  # type: ignore[assignment] # a narrower list of a frozen model

    @model_validator(mode="after")
    def _time_point(self) -> "Config":
        if self.slot_time is None:
            return self
        found = next((point for point in self.points if point.id == self.slot_time), None)
        if found is None or not found.integer or found.grid_exponent() < _NANO or found.unit != "s":
            raise ValueError(
                tr(
                    f"slot_time names '{self.slot_time}', which is not an integer point in seconds",
                    f"slot_time 指向的 '{self.slot_time}' 不是以秒为单位的整数点",
                )
            )
        return self

    def table(self) -> PointTable:
        """Return the point table that this device's frames refer to."""
        return PointTable(
            device=self.id,
            kind=self.kind,
            points=tuple(self.points),
            integer=np.array([point.integer for point in self.points]),
            modulus=tuple(point.modulus() for point in self.points),
            hold_ns=max(_HOLD_INTERVALS * self.interval, _SHORTEST_HOLD),
            brings_time=self.slot_time is not None,
        )

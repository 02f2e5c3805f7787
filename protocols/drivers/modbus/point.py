"""What a technician writes of a point in a Modbus device."""

import math
import re
from decimal import Decimal
from typing import Final, Literal, NamedTuple, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from protocols.language import tr
from protocols.points import Point

Table: TypeAlias = Literal["coil", "discrete", "holding", "input"]
Order: TypeAlias = Literal["ABCD", "CDAB", "BADC", "DCBA"]

FUNCTIONS: Final[dict[Table, int]] = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
"""The function that reads a table."""

BIT_TABLES: Final = frozenset({"coil", "discrete"})
ADDRESS: Final = re.compile(
    r"(coil|discrete|holding|input):([0-9]{1,5})(?:\.([0-9]{1,2})(?:-([0-9]{1,2}))?)?"
)
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
"""Registers of the numeric types in which every bit counts."""

LARGEST: Final = 1 << 53
"""Scaled integers beyond this are not exact everywhere, so they are no values."""

_BCD: Final = {"bcd16": 1, "bcd32": 2, "bcd64": 4}
_WIDTHS: Final = {"bit": 1, **WORDS, **_BCD}
_UNSIGNED: Final = ("uint16", "uint32", "uint64")
_NOT_FOR_TEXT: Final = ("scale", "offset", "invalid", "counter", "unit", "state_model", "cadence")
_WIDEST_EXPONENT: Final = 30
_END: Final = 1 << 16


class Bits(NamedTuple):
    """Which bits of a register value are meant, the lowest of all being 0.

    Attributes:
        low, high: the first and the last of them.
    """

    low: int
    high: int


class ModbusPoint(Point):
    """A point in bits or registers.

    Attributes:
        address: `coil:N` (function 1), `discrete:N` (2), `holding:N` (3) or `input:N` (4), N
            counted from 0 as in the request, not the 4xxxx of manuals. `.B` behind it means bit B
            alone, `.B-C` the bits B to C as an unsigned number; bit 0 is the lowest.
        type: how it is written there. `bit` is a coil, a discrete input or one bit of a register;
            `bcd16`, `bcd32` and `bcd64` are 4, 8 and 16 decimal digits; `string` is text, which is
            shown on request and never sampled.
        length: registers of a string, two characters in each.
        order: how the bytes A B C D lie in the registers, where it differs from the device's.
        invalid: raw values of the whole register or registers, before scale and bits, that mean
            "no value".
    """

    type: Literal[
        "bit",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "float32",
        "int64",
        "uint64",
        "float64",
        "bcd16",
        "bcd32",
        "bcd64",
        "string",
    ]
    length: int | None = Field(default=None, ge=1, le=125)
    order: Order | None = None
    invalid: tuple[int | float, ...] = Field(default=(), max_length=16)

    @field_validator("address")
    @classmethod
    def _address(cls, address: str) -> str:
        match = ADDRESS.fullmatch(address)
        if match is None or int(match[2]) >= _END:
            raise ValueError(
                tr(
                    "write 'coil:N', 'discrete:N', 'holding:N' or 'input:N' with N from 0 to "
                    "65535, and '.B' or '.B-C' behind it for bits of a register",
                    "请写 'coil:N'、'discrete:N'、'holding:N' 或 'input:N'，N 为 0 至 65535；"
                    "寄存器中的位在后面加 '.B' 或 '.B-C'",
                )
            )
        return address

    @model_validator(mode="after")
    def _fits(self) -> Self:
        fault = self._table_fault() or self._bits_fault() or self._text_fault()
        if fault is not None:
            raise ValueError(fault)
        if self.first + self.words > _END:
            raise ValueError(tr("reaches past register 65535", "超出寄存器 65535"))
        if not self._exact():
            raise ValueError(
                tr(
                    "with this scale and offset no value of the type is exact",
                    "按此 scale 与 offset，该类型没有可精确表示的值",
                )
            )
        return self

    @model_validator(mode="after")
    def _sentinels(self) -> Self:
        wrong = [value for value in self.invalid if not self._can_be(value)]
        if wrong:
            raise ValueError(
                tr(
                    f"invalid: no {self.type} can be {wrong[0]}",
                    f"invalid：{self.type} 不可能是 {wrong[0]}",
                )
            )
        return self

    def _table_fault(self) -> str | None:
        if self.table in BIT_TABLES and (self.type != "bit" or self.bits is not None):
            return tr(
                f"a {self.table} is one bit: write type = \"bit\" and '{self.table}:N'",
                f"{self.table} 只有一位：请写 type = \"bit\" 与 '{self.table}:N'",
            )
        if self.table in BIT_TABLES and self.order is not None:
            return tr("a single bit has no order", "单个位没有字节序")
        if self.type == "bit" and self.table not in BIT_TABLES and self.bits is None:
            return tr(
                f"say which bit of the register, such as '{self.address}.0'",
                f"请写明寄存器的哪一位，例如 '{self.address}.0'",
            )
        return None

    def _bits_fault(self) -> str | None:
        bits = self.bits
        if bits is None:
            return None
        if self.type != "bit" and self.type not in _UNSIGNED:
            return tr(
                "bits are taken out of uint16, uint32 or uint64, or out of a bit",
                "只能从 uint16、uint32、uint64 或 bit 中取位",
            )
        if self.type == "bit" and bits.low != bits.high:
            return tr(
                'several bits are a number: write type = "uint16"',
                '多个位构成一个数：请写 type = "uint16"',
            )
        if not bits.low <= bits.high < 16 * self.words:
            return tr(
                f"bits of this type go from 0 to {16 * self.words - 1}, the lower first",
                f"该类型的位为 0 至 {16 * self.words - 1}，小的在前",
            )
        return None

    def _text_fault(self) -> str | None:
        if (self.type == "string") != (self.length is not None):
            return tr(
                "a string, and nothing else, has a length: how many registers it takes",
                "字符串须写 length（占几个寄存器），其他类型不写",
            )
        idle = [name for name in _NOT_FOR_TEXT if name in self.model_fields_set]
        if self.type == "string" and (idle or self.measurand != "other"):
            return tr(
                f"a string is text and never sampled; leave out {', '.join(idle or ['measurand'])}",
                f"字符串是文本，不采样；请去掉 {', '.join(idle or ['measurand'])}",
            )
        return None

    def _can_be(self, value: float) -> bool:
        if not math.isfinite(value) or self.type == "string" or self.table in BIT_TABLES:
            return False
        if not self.integer:
            return True
        if self.type in _BCD:
            return value == int(value) and 0 <= value < _bcd_end(self.words)
        width = 16 * self.words
        return value == int(value) and -(1 << width - 1) <= value < 1 << width

    def _exact(self) -> bool:
        exponents = self.scale.adjusted(), self.offset.adjusted(), self.grid_exponent()
        if max(map(abs, exponents)) > _WIDEST_EXPONENT:
            return False
        smallest = abs(self.on_grid(self.scale)) + abs(self.on_grid(self.offset))
        return not self.integer or smallest <= LARGEST

    def reading(self, order: Order) -> str:
        """Return how its bytes are read, in a few words.

        Args:
            order: the device's, where the point has none of its own.
        """
        words = [] if self.table in BIT_TABLES else [f"order {self.order or order}"]
        if self.invalid:
            words.append(f"invalid {','.join(map(repr, sorted(set(self.invalid))))}")
        if self.counter.rollover is not None:
            words.append(f"rollover {self.counter.rollover.normalize():f}")
        if self.counter.on_reset != "from_zero":
            words.append(self.counter.on_reset)
        return " ".join(words)

    def on_grid(self, value: Decimal) -> int:
        """Return scale or offset in units of 10**grid_exponent."""
        return int(value.scaleb(-self.grid_exponent()))

    @property
    def table(self) -> Table:
        """The table it is in."""
        name = self.address.split(":")[0]
        return next(table for table in FUNCTIONS if table == name)

    @property
    def first(self) -> int:
        """Number of the first register or bit."""
        return int(self.address.split(":")[1].split(".")[0])

    @property
    def bits(self) -> Bits | None:
        """Which bits of the registers are meant; None is all of them."""
        match = ADDRESS.fullmatch(self.address)
        if match is None or match[3] is None:
            return None
        low = int(match[3])
        return Bits(low, low if match[4] is None else int(match[4]))

    @property
    def words(self) -> int:
        """Number of registers; 1 for a coil or discrete input."""
        return self.length or _WIDTHS.get(self.type, 1)

    @property
    def sampled(self) -> bool:
        """Whether it is a value that is read over and over; text is not."""
        return self.type != "string"

    @property
    def integer(self) -> bool:
        """Whether the registers hold an integer."""
        return not self.type.startswith(("float", "string"))

    def modulus(self) -> Decimal:
        """Return where the counter starts again from 0; see PointTable. 0 is never."""
        rollover = self.counter.rollover
        if rollover is None:
            rollover = self._natural_end() * abs(self.scale)
        return rollover.scaleb(-self.grid_exponent()) if self.integer else rollover

    def _natural_end(self) -> Decimal:
        bits = self.bits
        if bits is not None and bits.low < bits.high:
            return Decimal(2 ** (bits.high - bits.low + 1))
        if self.type in _BCD:
            return Decimal(_bcd_end(self.words))
        if self.type in _UNSIGNED and bits is None:
            return Decimal(2 ** (16 * self.words))
        # Floats have no end, where a signed counter goes behind its own is not known, and a bit
        # is no counter.
        return Decimal(0)


def _bcd_end(words: int) -> int:
    return int("1" + 4 * words * "0")

"""Registers and bits that tell who they are.

A register of unit u at address a shows u x 1000 + a in the holding table and
u x 1000 + 500 + a in the input table, so 5037 is holding register 37 of unit 5. A bit is part of a
pattern drawn from its unit, table and address.
"""

import struct
import zlib
from collections.abc import Collection
from typing import Final

from simulators.faults.modbus_wire import (
    COILS,
    DISCRETES,
    HOLDING,
    ILLEGAL_ADDRESS,
    INPUT,
    NO_ANSWER,
    Refusal,
    pack_bits,
)

ADDRESSES: Final = 500
"""Every table of every unit has the addresses 0 to 499."""

LARGEST_UNIT: Final = 64


def word(unit: int, function: int, address: int) -> int:
    """Return what a register shows."""
    return unit * 1000 + (500 if function == INPUT else 0) + address


def bit(unit: int, function: int, address: int) -> bool:
    """Return what a coil or discrete input shows."""
    return bool(zlib.crc32(struct.pack(">BBH", unit, function, address)) & 1)


class TellingRegisters:
    """A device, or a gateway with several, whose every value tells where it belongs."""

    def __init__(self, units: Collection[int] = (1, 2, 3)) -> None:
        self.units = frozenset(units)

    def read(self, unit: int, function: int, first: int, count: int) -> bytes:
        """Return the data bytes of an answer.

        Raises:
            Refusal: for a unit or an address that is not there.
        """
        if unit not in self.units:
            raise Refusal(NO_ANSWER)
        if first + count > ADDRESSES:
            raise Refusal(ILLEGAL_ADDRESS)
        addresses = range(first, first + count)
        if function in {COILS, DISCRETES}:
            return pack_bits([bit(unit, function, address) for address in addresses])
        if function not in {HOLDING, INPUT}:
            raise ValueError("only reading functions have data")
        return struct.pack(f">{count}H", *(word(unit, function, at) for at in addresses))

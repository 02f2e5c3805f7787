"""Answers to reads, decoded in one piece instead of register by register."""

from typing import Final

import numpy as np
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException
from pymodbus.pdu import ModbusPDU

_BIG_ENDIAN: Final = np.dtype(">u2")


class HoldingRegisters(ModbusPDU):
    """Answer to function 3; `registers` is an array of shape (n,), uint16."""

    function_code = 3

    def __str__(self) -> str:
        # The library writes out every answer, even where nobody reads it; values go nowhere.
        return type(self).__name__

    def decode(self, data: bytes) -> None:
        """Take the registers out of an answer.

        Raises:
            ModbusIOException: when it is shorter than it says.
        """
        size = data[0]
        if size >= len(data):
            raise ModbusIOException("shorter than it says", function_code=self.function_code)
        self.registers = np.frombuffer(data, _BIG_ENDIAN, size // 2, 1)  # type: ignore[assignment] # a sequence of integers as well


class InputRegisters(HoldingRegisters):
    """Answer to function 4."""

    function_code = 4


def decode_in_one_piece(client: AsyncModbusTcpClient) -> None:
    """Let a client decode its answers so."""
    client.register(HoldingRegisters)
    client.register(InputRegisters)

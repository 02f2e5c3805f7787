"""A Modbus server whose registers a test fills; what was not filled is refused."""

import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

from protocols.drivers.modbus.point import FUNCTIONS
from simulators.faults.modbus_server import ChaosModbus, chaos_modbus
from simulators.faults.modbus_wire import ILLEGAL_ADDRESS, NO_ANSWER, Refusal

FORMATS: Final = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "float32": ">f",
    "int64": ">q",
    "uint64": ">Q",
    "float64": ">d",
}


class Memory:
    """Registers of one unit, by table and address.

    Attributes:
        asked: every read: function, first, count.
        between: what stands where nothing was put; None is refused.
    """

    def __init__(self, unit: int = 1, between: int | None = None) -> None:
        self.between = between
        self.words: dict[tuple[str, int], int] = {}
        self.asked: list[tuple[int, int, int]] = []
        self._unit = unit

    def put(self, address: str, kind: str, raw: Decimal | float, order: str = "ABCD") -> None:
        """Lay a value out as a device does."""
        table, _, first = address.partition(":")
        number = float(raw) if kind.startswith("float") else int(raw)
        data = struct.pack(FORMATS[kind], number)
        words = [data[at : at + 2] for at in range(0, len(data), 2)]
        if order in {"CDAB", "DCBA"}:
            words.reverse()
        if order in {"BADC", "DCBA"}:
            words = [word[::-1] for word in words]
        for at, word in enumerate(words):
            self.words[table, int(first) + at] = int.from_bytes(word, "big")

    def put_text(self, address: str, text: str, words: int) -> None:
        """Lay out a text, two characters in each register."""
        table, _, first = address.partition(":")
        data = text.encode("ascii")[: 2 * words].ljust(2 * words, b"\0")
        for at in range(words):
            self.words[table, int(first) + at] = int.from_bytes(data[2 * at : 2 * at + 2], "big")

    def put_all(self, points: Mapping[str, tuple[Any, Decimal | float]], order: str) -> None:
        """Lay out points (tables of configuration) that show these values after scaling."""
        for table, value in points.values():
            scale = Decimal(str(table.get("scale", 1)))
            raw = Decimal(str(value)) / scale
            if not table["type"].startswith("float"):
                raw = raw.to_integral_value()
            self.put(table["address"], table["type"], raw, table.get("order", order))

    def read(self, unit: int, function: int, first: int, count: int) -> bytes:
        """Answer a read, as `simulators.faults.modbus_wire.Registers` says."""
        if unit != self._unit:
            raise Refusal(NO_ANSWER)
        self.asked.append((function, first, count))
        table = next(name for name, code in FUNCTIONS.items() if code == function)
        found = [self.words.get((table, at), self.between) for at in range(first, first + count)]
        words = [word for word in found if word is not None]
        if len(words) < count:
            raise Refusal(ILLEGAL_ADDRESS)
        return b"".join(word.to_bytes(2, "big") for word in words)


@asynccontextmanager
async def serving(memory: Memory) -> AsyncIterator[ChaosModbus]:
    """Serve a memory on a loopback port that the kernel picks."""
    async with chaos_modbus(memory) as server:
        yield server

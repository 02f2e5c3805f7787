"""The plant's meter over Modbus TCP, unit 1, the same registers as holding and as input.

Registers, big-endian, counted from 0 as in the request:

| first | words | type    | what                                            |
|-------|-------|---------|-------------------------------------------------|
| 0     | 2     | uint32  | energy.active_import, 0.01 kWh, starts again at 2**32 |
| 2     | 2     | int32   | power.active, W                                 |
| 4     | 2     | float32 | secret_furnace_setpoint, degC                   |
| 6     | 1     | uint16  | secret_phase_current_1, 0.1 A                   |
| 7     | 1     | uint16  | secret_phase_current_2, 0.1 A                   |
| 8     | 1     | uint16  | secret_phase_current_3, 0.1 A                   |
| 9     | 1     | uint16  | power.factor, 0.001                             |
| 10    | 2     | uint32  | secret_recipe_number                            |
"""

import struct
from typing import Final, Protocol

from protocols.frame import NowNs
from simulators.mbap import Registers, cut
from simulators.plant import MeterReading, Plant

_BLOCK: Final = struct.Struct(">IifHHHHI")


class Witness(Protocol):
    """Where every reading served is recorded."""

    def reading(self, t_ns: int, first: int, registers: int, energy: int, power: int) -> None:
        """Record that registers first … first + registers - 1 were served at t_ns."""


def registers(reading: MeterReading) -> bytes:
    """Return the whole block."""
    return _BLOCK.pack(
        reading.energy,
        reading.power,
        reading.furnace_setpoint,
        *reading.currents,
        reading.power_factor,
        reading.recipe_number,
    )


class PlantMeter:
    """Answers reads with what the plant's meter shows now, and has each one recorded."""

    def __init__(self, plant: Plant, witness: Witness, now_ns: NowNs) -> None:
        self._plant = plant
        self._witness = witness
        self._now_ns = now_ns

    def opened(self) -> Registers:
        """Return what answers a new connection; all see the same meter."""
        return self._read

    def _read(self, first: int, count: int) -> bytes:
        # A clock that was set back must not take the meter to before it was switched on.
        now = max(self._now_ns(), self._plant.start_ns)
        reading = self._plant.meter(now)
        data = cut(registers(reading), first, count)
        self._witness.reading(now, first, count, reading.energy, reading.power)
        return data

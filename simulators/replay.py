"""A recording as a Modbus meter that moves in lock-step with its reader.

Registers, big-endian uint32, unit 1, the same as holding and as input:

| first | what                                                                    |
|-------|-------------------------------------------------------------------------|
| 0     | energy.active_import, 0.01 kWh, starts again at 2**32                   |
| 2     | average power over the row that ends with this reading, W; 0 before the first row |
| 4     | time.device: the reading's time, seconds since 1970 UTC                 |
| 6     | rows still to come                                                      |

Reading 0 is the counter at the begin of the first row; then one reading per row, at its end.
The first read on a connection is served the current reading, each further one the next, so
read the whole block in one request, and read again after a failure on a new connection. The
last reading is served for ever. One reader at a time: a second one moves the recording too.
"""

import struct
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from simulators.mbap import Registers, cut
from simulators.plant import ROLLOVER
from simulators.recording import Recording

_BLOCK: Final = struct.Struct(">IIII")
_WATT_SECONDS: Final = 36_000
"""One count of 0.01 kWh."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the meter shows at the end of a row.

    Attributes:
        energy: register in 0.01 kWh.
        power: W, rounded down.
        time: seconds since 1970 UTC.
        remaining: rows still to come.
    """

    energy: int
    power: int
    time: int
    remaining: int

    def registers(self) -> bytes:
        """Return the whole block."""
        return _BLOCK.pack(self.energy, self.power, self.time, self.remaining)


def readings(recording: Recording, energy_start: int = 0) -> list[Reading]:
    """Return one reading more than the recording has rows.

    Raises:
        MillgateError: when a counter, a power or a time does not fit its register.
    """
    if not 0 <= energy_start < ROLLOVER:
        raise MillgateError(
            tr("does not fit the energy register", "超出电量寄存器范围"),
            where="--energy-start",
            remedy=f"0 … {ROLLOVER - 1}",
        )
    seconds, begin = recording.interval_ns // SECOND, recording.first_ns // SECOND
    rows = len(recording.counts)
    if begin < 0 or begin + rows * seconds >= ROLLOVER:
        raise _misfit(
            tr("times must lie between 1970 and 2106", "时间须在 1970 至 2106 年之间"), ""
        )
    powers = [0, *(counts * _WATT_SECONDS // seconds for counts in recording.counts)]
    if max(powers) >= ROLLOVER:
        raise _misfit(
            tr("a row's power exceeds its register", "某行的功率超出寄存器"), "--interval"
        )
    totals = accumulate(recording.counts, initial=energy_start)
    return [
        Reading(total % ROLLOVER, power, begin + at * seconds, rows - at)
        for at, (total, power) in enumerate(zip(totals, powers, strict=True))
    ]


def _misfit(what: str, where: str) -> MillgateError:
    return MillgateError(
        what, where=where, remedy=tr("check the recording and the interval", "请检查记录与间隔")
    )


class ReplayMeter:
    """Serves readings in order; see the module for when it moves on."""

    def __init__(self, served: list[Reading]) -> None:
        self._blocks = [reading.registers() for reading in served]
        self.row = 0

    def opened(self) -> Registers:
        """Return what answers a new connection."""
        fresh = True

        def read(first: int, count: int) -> bytes:
            nonlocal fresh
            # Checked first, so that a request that is refused moves nothing.
            cut(self._blocks[self.row], first, count)
            if not fresh:
                self.row = min(self.row + 1, len(self._blocks) - 1)
            fresh = False
            return cut(self._blocks[self.row], first, count)

        return read

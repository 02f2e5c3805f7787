"""Image: one poll's registers side by side, at places that no change of plan moves."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocols.drivers.modbus.planner import Request, Rules, plan
from protocols.drivers.modbus.point import BIT_TABLES, FUNCTIONS, ModbusPoint

_WHOLE_TABLE: Final = 1 << 16
_BIG_ENDIAN: Final = np.dtype(">u2")


class Image:
    """Where each register that can be read lies in a row; a bit takes a whole place.

    Attributes:
        size: places in a row.
        places: shape (n,), the first place of each point.
    """

    def __init__(self, points: Sequence[ModbusPoint], gap: int) -> None:
        # Without any limit there is one request for each run that no request ever reaches beyond.
        most = dict.fromkeys(FUNCTIONS, _WHOLE_TABLE)
        self._runs = plan(points, Rules(most, gap))
        self._begins = [(run.table, run.first) for run in self._runs]
        offsets = np.cumsum([0, *(run.count for run in self._runs)]).tolist()
        self._offsets: list[int] = offsets
        self.size = int(offsets[-1])
        self.places: NDArray[np.intp] = np.zeros(len(points), np.intp)
        for run, offset in zip(self._runs, offsets, strict=False):
            for at in run.points:
                self.places[at] = offset + points[at].first - run.first

    def offset(self, request: Request) -> int:
        """Return the place of a request's first register."""
        at = bisect_right(self._begins, (request.table, request.first)) - 1
        return self._offsets[at] + request.first - self._runs[at].first


def unpacked(request: Request, data: bytes) -> NDArray[np.uint16]:
    """Return an answer's registers or bits, shape (count,)."""
    if request.table in BIT_TABLES:
        packed = np.frombuffer(data, np.uint8)
        bits = np.unpackbits(packed, count=request.count, bitorder="little")
        return bits.astype(np.uint16)
    return np.frombuffer(data, _BIG_ENDIAN)


class Layout:
    """What was asked in a poll, and which point came with which request.

    Attributes:
        requests: the requests; behind them stands one more for points that were not asked for.
        block_of: shape (n,), the request of each point.
        complete: whether every point was asked for.
    """

    def __init__(self, points: int, requests: Sequence[Request]) -> None:
        self.requests = tuple(requests)
        self.block_of = np.full(points, len(self.requests), np.int32)
        for number, request in enumerate(self.requests):
            self.block_of[list(request.points)] = number
        self.complete = bool((self.block_of < len(self.requests)).all())

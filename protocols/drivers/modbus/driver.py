"""Reads a Modbus device in blocks, over and over."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.drivers import DeviceConfig, NotConnected
from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.decode import Decoder
from protocols.drivers.modbus.image import Layout
from protocols.drivers.modbus.poller import Poll, Poller
from protocols.frame import SECOND, Bytes, Flags, Floats, Frame, Ints, NowNs, Quality
from protocols.language import tr

_log = logging.getLogger(__name__)
_MOST_ROWS: Final = 256
_GATHER_NS: Final = SECOND // 10
_LATEST_NS: Final = 1 << 62

_Part: TypeAlias = tuple[NDArray[np.int32], Ints | Floats, Bytes]


class Driver:
    """Polls all points of one device every `interval`.

    When the interval is short, polls are gathered for up to 0.1 s into one frame.
    """

    config_type: ClassVar[type[DeviceConfig]] = Config

    def __init__(self, config: Config, now_ns: NowNs) -> None:
        self._config = config
        self._now = now_ns
        self._poller = Poller(config, now_ns)
        points = config.samples
        self._decoder = Decoder(points, self._poller.image, config.order)
        self._due = 0.0
        self._timeless = 0
        self._has_time = True
        ids = [point.id for point in points]
        self._time_column = ids.index(config.slot_time) if config.slot_time else None
        self._time_exponent = (
            points[self._time_column].grid_exponent() if self._time_column is not None else 0
        )

    def notes(self) -> list[str]:
        """Say what was learned and counted; see `drivers.Noting`."""
        lines = self._poller.notes()
        if self._timeless:
            lines.append(
                tr(
                    f"{self._timeless} polls were of no use: the device's own time (slot_time) had no value",
                    f"{self._timeless} 次轮询无法使用：设备自身时间（slot_time）无值",
                )
            )
        return lines

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Connect, then yield frames until contact is lost; see `drivers.Driver`."""
        async with self._poller.line().joined(self._config):
            await self._poller.connect()
            self._due = 0.0
            while True:
                frames, fault = await self._gather()
                for frame in frames:
                    yield frame
                if fault is not None:
                    raise fault

    async def _gather(self) -> tuple[list[Frame], NotConnected | None]:
        """Poll until there are rows enough for frames; return also why no more can come."""
        polls: list[Poll] = []
        frames: list[Frame] = []
        fault: NotConnected | None = None
        began = self._now()
        while fault is None and not self._enough(len(polls), began):
            await self._rest()
            try:
                poll = await self._poller.poll()
            except NotConnected as lost:
                fault = lost
                continue
            if polls and poll.layout is not polls[-1].layout:
                frames += self._frames_of(polls)
                polls = []
            polls.append(poll)
        return frames + self._frames_of(polls), fault

    def _enough(self, rows: int, began: int) -> bool:
        if not rows:
            return False
        slow = self._config.interval >= _GATHER_NS
        return slow or rows >= _MOST_ROWS or self._now() - began >= _GATHER_NS

    async def _rest(self) -> None:
        """Wait until a poll is due; the first of a connection is due at once."""
        loop = asyncio.get_running_loop()
        wait = self._due - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        self._due = loop.time() + self._config.interval / SECOND

    def _frames_of(self, polls: list[Poll]) -> list[Frame]:
        """Return the frames of polls of one layout."""
        if not polls:
            return []
        layout = polls[0].layout
        decoder = self._decoder
        integers, floats, integer_quality, float_quality = decoder.decode(
            np.stack([poll.row for poll in polls])
        )
        times = np.array([poll.times for poll in polls], np.int64)
        bad = np.array([poll.bad for poll in polls])
        clock: int | None = None
        if self._time_column is not None:
            own, usable = self._device_times(integers, integer_quality, bad, layout)
            self._count_timeless(int(np.count_nonzero(~usable)))
            if not len(own):
                return []
            integers, floats, bad = integers[usable], floats[usable], bad[usable]
            integer_quality, float_quality = integer_quality[usable], float_quality[usable]
            times = np.repeat(own[:, None], times.shape[1], axis=1)
            clock = int(own.max())
        both: list[_Part] = [
            (decoder.integer_columns, integers, integer_quality),
            (decoder.float_columns, floats, float_quality),
        ]
        parts = [part for part in both if len(part[0])]
        # Slots close by the clock, so it comes with the last frame of these rows.
        return [
            self._frame(part, times, bad, layout, clock if at == len(parts) else None)
            for at, part in enumerate(parts, 1)
        ]

    def _count_timeless(self, count: int) -> None:
        """Count polls that lie nowhere in time, and say it once when they begin."""
        self._timeless += count
        if count and self._has_time:
            _log.warning(
                "%s",
                NotConnected(
                    tr(
                        f"its own time ('{self._config.slot_time}', slot_time) has no value",
                        f"设备自身时间（slot_time 点 '{self._config.slot_time}'）无值",
                    ),
                    where=self._config.where,
                    remedy=tr(
                        "none of its values is used meanwhile; set its clock, or leave slot_time out",
                        "其间不使用其任何值；请校准设备时钟，或去掉 slot_time",
                    ),
                ),
            )
        self._has_time = not count

    def _frame(
        self, part: _Part, times: Ints, bad: Flags, layout: Layout, clock: int | None
    ) -> Frame:
        columns, values, quality = part
        blocks = layout.block_of[columns]
        alike = layout.complete and len(layout.requests) == 1
        if bad[:, :-1].any() or not layout.complete:
            quality[bad[:, blocks]] = Quality.BAD
        cells = times[:, :1] if alike else times[:, blocks]
        return Frame(self._config.id, columns, cells, values, quality, clock)

    def _device_times(
        self, integers: Ints, quality: Bytes, bad: Flags, layout: Layout
    ) -> tuple[Ints, Flags]:
        """Return the device's own time of each usable row in ns, and which rows are usable."""
        column = self._time_column
        at = np.flatnonzero(self._decoder.integer_columns == column)[0]
        unit = 10 ** (9 + self._time_exponent)
        raw = integers[:, at]
        usable = (quality[:, at] == Quality.GOOD) & (raw > 0) & (raw < _LATEST_NS // unit)
        usable &= ~bad[:, layout.block_of[column]]
        return raw[usable] * unit, usable

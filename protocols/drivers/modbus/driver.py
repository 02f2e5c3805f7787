"""Reads a Modbus TCP device in blocks, over and over."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import ClassVar, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pymodbus import ModbusException
from pymodbus.client import AsyncModbusTcpClient

from protocols.drivers import DeviceConfig, NotConnected
from protocols.drivers.modbus.answer import decode_in_one_piece
from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.decode import Decoder
from protocols.drivers.modbus.planner import Request, plan
from protocols.drivers.modbus.watch import Watch
from protocols.frame import SECOND, Bytes, Floats, Frame, Ints, NowNs, Quality
from protocols.language import tr

# pymodbus writes whole messages, and with them values, into its log.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)

_MOST_ROWS: Final = 256
_GATHER_NS: Final = SECOND // 10
_LATEST_NS: Final = 1 << 62
_log = logging.getLogger(__name__)

_Registers: TypeAlias = NDArray[np.uint16]


class Driver:
    """Polls all points of one device every `interval`.

    When the interval is short, polls are gathered for up to 0.1 s into one frame.
    """

    config_type: ClassVar[type[DeviceConfig]] = Config

    def __init__(self, config: Config, now_ns: NowNs) -> None:
        self._config = config
        self._now = now_ns
        self._where = config.where
        self._requests = plan(config.samples, config.max_registers, config.max_gap)
        self._decoder = Decoder(config.samples, self._requests, config.order)
        self._refused: set[Request] = set()
        self._due = 0.0
        ids = [point.id for point in config.samples]
        self._time_column = ids.index(config.slot_time) if config.slot_time else None
        self._time_exponent = (
            config.samples[self._time_column].grid_exponent()
            if self._time_column is not None
            else 0
        )

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Connect, then yield frames until contact is lost; see `drivers.Driver`."""
        watch = Watch()
        client = await self._connect(watch)
        self._due = 0.0
        try:
            while True:
                frames, fault = await self._gather(client, watch)
                for frame in frames:
                    yield frame
                if fault is not None:
                    raise fault
        finally:
            client.close()

    async def _connect(self, watch: Watch) -> AsyncModbusTcpClient:
        config = self._config
        seconds = config.timeout / SECOND
        client = AsyncModbusTcpClient(
            str(config.host),
            port=config.port,
            timeout=seconds,
            retries=0,
            reconnect_delay=0,
            trace_packet=watch.packet,
            trace_connect=watch.connection,
        )
        watch.over(client)
        decode_in_one_piece(client)
        try:
            async with asyncio.timeout(seconds + 1):
                connected = await client.connect()
        except (OSError, ModbusException, TimeoutError):
            connected = False
        if not connected:
            client.close()
            raise NotConnected(
                tr("the device cannot be reached", "无法连接设备"),
                where=self._where,
                remedy=tr(
                    "check that it is on, its address and port, and that no other program holds "
                    "its only connection",
                    "请检查设备是否通电、地址与端口，以及唯一连接是否被其他程序占用",
                ),
            )
        return client

    async def _gather(
        self, client: AsyncModbusTcpClient, watch: Watch
    ) -> tuple[list[Frame], NotConnected | None]:
        """Poll until there are rows enough for frames; return also why no more can come."""
        rows: list[_Registers] = []
        times: list[list[int]] = []
        bad: list[list[bool]] = []
        fault: NotConnected | None = None
        began = self._now()
        while fault is None and not self._enough(len(rows), began):
            await self._rest()
            try:
                registers, row_times, row_bad = await self._poll(client, watch)
            except NotConnected as lost:
                fault = lost
            else:
                rows.append(registers)
                times.append(row_times)
                bad.append(row_bad)
        if not rows:
            return [], fault
        return self._frames_of(np.stack(rows), np.array(times), np.array(bad)), fault

    def _enough(self, rows: int, began: int) -> bool:
        if not rows:
            return False
        slow = self._config.interval >= _GATHER_NS
        return slow or rows >= _MOST_ROWS or self._now() - began >= _GATHER_NS

    async def _rest(self) -> None:
        """Wait until a poll is due; the first of a connection is due at once."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._due - loop.time(), 0))
        self._due = loop.time() + self._config.interval / SECOND

    async def _poll(
        self, client: AsyncModbusTcpClient, watch: Watch
    ) -> tuple[_Registers, list[int], list[bool]]:
        """Read every block once: all registers, and per block its time and whether it failed."""
        registers: list[_Registers] = []
        times, bad = [], []
        for request in self._requests:
            answer = await self._read(client, watch, request)
            times.append(self._now())
            bad.append(answer is None)
            registers.append(np.zeros(request.count, np.uint16) if answer is None else answer)
        return np.concatenate(registers), times, bad

    async def _read(
        self, client: AsyncModbusTcpClient, watch: Watch, request: Request
    ) -> _Registers | None:
        """Return the registers of a block; None when the device refuses it.

        Raises:
            NotConnected: when no right answer came. The connection is then useless: a late
                answer could be taken for the next one.
        """
        read = (
            client.read_holding_registers
            if request.table == "holding"
            else client.read_input_registers
        )
        try:
            watch.check()
            async with asyncio.timeout(self._config.timeout / SECOND + 1):
                answer = await read(request.first, count=request.count, device_id=self._config.unit)
        except (OSError, ModbusException, TimeoutError):
            raise self._lost(watch.reason()) from None
        watch.answered()
        if answer.isError():
            self._report_refusal(request, answer.exception_code)
            return None
        if len(answer.registers) != request.count:
            raise self._lost(tr("an answer of the wrong length", "应答长度不符"))
        self._refused.discard(request)
        return np.asarray(answer.registers, np.uint16)

    def _lost(self, what: str) -> NotConnected:
        return NotConnected(
            what,
            where=self._where,
            remedy=tr("connecting again", "正在重新连接"),
        )

    def _report_refusal(self, request: Request, code: int) -> None:
        if request in self._refused:
            return
        self._refused.add(request)
        last = request.first + request.count - 1
        _log.warning(
            "%s",
            NotConnected(
                tr(f"refused with exception {code}", f"以异常码 {code} 拒绝"),
                where=f"{self._where}, {request.table} {request.first}-{last}",
                remedy=tr("check the addresses of these points", "请核对这些点的地址"),
            ),
        )

    def _frames_of(
        self,
        registers: NDArray[np.uint16],
        block_times: NDArray[np.int64],
        block_bad: NDArray[np.bool_],
    ) -> list[Frame]:
        decoder = self._decoder
        integers, floats, integer_quality, float_quality = decoder.decode(registers)
        clock: int | None = None
        if self._time_column is not None:
            times, usable = self._device_times(integers, integer_quality, block_bad)
            if not len(times):
                return []
            integers, floats = integers[usable], floats[usable]
            integer_quality, float_quality = integer_quality[usable], float_quality[usable]
            block_times = np.repeat(times[:, None], len(self._requests), axis=1)
            block_bad = block_bad[usable]
            clock = int(times.max())
        both: list[tuple[NDArray[np.int32], Ints | Floats, Bytes]] = [
            (decoder.integer_columns, integers, integer_quality),
            (decoder.float_columns, floats, float_quality),
        ]
        parts = [part for part in both if len(part[0])]
        frames = []
        for at, (columns, values, quality) in enumerate(parts, 1):
            blocks = decoder.block_of[columns]
            times = block_times[:, :1] if len(self._requests) == 1 else block_times[:, blocks]
            quality[block_bad[:, blocks]] = Quality.BAD
            # Slots close by the clock, so it comes with the last frame of these rows.
            reached = clock if at == len(parts) else None
            frames.append(Frame(self._config.id, columns, times, values, quality, reached))
        return frames

    def _device_times(
        self,
        integers: NDArray[np.int64],
        quality: NDArray[np.uint8],
        block_bad: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the device's own time of each usable row in ns, and which rows are usable."""
        column = self._time_column
        at = np.flatnonzero(self._decoder.integer_columns == column)[0]
        unit = 10 ** (9 + self._time_exponent)
        raw = integers[:, at]
        usable = (quality[:, at] == Quality.GOOD) & (raw > 0) & (raw < _LATEST_NS // unit)
        usable &= ~block_bad[:, self._decoder.block_of[column]]
        return raw[usable] * unit, usable

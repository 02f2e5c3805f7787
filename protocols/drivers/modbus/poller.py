"""Poller: reads every point of a device once, and finds out what the device refuses."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.drivers import NotConnected
from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.image import Image, Layout, unpacked
from protocols.drivers.modbus.learning import ILLEGAL_ADDRESS, TEACHING, Learner, named
from protocols.drivers.modbus.line import UNREACHABLE, Line, Refused, line_to
from protocols.drivers.modbus.planner import Request, Rules
from protocols.drivers.modbus.point import FUNCTIONS, Table
from protocols.frame import SECOND, NowNs
from protocols.language import tr

_EXTRA_A_POLL: Final = 60
_MOST_TOLD: Final = 1000
_IDLE_S: Final = 0.1
_log = logging.getLogger(__name__)

Registers: TypeAlias = NDArray[np.uint16]


@dataclass(slots=True)
class Poll:
    """What one poll brought.

    Attributes:
        row: shape (places of the image,); 0 where nothing came.
        times: per request of the layout when its answer came, ns; last the end of the poll.
        bad: per request of the layout whether it was refused; last True.
        layout: what was asked.
    """

    row: Registers
    times: list[int]
    bad: list[bool]
    layout: Layout


class Poller:
    """Polls one device.

    Attributes:
        image: where each register lies in a row.
    """

    def __init__(self, config: Config, now_ns: NowNs) -> None:
        self._config = config
        self._now = now_ns
        points = config.samples
        self._points = len(points)
        self.image = Image(points, config.max_gap)
        barred: dict[Table, list[tuple[int, int]]] = {}
        for span in config.forbidden_spans():
            barred.setdefault(span.table, []).append((span.first, span.end))
        most = {table: config.most(table) for table in FUNCTIONS}
        self._learner = Learner(points, Rules(most, config.max_gap, barred))
        self._layout = Layout(self._points, self._learner.requests)
        self._told: dict[object, None] = {}
        self._line: Line | None = None
        self._row = np.zeros(0, np.uint16)
        self._asked: list[Request] = []
        self._times: list[int] = []
        self._bad: list[bool] = []
        self._extra = 0
        self._unreachable = 0
        self._found: list[tuple[Request, int]] = []
        self._took_s = 0.0

    def line(self) -> Line:
        """Return the connection to the device's place, shared with its neighbours."""
        if self._line is None:
            self._line = line_to(self._config)
        return self._line

    async def connect(self) -> None:
        """Make sure that there is a connection.

        Raises:
            NotConnected: when there cannot be one.
        """
        await self.line().connected(self._config)
        self._learner.soon(asyncio.get_running_loop().time())

    async def poll(self) -> Poll:
        """Read every point once.

        Raises:
            NotConnected: when a right answer did not come.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._row = np.zeros(self.image.size, np.uint16)
        self._asked, self._times, self._bad, self._found = [], [], [], []
        self._extra = self._unreachable = 0
        for request in self._learner.requests:
            await self._read(request)
        ready = self._learner.due(began)
        while ready and self._extra < _EXTRA_A_POLL:
            self._extra += len(ready)
            came = [await self._try_again(request) for request in ready]
            ready = self._learner.due(loop.time()) if any(came) else []
        if not self._asked:
            # Everything is refused: without a pause nothing would ever let others run.
            await asyncio.sleep(_IDLE_S)
        layout = self._layout
        if self._asked != self._learner.requests:
            layout = Layout(self._points, self._asked)
        if self._found or self._learner.changed:
            self._learn()
        self._took_s = loop.time() - began
        return Poll(self._row, [*self._times, self._now()], [*self._bad, True], layout)

    async def _ask(self, request: Request) -> None:
        """Read one block into the row.

        Raises:
            Refused: when the device refuses it.
            NotConnected: when a right answer did not come.
        """
        data = await self.line().ask(
            self._config, FUNCTIONS[request.table], request.first, request.count
        )
        at = self.image.offset(request)
        self._row[at : at + request.count] = unpacked(request, data)

    def _end(self, request: Request, *, bad: bool) -> None:
        self._asked.append(request)
        self._times.append(self._now())
        self._bad.append(bad)

    async def _read(self, request: Request) -> bool:
        """Read a block, in parts where it is refused; return whether it came in one piece."""
        if self._unreachable:
            self._end(request, bad=True)
            return False
        try:
            await self._ask(request)
        except Refused as refused:
            await self._go_around(request, refused.code)
            return False
        self._end(request, bad=False)
        if self._told:
            self._told.pop((request.table, request.first, request.count), None)
        return True

    async def _go_around(self, request: Request, code: int) -> None:
        if code in UNREACHABLE:
            self._unreachable = code
        if code not in TEACHING:
            self._end(request, bad=True)
            self._found.append((request, code))
            return
        if self._extra >= _EXTRA_A_POLL:
            # Enough for this poll; the next one goes on from what was learned.
            self._end(request, bad=True)
            return
        parts = self._learner.instead(request, code)
        if not parts:
            await self._leave_out(request, code)
            return
        self._extra += len(parts)
        came = [await self._read(part) for part in parts]
        if code == ILLEGAL_ADDRESS and all(came):
            self._learner.together_refused(parts)

    async def _leave_out(self, request: Request, code: int) -> None:
        self._found.append((request, code))
        now = asyncio.get_running_loop().time()
        inside = self._learner.refused(request, now)
        whole = tuple(at for at in request.points if self._learner.is_out(at))
        self._end(Request(request.table, request.first, request.count, whole), bad=True)
        self._extra += len(inside)
        for part in inside:
            await self._read(part)

    async def _try_again(self, request: Request) -> bool:
        """Read what was refused before; return whether it came."""
        try:
            await self._ask(request)
        except Refused as refused:
            if refused.code in TEACHING:
                self._learner.refused(request, asyncio.get_running_loop().time())
            return False
        self._learner.accepted(request, asyncio.get_running_loop().time())
        self._told.pop((request.table, request.first, request.count), None)
        self._end(request, bad=False)
        return True

    def _learn(self) -> None:
        """Say in one line what was refused anew, and make the plan go around it."""
        new = [
            (one, code)
            for one, code in self._found
            if (one.table, one.first, one.count) not in self._told
        ]
        if len(self._told) > _MOST_TOLD:
            self._told.clear()
        self._told |= dict.fromkeys((one.table, one.first, one.count) for one, _ in new)
        for code in sorted({code for _, code in new}):
            where = named(one for one, its in new if its == code)
            _log.warning(
                "%s",
                NotConnected(
                    tr(f"refused with exception {code}", f"以异常码 {code} 拒绝"),
                    where=f"{self._config.where}, {where}",
                    remedy=_remedy(code),
                ),
            )
        if self._learner.changed:
            self._learner.replan(asyncio.get_running_loop().time())
            self._layout = Layout(self._points, self._learner.requests)

    def notes(self) -> list[str]:
        """Say what was learned and counted; see `drivers.Noting`."""
        lines = self._learner.notes()
        lines += _counts(self._line, self._config)
        interval = self._config.interval / SECOND
        if 0 < interval < self._took_s:
            lines.append(
                tr(
                    f"reading everything takes {self._took_s:.1f} s, more than the interval",
                    f"读完一遍需 {self._took_s:.1f} 秒，超过采集间隔",
                )
            )
        if self._config.verify == "none":
            lines.append(
                tr(
                    'verify = "none": who answers is not known',
                    'verify = "none"：无法确认应答者身份',
                )
            )
        return lines


def _counts(line: Line | None, config: Config) -> list[str]:
    if line is None:
        return []
    unit = line.unit(config)
    counts = (
        (unit.unanswered, "not answered", "未应答"),
        (unit.spoilt, "foreign, garbled or broken off", "错配、损坏或中断"),
        (unit.again, "asked again", "重问"),
        (line.late, "too late", "迟到"),
    )
    told = [tr(f"{many} {en}", f"{zh} {many}") for many, en, zh in counts if many]
    lines = [tr(f"requests: {', '.join(told)}", f"请求：{'，'.join(told)}")] if told else []
    if line.connections > 1:
        lines.append(tr(f"connected {line.connections} times", f"连接 {line.connections} 次"))
    return lines


def _remedy(code: int) -> str:
    if code in TEACHING:
        return tr(
            "their points have no value, the others are read without them; check the addresses",
            "这些点无值，其余照常读取；请核对地址",
        )
    if code in UNREACHABLE:
        return tr(
            "the gateway cannot reach this unit; check the unit id, and whether it is on",
            "网关无法联系该单元；请核对单元号及其是否通电",
        )
    return tr("their points have no value meanwhile", "其间这些点无值")

"""Lines: devices at the same place share one connection, with one request in flight.

Each unit has its own back-off. While a unit does not answer, all that the others lose is the wait
for one answer, and all dead units together take at most a tenth of the line's time.
"""

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

from protocols.drivers import NotConnected
from protocols.drivers.modbus.config import Config, Endpoint
from protocols.drivers.modbus.framing import Answer, Ask, Mbap, Refusal
from protocols.drivers.modbus.link import Broken, Link, Silent, connect
from protocols.frame import SECOND
from protocols.language import tr
from protocols.tls import TlsFault

UNREACHABLE: Final = frozenset({10, 11})
"""Exceptions by which a gateway says that it cannot reach the unit."""

_SHARE: Final = 9.0
_LONGEST_REST_S: Final = 60.0
_SHORTEST_GRUDGE_S: Final = 0.2
_OWED_FOR_S: Final = 60.0
_PACE_S: Final = 0.1
_LONGEST_ASK: Final = 125
_END: Final = 1 << 16


class Refused(Exception):
    """The device answers with an exception."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class Unit:
    """What is known of one unit on a line.

    Attributes:
        unanswered, spoilt, again: how often it did not answer, how often something else came
            than its answer, how often it was asked again for that.
        strikes: failures since its last answer.
        rest_until: when it may be asked again, loop time.
        unreachable: the exception by which a gateway said that it is not there; 0 is none.
        owed: answers that never came, as (function, bytes) with the loop time of the request; on
            lines where answers do not say what they answer, these may still come.
    """

    unanswered: int = 0
    spoilt: int = 0
    again: int = 0
    strikes: int = 0
    rest_until: float = 0.0
    unreachable: int = 0
    owed: dict[tuple[int, int], float] = field(default_factory=dict)


class Line:
    """The connection to one place, shared by all devices there.

    Attributes:
        units: what is known of each unit.
        connections: how many there have been.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.units: dict[int, Unit] = {}
        self._users: Counter[int] = Counter()
        self._lock = asyncio.Lock()
        self._link: Link | None = None
        self._quiet_until = 0.0
        self._silent_before = False
        self._grudge: tuple[str, float, NotConnected] | None = None
        self._late = 0

    @property
    def shared(self) -> bool:
        """Whether several units are read over it."""
        return len(self._users) > 1

    @property
    def late(self) -> int:
        """How many late answers were left out."""
        link = self._link
        return self._late + (link.framing.late if link and isinstance(link.framing, Mbap) else 0)

    def unit(self, config: Config) -> Unit:
        """Return what is known of a device's unit."""
        return self.units.setdefault(config.unit, Unit())

    @asynccontextmanager
    async def joined(self, config: Config) -> AsyncIterator[None]:
        """Use the line for a device; the last one to leave closes the connection."""
        self._users[config.unit] += 1
        try:
            yield
        finally:
            self._users -= Counter({config.unit: 1})
            if not self._users:
                self._drop()

    async def connected(self, config: Config) -> None:
        """Make sure that there is a connection.

        Raises:
            NotConnected: when it cannot be made.
        """
        async with self._lock:
            await self._linked(config)

    async def ask(self, config: Config, function: int, first: int, length: int) -> bytes:
        """Read registers or bits of a device; return the data bytes of the answer.

        Raises:
            Refused: when the device answers with an exception.
            NotConnected: when no right answer came.
        """
        unit = self.unit(config)
        if self.shared and unit.rest_until:
            await self._rest(unit)
        async with self._lock:
            answer = await self._answered(config, unit, Ask(config.unit, function, first, length))
        if isinstance(answer, Refusal):
            raise Refused(answer.code)
        return answer

    async def _rest(self, unit: Unit) -> None:
        rest = unit.rest_until - asyncio.get_running_loop().time()
        if rest > 0 and unit.unreachable:
            # Whoever asks without a pause is not to spin meanwhile.
            await asyncio.sleep(min(rest, _PACE_S))
            raise Refused(unit.unreachable)
        await asyncio.sleep(max(rest, 0))

    async def _answered(self, config: Config, unit: Unit, ask: Ask) -> Answer:
        asked = 0
        attempts = 1 if unit.strikes else 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                answer = await self._once(config, unit, ask)
            except Broken as fault:
                self._struck(unit, began, 0)
                asked += 1
                if asked >= (attempts or config.attempts):
                    remedy = tr("connecting again", "正在重新连接")
                    raise NotConnected(str(fault), where=config.where, remedy=remedy) from None
                unit.again += 1
                continue
            self._silent_before = False
            if isinstance(answer, Refusal) and answer.code in UNREACHABLE:
                self._struck(unit, began, answer.code)
            elif unit.strikes:
                unit.strikes, unit.rest_until, unit.unreachable = 0, 0.0, 0
            return answer

    def _struck(self, unit: Unit, began: float, code: int) -> None:
        """Give a unit that failed a rest, so long that dead units take a tenth of the time."""
        unit.strikes += 1
        unit.unreachable = code
        if unit.strikes < 2:
            return
        now = asyncio.get_running_loop().time()
        dead = sum(other.strikes > 1 for other in self.units.values())
        rest = min(_SHARE * dead * (now - began), _LONGEST_REST_S)
        unit.rest_until = now + rest * random.uniform(1.0, 1.2)  # noqa: S311 - jitter

    async def _once(self, config: Config, unit: Unit, ask: Ask) -> Answer:
        link = await self._linked(config)
        try:
            if not link.framing.counts_requests:
                await self._in_step(link, config, unit, ask)
            return await self._exchange(link, config, unit, ask)
        except Silent:
            unit.unanswered += 1
            await self._after_silence(link)
            raise
        except Broken:
            unit.spoilt += 1
            await self._after_fault(link)
            raise
        except asyncio.CancelledError:
            self._drop()
            raise

    async def _exchange(self, link: Link, config: Config, unit: Unit, ask: Ask) -> Answer:
        seconds = config.timeout / SECOND
        rest = max(config.pause / SECOND, link.silence_s)
        if not rest and link.framing.counts_requests:
            return await link.ask(ask, seconds)
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._quiet_until - loop.time(), 0))
        unit.owed[ask.function, ask.size] = loop.time()
        answer = await link.ask(ask, seconds)
        self._quiet_until = loop.time() + rest
        unit.owed.clear()
        return answer

    async def _in_step(self, link: Link, config: Config, unit: Unit, ask: Ask) -> None:
        """Ask something whose answer cannot be mistaken for one that is still owed.

        A unit answers in order: once this answer has come, nothing older can come any more.
        """
        now = asyncio.get_running_loop().time()
        for shape, since in list(unit.owed.items()):
            if now - since > _OWED_FOR_S:
                del unit.owed[shape]
        if not unit.owed:
            return
        for other in _near(ask):
            told_apart = other.size != ask.size and (other.function, other.size) not in unit.owed
            if told_apart and config.may_touch(other.function, other.first, other.length):
                await self._exchange(link, config, unit, other)
                return
        raise Broken(tr("too many answers are still owed", "尚有过多未到的应答"))

    async def _after_silence(self, link: Link) -> None:
        """Keep a shared connection whose other units may be well; else begin anew."""
        again, self._silent_before = self._silent_before, True
        if link.framing.counts_requests and self.shared and not again and not link.fault:
            return
        await self._after_fault(link)

    async def _after_fault(self, link: Link) -> None:
        await link.settle()
        if link.fault or not link.lasting:
            self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._late = self.late
            self._link.close()
            self._link = None
        self._silent_before = False

    async def _linked(self, config: Config) -> Link:
        """Return the connection; make it where there is none.

        Raises:
            NotConnected: when that is not possible, or was not for another device just now.
        """
        if self._link is not None and not self._link.fault:
            return self._link
        self._drop()
        loop = asyncio.get_running_loop()
        began = loop.time()
        if self._grudge is not None:
            whose, until, fault = self._grudge
            if whose != config.id and began < until:
                raise _unreachable(config, fault)
        try:
            self._link = await connect(config)
        except (OSError, TimeoutError, TlsFault) as error:
            fault = _reason(config, error)
            spent = max(loop.time() - began, _SHORTEST_GRUDGE_S)
            self._grudge = config.id, loop.time() + spent, fault
            raise fault from error
        self._grudge = None
        self.connections += 1
        return self._link


def _near(ask: Ask) -> Iterator[Ask]:
    """Yield reads of a part of what is asked for, then of more of what lies around it."""
    for length in range(ask.length - 1, 0, -1):
        yield ask._replace(length=length)
    for length in range(ask.length + 1, _LONGEST_ASK):
        if ask.first + length <= _END:
            yield ask._replace(length=length)
        if ask.first + ask.length >= length:
            yield ask._replace(first=ask.first + ask.length - length, length=length)


def _unreachable(config: Config, like: NotConnected) -> NotConnected:
    return NotConnected(like.what, where=config.where, remedy=like.remedy)


def _reason(config: Config, error: Exception) -> NotConnected:
    if isinstance(error, TlsFault):
        what = tr(
            f"{error.where} cannot be used: {error.what}", f"无法使用 {error.where}：{error.what}"
        )
        remedy = error.remedy
    elif isinstance(error, ssl.SSLCertVerificationError):
        what, remedy = (
            tr(
                f"the device's certificate is not accepted: {error.verify_message}",
                f"设备证书未通过验证：{error.verify_message}",
            ),
            tr(
                "check ca and server_name; a wrong certificate may mean a wrong device",
                "请核对 ca 与 server_name；证书不符可能意味着设备不对",
            ),
        )
    elif isinstance(error, ssl.SSLError):
        what, remedy = (
            tr(f"no secured connection: {error.reason}", f"无法建立加密连接：{error.reason}"),
            tr(
                "check that the port speaks TLS, and the files ca and client_certificate",
                "请检查该端口是否为 TLS，以及 ca 与 client_certificate 文件",
            ),
        )
    elif config.transport == "rtu":
        what, remedy = _serial_reason(error)
    else:
        what, remedy = (
            tr("the device cannot be reached", "无法连接设备"),
            tr(
                "check that it is on, its address and port, and that no other program holds "
                "its only connection",
                "请检查设备是否通电、地址与端口，以及唯一连接是否被其他程序占用",
            ),
        )
    return NotConnected(what, where=config.where, remedy=remedy)


def _serial_reason(error: Exception) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return (
            tr("there is no such serial port", "没有此串口"),
            tr("see ls /dev/serial/by-id", "请查看 ls /dev/serial/by-id"),
        )
    if isinstance(error, PermissionError):
        return (
            tr("the serial port may not be opened", "无权打开串口"),
            tr("add the user to the group dialout", "请把该用户加入 dialout 组"),
        )
    if isinstance(error, BlockingIOError):
        return (
            tr("another program uses the serial port", "串口正被其他程序占用"),
            tr("stop that program", "请停止该程序"),
        )
    return (
        tr("the serial port cannot be used", "无法使用该串口"),
        tr("check that it is a serial port", "请确认它是串口"),
    )


_lines: WeakValueDictionary[tuple[asyncio.AbstractEventLoop, Endpoint], Line]
_lines = WeakValueDictionary()


def line_to(config: Config) -> Line:
    """Return the line to a device's place; devices at the same place get the same one."""
    key = asyncio.get_running_loop(), config.endpoint
    line = _lines.get(key)
    if line is None:
        line = _lines[key] = Line()
    return line

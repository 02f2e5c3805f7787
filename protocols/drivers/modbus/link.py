"""Links: bytes to and from a device, over TCP, TLS or a serial port; one question at a time."""

import asyncio
import fcntl
import os
import ssl
import termios
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.framing import Answer, Ask, Framing, Mbap, Misfit, Rtu
from protocols.language import tr
from protocols.tls import client_context, trusting_context

_CHUNK: Final = 4096
_BITS_PER_BYTE: Final = 11
_SILENT_BYTES: Final = 3.5
_SHORTEST_SILENCE_S: Final = 0.00175
_DRAIN_GAP_S: Final = 0.02
_LONGEST_DRAIN_S: Final = 2.0
_BAUDS: Final = {
    1200: termios.B1200,
    2400: termios.B2400,
    4800: termios.B4800,
    9600: termios.B9600,
    19200: termios.B19200,
    38400: termios.B38400,
    57600: termios.B57600,
    115200: termios.B115200,
    230400: termios.B230400,
}


class Broken(Exception):
    """There was no right answer; the text says why."""


class Silent(Broken):
    """There was no answer in time."""


class Link(ABC):
    """A connection.

    Attributes:
        framing: how messages are written on it.
        fault: why it is of no more use; empty while it is.
        silence_s: how long the line must rest between two messages.
        lasting: whether it is still of use after a wrong answer.
    """

    silence_s = 0.0
    lasting = False

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.fault = ""
        self._waiting: asyncio.Future[Answer] | None = None

    async def ask(self, ask: Ask, seconds: float) -> Answer:
        """Ask, and wait for the answer.

        Raises:
            Silent: when there was none in time.
            Broken: when what came was something else, or the connection ended.
        """
        if self.fault:
            raise Broken(self.fault)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Answer] = loop.create_future()
        self._waiting = waiting
        timer = loop.call_later(seconds, self._expire, waiting)
        try:
            self._send(self.framing.request(ask))
            return await waiting
        except BaseException:
            self.framing.give_up()
            raise
        finally:
            timer.cancel()
            self._waiting = None

    def received(self, data: bytes) -> None:
        """Take bytes that came."""
        try:
            answer = self.framing.fed(data)
        except Misfit as misfit:
            self._misfit(str(misfit))
            return
        if answer is not None and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def broken(self, what: str) -> None:
        """Mark the connection as of no more use."""
        self.fault = self.fault or what
        self._fail(Broken(what))

    @abstractmethod
    async def settle(self) -> None:
        """Make sure after a fault that nothing old comes any more, where that can be had."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""

    @abstractmethod
    def _send(self, data: bytes) -> None: ...

    def _misfit(self, what: str) -> None:
        self.broken(what)

    def _fail(self, error: Broken) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)

    def _expire(self, waiting: asyncio.Future[Answer]) -> None:
        if not waiting.done():
            what = tr("no answer", "无应答")
            if self.framing.begun:
                what = tr("an answer that was not finished", "应答不完整")
            waiting.set_exception(Silent(what))


class StreamLink(Link, asyncio.Protocol):
    """TCP or TLS."""

    _transport: asyncio.Transport

    def __init__(self, framing: Framing) -> None:
        super().__init__(framing)
        if not framing.counts_requests:
            # What trails behind an answer arrives before the next is asked for, and is left out.
            self.silence_s = _SHORTEST_SILENCE_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; called by the event loop."""
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes; called by the event loop."""
        # Through a serial server noise may come at any time; without a question it means nothing.
        if self._waiting is None and not self.framing.counts_requests:
            return
        self.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; called by the event loop."""
        if isinstance(exc, ssl.SSLError):
            self.broken(
                tr(
                    f"the device ended the secured connection ({exc.reason})",
                    f"设备终止了加密连接（{exc.reason}）",
                )
            )
        self.broken(tr("the device closed the connection", "设备关闭了连接"))

    async def settle(self) -> None:
        """Do nothing: a connection that had a fault is not used again."""

    def close(self) -> None:
        """Give the connection back."""
        self.fault = self.fault or tr("the connection was closed", "连接已关闭")
        self._transport.abort()

    def _send(self, data: bytes) -> None:
        self._transport.write(data)


class SerialLink(Link):
    """A serial port, 8 data bits, raw.

    Raises:
        OSError: when the port is not there, is not serial, or is used by another program.
    """

    lasting = True

    def __init__(self, config: Config) -> None:
        super().__init__(Rtu())
        self.silence_s = max(_SILENT_BYTES * _BITS_PER_BYTE / config.baud, _SHORTEST_SILENCE_S)
        self._heard = False
        self._port = os.open(str(config.serial), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            fcntl.flock(self._port, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _set_up(self._port, config)
            asyncio.get_running_loop().add_reader(self._port, self._readable)
        except (OSError, termios.error) as error:
            os.close(self._port)
            raise OSError(*error.args) from error

    async def settle(self) -> None:
        """Wait until nothing more comes, for a bounded time; what comes is forgotten."""
        gap = max(2 * self.silence_s, _DRAIN_GAP_S)
        loop = asyncio.get_running_loop()
        end = loop.time() + _LONGEST_DRAIN_S
        self._heard = True
        while self._heard and loop.time() < end and not self.fault:
            self._heard = False
            await asyncio.sleep(gap)
        self.framing.give_up()

    def close(self) -> None:
        """Give the port back."""
        if self._port >= 0:
            asyncio.get_running_loop().remove_reader(self._port)
            os.close(self._port)
            self._port = -1
        self.fault = self.fault or tr("the connection was closed", "连接已关闭")

    def _readable(self) -> None:
        try:
            data = os.read(self._port, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._port)
            self.broken(tr("the serial port is gone", "串口已断开"))
            return
        self._heard = True
        if self._waiting is not None and not self._waiting.done():
            self.received(data)

    def _send(self, data: bytes) -> None:
        try:
            termios.tcflush(self._port, termios.TCIFLUSH)
            whole = os.write(self._port, data) == len(data)
        except (OSError, termios.error):
            whole = False
        if not whole:
            self.broken(tr("the serial port takes nothing", "串口无法写入"))

    def _misfit(self, what: str) -> None:
        # The port itself is as good as before, once it is silent again.
        self._fail(Broken(what))


def _set_up(port: int, config: Config) -> None:
    control = termios.CS8 | termios.CREAD | termios.CLOCAL
    if config.parity != "none":
        control |= termios.PARENB | (termios.PARODD if config.parity == "odd" else 0)
    if config.stop_bits > 1:
        control |= termios.CSTOPB
    speed = _BAUDS[config.baud]
    checking = termios.INPCK if config.parity != "none" else termios.IGNPAR
    old = termios.tcgetattr(port)
    termios.tcsetattr(port, termios.TCSANOW, [checking, 0, control, 0, speed, speed, old[6]])
    termios.tcflush(port, termios.TCIOFLUSH)


async def connect(config: Config) -> Link:
    """Connect to where a device is.

    Raises:
        TlsFault: when a file that it needs cannot be used.
        OSError, ssl.SSLError, TimeoutError: when that is not possible.
    """
    if config.transport == "rtu":
        return SerialLink(config)
    seconds = config.timeout / 10**9
    secured = None
    if config.transport == "tls":
        secured = await asyncio.to_thread(_tls, config.ca, config.client_certificate)
    async with asyncio.timeout(seconds + 1):
        _, link = await asyncio.get_running_loop().create_connection(
            lambda: StreamLink(Rtu() if config.framed_by_silence else Mbap()),
            str(config.host),
            config.port,
            ssl=secured,
            server_hostname=(config.server_name or config.host) if secured else None,
            ssl_handshake_timeout=seconds if secured else None,
        )
    return link


def _tls(ca: Path | None, own: Path | None) -> ssl.SSLContext:
    """Return a client's TLS settings; without `ca` nobody is verified."""
    return trusting_context(own, own) if ca is None else client_context(ca, own, own)

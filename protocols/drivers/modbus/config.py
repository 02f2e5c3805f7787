"""What a technician writes of a Modbus device."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from protocols.drivers import DeviceConfig
from protocols.drivers.modbus.point import BIT_TABLES, FUNCTIONS, ModbusPoint, Order, Table
from protocols.errors import MillgateError
from protocols.frame import Flags
from protocols.hosts import Host
from protocols.language import tr
from protocols.points import PointTable, shared
from protocols.settings import Duration

Transport = Literal["tcp", "tls", "rtu", "rtu-over-tcp"]

_SPAN: Final = re.compile(r"(coil|discrete|holding|input):([0-9]{1,5})(?:-([0-9]{1,5}))?")
_MILLISECOND: Final = 10**6
_SECOND: Final = 10**9
_HOLD_INTERVALS: Final = 3
_NANO: Final = -9
_SHORTEST_HOLD: Final = 2 * _SECOND
_TLS_PORT: Final = 802
_LARGEST_SERIAL_UNIT: Final = 247
_NETWORK: Final = ("host", "port")
_SERIAL: Final = ("serial", "baud", "parity", "stop_bits")
_TLS: Final = ("ca", "verify", "server_name", "client_certificate")
_IDLE: Final[dict[str, tuple[str, ...]]] = {
    "tcp": (*_SERIAL, *_TLS),
    "rtu-over-tcp": (*_SERIAL, *_TLS),
    "tls": _SERIAL,
    "rtu": (*_NETWORK, *_TLS),
}
"""Settings that do nothing with a transport."""


class Span(NamedTuple):
    """A range of addresses in one table.

    Attributes:
        table: the table.
        first, end: the first address, and the one behind the last.
    """

    table: Table
    first: int
    end: int


class Endpoint(NamedTuple):
    """A connection: what devices at the same place must agree on.

    Attributes:
        place: host and port, or the serial port.
        settings: everything else that makes the connection.
    """

    place: str
    settings: tuple[object, ...]


class Config(DeviceConfig):
    """A Modbus device.

    Devices with the same host and port, or on the same serial port, share one connection with one
    request in flight.

    Attributes:
        transport: `tcp` (MBAP), `tls` (the same in TLS), `rtu` (a serial port) or `rtu-over-tcp`
            (serial frames through a plain serial server).
        host, port: its address; the port is 502, with `tls` 802.
        serial: the serial port, such as /dev/ttyUSB0; better a name below /dev/serial/by-id.
        baud, parity, stop_bits: of the serial port; there are always 8 data bits.
        unit: Modbus unit id.
        interval: how often all points are read; '0s' reads without a pause.
        timeout: how long an answer may take.
        retries: how often a request whose answer was spoilt or missing is asked again at once;
            left out, once on serial frames and never with `tcp` and `tls`.
        pause: how long the line rests between two requests; devices that need it say so.
        order: how the bytes A B C D of a 32-bit value lie in its registers.
        max_registers, max_bits: the most that the device answers in one request.
        limits: the same, for single tables.
        max_gap: what a request costs, counted in registers: so many registers nobody asked for
            may be read along to save one; for bits 16 times as many.
        forbidden: addresses that are never touched, such as 'holding:100-119'.
        ca: file of the certificates by which the device's own is verified.
        verify: `none`, written out, takes any certificate: encrypted, but to whom is not known.
        server_name: the name in the device's certificate, where it is not `host`.
        client_certificate: PEM file with our private key and certificate, mode 0600, for devices
            that ask for one.
        slot_time: id of the point that holds the device's own time in seconds since 1970 UTC;
            then slots follow that time instead of the wall clock.
    """

    kind: Literal["modbus"]
    transport: Transport = "tcp"
    host: Host | None = Field(default=None, min_length=1, max_length=253)
    port: int = Field(default=502, ge=1, le=65535)
    serial: Path | None = None
    baud: Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400] = 9600
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    unit: int = Field(default=1, ge=0, le=255)
    interval: Duration = Field(default=_SECOND, ge=0, le=86400 * _SECOND)
    timeout: Duration = Field(default=3 * _SECOND, ge=10 * _MILLISECOND, le=60 * _SECOND)
    retries: int | None = Field(default=None, ge=0, le=5)
    pause: Duration = Field(default=0, ge=0, le=10 * _SECOND)
    order: Order = "ABCD"
    max_registers: int = Field(default=125, ge=4, le=125)
    max_bits: int = Field(default=2000, ge=1, le=2000)
    limits: dict[Table, int] = Field(default={})
    max_gap: int = Field(default=8, ge=0, le=120)
    forbidden: tuple[str, ...] = Field(default=(), max_length=1000)
    ca: Path | None = None
    verify: Literal["full", "none"] = "full"
    server_name: Host | None = Field(default=None, min_length=1, max_length=253)
    client_certificate: Path | None = None
    slot_time: str | None = None
    points: list[ModbusPoint] = Field(min_length=1, max_length=100_000)  # type: ignore[assignment] # a narrower list of a frozen model

    @model_validator(mode="before")
    @classmethod
    def _default_port(cls, data: object) -> object:
        if isinstance(data, Mapping) and data.get("transport") == "tls":
            return {"port": _TLS_PORT, **data}
        return data

    @field_validator("limits")
    @classmethod
    def _limits_hold(cls, limits: dict[Table, int]) -> dict[Table, int]:
        for table, most in limits.items():
            highest = 2000 if table in BIT_TABLES else 125
            if not 1 <= most <= highest:
                raise ValueError(
                    tr(f"{table}: must be from 1 to {highest}", f"{table}：须为 1 至 {highest}")
                )
        return limits

    @field_validator("forbidden")
    @classmethod
    def _spans_written(cls, forbidden: tuple[str, ...]) -> tuple[str, ...]:
        for text in forbidden:
            _span(text)
        return forbidden

    @model_validator(mode="after")
    def _transport_whole(self) -> Self:
        wrong = [name for name in _IDLE[self.transport] if name in self.model_fields_set]
        if wrong:
            names = ", ".join(wrong)
            raise ValueError(
                tr(
                    f'these do nothing with transport = "{self.transport}": {names}',
                    f'transport = "{self.transport}" 时以下设置无效：{names}',
                )
            )
        missing = "serial" if self.transport == "rtu" else "host"
        if getattr(self, missing) is None:
            raise ValueError(
                tr(
                    f'transport = "{self.transport}" needs {missing}',
                    f'transport = "{self.transport}" 须写 {missing}',
                )
            )
        if self.framed_by_silence and not 1 <= self.unit <= _LARGEST_SERIAL_UNIT:
            raise ValueError(
                tr("unit must be from 1 to 247 on a serial line", "串行线路上 unit 须为 1 至 247")
            )
        return self

    @model_validator(mode="after")
    def _tls_whole(self) -> Self:
        if self.transport == "tls" and (self.ca is None) == (self.verify == "full"):
            raise ValueError(
                tr(
                    'write ca = "FILE" by which the device is verified, or verify = "none" to '
                    "talk to whoever answers; not both",
                    '请写 ca = "文件" 以验证设备，或写 verify = "none" 表示不验证对方；二者选一',
                )
            )
        return self

    @model_validator(mode="after")
    def _points_readable(self) -> Self:
        if not any(point.sampled for point in self.points):
            raise ValueError(
                tr(
                    "needs a point that is not a string; strings are never sampled",
                    "至少需要一个非字符串点；字符串不采样",
                )
            )
        barred = _barred(self.forbidden_spans())
        for point in self.points:
            if point.words > self.most(point.table):
                raise ValueError(
                    tr(
                        f"{point.id}: takes more registers than one request may ask for",
                        f"{point.id}：所占寄存器数超过单次请求上限",
                    )
                )
            if barred[point.table][point.first : point.first + point.words].any():
                raise ValueError(
                    tr(
                        f"{point.id}: lies in a range that is forbidden",
                        f"{point.id}：位于 forbidden 禁止的范围内",
                    )
                )
        return self

    @model_validator(mode="after")
    def _time_point(self) -> Self:
        if self.slot_time is None:
            return self
        found = next((point for point in self.points if point.id == self.slot_time), None)
        if found is None or not found.integer or found.grid_exponent() < _NANO or found.unit != "s":
            raise ValueError(
                tr(
                    f"slot_time names '{self.slot_time}', which is not an integer point in seconds",
                    f"slot_time 指向的 '{self.slot_time}' 不是以秒为单位的整数点",
                )
            )
        return self

    @property
    def framed_by_silence(self) -> bool:
        """Whether answers come as serial frames, which have no number of their request."""
        return self.transport in {"rtu", "rtu-over-tcp"}

    @property
    def samples(self) -> list[ModbusPoint]:
        """The points that are read over and over: all but strings."""
        return [point for point in self.points if point.sampled]

    @property
    def endpoint(self) -> Endpoint:
        """The connection that leads to it."""
        common = (self.transport, self.pause)
        if self.transport == "rtu":
            line = (self.baud, self.parity, self.stop_bits)
            return Endpoint(str(self.serial), (*common, *line))
        tls = (self.ca, self.verify, self.server_name, self.client_certificate)
        return Endpoint(f"{self.host}:{self.port}".lower(), (*common, *tls))

    @property
    def where(self) -> str:
        """The device, for messages."""
        return f"{self.id} ({self.endpoint.place}, unit {self.unit})"

    @property
    def attempts(self) -> int:
        """How often a request is asked before it counts as not answered."""
        return 1 + (int(self.framed_by_silence) if self.retries is None else self.retries)

    def most(self, table: Table) -> int:
        """Return the most registers or bits of a table that one request may ask for."""
        usual = self.max_bits if table in BIT_TABLES else self.max_registers
        return self.limits.get(table, usual)

    def forbidden_spans(self) -> list[Span]:
        """Return the addresses that are never touched."""
        return [_span(text) for text in self.forbidden]

    def located(self, folder: Path) -> Self:
        """Return the same with paths that are relative to `folder` made absolute."""
        paths = {
            name: folder.absolute() / path
            for name in ("ca", "client_certificate", "serial")
            if (path := getattr(self, name)) is not None
        }
        return self.model_copy(update=paths)

    def may_touch(self, function: int, first: int, length: int) -> bool:
        """Tell whether none of some addresses of a function's table is forbidden."""
        return not any(
            FUNCTIONS[span.table] == function and span.first < first + length and first < span.end
            for span in self.forbidden_spans()
        )

    @classmethod
    def conflicts(cls, devices: Sequence[Any], path: Path) -> list[MillgateError]:
        """Return a fault for every connection whose devices do not agree on its settings."""
        by_place: dict[str, list[Config]] = defaultdict(list)
        for device in devices:
            by_place[device.endpoint.place].append(device)
        return [
            MillgateError(
                tr(
                    f"{place}: its devices share one connection but not its settings: {names}",
                    f"{place}：以下设备共用一个连接，但连接设置不一致：{names}",
                ),
                where=str(path),
                remedy=tr(
                    "give them the same transport, serial, TLS and pause settings",
                    "请使它们的传输方式、串口、TLS 与 pause 设置一致",
                ),
            )
            for place, sharing in by_place.items()
            if len({device.endpoint for device in sharing}) > 1
            and (names := ", ".join(device.id for device in sharing[:10]))
        ]

    def table(self) -> PointTable:
        """Return the point table that this device's frames refer to; strings are not in it."""
        samples = self.samples
        return PointTable(
            device=self.id,
            kind=self.kind,
            points=tuple(samples),
            integer=np.array([point.integer for point in samples]),
            modulus=shared(point.modulus() for point in samples),
            hold_ns=max(_HOLD_INTERVALS * self.interval, _SHORTEST_HOLD),
            brings_time=self.slot_time is not None,
            origins=shared(map(self._origin, samples)),
        )

    def _origin(self, point: ModbusPoint) -> str:
        """Return what decides which value a point shows beside its address, type and scale."""
        words = [f"{self.kind} {self.transport} {self.endpoint.place} unit {self.unit}"]
        words.append(point.reading(self.order))
        timer = next((one for one in self.points if one.id == self.slot_time), None)
        if timer is not None:
            scaling = f"{timer.scale.normalize():f} {timer.offset.normalize():f}"
            words.append(f"time {timer.address} {timer.type} {scaling} {timer.reading(self.order)}")
        return " ".join(filter(None, words))


def _span(text: str) -> Span:
    match = _SPAN.fullmatch(text)
    if match is None or not int(match[2]) <= int(match[3] or match[2]) < 1 << 16:
        raise ValueError(
            tr(
                f"'{text}': write a range such as 'holding:100-119'",
                f"'{text}'：请写范围，例如 'holding:100-119'",
            )
        )
    tables: dict[str, Table] = {"coil": "coil", "discrete": "discrete", "holding": "holding"}
    return Span(tables.get(match[1], "input"), int(match[2]), int(match[3] or match[2]) + 1)


def _barred(spans: Sequence[Span]) -> dict[Table, Flags]:
    barred: dict[Table, Flags] = defaultdict(lambda: np.zeros(1 << 16, np.bool_))
    for span in spans:
        barred[span.table][span.first : span.end] = True
    return barred

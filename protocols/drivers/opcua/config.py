"""What a technician writes of an OPC-UA device."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from protocols.drivers import DeviceConfig
from protocols.drivers.opcua.point import LARGEST_QUEUE, OpcuaPoint, Sampling
from protocols.hosts import Plain
from protocols.language import tr
from protocols.points import PointTable, shared
from protocols.settings import Duration

_MILLISECOND: Final = 10**6
_SECOND: Final = 10**9
_DAY: Final = 86_400 * _SECOND
_DEFAULT_PORT: Final = 4840
_SHORTEST_QUEUE: Final = 10
_SHORTEST_SAMPLING: Final = 10 * _MILLISECOND
_HOLD_INTERVALS: Final = 3
_SHORTEST_HOLD: Final = 2 * _SECOND
_MOST_NAMED: Final = 10
_FOR_SUBSCRIBING: Final = (
    "publishing_interval",
    "sampling_interval",
    "queue_size",
    "keep_alive",
    "refill",
)


class Identity(Enum):
    """As whom we log in at a server."""

    ANONYMOUS = "anonymous"
    USER = "user"
    CERTIFICATE = "certificate"


class Config(DeviceConfig):
    """An OPC-UA server.

    Attributes:
        url: `opc.tcp://host:port/path`.
        security: the security policy; `best` is the strongest that both sides have, and never
            none; `none`, written out, is neither signed nor encrypted.
        security_mode: `Sign` or `SignAndEncrypt`; `best` is the stronger that the server has.
        user, password_file: log in as this user; the file holds the password alone, mode 0600.
        user_certificate: log in by certificate; a PEM file with private key and certificate,
            mode 0600.
        pki: folder of our own certificate and of the servers that are trusted; see `pki`.
        server_certificate: the server's certificate, exported to a file, for servers that do not
            tell their endpoints; whoever writes this trusts it.
        tolerate: what may be wrong with a trusted server's certificate: its `time` (expired, not
            yet valid), its application `uri`.
        mode: `subscribe` has the server send what changes; `poll` reads every point over and over,
            for servers whose subscriptions cannot be relied on.
        interval: how often to read, for `poll` alone.
        publishing_interval: how often the server sends what has changed.
        sampling_interval: how often the server looks at each node; '0s' is as fast as it can.
        queue_size: changes of one node the server keeps between two sendings; left out, it is
            twice what the two intervals ask for, and at least 10.
        timeout: how long connecting and each answer may take; ServerStatus is asked this often.
        keep_alive: how often a server without news has to say that the subscription lives.
        refill: how far back the server's history is read for what changed while contact was lost;
            '0s' is not at all.
    """

    kind: Literal["opcua"]
    url: Plain
    security: Literal[
        "best", "Aes256_Sha256_RsaPss", "Aes128_Sha256_RsaOaep", "Basic256Sha256", "none"
    ] = "best"
    security_mode: Literal["best", "SignAndEncrypt", "Sign"] = "best"
    user: str | None = Field(default=None, min_length=1, max_length=200)
    password_file: Path | None = None
    user_certificate: Path | None = None
    pki: Path = Path("pki")
    server_certificate: Path | None = None
    tolerate: frozenset[Literal["time", "uri"]] = frozenset()
    mode: Literal["subscribe", "poll"] = "subscribe"
    interval: Duration = _SECOND
    publishing_interval: Duration = 500 * _MILLISECOND
    sampling_interval: Sampling = 100 * _MILLISECOND
    queue_size: int | None = Field(default=None, ge=1, le=LARGEST_QUEUE)
    timeout: Duration = 5 * _SECOND
    keep_alive: Duration = 5 * _SECOND
    refill: Annotated[Duration, Field(ge=0, le=_DAY)] = 900 * _SECOND
    points: list[OpcuaPoint] = Field(min_length=1, max_length=100_000)  # type: ignore[assignment] # a narrower list of a frozen model

    @field_validator("url")
    @classmethod
    def _url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            good = parts.scheme == "opc.tcp" and bool(parts.hostname) and parts.port != 0
            parts = (
                parts if parts.port else parts._replace(netloc=f"{parts.netloc}:{_DEFAULT_PORT}")
            )
        except ValueError:
            good = False
        if not good or "@" in url:
            raise ValueError(
                tr(
                    "write 'opc.tcp://host:port/path', without user or password",
                    "请写 'opc.tcp://主机:端口/路径'，不含用户名与口令",
                )
            )
        return parts.geturl()

    @field_validator("interval", "publishing_interval", "timeout", "keep_alive")
    @classmethod
    def _bounded(cls, span: int) -> int:
        if not 10 * _MILLISECOND <= span <= 3600 * _SECOND:
            raise ValueError(tr("must be from 10ms to 1h", "须为 10ms 至 1h"))
        return span

    @model_validator(mode="after")
    def _mode_fits(self) -> Self:
        only = _FOR_SUBSCRIBING if self.mode == "poll" else ("interval",)
        wrong = [name for name in only if name in self.model_fields_set]
        if self.mode == "poll":
            wrong += [f"{point.id}: ..." for point in self.points if point.follows]
        if wrong:
            names = ", ".join(wrong[:_MOST_NAMED])
            raise ValueError(
                tr(
                    f'these do nothing with mode = "{self.mode}": {names}',
                    f'mode = "{self.mode}" 时以下设置无效：{names}',
                )
            )
        return self

    @field_validator("queue_size")
    @classmethod
    def _long_enough(cls, size: int | None, info: ValidationInfo) -> int | None:
        spans = info.data
        if {"publishing_interval", "sampling_interval"} <= spans.keys():
            _check_queue(spans["publishing_interval"], spans["sampling_interval"], size)
        return size

    @model_validator(mode="after")
    def _queues_long_enough(self) -> Self:
        for point in self.points:
            if point.sampling_interval is None and point.queue_size is None:
                continue
            sampling, queue = self.sampling_of(point)
            try:
                _check_queue(self.publishing_interval, sampling, queue)
            except ValueError as error:
                raise ValueError(f"{point.id}: {error}") from None
        return self

    @model_validator(mode="after")
    def _identity_whole(self) -> Self:
        if (self.user is None) != (self.password_file is None):
            raise ValueError(
                tr("write user and password_file together", "user 与 password_file 须同时写明")
            )
        if self.user is not None and self.user_certificate is not None:
            raise ValueError(
                tr(
                    "write either user or user_certificate, not both",
                    "user 与 user_certificate 只能写其一",
                )
            )
        return self

    @model_validator(mode="after")
    def _security_whole(self) -> Self:
        if self.security == "none" and self.security_mode != "best":
            raise ValueError(
                tr(
                    'security = "none" has no security_mode; leave one of them out',
                    'security = "none" 没有 security_mode；请去掉其一',
                )
            )
        named = self.security not in {"best", "none"} and self.security_mode != "best"
        if self.server_certificate is not None and not named:
            raise ValueError(
                tr(
                    "with server_certificate the server is not asked what it offers: name both "
                    "security and security_mode",
                    "使用 server_certificate 时不会询问服务器：请同时写明 security 与 security_mode",
                )
            )
        return self

    @property
    def identity(self) -> Identity:
        """As whom we log in."""
        if self.user is not None:
            return Identity.USER
        return Identity.ANONYMOUS if self.user_certificate is None else Identity.CERTIFICATE

    def located(self, folder: Path) -> Self:
        """Return the same with paths that are relative to `folder` made absolute."""
        paths = {
            name: folder.absolute() / path
            for name in ("password_file", "user_certificate", "pki", "server_certificate")
            if (path := getattr(self, name)) is not None
        }
        return self.model_copy(update=paths)

    def sampling_of(self, point: OpcuaPoint) -> tuple[int, int]:
        """Return how often the server is to look at a point, ns, and how many changes it keeps."""
        sampling = self.sampling_interval
        queue = self.queue_size
        if point.sampling_interval is not None:
            sampling, queue = point.sampling_interval, None
        if point.queue_size is not None:
            queue = point.queue_size
        if queue is None:
            needed = _samples_between(self.publishing_interval, sampling)
            queue = min(max(2 * needed, _SHORTEST_QUEUE), LARGEST_QUEUE)
        return sampling, queue

    def table(self) -> PointTable:
        """Return the point table that this device's frames refer to."""
        return PointTable(
            device=self.id,
            kind=self.kind,
            points=tuple(self.points),
            integer=np.array([point.integer for point in self.points]),
            modulus=shared(point.modulus() for point in self.points),
            hold_ns=max(_HOLD_INTERVALS * self.interval, _SHORTEST_HOLD)
            if self.mode == "poll"
            else None,
            origins=shared(map(self._origin, self.points)),
        )

    def _origin(self, point: OpcuaPoint) -> str:
        """Return what decides which value a point shows beside its address, type and scale."""
        words = [f"{self.kind} {self.url}"]
        if point.counter.rollover is not None:
            words.append(f"rollover {point.counter.rollover.normalize():f}")
        if point.counter.on_reset != "from_zero":
            words.append(point.counter.on_reset)
        return " ".join(words)


def _samples_between(publishing_ns: int, sampling_ns: int) -> int:
    return -(-publishing_ns // max(sampling_ns, _SHORTEST_SAMPLING))


def _check_queue(publishing_ns: int, sampling_ns: int, size: int | None) -> None:
    needed = _samples_between(publishing_ns, sampling_ns)
    if sampling_ns and size is not None and size < needed:
        raise ValueError(
            tr(
                f"the server would drop changes; it samples {needed} times between two "
                f"sendings: write queue_size of at least {needed}, or sample less often",
                f"服务器会丢弃变化：两次发送之间采样 {needed} 次；queue_size 请至少写 {needed}，"
                "或降低采样频率",
            )
        )

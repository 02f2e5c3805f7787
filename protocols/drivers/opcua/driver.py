"""Subscribes to an OPC-UA server's nodes and yields their changes as frames."""

import logging
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace
from typing import ClassVar, Final

from protocols.drivers import DeviceConfig
from protocols.drivers.opcua.address import parse_address
from protocols.drivers.opcua.assembly import Assembler, Counts
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.door import Door
from protocols.drivers.opcua.levels import Level
from protocols.drivers.opcua.link import Link
from protocols.drivers.opcua.notification import Reader
from protocols.frame import Frame, NowNs
from protocols.language import tr

_MOST_NAMED: Final = 20
# Beside point ids, which never begin with a dot, in what a connection has already said.
_TIMES: Final = ".times"
_QUEUES: Final = ".queues"
_log = logging.getLogger(__name__)


class Driver:
    """Follows the changes of one server's nodes."""

    config_type: ClassVar[type[DeviceConfig]] = Config

    def __init__(self, config: Config, now_ns: NowNs) -> None:
        self._config = config
        self._now = now_ns
        self._where = f"{config.id} ({config.url})"
        self._addresses = [parse_address(point.address) for point in config.points]
        self._reader = Reader(config.points)
        self._assembler = Assembler(config.id, config.points)
        self._floor: Level | None = None
        self._door = Door()
        self.refused: dict[str, str] = {}
        """Points the server did not give at the last connect: point id -> name of its reason."""

    @property
    def counts(self) -> Counts:
        """What was handled by a rule since the driver was made, over all connections."""
        return self._assembler.counts

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Connect, then yield frames until contact is lost; see `drivers.Driver`."""
        link = Link(self._config, self._now, self._where)
        said: set[str] = set()
        try:
            await link.open(self._addresses, self._floor)
            self._report_door(link.door)
            self._report_refused(link.refused)
            while True:
                delivery = await link.next()
                notification = self._reader.take_apart(delivery.items)
                before = replace(self.counts)
                for frame in self._assembler.frames(notification, delivery.received_ns):
                    yield frame
                self._report(before, notification.mistyped, said)
        finally:
            await link.close()

    def _report_door(self, door: Door) -> None:
        """Remember how well the connection is protected, and say what is not as it should be."""
        if door.level is not None:
            self._floor = door.level if self._floor is None else max(self._floor, door.level)
        for text in door.warnings:
            if text not in self._door.warnings:
                self._warn(text)
        self._door = door

    def _report_refused(self, refused: dict[int, str]) -> None:
        points = self._config.points
        self.refused = {points[position].id: name for position, name in sorted(refused.items())}
        for name in sorted(set(self.refused.values())):
            ids = [point for point, reason in self.refused.items() if reason == name]
            self._warn(
                tr(f"the server does not give ({name}): ", f"服务器不提供（{name}）：") + _some(ids)
            )

    def _report(self, before: Counts, mistyped: Iterable[int], said: set[str]) -> None:
        """Say each kind of trouble, and each mistyped point, once per connection."""
        now = self.counts
        news = []
        wrong = sorted({self._config.points[column].id for column in mistyped} - said)
        if wrong:
            said.update(wrong)
            news.append(tr("not of the declared type: ", "类型与声明不符：") + _some(wrong))
        if now.absurd_times > before.absurd_times and _TIMES not in said:
            said.add(_TIMES)
            news.append(
                tr(
                    "timestamps before 2000 or over a day ahead: the receive time is used; set "
                    "the server's clock",
                    "时间戳早于 2000 年或超前一天以上：已改用接收时间；请校准服务器时钟",
                )
            )
        if now.overflows > before.overflows and _QUEUES not in said:
            said.add(_QUEUES)
            news.append(
                tr(
                    "the server dropped changes: its queues overflow; raise queue_size, or "
                    "publish more often",
                    "服务器队列溢出，丢弃了变化：请增大 queue_size 或缩短 publishing_interval",
                )
            )
        for text in news:
            self._warn(text)

    def _warn(self, text: str) -> None:
        _log.warning("%s: %s", self._where, text)


def _some(ids: list[str]) -> str:
    more = len(ids) - _MOST_NAMED
    return ", ".join(ids[:_MOST_NAMED]) + (
        tr(f" and {more} more", f" 等另 {more} 个") if more > 0 else ""
    )

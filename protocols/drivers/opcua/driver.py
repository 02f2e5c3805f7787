"""Follows or reads an OPC-UA server's nodes and yields their values as frames."""

from collections.abc import AsyncGenerator
from typing import ClassVar

from protocols.drivers import DeviceConfig, NotConnected
from protocols.drivers.opcua.assembly import Assembler, Counts
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.history import Gap
from protocols.drivers.opcua.items import items_of
from protocols.drivers.opcua.levels import Level
from protocols.drivers.opcua.link import Link
from protocols.drivers.opcua.notification import Reader
from protocols.drivers.opcua.polling import Polling
from protocols.drivers.opcua.report import Report
from protocols.drivers.opcua.subscription import Subscription
from protocols.frame import Frame, NowNs


class Driver:
    """Follows the changes of one server's nodes, or reads them over and over."""

    config_type: ClassVar[type[DeviceConfig]] = Config

    def __init__(self, config: Config, now_ns: NowNs) -> None:
        self._config = config
        self._now = now_ns
        self._where = f"{config.id} ({config.url})"
        self._items = items_of(config)
        self._reader = Reader(config.points, self._items, timed=config.mode == "subscribe")
        self._assembler = Assembler(config.id, config.points)
        self._without: set[int] = set()
        self._report = Report(
            config, self._items, self._where, self._assembler.counts, self._without
        )
        self._floor: Level | None = None
        self._gap: Gap | None = None

    @property
    def counts(self) -> Counts:
        """What was handled by a rule since the driver was made, over all connections."""
        return self._assembler.counts

    @property
    def refused(self) -> dict[str, str]:
        """Points the server does not give now: point id -> name of its reason."""
        return self._report.refused

    def notes(self) -> list[str]:
        """Return what a person should know of the device, in one line each; no values."""
        return self._report.notes()

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Connect, then yield frames until contact is lost; see `drivers.Driver`."""
        kind = Subscription if self._config.mode == "subscribe" else Polling
        link: Link = kind(self._config, self._items, self._now, self._where)
        try:
            await link.open(self._floor, self._gap, self._without)
            self._remember(link.door.level)
            self._report.opened(link)
            changes = link.changes
            while True:
                delivery = await link.next()
                if link.changes != changes:
                    changes = link.changes
                    self._report.changed(link)
                notification = self._reader.take_apart(delivery.changes, link.layouts)
                for frame in self._assembler.frames(notification, delivery.received_ns):
                    self.counts.refilled += frame.samples if delivery.refilled else 0
                    yield frame
                self._report.arrived(notification.mistyped)
        except NotConnected as fault:
            fault.since_ns = link.seen_ns
            raise
        finally:
            self._part(link)
            await link.close()

    def _part(self, link: Link) -> None:
        """Keep what is known at the end of a connection."""
        contact = link.contact or (None if self._gap is None else self._gap.contact)
        if contact is not None:
            # What was seen is never refilled, however short the connection was: given again, an
            # older reading would make a counter seem to fall.
            latest = self._assembler.latest_us
            known = [int(latest[list(item.columns)].max()) for item in self._items]
            self._gap = Gap(contact, known)

    def _remember(self, level: Level | None) -> None:
        """Keep how well the server can protect a connection; it must never be less."""
        if level is not None:
            self._floor = level if self._floor is None else max(self._floor, level)

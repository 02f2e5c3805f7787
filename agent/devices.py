"""The devices of the gate side: one collector each, and changed while the others go on."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.collect import Collector
from protocols.drivers import DeviceConfig
from protocols.frame import Frame, NowNs
from protocols.points import PointTable

_LAST_FRAME_S: Final = 2.0

Put = Callable[[Frame, PointTable], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Changes:
    """Ids of the devices that were added, taken out, and changed."""

    added: list[str]
    removed: list[str]
    changed: list[str]

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self.added or self.removed or self.changed)


@dataclass(slots=True)
class _Running:
    collector: Collector
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    handing: bool = False


class Devices:
    """All devices of a gate side.

    Args:
        configs: what to read.
        put: takes frames, each with the table that its device is read by; it may wait.
    """

    def __init__(self, configs: Sequence[DeviceConfig], put: Put, now_ns: NowNs) -> None:
        self._put = put
        self._now = now_ns
        self._configs = {config.id: config for config in configs}
        self._running = {config.id: self._new(config) for config in configs}
        self._group: asyncio.TaskGroup | None = None

    @property
    def collectors(self) -> list[Collector]:
        """The collectors, in the order of the configuration."""
        return [self._running[name].collector for name in self._configs if name in self._running]

    @property
    def tables(self) -> Mapping[str, PointTable]:
        """The point tables by device."""
        return {one.table.device: one.table for one in self.collectors}

    def start(self, group: asyncio.TaskGroup) -> None:
        """Read all devices, in tasks of a group."""
        self._group = group
        for name, one in self._running.items():
            self._begin(name, one)

    def stop(self) -> None:
        """Read no device any more."""
        for one in self._running.values():
            if one.task is not None:
                one.task.cancel()

    def changes(self, configs: Sequence[DeviceConfig]) -> Changes:
        """Return what a new configuration changes."""
        new = {config.id: config for config in configs}
        old = self._configs
        return Changes(
            added=[name for name in new if name not in old],
            removed=[name for name in old if name not in new],
            changed=[name for name in new if name in old and new[name] != old[name]],
        )

    async def change(
        self, configs: Sequence[DeviceConfig], renew: Callable[[], Awaitable[None]]
    ) -> Changes:
        """Read by a new configuration; the devices that are the same are not touched.

        Args:
            renew: called while the changed devices rest, to go over to the new tables.
        """
        changes = self.changes(configs)
        for name in (*changes.removed, *changes.changed):
            await self._end(self._running.pop(name))
        # Of a device that is the same, the old points stay: its collector holds them.
        self._configs = {config.id: config for config in configs} | self._same(changes)
        fresh = {
            name: self._new(self._configs[name]) for name in (*changes.added, *changes.changed)
        }
        self._running |= fresh
        await renew()
        for name, one in fresh.items():
            self._begin(name, one)
        return changes

    def _same(self, changes: Changes) -> dict[str, DeviceConfig]:
        gone = {*changes.removed, *changes.changed}
        return {name: config for name, config in self._configs.items() if name not in gone}

    async def listen_anew(self) -> None:
        """Connect anew to the devices that tell only changes, so that they tell all once more."""
        for name, one in list(self._running.items()):
            if one.task is None:
                # About to begin, see `change`.
                continue
            if one.collector.table.hold_ns is None and not one.collector.table.brings_time:
                await self._end(one)
                if self._running.get(name) is one:
                    one.stop = asyncio.Event()
                    self._begin(name, one)

    def _new(self, config: DeviceConfig) -> _Running:
        return _Running(Collector(config, self._now))

    def _begin(self, name: str, one: _Running) -> None:
        if self._group is None:
            return

        async def put(frame: Frame) -> None:
            one.handing = True
            await self._put(frame, one.collector.table)
            one.handing = False

        one.task = self._group.create_task(one.collector.run(put, one.stop), name=f"collect-{name}")

    async def _end(self, one: _Running) -> None:
        """End a device's collector; a frame that it holds already is taken first."""
        one.stop.set()
        if one.task is None:
            return
        await asyncio.wait([one.task], timeout=_LAST_FRAME_S)
        while one.handing and not one.task.done():
            await asyncio.wait([one.task], timeout=_LAST_FRAME_S)
        one.task.cancel()
        await asyncio.wait([one.task])

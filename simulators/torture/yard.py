"""The mill that is tortured: real processes, real broker and store, relays and small disks between."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.settings import parse_duration
from simulators.demo import Mill, configure, stopping_all
from simulators.faults.disk import (
    DiskFault,
    Fillable,
    Quota,
    SmallDisk,
    may_mount,
    small_disk,
)
from simulators.faults.proxy import Proxy, proxying
from simulators.servers.influx import InfluxServer
from simulators.servers.mosquitto import Mosquitto
from simulators.servers.programs import HOST, ServerFault, find, free_port

KEEPALIVE_S: Final = 4
_DISK: Final = 192 << 20
_AGAIN: Final = 20
_AGAIN_S: Final = 1.0
_SIDE_S: Final = 90.0
_UNTIL_S: Final = 240.0
_UNTIL_POLL_S: Final = 0.5
_MOSQUITTO: Final = "allow_anonymous true\nmax_queued_messages 10000"


class Stuck(MillgateError):
    """Something did not become as it must."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a yard is to be.

    Attributes:
        seed: which plant, and every choice of the relays.
        slot: length of the released slots.
        poll: how often the meter is read.
        embedded: broker and store of our own, even where Mosquitto and InfluxDB are installed.
    """

    seed: int
    slot: str = "2s"
    poll: str = "500ms"
    embedded: bool = False


class Server(Protocol):
    """A server of others as a process."""

    def start(self) -> None:
        """Start it (again)."""
        ...

    def stop(self) -> None:
        """End it as an administrator would."""
        ...

    def kill(self) -> None:
        """End it as a power cut would."""
        ...


@dataclass(slots=True)
class Yard:
    """A running mill, and all its plugs.

    Attributes:
        mill: the processes of ours.
        wishes: as it was wanted.
        servers: broker and store, where they are programs of others.
        agent_way, brain_way: the relays between either end and the broker.
        disks: small file systems under the data of `mill` and `brain`, where they can be mounted.
    """

    mill: Mill
    wishes: Wishes
    agent_way: Proxy
    brain_way: Proxy
    servers: dict[str, Server] = field(default_factory=dict)
    disks: dict[str, Fillable] = field(default_factory=dict)

    @property
    def victims(self) -> tuple[str, ...]:
        """Who can be killed; the embedded store lives in the aggregator."""
        store = ("store",) if "store" in self.servers else ()
        return ("agent", "gate", "sealed", "aggregator", "broker", *store)

    @property
    def slot_s(self) -> float:
        """Length of the released slots, seconds."""
        return parse_duration(self.wishes.slot) / SECOND

    def data(self, end: str) -> Path:
        """Return where `mill` or `brain` keeps its data."""
        return self.mill.folder / end / "data"

    async def kill(self, victim: str) -> None:
        """Kill one process with SIGKILL and wait until it is gone.

        Raises:
            DemoFault: when one of them has ended by itself, with the end of its log.
        """
        self.mill.check_alive()
        if victim in self.servers:
            await asyncio.to_thread(self.servers[victim].kill)
        elif victim in {"gate", "sealed"}:
            await self._kill_side(victim)
        else:
            await self.mill.kill(victim)

    async def revive(self, victim: str) -> None:
        """Start what was killed; the agent's supervisor does that for its sides."""
        if victim in self.servers:
            await _insist(lambda: asyncio.to_thread(self.servers[victim].start))
        elif victim == "aggregator":
            self.mill.port = (await self.mill.start("aggregator"))["port"]
        elif victim == "broker":
            await self.mill.start("broker")
        elif victim == "agent":
            await self.mill.start("agent", ready=False)

    async def _kill_side(self, side: str) -> None:
        """Kill one side of the agent, once it is there; with its supervisor it has gone already."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _SIDE_S
        while loop.time() < until and "agent" in self.mill.processes:
            pid = (await self.sides()).get(side)
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return
            await asyncio.sleep(0.1)

    async def sides(self) -> dict[str, int]:
        """Return the process ids of the agent's two sides, as far as they run."""
        told = await self.mill.inside() or {}
        return {
            name: one["pid"]
            for name, one in told.get("processes", {}).items()
            if one["pid"] is not None
        }

    async def told(self, *path: str) -> Any:
        """Return what the agent tells of itself at a path of names; None while it does not."""
        found: Any = await self.mill.inside()
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something is as it must become.

        Raises:
            Stuck: when it does not within some minutes.
            DemoFault: when a process ended meanwhile.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + _UNTIL_S
        while not await holds():
            self.mill.check_alive()
            if loop.time() > end:
                raise Stuck(what, where=str(self.mill.folder))
            await asyncio.sleep(_UNTIL_POLL_S)

    async def disk(self, end: str) -> Fillable:
        """Return what can be filled under the data of `mill` or `brain`."""
        if end in self.disks:
            return self.disks[end]
        if end == "brain":
            return Quota([self.mill.processes["aggregator"].pid])
        sides = await self.sides()
        return Quota([self.mill.processes["agent"].pid, *sides.values()])


def spoken(servers: Collection[str]) -> Literal["mqtt311", "mqtt5"]:
    """Return what is spoken with the broker; the embedded one knows the older protocol only."""
    return "mqtt5" if "broker" in servers else "mqtt311"


async def _insist(start: Callable[[], Awaitable[None]]) -> None:
    """Start a server on its old port, which another program may hold for a moment."""
    for _ in range(_AGAIN):
        try:
            await start()
        except ServerFault:
            await asyncio.sleep(_AGAIN_S)
        else:
            return
    await start()


@asynccontextmanager
async def yard(folder: Path, wishes: Wishes) -> AsyncIterator[Yard]:
    """Set a mill up in a folder and run it while the context lasts.

    Raises:
        MillgateError: when a part does not start.
    """
    mill = Mill(folder)
    mill.commands |= {
        "plant": ("sim", "plant", "--seed", str(wishes.seed), "--truth", str(mill.truth)),
        "aggregator": ("aggregator", "run", str(mill.aggregator_toml)),
        "agent": ("agent", "run", str(mill.agent_toml)),
    }
    port = free_port()
    to = (HOST, port)
    async with (
        contextlib.AsyncExitStack() as stack,
        proxying(to, seed=wishes.seed) as agent_way,
        proxying(to, seed=wishes.seed + 1) as brain_way,
    ):
        found = Yard(mill, wishes, agent_way, brain_way)
        await _start_servers(found, stack, port)
        _mount(found, stack)
        async with stopping_all(mill):
            await _start_mill(found)
            yield found


async def _start_servers(found: Yard, stack: contextlib.AsyncExitStack, port: int) -> None:
    folder, wishes = found.mill.folder, found.wishes
    mosquitto = None if wishes.embedded else find("mosquitto")
    influxd = None if wishes.embedded else find("influxd")
    if mosquitto is not None:
        broker = Mosquitto(mosquitto, folder / "broker", _MOSQUITTO)
        broker.port = port
        found.servers["broker"] = broker
    else:
        found.mill.commands["broker"] = ("sim", "broker", "--port", str(port))
    if influxd is not None:
        found.servers["store"] = InfluxServer(influxd, folder / "influx")
    for server in found.servers.values():
        stack.push_async_callback(asyncio.to_thread, server.stop)
        await asyncio.to_thread(server.start)


def _mount(found: Yard, stack: contextlib.AsyncExitStack) -> None:
    """Put a small disk under the data of both ends, where that may be done."""
    for end in ("mill", "brain") if may_mount() else ():
        with contextlib.suppress(DiskFault):
            disk = stack.enter_context(small_disk(found.data(end), _DISK))
            found.disks[end] = disk
            stack.push(partial(_save, disk))


def _save(disk: SmallDisk, fault: type[BaseException] | None, *_: object) -> None:
    """Keep what is on a disk for looking at when something was found: it is gone with the mount."""
    if fault is not None:
        disk.free()
        target = disk.folder.with_name(f"{disk.folder.name}-found")
        shutil.copytree(disk.folder, target, ignore=shutil.ignore_patterns("*.sock"))


async def _start_mill(found: Yard) -> None:
    mill, wishes = found.mill, found.wishes
    plant = await mill.start("plant")
    if "broker" in mill.commands:
        await mill.start("broker")
    await configure(
        mill,
        plant,
        found.brain_way.port,
        spoken(found.servers),
        agent_port=found.agent_way.port,
        slot=wishes.slot,
        poll=wishes.poll,
    )
    await asyncio.to_thread(_adapt, found)
    mill.port = (await mill.start("aggregator"))["port"]
    token = mill.folder / "brain" / "keys" / "api.token"
    mill.token = (await asyncio.to_thread(token.read_text, "ascii")).strip()
    await mill.start("agent", ready=False)


def _adapt(found: Yard) -> None:
    mill = found.mill
    for path in (mill.agent_toml, mill.aggregator_toml):
        edit(path, "[broker]\n", f"[broker]\nkeepalive_s = {KEEPALIVE_S}\n")
    store = found.servers.get("store")
    if isinstance(store, InfluxServer):
        embedded = 'kind = "embedded"\npath = "store"\n'
        edit(mill.aggregator_toml, embedded, f'kind = "influx"\nurl = "{store.url}"\n')


def edit(path: Path, old: str, new: str) -> None:
    """Put one text in place of another, which the file has once."""
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise MillgateError(f"{path.name}: {old!r}", where=str(path))
    path.write_text(text.replace(old, new), encoding="utf-8")

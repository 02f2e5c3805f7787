"""The whole way in real processes, from a device's registers to the store: figures to read.

    python -m tests.benchmarks.bench_end_to_end
    python -m tests.benchmarks.bench_end_to_end --only fast --devices 32 --seconds 30
    python -m tests.benchmarks.bench_end_to_end --only wide --points 10000 --share 0.5

`fast`: devices with a time of their own, a second further with every poll, read without a pause:
every value read is a slot of its own and released, as fast as it goes.
`wide`: many points read and released once a second, for the agent's memory and its steady cost.
`--store influx` stores in InfluxDB; then a bare feeder posts as many like rows to it, made beforehand,
in the same run.
"""

import argparse
import asyncio
import json
import os
import re
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import psutil

from aggregator.stores import SeriesBlock, SeriesKey
from protocols.mqtt import BrokerConfig, connection
from protocols.topics import Address
from protocols.vocabulary.measurands import MEASURANDS
from security.answers import Receipt, read_answer
from security.cards import read_agent_card, read_brain_card
from security.envelope import parse
from simulators.demo import Mill, command, stopping_all
from tests.benchmarks import bench_stores, device
from tests.benchmarks.common import MILLION, Cost, cpu_of, spent, table, walk
from tests.benchmarks.device import CLOCK_REGISTERS, MOST_PER_REQUEST
from tests.servers import influx
from tests.servers.mosquitto import running as mosquitto
from tests.system.mills import MOSQUITTO, sign

DAYS_AGO: Final = 300 * 86400
START_S: Final = 60.0
SETTLE_S: Final = 3.0
_AGENT: Final = "agent, supervisor"
_SEALED: Final = "agent, sealed side"
_DATABASE: Final = "InfluxDB"
_DEVICE: Final = """
[[device]]
id = "d{number}"
kind = "modbus"
host = "{host}"
port = {port}
interval = "{interval}"
{more}"""
_POINT: Final = """
[[device.points]]
id = "p{at}"
address = "holding:{at}"
type = "uint16"
scale = 0.01
unit = "{unit}"
measurand = "{measurand}"
"""
_SERVER: Final = """
[[device]]
id = "d{number}"
kind = "opcua"
url = "opc.tcp://127.0.0.1:{port}/bench"
security = "none"
"""
_NODE: Final = """
[[device.points]]
id = "p{at}"
address = "nsu=urn:millgate:bench;s=n{at}"
type = "Double"
unit = "{unit}"
measurand = "{measurand}"
"""
_CLOCK: Final = """
[[device.points]]
id = "clock"
address = "holding:0"
type = "uint32"
unit = "s"
measurand = "time.device"
"""
_RELEASE: Final = """consumer = "brain"
number = {number}
equipment = "d{device}-{at}"
release = {{ aggregate = "last", slot = "1s", round = 0.01 }}
classes = {{ raw = "general-2", released = "general-1" }}
"""


@dataclass(frozen=True)
class Setting:
    """What is run.

    Attributes:
        devices, registers: how many devices, and registers of each.
        interval: how often each is read.
        own_time: whether a device's slots follow its own time.
        share: which share of the points is released.
        seconds: how long is measured.
        protocol: of MQTT.
        kind: of device; an `opcua` one has points from 0 on in place of registers, and is followed.
        store: where the series go.
        measurand: of all points; of power the brain also computes energy.
    """

    devices: int
    registers: int
    interval: str
    own_time: bool
    share: float
    seconds: float
    protocol: str
    kind: Literal["modbus", "opcua"] = "modbus"
    store: Literal["embedded", "influx"] = "embedded"
    measurand: str = "power.active"

    @property
    def first(self) -> int:
        """The first register that holds a point."""
        return CLOCK_REGISTERS if self.own_time else 0

    def __str__(self) -> str:
        points = self.devices * (self.registers - self.first)
        return (
            f"{self.devices} devices x {self.registers} registers every {self.interval}, "
            f"{points:,} points, {self.share:.0%} released"
        )


@dataclass
class Snapshot:
    """Where everything stands at a moment; counts are of values."""

    at: float
    read: int
    released: int
    acknowledged: int
    kept: int
    projected: int
    cpu: dict[str, float]
    written: int


@dataclass
class Lags:
    """How long each batch took from its publication to its receipt, s."""

    sent: dict[tuple[int, int], float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


@asynccontextmanager
async def mill_of(
    folder: Path, setting: Setting, port: int, broker: int, store: str = ""
) -> AsyncIterator[Mill]:
    """Set up and run agent and aggregator as a person does, by their commands.

    Args:
        store: InfluxDB's URL; empty for the embedded store.
    """
    mill = Mill(folder)
    mill.commands |= {
        "aggregator": ("aggregator", "run", str(mill.aggregator_toml)),
        "agent": ("agent", "run", str(mill.agent_toml)),
    }
    brain, agent = folder / "brain", folder / "mill"
    more = ("--broker-port", str(broker), "--protocol", setting.protocol)
    await command("aggregator", "init", str(brain), "--name", "brain", "--api-port", "0", *more)
    await command("agent", "init", str(agent), "--brain", str(brain / "brain.card"), *more)
    await asyncio.to_thread(_describe, mill, setting, port)
    if store:
        await asyncio.to_thread(_store_in, mill.aggregator_toml, store)
    await command("policy", "new", str(mill.agent_toml))
    await asyncio.to_thread(_release, agent / "policy.toml", setting)
    await sign(mill)
    async with stopping_all(mill):
        mill.port = (await mill.start("aggregator"))["port"]
        await mill.start("agent", ready=False)
        yield mill


def _describe(mill: Mill, setting: Setting, port: int) -> None:
    point = _POINT if setting.kind == "modbus" else _NODE
    unit = MEASURANDS[setting.measurand].unit
    points = "".join(
        point.format(at=at, unit=unit, measurand=setting.measurand)
        for at in range(setting.first, setting.registers)
    )
    own = 'slot_time = "clock"\n' + _CLOCK if setting.own_time else ""
    with mill.agent_toml.open("a", encoding="utf-8") as file:
        for number in range(setting.devices):
            head = (_DEVICE if setting.kind == "modbus" else _SERVER).format(
                number=number,
                host=device.host(number),
                port=port,
                interval=setting.interval,
                more=own,
            )
            file.write(head + points)
    card = (mill.folder / "mill" / "agent.card").read_bytes()
    (mill.folder / "brain" / "factories" / "mill.card").write_bytes(card)


def _store_in(path: Path, url: str) -> None:
    text = path.read_text("utf-8")
    embedded = 'kind = "embedded"\npath = "store"\n'
    path.write_text(text.replace(embedded, f'kind = "influx"\nurl = "{url}"\n'), "utf-8")


def _release(path: Path, setting: Setting) -> None:
    """Release every so manieth point of a policy that withholds them all."""
    every = max(round(1 / setting.share), 1)

    def released(found: "re.Match[str]") -> str:
        device_number, at = int(found[1]), int(found[2])
        number = 1 + device_number * setting.registers + at
        if at % every:
            return found[0]
        return found[0] + _RELEASE.format(number=number, device=device_number, at=at)

    text = path.read_text(encoding="utf-8")
    start = r'\[\[point\]\]\ndevice = "d(\d+)"\npoint = "p(\d+)"\n'
    path.write_text(re.sub(start, released, text), encoding="utf-8")


class Watch:
    """Takes snapshots of a running mill."""

    def __init__(self, mill: Mill, setting: Setting, server: device.Device, broker: int) -> None:
        self._mill = mill
        self._setting = setting
        self._server = server
        self.pids = {
            "register server": server.pid,
            _AGENT: mill.processes["agent"].pid,
            "mosquitto": broker,
            f"aggregator, {setting.store} store": mill.processes["aggregator"].pid,
        }

    async def snapshot(self) -> Snapshot | None:
        """Return where everything stands; None while the agent does not tell."""
        self._mill.check_alive()
        report = await self._mill.inside()
        if report is None or "outputs" not in report:
            return None
        outputs = report["outputs"]
        kept, projected = await asyncio.to_thread(self._kept)
        requests, registers = self._server.served()
        return Snapshot(
            at=time.monotonic(),
            read=registers - self._clocks(requests),
            released=outputs["released"],
            acknowledged=outputs["acknowledged"],
            kept=kept,
            projected=projected,
            cpu={name: cpu_of(pid) for name, pid in self.pids.items()},
            written=psutil.Process(self.pids.get(_SEALED, self.pids[_AGENT]))
            .io_counters()
            .write_bytes,
        )

    def _clocks(self, requests: int) -> int:
        per_poll = -(-self._setting.registers // MOST_PER_REQUEST)
        return self._setting.first * requests // per_poll

    def _kept(self) -> tuple[int, int]:
        folder = self._mill.folder / "brain" / "data"
        path = folder / "projection.json"
        try:
            position = json.loads(path.read_text("utf-8"))["batch"]
        except FileNotFoundError:
            position = 0
        with closing(sqlite3.connect(folder / "ledger.db", timeout=10)) as db:
            sql = "SELECT COALESCE(SUM(cells), 0), COALESCE(SUM(cells * (id <= ?)), 0) FROM batch"
            kept, projected = db.execute(sql, (position,)).fetchone()
        return int(kept), int(projected)

    async def first(self) -> None:
        """Wait until values have come all the way, and note the agent's processes."""
        until = time.monotonic() + START_S
        while True:
            found = await self.snapshot()
            if found is not None and found.projected:
                report = await self._mill.inside() or {}
                for name, one in report["processes"].items():
                    self.pids[f"agent, {name} side"] = one["pid"]
                return
            if time.monotonic() > until:
                raise RuntimeError(f"nothing arrived within {START_S:.0f} s: {found}")
            await asyncio.sleep(0.25)


async def listen(mill: Mill, broker: int, lags: Lags) -> None:
    """Note when each batch passes the broker, and when its receipt does, until cancelled."""
    address = read_agent_card(mill.folder / "mill" / "agent.card").address
    key = read_brain_card(mill.folder / "brain" / "brain.card").receipt_key
    topics = [address.topic("up"), address.topic("down")]
    config = BrokerConfig(port=broker)
    async with connection(config, "bench", topics) as link:
        while True:
            message = await link.messages.get()
            message.acknowledge()
            now = time.monotonic()
            if message.topic.endswith("/up"):
                header = parse(message.payload).header
                lags.sent.setdefault((header.stream, header.sequence), now)
                lags.sizes.append(len(message.payload))
            else:
                _note_receipt(message.payload, address, key, lags, now)


def _note_receipt(payload: bytes, address: Address, key: Any, lags: Lags, now: float) -> None:
    answer = read_answer(payload, address, [key])
    if not isinstance(answer, Receipt):
        return
    for head in answer.heads:
        for place in [p for p in lags.sent if p[0] == head.stream and p[1] <= head.sequence]:
            lags.seconds.append(now - lags.sent.pop(place))


async def run(folder: Path, setting: Setting, title: str) -> None:
    """Run a setting and print what was seen."""
    clock_s = int(time.time()) - DAYS_AGO if setting.own_time else 0
    with ExitStack() as stack:
        broker = stack.enter_context(mosquitto(folder / "mosquitto", MOSQUITTO))
        server = stack.enter_context(
            device.running(setting.registers, clock_s, hosts=setting.devices)
        )
        url = ""
        if setting.store == "influx":
            database = stack.enter_context(influx.running(folder / "influx"))
            url = stack.enter_context(bench_stores.door_apart(database))
        assert broker.process is not None
        async with mill_of(folder, setting, server.port, broker.port, url) as mill:
            watch = Watch(mill, setting, server, broker.process.pid)
            if url:
                watch.pids[_DATABASE] = database.pid
            await watch.first()
            lags = Lags()
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(listen(mill, broker.port, lags))
                await asyncio.sleep(SETTLE_S)
                for found in (lags.seconds, lags.sizes):
                    found.clear()
                first = await watch.snapshot()
                await asyncio.sleep(setting.seconds)
                last = await watch.snapshot()
                listening.cancel()
            if first is None or last is None:
                raise RuntimeError("the agent tells nothing")
            memory = {
                name: psutil.Process(pid).memory_full_info() for name, pid in watch.pids.items()
            }
            await mill.stop("agent")
            show(title, first, last, lags, memory)
            show_spool(folder / "mill" / "data" / "spool.db")
        if url:
            stored = last.projected - first.projected
            server_cpu = last.cpu[_DATABASE] - first.cpu[_DATABASE]
            print(
                f"  InfluxDB: {server_cpu / max(stored, 1) * MILLION:.2f} CPU-s per million stored"
            )
            bare(url, setting, stored / (last.at - first.at), database.pid)


def bare(url: str, setting: Setting, stored_s: float, server: int) -> None:
    """Print how many like rows InfluxDB takes from a bare feeder, while nothing else is done.

    Args:
        stored_s: values per second that were stored before.
        server: InfluxDB's process.
    """
    columns = setting.devices * (setting.registers - setting.first)
    rows = max(int(setting.seconds * stored_s / columns), 1)
    times = (int(time.time()) - DAYS_AGO + np.arange(rows)) * 10**9
    ones = np.ones(rows, np.int64)
    text = ["GOOD"] * rows
    blocks = [
        SeriesBlock(
            SeriesKey.of(
                "ff_reading",
                {
                    "enterprise_id": "mill",
                    "site_id": "main",
                    "equipment_id": f"d{at % setting.devices}-{at}",
                    "measurand": setting.measurand,
                },
            ),
            times,
            {"value": values / 100, "window_s": ones, "span_s": ones, "quality": text},
        )
        for at, values in enumerate(walk(rows, columns).T)
    ]
    bodies = bench_stores.bodies_of(blocks)
    cost, before = Cost(), cpu_of(server)
    with spent(cost):
        bench_stores.feed(url, "bare", bodies)
    server_cpu = (cpu_of(server) - before) / (rows * columns) * MILLION
    taken_s = rows * columns / cost.wall
    print(
        f"  bare feeder of like rows: {taken_s:,.0f} values/s, InfluxDB {server_cpu:.2f} CPU-s per "
        f"million; stored before: {stored_s / taken_s:.0%} of that"
    )


def show(title: str, first: Snapshot, last: Snapshot, lags: Lags, memory: dict[str, Any]) -> None:
    """Print what happened between two snapshots."""
    seconds = last.at - first.at
    read, released = last.read - first.read, last.released - first.released
    rows = [
        ("read at the device", read),
        ("released: committed to the spool", released),
        ("acknowledged: receipt came", last.acknowledged - first.acknowledged),
        ("kept in the ledger", last.kept - first.kept),
        ("stored: projected to series", last.projected - first.projected),
    ]
    lines = [[name, f"{count / seconds:,.0f}", f"{count:,}"] for name, count in rows]
    table(f"{title}: values in {seconds:.1f} s", ("where", "values/s", "values"), lines)
    basis = max(released, 1) / MILLION
    lines = []
    for name in first.cpu:
        cpu = last.cpu[name] - first.cpu[name]
        lines.append(
            [
                name,
                f"{cpu / basis:.2f}",
                f"{cpu / seconds:.2f}",
                f"{memory[name].rss / 1e6:.0f}",
                f"{memory[name].pss / 1e6:.0f}",
            ]
        )
    lines.append(
        ["all", f"{_cpu(first, last) / basis:.2f}", f"{_cpu(first, last) / seconds:.2f}", "", ""]
    )
    heads = ("process", "CPU-s per million released", "cores", "RSS MB", "PSS MB")
    table("cost", heads, lines)
    print(
        f"  written by the agent: {(last.written - first.written) / max(released, 1):.2f} bytes per released value"
    )
    if lags.seconds:
        cuts = (
            statistics.quantiles(lags.seconds, n=100)
            if len(lags.seconds) > 1
            else lags.seconds * 99
        )
        print(
            f"  from publication to receipt: median {cuts[49] * 1e3:.0f} ms, "
            f"99th percentile {cuts[98] * 1e3:.0f} ms, over {len(lags.seconds)} batches of "
            f"{statistics.median(lags.sizes) / 1024:.1f} KiB (median)"
        )
    print(
        f"  not yet acknowledged: {last.released - last.acknowledged:,}; "
        f"kept, not yet stored: {last.kept - last.projected:,}"
    )


def _cpu(first: Snapshot, last: Snapshot) -> float:
    return sum(last.cpu.values()) - sum(first.cpu.values())


def show_spool(path: Path) -> None:
    """Print how many bytes a released value takes in the spool and on the wire."""
    with closing(sqlite3.connect(path)) as db:
        size, cells, batches = db.execute(
            "SELECT SUM(size), SUM(cells), COUNT(*) FROM batch WHERE is_sheet = 0"
        ).fetchone()
        (sheet,) = db.execute("SELECT MAX(size) FROM batch WHERE is_sheet = 1").fetchone()
    print(
        f"  spool: {size / cells:.3f} bytes per released value, {cells / batches:,.0f} values a "
        f"batch; release sheet {sheet / 1024:.0f} KiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=["fast", "wide"])
    parser.add_argument("--devices", type=int, default=8, help="of fast")
    parser.add_argument("--registers", type=int, default=125, help="per device")
    parser.add_argument("--interval", default="0s", help="of fast")
    parser.add_argument("--points", type=int, default=10_000, help="of wide; a register each")
    parser.add_argument("--share", type=float, default=1.0, help="which share is released")
    parser.add_argument("--seconds", type=float, default=10.0, help="that are measured")
    parser.add_argument("--protocol", default="mqtt5", choices=["mqtt311", "mqtt5"])
    parser.add_argument("--store", default="embedded", choices=["embedded", "influx"])
    parser.add_argument("--measurand", default="power.active", help="such as temperature")
    args = parser.parse_args()
    os.environ.setdefault("MILLGATE_LANG", "en")
    fast = Setting(
        args.devices,
        args.registers,
        args.interval,
        True,
        args.share,
        args.seconds,
        args.protocol,
        store=args.store,
        measurand=args.measurand,
    )
    wide = Setting(
        -(-args.points // args.registers),
        args.registers,
        "1s",
        False,
        args.share,
        args.seconds,
        args.protocol,
        store=args.store,
        measurand=args.measurand,
    )
    for name, setting in (("fast", fast), ("wide", wide)):
        if args.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="millgate-bench-") as folder:
                asyncio.run(run(Path(folder), setting, f"{name}, {setting}"))


if __name__ == "__main__":
    main()

"""What an agent of many points takes of the machine's memory: figures to read.

    python -m tests.benchmarks.bench_memory
    python -m tests.benchmarks.bench_memory --kind opcua --points 2000 --seconds 60

Every point is read, or followed, and released once a second. The agent is started as a person starts
it, and delivers to a real broker and aggregator. Only a process of the same user, or root, may look
into the agent's memory; the agent forbids it to the first, so run it as root.
"""

import argparse
import asyncio
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from simulators.demo import Mill
from tests.benchmarks import bench_opcua, device
from tests.benchmarks.bench_end_to_end import Setting, mill_of
from tests.benchmarks.common import table
from tests.servers.mosquitto import running as mosquitto
from tests.system.mills import MOSQUITTO

PER_MODBUS_DEVICE: Final = 125
WRITES_PER_S: Final = 1000.0
START_S: Final = 600.0
Kind = Literal["modbus", "opcua"]
_KB: Final = 1000.0
_HEAD: Final = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ (\d+) *(.*)")


@dataclass
class Taken:
    """What a process takes, kB.

    Attributes:
        own: by nobody else, if it ran alone on the machine: memory that is of no file, and pages
            of files that it has changed.
        files: pages of each file that are as they are on disk, which processes share.
        pss: what the kernel counts as its share now, with all else that runs.
        peak: the most that was resident.
    """

    own: float = 0.0
    files: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    pss: float = 0.0
    peak: float = 0.0


def taken(pid: int) -> Taken:
    """Return what a process takes.

    Raises:
        PermissionError: when we may not look.
    """
    found, name = Taken(), ""
    for line in Path(f"/proc/{pid}/smaps").read_text("utf-8").splitlines():
        head = _HEAD.fullmatch(line)
        if head is not None:
            name = head[2] if head[1] != "0" else ""
            continue
        key, _, rest = line.partition(":")
        if key not in {"Rss", "Pss", "Private_Dirty", "Shared_Dirty"}:
            continue
        size = float(rest.split()[0])
        if key == "Pss":
            found.pss += size
        elif key == "Rss" and name:
            found.files[name] += size
        elif key == "Rss":
            found.own += size
        elif name:
            found.own += size
            found.files[name] -= size
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    found.peak = float(status.partition("VmHWM:")[2].split()[0])
    return found


def show(title: str, found: dict[str, Taken]) -> None:
    """Print what each process takes, and all together."""
    shared: dict[str, float] = {}
    for one in found.values():
        for name, size in one.files.items():
            shared[name] = max(shared.get(name, 0.0), size)
    files = sum(shared.values())
    rows = [
        [name, *(f"{size / _KB:.1f}" for size in (one.own, one.pss, one.peak))]
        for name, one in found.items()
    ]
    own = sum(one.own for one in found.values())
    rows.append(["libraries and programs, once", f"{files / _KB:.1f}", "", ""])
    rows.append(["the agent, alone on a machine", f"{(own + files) / _KB:.1f}", "", ""])
    table(title, ("process", "own MB", "PSS MB", "peak MB"), rows)


@contextmanager
def devices(kind: Kind, points: int) -> Iterator[tuple[Setting, int]]:
    """Serve so many points; yield how they are read, and the port."""
    if kind == "modbus":
        count = -(-points // PER_MODBUS_DEVICE)
        with device.running(PER_MODBUS_DEVICE, hosts=count) as server:
            yield _setting(kind, count, PER_MODBUS_DEVICE), server.port
        return
    with bench_opcua.serving(points, ("Double",), WRITES_PER_S) as (served, _):
        yield _setting(kind, 1, points), served.port


def _setting(kind: Kind, count: int, points: int) -> Setting:
    return Setting(count, points, "1s", False, 1.0, 0.0, "mqtt5", kind)


async def run(folder: Path, kind: Kind, points: int, seconds: float) -> None:
    """Run an agent of so many points and print what it takes in the end."""
    with (
        mosquitto(folder / "mosquitto", MOSQUITTO) as broker,
        devices(kind, points) as (setting, port),
    ):
        assert broker.process is not None
        async with mill_of(folder, setting, port, broker.port) as mill:
            found = await settled(mill, seconds)
            show(f"{kind}, {points:,} points, {seconds:.0f} s after the first slot", found)
            await mill.stop("agent")


async def settled(mill: Mill, seconds: float) -> dict[str, Taken]:
    """Return what each process of the agent takes, a while after values have come all the way."""
    pids = {"supervisor": mill.processes["agent"].pid}
    async with asyncio.timeout(START_S):
        while True:
            mill.check_alive()
            report = await mill.inside() or {}
            if report.get("outputs", {}).get("acknowledged"):
                break
            await asyncio.sleep(1)
    pids |= {f"{name} side": one["pid"] for name, one in report["processes"].items()}
    await asyncio.sleep(seconds)
    mill.check_alive()
    return {name: taken(pid) for name, pid in pids.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", choices=get_args(Kind))
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=15.0, help="before it is measured")
    args = parser.parse_args()
    os.environ.setdefault("MILLGATE_LANG", "en")
    for kind in get_args(Kind):
        if args.kind in (None, kind):
            with tempfile.TemporaryDirectory(prefix="millgate-bench-") as folder:
                asyncio.run(run(Path(folder), kind, args.points, args.seconds))


if __name__ == "__main__":
    main()

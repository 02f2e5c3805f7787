"""How fast the stores take and give values: figures to read, nothing is asserted.

    python -m tests.benchmarks.bench_stores embedded
    python -m tests.benchmarks.bench_stores influx --fields 8

Data: telemetry of two decimals that moves slowly, quarter of an hour by quarter of an hour.
For InfluxDB a bare feeder posts the same lines, made beforehand, over one connection in the
same run: what the store reaches of that is our side's share.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import urllib3

from aggregator.storable import rounds
from aggregator.stores import SeriesBlock, SeriesKey, Store, embedded, influx
from aggregator.stores.influx.requests import requests
from tests.servers.influx import InfluxServer, running

QUARTER = 900 * 10**9
T0 = 1_700_000_100 * 10**9
YEAR = 35_040


@dataclass
class Cost:
    """Seconds a stretch took: on the wall, of this process's CPU, of the server's."""

    wall: float = 0.0
    cpu: float = 0.0
    server: float = 0.0


@contextmanager
def measured(server: InfluxServer | None = None) -> Iterator[Cost]:
    cost = Cost()
    before = _server_cpu(server)
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost.wall, cost.cpu = time.perf_counter() - wall, time.process_time() - cpu
    cost.server = _server_cpu(server) - before


def _server_cpu(server: InfluxServer | None) -> float:
    if server is None:
        return 0.0
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def report(what: str, values: int, cost: Cost) -> None:
    million = values / 1e6
    server = f", server {cost.server / million:.2f}" if cost.server else ""
    print(
        f"{what:<44} {values / cost.wall:>12,.0f} values/s  {values / cost.cpu:>12,.0f} per CPU-s"
        f"  (CPU-s per million: {cost.cpu / million:.2f}{server})"
    )


def keys_of(measurement: str, count: int) -> list[SeriesKey]:
    return [
        SeriesKey.of(
            measurement, {"equipment_id": f"e{at:05d}", "line": f"l{at % 9}", "site_id": "s1"}
        )
        for at in range(count)
    ]


def telemetry(keys: Sequence[SeriesKey], rows: int, fields: int) -> list[SeriesBlock]:
    rng = np.random.default_rng(1)
    times = T0 + np.arange(rows) * QUARTER
    return [
        SeriesBlock(
            key,
            times,
            {
                f"field_{number}": np.round(50 + np.cumsum(rng.normal(0, 0.05, rows)), 2)
                for number in range(fields)
            },
        )
        for key in keys
    ]


def bench_bulk(store: Store, args: argparse.Namespace, server: InfluxServer | None = None) -> int:
    blocks = telemetry(keys_of("bulk", args.series), args.rows, args.fields)
    with measured(server) as cost:
        for first in range(0, len(blocks), 10):
            store.write(blocks[first : first + 10])
    values: int = args.series * args.rows * args.fields
    report(f"big blocks, {args.series} series x {args.rows} x {args.fields}", values, cost)
    return values


def bench_live(store: Store, args: argparse.Namespace, server: InfluxServer | None = None) -> None:
    keys = keys_of("live", args.live_series)
    slowest = 0.0
    total = Cost()
    for step in range(args.live_writes):
        at = np.array([T0 + step * QUARTER])
        blocks = [
            SeriesBlock(key, at, {"value": np.array([round(step * 0.01 + number, 2)])})
            for number, key in enumerate(keys)
        ]
        with measured(server) as cost:
            store.write(blocks)
        slowest = max(slowest, cost.wall)
        for name in ("wall", "cpu", "server"):
            setattr(total, name, getattr(total, name) + getattr(cost, name))
    report(f"live, {args.live_series} series x 1 row", args.live_series * args.live_writes, total)
    print(
        f"  per write {total.wall / args.live_writes * 1e3:.0f} ms, slowest {slowest * 1e3:.0f} ms"
    )


def bench_year(store: Store) -> None:
    (key,) = keys_of("year", 1)
    store.write(telemetry([key], YEAR, 8))
    end = T0 + YEAR * QUARTER
    for what, call in (
        ("a year of one series, 1 field", lambda: store.query(key, ["field_0"], T0, end)),
        ("a year of one series, 8 fields", lambda: store.query(key, FIELDS, T0, end)),
        (
            "its daily means",
            lambda: store.query_steps(key, "field_0", T0, end, 96 * QUARTER, "mean"),
        ),
        ("its newest row", lambda: store.newest(key)),
    ):
        best = min(_timed(call) for _ in range(5))
        print(f"{what:<44} {best * 1e3:>9.1f} ms")


FIELDS = [f"field_{number}" for number in range(8)]


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bench_embedded(args: argparse.Namespace, folder: Path) -> None:
    store = embedded.Store(embedded.Config(path=folder / "bulk"), "bulk")
    values = bench_bulk(store, args)
    store.close()
    size = sum(path.stat().st_size for path in (folder / "bulk").iterdir())
    print(f"  {size / values:.2f} bytes per value on disk")
    store = embedded.Store(embedded.Config(path=folder / "live"), "live")
    bench_live(store, args)
    bench_year(store)
    store.close()


_DOOR = """
import sys
from tests.servers.influx import Door
door = Door(sys.argv[1])
door.open()
print(door.port, flush=True)
sys.stdin.read()
door.close()
"""


@contextmanager
def door_apart(server: InfluxServer) -> Iterator[str]:
    """Run the door as its own process: in ours it would take turns with what is measured."""
    with subprocess.Popen(
        [sys.executable, "-c", _DOOR, server.upstream],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as door:
        if door.stdin is None or door.stdout is None:
            raise RuntimeError("no pipes")
        yield f"http://127.0.0.1:{int(door.stdout.readline())}"
        door.stdin.close()


def bench_influx(args: argparse.Namespace, folder: Path) -> None:
    with running(folder) as server, door_apart(server) as url:
        store = influx.Store(influx.Config(url=url), "store")
        bench_bare(server, url, args, "bare_1")
        bench_bulk(store, args, server)
        bench_bare(server, url, args, "bare_2")
        bench_live(store, args, server)
        bench_year(store)
        store.close()


def bench_bare(server: InfluxServer, url: str, args: argparse.Namespace, bucket: str) -> None:
    """Post lines made beforehand, through the same door as the store."""
    blocks = telemetry(keys_of("bulk", args.series), args.rows, args.fields)
    bodies = [
        body
        for first in range(0, len(blocks), 10)
        for body in bodies_of(blocks[first : first + 10])
    ]
    with measured(server) as cost:
        feed(url, bucket, bodies)
    report("bare feeder, lines made beforehand", args.series * args.rows * args.fields, cost)
    print(
        f"  {sum(map(len, bodies)) / (args.series * args.rows * args.fields):.1f} bytes per value"
    )


def bodies_of(blocks: Sequence[SeriesBlock]) -> list[bytes]:
    """Return what the store would post to write blocks."""
    return [request.body() for turn in rounds(blocks) for request in requests(turn)]


def feed(url: str, bucket: str, bodies: Sequence[bytes]) -> None:
    """Post bodies one after the other over one connection, to a database of their own."""
    target = f"{url}/api/v2/write?org=&bucket={bucket}&precision=ns"
    with urllib3.PoolManager(retries=False, timeout=60) as pool:
        statement = {"q": f'CREATE DATABASE "{bucket}"'}
        pool.request("POST", f"{url}/query", fields=statement, encode_multipart=False)
        for body in bodies:
            if pool.request("POST", target, body=body).status != 204:
                raise RuntimeError("InfluxDB refused the bare feeder's lines")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", choices=["embedded", "influx"])
    parser.add_argument("--series", type=int, default=200)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--fields", type=int, default=8)
    parser.add_argument("--live-series", type=int, default=5000)
    parser.add_argument("--live-writes", type=int, default=60)
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one without")
    args = parser.parse_args()
    bench = bench_embedded if args.store == "embedded" else bench_influx
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        bench(args, Path(folder))


if __name__ == "__main__":
    main()

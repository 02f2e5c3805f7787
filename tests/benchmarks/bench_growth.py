"""What more factories cost: stores and API with 1, 10 and 100 firms. Figures to read, nothing is asserted.

    python -m tests.benchmarks.bench_growth embedded
    python -m tests.benchmarks.bench_growth influx --days 7
    python -m tests.benchmarks.bench_growth rows

Each firm has ten meters with energy and carbon of every quarter of an hour, and `ce_quality` and
`ff_oee` of every hour. `rows` asks for a million rows of one series and watches the memory.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np
import psutil

from aggregator.api.server import make_app, serving
from aggregator.api.terms import Terms
from aggregator.localtime import LocalTime
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey, Store, embedded, influx
from protocols.frame import SECOND, Ints
from tests.benchmarks.common import Cost, spent, table
from tests.servers.influx import running
from tests.system.brain import TOKEN, Told

HOUR: Final = 3600 * SECOND
QUARTER: Final = HOUR // 4
LOCAL: Final = LocalTime("Asia/Shanghai")
START: Final = LOCAL.start_of(2026, 1, 1)
METERS: Final = 10
BUCKETS: Final = ("future_factory", "carbon_emission")
ASKED: Final = 5


def firm_blocks(firm: int, first: int, count: int) -> dict[str, list[SeriesBlock]]:
    """Return what a firm adds in `count` quarters: rows of meters, and of each whole hour."""
    chance = np.random.default_rng(firm * 100_003 + first)
    quarters = START + (first + np.arange(count)) * QUARTER
    who = {"enterprise_id": f"firm-{firm:03d}", "site_id": "main"}
    energy, carbon = [], []
    for meter in range(METERS):
        own = {**who, "equipment_id": f"meter-{meter}", "medium": "Electricity"}
        kwh = np.round(20 + chance.normal(0, 1, count).cumsum() * 0.05, 2)
        span = np.full(count, 900)
        quality = ["GOOD"] * count
        more: dict[str, FieldColumn] = {"window_s": span, "span_s": span, "quality": quality}
        energy.append(
            SeriesBlock(SeriesKey.of("ff_energy", own), quarters, {"energy": kwh, **more})
        )
        tags = {**own, "scope": "2", "method": "location", "factor_id": "cn-electricity-2023/CN-ZJ"}
        carbon.append(
            SeriesBlock(
                SeriesKey.of("ce_emission", tags), quarters, {"co2e_kg": kwh * 0.4974, **more}
            )
        )
    hours = quarters[quarters % HOUR == 0]
    one = np.ones(len(hours))
    if len(hours):
        carbon.append(SeriesBlock(SeriesKey.of("ce_quality", who), hours, {"coverage": one}))
        busy = np.round(3000 * one + chance.normal(0, 100, len(hours)))
        oee = {"apt_s": busy, "aupt_s": busy, "pbt_s": 3600 * one, "net_s": busy * 0.9}
        oee |= {"valuable_s": busy * 0.85, "qty_total": 100 * one, "qty_good": 94 * one}
        key = SeriesKey.of("ff_oee", {**who, "equipment_id": "press-1", "calendar_ver": "a"})
        energy.append(SeriesBlock(key, hours, {**oee, "coverage": one}))
    return {BUCKETS[0]: energy, BUCKETS[1]: carbon}


def cells(blocks: list[SeriesBlock]) -> int:
    return sum(len(block) * len(block.fields) for block in blocks)


def fill(stores: Mapping[str, Store], firms: int, days: int) -> tuple[int, Cost]:
    """Write all but the last six hours, a week of a firm at a time; return cells and cost."""
    whole, cost, values = days * 96 - 24, Cost(), 0
    for firm in range(firms):
        for first in range(0, whole, 672):
            made = firm_blocks(firm, first, min(672, whole - first))
            with spent(cost):
                for bucket, blocks in made.items():
                    stores[bucket].write(blocks)
            values += sum(map(cells, made.values()))
    return values, cost


def live(stores: Mapping[str, Store], firms: int, days: int) -> tuple[int, Cost]:
    """Write the last six hours as they come: one quarter of all firms at a time."""
    cost, values = Cost(), 0
    for at in range(days * 96 - 24, days * 96):
        made = [firm_blocks(firm, at, 1) for firm in range(firms)]
        for bucket in BUCKETS:
            blocks = [block for one in made for block in one[bucket]]
            with spent(cost):
                stores[bucket].write(blocks)
            values += cells(blocks)
    return values, cost


QUESTIONS: Final = {
    "a day of one meter": "/series/{energy}/rows?start={day}&end={end}&fields=energy",
    "a month of one meter by hours": "/series/{energy}/steps?field=energy&start={start}&end={end}&step=1h",
    "carbon of one firm by days": "/carbon/summary?enterprise=firm-000&start={start}&end={end}&each=day",
    "OEE of one firm": "/oee?enterprise=firm-000&start={start}&end={end}",
    "newest row of 200 series": "/newest",
    "ranking of all firms": "/rankings?kind=co2e&period=2026-01",
}


async def ask(stores: Mapping[str, Store], days: int) -> dict[str, float]:
    """Return milliseconds of each question, the median of five, the first one of all left out."""
    now = START + days * 96 * QUARTER
    app = make_app(stores, Told(), TOKEN, lambda: now, terms=Terms(LOCAL))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    found: dict[str, float] = {}
    async with serving(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(headers=headers) as http:
        url = f"http://127.0.0.1:{port}/api/v1"
        async with http.get(f"{url}/series?measurement=ff_energy") as answer:
            energy = (await answer.json())["series"][0]["id"]
        parts = {"energy": energy, "start": START, "day": now - 96 * QUARTER, "end": now}
        for name, path in QUESTIONS.items():
            times = []
            for _ in range(1 if name.startswith("ranking") else ASKED):
                began = time.perf_counter()
                async with http.get(url + path.format(**parts)) as answer:
                    body = await answer.read()
                    if answer.status != 200:
                        raise SystemExit(body.decode())
                times.append(1000 * (time.perf_counter() - began))
            found[name] = float(np.median(times))
    return found


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[dict[str, Store]]:
    with ExitStack() as stack:
        if kind == "influx":
            server = stack.enter_context(running(folder / "influx"))
            made: dict[str, Store] = {
                name: influx.Store(influx.Config(url=server.url), name) for name in BUCKETS
            }
        else:
            config = embedded.Config(path=folder / "store")
            made = {name: embedded.Store(config, name) for name in BUCKETS}
        yield made
        for store in made.values():
            store.close()


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def grow(kind: str, firms: list[int], days: int) -> None:
    rows: dict[str, list[str]] = {}
    for count in firms:
        with tempfile.TemporaryDirectory() as name, opened(kind, Path(name)) as stores:
            values, bulk = fill(stores, count, days)
            few, quarter = live(stores, count, days)
            told = asyncio.run(ask(stores, days))
            disk = size(Path(name))
        figures = {
            "cells written": f"{values + few:,}",
            "bulk: cells/s": f"{values / bulk.wall:,.0f}",
            "bulk: CPU-s per million": f"{bulk.cpu * 1e6 / values:.2f}",
            "a quarter of all firms, ms": f"{bulk_ms(quarter):.1f}",
            "same, CPU-s per million": f"{quarter.cpu * 1e6 / few:.2f}",
            "MB on disk": f"{disk / 1e6:.1f}",
            "MB per firm and year": f"{disk / 1e6 / count / days * 365:.1f}",
            **{f"{question}, ms": f"{ms:.1f}" for question, ms in told.items()},
        }
        for what, figure in figures.items():
            rows.setdefault(what, []).append(figure)
    heads = [f"{kind}, {days} days", *(f"{count} firms" for count in firms)]
    table("What more factories cost", heads, [[what, *cells_] for what, cells_ in rows.items()])


def bulk_ms(cost: Cost) -> float:
    return 1000 * cost.wall / 24


def million(rows: int) -> None:
    """Export a million rows as CSV and as Parquet, and watch the memory of the process."""
    key = SeriesKey.of("ff_reading", {"enterprise_id": "firm-000", "equipment_id": "meter-0"})
    with tempfile.TemporaryDirectory() as name, opened("embedded", Path(name)) as stores:
        for first in range(0, rows, 100_000):
            time_ns: Ints = START + np.arange(first, min(first + 100_000, rows)) * SECOND
            values = np.round(np.sin(time_ns / 1e13) * 100, 2)
            stores[BUCKETS[0]].write([SeriesBlock(key, time_ns, {"value": values})])
        found = [asyncio.run(export(stores, rows, form)) for form in ("csv", "parquet")]
    table("A million rows", ["format", "rows/s", "MB sent", "MB more memory"], found)


async def export(stores: Mapping[str, Store], rows: int, form: str) -> list[str]:
    process = psutil.Process()
    app = make_app(stores, Told(), TOKEN, lambda: START)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with serving(app, "127.0.0.1", 0) as port, aiohttp.ClientSession(headers=headers) as http:
        url = f"http://127.0.0.1:{port}/api/v1"
        async with http.get(f"{url}/series") as answer:
            identity = (await answer.json())["series"][0]["id"]
        path = f"{url}/series/{identity}/export?format={form}&start={START}"
        # What is loaded once is no memory of the rows.
        async with http.get(f"{path}&end={START + SECOND}") as answer:
            await answer.read()
        before = most = process.memory_info().rss
        sent, began = 0, time.perf_counter()
        async with http.get(f"{path}&end={START + rows * SECOND}") as answer:
            async for chunk in answer.content.iter_chunked(1 << 16):
                sent += len(chunk)
                most = max(most, process.memory_info().rss)
        took = time.perf_counter() - began
    return [form, f"{rows / took:,.0f}", f"{sent / 1e6:.1f}", f"{(most - before) / 1e6:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["embedded", "influx", "rows"])
    parser.add_argument("--firms", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rows", type=int, default=1_000_000)
    asked = parser.parse_args()
    if asked.what == "rows":
        million(asked.rows)
    else:
        grow(asked.what, asked.firms, asked.days)


if __name__ == "__main__":
    main()

"""Filled steps, and files of any length, over real HTTP and of real stores."""

import importlib
import io
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.api.catalog import series_id
from aggregator.api.filling import filled, grid
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey
from protocols.frame import SECOND, Ints
from tests.system.brain import START_NS, TOKEN, Brain, running

KEY = SeriesKey.of("ff_reading", {"enterprise_id": "mill", "equipment_id": "m-1"})
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def brain(tmp_path: Path) -> AsyncIterator[Brain]:
    async with running(tmp_path) as found:
        yield found


def write(brain: Brain, time: Ints, **columns: FieldColumn) -> str:
    brain.stores["future_factory"].write([SeriesBlock(KEY, time, columns)])
    return f"{brain.url}/api/v1/series/{series_id('future_factory', KEY)}"


async def get(url: str) -> tuple[int, str, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=HEADERS) as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.read()


# Fill.


async def test_steps_without_data_are_filled_as_asked_and_marked_where_they_were(
    brain: Brain,
) -> None:
    places = np.array([0, 1, 4, 5])
    base = START_NS // (900 * SECOND) * 900 * SECOND
    url = write(
        brain,
        base + places * 900 * SECOND,
        value=np.array([1.0, 2.0, 8.0, np.nan]),
        count=np.array([1, 2, 3, 4]),
    )
    ask = f"{url}/steps?field=value,count&start={base}&end={base + 7 * 900 * SECOND}&step=15m"

    async def steps(fill: str) -> Any:
        status, _, body = await get(f"{ask}&fill={fill}")
        assert status == HTTPStatus.OK
        return json.loads(body)

    none, null = await steps("none"), await steps("null")
    assert (len(none["time"]), len(null["time"])) == (4, 7)
    assert null["fields"]["value"] == [1, 2, None, None, 8, None, None]
    previous, linear = await steps("previous"), await steps("linear")
    assert previous["fields"]["value"] == [1, 2, 2, 2, 8, 8, 8]
    assert previous["filled"]["value"] == [False, False, True, True, False, True, True]
    assert linear["fields"]["value"] == [1, 2, 4, 6, 8, None, None]
    assert linear["fields"]["count"] == [
        1,
        2,
        pytest.approx(7 / 3),
        pytest.approx(8 / 3),
        3,
        4,
        None,
    ]
    assert linear["filled"]["value"] == [False, False, True, True, False, False, False]
    assert ("filled" in none, "filled" in null) == (False, False)


@given(
    st.dictionaries(st.integers(0, 20), st.none() | st.floats(-1e9, 1e9), max_size=12),
    st.sampled_from(["null", "previous", "linear"]),
)
def test_filling_keeps_what_there_is_and_says_what_there_is_not(
    there: dict[int, float | None], how: str
) -> None:
    time = np.array(sorted(there), np.int64) * 10
    cells = [there[at] for at in sorted(there)]
    wanted = grid(0, 205, 10)
    found, marks = filled(time, cells, wanted, how)
    assert len(found) == len(marks) == 21
    known = {at: value for at, value in there.items() if value is not None}
    for at, (cell, mark) in enumerate(zip(found, marks, strict=True)):
        before = [there for there in known if there < at]
        after = [there for there in known if there > at]
        if at in known:
            assert (cell, mark) == (known[at], False)
        elif how == "previous" and before:
            assert (cell, mark) == (known[max(before)], True)
        elif how == "linear" and before and after:
            low, high = sorted((known[max(before)], known[min(after)]))
            assert mark
            assert cell is not None
            assert low - 1e-6 <= cell <= high + 1e-6
        else:
            assert (cell, mark) == (None, False)


# Parquet.


async def test_a_parquet_export_has_every_row_with_its_type_and_what_is_absent_as_null(
    brain: Brain,
) -> None:
    pq = importlib.import_module("pyarrow.parquet")

    count = 150_000
    time = START_NS + np.arange(count) * SECOND
    value = np.arange(count) / 8
    value[5] = np.nan
    late = np.where(np.arange(count) < 100_000, np.nan, 1.0)
    note = ["" if at % 3 else f"第{at}" for at in range(count)]
    whole = np.arange(count) + (1 << 60)
    url = write(brain, time, value=value, late=late, note=note, whole=whole)
    span = f"start={START_NS}&end={START_NS + count * SECOND}"
    status, kind, body = await get(
        f"{url}/export?format=parquet&{span}&fields=value,late,note,whole,coverage"
    )
    assert (status, kind) == (HTTPStatus.OK, "application/vnd.apache.parquet")
    file = pq.ParquetFile(io.BytesIO(body))
    assert file.num_row_groups > 1
    table = file.read()
    assert table.column_names == ["time", "value", "late", "note", "whole"]
    assert table.schema.metadata[b"equipment_id"] == b"m-1"
    assert str(table.schema.field("time").type) == "timestamp[ns, tz=UTC]"
    assert np.array_equal(table["time"].cast("int64").to_numpy(), time)
    assert np.array_equal(table["whole"].to_numpy(), whole)
    assert table["value"].null_count == 1
    assert table["late"].null_count == 100_000
    assert table["note"].to_pylist()[:4] == ["第0", None, None, "第3"]


async def test_without_the_library_parquet_is_refused_with_what_to_install(
    brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = write(brain, np.array([START_NS]), value=np.ones(1))
    real = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    status, kind, body = await get(f"{url}/export?format=parquet&end={START_NS + SECOND}")
    problem = json.loads(body)
    assert (status, kind) == (HTTPStatus.NOT_IMPLEMENTED, "application/problem+json")
    assert "millgate[parquet]" in problem["remedy"]
    status, _, body = await get(f"{url}/export?end={START_NS + SECOND}")
    assert (status, body.splitlines()[1]) == (HTTPStatus.OK, b"2026-01-05T08:00:00Z,1.0")


async def test_a_million_rows_are_exported_in_bounded_memory(brain: Brain) -> None:
    count, part = 1_000_000, 100_000
    for at in range(0, count, part):
        time = START_NS + np.arange(at, at + part) * SECOND
        url = write(brain, time, value=np.arange(at, at + part) / 7)
    process = psutil.Process()
    before = most = process.memory_info().rss
    rows = 0
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"{url}/export?start={START_NS}&end={START_NS + count * SECOND}", headers=HEADERS
        ) as answer,
    ):
        async for chunk in answer.content.iter_chunked(1 << 16):
            rows += chunk.count(b"\n")
            most = max(most, process.memory_info().rss)
    assert rows == count + 1
    # All rows at once would be more than 100 MB of text and objects.
    assert most - before < 60_000_000

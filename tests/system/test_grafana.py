"""The Grafana dashboard: every query gives what its panel promises, from a real InfluxDB.

Grafana itself is not run: its macros are filled in as its documentation says.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from aggregator import stores
from aggregator.stores import SeriesBlock, Store
from protocols.frame import SECOND
from tests.documents import ROOT
from tests.servers.influx import running
from tests.unit.test_cases import CASES, Bench, ns

DASHBOARD = json.loads((ROOT / "docs" / "grafana" / "millgate.json").read_text("utf-8"))
SHOWN = (
    "carbon-code",
    "oee-of-an-hour",
    "power-of-an-hour",
    "pv-own-use-and-balance",
    "tariff-registers",
)
BUCKETS = {"${factory}": "future_factory", "${carbon}": "carbon_emission"}
DAY_NS = 86_400 * SECOND
QUERIES = [
    (panel["title"], target["datasource"]["uid"], target["query"])
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


def copy(source: Store, target: Store) -> None:
    for key in source.series():
        names = list(source.newest(key).fields)
        found = source.query(key, names, 0, 1 << 62)
        target.write([SeriesBlock(key, found.time, found.fields)])


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[int]]]:
    """An InfluxDB with the series of some golden cases; and when each of them begins."""
    module = stores.load("influx")
    with running(tmp_path_factory.mktemp("influx")) as server:
        targets = {
            name: module.Store(module.Config(url=server.url), name) for name in BUCKETS.values()
        }
        starts = []
        for name in SHOWN:
            case = tomllib.loads((CASES / name / "case.toml").read_text("utf-8"))
            bench = Bench(case, tmp_path_factory.mktemp("case"))
            bench.run(case)
            starts.append(ns(case["start"]))
            for bucket, store in bench.stores.items():
                copy(store, targets[bucket])
                store.close()
        yield server.url, starts
        for target in targets.values():
            target.close()


def ask(url: str, source: str, query: str, start_ns: int) -> list[Any]:
    """Return the series of an answer over the days around a moment."""
    span = f"time >= {start_ns - 200 * DAY_NS} AND time < {start_ns + 200 * DAY_NS}"
    text = query.replace("$timeFilter", span).replace("$__interval", "1h")
    text = text.replace("$oee_interval", "1h")
    text = re.sub(r"\$(enterprise|equipment)\b", ".*", text)
    assert "$" not in re.sub(r"\$/", "", text), text
    fields = {"db": BUCKETS[source], "q": text, "epoch": "ns"}
    answer = urllib3.request("GET", f"{url}/query", fields=fields, timeout=30)
    (result,) = answer.json()["results"]
    assert "error" not in result, (result, text)
    series: list[Any] = result.get("series", [])
    return series


@pytest.mark.parametrize(("title", "source", "query"), QUERIES, ids=[one[0] for one in QUERIES])
def test_every_panel_shows_something_of_the_series(
    filled: tuple[str, list[int]], title: str, source: str, query: str
) -> None:
    url, starts = filled
    columns: dict[str, set[Any]] = {}
    for start in starts:
        for series in ask(url, source, query, start):
            for at, name in enumerate(series["columns"]):
                columns.setdefault(name, set()).update(row[at] for row in series["values"])
    shown = {name for name, cells in columns.items() if cells - {None} and name != "time"}
    # All that a panel promises is there in one case or another; of scrap no case tells.
    wanted = set(re.findall(r'AS "(\w+)"', query)) - {"scrap"}
    assert shown >= wanted, title
    assert shown, title


def test_the_variables_list_firms_and_equipment(filled: tuple[str, list[int]]) -> None:
    url, starts = filled
    listed = {
        one["name"]: {
            row[1]
            for series in ask(url, one["datasource"]["uid"], one["query"], starts[0])
            for row in series["values"]
        }
        for one in DASHBOARD["templating"]["list"]
        if one["type"] == "query"
    }
    assert listed == {"enterprise": {"mill"}, "equipment": {"press-1"}}


def test_every_panel_has_a_title_in_both_languages_and_its_own_place() -> None:
    places: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["title"] == "OEE" or not panel["title"].isascii()
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & places
        places |= cells
    assert Path(ROOT / "docs" / "grafana" / "README.md").read_text("utf-8").count("Grafana") > 3

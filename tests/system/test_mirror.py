"""The numeric mirror in a real VictoriaMetrics."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from aggregator.cli import app
from aggregator.feed import Feed, Followed
from aggregator.mirror import Mirror
from aggregator.stores import SeriesBlock, SeriesKey, Store, StoreUnavailable, influx
from aggregator.stores.embedded import Config
from aggregator.stores.embedded import Store as Embedded
from protocols.errors import ConfigError
from protocols.frame import SECOND
from tests.servers.victoria import Victoria, running

BUCKETS = ("future_factory", "carbon_emission")
NOW = 1_767_600_000 * SECOND
ENERGY = SeriesKey.of("ff_energy", {"enterprise_id": "秀洲 一厂", "equipment_id": "meter-1"})
CARBON = SeriesKey.of("ce_emission", {"enterprise_id": "秀洲 一厂", "factor_id": "a/b"})


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victoria]:
    with running(tmp_path_factory.mktemp("vm") / "data") as found:
        yield found


class Side:
    """A brain's stores and feed, and the mirror of them."""

    def __init__(self, folder: Path, url: str) -> None:
        config = Config(path=folder / "store")
        self.feed = Feed(folder / "feed.db", lambda: NOW)
        self.stores: dict[str, Store] = {
            name: Followed(Embedded(config, name), name, self.feed) for name in BUCKETS
        }
        target = influx.Config(url=url)
        targets = {name: influx.Store(target, name) for name in BUCKETS}
        self.mirror = Mirror(self.feed, self.stores, targets, folder / "position")

    def write(self, key: SeriesKey, first: int, *values: float, **more: Any) -> None:
        bucket = BUCKETS[key.measurement.startswith("ce_")]
        time = NOW + (first + np.arange(len(values))) * SECOND
        self.stores[bucket].write([SeriesBlock(key, time, {"value": np.array(values), **more})])

    def follow(self) -> int:
        rows, more = self.mirror.step()
        while more:
            copied, more = self.mirror.step()
            rows += copied
        return rows


@pytest.fixture
def side(tmp_path: Path, victoria: Victoria) -> Side:
    return Side(tmp_path, victoria.url)


def named(victoria: Victoria, name: str) -> dict[str, Any]:
    """Return the one series of a name; all tests share the server, so each writes names of its own."""
    (found,) = victoria.export(name)
    return found


def test_all_numbers_are_mirrored_and_followed_and_no_text(
    side: Side, victoria: Victoria, tmp_path: Path
) -> None:
    side.write(ENERGY, 0, 0.1, 2.5, 1 / 3, unit=["kWh"] * 3, span_s=np.array([1, 2, 3]))
    side.write(CARBON, 0, 12.25)
    assert side.follow() == 4
    energy = named(victoria, "ff_energy_value")
    assert energy["values"] == pytest.approx([0.1, 2.5, 1 / 3], rel=1e-14)
    assert energy["timestamps"] == [(NOW // SECOND + at) * 1000 for at in range(3)]
    assert energy["metric"]["enterprise_id"] == "秀洲 一厂"
    assert named(victoria, "ff_energy_span_s")["values"] == [1, 2, 3]
    assert named(victoria, "ce_emission_value")["values"] == [12.25]
    assert victoria.export(".*unit.*") == []
    assert side.follow() == 0
    side.write(ENERGY, 3, 7.0)
    # A mirror that starts again goes on where it was.
    again = Mirror(
        side.feed,
        side.stores,
        {name: influx.Store(influx.Config(url=victoria.url), name) for name in BUCKETS},
        tmp_path / "position",
    )
    assert again.step() == (1, False)
    assert named(victoria, "ff_energy_value")["values"][3] == 7.0


def test_what_the_newest_row_lacks_is_mirrored_of_the_others(
    side: Side, victoria: Victoria
) -> None:
    key = SeriesKey.of("ff_quality", {"enterprise_id": "hours"})
    side.write(key, 0, 1.0, fpy=np.array([0.5]))
    side.write(key, 1, 2.0)
    side.follow()
    assert named(victoria, "ff_quality_fpy")["values"] == [0.5]


def test_a_mirror_that_was_away_too_long_copies_everything(
    side: Side, victoria: Victoria, tmp_path: Path
) -> None:
    key = SeriesKey.of("ff_reading", {"enterprise_id": "long-away"})
    side.write(key, 0, 1.0, 2.0)
    (tmp_path / "position").write_text("0123456789abcdef.7", "ascii")
    assert side.follow() == 2
    assert named(victoria, "ff_reading_value")["values"] == [1, 2]


def test_a_revised_row_has_one_value_and_which_is_not_promised(
    side: Side, victoria: Victoria
) -> None:
    key = SeriesKey.of("ff_power", {"enterprise_id": "revised"})
    side.write(key, 0, 5.0, 6.0)
    side.follow()
    side.write(key, 0, 4.0)
    side.follow()
    found = named(victoria, "ff_power_value")
    assert len(found["values"]) == 2
    assert found["values"][0] in {4.0, 5.0}


def test_a_mirror_that_is_away_stops_the_copy_and_nothing_is_skipped(
    tmp_path: Path, victoria: Victoria
) -> None:
    away = Side(tmp_path, "http://127.0.0.1:9")
    key = SeriesKey.of("ff_oee", {"enterprise_id": "later"})
    away.write(key, 0, 0.5)
    with pytest.raises(StoreUnavailable):
        away.follow()
    away.feed.close()
    back = Side(tmp_path, victoria.url)
    assert back.follow() == 1
    assert named(victoria, "ff_oee_value")["values"] == [0.5]


def test_the_command_copies_and_says_how_much(tmp_path: Path, victoria: Victoria) -> None:
    runner, brain = CliRunner(), tmp_path / "brain"
    assert runner.invoke(app, ["init", str(brain)]).exit_code == 0
    (brain / "data").mkdir(exist_ok=True)
    side = SimpleNamespace(feed=Feed(brain / "data" / "feed.db", lambda: NOW))
    store = Followed(Embedded(Config(path=brain / "store"), BUCKETS[0]), BUCKETS[0], side.feed)
    key = SeriesKey.of("ff_connectivity", {"enterprise_id": "command"})
    store.write([SeriesBlock(key, np.array([NOW]), {"digital_rate": np.array([0.97])})])
    arguments = ["mirror", str(brain / "aggregator.toml"), "--url", victoria.url, "--once"]
    said = runner.invoke(app, arguments, catch_exceptions=False)
    assert (said.exit_code, said.output) == (0, "in step: 1 rows copied\n")
    assert named(victoria, "ff_connectivity_digital_rate")["values"] == [0.97]
    arguments[3] = "127.0.0.1:9"
    with pytest.raises(ConfigError, match="http://"):
        runner.invoke(app, arguments, catch_exceptions=False)


def test_a_mirror_that_is_away_is_called_by_its_own_name_and_option(tmp_path: Path) -> None:
    runner, brain = CliRunner(), tmp_path / "brain"
    assert runner.invoke(app, ["init", str(brain)]).exit_code == 0
    store = Embedded(Config(path=brain / "store"), BUCKETS[0])
    store.write([SeriesBlock(ENERGY, np.array([NOW]), {"energy": np.array([1.0])})])
    store.close()
    arguments = ["mirror", str(brain / "aggregator.toml"), "--url", "http://127.0.0.1:9", "--once"]
    with pytest.raises(StoreUnavailable) as caught:
        runner.invoke(app, arguments, catch_exceptions=False)
    said = str(caught.value)
    assert "VictoriaMetrics" in said
    assert "--url" in said
    assert "InfluxDB" not in said
    assert "store.url" not in said

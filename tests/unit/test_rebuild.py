"""Series are written anew on demand, whatever the store does meanwhile; a poison batch harms no other."""

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.alarms import PASSED_OVER
from aggregator.projection import Cursor
from aggregator.series import future_factory
from aggregator.stores import SeriesBlock, SeriesKey, Store, StoreUnavailable, influx
from protocols.batch import Block
from tests.servers.influx import InfluxServer
from tests.small_factory import ENERGY, POWER, block
from tests.unit.test_projection import BUCKETS, KEYS, SLOT, Away, Way

TURNS = ("half", "later", "token", "mute", "large", "half", "large", "later")
"""What the door before InfluxDB does to one write after the other."""


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    opened = Way(tmp_path)
    yield opened
    opened.close()


def sent(slot: int) -> Block:
    return block(SLOT + slot, [ENERGY, POWER], [5 * slot, slot])


def cursor(way: Way) -> Cursor:
    return Cursor(way.folder / "projection.json")


def passed_over(way: Way) -> list[tuple[int, int]]:
    agent = way.brain.ledger.agents()[KEYS.address]
    found = way.brain.ledger.record.alarms(agent)
    return [(one.first, one.last) for one in found if one.kind == PASSED_OVER]


def test_what_was_altered_in_the_store_is_right_again(way: Way) -> None:
    for slot in range(5):
        way.send(sent(slot))
    way.follow()
    clean = way.rows()
    store = way.stores["future_factory"]
    (key, *_) = store.series("ff_energy")
    row = store.query(key, list(store.newest(key).fields), 0, 1 << 62, limit=1)
    store.write([SeriesBlock(key, row.time + 1, dict(row.fields))])
    assert way.rows() != clean
    cursor(way).ask_anew()
    assert way.follow() == 5
    assert way.rows() == clean
    assert way.follow() == 0


def test_a_rebuild_that_breaks_off_anywhere_goes_on_at_the_next_start(way: Way) -> None:
    for slot in range(5):
        way.send(sent(slot))
    way.follow()
    clean = way.rows()
    cursor(way).ask_anew()
    away = Away(way.stores["carbon_emission"], StoreUnavailable("away"))
    targets: dict[str, Any] = {**way.stores, "carbon_emission": away}
    way.restart(targets=targets)
    with pytest.raises(StoreUnavailable):
        way.projection.step()
    assert way.rows() != clean
    way.restart()
    assert way.follow() == 5
    assert way.rows() == clean


def test_a_batch_that_no_code_foresaw_is_passed_over_alone_and_told(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the writing that fails, in the middle of others."""
    right = future_factory.project

    def project(slots: Any, terms: Any) -> Any:
        if slots.block.slot <= SLOT + 2 < slots.block.slot + slots.block.rows:
            raise ZeroDivisionError
        return right(slots, terms)

    monkeypatch.setattr(future_factory, "project", project)
    for slot in range(5):
        way.send(sent(slot))
    assert way.follow() == 5
    assert sorted(way.energy()) == [0, 1, 3, 4]
    assert passed_over(way) == [(2, 2)]
    monkeypatch.undo()
    way.send(sent(5))
    assert way.follow() == 1
    assert sorted(way.energy()) == [0, 1, 3, 4, 5]
    cursor(way).ask_anew()
    assert way.follow() == 6
    assert sorted(way.energy()) == [0, 1, 2, 3, 4, 5]
    assert passed_over(way) == []


def test_a_batch_that_cannot_be_opened_is_told_until_series_are_written_anew(way: Way) -> None:
    for slot in range(3):
        way.send(sent(slot))
    db = way.brain.ledger._db
    (sealed,) = db.execute("SELECT sealed FROM batch WHERE id = 3").fetchone()
    db.execute("UPDATE batch SET sealed = x'00' WHERE id = 3")
    assert way.follow() == 3
    assert passed_over(way) == [(1, 1)]
    db.execute("UPDATE batch SET sealed = ? WHERE id = 3", (sealed,))
    cursor(way).ask_anew()
    way.follow()
    assert passed_over(way) == []
    assert sorted(way.energy()) == [0, 1, 2]


def rows_of(stores: dict[str, Store]) -> dict[SeriesKey, dict[int, dict[str, Any]]]:
    found: dict[SeriesKey, dict[int, dict[str, Any]]] = {}
    for store in stores.values():
        for key in store.series():
            fields = list(store.newest(key).fields)
            read = store.query(key, fields, 0, 1 << 62)
            columns = {name: list(column) for name, column in read.fields.items()}
            found[key] = {
                at: {name: column[row] for name, column in columns.items()}
                for row, at in enumerate(read.time.tolist())
            }
    return found


def test_influxdb_behind_a_faulty_line_ends_up_as_a_clean_pass_does(
    way: Way, influx: InfluxServer
) -> None:
    """401, 413, 429, 503 when half is written, no answer when all is: series wait, none is lost."""
    for slot in range(40):
        way.send(sent(slot))
    way.follow()
    names = {bucket: uuid.uuid4().hex for bucket in BUCKETS}
    config = influx_config(influx)
    targets: dict[str, Store] = {
        bucket: influx_store(config, name) for bucket, name in names.items()
    }
    cursor(way).ask_anew()
    way.restart(targets=targets)
    influx.door.faults.turns.extend(TURNS)
    waits: list[float] = []
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if not way.projection.step():
                break
        except StoreUnavailable as fault:
            waits.append(fault.retry_after_s)
    assert not influx.door.faults.turns
    assert waits.count(1.0) == TURNS.count("later")
    assert len(waits) == len(TURNS) - TURNS.count("large")
    assert rows_of(targets) == rows_of(way.stores)
    cursor(way).ask_anew()
    assert way.follow() == 40
    assert rows_of(targets) == rows_of(way.stores)
    for store in targets.values():
        store.close()


def influx_config(server: InfluxServer) -> influx.Config:
    return influx.Config.model_validate({"kind": "influx", "url": server.url, "timeout": "5s"})


def influx_store(config: influx.Config, name: str) -> Store:
    return influx.Store(config, name)

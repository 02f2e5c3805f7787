"""The projection: series follow from the ledger alone, however often and from wherever it starts."""

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from aggregator import stores
from aggregator.factors import Factors, shipped_sets
from aggregator.inbox import Opened, Opener
from aggregator.ledger import Ledger
from aggregator.projection import Cursor, Position, Projection
from aggregator.revisions import CarbonRules, Revisions
from aggregator.stores import SeriesBlock, Store, StoreRefused, StoreUnavailable
from protocols.batch import NO_VALUE
from protocols.errors import MillgateError
from tests.small_factory import (
    ENERGY,
    NOW,
    POWER,
    SHORT_S,
    STATE,
    Brain,
    Forger,
    Keys,
    block,
    signed_policy,
    signing_key,
)

KEYS, OTHER = Keys(), Keys("other mill")
POLICY = signed_policy(KEYS)
SLOT = NOW // SHORT_S
BUCKETS = ("future_factory", "carbon_emission")


class Way:
    """A brain, its stores and its projection, which can be started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.brain = Brain(folder, KEYS, OTHER)
        self.forger = Forger(KEYS, POLICY)
        self.brain.take(KEYS, self.forger.sheet_message())
        module = stores.load("embedded")
        config = module.Config(kind="embedded", path=folder / "store")
        self.stores: dict[str, Store] = {name: module.Store(config, name) for name in BUCKETS}
        self.start()

    def start(self, rules: str = "", targets: Mapping[str, Store] | None = None) -> None:
        self.ledger = Ledger(self.brain.path)
        opener = Opener(self.ledger, self.brain.encryption, Opened())
        self.projection = Projection(
            self.ledger,
            opener,
            targets or self.stores,
            Factors(shipped_sets(), "CN-ZJ", ""),
            lambda: self.brain.factories,
            Cursor(self.folder / "projection.json"),
            rules,
        )

    def restart(self, rules: str = "", targets: Mapping[str, Store] | None = None) -> None:
        self.projection.close()
        self.start(rules, targets)

    def send(self, *blocks: Any) -> None:
        assert self.brain.take(KEYS, self.forger.batch(*blocks)).counts == {"kept": 1}

    def follow(self) -> int:
        total = 0
        while found := self.projection.step():
            total += found
        return total

    def rows(self) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
        """Return everything in the stores: by series, all rows."""
        found: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
        for store in self.stores.values():
            for key in store.series():
                if key.measurement == "vocabulary":
                    continue
                fields = sorted(store.newest(key).fields)
                read = store.query(key, fields, 0, 1 << 62)
                columns = [list(read.fields[name]) for name in fields]
                name = (key.measurement, *(f"{tag}={value}" for tag, value in key.tags))
                found[name] = list(zip(read.time.tolist(), *columns, strict=True))
        return found

    def energy(self) -> dict[int, float]:
        """Return ff_energy by slot, in kWh."""
        store = self.stores["future_factory"]
        found: dict[int, float] = {}
        for key in store.series("ff_energy"):
            read = store.query(key, ["energy"], 0, 1 << 62)
            slots = (read.time // (SHORT_S * 10**9) - SLOT).tolist()
            found |= dict(zip(slots, list(read.fields["energy"]), strict=True))
        return found

    def close(self) -> None:
        self.projection.close()
        for store in self.stores.values():
            store.close()
        self.brain.close()


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    opened = Way(tmp_path)
    yield opened
    opened.close()


def energy(slot: int, *values: int) -> Any:
    return block(SLOT + slot, [ENERGY], [5 * value for value in values])


def test_what_was_released_is_in_the_series_once(way: Way) -> None:
    way.send(energy(0, 1, 2))
    way.send(block(SLOT + 2, [ENERGY, POWER], [[15, 7]]))
    way.send(block(SLOT, range(STATE, STATE + 9), [1, 50, *[0] * 7]))
    assert way.follow() == 3
    assert way.energy() == {0: 0.05, 1: 0.1, 2: 0.15}
    measured = {name[0] for name in way.rows()}
    assert measured == {
        "ff_energy",
        "ff_reading",
        "ff_equipment_state",
        "ce_activity",
        "ce_emission",
    }
    assert way.follow() == 0


def test_a_filled_slot_appears_where_nothing_was(way: Way) -> None:
    way.send(block(SLOT, [ENERGY], [5, 0, 15], [0, NO_VALUE, 0]))
    way.follow()
    assert way.energy() == {0: 0.05, 2: 0.15}
    way.send(energy(1, 2))
    way.follow()
    assert way.energy() == {0: 0.05, 1: 0.1, 2: 0.15}


def test_the_order_and_grouping_of_steps_does_not_change_the_series(tmp_path: Path) -> None:
    one, other = Way(tmp_path / "one"), Way(tmp_path / "other")
    for at in range(6):
        for way in (one, other):
            way.send(energy(2 * at, at, at + 1), block(SLOT + 2 * at, [POWER], [at]))
        one.follow()
    other.follow()
    assert one.rows() == other.rows()
    one.close()
    other.close()


def test_a_projection_that_starts_again_anywhere_gives_the_same_series(way: Way) -> None:
    for at in range(5):
        way.send(energy(at, at + 1))
    way.follow()
    wanted = way.rows()
    cursor = Cursor(way.folder / "projection.json")
    for batch in (3, 1, 0):
        # As after a crash between the write of rows and that of the position.
        position = cursor.read()
        cursor.write(dataclasses.replace(position, batch=batch))
        way.restart()
        assert way.follow() > 0
        assert way.rows() == wanted
    (way.folder / "projection.json").unlink()
    way.restart()
    assert way.follow() == 5
    assert way.rows() == wanted


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"batch": "x"}', '{"batch": 1}', "\udcff"]
)
def test_a_damaged_position_means_the_very_beginning(tmp_path: Path, text: str) -> None:
    path = tmp_path / "projection.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert Cursor(path).read() == Position()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", bytes(range(256))])
def test_a_damaged_file_of_factor_revisions_is_said_with_its_remedy(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "factors.json"
    path.write_bytes(content)
    revisions = Revisions(path, CarbonRules.shipped("CN-ZJ", [], "", "cn-fuel-a"))
    with pytest.raises(MillgateError, match="revisions is damaged — restore it"):
        revisions.note(0)


def test_other_rules_write_all_series_anew(way: Way) -> None:
    way.send(energy(0, 1))
    way.follow()
    wanted = way.rows()
    for store in way.stores.values():
        for key in store.series():
            store.delete(key.measurement)
    way.restart("other factors")
    assert way.follow() == 1
    assert way.rows() == wanted


def test_another_name_of_a_factory_moves_its_series(way: Way) -> None:
    way.send(energy(0, 1))
    way.follow()
    known = way.brain.factories[KEYS.address]
    way.brain.factories[KEYS.address] = dataclasses.replace(known, enterprise="renamed")
    assert way.follow() == 1
    names = {tag for name in way.rows() for tag in name if tag.startswith("enterprise_id")}
    assert names == {"enterprise_id=renamed"}


def test_a_factory_known_again_gets_what_was_passed_over(way: Way) -> None:
    way.send(energy(0, 1))
    known = way.brain.factories.pop(KEYS.address)
    way.follow()
    assert way.rows() == {}
    way.brain.factories[KEYS.address] = known
    way.follow()
    assert way.energy() == {0: 0.05}


class Away:
    """A store that is away until it is told otherwise."""

    def __init__(self, store: Store, fault: Exception) -> None:
        self._store = store
        self.fault: Exception | None = fault

    def write(self, blocks: Sequence[SeriesBlock]) -> None:
        if self.fault is not None:
            raise self.fault
        self._store.write(blocks)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_store_that_is_away_delays_series_and_loses_none(way: Way, bucket: str) -> None:
    away = Away(way.stores[bucket], StoreUnavailable("away"))
    targets: dict[str, Any] = {**way.stores, bucket: away}
    way.restart(targets=targets)
    way.send(energy(0, 1))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            way.projection.step()
    way.send(energy(1, 2))
    away.fault = None
    assert way.follow() == 2
    assert way.energy() == {0: 0.05, 1: 0.1}


def test_rows_that_a_store_will_never_take_do_not_hold_up_the_others(way: Way) -> None:
    refusing = Away(way.stores["carbon_emission"], StoreRefused("never"))
    targets: dict[str, Any] = {**way.stores, "carbon_emission": refusing}
    way.restart(targets=targets)
    way.send(energy(0, 1))
    assert way.follow() == 1
    refusing.fault = None
    way.send(energy(1, 1))
    assert way.follow() == 1
    assert way.energy() == {0: 0.05, 1: 0.05}


def test_a_store_that_cannot_delete_is_written_all_the_same(
    way: Way, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: str) -> None:
        raise StoreRefused("cannot delete", remedy="use another store")

    monkeypatch.setattr(way.stores["future_factory"], "delete", refuse)
    way.send(energy(0, 1))
    assert way.follow() == 1
    assert way.energy() == {0: 0.05}
    assert "use another store" in caplog.text


@pytest.mark.parametrize("meanwhile", [0, 2, 3])
def test_an_older_ledger_that_was_put_back_is_projected_from_its_beginning(
    way: Way, meanwhile: int
) -> None:
    """Its next batches have numbers that the position has passed already, also where they came first."""
    way.send(energy(0, 1))
    way.projection.close()
    way.brain.close()
    shutil.copy(way.brain.path, way.folder / "backup.db")
    way.brain.open()
    way.start()
    ends = dict(way.forger.ends)
    for at in range(1, 4):
        way.send(energy(at, 1))
    way.follow()
    way.projection.close()
    way.brain.close()
    shutil.copy(way.folder / "backup.db", way.brain.path)
    way.brain.open()
    way.forger.ends = ends
    for at in range(meanwhile):
        way.send(energy(20 + at, 1))
    way.start()
    way.follow()
    way.send(energy(10, 4))
    way.follow()
    assert way.energy() == {0: 0.05, 10: 0.2} | {20 + at: 0.05 for at in range(meanwhile)}


def test_a_factory_with_other_officers_keeps_its_series(way: Way) -> None:
    """What the old officers signed in their time stays good; series can always be written anew."""
    way.send(energy(0, 1))
    card = KEYS.agent_card.model_copy(
        update={"officers": [signing_key("new officer").public], "threshold": 1}
    )
    known = way.brain.factories[KEYS.address]
    way.brain.factories[KEYS.address] = dataclasses.replace(known, card=card)
    way.restart()
    assert way.follow() == 1
    assert way.energy() == {0: 0.05}


def test_a_batch_whose_bytes_are_damaged_does_not_stop_the_others(way: Way) -> None:
    for at in range(3):
        way.send(energy(at, 1))
    way.brain.ledger._db.execute("UPDATE batch SET sealed = x'00' WHERE id = 3")
    assert way.follow() == 3
    assert way.energy() == {0: 0.05, 2: 0.05}

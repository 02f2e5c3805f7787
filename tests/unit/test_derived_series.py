"""Combined series follow from the ledger and what people entered, in whatever order things come."""

import dataclasses
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator import stores
from aggregator.anomalies import anomalies, as_rows
from aggregator.carbon_codes import find_profile
from aggregator.derivation import MEASUREMENTS as DERIVED
from aggregator.derivation import Derivation, People
from aggregator.facts import COLUMNS
from aggregator.inbox import Opened, Opener
from aggregator.ledger import Ledger
from aggregator.localtime import LocalTime
from aggregator.projection import Cursor, Projection
from aggregator.retention import signed_erasure
from aggregator.revisions import CarbonRules, Revisions
from aggregator.series import carbon, future_factory
from aggregator.series.derived.site import Context
from aggregator.series.fields import FIELDS
from aggregator.series.future_factory import EnergyTerms
from aggregator.stores import Store, StoreUnavailable
from protocols.batch import NO_VALUE
from protocols.frame import SECOND
from security.policy.bundle import read_bundle, sign_bundle
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText
from security.policy.streams import stream_id
from tests.servers.influx import InfluxServer
from tests.small_factory import (
    ENERGY,
    HOURLY,
    LONG_S,
    NOW,
    POWER,
    SHORT_S,
    STATE,
    Brain,
    Forger,
    Keys,
    block,
    policy_source,
    signed_policy,
)

KEYS, SECOND_GATE = Keys(), Keys("second gate")
POLICY = signed_policy(KEYS)
DOCS = Path(__file__).parents[2] / "docs"
BUCKETS = ("future_factory", "carbon_emission")
HOUR_S = 3600
FIRST = NOW // HOUR_S * HOUR_S // SHORT_S
"""A slot at the beginning of an hour."""

ALL_DAY = """
version = "a"
[[shift]]
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
start = "00:00"
end = "24:00"
"""

Rows = dict[tuple[str, ...], list[tuple[Any, ...]]]


class Site:
    """A brain with everything between its ledger and its stores."""

    def __init__(
        self, folder: Path, targets: dict[str, Store] | None = None, *others: Keys
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.brain = Brain(folder, KEYS, *others)
        self.forger = Forger(KEYS, POLICY)
        self.stores = targets or embedded(folder / "store")
        self.region = "CN-ZJ"
        self.start()

    def start(self) -> None:
        rules = CarbonRules.shipped(self.region, [], "", "cn-fuel-a")
        factors = rules.factors()
        local = LocalTime("Asia/Shanghai")
        people = People(self.folder / "facts.csv", self.folder / "calendars")
        context = Context(local, factors, find_profile("zj-2021-method", self.folder))
        self.ledger = Ledger(self.brain.path)
        self.projection = Projection(
            self.ledger,
            Opener(self.ledger, self.brain.encryption, Opened()),
            self.stores,
            factors,
            lambda: self.brain.factories,
            Cursor(self.folder / "projection.json"),
            rules.digest(),
            EnergyTerms(),
            local,
            Revisions(self.folder / "factors.json", rules),
            Derivation(self.stores, context, people),
        )

    def restart(self) -> None:
        self.projection.close()
        self.start()

    def take(self, *messages: bytes, keys: Keys = KEYS) -> None:
        self.brain.take(keys, *messages)

    def follow(self) -> None:
        while self.projection.step():
            pass
        while self.projection.derive():
            pass

    def facts(self, *lines: str) -> None:
        text = "\n".join([",".join(COLUMNS), *lines]) + "\n"
        (self.folder / "facts.csv").write_text(text, "utf-8")

    def rows(self, measurement: str | None = None) -> Rows:
        found: Rows = {}
        for store in self.stores.values():
            for key in store.series(measurement):
                fields = sorted(store.newest(key).fields)
                read = store.query(key, fields, 0, 1 << 62)
                columns = [plain(read.fields[name]) for name in fields if name in read.fields]
                name = (key.measurement, *(f"{tag}={value}" for tag, value in key.tags))
                if len(read):
                    found[name] = list(zip(read.time.tolist(), *columns, strict=True))
        return found

    def column(self, measurement: str, field: str, **tags: str) -> list[Any]:
        bucket = "future_factory" if measurement.startswith("ff_") else "carbon_emission"
        keys = [
            k
            for k in self.stores[bucket].series(measurement)
            if tags.items() <= dict(k.tags).items()
        ]
        found: list[Any] = []
        for key in keys:
            read = self.stores[bucket].query(key, [field], 0, 1 << 62)
            found += plain(read.fields.get(field, []))
        return found

    def close(self) -> None:
        self.projection.close()
        for store in self.stores.values():
            store.close()
        self.brain.close()


def plain(column: Any) -> list[Any]:
    if isinstance(column, list):
        return column
    return ["" if np.isnan(cell) else cell for cell in np.asarray(column, np.float64).tolist()]


def embedded(folder: Path) -> dict[str, Store]:
    module = stores.load("embedded")
    return {name: module.Store(module.Config(path=folder), name) for name in BUCKETS}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = Site(tmp_path)
    opened.take(opened.forger.sheet_message())
    yield opened
    opened.close()


def energy(slot: int, *values: int) -> Any:
    return block(FIRST + slot, [ENERGY], [5 * value for value in values])


def hour(forger: Forger, at: int = 0, quarter: int = 800) -> list[bytes]:
    """Return a whole hour of all points, as messages; `quarter` is what the sub-meter counts."""
    slots = HOUR_S // SHORT_S
    start = FIRST + at * slots
    state = [1, 50, 0, 0, 0, 0, 0, 0, 0]
    return [
        forger.batch(block(start, [ENERGY, POWER], [[5, 360]] * slots)),
        forger.batch(block(start, range(STATE, STATE + 9), [state] * slots)),
        forger.batch(
            block(start * SHORT_S // LONG_S, [HOURLY], [[quarter]] * 4), stream=forger.long
        ),
    ]


def test_an_hour_has_its_balance_checks_and_quality(site: Site) -> None:
    site.take(*hour(site.forger))
    site.follow()
    # 720 slots of 0.05 kWh at the main meter, four of 8.00 kWh at the sub-meter.
    assert site.column("ce_balance", "main") == [36.0]
    assert site.column("ce_balance", "sub_sum") == [32.0]
    assert site.column("ce_balance", "unallocated") == [4.0]
    assert site.column("ff_check", "status", check="balance:energy.active_import") == ["OK"]
    assert site.column("ce_quality", "coverage") == [1.0]
    assert site.column("ff_connectivity", "devices_online") == [3]
    assert site.column("ff_oee", "apt_s") == [3600.0]
    assert site.column("ff_oee", "availability") == []


def test_a_meter_that_is_said_to_show_a_fifth_less_stands_out_from_the_other_meters(
    site: Site,
) -> None:
    site.take(*hour(site.forger, quarter=640))
    site.follow()
    assert site.column("ff_check", "status", check="balance:energy.active_import") == ["ANOMALY"]


def test_what_comes_later_is_derived_anew(site: Site) -> None:
    messages = hour(site.forger)
    site.take(messages[0], messages[1])
    site.follow()
    assert site.column("ce_balance", "main") == []
    site.take(messages[2])
    site.follow()
    assert site.column("ce_balance", "main") == [36.0]


def test_a_policy_with_longer_slots_leaves_what_was_derived_under_the_one_before(
    site: Site,
) -> None:
    (site.folder / "calendars").mkdir()
    (site.folder / "calendars" / "mill.main.toml").write_text(ALL_DAY, "utf-8")
    site.take(*hour(site.forger))
    site.follow()
    wanted = site.rows()
    assert site.column("ff_oee", "availability") == [1.0]
    source = policy_source(KEYS, 2)
    for point in source["point"]:
        point["release"]["slot"] = "1800s"
    bundle = sign_bundle(compile_policy(PolicyText.model_validate(source)), KEYS.officers)
    longer = Forger(KEYS, read_bundle(bundle, [key.public for key in KEYS.officers], 2))
    longer.ends = site.forger.ends
    start = FIRST * SHORT_S + 2 * HOUR_S
    values = longer.batch(
        block(start // 1800, [ENERGY, POWER], [[5, 360]] * 2),
        stream=stream_id(KEYS.pin, 1800),
        window=(start, start + HOUR_S),
        issued_at=start + HOUR_S,
    )
    # All of it while the brain runs.
    site.take(longer.sheet_message(issued_at=start), values)
    site.follow()
    for name, rows in wanted.items():
        assert [row for row in site.rows()[name] if row[0] < start * SECOND] == rows
    assert site.column("ff_power", "coverage") == [1.0, 1.0]


def test_facts_and_calendars_act_when_they_are_entered_and_when_they_go(site: Site) -> None:
    site.take(*hour(site.forger))
    site.follow()
    wanted = site.rows()
    folder = site.folder / "calendars"
    folder.mkdir()
    (folder / "mill.main.toml").write_text(ALL_DAY, "utf-8")
    site.facts("mill,main,,land_area,10,2020-01-01,,register,2026-01-01")
    site.follow()
    assert site.column("ff_oee", "availability") == [1.0]
    assert len(site.column("ce_intensity", "kgco2e_per_unit", denominator="亩")) == 1
    assert site.column("ff_fact", "source", fact="land_area") == ["register"]
    (folder / "mill.main.toml").unlink()
    (site.folder / "facts.csv").unlink()
    site.follow()
    assert site.rows() == wanted


def test_a_faulty_fact_file_changes_nothing_and_is_told(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.facts("mill,main,,land_area,10,2020-01-01,,register,2026-01-01")
    site.take(*hour(site.forger))
    site.follow()
    wanted = site.rows()
    site.facts("mill,main,,land_area,ten,2020-01-01,,register,2026-01-01")
    site.follow()
    assert site.rows() == wanted
    assert "'ten' is no number" in caplog.text


def test_every_bucket_says_under_which_vocabulary_its_rows_were_written(site: Site) -> None:
    site.take(*hour(site.forger))
    site.follow()
    for store in site.stores.values():
        (key,) = store.series("vocabulary")
        mark = store.newest(key).fields
        assert int(mark["version"][0]) >= 2
        assert len(mark["sha256"][0]) == 64


def test_anomalies_are_listed_with_their_reasons_until_they_are_mended(site: Site) -> None:
    too_much = site.forger.batch(
        block(FIRST * SHORT_S // LONG_S, [HOURLY], [[1200]] * 4), stream=site.forger.long
    )
    site.take(*hour(site.forger)[:2], too_much)
    site.follow()
    found = anomalies(site.stores["future_factory"], 0, 1 << 62)
    (one,) = found
    assert (one.firm, one.check) == ("mill.main", "balance:energy.active_import")
    assert one.value == pytest.approx((36 - 48) / 36)
    assert "sub-meters" in one.reason
    assert as_rows(found)[0]["time"] == "2026-02-02T02:00:00Z"
    assert anomalies(site.stores["future_factory"], 0, one.time_ns) == []


@pytest.mark.parametrize("page", ["series.md", "series.zh-CN.md"])
def test_every_measurement_and_field_is_described(site: Site, page: str) -> None:
    site.facts(
        "mill,main,,land_area,10,2020-01-01,,register,2026-01-01",
        "mill,main,,green_power_share,0.5,2020-01-01,2030-01-01,contract,2026-01-01",
    )
    site.take(*hour(site.forger))
    site.follow()
    described = set(re.findall(r"`([A-Za-z0-9_]+)`", (DOCS / page).read_text("utf-8")))
    assert {name for names in DERIVED.values() for name in names} <= described
    assert {*future_factory.MEASUREMENTS, *carbon.MEASUREMENTS} <= described
    for store in site.stores.values():
        for key in store.series():
            assert {tag for tag, _ in key.tags} <= described
            assert set(store.newest(key).fields) <= described
            assert set(store.newest(key).fields) <= FIELDS.get(
                key.measurement, {"version", "sha256"}
            )
    assert set().union(*FIELDS.values(), FIELDS) <= described


# Factor sets.


def test_when_factors_change_the_superseded_results_are_kept_apart(site: Site) -> None:
    site.take(*hour(site.forger))
    site.follow()
    before = site.rows("ce_emission")
    (series,) = (name for name in before if "method=location" in name)
    assert "factor_id=cn-electricity-2023/CN-ZJ" in series
    site.region = "CN-JS"
    site.restart()
    site.follow()
    after = site.rows("ce_emission")
    assert [name for name in after if "factor_id=cn-electricity-2023/CN-JS" in name] == list(after)
    (kept,) = site.rows("ce_superseded").items()
    assert "revision=1" in kept[0]
    assert "factor_id=cn-electricity-2023/CN-ZJ" in kept[0]
    assert kept[1] == before[series]
    # What comes after the change was never computed with the old factors.
    site.take(*hour(site.forger, 1))
    site.follow()
    assert len(site.rows("ce_superseded")[kept[0]]) == len(before[series])
    # The very beginning gives the same.
    wanted = site.rows()
    (site.folder / "projection.json").unlink()
    site.restart()
    site.follow()
    assert site.rows() == wanted


def test_factors_that_were_changed_back_leave_no_second_copy_of_what_holds(site: Site) -> None:
    site.take(*hour(site.forger))
    site.follow()
    wanted = site.rows("ce_emission")
    for region in ("CN-JS", "CN-ZJ"):
        site.region = region
        site.restart()
        site.follow()
    assert site.rows("ce_emission") == wanted
    (name,) = site.rows("ce_superseded")
    assert {"revision=2", "factor_id=cn-electricity-2023/CN-JS"} <= set(name)


# One datum, one source.


def test_a_second_source_is_refused_and_told_and_the_first_one_stays(tmp_path: Path) -> None:
    site = Site(tmp_path, None, SECOND_GATE)
    name = site.brain.factories[KEYS.address]
    other = site.brain.factories[SECOND_GATE.address]
    site.brain.factories[SECOND_GATE.address] = dataclasses.replace(other, enterprise="mill")
    assert (name.enterprise, name.site) == ("mill", "main")
    second = Forger(SECOND_GATE, signed_policy(SECOND_GATE))
    site.take(site.forger.sheet_message())
    site.take(second.sheet_message(), keys=SECOND_GATE)
    site.take(second.batch(energy(0, 99, 99, 99)), keys=SECOND_GATE)
    site.take(site.forger.batch(energy(0, 1, 2)))
    site.follow()
    assert site.column("ff_energy", "energy", equipment_id="meter-1", meter_role="main") == [
        0.05,
        0.1,
    ]
    assert site.column("ce_activity", "activity") == [0.05, 0.1]
    assert site.column("ff_refused", "reason", measurand="energy.active_import") == [
        "another agent is the source of this datum"
    ]
    site.close()


# Retention.


def test_what_was_derived_from_erased_batches_goes_with_them(site: Site) -> None:
    site.take(*hour(site.forger))
    site.take(*hour(site.forger, 20))
    site.follow()
    assert len(site.column("ce_balance", "main")) == 2
    end_s = (FIRST * SHORT_S + HOUR_S) + 365 * 86_400 + 1
    assert site.projection.forget_ended(end_s)
    site.follow()
    assert len(site.column("ce_balance", "main")) == 1
    assert len(site.column("ff_connectivity", "devices_online")) == 1


def stated(site: Site) -> bool:
    return signed_erasure(site.ledger, site.brain.receipt, KEYS.address, NOW) is not None


@pytest.mark.parametrize("gone_at", ["", "future_factory", "carbon_emission", "ledger"])
def test_nothing_made_of_erased_batches_is_left_when_the_statement_can_be_signed(
    site: Site, monkeypatch: pytest.MonkeyPatch, gone_at: str
) -> None:
    """Not even before anything is combined anew, nor after a crash in between."""
    site.facts("mill,main,,land_area,10,2020-01-01,,register,2026-01-01")
    site.take(*hour(site.forger))
    site.take(*hour(site.forger, 20))
    site.follow()
    before = site.rows()
    end_s = (FIRST * SHORT_S + HOUR_S) + 365 * 86_400 + 1

    def gone(*_: Any) -> None:
        raise StoreUnavailable("gone")

    if gone_at:
        with monkeypatch.context() as patch:
            broken: object = site.stores.get(gone_at, site.ledger)
            patch.setattr(broken, "erase" if gone_at == "ledger" else "delete_rows", gone)
            with pytest.raises(StoreUnavailable):
                site.projection.forget_ended(end_s)
        assert not stated(site)
        site.restart()
        site.follow()
        assert not stated(site)
    assert site.projection.forget_ended(end_s)
    assert stated(site)
    at_once = site.rows()
    (site.folder / "projection.json").unlink()
    site.restart()
    site.follow()
    wanted = site.rows()
    assert wanted != before
    for name, rows in at_once.items():
        assert set(rows) <= set(wanted.get(name, []))


def test_superseded_results_of_erased_batches_go_with_them(site: Site) -> None:
    site.take(*hour(site.forger))
    site.follow()
    site.region = "CN-JS"
    site.restart()
    site.take(*hour(site.forger, 1))
    site.follow()
    assert site.rows("ce_superseded")
    # Batches of before and after the change are erased together.
    assert site.projection.forget_ended(FIRST * SHORT_S + 2 * HOUR_S + 365 * 86_400 + 1)
    site.follow()
    left = {name[0] for name in site.rows()}
    assert left <= {"vocabulary", "ce_intensity"}
    assert site.rows("ce_intensity") == {}


# Right under disorder.


class Crashing:
    """A store that is gone now and then, after it has written a part or everything."""

    def __init__(self, store: Store, chance: random.Random) -> None:
        self._store = store
        self._chance = chance
        self.on = True

    def write(self, blocks: Sequence[Any]) -> None:
        whole = list(blocks)
        if self.on and self._chance.random() < 0.3:
            self._store.write(whole[: self._chance.randrange(len(whole) + 1)])
            raise StoreUnavailable("gone")
        self._store.write(whole)

    def delete_rows(self, spans: Sequence[Any]) -> None:
        whole = list(spans)
        if self.on and self._chance.random() < 0.3:
            self._store.delete_rows(whole[: self._chance.randrange(len(whole) + 1)])
            raise StoreUnavailable("gone")
        self._store.delete_rows(whole)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def chains(forger: Forger) -> list[list[bytes]]:
    """Return the messages of chains that do not wait for each other, each in its order."""
    slots = HOUR_S // SHORT_S
    fast: list[bytes] = []
    again: list[bytes] = []
    for at in range(4):
        start = FIRST + at * slots
        state = [[1, 50, *[0] * 7]] * slots
        missing = np.zeros((slots, 9), np.uint8)
        missing[slots // 2 :] = NO_VALUE
        fast.append(forger.batch(block(start, [ENERGY, POWER], [[5 + 5 * at, 360]] * slots)))
        fast.append(forger.batch(block(start, range(STATE, STATE + 9), state, missing)))
        # Another epoch tells the second half of the states, and of the first that it has nothing.
        again.append(
            forger.batch(
                block(start, range(STATE, STATE + 9), state, NO_VALUE * (1 - missing // NO_VALUE)),
                epoch=2,
            )
        )
    first_long = FIRST * SHORT_S // LONG_S
    slow = [
        forger.batch(block(first_long + at, [HOURLY], [[800 + at]]), stream=forger.long)
        for at in range(16)
    ]
    return [fast, again, slow]


def shuffled(parts: list[list[bytes]], chance: random.Random) -> Iterator[bytes]:
    """Yield every message, chains mixed at random, with duplicates of what was sent before."""
    rest = [list(part) for part in parts]
    sent: list[bytes] = []
    while any(rest):
        part = chance.choice([part for part in rest if part])
        sent.append(part.pop(0))
        yield sent[-1]
        while chance.random() < 0.3:
            yield chance.choice(sent)


def disorder(folder: Path, seed: int, fresh: Callable[[str], dict[str, Store]]) -> None:
    chance = random.Random(seed)
    forger = Forger(KEYS, POLICY)
    sheet = forger.sheet_message()
    other_sheet = forger.sheet_message(epoch=2)
    parts = chains(forger)
    clean = Site(folder / "clean", fresh("clean"))
    clean.facts("mill,main,,land_area,10,2020-01-01,,register,2026-01-01")
    clean.take(sheet, other_sheet, *(one for part in parts for one in part))
    clean.follow()
    wanted = clean.rows()
    clean.close()
    targets = fresh("wild")
    crashing: dict[str, Any] = {name: Crashing(store, chance) for name, store in targets.items()}
    wild = Site(folder / "wild", crashing)
    # People enter another number first, and correct it at some moment.
    wild.facts("mill,main,,land_area,7,2020-01-01,,estimate,2026-01-01")
    wild.take(sheet, other_sheet)
    messages = list(shuffled(parts, chance))
    corrected = chance.randrange(len(messages))
    for at, message in enumerate(messages):
        wild.take(message)
        if at == corrected:
            wild.facts("mill,main,,land_area,10,2020-01-01,,register,2026-01-01")
        if chance.random() < 0.4:
            try:
                wild.follow()
            except StoreUnavailable:
                wild.restart()
        elif chance.random() < 0.1:
            wild.restart()
    for store in crashing.values():
        store.on = False
    wild.follow()
    assert wild.rows() == wanted
    assert len(wanted) > 10
    wild.close()


@pytest.mark.parametrize("seed", range(3))
def test_any_order_with_duplicates_and_crashes_gives_the_series_of_one_clean_pass(
    tmp_path: Path, seed: int
) -> None:
    disorder(tmp_path, seed, lambda name: embedded(tmp_path / f"store-{name}"))


def test_any_order_gives_the_series_of_one_clean_pass_in_influxdb_too(
    tmp_path: Path, own_influx: InfluxServer
) -> None:
    module = stores.load("influx")

    def fresh(name: str) -> dict[str, Store]:
        found = {}
        for bucket in BUCKETS:
            store = module.Store(module.Config(url=own_influx.url), bucket)
            for measurement in {key.measurement for key in store.series()}:
                store.delete(measurement)
            found[bucket] = store
        return found

    disorder(tmp_path, 7, fresh)

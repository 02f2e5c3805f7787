"""A year of a real plant through the whole path: every slot exact, kept once, in both stores."""

import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from simulators.demo import Mill
from simulators.recording import generate, read_recording, zone
from tests.servers.influx import InfluxServer
from tests.servers.mosquitto import Mosquitto, running
from tests.system.mills import MOSQUITTO, edit, exact, replay_mill, rows, until

SLOT_NS: Final = 900 * 10**9
SLOTS: Final = 35_040
ENOUGH_S: Final = 420.0
SERIES: Final = (
    ("future_factory", "ff_energy"),
    ("carbon_emission", "ce_activity"),
    ("carbon_emission", "ce_emission"),
)

pytestmark = pytest.mark.timeout(1200)


def steel() -> Path:
    folder = os.environ.get("MILLGATE_DATA")
    if not folder:
        pytest.skip("MILLGATE_DATA is not set: the recorded steel year is not here")
    return Path(folder) / "steel" / "Steel_industry_data.csv"


def stored(mill: Mill) -> tuple[Any, list[Decimal]]:
    ((key, block),) = rows(mill, "future_factory", "ff_energy")
    assert dict(key.tags)["equipment_id"] == "meter-1"
    assert set(np.asarray(block.fields["span_s"]).tolist()) == {900}
    return block.time, exact(block.fields["energy"])


def whole(mill: Mill, database: str, measurement: str, slots: int) -> bool:
    """Return whether a store has every slot: InfluxDB shows one measurement before the next."""
    found = rows(mill, database, measurement)
    return bool(found) and len(found[0][1]) == slots


def check_year(mill: Mill, counts: Sequence[int], first_ns: int, factor: str, year: int) -> None:
    """Every slot is there once, exact to 0.01 kWh, and carbon is exactly energy times factor."""
    time, energy = stored(mill)
    assert time.tolist() == [first_ns + at * SLOT_NS for at in range(len(counts))]
    assert energy == [Decimal(count) / 100 for count in counts]
    ((key, block),) = rows(mill, "carbon_emission", "ce_emission")
    assert dict(key.tags)["factor_id"] == f"cn-electricity-{year}/CN-ZJ"
    assert set(np.asarray(block.fields["factor_value"]).tolist()) == {float(factor)}
    assert exact(block.fields["co2e_kg"]) == [value * Decimal(factor) for value in energy]
    ((_, activity),) = rows(mill, "carbon_emission", "ce_activity")
    assert exact(activity.fields["activity"]) == energy


async def run_year(
    tmp_path: Path,
    protocol: str,
    recording: Sequence[str],
    counts: Sequence[int],
    first_ns: int,
    influx: InfluxServer,
) -> Mill:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        return await _run_year(tmp_path, protocol, recording, counts, first_ns, influx, broker)


async def _run_year(
    tmp_path: Path,
    protocol: str,
    recording: Sequence[str],
    counts: Sequence[int],
    first_ns: int,
    influx: InfluxServer,
    broker: Mosquitto,
) -> Mill:
    async with replay_mill(tmp_path, broker, protocol, *recording) as (mill, replay):
        assert replay["readings"] == len(counts) + 1
        edit(mill.aggregator_toml, 'factor_set = ""', 'factor_set = "cn-electricity-2022"')

        def complete() -> bool:
            """all slots are in the series"""
            return all(whole(mill, *names, len(counts)) for names in SERIES)

        await mill.start("aggregator")
        await mill.start("agent", ready=False)
        await until(complete, ENOUGH_S, mill)
        await mill.stop("agent")
        check_year(mill, counts, first_ns, "0.5153", 2022)

        # Another factor set, explicitly chosen: the old results are replaced, not added to.
        await mill.stop("aggregator")
        edit(mill.aggregator_toml, "cn-electricity-2022", "cn-electricity-2023")
        await mill.start("aggregator")

        def of_2023() -> bool:
            """all slots are computed with the other factor"""
            found = rows(mill, "carbon_emission", "ce_emission")
            ids = [dict(key.tags)["factor_id"] for key, _ in found]
            return ids == ["cn-electricity-2023/CN-ZJ"] and complete()

        await until(of_2023, ENOUGH_S, mill)
        check_year(mill, counts, first_ns, "0.4974", 2023)

        # The other store, from the same ledger.
        await mill.stop("aggregator")
        edit(
            mill.aggregator_toml,
            'kind = "embedded"\npath = "store"\n',
            f'kind = "influx"\nurl = "{influx.url}"\n',
        )
        await mill.start("aggregator")
        await until(of_2023, ENOUGH_S, mill)
        check_year(mill, counts, first_ns, "0.4974", 2023)
        await mill.stop("aggregator")
        return mill


async def test_a_recorded_steel_year_arrives_exact_in_every_slot_in_both_stores(
    tmp_path: Path, own_influx: InfluxServer
) -> None:
    csv = steel()
    recording = read_recording(csv, "Usage_kWh", zone("Asia/Seoul"), SLOT_NS)
    assert len(recording.counts) == SLOTS
    # Slot start = label - 15 min; the first label is 2018-01-01 00:15 in Korea.
    first_ns = 1_514_732_400 * 10**9
    arguments = ("--csv", str(csv), "--timezone", "Asia/Seoul")
    mill = await run_year(tmp_path, "mqtt311", arguments, recording.counts, first_ns, own_influx)
    energy = sum(exact(rows(mill, "future_factory", "ff_energy")[0][1].fields["energy"]))
    assert energy == Decimal("959640.31")
    carbon = sum(exact(rows(mill, "carbon_emission", "ce_emission")[0][1].fields["co2e_kg"]))
    assert round(carbon / 1000, 3) == Decimal("477.325")
    assert round(energy * Decimal("0.5153") / 1000, 3) == Decimal("494.503")


async def test_generated_slots_arrive_exact_in_both_stores_over_mqtt5(
    tmp_path: Path, own_influx: InfluxServer
) -> None:
    # Where the recorded year is played as well, a season of another plant is enough.
    slots = SLOTS // 4 if "MILLGATE_DATA" in os.environ else SLOTS
    recording = generate(slots, 7, zone("+00:00"), SLOT_NS)
    arguments = ("--generate", str(slots), "--seed", "7")
    mill = await run_year(
        tmp_path, "mqtt5", arguments, recording.counts, recording.first_ns, own_influx
    )
    energy = sum(exact(rows(mill, "future_factory", "ff_energy")[0][1].fields["energy"]))
    assert energy == recording.total_kwh

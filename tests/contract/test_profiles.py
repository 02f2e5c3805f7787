"""Every shipped profile against a real server: each point is read by its own name, and what sources
disagree on is decided by what the device shows, or by a person, never by chance.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent.config import read_config
from agent.onboarding.deciding import Decision, Evidence, Undecided, decide
from agent.onboarding.profiles import (
    Alternative,
    ModbusProfile,
    OpcuaProfile,
    read_profile,
    rendered,
    shipped,
)
from agent.onboarding.seen import samples_of
from protocols.drivers.modbus import Config, Driver
from protocols.drivers.modbus.survey import Bounds, Survey
from protocols.errors import ConfigError
from protocols.frame import Quality
from security.cli import policy_app
from tests.mill_folder import call, make_mill, told
from tests.servers.registers import Memory, serving

PROFILES = shipped()
MODBUS = {name: one for name, one in PROFILES.items() if isinstance(one, ModbusProfile)}
SUNSPEC_AT = 40002 + 68


def all_choices(profile: ModbusProfile) -> Iterator[dict[str, str]]:
    """Yield every way in which a device may be."""
    seen = []
    for some in itertools.product(*(alt.choice for alt in profile.alternative)):
        chosen: dict[str, str] = {}
        for alternative, choice in zip(profile.alternative, some, strict=True):
            if all(chosen.get(name) == one for name, one in alternative.when.items()):
                chosen[alternative.id] = choice.id
        if chosen not in seen:
            seen.append(chosen)
            yield chosen


CASES = [
    pytest.param(profile, chosen, id="-".join([name, *chosen.values()]))
    for name, profile in MODBUS.items()
    for chosen in all_choices(profile)
]


def variables(profile: ModbusProfile, chosen: Mapping[str, str]) -> dict[str, str]:
    found = {"model": f"holding:{SUNSPEC_AT}"} if profile.find else {}
    for alternative in profile.alternative:
        picked = [one.vars for one in alternative.choice if one.id == chosen.get(alternative.id)]
        found |= picked[0] if picked else alternative.otherwise
    readings = {"ct": "40", "pt": "1", "wh": "10", "w": "1", "va": "1", "var": "1", "dcw": "1"}
    found |= {reading.var: readings.get(reading.var, "0.1") for reading in profile.reading}
    return found


def tables(profile: ModbusProfile, chosen: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    return {t["id"]: t for _, t in rendered(profile, variables(profile, chosen))}


def sampled(points: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: table for name, table in points.items() if table["type"] != "string"}


def order_of(profile: ModbusProfile) -> str:
    return str(profile.settings.get("order", "ABCD"))


# Every point says its own name.


def raw_of(place: int, kind: str) -> Decimal:
    """Return a raw value that no other point of the profile has, nor any part of one."""
    step = 7 if kind.endswith("16") else 1_000_003
    return Decimal(1000 + place * step)


@pytest.mark.parametrize(("profile", "chosen"), CASES)
async def test_each_point_of_a_profile_is_read_under_its_own_name(
    profile: ModbusProfile, chosen: dict[str, str]
) -> None:
    memory = Memory(between=0xBEEF)
    expected: dict[str, Decimal] = {}
    points = tables(profile, chosen)
    for place, (name, table) in enumerate(sampled(points).items()):
        raw = raw_of(place, table["type"])
        memory.put(table["address"], table["type"], raw, table.get("order", order_of(profile)))
        expected[name] = raw * Decimal(table.get("scale", 1))
    got: dict[str, str] = {}
    async with serving(memory) as server:
        config = Config.model_validate(
            {
                "id": "meter",
                "kind": "modbus",
                "host": "127.0.0.1",
                "port": server.port,
                "interval": "10ms",
                **profile.settings,
                "points": list(points.values()),
            }
        )
        driver = Driver(config, time.time_ns)
        async with asyncio.timeout(20), aclosing(driver.frames()) as frames:
            async for frame in frames:
                for name, sample in samples_of(frame, config.table()):
                    assert sample.quality is Quality.GOOD, name
                    got[name] = sample.text
                if len(got) == len(expected):
                    break
    assert {name: pytest.approx(float(text), rel=1e-7) for name, text in got.items()} == {
        name: float(value) for name, value in expected.items()
    }
    assert len(set(expected.values())) == len(expected)


# What is open is decided by the device.

PHASES = ({"l1", "a"}, {"l2", "b"}, {"l3", "c"})
CURRENT = (11.0, 7.0, 13.0)
VOLTAGE = (229.0, 231.0, 233.0)
FACTOR = 0.9


def phase_of(point_id: str) -> int | None:
    end = point_id.rsplit("-", 1)[-1]
    return next((at for at, names in enumerate(PHASES) if end in names), None)


SIMPLE = {"power-factor": FACTOR, "efficiency": 98.4, "frequency": 50.02}


def physical(point_id: str, unit: str) -> float:
    """Return what a healthy meter in a three-phase mill shows, in its own unit."""
    phase = phase_of(point_id)
    name = point_id if phase is None else point_id.rsplit("-", 1)[0]
    apparent = [u * i for u, i in zip(VOLTAGE, CURRENT, strict=True)]
    shares = {"power": FACTOR, "power-dc": FACTOR, "meter-power": FACTOR}
    shares |= {"apparent-power": 1.0, "reactive-power": 0.43}
    if name in SIMPLE:
        return SIMPLE[name]
    if name in shares:
        share = shares[name] * (0.001 if unit.startswith("k") else 1.0)
        return share * (sum(apparent) if phase is None else apparent[phase])
    if name.startswith("voltage"):
        return 400.0 if point_id[-3:] in {"l12", "l23", "l31"} else VOLTAGE[phase or 0]
    if name.startswith("current"):
        return CURRENT[phase or 0]
    return {"Wh": 1234500.0, "varh": 1234500.0, "kWh": 4321.5}.get(unit, 1234.5)


def ratio(point_id: str) -> int:
    """Return what current transformers of 200/5 make of a quantity."""
    unchanged = point_id.startswith(("voltage", "frequency", "power-factor"))
    return 1 if unchanged else 40


def device_like(profile: ModbusProfile, chosen: Mapping[str, str]) -> Memory:
    """Return the registers of a device that is what was chosen."""
    memory = Memory()
    secondary = chosen.get("side") == "secondary"
    points = {
        name: (table, physical(name, table.get("unit", "1")) * (ratio(name) if secondary else 1))
        for name, table in sampled(tables(profile, chosen)).items()
    }
    for name, table in tables(profile, chosen).items():
        if table["type"] == "string":
            memory.put_text(table["address"], f"T-{name}", table["length"])
    memory.put_all(points, order_of(profile))
    furnish(profile.id, chosen, memory)
    return memory


def furnish(name: str, chosen: Mapping[str, str], memory: Memory) -> None:
    """Put in what devices have beside their points."""
    if name == "chint-dtsu666":
        memory.put("holding:6", "int16", 1 if chosen["side"] == "direct" else 40)
        memory.put("holding:7", "int16", 10)
    if name == "chint-dtsu666-h":
        mbmd = chosen["layout"] == "mbmd"
        scale = 1 if chosen["power-unit"] == "watt" else 1000
        for at, phase in ((2144, 0), (2146, 1), (2148, 2)):
            value = FACTOR if mbmd else VOLTAGE[phase] * CURRENT[phase] / scale
            memory.put(f"holding:{at}", "float32", value)
    if name == "schneider-pm5000":
        memory.put("holding:2699", "float32", 1234.5)
    if name == "sunspec-inverter":
        sunspec(memory)


def sunspec(memory: Memory) -> None:
    memory.put("holding:40000", "uint32", 0x53756E53)
    memory.put("holding:40002", "uint16", 1)
    memory.put("holding:40003", "uint16", 66)
    memory.put(f"holding:{SUNSPEC_AT}", "uint16", 103)
    memory.put(f"holding:{SUNSPEC_AT + 1}", "uint16", 50)
    memory.put(f"holding:{SUNSPEC_AT + 52}", "uint16", 0xFFFF)
    memory.put(f"holding:{SUNSPEC_AT + 53}", "uint16", 0)
    factors = {15: 0, 19: 0, 21: 0, 26: 1, 32: 0} | dict.fromkeys((6, 13, 17, 23, 28, 30, 37), -1)
    for offset, factor in factors.items():
        memory.put(f"holding:{SUNSPEC_AT + offset}", "int16", factor)


def nobody(alternative: Alternative, _: Mapping[str, Evidence]) -> str:
    raise Undecided(alternative.id)


async def decided(
    profile: ModbusProfile, memory: Memory, given: Mapping[str, str] | None = None
) -> Decision:
    async with serving(memory) as server:
        config = Config.model_validate(
            {
                "id": "meter",
                "kind": "modbus",
                "host": "127.0.0.1",
                "port": server.port,
                **profile.settings,
                "points": [{"id": "x", "address": "holding:0", "type": "uint16"}],
            }
        )
        async with Survey(config, Bounds(per_second=10_000)) as survey:
            return await decide(profile, given or {}, survey, nobody)


UNSEEN = {("chint-dtsu666", "primary"), ("chint-dtsu666", "secondary")}
"""Choices that no register tells apart."""


@pytest.mark.parametrize(("profile", "chosen"), CASES)
async def test_a_device_is_known_by_what_it_shows_or_a_person_is_asked(
    profile: ModbusProfile, chosen: dict[str, str]
) -> None:
    memory = device_like(profile, chosen)
    open_ = {name: one for name, one in chosen.items() if (profile.id, one) in UNSEEN}
    if open_:
        with pytest.raises(Undecided):
            await decided(profile, memory)
    decision = await decided(profile, memory, open_)
    assert decision.choices == chosen
    assert {t["id"]: t for _, t in rendered(profile, decision.variables)} == tables(profile, chosen)
    assert {function for function, _, _ in memory.asked} <= {3, 4}


@pytest.mark.parametrize(
    "profile", [p for p in MODBUS.values() if p.alternative], ids=lambda p: p.id
)
async def test_a_device_that_shows_nothing_is_never_guessed(profile: ModbusProfile) -> None:
    chosen = next(all_choices(profile))
    memory = device_like(profile, chosen)
    for place in memory.words:
        memory.words[place] = 0
    with pytest.raises(Undecided):
        await decided(profile, memory)


async def test_scale_factors_that_the_device_does_not_have_leave_their_points_out() -> None:
    profile = MODBUS["sunspec-inverter"]
    memory = device_like(profile, {})
    memory.put(f"holding:{SUNSPEC_AT + 37}", "int16", -32768)
    decision = await decided(profile, memory)
    names = [t["id"] for _, t in rendered(profile, decision.variables, decision.absent)]
    assert "temperature" not in names
    assert "power" in names


@pytest.mark.parametrize("base", [0, 50000])
async def test_sunspec_models_are_found_wherever_the_mark_is(base: int) -> None:
    profile = MODBUS["sunspec-inverter"]
    there = Memory()
    there.words = {
        (table, at - 40000 + base): word
        for (table, at), word in device_like(profile, {}).words.items()
    }
    decision = await decided(profile, there)
    assert decision.variables["model"] == f"holding:{SUNSPEC_AT - 40000 + base}"


# Profiles as files.


def test_profiles_say_where_every_datum_is_from() -> None:
    assert len(PROFILES) >= 13
    for profile in PROFILES.values():
        for point in profile.point:
            assert profile.cites(point.source)
    assert {one.id for one in PROFILES.values() if isinstance(one, OpcuaProfile)} == {
        "opcua-machine-tool",
        "opcua-packml",
    }


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('source = ["code"], plausible', 'source = ["cod"], plausible', "no such source"),
        ('scale = "0.001"', 'scale = "{u}"', "not set"),
        ("millgate-sim-meter", "other", "not the name of the file"),
        ('kind = "modbus"', 'kind = "modbas"', "kind"),
        ('maker = "Millgate"', 'maker = "Millgate"\nmakr = 1', "did you mean 'maker'"),
    ],
)
def test_a_profile_with_a_fault_is_refused(tmp_path: Path, old: str, new: str, word: str) -> None:
    shipped_text = (Path("configs/profiles/millgate-sim-meter.toml")).read_text(encoding="utf-8")
    path = tmp_path / "millgate-sim-meter.toml"
    assert old in shipped_text
    path.write_text(shipped_text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=word):
        read_profile(path)


# By command.


async def add(path: Path, memory: Memory, *words: str) -> Any:
    async with serving(memory) as server:
        target = f"127.0.0.1:{server.port}"
        return await asyncio.to_thread(call, "add", path, target, "--id", "meter-1", *words)


async def test_a_meter_is_added_with_its_reasons_and_without_its_values(tmp_path: Path) -> None:
    path = make_mill(tmp_path)
    before = path.read_text(encoding="utf-8")
    profile = MODBUS["chint-dtsu666"]
    chosen = {"scale": "tenths", "energy": "h401e", "side": "direct"}
    done = await add(path, device_like(profile, chosen), "--profile", profile.id)
    assert done.exit_code == 0, done.output
    after = path.read_text(encoding="utf-8")
    assert after.startswith(before)
    (device,) = read_config(path).devices
    energy = next(point for point in device.points if point.id == "energy-import")
    assert (energy.address, energy.unit) == ("holding:16414", "kWh")
    assert "scale = tenths" in after
    assert "4321" not in after + done.output
    assert "2290" not in after + done.output


async def test_what_cannot_be_seen_is_refused_without_a_person_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    path = make_mill(tmp_path)
    before = path.read_bytes()
    profile = MODBUS["chint-dtsu666"]
    memory = device_like(profile, {"scale": "plain", "energy": "h101e", "side": "secondary"})
    done = await add(path, memory, "--profile", profile.id)
    assert "--choose side=primary | --choose side=secondary" in told(done).replace(
        "--choose side=direct | ", ""
    )
    assert path.read_bytes() == before
    done = await add(path, memory, "--profile", profile.id, "--choose", "side=secondary")
    assert done.exit_code == 0, done.output
    (device,) = read_config(path).devices
    power = next(point for point in device.points if point.id == "power")
    assert power.scale == 40


async def test_points_that_the_device_refuses_are_left_out_and_named(tmp_path: Path) -> None:
    path = make_mill(tmp_path)
    memory = device_like(MODBUS["sungrow-sg"], {})
    for at in (5082, 5083, 5098, 5099):
        del memory.words["input", at]
    done = await add(path, memory, "--profile", "sungrow-sg")
    assert done.exit_code == 0, done.output
    assert "meter-power, meter-energy-import" in done.output
    (device,) = read_config(path).devices
    assert "meter-power" not in [point.id for point in device.points]


async def test_texts_of_a_device_are_read_on_request_and_are_no_part_of_the_policy(
    tmp_path: Path,
) -> None:
    path = make_mill(tmp_path)
    async with serving(device_like(MODBUS["huawei-sun2000"], {})) as server:
        words = ("--id", "pv-1", "--profile", "huawei-sun2000", "--with", "interval=50ms")
        done = await asyncio.to_thread(call, "add", path, f"127.0.0.1:{server.port}", *words)
        assert done.exit_code == 0, done.output
        read = await asyncio.to_thread(call, "read", path, "--redirect-raw-values")
    assert read.exit_code == 0, read.output
    assert "T-model" in read.output
    assert "T-serial-number" in read.output
    assert call("new", path, room=policy_app).exit_code == 0
    policy = (path.parent / "policy.toml").read_text(encoding="utf-8")
    assert "serial-number" not in policy
    assert "energy-generated" in policy


async def test_another_device_than_the_profile_says_is_refused(tmp_path: Path) -> None:
    path = make_mill(tmp_path)
    done = await add(path, device_like(MODBUS["acrel-adw300"], {}), "--profile", "huawei-sun2000")
    assert "refuses every point of huawei-sun2000" in told(done)
    done = await add(path, device_like(MODBUS["acrel-adw300"], {}), "--profile", "sunspec-inverter")
    assert "no SunSpec mark" in told(done)

"""A county's brain to look at: several factories with a day of every kind of series."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from aggregator.api.knowledge import Arrival, Notice, Source
from aggregator.stores import SeriesBlock, SeriesKey
from aggregator.trust import Trust
from protocols.frame import SECOND, Floats, Ints
from tests.system.brain import (
    AGENT,
    FACTOR,
    FACTOR_VALUE,
    FACTORY,
    SHEET,
    START_NS,
    Brain,
    notice,
)

Fields = dict[str, Floats | Ints | list[str]]

HOUR_S = 3600
QUARTER_S = 900
_DAY_SLOTS = 96
_TARIFFS = {
    "valley": (*range(8), 12, 22, 23), "flat": (8, 11, 13, 18, 19, 20, 21), "peak": (9, 10, 16, 17), "sharp": (14, 15),
}  # fmt: skip
"""Hours of the factories' clock; the county's day begins at 16:00 of it."""

_FIRST_HOUR = 16
_STATES = ("run", "setup", "idle", "starved", "held", "fault", "planned_down", "off", "unknown")
_MARKET = 0.6096


@dataclass(frozen=True, slots=True)
class Firm:
    """One made-up factory.

    Attributes:
        name: as the brain calls it.
        load_kw: its mean load.
        machines: public labels of machines that tell their state.
        gas: whether it burns gas.
        calendar: whether its shifts are known, without which there is no OEE.
        facts: whether people entered value added and the like.
    """

    name: str
    load_kw: float
    machines: tuple[str, ...]
    gas: bool = False
    calendar: bool = True
    facts: bool = True


FIRMS = (
    Firm("嘉禾光伏", 940.0, ("laminator-1", "laminator-2", "stringer-1")),
    Firm("锦绣印染", 610.0, ("stenter-1", "stenter-2", "dyeing-7"), gas=True),
    Firm("运河精机", 185.0, ("cnc-1", "cnc-2", "cnc-3", "cnc-4"), facts=False),
    Firm("南湖注塑", 240.0, ("imm-01", "imm-02"), calendar=False),
    Firm("洪合汽配", 330.0, ("press-3", "press-4"), gas=True),
)
SITE = "main"


def fill(brain: Brain, firms: tuple[Firm, ...] = FIRMS) -> None:
    """Write a day of every firm's series into the stores, and tell of its agents."""
    for at, firm in enumerate(firms):
        for block in _blocks(firm, np.random.default_rng(at)):
            bucket = (
                "carbon_emission" if block.key.measurement.startswith("ce_") else "future_factory"
            )
            brain.stores[bucket].write([block])
    brain.now_ns = START_NS + (_DAY_SLOTS * QUARTER_S + 40) * SECOND
    brain.told.agents = [_arrival(at, firm, brain.now_ns) for at, firm in enumerate(firms)]
    brain.told.batches = [_source(at) for at in range(6)]
    brain.told.notices = [
        _notice(at, firms[at % len(firms)].name, words) for at, words in enumerate(_WARNINGS)
    ]


_WARNINGS = (
    ("silence", "fault", "nothing has come since 2026-01-06 05:56:40Z", "自 2026-01-06 05:56:40Z 起没有任何消息"),
    ("policy_ends", "warning", "its newest policy ends at 2026-01-15 08:00:40Z; nothing leaves the factory after that",
     "其最新策略将于 2026-01-15 08:00:40Z 到期；到期后不再放行数据"),
    ("refusal", "fault", "refused among messages 88-89 of stream 1, epoch 1: the agent keeps them apart",
     "流 1，纪元 1 的消息 88-89 中有被拒收者：代理程序已另行保存"),
)  # fmt: skip


def _notice(at: int, firm: str, words: tuple[str, str, str, str]) -> Notice:
    kind, severity, en, zh = words
    since = START_NS + (70_000 + 4_000 * at) * SECOND
    return replace(
        notice(at),
        name=firm,
        kind=kind,
        severity=severity,
        since_ns=since,
        text={"en": en, "zh": zh},
    )


def _arrival(at: int, firm: Firm, now_ns: int) -> Arrival:
    silent = at == 3
    return Arrival(
        factory=FACTORY[at:] + FACTORY[:at],
        agent=AGENT[at:] + AGENT[:at],
        name=firm.name,
        trust=Trust.GOOD,
        online=None if at == 4 else at != 2,
        last_received_ns=now_ns - (7400 if silent else 20 + 9 * at) * SECOND,
        last_slot_end_ns=now_ns - (8100 if silent else 40) * SECOND,
        batches=1_900 + 31 * at,
        values=412_000 + 977 * at,
        refused=2 if at == 4 else 0,
        sheets=(replace(SHEET, valid_until_ns=now_ns + (9 if at == 1 else 300) * 86400 * SECOND),),
    )


def _source(at: int) -> Source:
    start = START_NS + (at * 16) * QUARTER_S * SECOND
    return Source(
        FACTORY, AGENT, 1, 0, 120 + at, f"{at:02x}" * 32, 4_000 + at,
        start, start + 16 * QUARTER_S * SECOND, start + 16 * QUARTER_S * SECOND + 12 * SECOND,
        SHEET.hash, SHEET.policy_version, (1,), False,
    )  # fmt: skip


def _blocks(firm: Firm, chance: np.random.Generator) -> Iterator[SeriesBlock]:
    slot = np.arange(_DAY_SLOTS, dtype=np.int64)
    shape = 0.55 + 0.45 * np.sin((slot - 8) / 96 * 2 * np.pi) ** 2
    energy = np.round(firm.load_kw / 4 * shape * chance.uniform(0.9, 1.1, len(slot)), 2)
    if firm.name == "运河精机":
        energy[40:46] = np.nan
    there = ~np.isnan(energy)
    yield from _electricity(firm, slot[there], energy[there])
    if firm.gas:
        yield from _gas(firm, slot, chance)
    for number, machine in enumerate(firm.machines):
        seconds = _states(slot, number, chance)
        model = {"state_model": "operating"}
        yield _rows("ff_equipment_state", firm, slot, QUARTER_S, seconds, machine, model)
        yield from _machine_hours(firm, machine, seconds, chance)
    yield from _site_hours(firm, energy)
    if firm.facts:
        yield from _facts(firm)


def _rows(
    measurement: str,
    firm: Firm,
    index: Ints,
    window_s: int,
    fields: Mapping[str, Floats | Ints | list[str]],
    equipment: str = "",
    tags: Mapping[str, str] | None = None,
) -> SeriesBlock:
    all_tags = {"enterprise_id": firm.name, "site_id": SITE, **(tags or {})}
    if equipment:
        all_tags["equipment_id"] = equipment
    time = START_NS + index * window_s * SECOND
    window = np.full(len(index), window_s, np.int64)
    return SeriesBlock(SeriesKey.of(measurement, all_tags), time, {**fields, "window_s": window})


def _factor(co2: Floats, value: float, unit: str) -> dict[str, Floats | list[str]]:
    count = len(co2)
    return {
        "co2e_kg": co2 * value,
        "factor_value": np.full(count, value),
        "factor_unit": [unit] * count,
        "factor_grade": ["S2"] * count,
    }


def _electricity(firm: Firm, slot: Ints, energy: Floats) -> Iterator[SeriesBlock]:
    main, medium = "meter-main", {"medium": "Electricity"}
    hour = (_FIRST_HOUR + slot // 4) % 24
    for tariff, hours in _TARIFFS.items():
        here = np.isin(hour, list(hours))
        yield _rows("ff_energy", firm, slot[here], QUARTER_S, {
            "energy": energy[here], "energy_tce": energy[here] * 0.0001229,
            "span_s": np.full(int(here.sum()), QUARTER_S, np.int64), "method": ["counter"] * int(here.sum()),
            "quality": ["GOOD"] * int(here.sum()),
        }, main, {**medium, "meter_role": "main", "tariff": tariff})  # fmt: skip
    sub: Fields = {"energy": np.round(energy * 0.6, 2), "quality": ["GOOD"] * len(slot)}
    yield _rows("ff_energy", firm, slot, QUARTER_S, sub, "meter-hall-1", {**medium, "meter_role": "sub"})  # fmt: skip
    scope = {**medium, "scope": "2", "gas": "CO2"}
    unit = "kgCO2/kWh"
    yield _rows("ce_emission", firm, slot, QUARTER_S, _factor(energy, FACTOR_VALUE, unit), main,
                {**scope, "method": "location", "factor_id": FACTOR})  # fmt: skip
    yield _rows("ce_emission", firm, slot, QUARTER_S, _factor(energy, _MARKET, unit), main,
                {**scope, "method": "market", "factor_id": "cn-residual-2023/CN"})  # fmt: skip
    yield _rows("ce_superseded", firm, slot, QUARTER_S, _factor(energy, 0.5422, unit), main,
                {**scope, "method": "location", "factor_id": "cn-electricity-2021/CN-ZJ", "revision": "1"})  # fmt: skip


def _gas(firm: Firm, slot: Ints, chance: np.random.Generator) -> Iterator[SeriesBlock]:
    volume = np.round(firm.load_kw / 90 * chance.uniform(0.8, 1.2, len(slot)), 2)
    medium = {"medium": "NaturalGas"}
    yield _rows("ff_energy", firm, slot, QUARTER_S, {
        "energy": volume, "energy_tce": volume * 0.00133, "method": ["counter"] * len(slot),
    }, "gas-1", {**medium, "meter_role": "main", "measurand": "gas.volume_normal"})  # fmt: skip
    direct = {**medium, "scope": "1", "gas": "CO2", "method": "direct"}
    factor = _factor(volume, 2.1622, "kgCO2/m3")
    direct["factor_id"] = "cn-fuel-a/NaturalGas"
    yield _rows("ce_emission", firm, slot, QUARTER_S, factor, "gas-1", direct)


def _states(slot: Ints, number: int, chance: np.random.Generator) -> dict[str, Floats | Ints]:
    codes = np.full(len(slot), 1, np.int64)
    for start, length, code in ((2 + 7 * number, 3, 2), (20 + 5 * number, 4, 3), (34, 5, 7),
                                (52 + 6 * number, 2 + number, 6), (75 - 4 * number, 3, 4), (88, 8, 8)):  # fmt: skip
        codes[start : start + length] = code
    if number == 2:
        codes[60:66] = 0
    share = chance.uniform(0.75, 1.0, len(slot))
    order = (0, *range(1, 9))
    seconds: dict[str, Floats | Ints] = {f"{name}_s": np.zeros(len(slot)) for name in _STATES}
    names = ("unknown", "run", "setup", "idle", "starved", "held", "fault", "planned_down", "off")
    for code in order:
        here = codes == code
        column = np.asarray(seconds[f"{names[code]}_s"], np.float64)
        column[here] = QUARTER_S * (share[here] if code == 1 else 1.0)
        seconds[f"{names[code]}_s"] = column
    idle = np.asarray(seconds["idle_s"], np.float64)
    idle[codes == 1] = QUARTER_S * (1 - share[codes == 1])
    return {**seconds, "idle_s": idle, "state_code": codes, "coverage": (codes != 0).astype(float)}


def _machine_hours(
    firm: Firm, machine: str, seconds: Mapping[str, Floats | Ints], chance: np.random.Generator
) -> Iterator[SeriesBlock]:
    hours = np.arange(24, dtype=np.int64)

    def summed(*names: str) -> Floats:
        total = np.sum([np.asarray(seconds[f"{name}_s"]) for name in names], axis=0)
        return np.asarray(total.reshape(24, 4).sum(axis=1), np.float64)

    apt, pbt = summed("run"), summed("run", "setup", "idle", "starved", "held", "fault")
    busy = pbt > 0
    good = np.round(apt / 30 * chance.uniform(0.9, 1.0, 24))
    total = good + np.round(good * chance.uniform(0.0, 0.06, 24))
    yield _rows("ff_production", firm, hours, HOUR_S,
                {"qty_total": total, "qty_good": good, "coverage": np.ones(24)}, machine, {"unit": "pcs"})  # fmt: skip
    with np.errstate(divide="ignore", invalid="ignore"):
        fields: Fields = {
            "apt_s": apt, "aupt_s": apt, "qty_total": total, "qty_good": good,
            "quality_ratio": good / total, "coverage": np.where(busy, 0.97, 0.0),
        }  # fmt: skip
        if firm.calendar:
            fields |= {
                "pbt_s": pbt, "availability": apt / pbt, "performance": total * 27 / apt,
                "oee": good * 27 / pbt, "net_s": total * 27.0, "valuable_s": good * 27.0,
            }  # fmt: skip
    shown = {name: np.asarray(column)[busy] for name, column in fields.items()}
    yield _rows("ff_oee", firm, hours[busy], HOUR_S, shown, machine,
                {"calendar_ver": "2026-a" if firm.calendar else ""})  # fmt: skip


def _site_hours(firm: Firm, energy: Floats) -> Iterator[SeriesBlock]:
    hours = np.arange(24, dtype=np.int64)
    main = energy.reshape(24, 4).sum(axis=1)
    whole = ~np.isnan(main)
    used = main[whole] * (0.78 if firm.name == "洪合汽配" else 0.93)
    yield _rows("ce_balance", firm, hours[whole], HOUR_S, {
        "main": main[whole], "sub_sum": used, "unallocated": main[whole] - used,
        "residual_ratio": (main[whole] - used) / main[whole],
    }, tags={"medium": "Electricity"})  # fmt: skip
    odd = firm.name == "洪合汽配"
    yield _rows("ff_check", firm, hours[whole], HOUR_S, {
        "status": ["ANOMALY" if odd else "OK"] * int(whole.sum()),
        "value": (main[whole] - used) / main[whole],
        "reason": ["main meter - sub-meters is out of bounds" if odd else ""] * int(whole.sum()),
    }, tags={"check": "balance:energy.active_import"})  # fmt: skip
    yield _rows("ce_quality", firm, hours, HOUR_S, {
        "coverage": np.where(whole, 1.0, 0.5), "estimated_share": np.full(24, 0.01),
        "verified": np.ones(24, np.int64),
    })  # fmt: skip
    count = len(firm.machines) + 1
    yield _rows("ff_connectivity", firm, hours, HOUR_S, {
        "devices_total": np.full(24, count, np.int64), "devices_online": np.full(24, count, np.int64),
        "digital_rate": np.full(24, 0.8 if firm.facts else np.nan),
    })  # fmt: skip


_FACTS = {
    "value_added": (18_400.0, "万元"),
    "profit": (2_310.0, "万元"),
    "tax": (905.5, "万元"),
    "rd_spending": (640.0, "万元"),
    "revenue": (61_200.0, "万元"),
    "land_area": (86.4, "亩"),
    "headcount": (412.0, "1"),
    "green_power_share": (0.22, "1"),
}


def _facts(firm: Firm) -> Iterator[SeriesBlock]:
    first = np.zeros(1, np.int64)
    for name, (value, unit) in _FACTS.items():
        fields: Fields = {
            "value": np.array([value]), "unit": [unit], "until": ["2027-01-01"],
            "source": ["企业年报 2025"], "entered": ["2026-01-04"],
        }  # fmt: skip
        yield _rows("ff_fact", firm, first, 365 * 86400, fields, tags={"fact": name})
    code: Fields = {
        "kgco2e_per_unit": np.array([512.0]), "co2e_kg": np.array([9.4e6]), "quantity": np.array([18_400.0]),
        "coverage": np.array([0.97]), "L": np.array([0.512]), "K": np.array([0.74]),
        "grade": np.array([2], np.int64), "level": ["低碳"], "code_profile": ["zj-2021-method"],
    }  # fmt: skip
    tags = {"denominator": "万元", "period": "2025-01-01/2026-01-01"}
    yield _rows("ce_intensity", firm, first, 365 * 86400, code, tags=tags)
    area: Fields = {
        "kgco2e_per_unit": np.array([13_100.0]),
        "co2e_kg": np.array([1.13e6]),
        "quantity": np.array([86.4]),
    }
    tags = {"denominator": "亩", "period": "2026-01-01/2027-01-01"}
    yield _rows("ce_intensity", firm, first, 365 * 86400, area, tags=tags)

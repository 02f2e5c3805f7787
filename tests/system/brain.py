"""A brain to look at: embedded stores with a factory's series, and what is known of its agents."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from aggregator.api.knowledge import Arrival, Notice, ReleasedPoint, Sheet, Source
from aggregator.api.server import make_app, serving
from aggregator.api.terms import Terms
from aggregator.fact_book import FactBook
from aggregator.feed import Feed, Followed
from aggregator.localtime import LocalTime
from aggregator.stores import SeriesBlock, SeriesKey, Store
from aggregator.stores.embedded import Config
from aggregator.stores.embedded import Store as Embedded
from aggregator.trust import Trust
from protocols.frame import SECOND, Floats, Ints

TOKEN = "q3vXz0y8Jm1Tt5Rk7Wb2"  # noqa: S105 - opens nothing but the tests' own server
FACTORY = "7c1e5a0b9d2f4e687c1e5a0b9d2f4e68"
AGENT = "1f0a77c3e5b24d901f0a77c3e5b24d90"
NAME = "秀洲一号厂"
START_NS = 1_767_600_000 * SECOND  # 2026-01-05T08:00:00Z
WINDOW_S = 5
SHANGHAI = Terms(LocalTime("Asia/Shanghai"))
FACTOR = "cn-electricity-2022/CN-ZJ"
FACTOR_VALUE = 0.5153
ENERGY = SeriesKey.of(
    "ff_energy",
    {
        "enterprise_id": NAME,
        "site_id": "jx",
        "equipment_id": "meter-1",
        "medium": "Electricity",
        "meter_role": "main",
    },
)
STATE = SeriesKey.of(
    "ff_equipment_state",
    {
        "enterprise_id": NAME,
        "site_id": "jx",
        "equipment_id": "press-3",
        "state_model": "operating",
    },
)
_STATES = ("unknown", "run", "setup", "idle", "starved", "held", "fault", "planned_down", "off")


def point(number: int, equipment: str, measurand: str, unit: str, aggregate: str) -> ReleasedPoint:
    return ReleasedPoint(
        number=number,
        equipment=equipment,
        measurand=measurand,
        unit=unit,
        aggregate=aggregate,
        window_s=WINDOW_S,
        resolution="0.01" if unit.startswith("kW") else "1",
        retention_days=1095,
    )


SHEET = Sheet(
    hash="9f2c4d1ab07e63588f1d5e0c9ab3427d6e10f5b8c7a4923d1e0f6b5a4c3d2e1f",
    policy_version=3,
    purpose="energy-statistics",
    right="DR-2026-0017",
    valid_until_ns=START_NS + 360 * 86400 * SECOND,
    received_ns=START_NS - 3600 * SECOND,
    points=(
        point(1, "meter-1", "energy.active_import", "kWh", "delta"),
        point(2, "meter-1", "power.active", "kW", "last"),
        point(7, "press-3", "machine.state:end", "1", "state"),
        point(3, "press-3", "machine.state:run", "s", "state"),
        point(4, "press-3", "machine.state:idle", "s", "state"),
        point(5, "press-3", "machine.state:fault", "s", "state"),
        point(6, "press-3", "production.good", "pcs", "delta"),
    ),
)


def arrival(now_ns: int, slots: int) -> Arrival:
    return Arrival(
        factory=FACTORY,
        agent=AGENT,
        name=NAME,
        trust=Trust.GOOD,
        online=True,
        last_received_ns=now_ns - 2 * SECOND,
        last_slot_end_ns=now_ns - 4 * SECOND,
        batches=slots * 2,
        values=slots * 8,
        refused=0,
        sheets=(SHEET, replace(SHEET, policy_version=2, hash="0a" * 32)),
    )


def notice(number: int, *, ended: bool = False, of_brain: bool = False) -> Notice:
    return Notice(
        id=number,
        factory=None if of_brain else FACTORY,
        agent=None if of_brain else AGENT,
        name="" if of_brain else NAME,
        kind="certificate_ends" if of_brain else "gap",
        severity="warning" if of_brain else "fault",
        since_ns=START_NS + number * SECOND,
        until_ns=START_NS + 3600 * SECOND if ended else None,
        epoch=1,
        stream=2,
        first=3,
        last=4,
        text={"en": "the agent declared messages lost", "zh": "代理程序声明消息已丢失"},
    )


@dataclass
class Told:
    """What the ledger would know; tests change it."""

    agents: list[Arrival] = field(default_factory=list)
    batches: list[Source] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def sources(self, key: SeriesKey, start_ns: int, end_ns: int) -> list[Source]:
        del key
        return [one for one in self.batches if one.end_ns > start_ns and one.start_ns < end_ns]

    def arrivals(self) -> list[Arrival]:
        return self.agents

    def alarms(self, from_ns: int | None) -> list[Notice]:
        return [
            one
            for one in self.notices
            if one.until_ns is None or (from_ns is not None and one.until_ns >= from_ns)
        ]


@dataclass
class Brain:
    """A running brain: write into `stores`, change `told` and `now_ns`."""

    stores: Mapping[str, Store]
    told: Told
    now_ns: int = START_NS
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def receive(self, slots: int, *, missing: frozenset[int] = frozenset()) -> None:
        """Keep slots 0 to `slots` - 1 but the missing ones, and move the clock behind them."""
        index = np.array([at for at in range(slots) if at not in missing], np.int64)
        blocks = series(index)
        for bucket, store in self.stores.items():
            store.write([block for block in blocks if _bucket(block) == bucket])
        self.now_ns = START_NS + slots * WINDOW_S * SECOND + 4 * SECOND
        self.told.agents = [arrival(self.now_ns, slots)]


def _bucket(block: SeriesBlock) -> str:
    return "carbon_emission" if block.key.measurement.startswith("ce_") else "future_factory"


def energy_of(index: Ints) -> Floats:
    """Return each slot's energy in kWh, on a grid of 0.01."""
    wave = 0.9 + 0.5 * np.sin(index / 7) + 0.25 * np.sin(index / 2.3)
    return np.asarray(np.round(wave, 2), np.float64)


def states_of(index: Ints) -> Ints:
    """Return each slot's state at its end: mostly running, some idle, a fault, a setup."""
    phase = index % 48
    codes = np.where(phase < 30, 1, np.where(phase < 38, 3, np.where(phase < 42, 6, 2)))
    return codes.astype(np.int64)


def series(index: Ints) -> list[SeriesBlock]:
    """Return what the projection would write for these slots."""
    time = START_NS + index * WINDOW_S * SECOND
    here = {"enterprise_id": NAME, "site_id": "jx"}
    meter, press = here | {"equipment_id": "meter-1"}, here | {"equipment_id": "press-3"}
    energy, codes = energy_of(index), states_of(index)
    window = np.full(len(index), WINDOW_S, np.int64)
    common = {"window_s": window, "span_s": window}
    good = ["GOOD"] * len(index)
    seconds = {f"{name}_s": np.zeros(len(index)) for name in _STATES}
    for code, name in enumerate(_STATES):
        seconds[f"{name}_s"][codes == code] = WINDOW_S
    turning = np.flatnonzero(np.diff(codes))
    for at in turning.tolist():
        seconds[f"{_STATES[codes[at]]}_s"][at] = 3.0
        seconds[f"{_STATES[codes[at + 1]]}_s"][at] = 2.0
    medium = {"medium": "Electricity", "scope": "2"}
    emission = {"method": "location", "gas": "CO2", "factor_id": FACTOR}
    return [
        SeriesBlock(ENERGY, time, {"energy": energy, "quality": good, **common}),
        SeriesBlock(
            SeriesKey.of("ff_reading", meter | {"measurand": "energy.active_import"}),
            time,
            {"value": energy, "quality": good, **common},
        ),
        SeriesBlock(
            SeriesKey.of("ff_reading", meter | {"measurand": "power.active"}),
            time,
            {"value": np.round(energy * 720, 1), "quality": good, **common},
        ),
        SeriesBlock(STATE, time, {"state_code": codes, "window_s": window, **seconds}),
        SeriesBlock(
            SeriesKey.of("ff_reading", press | {"measurand": "production.good"}),
            time,
            {"value": np.where(codes == 1, 3.0, 0.0), "quality": good, **common},
        ),
        SeriesBlock(
            SeriesKey.of("ce_activity", meter | medium | {"source_id": "meter-1"}),
            time,
            {"activity": energy, "unit": ["kWh"] * len(index), **common},
        ),
        SeriesBlock(
            SeriesKey.of("ce_emission", meter | medium | emission),
            time,
            {
                "co2e_kg": energy * FACTOR_VALUE,
                "factor_value": np.full(len(index), FACTOR_VALUE),
                "factor_unit": ["kgCO2/kWh"] * len(index),
                "factor_grade": ["S2"] * len(index),
                "window_s": window,
            },
        ),
    ]


@asynccontextmanager
async def running(
    folder: Path,
    port: int = 0,
    *,
    terms: Terms | None = None,
    tokens: Path | None = None,
    book: FactBook | None = None,
) -> AsyncIterator[Brain]:
    """Serve a brain that has received nothing yet; its readers are instances of their own."""
    config = Config(path=folder)
    buckets = ("future_factory", "carbon_emission")
    writers = {bucket: Embedded(config, bucket) for bucket in buckets}
    readers = {bucket: Embedded(config, bucket) for bucket in buckets}
    feed = Feed(folder / "feed.db", lambda: START_NS)
    followed = {bucket: Followed(store, bucket, feed) for bucket, store in writers.items()}
    brain = Brain(followed, Told())
    try:
        app = make_app(
            readers,
            brain.told,
            TOKEN,
            lambda: brain.now_ns,
            tokens=tokens,
            terms=terms,
            book=book,
            feed=feed,
        )
        async with serving(app, "127.0.0.1", port) as brain.port:
            yield brain
    finally:
        for store in (*writers.values(), *readers.values()):
            store.close()
        feed.close()

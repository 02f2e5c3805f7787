"""OEE, carbon and rankings over real HTTP, of real stores."""

import json
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from math import fsum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np
import pytest
from typer.testing import CliRunner

from aggregator import peak_cli
from aggregator.api.scopes import new_token
from aggregator.api.terms import Terms
from aggregator.cli import app
from aggregator.localtime import LocalTime
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey
from protocols.errors import MillgateError
from protocols.frame import SECOND, Floats, Ints
from tests.system.brain import TOKEN, Brain, running

HOUR_NS = 3600 * SECOND
LOCAL = LocalTime("Asia/Shanghai")
JANUARY = LOCAL.start_of(2026, 1, 1)
FEBRUARY = LOCAL.start_of(2026, 2, 1)
DAYS = 31
OEE = ("availability", "performance", "quality_ratio", "oee", "nee")


def planned(enterprise: str, site: str, hours: Ints) -> Floats | None:
    """Every hour of every site, but for one that has no calendar."""
    del site
    return None if enterprise == "none" else np.full(len(hours), 3600.0)


class Platform:
    """A brain with several firms, and whoever asks it."""

    def __init__(
        self, brain: Brain, session: aiohttp.ClientSession, tokens: Mapping[str, str]
    ) -> None:
        self.brain = brain
        self.tokens = tokens
        self._session = session

    async def get(self, path: str, token: str = TOKEN) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.get(f"{self.brain.url}/api/v1{path}", headers=headers) as answer:
            return answer.status, json.loads(await answer.text())

    async def ok(self, path: str, token: str = TOKEN) -> Any:
        status, document = await self.get(path, token)
        assert status == HTTPStatus.OK, document
        return document

    def write(
        self, measurement: str, tags: Mapping[str, str], time: Ints, **columns: FieldColumn
    ) -> None:
        bucket = "carbon_emission" if measurement.startswith("ce_") else "future_factory"
        key = SeriesKey.of(measurement, {"site_id": "main", **tags})
        self.brain.stores[bucket].write([SeriesBlock(key, time, columns)])

    def oee(self, firm: str, equipment: str, hours: Ints, **columns: Floats) -> None:
        tags = {"enterprise_id": firm, "equipment_id": equipment, "calendar_ver": "a"}
        fields: dict[str, FieldColumn] = {"coverage": np.ones(len(hours)), **columns}
        self.write("ff_oee", tags, JANUARY + hours * HOUR_NS, **fields)

    def carbon(self, firm: str, kg: Floats, coverage: float = 1.0) -> None:
        time = JANUARY + np.arange(len(kg)) * HOUR_NS
        self.emission(firm, time, kg)
        self.write(
            "ce_quality",
            {"enterprise_id": firm},
            time,
            coverage=np.full(len(kg), coverage),
            estimated_share=np.zeros(len(kg)),
        )

    def emission(self, firm: str, time: Ints, kg: Floats, **tags: str) -> None:
        standing = {
            "scope": "2",
            "method": "location",
            "medium": "Electricity",
            "gas": "CO2",
            "equipment_id": "meter-1",
            "factor_id": "cn-electricity-2022/CN-ZJ",
        }
        measurement = "ce_superseded" if "revision" in tags else "ce_emission"
        self.write(
            measurement,
            {"enterprise_id": firm, **standing, **tags},
            time,
            co2e_kg=kg,
            factor_value=np.full(len(kg), 0.5153),
            factor_unit=["kgCO2/kWh"] * len(kg),
            factor_grade=["S"] * len(kg),
        )


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    tokens = tmp_path / "tokens.toml"
    # Tokens are read at the start, so that no test waits until the file is looked at again.
    terms = Terms(LOCAL, planned=planned)
    made = {name: new_token(tokens, f"of-{name}", [name], [], 30) for name in ("firm-0", "firm-1")}
    made["energy"] = new_token(tokens, "energy", [], ["ff_energy"], 30)
    async with (
        running(tmp_path / "store", terms=terms, tokens=tokens) as brain,
        aiohttp.ClientSession() as session,
    ):
        brain.now_ns = FEBRUARY + HOUR_NS
        yield Platform(brain, session, made)


SPAN = "start=2025-12-31T16:00:00Z&end=2026-01-31T16:00:00Z"
"""January in Shanghai."""


async def test_oee_of_a_span_is_of_sums_and_the_product_of_its_factors(platform: Platform) -> None:
    chance = np.random.default_rng(7)
    hours = np.arange(200)
    apt = chance.uniform(0, 3000, 200)
    pq = np.floor(apt / 25)
    gq = np.floor(pq * chance.uniform(0.8, 1, 200))
    platform.oee(
        "firm-0",
        "press-1",
        hours,
        apt_s=apt,
        aupt_s=apt + 100,
        pbt_s=np.full(200, 3400.0),
        qty_total=pq,
        qty_good=gq,
        net_s=20 * pq,
        valuable_s=20 * gq,
        oee=20 * gq / 3400,
    )
    (one,) = (await platform.ok(f"/oee?{SPAN}"))["items"]
    assert (one["enterprise"], one["site"], one["equipment"]) == ("firm-0", "main", "press-1")
    assert (one["hours"], one["used"], one["calendars"]) == (200, 200, ["a"])
    assert one["availability"] == pytest.approx(apt.sum() / (200 * 3400))
    assert one["performance"] == pytest.approx(20 * pq.sum() / apt.sum())
    assert one["quality_ratio"] == pytest.approx(gq.sum() / pq.sum())
    product = one["availability"] * one["performance"] * one["quality_ratio"]
    assert one["oee"] == pytest.approx(product)
    assert one["oee"] == pytest.approx(gq.sum() * 20 / one["pbt_s"])
    assert one["oee"] <= one["nee"]
    # Hours of which nothing came were planned all the same.
    assert one["coverage"] == pytest.approx(200 / (DAYS * 24))


async def test_what_oee_lacks_is_absent_and_hours_without_it_are_not_mixed_in(
    platform: Platform,
) -> None:
    hours = np.arange(4)
    unknown = np.full(4, np.nan)
    times = {"apt_s": np.full(4, 1800.0), "aupt_s": np.full(4, 1800.0)}
    pieces = {"qty_total": np.full(4, 60.0), "qty_good": np.full(4, 54.0)}
    platform.oee("none", "press-1", hours, pbt_s=unknown, **times, **pieces)
    part = np.array([1200.0, np.nan, 600.0, np.nan])
    platform.oee(
        "firm-0",
        "press-1",
        hours,
        pbt_s=np.full(4, 3600.0),
        net_s=part,
        valuable_s=part / 2,
        **times,
        **pieces,
    )
    found = {one["enterprise"]: one for one in (await platform.ok(f"/oee?{SPAN}"))["items"]}
    none, some = found["none"], found["firm-0"]
    assert [none[name] for name in OEE] == [None, None, 0.9, None, None]
    assert (some["hours"], some["used"], some["pbt_s"]) == (4, 2, 7200.0)
    assert [some[name] for name in OEE] == pytest.approx([0.5, 0.5, 0.5, 0.125, 0.125])


async def test_oee_of_a_firm_is_of_all_its_equipment(platform: Platform) -> None:
    for equipment, apt in (("press-1", 3600.0), ("press-2", 0.0)):
        whole = np.full(2, 3600.0)
        made = np.full(2, apt / 60)
        platform.oee(
            "firm-0",
            equipment,
            np.arange(2),
            apt_s=np.full(2, apt),
            aupt_s=np.full(2, apt),
            pbt_s=whole,
            qty_total=made,
            qty_good=made,
            net_s=made * 60,
            valuable_s=made * 60,
        )
    (firm,) = (await platform.ok(f"/oee?{SPAN}&by=enterprise&enterprise=firm-0"))["items"]
    assert (firm["oee"], firm["hours"]) == (0.5, 4)
    assert (await platform.ok(f"/oee?{SPAN}&enterprise=elsewhere"))["items"] == []
    first = await platform.ok(f"/oee?{SPAN}&limit=1")
    second = await platform.ok(f"/oee?{SPAN}&limit=1&cursor={first['next']}")
    shown = {page["items"][0]["equipment"] for page in (first, second)}
    assert (shown, second["next"]) == ({"press-1", "press-2"}, None)


async def test_carbon_is_added_up_by_factor_and_superseded_results_never_are(
    platform: Platform,
) -> None:
    quarters = JANUARY + np.arange(DAYS * 96) * (HOUR_NS // 4)
    kg = np.round(np.random.default_rng(3).uniform(0, 90, len(quarters)), 3)
    platform.emission("firm-0", quarters, kg)
    platform.emission("firm-0", quarters, kg, equipment_id="meter-2")
    platform.emission("firm-0", quarters, kg, revision="1", factor_id="cn-electricity-2021/CN-ZJ")
    heat = {"medium": "HotWater", "factor_id": "cn-heat-2025/HotWater"}
    platform.emission("firm-0", quarters[:4], kg[:4], **heat)
    gas = {
        "scope": "1",
        "method": "direct",
        "medium": "NaturalGas",
        "factor_id": "cn-fuel-a/NaturalGas",
    }
    platform.emission("firm-0", quarters[:2], kg[:2], **gas)
    platform.emission("firm-0", quarters[:2], kg[:2], scope="", method="export")
    document = await platform.ok(f"/carbon/summary?{SPAN}")
    (site,) = document["sites"]
    power = next(
        one
        for one in site["lines"]
        if (one["medium"], one["method"]) == ("Electricity", "location")
    )
    assert power["co2e_kg"] == [pytest.approx(2 * fsum(kg), rel=1e-14)]
    assert (power["factor_set"], power["factor_value"], power["factor_grade"]) == (
        "cn-electricity-2022",
        0.5153,
        "S",
    )
    assert document["factor_sets"]["cn-electricity-2022"]["data_year"] == 2022
    assert "cn-electricity-2021" not in document["factor_sets"]
    totals = {name: column and column[0] for name, column in site["totals"].items()}
    assert totals["scope1_kg"] == pytest.approx(fsum(kg[:2]))
    assert totals["scope2_location_kg"] == pytest.approx(2 * fsum(kg) + fsum(kg[:4]))
    assert totals["location_kg"] == pytest.approx(
        totals["scope1_kg"] + totals["scope2_location_kg"]
    )
    assert totals["export_kg"] == pytest.approx(fsum(kg[:2]))
    assert (totals["market_kg"], site["coverage"]) == (None, None)
    by_day = await platform.ok(f"/carbon/summary?{SPAN}&each=day")
    days = by_day["sites"][0]["totals"]["location_kg"]
    assert len(days) == len(by_day["periods"]) == DAYS
    assert fsum(days) == pytest.approx(totals["location_kg"])
    assert days[1] == pytest.approx(2 * fsum(kg[96:192]))
    assert by_day["periods"][1]["start"] == "2026-01-01T16:00:00Z"


async def test_market_based_carbon_is_told_only_where_contracts_cover_the_whole_period(
    platform: Platform,
) -> None:
    days = JANUARY + np.arange(10) * 24 * HOUR_NS
    platform.emission("firm-0", days, np.full(10, 100.0))
    platform.emission("firm-0", days[:9], np.full(9, 40.0), method="market")
    heat = {"medium": "HotWater", "factor_id": "cn-heat-2025/HotWater"}
    platform.emission("firm-0", days, np.full(10, 7.0), **heat)
    (site,) = (await platform.ok(f"/carbon/summary?{SPAN}"))["sites"]
    assert site["totals"]["market_kg"] is None
    platform.emission("firm-0", days, np.full(10, 40.0), method="market")
    (site,) = (await platform.ok(f"/carbon/summary?{SPAN}"))["sites"]
    # Nobody sells heat under such contracts here, so its carbon is the same in both views.
    assert site["totals"]["market_kg"] == [470.0]
    assert site["totals"]["location_kg"] == [1070.0]


async def test_firms_are_ranked_and_who_sees_one_sees_only_its_own_place(
    platform: Platform,
) -> None:
    hours = DAYS * 24
    for at in range(5):
        platform.carbon(f"firm-{at}", np.full(hours, 10.0 + at))
    platform.carbon("thin", np.full(100, 1.0))
    everything = await platform.ok("/rankings?kind=co2e&period=2026-01")
    assert [(one["enterprise"], one["rank"]) for one in everything["firms"]] == [
        *((f"firm-{at}", at + 1) for at in range(5)),
        ("thin", None),
    ]
    assert everything["firms"][-1]["excluded"] == "coverage"
    assert everything["firms"][-1]["coverage"] == pytest.approx(100 / hours)
    assert everything["mean"] == pytest.approx(12 * hours)
    assert (everything["finished"], everything["protected"]) == (True, None)
    own = await platform.ok("/rankings?kind=co2e&period=2026-01", platform.tokens["firm-1"])
    assert [(one["enterprise"], one["rank"]) for one in own["firms"]] == [("firm-1", 2)]
    assert (own["taking_part"], own["mean"]) == (5, everything["mean"])
    none = await platform.ok("/rankings?kind=co2e&period=2026-01", platform.tokens["energy"])
    assert (none["firms"], none["mean"], none["protected"]) == ([], None, "firms")
    two = await platform.ok("/rankings?kind=co2e&period=2026-01&limit=2&cursor=2")
    assert [one["rank"] for one in two["firms"]] == [3, 4]


async def test_the_present_month_tells_a_single_firm_nothing_of_the_others(
    platform: Platform,
) -> None:
    platform.brain.now_ns = FEBRUARY - HOUR_NS
    for at in range(5):
        platform.carbon(f"firm-{at}", np.full(DAYS * 24 - 1, 10.0 + at))
    own = await platform.ok("/rankings?kind=co2e", platform.tokens["firm-1"])
    assert (own["period"], own["finished"], own["protected"]) == ("2026-01", False, "unfinished")
    assert [(one["rank"], one["value"]) for one in own["firms"]] == [(None, 743 * 11.0)]
    assert (own["mean"], own["taking_part"]) == (None, None)


async def test_firms_are_ranked_by_oee_and_by_carbon_per_value_added(platform: Platform) -> None:
    hours = np.arange(DAYS * 24)
    for at in range(5):
        good = np.full(len(hours), 1200.0 + 300 * at)
        seconds = {"aupt_s": good, "apt_s": good, "net_s": good, "valuable_s": good}
        pieces = {"qty_total": good, "qty_good": good}
        platform.oee(
            f"firm-{at}", "m", hours, pbt_s=np.full(len(hours), 3600.0), **seconds, **pieces
        )
        platform.write(
            "ce_intensity",
            {
                "enterprise_id": f"firm-{at}",
                "denominator": "万元",
                "period": "2025-01-01/2026-01-01",
            },
            np.array([LOCAL.start_of(2025, 1, 1)]),
            co2e_kg=np.array([1000.0 * (at + 1)]),
            quantity=np.array([10.0]),
            coverage=np.array([0.99]),
        )
    ranked = await platform.ok("/rankings?period=2026-01")
    assert [one["enterprise"] for one in ranked["firms"]] == [
        f"firm-{at}" for at in (4, 3, 2, 1, 0)
    ]
    assert ranked["firms"][0]["value"] == pytest.approx(2400 / 3600)
    assert ranked["mean"] == pytest.approx(0.5)
    ranked = await platform.ok("/rankings?kind=carbon_per_value&period=2025")
    assert [(one["value"], one["rank"]) for one in ranked["firms"]] == [
        (pytest.approx(0.1 * (at + 1)), at + 1) for at in range(5)
    ]
    nothing = await platform.ok("/rankings?kind=carbon_per_area&period=2025")
    assert {one["excluded"] for one in nothing["firms"]} == {"absent"}


async def test_a_peak_is_told_by_scenario_or_that_it_is_not_identified(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the API, and by the command on the same store."""
    starts = [LOCAL.start_of(2022 + at // 12, at % 12 + 1, 1) for at in range(49)]
    hours = np.arange(starts[0], starts[-1], HOUR_NS)
    growing = 50 * np.exp(0.05 * np.arange(len(hours)) / 8766)
    for firm, first in (("firm-0", 0), ("firm-1", len(hours) - 8000)):
        platform.emission(firm, hours[first:], growing[first:])
        own = np.ones(len(hours) - first)
        platform.write("ce_quality", {"enterprise_id": firm}, hours[first:], coverage=own)
    found = await platform.ok("/carbon/peak?enterprise=firm-0&until=2041")
    assert (found["identified"], found["months"]) == (True, 48)
    assert found["growth"] == pytest.approx(0.05, abs=0.002)
    years = {one["name"]: one["peak_year"] for one in found["scenarios"]}
    assert years["fast"] <= years["steady"] <= years["slow"] < 2041
    at = found["years"].index(2024)
    total = growing[(hours >= starts[24]) & (hours < starts[36])].sum()
    assert found["scenarios"][0]["p50_kg"][at] == pytest.approx(total)
    young = await platform.ok("/carbon/peak?enterprise=firm-1")
    assert (young["identified"], young["reason"], young["scenarios"]) == (False, "months", [])
    unseen = await platform.ok("/carbon/peak?enterprise=firm-0", platform.tokens["firm-1"])
    assert (unseen["months"], unseen["reason"]) == (0, "months")
    status, problem = await platform.get("/carbon/peak")
    assert (status, problem["parameter"]) == (HTTPStatus.BAD_REQUEST, "enterprise")

    runner, brain = CliRunner(), tmp_path / "brain"
    assert runner.invoke(app, ["init", str(brain)]).exit_code == 0
    (brain / "store").symlink_to(tmp_path / "store")
    config = str(brain / "aggregator.toml")
    clock = SimpleNamespace(time_ns=lambda: platform.brain.now_ns)
    monkeypatch.setattr(peak_cli, "time", clock)
    said = runner.invoke(app, ["peak", config, "firm-0", "--reduction", "0.05"])
    assert (said.exit_code, "peak expected in 202" in said.output) == (0, True), said.output
    said = runner.invoke(app, ["peak", config, "firm-1.main"])
    assert "peak not identified" in said.output
    chinese = {"MILLGATE_LANG": "zh"}
    assert "未能判断达峰" in runner.invoke(app, ["peak", config, "firm-1"], env=chinese).output
    shown = runner.invoke(app, ["peak", config, "firm-0", "--json"])
    assert json.loads(shown.output)["months"] == 48
    with pytest.raises(MillgateError, match="firm-9"):
        runner.invoke(app, ["peak", config, "firm-9"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/rankings?kind=profit", "kind"),
        ("/rankings?period=2026", "period"),
        ("/rankings?kind=carbon_per_value&period=2026-01", "period"),
        ("/rankings?cursor=abc", "cursor"),
        ("/oee?by=country", "by"),
        ("/oee?enterprise=", "enterprise"),
        ("/oee?enterprise=a%00b", "enterprise"),
        ("/oee?start=0&end=2026-01-01T00:00:00Z", "start"),
        ("/carbon/summary?each=minute", "each"),
        ("/carbon/summary?start=2020-01-01T00:00:00Z&each=day", "start"),
    ],
)
async def test_what_cannot_be_asked_is_named(platform: Platform, path: str, parameter: str) -> None:
    status, document = await platform.get(path)
    assert (status, document["parameter"]) == (HTTPStatus.BAD_REQUEST, parameter)

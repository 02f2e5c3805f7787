"""The read API against real embedded stores, over real HTTP."""

import asyncio
import contextlib
import csv
import functools
import io
import json
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import aiohttp
import numpy as np
import pytest

from aggregator.api.knowledge import Arrival, Source
from aggregator.api.problems import Problem, prefers_chinese
from aggregator.api.server import make_app, serving
from aggregator.api.worker import Worker
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey
from aggregator.stores.embedded import Config, Store
from aggregator.trust import Trust
from protocols.errors import MillgateError
from protocols.frame import SECOND
from tests.system.brain import (
    ENERGY,
    FACTOR_VALUE,
    FACTORY,
    NAME,
    START_NS,
    STATE,
    TOKEN,
    WINDOW_S,
    Brain,
    energy_of,
    notice,
    running,
)

SLOTS = 40
MISSING = frozenset({10, 11})
START = "2026-01-05T08:00:00Z"
WEAK_TOKEN = "short"  # noqa: S105 - the test is that it is refused


@pytest.fixture
async def brain(tmp_path: Path) -> AsyncIterator[Brain]:
    async with running(tmp_path) as running_brain:
        running_brain.receive(SLOTS, missing=MISSING)
        yield running_brain


class Caller:
    """An HTTP client of one brain; shows the token unless told otherwise."""

    def __init__(self, session: aiohttp.ClientSession, brain: Brain) -> None:
        self._session = session
        self._brain = brain

    async def raw(
        self, path: str, *, token: str | None = TOKEN, method: str = "GET", **headers: str
    ) -> tuple[int, Mapping[str, str], str]:
        shown = {} if token is None else {"Authorization": f"Bearer {token}"}
        given = shown | {name.replace("_", "-"): value for name, value in headers.items()}
        url = self._brain.url + path
        async with self._session.request(method, url, headers=given) as answer:
            return answer.status, answer.headers, await answer.text()

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        status, _, text = await self.raw(f"/api/v1{path}", **headers)
        return status, json.loads(text)

    async def ok(self, path: str) -> Any:
        status, document = await self.get(path)
        assert status == HTTPStatus.OK, document
        return document

    async def id_of(self, key: SeriesKey) -> str:
        listed = (await self.ok(f"/series?measurement={key.measurement}"))["series"]
        return str(next(each["id"] for each in listed if each["tags"] == dict(key.tags)))


@pytest.fixture
async def call(brain: Brain) -> AsyncIterator[Caller]:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Caller(session, brain)


@pytest.mark.parametrize("path", ["/api/v1/newest", "/%61pi/v1/series", "/api/nothing", "/api"])
async def test_a_missing_and_a_wrong_token_get_one_and_the_same_refusal(
    call: Caller, path: str
) -> None:
    answers = [
        await call.raw(path, token=token) for token in (None, "wrong", TOKEN[:-1], TOKEN + "x", "é")
    ]
    answers.append(await call.raw(path, token=None, Authorization=f"Basic {TOKEN}"))
    assert {status for status, _, _ in answers} == {401}
    assert len({text for _, _, text in answers}) == 1
    assert answers[0][1]["Content-Type"].startswith("application/problem+json")
    assert answers[0][1]["WWW-Authenticate"] == "Bearer"


async def test_the_page_is_served_without_token_and_only_its_own_files(call: Caller) -> None:
    status, headers, text = await call.raw("/", token=None)
    assert status == HTTPStatus.OK
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "app.js" in text
    assert (await call.raw("/api.js", token=None))[0] == HTTPStatus.OK
    for other in ("/__init__.py", "/..%2f__init__.py", "/../pyproject.toml", "/nothing"):
        assert (await call.raw(other, token=None))[0] == HTTPStatus.NOT_FOUND
    unchanged, _, body = await call.raw("/", token=None, If_None_Match=headers["ETag"])
    assert (unchanged, body) == (HTTPStatus.NOT_MODIFIED, "")


@pytest.mark.parametrize("path", ["/", "/nothing", "/api/v1/series", "/api/v1/series?x=1"])
async def test_every_answer_carries_the_strict_headers(call: Caller, path: str) -> None:
    _, headers, _ = await call.raw(path)
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Server"] == "millgate"
    if path.startswith("/api"):
        assert headers["Cache-Control"] == "no-store"


async def test_nothing_but_reading_is_possible(call: Caller) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        status, headers, text = await call.raw("/api/v1/series", method=method)
        assert status == HTTPStatus.METHOD_NOT_ALLOWED
        assert "GET" in headers["Allow"]
        assert json.loads(text)["status"] == HTTPStatus.METHOD_NOT_ALLOWED


async def test_series_are_listed_with_ids_that_outlive_a_restart(
    brain: Brain, call: Caller, tmp_path: Path
) -> None:
    listed = (await call.ok("/series"))["series"]
    assert {(each["bucket"], each["measurement"]) for each in listed} == {
        ("future_factory", "ff_energy"),
        ("future_factory", "ff_equipment_state"),
        ("future_factory", "ff_reading"),
        ("carbon_emission", "ce_activity"),
        ("carbon_emission", "ce_emission"),
    }
    one = (await call.ok("/series?measurement=ff_energy"))["series"]
    assert [each["tags"] for each in one] == [dict(ENERGY.tags)]
    async with running(tmp_path) as again:
        brain.port = again.port
        assert (await call.ok("/series"))["series"] == listed


async def test_an_export_has_every_row_of_the_period_and_is_safe_in_a_spreadsheet(
    brain: Brain, call: Caller
) -> None:
    count = 25_000
    key = SeriesKey.of("ff_reading", {"equipment": "long"})
    times = START_NS + np.arange(count) * SECOND
    texts = ["=1+1", 'say "hi", twice', "plain", "-7"] * (count // 4)
    values, whole = np.arange(count) / 8, np.arange(count) - 2
    fields: dict[str, FieldColumn] = {"value": values, "note": texts, "whole": whole}
    brain.stores["future_factory"].write([SeriesBlock(key, times, fields)])
    identity = await call.id_of(key)
    period = f"start={START}&end=2026-01-06T08:00:00Z&fields=value,note,coverage,whole"
    status, headers, text = await call.raw(f"/api/v1/series/{identity}/export?{period}")
    assert status == HTTPStatus.OK
    assert headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == count
    assert [float(row["value"]) for row in rows] == values.tolist()
    assert [int(row["whole"]) for row in rows] == whole.tolist()
    assert {row["coverage"] for row in rows} == {""}
    assert [row["note"] for row in rows[:4]] == ["'=1+1", 'say "hi", twice', "plain", "-7"]
    assert (rows[0]["time"], rows[-1]["time"]) == (START, "2026-01-05T14:56:39Z")


async def test_a_row_tells_the_batches_that_it_comes_from(brain: Brain, call: Caller) -> None:
    energy = await call.id_of(ENERGY)
    batch = Source(
        factory=FACTORY,
        agent="ab" * 16,
        epoch=1,
        stream=2,
        sequence=3,
        digest="cd" * 32,
        log_place=7,
        start_ns=START_NS,
        end_ns=START_NS + 5 * SECOND,
        received_ns=START_NS + 6 * SECOND,
        sheet="ef" * 32,
        policy_version=4,
        points=(1,),
        erased=False,
    )
    brain.told.batches = [batch]
    found = await call.ok(f"/series/{energy}/provenance?start={START}&end=2026-01-05T08:00:05Z")
    (source,) = found["sources"]
    assert (source["digest"], source["log_place"], source["policy_version"]) == ("cd" * 32, 7, 4)
    # Without a period it is the newest row, which came later.
    assert (await call.ok(f"/series/{energy}/provenance"))["sources"] == []


async def test_pages_give_every_series_once(call: Caller) -> None:
    whole = [each["id"] for each in (await call.ok("/series"))["series"]]
    for path in ("/series", "/newest"):
        seen: list[str] = []
        following: str | None = ""
        while following is not None:
            cursor = f"&cursor={following}" if following else ""
            page = await call.ok(f"{path}?limit=2{cursor}")
            assert len(page["series"]) <= 2
            seen += [each["id"] for each in page["series"]]
            following = page["next"]
        assert sorted(seen) == sorted(whole)


async def test_rows_are_exact_and_what_was_not_kept_is_not_there(call: Caller) -> None:
    energy = await call.id_of(ENERGY)
    rows = await call.ok(f"/series/{energy}/rows?start={START}&end=2026-01-05T08:01:00Z")
    kept = np.array([at for at in range(12) if at not in MISSING], np.int64)
    assert rows["fields"]["energy"] == energy_of(kept).tolist()
    assert rows["fields"]["quality"] == ["GOOD"] * len(kept)
    assert rows["time"][:2] == ["2026-01-05T08:00:00Z", "2026-01-05T08:00:05Z"]
    assert len(rows["time"]) == len(kept)
    assert rows["next"] is None


async def test_rows_come_in_parts_that_join_without_gap_or_double(call: Caller) -> None:
    energy = await call.id_of(ENERGY)
    seen: list[float] = []
    start: str | None = str(START_NS)
    while start is not None:
        part = await call.ok(f"/series/{energy}/rows?start={start}&fields=energy&limit=7")
        assert list(part["fields"]) == ["energy"]
        seen += part["fields"]["energy"]
        start = part["next"]
    kept = np.array([at for at in range(SLOTS) if at not in MISSING], np.int64)
    assert seen == energy_of(kept).tolist()


async def test_what_a_browser_would_round_is_sent_as_text_and_what_is_absent_as_null(
    brain: Brain, call: Caller
) -> None:
    key = SeriesKey.of("ff_reading", {"measurand": "other"})
    times = np.array([START_NS + 1, START_NS + 2, START_NS + 3], np.int64)
    block = SeriesBlock(
        key,
        times,
        {
            "count": np.array([2**53 - 1, 2**53 + 1, -(2**63)], np.int64),
            "value": np.array([0.1, 0.0, np.nan]),
            "quality": ["GOOD", "", "BAD"],
        },
    )
    brain.stores["future_factory"].write([block])
    found = await call.ok(f"/series/{await call.id_of(key)}/rows?start={START_NS}")
    assert found["time"] == [f"2026-01-05T08:00:00.00000000{n}Z" for n in (1, 2, 3)]
    assert found["fields"]["count"] == [2**53 - 1, str(2**53 + 1), str(-(2**63))]
    # What the newest row lacks is not left out of the others.
    assert found["fields"]["value"] == [0.1, 0.0, None]
    assert found["fields"]["quality"] == ["GOOD", None, "BAD"]
    export = f"/api/v1/series/{await call.id_of(key)}/export?start={START_NS}"
    assert {"count", "value"} <= set((await call.raw(export))[2].splitlines()[0].split(","))


async def test_steps_add_up_and_a_step_without_data_is_absent_not_zero(call: Caller) -> None:
    energy = await call.id_of(ENERGY)
    steps = await call.ok(f"/series/{energy}/steps?field=energy&start={START}&step=10s")
    kept = [at for at in range(SLOTS) if at not in MISSING]
    whole = energy_of(np.array(kept, np.int64)).sum()
    assert sum(steps["fields"]["energy"]) == pytest.approx(whole, abs=1e-9)
    assert len(steps["time"]) == SLOTS // 2 - 1
    assert "2026-01-05T08:00:50Z" not in steps["time"]
    assert (steps["step_s"], steps["aggregate"]) == (10, "sum")


async def test_several_fields_share_one_time_column(call: Caller) -> None:
    state = await call.id_of(STATE)
    steps = await call.ok(
        f"/series/{state}/steps?field=run_s,idle_s,coverage&start={START}&step=1m"
    )
    assert set(steps["fields"]) == {"run_s", "idle_s"}
    assert {len(cells) for cells in steps["fields"].values()} == {len(steps["time"])}
    assert steps["fields"]["run_s"][0] == (12 - len(MISSING)) * WINDOW_S


async def test_a_field_that_no_row_has_is_answered_with_the_one_that_was_meant(
    call: Caller,
) -> None:
    energy = await call.id_of(ENERGY)
    for path in ("steps?field=enrgy", "rows?fields=enrgy", "export?fields=window_s,enrgy"):
        status, problem = await call.get(f"/series/{energy}/{path}", Accept_Language="zh")
        assert status == HTTPStatus.BAD_REQUEST
        assert problem["title"] == "ff_energy 没有字段 'enrgy'"
        assert "是否应为 'energy'？" in problem["remedy"]
    # A field that rows of this kind may have, though none has it yet, is no fault.
    assert (await call.ok(f"/series/{energy}/steps?field=energy_tce&start={START}"))["fields"] == {}


async def test_a_measurement_that_there_is_none_of_is_answered_with_the_one_meant(
    call: Caller,
) -> None:
    for path in ("/series", "/newest"):
        status, problem = await call.get(f"{path}?measurement=ff_enrgy")
        assert (status, problem["parameter"]) == (HTTPStatus.BAD_REQUEST, "measurement")
        assert "did you mean 'ff_energy'?" in problem["remedy"]
        assert (await call.ok(f"{path}?measurement=ce_balance"))["series"] == []


async def test_series_and_newest_rows_can_be_asked_for_one_firm_or_site(call: Caller) -> None:
    every = (await call.ok("/newest"))["series"]
    tags = dict(ENERGY.tags)
    firm, site = tags["enterprise_id"], tags["site_id"]
    for path in ("/series", "/newest"):
        found = (await call.ok(f"{path}?enterprise={quote(firm)}&site={quote(site)}"))["series"]
        assert {one["id"] for one in found} == {
            one["id"]
            for one in every
            if (one["tags"]["enterprise_id"], one["tags"]["site_id"]) == (firm, site)
        }
        assert found
        for other in (f"enterprise={quote(firm)}x", "site=nowhere"):
            assert (await call.ok(f"{path}?{other}"))["series"] == []


async def test_an_address_that_is_too_long_is_answered_with_a_problem(call: Caller) -> None:
    for length in (8_200, 60_000):
        status, headers, text = await call.raw(f"/api/v1/series?measurement={'a' * length}")
        assert status == HTTPStatus.REQUEST_URI_TOO_LONG
        assert headers["Content-Type"].startswith("application/problem+json")
        assert "8190" in text


async def test_other_aggregates_are_what_their_name_says(call: Caller) -> None:
    energy = await call.id_of(ENERGY)
    first = energy_of(np.arange(5, dtype=np.int64))
    for aggregate, expected in {
        "mean": first.mean(),
        "min": first.min(),
        "max": first.max(),
        "last": first[-1],
    }.items():
        period = f"start={START}&end={START_NS + 25 * SECOND}"
        path = f"/series/{energy}/steps?field=energy&step=25s&aggregate={aggregate}&{period}"
        assert (await call.ok(path))["fields"]["energy"] == [pytest.approx(expected)]


async def test_the_newest_row_is_the_newest_of_one_and_of_all(call: Caller) -> None:
    energy = await call.id_of(ENERGY)
    one = await call.ok(f"/series/{energy}/newest")
    assert one["time"] == "2026-01-05T08:03:15Z"
    assert one["fields"]["energy"] == energy_of(np.array([SLOTS - 1], np.int64))[0]
    every = await call.ok("/newest")
    assert one in every["series"]
    emission = next(each for each in every["series"] if each["measurement"] == "ce_emission")
    assert emission["fields"]["co2e_kg"] == one["fields"]["energy"] * FACTOR_VALUE
    assert every["now"] == "2026-01-05T08:03:24Z"


async def test_factories_tell_who_sent_under_which_sheet(brain: Brain, call: Caller) -> None:
    silent = Arrival("ab" * 8, "cd" * 8, "新厂", Trust.REVOKED, None, None, None, 0, 0, 0, ())
    brain.told.agents.append(silent)
    known, new = (await call.ok("/factories"))["factories"]
    assert (known["factory"], known["name"], known["online"]) == (FACTORY, NAME, True)
    assert (known["trust"], new["trust"]) == ("good", "revoked")
    assert known["last_received"] == "2026-01-05T08:03:22Z"
    sheet = known["sheets"][0]
    assert (sheet["policy_version"], sheet["right"]) == (3, "DR-2026-0017")
    assert sheet["points"][0] == {
        "number": 1,
        "equipment": "meter-1",
        "measurand": "energy.active_import",
        "unit": "kWh",
        "aggregate": "delta",
        "window_s": WINDOW_S,
        "resolution": "0.01",
        "retention_days": 1095,
    }
    assert (new["online"], new["last_received"], new["sheets"]) == (None, None, [])
    bare = (await call.ok("/factories?sheets=0"))["factories"][0]
    assert (bare["sheets"], bare["sheet_count"], bare["newest_sheet"]) == ([], 2, sheet["hash"])


async def test_a_policy_without_end_is_shown_as_the_last_day_there_is(
    brain: Brain, call: Caller
) -> None:
    agent = brain.told.agents[0]
    brain.told.agents[0] = replace(agent, sheets=(replace(agent.sheets[0], valid_until_ns=10**21),))
    factory = (await call.ok("/factories"))["factories"][0]
    assert factory["sheets"][0]["valid_until"] == "9999-12-31T23:59:59Z"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("rows?start=yesterday", "start"),
        ("rows?start=2026-02-30T00:00:00Z", "start"),
        ("rows?end=9223372036854775808", "end"),
        ("rows?start=2026-01-05T09:00:00Z&end=2026-01-05T08:00:00Z", "start"),
        ("rows?limit=0", "limit"),
        ("rows?limit=10001", "limit"),
        ("rows?limit=٣", "limit"),
        ("rows?fields=energy,%22;DROP", "fields"),
        ("rows?fields=energy,enrgy", "fields"),
        ("export?fields=nosuch", "fields"),
        ("steps?field=nosuch", "field"),
        ("rows?fields=", "fields"),
        ("rows?start=1&start=2", "start"),
        ("rows?colour=red", "colour"),
        ("steps", "field"),
        ("steps?field=quality", "field"),
        ("steps?field=energy&step=15", "step"),
        ("steps?field=energy&step=0s", "step"),
        ("steps?field=energy&step=999999999d", "step"),
        ("steps?field=energy&start=1970-01-01T00:00:00Z&step=1s", "step"),
        ("steps?field=energy&aggregate=median", "aggregate"),
        ("newest?limit=3", "limit"),
    ],
)
async def test_a_bad_parameter_is_named_with_its_remedy_in_the_language_asked(
    call: Caller, query: str, parameter: str
) -> None:
    energy = await call.id_of(ENERGY)
    remedies = set()
    for language in ("en", "zh-CN,zh;q=0.9,en;q=0.8"):
        status, problem = await call.get(f"/series/{energy}/{query}", Accept_Language=language)
        assert status == HTTPStatus.BAD_REQUEST
        assert problem["parameter"] == parameter
        assert problem["title"]
        remedies.add(problem["remedy"])
    assert len(remedies) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/series?measurement=a%20b",
        "/series?cursor=%00",
        "/newest?limit=501",
        "/factories?sheets=21",
        "/factories?limit=500&sheets=2",
        "/health?deep=1",
    ],
)
async def test_lists_are_bounded_too(call: Caller, path: str) -> None:
    assert (await call.get(path))[0] == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    ("header", "chinese"),
    [
        ("", False),
        ("zh", True),
        ("zh-TW", True),
        ("en-US,en;q=0.9,zh;q=0.8", False),
        ("zh;q=0.3, en;q=0.5", False),
        ("fr, zh;q=0.2", True),
        ("zh;q=x", False),
        ("zh;q=0", False),
    ],
)
def test_the_language_is_the_one_the_reader_ranks_higher(header: str, chinese: bool) -> None:
    assert prefers_chinese(header) is chinese


async def test_an_unknown_series_is_not_found(call: Caller) -> None:
    for name in ("A" * 22, "..%2f..%2fetc", "1"):
        assert (await call.get(f"/series/{name}/newest"))[0] == HTTPStatus.NOT_FOUND


async def test_a_store_out_of_reach_is_said_and_the_rest_still_answers(
    brain: Brain, call: Caller, tmp_path: Path
) -> None:
    assert await call.ok("/health") == {
        "now": "2026-01-05T08:03:24Z",
        "status": "ok",
        "parts": {
            "store:future_factory": "ok",
            "store:carbon_emission": "ok",
            "ledger": "ok",
        },
    }
    blocked = tmp_path / "not-a-folder"
    blocked.write_text("in the way", encoding="utf-8")
    away = Store(Config(path=blocked), "future_factory")
    app = make_app({"future_factory": away}, brain.told, TOKEN, lambda: brain.now_ns)
    async with serving(app, "127.0.0.1", 0) as brain.port:
        for path in ("/series", "/newest", f"/series/{'A' * 22}/newest"):
            status, headers, text = await call.raw(f"/api/v1{path}")
            assert status == HTTPStatus.SERVICE_UNAVAILABLE
            assert int(headers["Retry-After"]) > 0
            assert str(tmp_path) not in text
        status, health = await call.get("/health")
        assert (status, health["status"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "degraded")
        assert health["parts"] == {"store:future_factory": "unavailable", "ledger": "ok"}
        assert (await call.ok("/factories"))["factories"][0]["name"] == NAME
    away.close()


async def test_open_alarms_are_told_newest_first_and_ended_ones_on_demand(
    brain: Brain, call: Caller
) -> None:
    brain.told.notices = [notice(3, of_brain=True), notice(2, ended=True), notice(1)]
    found = await call.ok("/alarms")
    assert [each["id"] for each in found["alarms"]] == [3, 1]
    assert (found["open"], found["next"]) == (2, None)
    own, gap = found["alarms"]
    assert (own["agent"], own["name"], own["severity"]) == (None, "", "warning")
    assert (gap["kind"], gap["name"], gap["since"]) == ("gap", NAME, "2026-01-05T08:00:01Z")
    assert set(gap["text"]) == {"en", "zh"}
    assert gap["until"] is None
    first = await call.ok(f"/alarms?start={START}&limit=2")
    rest = await call.ok(f"/alarms?start={START}&limit=2&cursor={first['next']}")
    assert [each["id"] for each in first["alarms"] + rest["alarms"]] == [3, 2, 1]
    assert (first["open"], rest["next"]) == (2, None)
    assert first["alarms"][1]["until"] == "2026-01-05T09:00:00Z"


class Broken:
    """Knowledge with a fault whose text must not get out."""

    def arrivals(self) -> NoReturn:
        raise RuntimeError("password=hunter2")

    def sources(self, key: SeriesKey, start_ns: int, end_ns: int) -> NoReturn:
        raise RuntimeError("password=hunter2")

    def alarms(self, from_ns: int | None) -> NoReturn:
        raise RuntimeError("password=hunter2")


async def test_a_fault_of_our_own_tells_nothing_of_itself(
    brain: Brain, call: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app({}, Broken(), TOKEN, lambda: brain.now_ns)
    async with serving(app, "127.0.0.1", 0) as brain.port:
        status, _, text = await call.raw("/api/v1/factories")
    assert status == HTTPStatus.INTERNAL_SERVER_ERROR
    assert "hunter2" not in text
    assert "hunter2" not in caplog.text
    assert "RuntimeError" in caplog.text


async def test_the_access_log_has_neither_query_nor_token(
    call: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await call.raw("/api/v1/series?measurement=ff_energy")
    await call.raw("/api/v1/a%0Ab?token=" + TOKEN)
    assert "GET /api/v1/series 200" in caplog.text
    assert "GET /api/v1/a%0Ab 404" in caplog.text
    assert "measurement" not in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    "token", ["", WEAK_TOKEN, "has a space in the middle", "zu-kurz-é-ü-ä-ö-ß"]
)
async def test_a_token_that_keeps_nobody_out_is_refused_at_the_start(
    brain: Brain, token: str
) -> None:
    with pytest.raises(MillgateError) as caught:
        make_app({}, brain.told, token, lambda: brain.now_ns)
    assert not token or token not in str(caught.value)


async def test_an_address_in_use_is_told_with_its_place(brain: Brain) -> None:
    app = make_app({}, brain.told, TOKEN, lambda: brain.now_ns)
    with pytest.raises(MillgateError) as caught:
        async with serving(app, "127.0.0.1", brain.port):
            pytest.fail("two servers on one port")
    assert caught.value.where == f"127.0.0.1:{brain.port}"
    assert caught.value.remedy


async def test_a_call_that_takes_too_long_is_given_up_but_never_overtaken() -> None:
    worker = Worker("slow", timeout_s=0.05)
    release, inside = threading.Event(), threading.Lock()
    alone: list[bool] = []

    def work(wait: bool) -> str:
        alone.append(inside.acquire(blocking=False))
        if wait:
            release.wait(30)
        inside.release()
        return "done"

    for wait in (True, False):
        with pytest.raises(Problem) as caught:
            await worker.run(functools.partial(work, wait))
        assert caught.value.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert alone == [True]
    release.set()
    answer = ""
    while not answer:
        with contextlib.suppress(Problem):
            answer = await worker.run(functools.partial(work, False))
    assert answer == "done"
    assert all(alone)
    await worker.close()


async def test_more_requests_than_may_wait_are_sent_away_at_once() -> None:
    worker = Worker("full", waiting=2)
    release = threading.Event()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(worker.run(lambda: release.wait(30))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as caught:
            await worker.run(lambda: True)
        release.set()
    assert caught.value.kind == "busy"
    assert [task.result() for task in waiting] == [True, True]
    await worker.close()

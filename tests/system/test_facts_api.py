"""Facts over real HTTP: the checks of the command line, a right of its own, all or nothing."""

import json
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from aggregator.api.scopes import new_token, read_tokens
from aggregator.cli import app
from aggregator.fact_book import FactBook, SiteName
from aggregator.facts import Fact, FactFile, merged, read_fact
from security.admin_log import read_log
from tests.system.brain import TOKEN, running

SITES = [SiteName("east-mill", "main"), SiteName("west-mill", "main")]
VALUE_ADDED: dict[str, Any] = {
    "enterprise": "east-mill",
    "name": "value_added",
    "value": "1234.50",
    "from": "2026-01-01",
    "until": "2027-01-01",
    "source": "年报",
}


class Desk:
    """Whoever enters facts at one brain."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, tokens: Mapping[str, str], file: FactFile
    ) -> None:
        self.url = url
        self._session = session
        self.tokens = tokens
        self.file = file

    async def ask(
        self, method: str, query: str = "", body: bytes | None = None, *, who: str = "all"
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.tokens[who]}", "Accept-Language": "zh"}
        url = f"{self.url}/api/v1/facts{query}"
        async with self._session.request(method, url, headers=headers, data=body) as answer:
            return answer.status, json.loads(await answer.text())

    async def put(self, *facts: Mapping[str, Any], who: str = "all") -> tuple[int, Any]:
        return await self.ask("PUT", body=json.dumps({"facts": facts}).encode(), who=who)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    tokens, file = tmp_path / "tokens.toml", FactFile(tmp_path / "facts.csv")
    made = {
        "all": new_token(tokens, "all", [], [], 30, write=["facts"]),
        "east": new_token(tokens, "east", ["east-mill"], [], 30, write=["facts"]),
        "reader": new_token(tokens, "reader", [], [], 30),
        "west reader": new_token(tokens, "west-reader", ["west-mill"], [], 30),
        "master": TOKEN,
    }
    book = FactBook(file, lambda: SITES, tmp_path / "admin.log")
    async with (
        running(tmp_path / "store", tokens=tokens, book=book) as brain,
        aiohttp.ClientSession() as session,
    ):
        yield Desk(brain.url, session, made, file)


async def test_a_fact_is_entered_listed_replaced_and_removed(desk: Desk) -> None:
    status, taken = await desk.put(VALUE_ADDED)
    assert status == HTTPStatus.OK
    (fact,) = taken["facts"]
    assert (fact["value"], fact["site"], fact["equipment"]) == ("1234.50", "main", None)
    assert fact["entered"] >= "2026"
    # A number counts as it is written, not as the nearest float.
    body = json.dumps({"facts": [VALUE_ADDED]}).replace('"1234.50"', "0.1000000000000000055")
    assert (await desk.ask("PUT", body=body.encode()))[0] == HTTPStatus.OK
    _, listed = await desk.ask("GET", who="master")
    assert [one["value"] for one in listed["facts"]] == ["0.1000000000000000055"]
    assert [str(one.value) for one in desk.file.read()] == ["0.1000000000000000055"]
    place = "?enterprise=east-mill&name=value_added&from=2026-01-01"
    assert await desk.ask("DELETE", place) == (HTTPStatus.OK, {})
    assert (await desk.ask("DELETE", place))[0] == HTTPStatus.NOT_FOUND
    assert desk.file.read() == []


async def test_only_a_token_made_for_it_enters_facts_and_only_of_its_firms(desk: Desk) -> None:
    for who in ("reader", "master"):
        assert (await desk.put(VALUE_ADDED, who=who))[0] == HTTPStatus.FORBIDDEN
        gone = await desk.ask("DELETE", "?enterprise=a&name=tax&from=2026-01-01", who=who)
        assert gone[0] == HTTPStatus.FORBIDDEN
    assert (await desk.put(VALUE_ADDED, who="east"))[0] == HTTPStatus.OK
    status, problem = await desk.put({**VALUE_ADDED, "enterprise": "west-mill"}, who="east")
    assert status == HTTPStatus.UNPROCESSABLE_ENTITY
    # A firm that may not be seen is as if it were not there, also in what is suggested.
    assert "west-mill" not in problem["remedy"]
    assert (await desk.put({**VALUE_ADDED, "enterprise": "west-mill"}))[0] == HTTPStatus.OK
    west = "?enterprise=west-mill&name=value_added&from=2026-01-01"
    assert (await desk.ask("DELETE", west, who="east"))[0] == HTTPStatus.NOT_FOUND
    _, seen = await desk.ask("GET", who="west reader")
    assert {one["enterprise"] for one in seen["facts"]} == {"west-mill"}
    assert len((await desk.ask("GET", who="reader"))[1]["facts"]) == 2


async def test_who_changed_which_fact_is_recorded_by_the_tokens_name_before_it_counts(
    desk: Desk, tmp_path: Path
) -> None:
    log = tmp_path / "admin.log"
    other = {**VALUE_ADDED, "enterprise": "west-mill", "until": "2028-01-01"}
    await desk.put(VALUE_ADDED, other)
    await desk.put(VALUE_ADDED)
    await desk.put({**VALUE_ADDED, "value": "99", "source": "更正"}, who="east")
    await desk.put({**VALUE_ADDED, "name": "luck"})
    gone = "?enterprise=east-mill&name=value_added&from=2026-01-01"
    await desk.ask("DELETE", gone, who="east")
    entries = read_log(log)
    told = [
        (one.action, *(one.facts.get(name) for name in ("token", "firm", "value", "was", "source")))
        for one in entries
    ]
    assert told == [
        ("set-fact", "all", "east-mill", "1234.50", None, "年报"),
        ("set-fact", "all", "west-mill", "1234.50", None, "年报"),
        ("set-fact", "east", "east-mill", "99", "1234.50", "更正"),
        ("remove-fact", "east", "east-mill", None, "99", None),
    ]
    assert entries[0].facts["name"] == "value_added"
    assert (entries[0].facts["from"], entries[0].facts["until"]) == ("2026-01-01", "2027-01-01")
    assert not any(token.encode() in log.read_bytes() for token in desk.tokens.values())
    # What cannot be recorded is not done.
    before = desk.file.read()
    log.write_bytes(log.read_bytes()[:-3] + b"?}\n")
    status, _ = await desk.put(VALUE_ADDED)
    assert (status, desk.file.read()) == (HTTPStatus.INTERNAL_SERVER_ERROR, before)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "luck"},
        {"value": "many"},
        {"source": " "},
        {"from": "yesterday"},
        {"until": None},
        {"until": "2025-01-01"},
        {"equipment": "press-1"},
        {"enterprise": "eest-mill"},
        {"site": "north"},
    ],
)
async def test_what_the_command_refuses_the_api_refuses_and_nothing_is_entered(
    desk: Desk, change: dict[str, Any]
) -> None:
    other = {**VALUE_ADDED, "enterprise": "west-mill"}
    status, problem = await desk.put(other, {**VALUE_ADDED, **change})
    assert status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert [one["where"] for one in problem["faults"]] == ["facts[1]"]
    assert problem["title"].startswith("facts[1]: ")
    assert not problem["title"].isascii()
    assert desk.file.read() == []


async def test_every_fault_is_told_at_once_and_two_values_for_one_day_are_one(desk: Desk) -> None:
    _, problem = await desk.put({**VALUE_ADDED, "name": "luck"}, {**VALUE_ADDED, "value": "x"})
    assert [one["where"] for one in problem["faults"]] == ["facts[0]", "facts[1]"]
    overlapping = {**VALUE_ADDED, "from": "2026-06-01"}
    status, _ = await desk.put(VALUE_ADDED, overlapping)
    assert (status, desk.file.read()) == (HTTPStatus.UNPROCESSABLE_ENTITY, [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"facts": []}',
        b'{"facts": [1]}',
        b'{"facts": [{"enterprise": ["a"]}]}',
        b'{"facts": [{"entered": "2026-01-01"}]}',
        b'{"facts": [{"value": NaN}]}',
        b'{"facts": [{"name": "a", "name": "b"}]}',
        b'{"facts": [{"source": "a\\u0000b"}]}',
        b"\xff",
        b"[" * 60_000,
    ],
)
async def test_a_body_that_is_no_list_of_facts_is_refused(desk: Desk, body: bytes) -> None:
    status, problem = await desk.ask("PUT", body=body)
    assert (status, problem["type"]) == (HTTPStatus.BAD_REQUEST, "urn:millgate:problem:bad-body")


async def test_a_body_that_is_too_large_is_refused(desk: Desk) -> None:
    status, _ = await desk.ask("PUT", body=b" " * 70_000)
    assert status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_two_who_enter_facts_at_once_lose_none(tmp_path: Path) -> None:
    file = FactFile(tmp_path / "facts.csv")

    def fact(at: int) -> Fact:
        row = {"site": "", "equipment": "", "name": "land_area", "value": "1", "until": ""}
        days = {"from": "2026-01-01", "entered": "2026-01-01"}
        return read_fact({"enterprise": f"f{at}", "source": "s", **row, **days}, "")

    def enter(at: int) -> None:
        file.change(lambda known: merged(known, [fact(at)]))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(enter, range(24)))
    assert len(file.read()) == 24


def test_the_command_makes_a_token_that_may_enter_facts(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["init", str(tmp_path / "brain")]).exit_code == 0
    config = tmp_path / "brain" / "aggregator.toml"
    made = runner.invoke(app, ["token", str(config), "desk", "--firm", "mill", "--write-facts"])
    assert made.exit_code == 0
    (entry,) = read_tokens(tmp_path / "brain" / "keys" / "api-tokens.toml")
    assert (entry.write, entry.enterprises) == (["facts"], ["mill"])

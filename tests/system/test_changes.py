"""The change feed over real HTTP: a platform that follows it keeps its copy in step."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from aggregator.api.server import make_app, serving
from aggregator.feed import Feed, Followed, Gone
from aggregator.stores import ENTERPRISE, EQUIPMENT, RowSpan, SeriesBlock, SeriesKey, Store
from aggregator.stores.embedded import Config
from aggregator.stores.embedded import Store as Embedded
from protocols.frame import SECOND
from tests.system.brain import TOKEN, Told

BUCKET = "future_factory"
KEYS = [
    SeriesKey.of("ff_energy", {ENTERPRISE: f"mill-{n}", EQUIPMENT: "meter, main"}) for n in range(3)
]
HOUR_NS = 3600 * SECOND
START_NS = 500_000 * HOUR_NS

Rows = dict[tuple[str, str], dict[str, Any]]
"""By series id and time: the fields."""


class Platform:
    """Somebody else's copy, kept with nothing but the API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.position = ""
        self.rows: Rows = {}

    async def get(self, path: str, **query: Any) -> Any:
        async with self._session.get(self._url + path, params=query) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def begin(self) -> None:
        self.position = (await self.get("/changes", limit=0))["head"]
        self.rows = await self.read_all()

    async def read_all(self) -> Rows:
        rows: Rows = {}
        for each in (await self.get("/series"))["series"]:
            rows |= await self._read(each["id"], START_NS, START_NS + 10_000 * HOUR_NS)
        return rows

    async def follow(self) -> None:
        while True:
            page = await self.get("/changes", cursor=self.position, limit=7)
            for change in page["changes"]:
                await self._apply(change)
            self.position = page["next"]
            if page["next"] == page["head"]:
                return

    async def _apply(self, change: dict[str, Any]) -> None:
        if change["kind"] == "measurement":
            self.rows = {}
            return
        identity = change["series"]["id"]
        first, last = change["first"], change["last"]
        self.rows = {
            place: fields
            for place, fields in self.rows.items()
            if place[0] != identity or not first <= place[1] <= last
        }
        self.rows |= await self._read(identity, first, last)

    async def _read(self, identity: str, first: Any, last: Any) -> Rows:
        if isinstance(last, str):
            last = str(int(np.datetime64(last.removesuffix("Z"), "ns").astype(np.int64)) + 1)
        async with self._session.get(
            f"{self._url}/series/{identity}/rows",
            params={"start": first, "end": last, "limit": 10_000},
        ) as answer:
            if answer.status == 404:
                return {}
            page = await answer.json()
        names = list(page["fields"])
        columns = zip(*page["fields"].values(), strict=True)
        return {
            (identity, moment): dict(zip(names, cells, strict=True))
            for moment, cells in zip(page["time"], columns, strict=True)
        }


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    return Feed(tmp_path / "feed.db", lambda: START_NS)


@pytest.fixture
def store(tmp_path: Path, feed: Feed) -> Store:
    return Followed(Embedded(Config(path=tmp_path / "store"), BUCKET), BUCKET, feed)


@pytest.fixture
async def url(tmp_path: Path, feed: Feed, store: Store) -> AsyncIterator[str]:
    reader = Embedded(Config(path=tmp_path / "store"), BUCKET)
    app = make_app({BUCKET: reader}, Told(), TOKEN, lambda: START_NS, feed=feed)
    async with serving(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}/api/v1"
    for each in (reader, store, feed):
        each.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as opened:
        yield opened


def block(key: SeriesKey, first: int, values: list[float]) -> SeriesBlock:
    times = START_NS + (first + np.arange(len(values))) * HOUR_NS
    return SeriesBlock(key, times, {"energy": np.array(values)})


def change_something(store: Store, chance: random.Random) -> None:
    kind = chance.choices(["write", "erase", "clear"], [20, 4, 1])[0]
    key, first, count = chance.choice(KEYS), chance.randrange(200), chance.randrange(1, 30)
    if kind == "write":
        store.write([block(key, first, [chance.random() for _ in range(count)])])
    elif kind == "erase":
        start = START_NS + first * HOUR_NS
        store.delete_rows([RowSpan(key, start, start + count * HOUR_NS)])
    else:
        store.delete("ff_energy")


@pytest.mark.parametrize("seed", range(3))
async def test_a_platform_that_follows_the_feed_has_what_the_brain_has(
    url: str, session: aiohttp.ClientSession, store: Store, seed: int
) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        await asyncio.to_thread(change_something, store, chance)
    platform = Platform(session, url)
    await platform.begin()
    for _ in range(12):
        for _ in range(chance.randrange(6)):
            await asyncio.to_thread(change_something, store, chance)
        await platform.follow()
        assert platform.rows == await platform.read_all()
    assert platform.rows


async def test_a_position_that_is_not_kept_any_longer_is_refused_with_what_to_do(
    tmp_path: Path, url: str, session: aiohttp.ClientSession, feed: Feed, store: Store
) -> None:
    await asyncio.to_thread(store.write, [block(KEYS[0], 0, [1.0])])
    mark = feed.head.partition(".")[0]
    for wrong in (f"{mark}.2", f"{mark}.-1", "0" * 16 + ".1", "nonsense"):
        async with session.get(f"{url}/changes", params={"cursor": wrong}) as answer:
            assert answer.status == 410, wrong
            assert (await answer.json())["type"] == "urn:millgate:problem:position-gone"
        async with session.get(f"{url}/stream", headers={"Last-Event-ID": wrong}) as answer:
            assert answer.status == 410, wrong


async def test_a_stream_brings_changes_as_they_come_and_goes_on_where_it_was_cut(
    url: str, session: aiohttp.ClientSession, store: Store
) -> None:
    async def events(count: int, last: str = "") -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = []
        async with session.get(f"{url}/stream", headers={"Last-Event-ID": last}) as answer:
            assert answer.content_type == "text/event-stream"
            if not last:
                assert (await answer.content.readline()) == b": alive\n"
                await asyncio.to_thread(store.write, [block(KEYS[0], 0, [1.0])])
            identity = ""
            while len(found) < count:
                line = (await answer.content.readline()).decode().strip()
                if line.startswith("id: "):
                    identity = line.removeprefix("id: ")
                elif line.startswith("data: "):
                    found.append((identity, json.loads(line.removeprefix("data: "))))
        return found

    ((position, change),) = await events(1)
    assert (change["kind"], change["rows"]) == ("rows", 1)
    assert change["series"]["tags"] == dict(KEYS[0].tags)
    for at in (1, 2):
        await asyncio.to_thread(store.write, [block(KEYS[at], at, [1.0, 2.0])])
    later = await events(2, position)
    assert [one["series"]["tags"][ENTERPRISE] for _, one in later] == ["mill-1", "mill-2"]


def test_the_feed_is_bounded_and_says_so_to_whoever_is_too_far_behind(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "feed.db", lambda: START_NS, most=10)
    beginning = feed.head
    for at in range(25):
        feed.wrote(BUCKET, [block(KEYS[0], at, [1.0])])
    kept = feed.read("", 100)
    assert len(kept.changes) <= 20
    assert kept.next == kept.head == feed.head
    with pytest.raises(Gone):
        feed.read(beginning, 1)
    feed.close()


def test_a_feed_opened_again_goes_on_and_another_one_is_not_taken_for_it(tmp_path: Path) -> None:
    feed = Feed(tmp_path / "feed.db", lambda: START_NS)
    feed.wrote(BUCKET, [block(KEYS[0], 0, [1.0])])
    head = feed.head
    feed.close()
    again = Feed(tmp_path / "feed.db", lambda: START_NS)
    assert again.head == head
    again.wrote(BUCKET, [block(KEYS[1], 0, [1.0])])
    (change,) = again.read(head, 10).changes
    assert change.key == KEYS[1]
    other = Feed(tmp_path / "other.db", lambda: START_NS)
    other.wrote(BUCKET, [block(KEYS[0], 0, [1.0])])
    with pytest.raises(Gone):
        other.read(head, 10)
    for each in (again, other):
        each.close()

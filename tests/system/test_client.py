"""The client that platforms may copy, against the real API."""

import asyncio
import random
import runpy
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aggregator.api.scopes import new_token
from aggregator.api.server import make_app, serving
from aggregator.fact_book import FactBook, SiteName
from aggregator.facts import FactFile
from aggregator.feed import Feed, Followed
from aggregator.stores import Store
from aggregator.stores.embedded import Config
from aggregator.stores.embedded import Store as Embedded
from protocols.tls import server_context
from simulators.servers.programs import free_port
from tests.certificates import Authority
from tests.documents import ROOT
from tests.system.brain import FACTOR_VALUE, NAME, TOKEN, Told, running
from tests.system.test_changes import BUCKET, KEYS, START_NS, block, change_something

CLIENT = runpy.run_path(str(ROOT / "docs" / "client" / "millgate_client.py"))
HOUR = ("2026-01-05T08:00:00Z", "2026-01-05T09:00:00Z")
ALWAYS = ("2020-01-01T00:00:00Z", "2200-01-01T00:00:00Z")


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    return Feed(tmp_path / "feed.db", lambda: START_NS)


@pytest.fixture
def store(tmp_path: Path, feed: Feed) -> Store:
    return Followed(Embedded(Config(path=tmp_path / "store"), BUCKET), BUCKET, feed)


@pytest.fixture
async def brain(tmp_path: Path, feed: Feed, store: Store) -> AsyncIterator[Any]:
    ours = Authority(tmp_path, "ours")
    own = ours.vouch("brain", "127.0.0.1")
    reader = Embedded(Config(path=tmp_path / "store"), BUCKET)
    app = make_app({BUCKET: reader}, Told(), TOKEN, lambda: START_NS, feed=feed)
    async with serving(app, "127.0.0.1", 0, server_context(own, own)) as port:
        url = f"https://127.0.0.1:{port}"
        yield CLIENT["Brain"](url, TOKEN, ca_file=str(ours.file))
    for each in (reader, store, feed):
        each.close()


def copy(brain: Any) -> dict[tuple[str, str], Any]:
    return {
        (series.id, row.time): row.fields
        for series in brain.series()
        for row in brain.rows(series, *ALWAYS)
    }


def follow(brain: Any, position: str, mine: dict[tuple[str, str], Any]) -> str:
    for change in brain.changes(position):
        position = change.position
        if change.series is None:
            mine.clear()
            continue
        span = (change.first, change.last)
        for place in [one for one in mine if one[0] == change.series.id]:
            if span[0] <= place[1] <= span[1]:
                del mine[place]
        try:
            rows = [
                row
                for row in brain.rows(change.series, change.first, ALWAYS[1])
                if row.time <= change.last
            ]
        except CLIENT["Refused"] as refused:
            if refused.status != 404:
                raise
            # A later change removed the series.
            rows = []
        mine |= {(change.series.id, row.time): row.fields for row in rows}
    return position


async def test_a_copy_kept_with_the_client_stays_in_step(brain: Any, store: Store) -> None:
    chance = random.Random(5)

    def work() -> None:
        for _ in range(8):
            change_something(store, chance)
        position, mine = brain.head(), copy(brain)
        assert mine
        for _ in range(6):
            change_something(store, chance)
            position = follow(brain, position, mine)
            assert mine == copy(brain)

    await asyncio.to_thread(work)


async def test_the_client_says_what_the_brain_says(brain: Any, store: Store) -> None:
    def work() -> None:
        store.write([block(KEYS[0], 0, [1.0, 2.5])])
        (series,) = brain.series("ff_energy")
        assert brain.newest(series).fields == {"energy": 2.5}
        assert (series, brain.newest(series)) in list(brain.all_newest())
        assert list(brain.all_newest(enterprise="nobody")) == []
        assert brain.provenance(series, *ALWAYS) == []
        with pytest.raises(CLIENT["Refused"]) as caught:
            list(brain.changes("0" * 16 + ".5"))
        assert caught.value.kind == "position-gone"
        assert "limit=0" in caught.value.remedy
        with pytest.raises(CLIENT["Refused"]) as caught:
            list(brain.rows(series, ALWAYS[1], ALWAYS[0]))
        assert caught.value.status == 400

    await asyncio.to_thread(work)


class Naps:
    """Stands in for the client's pauses: none lasts, and one after a failed question is told."""

    def __init__(self) -> None:
        self.failed = threading.Event()
        self.count = 0

    def sleep(self, seconds: float) -> None:
        self.count += 1
        if seconds:
            self.failed.set()
        threading.Event().wait(0.01)


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Naps:
    found = Naps()
    inside = CLIENT["Brain"].follow.__globals__
    monkeypatch.setitem(inside, "time", SimpleNamespace(sleep=found.sleep))
    return found


async def test_following_goes_on_through_a_restart_of_the_brain_with_each_change_once(
    tmp_path: Path, feed: Feed, store: Store, naps: Naps
) -> None:
    reader = Embedded(Config(path=tmp_path / "store"), BUCKET)

    def app() -> Any:
        return make_app({BUCKET: reader}, Told(), TOKEN, lambda: START_NS, feed=feed)

    async with serving(app(), "127.0.0.1", 0) as port:
        brain = CLIENT["Brain"](f"http://127.0.0.1:{port}", TOKEN)
        changes = brain.follow(await asyncio.to_thread(brain.head), 0)
        store.write([block(KEYS[0], 0, [1.0])])
        seen = [await asyncio.to_thread(next, changes)]
    naps.failed.clear()
    store.write([block(KEYS[0], 1, [2.0])])
    coming = asyncio.create_task(asyncio.to_thread(next, changes))
    assert await asyncio.to_thread(naps.failed.wait, 30)
    async with serving(app(), "127.0.0.1", port):
        seen.append(await asyncio.wait_for(coming, 30))
        store.write([block(KEYS[0], 2, [3.0])])
        seen.append(await asyncio.to_thread(next, changes))
    numbers = [int(change.position.rpartition(".")[2]) for change in seen]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    reader.close()
    store.close()
    feed.close()


async def test_a_brain_that_was_never_reached_is_told_and_a_wrong_certificate_at_once(
    brain: Any, naps: Naps
) -> None:
    def ask() -> None:
        nobody = CLIENT["Brain"](f"http://127.0.0.1:{free_port()}", TOKEN)
        with pytest.raises(CLIENT["Unreachable"]):
            next(nobody.follow("0" * 16 + ".0", 0))
        waited = naps.count
        assert waited
        stranger = CLIENT["Brain"](brain._url.removesuffix("/api/v1"), TOKEN)
        with pytest.raises(CLIENT["Unreachable"], match="CERTIFICATE_VERIFY_FAILED"):
            stranger.head()
        assert naps.count == waited

    await asyncio.to_thread(ask)


@pytest.fixture
async def full(tmp_path: Path) -> AsyncIterator[Any]:
    tokens, file = tmp_path / "tokens.toml", FactFile(tmp_path / "facts.csv")
    token = new_token(tokens, "desk", [], [], 30, write=["facts"])
    book = FactBook(file, lambda: [SiteName(NAME, "main")], file.path.with_name("admin.log"))
    async with running(tmp_path / "store", tokens=tokens, book=book) as served:
        served.receive(400, missing=frozenset(range(180, 361)))
        yield CLIENT["Brain"](served.url, token)


async def test_the_client_gives_summaries_steps_and_facts(full: Any) -> None:
    def ask() -> None:
        energy = next(iter(full.series("ff_energy")))
        steps = full.steps(energy, "energy", *HOUR, step="15m", aggregate="sum", fill="null")
        assert [value is None for _, value in steps] == [False, True, False, True]
        assert list(full.oee(*HOUR)) == []
        (site,) = full.carbon(*HOUR)
        kwh = sum(value for _, value in steps if value)
        assert site["totals"]["scope2_location_kg"] == [pytest.approx(kwh * FACTOR_VALUE)]
        assert full.ranking("co2e", "2026-01")["protected"] == "firms"
        fact = {"enterprise": NAME, "name": "land_area", "value": 12.5, "source": "登记"}
        (taken,) = full.put_facts([{**fact, "from": "2026-01-01"}])
        assert list(full.facts()) == [taken]
        with pytest.raises(CLIENT["Refused"]) as refused:
            full.put_facts([{**fact, "from": "someday"}])
        assert refused.value.kind == "bad-fact"

    await asyncio.to_thread(ask)

"""The OpenAPI document is true: every path is there, and every real answer is as it says."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from aggregator.api import openapi
from aggregator.api.catalog import series_id
from aggregator.api.scopes import new_token
from aggregator.api.server import make_app, serving
from aggregator.condition import Condition
from aggregator.fact_book import FactBook
from aggregator.facts import FactFile
from aggregator.feed import Feed, Followed
from aggregator.stores.embedded import Config, Store
from protocols.version import VERSION
from tests.system.brain import ENERGY, START_NS, TOKEN, Brain, Told, notice

BUCKETS = ("future_factory", "carbon_emission")
ENDLESS = "/stream"
"""Its answer does not end; the tests of changes read it."""
OPERATIONS = sorted(
    (path, method.upper())
    for path, methods in openapi.document(VERSION)["paths"].items()
    for method in methods
    if path != ENDLESS
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

pytestmark = pytest.mark.timeout(240)


def condition() -> Condition:
    return Condition(
        at_s=0,
        broker=True,
        broker_fault="",
        ledger_bytes=0,
        waiting=0,
        waiting_s=0.0,
        store_fault="",
    )


class Served:
    """A brain in a thread of its own, so that a client that blocks can ask it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.url = self.token = ""
        self.paths: set[str] = set()
        self.known = series_id("future_factory", ENERGY)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = Config(path=self._folder / "store")
        feed = Feed(self._folder / "feed.db", lambda: START_NS)
        writers = {b: Followed(Store(config, b), b, feed) for b in BUCKETS}
        readers = {b: Store(config, b) for b in BUCKETS}
        brain = Brain(writers, Told())
        brain.receive(40)
        brain.told.notices = [notice(3, of_brain=True), notice(2, ended=True), notice(1)]
        tokens = self._folder / "tokens.toml"
        self.token = new_token(tokens, "writer", [], [], 30, write=["facts"])
        app = make_app(
            readers,
            brain.told,
            TOKEN,
            lambda: brain.now_ns,
            look=condition,
            feed=feed,
            tokens=tokens,
            book=FactBook(FactFile(self._folder / "facts.csv"), tuple, self._folder / "admin.log"),
        )
        self.paths = {
            resource.canonical
            for resource in app.router.resources()
            if resource.canonical.startswith("/api/")
        }
        try:
            async with serving(app, "127.0.0.1", 0) as port:
                self.url = f"http://127.0.0.1:{port}"
                self._ready.set()
                await self._stop.wait()
        finally:
            feed.close()
            for writer in writers.values():
                writer.close()
            for reader in readers.values():
                reader.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("openapi")) as running:
        yield running


def test_the_document_has_every_path_of_the_api_and_no_other(served: Served) -> None:
    documented = {f"/api/v1{path}" for path in openapi.document(VERSION)["paths"]}
    assert documented == served.paths


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_as_the_document_says(served: Served, path: str, method: str) -> None:
    """Right and wrong parameters, of series that there are and of some that there are not."""
    schema = schemathesis.openapi.from_dict(openapi.document(VERSION))
    operation = schema[path][method]
    cases = operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE)
    answered: Counter[int] = Counter()

    @settings(
        max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(
        cases if operation.query or operation.path_parameters else operation.as_strategy(),
        st.booleans(),
    )
    def ask(case: schemathesis.Case[Any], known: bool) -> None:
        if known and case.path_parameters:
            case.path_parameters["id"] = served.known
            for name in {"field", "fields"} & set(case.query or {}):
                # Which fields a series has is no part of the document.
                case.query[name] = "energy"
        answer = case.call(
            base_url=f"{served.url}/api/v1",
            headers={"Authorization": f"Bearer {served.token if method != 'GET' else TOKEN}"},
        )
        case.validate_response(answer, checks=CHECKS)
        answered[answer.status_code] += 1

    ask()
    # Facts that are made up are of no firm that there is.
    assert answered[200] or method != "GET"

"""Servers that any test may ask for, and the language that tests read."""

import os
from collections.abc import Iterator

import pytest

from protocols import language

pytest_plugins = ["tests.servers.influx", "tests.servers.mosquitto"]

_PART = 50

# Tests read messages; processes that they start inherit the language.
os.environ["MILLGATE_LANG"] = "en"


@pytest.fixture(autouse=True)
def _one_reader() -> Iterator[None]:
    """Undo what a service's own process chooses for good: a test that runs one in ours must not speak for others."""
    yield
    language._Process.reader = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="how often the torture kills")
    parser.addoption("--ordeals", action="store_true", help="torture with every ordeal")
    parser.addoption(
        "--seed", type=int, default=1, help="what random choices of the torture follow"
    )
    parser.addoption("--all-bits", action="store_true", help="turn every bit of real messages")
    parser.addoption("--fuzz", type=int, default=20_000, help="how many inputs a fuzz test makes")
    parser.addoption(
        "--hostile", type=int, default=20, help="how many histories a hostile channel is given"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Part histories, so that each part has its own time, however many are asked for."""
    if "histories" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--hostile")
        parts = [min(_PART, asked - done) for done in range(0, asked, _PART)]
        metafunc.parametrize("histories", parts)

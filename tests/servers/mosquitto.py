"""A real Mosquitto for tests, see `simulators.servers.mosquitto`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulators.servers import mosquitto as server
from simulators.servers.programs import HOST, free_port
from tests.servers import debian

__all__ = ["HOST", "Mosquitto", "free_port", "running"]


class Mosquitto(server.Mosquitto):
    """One broker process of this machine's Mosquitto, which is installed where that may be."""

    def __init__(self, folder: Path, config: str = "allow_anonymous true") -> None:
        super().__init__(debian.require("mosquitto", "mosquitto"), folder, config)


@contextlib.contextmanager
def running(folder: Path, config: str = "allow_anonymous true") -> Iterator[Mosquitto]:
    """Run a broker in a folder of its own; `config` holds further lines of mosquitto.conf."""
    broker = Mosquitto(folder, config)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that anybody on this machine may use, and that forgets everything."""
    with running(tmp_path / "mosquitto") as broker:
        yield broker

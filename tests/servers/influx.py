"""A real InfluxDB for tests, see `simulators.servers.influx`."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulators.servers.influx import Door, Faults, InfluxServer
from tests.servers import debian

__all__ = ["Door", "Faults", "InfluxServer", "running"]


@contextlib.contextmanager
def running(folder: Path, *, max_rows: int = 0) -> Iterator[InfluxServer]:
    """Run an InfluxDB in a folder; `max_rows` is its limit of rows per answer, 0 for none."""
    server = InfluxServer(debian.require("influxd", "influxdb"), folder, max_rows=max_rows)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def shared_influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfluxServer]:
    """One InfluxDB for every test that only needs a bucket of its own."""
    with running(tmp_path_factory.mktemp("influx")) as server:
        yield server


@pytest.fixture
def influx(shared_influx: InfluxServer) -> Iterator[InfluxServer]:
    """Give the shared InfluxDB with a door that has no faults, and nothing seen yet."""
    shared_influx.door.faults = Faults()
    shared_influx.door.seen.clear()
    yield shared_influx
    shared_influx.door.faults = Faults()


@pytest.fixture
def own_influx(tmp_path: Path) -> Iterator[InfluxServer]:
    """An InfluxDB of the test's own, to be stopped and started."""
    with running(tmp_path / "influx") as server:
        yield server

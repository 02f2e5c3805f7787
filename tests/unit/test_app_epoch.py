"""The epoch: a chain never forks, whichever of spool and registry is lost."""

from pathlib import Path

import pytest

from agent.registry import Registry
from agent.sealed_app import open_epoch
from agent.spool import Spool


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.json")


def used(path: Path, epoch: int) -> Spool:
    spool = Spool(path)
    spool.set_meta({"epoch": epoch})
    return spool


def test_the_first_run_opens_epoch_one_and_the_next_goes_on(
    tmp_path: Path, registry: Registry
) -> None:
    spool = Spool(tmp_path / "spool.db")
    assert open_epoch(registry, spool) == 1
    spool.set_meta({"epoch": 1})
    assert open_epoch(registry, spool) == 1


def test_a_crash_before_anything_was_committed_does_not_reuse_the_epoch(
    tmp_path: Path, registry: Registry
) -> None:
    assert open_epoch(registry, Spool(tmp_path / "spool.db")) == 1
    # The file is there already, but no epoch was begun in it.
    assert open_epoch(registry, Spool(tmp_path / "spool.db")) == 2


def test_a_lost_spool_opens_the_next_epoch(tmp_path: Path, registry: Registry) -> None:
    registry.open_epoch(4, 0)
    assert open_epoch(registry, Spool(tmp_path / "spool.db")) == 5


def test_a_lost_registry_goes_on_in_the_spools_epoch(tmp_path: Path, registry: Registry) -> None:
    assert open_epoch(registry, used(tmp_path / "spool.db", 3)) == 3


def test_an_older_spool_beside_a_newer_registry_opens_a_new_epoch(
    tmp_path: Path, registry: Registry
) -> None:
    registry.open_epoch(6, 0)
    assert open_epoch(registry, used(tmp_path / "spool.db", 2)) == 7

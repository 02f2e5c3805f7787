"""The registry: the epoch and the enforced policies, in a file that is never half written."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tinydb import TinyDB

from agent.registry import AtomicStorage, Discoveries, Registry
from protocols.errors import MillgateError

ROOT = Path(__file__).parents[2]
NOW = 1_770_000_000
HASHES = [bytes([at]) * 32 for at in range(5)]


def test_a_new_registry_knows_no_epoch_and_no_policy(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "data" / "registry.json")
    assert registry.epoch == 0
    assert registry.last_policy() == (0, b"")
    registry.close()


def test_the_newest_epoch_counts_and_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    registry = Registry(path)
    for epoch in (1, 2, 3):
        registry.open_epoch(epoch, NOW + epoch)
        assert registry.epoch == epoch
    registry.close()
    assert Registry(path).epoch == 3


def test_the_newest_policy_counts_even_after_an_older_one_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    registry = Registry(path)
    for version in (1, 3, 2):
        registry.enforce(version, HASHES[version], NOW)
    assert registry.last_policy() == (3, HASHES[3])
    registry.close()
    assert Registry(path).last_policy() == (3, HASHES[3])


def test_a_policy_is_noted_once(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.json")
    for _ in range(3):
        registry.enforce(1, HASHES[1], NOW)
    noted = json.loads((tmp_path / "registry.json").read_text(encoding="utf-8"))
    assert [one["at"] for one in noted["policy"].values()] == [NOW]


def test_the_file_can_be_read_by_people(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.json")
    registry.open_epoch(1, NOW)
    registry.enforce(4, HASHES[4], NOW)
    lines = (tmp_path / "registry.json").read_text(encoding="utf-8").splitlines()
    assert any('"epoch": 1' in line for line in lines)
    assert any(HASHES[4].hex() in line for line in lines)


def test_the_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "registry.json"
    storage = AtomicStorage(path)
    storage.write({"a": {"1": {"x": 1}}})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        storage.write({"a": {"1": {"x": object()}}})
    assert path.read_bytes() == before
    assert storage.read() == {"a": {"1": {"x": 1}}}
    storage.write({"b": {}})
    assert storage.read() == {"b": {}}
    assert TinyDB(path, storage=AtomicStorage).tables() == {"b"}


WRITER = """
import os, sys
from pathlib import Path
from agent.registry import Registry

registry = Registry(Path(sys.argv[1]))
epoch = registry.epoch
while True:
    epoch += 1
    registry.open_epoch(epoch, epoch)
    os.write(1, b"%d\\n" % epoch)
"""


@pytest.mark.parametrize("after", [1, 10, 35])
def test_a_process_killed_at_any_moment_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, after: int
) -> None:
    path = tmp_path / "registry.json"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = b"".join(process.stdout.readline() for _ in range(after))
        process.kill()
        said += process.stdout.read()
    last = int(said.split()[-1])
    assert Registry(path).epoch in {last, last + 1}


NO_REGISTRY: dict[str, Any] = {
    "empty": b"",
    "cut": b'{"epoch": {"1": {"epo',
    "not JSON": b"epoch = 1",
    "not text": b"\xff\xfe\x00{}",
    "null": b"null",
    "a list": b"[]",
    "a number": b"5",
    "tables that are numbers": b'{"epoch": 5, "policy": 6}',
}


@pytest.mark.parametrize("data", NO_REGISTRY.values(), ids=NO_REGISTRY.keys())
def test_a_damaged_registry_is_one_plain_fault_never_a_new_beginning(
    tmp_path: Path, data: bytes
) -> None:
    """An agent that took it for empty would start its chain and its policies from nothing."""
    path = tmp_path / "registry.json"
    path.write_bytes(data)
    looks: list[Callable[[Registry], object]] = [
        lambda registry: registry.epoch,
        lambda registry: registry.last_policy(),
        lambda registry: registry.open_epoch(1, NOW),
    ]
    for look in looks:
        with pytest.raises(MillgateError) as caught:
            look(Registry(path))
        assert str(path) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == data


# What scans have found.


def test_the_newest_scan_of_a_place_is_kept_and_older_places_give_way(tmp_path: Path) -> None:
    discoveries = Discoveries(tmp_path)
    for at in range(100):
        discoveries.note(f"place-{at}", {"kind": "modbus", "units": []}, NOW + at)
    discoveries.note("place-99", {"kind": "opcua", "nodes": [{"path": "x"}] * 5000}, NOW + 200)
    discoveries.close()
    known = Discoveries(tmp_path).all()
    assert [one["place"] for one in known] == [f"place-{at}" for at in range(99, 67, -1)]
    assert known[0]["found"]["kind"] == "opcua"
    assert len(known[0]["found"]["nodes"]) == 2000


def test_what_a_scan_notes_never_touches_the_policies_that_were_enforced(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.json")
    registry.enforce(3, HASHES[3], NOW)
    before = (tmp_path / "registry.json").read_bytes()
    Discoveries(tmp_path).note("place", {"kind": "modbus", "units": []}, NOW)
    assert (tmp_path / "registry.json").read_bytes() == before

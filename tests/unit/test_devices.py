"""Devices change while the others go on; files that are being written are left alone."""

import asyncio
import os
from pathlib import Path

import pytest

from agent.devices import Devices
from agent.watched_files import WatchedFiles, files_of
from protocols.drivers import DeviceConfig, read_devices
from protocols.frame import Frame
from protocols.points import PointTable

TABLE = {"id": "p", "address": "holding:0", "type": "uint16"}


def device(name: str, **changes: object) -> dict[str, object]:
    settings = {"id": name, "kind": "modbus", "host": "127.0.0.1", "port": 9, "points": [TABLE]}
    return {**settings, **changes}


def devices(*tables: dict[str, object]) -> list[DeviceConfig]:
    return read_devices(list(tables), Path("agent.toml"))


async def test_only_what_changed_is_taken_from_its_place(tmp_path: Path) -> None:
    del tmp_path
    order: list[str] = []

    async def put(frame: Frame, _: PointTable) -> None:
        raise AssertionError(frame)

    async def renew() -> None:
        order.append("renewed")
        order.extend(sorted(one.table.device for one in found.collectors))

    old = devices(device("same"), device("gone"), device("other"))
    new = devices(device("new"), device("same"), device("other", interval="9s"))
    found = Devices(old, put, lambda: 0)
    same, other = found.collectors[0], found.collectors[2]
    async with asyncio.TaskGroup() as group:
        found.start(group)
        await asyncio.sleep(0.05)
        changes = await found.change(new, renew)
        found.stop()
    assert (changes.added, changes.removed, changes.changed) == (["new"], ["gone"], ["other"])
    assert order == ["renewed", "new", "other", "same"]
    assert list(found.tables) == ["new", "same", "other"]
    assert found.collectors[1] is same
    assert found.collectors[2] is not other
    assert not found.changes(new).any


def write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def test_files_count_as_changed_once_they_have_come_to_rest(tmp_path: Path) -> None:
    path, points = tmp_path / "agent.toml", tmp_path / "m.csv"
    write(path, '[[device]]\nid = "m"\npoints = "m.csv"\n')
    write(points, "id\n")
    assert files_of(path) == [path, points]
    watched = WatchedFiles(path)
    assert not watched.changed()
    write(points, "id,address\n")
    assert not watched.changed()  # it may still be written
    write(points, "id,address,type\n")
    assert not watched.changed()
    assert watched.changed()
    assert not watched.changed()  # told once
    write(path, "[[device]\n")
    assert [watched.changed() for _ in range(3)] == [False, True, False]
    points.unlink()  # still one of them, though the file that names it is broken
    assert [watched.changed() for _ in range(3)] == [False, True, False]
    write(path, '[[device]]\nid = "m"\npoints = "m.csv"\n')
    watched.read()
    assert [watched.changed() for _ in range(3)] == [False, False, False]


def test_a_file_that_did_not_change_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent.toml"
    write(path, "a = 1\n")
    watched, read = WatchedFiles(path), list[Path]()

    def note(one: Path) -> dict[str, object]:
        read.append(one)
        return {}

    monkeypatch.setattr("agent.watched_files.read_toml", note)
    assert not any(watched.changed() for _ in range(3))
    assert read == []
    write(path, "a = 12\n")
    assert [watched.changed() for _ in range(3)] == [False, True, False]
    assert read == [path]


def test_a_file_that_was_replaced_by_one_of_the_same_length_counts_as_changed(
    tmp_path: Path,
) -> None:
    path, part = tmp_path / "agent.toml", tmp_path / "part"
    write(path, "a = 1\n")
    watched = WatchedFiles(path)
    write(part, "a = 2\n")
    at = path.stat().st_mtime_ns
    os.utime(part, ns=(at, at))
    part.replace(path)
    assert [watched.changed() for _ in range(2)] == [False, True]

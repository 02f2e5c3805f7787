"""What must survive a power cut is on the disk with its name before it counts as written."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.mending import ASIDE, mark_damaged, open_mended
from agent.registry import AtomicStorage
from agent.spool import Spool
from agent.suspended import Keeper
from security.at_rest import encrypt_file, write_new
from security.files import write_whole
from security.keys import create_key_file
from security.policy.bundle import write_bundle
from security.secret import Secret

WORDS = Secret(b"correct horse battery")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_whole(path, b"x"),
        lambda path: write_bundle(path, b"x"),
        lambda path: write_new(path, Secret("x")),
        lambda path: AtomicStorage(path).write({}),
        lambda path: Keeper(path).note([], ["press/power"], 1),
    ],
)
def test_a_file_and_its_name_are_on_the_disk_before_the_call_returns(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = list[bool]()
    sync = os.fsync

    def note(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write(tmp_path / "file")
    assert synced[-2:] == [False, True]


def test_a_damaged_spool_is_moved_only_when_the_disk_knows_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut, one that was moved would else be taken for an old one, and thrown away."""
    path, order = tmp_path / "spool.db", list[str]()
    Spool(path).close()
    mark_damaged(path)
    replace = os.replace

    def note(path: Path, data: bytes) -> None:
        order.append("noted")
        write_whole(path, data)

    def move(before: str | Path, after: str | Path) -> None:
        order.append(Path(after).name)
        replace(before, after)

    monkeypatch.setattr("agent.mending.write_whole", note)
    monkeypatch.setattr(os, "replace", move)
    open_mended(path).close()
    assert order[0] == "noted"
    assert ASIDE in order


def test_what_a_crash_left_beside_a_key_does_not_keep_it_from_being_encrypted(
    tmp_path: Path,
) -> None:
    path = tmp_path / "agent.key"
    create_key_file(path, "ed25519")
    (tmp_path / ".agent.key.part").write_text("half")
    (tmp_path / f".agent.key.{os.getpid()}.part").write_text("half")
    encrypt_file(path, WORDS)
    assert "scrypt" in path.read_text("ascii").partition("\n")[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

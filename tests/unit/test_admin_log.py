"""The log of administrators' actions: nothing in it can be changed without its showing."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from security.admin_log import LogFault, as_text, read_log, record_admin

AT = 1_770_000_000


def written(path: Path, count: int = 4) -> list[bytes]:
    for number in range(count):
        record_admin(path, "invite", lambda: AT * 10**9, name=f"mill-{number}", minutes=15)
    return path.read_bytes().splitlines(keepends=True)


def test_it_tells_who_did_what_to_whom_and_when(tmp_path: Path) -> None:
    path = tmp_path / "data" / "admin.log"
    written(path)
    entries = read_log(path)
    assert [entry.facts["name"] for entry in entries] == [f"mill-{at}" for at in range(4)]
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert "2026-02-02 02:40:00Z" in as_text(entries[0])
    assert "invite  name=mill-0 minutes=15" in as_text(entries[0])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_file_it_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "admin.log") == []


@pytest.mark.parametrize("at", range(4))
def test_a_changed_line_is_named(tmp_path: Path, at: int) -> None:
    path = tmp_path / "admin.log"
    lines = written(path)
    lines[at] = lines[at].replace(f"mill-{at}".encode(), b"mill-9")
    path.write_bytes(b"".join(lines))
    with pytest.raises(LogFault, match=rf"admin\.log:{at + 1}: the log was changed here"):
        read_log(path)


def test_a_line_taken_out_put_in_or_moved_is_named(tmp_path: Path) -> None:
    path = tmp_path / "admin.log"
    lines = written(path)
    for order in ([0, 2, 3], [1, 2, 3], [0, 1, 1, 2, 3], [0, 2, 1, 3]):
        path.write_bytes(b"".join(lines[at] for at in order))
        with pytest.raises(LogFault, match="does not follow"):
            read_log(path)


def test_a_line_changed_together_with_its_digest_breaks_the_next(tmp_path: Path) -> None:
    path, other = tmp_path / "admin.log", tmp_path / "other.log"
    lines, others = written(path), written(other, 1)
    record_admin(other, "revoke", lambda: AT * 10**9, name="mill-1")
    forged = other.read_bytes().splitlines(keepends=True)[1]
    path.write_bytes(b"".join([others[0], forged, *lines[2:]]))
    with pytest.raises(LogFault, match=r"admin\.log:3"):
        read_log(path)


def test_cutting_off_the_end_shows_against_a_noted_head(tmp_path: Path) -> None:
    path = tmp_path / "admin.log"
    lines = written(path)
    head = read_log(path)[-1].digest
    assert read_log(path, head[:16])
    path.write_bytes(b"".join(lines[:3]))
    assert len(read_log(path)) == 3
    with pytest.raises(LogFault, match="no longer holds"):
        read_log(path, head[:16])


def test_what_a_crash_left_of_a_line_is_no_entry_and_hinders_none(tmp_path: Path) -> None:
    path = tmp_path / "admin.log"
    lines = written(path)
    path.write_bytes(b"".join(lines) + lines[0][:40])
    assert len(read_log(path)) == 4
    record_admin(path, "approve", name="mill-1")
    assert [entry.action for entry in read_log(path)][-2:] == ["invite", "approve"]


def test_nothing_is_appended_to_a_line_that_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "admin.log"
    lines = written(path)
    path.write_bytes(b"".join(lines[:3]) + lines[3].replace(b"mill-3", b"mill-9"))
    with pytest.raises(LogFault, match="newest line"):
        record_admin(path, "approve", name="mill-1")


def test_several_at_once_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "admin.log"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda at: record_admin(path, "invite", at=at), range(40)))
    assert {entry.facts["at"] for entry in read_log(path)} == set(range(40))


def test_a_line_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "admin.log"
    record_admin(path, "invite", name="x" * 10_000)
    assert len(json.loads(path.read_bytes())["facts"]["name"]) == 512


def test_what_cannot_be_recorded_is_told(tmp_path: Path) -> None:
    (tmp_path / "admin.log").mkdir()
    with pytest.raises(LogFault, match="cannot be written"):
        record_admin(tmp_path / "admin.log", "invite")
    with pytest.raises(LogFault, match="cannot be read"):
        read_log(tmp_path / "admin.log")

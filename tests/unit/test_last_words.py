"""However a process ends, its last line says why, where, and what to do; and it never ends with 0."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import millgate
from agent import process, supervisor
from protocols.errors import ConfigError, MillgateError
from protocols.last_words import UNFORESEEN, say_why
from protocols.unit import unit

VALUE = "4711.25"
OURS = MillgateError("it is not there", where="a.toml", remedy="write it")


def raised(error: Exception) -> Exception:
    """Return an exception that knows where it was raised."""
    try:
        raise error
    except Exception as found:  # noqa: BLE001 - whatever it is
        return found


def test_a_fault_that_nobody_foresaw_is_one_line_with_its_place_and_without_its_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert say_why(raised(KeyError(VALUE))) == UNFORESEEN
    (line,) = capsys.readouterr().err.splitlines()
    assert "KeyError at test_last_words.py:" in line
    assert "please report it" in line
    assert VALUE not in line


def test_what_the_system_refuses_is_said_with_its_file_and_a_remedy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(OSError, match="No such file") as found:
        (tmp_path / "none").read_bytes()
    assert say_why(found.value) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'none'}: No such file or directory" in line
    assert "check disk, permissions and ports" in line


def test_of_several_faults_each_has_a_line_and_the_highest_code_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inner = ExceptionGroup("", [raised(sqlite3.OperationalError(VALUE)), ConfigError([OURS, OURS])])
    assert say_why(ExceptionGroup("", [OURS, inner])) == UNFORESEEN
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a.toml: it is not there — write it"
    assert "OperationalError" in lines[1]
    assert lines[2:] == lines[:1] * 2


def test_where_lines_are_json_the_last_one_is_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLGATE_LOG", "json")
    say_why(OURS)
    found = json.loads(capsys.readouterr().err)
    assert (found["level"], found["message"]) == ("critical", str(OURS))


async def fail() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(asyncio.to_thread(dict[str, str]().__getitem__, VALUE))


def side() -> None:
    process.main(fail(), parent=0)


def supervising() -> None:
    raise SystemExit(supervisor.main(["agent.toml", "/nowhere", "0", "0", "0", ""]))


def front_door() -> None:
    millgate.main(["sim", "plant"])


@pytest.mark.parametrize("run", [side, supervising, front_door])
def test_a_task_that_fails_ends_every_kind_of_process_aloud(
    run: Callable[[], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "harden", lambda _: None)
    monkeypatch.setattr(process, "log_redacted", lambda: None)
    monkeypatch.setattr(supervisor, "log_plainly", lambda: None)

    async def broken(*_: object) -> int:
        await fail()
        return 0

    monkeypatch.setattr(supervisor.Supervisor, "__init__", lambda *_: None)
    monkeypatch.setattr(supervisor.Supervisor, "run", broken)
    monkeypatch.setattr(millgate, "_run", lambda _: asyncio.run(broken()))
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == UNFORESEEN
    (line,) = capsys.readouterr().err.splitlines()
    assert "KeyError" in line
    assert VALUE not in line


@pytest.mark.parametrize("name", ["agent", "aggregator"])
def test_systemd_starts_again_whatever_ended_but_for_a_faulty_configuration(name: str) -> None:
    text = unit(name, Path("/etc/millgate.toml"), [Path("/srv")], "daemon", "en")
    assert "\nRestart=on-failure\n" in text
    assert f"\nRestartPreventExitStatus={ConfigError.exit_code}\n" in text
    assert ConfigError.exit_code not in {UNFORESEEN, MillgateError.exit_code, 0}

"""The simulators as processes: ready files, stopping, being killed, and plain faults."""

import json
import logging
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import create_connection, create_server
from typing import Any

import pytest
from typer.testing import CliRunner

from protocols.frame import SECOND
from simulators.cli import app
from simulators.plant import METER, Plant
from simulators.truth import read_truth

ROOT = Path(__file__).parents[2]
TIMEOUT = 60
ENGLISH = {"MILLGATE_LANG": "en"}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "simulators.cli", *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **ENGLISH, "COLUMNS": "100", **more}


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(*words),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str], path: Path) -> dict[str, Any]:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end and process.poll() is None:
        if path.exists():
            report: dict[str, Any] = json.loads(path.read_text())
            if report["pid"] == process.pid:
                return report
        time.sleep(0.01)
    raise AssertionError(process.communicate())


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    return out, err


def energy(port: int) -> int:
    with create_connection(("127.0.0.1", port), timeout=TIMEOUT) as wire:
        wire.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, 12))
        answer = b""
        while len(answer) < 33:
            answer += wire.recv(64)
    value: int = struct.unpack_from(">I", answer, 9)[0]
    return value


def test_a_stopped_plant_leaves_every_reading_in_the_truth_file(tmp_path: Path) -> None:
    truth, file = tmp_path / "truth.jsonl", tmp_path / "ready.json"
    words = ("plant", "--seed", "11", "--truth", str(truth), "--ready", str(file))
    with started(*words) as process:
        report = ready(process, file)
        served = [energy(report["modbus_port"]) for _ in range(20)]
        out, err = stop(process)
        assert (process.returncode, err) == (0, "")
        assert str(report["modbus_port"]) in out
    found = read_truth(truth)
    assert found.plant == Plant(11, report["start_ns"])
    assert found.energy.tolist() == served
    assert served == [found.plant.meter(t).energy for t in found.time.tolist()]
    assert report["kind"] == "millgate-ready/1"
    assert report["seed"] == 11
    assert report["opcua_url"] == f"opc.tcp://127.0.0.1:{report['opcua_port']}/"
    assert json.loads(truth.read_text().splitlines()[0])["devices"]["meter"] == METER


def test_a_killed_plant_continues_where_it_was_on_the_same_ports(tmp_path: Path) -> None:
    truth, file = tmp_path / "truth.jsonl", tmp_path / "ready.json"
    words = ["plant", "--truth", str(truth), "--ready", str(file)]
    with started(*words, "--seed", "11", "--energy-start", "4294967290") as process:
        first = ready(process, file)
        before = energy(first["modbus_port"])
        flushed(truth, 1)
        stop(process, signal.SIGKILL)
    words += ["--modbus-port", str(first["modbus_port"]), "--opcua-port", str(first["opcua_port"])]
    with started(*words) as process:
        second = ready(process, file)
        after = energy(second["modbus_port"])
        assert stop(process, signal.SIGINT)[1] == ""
        assert process.returncode == 0
    unchanged = ("seed", "start_ns", "energy_start", "modbus_port", "opcua_port")
    assert {name: first[name] for name in unchanged} == {name: second[name] for name in unchanged}
    found = read_truth(truth)
    assert found.plant == Plant(11, first["start_ns"], 4_294_967_290)
    assert found.energy.tolist() == [before, after]


def flushed(truth: Path, readings: int) -> None:
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        with suppress(FileNotFoundError):
            if len(read_truth(truth).time) >= readings:
                return
        time.sleep(0.01)
    raise AssertionError("the reading never reached the truth file")


def test_a_stated_start_is_kept(tmp_path: Path) -> None:
    truth, file = tmp_path / "truth.jsonl", tmp_path / "ready.json"
    result = run(
        *("plant", "--truth", str(truth), "--ready", str(file), "--duration", "1s"),
        *("--start", "2026-01-31T08:00:00+08:00"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(file.read_text())["start_ns"] == 1_769_817_600 * SECOND


def test_a_replay_serves_and_stops(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    words = (
        "replay",
        "--generate",
        "3",
        "--seed",
        "9",
        "--ready",
        str(file),
        "--energy-start",
        "7",
    )
    with started(*words) as process:
        report = ready(process, file)
        with create_connection(("127.0.0.1", report["modbus_port"]), timeout=TIMEOUT) as wire:
            wire.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, 2) * 5)
            answers = b""
            while len(answers) < 5 * 13:
                answers += wire.recv(4096)
        assert stop(process) == (
            f"replay: 3 rows at 127.0.0.1:{report['modbus_port']} (Modbus TCP)\n",
            "",
        )
        assert process.returncode == 0
    served = [struct.unpack_from(">I", answers, 13 * at + 9)[0] for at in range(5)]
    assert served[0] == 7
    assert (served[3] - served[0]) == round(float(report["total_kwh"]) * 100)
    assert served[3] == served[4]


def test_totals_are_exact_and_the_same_each_time() -> None:
    first, second = (run("replay", "--generate", "35040", "--seed", "3", "--totals") for _ in "ab")
    assert first.stdout == second.stdout
    totals = json.loads(first.stdout)
    assert (totals["rows"], totals["readings"], totals["interval_s"]) == (35_040, 35_041, 900)
    assert totals["total_kwh"] == "1515262.05"


def test_mended_labels_are_said_once(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    rows = ["date,Usage_kWh", "01/01/2018 23:45,1", "01/01/2018 00:00,1", "02/01/2018 00:15,1"]
    path.write_text("\n".join(rows))
    result = run("replay", "--csv", str(path), "--timezone", "+09:00", "--duration", "1")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("1 labels of midnight")


def test_a_broker_starts_and_stops(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    with started("broker", "--ready", str(file)) as process:
        report = ready(process, file)
        assert report["mqtt_url"] == f"mqtt://127.0.0.1:{report['mqtt_port']}"
        with create_connection(("127.0.0.1", report["mqtt_port"]), timeout=TIMEOUT):
            out, err = stop(process)
        assert (process.returncode, err) == (0, "")
        assert "demo and tests only" in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("plant --truth {t}/t --start yesterday", "--start: is not a moment"),
        ("plant --truth {t}/t --start 2026-01-01T00:00:00", "--start: is not a moment"),
        ("plant --truth {t}/t --start 2999-01-01T00:00:00Z", "--start: the plant's start"),
        ("plant --truth {t}/t --energy-start 4294967296", "--energy-start: does not fit"),
        ("plant --truth {t}/t --duration soon", "--duration: not a duration"),
        ("plant --truth {t}", "{t}: the truth file cannot be used"),
        ("plant --truth {t}/t --ready {t}/t/r --duration 1", "the ready file cannot be written"),
        ("plant --truth {t}/t --modbus-port {taken}", "127.0.0.1:{taken}: cannot listen"),
        ("plant --truth {t}/t --opcua-port {taken}", "127.0.0.1:{taken}: cannot listen"),
        ("broker --port {taken}", "127.0.0.1:{taken}: cannot listen"),
        ("replay --generate 5 --port {taken}", "127.0.0.1:{taken}: cannot listen"),
        ("replay", "give either --csv or --generate"),
        ("replay --generate 5 --csv {t}/none", "give either --csv or --generate"),
        ("replay --generate 0", "--generate: the number of rows"),
        ("replay --generate 5 --interval 0s", "--interval: the interval must be"),
        ("replay --generate 5 --energy-start 4294967296", "--energy-start: does not fit"),
        ("replay --csv {t}/none", "--timezone: the time zone"),
        ("replay --csv {t}/none --timezone Mars", "--timezone: there is no such time zone"),
        ("replay --csv {t}/none --timezone +09:00", "{t}/none: the recording cannot be read"),
    ],
)
def test_a_fault_is_one_line_without_a_traceback(
    tmp_path: Path, words: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLGATE_LANG", "en")
    for library in ("asyncua", "amqtt"):
        monkeypatch.setattr(logging.getLogger(library), "level", logging.WARNING)
    with create_server(("127.0.0.1", 0)) as taken:
        names = {"t": str(tmp_path), "taken": str(taken.getsockname()[1])}
        result = CliRunner().invoke(app, words.format(**names).split())
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit)
    assert says.format(**names) in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_is_in_the_readers_language() -> None:
    for name in ("plant", "replay", "broker"):
        english, chinese = run(name, "--help"), run(name, "--help", MILLGATE_LANG="zh_CN")
        assert "Example" in english.stdout
        assert f"millgate sim {name}" in english.stdout
        assert "示例" in chinese.stdout
        assert f"millgate sim {name}" in chinese.stdout


def test_protocol_libraries_load_only_when_they_serve() -> None:
    code = (
        "import sys, simulators.cli, simulators.app, simulators.judge;"
        "print([name for name in ('asyncua', 'pymodbus', 'amqtt') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"

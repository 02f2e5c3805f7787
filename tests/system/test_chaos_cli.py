"""The misbehaving devices as commands: ready files, seasons, and plain faults."""

import asyncio
import json
import logging
import os
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
from asyncua.client.client import Client
from typer.testing import CliRunner

from simulators.cli import app
from simulators.faults.catalogue import MODBUS, MODBUS_SHAPES, OPCUA, PROXY
from simulators.faults.modbus_wire import HOLDING, read_request

ROOT = Path(__file__).parents[2]
TIMEOUT = 60


@contextmanager
def started(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a command until it is ready; gives the process and what its ready file says."""
    file = folder / "ready.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "simulators.cli", *words, "--ready", str(file)],
        cwd=ROOT,
        env={**os.environ, "MILLGATE_LANG": "en", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + TIMEOUT
        while not file.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        if not file.exists():
            raise AssertionError(process.communicate(timeout=TIMEOUT))
        yield process, json.loads(file.read_text())
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> str:
    process.terminate()
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, "")
    return out


def ask(port: int, requests: bytes, size: int) -> bytes:
    """Send requests and return so many bytes of what is answered, or less at the end."""
    with create_connection(("127.0.0.1", port), timeout=TIMEOUT) as wire:
        wire.sendall(requests)
        came = b""
        while len(came) < size and (piece := wire.recv(size - len(came))):
            came += piece
    return came


def test_a_modbus_device_follows_its_script(tmp_path: Path) -> None:
    script = "ok*1,exception-6*1,empty-reply"
    words = ("chaos", "modbus", "--fault", script, "--units", "5", "--seed", "3")
    with started(tmp_path, *words) as (process, report):
        requests = b"".join(read_request(5, HOLDING, 37, 1, number) for number in (1, 2, 3))
        answers = ask(report["modbus_port"], requests, 11 + 9 + 9)
        out = stopped(process)
    assert answers[9:11] == struct.pack(">H", 5037)
    assert answers[18:20] == b"\x83\x06"
    assert answers[27:29] == b"\x03\x00"
    assert (report["units"], report["faults"], report["seed"]) == ([5], [script], 3)
    assert out.splitlines()[-1] == "3 requests; exception-6 1, empty-reply 1"


def test_a_fault_has_its_season(tmp_path: Path) -> None:
    words = ("chaos", "modbus", "--fault", "refused", "--for", "500ms")
    with started(tmp_path, *words) as (_, report):
        with pytest.raises(ConnectionRefusedError):
            ask(report["modbus_port"], b"", 0)
        end = time.monotonic() + TIMEOUT
        answer = b""
        while not answer and time.monotonic() < end:
            with suppress(ConnectionRefusedError):
                answer = ask(report["modbus_port"], read_request(1, HOLDING, 7, 1), 11)
    assert answer[9:] == struct.pack(">H", 1007)


def test_a_relay_stands_in_front_of_any_device(tmp_path: Path) -> None:
    with (
        started(tmp_path, "chaos", "modbus") as (_, device),
        started(
            tmp_path / "relay",
            *("proxy", "--to", f"127.0.0.1:{device['modbus_port']}"),
            *("--fault", "cut", "--pieces", "1", "--way", "back"),
        ) as (process, relay),
    ):
        answer = ask(relay["port"], read_request(1, HOLDING, 0, 50), 109)
        whole = ask(device["modbus_port"], read_request(1, HOLDING, 0, 50), 109)
        stopped(process)
    assert relay["to"] == f"127.0.0.1:{device['modbus_port']}"
    assert len(whole) == 109
    assert whole.startswith(answer)
    assert len(answer) < len(whole)


async def test_an_opcua_server_restarts_again_and_again(tmp_path: Path) -> None:
    words = ("chaos", "opcua", "--fault", "namespace-order", "--every", "300ms", "--away", "50ms")
    with started(tmp_path, *words, "--nodes", "6") as (process, report):
        orders: set[tuple[str, ...]] = set()
        end = time.monotonic() + TIMEOUT
        while len(orders) < 2 and time.monotonic() < end:
            with suppress(OSError, TimeoutError):
                async with Client(report["opcua_url"], timeout=1) as client:
                    orders.add(tuple(await client.get_namespace_array()))
            await asyncio.sleep(0.05)
        out = stopped(process)
    assert len(orders) == 2
    assert [node["type"] for node in report["nodes"][:2]] == ["Int32", "UInt32"]
    assert "namespace-order" in out.splitlines()[-1]


COMMANDS = ["chaos modbus", "chaos opcua", "proxy", "capture"]
ASK_ALL = f"""
import json
from typer.testing import CliRunner
from simulators.cli import app
texts = {{name: CliRunner().invoke(app, [*name.split(), "--help"], prog_name="millgate sim").output
         for name in {COMMANDS}}}
texts["list"] = CliRunner().invoke(app, ["chaos", "list"]).output
print(json.dumps(texts))
"""


@pytest.mark.parametrize(
    ("language", "example", "late"), [("en", "Example", "answer"), ("zh_CN", "示例", "迟到")]
)
def test_help_and_names_are_in_the_readers_language(language: str, example: str, late: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK_ALL],
        cwd=ROOT,
        env={**os.environ, "MILLGATE_LANG": language, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    texts = json.loads(done.stdout)
    names = dict(
        line.split(maxsplit=1) for line in texts.pop("list").splitlines() if line[0] == " "
    )
    assert set(names) == {*MODBUS, *MODBUS_SHAPES, *OPCUA, *PROXY}
    assert late in names["late-reply"]
    for name, text in texts.items():
        assert example in text
        assert f"millgate sim {name}" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("chaos modbus --fault garbag", "--fault: there is no fault 'garbag'"),
        ("chaos modbus --fault ok*3,garbag", "did you mean 'garbage'"),
        ("chaos modbus --fault garbage*2 --fault twice", "--fault: a script stands alone"),
        ("chaos modbus --units 0", "--units: are not unit ids"),
        ("chaos modbus --units 1,x", "--units: are not unit ids"),
        ("chaos modbus --late soon", "--late: not a duration"),
        ("chaos modbus --port {taken}", "127.0.0.1:{taken}: cannot listen"),
        ("chaos modbus --duration 1 --ready {t}/f/r", "the ready file cannot be written"),
        ("chaos opcua --fault restrt", "did you mean 'restart'"),
        ("chaos opcua --every 0", "--every: is too short"),
        ("chaos opcua --port {taken}", "127.0.0.1:{taken}: cannot listen"),
        ("proxy --to nowhere", "--to nowhere: is not an address"),
        ("proxy --to 127.0.0.1:99999", "is not an address"),
        ("proxy --to 127.0.0.1:1 --way up", "--way: is not a direction"),
        ("proxy --to 127.0.0.1:1 --fault dela", "did you mean 'delay'"),
        ("capture {t}/none", "{t}/none: the capture cannot be read"),
        ("capture {t}/f", "{t}/f: is not a pcap file"),
    ],
)
def test_a_wrong_word_is_one_line_with_its_remedy(
    tmp_path: Path, words: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLGATE_LANG", "en")
    for library in ("asyncua", "amqtt"):
        # Commands quieten them for the rest of their process, which here is that of all tests.
        monkeypatch.setattr(logging.getLogger(library), "level", logging.WARNING)
    (tmp_path / "f").write_text("no capture")
    with create_server(("127.0.0.1", 0)) as taken:
        names = {"t": str(tmp_path), "taken": str(taken.getsockname()[1])}
        result = CliRunner().invoke(app, words.format(**names).split())
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit)
    assert says.format(**names) in result.stderr
    assert result.stderr.count("\n") == 1


def test_protocol_libraries_load_only_when_they_serve() -> None:
    code = (
        "import sys, simulators.cli, simulators.faults.app;"
        "print([name for name in ('asyncua', 'pymodbus') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"

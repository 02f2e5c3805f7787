"""The five minutes of docs/devices.md, command by command, on the simulated plant."""

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cli import app as agent_app
from agent.config import read_config
from aggregator.cli import app as brain_app
from security.cli import policy_app
from tests.documents import ROOT, blocks, text
from tests.mill_folder import call

ROOMS = {"agent": agent_app, "aggregator": brain_app, "policy": policy_app}
LONG = 60
RAW = ("probe", "read")


def commands() -> list[list[str]]:
    page = text("docs/devices.md")
    chapter = page[page.index("### Five minutes") : page.index("### Looking around")]
    lines = [line for block in blocks(chapter, "") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


@contextmanager
def plant(folder: Path, words: list[str]) -> Iterator[dict[str, Any]]:
    """Run the plant on ports that the kernel picks."""
    ready = folder / "ready.json"
    at = words.index("--modbus-port")
    code = "import millgate; millgate.main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words[:at], "--ready", str(ready)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + LONG
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield json.loads(ready.read_text(encoding="utf-8"))
    finally:
        process.terminate()
        process.wait(LONG)


def describe(table: Path) -> None:
    """Do what a person does in the spreadsheet."""
    content = table.read_text(encoding="utf-8-sig")
    meaning = {"totalcount": "pcs,production.total", "goodcount": "pcs,production.good"}
    lines = []
    for line in content.splitlines():
        cells = line.split(",")
        known = meaning.get(cells[0])
        lines.append(",".join([*cells[:3], *known.split(","), cells[5]]) if known else line)
    table.write_text("\n".join(lines), encoding="gb18030")


def test_the_five_minutes_of_the_document_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    todo = commands()
    start = next(words for words in todo if words[0] == "sim")
    start[start.index("plant.jsonl")] = str(tmp_path / "plant.jsonl")
    with plant(tmp_path, start) as ready:
        for line in todo:
            if line[0] == "sim":
                continue
            words = [
                word.replace("127.0.0.1:1502", f"127.0.0.1:{ready['modbus_port']}").replace(
                    "opc.tcp://127.0.0.1:4840", ready["opcua_url"].rstrip("/")
                )
                for word in line
            ]
            more = ["--redirect-raw-values"] if words[1] in RAW else []
            more += ["--per-second", "200"] if words[1] == "scan" else []
            done = call(*words[1:], *more, room=ROOMS[words[0]])
            assert done.exit_code == 0, (words, done.output)
            if words[1:3] == ["points", "export"]:
                describe(tmp_path / "machine-1.csv")
    meter, machine = read_config(tmp_path / "mill" / "agent.toml").devices
    assert {point.id for point in meter.points} >= {"energy", "power", "power-factor"}
    kinds = {point.id: point.measurand for point in machine.points}
    assert kinds["goodcount"] == "production.good"
    policy = (tmp_path / "mill" / "policy.toml").read_text(encoding="utf-8")
    assert policy.count("[[point]]") == len(meter.points) + len(machine.points)

"""The demo as a newcomer runs it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.system.mills import python


@pytest.mark.timeout(180)
def test_the_demo_ends_with_an_account_that_holds_and_leaves_a_report(tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    run = subprocess.run(
        python("demo", "--duration", "20", "--report", str(report), "--seed", "5"),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(report.read_text("utf-8"))
    assert found["produced"] == (
        found["consumed"] + found["withheld"] + found["open"] + found["dropped"]
    )
    assert found["released"] == found["stored"] > 0
    assert found["withheld"] > 0
    assert (found["waiting"], found["refused"], found["lost"], found["wrong"]) == (0, 0, 0, 0)
    assert found["balanced"] is True
    assert all(
        found["series"][name] > 0
        for name in ("ff_energy", "ff_equipment_state", "ff_reading", "ce_activity", "ce_emission")
    )
    assert "secret_furnace_setpoint" in run.stdout
    assert "#token=" in run.stdout


def test_the_demo_speaks_chinese_to_chinese_readers() -> None:
    run = subprocess.run(
        python("demo", "--help"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "MILLGATE_LANG": "zh_CN.UTF-8"},
    )
    assert "模拟工厂" in run.stdout

"""The demo as a newcomer runs it."""

import asyncio
import json
import os
import re
import subprocess
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.calendars import Calendar, read_calendar
from aggregator.facts import KINDS, parse_csv
from aggregator.localtime import LocalTime
from protocols.frame import SECOND
from simulators import demo, demo_site
from simulators.demo import DemoFault, Mill
from tests.system.mills import python


@pytest.mark.timeout(400)
def test_the_demo_ends_with_an_account_that_holds_and_leaves_a_report(tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    run = subprocess.run(
        python("demo", "--duration", "20", "--report", str(report), "--seed", "5"),
        capture_output=True,
        text=True,
        timeout=350,
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
    assert found["series"]["ce_emission"] == 2 * found["series"]["ce_activity"]
    assert re.search(r"ff_oee +│ machine-1 +│ 0\.\d", run.stdout)
    assert "secret_furnace_setpoint" in run.stdout
    assert "#token=" in run.stdout


class Slow(Mill):
    """A mill whose devices are heard of one after the other."""

    async def arrived(self) -> list[dict[str, Any]]:
        self.port += 1
        heard = ["ff_energy", "ff_equipment_state"][: self.port // 2]
        return [{"measurement": name} for name in heard]


async def test_a_slow_machine_is_waited_for_until_every_device_is_heard_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_POLL_S", 0.001)
    mill = Slow(tmp_path)
    await mill.first_values(asyncio.Event())
    assert mill.port == 4


async def test_a_mill_that_never_sends_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_POLL_S", 0.001)
    monkeypatch.setattr(demo, "_FIRST_S", 0.01)
    (tmp_path / "agent.log").write_text("no broker\n", encoding="utf-8")
    with pytest.raises(DemoFault, match=r"ff_energy.*no broker"):
        await Mill(tmp_path).first_values(asyncio.Event())


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


def test_what_is_made_up_for_the_demo_says_so_and_is_what_the_brain_takes(tmp_path: Path) -> None:
    table = demo_site.tell(tmp_path, "machine-1", datetime(2026, 12, 31, 20, tzinfo=UTC))
    facts = parse_csv(table.read_text("utf-8"), "the demo's facts")
    assert {fact.source for fact in facts} == {demo_site.SOURCE}
    for day in (date(2026, 12, 31), date(2027, 1, 1)):
        there = {fact.name for fact in facts if fact.holds_on(day)}
        assert there == set(KINDS) - {"rated_power"}
    calendar = read_calendar(tmp_path / "calendars", demo_site.ENTERPRISE, demo_site.SITE)
    assert calendar is not None
    hours = np.arange(7 * 24, dtype=np.int64) * 3600 * SECOND
    assert (Calendar(calendar, LocalTime("Asia/Shanghai")).planned_s(hours, 3600) == 3600).all()

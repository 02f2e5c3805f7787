"""A running agent goes over to a changed configuration and loses no sample; a faulty one changes nothing."""

import asyncio
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from simulators.demo import Mill
from tests.servers.mosquitto import running
from tests.system.mills import MOSQUITTO, edit, plant_mill
from tests.system.test_kills import LAST_TRAFFIC_S, check
from tests.system.test_sides import SLOT, processes

pytestmark = pytest.mark.timeout(240)

WAIT_S: Final = 60.0

SPARE: Final = """
[[device]]
id = "spare"
kind = "modbus"
host = "127.0.0.1"
port = {port}
interval = "1s"

[[device.points]]
id = "energy"
address = "holding:0"
type = "uint32"
"""


async def told(mill: Mill, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until what `agent status` asks for is as it should be, and return it."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        report = await mill.inside() or {}
        if report.get("policy") and "outputs" in report and holds(report):
            return report
        assert asyncio.get_running_loop().time() < deadline, report
        await asyncio.sleep(0.2)


def books(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {device["id"]: device for device in report["devices"]}


async def test_devices_come_go_and_change_while_the_others_go_on(tmp_path: Path) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with plant_mill(tmp_path, 17, broker) as mill:
            before = await processes(mill)
            start = books(await told(mill, lambda found: len(found["devices"]) == 2))
            whole = mill.agent_toml.read_text("utf-8")

            # Half-written, and nobody goes on writing: it is told, and changes nothing.
            mill.agent_toml.write_text(whole[: whole.index("[[device]]") + 40], "utf-8")
            await told(mill, lambda found: bool(found["configuration"]["problem"]))
            assert await processes(mill) == before

            port = re.findall(r"(?m)^port = (\d+)", whole)[-1]
            edit_whole(mill, whole + SPARE.format(port=port))
            report = await told(mill, lambda found: "spare" in books(found))
            await told(mill, lambda found: books(found)["spare"]["account"]["produced"] > 0)
            assert report["configuration"]["problem"] == ""

            # By signal, at once: one device is read more slowly, the new one is gone.
            edit_whole(mill, whole.replace('interval = "500ms"', 'interval = "750ms"'))
            os.kill(mill.processes["agent"].pid, signal.SIGHUP)
            await told(mill, lambda found: "spare" not in books(found))
            after = books(await told(mill, lambda found: len(found["devices"]) == 2))
            for name, device in after.items():
                assert device["losses"] == 0
                assert device["account"]["produced"] > start[name]["account"]["produced"]
            assert await processes(mill) == before

            # What the sealed side runs with changes: only that side starts anew.
            edit(mill.agent_toml, "[broker]\n", "[broker]\nkeepalive_s = 30\n")
            report = await told(
                mill, lambda found: found["processes"]["sealed"]["pid"] != before["sealed"]
            )
            assert report["processes"]["gate"] == {"pid": before["gate"], "restarts": 0}
            assert report["processes"]["sealed"]["restarts"] == 0

            await asyncio.sleep(LAST_TRAFFIC_S / 2)
            await mill.stop("agent")
            check(await mill.settled_account(tolerance=SLOT))


def edit_whole(mill: Mill, text: str) -> None:
    mill.agent_toml.write_text(text, "utf-8")

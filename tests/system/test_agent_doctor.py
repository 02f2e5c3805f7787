"""The agent's doctor: one line for everything that is wrong, and what to do about it."""

from pathlib import Path

import pytest

from simulators.demo import Mill, command
from tests.servers.mosquitto import running
from tests.system.mills import MOSQUITTO, replay_mill, until

pytestmark = pytest.mark.timeout(180)


async def doctor(mill: Mill) -> list[str]:
    """Return the findings; a folded line is one."""
    text = await command("agent", "doctor", str(mill.agent_toml), may_fail=True)
    assert "Traceback" not in text
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith(("good", "notice", "FAULT")):
            found.append(line)
        elif found:
            found[-1] += f" {line.strip()}"
    return [" ".join(line.split()) for line in found]


def faults(found: list[str]) -> list[str]:
    return [line for line in found if line.startswith("FAULT")]


async def test_a_doctor_finds_nothing_wrong_with_a_good_agent_and_names_what_breaks(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        recording = ("--generate", "9600", "--seed", "1")
        async with replay_mill(tmp_path, broker, "mqtt311", *recording) as (mill, _):
            await mill.start("aggregator")
            before = await doctor(mill)
            assert faults(before) == []
            assert "good device steel-meter answers" in before
            assert any("not running" in line for line in before)

            await mill.start("agent", ready=False)

            def connected() -> bool:
                """The agent says that its device is connected."""
                log = (tmp_path / "agent.log").read_text("utf-8")
                return "steel-meter: connected" in log

            await until(connected, 60, mill)
            while_running = await doctor(mill)
            assert faults(while_running) == []
            assert "good device steel-meter connected" in while_running

            await mill.stop("agent")
            await mill.stop("replay")
            (tmp_path / "mill" / "keys" / "gate.key").chmod(0o640)
            (tmp_path / "mill" / "policy.signed").unlink()
            broker.kill()
            wrong = faults(await doctor(mill))
            assert [line.split()[1] for line in wrong] == ["keys", "policy", "broker", "device"]
            assert "gate.key" in wrong[0]
            assert f"127.0.0.1:{broker.port}" in wrong[2]
            assert "steel-meter" in wrong[3]

"""A real agent whose wall clock jumps, drifts and goes backwards: no slot twice, none missing unsaid, none wrong."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from simulators.demo import Mill
from tests.servers.mosquitto import running
from tests.system.mills import MOSQUITTO, check, plant_mill
from tests.system.test_hot_reload import WAIT_S, told

pytestmark = pytest.mark.timeout(400)

SLOT: Final = "2s"
"""As long as a reading of the meter holds: a shorter slot may rightly show one of the slot before it."""

STEADY: Final = '\n[clock]\nsteady = "3s"\n'


def policy(report: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = report["policy"]
    return found


def released(report: dict[str, Any]) -> int:
    found: int = report["outputs"]["released"]
    return found


async def goes_on(mill: Mill) -> None:
    """Wait until the policy is in force, both devices answer, and more slots leave than before."""
    report = await told(mill, lambda found: policy(found)["in_force"])
    before = released(report)
    await told(mill, lambda found: released(found) >= before + 12)


async def refuses(mill: Mill) -> None:
    """Wait until the agent says that its clock stands before the policy."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while "not yet valid" not in str((await mill.inside() or {}).get("problem")):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.2)


def in_spool(mill: Mill) -> tuple[int, int]:
    """Return the newest epoch, and how many messages there are."""
    with closing(sqlite3.connect(mill.folder / "mill/data/spool.db")) as db:
        epoch, messages = db.execute("SELECT MAX(epoch), COUNT(*) FROM batch").fetchone()
    return epoch, messages


async def test_no_jump_or_drift_of_the_agents_clock_doubles_loses_or_falsifies_a_slot(
    tmp_path: Path,
) -> None:
    hand = tmp_path / "clock"
    hand.write_text("0", "utf-8")

    def wind(mill: Mill) -> None:
        with mill.agent_toml.open("a", encoding="utf-8") as file:
            file.write(STEADY)
        run = ("millgate", "agent", "run", str(mill.agent_toml))
        mill.commands["agent"] = ("sim", "clock", "--file", str(hand), "--", *run)

    async def shows(mill: Mill, shift: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        hand.write_text(shift, "utf-8")
        await told(mill, holds)

    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with plant_mill(tmp_path, 23, broker, slot=SLOT, adapt=wind) as mill:
            await goes_on(mill)

            # An hour ahead, and right again before the clock is believed: nothing leaves meanwhile.
            await shows(mill, "+1h", lambda found: "jumped" in policy(found)["halted"])
            await shows(mill, "0", lambda found: policy(found)["in_force"])
            await goes_on(mill)

            # Ten minutes back: before what was released, so however even it goes.
            await shows(mill, "-10m", lambda found: "behind" in policy(found)["halted"])
            report = await told(mill, lambda found: bool(found["brain_clock"]["line"]))
            assert report["brain_clock"]["ahead_s"] == pytest.approx(-600, abs=30)
            before = released(report)
            await asyncio.sleep(1.5)
            assert released(await told(mill, lambda _: True)) == before
            await shows(mill, "0", lambda found: not found["brain_clock"]["line"])
            await goes_on(mill)

            # Two in a hundred fast for a while, and set right by a small step: followed, no jump.
            hand.write_text("0 0.02", "utf-8")
            await goes_on(mill)
            hand.write_text("0", "utf-8")
            assert policy(await told(mill, lambda _: True))["in_force"]

            # Started with a clock that went backwards meanwhile, to before the policy was signed.
            await mill.stop("agent")
            kept = in_spool(mill)
            hand.write_text("-1h", "utf-8")
            await mill.start("agent", ready=False)
            await refuses(mill)
            assert in_spool(mill) == kept
            await shows(mill, "0", lambda found: policy(found)["in_force"])
            await goes_on(mill)

            await mill.stop("agent")
            report = await mill.settled_account(tolerance=SLOT)
            check(report)
            # What nobody saw is said: slots of means and states that are missing.
            assert report["absent"] > 0
            assert all(one["balanced"] and one["kept"] for one in report["chains"])
            # All of it in the first epoch: no baseline was lost.
            assert in_spool(mill)[0] == 1

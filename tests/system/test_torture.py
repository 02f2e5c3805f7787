"""Power cuts and full disks: whatever is killed at whatever moment, everything arrives once and right.

`--kills 500 --ordeals` goes the whole way and judges after each step, as `millgate sim torture --kills 500` does.
"""

from pathlib import Path

import pytest

from simulators.torture.plan import FULL_AGENT, FULL_BRAIN, ORDEALS, make_plan
from simulators.torture.run import settle, torture
from simulators.torture.yard import Wishes, yard
from tests.servers.debian import require

pytestmark = pytest.mark.timeout(1200)


async def test_nothing_is_lost_doubled_or_wrong_whatever_is_killed_alone_and_in_pairs(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    require("mosquitto", "mosquitto")
    require("influxd", "influxdb")
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--seed")
    # What restored copies do, tests of their own show.
    ordeals = ORDEALS if pytestconfig.getoption("--ordeals") else (FULL_AGENT, FULL_BRAIN)
    # Everything twice as fast as by command, and so half as long.
    async with yard(tmp_path, Wishes(seed, slot="1s", poll="250ms")) as found:
        plan = make_plan(kills, seed, found.victims, ordeals, pace=0.5)
        every = 1 if pytestconfig.getoption("--ordeals") else 3
        results = [result async for result in torture(found, plan, every)]
        end = await settle(found, results[-1].figures.declared)
    assert sum(len(step.victims) for step in plan) == kills
    assert (end.lost, end.doubled, end.wrong, end.refused, end.waiting) == (0, 0, 0, 0, 0)
    assert end.balanced
    assert end.judged > results[0].figures.judged > 0

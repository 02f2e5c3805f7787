"""The two sides as two services, held apart by the kernel: each is whole without the other's network."""

import os
import re
from pathlib import Path
from typing import Final

import pytest

from agent.cli import app as agent_app
from protocols.status import AlreadyRunning, only_one
from simulators.demo import Mill, stopping_all
from tests.servers import debian
from tests.servers.namespaces import namespace, of_process
from tests.system import services
from tests.system.mills import MOSQUITTO, REPLAY_DEVICE, release, until

BROKER: Final = 1883
METER: Final = 1502
ROWS: Final = 40
"""So many quarters of an hour are recorded."""

pytestmark = pytest.mark.timeout(180)


async def test_the_gate_reaches_devices_and_not_the_broker_the_sealed_side_the_broker_and_no_device(
    tmp_path: Path,
) -> None:
    """Two network namespaces with nothing but a socket file between them."""
    devices = REPLAY_DEVICE.format(port=METER)
    mill = Mill(tmp_path)
    mosquitto = tmp_path / "mosquitto.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    mosquitto.write_text(f"listener {BROKER} 127.0.0.1\n{user}{MOSQUITTO}\n", encoding="utf-8")
    python = services.PYTHON
    with namespace() as factory, namespace() as outside:
        within = {"gate": factory.within, "sealed": outside.within}
        replay = ("millgate", "sim", "replay", "--generate", str(ROWS), "--port", str(METER))
        brain = ("millgate", "aggregator", "run", str(mill.aggregator_toml))
        mill.commands |= {
            "broker": (*outside.within, str(debian.require("mosquitto", "mosquitto")), "-c", str(mosquitto)),
            "aggregator": (*outside.within, *python, *brain),
            "replay": (*factory.within, *python, *replay),
        }  # fmt: skip
        async with stopping_all(mill):
            await mill.start("broker", ready=False)
            await mill.start("replay")
            await services.brain(mill, BROKER)
            config = await services.prepare(mill, "firm", BROKER, devices)
            release(config.parent / "policy.toml", "steel-meter", "energy", slot="15m")
            await services.sign(config)
            services.divide(config.parent, devices)
            await mill.start("aggregator")
            async with services.running(mill, "firm", within) as firm:
                await until(lambda: firm.acknowledged() > ROWS // 2, 60, mill)
                gate, sealed = (mill.processes[f"firm-{side}"].pid for side in services.SIDES)
                assert (of_process(gate), of_process(sealed)) == (factory.id, outside.id)
                # What the one reaches is not there for the other.
                assert (factory.reaches(METER), factory.reaches(BROKER)) == (True, False)
                assert (outside.reaches(METER), outside.reaches(BROKER)) == (False, True)
                inside = firm.told("gate")
                assert [one["connected"] for one in inside["devices"]] == [True]
                assert "outputs" not in inside
                past = firm.told("sealed")
                assert past["broker"]["connected"]
                assert not {"devices", "suspended"} & past.keys()
                await check_status_and_lock(firm)


async def check_status_and_lock(firm: services.Services) -> None:
    """Each service shows its own half, and keeps its folder for itself."""
    texts = {}
    for side in services.SIDES:
        folder = firm.folder / side
        texts[side] = await services.said(agent_app, "status", folder / "agent.toml")
        with pytest.raises(AlreadyRunning), only_one(folder / "data"):
            pass
    assert "Inside the factory" in texts["gate"]
    assert "acknowledged" not in texts["gate"]
    assert "acknowledged" in texts["sealed"]
    assert re.search(r"newest batch that the brain has: sealed \d+ s ago", texts["sealed"])
    assert re.search(r"broker \S+:\d+ connected", texts["sealed"])
    assert "Inside the factory" not in texts["sealed"]

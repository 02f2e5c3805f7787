"""Withheld means withheld: names and values that stay are nowhere past the gate."""

import asyncio
import base64
import json
import struct
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from simulators.demo import Mill
from simulators.modbus_server import registers
from simulators.plant import SECRETS, Signal
from simulators.truth import read_truth
from tests.servers.mosquitto import Mosquitto, running
from tests.system.mills import MOSQUITTO, plant_mill
from tests.system.spy import Spy

TRAFFIC_S: Final = 20.0
SHORTEST: Final = 6
"""Shorter byte strings than this turn up by chance in ciphertext."""

WITHHELD_NAMES: Final = (*SECRETS, "power_factor", "GoodCount", "ScrapCount", "MachineryItemState")
PATHS: Final = (
    "/",
    "/api/v1/series",
    "/api/v1/newest",
    "/api/v1/factories",
    "/api/v1/health",
)

pytestmark = pytest.mark.timeout(180)


def spellings(raw: bytes) -> Iterator[bytes]:
    """Yield a byte string as it is, as hex and as base64 at every alignment."""
    yield raw
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw)
        # The first and last characters depend on what stands around.
        yield text[4:-4]


def numbers(value: float, scales: tuple[float, ...]) -> Iterator[bytes]:
    """Yield a value as text in several scales, and as an IEEE double in both byte orders."""
    for scale in scales:
        scaled = value * scale
        yield repr(scaled).encode()
        yield f"{scaled:.2f}".encode()
        yield from spellings(struct.pack("<d", scaled))
        yield from spellings(struct.pack(">d", scaled))
    yield str(int(value)).encode()


def canaries(mill: Mill) -> set[bytes]:
    """Return everything that must not be found, as the truth file and the plant know it."""
    truth = read_truth(mill.truth)
    plant = truth.plant
    found: set[bytes] = set()
    for name in WITHHELD_NAMES:
        found |= set(spellings(name.encode())) | {name.encode("utf-16-le")}
    end = int(truth.time[-1])
    for signal, value in plant.constants().items():
        found |= set(numbers(float(value), (1.0, 10.0, 100.0, 0.1))) if signal else set()
    for change in plant.changes(int(truth.time[0]), end):
        if change.signal in {Signal.SPINDLE_TEMPERATURE, Signal.RECIPE_TEMPERATURE}:
            found |= set(numbers(float(change.value), (1.0,)))
    for at in truth.time[:: max(len(truth.time) // 50, 1)].tolist():
        reading = plant.meter(at)
        # The raw cumulative reading is withheld as well: only its differences leave.
        found |= set(numbers(float(reading.energy), (1.0, 0.01)))
        block = registers(reading)
        words = struct.unpack(f">{len(block) // 2}H", block)
        swapped = struct.pack(f"<{len(words)}H", *words)
        for whole in (block, swapped):
            found |= set(spellings(whole[:8])) | set(spellings(whole[8:18]))
        found |= {f"{reading.furnace_setpoint:.2f}".encode(), str(reading.recipe_number).encode()}
    return {canary for canary in found if len(canary) >= SHORTEST}


def past_the_gate(mill: Mill, broker: Mosquitto) -> dict[str, bytes]:
    """Return every file past the gate."""
    data = mill.folder / "mill" / "data"
    folders = [data, mill.folder / "brain", broker.folder]
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    # What the gate side alone keeps is before the gate, as agent.toml is.
    files = [path for path in files if data / "gate" not in path.parents]
    files += [mill.folder / "aggregator.log", mill.folder / "agent.log"]
    return {str(path.relative_to(mill.folder)): path.read_bytes() for path in files}


def answers(mill: Mill) -> dict[str, bytes]:
    """Return what the page and the API say."""
    found = {}
    series = json.loads(fetch(mill, "/api/v1/series"))["series"]
    rows = [f"/api/v1/series/{one['id']}/rows?start=2020-01-01T00:00:00Z" for one in series]
    for path in (*PATHS, *rows):
        found[path] = fetch(mill, path)
    return found


def fetch(mill: Mill, path: str) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{mill.port}{path}", headers={"Authorization": f"Bearer {mill.token}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        body: bytes = answer.read()
    return body


def leaks(where: dict[str, bytes], wanted: set[bytes]) -> list[tuple[str, bytes]]:
    return [(name, one) for name, content in where.items() for one in wanted if one in content]


async def test_withheld_names_and_values_are_nowhere_past_the_gate(tmp_path: Path) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO + "\npersistence true\nlog_type all") as broker:
        spy = await asyncio.to_thread(Spy, broker.port)
        async with plant_mill(tmp_path, 3, broker) as mill:
            await asyncio.sleep(TRAFFIC_S)
            await mill.first_values(asyncio.Event())
            said = await asyncio.to_thread(answers, mill)
            seen = await asyncio.to_thread(spy.stop)
            await mill.stop("agent")
        await asyncio.to_thread(broker.stop)

        wanted = await asyncio.to_thread(canaries, mill)
        files = past_the_gate(mill, broker)
        assert spy.messages > 5
        assert any(name.endswith(("spool.db-wal", "spool.db")) for name in files)
        assert b"ff_energy" in said["/api/v1/newest"]
        assert leaks({**files, **said, "broker": seen}, wanted) == []

        # The search itself can find: what it looks for does stand where it may, before the gate.
        before = {"agent.toml": mill.agent_toml.read_bytes()}
        assert len(leaks(before, wanted)) >= len(SECRETS)
        planted = registers(read_truth(mill.truth).plant.meter(int(read_truth(mill.truth).time[0])))
        assert leaks({"planted": b"x" + planted.hex().encode() + b"x"}, wanted) != []

"""Captures as devices: what was recorded is served again, and our driver reads just that."""

import asyncio
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.drivers.modbus import Config, Driver
from protocols.drivers.opcua.certificates import parse_certificate
from protocols.drivers.opcua.pki import Trusted, TrustFolder
from protocols.errors import MillgateError
from protocols.frame import Quality
from protocols.settings import check_settings
from security.application_certificate import create_application_certificate
from simulators.capture import Packets
from simulators.captured import CapturedDevice, describe, read_capture
from simulators.captured_opcua import decode as decode_opcua
from simulators.captured_opcua import read_opcua_capture
from simulators.captured_server import serving
from simulators.faults.modbus_server import ChaosModbus, chaos_modbus
from simulators.faults.modbus_wire import HOLDING, INPUT
from tests.pcaps import Talk, file_of, meter
from tests.servers.opcua import (
    URI,
    Node,
    apart,
    driver_for,
    face,
    first_values,
    pair,
    plant,
    running,
    telling_nodes,
)

ROOT = Path(__file__).parents[2]
TIMEOUT = 60
TABLES = {HOLDING: "holding", INPUT: "input"}


def recorded(name: str) -> Path:
    folder = os.environ.get("MILLGATE_DATA")
    if not folder:
        pytest.skip("MILLGATE_DATA does not name a folder with recorded data")
    path = Path(folder) / "pcap" / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "meter.pcap"
    path.write_bytes(file_of(meter()))
    return path


def registers(device: CapturedDevice) -> dict[tuple[int, str, int], int]:
    """Every register that the capture tells, by unit, table and address."""
    found = {}
    for (unit, function), runs in device.spans().items():
        for first, last in runs if function in TABLES else []:
            for at in range(first, last + 1):
                (value,) = struct.unpack(">H", device.read(unit, function, at, 1))
                found[unit, TABLES[function], at] = value
    return found


@asynccontextmanager
async def served(device: CapturedDevice) -> AsyncIterator[ChaosModbus]:
    async with chaos_modbus(device) as server:
        yield server


async def read_back(
    port: int, unit: int, addresses: list[str], **settings: Any
) -> dict[str, tuple[int, Quality]]:
    """Read registers with our driver, as a technician would configure it."""
    data: dict[str, Any] = {
        "id": "captured",
        "kind": "modbus",
        "host": "127.0.0.1",
        "port": port,
        "unit": unit,
        "timeout": "20s",
        "points": [
            {"id": address.replace(":", "-"), "address": address, "type": "uint16", "unit": "1"}
            for address in addresses
        ],
    }
    driver = Driver(check_settings(data | settings, Config, Path("agent.toml")), time.time_ns)
    async with aclosing(driver.frames()) as frames:
        frame = await anext(frames)
    return {
        addresses[column]: (
            int(frame.values[0, place]),
            Quality(int(frame.quality[0, place])),
        )
        for place, column in enumerate(frame.columns)
    }


async def check_every_register(device: CapturedDevice) -> int:
    """Read a device back and compare; returns how many registers there were."""
    known = registers(device)
    async with served(device) as server:
        for unit in {unit for unit, _, _ in known}:
            want = {f"{table}:{at}": value for (u, table, at), value in known.items() if u == unit}
            # A register that was not captured is refused, and its whole block with it.
            got = await read_back(server.port, unit, list(want), max_gap=0)
            assert got == {address: (value, Quality.GOOD) for address, value in want.items()}
    return len(known)


async def test_a_capture_is_served_as_it_was_recorded(small: Path) -> None:
    device = read_capture(small).device(None)
    assert registers(device) == {
        (1, "input", 10): 100,
        (1, "input", 11): 555,
        (1, "input", 12): 102,
        (2, "holding", 10): 200,
        (2, "holding", 11): 201,
    }
    assert await check_every_register(device) == 5


async def test_what_was_not_recorded_has_no_value(small: Path) -> None:
    device = read_capture(small).device(None)
    async with served(device) as server:
        beside = await read_back(server.port, 1, ["input:12", "input:13"])
        elsewhere = await read_back(server.port, 9, ["input:10"])
    # The driver finds out which of the two it is that the device has not.
    assert beside["input:12"] == (102, Quality.GOOD)
    assert beside["input:13"][1] is Quality.BAD
    assert {quality for _, quality in elsewhere.values()} == {Quality.BAD}


async def test_an_energy_polling_of_four_units_is_read_back_whole() -> None:
    found = read_capture(recorded("modbus_test.pcap"))
    device = found.device(None)
    assert not found.damaged
    assert device.spans() == {
        (1, 4): [(0, 13)],
        (2, 4): [(0, 13)],
        (3, 4): [(0, 13)],
        (7, 4): [(4, 4)],
    }
    counts = device.counts
    assert (counts.requests, counts.answers, counts.others) == (1142, 1052, 63)
    assert (counts.odd, counts.unclear, counts.foreign, counts.gaps) == (1, 0, 0, 0)
    assert await check_every_register(device) == 43


async def test_coils_that_were_polled_between_writes_are_served() -> None:
    device = read_capture(recorded("modbusSmall.pcap")).device("118.189.96.132")
    assert (device.counts.answers, device.counts.others) == (8, 8)
    assert device.spans() == {(1, 1): [(0, 2)]}


async def test_every_function_and_exception_of_a_hostile_capture_is_told_apart() -> None:
    device = read_capture(recorded("modbus_test_data_part2.pcap")).device(None)
    counts = device.counts
    assert counts.refusals == {1: 104, 3: 18, 2: 8}
    assert (counts.requests, counts.answers, counts.others) == (141, 4, 6)
    assert device.spans() == {(1, 1): [(0, 7), (1023, 1023), (1535, 1535)]}


async def test_a_capture_of_sessions_that_end_in_an_error_is_told_apart() -> None:
    path = recorded("opc-ua-ap-method-wireshark-freeze.pcap")
    (found,) = read_opcua_capture(path, 12_001).servers
    assert found.counts.services == {"GetEndpoints": 2, "CreateSession": 2, "ActivateSession": 2}
    assert (found.counts.errors, found.counts.odd, found.counts.gaps) == (2, 0, 0)
    assert ("None", "None") in found.endpoints
    with pytest.raises(MillgateError, match="no value"):
        read_opcua_capture(path, 12_001).server(None)


async def recorded_by_a_relay(port: int, meet: Callable[[int], Awaitable[None]]) -> bytes:
    """Return a capture of what is said to a server while somebody meets it by a relay."""
    talk, tasks = Talk(server=("10.0.0.20", 4840)), set[asyncio.Task[None]]()

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, say: Callable[[bytes], None]
    ) -> None:
        while data := await reader.read(1400):
            say(data)
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        for pumped in (pump(reader, back, talk.ask), pump(there, writer, talk.answer)):
            tasks.add(asyncio.create_task(pumped))

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as door:
        await meet(door.sockets[0].getsockname()[1])
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*tasks)
    return file_of(talk.frames)


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_captured_opcua_server_is_served_as_it_was_seen(tmp_path: Path, mode: str) -> None:
    nodes = telling_nodes()[:40]
    points = apart(nodes)
    wanted = {f"p{node.value}": node.value for node in nodes}
    file = tmp_path / "press.pcap"
    async with running() as server, plant(server, nodes) as inside:

        async def meet(port: int) -> None:
            assert await first_values(driver_for(port, points, mode=mode), wanted) == wanted

        file.write_bytes(await recorded_by_a_relay(inside.port, meet))
    found = read_opcua_capture(file).server("10.0.0.20")
    assert (len(found.values), found.counts.odd, found.counts.gaps) == (40, 0, 0)
    async with serving(found) as port:
        assert await first_values(driver_for(port, points), wanted) == wanted


async def test_a_secured_opcua_capture_is_told_and_not_guessed_at(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    own = pair(0)
    create_application_certificate(
        pki / "own.pem", pki / "own.der", uri="urn:mill:gate", host="gate", days=9, bits=2048
    )
    TrustFolder(pki).add(Trusted(parse_certificate(own.der), "press"))
    nodes = [Node(URI, "a", "Int32", 4711)]
    file = tmp_path / "press.pcap"
    async with running() as server, plant(server, nodes), face(server, own) as there:

        async def meet(port: int) -> None:
            # The endpoints are asked for elsewhere: the relay carries one connection alone.
            driver = driver_for(
                port,
                nodes,
                security="Basic256Sha256",
                security_mode="SignAndEncrypt",
                server_certificate=str(own_file),
                pki=str(pki),
            )
            assert await first_values(driver, ["a"]) == {"a": 4711}

        own_file = tmp_path / "server.der"
        own_file.write_bytes(own.der)
        file.write_bytes(await recorded_by_a_relay(there, meet))
    (found,) = read_opcua_capture(file).servers
    assert (found.counts.secured, found.values, dict(found.counts.services)) == (1, {}, {})


@given(
    st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=8),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=3),
)
def test_no_capture_of_nonsense_does_harm(
    pieces: list[tuple[bool, bytes]], damage: list[tuple[int, int]]
) -> None:
    talk = Talk(server=("10.0.0.20", 4840))
    for asks, piece in pieces:
        chunk = b"MSGF" + struct.pack("<IIIII", 24 + len(piece), 1, 1, 1, len(piece) % 3) + piece
        (talk.ask if asks else talk.answer)(chunk)
    data = bytearray(file_of(talk.frames))
    for at, byte in damage:
        if 24 <= at < len(data):
            data[at] = byte
    decode_opcua(Packets(BytesIO(bytes(data)), "x"))


async def test_traffic_of_another_protocol_holds_no_device() -> None:
    path = recorded("opc-ua-ap-method-wireshark-freeze.pcap")
    assert read_capture(path).devices == ()
    # Asked for by its port it is still no Modbus: nothing is made up.
    assert not [device for device in read_capture(path, 12_001).devices if device.values]


@contextmanager
def command(*words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "simulators.cli", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_the_command_serves_a_capture_until_it_is_stopped(small: Path) -> None:
    file = small.with_name("ready.json")
    with command("capture", str(small), "--ready", str(file)) as process:
        end = time.monotonic() + TIMEOUT
        while not file.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)  # noqa: ASYNC251 - nothing else runs in this loop meanwhile
        report = json.loads(file.read_text())
        got = await read_back(report["modbus_port"], 2, ["holding:10", "holding:11"])
        process.terminate()
        out, err = process.communicate(timeout=TIMEOUT)
    assert got == {"holding:10": (200, Quality.GOOD), "holding:11": (201, Quality.GOOD)}
    assert (report["source"], report["units"]) == ("10.0.0.20:502", [1, 2])
    assert (process.returncode, err) == (0, "")
    assert "10.0.0.20:502" in out


def test_the_command_lists_what_is_in_a_capture_without_a_value(small: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulators.cli", "capture", str(small), "--list"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(describe(read_capture(small).devices)))
    assert "555" not in done.stdout

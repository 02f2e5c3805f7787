"""The signed source is exact: whatever is changed in agent.toml, no other value leaves under its name."""

import asyncio
import contextlib
import random
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from agent.config import read_config
from protocols.drivers import DeviceConfig, load, read_devices
from protocols.drivers.modbus import Config as Modbus
from protocols.drivers.modbus.point import ModbusPoint
from protocols.errors import ConfigError
from protocols.frame import SECOND
from security.cli import policy_app
from security.keys import SigningKey, load_key_file
from security.policy.bundle import TrustedPolicy, read_bundle
from security.policy.gate import Gate
from tests.mill_folder import call, make_mill
from tests.servers.registers import Memory, serving
from tests.system.mills import release

SHOWN: Final = 0x00010002
SECRET: Final = 0x00070009
LETTERS: Final = "0123456789abcdefghijklmnopqrstuvwxyz:.-_ \n\"='"

MODBUS: Final = """
[[device]]
id = "meter"
kind = "modbus"
host = "{host}"
port = {port}
unit = 1
interval = "10ms"
order = "ABCD"
max_gap = 8
forbidden = ["holding:100-119"]
slot_time = "clock"

[[device.points]]
id = "energy"
address = "holding:0"
type = "uint32"
scale = 0.01
unit = "kWh"
measurand = "energy.active_import"
invalid = [4294967295]

[device.points.counter]
rollover = 9999999.99
on_reset = "rebase"

[[device.points]]
id = "power"
address = "holding:2"
type = "uint32"
unit = "W"
measurand = "power.active"

[[device.points]]
id = "recipe"
address = "holding:4"
type = "uint32"
unit = "s"

[[device.points]]
id = "clock"
address = "holding:6"
type = "uint32"
unit = "s"
measurand = "time.device"
"""
OPCUA: Final = """
[[device]]
id = "press"
kind = "opcua"
url = "opc.tcp://10.0.0.8:4840/line"
security = "none"

[[device.points]]
id = "energy"
address = "part=[2];nsu=urn:press;i=7"
type = "UInt32"
scale = 0.1
unit = "kWh"
measurand = "energy.active_import"

[[device.points]]
id = "power"
address = "nsu=urn:press;s=Power"
type = "Double"
unit = "kW"
measurand = "power.active"

[[device.points]]
id = "recipe"
address = "nsu=urn:press;s=Recipe"
type = "UInt32"
"""


def signed(folder: Path, devices: str) -> TrustedPolicy:
    """Write a policy as `policy new` does, release two points of the device in it, and sign it."""
    path = make_mill(folder, devices)
    device = tomllib.loads(devices)["device"][0]["id"]
    assert call("new", path, room=policy_app).exit_code == 0
    text = path.with_name("policy.toml")
    for number, point in enumerate(("energy", "power"), 1):
        release(text, device, point, "1s", number)
    key = path.parent / "keys" / "officer.key"
    done = call("sign", text, "--key", key, room=policy_app)
    assert done.exit_code == 0, done.output
    assert "origin-unsigned" not in done.output
    officer = SigningKey(load_key_file(key, "ed25519"))
    bundle = path.with_name("policy.signed").read_bytes()
    assert read_config(path).devices[0].id == device
    return read_bundle(bundle, [officer.public], 1)


def devices_of(text: str, folder: Path) -> list[DeviceConfig]:
    return read_devices(tomllib.loads(text).get("device", []), folder / "agent.toml")


def gate_of(policy: TrustedPolicy, devices: list[DeviceConfig]) -> Gate:
    return Gate(policy.policy, {one.id: one.table() for one in devices}, time.time_ns)


def meaning(device: Any, name: str) -> Any:
    """Return what decides which value a released point shows, as this test understands it."""
    point = next(one for one in device.points if one.id == name)
    own: tuple[Any, ...] = (
        point.address,
        point.type,
        point.scale,
        point.offset,
        point.unit,
        point.measurand,
    )
    own += (point.counter,)
    if not isinstance(device, Modbus):
        return device.url, *own
    place = (device.transport, (device.host or "").lower(), device.port, device.serial, device.unit)
    clock = next((one for one in device.points if one.id == device.slot_time), None)
    return place, *own, *read(device, point), clock and read(device, clock)


def read(device: Modbus, point: ModbusPoint) -> Any:
    where = (point.table, point.first, point.words, point.bits, point.type, point.scale)
    return *where, point.offset, point.order or device.order, sorted(set(point.invalid))


def mutants(text: str) -> Iterator[str]:
    """Yield the text with one character of it changed, added, dropped or swapped, at every place."""
    chance = random.Random(20261123)
    for at in range(len(text)):
        letter = chance.choice(LETTERS)
        yield chance.choice(
            [
                text[:at] + letter + text[at + 1 :],
                text[:at] + letter + text[at:],
                text[:at] + text[at + 1 :],
                text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :],
            ]
        )


@pytest.mark.timeout(200)
@pytest.mark.parametrize("devices", [MODBUS.format(host="10.0.0.7", port=502), OPCUA])
def test_no_change_of_one_character_in_a_devices_table_lets_another_value_leave(
    tmp_path: Path, devices: str
) -> None:
    policy = signed(tmp_path, devices)
    (original,) = devices_of(devices, tmp_path)
    assert gate_of(policy, [original]).released_points(original.id).sum() == 2
    wanted = {name: meaning(original, name) for name in ("energy", "power")}
    refused = suspended = released = 0
    for mutant in mutants(devices):
        try:
            found = devices_of(mutant, tmp_path)
        except (ConfigError, tomllib.TOMLDecodeError):
            refused += 1
            continue
        gate = gate_of(policy, found)
        for device in found:
            table = device.table()
            out = gate.released_points(device.id)
            names = [one.id for one, leaves in zip(table.points, out, strict=True) if leaves]
            assert {name: meaning(device, name) for name in names} == {
                name: wanted[name] for name in names
            }, mutant
            released += len(names)
            suspended += 2 - len(names)
    # All three happen: changes that are no policy matter, that suspend, and that are no text at all.
    assert min(refused, suspended, released) > 50


CHANGES: Final = {
    "none": ("", ""),
    "another device": ("port = {port}", "port = {other}"),
    "another unit": ("unit = 1\n", "unit = 2\n"),
    "another register": ('"holding:2"', '"holding:4"'),
    "the next register": ('"holding:2"', '"holding:3"'),
    "its words swapped": ('order = "ABCD"', 'order = "CDAB"'),
    "its bytes swapped": ('measurand = "power.active"', 'measurand = "power.active"\norder = "BADC"'),
    "half of it": ('"holding:2"\ntype = "uint32"', '"holding:2"\ntype = "uint16"'),
    "time from a secret": ('slot_time = "clock"', 'slot_time = "recipe"'),
    "a secret as time": ('"holding:6"', '"holding:4"'),
    "another scale": ('unit = "W"', 'unit = "W"\nscale = 0.001'),
}  # fmt: skip


class Unit(Memory):
    """A unit whose clock goes on by a second with every answer, so that slots close."""

    def read(self, unit: int, function: int, first: int, count: int) -> bytes:
        self.now = getattr(self, "now", time.time_ns() // SECOND - 1000) + 1
        self.put("holding:6", "uint32", self.now)
        return super().read(1, function, first, count)


def registers(shown: int) -> Unit:
    memory = Unit(between=0)
    memory.put("holding:2", "uint32", shown)
    memory.put("holding:4", "uint32", SECRET)
    return memory


async def values(gate: Gate, device: DeviceConfig) -> set[int]:
    """Return what leaves of a device that is read for a few slots by its own driver."""
    found: set[int] = set()
    driver = load(device.kind).Driver(device, time.time_ns)
    async with contextlib.aclosing(driver.frames()) as frames, asyncio.timeout(20):
        for _ in range(6):
            gate.feed(await anext(frames))
            gate.advance()
            for blocks in gate.take().values():
                found |= set(np.concatenate([one.mantissa.ravel() for one in blocks]).tolist())
    return found - {0}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_real_device_shows_nothing_else_under_a_released_name_when_its_table_is_changed(
    tmp_path: Path, change: str
) -> None:
    async with serving(registers(SHOWN)) as server, serving(registers(SECRET)) as other:
        text = MODBUS.format(host="127.0.0.1", port=server.port)
        policy = await asyncio.to_thread(signed, tmp_path, text)
        old, new = (part.format(port=server.port, other=other.port) for part in CHANGES[change])
        assert change == "none" or text.count(old) >= 1
        (device,) = devices_of(text.replace(old, new) if old else text, tmp_path)
        gate = gate_of(policy, [device])
        # 65538 W, in hundredths of a kW.
        wanted = {6554} if change == "none" else set()
        assert await values(gate, device) == wanted
        assert bool(gate.suspended) == (change != "none")
        told = " ".join(gate.suspended)
        assert str(other.port) not in told


def test_a_policy_without_origins_as_signed_before_goes_on_and_the_lint_says_what_it_lacks(
    tmp_path: Path,
) -> None:
    devices = MODBUS.format(host="10.0.0.7", port=502)
    path = make_mill(tmp_path, devices)
    assert call("new", path, room=policy_app).exit_code == 0
    text = path.with_name("policy.toml")
    release(text, "meter", "energy", "1s")
    lines = [line for line in text.read_text("utf-8").splitlines() if not line.startswith("origin")]
    text.write_text("\n".join(lines), encoding="utf-8")
    key = path.parent / "keys" / "officer.key"
    done = call("sign", text, "--key", key, room=policy_app)
    assert done.exit_code == 0, done.output
    assert "origin-unsigned" in done.output
    checked = call("check", path)
    assert checked.exit_code == 0, checked.output

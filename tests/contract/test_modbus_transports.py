"""Modbus over every transport: each value under its own name, and no wrong answer taken, ever."""

import asyncio
import os
import random
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer, ModbusTlsServer
from pymodbus.simulator import DataType, SimData, SimDevice

from protocols.drivers import NotConnected
from protocols.drivers.modbus import Config, Driver, learning
from protocols.drivers.modbus.point import FUNCTIONS
from protocols.frame import Frame, Quality
from protocols.settings import check_settings
from simulators.faults.modbus_lies import LIES, TCP_ONLY, Pace
from simulators.faults.modbus_server import DEAD_UNIT, HOLES, ChaosModbus, chaos_modbus
from simulators.faults.modbus_wire import SerialFrames
from simulators.faults.plan import OK, Script, Sprinkle, Step
from simulators.faults.telling import TellingRegisters, bit, word
from tests.certificates import Authority

TIMEOUT = 40
QUICK = Pace(late_s=5.0, drip_s=0.01, away_s=0.05, gateway_s=0.02)
TRANSPORTS = ("tcp", "tls", "rtu-over-tcp", "rtu")
INDISCERNIBLE = "stale-data"
HANGING_UP = {"hang-up", "cut-reply", "restart"}
SERIAL_LIES = sorted(set(LIES) - TCP_ONLY - {INDISCERNIBLE})


def points() -> list[dict[str, Any]]:
    """Points of every table: numbers of all widths, bits of registers, and single bits."""
    found: list[dict[str, Any]] = []
    for table, first in (("holding", 0), ("holding", 60), ("input", 60)):
        for at, kind in ((0, "uint16"), (1, "int32"), (3, "uint32"), (7, "int16")):
            found.append({"address": f"{table}:{first + at}", "type": kind})
        found.append({"address": f"{table}:{first + 7}.3", "type": "bit"})
        found.append({"address": f"{table}:{first + 7}.4-9", "type": "uint16"})
    found += [{"address": f"coil:{at}", "type": "bit"} for at in range(3, 40, 3)]
    found += [{"address": f"discrete:{at}", "type": "bit"} for at in range(100, 117, 3)]
    return [{"id": one["address"].replace(":", "-"), **one} for one in found]


def expected(unit: int, address: str, kind: str, words: int) -> int:
    """What the device's registers and bits tell of themselves, read as a value of that type."""
    table, place = address.split(":")
    first, _, bits = place.partition(".")
    function = next(number for name, number in FUNCTIONS.items() if name == table)
    if table in {"coil", "discrete"}:
        return int(bit(unit, function, int(first)))
    shown = [word(unit, function, int(first) + at) for at in range(words)]
    raw = int.from_bytes(struct.pack(f">{words}H", *shown), "big", signed=kind.startswith("int"))
    if not bits:
        return raw
    low, _, high = bits.partition("-")
    return raw >> int(low) & (1 << int(high or low) - int(low) + 1) - 1


@dataclass
class Witness:
    """Checks every good value against the register or bit it is said to come from."""

    driver: Driver
    good: int = 0
    bad: set[str] = field(default_factory=set)
    faults: list[NotConnected] = field(default_factory=list)

    def see(self, frame: Frame) -> None:
        config = self.driver._config
        for place, column in enumerate(frame.columns):
            point = config.samples[column]
            want = expected(config.unit, point.address, point.type, point.words)
            for row in range(len(frame.values)):
                if frame.quality[row, place] == Quality.GOOD:
                    assert frame.values[row, place] == want, point.address
                    self.good += 1
                else:
                    self.bad.add(point.address)

    @property
    def noticed(self) -> bool:
        return bool(self.bad or self.faults)

    async def follow(self, enough: Callable[[], bool]) -> None:
        """Read as the collector does, connecting again after every loss."""
        async with asyncio.timeout(TIMEOUT):
            while not enough():
                try:
                    async with aclosing(self.driver.frames()) as frames:
                        async for frame in frames:
                            self.see(frame)
                            if enough():
                                return
                except NotConnected as fault:
                    self.faults.append(fault)
                    await asyncio.sleep(0.01)

    async def recover(self) -> None:
        """Read until two whole polls were good."""
        before = self.good
        wanted = 2 * len(self.driver._config.samples)
        await self.follow(lambda: self.good >= before + wanted)


@dataclass
class Place:
    """A device, and how to reach it."""

    chaos: ChaosModbus
    settings: dict[str, Any]

    def driver(self, **more: Any) -> Driver:
        data = {
            "id": f"unit-{more.get('unit', 1)}",
            "kind": "modbus",
            "timeout": "150ms",
            "interval": "0s",
            "points": points(),
        }
        whole = check_settings(data | self.settings | more, Config, Path("agent.toml"))
        return Driver(whole, time.time_ns)


@asynccontextmanager
async def place(transport: str, folder: Path, **settings: Any) -> AsyncIterator[Place]:
    more: dict[str, Any] = {}
    reach: dict[str, Any] = {"transport": transport}
    if transport == "tls":
        authority = Authority(folder, "plant-ca")
        more["secured"] = authority.server(authority.vouch("meter", "127.0.0.1"))
        reach["ca"] = str(authority.file)
    elif transport == "rtu-over-tcp":
        more["frames"] = SerialFrames()
    elif transport == "rtu":
        more["serial"] = True
        reach |= {"baud": 115200}
    async with chaos_modbus(TellingRegisters(), pace=QUICK, **settings, **more) as chaos:
        if transport == "rtu":
            reach["serial"] = chaos.host
        else:
            reach |= {"host": chaos.host, "port": chaos.port}
        yield Place(chaos, reach)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_every_table_and_type_comes_under_its_own_name(
    transport: str, tmp_path: Path
) -> None:
    async with place(transport, tmp_path) as at:
        for unit in (1, 3):
            witness = Witness(at.driver(unit=unit, timeout="10s"))
            await witness.recover()
            assert not witness.noticed


@pytest.mark.parametrize(
    ("name", "transport"),
    [(name, "rtu-over-tcp") for name in SERIAL_LIES]
    # Nobody can hang up on a wire.
    + [(name, "rtu") for name in SERIAL_LIES if name not in HANGING_UP],
)
async def test_no_wrong_answer_is_taken_on_serial_frames_either(
    name: str, transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script([Step(OK, 9), Step(name, 4)])
    async with place(transport, tmp_path, plan=script, seed=7) as at:
        witness = Witness(at.driver())
        await witness.follow(lambda: script.over)
        await witness.recover()
        assert at.chaos.played == {name: 4}
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("transport", ["tls", "rtu"])
async def test_any_mixture_of_faults_gives_right_values_or_none(
    transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(3)
    waiting = {"slow-drip", "no-reply", "restart"} | (HANGING_UP if transport == "rtu" else set())
    lies = LIES if transport == "tls" else SERIAL_LIES
    names = sorted(set(lies) - waiting - {INDISCERNIBLE})
    async with place(transport, tmp_path, plan=Sprinkle(names, 0.2, chance), seed=3) as at:
        witness = Witness(at.driver(timeout="80ms"))
        await witness.follow(lambda: at.chaos.requests >= 250)
        at.chaos.plan = Script([])
        await witness.recover()
    assert witness.noticed
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_units_at_one_place_share_a_connection_and_a_mute_one_harms_no_other(
    transport: str, tmp_path: Path
) -> None:
    async with place(transport, tmp_path, shapes={"silent-unit"}) as at:
        mute = Witness(at.driver(unit=DEAD_UNIT))
        others = [Witness(at.driver(unit=unit, timeout="20s")) for unit in (1, 3)]
        many = 40 * len(points())
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(mute.follow(lambda: bool(mute.good)))
            async with asyncio.TaskGroup() as sound:
                for one in others:
                    sound.create_task(one.follow(lambda one=one: one.good >= many))  # type: ignore[misc] # bound early on purpose
            assert at.chaos.door.guests == 1
            # All but a few of the requests went to those who answer.
            assert 1 <= at.chaos.played["silent-unit"] < at.chaos.requests / 20
            assert not mute.good
            await at.chaos.take_shape(())
            await following
    assert mute.faults
    assert not any(one.noticed for one in others)


async def test_a_unit_that_the_gateway_cannot_reach_is_bad_and_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with place("tcp", tmp_path, shapes={"dead-unit"}) as at:
        dead = Witness(at.driver(unit=DEAD_UNIT, timeout="10s", interval="10ms"))
        other = Witness(at.driver(unit=1, timeout="10s"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dead.follow(lambda: len(dead.bad) == len(points())))
            await other.follow(lambda: other.good >= 100 * len(points()))
        assert at.chaos.played["dead-unit"] < at.chaos.requests / 20
        await at.chaos.take_shape(())
        await dead.recover()
    assert not dead.faults
    assert not other.noticed
    told = [one for one in caplog.records if "cannot reach this unit" in one.getMessage()]
    assert len(told) == 1


async def test_the_same_unit_at_another_place_has_nothing_to_do_with_it(tmp_path: Path) -> None:
    async with place("tcp", tmp_path, shapes={"half-open"}) as mute, place("tcp", tmp_path) as at:
        stuck, sound = Witness(mute.driver()), Witness(at.driver(timeout="10s"))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(stuck.recover())
            await sound.follow(lambda: sound.good >= 100 * len(points()))
            waiting.cancel()
    assert not sound.noticed
    assert not stuck.good


# Late answers on a line where nothing says what they answer.


async def test_a_late_answer_is_not_taken_for_the_next_of_the_same_length(tmp_path: Path) -> None:
    """Two blocks of the same function and length; the first answer comes when the next is asked."""
    spans = [
        {"id": f"p{at}", "address": f"holding:{at}", "type": "uint16"}
        for at in (*range(5), *range(60, 65))
    ]
    script = Script([Step(OK, 2), Step("late-reply", 1), Step(OK, 3), Step("late-reply", 2)])
    async with place("rtu", tmp_path, plan=script) as at:
        witness = Witness(at.driver(points=spans))
        await witness.follow(lambda: script.over)
        await witness.recover()
        notes = " ".join(witness.driver.notes())
    assert "not answered" in notes


# What a device refuses is found out.


@pytest.mark.parametrize("transport", ["tcp", "rtu"])
async def test_refused_addresses_are_gone_around_and_told_once(
    transport: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # However slow this machine is, nothing is tried again during the test.
    monkeypatch.setattr(learning, "_FIRST_WAIT_S", 3600.0)
    hole = HOLES[0]
    numbers = [
        {"id": f"p{at}", "address": f"holding:{at}", "type": "uint16"}
        for at in range(hole.start - 30, hole.stop + 30)
    ]
    async with place(transport, tmp_path, shapes={"holes"}) as at:
        witness = Witness(at.driver(points=numbers, timeout="10s"))
        await witness.recover()
        assert witness.bad == {f"holding:{at}" for at in hole}
        refused = at.chaos.played["holes"]
        before = at.chaos.requests
        await witness.recover()
        assert at.chaos.played["holes"] == refused
        assert at.chaos.requests > before
        notes = witness.driver.notes()
    told = [one.getMessage() for one in caplog.records if "exception 2" in one.getMessage()]
    assert len(told) == 1
    assert f"holding {hole.start}-{hole.stop - 1}" in told[0]
    assert any(f"refuses holding {hole.start}-{hole.stop - 1}" in note for note in notes)
    assert not witness.faults


async def test_a_gap_that_must_not_be_read_along_is_found_out(tmp_path: Path) -> None:
    """The points beside it are good from the first poll on."""
    hole = HOLES[1]
    beside = [hole.start - 1, hole.stop]
    numbers = [
        {"id": f"p{at}", "address": f"input:{at}", "type": "uint16"}
        for at in (*range(beside[0] - 5, beside[0] + 1), *range(beside[1], beside[1] + 6))
    ]
    async with place("tcp", tmp_path, shapes={"holes"}) as at:
        witness = Witness(at.driver(points=numbers, timeout="10s", max_gap=20))
        await witness.recover()
        refused = at.chaos.played["holes"]
        await witness.recover()
        assert at.chaos.played["holes"] == refused > 0
    assert not witness.noticed


async def test_what_was_refused_is_read_again_once_the_device_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "_FIRST_WAIT_S", 0.05)
    hole = HOLES[0]
    numbers = [
        {"id": f"p{at}", "address": f"holding:{at}", "type": "uint16"}
        for at in range(hole.start - 3, hole.start + 3)
    ]
    async with place("tcp", tmp_path, shapes={"holes"}) as at:
        witness = Witness(at.driver(points=numbers, timeout="10s"))
        await witness.follow(lambda: len(witness.bad) == 3)
        await at.chaos.take_shape(())

        def whole() -> bool:
            return not any("refuses" in note for note in witness.driver.notes())

        await witness.follow(whole)
        witness.bad.clear()
        await witness.recover()
    assert not witness.noticed


# TLS.


@asynccontextmanager
async def secured(folder: Path, host: str, *, asks_clients: bool = False) -> AsyncIterator[Place]:
    authority = Authority(folder, "plant-ca")
    context = authority.server(authority.vouch("meter", host), asks_clients=asks_clients)
    async with chaos_modbus(TellingRegisters(), secured=context) as chaos:
        reach = {"transport": "tls", "host": "127.0.0.1", "port": chaos.port}
        yield Place(chaos, reach)


async def refusal(driver: Driver) -> NotConnected:
    async with asyncio.timeout(TIMEOUT):
        with pytest.raises(NotConnected) as caught:
            await first_frame(driver)
        return caught.value


async def first_frame(driver: Driver) -> Frame:
    async with aclosing(driver.frames()) as frames:
        return await anext(frames)


async def test_a_certificate_of_another_authority_is_not_accepted(tmp_path: Path) -> None:
    other = Authority(tmp_path, "other-ca")
    async with secured(tmp_path, "127.0.0.1") as at:
        fault = await refusal(at.driver(ca=str(other.file), timeout="5s"))
        assert at.chaos.requests == 0
    assert "certificate is not accepted" in fault.what
    assert "ca" in fault.remedy


async def test_a_certificate_of_another_name_is_not_accepted_unless_that_name_is_meant(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path, "meter.plant") as at:
        ca = str(tmp_path / "plant-ca.pem")
        fault = await refusal(at.driver(ca=ca, timeout="5s"))
        assert "certificate is not accepted" in fault.what
        witness = Witness(at.driver(ca=ca, timeout="5s", server_name="meter.plant"))
        await witness.recover()


async def test_only_an_explicit_word_lets_anyone_answer_and_the_console_says_so(
    tmp_path: Path,
) -> None:
    async with secured(tmp_path, "nobody.knows") as at:
        witness = Witness(at.driver(verify="none", timeout="5s"))
        await witness.recover()
        assert any("who answers is not known" in note for note in witness.driver.notes())


async def test_a_device_may_ask_who_we_are(tmp_path: Path) -> None:
    async with secured(tmp_path, "127.0.0.1", asks_clients=True) as at:
        authority = Authority(tmp_path, "gate-ca")
        ca = str(tmp_path / "plant-ca.pem")
        stranger = authority.vouch("stranger")
        for own in (None, str(stranger)):
            more = {} if own is None else {"client_certificate": own}
            await refusal(at.driver(ca=ca, timeout="5s", **more))
        stranger.chmod(0o644)
        fault = await refusal(at.driver(ca=ca, client_certificate=str(stranger)))
        assert "chmod 600" in fault.remedy
        assert at.chaos.requests == 0


async def test_a_known_client_is_let_in(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "plant-ca")
    context = authority.server(authority.vouch("meter", "127.0.0.1"), asks_clients=True)
    own = authority.vouch("gate")
    async with chaos_modbus(TellingRegisters(), secured=context) as chaos:
        reach = {"transport": "tls", "host": "127.0.0.1", "port": chaos.port, "timeout": "5s"}
        at = Place(chaos, reach)
        files = {"ca": str(authority.file), "client_certificate": str(own)}
        await Witness(at.driver(**files)).recover()


async def test_a_port_without_tls_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "plant-ca")
    async with place("tcp", tmp_path) as at:
        fault = await refusal(at.driver(transport="tls", ca=str(authority.file), timeout="300ms"))
        missing = await refusal(at.driver(transport="tls", ca=str(tmp_path / "none.pem")))
    assert fault.where.startswith("unit-1")
    assert "none.pem" in missing.what


# Serial ports.


async def test_a_serial_port_that_is_not_there_is_told_with_the_remedy(tmp_path: Path) -> None:
    async with place("rtu", tmp_path) as at:
        fault = await refusal(at.driver(serial=str(tmp_path / "ttyUSB9")))
        file = tmp_path / "no-port"
        file.touch()
        other = await refusal(at.driver(serial=str(file)))
    assert "no such serial port" in fault.what
    assert "by-id" in fault.remedy
    assert "cannot be used" in other.what


async def test_a_serial_port_that_another_program_uses_is_told(tmp_path: Path) -> None:
    script = (
        "import fcntl, os, sys; port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY);"
        "fcntl.flock(port, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    )
    async with place("rtu", tmp_path) as at:
        holder = await asyncio.create_subprocess_exec(
            os.environ.get("PYTHON", "python3"),
            "-c",
            script,
            at.chaos.host,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            assert await holder.stdout.readline() == b"held\n"
            fault = await refusal(at.driver())
            holder.stdin.close()
            await holder.wait()
        await Witness(at.driver(timeout="10s")).recover()
    assert "another program" in fault.what


async def test_a_serial_adapter_may_be_unplugged_and_put_in_again(tmp_path: Path) -> None:
    link = tmp_path / "ttyMETER"
    async with place("rtu", tmp_path) as at:
        link.symlink_to(at.chaos.host)
        witness = Witness(at.driver(serial=str(link), timeout="10s"))
        await witness.recover()
        at.chaos.door.shut()
        await witness.follow(lambda: bool(witness.faults))
        await at.chaos.door.open()
        link.unlink()
        link.symlink_to(at.chaos.door.host)
        await witness.recover()
    assert any("serial port" in fault.what for fault in witness.faults)
    assert not witness.bad


# Servers that share no code with us.


@pytest.mark.parametrize("transport", ["tcp", "tls", "rtu-over-tcp"])
async def test_the_servers_of_another_project_are_read_alike(
    transport: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "plant-ca")
    bits = [SimData(0, values=[at % 3 == 0 for at in range(48)], datatype=DataType.BITS)]
    tables = [
        [SimData(0, values=[start + at for at in range(40)], datatype=DataType.REGISTERS)]
        for start in (1000, 2000)
    ]
    device = SimDevice(1, simdata=(bits, bits, tables[0], tables[1]))
    address = ("127.0.0.1", 0)
    server: ModbusTcpServer
    if transport == "tls":
        own = authority.server(authority.vouch("meter", "127.0.0.1"))
        server = ModbusTlsServer([device], framer=FramerType.SOCKET, address=address, sslctx=own)
    else:
        framer = FramerType.SOCKET if transport == "tcp" else FramerType.RTU
        server = ModbusTcpServer([device], framer=framer, address=address)
    await server.serve_forever(background=True)
    try:
        listening: Any = server.transport
        port = listening.sockets[0].getsockname()[1]
        files = {"ca": str(authority.file)} if transport == "tls" else {}
        given = [
            *[("coil", at, int(at % 3 == 0)) for at in range(20)],
            *[("discrete", at, int(at % 3 == 0)) for at in range(7, 30)],
            *[("holding", at, 1000 + at) for at in range(40)],
            *[("input", at, 2000 + at) for at in range(3, 30)],
        ]
        data = {
            "id": "meter",
            "kind": "modbus",
            "transport": transport,
            "host": "127.0.0.1",
            "port": port,
            **files,
            "points": [
                {
                    "id": f"{table}-{at}",
                    "address": f"{table}:{at}",
                    "type": "bit" if table in {"coil", "discrete"} else "uint16",
                }
                for table, at, _ in given
            ],
        }
        driver = Driver(Config.model_validate(data), time.time_ns)
        async with asyncio.timeout(TIMEOUT), aclosing(driver.frames()) as frames:
            frame = await anext(frames)
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call] # pymodbus leaves it so
    assert frame.values[0].tolist() == [value for _, _, value in given]
    assert not frame.quality.any()

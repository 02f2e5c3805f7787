"""The Modbus driver against devices that misbehave: never a wrong value, never a hang."""

import asyncio
import random
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from protocols.drivers import NotConnected
from protocols.drivers.modbus import Config, Driver
from protocols.frame import Frame, Quality
from protocols.settings import check_settings
from simulators.faults.catalogue import MODBUS, MODBUS_SHAPES
from simulators.faults.modbus_lies import LIES, Exchange, Pace, Wire
from simulators.faults.modbus_server import (
    DEAD_UNIT,
    FEW_REGISTERS,
    HOLES,
    SHAPES,
    ChaosModbus,
    chaos_modbus,
)
from simulators.faults.modbus_wire import (
    COILS,
    HOLDING,
    INPUT,
    Request,
    TcpFrames,
    answer,
    read_request,
)
from simulators.faults.plan import OK, Script, Sprinkle, Step
from simulators.faults.proxy import FREE, Hindrance, Way, proxying
from simulators.faults.telling import TellingRegisters, bit, word

TIMEOUT = 30
QUICK = Pace(late_s=5.0, drip_s=0.02, away_s=0.05, gateway_s=0.02)
FUNCTIONS = {"holding": HOLDING, "input": INPUT}
# Three blocks: two of the same function and length, one of the other table.
SPANS = [("holding", 0), ("holding", 60), ("input", 60)]
# Where function and length agree, nothing in Modbus tells such an answer from the right one.
INDISCERNIBLE = "stale-data"
MISLABELLING = [
    "late-reply",
    "stale-data",
    "wrong-transaction",
    "zero-transaction",
    "wrong-unit",
    "wrong-function",
    "wrong-protocol",
]


def points(spans: Iterable[tuple[str, int]] = SPANS) -> list[dict[str, Any]]:
    """Five numbers in each span: single registers, and two of them together."""
    found = []
    for table, first in spans:
        for at, kind in ((0, "uint16"), (1, "int32"), (3, "uint16"), (4, "uint32"), (6, "int16")):
            address = f"{table}:{first + at}"
            found.append(
                {"id": address.replace(":", "-"), "address": address, "type": kind, "unit": "1"}
            )
    return found


def driver_for(device: ChaosModbus, **settings: Any) -> Driver:
    data: dict[str, Any] = {
        "id": "meter",
        "kind": "modbus",
        "host": device.host,
        "port": device.port,
        "timeout": "150ms",
        "interval": "0s",
        "points": points(),
    }
    return Driver(check_settings(data | settings, Config, Path("agent.toml")), time.time_ns)


def expected(unit: int, address: str, kind: str) -> int:
    """What a register tells of itself, read as a number of that type."""
    table, first = address.split(":")
    words = 1 if kind.endswith("16") else 2
    raw = struct.pack(
        f">{words}H", *(word(unit, FUNCTIONS[table], int(first) + n) for n in range(words))
    )
    return int.from_bytes(raw, "big", signed=kind.startswith("int"))


@dataclass
class Witness:
    """Checks every good value against the register it is said to come from."""

    driver: Driver
    good: int = 0
    bad: int = 0
    faults: list[NotConnected] = field(default_factory=list)

    def see(self, frame: Frame) -> None:
        config = self.driver._config
        for place, column in enumerate(frame.columns):
            point = config.points[column]
            want = expected(config.unit, point.address, point.type)
            for row in range(len(frame.values)):
                quality = Quality(frame.quality[row, place])
                assert quality in {Quality.GOOD, Quality.BAD}
                if quality is Quality.GOOD:
                    assert frame.values[row, place] == want, point.address
                    self.good += 1
                else:
                    self.bad += 1

    @property
    def noticed(self) -> bool:
        return bool(self.bad or self.faults)

    async def follow(self, enough: Callable[[], bool]) -> None:
        """Read as the collector does, connecting again after every loss."""
        async with asyncio.timeout(TIMEOUT):
            while not enough():
                try:
                    await self._read(enough)
                except NotConnected as fault:
                    self.faults.append(fault)
                    await asyncio.sleep(0.01)

    async def _read(self, enough: Callable[[], bool]) -> None:
        async with aclosing(self.driver.frames()) as frames:
            async for frame in frames:
                self.see(frame)
                if enough():
                    return

    async def recover(self) -> None:
        """Read until a whole poll is good, with nothing wrong in between."""
        before = self.good
        await self.follow(lambda: self.good >= before + len(self.driver._config.points))


@asynccontextmanager
async def device(**settings: Any) -> AsyncIterator[ChaosModbus]:
    async with chaos_modbus(TellingRegisters(), pace=QUICK, **settings) as chaos:
        yield chaos


def test_every_fault_has_a_name_that_people_can_look_up() -> None:
    assert set(LIES) == set(MODBUS)
    assert set(MODBUS_SHAPES) == SHAPES


@pytest.mark.parametrize("name", sorted(set(LIES) - {INDISCERNIBLE}))
async def test_no_wrong_answer_is_taken_and_the_device_is_read_again_afterwards(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    script = Script([Step(OK, 6), Step(name, 4)])
    async with device(plan=script, seed=7) as chaos:
        witness = Witness(driver_for(chaos))
        await witness.follow(lambda: script.over)
        await witness.recover()
        assert chaos.played == {name: 4}
    assert witness.noticed or name == "slow-drip"
    assert all(fault.where and fault.remedy for fault in witness.faults)
    loud = [record for record in caplog.records if record.name == "asyncio"]
    assert not loud, "the event loop had to catch what the driver let fall"


@pytest.mark.parametrize("name", [name for name in sorted(LIES) if name.startswith("exception")])
async def test_an_exception_is_bad_quality_on_a_connection_that_lasts(name: str) -> None:
    script = Script([Step(name, 30)])
    async with device(plan=script) as chaos:
        witness = Witness(driver_for(chaos, timeout="10s"))
        await witness.follow(lambda: script.over and witness.good > 0)
        assert chaos.door.guests == 1
    assert witness.bad >= 30 * 5
    assert not witness.faults


@pytest.mark.parametrize("name", MISLABELLING)
async def test_a_client_that_looks_at_the_length_only_would_mislabel_values(name: str) -> None:
    """What the faults are worth: this is what the driver is protected from."""
    script = Script([Step(OK if name == INDISCERNIBLE else name, 1), Step(name, 1)])
    async with device(plan=script) as chaos:
        reader, writer = await asyncio.open_connection(chaos.host, chaos.port)
        writer.write(read_request(1, HOLDING, 0, 7, 1) + read_request(1, HOLDING, 60, 7, 2))
        async with asyncio.timeout(TIMEOUT):
            answer = await reader.readexactly(9 + 14)
            if name == INDISCERNIBLE:
                answer = await reader.readexactly(9 + 14)
        writer.close()
    shown = struct.unpack(">7H", answer[9:])
    second = [word(1, HOLDING, 60 + at) for at in range(7)]
    first = [word(1, HOLDING, at) for at in range(7)]
    # These are right answers to the first question; the second one gets them.
    late = name in {"late-reply", INDISCERNIBLE}
    assert (list(shown) == first) == late
    assert list(shown) != second


async def test_a_gateways_stale_data_is_refused_where_the_blocks_differ_in_length() -> None:
    spans = points(SPANS[:2])[:-1] + points([("input", 60)])[:-3]
    script = Script([Step(OK, 6), Step(INDISCERNIBLE, 4)])
    async with device(plan=script) as chaos:
        witness = Witness(driver_for(chaos, points=spans))
        await witness.follow(lambda: script.over)
        await witness.recover()
    assert witness.faults


@pytest.mark.parametrize("seed", range(4))
async def test_any_mixture_of_faults_gives_right_values_or_none(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)
    waiting = {"slow-drip", "no-reply", "late-reply"}
    names = sorted(set(LIES) - waiting - {INDISCERNIBLE})
    async with device(plan=Sprinkle(names, 0.4, chance), seed=seed) as chaos:
        witness = Witness(driver_for(chaos))
        await witness.follow(lambda: chaos.requests >= 200)
        chaos.plan = Script([])
        await witness.recover()
        assert len(chaos.played) > 10
    assert witness.noticed
    assert not [record for record in caplog.records if record.name == "asyncio"]


@pytest.mark.parametrize("shape", ["half-open", "refused"])
async def test_a_device_that_is_out_of_reach_is_read_again_when_it_is_back(shape: str) -> None:
    async with device() as chaos:
        witness = Witness(driver_for(chaos))
        await witness.recover()
        await chaos.take_shape({shape})
        good = witness.good
        await witness.follow(lambda: len(witness.faults) >= 3)
        assert witness.good == good
        await chaos.take_shape(())
        await witness.recover()
    assert not witness.bad


async def test_a_device_with_one_connection_serves_who_came_first_and_then_the_next() -> None:
    async with device(shapes={"one-connection"}) as chaos:
        _, other = await asyncio.open_connection(chaos.host, chaos.port)
        await until(lambda: chaos.door.guests == 1)
        witness = Witness(driver_for(chaos, timeout="10s"))
        await witness.follow(lambda: len(witness.faults) >= 2)
        assert not witness.good
        other.close()
        await witness.recover()


async def test_two_devices_at_one_place_share_its_only_connection() -> None:
    async with device(shapes={"one-connection"}) as chaos:
        first, second = (Witness(driver_for(chaos, unit=at, timeout="10s")) for at in (1, 3))
        async with aclosing(first.driver.frames()) as frames:
            first.see(await anext(frames))
            await second.recover()
            first.see(await anext(frames))
    assert not first.noticed
    assert not second.noticed


@pytest.mark.parametrize("shape", ["dead-unit", "silent-unit"])
async def test_a_dead_unit_behind_a_gateway_leaves_the_others_their_values(shape: str) -> None:
    async with device(shapes={shape}) as chaos:
        # Only the dead unit has to be waited for; the others may be as slow as this machine.
        waits = {1: "10s", DEAD_UNIT: "150ms", 3: "10s"}
        witnesses = {
            unit: Witness(driver_for(chaos, unit=unit, timeout=wait))
            for unit, wait in waits.items()
        }
        dead = witnesses.pop(DEAD_UNIT)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(dead.follow(lambda: chaos.played[shape] >= 3))
            for witness in witnesses.values():
                tasks.create_task(witness.recover())
        await chaos.take_shape(())
        await dead.recover()
    assert dead.noticed
    assert not any(witness.noticed for witness in witnesses.values())


async def test_refused_addresses_spoil_no_value_outside_of_their_block() -> None:
    spans = [("holding", 0), ("holding", HOLES[0].start - 4), ("input", 60)]
    async with device(shapes={"holes"}) as chaos:
        witness = Witness(driver_for(chaos, points=points(spans), timeout="10s"))
        await witness.follow(lambda: witness.bad > 0 and witness.good >= 10)
    assert not witness.faults


async def test_a_device_that_gives_few_registers_is_read_within_its_limit() -> None:
    together = [("holding", at) for at in range(0, 70, 7)]
    async with device(shapes={"few-registers"}) as chaos:
        greedy = Witness(driver_for(chaos, points=points(together), timeout="10s"))
        await greedy.recover()
        refusals = chaos.played["few-registers"]
        await greedy.recover()
        assert chaos.played["few-registers"] == refusals > 0
        assert any("holding a request" in note for note in greedy.driver.notes())
        modest = Witness(
            driver_for(chaos, points=points(together), timeout="10s", max_registers=FEW_REGISTERS)
        )
        await modest.recover()
    assert not greedy.noticed
    assert not modest.noticed


async def test_a_device_that_does_not_answer_never_delays_another_of_the_same_unit() -> None:
    async with device(shapes={"half-open"}) as mute, device() as sound:
        stuck = Witness(driver_for(mute, timeout="30s"))
        lively = Witness(driver_for(sound, interval="100ms", timeout="10s"))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(stuck.recover())
            await lively.follow(lambda: lively.good >= 5 * 15)
            assert not waiting.done()
            waiting.cancel()
    assert not stuck.good
    assert not stuck.faults
    assert not lively.noticed


@pytest.mark.parametrize("fault", ["cut", "drop-bytes", "half-open"])
@pytest.mark.parametrize("way", [Way.OUT, Way.BACK])
async def test_a_bad_network_gives_right_values_or_none(fault: str, way: Way) -> None:
    async with device() as chaos, proxying((chaos.host, chaos.port), seed=2) as proxy:
        witness = Witness(driver_for(chaos, port=proxy.port))
        await witness.recover()
        proxy.hindrance = Hindrance(fault, way, pieces=5)
        await witness.follow(lambda: len(witness.faults) >= 4)
        proxy.hindrance = FREE
        await witness.recover()
    assert not witness.bad


async def test_a_reader_that_stops_leaves_no_connection_behind_whatever_the_device_does() -> None:
    async with device(shapes={"half-open"}) as chaos:
        reading = Witness(driver_for(chaos, timeout="30s"))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(reading.recover())
            await until(lambda: chaos.requests == 1)
            task.cancel()
        await until(lambda: chaos.door.guests == 0)
    assert not reading.noticed


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        while not holds():  # noqa: ASYNC110 - the device offers nothing to wait for
            await asyncio.sleep(0.005)


class Unheard(Wire):
    """Takes whatever is sent; there is nobody at its end."""

    def __init__(self) -> None:
        self.frame = TcpFrames().frame
        self.damageable = 9
        self.held: deque[bytes] = deque()
        self.before = b""
        self.over = False

    async def send(self, data: bytes) -> None:
        assert data


@pytest.mark.parametrize("name", sorted(LIES))
async def test_a_device_can_lie_about_every_answer_also_one_that_is_a_refusal(name: str) -> None:
    registers = TellingRegisters([1])
    pace = Pace(late_s=0.0, drip_s=0.0)
    asked = [(1, HOLDING, 60), (1, COILS, 1), (9, HOLDING, 2), (9, INPUT, 125), (1, 8, 0)]
    for seed in range(60):
        unit, function, count = asked[seed % len(asked)]
        request = Request(seed, unit, read_request(unit, function, 0, count)[7:])
        wire = Unheard()
        pdu = answer(registers, request)
        chance = random.Random(seed)
        exchange = Exchange(request, pdu, registers, wire, chance, pace, lambda: None)
        await LIES[name](exchange)
        await wire.release()


def test_a_value_tells_unit_table_and_address() -> None:
    assert word(5, HOLDING, 37) == 5037
    assert word(5, INPUT, 37) == 5537
    everything = [word(unit, table, at) for unit in (1, 64) for table in (3, 4) for at in (0, 499)]
    assert len(set(everything)) == len(everything)
    assert max(everything) < 1 << 16
    data = TellingRegisters().read(2, COILS, 3, 11)
    assert [bool(data[at // 8] >> at % 8 & 1) for at in range(11)] == [
        bit(2, COILS, 3 + at) for at in range(11)
    ]

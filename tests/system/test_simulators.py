"""The simulators over real sockets, with the clients that factories use."""

import asyncio
import os
import struct
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from asyncua import ua as typed_ua
from asyncua.client.client import Client
from asyncua.common.subscription import DataChangeEvent
from paho.mqtt.enums import CallbackAPIVersion
from pymodbus.client import AsyncModbusTcpClient

from protocols.broker import BrokerConfig
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.mqtt import connection
from simulators.broker import EmbeddedBroker
from simulators.mbap import ModbusServer
from simulators.minute import MINUTE
from simulators.modbus_server import PlantMeter, registers
from simulators.opcua_server import FOLDERS, NAMESPACE, MachineServer, node_identifier
from simulators.plant import MACHINE, Change, Plant, Signal
from simulators.recording import Recording, generate, read_recording, zone
from simulators.replay import Reading, ReplayMeter, readings
from simulators.torture.yard import spoken

ua: Any = typed_ua  # its annotations ask for number types of its own
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMEOUT = 60
BLOCK = 12


class Notes:
    """A truth file in memory."""

    def __init__(self) -> None:
        self.served: list[tuple[int, int, int, int, int]] = []

    def reading(self, t_ns: int, first: int, registers: int, energy: int, power: int) -> None:
        self.served.append((t_ns, first, registers, energy, power))


def running_plant(seed: int = 7) -> Plant:
    return Plant(seed, time.time_ns() // MINUTE * MINUTE - MINUTE)


@asynccontextmanager
async def modbus(port: int) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient("127.0.0.1", port=port, retries=0, timeout=TIMEOUT)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


async def words(client: AsyncModbusTcpClient, first: int, count: int) -> list[int]:
    answer = await client.read_holding_registers(first, count=count, device_id=1)
    assert not answer.isError()
    return list(answer.registers)


async def test_the_meter_serves_the_plant_and_every_reading_is_recorded() -> None:
    plant, notes = running_plant(), Notes()
    meter = PlantMeter(plant, notes, time.time_ns)
    async with ModbusServer(meter.opened) as server, modbus(server.port) as client:
        holding = await words(client, 0, BLOCK)
        answer = await client.read_input_registers(0, count=BLOCK, device_id=1)
        part = await words(client, 4, 2)
        refused = await client.read_holding_registers(1, count=BLOCK, device_id=1)
        assert refused.exception_code == 2
    assert [(first, count) for _, first, count, _, _ in notes.served] == [(0, 12), (0, 12), (4, 2)]
    for (t, first, count, energy, power), got in zip(
        notes.served, (holding, answer.registers, part), strict=True
    ):
        reading = plant.meter(t)
        assert (reading.energy, reading.power) == (energy, power)
        block = registers(reading)[2 * first : 2 * (first + count)]
        assert list(struct.unpack(f">{count}H", block)) == got


async def test_the_meters_registers_are_where_its_page_says() -> None:
    plant = running_plant()
    meter = PlantMeter(plant, Notes(), lambda: plant.start_ns + 90 * SECOND)
    reading = plant.meter(plant.start_ns + 90 * SECOND)
    async with ModbusServer(meter.opened) as server, modbus(server.port) as client:
        block = await words(client, 0, BLOCK)
    kinds = client.DATATYPE
    assert client.convert_from_registers(block[0:2], kinds.UINT32) == reading.energy
    assert client.convert_from_registers(block[2:4], kinds.INT32) == reading.power
    setpoint = client.convert_from_registers(block[4:6], kinds.FLOAT32)
    assert setpoint == pytest.approx(reading.furnace_setpoint)
    assert tuple(block[6:9]) == reading.currents
    assert block[9] == reading.power_factor
    assert client.convert_from_registers(block[10:12], kinds.UINT32) == reading.recipe_number


async def test_a_clock_set_to_before_the_start_does_not_stop_the_meter() -> None:
    plant, notes = running_plant(), Notes()
    meter = PlantMeter(plant, notes, lambda: 0)
    async with ModbusServer(meter.opened) as server, modbus(server.port) as client:
        await words(client, 0, BLOCK)
    assert notes.served[0][0] == plant.start_ns


@asynccontextmanager
async def machine(plant: Plant, port: int = 0) -> AsyncIterator[MachineServer]:
    async with (
        MachineServer(plant, now_ns=time.time_ns, port=port) as server,
        asyncio.TaskGroup() as tasks,
    ):
        publishing = tasks.create_task(server.publish())
        yield server
        publishing.cancel()


def nanoseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


async def test_the_machine_shows_the_plants_values_with_their_exact_times() -> None:
    plant = running_plant()
    async with machine(plant) as server, Client(server.url) as client:
        index = await client.get_namespace_index(NAMESPACE)
        found: list[Signal] = []
        for folder, signals in FOLDERS.items():
            for signal in signals:
                path = ["Machines", MACHINE, folder, signal.value]
                node = await client.nodes.objects.get_child([f"{index}:{name}" for name in path])
                assert node.nodeid == ua.NodeId.from_string(f"ns={index};{node_identifier(signal)}")
                value = await node.read_data_value()
                assert value.StatusCode is not None
                assert value.StatusCode.is_good()
                assert value.SourceTimestamp is not None
                at = nanoseconds(value.SourceTimestamp)
                assert value.Value is not None
                assert plant.newest(signal, at) == Change(at, signal, value.Value.Value)
                found.append(signal)
        assert set(found) == set(Signal)
        endpoints = await client.get_endpoints()
        assert [endpoint.EndpointUrl for endpoint in endpoints] == [server.url]


async def test_a_subscription_gets_every_change_in_order_and_exactly() -> None:
    plant = running_plant()
    watched = (Signal.STATE, Signal.TOTAL, Signal.GOOD, Signal.SCRAP, Signal.SPINDLE_TEMPERATURE)
    got: dict[Signal, list[Change]] = {signal: [] for signal in watched}
    async with machine(plant) as server, Client(server.url) as client:
        index = await client.get_namespace_index(NAMESPACE)
        by_node = {f"ns={index};{node_identifier(signal)}": signal for signal in watched}
        subscription = await client.create_subscription(50)
        await subscription.subscribe_data_change([client.get_node(node) for node in by_node])
        async with asyncio.timeout(TIMEOUT):
            async for event in subscription:
                assert isinstance(event, DataChangeEvent)
                signal = by_node[event.node.nodeid.to_string()]
                value = event.data.monitored_item.Value
                at = nanoseconds(value.SourceTimestamp)
                got[signal].append(Change(at, signal, value.Value.Value))
                if len(got[Signal.STATE]) > 1 and len(got[Signal.TOTAL]) > 2:
                    break
        await subscription.delete()
    for signal, changes in got.items():
        first, last = changes[0], changes[-1]
        assert plant.newest(signal, first.time) == first
        between = [
            change for change in plant.changes(first.time, last.time) if change.signal is signal
        ]
        assert changes[1:] == between


async def test_clients_of_the_machine_may_change_nothing() -> None:
    plant = running_plant()
    async with machine(plant) as server:
        async with Client(server.url) as client:
            index = await client.get_namespace_index(NAMESPACE)
            node = client.get_node(f"ns={index};{node_identifier(Signal.TOTAL)}")
            with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                await node.write_value(ua.DataValue(ua.Variant(1, ua.VariantType.UInt32)))
            with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                await client.nodes.objects.add_folder(index, "Mine")
            with pytest.raises(ua.uaerrors.BadUserAccessDenied):
                await client.nodes.server.call_method("0:GetMonitoredItems", 1)
        for name in ("admin", "operator"):
            named = Client(server.url)
            named.set_user(name)
            with pytest.raises(ua.uaerrors.BadIdentityTokenRejected):
                await named.connect()


async def test_the_machine_continues_after_a_restart_on_the_same_port() -> None:
    plant = running_plant()
    async with machine(plant) as server:
        port = server.port
        async with Client(server.url) as client:
            index = await client.get_namespace_index(NAMESPACE)
            before = await client.get_node(f"ns={index};i=2001").read_data_value()
        with pytest.raises(MillgateError, match="cannot listen"):
            async with machine(plant, port):
                pass
    async with machine(Plant(plant.seed, plant.start_ns), port) as server:
        assert server.port == port
        async with Client(server.url) as client:
            after = await client.get_node(f"ns={index};i=2001").read_data_value()
    for value in (before, after):
        assert value.SourceTimestamp is not None
        assert value.Value is not None
        at = nanoseconds(value.SourceTimestamp)
        assert plant.counts(at).total == value.Value.Value


def decoded(block: list[int]) -> Reading:
    return Reading(*struct.unpack(">IIII", struct.pack(">8H", *block)))


async def test_a_replay_moves_on_by_one_row_for_each_further_read_on_a_connection() -> None:
    recording = generate(5, 3, zone("+08:00"), 900 * SECOND)
    expected = readings(recording, 100)
    meter = ReplayMeter(expected)
    async with ModbusServer(meter.opened) as server:
        async with modbus(server.port) as client:
            got = [decoded(await words(client, 0, 8)) for _ in range(3)]
        assert got == expected[:3]
        async with modbus(server.port) as client:
            refused = await client.read_holding_registers(0, count=9, device_id=1)
            assert refused.exception_code == 2
            got = [decoded(await words(client, 0, 8)) for _ in range(6)]
        assert got == [*expected[2:], expected[-1], expected[-1]]
        async with modbus(server.port) as client:
            assert decoded(await words(client, 0, 8)) == expected[-1]


async def replay_all(recording: Recording) -> list[Reading]:
    """Read a whole recording through a socket, with a thousand requests under way."""
    many = len(recording.counts) + 1
    async with ModbusServer(ReplayMeter(readings(recording)).opened) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        got: list[Reading] = []
        async with asyncio.timeout(TIMEOUT):
            while len(got) < many:
                batch = min(1000, many - len(got))
                writer.write(struct.pack(">HHHBBHH", 1, 0, 6, 1, 4, 0, 8) * batch)
                for _ in range(batch):
                    answer = await reader.readexactly(25)
                    got.append(Reading(*struct.unpack(">IIII", answer[9:])))
        writer.transport.abort()
    return got


def check_replay(recording: Recording, got: list[Reading]) -> None:
    assert [reading.remaining for reading in got] == list(range(len(recording.counts), -1, -1))
    first = recording.first_ns // SECOND
    step = recording.interval_ns // SECOND
    assert [reading.time for reading in got] == [first + at * step for at in range(len(got))]
    deltas = [after.energy - before.energy for before, after in pairwise(got)]
    assert deltas == list(recording.counts)


async def test_a_generated_year_arrives_exactly() -> None:
    recording = generate(35_040, 5, zone("+08:00"), 900 * SECOND)
    got = await replay_all(recording)
    assert len(got) == 35_041
    check_replay(recording, got)


async def test_the_steel_plants_year_arrives_exactly() -> None:
    data = os.environ.get("MILLGATE_DATA")
    if not data:
        pytest.skip("MILLGATE_DATA does not name a folder with recorded data")
    path = Path(data) / "steel" / "Steel_industry_data.csv"
    recording = read_recording(path, "Usage_kWh", zone("Asia/Seoul"), 900 * SECOND)
    assert recording.mended == 365
    got = await replay_all(recording)
    assert len(got) == 35_041
    check_replay(recording, got)
    assert Decimal(got[-1].energy - got[0].energy) / 100 == Decimal("959640.31")
    assert datetime.fromtimestamp(got[0].time, UTC) == datetime(2017, 12, 31, 15, tzinfo=UTC)
    assert datetime.fromtimestamp(got[-1].time, UTC) == datetime(2018, 12, 31, 15, tzinfo=UTC)


async def test_the_broker_carries_300_kib_and_says_nothing_of_its_own() -> None:
    payload = bytes(range(256)) * 1200
    got: list[tuple[str, bytes]] = []
    subscribed, arrived = threading.Event(), threading.Event()

    def listen(client: mqtt.Client, *_: object) -> None:
        client.subscribe([("#", 1), ("$SYS/#", 1)])

    def take(client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        got.append((message.topic, bytes(message.payload)))
        arrived.set()

    async with EmbeddedBroker() as broker:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="test")
        client.on_connect, client.on_message = listen, take
        client.on_subscribe = lambda *_: subscribed.set()
        await asyncio.to_thread(client.connect, "127.0.0.1", broker.port)
        client.loop_start()
        try:
            assert await asyncio.to_thread(subscribed.wait, TIMEOUT)
            sent = client.publish("mill/up", payload, qos=1)
            await asyncio.to_thread(sent.wait_for_publish, TIMEOUT)
            assert await asyncio.to_thread(arrived.wait, TIMEOUT)
        finally:
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)
    assert got == [("mill/up", payload)]


async def test_a_mill_without_a_broker_of_others_speaks_what_the_embedded_one_understands() -> None:
    async with EmbeddedBroker() as broker:
        config = BrokerConfig(host="127.0.0.1", port=broker.port, protocol=spoken(()))
        async with connection(config, "mill", []) as link, asyncio.timeout(TIMEOUT):
            await link.connected.wait()


async def test_the_broker_stops_with_clients_connected_and_frees_its_port() -> None:
    async with EmbeddedBroker() as broker:
        port = broker.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(MillgateError, match="cannot listen"):
            async with EmbeddedBroker(port):
                pass
    async with asyncio.timeout(TIMEOUT):
        assert await until_closed(reader) == b""
    writer.transport.abort()
    async with EmbeddedBroker(port) as again:
        assert again.port == port


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""

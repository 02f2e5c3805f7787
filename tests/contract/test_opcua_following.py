"""What the server is asked to leave out, to queue, and how polling differs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.server.internal_session import InternalSession
from asyncua.server.monitored_item_service import MonitoredItemService
from asyncua.server.server import Server
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaprotocol_auto import DataChangeFilter

from protocols.frame import Quality
from tests.servers.opcua import (
    STATUS,
    URI,
    Node,
    collect,
    driver_for,
    end_of,
    first_values,
    plant,
    running,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
Asked = dict[int, ua.MonitoringParameters]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with running() as shared:
        yield shared


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What the server was last asked for each client handle."""
    seen: Asked = {}
    usual = InternalSession.create_monitored_items

    async def note(self: Any, params: ua.CreateMonitoredItemsParameters) -> Any:
        for item in params.ItemsToCreate:
            seen[item.RequestedParameters.ClientHandle] = item.RequestedParameters
        return await usual(self, params)

    monkeypatch.setattr(InternalSession, "create_monitored_items", note)
    return seen


def refuse_deadbands(monkeypatch: pytest.MonkeyPatch, kind: ua.DeadbandType, code: int) -> None:
    """Let the server refuse a kind of deadband, as many do for nodes without EURange."""
    usual: Callable[..., Any] = MonitoredItemService._create_data_change_monitored_item

    async def refuse(self: Any, item: ua.MonitoredItemCreateRequest) -> Any:
        wanted = item.RequestedParameters.Filter
        if isinstance(wanted, DataChangeFilter) and wanted.DeadbandType == kind:
            return ua.MonitoredItemCreateResult(StatusCode=STATUS(code))
        return await usual(self, item)

    monkeypatch.setattr(MonitoredItemService, "_create_data_change_monitored_item", refuse)


async def test_the_server_leaves_out_what_lies_within_an_absolute_deadband(server: Server) -> None:
    nodes = [Node(URI, "damped", "Int32", 0), Node(URI, "free", "Int32", 0)]
    async with plant(server, nodes) as mill:
        # 0.5 in the point's own unit are 50 of the node's.
        points = {"damped": {"scale": "0.01", "deadband": "0.5"}}
        driver = driver_for(mill.port, nodes, points=points)
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"damped": 1, "free": 1})
            for number in (49, 10, 20, 90, 300, 0):
                await mill.write("damped", number)
                await mill.write("free", number)
            got = await collect(frames, driver, {"damped": 3, "free": 6})
    assert [value for value, *_ in got["damped"]] == [90, 300, 0]
    assert [value for value, *_ in got["free"]] == [49, 10, 20, 90, 300, 0]


async def test_a_percent_deadband_is_asked_of_the_server(server: Server, asked: Asked) -> None:
    nodes = [Node(URI, "a", "Double", 1.5), Node(URI, "b", "Double", 2.5)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, points={"b": {"deadband_percent": "2.5"}})
        assert await first_values(driver, ["a", "b"]) == {"a": 1.5, "b": 2.5}
    assert not isinstance(asked[1].Filter, DataChangeFilter)
    wanted = asked[2].Filter
    assert isinstance(wanted, DataChangeFilter)
    assert wanted.DeadbandType == ua.DeadbandType.Percent
    assert wanted.DeadbandValue == 2.5
    assert wanted.Trigger == ua.DataChangeTrigger.StatusValue


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (ua.DeadbandType.Percent, StatusCodes.BadDeadbandFilterInvalid),
        (ua.DeadbandType.Percent, StatusCodes.BadMonitoredItemFilterUnsupported),
        (ua.DeadbandType.Absolute, StatusCodes.BadFilterNotAllowed),
    ],
)
async def test_where_a_deadband_is_refused_every_change_is_taken_and_that_is_told_once(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: ua.DeadbandType,
    code: int,
) -> None:
    refuse_deadbands(monkeypatch, kind, code)
    nodes = [Node(URI, f"v{number}", "Int32", 100 + number) for number in range(4)]
    field = "deadband_percent" if kind is ua.DeadbandType.Percent else "deadband"
    points = {"v1": {field: "50"}, "v3": {field: "50"}}
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, points=points)
        for _ in range(2):
            async with aclosing(driver.frames()) as frames:
                got = await collect(frames, driver, {node.name: 1 for node in nodes})
                assert {name: one[0][0] for name, one in got.items()} == {
                    node.name: node.value for node in nodes
                }
                await mill.write("v3", 104)
                assert (await collect(frames, driver, {"v3": 1}))["v3"][0][0] == 104
                await mill.write("v3", 103)
    assert driver.refused == {}
    told = [line for line in caplog.messages if "refuses the deadband" in line]
    assert len(told) == 1
    assert told[0].endswith(": v1, v3")
    assert any("refuses the deadband" in note for note in driver.notes())


async def test_each_point_is_sampled_and_queued_as_it_says(server: Server, asked: Asked) -> None:
    nodes = [Node(URI, name, "Int32", 0) for name in ("usual", "fast", "deep")]
    points: dict[str, dict[str, Any]] = {
        "fast": {"sampling_interval": "10ms"},
        "deep": {"queue_size": 77},
    }
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, points=points, queue_size=33)
        await first_values(driver, ["usual", "fast", "deep"])
    wanted = [(one.SamplingInterval, one.QueueSize) for _, one in sorted(asked.items())]
    assert wanted == [(100.0, 33), (10.0, 10), (100.0, 77)]
    assert all(one.DiscardOldest for one in asked.values())


async def test_a_server_that_samples_more_slowly_than_asked_is_told(server: Server) -> None:
    nodes = [Node(URI, "a", "Int32", 0), Node(URI, "b", "Int32", 0)]
    points = {"b": {"sampling_interval": "10ms"}}
    async with plant(server, nodes) as mill:
        driver = driver_for(
            mill.port, nodes, points=points, publishing_interval="50ms", sampling_interval="50ms"
        )
        await first_values(driver, ["a", "b"])
    assert "the server samples 1 point(s) only every 50 ms" in driver.notes()


async def test_two_points_of_one_node_cost_one_item_and_keep_their_own_scale(
    server: Server, asked: Asked
) -> None:
    nodes = [Node(URI, "a", "Int32", 7), Node(URI, "b", "Int32", 8)]
    async with plant(server, nodes) as mill:
        twice = {"id": "again", "address": nodes[0].address, "type": "Int32", "scale": "100"}
        driver = driver_for(mill.port, [*nodes, twice])
        values = await first_values(driver, ["a", "b", "again"])
    assert values == {"a": 7, "b": 8, "again": 700}
    assert len(asked) == 2


async def test_a_poll_gives_every_point_every_time_at_the_time_of_reading(server: Server) -> None:
    nodes = [Node(URI, f"v{number}", "Int32", 50 + number) for number in range(5)]
    clock = iter(range(10**9, 10**12, 10**9))
    async with plant(server, nodes) as mill:
        old = datetime.now(UTC) - timedelta(days=400)
        await mill.write("v0", 50, SourceTimestamp=old)
        driver = driver_for(mill.port, nodes, lambda: next(clock), mode="poll")
        async with aclosing(driver.frames()) as frames:
            got = await collect(frames, driver, {node.name: 3 for node in nodes})
    for node in nodes:
        values = [value for value, *_ in got[node.name]]
        times = [moment for _, moment, _ in got[node.name]]
        assert set(values) == {node.value}
        assert times == sorted(set(times))
        assert times[-1] < 10**12
    assert driver.counts.absurd_times == 0


async def test_a_poll_follows_values_and_their_status(server: Server) -> None:
    nodes = [Node(URI, "a", "Int32", 1), Node(URI, "b", "Double", 1.0)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, mode="poll")
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"a": 1, "b": 1})
            await mill.write("a", 2)
            await mill.write("b", 2.0, StatusCode=STATUS(StatusCodes.BadSensorFailure))
            await until_seen(frames, driver, {"a": (2, Quality.GOOD), "b": (0.0, Quality.BAD)})
            await mill.write("b", 3.0, StatusCode=STATUS(StatusCodes.UncertainSensorNotAccurate))
            await until_seen(frames, driver, {"b": (3.0, Quality.UNCERTAIN)})


async def until_seen(frames: Any, driver: Any, wanted: dict[str, Any]) -> None:
    """Read until each point was seen with this value and quality."""
    missing = dict(wanted)
    for _ in range(1000):
        got = await collect(frames, driver, dict.fromkeys(missing, 1))
        for name in list(missing):
            value, _, quality = got[name][-1]
            if (value, quality) == missing[name]:
                del missing[name]
        if not missing:
            return
    pytest.fail(f"never seen: {missing}")


async def test_polls_that_come_too_late_are_not_made_up_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    started: list[float] = []
    ended: list[float] = []
    usual = InternalSession.read
    loop = asyncio.get_running_loop()

    async def slow(self: Any, params: Any) -> Any:
        if not self.external:
            return await usual(self, params)
        started.append(loop.time())
        await asyncio.sleep(0.1)
        ended.append(loop.time())
        return await usual(self, params)

    monkeypatch.setattr(InternalSession, "read", slow)
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, mode="poll", interval="10ms")
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"a": 5})
    # One at a time, however late.
    reads = list(zip(started[1:], ended, strict=False))
    assert all(start >= end for start, end in reads)


async def test_a_polled_server_that_stops_ends_the_frames_at_once(server: Server) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, mode="poll", interval="1h")
        frames = driver.frames()
        await collect(frames, driver, {"a": 1})
        pending = asyncio.ensure_future(end_of(frames))
        for transport in list(server.iserver.asyncio_transports):
            transport.close()
        fault = await pending
        await until(lambda: not server.iserver.asyncio_transports)
        for session in list(server.iserver._external_sessions.values()):
            await session.close_session(delete_subs=True)
    assert fault.remedy


async def test_notes_tell_what_stands_and_never_a_value(server: Server) -> None:
    nodes = [Node(URI, "fine", "Int32", 424242), Node(URI, "wrong", "Int32", 424243)]
    missing = {"id": "gone", "address": f"nsu={URI};s=gone", "type": "Int32"}
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, [*nodes, missing], points={"wrong": {"type": "Double"}})
        assert driver.notes() == []
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"fine": 1, "wrong": 1})
            await mill.write("fine", 424244, SourceTimestamp=datetime(1601, 1, 1, tzinfo=UTC))
            await collect(frames, driver, {"fine": 1})
            await mill.write("fine", 424245)
            await collect(frames, driver, {"fine": 1})
            notes = driver.notes()
    assert notes == [
        "the connection is not protected",
        "the server does not give (BadNodeIdUnknown): gone",
        "not of the declared type: wrong",
        "1 timestamps that cannot be true, replaced",
        "1 values without use",
    ]

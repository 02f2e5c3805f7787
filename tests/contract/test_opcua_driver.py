"""The OPC-UA driver against a real server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError

from protocols.drivers import load
from protocols.frame import Quality
from tests.servers.opcua import (
    NODE,
    STATUS,
    URI,
    Node,
    apart,
    collect,
    driver_for,
    end_of,
    first_values,
    plant,
    running,
    telling_nodes,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = 424242


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """One server for all tests that leave it as they found it; making one takes seconds."""
    async with running() as shared:
        yield shared


@pytest.fixture(params=["subscribe", "poll"])
def mode(request: pytest.FixtureRequest) -> str:
    """What holds however the values come."""
    return str(request.param)


@pytest.mark.parametrize(
    ("stated", "real"), [(0, 10_000), (1, 1), (40, 40), (100, 100), (0, 7), (100, 1)]
)
async def test_every_point_gets_its_own_value_whatever_the_server_takes_per_call(
    server: Server, monkeypatch: pytest.MonkeyPatch, mode: str, stated: int, real: int
) -> None:
    nodes = telling_nodes()
    for limit in (
        ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    ):
        await server.get_node(NODE(limit)).write_value(ua.Variant(stated, ua.VariantType.UInt32))
    taken = take_at_most(monkeypatch, real)
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, apart(nodes), mode=mode)
        values = await first_values(driver, [f"p{node.value}" for node in nodes])
    assert values == {f"p{node.value}": node.value for node in nodes}
    assert max(taken) <= min(real, stated or real, len(nodes))
    if 0 < stated <= real:
        assert max(taken) == stated


def take_at_most(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let the server keep to a limit, as the library's own does not; note what it took."""
    taken = [0]

    def limited(name: str, entries: str) -> None:
        usual = getattr(InternalSession, name)

        async def service(self: Any, params: Any) -> Any:
            if self.external and len(getattr(params, entries)) > most:
                raise ServiceError(StatusCodes.BadTooManyOperations)
            if self.external:
                taken.append(len(getattr(params, entries)))
            return await usual(self, params)

        monkeypatch.setattr(InternalSession, name, service)

    limited("read", "NodesToRead")
    limited("create_monitored_items", "ItemsToCreate")
    return taken


async def test_a_restart_is_followed_and_points_keep_their_meaning_when_it_reorders_namespaces() -> (
    None
):
    nodes = telling_nodes()
    uris = sorted({node.uri for node in nodes})
    names = [f"p{node.value}" for node in nodes]
    async with running(namespaces=uris) as before, plant(before, nodes) as mill:
        port = mill.port
        driver = driver_for(port, apart(nodes))
        frames = driver.frames()
        await collect(frames, driver, dict.fromkeys(names, 1))
    fault = await end_of(frames)
    assert fault.where == f"press (opc.tcp://127.0.0.1:{port}/mill)"
    assert "nothing listens" in (await end_of(driver.frames())).what
    namespaces = ["urn:new", *reversed(uris)]
    async with running(port, namespaces) as after, plant(after, nodes):
        values = await first_values(driver, names)
    assert values == {f"p{node.value}": node.value for node in nodes}


async def test_integers_are_exact_to_the_last_of_64_bits_and_bad_beyond(
    server: Server, mode: str
) -> None:
    nodes = [
        Node(URI, "largest", "UInt64", 2**63 - 1),
        Node(URI, "beyond", "UInt64", 2**63),
        Node(URI, "shifted", "UInt64", 2**64 - 1),
        Node(URI, "lowest", "Int64", -(2**63)),
        Node(URI, "scaled", "Int64", 2**53 + 1),
        Node(URI, "overscaled", "Int64", 2**62),
        Node(URI, "truth", "Boolean", True),
    ]
    scales = {
        "shifted": {"offset": str(-(2**63))},
        "scaled": {"scale": "0.01", "offset": "0.5"},
        "overscaled": {"scale": "3"},
    }
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, points=scales, mode=mode)
        async with aclosing(driver.frames()) as frames:
            got = await collect(frames, driver, {node.name: 1 for node in nodes})
    told = {name: (samples[0][0], samples[0][2]) for name, samples in got.items()}
    assert told == {
        "largest": (2**63 - 1, Quality.GOOD),
        "beyond": (0, Quality.BAD),
        "shifted": (2**63 - 1, Quality.GOOD),
        "lowest": (-(2**63), Quality.GOOD),
        "scaled": (2**53 + 1 + 50, Quality.GOOD),
        "overscaled": (0, Quality.BAD),
        "truth": (1, Quality.GOOD),
    }
    assert driver._config.points[4].grid_exponent() == -2


async def test_a_float_is_widened_without_change(server: Server, mode: str) -> None:
    nodes = [Node(URI, "narrow", "Float", 0.1), Node(URI, "wide", "Double", 0.1)]
    async with plant(server, nodes) as mill:
        values = await first_values(driver_for(mill.port, nodes, mode=mode), ["narrow", "wide"])
    assert values == {"narrow": float(np.float32(0.1)), "wide": 0.1}


async def test_what_is_not_a_usable_value_is_bad_and_never_converted(
    server: Server, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    nodes = [
        Node(URI, "another_width", "Int32", SECRET),
        Node(URI, "truth", "Boolean", True),
        Node(URI, "number", "Int32", 1),
        Node(URI, "real_for_int", "Double", 3.0),
        Node(URI, "int_for_real", "Int32", 3),
        Node(URI, "nan", "Double", float("nan")),
        Node(URI, "infinite", "Float", float("inf")),
        Node(URI, "list", "Int32", [1, 2]),
        Node(URI, "fine", "Int32", 7),
    ]
    declared = {
        "another_width": {"type": "Int64"},
        "truth": {"type": "Int32"},
        "number": {"type": "Boolean"},
        "real_for_int": {"type": "Int32"},
        "int_for_real": {"type": "Double"},
    }
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, points=declared, mode=mode)
        async with aclosing(driver.frames()) as frames:
            got = await collect(frames, driver, {node.name: 1 for node in nodes})
            await mill.write("fine", 8)
            await collect(frames, driver, {"fine": 1})
    qualities = {name: samples[0][2] for name, samples in got.items()}
    assert qualities.pop("fine") is Quality.GOOD
    assert set(qualities.values()) == {Quality.BAD}
    assert len(qualities) == 8
    # Every poll brings them again.
    assert driver.counts.unusable == 8 or mode == "poll"
    lines = [line for line in caplog.messages if "not of the declared type" in line]
    named = {name for line in lines for name in line.rpartition(": ")[2].split(", ")}
    assert named == {*declared, "list"}
    assert str(SECRET) not in caplog.text


async def test_status_codes_become_quality(server: Server) -> None:
    nodes = [Node(URI, "a", "Int32", 1), Node(URI, "b", "Double", 1.0)]
    codes = [
        (StatusCodes.BadSensorFailure, Quality.BAD),
        (StatusCodes.UncertainSensorNotAccurate, Quality.UNCERTAIN),
        (StatusCodes.GoodClamped, Quality.GOOD),
    ]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes)
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"a": 1, "b": 1})
            for number, (code, _) in enumerate(codes):
                await mill.write("a", 10 + number, StatusCode=STATUS(code))
                await mill.write("b", 20.0 + number, StatusCode=STATUS(code))
            got = await collect(frames, driver, {"a": 3, "b": 3})
    for samples in got.values():
        assert [quality for *_, quality in samples] == [quality for _, quality in codes]
    assert [value for value, _, quality in got["a"] if quality is not Quality.BAD] == [11, 12]


async def test_source_timestamps_are_kept_and_absurd_ones_replaced_and_counted(
    server: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    now_ns = int(now.timestamp()) * 10**9
    nodes = [Node(URI, "a", "Int32", 0)]
    kept = [datetime(2000, 1, 1, tzinfo=UTC), now.replace(microsecond=123456)]
    kept += [now + timedelta(hours=23)]
    absurd = [datetime(1601, 1, 1, tzinfo=UTC), datetime(1999, 12, 31, 23, 59, tzinfo=UTC)]
    absurd += [now + timedelta(hours=25), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, lambda: now_ns)
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"a": 1})
            before = driver.counts.absurd_times
            times = []
            for number, moment in enumerate((*kept, *absurd), 1):
                await mill.write("a", number, SourceTimestamp=moment)
                times.append((await collect(frames, driver, {"a": 1}))["a"][0][1])
            counted = driver.counts.absurd_times - before
            await mill.write(
                "a", 100, SourceTimestamp=None, ServerTimestamp=now + timedelta(seconds=1)
            )
            by_server = (await collect(frames, driver, {"a": 1}))["a"][0][1]
            await mill.write("a", 101, SourceTimestamp=None)
            by_neither = (await collect(frames, driver, {"a": 1}))["a"][0][1]
    micros = [
        (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) for moment in kept
    ]
    assert times[: len(kept)] == [1000 * micro for micro in micros]
    assert times[len(kept) :] == [now_ns] * len(absurd)
    assert counted == len(absurd)
    assert by_server == now_ns + 10**9
    assert by_neither == now_ns
    assert sum("receive time" in line for line in caplog.messages) == 1


async def test_several_changes_between_two_publishes_all_arrive_in_order(server: Server) -> None:
    nodes = [
        Node(URI, "fast", "Int32", 0),
        Node(URI, "slow", "Int32", 0),
        Node(URI, "r", "Double", 0.0),
    ]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, publishing_interval="200ms")
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {node.name: 1 for node in nodes})
            for number in range(1, 31):
                await mill.write("fast", number)
                await mill.write("r", number / 4)
            await mill.write("slow", 1)
            got = await collect(frames, driver, {"fast": 30, "r": 30, "slow": 1})
    assert [value for value, *_ in got["fast"]] == list(range(1, 31))
    assert [value for value, *_ in got["r"]] == [number / 4 for number in range(1, 31)]
    times = [moment for _, moment, _ in got["fast"]]
    assert times == sorted(times)
    assert [value for value, *_ in got["slow"]] == [1]


async def test_frames_hold_only_what_changed(server: Server) -> None:
    nodes = [Node(URI, f"v{number}", "Int32", number) for number in range(5)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes)
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {node.name: 1 for node in nodes})
            await mill.write("v3", 33)
            frame = await anext(frames)
    assert frame.columns.tolist() == [3]
    assert frame.values.tolist() == [[33]]
    assert frame.values.dtype == np.int64
    assert frame.device == "press"


async def test_a_slow_reader_loses_nothing_that_the_servers_queue_can_hold(server: Server) -> None:
    nodes = [Node(URI, "a", "Int32", 0)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, publishing_interval="10ms")
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"a": 1})
            for number in range(1, 61):
                await mill.write("a", number)
                await asyncio.sleep(0.01)
            got = await collect(frames, driver, {"a": 60})
    assert [value for value, *_ in got["a"]] == list(range(1, 61))


async def test_one_bad_node_is_named_and_the_others_go_on(
    server: Server, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    good = [Node(URI, f"v{number}", "Int32", SECRET + number) for number in range(20)]
    missing = Node(URI, "nowhere", "Int32", 0)
    foreign = Node("urn:other", "abroad", "Int32", 0)
    async with plant(server, good) as mill:
        driver = driver_for(mill.port, [missing, *good[:10], foreign, *good[10:]], mode=mode)
        values = await first_values(driver, [node.name for node in good])
    assert values == {node.name: node.value for node in good}
    assert driver.refused == {"nowhere": "BadNodeIdUnknown", "abroad": "NamespaceUnknown"}
    assert (
        len([line for line in caplog.messages if "nowhere" in line and "BadNodeIdUnknown" in line])
        == 1
    )
    assert str(SECRET)[:4] not in caplog.text


async def test_no_good_node_at_all_is_not_connected_with_a_remedy(
    server: Server, mode: str
) -> None:
    async with plant(server, []) as mill:
        driver = driver_for(
            mill.port, [Node(URI, "a", "Int32", 0), Node("urn:x", "b", "Int32", 0)], mode=mode
        )
        fault = await end_of(driver.frames())
        await until(lambda: mill.sessions == 0)
    assert "none of the nodes" in fault.what
    assert "BadNodeIdUnknown" in fault.remedy


async def test_a_subscription_the_server_forgot_ends_the_frames(server: Server) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, timeout="200ms")
        frames = driver.frames()
        await collect(frames, driver, {"a": 1})
        service = mill.server.iserver.subscription_service
        await service.delete_subscriptions(list(mill.subscriptions))
        fault = await end_of(frames)
        await until(lambda: mill.sessions == 0)
    assert "silent" in fault.what


async def test_a_session_the_server_closed_ends_the_frames(server: Server, mode: str) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, timeout="200ms", mode=mode)
        frames = driver.frames()
        await collect(frames, driver, {"a": 1})
        for session in list(mill.server.iserver._external_sessions.values()):
            await session.close_session(delete_subs=True)
        await end_of(frames)


async def test_a_missing_notification_ends_the_frames_rather_than_leave_a_hole(
    server: Server,
) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes)
        frames = driver.frames()
        await collect(frames, driver, {"a": 1})
        for subscription in mill.subscriptions.values():
            subscription._notification_seq += 1
        await mill.write("a", 2)
        fault = await end_of(frames)
    assert "missing" in fault.what


async def test_a_quiet_server_stays_connected_by_its_keep_alives(server: Server) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, timeout="100ms", keep_alive="40ms")
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"a": 1})
            pending = asyncio.ensure_future(anext(frames))
            # Several times longer than the 180 ms of silence that end the frames.
            await asyncio.sleep(1)
            assert not pending.done()
            await mill.write("a", 2)
            frame = await pending
    assert frame.values.tolist() == [[2]]


async def test_no_session_is_left_when_the_frames_are_closed(server: Server, mode: str) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes, mode=mode)
        for _ in range(3):
            frames = driver.frames()
            await collect(frames, driver, {"a": 1})
            assert mill.sessions == 1
            await frames.aclose()
            assert mill.sessions == 0
            assert not mill.subscriptions


async def test_neither_a_normal_end_nor_a_lost_server_is_told_by_the_library(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    guests: list[asyncio.StreamWriter] = []
    async with plant(server, nodes) as mill:

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
            writer.close()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            guests.append(writer)
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", mill.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, inner_writer))
                group.create_task(pump(inner_reader, writer))

        async with listener(relay) as port:
            driver = driver_for(port, nodes)
            frames = driver.frames()
            await collect(frames, driver, {"a": 1})
            await frames.aclose()
            frames = driver.frames()
            await collect(frames, driver, {"a": 1})
            guests[-1].close()
            await end_of(frames)
        # The server would keep the session of who went without a word for a while.
        for session in list(mill.server.iserver._external_sessions.values()):
            await session.close_session(delete_subs=True)
    told = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert [one.name for one in told if "asyncua" in one.name or "quiet" in one.name] == []
    assert [one.name for one in told if one.levelno >= logging.ERROR] == []


async def test_no_session_is_left_when_the_reader_is_cancelled(server: Server) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes)

        async def read() -> None:
            async with aclosing(driver.frames()) as frames:
                async for _ in frames:
                    pass

        # Caught while connecting as well as while waiting for news.
        for moment in (lambda: mill.sessions == 1, lambda: bool(mill.subscriptions)):
            task = asyncio.ensure_future(read())
            await until(moment)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: mill.sessions == 0)


async def test_a_server_with_few_sessions_says_so_and_is_not_filled(
    server: Server, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    monkeypatch.setattr(
        InternalSession, "max_connections", InternalSession._current_connections + 2
    )
    async with plant(server, nodes) as mill:
        drivers = [driver_for(mill.port, nodes, mode=mode) for _ in range(3)]
        first, second = drivers[0].frames(), drivers[1].frames()
        await collect(first, drivers[0], {"a": 1})
        await collect(second, drivers[1], {"a": 1})
        fault = await end_of(drivers[2].frames())
        assert "BadMaxConnectionsReached" in fault.what
        assert "close other clients" in fault.remedy
        await first.aclose()
        assert await first_values(drivers[2], ["a"]) == {"a": 1}
        await second.aclose()
        assert mill.sessions == 0


async def test_a_server_that_wants_users_is_told_apart(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nobody(UserManager):
        def get_user(self, *_: Any, **__: Any) -> None:
            return None

    monkeypatch.setattr(server.iserver, "user_manager", Nobody())
    async with plant(server, []) as mill:
        fault = await end_of(driver_for(mill.port, [Node(URI, "a", "Int32", 0)]).frames())
        await until(lambda: mill.sessions == 0)
    assert "BadUserAccessDenied" in fault.what
    assert "anonymous" in fault.remedy


async def test_a_server_without_an_unsecured_endpoint_is_told_apart(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for endpoint in server.iserver.endpoints:
        monkeypatch.setattr(endpoint, "SecurityMode", ua.MessageSecurityMode.SignAndEncrypt)
    async with plant(server, []) as mill:
        fault = await end_of(driver_for(mill.port, [Node(URI, "a", "Int32", 0)]).frames())
    assert "without security" in fault.what
    assert "SecurityPolicy None" in fault.remedy


@asynccontextmanager
async def listener(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """Something on a port that is no OPC-UA server."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


async def _hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(1000)


async def _web_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1000)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()
    await reader.read(1000)


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1000)
    # An ERR message: BadTcpEndpointUrlInvalid with no reason.
    body = (0x80830000).to_bytes(4, "little") + b"\xff\xff\xff\xff"
    writer.write(b"ERRF" + (8 + len(body)).to_bytes(4, "little") + body)
    await writer.drain()
    await reader.read(1000)


@pytest.mark.parametrize(
    ("behave", "told"),
    [
        (_mute, "no answer in time"),
        (_hang_up, "closed the connection"),
        (_web_page, ""),
        (_refuse, "BadTcpEndpointUrlInvalid"),
    ],
)
async def test_what_is_no_server_is_not_connected_within_bounds(
    behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    told: str,
    mode: str,
) -> None:
    async with listener(behave) as port:
        driver = driver_for(port, [Node(URI, "a", "Int32", 0)], timeout="200ms", mode=mode)
        fault = await end_of(driver.frames())
    assert told in fault.what
    assert fault.remedy


async def test_an_unknown_host_is_told_apart() -> None:
    driver = driver_for(1, [Node(URI, "a", "Int32", 0)], url="opc.tcp://no-such-host.invalid")
    fault = await end_of(driver.frames())
    assert "host name" in fault.what
    assert ":4840" in fault.where


async def test_a_server_that_freezes_ends_the_frames_although_the_socket_stays_open(
    server: Server, mode: str
) -> None:
    nodes = [Node(URI, "a", "Int32", 1)]
    frozen = asyncio.Event()
    async with plant(server, nodes) as mill:

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                if not frozen.is_set():
                    writer.write(data)
            writer.close()

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", mill.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, inner_writer))
                group.create_task(pump(inner_reader, writer))

        async with listener(relay) as port:
            silent: dict[str, Any] = {} if mode == "poll" else {"keep_alive": "10s"}
            driver = driver_for(port, nodes, timeout="300ms", mode=mode, **silent)
            frames = driver.frames()
            await collect(frames, driver, {"a": 1})
            frozen.set()
            fault = await end_of(frames)
    assert fault.remedy


def _stumble() -> None:
    library = logging.getLogger("asyncua.client.ua_client.UASocketProtocol")
    try:
        raise UaError(f"body was {SECRET}")
    except UaError:
        library.exception("Exception raised while parsing message from server, %s", SECRET)
    library.warning("Notification type not supported yet for notification %s", SECRET)


async def test_received_bytes_reach_no_log_even_when_the_library_stumbles_which_is_told_once_with_the_device(
    server: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    nodes = [Node(URI, "a", "Int32", SECRET)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, nodes)
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"a": 1})
            await mill.write("a", SECRET + 1)
            await collect(frames, driver, {"a": 1})
            for _ in range(3):
                _stumble()
        # What follows once the driver has given it up is no news.
        _stumble()
    assert str(SECRET) not in caplog.text
    (line,) = [one for one in caplog.messages if "UaError" in one]
    assert str(mill.port) in line
    assert "report this line" in line


async def test_the_kind_is_found_by_its_name() -> None:
    module = load("opcua")
    assert module.Driver.config_type is module.Config

"""What changed while contact was lost, taken from the server's history."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.history import HistoryDict, HistoryManager
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from protocols.drivers.opcua import Driver, history
from protocols.frame import Quality, lost_frame
from tests.servers.opcua import (
    NODE,
    STATUS,
    URI,
    Node,
    Plant,
    collect,
    driver_for,
    end_of,
    plant,
    running,
)
from tests.unit.gate_material import T0, Clock, cells_of, gate_of, rule

pytestmark = pytest.mark.asyncio(loop_scope="module")
NODES = [Node(URI, name, "Int32", 0) for name in ("a", "b", "plain")]
KEPT = ("a", "b")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with running() as shared:
        yield shared


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """Which nodes the history of was asked for, call by call."""
    seen: list[list[Any]] = []
    usual = HistoryManager.read_history

    async def note(self: Any, params: ua.HistoryReadParameters) -> Any:
        seen.append([one.NodeId.Identifier for one in params.NodesToRead])
        return await usual(self, params)

    monkeypatch.setattr(HistoryManager, "read_history", note)
    return seen


def moment(s: float) -> datetime:
    return datetime.fromtimestamp(T0 / 10**9, UTC) + timedelta(seconds=s)


class Mill:
    """A server with history whose clock, and ours, are moved by hand."""

    def __init__(self, inside: Plant, **settings: Any) -> None:
        self.inside = inside
        self.clock = Clock()
        self.driver: Driver = driver_for(inside.port, NODES, self.clock, **settings)
        self.started: datetime | None = None

    async def at(self, s: float) -> None:
        self.clock.set(s)
        node = self.inside.server.get_node(NODE(ObjectIds.Server_ServerStatus_CurrentTime))
        await node.write_value(moment(s), ua.VariantType.DateTime)

    async def change(self, s: float, code: int = 0, **values: int) -> None:
        """Change values as the device would; the server keeps history of some."""
        await self.at(s)
        stamps: dict[str, Any] = {"SourceTimestamp": moment(s), "StatusCode": STATUS(code)}
        for name, value in values.items():
            await self.inside.write(name, value, **stamps)
            if name in KEPT:
                index = await self.inside.server.get_namespace_index(URI)
                kept = ua.DataValue(ua.Variant(value, ua.VariantType.Int32), **stamps)
                storage = self.inside.server.iserver.history_manager.storage
                await storage.save_node_value(NODE(name, index), kept)

    async def restart(self, s: float) -> None:
        node = self.inside.server.get_node(NODE(ObjectIds.Server_ServerStatus_StartTime))
        await node.write_value(moment(s), ua.VariantType.DateTime)

    async def lose(self, frames: Any) -> None:
        for transport in list(self.inside.server.iserver.asyncio_transports):
            transport.close()
        await end_of(frames)

    async def values_after(self, wanted: dict[str, int]) -> dict[str, list[Any]]:
        """Connect anew; return the values that come, as many as wanted, with their times."""
        async with aclosing(self.driver.frames()) as frames:
            got = await collect(frames, self.driver, wanted)
        epoch = T0 // 10**9
        return {
            name: [(value, at // 10**9 - epoch) for value, at, _ in samples]
            for name, samples in got.items()
        }


@pytest_asyncio.fixture(loop_scope="module")
async def inside(server: Server) -> AsyncIterator[Plant]:
    """Two nodes with history and one without."""
    storage = server.iserver.history_manager.storage
    assert isinstance(storage, HistoryDict)
    async with plant(server, NODES) as made:
        index = await server.get_namespace_index(URI)
        for name in KEPT:
            await storage.new_historized_node(NODE(name, index), None, 0)
        yield made
    storage._datachanges.clear()


async def follow(mill: Mill) -> None:
    """Connect, take the first values, see one change at 2 s, and lose contact."""
    await mill.restart(-100)
    await mill.change(0, a=1, b=10, plain=100)
    frames = mill.driver.frames()
    await collect(frames, mill.driver, {"a": 1, "b": 1, "plain": 1})
    await mill.change(2, a=2)
    await collect(frames, mill.driver, {"a": 1})
    await mill.lose(frames)


async def test_what_changed_in_the_gap_comes_first_and_in_order(inside: Plant) -> None:
    mill = Mill(inside)
    await follow(mill)
    for s, value in ((3, 3), (5, 4), (6, 5)):
        await mill.change(s, a=value, plain=100 + value)
    await mill.change(7, b=11)
    await mill.at(8)
    got = await mill.values_after({"a": 5, "b": 3, "plain": 1})
    # The value before the gap leads, then every change; the live value comes last.
    assert got["a"] == [(2, 2), (3, 3), (4, 5), (5, 6), (5, 6)]
    assert got["b"] == [(10, 0), (11, 7), (11, 7)]
    assert got["plain"] == [(105, 6)]
    assert mill.driver.counts.refilled == 6
    assert any("6 values taken from the server's history" in note for note in mill.driver.notes())


async def test_where_nothing_changed_nothing_is_refilled(
    inside: Plant, asked: list[list[Any]]
) -> None:
    mill = Mill(inside)
    await follow(mill)
    await mill.at(8)
    assert (await mill.values_after({"a": 1, "b": 1}))["a"] == [(2, 2)]
    assert asked
    assert mill.driver.counts.refilled == 0


async def test_a_server_that_was_restarted_leaves_the_gap_as_it_is(
    inside: Plant, asked: list[list[Any]]
) -> None:
    mill = Mill(inside)
    await follow(mill)
    await mill.change(3, a=3)
    await mill.restart(4)
    await mill.change(5, a=4)
    assert (await mill.values_after({"a": 1}))["a"] == [(4, 5)]
    assert not asked
    assert mill.driver.counts.refilled == 0


@pytest.mark.parametrize("refill", ["0s", "2s"])
async def test_history_is_read_no_further_back_than_the_technician_says(
    inside: Plant, refill: str, asked: list[list[Any]]
) -> None:
    mill = Mill(inside, refill=refill)
    await follow(mill)
    for s, value in ((3, 3), (6, 4), (7, 5)):
        await mill.change(s, a=value)
    await mill.at(8)
    if refill == "0s":
        assert (await mill.values_after({"a": 1}))["a"] == [(5, 7)]
        assert not asked
    else:
        assert (await mill.values_after({"a": 3}))["a"] == [(4, 6), (5, 7), (5, 7)]


async def test_a_node_without_history_is_not_asked_for_again(
    inside: Plant, asked: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = HistoryManager._read_history

    async def refuse(self: Any, details: Any, node: Any) -> Any:
        if node.NodeId.Identifier == "plain":
            code = STATUS(StatusCodes.BadHistoryOperationUnsupported)
            return ua.HistoryReadResult(StatusCode=code)
        return await usual(self, details, node)

    monkeypatch.setattr(HistoryManager, "_read_history", refuse)
    mill = Mill(inside)
    for turn in range(2):
        await follow(mill)
        await mill.change(3 + turn, a=30 + turn)
        await mill.at(8)
        await mill.values_after({"a": 2})
    assert asked[0] == ["a", "b", "plain"]
    assert len(asked) > 1
    assert all(call == ["a", "b"] for call in asked[1:])


async def test_a_server_without_history_is_asked_once(
    inside: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def refuse(self: Any, params: Any) -> Any:
        asked.append(params)
        raise ServiceError(StatusCodes.BadServiceUnsupported)

    monkeypatch.setattr(InternalSession, "history_read", refuse)
    mill = Mill(inside)
    for turn in range(2):
        await follow(mill)
        await mill.change(5 + turn, a=50 + turn)
        assert (await mill.values_after({"a": 1}))["a"] == [(50 + turn, 5 + turn)]
    assert len(asked) == 1


@pytest.mark.parametrize(("stated", "size"), [(0, 1000), (1, 1000), (2, 3)])
async def test_history_comes_whole_however_little_the_server_gives_at_once(
    inside: Plant,
    monkeypatch: pytest.MonkeyPatch,
    asked: list[list[Any]],
    stated: int,
    size: int,
) -> None:
    server = inside.server
    limit = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData
    await server.get_node(NODE(limit)).write_value(ua.Variant(stated, ua.VariantType.UInt32))
    storage = server.iserver.history_manager.storage
    monkeypatch.setattr(storage, "max_history_data_response_size", size)
    mill = Mill(inside)
    await follow(mill)
    for number in range(12):
        await mill.change(3 + number / 4, a=100 + number, b=200 + number)
    await mill.at(8)
    got = await mill.values_after({"a": 14, "b": 14})
    assert [value for value, _ in got["a"]] == [2, *range(100, 112), 111]
    assert [value for value, _ in got["b"]][-13:] == [*range(200, 212), 211]
    assert all(len(call) <= (stated or 20) for call in asked)


async def test_what_is_too_much_is_left_out_whole(
    inside: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_MOST_VALUES", 5)
    mill = Mill(inside)
    await follow(mill)
    for number in range(8):
        await mill.change(3 + number / 4, a=100 + number)
    await mill.change(6, b=12)
    await mill.at(8)
    got = await mill.values_after({"a": 1, "b": 2})
    assert [value for value, _ in got["a"]] == [107]
    assert [value for value, _ in got["b"]][-2:] == [12, 12]


async def test_a_bad_moment_in_history_stays_bad(inside: Plant) -> None:
    mill = Mill(inside)
    await follow(mill)
    await mill.change(3, StatusCodes.BadSensorFailure, a=9)
    await mill.change(4, a=5)
    await mill.at(8)
    async with aclosing(mill.driver.frames()) as frames:
        got = await collect(frames, mill.driver, {"a": 4})
    assert [quality for *_, quality in got["a"]] == [
        Quality.GOOD,
        Quality.BAD,
        Quality.GOOD,
        Quality.GOOD,
    ]


async def test_the_seconds_in_each_state_are_whole_again_in_a_slot_that_is_still_open(
    inside: Plant,
) -> None:
    state = {"measurand": "machine.state", "state_model": "operating"}
    mill = Mill(inside, points={"a": state})
    clock = mill.clock
    owner = mill.driver._config.table()
    gate = gate_of(owner, [rule(owner, "a", 1)], clock)
    await mill.restart(-100)
    await mill.change(0, a=1)
    frames = mill.driver.frames()
    gate.advance()
    gate.feed(await anext(frames))
    await mill.at(2)
    await mill.lose(frames)
    clock.set(3)
    gate.feed(lost_frame(owner.device, owner.columns(), clock()))
    await mill.change(4, a=3)
    await mill.change(6, a=6)
    await mill.at(7)
    async with aclosing(mill.driver.frames()) as frames:
        for _ in range(2):
            gate.feed(await anext(frames))
    clock.set(11.5)
    gate.advance()
    found = cells_of(gate.take())
    seconds = {number: mantissa for (number, slot), (mantissa, _, _) in found.items() if slot == 0}
    # Numbers are the state at the end, then the seconds in states 1, 2, 3, ...
    assert {number: value for number, value in seconds.items() if value} == {1: 6, 2: 4, 4: 2, 7: 4}
    assert gate.accounts[owner.device].balanced

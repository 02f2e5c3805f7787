"""What changed while contact was lost, taken from the server's history."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.server.history import HistoryDict, HistoryManager
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from protocols.batch import UNCERTAIN, decode, encode
from protocols.drivers.opcua import Driver, history
from protocols.drivers.opcua.nodes import Nodes
from protocols.drivers.opcua.subscription import Subscription
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
from tests.unit.gate_material import T0, Clock, Released, cells_of, gate_of, rule

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
                await self.keep(name, value, **stamps)

    async def keep(self, name: str, value: int, **stamps: Any) -> None:
        """Put a value into the server's history."""
        index = await self.inside.server.get_namespace_index(URI)
        kept = ua.DataValue(ua.Variant(value, ua.VariantType.Int32), **stamps)
        await self._storage.save_node_value(NODE(name, index), kept)

    async def forget(self, name: str, *values: int) -> None:
        """Take values out of the server's history."""
        index = await self.inside.server.get_namespace_index(URI)
        kept = self._storage._datachanges[NODE(name, index)]
        kept[:] = [one for one in kept if one.Value.Value not in values]

    @property
    def _storage(self) -> Any:
        return self.inside.server.iserver.history_manager.storage

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
    got = await mill.values_after({"a": 4, "b": 2, "plain": 1})
    # The value before the gap leads, then every change; the live value comes last.
    assert got["a"] == [(2, 2), (3, 3), (4, 5), (5, 6)]
    assert got["b"] == [(10, 0), (11, 7)]
    assert got["plain"] == [(105, 6)]
    assert mill.driver.counts.refilled == 4
    assert any("4 values taken from the server's history" in note for note in mill.driver.notes())


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
        # What held before is not known to have held as long.
        assert (await mill.values_after({"a": 2}))["a"] == [(4, 6), (5, 7)]


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
    assert any("no history of 1 point" in note for note in mill.driver.notes())


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
    got = await mill.values_after({"a": 13, "b": 13})
    assert [value for value, _ in got["a"]] == [2, *range(100, 112)]
    assert [value for value, _ in got["b"]] == [10, *range(200, 212)]
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
    assert [value for value, _ in got["b"]] == [10, 12]


async def test_a_bad_moment_in_history_stays_bad(inside: Plant) -> None:
    mill = Mill(inside)
    await follow(mill)
    await mill.change(3, StatusCodes.BadSensorFailure, a=9)
    await mill.change(4, a=5)
    await mill.at(8)
    async with aclosing(mill.driver.frames()) as frames:
        got = await collect(frames, mill.driver, {"a": 3})
    assert [quality for *_, quality in got["a"]] == [Quality.GOOD, Quality.BAD, Quality.GOOD]


async def unjoined(mill: Mill, changed: int = 6) -> None:
    """What came after the gap is there, and nothing of what was in it."""
    await mill.at(8)
    got = await mill.values_after({"a": 1})
    assert got["a"] == [(changed, changed)]
    assert mill.driver.counts.refilled == 0


async def test_a_history_without_the_value_that_was_seen_last_is_not_believed(
    inside: Plant,
) -> None:
    mill = Mill(inside)
    await follow(mill)
    for s in (4, 6):
        await mill.change(s, a=s)
    await mill.forget("a", 2)  # 1 is still there, and would seem to have held until 4
    await unjoined(mill)


async def test_a_history_that_lags_behind_is_not_believed(inside: Plant) -> None:
    mill = Mill(inside)
    await follow(mill)
    for s in (4, 5, 6):
        await mill.change(s, a=s)
    await mill.forget("a", 5, 6)  # 4 would seem to have held until 6
    await unjoined(mill)


@pytest.mark.parametrize(
    "stamps",
    [
        {"SourceTimestamp": moment(5), "StatusCode": STATUS(0x0402)},
        {"SourceTimestamp": moment(5), "StatusCode": STATUS(0x0401)},
        {"ServerTimestamp": moment(5)},
    ],
    ids=["interpolated", "calculated", "no source time"],
)
async def test_what_the_node_never_showed_is_no_history(
    inside: Plant, stamps: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = HistoryDict.read_node_history

    async def with_more(self: Any, *details: Any) -> Any:
        found, mark = await usual(self, *details)
        return [*found, ua.DataValue(ua.Variant(99, ua.VariantType.Int32), **stamps)], mark

    monkeypatch.setattr(HistoryDict, "read_node_history", with_more)
    mill = Mill(inside)
    await follow(mill)
    for s in (4, 6):
        await mill.change(s, a=s)
    await unjoined(mill)


@pytest.mark.parametrize("since", [datetime(1601, 1, 2, tzinfo=UTC), moment(3600)])
async def test_a_server_that_does_not_know_when_it_began_is_not_asked(
    inside: Plant, since: datetime, asked: list[list[Any]]
) -> None:
    mill = Mill(inside)
    node = inside.server.get_node(NODE(ObjectIds.Server_ServerStatus_StartTime))
    await mill.change(0, a=1, b=10, plain=100)
    await node.write_value(since, ua.VariantType.DateTime)
    frames = mill.driver.frames()
    await collect(frames, mill.driver, {"a": 1, "b": 1, "plain": 1})
    await mill.lose(frames)
    for s in (4, 6):
        await mill.change(s, a=s)
    await unjoined(mill)
    assert not asked


async def test_what_changes_while_we_connect_is_not_missed(
    inside: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = Mill(inside)
    await follow(mill)
    await mill.change(3, a=3)
    usual = Subscription._take_up

    async def slowly(self: Subscription, nodes: Nodes) -> None:
        for s in (4, 5):
            await mill.change(s, a=s)
        await usual(self, nodes)

    monkeypatch.setattr(Subscription, "_take_up", slowly)
    got = await mill.values_after({"a": 4})
    assert got["a"] == [(2, 2), (3, 3), (4, 4), (5, 5)]


async def test_a_connection_that_fails_at_once_does_not_shorten_the_gap(
    inside: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = Mill(inside)
    await follow(mill)
    await mill.change(3, a=3)
    await mill.at(30)

    async def fail(_self: Subscription, _nodes: Nodes) -> None:
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(Subscription, "_take_up", fail)
        await end_of(mill.driver.frames())
    await mill.change(40, a=4)
    got = await mill.values_after({"a": 3})
    assert got["a"] == [(2, 2), (3, 3), (4, 40)]


async def test_what_was_seen_in_a_connection_too_short_to_count_is_not_given_again(
    inside: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    mill = Mill(inside)
    await follow(mill)
    await mill.change(3, a=3)
    await mill.at(4)
    with monkeypatch.context() as patch:
        # As if it had ended before the server was heard of once more.
        patch.setattr(Subscription, "contact", None)
        assert (await mill.values_after({"a": 2}))["a"] == [(2, 2), (3, 3)]
    for s in (5, 6):
        await mill.change(s, a=s)
    assert (await mill.values_after({"a": 3}))["a"] == [(3, 3), (5, 5), (6, 6)]


async def test_what_a_missing_notification_held_is_taken_from_history(inside: Plant) -> None:
    mill = Mill(inside)
    await mill.restart(-100)
    await mill.change(0, a=1, b=10, plain=100)
    frames = mill.driver.frames()
    await collect(frames, mill.driver, {"a": 1, "b": 1, "plain": 1})
    await mill.change(2, a=2)
    await collect(frames, mill.driver, {"a": 1})
    for subscription in inside.subscriptions.values():
        subscription._notification_seq += 1  # as if one with this change had been sent
    await mill.at(20)
    await mill.keep("a", 3, SourceTimestamp=moment(20))
    await mill.change(40, a=4)
    assert "missing" in (await end_of(frames)).what
    got = await mill.values_after({"a": 3})
    assert got["a"] == [(2, 2), (3, 20), (4, 40)]


async def test_a_history_that_does_not_answer_costs_one_wait_and_no_connection(
    inside: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def never(_self: Any, params: Any) -> None:
        asked.append(params)
        await asyncio.sleep(60)

    monkeypatch.setattr(InternalSession, "history_read", never)
    monkeypatch.setattr(history, "_LONGEST_S", 0.1)
    mill = Mill(inside)
    for turn in range(2):
        await follow(mill)
        await mill.change(6 + turn, a=6 + turn)
        assert (await mill.values_after({"a": 1}))["a"] == [(6 + turn, 6 + turn)]
    assert len(asked) == 1


async def test_a_passing_fault_of_the_history_is_not_remembered(
    inside: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = HistoryManager._read_history

    async def refuse(_self: Any, _details: Any, _node: Any) -> Any:
        return ua.HistoryReadResult(StatusCode=STATUS(StatusCodes.BadTimeout))

    mill = Mill(inside)
    await follow(mill)
    for s in (4, 6):
        await mill.change(s, a=s)
    with monkeypatch.context() as patch:
        patch.setattr(HistoryManager, "_read_history", refuse)
        await unjoined(mill)
    assert HistoryManager._read_history is usual
    for s in (10, 11):
        await mill.change(s, a=s)
    got = await mill.values_after({"a": 3})
    assert got["a"] == [(6, 6), (10, 10), (11, 11)]


class Line:
    """A mill whose point `a` goes through a gate, slot by slot of 10 s, into batches and out again."""

    def __init__(
        self, inside: Plant, how: Mapping[str, Any] | None = None, /, **point: Any
    ) -> None:
        self.mill = Mill(inside, points={"a": point})
        owner = self.owner = self.mill.driver._config.table()
        self.gate = gate_of(owner, [rule(owner, "a", 1, **(how or {}))], self.mill.clock)
        self.found: Released = {}

    async def begin(self) -> Any:
        await self.mill.restart(-100)
        await self.mill.change(0, a=1)
        frames = self.mill.driver.frames()
        self.gate.advance()
        self.gate.feed(await anext(frames))
        return frames

    async def lose(self, frames: Any, s: float) -> None:
        await self.mill.at(s)
        await self.mill.lose(frames)
        self.gate.feed(lost_frame(self.owner.device, self.owner.columns(), self.mill.clock()))

    async def again(self, count: int) -> None:
        async with aclosing(self.mill.driver.frames()) as frames:
            got = 0
            while got < count:
                frame = await anext(frames)
                self.gate.feed(frame)
                got += int(np.count_nonzero(frame.columns == 0)) * len(frame.values)

    def release(self, s: float) -> None:
        """Close what is due, and take it the way to the brain and back."""
        self.mill.clock.set(s)
        self.gate.advance()
        for stream, blocks in self.gate.take().items():
            for cell, value in cells_of({stream: decode(encode(blocks))}).items():
                assert cell not in self.found, "a slot was released twice"
                self.found[cell] = value

    def slot(self, slot: int) -> dict[int, int]:
        """What was released of a slot, by number, without zeros."""
        return {
            number: mantissa
            for (number, at), (mantissa, _, _) in self.found.items()
            if at == slot and mantissa
        }


STATE = {"measurand": "machine.state", "state_model": "operating"}


async def test_the_seconds_in_each_state_are_whole_again_in_a_slot_that_is_still_open(
    inside: Plant,
) -> None:
    line = Line(inside, **STATE)
    frames = await line.begin()
    await line.lose(frames, 3)
    await line.mill.change(4, a=3)
    await line.mill.change(6, a=6)
    await line.mill.at(7)
    await line.again(3)
    line.release(11.5)
    # Numbers are the state at the end, then the seconds in states 1, 2, 3, ...
    assert line.slot(0) == {1: 6, 2: 4, 4: 2, 7: 4}
    assert line.gate.accounts[line.owner.device].balanced


async def test_a_slot_that_was_released_stays_as_it_is_and_the_open_one_is_made_whole(
    inside: Plant,
) -> None:
    line = Line(inside, **STATE)
    frames = await line.begin()
    await line.lose(frames, 8)
    line.release(21.5)
    early = dict(line.found)
    # Seen until 8 s; the slot after has nothing at all.
    assert line.slot(0) == {2: 8}
    assert line.slot(1) == {}
    for s, state in ((9, 2), (15, 3), (23, 6)):
        await line.mill.change(s, a=state)
    await line.mill.at(25)
    await line.again(4)
    line.release(31.5)
    assert {cell: line.found[cell] for cell in early} == early
    assert {slot for _, slot in line.found} == {0, 2}
    assert line.slot(2) == {1: 6, 4: 3, 7: 7}
    assert line.gate.accounts[line.owner.device].balanced


async def test_a_slot_released_as_missing_is_filled_once_from_the_history(inside: Plant) -> None:
    line = Line(inside, {"aggregate": "max", "fill_within_s": 60})
    frames = await line.begin()
    await line.lose(frames, 8)
    line.release(31.5)
    early = dict(line.found)
    # Of the first slot something was seen; the two after it left as missing.
    assert {cell: value for cell, (value, _, _) in early.items()} == {(1, 0): 1}
    for s, reading in ((9, 50), (15, 9), (33, 7)):
        await line.mill.change(s, a=reading)
    await line.mill.at(35)
    await line.again(4)
    line.release(85.5)
    # What was released stays; of the missing ones the one with a change is filled, with it alone.
    assert {cell: line.found[cell] for cell in early} == early
    assert line.found[1, 1][0] == 9
    assert (1, 2) not in line.found
    # In the open slot the newest late value held at its beginning: 9, not 50.
    assert line.found[1, 3][0] == 9
    assert line.gate.accounts[line.owner.device].balanced


async def test_where_there_is_no_history_the_gap_is_told(inside: Plant) -> None:
    line = Line(inside, **STATE)
    frames = await line.begin()
    await line.lose(frames, 3)
    for s, state in ((4, 3), (6, 6)):
        await line.mill.change(s, a=state)
    await line.mill.forget("a", 1, 3, 6)
    await line.mill.at(7)
    await line.again(1)
    line.release(11.5)
    # From 3 s to 6 s the state is unknown: 3 s are missing.
    assert line.slot(0) == {1: 6, 2: 3, 7: 4}
    assert all(quality == UNCERTAIN for _, quality, _ in line.found.values())


async def test_a_counter_rises_by_what_it_rose_by_whatever_was_refilled(inside: Plant) -> None:
    line = Line(inside, measurand="energy.active_import", unit="kWh")
    frames = await line.begin()
    await line.lose(frames, 8)
    line.release(21.5)
    for s, reading in ((9, 5), (15, 9), (23, 14)):
        await line.mill.change(s, a=reading)
    await line.mill.at(25)
    await line.again(4)
    line.release(31.5)
    # From 1 to 14, over the two slots that had no value and this one.
    assert {cell: (rise, spans) for cell, (rise, _, spans) in line.found.items()} == {
        (1, 2): (13, 3)
    }
    assert line.gate.accounts[line.owner.device].balanced


async def test_values_hold_until_the_server_was_last_heard_of_and_no_longer(
    inside: Plant,
) -> None:
    mill = Mill(inside, keep_alive="30ms")
    await mill.change(0, a=1, b=10, plain=100)
    frames = mill.driver.frames()
    await collect(frames, mill.driver, {"a": 1, "b": 1, "plain": 1})
    await inside.server.iserver.subscription_service.delete_subscriptions(
        list(inside.subscriptions)
    )
    await mill.at(50)
    fault = await end_of(frames)
    assert "silent" in fault.what
    assert fault.since_ns is not None
    assert 0 <= fault.since_ns - T0 < 50 * 10**9

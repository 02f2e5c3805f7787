"""How nodes are found, found again, and what is picked out of their values."""

import asyncio
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.structures104 import new_struct, new_struct_field
from asyncua.common.utils import ServiceError
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from protocols.drivers.opcua import link
from protocols.frame import Quality
from tests.servers.opcua import (
    NAME,
    NODE,
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
A, B = "urn:mill:a", "urn:mill:b"
# The library's annotations ask for a wrapper of bytes that its own code does not use.
STRUCTURE: Any = ua.ExtensionObject


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with running() as shared:
        yield shared


@pytest.fixture(params=["subscribe", "poll"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(link, "_LONGEST_RETRY_S", 0.1)


def point(name: str, address: str, **more: str) -> dict[str, Any]:
    return {"id": name, "address": address, "type": "Int32"} | more


async def press_line(server: Server) -> list[ua.NodeId]:
    """Two presses below a line; names repeat in both namespaces, values tell which they are."""
    a, b = await server.register_namespace(A), await server.register_namespace(B)
    line = await server.nodes.objects.add_folder(NODE(f"line{a}", a), NAME("Line", a))
    made = [line.nodeid]
    for number, (outer, inner) in enumerate([(a, a), (a, b), (b, a), (b, b)]):
        press = await line.add_folder(NODE(f"press{number}", a), NAME(f"Press{number}", outer))
        value = ua.Variant(10 * outer + inner + 1000 * number, ua.VariantType.Int32)
        speed = await press.add_variable(NODE(f"speed{number}", a), NAME("Speed", inner), value)
        other = ua.Variant(-1, ua.VariantType.Int32)
        twin = await press.add_variable(
            NODE(f"twin{number}", a), NAME("Speed", a + b - inner), other
        )
        made += [press.nodeid, speed.nodeid, twin.nodeid]
    return made


@asynccontextmanager
async def presses(server: Server) -> AsyncIterator[dict[str, int]]:
    made = await press_line(server)
    a, b = [await server.get_namespace_index(uri) for uri in (A, B)]
    try:
        yield {
            f"p{number}": 10 * outer + inner + 1000 * number
            for number, (outer, inner) in enumerate([(a, a), (a, b), (b, a), (b, b)])
        }
    finally:
        await server.delete_nodes([server.get_node(node) for node in made])


def press_points() -> list[dict[str, Any]]:
    return [
        point("p0", f"path=/{{{A}}}Line/Press0/Speed"),
        point("p1", f"path=/{{{A}}}Line/Press1/{{{B}}}Speed"),
        point("p2", f"path=/{{{A}}}Line/{{{B}}}Press2/{{{A}}}Speed"),
        point("p3", f"path=/{{{A}}}Line/{{{B}}}Press3/Speed"),
    ]


@pytest.mark.parametrize("most", [10_000, 1])
async def test_a_path_leads_to_the_one_node_whose_names_are_all_in_the_right_namespace(
    server: Server, monkeypatch: pytest.MonkeyPatch, mode: str, most: int
) -> None:
    usual = InternalSession.translate_browsepaths_to_nodeids

    async def limited(self: Any, paths: Any) -> Any:
        if self.external and len(paths) > most:
            raise ServiceError(StatusCodes.BadTooManyOperations)
        return await usual(self, paths)

    monkeypatch.setattr(InternalSession, "translate_browsepaths_to_nodeids", limited)
    async with presses(server) as values, plant(server, []) as mill:
        driver = driver_for(mill.port, press_points(), mode=mode)
        assert await first_values(driver, values) == values


async def test_paths_and_ids_survive_a_restart_that_reorders_namespaces(mode: str) -> None:
    nodes = [Node(A, "x", "Int32", 71), Node(B, "x", "Int32", 72)]
    by_id = [point(f"x{node.value}", node.address) for node in nodes]
    port, driver = 0, None
    for order in ([A, B], ["urn:new", B, A]):
        async with (
            running(port, order) as server,
            presses(server) as values,
            plant(server, nodes) as mill,
        ):
            port = mill.port
            driver = driver or driver_for(port, [*press_points(), *by_id], mode=mode)
            expected = values | {"x71": 71, "x72": 72}
            assert await first_values(driver, expected) == expected
            frames = driver.frames()
            await collect(frames, driver, {"p0": 1})
        await end_of(frames)


async def test_a_path_that_leads_nowhere_or_to_several_is_refused_and_named(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    async with presses(server) as values, plant(server, []) as mill:
        a = await server.get_namespace_index(A)
        line = server.get_node(NODE(f"line{a}", a))
        twins = [await line.add_folder(NODE(f"t{at}", a), NAME("Twin", a)) for at in range(2)]
        for at, twin in enumerate(twins):
            variant = ua.Variant(at, ua.VariantType.Int32)
            await twin.add_variable(NODE(f"tv{at}", a), NAME("Speed", a), variant)
        lost = [
            point("none", f"path=/{{{A}}}Line/Press9/Speed"),
            point("several", f"path=/{{{A}}}Line/Twin/Speed"),
            point("foreign", "path=/{urn:nobody}Line"),
        ]
        driver = driver_for(mill.port, [*lost, *press_points()])
        assert await first_values(driver, values) == values
        await server.delete_nodes(twins, recursive=True)
    assert driver.refused == {
        "none": "BadNoMatch",
        "several": "PathAmbiguous",
        "foreign": "NamespaceUnknown",
    }
    assert sum("does not give" in line for line in caplog.messages) == 3


@pytest.mark.usefixtures("impatient")
async def test_a_node_that_comes_later_is_taken_up_while_connected_and_nothing_is_doubled(
    server: Server, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "protocols")
    nodes = [Node(URI, "there", "Int32", 1)]
    later = Node("urn:mill:later", "later", "Int32", 2)
    path = point("path", "path=/{urn:mill:later}later")
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, [*nodes, later, path], mode=mode)
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"there": 1})
            assert set(driver.refused) == {"later", "path"}
            assert any("later" in note for note in driver.notes())
            async with plant(server, [later]):
                got = await collect(frames, driver, {"later": 1, "path": 1})
                assert got["later"][0][0] == got["path"][0][0] == 2
                assert driver.refused == {}
                await mill.write("there", 3)
                if mode == "subscribe":
                    got = await collect(frames, driver, {"there": 1})
                    assert [value for value, *_ in got["there"]] == [3]
    assert not any("does not give" in note for note in driver.notes())
    assert sum("now given: later, path" in line for line in caplog.messages) == 1


@pytest.mark.usefixtures("impatient")
async def test_asking_again_is_bounded_takes_turns_and_never_ends_the_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_MOST_RETRIED", 2)
    asked: list[list[str]] = []
    usual = InternalSession.create_monitored_items

    async def note(self: Any, params: Any) -> Any:
        asked.append([item.ItemToMonitor.NodeId.Identifier for item in params.ItemsToCreate])
        if len(asked) == 3:
            raise ServiceError(StatusCodes.BadInternalError)
        return await usual(self, params)

    monkeypatch.setattr(InternalSession, "create_monitored_items", note)
    nodes = [Node(URI, "there", "Int32", 1)]
    missing = [Node(URI, f"gone{number}", "Int32", 0) for number in range(5)]
    async with plant(server, nodes) as mill:
        driver = driver_for(mill.port, [*missing, *nodes])
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, {"there": 1})
            pending = asyncio.ensure_future(anext(frames))
            await until(lambda: len(asked) >= 6)
            await mill.write("there", 2)
            assert (await pending).values.tolist() == [[2]]
    assert asked[1:6] == [
        ["gone0", "gone1"],
        ["gone2", "gone3"],
        ["gone4"],
        ["gone0", "gone1"],
        ["gone2", "gone3"],
    ]
    assert len(driver.refused) == 5


async def test_elements_of_an_array_are_points_of_their_own(server: Server, mode: str) -> None:
    flat = Node(URI, "flat", "Int32", [100, 101, 102])
    real = Node(URI, "real", "Double", [0.5, 1.5])
    parts = [point(f"e{at}", f"part=[{at}];{flat.address}") for at in (2, 0, 1, 3)]
    parts.append(point("r1", f"part=[1];{real.address}", type="Double"))
    parts.append(point("typed", f"part=[1];{flat.address}", type="Int64"))
    parts.append(point("whole", flat.address))
    async with plant(server, [flat, real]) as mill:
        driver = driver_for(mill.port, parts, mode=mode)
        async with aclosing(driver.frames()) as frames:
            first = await collect(frames, driver, {one["id"]: 1 for one in parts})
            await mill.write("flat", [200, 201, 202, 203])
            # A poll may still bring the old array.
            longer = await until_value(frames, driver, "e3", 203)
    told = {name: (samples[0][0], samples[0][2]) for name, samples in first.items()}
    bad = (0, Quality.BAD)
    assert told == {
        "e0": (100, Quality.GOOD),
        "e1": (101, Quality.GOOD),
        "e2": (102, Quality.GOOD),
        "e3": bad,
        "r1": (1.5, Quality.GOOD),
        "typed": bad,
        "whole": bad,
    }
    assert longer == {"e0": 200, "e1": 201, "e2": 202, "e3": 203}


async def until_value(frames: Any, driver: Any, name: str, wanted: Any) -> dict[str, Any]:
    """Read until a point has that value; return its device's values at that moment."""
    for _ in range(1000):
        got = await collect(frames, driver, {f"e{at}": 1 for at in range(4)})
        if got[name][-1][0] == wanted:
            return {f"e{at}": got[f"e{at}"][-1][0] for at in range(4)}
    pytest.fail("never came")


async def test_an_array_of_two_dimensions_has_two_indices(server: Server) -> None:
    index = await server.register_namespace(URI)
    variant = ua.Variant([[1, 2, 3], [4, 5, 6]], ua.VariantType.Int32)
    made = await server.nodes.objects.add_variable(NODE("grid", index), "grid", variant)
    points = [
        point(f"g{row}{column}", f"part=[{row},{column}];nsu={URI};s=grid")
        for row in range(2)
        for column in range(3)
    ]
    try:
        async with plant(server, []) as mill:
            driver = driver_for(mill.port, points)
            values = await first_values(driver, [one["id"] for one in points])
    finally:
        await server.delete_nodes([made])
    assert values == {"g00": 1, "g01": 2, "g02": 3, "g10": 4, "g11": 5, "g12": 6}


def field(name: str, kind: Any, *, array: bool = False, optional: bool = False) -> Any:
    return new_struct_field(name, kind, array=array, optional=optional)


class Spindle(NamedTuple):
    """A variable that holds a structure: the mark of its values, and how to put bytes into it."""

    mark: ua.NodeId
    put: Callable[..., Awaitable[None]]


@asynccontextmanager
async def spindle(server: Server, *, swapped: bool = False) -> AsyncIterator[Spindle]:
    """A structure with text, numbers, a structure, an array of structures, and what may be absent."""
    index = await server.register_namespace(URI)
    int32, double, text = ua.VariantType.Int32, ua.VariantType.Double, ua.VariantType.String
    axis, axis_marks = await new_struct(
        server, index, "Axis", [field("Load", double), field("Number", int32)]
    )
    fields = [
        field("Name", text),
        field("Speed", int32),
        field("Limit", int32),
        field("Spare", int32, optional=True),
        field("Main", axis.nodeid),
        field("Axes", axis.nodeid, array=True),
        field("Steps", int32, array=True),
    ]
    if swapped:
        fields[1], fields[2] = fields[2], fields[1]
    kind, marks = await new_struct(server, index, "Spindle", fields)
    mark = marks[0].nodeid

    def value(body: bytes, type_id: ua.NodeId = mark) -> ua.Variant:
        return ua.Variant(STRUCTURE(TypeId=type_id, Body=body), ua.VariantType.ExtensionObject)

    variable = await server.nodes.objects.add_variable(
        NODE("spindle", index), "spindle", value(BODY), datatype=kind.nodeid
    )

    async def put(body: bytes, type_id: ua.NodeId = mark) -> None:
        await server.write_attribute_value(variable.nodeid, ua.DataValue(value(body, type_id)))

    try:
        yield Spindle(mark, put)
    finally:
        await server.delete_nodes([variable, kind, axis, *marks, *axis_marks])


def axis_bytes(load: float, number: int) -> bytes:
    return struct.pack("<di", load, number)


BODY = (
    struct.pack("<I", 0)  # nothing optional
    + struct.pack("<i", 3)
    + b"abc"
    + struct.pack("<ii", 4101, 4102)
    + axis_bytes(0.25, 9)
    + struct.pack("<i", 2)
    + axis_bytes(0.5, 10)
    + axis_bytes(0.75, 11)
    + struct.pack("<iiii", 3, 301, 302, 303)
)
INSIDE = {
    "speed": ("Speed", "Int32", 4101),
    "limit": ("Limit", "Int32", 4102),
    "main": ("Main.Load", "Double", 0.25),
    "axis": ("Axes[1].Number", "Int32", 11),
    "load": ("Axes[0].Load", "Double", 0.5),
    "step": ("Steps[2]", "Int32", 303),
}


def inside() -> list[dict[str, Any]]:
    return [
        point(name, f"part={part};nsu={URI};s=spindle", type=kind)
        for name, (part, kind, _) in INSIDE.items()
    ]


async def test_fields_of_a_structure_are_points_of_their_own(server: Server, mode: str) -> None:
    odd = [
        point("absent", f"part=Spare;nsu={URI};s=spindle"),
        point("unknown", f"part=Nothing;nsu={URI};s=spindle"),
        point("text", f"part=Name;nsu={URI};s=spindle"),
        point("beyond", f"part=Axes[2].Number;nsu={URI};s=spindle"),
        point("typed", f"part=Speed;nsu={URI};s=spindle", type="UInt32"),
    ]
    async with spindle(server), plant(server, []) as mill:
        driver = driver_for(mill.port, [*inside(), *odd], mode=mode)
        async with aclosing(driver.frames()) as frames:
            names = [*INSIDE, *(one["id"] for one in odd)]
            got = await collect(frames, driver, dict.fromkeys(names, 1))
    for name, (_, _, value) in INSIDE.items():
        assert got[name][0][::2] == (value, Quality.GOOD)
    for one in odd:
        assert got[one["id"]][0][2] is Quality.BAD


async def test_a_structure_that_does_not_follow_its_layout_is_bad_and_hurts_nothing_else(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [Node(URI, "plain", "Int32", 5)]
    strange = [BODY[:-1], BODY + b"\0", b"", b"\xff" * 40, BODY[:4] + b"\xfc\xff\xff\xff" * 9]
    async with spindle(server) as (_, put), plant(server, nodes) as mill:
        driver = driver_for(mill.port, [*inside(), *nodes])
        async with aclosing(driver.frames()) as frames:
            await collect(frames, driver, dict.fromkeys([*INSIDE, "plain"], 1))
            for number, body in enumerate(strange):
                await put(body)
                got = await collect(frames, driver, dict.fromkeys(INSIDE, 1))
                assert {sample[0][2] for sample in got.values()} == {Quality.BAD}
                await mill.write("plain", number)
                await collect(frames, driver, {"plain": 1})
            await put(BODY, NODE(4711, 1))
            got = await collect(frames, driver, dict.fromkeys(INSIDE, 1))
            assert {sample[0][2] for sample in got.values()} == {Quality.BAD}
            await put(BODY)
            got = await collect(frames, driver, dict.fromkeys(INSIDE, 1))
            assert {sample[0][2] for sample in got.values()} == {Quality.GOOD}
    assert "4101" not in caplog.text


async def test_two_servers_with_the_same_type_ids_are_each_read_by_their_own_layout() -> None:
    async with (
        running() as left,
        running() as right,
        spindle(left) as first_mark,
        spindle(right, swapped=True) as second_mark,
        plant(left, []) as mill,
        plant(right, []) as other,
    ):
        assert first_mark.mark == second_mark.mark
        one, two = driver_for(mill.port, inside()), driver_for(other.port, inside())
        for _ in range(2):
            first = await first_values(one, INSIDE)
            swapped = await first_values(two, INSIDE)
    assert (first["speed"], first["limit"]) == (4101, 4102)
    assert (swapped["speed"], swapped["limit"]) == (4102, 4101)


async def test_a_structure_whose_layout_is_not_told_is_refused_by_name(server: Server) -> None:
    index = await server.register_namespace(URI)
    raw = ua.Variant(
        STRUCTURE(TypeId=NODE(4711, index), Body=b"1234"), ua.VariantType.ExtensionObject
    )
    made = await server.nodes.objects.add_variable(
        NODE("raw", index), "raw", raw, datatype=NODE(ObjectIds.Structure)
    )
    nodes = [Node(URI, "plain", "Int32", 5)]
    try:
        async with plant(server, nodes) as mill:
            driver = driver_for(mill.port, [point("x", f"part=X;nsu={URI};s=raw"), *nodes])
            assert await first_values(driver, ["plain"]) == {"plain": 5}
    finally:
        await server.delete_nodes([made])
    assert driver.refused == {"x": "StructureUnreadable"}


async def test_fields_of_the_standards_own_structures_are_read(server: Server) -> None:
    status = ObjectIds.Server_ServerStatus
    points = [
        point("state", f"part=State;i={status}"),
        point("left", f"part=SecondsTillShutdown;i={status}", type="UInt32"),
    ]
    async with plant(server, []) as mill:
        driver = driver_for(mill.port, points)
        assert await first_values(driver, ["state", "left"]) == {"state": 0, "left": 0}

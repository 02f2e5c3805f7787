"""Looking around at OPC-UA servers, and layouts of companion specifications found there by name."""

import asyncio
import itertools
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.structures104 import new_struct, new_struct_field
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds

from agent.config import read_config
from agent.onboarding.profiles import OpcuaProfile, shipped
from agent.onboarding.seen import samples_of
from protocols.drivers.opcua import Config, Driver
from protocols.drivers.opcua.address import parse_address
from protocols.drivers.opcua.certificates import parse_certificate
from protocols.drivers.opcua.survey import Bounds, Tree, look_around, node_address, path_address
from protocols.frame import Quality
from protocols.settings import check_settings
from tests.mill_folder import call, make_mill, told
from tests.servers.opcua import NODE, face, pair, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
STRUCTURE: Callable[..., ua.ExtensionObject] = ua.ExtensionObject
MACHINERY = "http://opcfoundation.org/UA/Machinery/"
VENDOR = "urn:vendor:machine"
LAYOUTS = {name: one for name, one in shipped().items() if isinstance(one, OpcuaProfile)}
COUNTS = ("ProdConsumedCount", "ProdProcessedCount", "ProdDefectiveCount")
NUMBERS = {
    "IsWarmUp": ua.VariantType.Boolean,
    "IsRotating": ua.VariantType.Boolean,
    "SignalOn": ua.VariantType.Boolean,
    "EquipmentBlocked": ua.VariantType.Boolean,
    "EquipmentStarved": ua.VariantType.Boolean,
    "OperationMode": ua.VariantType.Int32,
    "FeedOverride": ua.VariantType.Double,
    "MachSpeed": ua.VariantType.Float,
}


class Plant:
    """A server with one machine of each layout, in namespaces whose numbers say nothing.

    Attributes:
        truth: by profile and path, the value, which no other path has.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.truth: dict[tuple[str, str], float] = {}
        self._next = itertools.count(101)

    @property
    def url(self) -> str:
        assert self.server.bserver is not None
        return f"opc.tcp://127.0.0.1:{self.server.bserver.port}/mill"

    async def build(self) -> None:
        server = self.server
        machinery = await server.register_namespace(MACHINERY)
        machines = await server.nodes.objects.add_folder(machinery, "Machines")
        for profile, name in (
            (LAYOUTS["opcua-machine-tool"], "CNC/1"),
            (LAYOUTS["opcua-packml"], "包装机"),
        ):
            vendor = await server.register_namespace(VENDOR)
            layout = await server.register_namespace(profile.namespace)
            machine = await machines.add_object(NODE(name, vendor), ua.QualifiedName(name, vendor))
            known: dict[str, Any] = {"": machine}
            for point in profile.point:
                for path in self._paths(point.path):
                    await self._add(profile.id, known, path, layout)

    @staticmethod
    def _paths(path: str) -> list[str]:
        return (
            [path.replace("*", name) for name in ("Channel1", "通道2")] if "*" in path else [path]
        )

    async def _add(self, profile: str, known: dict[str, Any], path: str, layout: int) -> None:
        names = path.split("/")
        for depth in range(1, len(names)):
            folder = "/".join(names[:depth])
            if folder not in known:
                parent = known["/".join(names[: depth - 1])]
                node = NODE(f"{profile}/{folder}", layout)
                known[folder] = await parent.add_object(
                    node, ua.QualifiedName(names[depth - 1], layout)
                )
        parent, last = known["/".join(names[:-1])], names[-1]
        name, node = ua.QualifiedName(last, layout), NODE(f"{profile}/{path}", layout)
        number = next(self._next)
        if last in COUNTS:
            await self._add_count(parent, node, name, number)
        else:
            kind = NUMBERS.get(last, ua.VariantType.UInt32)
            value: Any = kind is ua.VariantType.Boolean or number
            if kind in {ua.VariantType.Double, ua.VariantType.Float}:
                value = float(number)
            await parent.add_variable(node, name, ua.Variant(value, kind))
            number = int(value)
        self.truth[profile, path] = number

    async def _add_count(self, parent: Any, node: Any, name: Any, number: int) -> None:
        kind, marks = await self._count_type()
        body = struct.pack("<ii", -number, number)
        value = [STRUCTURE(TypeId=marks[0].nodeid, Body=body)]
        await parent.add_variable(
            node, name, ua.Variant(value, ua.VariantType.ExtensionObject), datatype=kind.nodeid
        )

    async def _count_type(self) -> Any:
        if not hasattr(self, "_count"):
            layout = await self.server.register_namespace(LAYOUTS["opcua-packml"].namespace)
            fields = [new_struct_field(one, ua.VariantType.Int32) for one in ("Count", "AccCount")]
            self._count = await new_struct(self.server, layout, "PackMLCount", fields)
        return self._count


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plant() -> AsyncIterator[Plant]:
    async with running() as server:
        here = Plant(server)
        await here.build()
        yield here


def config(url: str) -> Config:
    data = {
        "id": "x",
        "kind": "opcua",
        "url": url,
        "security": "none",
        "points": [{"id": "x", "address": "i=2258", "type": "Int32"}],
    }
    return check_settings(data, Config, Path("agent.toml"))


async def tree(url: str, **bounds: Any) -> Tree:
    limits = Bounds(**({"per_second": 1000.0} | bounds))
    return await look_around(config(url), "x", time.time_ns, limits, lambda _: None)


async def run(*words: object) -> Any:
    return await asyncio.to_thread(call, *words)


@pytest.mark.parametrize("profile", LAYOUTS.values(), ids=LAYOUTS)
async def test_a_layout_is_found_by_name_and_each_point_reads_its_own_node(
    plant: Plant, tmp_path: Path, profile: OpcuaProfile
) -> None:
    path = make_mill(tmp_path)
    done = await run(
        "add", path, plant.url, "--id", "machine-1", "--security", "none", "--profile", profile.id
    )
    assert done.exit_code == 0, done.output
    (device,) = read_config(path).devices
    assert isinstance(device, Config)
    addresses = {point.id: point.address for point in device.points}
    assert len(addresses) == len([key for key in plant.truth if key[0] == profile.id])
    assert all("ns=" not in address.replace("nsu=", "") for address in addresses.values())
    wanted = {
        point_id: value
        for point_id, address in addresses.items()
        for (name, way), value in plant.truth.items()
        if name == profile.id and tail(address) == way
    }
    assert await values(device, len(wanted)) == wanted
    assert len(wanted) == len(addresses)


def tail(address: str) -> str:
    where: Any = parse_address(address).where
    return "/".join(name for _, name in where.names[2:])


async def values(device: Config, many: int) -> dict[str, float]:
    driver = Driver(device, time.time_ns)
    got: dict[str, float] = {}
    async with asyncio.timeout(20), aclosing(driver.frames()) as frames:
        async for frame in frames:
            for name, sample in samples_of(frame, device.table()):
                assert sample.quality is Quality.GOOD, name
                got[name] = float(sample.text)
            if len(got) == many:
                break
    return got


async def test_a_server_without_the_layout_is_told_so(tmp_path: Path) -> None:
    path = make_mill(tmp_path)
    before = path.read_bytes()
    async with running() as bare:
        assert bare.bserver is not None
        url = f"opc.tcp://127.0.0.1:{bare.bserver.port}/mill"
        words = ("--id", "m", "--security", "none", "--profile", "opcua-packml")
        done = await run("add", path, url, *words)
    assert "does not have this layout" in told(done)
    assert path.read_bytes() == before


async def test_numbers_of_a_server_are_added_with_their_types_and_no_meaning(
    plant: Plant, tmp_path: Path
) -> None:
    path = make_mill(tmp_path)
    words = (
        "--id",
        "m",
        "--security",
        "none",
        "--from-scan",
        "--select",
        "Machines/CNC/1/Production/*",
    )
    meaning = ("measurand=production.total", "unit=pcs")
    changes = [word for one in meaning for word in ("--set", f"partsproducedinlifetime.{one}")]
    done = await run("add", path, plant.url, *words, *changes)
    assert done.exit_code == 0, done.output
    (device,) = read_config(path).devices
    (point,) = device.points
    assert (point.type, point.measurand, point.unit) == ("UInt32", "production.total", "pcs")
    assert isinstance(device, Config)
    truth = plant.truth["opcua-machine-tool", "Production/Statistics/PartsProducedInLifetime"]
    assert await values(device, 1) == {point.id: truth}


async def test_a_scan_shows_endpoints_paths_and_types_and_never_a_value(
    plant: Plant, tmp_path: Path
) -> None:
    path = make_mill(tmp_path)
    done = await run("scan", path, plant.url, "--security", "none", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["complete"]
    (endpoint,) = found["endpoints"]
    assert (endpoint["policy"], endpoint["mode"]) == ("none", "none")
    assert "anonymous" in endpoint["logins"]
    nodes = {node["path"]: node for node in found["nodes"]}
    speed = nodes["Machines/包装机/Status/MachSpeed"]
    assert (speed["type"], speed["array"], speed["readable"]) == ("Float", False, True)
    assert nodes["Machines/包装机/Admin/ProdProcessedCount"]["type"] == ""
    for node in found["nodes"]:
        assert set(node) == {"path", "address", "by_path", "variable", "type", "array", "readable"}
        parse_address(node["address"])
        parse_address(node["by_path"])
    kept = (path.parent / "data" / "discovered.json").read_text(encoding="utf-8")
    assert "Machines/包装机" in kept
    again = await run("scan", path)
    assert "MachSpeed" in again.output.replace("\n", "")


async def test_a_scan_reads_no_value_of_the_plant(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = plant.server.iserver.attribute_service
    asked: list[ua.ReadValueId] = []
    read: Callable[[ua.ReadParameters], list[ua.DataValue]] = service.read

    def watched(parameters: ua.ReadParameters) -> list[ua.DataValue]:
        asked.extend(parameters.NodesToRead)
        return read(parameters)

    monkeypatch.setattr(service, "read", watched)
    seen = await tree(plant.url)
    assert seen.left_out == ""
    assert len({node.names for node in seen.nodes}) == len(seen.nodes)
    assert asked
    own = [one for one in asked if one.NodeId.NamespaceIndex]
    assert AttributeIds.Value not in {one.AttributeId for one in own}


async def test_a_scan_stays_within_its_bounds(plant: Plant) -> None:
    few = await tree(plant.url, nodes=7)
    assert (len(few.nodes), few.left_out) == (7, "too many nodes")
    shallow = await tree(plant.url, depth=2)
    assert {len(node.names) for node in shallow.nodes} == {1, 2}
    assert shallow.left_out == "too deep"
    short = await tree(plant.url, seconds=0.0)
    assert short.left_out == "time is up"
    assert short.requests < (await tree(plant.url)).requests


async def test_a_server_that_cannot_be_reached_is_told_with_a_remedy(tmp_path: Path) -> None:
    path = make_mill(tmp_path)
    async with running() as server:
        assert server.bserver is not None
        port = server.bserver.port
    done = await run("scan", path, f"opc.tcp://127.0.0.1:{port}", "--security", "none")
    assert "—" in told(done)


@pytest.mark.parametrize(
    "names",
    [
        (("http://opcfoundation.org/UA/", "Objects"),),
        (
            ("urn:a", "x/y"),
            ("urn:a", "{z}"),
            ("urn:b;%", "%41"),
            ("http://opcfoundation.org/UA/", "é"),
        ),
    ],
)
async def test_a_path_is_written_as_it_is_read(names: tuple[tuple[str, str], ...]) -> None:
    where: Any = parse_address(path_address(names)).where
    assert where.names == names


@pytest.mark.parametrize("identifier", [7, "a;b%c", b"\x00\xff"])
async def test_a_node_is_written_as_it_is_read(identifier: Any) -> None:
    where: Any = parse_address(node_address("urn:a;b%c", identifier)).where
    assert (where.namespace, where.identifier) == ("urn:a;b%c", identifier)


async def test_a_secured_server_is_added_after_it_was_trusted_by_its_address(
    plant: Plant, tmp_path: Path
) -> None:
    path = make_mill(tmp_path)
    own = pair(0)
    async with face(plant.server, own) as port:
        url = f"opc.tcp://127.0.0.1:{port}/mill"
        assert (await run("cert", "init", path)).exit_code == 0
        shown = await run("scan", path, url)
        assert "Aes256_Sha256_RsaPss" in shown.output
        assert f"agent cert trust AGENT.TOML {url}" in shown.output.replace("\n", "")
        words = ("--id", "cnc-1", "--profile", "opcua-machine-tool")
        assert f"agent cert trust AGENT.TOML {url}" in told(await run("add", path, url, *words))
        fingerprint = parse_certificate(own.der).sha256
        trusted = await run("cert", "trust", path, url, "--fingerprint", fingerprint)
        assert trusted.exit_code == 0, trusted.output
        done = await run("add", path, url, *words)
        assert done.exit_code == 0, done.output
        (device,) = read_config(path).devices
        assert isinstance(device, Config)
        assert device.security == "best"
        assert len(await values(device, len(device.points))) == len(device.points)

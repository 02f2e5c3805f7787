"""Real OPC-UA servers for tests, and what tests of the driver have in common."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.server.binary_server_asyncio import BinaryServer
from asyncua.server.server import Server
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from protocols.drivers import NotConnected
from protocols.drivers.opcua import Config, Driver
from protocols.frame import Frame, Quality
from protocols.settings import check_settings

URI = "urn:mill:press"
# The library's annotations ask for wrappers of int and str that its own code does not use.
NODE: Callable[..., ua.NodeId] = ua.NodeId
NAME: Callable[..., ua.QualifiedName] = ua.QualifiedName
STATUS: Callable[..., ua.StatusCode] = ua.StatusCode
Sample = tuple[Any, int, Quality]


@dataclass(frozen=True)
class Node:
    """A variable of the test server: where it is, and what it holds at first."""

    uri: str
    name: str
    type: str
    value: Any

    @property
    def address(self) -> str:
        return f"nsu={self.uri};s={self.name}"

    @property
    def variant(self) -> ua.Variant:
        return ua.Variant(self.value, ua.VariantType[self.type])


class Plant:
    """A server under test, and shortcuts to its inside."""

    def __init__(self, server: Server, nodes: Iterable[Node]) -> None:
        self.server = server
        self._nodes = {node.name: node for node in nodes}

    @property
    def port(self) -> int:
        assert self.server.bserver is not None
        return self.server.bserver.port

    @property
    def sessions(self) -> int:
        return len(self.server.iserver._external_sessions)

    @property
    def subscriptions(self) -> dict[int, Any]:
        return self.server.iserver.subscription_service.subscriptions

    async def write(self, name: str, value: Any, **more: Any) -> None:
        """Put a value in as the device itself would, without the server's own stamps."""
        node = self._nodes[name]
        index = await self.server.get_namespace_index(node.uri)
        stamped = ua.DataValue(
            ua.Variant(value, ua.VariantType[node.type]),
            **({"SourceTimestamp": datetime.now(UTC)} | more),
        )
        await self.server.write_attribute_value(NODE(name, index), stamped)


@asynccontextmanager
async def running(port: int = 0, namespaces: Iterable[str] = ()) -> AsyncIterator[Server]:
    """Run a server; namespaces get their numbers in the order given."""
    server = Server()
    await server.init()
    server.iserver.disabled_clock = True  # its once-a-second writes only slow the stop
    server.socket_address = ("127.0.0.1", port)
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/mill")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    for uri in namespaces:
        await server.register_namespace(uri)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def plant(server: Server, nodes: list[Node]) -> AsyncIterator[Plant]:
    """Put variables into a running server for a while."""
    made = []
    for node in nodes:
        index = await server.register_namespace(node.uri)
        where, name = NODE(node.name, index), NAME(node.name, index)
        made.append(await server.nodes.objects.add_variable(where, name, node.variant))
    plant_here = Plant(server, nodes)
    try:
        yield plant_here
    finally:
        await server.iserver.subscription_service.delete_subscriptions(
            list(plant_here.subscriptions)
        )
        await server.delete_nodes(made)


def driver_for(
    port: int,
    nodes: Iterable[Node | dict[str, Any]],
    now_ns: Callable[[], int] = time.time_ns,
    points: dict[str, dict[str, Any]] | None = None,
    **settings: Any,
) -> Driver:
    """Configure a driver as a technician would: one point per node, of the same name."""
    data: dict[str, Any] = {
        "id": "press",
        "kind": "opcua",
        "url": f"opc.tcp://127.0.0.1:{port}/mill",
        "security": "none",
        "timeout": "2s",
        "points": [_point(node, points or {}) for node in nodes],
    }
    if settings.get("mode") == "poll":
        data["interval"] = "20ms"
    else:
        data |= {"publishing_interval": "20ms", "keep_alive": "100ms", "queue_size": 1000}
    data |= settings
    return Driver(check_settings(data, Config, Path("agent.toml")), now_ns)


def _point(node: Node | dict[str, Any], more: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if isinstance(node, dict):
        return node
    return {"id": node.name, "address": node.address, "type": node.type} | more.get(node.name, {})


def samples_of(frame: Frame, driver: Driver) -> Iterable[tuple[str, Sample]]:
    ids = [point.id for point in driver._config.points]
    times = frame.cell_times()
    for place, column in enumerate(frame.columns):
        for row in range(len(frame.values)):
            quality = Quality(frame.quality[row, place])
            if quality is not Quality.ABSENT:
                value = frame.values[row, place].item()
                yield ids[column], (value, int(times[row, place]), quality)


async def collect(
    frames: AsyncGenerator[Frame, None], driver: Driver, wanted: dict[str, int]
) -> dict[str, list[Sample]]:
    """Read until each named point has that many samples."""
    got: dict[str, list[Sample]] = {name: [] for name in wanted}
    async with asyncio.timeout(20):
        while any(len(got[name]) < many for name, many in wanted.items()):
            for name, sample in samples_of(await anext(frames), driver):
                got.setdefault(name, []).append(sample)
    return got


async def first_values(driver: Driver, names: Iterable[str]) -> dict[str, Any]:
    async with aclosing(driver.frames()) as frames:
        got = await collect(frames, driver, dict.fromkeys(names, 1))
    return {name: samples[0][0] for name, samples in got.items()}


async def end_of(frames: AsyncGenerator[Frame, None]) -> NotConnected:
    """Read until contact is lost."""
    async with asyncio.timeout(20):
        try:
            async for _ in frames:
                pass
        except NotConnected as fault:
            return fault
    pytest.fail("the frames ended without saying why")


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 the server's inside has no event to wait for
            await asyncio.sleep(0.01)


def telling_nodes() -> list[Node]:
    """150 variables in three namespaces whose values tell which they are.

    The same names stand in every namespace, so that a wrong namespace gives a wrong value.
    """
    types = ("Int32", "UInt32", "Int64", "Double", "UInt16", "Float")
    uris = ("urn:mill:a", "urn:mill:b", "urn:mill:c")
    return [
        Node(uris[number % 3], f"v{number // 3}", types[number % 6], 1000 + number)
        for number in range(150)
    ]


def apart(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    """Points for nodes whose names repeat across namespaces."""
    return [{"id": f"p{node.value}", "address": node.address, "type": node.type} for node in nodes]


@cache
def key(number: int, bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key; the same number gives the same key, since making one takes long."""
    del number
    return rsa.generate_private_key(65537, bits)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as somebody at the server made them."""

    private: rsa.RSAPrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        private = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return private + self.certificate.public_bytes(Encoding.PEM)


def pair(
    number: int,
    uri: str = "urn:mill:server",
    host: str = "127.0.0.1",
    starts: int = -1,
    days: int = 100,
    bits: int = 2048,
) -> Pair:
    """Make a certificate; it starts so many days from now and lasts so many."""
    private = key(number, bits)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"server {number}")])
    begin = datetime.now(UTC) + timedelta(days=starts)
    names = [x509.UniformResourceIdentifier(uri), x509.DNSName(host)]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(private, hashes.SHA256())
    )
    return Pair(private, certificate)


POLICIES = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
MODES = ("Sign", "SignAndEncrypt")
EVERY = tuple((policy, mode) for policy in POLICIES for mode in MODES)


@asynccontextmanager
async def face(
    server: Server,
    own: Pair,
    offers: Iterable[tuple[str, str]] = EVERY,
    *,
    tokens: Iterable[type] = (
        ua.AnonymousIdentityToken,
        ua.UserNameIdentityToken,
        ua.X509IdentityToken,
    ),
    uri: str = "urn:mill:server",
    port: int = 0,
    unsecured: bool = False,
) -> AsyncIterator[int]:
    """Open one more port of a running server, with endpoints of its own."""
    inside = server.iserver
    names = [f"{policy.replace('_', '')}_{mode}" for policy, mode in offers]
    kept = {
        name: getattr(inside, name)
        for name in ("certificate", "private_key", "endpoints", "supported_tokens")
    }
    kept_here = {
        name: getattr(server, name)
        for name in ("_policies", "_security_policy", "_application_uri", "endpoint")
    }
    inside.certificate, inside.private_key = own.certificate, own.private
    inside.endpoints = []
    inside.supported_tokens = tuple(tokens)  # type: ignore[assignment] # inferred from its default
    server._policies, server._application_uri = [], uri
    server._security_policy = [ua.SecurityPolicyType[name] for name in names]
    if unsecured:
        server._security_policy.append(ua.SecurityPolicyType.NoSecurity)
    await server._setup_server_nodes()
    listening = BinaryServer(inside, "127.0.0.1", port, server.limits)
    listening.set_policies(server._policies)
    await listening.start()
    try:
        yield listening.port
    finally:
        await listening.stop()
        # A server keeps sessions for a while when connections break; here it would cross tests.
        for session in list(inside._external_sessions.values()):
            await session.close_session(delete_subs=True)
        for name, value in kept.items():
            setattr(inside, name, value)
        for name, value in kept_here.items():
            setattr(server, name, value)

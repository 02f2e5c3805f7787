"""Serves what a captured OPC UA server showed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from asyncua import ua as typed_ua
from asyncua.server.server import Server

from protocols.language import tr
from simulators.captured_opcua import CapturedServer
from simulators.faults.app import Outing
from simulators.running import announce, stopping, until

# Its annotations ask for number types of its own that nothing in it makes or needs.
ua: Any = typed_ua
_PER_FOLDER: Final = 100


@asynccontextmanager
async def serving(captured: CapturedServer, *, port: int = 0) -> AsyncIterator[int]:
    """Serve the variables under their own identifiers and namespaces; yields the port."""
    server = Server()
    await server.init()
    server.iserver.disabled_clock = True  # its writes each second only slow the stop
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/captured")
    server.socket_address = ("127.0.0.1", port)
    server.set_server_name("Millgate captured server")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    server.allow_remote_admin(allow=False)
    await _fill(server, captured)
    await server.start()
    try:
        if server.bserver is None:
            raise RuntimeError("the server has no socket although it started")
        yield server.bserver.port
    finally:
        await server.stop()


async def _fill(server: Server, captured: CapturedServer) -> None:
    own = await server.register_namespace("urn:millgate:captured")
    folder: Any = None
    for at, (node, value) in enumerate(captured.values.items()):
        # Adding a node takes the longer the more siblings it has.
        if at % _PER_FOLDER == 0:
            folder = await server.nodes.objects.add_folder(own, f"values-{at}")
        index = await server.register_namespace(captured.uri_of(node.NamespaceIndex))
        placed = ua.NodeId(node.Identifier, index)
        name = ua.QualifiedName(str(node.Identifier)[:200], index)
        await folder.add_variable(placed, name, value.Value)
        await server.write_attribute_value(placed, value)


async def run_captured_server(captured: CapturedServer, *, port: int, outing: Outing) -> None:
    """Serve a captured server until told to stop.

    Raises:
        MillgateError: when the ready file cannot be written.
    """
    source, count = f"{captured.end[0]}:{captured.end[1]}", len(captured.values)
    async with stopping(outing.ready) as stop, serving(captured, port=port) as listening:
        url = f"opc.tcp://127.0.0.1:{listening}/captured"
        await announce(
            outing.ready,
            {"opcua_url": url, "opcua_port": listening, "source": source, "values": count},
            tr(f"{count} values of {source} at {url}", f"{source} 的 {count} 个值：{url}"),
        )
        await until(stop, outing.duration_s)

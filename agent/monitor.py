"""Health and metrics of an agent, for this machine alone, where `[monitor] port` asks for them.

What leaves is counted in slots and messages. What is read from devices is shown only where
`devices = true` asks for it too: whoever reads that learns how much is withheld.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from agent.unheard import unheard
from protocols.metrics import CONTENT_TYPE, Family, exposition

HOST: Final = "127.0.0.1"

_MOST_BYTES: Final = 8192
_WAIT_S: Final = 10.0
_OURS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})

Report = Callable[[], Awaitable[dict[str, Any]]]
_Answer = tuple[str, str, str]


@asynccontextmanager
async def monitoring(port: int, report: Report, *, devices: bool) -> AsyncGenerator[int, None]:
    """Serve `/healthz`, `/readyz` and `/metrics` until the context ends; gives the port.

    Raises:
        OSError: when the port cannot be listened on.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = await _answer(head.decode("latin-1"), report, devices=devices)
                writer.write(_response(status, kind, body))
                await writer.drain()
        except (
            TimeoutError,
            ConnectionError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, port, limit=_MOST_BYTES)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def _answer(head: str, report: Report, *, devices: bool) -> _Answer:
    first, *rest = head.split("\r\n")
    words = first.split(" ")
    fields = dict(line.lower().split(":", 1) for line in rest if ":" in line)
    # A page in a browser on this machine, under a name of its own, must not read us.
    host = fields.get("host", "").strip().rsplit(":", 1)[0]
    if len(words) != 3 or words[0] != "GET" or host not in _OURS:
        return "400 Bad Request", "text/plain", "bad request\n"
    if words[1] == "/healthz":
        return "200 OK", "text/plain", "ok\n"
    if words[1] == "/readyz":
        why = not_ready(await report())
        status = "503 Service Unavailable" if why else "200 OK"
        return status, "text/plain", f"not ready: {why}\n" if why else "ready\n"
    if words[1] == "/metrics":
        return "200 OK", CONTENT_TYPE, exposition(families(await report(), devices=devices))
    return "404 Not Found", "text/plain", "not found\n"


def _response(status: str, kind: str, body: str) -> bytes:
    data = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
    return f"{head}Cache-Control: no-store\r\nConnection: close\r\n\r\n".encode() + data


def not_ready(report: Mapping[str, Any]) -> str:
    """Return in a word why an agent does not deliver; empty where it does."""
    policy = report.get("policy")
    if policy is None:
        return "policy"
    if not policy["in_force"]:
        return "halted"
    if not report.get("broker", {}).get("connected"):
        return "broker"
    return "brain" if unheard(report, time.time()) else ""


def families(report: Mapping[str, Any], *, devices: bool) -> list[Family]:
    """Return the metrics of an agent.

    Args:
        report: what `agent status` shows.
        devices: whether what is read from devices is told.
    """
    found = [*_delivery(report)]
    return [*found, *_devices(report)] if devices else found


def _delivery(report: Mapping[str, Any]) -> Iterable[Family]:
    out, broker = report.get("outputs", {}), report.get("broker", {})
    policy = report.get("policy") or {}
    sides = report.get("processes", {})
    ready = not not_ready(report)
    yield "agent_up", "gauge", "1 while released slots are delivered.", [({}, ready)]
    connected = broker.get("connected")
    yield "agent_broker_connected", "gauge", "1 while connected to a broker.", [({}, connected)]
    yield (
        "agent_receipts_total",
        "counter",
        "Receipts since the start.",
        [({}, broker.get("receipts"))],
    )
    silent = broker.get("silent_s")
    about = "For how long nothing was heard of the brain although something waits for an answer."
    yield "agent_brain_silent_seconds", "gauge", about, [({}, silent)]
    clock = (report.get("brain_clock") or {}).get("ahead_s")
    about = "By how much our clock is ahead of the brain's."
    yield "agent_brain_clock_ahead_seconds", "gauge", about, [({}, clock)]
    yield "agent_epoch", "gauge", "The epoch in use.", [({}, report.get("epoch"))]
    places = ("released", "acknowledged", "waiting", "refused", "lost", "given_up")
    about = "Released values of the epoch by where they are."
    yield "agent_values", "gauge", about, [({"place": one}, out.get(one)) for one in places]
    batches = out.get("waiting_batches")
    yield "agent_waiting_batches", "gauge", "Messages that wait.", [({}, batches)]
    yield "agent_waiting_bytes", "gauge", "Their size.", [({}, out.get("waiting_bytes"))]
    yield "agent_policy_version", "gauge", "What is enforced.", [({}, policy.get("version"))]
    ends = policy.get("valid_until")
    yield (
        "agent_policy_ends_seconds",
        "gauge",
        "When it ends, seconds since 1970 UTC.",
        [({}, ends)],
    )
    restarts = [({"side": name}, one["restarts"]) for name, one in sorted(sides.items())]
    yield "agent_restarts_total", "counter", "How often a side was started again.", restarts


def _devices(report: Mapping[str, Any]) -> Iterable[Family]:
    devices = [({"device": one["id"]}, one) for one in report.get("devices", [])]
    up = [(who, one["connected"]) for who, one in devices]
    yield "agent_device_connected", "gauge", "1 while a device answers.", up
    ages = [(who, one["age_s"]) for who, one in devices]
    yield "agent_device_age_seconds", "gauge", "Since its newest frame.", ages
    skews = [(who, one.get("skew_s")) for who, one in devices]
    about = "By how much its clock is ahead of ours, as far as it can be told."
    yield "agent_device_clock_ahead_seconds", "gauge", about, skews
    losses = [(who, one["losses"]) for who, one in devices]
    yield "agent_device_losses_total", "counter", "How often contact was lost.", losses
    places = ("produced", "consumed", "withheld", "open")
    samples = [
        (who | {"place": place}, one["account"][place]) for who, one in devices for place in places
    ]
    yield "agent_samples", "gauge", "Samples by what became of them.", samples
    dropped = [
        (who | {"reason": reason}, count)
        for who, one in devices
        for reason, count in one["account"]["dropped"].items()
    ]
    yield "agent_samples_dropped", "gauge", "Samples dropped, by reason.", dropped

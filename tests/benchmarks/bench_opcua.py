"""What an OPC-UA value costs us, beside asyncua's own two ways to follow changes: figures to read.

    python -m tests.benchmarks.bench_opcua
    python -m tests.benchmarks.bench_opcua --nodes 2000 --rate 6000 --seconds 8

All follow the same nodes of the same server process in the same run, one after the other, several
times over. The server is asyncua too: it writes at most some thousand values a second.
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, Final

from asyncua import ua as typed_ua
from asyncua.client.client import Client
from asyncua.server.server import Server

from protocols.drivers.opcua import Config, Driver
from tests.benchmarks.common import Cost, cpu_of, spent, table

# Its annotations ask for wrappers of int and str that its own code does not use.
ua: Any = typed_ua

NAMESPACE: Final = "urn:millgate:bench"
PER_FOLDER: Final = 100
PERIOD_MS: Final = 500
QUEUE: Final = 100
WRITES: Final = 50
WARM_S: Final = 1.5
READY_S: Final = 60

Count = Callable[[int], None]
Follow = Callable[[int, int, Count], Coroutine[None, None, None]]
"""(port, nodes, what to call with the number of values that came): runs until cancelled."""


@contextmanager
def serving(nodes: int, rate: float) -> Iterator[tuple[int, int]]:
    """Run a server that writes so many values a second; yield its port and its process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, nodes, rate), daemon=True)
    process.start()
    try:
        if not ours.poll(READY_S):
            raise RuntimeError("the OPC-UA server does not start")
        yield ours.recv(), process.pid or 0
    finally:
        process.terminate()
        process.join()


def _serve(ready: Connection, nodes: int, rate: float) -> None:
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve_nodes(ready, nodes, rate))


async def _serve_nodes(ready: Connection, nodes: int, rate: float) -> None:
    server = Server()
    server.set_endpoint("opc.tcp://127.0.0.1:0/bench")
    server.socket_address = ("127.0.0.1", 0)
    await server.init()
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    index = await server.register_namespace(NAMESPACE)
    made = []
    for at in range(nodes):
        # Adding a node takes the longer the more siblings it has.
        if at % PER_FOLDER == 0:
            folder = await server.nodes.objects.add_folder(index, f"folder-{at}")
        node = ua.NodeId(f"n{at}", index)
        await folder.add_variable(node, f"n{at}", 0.0, ua.VariantType.Double)
        made.append(node)
    await server.start()
    assert server.bserver is not None
    ready.send(server.bserver.port)
    await _write(server, made, rate)


async def _write(server: Server, nodes: list[Any], rate: float) -> None:
    """Write to one node after the other, for ever."""
    loop = asyncio.get_running_loop()
    written, began = 0, loop.time()
    while True:
        now = datetime.now(UTC)
        for _ in range(WRITES):
            value = ua.DataValue(
                Value=ua.Variant(float(written), ua.VariantType.Double), SourceTimestamp=now
            )
            await server.write_attribute_value(nodes[written % len(nodes)], value)
            written += 1
        await asyncio.sleep(max(began + written / rate - loop.time(), 0))


class Handler:
    """What asyncua calls for every value."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def datachange_notification(self, _node: object, _value: object, _data: object) -> None:
        self._count(1)


async def by_handler(port: int, nodes: int, count: Count) -> None:
    async with Client(f"opc.tcp://127.0.0.1:{port}/bench") as client:
        subscription = await client.create_subscription(PERIOD_MS, Handler(count))
        await subscription.subscribe_data_change(await _nodes(client, nodes), queuesize=QUEUE)
        await asyncio.Event().wait()


async def by_iterator(port: int, nodes: int, count: Count) -> None:
    async with Client(f"opc.tcp://127.0.0.1:{port}/bench") as client:
        subscription = await client.create_subscription(PERIOD_MS, queue_maxsize=1_000_000)
        await subscription.subscribe_data_change(await _nodes(client, nodes), queuesize=QUEUE)
        async for _ in subscription:
            count(1)


async def _nodes(client: Client, nodes: int) -> list[Any]:
    index = await client.get_namespace_index(NAMESPACE)
    return [client.get_node(ua.NodeId(f"n{at}", index)) for at in range(nodes)]


async def by_our_driver(port: int, nodes: int, count: Count) -> None:
    config = Config.model_validate(
        {
            "id": "device",
            "kind": "opcua",
            "url": f"opc.tcp://127.0.0.1:{port}/bench",
            "security": "none",
            "publishing_interval": f"{PERIOD_MS}ms",
            "sampling_interval": "0s",
            "queue_size": QUEUE,
            "points": [
                {"id": f"n{at}", "address": f"nsu={NAMESPACE};s=n{at}", "type": "Double"}
                for at in range(nodes)
            ],
        }
    )
    async with aclosing(Driver(config, time.time_ns).frames()) as frames:
        async for frame in frames:
            count(frame.samples)


WAYS: Final[dict[str, Follow]] = {
    "asyncua, handler": by_handler,
    "asyncua, iterator": by_iterator,
    "our driver, frames out": by_our_driver,
}


async def measure(
    follow: Follow, port: int, server: int, nodes: int, seconds: float
) -> tuple[float, float, float]:
    """Return values a second, our CPU-s per million values, and the server's cores."""
    got = 0

    def count(values: int) -> None:
        nonlocal got
        got += values

    cost = Cost()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow(port, nodes, count))
        while got < nodes and not following.done():  # noqa: ASYNC110 - the first values of all nodes
            await asyncio.sleep(0.05)
        await asyncio.sleep(WARM_S)
        before, server_before = got, cpu_of(server)
        with spent(cost):
            await asyncio.sleep(seconds)
        values, server_cpu = got - before, cpu_of(server) - server_before
        following.cancel()
    return values / cost.wall, cost.cpu / values * 1e6, server_cpu / cost.wall


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=4000.0, help="values written a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each stretch")
    parser.add_argument("--rounds", type=int, default=2, help="the median counts")
    args = parser.parse_args()
    os.environ.setdefault("MILLGATE_LANG", "en")
    logging.disable(logging.WARNING)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    with serving(args.nodes, args.rate) as (port, server):
        for _ in range(args.rounds):
            for name, follow in WAYS.items():
                found[name].append(
                    asyncio.run(measure(follow, port, server, args.nodes, args.seconds))
                )
    medians = {
        name: [statistics.median(part) for part in zip(*results, strict=True)]
        for name, results in found.items()
    }
    reference = medians["asyncua, handler"][1]
    lines = [
        [name, f"{rate:,.0f}", f"{cpu:.1f}", f"{reference / cpu:.1f}", f"{cores:.2f}"]
        for name, (rate, cpu, cores) in medians.items()
    ]
    heads = ("client", "values/s", "CPU-s per million", "cheaper than handler, x", "server cores")
    table(
        f"{args.nodes:,} nodes, {args.rate:,.0f} writes/s, published every {PERIOD_MS} ms",
        heads,
        lines,
    )


if __name__ == "__main__":
    main()

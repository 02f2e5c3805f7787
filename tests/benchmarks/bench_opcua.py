"""What an OPC-UA value costs us, beside what it costs asyncua: figures to read.

    python -m tests.benchmarks.bench_opcua
    python -m tests.benchmarks.bench_opcua --nodes 2000 --rate 6000 --seconds 8
    python -m tests.benchmarks.bench_opcua --types Double,UInt32,Int16,Float

All follow the same nodes of the same server process in the same run, one after the other, several
times over. The server is asyncua too: it writes at most some thousand values a second. Nodes take the
types in turn, so that with several of them the values of an answer do not lie alike.
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
from typing import Any, Final, NamedTuple

from asyncua import ua as typed_ua
from asyncua.client.client import Client
from asyncua.server.server import Server

from protocols.drivers.opcua import Config, Driver, answers
from tests.benchmarks.common import Cost, cpu_of, spent, table

# Its annotations ask for wrappers of int and str that its own code does not use.
ua: Any = typed_ua

NAMESPACE: Final = "urn:millgate:bench"
PER_FOLDER: Final = 100
PERIOD_MS: Final = 500
QUEUE: Final = 100
WRITES: Final = 50
MOST_READ: Final = 500
WARM_S: Final = 1.5
READY_S: Final = 60

Count = Callable[[int], None]
Follow = Callable[["Served", Count], Coroutine[None, None, None]]
"""What is served, and what to call with the number of values that came: runs until cancelled."""


class Served(NamedTuple):
    """What the server offers."""

    port: int
    nodes: int
    types: tuple[str, ...]


@contextmanager
def serving(nodes: int, types: tuple[str, ...], rate: float) -> Iterator[tuple[Served, int]]:
    """Run a server that writes so many values a second; yield its port and its process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, nodes, types, rate), daemon=True)
    process.start()
    try:
        if not ours.poll(READY_S):
            raise RuntimeError("the OPC-UA server does not start")
        yield Served(ours.recv(), nodes, types), process.pid or 0
    finally:
        process.terminate()
        process.join()


def _serve(ready: Connection, nodes: int, types: tuple[str, ...], rate: float) -> None:
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve_nodes(ready, nodes, types, rate))


async def _serve_nodes(ready: Connection, nodes: int, types: tuple[str, ...], rate: float) -> None:
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
        kind = ua.VariantType[types[at % len(types)]]
        await folder.add_variable(node, f"n{at}", _number(0, kind), kind)
        made.append((node, kind))
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
            node, kind = nodes[written % len(nodes)]
            value = ua.DataValue(
                Value=ua.Variant(_number(written, kind), kind), SourceTimestamp=now
            )
            await server.write_attribute_value(node, value)
            written += 1
        await asyncio.sleep(max(began + written / rate - loop.time(), 0))


def _number(number: int, kind: Any) -> float:
    real = kind in {ua.VariantType.Float, ua.VariantType.Double}
    return float(number) if real else number % 128


class Handler:
    """What asyncua calls for every value."""

    def __init__(self, count: Count) -> None:
        self._count = count

    def datachange_notification(self, _node: object, _value: object, _data: object) -> None:
        self._count(1)


async def by_handler(served: Served, count: Count) -> None:
    async with Client(f"opc.tcp://127.0.0.1:{served.port}/bench") as client:
        subscription = await client.create_subscription(PERIOD_MS, Handler(count))
        await subscription.subscribe_data_change(
            await _nodes(client, served.nodes), queuesize=QUEUE
        )
        await asyncio.Event().wait()


async def by_iterator(served: Served, count: Count) -> None:
    async with Client(f"opc.tcp://127.0.0.1:{served.port}/bench") as client:
        subscription = await client.create_subscription(PERIOD_MS, queue_maxsize=1_000_000)
        await subscription.subscribe_data_change(
            await _nodes(client, served.nodes), queuesize=QUEUE
        )
        async for _ in subscription:
            count(1)


async def _nodes(client: Client, nodes: int) -> list[Any]:
    index = await client.get_namespace_index(NAMESPACE)
    return [client.get_node(ua.NodeId(f"n{at}", index)) for at in range(nodes)]


async def by_reading(served: Served, count: Count) -> None:
    async with Client(f"opc.tcp://127.0.0.1:{served.port}/bench") as client:
        nodes = await _nodes(client, served.nodes)
        while True:
            count(len(await client.read_values(nodes[:MOST_READ])))


async def by_our_driver(served: Served, count: Count) -> None:
    await _drive(
        served,
        count,
        {
            "publishing_interval": f"{PERIOD_MS}ms",
            "sampling_interval": "0s",
            "queue_size": QUEUE,
        },
    )


async def by_our_driver_unhelped(served: Served, count: Count) -> None:
    """Follow with the library's own decoder, as where its version is not known."""
    kept = answers.columns_work
    answers.columns_work = _no  # type: ignore[assignment] # the same question, another answer
    try:
        await by_our_driver(served, count)
    finally:
        answers.columns_work = kept


async def by_our_polling(served: Served, count: Count) -> None:
    some = served._replace(nodes=min(served.nodes, MOST_READ))
    await _drive(some, count, {"mode": "poll", "interval": "10ms"})


def _no() -> bool:
    return False


async def _drive(served: Served, count: Count, settings: dict[str, Any]) -> None:
    config = Config.model_validate(
        {
            "id": "device",
            "kind": "opcua",
            "url": f"opc.tcp://127.0.0.1:{served.port}/bench",
            "security": "none",
            **settings,
            "points": [
                {
                    "id": f"n{at}",
                    "address": f"nsu={NAMESPACE};s=n{at}",
                    "type": served.types[at % len(served.types)],
                }
                for at in range(served.nodes)
            ],
        }
    )
    async with aclosing(Driver(config, time.time_ns).frames()) as frames:
        async for frame in frames:
            count(frame.samples)


WAYS: Final[dict[str, Follow]] = {
    "asyncua, handler": by_handler,
    "asyncua, iterator": by_iterator,
    "our driver, asyncua's decoder": by_our_driver_unhelped,
    "our driver": by_our_driver,
    "asyncua, read in turn": by_reading,
    "our driver, read in turn": by_our_polling,
}


async def measure(
    follow: Follow, served: Served, server: int, seconds: float
) -> tuple[float, float, float]:
    """Return values a second, our CPU-s per million values, and the server's cores."""
    got = 0

    def count(values: int) -> None:
        nonlocal got
        got += values

    cost = Cost()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow(served, count))
        while got < min(served.nodes, MOST_READ) and not following.done():  # noqa: ASYNC110 - the first values of all nodes
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
    parser.add_argument("--types", default="Double", help="of the nodes, in turn")
    parser.add_argument("--rate", type=float, default=4000.0, help="values written a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each stretch")
    parser.add_argument("--rounds", type=int, default=2, help="the median counts")
    args = parser.parse_args()
    os.environ.setdefault("MILLGATE_LANG", "en")
    logging.disable(logging.WARNING)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    with serving(args.nodes, tuple(args.types.split(",")), args.rate) as (served, server):
        for _ in range(args.rounds):
            for name, follow in WAYS.items():
                found[name].append(asyncio.run(measure(follow, served, server, args.seconds)))
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
        f"{args.nodes:,} nodes of {args.types}, {args.rate:,.0f} writes/s, published every "
        f"{PERIOD_MS} ms",
        heads,
        lines,
    )


if __name__ == "__main__":
    main()

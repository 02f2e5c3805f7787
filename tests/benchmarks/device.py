"""A Modbus TCP server with walking values that costs little, as a process of its own."""

import ctypes
import multiprocessing
import select
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import RawArray
from typing import Any, Final

import numpy as np

from tests.benchmarks.common import walk

MOST_PER_REQUEST: Final = 125
CLOCK_REGISTERS: Final = 2
_REQUEST: Final = struct.Struct(">HHHBBHH")
_ANSWER: Final = struct.Struct(">HHHBBB")
_ROWS: Final = 512
_APART: Final = 61
_READY_S: Final = 30


@dataclass(frozen=True)
class Device:
    """A running server.

    Attributes:
        port: where it listens, on 127.0.0.1.
        pid: its process.
        counts: requests answered so far, registers given so far.
    """

    port: int
    pid: int
    counts: Any

    def served(self) -> tuple[int, int]:
        """Return requests and registers so far."""
        return int(self.counts[0]), int(self.counts[1])


@contextmanager
def running(
    registers: int, clock_s: int = 0, held: float = 0.0, hosts: int = 1
) -> Iterator[Device]:
    """Run a server for the length of the context.

    Every connection is a device of its own. Its values take a step whenever register 0 is read.

    Args:
        registers: how many holding registers there are.
        clock_s: when not 0, registers 0 and 1 hold the device's own time: at first this, in
            seconds since 1970 UTC, then a second more with every step.
        held: which share of the values does not change in a step.
        hosts: at how many addresses it listens, see `host`. Readers of one address share one
            connection.
    """
    context = multiprocessing.get_context("spawn")
    counts = RawArray(ctypes.c_uint64, 2)
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, counts, registers, clock_s, held, hosts), daemon=True
    )
    process.start()
    try:
        if not ours.poll(_READY_S):
            raise RuntimeError("the register server does not start")
        yield Device(ours.recv(), process.pid or 0, counts)
    finally:
        process.terminate()
        process.join()


def host(number: int) -> str:
    """Return one of the addresses, from 0 on."""
    return f"127.0.0.{number + 1}"


class _Client:
    """One connection: what came of a request, and how many steps its device has taken.

    Each device begins elsewhere on the same walk, so that no two give the same.
    """

    def __init__(self, link: socket.socket, number: int) -> None:
        self.link = link
        self.buffer = b""
        self.steps = -1
        self.begin = _APART * number


def _serve(
    ready: Connection, counts: Any, registers: int, clock_s: int, held: float, hosts: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rows = _rows(registers, held)
    listeners = _listeners(hosts)
    poll = select.epoll()
    for listener in listeners.values():
        poll.register(listener.fileno(), select.EPOLLIN)
    ready.send(next(iter(listeners.values())).getsockname()[1])
    clients: dict[int, _Client] = {}
    while True:
        for number, _ in poll.poll():
            if number in listeners:
                link, _ = listeners[number].accept()
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[link.fileno()] = _Client(link, len(clients))
                poll.register(link.fileno(), select.EPOLLIN)
            elif not _answer(clients[number], rows, counts, clock_s):
                poll.unregister(number)
                clients.pop(number).link.close()


def _listeners(hosts: int) -> dict[int, socket.socket]:
    """Listen on one port of several addresses of this machine; return them by descriptor."""
    port, found = 0, {}
    for number in range(hosts):
        listener = socket.create_server((host(number), port))
        listener.setblocking(False)
        port = listener.getsockname()[1]
        found[listener.fileno()] = listener
    return found


def _rows(registers: int, held: float) -> list[bytes]:
    """Return the registers step by step, there and back again."""
    there = walk(_ROWS, registers, held)
    back = there[-2:0:-1]
    return [row.tobytes() for row in np.concatenate([there, back]).astype(">u2")]


def _answer(client: _Client, rows: list[bytes], counts: Any, clock_s: int) -> bool:
    """Answer what has come; return False when the client is gone."""
    try:
        data = client.link.recv(65_536)
    except ConnectionError:
        return False
    if not data:
        return False
    data = client.buffer + data
    answers = []
    size = _REQUEST.size
    for at in range(0, len(data) - size + 1, size):
        transaction, _, _, unit, function, first, count = _REQUEST.unpack_from(data, at)
        if first == 0:
            client.steps += 1
        row = rows[(client.begin + client.steps) % len(rows)][2 * first : 2 * (first + count)]
        if clock_s and first == 0:
            row = (clock_s + client.steps).to_bytes(4, "big") + row[4:]
        answers.append(_ANSWER.pack(transaction, 0, 3 + len(row), unit, function, len(row)) + row)
        counts[0] += 1
        counts[1] += count
    client.buffer = data[len(data) - len(data) % size :]
    try:
        client.link.sendall(b"".join(answers))
    except OSError:
        return False
    return True

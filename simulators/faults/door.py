"""A listening port that can be shut and opened again, and is never lost to another program."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from simulators.running import cannot_listen

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Attends to one connection; when it returns, the connection is closed."""


class Door:
    """Connections come in while it is open and are refused while it is shut; see `doorway`.

    Attributes:
        host, port: where it is; the port stays the same.
    """

    def __init__(
        self,
        serve: Serve,
        tasks: asyncio.TaskGroup,
        held: socket.socket,
        most: int,
        secured: ssl.SSLContext | None,
    ) -> None:
        self._serve = serve
        self._tasks = tasks
        self._most = most
        self._secured = secured
        self._server: asyncio.Server | None = None
        self._attending: set[asyncio.Task[None]] = set()
        self._socket = held
        self.host: str
        self.port: int
        self.host, self.port = held.getsockname()

    @property
    def guests(self) -> int:
        """Number of connections there are."""
        return len(self._attending)

    async def open(self) -> None:
        """Let connections in."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._greet, sock=self._socket, ssl=self._secured
            )

    def shut(self) -> None:
        """Refuse connections from now on and drop those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._socket = _bound(self.host, self.port)
        self.drop()

    def drop(self) -> None:
        """Drop every connection there is."""
        for task in self._attending:
            task.cancel()

    def close(self) -> None:
        """Give the port back."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._socket.close()

    def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._attending) >= self._most:
            writer.transport.abort()
            return
        task = self._tasks.create_task(self._attend(reader, writer), name=f"guest of {self.port}")
        self._attending.add(task)
        task.add_done_callback(self._attending.discard)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A guest that leaves in the middle of a sentence is no fault of the house.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._serve(reader, writer)
            writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise


@asynccontextmanager
async def doorway(
    serve: Serve,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    most: int = 64,
    secured: ssl.SSLContext | None = None,
) -> AsyncIterator[Door]:
    """Give an open door.

    Args:
        serve: attends to each connection.
        host, port: where; port 0 lets the kernel pick one.
        most: connections at a time; further ones are dropped at once.
        secured: how it speaks TLS; None is not at all.

    Raises:
        MillgateError: when the port cannot be had.
    """
    held = _bound(host, port)
    async with company() as tasks:
        door = Door(serve, tasks, held, most, secured)
        try:
            await door.open()
            yield door
        finally:
            door.close()
            door.drop()


@asynccontextmanager
async def company() -> AsyncIterator[asyncio.TaskGroup]:
    """Give a task group; a fault of the body itself is raised as it is, outside of any group.

    The body ends what it started.
    """
    fault: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        try:
            yield tasks
        except Exception as error:  # noqa: BLE001 - raised again below, once the group has ended
            fault = error
    if fault is not None:
        raise fault


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that holds the port; until it listens, connections are refused."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setblocking(False)  # noqa: FBT003 - the standard library takes it by position only
        held.bind((host, port))
    except OSError as error:
        held.close()
        raise cannot_listen(host, port) from error
    return held

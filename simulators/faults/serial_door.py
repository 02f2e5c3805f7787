"""A serial line without wires: a pseudo terminal whose far end a device attends to."""

import asyncio
import contextlib
import os
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from simulators.faults.door import Serve, company


class SerialDoor:
    """The device's end of the line; see `serial_doorway`.

    Attributes:
        host: the path of the other end, which a program opens as its serial port.
        port: always 0.
        guests: always 1: nobody can tell who listens on a wire.
    """

    port = 0
    guests = 1

    def __init__(self, serve: Serve, tasks: asyncio.TaskGroup) -> None:
        self._serve = serve
        self._tasks = tasks
        self._ends: tuple[int, int] | None = None
        self._attending: asyncio.Task[None] | None = None
        self.host = ""

    async def open(self) -> None:
        """Put the line in; whoever had the old one finds it unplugged."""
        if self._ends is None:
            near, far = self._ends = os.openpty()
            tty.setraw(far)
            self.host = os.ttyname(far)
            self._attending = self._tasks.create_task(self._attend(near), name="serial line")

    def shut(self) -> None:
        """Unplug the line."""
        if self._attending is not None:
            self._attending.cancel()
        if self._ends is not None:
            for end in self._ends:
                os.close(end)
            self._ends = None

    def drop(self) -> None:
        """Do nothing: nobody can hang up on a wire."""

    async def _attend(self, near: int) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        hearing, _ = await loop.connect_read_pipe(
            lambda: protocol, os.fdopen(os.dup(near), "rb", 0)
        )
        saying, way = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(os.dup(near), "wb", 0)
        )
        writer = asyncio.StreamWriter(saying, way, reader, loop)
        try:
            while not reader.at_eof():
                # There is no hanging up on a wire: the device just goes on.
                with contextlib.suppress(OSError, TimeoutError):
                    await self._serve(reader, writer)
        except asyncio.IncompleteReadError:
            return
        finally:
            hearing.close()
            saying.abort()


@asynccontextmanager
async def serial_doorway(serve: Serve) -> AsyncIterator[SerialDoor]:
    """Give a serial line that is plugged in."""
    async with company() as tasks:
        door = SerialDoor(serve, tasks)
        try:
            await door.open()
            yield door
        finally:
            door.shut()

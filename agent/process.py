"""What both sides share as processes: how they are started, told to stop, and end."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from agent.control import Control
from agent.harden import harden
from protocols.language import speak_to_everyone
from protocols.last_words import say_why
from protocols.signals import reload_on_signal, stop_on_signals
from protocols.status import only_one
from security.secret import log_redacted

_PEER: Final = struct.Struct("3i")
_AGAIN_S: Final = 1.0


class Links:
    """Where a side's links come from, one after the other.

    Attributes:
        stop: set when the side is to end.
        reload: set when the configuration is to be read anew.
        watched: whether a supervisor looks after this side.
    """

    watched = False

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()

    @property
    def at_once(self) -> bool:
        """Whether the side is to end without delivering first."""
        return False

    def changed(self) -> None:
        """Say that the files of the configuration have changed."""
        self.reload.set()

    async def next(self) -> socket.socket:
        """Return our end of the next link."""
        raise NotImplementedError


class Given(Links):
    """Links that the supervisor makes."""

    watched = True

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control
        self.stop, self.reload = control.stop, control.reload

    @property
    def at_once(self) -> bool:
        """Whether another side of the same kind takes our place."""
        return self._control.at_once

    def changed(self) -> None:
        """Tell the supervisor, which looks first whether the sealed side can go on with it."""
        self._control.changed()

    async def next(self) -> socket.socket:
        """Return our end of the next link."""
        return await self._control.next_link()


@contextlib.contextmanager
def alone(folder: Path, *, watched: bool) -> Iterator[None]:
    """Keep a folder's data for this side alone, where no supervisor does already.

    Raises:
        AlreadyRunning: when another process has it.
    """
    with contextlib.nullcontext() if watched else only_one(folder):
        yield


class Listening(Links):
    """Links that the gate side of this machine makes to a socket of ours."""

    def __init__(self, listener: socket.socket, uid: int) -> None:
        super().__init__()
        self._listener = listener
        self._uid = uid

    async def next(self) -> socket.socket:
        """Return our end of the next link; who is not the gate side's user gets none."""
        loop = asyncio.get_running_loop()
        while True:
            end, _ = await loop.sock_accept(self._listener)
            credentials = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            _, uid, _ = _PEER.unpack(credentials)
            if uid == self._uid:
                return end
            end.close()


class Connecting(Links):
    """Links to the socket of a sealed side that runs by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def next(self) -> socket.socket:
        """Return our end of the next link, once the sealed side listens."""
        loop = asyncio.get_running_loop()
        while True:
            end = socket.socket(socket.AF_UNIX)
            end.settimeout(0)
            try:
                await loop.sock_connect(end, str(self._path))
            except OSError:
                end.close()
                await asyncio.sleep(_AGAIN_S)
            else:
                return end


@asynccontextmanager
async def given_links(descriptor: int) -> AsyncGenerator[Links, None]:
    """Take links from the supervisor over an inherited control socket."""
    control = Control(socket.socket(fileno=descriptor))
    try:
        yield Given(control)
    finally:
        control.close()


@asynccontextmanager
async def listened_links(path: Path, uid: int) -> AsyncGenerator[Links, None]:
    """Listen for the gate side, which runs as user `uid`."""
    with _listener(path, uid) as listener:
        links = Listening(listener, uid)
        with stop_on_signals(links.stop):
            yield links


def _listener(path: Path, uid: int) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    # Who is let in is decided by user when they come; the folder decides who comes near.
    path.chmod(0o600 if uid == os.getuid() else 0o666)
    listener.listen(1)
    listener.settimeout(0)
    return listener


@asynccontextmanager
async def connected_links(path: Path) -> AsyncGenerator[Links, None]:
    """Connect to a sealed side that runs by itself."""
    links = Connecting(path)
    with stop_on_signals(links.stop), reload_on_signal(links.reload):
        yield links


def main(run: Coroutine[Any, Any, None], *, parent: int) -> None:
    """Run one side to its end, in a process that keeps what it holds to itself.

    Args:
        run: the side.
        parent: the supervisor, which alone says when to stop; 0 where there is none.
    """
    harden(parent)
    log_redacted()
    speak_to_everyone()
    if parent:
        # What a terminal or a service manager sends to all, the supervisor hears.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    try:
        asyncio.run(run)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 - the last place to say what went wrong
        sys.exit(say_why(error))

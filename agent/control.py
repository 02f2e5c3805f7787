"""What the supervisor says to the two sides, and what the gate side says to it, a word each.

To a side: here is a new link; read the configuration anew; make way; stop. From the gate side: the
configuration has changed.

This module loads nothing heavy, since the supervisor stays small.
"""

import asyncio
import contextlib
import os
import socket
from typing import Final

STOP: Final = b"stop"
LINK: Final = b"link"
MAKE_WAY: Final = b"away"
CONFIGURATION: Final = b"conf"
_FULL: Final = 4


class Control:
    """One side's ear for the supervisor.

    Attributes:
        stop: set when the side is to end.
        at_once: whether it is to end without delivering first, since another takes its place.
        reload: set when the configuration is to be read anew.
        gone: set when the supervisor has ended.
    """

    def __init__(self, end: socket.socket) -> None:
        end.settimeout(0)
        self.stop = asyncio.Event()
        self.at_once = False
        self.reload = asyncio.Event()
        self.gone = asyncio.Event()
        self._end = end
        self._links: asyncio.Queue[socket.socket] = asyncio.Queue(_FULL)
        asyncio.get_running_loop().add_reader(end, self._read)

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._end)
        self._end.close()

    def changed(self) -> None:
        """Tell the supervisor that the configuration has changed."""
        with contextlib.suppress(OSError):
            self._end.send(CONFIGURATION)

    async def next_link(self) -> socket.socket:
        """Return our end of the newest link."""
        return await self._links.get()

    def _read(self) -> None:
        try:
            word, descriptors, _, _ = socket.recv_fds(self._end, len(LINK), 1)
        except BlockingIOError:
            return
        except OSError:
            word, descriptors = b"", []
        if word == LINK and descriptors:
            # One that was not taken yet is older: its other end is gone.
            while not self._links.empty():
                self._links.get_nowait().close()
            self._links.put_nowait(socket.socket(fileno=descriptors[0]))
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if word == CONFIGURATION:
            self.reload.set()
            return
        self.at_once = word == MAKE_WAY
        self.stop.set()
        if word not in {STOP, MAKE_WAY}:
            self.gone.set()
            asyncio.get_running_loop().remove_reader(self._end)


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Return the supervisor's and a side's end of a new control socket."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def give_link(control: socket.socket, end: socket.socket) -> None:
    """Hand a link's end to a side; it is closed here.

    A side that has just ended is known by its exit, not here.
    """
    with end, contextlib.suppress(OSError):
        socket.send_fds(control, [LINK], [end.fileno()])


def tell(control: socket.socket, word: bytes) -> None:
    """Say a word to a side; see `give_link`."""
    with contextlib.suppress(OSError):
        control.send(word)


def heard(control: socket.socket) -> bool:
    """Tell whether a side says that the configuration has changed; it has something to say, or ended."""
    try:
        return control.recv(len(CONFIGURATION)) == CONFIGURATION
    except OSError:
        return False

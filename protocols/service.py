"""What a service manager is told: that we are ready, that we still live, that we stop (sd_notify(3))."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final

READY: Final = "READY=1"
ALIVE: Final = "WATCHDOG=1"
STOPPING: Final = "STOPPING=1"

_SOCKET: Final = "NOTIFY_SOCKET"
_EVERY: Final = "WATCHDOG_USEC"
_PROCESS: Final = "WATCHDOG_PID"
_MICRO: Final = 1_000_000
_PER_INTERVAL: Final = 3

Alive = Callable[[], Awaitable[bool]]


def tell(state: str) -> bool:
    """Tell the service manager something; return whether there is one that heard it."""
    path = os.environ.get(_SOCKET, "")
    if not path.startswith(("/", "@")):
        return False
    # A name that begins with @ is in the abstract namespace of Linux.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(1.0)
            out.connect(address)
            out.sendall(state.encode())
    except OSError:
        return False
    return True


def watchdog_s() -> float | None:
    """Return after how many seconds without a word the service manager ends us; None for never."""
    if os.environ.get(_PROCESS, str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get(_EVERY, "")
    return int(text) / _MICRO if text.isascii() and text.isdigit() and int(text) else None


async def keep_telling(alive: Alive) -> None:
    """Tell that we live, often enough, for as long as `alive` says so; until cancelled.

    Where nobody watches it returns at once.
    """
    every = watchdog_s()
    if every is None:
        return
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                if await alive():
                    tell(ALIVE)
        await asyncio.sleep(every / _PER_INTERVAL)

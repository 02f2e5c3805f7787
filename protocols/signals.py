"""Being told to stop or to read the configuration anew: signals set an event."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_on_signals(stop: asyncio.Event | None = None) -> Iterator[asyncio.Event]:
    """Let the running loop set an event on SIGTERM and SIGINT, until the block ends.

    Args:
        stop: the event; None makes one.
    """
    told = asyncio.Event() if stop is None else stop
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, told.set)
    try:
        yield told
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def reload_on_signal(reload: asyncio.Event) -> Iterator[None]:
    """Let the running loop set an event on SIGHUP, until the block ends."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)

"""How every simulator runs as a process: announced when ready, until it is told to stop."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.signals import stop_on_signals

Report: TypeAlias = Mapping[str, object]
"""What a ready file says: plain JSON values by name."""

KIND: Final = "millgate-ready/1"


@asynccontextmanager
async def stopping(ready: Path | None) -> AsyncIterator[asyncio.Event]:
    """Give an event that SIGTERM and SIGINT set; a ready file left by an earlier run goes."""
    if ready is not None:
        await asyncio.to_thread(_forget, ready)
    with stop_on_signals() as stop:
        yield stop


def _forget(ready: Path) -> None:
    try:
        ready.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(ready, error) from error


async def until(stop: asyncio.Event, duration_s: float | None) -> None:
    """Wait for the stop, or for so many seconds; None waits for the stop alone."""
    try:
        async with asyncio.timeout(duration_s):
            await stop.wait()
    except TimeoutError:
        return


async def announce(ready: Path | None, report: Report, line: str) -> None:
    """Write the ready file, if one is wanted, then the line for people.

    Raises:
        MillgateError: when the file cannot be written.
    """
    if ready is not None:
        whole: Report = {"kind": KIND, "pid": os.getpid(), **report}
        await asyncio.to_thread(_write_ready, ready, json.dumps(whole))
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _write_ready(ready: Path, text: str) -> None:
    """A reader finds the whole file or none."""
    draft = ready.with_name(f".{ready.name}.{os.getpid()}")
    try:
        ready.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(ready)
    except OSError as error:
        raise _unwritable(ready, error) from error


def _unwritable(path: Path, error: OSError) -> MillgateError:
    return MillgateError(
        tr("the ready file cannot be written", "无法写入就绪文件"),
        where=str(path),
        remedy=error.strerror or type(error).__name__,
    )


def cannot_listen(host: str, port: int) -> MillgateError:
    """Return the fault of a port that cannot be had."""
    return MillgateError(
        tr("cannot listen", "无法监听"),
        where=f"{host}:{port}",
        remedy=tr("choose another port, or 0", "请换一个端口，或用 0"),
    )

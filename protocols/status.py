"""Status: a running process tells how it does, over a socket that only this user can open.

What an agent tells here stays inside the factory: names of withheld points are shown here and
nowhere else.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from protocols.errors import MillgateError
from protocols.folders import writing_to
from protocols.language import heard_all, tr

_WAIT_S: Final = 5.0
_LONGEST_PATH: Final = 100
_MOST_BYTES: Final = 64 << 20


def socket_path(folder: Path) -> Path:
    """Return where a process that keeps its data in `folder` answers.

    That is in the folder, or, where such a path is longer than sockets may have, in a private
    folder for temporary files.
    """
    path = folder.absolute() / "status.sock"
    if len(str(path).encode()) <= _LONGEST_PATH:
        return path
    name = hashlib.sha256(str(path).encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"millgate-{os.getuid()}" / f"{name}.sock"


class AlreadyRunning(MillgateError):
    """Another process uses the same data."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep a folder's data for this process alone for the length of the context.

    Raises:
        AlreadyRunning: when another process has it; two would fork the chain of batches.
    """
    with lock_of(folder):
        yield


def lock_of(folder: Path) -> IO[str]:
    """Return an open file that keeps a folder's data for whoever holds it open.

    Processes that inherit it hold it too.

    Raises:
        AlreadyRunning: see `only_one`.
        NoFolder: when there is no such folder to write to.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise AlreadyRunning(
            tr("another process is running on this data", "已有程序在使用这些数据运行"),
            where=str(folder),
            remedy=tr("stop it first", "请先停止它"),
        ) from None
    return file


class NotRunning(MillgateError):
    """No process answers here."""


Report = Callable[[], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def serving(path: Path, report: Report) -> AsyncGenerator[None, None]:
    """Answer status questions for the length of the context."""
    _make_room(path)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_WAIT_S):
                writer.write(json.dumps(await report(), ensure_ascii=False).encode())
                await writer.drain()
        except (TimeoutError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, path)
    _close_to_others(path)
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _make_room(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove(path)


def _close_to_others(path: Path) -> None:
    path.chmod(0o600)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def ask(path: Path) -> dict[str, Any]:
    """Return the running process's report, in the language of who asks.

    Raises:
        NotRunning: when no process runs here.
    """
    report: dict[str, Any] = heard_all(ask_for_everyone(path))
    return report


def ask_for_everyone(path: Path) -> dict[str, Any]:
    """Return the running process's report, texts in both languages where they are kept so.

    Raises:
        NotRunning: when no process runs here.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_WAIT_S)
            client.connect(str(path))
            parts = []
            while part := client.recv(1 << 16):
                parts.append(part)
        report: dict[str, Any] = json.loads(b"".join(parts))
    # Who is ending answers with less than a report.
    except (OSError, TimeoutError, ValueError):
        raise NotRunning(
            tr("nothing is running with this configuration", "没有程序在使用此配置运行"),
            where=str(path),
            remedy=tr("start it with 'run'", "请用 run 启动"),
        ) from None
    return report

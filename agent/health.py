"""Health: what `agent status` shows, over a socket that only this user can open.

Names of withheld points are shown here, inside the factory, and nowhere else.
"""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from protocols.errors import MillgateError
from protocols.language import tr

_WAIT_S: Final = 5.0
_MOST_BYTES: Final = 64 << 20

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
    """Return the running agent's report.

    Raises:
        MillgateError: when no agent runs here.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_WAIT_S)
            client.connect(str(path))
            parts = []
            while part := client.recv(1 << 16):
                parts.append(part)
    except (OSError, TimeoutError):
        raise MillgateError(
            tr("no agent is running with this configuration", "没有代理程序在使用此配置运行"),
            where=str(path),
            remedy=tr("start it with 'millgate agent run'", "请用 'millgate agent run' 启动"),
        ) from None
    report: dict[str, Any] = json.loads(b"".join(parts))
    return report

"""Finds programs of this machine, and ports that are free."""

import os
import shutil
import socket
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.language import tr

HOST: Final = "127.0.0.1"
_ADMIN_FOLDERS: Final = ("/usr/sbin", "/usr/local/sbin", "/sbin")


class ServerFault(MillgateError):
    """A server of others does not start."""


def find(binary: str) -> Path | None:
    """Return where a program is, also in the folders only an administrator's PATH has."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_ADMIN_FOLDERS])
    found = shutil.which(binary, path=path)
    return Path(found) if found else None


def free_port() -> int:
    """Return a port that the kernel says is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def does_not_start(name: str, log: Path) -> ServerFault:
    """Return that a server did not start, with the end of its log."""
    try:
        said = log.read_text(encoding="utf-8", errors="replace")[-400:].strip()
    except OSError:
        said = ""
    return ServerFault(
        tr(f"{name} does not start", f"{name} 无法启动"), where=str(log), remedy=said
    )

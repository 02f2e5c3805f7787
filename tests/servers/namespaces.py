"""Network namespaces of Linux: what runs in one reaches only what else is in it."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.servers import debian

_WAIT_S: Final = 20


class Namespace:
    """A network of its own, with nothing in it but a loopback.

    Attributes:
        within: what is written before a command line to run it there; the process id stays.
        id: what the kernel calls it, as `/proc/PID/ns/net` of every process in it does.
    """

    def __init__(self, holder: int) -> None:
        self._where = Path(f"/proc/{holder}/ns/net")
        self.within = (str(debian.require("nsenter", "util-linux")), f"--net={self._where}", "--")
        self.id = self._where.readlink().name

    def reaches(self, port: int) -> bool:
        """Tell whether something answers at a port, as a process in here sees it."""
        script = f": < /dev/tcp/127.0.0.1/{port}"
        done = subprocess.run(
            [*self.within, "bash", "-c", script], check=False, capture_output=True, timeout=_WAIT_S
        )
        return done.returncode == 0


def of_process(pid: int) -> str:
    """Return the id of the network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net").readlink().name


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a namespace for the length of the context; skip where this user may not.

    Where CI=true, root and a kernel that can do it are expected to.
    """
    unshare = debian.require("unshare", "util-linux")
    possible = subprocess.run(
        [unshare, "--net", "true"], check=False, capture_output=True, timeout=_WAIT_S
    )
    if possible.returncode != 0:
        pytest.skip(f"needs network namespaces (root, or a kernel that lets): {possible.stderr!r}")
    up = f"{debian.require('ip', 'iproute2')} link set lo up && echo up && exec sleep infinity"
    holder = subprocess.Popen(
        [unshare, "--net", "sh", "-c", up], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    try:
        assert holder.stdout is not None
        assert os.read(holder.stdout.fileno(), 8) == b"up\n"
        yield Namespace(holder.pid)
    finally:
        holder.kill()
        holder.communicate()

"""A real Mosquitto on a loopback port of the kernel's choice, to be stopped and started again."""

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from simulators.servers.programs import HOST, does_not_start, free_port

_START_TRIES: Final = 5
_START_SECONDS: Final = 30
_STOP_SECONDS: Final = 20

_CONFIG: Final = """\
listener {port} 127.0.0.1
log_dest stderr
{user}{more}
"""


class Mosquitto:
    """One broker process; it keeps its port when it is started again.

    Attributes:
        port: where it listens; known once it was started.
        process: the running process; None while it is stopped.
    """

    def __init__(self, binary: Path, folder: Path, config: str = "allow_anonymous true") -> None:
        self.folder = folder
        self.config = config
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._binary = binary

    @property
    def log(self) -> str:
        """What it said, since it was started first."""
        return (self.folder / "mosquitto.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start it (again) and wait until it listens.

        Raises:
            ServerFault: when it does not.
        """
        # Another program may take a port between its choice and the broker's start.
        tries = 1 if self.port else _START_TRIES
        for _ in range(tries):
            port = self.port or free_port()
            if self._started(port):
                self.port = port
                return
        raise does_not_start("mosquitto", self.folder / "mosquitto.log")

    def stop(self) -> None:
        """End it as an administrator would; it saves what it was told to keep."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_STOP_SECONDS)
            self.process = None

    def _started(self, port: int) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        # As root it would become a user that may not enter the test's folder.
        user = "user root\n" if os.geteuid() == 0 else ""
        path = self.folder / "mosquitto.conf"
        path.write_text(_CONFIG.format(port=port, user=user, more=self.config), encoding="utf-8")
        with (self.folder / "mosquitto.log").open("ab") as log:
            process = subprocess.Popen(
                [self._binary, "-c", str(path)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.process = process
        if _answers(process, port):
            return True
        self.kill()
        return False


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection((HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return process.poll() is None
    return False

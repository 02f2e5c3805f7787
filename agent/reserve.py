"""The reserve: a file that is given up when the disk is full, so that receipts can still be taken.

What frees a full disk is delivery, and delivery has to write that something was delivered. New
batches wait for room; see `agent.disk`.
"""

import contextlib
import os
from pathlib import Path


class Reserve:
    """Some bytes of the disk that nobody else can take."""

    def __init__(self, path: Path, bytes_: int) -> None:
        self._path = path
        self._bytes = bytes_

    @property
    def is_there(self) -> bool:
        """Whether the reserve is whole, or none is wanted."""
        try:
            return self._path.stat().st_size >= self._bytes
        except OSError:
            return not self._bytes

    def take(self) -> bool:
        """Take the reserve, where the disk has room for it twice; return whether it is whole."""
        if self.is_there:
            return True
        try:
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < 2 * self._bytes:
                return False
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._bytes)
        except OSError:
            self.give_back()
            return False
        return True

    def give_back(self) -> bool:
        """Give the reserve to whoever needs it now; return whether there was one."""
        with contextlib.suppress(OSError):
            self._path.unlink()
            return True
        return False

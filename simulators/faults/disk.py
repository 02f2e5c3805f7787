"""Disks that are full: a small file system to be filled, or a limit on what processes may write.

The first is the real thing and needs root, since it is mounted. The second is what anybody may do to
processes of their own: a write beyond the limit fails, as with a quota, though with another error code
(EFBIG where a full disk says ENOSPC).
"""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from protocols.errors import MillgateError
from protocols.language import tr

SMALLEST: Final = 1 << 20
LARGEST: Final = 4 << 30
_BALLAST: Final = ".ballast"
_PIECES: Final = (1 << 20, 1 << 12, 1)
_MOUNT_S: Final = 30


class DiskFault(MillgateError):
    """A small disk cannot be made, or not be filled."""


class Fillable(Protocol):
    """Something that can be full for a while."""

    def fill(self) -> None:
        """Be full from now on."""
        ...

    def free(self) -> None:
        """Have room again."""
        ...


class SmallDisk:
    """A file system of its own, see `small_disk`; full while a ballast file takes all the room.

    Attributes:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, but: int = 0) -> None:
        """Leave no room: the next byte that is written fails with ENOSPC.

        Args:
            but: leave so many bytes, so that what is written fails half-way.
        """
        with (self.folder / _BALLAST).open("ab", buffering=0) as ballast:
            for size in _PIECES:
                with contextlib.suppress(OSError):
                    while ballast.write(bytes(size)) == size:
                        pass
            if but:
                ballast.truncate(max(ballast.tell() - but, 0))

    def free(self) -> None:
        """Give the room back."""
        (self.folder / _BALLAST).unlink(missing_ok=True)


class Quota:
    """Processes of ours, and those they start later, that may write no further into any file.

    What lies below `_LEFT` bytes of a file can still be written over: an old part of a log, for
    example. Their own text output is held to it as well.
    """

    _LEFT: Final = 4096

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = list(pids)

    def fill(self) -> None:
        """Let every write further into a file fail with EFBIG."""
        self._set(self._LEFT)

    def free(self) -> None:
        """Let them write again."""
        self._set(resource.RLIM_INFINITY)

    def check(self) -> None:
        """Look whether all are there and ours.

        Raises:
            DiskFault: when one is not.
        """
        for pid in self._pids:
            try:
                resource.prlimit(pid, resource.RLIMIT_FSIZE)
            except OSError as error:
                raise DiskFault(
                    tr("this process cannot be limited", "无法限制该进程"),
                    where=f"--pid {pid}",
                    remedy=error.strerror or type(error).__name__,
                ) from None

    def _set(self, most: int) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, hard))


def may_mount() -> bool:
    """Tell whether there is any point in trying to mount a small disk."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mount an empty file system of `size` bytes, in memory, on a folder while the context lasts.

    Raises:
        DiskFault: when it cannot be mounted, or the folder holds something already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DiskFault(
            tr(
                "the folder is not empty, and a disk would hide what is in it",
                "目录非空，挂载会遮住其中内容",
            ),
            where=str(folder),
            remedy=tr("choose a new folder", "请换一个新目录"),
        )
    _run(folder, "mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        # Whoever still has a file open on it keeps it until then.
        _run(folder, "umount", "--lazy", str(folder))


def _run(folder: Path, program: str, *arguments: str) -> None:
    path = shutil.which(program)
    try:
        if path is None:
            raise FileNotFoundError(program)
        subprocess.run([path, *arguments], check=True, capture_output=True, timeout=_MOUNT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise DiskFault(
            tr("a small disk cannot be mounted here", "此处无法挂载小磁盘"),
            where=str(folder),
            remedy=tr(
                f"it needs root and the right to mount ({type(error).__name__}); "
                "'millgate sim disk --pid' limits a process instead",
                f"需要 root 与挂载权限（{type(error).__name__}）；可改用 'millgate sim disk --pid' 限制进程",
            ),
        ) from None

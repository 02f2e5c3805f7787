"""What a process can do to itself, without root, so that what it holds stays in it."""

import ctypes
import os
import resource
import signal
import sys
from typing import Final

_PDEATHSIG: Final = 1
_DUMPABLE: Final = 4
_NO_NEW_PRIVS: Final = 38


def harden(parent: int = 0) -> None:
    """Close this process to others, and bind its life to its parent's.

    No core dump is ever written. On Linux no other process of this user can read its memory or
    attach to it, it can gain no rights by starting a program, and it is killed when its parent dies.

    Args:
        parent: the process that started this one; 0 where nobody watches over it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _DUMPABLE, 0)
    _prctl(libc, _NO_NEW_PRIVS, 1)
    if parent:
        _prctl(libc, _PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            # It died before the line above.
            os.kill(os.getpid(), signal.SIGKILL)


def _prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

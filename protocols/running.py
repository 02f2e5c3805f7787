"""The machine's running time, which nobody sets, and what names one start of the machine."""

import time
from pathlib import Path
from typing import Final

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def running_ns() -> int:
    """Return the time since the machine was started, suspension included; nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return what names this start of the machine; empty where that is not to be seen."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        # A sandbox may hide it.
        return ""

"""Memory that is not used any more goes back to the system."""

import asyncio
import ctypes
import gc
import random
from typing import Final

_FIRST_S: Final = 30.0
_OFTEN_S: Final = 600.0

# Not every C library has it.
_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Give back what reading something large has left; takes some ten milliseconds.

    The C library by itself gives back only what lies at the end of its heap.
    """
    gc.collect()
    if _TRIM is not None:
        _TRIM(0)


async def keep_lean() -> None:
    """Give back what came and went, a while after the start and every few minutes, until cancelled."""
    wait_s = _FIRST_S
    while True:
        await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
        if _TRIM is not None:
            await asyncio.to_thread(_TRIM, 0)
        wait_s = _OFTEN_S

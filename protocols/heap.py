"""Memory that is not used any more goes back to the system."""

import asyncio
import ctypes
import gc
import pickle
import random
from typing import Final, TypeVar

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


Thing = TypeVar("Thing")


def close_together(things: list[Thing]) -> list[Thing]:
    """Return the same things made anew, and empty the list.

    What was made while something large was read lies scattered over the room that it took, and each
    piece keeps a part of that room from being given back.
    """
    packed = pickle.dumps(things)
    things.clear()
    give_back()
    anew: list[Thing] = pickle.loads(packed)  # noqa: S301 - bytes of our own, made three lines above
    return anew


async def keep_lean() -> None:
    """Give back what came and went, a while after the start and every few minutes, until cancelled."""
    wait_s = _FIRST_S
    while True:
        await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
        if _TRIM is not None:
            await asyncio.to_thread(_TRIM, 0)
        wait_s = _OFTEN_S

"""Patience: keep trying what must not be given up, say once why it waits, and once that it went on."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from protocols.errors import MillgateError
from protocols.language import tr

_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 10.0

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


async def insist(
    work: Callable[[], Awaitable[Result]], faults: type[Exception], what: MillgateError
) -> Result:
    """Do some work; on `faults`, say `what` once and try again with back-off and jitter.

    The class of the fault is said too, never its text, which could hold a value.
    """
    wait_s, said = _FIRST_WAIT_S, False
    while True:
        try:
            result = await work()
        except faults as fault:
            if not said:
                _log.error("%s (%s)", what, type(fault).__name__)
                said = True
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        else:
            if said:
                _log.warning("%s", tr(f"{what.where}: it goes on", f"{what.where}：已恢复"))
            return result

"""Watches an agent while it gives up: what its messages hold, and when it does not collect."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from simulators.demo import DemoFault, command
from simulators.faults.door import company
from simulators.torture.given_up import Cell, Place, Span, read_cells
from simulators.torture.yard import Yard

_POLL_S: Final = 0.5
_READ_EVERY: Final = 4
_EARLIER: Final = timedelta(minutes=1)


@dataclass(slots=True)
class Witness:
    """What was seen.

    Attributes:
        cells: what each message held that was seen in the spool.
        away: from when to when the agent did not collect from every device, nanoseconds.
    """

    yard: Yard
    since: datetime
    cells: dict[Place, list[Cell]] = field(default_factory=dict)
    away: list[Span] = field(default_factory=list)
    _collects: tuple[object, ...] = ()
    _last_ns: int = 0

    async def watch(self, enough: asyncio.Event) -> None:
        """Look again and again; a message waits for much longer than it takes to look."""
        while not enough.is_set():
            for _ in range(_READ_EVERY):
                self.look(await self.yard.mill.inside())
                await asyncio.sleep(_POLL_S)
            await self.read()

    def look(self, told: dict[str, Any] | None) -> None:
        """Note whether the agent collects, and that it never ceased since it was last seen to."""
        now = time.time_ns()
        collects = _collecting(told)
        if not collects:
            return
        if self._collects and self._collects != collects:
            self.away.append((self._last_ns, now))
        self._collects, self._last_ns = collects, now

    async def read(self) -> None:
        """Let the firm's audit read what is in the spool."""
        mill = self.yard.mill
        path = mill.folder / "seen.csv"
        with contextlib.suppress(DemoFault):
            # While the agent starts, its spool may be busy.
            key = str(mill.folder / "mill" / "keys" / "audit.key")
            since = ("--from", self.since.isoformat(timespec="seconds"))
            arguments = (str(mill.agent_toml), "--key", key, *since, "--csv", str(path))
            await command("agent", "audit", *arguments)
            self.cells |= await asyncio.to_thread(read_cells, path)


def _collecting(told: dict[str, Any] | None) -> tuple[object, ...]:
    """Return what stays the same while an agent collects from every device; empty where it does not."""
    if told is None or "gate" not in told.get("processes", {}):
        return ()
    devices = told.get("devices", [])
    if not devices or any(not one["connected"] or one["age_s"] is None for one in devices):
        return ()
    return (told["processes"]["gate"]["pid"], *(one["losses"] for one in devices))


@asynccontextmanager
async def witnessing(yard: Yard) -> AsyncIterator[Witness]:
    """Watch while the context lasts."""
    witness, enough = Witness(yard, datetime.now(UTC) - _EARLIER), asyncio.Event()
    async with company() as tasks:
        tasks.create_task(witness.watch(enough), name="torture: witness")
        try:
            yield witness
        finally:
            enough.set()

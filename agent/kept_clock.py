"""Where the wall clock stood against the machine's running time, kept over restarts of the agent.

A process that starts cannot see that the clock was moved while it was away; with what it wrote down
before it can, as long as the machine was not started anew. Then nobody can tell but by what was
released: see `agent.clock`.
"""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from security.files import write_whole


@dataclass(frozen=True, slots=True)
class Standing:
    """How the clocks stood.

    Attributes:
        boot: see `protocols.running.boot_id`.
        wall_ns: the wall clock, since 1970 UTC.
        running_ns: the machine's running time.
    """

    boot: str
    wall_ns: int
    running_ns: int

    @property
    def offset_ns(self) -> int:
        """When the machine was started, by the wall clock."""
        return self.wall_ns - self.running_ns

    def moved_ns(self, before: "Standing") -> int:
        """Return by how much the wall clock was moved since; 0 where the machine may have started anew.

        Where that is not named: a machine that was started anew was started after it was last seen.
        """
        if self.boot and before.boot:
            started_anew = self.boot != before.boot
        else:
            started_anew = self.running_ns < before.running_ns or self.offset_ns >= before.wall_ns
        return 0 if started_anew else self.offset_ns - before.offset_ns


class KeptClock:
    """The file that it is kept in, in the folder of an agent's data."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "gate" / "clock.json"

    def read(self) -> Standing | None:
        """Return what was kept; None where there is nothing that can be read."""
        try:
            found = json.loads(self._path.read_text(encoding="ascii"))
            return Standing(str(found["boot"]), int(found["wall_ns"]), int(found["running_ns"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, standing: Standing) -> None:
        """Keep it; where the disk does not take it, what was kept before stays."""
        with contextlib.suppress(OSError):
            write_whole(self._path, json.dumps(asdict(standing)).encode("ascii"))

"""Memory and descriptors of processes over time, and whether they stay flat.

The rule: the first third of the time is warming up. Of the rest, the median resident memory of the second
half may be at most 5 % and 4 MiB above that of the first half, and the most descriptors of the second
half at most 4 above those of the first.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_SHARE: Final = 1.05
_SPARE_BYTES: Final = 4 << 20
_SPARE_FILES: Final = 4
_FEWEST: Final = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process had at a moment: resident bytes and open descriptors."""

    at_s: float
    resident: int
    descriptors: int


def look(pid: int, at_s: float) -> Sample | None:
    """Return what a process has; None when it is gone."""
    place = Path("/proc") / str(pid)
    try:
        resident = int((place / "statm").read_text("ascii").split()[1]) * _PAGE
        return Sample(at_s, resident, len(list((place / "fd").iterdir())))
    except (OSError, IndexError):
        return None


@dataclass(frozen=True, slots=True)
class Flatness:
    """What samples of one process say.

    Attributes:
        first, second: median resident bytes of the first and second half after warming up.
        first_files, second_files: most descriptors of either half.
        hourly: growth of the median, bytes in an hour.
        enough: whether there were samples enough to say anything.
    """

    first: float
    second: float
    first_files: int
    second_files: int
    hourly: float
    enough: bool

    @property
    def flat(self) -> bool:
        """Whether the rule holds."""
        memory = self.second <= self.first * _SHARE + _SPARE_BYTES
        return self.enough and memory and self.second_files <= self.first_files + _SPARE_FILES


def judge_flat(samples: Sequence[Sample], warm_s: float) -> Flatness:
    """Hold the samples after `warm_s` to the rule."""
    rest = [sample for sample in samples if sample.at_s >= warm_s]
    middle = len(rest) // 2
    first, second = rest[:middle], rest[middle:]
    if len(rest) < _FEWEST:
        return Flatness(0.0, 0.0, 0, 0, 0.0, enough=False)
    before, after = (median(one.resident for one in half) for half in (first, second))
    apart_s = second[len(second) // 2].at_s - first[len(first) // 2].at_s
    return Flatness(
        before,
        after,
        max(one.descriptors for one in first),
        max(one.descriptors for one in second),
        (after - before) / max(apart_s, 1.0) * 3600,
        enough=True,
    )


@dataclass(slots=True)
class Watched:
    """One process that is looked at; its samples belong to one life.

    Attributes:
        restarts: how often another process was found in its place.
    """

    pid: int = 0
    restarts: int = 0
    samples: list[Sample] = field(default_factory=list)

    def add(self, pid: int, at_s: float) -> None:
        """Look at it now."""
        if self.pid not in {0, pid}:
            self.restarts += 1
            self.samples.clear()
        self.pid = pid
        found = look(pid, at_s)
        if found is not None:
            self.samples.append(found)

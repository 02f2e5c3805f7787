"""Steps without data, filled as the caller asked, and marked where they were.

Nothing is filled with 0: what was not received is not nothing.
"""

from typing import Any, Final

import numpy as np

from protocols.frame import Flags, Ints

FILLS: Final = ("none", "null", "previous", "linear")


def grid(start_ns: int, end_ns: int, step_ns: int) -> Ints:
    """Return the starts of all steps that a span touches."""
    return np.arange(start_ns // step_ns, -(-end_ns // step_ns), dtype=np.int64) * step_ns


def filled(time: Ints, cells: list[Any], wanted: Ints, how: str) -> tuple[list[Any], list[bool]]:
    """Return a cell for each wanted time, and where it was filled in.

    Args:
        time: times of the cells, increasing, a part of `wanted`.
        cells: numbers, as JSON has them; None is absent.
        how: `null`: absent; `previous`: the last one before, none before the first; `linear`:
            between the two neighbours, none before the first and after the last.
    """
    there = np.array([cell is not None for cell in cells], np.bool_)
    time, cells = time[there], [cell for cell in cells if cell is not None]
    here = np.searchsorted(time, wanted, side="right") - 1
    known: Flags = here >= 0
    known[known] = time[here[known]] == wanted[known]
    found: list[Any] = [
        cells[at] if own else None for at, own in zip(here.tolist(), known.tolist(), strict=True)
    ]
    missing = ~known & (here >= 0)
    if how == "linear":
        missing &= here + 1 < len(time)
        between = np.interp(wanted, time, [float(cell) for cell in cells]) if cells else wanted
        for at in np.flatnonzero(missing).tolist():
            found[at] = float(between[at])
    elif how == "previous":
        for at in np.flatnonzero(missing).tolist():
            found[at] = cells[int(here[at])]
    else:
        missing[:] = False
    return found, missing.tolist()

"""What the benchmarks share: slowly varying telemetry, CPU clocks and plain tables."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import psutil
from numpy.typing import NDArray

SIGMA = 5.0
"""How far a value goes from one sample to the next, in its last digit (normal deviation)."""

MILLION = 1e6


def walk(rows: int, columns: int, held: float = 0.0, seed: int = 1) -> NDArray[np.int64]:
    """Return shape (rows, columns): numbers of two decimals x 100, each on a walk of its own.

    Args:
        rows, columns: the shape.
        held: which share of the samples is the same as the one before.
        seed: same seed, same walk.
    """
    rng = np.random.default_rng(seed)
    steps = np.rint(rng.normal(0, SIGMA, (rows, columns))).astype(np.int64)
    if held:
        steps[rng.random((rows, columns)) < held] = 0
    return 20_000 + rng.integers(0, 5_000, columns) + np.cumsum(steps, axis=0)


@dataclass
class Cost:
    """CPU-seconds of this process, all its threads together."""

    cpu: float = 0.0
    wall: float = 0.0


@contextmanager
def spent(cost: Cost) -> Iterator[None]:
    """Add what happens inside to a cost."""
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        yield
    finally:
        cost.cpu += time.process_time() - cpu
        cost.wall += time.perf_counter() - wall


def cpu_of(pid: int) -> float:
    """Return the CPU-seconds that another process has used."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: the first column left, the others right."""
    cells = [[str(cell) for cell in row] for row in (heads, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    print(f"\n{title}")
    for row in cells:
        first, *rest = (cell for cell in row)
        line = [first.ljust(widths[0])]
        line += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        print("  " + "  ".join(line).rstrip())


def per(values: float, seconds: float) -> str:
    """Return values per second as text."""
    return f"{values / seconds:,.0f}" if seconds > 0 else "-"

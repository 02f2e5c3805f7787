"""Aggregates per step of time, from rows that come piece by piece in order of time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator.stores import Aggregate
from protocols.frame import Ints, Values

_Reduce = Callable[[Values, Ints], Values]
"""(values, where each group starts) -> one value per group."""


def _last(values: Values, starts: Ints) -> Values:
    lasts: Values = values[np.append(starts[1:], len(values)) - 1]
    return lasts


_REDUCE: Final[dict[Aggregate, _Reduce]] = {
    "mean": np.add.reduceat,
    "sum": np.add.reduceat,
    "min": np.minimum.reduceat,
    "max": np.maximum.reduceat,
    "last": _last,
}


@dataclass(frozen=True, slots=True)
class _Partial:
    step: Ints
    values: Values
    counts: Ints


def by_step(
    pieces: Iterable[tuple[Ints, Values]], step_ns: int, aggregate: Aggregate
) -> tuple[Ints, Values]:
    """Aggregate values over steps.

    Args:
        pieces: (times, values) of equal length, times increasing throughout.
        step_ns: length of a step, nanoseconds.
        aggregate: `last` takes any values, the others numbers.

    Returns:
        The starts of the steps that have values, and one value for each. Means are float64.
    """
    partials = [_partial(time, values, step_ns, aggregate) for time, values in pieces if len(time)]
    if not partials:
        return np.zeros(0, np.int64), np.zeros(0)
    step = np.concatenate([partial.step for partial in partials])
    starts = _starts(step)
    values = _REDUCE[aggregate](np.concatenate([part.values for part in partials]), starts)
    if aggregate == "mean":
        counts = np.add.reduceat(np.concatenate([part.counts for part in partials]), starts)
        values = values / counts
    return step[starts] * step_ns, values


def _partial(time: Ints, values: Values, step_ns: int, aggregate: Aggregate) -> _Partial:
    step = time // step_ns
    starts = _starts(step)
    if aggregate == "mean":
        values = values.astype(np.float64)
    counts = np.diff(np.append(starts, len(step)))
    return _Partial(step[starts], _REDUCE[aggregate](values, starts), counts)


def _starts(step: Ints) -> Ints:
    changes = np.flatnonzero(step[1:] != step[:-1]) + 1
    return np.concatenate([np.zeros(1, np.int64), changes])

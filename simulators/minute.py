"""One minute of the plant: what its machine and meter do between two full minutes.

Every minute begins with the machine executing and ends with it not executing, so minutes
join without looking at their neighbours; that is what makes any moment cheap to compute.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from itertools import accumulate
from typing import Final

from protocols.frame import SECOND
from simulators.chance import draw, draws, wander

MINUTE: Final = 60 * SECOND
MICROSECOND: Final = 1000
JOULES_PER_COUNT: Final = 36_000
"""One count of the energy register, 0.01 kWh, in joules."""

_SHORTEST_DWELL: Final = 2 * SECOND
_PARTS: Final = 36
_PARTS_SPREAD: Final = 4
_SCRAP: Final = 2
_SCRAP_SPREAD: Final = 3
_JOULES: Final = 250_000 * 60
_JOULES_SPREAD: Final = 1_000_000


class ItemState(IntEnum):
    """MachineryItemState of OPC 40001-1."""

    NOT_AVAILABLE = 0
    OUT_OF_SERVICE = 1
    NOT_EXECUTING = 2
    EXECUTING = 3


_IDLE_STATES: Final = (
    ItemState.NOT_EXECUTING,
    ItemState.NOT_EXECUTING,
    ItemState.OUT_OF_SERVICE,
    ItemState.NOT_AVAILABLE,
)


@dataclass(frozen=True, slots=True)
class Minute:
    """What happens in one minute; times are nanoseconds after its start, whole microseconds.

    Attributes:
        edges: when each state begins, ascending; the first is 0.
        states: the states that begin there; neighbours differ.
        parts: when each part is finished, strictly ascending, always while executing.
        scrap: per part, whether it is scrap.
        total, scrapped: parts and scrap finished since the plant's start, before this minute.
        joules: energy since the plant's start at each full second of the minute, 61 values.
    """

    edges: tuple[int, ...]
    states: tuple[ItemState, ...]
    parts: tuple[int, ...]
    scrap: tuple[bool, ...]
    total: int
    scrapped: int
    joules: tuple[int, ...]


@lru_cache(maxsize=1024)
def minute_of(seed: int, index: int) -> Minute:
    """Return minute number `index`, counted from 0 at the plant's start."""
    edges, states = _timeline(seed, index)
    total, next_total = (
        wander(seed, "parts", at, _PARTS, _PARTS_SPREAD) for at in (index, index + 1)
    )
    scrapped, next_scrapped = (
        wander(seed, "scrap", at, _SCRAP, _SCRAP_SPREAD) for at in (index, index + 1)
    )
    parts = _part_times(seed, index, edges, states, next_total - total)
    return Minute(
        edges=edges,
        states=states,
        parts=parts,
        scrap=_which_scrap(seed, index, len(parts), next_scrapped - scrapped),
        total=total,
        scrapped=scrapped,
        joules=_joules(seed, index, edges, states),
    )


def _timeline(seed: int, index: int) -> tuple[tuple[int, ...], tuple[ItemState, ...]]:
    """Alternate executing with one or two other states, all dwells adding up to the minute."""
    shape = draws(seed, "shape", index, 4)
    runs = 4 + shape[0] % 2
    executing = (33 * SECOND) + (shape[1] * 9 * SECOND // 65_536 // MICROSECOND) * MICROSECOND
    doubled = {shape[2] % runs, shape[3] % runs}
    stops = _stops(seed, index, [2 if at in doubled else 1 for at in range(runs)])
    run_times = _share(seed, "run", index, executing, runs)
    stop_times = iter(_share(seed, "stop", index, MINUTE - executing, sum(map(len, stops))))
    states: list[ItemState] = []
    dwells: list[int] = []
    for run_time, stop in zip(run_times, stops, strict=True):
        states += [ItemState.EXECUTING, *stop]
        dwells += [run_time, *(next(stop_times) for _ in stop)]
    return (0, *accumulate(dwells[:-1])), tuple(states)


def _stops(seed: int, index: int, lengths: list[int]) -> list[list[ItemState]]:
    picks = iter(draws(seed, "stops", index, 2 * len(lengths)))
    stops: list[list[ItemState]] = []
    for length in lengths:
        stop = [_IDLE_STATES[next(picks) % len(_IDLE_STATES)]]
        if length == 2:
            others = [state for state in _IDLE_STATES if state is not stop[0]]
            stop.append(others[next(picks) % len(others)])
        stops.append(stop)
    return stops


def _share(seed: int, name: str, index: int, span: int, shares: int) -> list[int]:
    """Split a span into dwells of at least 2 s, in whole microseconds, the longest under 3x."""
    weights = [65_536 + 2 * pick for pick in draws(seed, name, index, shares)]
    spare = (span - shares * _SHORTEST_DWELL) // MICROSECOND
    marks = [spare * part // sum(weights) for part in accumulate(weights)]
    return [
        _SHORTEST_DWELL + (mark - before) * MICROSECOND
        for mark, before in zip(marks, [0, *marks], strict=False)
    ]


def _part_times(
    seed: int, index: int, edges: tuple[int, ...], states: tuple[ItemState, ...], parts: int
) -> tuple[int, ...]:
    """Spread parts evenly over the executing time, each shifted by up to a quarter cycle."""
    ends = (*edges[1:], MINUTE)
    running = [
        (begin, end - begin)
        for begin, end, state in zip(edges, ends, states, strict=True)
        if state is ItemState.EXECUTING
    ]
    micros = sum(length for _, length in running) // MICROSECOND
    times: list[int] = []
    for at, pick in enumerate(draws(seed, "cycle", index, parts)):
        quarters = (4 * at + 1) * 65_536 + 2 * pick
        worked = micros * quarters // (4 * parts * 65_536) * MICROSECOND
        times.append(_wall(running, worked))
    return tuple(times)


def _wall(running: list[tuple[int, int]], worked: int) -> int:
    """Return the moment at which `worked` nanoseconds of executing have passed."""
    for begin, length in running[:-1]:
        if worked < length:
            return begin + worked
        worked -= length
    return running[-1][0] + worked


def _which_scrap(seed: int, index: int, parts: int, scrap: int) -> tuple[bool, ...]:
    picks = draws(seed, "which", index, parts)
    chosen = set(sorted(range(parts), key=lambda at: (picks[at], at))[:scrap])
    return tuple(at in chosen for at in range(parts))


def _joules(
    seed: int, index: int, edges: tuple[int, ...], states: tuple[ItemState, ...]
) -> tuple[int, ...]:
    """Give each second a share of the minute's energy, more where it begins executing."""
    before, after = (
        wander(seed, "joules", at, _JOULES, _JOULES_SPREAD) for at in (index, index + 1)
    )
    weights: list[int] = []
    now = 0
    for second, pick in enumerate(draws(seed, "load", index, 60)):
        while now + 1 < len(edges) and edges[now + 1] <= second * SECOND:
            now += 1
        base = 100_000 if states[now] is ItemState.EXECUTING else 25_000
        weights.append(base + pick // 3)
    whole = sum(weights)
    grown = ((after - before) * part // whole for part in accumulate(weights, initial=0))
    return tuple(before + share for share in grown)


def constant(seed: int, name: str, low: int, high: int) -> int:
    """Return a number of the plant that never changes, in [low, high)."""
    return low + draw(seed, name, 0, high - low)

"""Learning: what a device refuses is found out, gone around, and tried again, ever more seldom."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from protocols.drivers.modbus.planner import Request, Rules, plan
from protocols.drivers.modbus.point import ModbusPoint, Table
from protocols.language import tr

ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3
TEACHING: Final = frozenset({ILLEGAL_ADDRESS, ILLEGAL_VALUE})
"""Exceptions that say that the request was wrong, not that the device is unwell."""

_FIRST_WAIT_S: Final = 5.0
_LONGEST_WAIT_S: Final = 3600.0
_REMEMBER_S: Final = 3600.0
_RETRIES_A_POLL: Final = 4
_MOST_NAMED: Final = 8


@dataclass(slots=True)
class _Out:
    """A point that the device refuses.

    Attributes:
        wait_s: how long until it is tried again, and twice that the next time.
        due: when it is tried again, loop time.
    """

    wait_s: float
    due: float


class Learner:
    """Keeps the plan, and what it has to go around.

    Attributes:
        requests: the plan: what to ask in every poll.
        changed: set when something was learned since `replan`.
    """

    def __init__(self, points: Sequence[ModbusPoint], rules: Rules) -> None:
        self._points = points
        self._rules = rules
        self._most = dict(rules.most)
        self._apart: dict[Table, set[tuple[int, int]]] = defaultdict(set)
        self._out: dict[int, _Out] = {}
        self._forget_at = float("inf")
        self.changed = False
        self.requests = self._planned(range(len(points)))

    def replan(self, now: float) -> None:
        """Make the plan anew after what was learned."""
        self.changed = False
        if self._forget_at == float("inf"):
            self._forget_at = now + _REMEMBER_S * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self.requests = self._planned(at for at in range(len(self._points)) if at not in self._out)

    def instead(self, request: Request, code: int) -> list[Request]:
        """Return the requests to ask instead of a refused one; none when it cannot be divided."""
        blocks = self._blocks(request.points)
        if len(blocks) < 2:
            return []
        if code == ILLEGAL_VALUE:
            self._lower(request)
            return self._planned(request.points)
        middle = len(blocks) // 2
        return [self._joined(blocks[:middle]), self._joined(blocks[middle:])]

    def together_refused(self, parts: Sequence[Request]) -> None:
        """Remember that requests which are answered one by one are not as one."""
        for before, after in pairwise(parts):
            last, first = self._blocks(before.points)[-1], self._blocks(after.points)[0]
            if before.table == after.table:
                self._apart[before.table].add((last.first, first.end))
                self.changed = True

    def refused(self, request: Request, now: float) -> list[Request]:
        """Remember that a request is refused that cannot be divided.

        Returns:
            Requests for points inside of it, which may still be readable alone.
        """
        whole = [at for at in request.points if self._points[at].words == request.count]
        for at in whole:
            old = self._out.get(at)
            wait = _FIRST_WAIT_S if old is None else min(2 * old.wait_s, _LONGEST_WAIT_S)
            self._out[at] = _Out(wait, now + wait * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
        self.changed = True
        return self._planned(at for at in request.points if at not in self._out)

    def accepted(self, request: Request, now: float) -> None:
        """Remember that points that were refused are read again; the others may be as well."""
        for at in request.points:
            if self._out.pop(at, None) is not None:
                self.changed = True
        for out in self._out.values():
            out.due = min(out.due, now)

    def due(self, now: float) -> list[Request]:
        """Return requests for a few of the refused points whose time has come.

        Limits and places that cannot be read together are forgotten from time to time.
        """
        if now >= self._forget_at:
            self._forget_at = float("inf")
            self._most = dict(self._rules.most)
            self._apart.clear()
            self.changed = True
        if not self._out:
            return []
        ready = [at for at, out in self._out.items() if out.due <= now][:_RETRIES_A_POLL]
        return [self._alone(at) for at in ready]

    def soon(self, now: float) -> None:
        """Try all that is refused again from now on: the device may be another than before."""
        for out in self._out.values():
            out.wait_s, out.due = _FIRST_WAIT_S, min(out.due, now + _FIRST_WAIT_S)

    def is_out(self, at: int) -> bool:
        """Tell whether a point is known to be refused."""
        return at in self._out

    def notes(self) -> list[str]:
        """Say what was learned."""
        lines = []
        if self._out:
            ranges = named(self._alone(at) for at in self._out)
            lines.append(tr(f"refuses {ranges}", f"拒绝 {ranges}"))
        apart = sum(map(len, self._apart.values()))
        if apart:
            lines.append(
                tr(
                    f"{apart} place(s) where neighbours cannot be read in one request",
                    f"有 {apart} 处相邻地址不能一次读取",
                )
            )
        lines += [
            tr(f"gives at most {most} {table} a request", f"单次请求最多给 {most} 个 {table}")
            for table, most in self._most.items()
            if most < self._rules.most[table]
        ]
        return lines

    def _planned(self, members: Iterable[int]) -> list[Request]:
        chosen = list(members)
        barred = {table: list(spans) for table, spans in self._rules.barred.items()}
        for at in self._out:
            point = self._points[at]
            barred.setdefault(point.table, []).append((point.first, point.first + point.words))
        rules = Rules(self._most, self._rules.gap, barred, self._apart)
        found = plan([self._points[at] for at in chosen], rules)
        return [
            Request(one.table, one.first, one.count, tuple(chosen[at] for at in one.points))
            for one in found
        ]

    def _blocks(self, members: Iterable[int]) -> list[Request]:
        """Return the parts of a request that cannot be divided."""
        parts: list[Request] = []
        alone = [self._alone(at) for at in members]
        for one in sorted(alone, key=lambda one: (one.first, -one.end)):
            if parts and one.end <= parts[-1].end:
                parts[-1] = self._joined([parts[-1], one])
            else:
                parts.append(one)
        return parts

    def _joined(self, parts: Sequence[Request]) -> Request:
        first, end = min(one.first for one in parts), max(one.end for one in parts)
        points = tuple(at for one in parts for at in one.points)
        return Request(parts[0].table, first, end - first, points)

    def _alone(self, at: int) -> Request:
        point = self._points[at]
        return Request(point.table, point.first, point.words, (at,))

    def _lower(self, request: Request) -> None:
        widest = max(self._points[at].words for at in request.points)
        lower = max(request.count // 2, widest)
        if lower < self._most[request.table]:
            self._most[request.table] = lower
            self.changed = True


def named(requests: Iterable[Request]) -> str:
    """Return the addresses of requests in few words, neighbours as one range."""
    ranges: list[tuple[str, int, int]] = []
    for one in sorted(requests, key=lambda one: (one.table, one.first)):
        if ranges and ranges[-1][0] == one.table and one.first <= ranges[-1][2]:
            ranges[-1] = (one.table, ranges[-1][1], max(ranges[-1][2], one.end))
        else:
            ranges.append((one.table, one.first, one.end))
    texts = [f"{table} {first}-{end - 1}" for table, first, end in ranges[:_MOST_NAMED]]
    return ", ".join(texts) + (" …" if len(ranges) > _MOST_NAMED else "")

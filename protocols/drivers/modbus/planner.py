"""Planner: from points to the requests that read them all."""

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.drivers.modbus.point import ModbusPoint


@dataclass(frozen=True, slots=True)
class Request:
    """One block read.

    Attributes:
        table: `holding` or `input`.
        first, count: the registers.
        points: positions of the points it covers, in the configuration's order.
    """

    table: str
    first: int
    count: int
    points: tuple[int, ...]


def plan(points: Sequence[ModbusPoint], max_registers: int, max_gap: int) -> list[Request]:
    """Merge neighbouring points into block reads; a point is never split over two.

    A gap of at most `max_gap` registers that nobody asked for is read along.
    """
    order = sorted(range(len(points)), key=lambda at: (points[at].table, points[at].first))
    requests: list[Request] = []
    for at in order:
        point = points[at]
        last = requests[-1] if requests else None
        if last is not None and last.table == point.table:
            end = max(last.first + last.count, point.first + point.words)
            near = point.first - (last.first + last.count) <= max_gap
            if near and end - last.first <= max_registers:
                requests[-1] = Request(last.table, last.first, end - last.first, (*last.points, at))
                continue
        requests.append(Request(point.table, point.first, point.words, (at,)))
    return requests

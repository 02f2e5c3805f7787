"""The firm's own past: raw values to try a policy on. They stay in this process's memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from protocols.drivers import DeviceConfig
from protocols.errors import MillgateError
from protocols.frame import SECOND, Floats, Frame, Ints, Quality
from protocols.language import tr
from protocols.points import PointTable
from security.policy.scales import point_factor

MOST_CELLS: Final = 40_000_000
_HOLD_ROWS: Final = 3


@dataclass(frozen=True, slots=True)
class Past:
    """Frames of some time, in order.

    Attributes:
        tables: the point table of each device, as the gate sees it.
        frames: ascending by their first time; one frame spans little time.
        notes: what the officer must know about it, one line each.
    """

    tables: Mapping[str, PointTable]
    frames: Sequence[Frame]
    notes: tuple[str, ...] = ()

    @property
    def span_ns(self) -> tuple[int, int]:
        """When it begins and ends, ns.

        Raises:
            MillgateError: when it is empty.
        """
        times = [(int(one.time.min()), int(one.time.max())) for one in self.frames if one.samples]
        if not times:
            raise MillgateError(
                tr("the history has no value", "历史数据中没有任何值"),
                remedy="; ".join(self.notes) or tr("give a longer one", "请提供更长的历史数据"),
            )
        return min(first for first, _ in times), max(last for _, last in times)

    def column(self, device: str, point: str) -> tuple[Ints, Floats]:
        """Return times (ns) and usable values, in the measurand's unit, of one point."""
        table = self.tables[device]
        place = next(at for at, one in enumerate(table.points) if one.id == point)
        factor, power = point_factor(table.points[place])
        scale = factor * 10.0 ** (table.exponents()[place] + power)
        times, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float64)]
        for frame in self.frames:
            if frame.device != device:
                continue
            for column in np.flatnonzero(frame.columns == place).tolist():
                good = frame.quality[:, column] < Quality.BAD
                times.append(frame.cell_times()[good, column])
                values.append(frame.values[good, column] * scale)
        return np.concatenate(times), np.concatenate(values)


def tables_of(devices: Sequence[DeviceConfig], row_ns: int | None) -> dict[str, PointTable]:
    """Return the point tables of devices, for a past whose rows are `row_ns` apart.

    Where the past is coarser than the agent reads, a value holds for three of its rows, as the agent
    lets it hold for three readings; else the gate would find no value fresh.
    """
    tables = {}
    for device in devices:
        table = device.table()
        if row_ns is not None and table.hold_ns is not None:
            table = replace(table, hold_ns=max(table.hold_ns, _HOLD_ROWS * row_ns))
        tables[device.id] = table
    return tables


def coarse_notes(tables: Mapping[str, PointTable], devices: Sequence[DeviceConfig]) -> list[str]:
    """Return a line for each device whose values hold longer here than at the agent."""
    return [
        tr(
            f"{device.id}: the history is coarser than the agent reads; a value holds for "
            f"{(tables[device.id].hold_ns or 0) // SECOND} s here. The agent's rows have more samples.",
            f"{device.id}：历史数据比代理程序的采集间隔粗，此处一个值有效 "
            f"{(tables[device.id].hold_ns or 0) // SECOND} 秒；实际运行时样本更多。",
        )
        for device in devices
        if tables[device.id].hold_ns != device.table().hold_ns
    ]


def slices(time: Ints, span_ns: int) -> list[tuple[int, int]]:
    """Cut ascending times into runs [start, stop) that span less than `span_ns` each."""
    runs = []
    start = 0
    while start < len(time):
        stop = int(np.searchsorted(time, time[start] + span_ns, side="left"))
        stop = max(stop, start + 1)
        runs.append((start, stop))
        start = stop
    return runs

"""What devices say now, for the eye."""

import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np
from rich.table import Table
from rich.text import Text

from protocols.drivers import DeviceConfig, Driver, load
from protocols.errors import MillgateError
from protocols.frame import SECOND, Frame, Quality
from protocols.language import tr
from protocols.points import PointTable

_SHORT: Final = frozenset({"float32", "Float"})


@dataclass(frozen=True, slots=True)
class Sample:
    """A point's latest value.

    Attributes:
        text: the value, with all digits that mean something.
        quality: what it is worth.
        time_ns: when it was taken.
    """

    text: str
    quality: Quality
    time_ns: int


class Seen:
    """What one device has said.

    Attributes:
        fault: why contact was lost; None while there is contact.
        samples: point id -> its latest value.
        texts: point id -> what the device says of itself; None where it refuses.
    """

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config
        self.points: PointTable = config.table()
        self.fault: MillgateError | None = None
        self.samples: dict[str, Sample] = {}
        self.texts: dict[str, str | None] = {}

    @property
    def missing(self) -> list[str]:
        """Points that have said nothing yet."""
        return [point.id for point in self.points.points if point.id not in self.samples]

    async def read_texts(self) -> None:
        """Read what is never sampled: model, serial number and the like."""
        if all(point.type != "string" for point in self.config.points):
            return
        from protocols.drivers.modbus import Config  # noqa: PLC0415 - slow to load
        from protocols.drivers.modbus.texts import read_texts  # noqa: PLC0415 - same

        if not isinstance(self.config, Config):
            return
        try:
            self.texts = dict(await read_texts(self.config))
        except MillgateError as fault:
            self.fault = fault

    async def follow(self, *, until_all: bool) -> None:
        """Take frames until contact is lost, or until every point has said something."""
        driver: Driver = load(self.config.kind).Driver(self.config, time.time_ns)
        try:
            async with aclosing(driver.frames()) as frames:
                async for frame in frames:
                    self.fault = None
                    self.samples |= dict(samples_of(frame, self.points))
                    if until_all and not self.missing:
                        return
        except MillgateError as fault:
            self.fault = fault

    def table(self) -> Table:
        """Return what was said, for the terminal."""
        table = Table(
            title=self.config.id
            + tr(": only this terminal sees these values", "：以下数值仅本终端可见"),
            caption=None if self.fault is None else str(self.fault),
        )
        for heading in (
            tr("point", "点"),
            tr("value", "数值"),
            tr("unit", "单位"),
            tr("quality", "质量"),
            tr("time", "时间"),
        ):
            table.add_column(heading, overflow="fold")
        for point in self.points.points:
            sample = self.samples.get(point.id)
            if sample is None:
                table.add_row(point.id, "-", point.unit, tr("nothing yet", "尚无"), "", style="dim")
            else:
                style = "" if sample.quality is Quality.GOOD else "yellow"
                table.add_row(
                    point.id,
                    sample.text,
                    point.unit,
                    _quality(sample.quality),
                    _clock(sample.time_ns),
                    style=style,
                )
        for name, text in self.texts.items():
            refused = tr("refused", "被拒绝")
            quality = tr("text, never sampled", "文本，不采样")
            table.add_row(
                name, "-" if text is None else Text(text), "", refused if text is None else quality
            )
        return table


def samples_of(frame: Frame, table: PointTable) -> Iterator[tuple[str, Sample]]:
    """Yield the latest value of each point in a frame."""
    exponents = table.exponents()
    times = frame.cell_times()
    for place, column in enumerate(frame.columns):
        rows = (frame.quality[:, place] != Quality.ABSENT).nonzero()[0]
        if not len(rows):
            continue
        row = rows[-1]
        quality = Quality(int(frame.quality[row, place]))
        short = table.points[column].type in _SHORT
        value = frame.values[row, place].item()
        text = _text(value, exponents[column], whole=bool(table.integer[column]), short=short)
        shown = text if quality in {Quality.GOOD, Quality.UNCERTAIN} else "-"
        yield table.points[column].id, Sample(shown, quality, int(times[row, place]))


def _text(value: float, exponent: int, *, whole: bool, short: bool) -> str:
    if not whole:
        # More digits than the register has would only look exact.
        return str(np.float32(value)) if short else f"{value:.15g}"
    return f"{Decimal(int(value)).scaleb(exponent):f}"


def _quality(quality: Quality) -> str:
    return {
        Quality.GOOD: tr("good", "良好"),
        Quality.UNCERTAIN: tr("uncertain", "不确定"),
        Quality.BAD: tr("bad: no usable value", "坏：无可用数值"),
        Quality.LOST: tr("lost", "中断"),
        Quality.ABSENT: "-",
    }[quality]


def _clock(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, SECOND)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 10**6:03d}"

"""Shift calendars: when a factory plans to be busy, as it tells the brain; one file per site.

`calendars/ENTERPRISE.SITE.toml` beside aggregator.toml:

    version = "2026-a"
    [[shift]]
    days = ["mon", "tue", "wed", "thu", "fri"]
    start = "08:00"
    end = "16:30"
    breaks = ["12:00-12:30"]
    [[closed]]
    from = 2026-10-01
    until = 2026-10-08

A shift may end after midnight: then `end` is before `start`. A site without a file has no planned busy
time, so what needs it is absent.
"""

import re
from datetime import date
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import AfterValidator, Field

from aggregator.localtime import DAY_S, LocalTime
from protocols.frame import SECOND, Flags, Floats, Ints
from protocols.language import tr
from protocols.settings import Strict, load_settings

_CLOCK: Final = re.compile(r"([0-9]{2}):([0-9]{2})")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EPOCH_WEEKDAY: Final = 3
"""1970-01-01 was a Thursday."""


def _minutes(text: str) -> int:
    found = _CLOCK.fullmatch(text)
    if found is None or int(found[2]) > 59 or int(found[1]) * 60 + int(found[2]) > 1440:
        raise ValueError(tr("a time is written '08:00'", "时间写作 '08:00'"))
    return int(found[1]) * 60 + int(found[2])


def _clock(value: str) -> str:
    _minutes(value)
    return value


def _pause(value: str) -> str:
    start, _, end = value.partition("-")
    _minutes(start), _minutes(end)
    return value


class Shift(Strict):
    """One shift on some days of the week; it begins on these days."""

    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]]
    start: Annotated[str, AfterValidator(_clock)]
    end: Annotated[str, AfterValidator(_clock)]
    breaks: list[Annotated[str, AfterValidator(_pause)]] = Field(default=[])


class Closed(Strict):
    """Local days on which no shift begins."""

    first: date = Field(alias="from")
    until: date


class CalendarFile(Strict):
    """A site's file."""

    version: str = Field(min_length=1, max_length=32)
    shift: list[Shift]
    closed: list[Closed] = Field(default=[])


class Calendar:
    """Tells which part of a time is planned busy time."""

    def __init__(self, file: CalendarFile, local: LocalTime) -> None:
        self.version = file.version
        self._local = local
        week = np.zeros((7, 2 * 1440), np.bool_)
        for shift in file.shift:
            for day in shift.days:
                week[_DAYS.index(day)] |= _one_shift(shift)
        self._week = week
        self._closed = [
            (np.datetime64(one.first, "D"), np.datetime64(one.until, "D")) for one in file.closed
        ]

    def planned_s(self, starts: Ints, window_s: int) -> Floats:
        """Return the planned busy seconds of each window, shape (r,).

        Args:
            starts: shape (r,), window starts, ns since 1970 UTC.
            window_s: length of the windows; minutes decide, seconds within one do not.
        """
        total = np.zeros(len(starts), np.float64)
        offset = 0
        while offset < window_s:
            step = min(60, window_s - offset)
            total += self._busy(starts + offset * SECOND) * step
            offset += step
        return total

    def _busy(self, moments: Ints) -> Floats:
        local = self._local.seconds(moments)
        days, minute = local // DAY_S, local % DAY_S // 60
        today = self._open(days) & self._week[(days + _EPOCH_WEEKDAY) % 7, minute]
        before = days - 1
        late = self._open(before) & self._week[(before + _EPOCH_WEEKDAY) % 7, minute + 1440]
        return (today | late).astype(np.float64)

    def _open(self, days: Ints) -> Flags:
        dates = days.astype("datetime64[D]")
        closed = np.zeros(len(days), np.bool_)
        for first, until in self._closed:
            closed |= (dates >= first) & (dates < until)
        return ~closed


def _one_shift(shift: Shift) -> Flags:
    """Return which minutes of its day and the next one a shift is planned busy."""
    minutes = np.zeros(2 * 1440, np.bool_)
    start, end = _minutes(shift.start), _minutes(shift.end)
    minutes[start : end if end > start else end + 1440] = True
    for pause in shift.breaks:
        first, last = (_minutes(part) for part in pause.split("-"))
        first += 1440 * (first < start)
        last += 1440 * (last <= first)
        minutes[first:last] = False
    return minutes


def read_calendar(folder: Path, enterprise: str, site: str) -> CalendarFile | None:
    """Return a site's calendar; None where there is no file.

    Raises:
        ConfigError: the file is faulty.
    """
    path = folder / f"{enterprise}.{site}.toml"
    return load_settings(path, CalendarFile) if path.is_file() else None

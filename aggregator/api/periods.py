"""Local months and years as spans of time, and spans cut into local days or months."""

import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from aggregator.api.problems import Problem, Text, bad_parameter
from aggregator.localtime import LocalTime
from aggregator.summaries.carbon import DAY_NS, QUARTER_NS, Periods
from protocols.frame import SECOND

EACH: Final = ("whole", "day", "month")
MOST: Final = 400
"""Periods that one answer may have."""

_MONTH: Final = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")
_YEAR: Final = re.compile(r"20[0-9]{2}")


def day_of(local: LocalTime, moment_ns: int) -> date:
    """Return the local day of a moment."""
    moment = datetime.fromtimestamp(moment_ns // SECOND, UTC)
    return moment.astimezone(ZoneInfo(local.name)).date()


def named(local: LocalTime, text: str, *, monthly: bool) -> tuple[int, int]:
    """Return (start, end) in nanoseconds of a local month `2026-01`, or a local year `2026`.

    Raises:
        Problem: for anything else.
    """
    found = _MONTH.fullmatch(text) if monthly else _YEAR.fullmatch(text)
    if found is None:
        raise bad_parameter(
            "period",
            Text("not a period of this ranking", "不是此排名可用的时段"),
            Text(
                f"write a {'month such as 2026-01' if monthly else 'year such as 2026'}",
                f"请写{'月份，如 2026-01' if monthly else '年份，如 2026'}",
            ),
        )
    year = int(text[:4])
    first = date(year, int(text[5:]) if monthly else 1, 1)
    until = _next_month(first) if monthly else date(year + 1, 1, 1)
    return _begin(local, first), _begin(local, until)


def cut(local: LocalTime, start_ns: int, end_ns: int, each: str) -> Periods:
    """Return a span as one period, or cut where local days or months begin.

    Raises:
        Problem: there would be too many.
    """
    if each == "whole":
        return Periods(np.array([start_ns, end_ns], np.int64), DAY_NS)
    edges = [start_ns]
    day = day_of(local, start_ns)
    while len(edges) <= MOST + 1:
        day = day + timedelta(days=1) if each == "day" else _next_month(day)
        moment = _begin(local, day)
        if moment >= end_ns:
            break
        edges.append(moment)
    if len(edges) > MOST:
        raise too_long(Text(f"at most {MOST} periods", f"至多 {MOST} 个时段"))
    return Periods(np.array([*edges, end_ns], np.int64), QUARTER_NS)


def months_before(local: LocalTime, now_ns: int, count: int) -> tuple[date, Periods]:
    """Return the first of the last `count` local months that are over, and all of them."""
    today = day_of(local, now_ns)
    number = today.year * 12 + today.month - 1 - count
    first = date(number // 12, number % 12 + 1, 1)
    return first, cut(local, _begin(local, first), _begin(local, today.replace(day=1)), "month")


def spans(periods: Periods) -> list[tuple[int, int]]:
    """Return (start, end) of each period."""
    return list(pairwise(periods.edges.tolist()))


def too_long(most: Text) -> Problem:
    """Return the refusal of a span that is too long."""
    return bad_parameter(
        "start",
        Text("the period is too long", "时段过长"),
        Text(f"give a later start: {most.en}", f"请给更晚的 start：{most.zh}"),
    )


def _begin(local: LocalTime, day: date) -> int:
    return local.start_of(day.year, day.month, day.day)


def _next_month(day: date) -> date:
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)

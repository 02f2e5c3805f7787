"""Days that have 23 or 25 hours: no hour is counted twice or left out, in anything that goes by local time."""

import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from agent.audit import Left
from agent.statement import day_span, tell
from aggregator.api import periods
from aggregator.calendars import Calendar, CalendarFile
from aggregator.derivation import Derivation
from aggregator.localtime import LocalTime
from aggregator.tariffs import NAMES, Tariff, TariffFile
from protocols.batch import GOOD, Block
from protocols.frame import SECOND, Ints
from security.envelope import BATCH

HOUR_S: Final = 3600
DAY: Final = timedelta(days=1)
QUARTER_S: Final = 900

CHANGES: Final = [
    ("Europe/Berlin", "2026-03-29", 23.0),
    ("Europe/Berlin", "2026-10-25", 25.0),
    ("Asia/Shanghai", "1986-05-04", 23.0),
    ("Asia/Shanghai", "1986-09-14", 25.0),
    # Half an hour, and at midnight, so that a day begins at one o'clock or has midnight twice.
    ("Australia/Lord_Howe", "2026-04-05", 24.5),
    ("Australia/Lord_Howe", "2026-10-04", 23.5),
    ("America/Sao_Paulo", "2018-11-04", 23.0),
    ("America/Sao_Paulo", "2018-02-17", 25.0),
    ("Africa/Cairo", "2026-04-24", 23.0),
]
changing = pytest.mark.parametrize(("zone", "day", "hours"), CHANGES)


@pytest.fixture
def machine_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set the zone of this machine, and back."""

    def put(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


def around(text: str) -> list[date]:
    """Return the days from the one before to the one after."""
    middle = date.fromisoformat(text)
    return [middle + DAY * shift for shift in range(-2, 4)]


def quarters(zone: str, text: str) -> tuple[Ints, list[datetime]]:
    """Return every quarter of an hour of the days around, ns, and what a clock on the wall shows."""
    middle = date.fromisoformat(text)
    start = int(datetime(middle.year, middle.month, middle.day, tzinfo=UTC).timestamp())
    moments = np.arange(start - 2 * 86_400, start + 3 * 86_400, QUARTER_S) * SECOND
    shown = [
        datetime.fromtimestamp(moment // SECOND, UTC).astimezone(ZoneInfo(zone))
        for moment in moments.tolist()
    ]
    return moments, shown


@changing
def test_local_time_is_what_a_clock_on_the_wall_shows(zone: str, day: str, hours: float) -> None:
    moments, shown = quarters(zone, day)
    expected = [int(one.replace(tzinfo=UTC).timestamp()) for one in shown]
    local = LocalTime(zone)
    assert local.seconds(moments).tolist() == expected
    starts = [local.start_of(one.year, one.month, one.day) for one in around(day)]
    lengths = dict(zip(around(day), np.diff(starts) / (HOUR_S * SECOND), strict=False))
    assert lengths.pop(date.fromisoformat(day)) == hours
    assert set(lengths.values()) == {24.0}


@changing
def test_the_officers_days_follow_on_each_other_and_hold_every_slot_once(
    zone: str, day: str, hours: float, machine_in: Any
) -> None:
    machine_in(zone)
    spans = [day_span(one) for one in around(day)]
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    begin, end = day_span(date.fromisoformat(day))
    assert (end - begin) / HOUR_S == hours

    # One archived batch that covers all these days: each value is in the statement of one day.
    rows = (spans[-1][1] - spans[0][0]) // QUARTER_S
    block = Block(
        slot=spans[0][0] // QUARTER_S,
        numbers=np.array([1]),
        mantissa=np.ones((rows, 1), np.int64),
        quality=np.full((rows, 1), GOOD, np.uint8),
        span_cells=np.zeros(0, np.int64),
        spans=np.zeros(0, np.int64),
    )
    header = SimpleNamespace(recipients=(), policy_version=1, purpose=1, gaps=())
    sealed = SimpleNamespace(content_type=BATCH, header=header)
    left: Any = SimpleNamespace(
        sealed=sealed, status=1, size=1, blocks=[block], window_s=QUARTER_S, points={}
    )
    archive: list[Left] = [left]
    told = [tell(one, archive, {}, ()).values for one in around(day)]
    assert sum(told) == rows
    assert told[2] == hours * 4


@changing
def test_summaries_by_day_have_no_hour_twice_and_leave_none_out(
    zone: str, day: str, hours: float
) -> None:
    local = LocalTime(zone)
    first, *_, last = (local.start_of(one.year, one.month, one.day) for one in around(day))
    edges = periods.cut(local, first, last, "day").edges
    assert (edges[0], edges[-1]) == (first, last)
    lengths = (np.diff(edges) / (HOUR_S * SECOND)).tolist()
    assert sorted(lengths) == sorted([24.0] * 4 + [hours])
    assert [periods.day_of(local, edge) for edge in edges.tolist()] == around(day)


@changing
def test_combined_series_are_made_of_spans_that_hold_every_hour_of_their_days(
    zone: str, day: str, hours: float
) -> None:
    local = LocalTime(zone)
    site: Any = SimpleNamespace(context=SimpleNamespace(local=local))
    derivation = Derivation({}, site.context, None)  # type: ignore[arg-type] # neither is asked
    for one in around(day)[1:-1]:
        begin = local.start_of(one.year, one.month, one.day) // (HOUR_S * SECOND)
        after = one + DAY
        end = local.start_of(after.year, after.month, after.day) / (HOUR_S * SECOND)
        for touched in range(begin + 1, int(end)):
            ((low, high),) = derivation.ranges(site, [(touched, touched)])
            assert low <= begin
            assert high >= end


WEEKEND: Final = """
version = "dst"
[[shift]]
days = ["sat"]
start = "22:00"
end = "06:00"
breaks = ["02:30-03:00"]
"""


@pytest.mark.parametrize(
    ("saturday", "planned"),
    [
        ("2026-03-21", 7.5),
        # The night from 1:59 to 3:00: the hour of the break does not exist.
        ("2026-03-28", 7.0),
        # From 2:59 to 2:00: the hour comes twice, and so does its break.
        ("2026-10-24", 8.0),
    ],
)
def test_a_night_shift_is_planned_for_as_long_as_the_night_is(
    saturday: str, planned: float
) -> None:
    local = LocalTime("Europe/Berlin")
    calendar = Calendar(CalendarFile.model_validate(tomllib.loads(WEEKEND)), local)
    day = date.fromisoformat(saturday)
    start = local.start_of(day.year, day.month, day.day) + 12 * HOUR_S * SECOND
    starts = start + np.arange(24 * 4) * QUARTER_S * SECOND
    found = calendar.planned_s(starts, QUARTER_S)
    assert found.sum() / HOUR_S == planned
    # Longer slots say the same.
    assert calendar.planned_s(starts[::4], HOUR_S).sum() / HOUR_S == planned


def tariff(zone: str, year: int) -> Tariff:
    season = {
        "name": "all",
        "months": list(range(1, 13)),
        "peak": ["08-12"],
        "flat": ["00-02", "03-08", "12-24"],
        "valley": ["02-03"],
    }
    head = {"id": "x", "region": "x", "zone": zone, "publication": "x", "grade": "U", "source": "x"}
    return Tariff(TariffFile.model_validate({**head, "years": [year], "season": [season]}))


@changing
def test_every_slot_has_the_tariff_period_of_the_hours_that_it_really_holds(
    zone: str, day: str, hours: float
) -> None:
    moments, shown = quarters(zone, day)
    lookup = tariff(zone, date.fromisoformat(day).year)
    by_hour = [lookup._table[one.month, one.hour] for one in shown]
    assert lookup.codes(moments, QUARTER_S).tolist() == by_hour
    for width in (2, 3, 4, 8):
        count = len(moments) - width
        expected = [
            by_hour[at] if len(set(by_hour[at : at + width])) == 1 else NAMES.index("mixed")
            for at in range(count)
        ]
        assert lookup.codes(moments[:count], width * QUARTER_S).tolist() == expected
        # The same as a counter's rise over so many slots.
        spans = np.full(count, width)
        ends = moments[:count] + (width - 1) * QUARTER_S * SECOND
        assert lookup.codes(ends, QUARTER_S, spans).tolist() == expected

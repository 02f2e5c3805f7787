"""Clocks that are wrong: a device's is measured here, and no zone or jump doubles or skips a slot."""

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from agent.clock import LARGEST_JUMP_NS, STEADY_NS, ClockWatch
from agent.skew import Skew
from protocols.frame import SECOND, Frame, Quality

NOW = 1_770_000_000 * SECOND


def frame(at_ns: int, quality: Quality = Quality.GOOD, clock: int | None = None) -> Frame:
    cell = np.zeros((1, 1), np.int64)
    return Frame(
        "d", np.zeros(1, np.int32), cell + at_ns, cell, np.full((1, 1), quality, np.uint8), clock
    )


def test_a_clock_ahead_is_told_by_a_single_value() -> None:
    skew = Skew()
    skew.take(frame(NOW + 90 * SECOND), NOW)
    assert skew.ahead_s == 90
    assert "90 s ahead" in skew.line()


def test_a_clock_behind_is_told_when_all_that_comes_is_old_and_not_before() -> None:
    skew = Skew()
    for at in range(10):
        assert skew.ahead_s is None
        skew.take(frame(NOW + (at - 300) * SECOND), NOW + at * SECOND)
    assert skew.ahead_s == -300
    assert "300 s ago or earlier" in skew.line()
    skew.take(frame(NOW + 9 * SECOND), NOW + 10 * SECOND)
    assert (skew.ahead_s, skew.line()) == (-1, "")


def test_old_differences_are_forgotten_and_a_clock_that_was_set_right_is_well_again() -> None:
    skew = Skew()
    skew.take(frame(NOW + 500 * SECOND), NOW)
    for minute in range(1, 25):
        now = NOW + minute * 60 * SECOND
        skew.take(frame(now - SECOND), now)
    assert (skew.ahead_s, skew.line()) == (-1, "")


def test_lost_contact_and_a_device_with_its_own_time_tell_nothing() -> None:
    skew = Skew()
    skew.take(frame(NOW + 900 * SECOND, Quality.LOST), NOW)
    skew.take(frame(NOW + 900 * SECOND, clock=NOW), NOW)
    assert skew.ahead_s is None


@pytest.mark.parametrize("jump_s", [3600, -3600, 86_400 * 400, -86_400 * 400])
def test_a_jump_in_either_direction_stops_what_leaves_for_five_even_minutes(jump_s: int) -> None:
    wall, running = NOW, 0
    clock = ClockWatch(lambda: wall, lambda: running)
    clock.committed(NOW // SECOND)
    wall, running = wall + jump_s * SECOND, running + SECOND
    assert clock.check()
    assert clock.fault
    wall, running = wall + STEADY_NS, running + STEADY_NS
    assert not clock.check()
    # A clock before what was released must not fill its slots a second time, however even it goes.
    assert bool(clock.fault) == (jump_s < 0)


def test_a_slow_drift_is_followed_and_is_no_jump() -> None:
    wall, running = NOW, 0
    clock = ClockWatch(lambda: wall, lambda: running)
    for _ in range(5_000):
        wall, running = wall + SECOND + LARGEST_JUMP_NS // 1000, running + SECOND
        assert not clock.check()
    assert clock.fault == ""


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_slots_go_on_evenly_while_the_local_zone_changes_to_summer_time_and_back(
    day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    start = datetime.fromisoformat(f"{day}T00:00:00").replace(tzinfo=UTC)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        # The machine's own zone changes its offset within the day; what slots lie on does not.
        offsets = {time.localtime(int(start.timestamp()) + at * 900).tm_gmtoff for at in range(96)}
        assert offsets == {3600, 7200}
        assert start.astimezone(berlin).utcoffset() is not None
        wall, running, slots = int(start.timestamp()) * SECOND, 0, []
        clock = ClockWatch(lambda: wall, lambda: running)
        for _ in range(96):
            assert not clock.check()
            slots.append(wall // (900 * SECOND))
            wall, running = wall + 900 * SECOND, running + 900 * SECOND
        assert np.diff(slots).tolist() == [1] * 95
    finally:
        monkeypatch.undo()
        time.tzset()

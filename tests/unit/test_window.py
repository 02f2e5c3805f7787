"""What is in flight: nothing puts a receipt's deadline off but a receipt; chains take fair turns."""

import random

import pytest

from agent.lanes import FRESH_S, MOST_BYTES_IN_FLIGHT, Due, Lanes, Pace
from agent.route import FIRST_REST_S, LONGEST_REST_S, Route, Silence
from agent.window import FIRST_WAIT_S, LONGEST_WAIT_S, MOST_IN_FLIGHT, Window

NOW_S = 1_770_000_000
LIVE, OLD, OTHER = (1, 5), (1, 900), (1, 901)


def test_sending_more_never_puts_the_deadline_off() -> None:
    window = Window()
    window.sent(0, 9, 0.0)
    for at in range(1, 30):
        window.sent(at, 9, at * 0.1)
    assert window.left_s(FIRST_WAIT_S) == 0


def test_a_backlog_is_started_over_however_often_new_messages_come() -> None:
    """The fault that this class was made for: commits every 5 s, back-off longer than that."""
    window, now, over = Window(), 0.0, 0
    for row in range(200):
        window.sent(row, 9, now)
        now += 5.0
        if window.left_s(now) == 0:
            window.start_over()
            over += 1
    assert over >= 10
    assert window.resent == over


def test_back_off_grows_to_a_bound_and_a_receipt_resets_it() -> None:
    window, now, waits = Window(), 0.0, []
    for _ in range(12):
        window.sent(0, 9, now)
        left = window.left_s(now)
        assert left is not None
        waits.append(left)
        now += left
        window.start_over()
    assert waits[0] == FIRST_WAIT_S
    assert waits[4] > 4 * waits[0]
    assert max(waits) <= LONGEST_WAIT_S + 1e-6
    window.sent(0, 9, now)
    window.settled(0, now)
    window.sent(1, 9, now)
    assert window.left_s(now) == FIRST_WAIT_S


def test_room_is_bounded_and_comes_back_with_receipts() -> None:
    window = Window()
    for row in range(MOST_IN_FLIGHT):
        assert window.room == MOST_IN_FLIGHT - row
        window.sent(row, 9, 0.0)
    assert (window.room, window.bytes_) == (0, 9 * MOST_IN_FLIGHT)
    window.settled(4, 1.0)
    assert window.room == 5
    window.settled(1000, 1.0)
    assert (window.room, window.bytes_, window.left_s(1.0)) == (MOST_IN_FLIGHT, 0, None)


def test_a_new_connection_begins_with_the_oldest() -> None:
    window = Window()
    window.sent(7, 9, 0.0)
    window.reconnected()
    assert (window.cursor, window.in_flight, window.left_s(0.0)) == (0, 0, None)


# Turns of the chains.


def due(chain: tuple[int, int], count: int, *, age_s: int = 0, size: int = 1000) -> list[Due]:
    return [Due(at + 1, chain, at, size, NOW_S - age_s) for at in range(count)]


def lanes(catch_up: int = 0) -> Lanes:
    return Lanes(catch_up, lambda: float(NOW_S))


def test_what_is_fresh_goes_before_a_backlog_and_finds_room_however_long_that_is() -> None:
    found = lanes()
    backlog = due(OLD, 1000, age_s=FRESH_S + 1)
    chosen = found.choose(backlog, 0.0)
    for one in chosen:
        found.sent(one, 0.0)
    # A quarter of the places stays free of backlog, also while receipts are awaited.
    assert len(chosen) == MOST_IN_FLIGHT * 3 // 4
    assert found.choose([*backlog[len(chosen) :], *due(LIVE, 3)], 1.0) == due(LIVE, 3)
    assert found.choose(backlog[len(chosen) :], 1.0) == []


def test_chains_take_turns_so_that_none_waits_for_the_end_of_another() -> None:
    chosen = lanes().choose(
        [*due(OLD, 100, age_s=3600), *due(OTHER, 100, age_s=3600), *due(LIVE, 1)], 0.0
    )
    assert [one.chain for one in chosen[:5]] == [LIVE, OLD, OTHER, OLD, OTHER]
    assert [one.sequence for one in chosen if one.chain == OTHER] == list(range(12))


def test_bytes_in_flight_are_bounded_and_one_message_always_goes() -> None:
    found = lanes()
    large = due(LIVE, 20, size=256 << 10)
    chosen = found.choose(large, 0.0)
    assert sum(one.size for one in chosen) <= MOST_BYTES_IN_FLIGHT
    assert len(lanes().choose(due(LIVE, 2, size=MOST_BYTES_IN_FLIGHT * 2), 0.0)) == 1


def test_a_backlog_keeps_to_its_pace_and_what_is_fresh_does_not_wait_for_it() -> None:
    found, now, sent = lanes(catch_up=10_000), 0.0, 0
    backlog = due(OLD, 400, age_s=3600)
    while now < 20.0:
        for one in found.choose(backlog[sent:], now):
            found.sent(one, now)
            found.settled(OLD, one.sequence, now)
            sent += 1
        assert found.choose([*backlog[sent:], *due(LIVE, 1)], now)[0].chain == LIVE
        now += found.left_s(now) or 0.05
    assert 190 <= sent <= 215


def test_a_lost_message_of_one_chain_is_sent_again_however_well_others_do() -> None:
    found, now = lanes(), 0.0
    found.sent(due(OLD, 1)[0], now)
    for at in range(20):
        now += 0.5
        found.sent(due(LIVE, 20)[at], now)
        found.settled(LIVE, at, now)
        if found.left_s(now) == 0:
            found.start_over(now)
            break
    assert (found.resent, found.cursors()[OLD]) == (1, 0)
    assert now == FIRST_WAIT_S


def test_a_pace_that_was_not_used_is_not_saved_up() -> None:
    pace = Pace(1000)
    assert pace.may(0.0)
    pace.took(3000)
    assert not pace.may(1.0)
    assert pace.left_s() == pytest.approx(1.01)
    assert pace.may(1000.0)
    pace.took(1001)
    assert not pace.may(1000.0)


# Brokers in order of preference.


def test_a_broker_that_fails_rests_longer_each_time_and_the_next_is_taken() -> None:
    route = Route(3, random.Random(1).uniform)
    now = 0.0
    assert route.choose(now) == 0
    route.failed(now)
    assert route.choose(now) == 1
    route.failed(now)
    assert route.choose(now) == 2
    assert route.changes == 2
    # The third works; the first is looked at again when it has rested.
    route.worked()
    assert route.better(now) is None
    assert route.better(FIRST_REST_S) == 0
    rests = []
    for _ in range(8):
        route.failed(now, 0)
        rest = next(at for at in range(10_000) if route.better(now + at) == 0)
        rests.append(rest)
        now += rest
    assert rests[0] > FIRST_REST_S
    assert max(rests) <= LONGEST_REST_S
    assert rests[-1] > LONGEST_REST_S / 2


def test_when_all_brokers_fail_the_one_rested_first_is_tried_again() -> None:
    route = Route(2, random.Random(1).uniform)
    for now in (0.0, 1.0, 2.0, 3.0):
        route.choose(now)
        route.failed(now)
    assert route.choose(4.0) in {0, 1}
    assert Route(1).choose(0.0) == 0


def test_silence_counts_from_the_first_question_and_is_told_once() -> None:
    silence = Silence()
    assert silence.lasts_s(1000.0) == 0
    silence.asked(10.0)
    silence.asked(50.0)
    assert silence.lasts_s(70.0) == 60.0
    assert silence.lasts_s(70.0, since=40.0) == 30.0
    assert not silence.told(69.9, 60.0)
    assert silence.told(70.0, 60.0)
    assert not silence.told(700.0, 60.0)
    silence.heard()
    assert silence.lasts_s(800.0) == 0
    silence.asked(800.0)
    assert silence.told(860.0, 60.0)

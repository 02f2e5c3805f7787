"""The window of unacknowledged messages: nothing puts a receipt's deadline off but a receipt."""

from agent.window import ALARM_S, FIRST_WAIT_S, LONGEST_WAIT_S, MOST_IN_FLIGHT, Window


def test_sending_more_never_puts_the_deadline_off() -> None:
    window = Window()
    window.sent(1, 0.0)
    for at in range(1, 30):
        window.sent(1 + at, at * 0.1)
    assert window.left_s(FIRST_WAIT_S) == 0


def test_a_backlog_is_started_over_however_often_new_messages_come() -> None:
    """The fault that this class was made for: commits every 5 s, back-off longer than that."""
    window, now, over = Window(), 0.0, 0
    for row in range(1, 200):
        window.sent(row, now)
        now += 5.0
        if window.left_s(now) == 0:
            window.start_over()
            over += 1
    assert over >= 10
    assert window.resent == over


def test_back_off_grows_to_a_bound_and_a_receipt_resets_it() -> None:
    window, now, waits = Window(), 0.0, []
    for _ in range(12):
        window.sent(1, now)
        left = window.left_s(now)
        assert left is not None
        waits.append(left)
        now += left
        window.start_over()
    assert waits[0] == FIRST_WAIT_S
    assert waits[4] > 4 * waits[0]
    assert max(waits) <= LONGEST_WAIT_S + 1e-6
    window.sent(1, now)
    window.settled(1, now)
    window.sent(2, now)
    assert window.left_s(now) == FIRST_WAIT_S


def test_room_is_bounded_and_comes_back_with_receipts() -> None:
    window = Window()
    for row in range(1, MOST_IN_FLIGHT + 1):
        assert window.room == MOST_IN_FLIGHT - row + 1
        window.sent(row, 0.0)
    assert window.room == 0
    window.settled(5, 1.0)
    assert window.room == 5
    window.settled(1000, 1.0)
    assert (window.room, window.left_s(1.0)) == (MOST_IN_FLIGHT, None)


def test_a_new_connection_begins_with_the_oldest() -> None:
    window = Window()
    window.sent(7, 0.0)
    window.reconnected()
    assert (window.cursor, window.in_flight, window.left_s(0.0)) == (0, 0, None)


def test_silence_is_told_once_and_again_after_a_receipt() -> None:
    window = Window()
    assert not window.waits_in_vain(1000.0)
    window.sent(1, 0.0)
    window.start_over()
    window.sent(1, 10.0)
    assert not window.waits_in_vain(ALARM_S - 0.1)
    assert window.waits_in_vain(ALARM_S)
    assert not window.waits_in_vain(ALARM_S * 2)
    window.settled(0, 200.0)
    window.settled(1, 200.0)
    window.sent(2, 200.0)
    assert window.waits_in_vain(200.0 + ALARM_S)

"""Our clock against the brain's: what signed answers tell of it, and no more than they do."""

import pytest

from agent.brain_clock import TOLERATED_S, BrainClock
from protocols.frame import SECOND

START = 1_770_000_000 * SECOND
KID, OTHER = b"k" * 16, b"o" * 16


class World:
    """Three clocks: the machine's running time, our wall clock, and the brain's."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.running = 1000 * SECOND
        self.ahead_ns = round(ahead_s * SECOND)
        self.brain_ahead_ns = 0
        self.clock = BrainClock(lambda: START + self.running + self.ahead_ns, lambda: self.running)

    def go(self, seconds: float) -> None:
        self.running += round(seconds * SECOND)

    @property
    def brain_s(self) -> int:
        return (START + self.running + self.brain_ahead_ns) // SECOND

    def exchange(self, what: object, there_s: float, back_s: float, kid: bytes = KID) -> None:
        self.clock.sent(what)
        self.go(there_s)
        issued_s = self.brain_s
        self.go(back_s)
        self.clock.answered(what, kid, issued_s)

    @property
    def told(self) -> tuple[float, float]:
        found = self.clock.report()
        assert found is not None
        return found["ahead_s"], found["within_s"]


@pytest.mark.parametrize("ahead_s", [0.0, 0.4, 12.7, -12.7, 3600.0, -86_400.0 * 400])
@pytest.mark.parametrize("way", [(0.0, 0.0), (0.2, 0.01), (0.01, 3.0), (7200.0, 5.0)])
def test_the_true_difference_always_lies_within_what_is_told(
    ahead_s: float, way: tuple[float, float]
) -> None:
    world = World(ahead_s)
    for number in range(12):
        world.exchange(number, *way)
        found, within = world.told
        assert abs(found - ahead_s) <= within + 0.11
        world.go(1.3)
    assert within <= (sum(way) + 1) / 2 + 0.1


def test_many_answers_tell_more_than_one() -> None:
    world = World(5.0)
    world.exchange("first", 0.9, 0.9)
    _, once = world.told
    for number in range(20):
        world.exchange(number, 0.1, 0.1)
        world.go(0.37)
    found, often = world.told
    assert often < once / 3
    assert abs(found - 5.0) <= often + 0.1


def test_a_wall_clock_that_is_set_shows_at_once_without_another_answer() -> None:
    world = World()
    world.exchange("ask", 0.1, 0.1)
    assert world.clock.news() is None
    world.ahead_ns = 3600 * SECOND
    assert "3600 s ahead of the brain's" in (world.clock.news() or "")
    assert world.clock.news() is None
    world.ahead_ns = 0
    assert world.clock.news() == ""
    world.ahead_ns = -3600 * SECOND
    assert "3600 s behind the brain's" in world.clock.line()


def test_the_brains_clock_that_is_set_shows_with_its_next_answer() -> None:
    world = World()
    world.exchange("first", 0.1, 0.1)
    world.brain_ahead_ns = 3600 * SECOND
    world.exchange("second", 0.1, 0.1)
    assert abs(world.told[0] + 3600) <= world.told[1] + 0.1
    assert world.clock.line()


def test_answers_to_what_was_not_sent_here_tell_nothing() -> None:
    world = World()
    world.clock.answered(bytes(16), KID, world.brain_s + 9999)
    assert world.clock.report() is None
    assert world.clock.line() == ""


def test_an_answer_that_waited_for_long_raises_no_alarm_by_itself() -> None:
    world = World()
    world.exchange("stuck", 1.0, 20 * TOLERATED_S)
    assert world.clock.line() == ""
    assert world.told[1] > 9 * TOLERATED_S


def test_what_was_found_long_ago_is_found_anew_so_that_a_drift_shows() -> None:
    world = World()
    for number in range(200):
        world.exchange(number, 0.1, 0.1)
        world.go(60)
        # The machine's running time itself runs slow by one in a thousand.
        world.brain_ahead_ns += 60 * SECOND // 1000
    found, within = world.told
    assert abs(found + world.brain_ahead_ns / SECOND) <= within + 1.0


def test_of_several_brains_the_one_that_differs_most_is_told() -> None:
    world = World()
    world.exchange("a", 0.1, 0.1)
    world.brain_ahead_ns = 600 * SECOND
    world.exchange("b", 0.1, 0.1, OTHER)
    assert world.told[0] == pytest.approx(-600, abs=1)


def test_what_is_remembered_is_bounded() -> None:
    world = World()
    for number in range(5000):
        world.clock.sent(number)
    assert len(world.clock._sent) <= 1024

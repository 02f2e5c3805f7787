"""The window of messages that were sent and have no receipt yet: when to send more, when again."""

import random
from typing import Final

MOST_IN_FLIGHT: Final = 32
FIRST_WAIT_S: Final = 3.0
LONGEST_WAIT_S: Final = 60.0
ALARM_S: Final = 60.0


class Window:
    """Counts what is in flight; all times are seconds of one steady clock.

    Attributes:
        cursor: the newest message that was sent; what comes behind it has not been.
        in_flight: how many wait for a receipt since the last start over.
        resent: how often everything that waits was sent again.
    """

    def __init__(self) -> None:
        self.cursor = 0
        self.in_flight = 0
        self.resent = 0
        self._wait_s = FIRST_WAIT_S
        self._deadline: float | None = None
        self._silent_since: float | None = None
        self._alarmed = False

    @property
    def room(self) -> int:
        """How many more may be sent."""
        return max(MOST_IN_FLIGHT - self.in_flight, 0)

    def sent(self, row_id: int, now: float) -> None:
        """Note a message that was sent."""
        self.cursor = row_id
        self.in_flight += 1
        if self._deadline is None:
            self._deadline = now + self._wait_s
        if self._silent_since is None:
            self._silent_since = now

    def settled(self, count: int, now: float) -> None:
        """Note that a receipt settled some messages."""
        self.in_flight = max(self.in_flight - count, 0)
        self._wait_s = FIRST_WAIT_S
        self._deadline = now + self._wait_s if self.in_flight else None
        self._silent_since = now if self.in_flight else None
        self._alarmed = False

    def reconnected(self) -> None:
        """Begin again with the oldest on a new connection."""
        self.cursor = self.in_flight = 0
        self._deadline = None

    def left_s(self, now: float) -> float | None:
        """Return how long to wait for a receipt before starting over; None while none is due."""
        return None if self._deadline is None else max(self._deadline - now, 0.0)

    def start_over(self) -> None:
        """Begin again with the oldest, since no receipt came in time; the next wait is longer."""
        self.cursor = self.in_flight = 0
        self._deadline = None
        self.resent += 1
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - jitter, so that agents do not resend in step
        self._wait_s = min(self._wait_s * 2 * jitter, LONGEST_WAIT_S)

    def waits_in_vain(self, now: float) -> bool:
        """Tell, once, when nothing has been acknowledged for a minute although something waits."""
        if self._silent_since is None or self._alarmed or now - self._silent_since < ALARM_S:
            return False
        self._alarmed = True
        return True

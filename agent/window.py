"""What was sent of one chain and has no receipt yet: when to send more, when again."""

import random
from collections import deque
from typing import Final

MOST_IN_FLIGHT: Final = 32
FIRST_WAIT_S: Final = 3.0
LONGEST_WAIT_S: Final = 60.0


class Window:
    """The messages of one chain in flight; all times are seconds of one steady clock.

    Attributes:
        cursor: the sequence that is sent next; what is before it has been sent.
        behind: whether what it sends now has waited for long.
        resent: how often everything that waits was sent again.
        bytes_: size of what is in flight.
    """

    def __init__(self) -> None:
        self.cursor = 0
        self.behind = False
        self.resent = 0
        self.bytes_ = 0
        self._sent: deque[tuple[int, int]] = deque()
        self._wait_s = FIRST_WAIT_S
        self._deadline: float | None = None

    @property
    def in_flight(self) -> int:
        """How many wait for a receipt since the last start over."""
        return len(self._sent)

    @property
    def room(self) -> int:
        """How many more may be sent."""
        return max(MOST_IN_FLIGHT - self.in_flight, 0)

    def sent(self, sequence: int, size: int, now: float) -> None:
        """Note a message that was sent."""
        self.cursor = sequence + 1
        self._sent.append((sequence, size))
        self.bytes_ += size
        if self._deadline is None:
            self._deadline = now + self._wait_s

    def settled(self, through: int, now: float) -> None:
        """Note that a receipt settled the chain up to a sequence."""
        while self._sent and self._sent[0][0] <= through:
            self.bytes_ -= self._sent.popleft()[1]
        self.cursor = max(self.cursor, through + 1)
        self._wait_s = FIRST_WAIT_S
        self._deadline = now + self._wait_s if self._sent else None

    def reconnected(self) -> None:
        """Begin again with the oldest on a new connection."""
        self._rewind()

    def left_s(self, now: float) -> float | None:
        """Return how long to wait for a receipt before starting over; None while none is due."""
        return None if self._deadline is None else max(self._deadline - now, 0.0)

    def start_over(self) -> None:
        """Begin again with the oldest, since no receipt came in time; the next wait is longer."""
        self._rewind()
        self.resent += 1
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 - jitter, so that agents do not resend in step
        self._wait_s = min(self._wait_s * 2 * jitter, LONGEST_WAIT_S)

    def _rewind(self) -> None:
        self.cursor = self.bytes_ = 0
        self._sent.clear()
        self._deadline = None

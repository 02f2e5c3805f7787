"""Which broker to deliver through: the most preferred one that works, and back to it when it does again."""

import random
from collections.abc import Callable
from typing import Final

FIRST_REST_S: Final = 30.0
LONGEST_REST_S: Final = 3600.0
UNHEARD_S: Final = 60.0
"""For so long nothing of the brain may be heard, although something waits, before people are told."""

_RESTS_GROW: Final = 2.0


class Route:
    """Brokers in order of preference; times are seconds of one steady clock.

    A broker that fails rests, ever longer with jitter, until it has brought something again.

    Attributes:
        at: which broker is in use, counted from 0.
        changes: how often another was taken.
    """

    def __init__(
        self, brokers: int, chance: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.at = 0
        self.changes = 0
        self._rests = [FIRST_REST_S] * brokers
        self._until = [0.0] * brokers
        self._chance = chance

    @property
    def has_others(self) -> bool:
        """Whether there is another broker to go to."""
        return len(self._rests) > 1

    def worked(self) -> None:
        """Note that something came through the broker in use."""
        self._rests[self.at] = FIRST_REST_S
        self._until[self.at] = 0.0

    def failed(self, now: float, at: int | None = None) -> None:
        """Let a broker rest, the one in use unless another is named."""
        which = self.at if at is None else at
        self._until[which] = now + self._rests[which] * self._chance(0.7, 1.0)
        self._rests[which] = min(_RESTS_GROW * self._rests[which], LONGEST_REST_S)

    def choose(self, now: float) -> int:
        """Take the most preferred broker that does not rest; where all do, the one rested first."""
        ready = [at for at, until in enumerate(self._until) if until <= now]
        chosen = ready[0] if ready else self._until.index(min(self._until))
        self.changes += chosen != self.at
        self.at = chosen
        return chosen

    def better(self, now: float) -> int | None:
        """Return a broker that is preferred to the one in use and does not rest; None for none."""
        ready = [at for at in range(self.at) if self._until[at] <= now]
        return ready[0] if ready else None


class Silence:
    """How long nothing was heard of the brain although something waits for an answer."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = False

    def asked(self, now: float) -> None:
        """Note that something was sent that is to be answered."""
        if self._since is None:
            self._since = now

    def heard(self) -> None:
        """Note an answer."""
        self._since, self._told = None, False

    def lasts_s(self, now: float, since: float = 0.0) -> float:
        """Return how long it lasts, counted from `since` at the earliest; 0 while there is none."""
        return 0.0 if self._since is None else now - max(self._since, since)

    def told(self, now: float, after_s: float) -> bool:
        """Tell, once, when it has lasted so long."""
        if self._told or self.lasts_s(now) < after_s:
            return False
        self._told = True
        return True

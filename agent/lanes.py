"""Which chain sends next: chains take turns, and what is fresh goes before what has waited.

Within a chain the order is fixed, so a backlog can only be passed by other chains. Rule and reasons:
docs/decisions/0059.
"""

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from agent.giveup import Chain
from agent.spool import GIVEN_UP, WAITING, Spool
from agent.window import MOST_IN_FLIGHT, Window

MOST_BYTES_IN_FLIGHT: Final = 2 << 20
FRESH_S: Final = 60
"""What was sealed longer ago than this is backlog."""

_FOR_FRESH: Final = 4
"""One in so many places in flight, and of the bytes, is kept free of backlog."""

_CHAINS: Final = """
SELECT epoch, stream FROM chain WHERE EXISTS (SELECT 1 FROM batch WHERE batch.status = ?
AND batch.epoch = chain.epoch AND batch.stream = chain.stream) OR EXISTS (SELECT 1 FROM batch
WHERE batch.status = ? AND batch.epoch = chain.epoch AND batch.stream = chain.stream)
ORDER BY epoch, stream
"""
_GAPING: Final = "SELECT DISTINCT epoch, stream FROM batch WHERE status = ?"
_DUE: Final = """
SELECT sequence, id, size, at FROM batch WHERE status = ? AND epoch = ? AND stream = ?
AND sequence >= ? ORDER BY sequence LIMIT ?
"""
_OLDEST: Final = """
SELECT MIN(first) FROM (SELECT MIN(sequence) AS first FROM batch WHERE status = ? AND epoch = ?
AND stream = ? UNION ALL SELECT MIN(sequence) FROM batch WHERE status = ? AND epoch = ?
AND stream = ?)
"""
_NEXT_LOST: Final = """
SELECT MIN(sequence) FROM batch WHERE status = ? AND epoch = ? AND stream = ? AND sequence > ?
"""
_SHEETS_DUE: Final = _DUE.replace("ORDER BY", "AND is_sheet = 1 ORDER BY")


@dataclass(frozen=True, slots=True)
class Due:
    """One message whose turn it is.

    Attributes:
        chain: epoch and stream.
        at: when it was sealed, seconds since 1970 UTC.
    """

    id: int
    chain: Chain
    sequence: int
    size: int
    at: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a due message is.

    Attributes:
        digest: its hash; of a run that was given up, that of its last message.
        first: of a run that was given up, its first sequence; else -1.
        sealed: its bytes; empty when it was given up.
    """

    due: Due
    digest: bytes
    first: int
    sealed: bytes

    @property
    def is_given_up(self) -> bool:
        """Whether the brain is to be told that it is lost."""
        return self.first >= 0

    @property
    def is_damaged(self) -> bool:
        """Whether its bytes are no longer what was sealed."""
        return not self.is_given_up and hashlib.sha256(self.sealed).digest() != self.digest


class Pace:
    """A bound on bytes per second of backlog; a second's worth may go at once."""

    def __init__(self, bytes_s: int) -> None:
        self._bytes_s = bytes_s
        self._left = float(bytes_s)
        self._at: float | None = None

    def may(self, now: float) -> bool:
        """Tell whether a message may go now."""
        if not self._bytes_s:
            return True
        if self._at is not None:
            self._left = min(self._left + (now - self._at) * self._bytes_s, float(self._bytes_s))
        self._at = now
        return self._left > 0

    def took(self, size: int) -> None:
        """Note a message that went."""
        self._left -= size

    def left_s(self) -> float | None:
        """Return how long nothing may go; None while it may."""
        if not self._bytes_s or self._left > 0:
            return None
        return -self._left / self._bytes_s + 0.01


class Lanes:
    """The windows of all chains.

    Attributes:
        resent: how often a chain was sent again from its oldest.
    """

    def __init__(self, catch_up_bytes_s: int = 0, now_s: Callable[[], float] = time.time) -> None:
        self.resent = 0
        self._windows: dict[Chain, Window] = {}
        self._pace = Pace(catch_up_bytes_s)
        self._now_s = now_s

    @property
    def in_flight(self) -> int:
        """How many messages wait for a receipt."""
        return sum(window.in_flight for window in self._windows.values())

    def cursors(self) -> dict[Chain, int]:
        """Return the sequence that each chain sends next, as far as it has sent any."""
        return {chain: window.cursor for chain, window in self._windows.items()}

    def choose(self, due: Sequence[Due], now: float) -> list[Due]:
        """Return what may be sent now, in order, out of what is due of each chain.

        Args:
            due: in the order of each chain.
            now: seconds of a steady clock.
        """
        fresh_from = self._now_s() - FRESH_S
        turns: dict[Chain, list[Due]] = {}
        for one in due:
            turns.setdefault(one.chain, []).append(one)
        for chain, messages in turns.items():
            self._window(chain).behind = messages[0].at < fresh_from
        order = sorted(turns, key=lambda chain: (self._window(chain).behind, chain[1]))
        fresh = [turns[chain] for chain in order if not self._window(chain).behind]
        behind = [turns[chain] for chain in order if self._window(chain).behind]
        chosen: list[Due] = []
        self._take(_in_turn(fresh), chosen, now, backlog=False)
        self._take(_in_turn(behind), chosen, now, backlog=True)
        return chosen

    def _take(
        self, messages: "itertools.chain[Due]", chosen: list[Due], now: float, *, backlog: bool
    ) -> None:
        share = (_FOR_FRESH - 1) / _FOR_FRESH if backlog else 1.0
        windows = [one for one in self._windows.values() if one.behind or not backlog]
        places = int(MOST_IN_FLIGHT * share) - sum(one.in_flight for one in windows)
        room = MOST_BYTES_IN_FLIGHT * share - sum(one.bytes_ for one in windows)
        places = min(places, MOST_IN_FLIGHT - self.in_flight - len(chosen))
        for one in messages:
            # One message always fits, however large it is.
            if places <= 0 or (room < one.size and (self.in_flight or chosen)):
                return
            if backlog and not self._pace.may(now):
                return
            if backlog:
                self._pace.took(one.size)
            places, room = places - 1, room - one.size
            chosen.append(one)

    def sent(self, one: Due, now: float) -> None:
        """Note a message that was sent."""
        self._window(one.chain).sent(one.sequence, one.size, now)

    def settled(self, chain: Chain, through: int, now: float) -> None:
        """Note that a receipt settled a chain up to a sequence."""
        if chain in self._windows:
            self._windows[chain].settled(through, now)

    def reconnected(self) -> None:
        """Begin all chains again with their oldest."""
        self._windows.clear()

    def left_s(self, now: float) -> float | None:
        """Return how long to wait for receipts, or for the pace; None while nothing is due."""
        waits = [window.left_s(now) for window in self._windows.values()]
        known = [one for one in [*waits, self._pace.left_s()] if one is not None]
        return min(known, default=None)

    def start_over(self, now: float) -> None:
        """Begin those chains again whose receipt did not come in time."""
        for window in self._windows.values():
            if window.left_s(now) == 0:
                window.start_over()
                self.resent += 1

    def _window(self, chain: Chain) -> Window:
        return self._windows.setdefault(chain, Window())


def _in_turn(chains: "Sequence[Sequence[Due]]") -> "itertools.chain[Due]":
    rounds = itertools.zip_longest(*chains)
    return itertools.chain.from_iterable(
        [one for one in turn if one is not None] for turn in rounds
    )


def due(
    spool: Spool,
    cursors: dict[Chain, int],
    *,
    only_sheets: bool = False,
    held: Collection[int] = (),
) -> list[Due]:
    """Return the next messages of every stream that has any to send, in the chain's order.

    A stream's chain of a new epoch says where the one before ended, so it begins when that is settled.

    What was given up is declared lost only once everything before it is settled: the brain may have
    it all the same, and hold it until what comes before it is there.

    Args:
        spool: the spool.
        cursors: from which sequence on, where that is not the oldest.
        only_sheets: leave batches where they are.
        held: streams of which nothing is sent yet.
    """
    rows_ = spool.db.execute(_CHAINS, (WAITING, GIVEN_UP)).fetchall()
    oldest: dict[int, Chain] = {stream: (epoch, stream) for epoch, stream in reversed(rows_)}
    chains = [chain for chain in sorted(oldest.values()) if chain[1] not in held]
    gaping = set(spool.db.execute(_GAPING, (GIVEN_UP,)).fetchall())
    found: list[Due] = []
    for chain in chains:
        rows: list[tuple[int, int, int, int]] = []
        for status in (WAITING, GIVEN_UP) if chain in gaping else (WAITING,):
            place = (status, *chain, cursors.get(chain, 0), MOST_IN_FLIGHT)
            rows += spool.db.execute(_SHEETS_DUE if only_sheets else _DUE, place).fetchall()
        end = _first_that_must_wait(spool, chain) if chain in gaping else math.inf
        found += [
            Due(row[1], chain, row[0], row[2], row[3]) for row in sorted(rows) if row[0] < end
        ]
    return found


def _first_that_must_wait(spool: Spool, chain: Chain) -> float:
    """Return the first sequence that was given up while something before it is not settled."""
    (oldest,) = spool.db.execute(_OLDEST, (WAITING, *chain, GIVEN_UP, *chain)).fetchone()
    (lost,) = spool.db.execute(_NEXT_LOST, (GIVEN_UP, *chain, oldest)).fetchone()
    return math.inf if lost is None else lost


def load(spool: Spool, chosen: Sequence[Due]) -> list[Loaded]:
    """Read the messages that are sent now."""
    found = []
    for one in chosen:
        row = spool.db.execute(
            "SELECT status, digest, first, sealed FROM batch WHERE id = ?", (one.id,)
        ).fetchone()
        if row is not None and row[0] in (WAITING, GIVEN_UP):
            found.append(Loaded(one, row[1], row[2], row[3]))
    return found

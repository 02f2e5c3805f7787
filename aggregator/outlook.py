"""Alarms of what goes wrong unless somebody acts: silence, clocks, policies and certificates."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from aggregator.alarms import (
    BRAIN,
    BRAIN_AHEAD,
    BRAIN_CLOCK,
    CERTIFICATE_ENDED,
    CERTIFICATE_ENDS,
    CLOCK_AHEAD,
    CLOCK_BEHIND,
    EXPIRED,
    POLICY_ENDED,
    POLICY_ENDS,
    POLICY_OLDER,
    RIGHT_S,
    SILENCE,
    STOPPED,
)
from aggregator.brain_time import BrainTime
from aggregator.expiry import Expiring, Expiry
from aggregator.ledger import Ledger
from aggregator.raising import Raising
from aggregator.record import Alarm
from protocols.frame import NowNs
from protocols.topics import Address
from security.envelope import Header
from security.policy.compiled import ReleaseSheet
from security.statements import Attestation

SLACK_S: Final = 60.0
"""By how much values may be late, and a clock ahead, before anybody is told."""

_WINDOWS: Final = 3
_SHORTEST_SILENCE_S: Final = 900.0
_POLICY_S: Final = 14 * 86_400
_ANNOUNCED_S: Final = 600
_BEHIND_S: Final = 120
_STEADY_S: Final = 60
_HEARD: Final = 3

Sheets = Callable[[int, bytes], ReleaseSheet | None]
"""Returns an agent's release sheet by its hash."""


def late_after_s(window_s: float) -> float:
    """Return from which age on values of slots of a length are late: three of them, and a minute."""
    return _WINDOWS * window_s + SLACK_S


def silent_after_s(window_s: float) -> float:
    """Return after how long without a batch an agent is silent."""
    return max(late_after_s(window_s), _SHORTEST_SILENCE_S)


@dataclass(slots=True)
class _Ages:
    """How old messages were when they came, over a quarter of an hour.

    Attributes:
        since_s: when the first of them came.
        least, most: seconds between signing and coming, by the two clocks.
    """

    since_s: int
    least: int
    most: int
    count: int = 1


class Outlook:
    """Looks ahead; all calls come from the inbox's thread, in its transactions.

    Args:
        expiring: tells of certificates.
        brain_time: takes when agents sign, and says what that makes of the brain's own clock.
    """

    def __init__(
        self,
        ledger: Ledger,
        sheets: Sheets,
        now_ns: NowNs,
        expiring: Expiring = tuple,
        brain_time: BrainTime | None = None,
    ) -> None:
        self._brain_time = brain_time
        self._ledger = ledger
        self._sheets = sheets
        self._expiring = expiring
        self._raising = Raising(ledger.record, now_ns)
        self._ages: dict[int, _Ages] = {}
        self._right_since: dict[int, int] = {}

    def heard(self, agent: int, address: Address, issued_s: int) -> None:
        """Note when a message came that an agent signed at a time."""
        now_s = self._raising.now_s
        if self._brain_time is not None:
            self._brain_time.signed(issued_s)
        age = now_s - issued_s
        if age < -SLACK_S:
            alarm = Alarm(agent, CLOCK_AHEAD, 0, 0, -age, -age, now_s)
            self._raising.follows(alarm, address)
            self._right_since.pop(agent, None)
        else:
            self._right_since.setdefault(agent, now_s)
        ages = self._ages.get(agent)
        if ages is None:
            self._ages[agent] = _Ages(now_s, age, age)
            return
        ages.least, ages.most = min(ages.least, age), max(ages.most, age)
        ages.count += 1

    def sealed_under(self, agent: int, header: Header) -> None:
        """Look whether a message was sealed under the newest policy that was announced."""
        announced = self._ledger.newest_sheet(agent)
        if announced is not None and header.issued_at > announced.received_s + _ANNOUNCED_S:
            self._policy(agent, header.address, header.policy_version, announced.version)

    def attested_under(self, agent: int, found: Attestation) -> None:
        """Look whether the newest policy that was announced is enforced."""
        announced = self._ledger.newest_sheet(agent)
        if announced is not None and found.issued_at > announced.received_s + _ANNOUNCED_S:
            self._policy(agent, found.address, found.policy_version, announced.version)

    def look_at(self, agent: int, address: Address) -> None:
        """Look at an agent, every minute or so."""
        self._look_at_ahead(agent, address)
        self._look_at_behind(agent, address)
        newest = self._ledger.newest_sheet(agent)
        sheet = self._sheets(agent, newest.hash) if newest is not None else None
        if sheet is None:
            return
        self._look_at_silence(agent, address, min((s.window_s for s in sheet.streams), default=0))
        if self._open(agent, EXPIRED):
            # The factory has said it itself.
            self._raising.over(agent, POLICY_ENDS)
            self._raising.over(agent, POLICY_ENDED)
            return
        place = Alarm(agent, "", 0, 0, sheet.valid_until, sheet.valid_until, self._raising.now_s)
        self._end_of(place, address, (POLICY_ENDS, POLICY_ENDED), sheet.valid_until - _POLICY_S)

    def look_at_brain(self) -> None:
        """Look at the brain's own clock, every minute or so."""
        now_s = self._raising.now_s
        self._look_at_clock(now_s)

    def certificates(self) -> list[Expiry]:
        """Return every certificate that connections depend on; read before a transaction begins."""
        return list(self._expiring())

    def look_at_certificates(
        self, found: Iterable[Expiry], agents: Mapping[bytes, tuple[int, Address]]
    ) -> None:
        """Look when certificates end, every minute or so.

        Args:
            found: see `certificates`.
            agents: opaque id -> number in the ledger, and address.
        """
        for one in found:
            number, address = agents.get(one.agent, (BRAIN, None))
            if number != BRAIN or not one.agent:
                self._certificate(number, address, one)

    def _look_at_clock(self, now_s: int) -> None:
        """Tell when the clock stands before the record, or ahead of what agents sign.

        A record from a time when it was ahead says nothing against a clock that agents confirm.
        """
        brain_time = self._brain_time
        behind = self._ledger.newest_received() - now_s
        ahead = 0 if brain_time is None else brain_time.ahead_s()
        confirmed = brain_time is not None and brain_time.is_exact()
        for kind, by, holds in (
            (BRAIN_CLOCK, behind, behind > SLACK_S and not confirmed),
            (BRAIN_AHEAD, ahead, ahead > 0),
        ):
            if holds:
                self._raising.follows(Alarm(BRAIN, kind, 0, 0, by, by, now_s), None)
            else:
                self._raising.over(BRAIN, kind)

    def _policy(self, agent: int, address: Address, used: int, announced: int) -> None:
        if used >= announced:
            self._raising.over(agent, POLICY_OLDER)
            return
        alarm = Alarm(agent, POLICY_OLDER, 0, 0, used, announced, self._raising.now_s)
        self._raising.holds(alarm, address)

    def _open(self, agent: int, kind: str) -> bool:
        return self._ledger.record.open_alarm(agent, kind) is not None

    def _look_at_silence(self, agent: int, address: Address, window_s: int) -> None:
        now_s, heard_s = self._raising.now_s, self._ledger.last_decided(agent)
        ended = self._open(agent, STOPPED) or self._open(agent, EXPIRED)
        if heard_s and now_s - heard_s > silent_after_s(window_s) and not ended:
            self._raising.holds(Alarm(agent, SILENCE, 0, 0, heard_s, heard_s, now_s), address)
        else:
            self._raising.over(agent, SILENCE)

    def _look_at_ahead(self, agent: int, address: Address) -> None:
        """Tell since when a clock that was ahead is right, and end that after a quarter of an hour.

        Not before: a message that waited looks right.
        """
        known = self._ledger.record.open_alarm(agent, CLOCK_AHEAD)
        if known is None:
            return
        # What an earlier process told goes on to count.
        since_s = known.last if known.last != known.first else self._right_since.get(agent)
        if since_s is None:
            return
        if 0 <= self._raising.now_s - since_s < RIGHT_S:
            self._raising.follows(replace(known, last=since_s), address)
        else:
            self._raising.over(agent, CLOCK_AHEAD)

    def _look_at_behind(self, agent: int, address: Address) -> None:
        """Judge by a quarter of an hour whether a clock is behind, and at once whether it no longer is.

        Messages that waited arrive ever younger; only a clock that is behind makes all of them
        equally old.
        """
        ages = self._ages.get(agent)
        if ages is None:
            return
        known, now_s = self._open(agent, CLOCK_BEHIND), self._raising.now_s
        whole = not 0 <= now_s - ages.since_s < RIGHT_S
        steady = ages.count >= _HEARD and ages.most - ages.least <= _STEADY_S
        if whole:
            del self._ages[agent]
        if ages.least <= _BEHIND_S:
            self._raising.over(agent, CLOCK_BEHIND)
        elif known or (whole and steady):
            alarm = Alarm(agent, CLOCK_BEHIND, 0, 0, ages.least, ages.least, now_s)
            self._raising.follows(alarm, address)

    def _certificate(self, number: int, address: Address | None, one: Expiry) -> None:
        end_s = one.span.ends_s
        place = Alarm(number, "", 0, one.which, end_s, end_s, self._raising.now_s)
        self._end_of(place, address, (CERTIFICATE_ENDS, CERTIFICATE_ENDED), one.warn_s)

    def _end_of(
        self, place: Alarm, address: Address | None, kinds: tuple[str, str], warn_s: int
    ) -> None:
        """Raise the first of two kinds from `warn_s` to the moment `place.first`, then the second."""
        now_s = self._raising.now_s
        ends, ended = warn_s <= now_s < place.first, now_s >= place.first
        for kind, holds in zip(kinds, (ends, ended), strict=True):
            if holds:
                self._raising.holds(replace(place, kind=kind), address)
            else:
                self._raising.over(place.agent, kind, place.epoch, place.stream)

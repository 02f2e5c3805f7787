"""Raises alarms and ends them, in the ledger and in the log of this process."""

import logging
from typing import Final

from aggregator.alarms import BRAIN, HAPPENED, HAPPENED_S, Severity, in_words, severity_of
from aggregator.record import Alarm, Record
from protocols.frame import SECOND, NowNs
from protocols.topics import Address

_KEPT_S: Final = 366 * 86_400
_MOST_ENDED: Final = 100_000

_log = logging.getLogger(__name__)


class Raising:
    """All calls come from the inbox's thread, in its transactions."""

    def __init__(self, record: Record, now_ns: NowNs) -> None:
        self._record = record
        self._now = now_ns

    @property
    def now_s(self) -> int:
        """The wall clock, seconds since 1970 UTC."""
        return self._now() // SECOND

    def holds(self, alarm: Alarm, address: Address | None) -> None:
        """Raise an alarm of something that holds now, and say it once."""
        if self._record.raise_alarm(alarm):
            self._say(alarm, address)

    def follows(self, alarm: Alarm, address: Address | None) -> None:
        """Raise an alarm whose range changes all the time: an open one takes it over, and is not said again."""
        known = self._record.open_alarm(alarm.agent, alarm.kind, alarm.epoch, alarm.stream)
        if self._record.raise_alarm(alarm) and known is None:
            self._say(alarm, address)

    def happened(self, alarm: Alarm, address: Address | None) -> None:
        """Raise an alarm of something that has happened, joined with the open one of its place."""
        self._record.add_to_alarm(alarm)
        self._say(alarm, address)

    def over(self, agent: int, kind: str, *place: int) -> None:
        """End the alarms of a kind: of one chain (epoch, stream), or of the whole agent."""
        self._record.clear_alarms(agent, kind, self.now_s, *place)

    def tidy(self) -> None:
        """End what happened long ago, and forget what ended long ago."""
        now_s = self.now_s
        self._record.end_old_alarms(sorted(HAPPENED), now_s - HAPPENED_S, now_s)
        self._record.forget_alarms(now_s - _KEPT_S, _MOST_ENDED)

    def _say(self, alarm: Alarm, address: Address | None) -> None:
        grave = severity_of(alarm.kind) is Severity.FAULT
        who = "brain" if alarm.agent == BRAIN or address is None else address.agent.hex()
        level = logging.ERROR if grave else logging.WARNING
        _log.log(level, "%s: %s: %s", who, alarm.kind, in_words(alarm))

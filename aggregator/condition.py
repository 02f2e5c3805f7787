"""The brain's condition: how the process and each factory do, for people and for monitoring."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from aggregator.api.knowledge import Arrival, Notice
from aggregator.outlook import late_after_s, silent_after_s
from aggregator.projection import Cursor
from aggregator.reporting import Reporter
from aggregator.trust import Trust
from protocols.frame import SECOND, NowNs
from protocols.mqtt import Mqtt

STATEMENTS: Final = frozenset({"asked", "attested", "declared_lost", "keys_listed"})
"""Counters of what agents state; it was taken, though it is no batch."""


class State(StrEnum):
    """How a factory's agent does, as far as what came tells.

    `awaited`: its card is known, nothing came yet. `fresh`: its newest values are as new as its
    slots allow. `late`: they are older. `silent`: nothing at all has come for long.
    """

    AWAITED = "awaited"
    FRESH = "fresh"
    LATE = "late"
    SILENT = "silent"


@dataclass(slots=True)
class Live:
    """What only the running process knows.

    Attributes:
        links: the connections to the brokers, once there are any.
        store_fault: why the store takes nothing, in one line; empty while it does.
        erasure_waits: why what retention has ended is not erased, in one line; empty while it is.
    """

    links: list[Mqtt] = field(default_factory=list)
    store_fault: str = ""
    erasure_waits: str = ""

    @property
    def connected(self) -> bool:
        """Whether a broker can be reached now."""
        return any(link.connected.is_set() for link in self.links)

    @property
    def trouble(self) -> str:
        """What is wrong with the brokers that cannot be reached, in one line."""
        several = len(self.links) > 1
        faults = [
            f"{link.place}: {link.trouble}" if several else link.trouble
            for link in self.links
            if link.trouble and not link.connected.is_set()
        ]
        return "; ".join(faults)


@dataclass(frozen=True, slots=True)
class AgentCondition:
    """One agent.

    Attributes:
        name: the brain's name of its firm.
        agent: its opaque id, hex.
        trust: whether its messages are taken.
        online: whether it says that it is connected; None when it never said.
        value_age_s: since the end of its newest slot; None before the first.
        kept_age_s: since its newest batch was kept; None before the first.
        batches, values, refused: so far.
        policy_version, policy_ends_s: of its newest release sheet.
    """

    name: str
    agent: str
    state: State
    trust: Trust
    online: bool | None
    value_age_s: float | None
    kept_age_s: float | None
    batches: int
    values: int
    refused: int
    policy_version: int | None
    policy_ends_s: int | None


@dataclass(frozen=True, slots=True)
class Condition:
    """Everything at one moment.

    Attributes:
        at_s: when, seconds since 1970 UTC.
        broker, broker_fault: whether one is connected, and why others are not.
        ledger_bytes: size of the ledger's files.
        waiting: batches kept but not yet in the series.
        waiting_s: age of the oldest of them; 0 for none.
        store_fault: why the store takes nothing; empty while it does.
        erasure_waits: why nothing is erased, since when and until when; empty while it is.
        counters: durable counters of the inbox, by name.
        alarms: the open ones, newest first.
    """

    at_s: int
    broker: bool
    broker_fault: str
    ledger_bytes: int
    waiting: int
    waiting_s: float
    store_fault: str
    erasure_waits: str = ""
    counters: dict[str, int] = field(default_factory=dict)
    agents: Sequence[AgentCondition] = ()
    alarms: Sequence[Notice] = ()

    @property
    def ready(self) -> bool:
        """Whether batches can come and series are written."""
        return self.broker and not self.store_fault

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


class Examiner:
    """Looks at the whole; its calls block, so they run in a worker thread."""

    def __init__(self, ledger: Path, reporter: Reporter, live: Live, now_ns: NowNs) -> None:
        self._ledger = ledger
        self._reporter = reporter
        self._live = live
        self._now = now_ns
        self._cursor = Cursor(ledger.with_name("projection.json"))

    def look(self) -> Condition:
        """Return the condition now."""
        now_s = self._now() // SECOND
        waiting, oldest_s = self._reporter.waiting(self._cursor.read().batch)
        return Condition(
            at_s=now_s,
            broker=self._live.connected,
            broker_fault=self._live.trouble,
            ledger_bytes=_size(self._ledger),
            waiting=waiting,
            waiting_s=0.0 if oldest_s is None else float(max(now_s - oldest_s, 0)),
            store_fault=self._live.store_fault,
            erasure_waits=self._live.erasure_waits,
            counters=self._reporter.counters(),
            agents=[_agent(arrival, self._now()) for arrival in self._reporter.arrivals()],
            alarms=self._reporter.alarms(),
        )


def _agent(arrival: Arrival, now_ns: int) -> AgentCondition:
    sheet = arrival.sheets[0] if arrival.sheets else None
    return AgentCondition(
        name=arrival.name,
        agent=arrival.agent,
        state=state_of(arrival, now_ns),
        trust=arrival.trust,
        online=arrival.online,
        value_age_s=_age(arrival.last_slot_end_ns, now_ns),
        kept_age_s=_age(arrival.last_received_ns, now_ns),
        batches=arrival.batches,
        values=arrival.values,
        refused=arrival.refused,
        policy_version=None if sheet is None else sheet.policy_version,
        policy_ends_s=None if sheet is None else sheet.valid_until_ns // SECOND,
    )


def state_of(arrival: Arrival, now_ns: int) -> State:
    """Tell how an agent does.

    Values are late when they are older than three of the shortest slots its newest release sheet
    has, and a minute; it is silent when nothing has been kept for as long, and a quarter of an hour.
    """
    value_age, kept_age = (
        _age(arrival.last_slot_end_ns, now_ns),
        _age(arrival.last_received_ns, now_ns),
    )
    if value_age is None or kept_age is None:
        return State.AWAITED
    points = arrival.sheets[0].points if arrival.sheets else ()
    window_s = min((point.window_s for point in points), default=0.0)
    if kept_age > silent_after_s(window_s):
        return State.SILENT
    return State.LATE if value_age > late_after_s(window_s) else State.FRESH


def _age(moment_ns: int | None, now_ns: int) -> float | None:
    return None if moment_ns is None else (now_ns - moment_ns) / SECOND


def _size(ledger: Path) -> int:
    total = 0
    for path in (ledger, ledger.with_name(f"{ledger.name}-wal")):
        try:
            total += os.stat(path).st_size  # noqa: PTH116 - the same either way; a missing -wal is no fault
        except FileNotFoundError:
            continue
    return total

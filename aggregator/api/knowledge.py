"""What the API shows besides series: who sends, under which release sheet, in what state."""

from dataclasses import dataclass
from typing import Final, Protocol

from aggregator.stores import SeriesKey
from aggregator.trust import Trust

MOST_SOURCES: Final = 200
"""How many batches behind rows one answer names."""


@dataclass(frozen=True, slots=True)
class ReleasedPoint:
    """One line of a release sheet, in public words only.

    Attributes:
        number: the point's number on the wire.
        equipment: public label of what it belongs to.
        measurand: standard name, with the state's name behind a ':' where it is one of several.
        unit: unit of the values.
        aggregate: `last`, `delta` or `state`.
        window_s: slot length in seconds.
        resolution: rounding step as decimal text in `unit`.
        retention_days: how long the brain may keep it.
    """

    number: int
    equipment: str
    measurand: str
    unit: str
    aggregate: str
    window_s: float
    resolution: str
    retention_days: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """A release sheet that the officers signed.

    Attributes:
        hash: SHA-256 of the signed content, hex.
        policy_version: version of the policy it was compiled from.
        purpose: what the data may be used for.
        right: reference of the data right or contract.
        valid_until_ns: end of validity, nanoseconds since 1970 UTC.
        received_ns: when it arrived.
        points: what it releases.
    """

    hash: str
    policy_version: int
    purpose: str
    right: str
    valid_until_ns: int
    received_ns: int
    points: tuple[ReleasedPoint, ...]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One agent, as seen from the brain.

    Attributes:
        factory, agent: opaque ids, hex.
        name: the brain's own name for the factory; never sent by it.
        trust: whether its messages are taken, see `aggregator.trust`.
        online: whether the agent says it is connected; None when it never said.
        last_received_ns: when its newest kept batch arrived; None before the first.
        last_slot_end_ns: end of its newest kept slot; None before the first.
        batches, values: kept so far.
        refused: batches refused so far.
        sheets: newest first.
    """

    factory: str
    agent: str
    name: str
    trust: Trust
    online: bool | None
    last_received_ns: int | None
    last_slot_end_ns: int | None
    batches: int
    values: int
    refused: int
    sheets: tuple[Sheet, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A batch behind a row.

    Attributes:
        factory, agent: opaque ids, hex.
        epoch, stream, sequence: its place in its chain.
        digest: SHA-256 of the sealed bytes, hex; it is in the receipt and in the log.
        log_place: which leaf of the log it is.
        start_ns, end_ns: the time it covers.
        received_ns: when it was kept.
        sheet, policy_version: under which release sheet and policy it came.
        points: numbers of the points that the row is made of.
        erased: whether its content was deleted at the end of retention.
    """

    factory: str
    agent: str
    epoch: int
    stream: int
    sequence: int
    digest: str
    log_place: int | None
    start_ns: int
    end_ns: int
    received_ns: int
    sheet: str
    policy_version: int
    points: tuple[int, ...]
    erased: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """An alarm, raised or over.

    Attributes:
        id: counts up; a newer alarm has a larger one.
        factory, agent: opaque ids of whom it concerns, hex; None where it is the brain itself.
        name: the brain's own name for the factory; empty where it is the brain itself.
        kind: see `aggregator.alarms`.
        severity: `warning` or `fault`.
        since_ns, until_ns: when it was raised, and when it was over; None while it is open.
        epoch, stream: of the chain concerned; 0 where it concerns none.
        first, last: the exact range concerned: sequences, attestations, versions, moments (s).
        text: one line for a person by language, `en` and `zh`.
    """

    id: int
    factory: str | None
    agent: str | None
    name: str
    kind: str
    severity: str
    since_ns: int
    until_ns: int | None
    epoch: int
    stream: int
    first: int
    last: int
    text: dict[str, str]


class Knowledge(Protocol):
    """Where the API asks; calls block, so they run in worker threads."""

    def arrivals(self) -> list[Arrival]:
        """Return all agents known, by name."""
        ...

    def sources(self, key: SeriesKey, start_ns: int, end_ns: int) -> list[Source]:
        """Return the newest batches behind a series' rows of a span, the oldest of them first.

        At most one more than `MOST_SOURCES`, which tells that there are more.
        """
        ...

    def alarms(self, from_ns: int | None) -> list[Notice]:
        """Return the open alarms and those that ended after a time, newest first, within a bound."""
        ...

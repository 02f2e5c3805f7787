"""What the API tells of factories: read from the ledger, in public words."""

import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

from aggregator.alarms import severity_of, words_of
from aggregator.api.knowledge import MOST_SOURCES, Arrival, Notice, ReleasedPoint, Sheet, Source
from aggregator.config import Factory
from aggregator.ledger import Ledger
from aggregator.provenance import Origin, Provenance
from aggregator.record import Alarm
from aggregator.stores import SeriesKey
from aggregator.trust import trust_of
from protocols.frame import SECOND
from protocols.topics import Address
from protocols.vocabulary.purposes import PURPOSES
from security.policy.bundle import signed_sheet
from security.policy.compiled import ReleaseSheet, SheetPoint

_MOST_ALARMS: Final = 10_000
_PURPOSE_NAMES = {code: name for name, code in PURPOSES.items()}


class Reporter:
    """Answers `Knowledge` from the ledger file, with a connection of its own."""

    def __init__(
        self,
        path: Path,
        factories: Callable[[], Mapping[Address, Factory]],
        online: Mapping[Address, bool],
    ) -> None:
        self._ledger = Ledger(path)
        self._factories = factories
        self._online = online
        self._provenance = Provenance(path, factories)
        self._lock = threading.Lock()
        self._known: dict[bytes, Sheet] = {}

    def close(self) -> None:
        """Close the connections."""
        self._ledger.close()
        self._provenance.close()

    def sources(self, key: SeriesKey, start_ns: int, end_ns: int) -> list[Source]:
        """Return the newest batches behind a series' rows of a span, see `Knowledge`."""
        found = self._provenance.of(key, start_ns, end_ns, MOST_SOURCES + 1)
        return [_source(origin) for origin in found]

    def arrivals(self) -> list[Arrival]:
        """Return all agents known, by name."""
        with self._lock:
            ids = self._ledger.agents()
            found = [
                self._arrival(address, factory, ids.get(address))
                for address, factory in self._factories().items()
            ]
        return sorted(found, key=lambda arrival: arrival.name)

    def waiting(self, after_id: int) -> tuple[int, int | None]:
        """Return how many batches came after one, and when the oldest of them was received (s)."""
        with self._lock:
            return self._ledger.waiting(after_id)

    def counters(self) -> dict[str, int]:
        """Return the inbox's durable counters."""
        with self._lock:
            return self._ledger.counters()

    def alarms(self, from_ns: int | None = None) -> list[Notice]:
        """Return the open alarms and those that ended after a time, newest first, within a bound."""
        from_s = None if from_ns is None else from_ns // SECOND
        with self._lock:
            agents = {number: address for address, number in self._ledger.agents().items()}
            found = self._ledger.record.all_alarms(from_s, _MOST_ALARMS)
        return [_notice(alarm, agents.get(alarm.agent), self._factories()) for alarm in found]

    def _arrival(self, address: Address, factory: Factory, agent: int | None) -> Arrival:
        batches, values, refused, received_s, end_s = (
            self._ledger.totals(agent) if agent is not None else (0, 0, 0, None, None)
        )
        quarantine = "" if agent is None else self._ledger.record.quarantine_of(agent)
        return Arrival(
            factory=address.factory.hex(),
            agent=address.agent.hex(),
            name=factory.enterprise,
            trust=trust_of(quarantine, factory),
            online=self._online.get(address),
            last_received_ns=None if received_s is None else received_s * SECOND,
            last_slot_end_ns=None if end_s is None else end_s * SECOND,
            batches=batches,
            values=values,
            refused=refused,
            sheets=self._sheets(agent) if agent is not None else (),
        )

    def _sheets(self, agent: int) -> tuple[Sheet, ...]:
        for sheet_hash, received_s, signed in (rows := self._ledger.sheets(agent)):
            if sheet_hash not in self._known:
                sheet = signed_sheet(signed).sheet
                self._known[sheet_hash] = _sheet(sheet_hash, received_s, sheet)
        return tuple(self._known[row[0]] for row in rows)


def _notice(alarm: Alarm, address: Address | None, factories: Mapping[Address, Factory]) -> Notice:
    factory = factories.get(address) if address is not None else None
    en, zh = words_of(alarm)
    return Notice(
        id=alarm.id,
        factory=None if address is None else address.factory.hex(),
        agent=None if address is None else address.agent.hex(),
        name="" if factory is None else factory.enterprise,
        kind=alarm.kind,
        severity=severity_of(alarm.kind),
        since_ns=alarm.since_s * SECOND,
        until_ns=None if alarm.until_s is None else alarm.until_s * SECOND,
        epoch=alarm.epoch,
        stream=alarm.stream,
        first=alarm.first,
        last=alarm.last,
        text={"en": en, "zh": zh},
    )


def _source(origin: Origin) -> Source:
    batch = origin.batch
    return Source(
        factory=origin.address.factory.hex(),
        agent=origin.address.agent.hex(),
        epoch=batch.epoch,
        stream=batch.stream,
        sequence=batch.sequence,
        digest=batch.digest.hex(),
        log_place=batch.place,
        start_ns=batch.start_s * SECOND,
        end_ns=batch.end_s * SECOND,
        received_ns=batch.received_s * SECOND,
        sheet=batch.sheet.hex(),
        policy_version=origin.sheet.policy_version,
        points=tuple(point.number for point in origin.points),
        erased=bool(batch.erased),
    )


def _sheet(sheet_hash: bytes, received_s: int, sheet: ReleaseSheet) -> Sheet:
    windows = {stream.id: stream.window_s for stream in sheet.streams}
    return Sheet(
        hash=sheet_hash.hex(),
        policy_version=sheet.policy_version,
        purpose=_PURPOSE_NAMES.get(sheet.purpose, str(sheet.purpose)),
        right=sheet.right,
        valid_until_ns=sheet.valid_until * SECOND,
        received_ns=received_s * SECOND,
        points=tuple(_point(p, windows[p.stream], sheet.retention_days) for p in sheet.points),
    )


def _point(point: SheetPoint, window_s: int, retention_days: int) -> ReleasedPoint:
    resolution = format(Decimal(point.step).scaleb(point.exponent), "f")
    return ReleasedPoint(
        number=point.number,
        equipment=point.equipment,
        measurand=point.measurand + (f":{point.part}" if point.part else ""),
        unit=point.unit,
        aggregate=point.aggregate,
        window_s=float(window_s),
        resolution=resolution,
        retention_days=retention_days,
    )

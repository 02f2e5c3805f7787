"""Where a row comes from: the batches, the release sheet and the place in the log behind it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aggregator.config import Factory
from aggregator.ledger import Batch, Ledger
from aggregator.stores import ENTERPRISE, EQUIPMENT, SITE, SeriesKey
from protocols.frame import SECOND
from protocols.topics import Address
from security.policy.bundle import signed_sheet
from security.policy.compiled import ReleaseSheet, SheetPoint

_MOST_SHEETS: Final = 256


@dataclass(frozen=True, slots=True)
class Origin:
    """One batch that a row comes from, or may have come from.

    Attributes:
        address: whose batch it is.
        batch: it, as the ledger has it.
        sheet: under which release sheet it came.
        points: the lines of the sheet that the row is made of.
    """

    address: Address
    batch: Batch
    sheet: ReleaseSheet
    points: tuple[SheetPoint, ...]


class Provenance:
    """Answers where rows come from, with a ledger connection of its own."""

    def __init__(self, path: Path, factories: Callable[[], Mapping[Address, Factory]]) -> None:
        self._ledger = Ledger(path)
        self._factories = factories
        self._lock = threading.Lock()
        self._sheets: dict[tuple[int, bytes], ReleaseSheet] = {}

    def close(self) -> None:
        """Close the connection."""
        self._ledger.close()

    def of(self, key: SeriesKey, start_ns: int, end_ns: int, limit: int) -> list[Origin]:
        """Return the newest batches behind a series' rows of a span, the oldest of them first.

        A batch is named when it covers a part of the span and its sheet releases a point that the
        series is made of. Where a slot was sent as missing and filled later, both are named.
        """
        tags = dict(key.tags)
        with self._lock:
            found = [
                origin
                for address, number in self._ledger.agents().items()
                if self._is_of(address, tags)
                for origin in self._origins(address, number, tags, (start_ns, end_ns), limit)
            ]
        return sorted(found, key=lambda one: one.batch.id)[-limit:]

    def _is_of(self, address: Address, tags: Mapping[str, str]) -> bool:
        factory = self._factories().get(address)
        if factory is None or factory.enterprise != tags.get(ENTERPRISE):
            return False
        return tags.get(SITE, factory.site) == factory.site

    def _origins(
        self,
        address: Address,
        agent: int,
        tags: Mapping[str, str],
        span: tuple[int, int],
        limit: int,
    ) -> Iterator[Origin]:
        sheets = {one: self._sheet(agent, one) for _, one in self._ledger.sheets_in_order([agent])}
        fitting: dict[tuple[bytes, int], list[SheetPoint]] = {}
        for one, sheet in sheets.items():
            for point in sheet.points:
                if _fits(point, tags):
                    fitting.setdefault((one, point.stream), []).append(point)
        streams = sorted({stream for _, stream in fitting})
        # Up to and with the second that the span ends in.
        start_s, end_s = span[0] // SECOND, -(-span[1] // SECOND)
        for batch in self._ledger.covering(agent, streams, start_s, end_s, limit):
            points = fitting.get((batch.sheet, batch.stream))
            if points is not None:
                yield Origin(address, batch, sheets[batch.sheet], tuple(points))

    def _sheet(self, agent: int, sheet_hash: bytes) -> ReleaseSheet:
        found = self._sheets.get((agent, sheet_hash))
        if found is None:
            if len(self._sheets) >= _MOST_SHEETS:
                self._sheets.clear()
            signed = self._ledger.sheet(agent, sheet_hash) or b""
            found = self._sheets[agent, sheet_hash] = signed_sheet(signed).sheet
        return found


def _fits(point: SheetPoint, tags: Mapping[str, str]) -> bool:
    """Tell whether a series with these tags can be made of a point."""
    equipment = tags.get(EQUIPMENT) or tags.get("source_id") or point.equipment
    return (
        point.equipment == equipment and tags.get("measurand", point.measurand) == point.measurand
    )

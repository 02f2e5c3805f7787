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

_MOST: Final = 200


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

    def close(self) -> None:
        """Close the connection."""
        self._ledger.close()

    def of(self, key: SeriesKey, start_ns: int, end_ns: int) -> list[Origin]:
        """Return the batches behind a series' rows of a span, oldest first, at most 200.

        A batch is named when it covers a part of the span and its sheet releases a point that the
        series is made of. Where a slot was sent as missing and filled later, both are named.
        """
        tags = dict(key.tags)
        with self._lock:
            found = [
                origin
                for address, number in self._ledger.agents().items()
                if self._is_of(address, tags)
                for origin in self._origins(address, number, tags, start_ns, end_ns)
            ]
        return sorted(found, key=lambda one: one.batch.id)[:_MOST]

    def _is_of(self, address: Address, tags: Mapping[str, str]) -> bool:
        factory = self._factories().get(address)
        if factory is None or factory.enterprise != tags.get(ENTERPRISE):
            return False
        return tags.get(SITE, factory.site) == factory.site

    def _origins(
        self, address: Address, agent: int, tags: Mapping[str, str], start_ns: int, end_ns: int
    ) -> Iterator[Origin]:
        sheets: dict[bytes, ReleaseSheet | None] = {}
        # Up to and with the second that the span ends in.
        end_s = -(-end_ns // SECOND)
        for batch in self._ledger.covering(agent, start_ns // SECOND, end_s, _MOST):
            if batch.sheet not in sheets:
                signed = self._ledger.sheet(agent, batch.sheet)
                sheets[batch.sheet] = None if signed is None else signed_sheet(signed).sheet
            sheet = sheets[batch.sheet]
            if sheet is None:
                continue
            points = tuple(p for p in sheet.points if p.stream == batch.stream and _fits(p, tags))
            if points:
                yield Origin(address, batch, sheet, points)


def _fits(point: SheetPoint, tags: Mapping[str, str]) -> bool:
    """Tell whether a series with these tags can be made of a point."""
    equipment = tags.get(EQUIPMENT) or tags.get("source_id") or point.equipment
    return (
        point.equipment == equipment and tags.get("measurand", point.measurand) == point.measurand
    )

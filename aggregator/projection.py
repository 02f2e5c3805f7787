"""The projection: from the ledger to the stores, with a cursor of its own.

Series are a pure function of the ledger, the factor sets and this code, so everything can be
written again at any time: rows have the same keys and replace themselves. A slow or lost store
delays series, never receipts.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from aggregator.config import Factory
from aggregator.factors import Factors
from aggregator.inbox import KnownSheet, Opener
from aggregator.ledger import Kept, Ledger
from aggregator.retention import forget_ended
from aggregator.series import carbon, future_factory
from aggregator.series.runs import PointSet, Runs
from aggregator.series.slots import ReleasedSlots, merge
from aggregator.stores import SeriesBlock, Store, StoreRefused
from protocols.batch import Block
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.topics import Address

_BATCHES: Final = 64
_MOST_POINT_SETS: Final = 4096
_VERSION: Final = 1

_log = logging.getLogger(__name__)


Names = dict[str, list[str]]
"""By an agent's number in the ledger: its enterprise and site when its rows were written."""


@dataclass(slots=True)
class Position:
    """How far the ledger has been projected.

    Attributes:
        batch: the last projected batch.
        rules: fingerprint of what else decides about rows.
        names: under which names rows were written.
    """

    batch: int = 0
    rules: str = ""
    names: Names = field(default_factory=dict)


class Cursor:
    """Keeps the position in a small file, written atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Position:
        """Return the position; the very beginning when there is none."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return Position(int(found["batch"]), str(found["rules"]), dict(found["names"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Position()

    def write(self, position: Position) -> None:
        """Note the position."""
        part = self._path.with_name(f".{self._path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(asdict(position), file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)


class Projection:
    """Writes series; all calls come from one thread at a time."""

    def __init__(
        self,
        ledger: Ledger,
        opener: Opener,
        stores: Mapping[str, Store],
        factors: Factors,
        factories: Callable[[], Mapping[Address, Factory]],
        cursor: Cursor,
        rules: str,
    ) -> None:
        self._ledger = ledger
        self._opener = opener
        self._stores = stores
        self._factors = factors
        self._factories = factories
        self._cursor = cursor
        self._rules = hashlib.sha256(f"{_VERSION}/{rules}".encode()).hexdigest()
        self._names: dict[int, Factory] = {}
        self._looked = False
        self._point_sets: dict[tuple[int, str, str, bytes, int, bytes], PointSet] = {}

    def step(self) -> int:
        """Project the next batches; return how many there were.

        Rows that a store refuses for good are told and passed over: the store has taken the
        others, and all come again when the series are written anew.

        Raises:
            StoreUnavailable: nothing is lost; call again later.
        """
        position = self._refreshed()
        batches = self._ledger.batches(position.batch, _BATCHES)
        if not batches:
            return 0
        for bucket, blocks in self.blocks(batches).items():
            try:
                self._stores[bucket].write(blocks)
            except StoreRefused as fault:
                _log.error("%s", fault)
        position.batch = batches[-1].id
        self._cursor.write(position)
        return len(batches)

    def _refreshed(self) -> Position:
        """Return where to go on; the very beginning when rows must be written anew.

        That is when the rules or a name have changed, an older ledger was put back, or a factory is
        known (again) of which batches were passed over.
        """
        position = self._cursor.read()
        self.name_agents()
        names: Names = {str(n): [one.enterprise, one.site] for n, one in self._names.items()}
        new = [number for number in names if number not in position.names]
        stale = (
            self._stores_are_empty(position)
            or position.rules != self._rules
            # An older ledger was put back: its next batches have numbers that were passed.
            or position.batch > self._ledger.newest_batch()
            or any(names.get(number, old) != old for number, old in position.names.items())
            or any(self._ledger.has_batches(int(number), position.batch) for number in new)
        )
        if stale:
            if position.batch:
                _log.info(
                    "%s",
                    tr(
                        "series are written anew from the ledger: rules, names or stores have changed",
                        "规则、名称或存储已变化：正从账本重新生成序列",
                    ),
                )
            self.clear()
            position = Position(rules=self._rules)
        position.names |= names
        if stale or new:
            self._cursor.write(position)
        return position

    def _stores_are_empty(self, position: Position) -> bool:
        """Tell, once, whether stores that should hold something were taken away or lost."""
        if self._looked or not position.batch:
            return False
        empty = not any(
            self._stores[module.BUCKET].count(measurement)
            for module in (future_factory, carbon)
            for measurement in module.MEASUREMENTS
        )
        self._looked = True
        return empty

    def name_agents(self) -> None:
        """Look up what the brain calls the agents that it knows."""
        factories = self._factories()
        self._names = {
            number: factories[address]
            for address, number in self._ledger.agents().items()
            if address in factories
        }

    def forget_ended(self, now_s: int) -> set[Address]:
        """Delete what may not be kept any longer; return whose it was.

        Only of agents that have a name: under it their rows are found. Call when `step` has
        nothing to do, so that no row is written after it was deleted.

        Raises:
            StoreUnavailable, LedgerError: a part is deleted; call again later.
        """
        touched = forget_ended(
            self._ledger, self._opener, self.blocks, self._stores, list(self._names), now_s
        )
        return {self._ledger.address(agent) for agent in touched}

    def close(self) -> None:
        """Close the projection's own ledger connection."""
        self._ledger.close()

    def clear(self) -> None:
        """Remove all series."""
        for module in (future_factory, carbon):
            for measurement in module.MEASUREMENTS:
                self._stores[module.BUCKET].delete(measurement)

    def blocks(self, batches: Sequence[Kept]) -> dict[str, list[SeriesBlock]]:
        """Return what batches mean, by bucket."""
        factory: list[SeriesBlock] = []
        emission: list[SeriesBlock] = []
        for slots in self._released(batches):
            factory += future_factory.project(slots)
            emission += carbon.project(slots, self._factors)
        return {future_factory.BUCKET: merge(factory), carbon.BUCKET: merge(emission)}

    def _released(self, batches: Sequence[Kept]) -> Iterator[ReleasedSlots]:
        runs = Runs()
        for kept in batches:
            known = self._sheet(kept)
            name = self._names.get(kept.agent)
            if known is not None and name is not None:
                for block in self._opened(kept):
                    yield from runs.add(self._points(kept, known, name, block), block)
        yield from runs.rest()

    def _sheet(self, kept: Kept) -> KnownSheet | None:
        try:
            return self._opener.sheet(kept.agent, kept.sheet)
        except MillgateError as fault:
            # It was verified before it was kept, so the factory's card has other officers now.
            _log.error("the sheet of batch %d cannot be verified: %s", kept.id, fault.what)
            return None

    def _opened(self, kept: Kept) -> list[Block]:
        try:
            return [block for _, block in self._opener.blocks(kept)]
        except MillgateError as fault:
            # It was opened before it was kept, so this is a damaged ledger or a changed key.
            _log.error("batch %d of the ledger cannot be opened: %s", kept.id, fault.what)
            return []

    def _points(self, kept: Kept, known: KnownSheet, name: Factory, block: Block) -> PointSet:
        """Return the points of a block; agents send the same few sets of them."""
        numbers = block.numbers.tobytes()
        place = (kept.agent, name.enterprise, name.site, kept.sheet, kept.stream, numbers)
        found = self._point_sets.get(place)
        if found is None:
            terms = known.streams[kept.stream]
            points = tuple(terms.points[at] for at in terms.places(block.numbers).tolist())
            if len(self._point_sets) >= _MOST_POINT_SETS:
                self._point_sets.clear()
            found = PointSet.of(name.enterprise, name.site, terms.window_s, points)
            self._point_sets[place] = found
        return found

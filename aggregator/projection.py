"""The projection: from the ledger to the stores, with a cursor of its own.

Series are a pure function of the ledger, the factor sets and this code, so everything can be
written again at any time: rows have the same keys and replace themselves. A slow or lost store
delays series, never receipts.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from aggregator.alarms import PASSED_OVER
from aggregator.config import Factory
from aggregator.derivation import MEASUREMENTS as DERIVED
from aggregator.derivation import Derivation
from aggregator.factors import Factors
from aggregator.inbox import KnownSheet, Opener
from aggregator.ledger import Kept, Ledger, LedgerError
from aggregator.localtime import UTC, LocalTime
from aggregator.ownership import Owners, columns_of, second_sources
from aggregator.raising import Raising
from aggregator.receipts import Thinning
from aggregator.record import Alarm
from aggregator.retention import MadeOf, forget_ended
from aggregator.revisions import Revisions
from aggregator.series import carbon, future_factory
from aggregator.series.derived.site import PlanPoint, Site, plan_of
from aggregator.series.future_factory import NO_TERMS, EnergyTerms
from aggregator.series.runs import PointSet, Runs
from aggregator.series.slots import ReleasedSlots, chosen_rows, merge
from aggregator.stores import (
    FieldColumn,
    RowSpan,
    SeriesBlock,
    SeriesKey,
    Store,
    StoreRefused,
    StoreUnavailable,
)
from protocols.batch import Block
from protocols.errors import MillgateError
from protocols.frame import SECOND, Flags
from protocols.language import tr
from protocols.topics import Address
from protocols.vocabulary import export
from protocols.vocabulary.measurands import VERSION
from security.keys import VerifyKey
from security.policy.compiled import SheetPoint

_BATCHES: Final = 64
_PIECES: Final = 8
_MOST_POINT_SETS: Final = 4096
_VERSION: Final = 4

_log = logging.getLogger(__name__)


Todo = tuple[str, str, int, int, int]
"""Enterprise, site, first UTC hour, the one after the last, whether to remove what is there first."""

Names = dict[str, list[str]]
"""By an agent's number in the ledger: its enterprise and site when its rows were written."""


@dataclass(slots=True)
class Position:
    """How far the ledger has been projected.

    Attributes:
        batch: the last projected batch.
        digest: its hash, hex.
        rules: fingerprint of what else decides about rows.
        names: under which names rows were written.
        derived: the last batch whose hours are noted in `again`.
        sites: fingerprint of what decides about each site's derived rows beside other rows.
        again: what is still to be derived: [enterprise, site, first UTC hour, the one after the last,
            1 where what is there must be removed first].
    """

    batch: int = 0
    digest: str = ""
    rules: str = ""
    names: Names = field(default_factory=dict)
    derived: int = 0
    sites: dict[str, str] = field(default_factory=dict)
    again: list[Todo] = field(default_factory=list)


class Cursor:
    """Keeps the position in a small file, written atomically.

    Attributes:
        wanted: a file that is there while somebody wants all series to be written anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.wanted = path.with_name("rebuild.wanted")

    def read(self) -> Position:
        """Return the position; the very beginning when there is none."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return Position(
                int(found["batch"]),
                str(found["digest"]),
                str(found["rules"]),
                dict(found["names"]),
                int(found["derived"]),
                dict(found["sites"]),
                [_todo(*each) for each in found["again"]],
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Position()

    def ask_anew(self) -> None:
        """Ask that all series be written anew, now or at the next start."""
        self.wanted.touch(mode=0o600)

    @property
    def asked_anew(self) -> bool:
        """Whether somebody asked that all series be written anew."""
        return self.wanted.exists()

    def begun_anew(self) -> None:
        """Note that what was asked for is under way: the position says so."""
        self.wanted.unlink(missing_ok=True)

    def write(self, position: Position) -> None:
        """Note the position."""
        part = self._path.with_name(f".{self._path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(asdict(position), file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)


def _todo(enterprise: str, site: str, first: int, last: int, anew: int) -> Todo:
    return str(enterprise), str(site), int(first), int(last), int(anew)


class Projection:
    """Writes series; all calls come from one thread at a time.

    Args:
        terms: what energy rows need.
        local: tells which year a slot is in.
        revisions: factors that were used before; None keeps none.
        derivation: computes combined series; None computes none.
    """

    def __init__(
        self,
        ledger: Ledger,
        opener: Opener,
        stores: Mapping[str, Store],
        factors: Factors,
        factories: Callable[[], Mapping[Address, Factory]],
        cursor: Cursor,
        rules: str,
        terms: EnergyTerms = NO_TERMS,
        local: LocalTime = UTC,
        revisions: Revisions | None = None,
        derivation: Derivation | None = None,
    ) -> None:
        self._ledger = ledger
        self._opener = opener
        self._stores = stores
        self._factors = factors
        self._factories = factories
        self._cursor = cursor
        self._rules = hashlib.sha256(f"{_VERSION}/{export.digest()}/{rules}".encode()).hexdigest()
        self._terms = terms
        self._local = local
        self._revisions = revisions
        self._derivation = derivation
        self._owners = Owners(ledger, opener)
        self._plans: dict[tuple[str, str], tuple[tuple[bytes, ...], tuple[PlanPoint, ...]]] = {}
        self._names: dict[int, Factory] = {}
        self._looked = self._noted = self._examined = False
        self._point_sets: dict[tuple[int, str, str, bytes, int, bytes], _Points] = {}
        self._raising = Raising(ledger.record, time.time_ns)
        self._unreadable: list[Kept] = []
        self._thinning: Thinning | None = None

    def step(self) -> int:
        """Project the next batches; return how many there were.

        Rows that a store refuses for good are told and passed over: the store has taken the
        others, and all come again when the series are written anew.

        Raises:
            StoreUnavailable: nothing is lost; call again later.
        """
        position = self._refreshed()
        batches = self._same_revision(self._ledger.batches(position.batch, _BATCHES))
        if not batches:
            return 0
        self._project(batches)
        position.batch, position.digest = batches[-1].id, batches[-1].digest.hex()
        self._cursor.write(position)
        return len(batches)

    def _project(self, batches: Sequence[Kept]) -> None:
        """Write what batches mean; one that cannot be is passed over alone, and told."""
        self._unreadable.clear()
        try:
            for bucket, blocks in self.blocks(batches).items():
                self._write(bucket, self._known_first(bucket, blocks))
        except (StoreUnavailable, LedgerError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever one batch does, it must not stop the others
            if len(batches) == 1:
                _log.error("batch %d cannot be projected: %s", batches[0].id, type(error).__name__)
                self._tell_passed_over(batches)
                return
            for kept in batches:
                self._project([kept])
            return
        self._tell_passed_over(self._unreadable)

    def _tell_passed_over(self, batches: Sequence[Kept]) -> None:
        if not batches:
            return
        with self._ledger.transaction():
            for kept in batches:
                epoch, stream, sequence = self._ledger.place_of(kept.id)
                alarm = Alarm(
                    kept.agent, PASSED_OVER, epoch, stream, sequence, sequence, self._raising.now_s
                )
                self._raising.happened(alarm, self._ledger.address(kept.agent))

    def _write(self, bucket: str, blocks: Sequence[SeriesBlock]) -> None:
        try:
            self._stores[bucket].write(blocks)
        except StoreRefused as fault:
            _log.error("%s", fault)

    def _same_revision(self, batches: list[Kept]) -> list[Kept]:
        """Cut batches where a revision of the factors ended, so that all have the same past."""
        if not batches:
            return batches
        past = self._revisions.past if self._revisions else []
        edges = [one.up_to for one in past if one.up_to >= batches[0].id]
        edge = min(edges, default=batches[-1].id)
        return [kept for kept in batches if kept.id <= edge]

    def _known_first(self, bucket: str, blocks: list[SeriesBlock]) -> list[SeriesBlock]:
        """Leave out states that are not known where the store knows them from another batch.

        A slot that one chain tells as missing may have come in another, before or after it.
        """
        return [
            self._only_news(self._stores[bucket], block)
            if block.key.measurement == "ff_equipment_state"
            else block
            for block in blocks
        ]

    def _only_news(self, store: Store, block: SeriesBlock) -> SeriesBlock:
        blank = np.asarray(block.fields["coverage"]) <= 0
        if not blank.any():
            return block
        times = block.time[blank]
        found = store.query(block.key, ["coverage"], int(times[0]), int(times[-1]) + 1)
        coverage = np.asarray(found.fields.get("coverage", np.zeros(len(found))), np.float64)
        told = blank & np.isin(block.time, found.time[coverage > 0])
        if not told.any():
            return block
        return SeriesBlock(block.key, block.time[~told], chosen_rows(dict(block.fields), ~told))

    def _refreshed(self) -> Position:
        """Return where to go on; the very beginning when rows must be written anew.

        That is when the rules or a name have changed, an older ledger was put back, or a factory is
        known (again) of which batches were passed over.
        """
        position = self._cursor.read()
        self.name_agents()
        if self._owners.refresh(self._names):
            self._point_sets.clear()
        if self._revisions is not None and not self._noted:
            self._revisions.note(position.batch)
            self._noted = True
        names: Names = {str(n): [one.enterprise, one.site] for n, one in self._names.items()}
        new = [number for number in names if number not in position.names]
        asked = self._cursor.asked_anew
        stale = (
            asked
            or self._stores_are_empty(position)
            or position.rules != self._rules
            # An older ledger was put back: batches that came since have numbers that were passed.
            or (position.batch and self._ledger.digest_of(position.batch).hex() != position.digest)
            or any(names.get(number, old) != old for number, old in position.names.items())
            or any(self._ledger.has_batches(int(number), position.batch) for number in new)
        )
        if stale:
            if position.batch:
                _log.info(
                    "%s",
                    tr(
                        "series are written anew from the ledger: rules, names or stores have changed, "
                        "or somebody asked for it",
                        "规则、名称或存储已变化，或有人要求：正从账本重新生成序列",
                    ),
                )
            self.clear()
            self._nothing_passed_over()
            position = Position(rules=self._rules)
        position.names |= names
        if stale or new:
            self._cursor.write(position)
        if asked:
            self._cursor.begun_anew()
        return position

    def _nothing_passed_over(self) -> None:
        with self._ledger.transaction():
            for agent in self._ledger.agents().values():
                self._raising.over(agent, PASSED_OVER)

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

    def _made_of(self, batches: Sequence[Kept], window_s: int) -> MadeOf:
        """Return where the rows made of batches are, having noted what to combine anew without them."""
        found = self._combined_of(batches)
        self._unreadable.clear()
        rest = list(batches)
        while rest:
            part = self._same_revision(rest)
            for bucket, blocks in self.blocks(part).items():
                spans = [span for block in blocks for span in _spans(block, window_s)]
                found.setdefault(bucket, []).extend(spans)
            rest = rest[len(part) :]
        return MadeOf(found, frozenset(kept.id for kept in self._unreadable))

    def _combined_of(self, batches: Sequence[Kept]) -> dict[str, list[RowSpan]]:
        found: dict[str, list[RowSpan]] = {}
        if self._derivation is None:
            return found
        position = self._cursor.read()
        touched: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for kept in batches:
            name = self._names[kept.agent]
            place = (name.enterprise, name.site)
            touched.setdefault(place, []).append((kept.start_s // 3600, kept.end_s // 3600))
        for place, hours in touched.items():
            site, _ = self._derivation.site(*place, self._plan(*place))
            ranges = self._derivation.ranges(site, hours)
            _add(position, site, ranges, anew=1)
            for span in ranges:
                for bucket, spans in self._derivation.made_of(site, span).items():
                    found.setdefault(bucket, []).extend(spans)
        self._cursor.write(position)
        return found

    def forget_ended(self, now_s: int) -> set[Address]:
        """Delete what may not be kept any longer; return whose it was.

        Only of agents that have a name: under it their rows are found. Call when `step` has
        nothing to do, so that no row is written after it was deleted.

        Raises:
            StoreUnavailable, LedgerError: a part is deleted; call again later.
        """
        touched = forget_ended(
            self._ledger, self._opener, self._made_of, self._stores, list(self._names), now_s
        )
        return {self._ledger.address(agent) for agent in touched}

    def forget_receipts(self, key: VerifyKey, now_s: int) -> None:
        """Delete what no evidence needs of old receipts; see `receipts`.

        Raises:
            LedgerError: a part is deleted; call again later.
        """
        if self._thinning is None:
            self._thinning = Thinning(self._ledger, key)
        self._thinning.go_on(now_s)

    def close(self) -> None:
        """Close the projection's own ledger connection."""
        self._ledger.close()

    def clear(self) -> None:
        """Remove all series, and say under which vocabulary the new ones are written."""
        version: dict[str, FieldColumn] = {
            "version": np.array([VERSION], np.int64),
            "sha256": [export.digest()],
        }
        mark = SeriesBlock(SeriesKey("vocabulary", ()), np.zeros(1, np.int64), version)
        for module in (future_factory, carbon):
            store = self._stores[module.BUCKET]
            for measurement in (*module.MEASUREMENTS, *DERIVED[module.BUCKET]):
                try:
                    store.delete(measurement)
                except StoreRefused as fault:
                    # What is written again replaces itself; what has another name now stays.
                    _log.error("%s", fault)
            self._write(module.BUCKET, [mark])

    def blocks(self, batches: Sequence[Kept]) -> dict[str, list[SeriesBlock]]:
        """Return what batches mean, by bucket."""
        factory: list[SeriesBlock] = []
        emission: list[SeriesBlock] = []
        past = self._revisions.past if self._revisions else []
        past = [one for one in past if batches and batches[-1].id <= one.up_to]
        refused: list[SeriesBlock] = []
        for slots in self._released(batches, refused):
            factory += future_factory.project(slots, self._terms)
            now = list(carbon.project(slots, self._factors, self._local))
            emission += now
            for one in past:
                emission += carbon.superseded(slots, one.factors, self._local, one.number, now)
        factory = [*refused, *known_last(factory)]
        return {future_factory.BUCKET: merge(factory), carbon.BUCKET: merge(emission)}

    def _released(
        self, batches: Sequence[Kept], refused: list[SeriesBlock]
    ) -> Iterator[ReleasedSlots]:
        runs = Runs()
        for kept in batches:
            known = self._sheet(kept)
            name = self._names.get(kept.agent)
            if known is not None and name is not None:
                for block in self._opened(kept):
                    points, own = self._points(kept, known, name, block)
                    mine = block
                    if own is not None:
                        refused += second_sources(points.all, own, block)
                        mine = columns_of(block, own)
                    if len(mine.numbers):
                        yield from runs.add(points.own, mine)
        yield from runs.rest()

    def _sheet(self, kept: Kept) -> KnownSheet | None:
        try:
            return self._opener.sheet(kept.agent, kept.sheet)
        except MillgateError as fault:
            # It was verified before it was kept, so the factory's card has other officers now.
            _log.error("the sheet of batch %d cannot be verified: %s", kept.id, fault.what)
            self._unreadable.append(kept)
            return None

    def _opened(self, kept: Kept) -> list[Block]:
        try:
            return [block for _, block in self._opener.blocks(kept)]
        except MillgateError as fault:
            # It was opened before it was kept, so this is a damaged ledger or a changed key.
            _log.error("batch %d of the ledger cannot be opened: %s", kept.id, fault.what)
            self._unreadable.append(kept)
            return []

    def _points(
        self, kept: Kept, known: KnownSheet, name: Factory, block: Block
    ) -> tuple["_Points", Flags | None]:
        """Return the points of a block, and which of them are the agent's own; None: all.

        Agents send the same few sets of them.
        """
        numbers = block.numbers.tobytes()
        place = (kept.agent, name.enterprise, name.site, kept.sheet, kept.stream, numbers)
        found = self._point_sets.get(place)
        if found is None:
            terms = known.streams[kept.stream]
            lines = tuple(terms.points[at] for at in terms.places(block.numbers).tolist())
            own = self._owners.own(kept.agent, name, lines)
            where = (name.enterprise, name.site, terms.window_s)
            every = PointSet.of(*where, lines)
            mine = every
            if not own.all():
                kept_lines = [line for line, take in zip(lines, own, strict=True) if take]
                mine = PointSet.of(*where, tuple(kept_lines))
            if len(self._point_sets) >= _MOST_POINT_SETS:
                self._point_sets.clear()
            found = _Points(every, mine, None if own.all() else own)
            self._point_sets[place] = found
        return found, found.mask

    # Combined series.

    def derive(self) -> bool:
        """Compute the next piece of combined series; return whether there is more to do.

        Call when `step` has nothing to do, or now and then while it has.

        Raises:
            StoreUnavailable: nothing is lost; call again later.
        """
        if self._derivation is None:
            return False
        position = self._cursor.read()
        if position.rules != self._rules:
            return False
        self._note_again(self._derivation, position)
        if not position.again:
            return False
        # What is done again after a crash replaces itself, so a few pieces share one note.
        pieces, position.again = position.again[:_PIECES], position.again[_PIECES:]
        for enterprise, name, first, last, anew in pieces:
            if (enterprise, name) in self._sites():
                site, _ = self._derivation.site(enterprise, name, self._plan(enterprise, name))
                self._derive_piece(self._derivation, site, (first, last), anew)
        self._cursor.write(position)
        return bool(position.again)

    @staticmethod
    def _derive_piece(
        derivation: Derivation, site: Site, hours: tuple[int, int], anew: int
    ) -> None:
        try:
            if anew:
                derivation.clear(site, hours)
                derivation.tell_facts(site)
            derivation.derive(site, *hours)
        except StoreUnavailable:
            raise
        except StoreRefused as fault:
            _log.error("%s", fault)
        except Exception as error:  # noqa: BLE001 - one site's hours must not stop the others
            _log.error(
                "hours %d-%d of %s/%s cannot be combined: %s",
                *hours,
                site.enterprise,
                site.site,
                type(error).__name__,
            )

    def _note_again(self, derivation: Derivation, position: Position) -> None:
        """Note what new batches, sheets and facts make anew."""
        people_changed = derivation.look() or not self._examined
        touched: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for agent, first, last in self._ledger.hours(position.derived, position.batch):
            if agent in self._names:
                place = self._names[agent].enterprise, self._names[agent].site
                touched.setdefault(place, []).append((first, last))
        for place in self._sites() if people_changed else list(touched):
            site, fingerprint = derivation.site(*place, self._plan(*place))
            name = "/".join(place)
            before = position.sites.get(name)
            if before != fingerprint:
                position.sites[name] = fingerprint
                derivation.tell_facts(site)
                if before is not None:
                    self._all_anew(derivation, position, site)
                    touched.pop(place, None)
        for place, hours in touched.items():
            site, _ = derivation.site(*place, self._plan(*place))
            _add(position, site, derivation.ranges(site, hours), anew=0)
        changed = position.derived != position.batch or people_changed or bool(touched)
        position.derived = position.batch
        self._examined = True
        if changed:
            self._cursor.write(position)

    def _all_anew(self, derivation: Derivation, position: Position, site: Site) -> None:
        derivation.clear(site)
        derivation.tell_facts(site)
        hours = [
            (first, last)
            for agent, first, last in self._ledger.hours(0, position.batch)
            if agent in self._names
            and self._names[agent].enterprise == site.enterprise
            and self._names[agent].site == site.site
        ]
        _add(position, site, derivation.ranges(site, hours), anew=0)

    def _sites(self) -> set[tuple[str, str]]:
        return {(one.enterprise, one.site) for one in self._names.values()}

    def _plan(self, enterprise: str, site: str) -> tuple[PlanPoint, ...]:
        """Return what a site releases, after all its sheets."""
        agents = sorted(
            n for n, one in self._names.items() if (one.enterprise, one.site) == (enterprise, site)
        )
        sheets = self._ledger.sheets_in_order(agents)
        hashes = tuple(sheet_hash for _, sheet_hash in sheets)
        known = self._plans.get((enterprise, site))
        if known is None or known[0] != hashes:
            lines = [line for agent, one in sheets for line in self._lines(agent, one)]
            known = self._plans[enterprise, site] = (hashes, plan_of(lines))
        return known[1]

    def _lines(self, agent: int, sheet_hash: bytes) -> list[tuple[SheetPoint, int]]:
        try:
            known = self._opener.sheet(agent, sheet_hash)
        except MillgateError:
            # Told where its batches are projected.
            return []
        if known is None:
            return []
        sheet = known.signed.sheet
        windows = {stream.id: stream.window_s for stream in sheet.streams}
        name = self._names[agent]
        own = self._owners.own(agent, name, sheet.points)
        return [
            (line, windows[line.stream])
            for line, take in zip(sheet.points, own, strict=True)
            if take
        ]


@dataclass(frozen=True, slots=True)
class _Points:
    """The points of a block: all, the agent's own, and which these are (None: all)."""

    all: PointSet
    own: PointSet
    mask: Flags | None


def _spans(block: SeriesBlock, window_s: int) -> Iterator[RowSpan]:
    """Yield where a block's rows are, and nothing between them: others' rows may be there."""
    edges = np.flatnonzero(np.diff(block.time) > window_s * SECOND) + 1
    for times in np.split(block.time, edges) if len(block) else ():
        yield RowSpan(block.key, int(times[0]), int(times[-1]) + 1)


def _add(position: Position, site: Site, ranges: Sequence[tuple[int, int]], *, anew: int) -> None:
    for first, last in ranges:
        todo = (site.enterprise, site.site, first, last, anew)
        if todo not in position.again:
            position.again.append(todo)


def known_last(blocks: Sequence[SeriesBlock]) -> list[SeriesBlock]:
    """Put rows of states of which nothing is known first, so that others win over them."""
    blank: list[SeriesBlock] = []
    others: list[SeriesBlock] = []
    for block in blocks:
        if block.key.measurement == "ff_equipment_state":
            nothing = np.asarray(block.fields["coverage"]) <= 0
            if nothing.any():
                blank.append(
                    SeriesBlock(
                        block.key, block.time[nothing], chosen_rows(dict(block.fields), nothing)
                    )
                )
                rest = chosen_rows(dict(block.fields), ~nothing)
                others.append(SeriesBlock(block.key, block.time[~nothing], rest))
                continue
        others.append(block)
    return [*blank, *others]

"""The brain's side of the account: what the ledger holds, and whether the stores hold the same."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias

import numpy as np

from aggregator.alarms import EPOCH_UNEXPLAINED
from aggregator.app import make_projection, make_stores
from aggregator.config import AggregatorConfig, read_factories
from aggregator.derivation import is_derived
from aggregator.inbox import Opened, Opener
from aggregator.ledger import Kept, Ledger
from aggregator.series import carbon, future_factory
from aggregator.stores import SeriesBlock, SeriesKey, Store
from aggregator.sums import ChainSum, LostRange, chain_sums, checked_batches, lost_ranges
from protocols.batch import NO_VALUE, Block
from protocols.frame import SECOND, Floats, Ints
from protocols.topics import Address
from security.policy.check import StreamTerms
from security.policy.compiled import SheetPoint

_GROUP: Final = 64
_PORTION: Final = 100_000
_END_NS: Final = 2**62
_NO_BATCH: Final = 2**63
_MOST_LATE: Final = 64
_LATE_S: Final = 10.0
_LATE_POLL_S: Final = 0.5
_NONE: Final[Ints] = np.zeros(0, np.int64)

Ends: TypeAlias = Mapping[Address, tuple[int, Mapping[int, int]]]
"""Each agent's epoch, and the sequence that comes next in each of its streams."""


@dataclass(frozen=True, slots=True, eq=False)
class PointCells:
    """Everything kept of one point, by slot.

    Attributes:
        point: its line in the release sheet.
        window_ns: slot length.
        start_ns: shape (n,), slot starts, strictly ascending.
        mantissa: shape (n,), in units of 10**point.exponent.
        span: shape (n,), over how many slots a value counts.
        doubled: slots that were kept more than once.
    """

    point: SheetPoint
    window_ns: int
    start_ns: Ints
    mantissa: Ints
    span: Ints
    doubled: int


@dataclass(slots=True)
class BrainAccount:
    """What the brain holds.

    Attributes:
        stored: values in the ledger, by agent and epoch.
        known: of an agent whose own account was read before, the values in the ledger of what it had
            released by then.
        refused: refused batches, by agent.
        cells: kept values of each point, by agent.
        restarts: by agent, when (s) the first slot begins of each epoch of which the agent said why the
            one before ended: counters lack what they rose by since their last value.
        losses: by agent, the messages that it declared lost.
        series: rows in the stores, by measurement.
        sums: the output sum of every chain.
        altered: batches of the ledger that are not what came.
        first_altered: the first of them, in words.
        differing: rows that the stores lack, hold otherwise than the ledger says, or have of their own.
        first_differing: the first of them, in words.
    """

    stored: dict[Address, dict[int, int]] = field(default_factory=dict)
    known: dict[Address, int] = field(default_factory=dict)
    refused: dict[Address, int] = field(default_factory=dict)
    cells: dict[Address, list[PointCells]] = field(default_factory=dict)
    restarts: dict[Address, list[int]] = field(default_factory=dict)
    losses: dict[Address, list[LostRange]] = field(default_factory=dict)
    series: dict[str, int] = field(default_factory=dict)
    sums: list[ChainSum] = field(default_factory=list)
    altered: int = 0
    first_altered: str = ""
    differing: int = 0
    first_differing: str = ""


def read_account(config: AggregatorConfig, ends: Ends | None = None) -> BrainAccount:
    """Read ledger and stores, and compare them row by row.

    Args:
        config: of the brain.
        ends: how far agents had come when their accounts were read: while both ends run, the brain
            has more by now.

    Raises:
        MillgateError: when one of them cannot be read.
    """
    account = BrainAccount()
    ledger = Ledger(config.ledger)
    stores = make_stores(config)
    try:
        for address, agent in ledger.agents().items():
            account.stored[address] = ledger.stored(agent)
            if ends and address in ends:
                account.known[address] = ledger.stored_before(agent, *ends[address])
            account.refused[address] = ledger.totals(agent)[2]
            account.restarts[address] = _restarts(ledger, agent)
        account.sums = chain_sums(config.ledger)
        account.losses = lost_ranges(config.ledger)
        _compare(config, ledger, stores, account)
        for module in (future_factory, carbon):
            for measurement in module.MEASUREMENTS:
                account.series[measurement] = stores[module.BUCKET].count(measurement)
    finally:
        for store in stores.values():
            store.close()
        ledger.close()
    return account


def _restarts(ledger: Ledger, agent: int) -> list[int]:
    silent = {one.epoch for one in ledger.record.alarms(agent) if one.kind == EPOCH_UNEXPLAINED}
    return [begun for epoch, begun in ledger.begun(agent)[1:] if epoch not in silent]


class _Check:
    """Goes through the ledger's batches, looks whether each is what came, and keeps what it says."""

    def __init__(
        self, config: AggregatorConfig, ledger: Ledger, account: BrainAccount, opened: Opened
    ) -> None:
        self._ledger = ledger
        self._account = account
        self._opener = Opener(ledger, config.brain.opening(), Opened())
        self._opened = opened
        self._parts: dict[tuple[int, int], list[tuple[Ints, Ints, Ints]]] = {}
        self._points: dict[tuple[int, int], tuple[SheetPoint, int]] = {}
        self._batches = checked_batches(config.ledger, self._open)

    def up_to(self, batch: int) -> None:
        """Go on up to a batch; what was opened on the way is handed over."""
        for one in self._batches:
            if one.altered:
                self._account.altered += 1
                self._account.first_altered = self._account.first_altered or one.altered
            if one.id is not None and one.id >= batch:
                return

    def cells(self) -> dict[Address, list[PointCells]]:
        """Return what was kept of each point, as far as the check has come."""
        cells: dict[Address, list[PointCells]] = {}
        for place, (point, window_s) in sorted(self._points.items()):
            address = self._ledger.address(place[0])
            cells.setdefault(address, []).append(_joined(point, window_s, self._parts[place]))
        return cells

    def _open(self, kept: Kept) -> list[tuple[int, Block]]:
        blocks = self._opener.blocks(kept)
        self._opened.put(kept.digest, [block for _, block in blocks])
        known = self._opener.sheet(kept.agent, kept.sheet)
        if known is not None:
            self._take(kept, known.streams[kept.stream], blocks)
        return blocks

    def _take(self, kept: Kept, terms: StreamTerms, blocks: Sequence[tuple[int, Block]]) -> None:
        for window_s, block in blocks:
            places, spans = terms.places(block.numbers), block.span_matrix()
            numbers = block.numbers.tolist()
            for column, (place, number) in enumerate(zip(places, numbers, strict=True)):
                self._points[kept.agent, number] = (terms.points[int(place)], window_s)
                parts = self._parts.setdefault((kept.agent, number), [])
                parts.append(_column(block, spans, column))


def _column(block: Block, spans: Ints, column: int) -> tuple[Ints, Ints, Ints]:
    rows = np.flatnonzero(block.quality[:, column] != NO_VALUE)
    return block.slot + rows, block.mantissa[rows, column], spans[rows, column]


def _joined(
    point: SheetPoint, window_s: int, parts: Sequence[tuple[Ints, Ints, Ints]]
) -> PointCells:
    slots = np.concatenate([part[0] for part in parts])
    unique, first = np.unique(slots, return_index=True)
    return PointCells(
        point=point,
        window_ns=window_s * SECOND,
        start_ns=unique * (window_s * SECOND),
        mantissa=np.concatenate([part[1] for part in parts])[first],
        span=np.concatenate([part[2] for part in parts])[first],
        doubled=len(slots) - len(unique),
    )


def _compare(
    config: AggregatorConfig, ledger: Ledger, stores: dict[str, Store], account: BrainAccount
) -> None:
    """Check and project the ledger again, opening each batch once; look for every row in the stores."""
    factories = read_factories(config.brain.factories)
    # What is derived also follows from what people entered, which no batch explains.
    # The stores before the ledger: while the brain runs, it may only have more of what explains them.
    there = {
        (module.BUCKET, key): _times(stores[module.BUCKET], key)
        for module in (future_factory, carbon)
        for measurement in module.MEASUREMENTS
        for key in stores[module.BUCKET].series(measurement)
        if not is_derived(key)
    }
    times: dict[tuple[str, SeriesKey], list[Ints]] = {}
    late: list[tuple[Store, SeriesBlock]] = []
    opened = Opened()
    check = _Check(config, ledger, account, opened)
    projection = make_projection(config, lambda: factories, opened, stores)
    try:
        projection.name_agents()
        after = 0
        while batches := ledger.batches(after, _GROUP):
            after = batches[-1].id
            check.up_to(after)
            for bucket, blocks in projection.blocks(batches).items():
                for block in blocks:
                    if _missing(stores[bucket], block):
                        late.append((stores[bucket], block))
                        if len(late) > _MOST_LATE:
                            _note_missing(account, *late.pop(0))
                    times.setdefault((bucket, block.key), []).append(block.time)
        check.up_to(_NO_BATCH)
    finally:
        projection.close()
    account.cells = check.cells()
    _note_late(account, late)
    for place, found in there.items():
        own = times.get(place, [])
        more = np.setdiff1d(found, np.concatenate(own) if own else _NONE)
        if len(more):
            account.differing += len(more)
            account.first_differing = account.first_differing or _named(place[1], int(more[0]))


def _times(store: Store, key: SeriesKey) -> Ints:
    """Return when a series has rows."""
    names = list(store.newest(key).fields)[:1]
    parts, start = [_NONE], 0
    while names:
        parts.append(store.query(key, names, start, _END_NS, limit=_PORTION).time)
        if len(parts[-1]) < _PORTION:
            break
        start = int(parts[-1][-1]) + 1
    return np.concatenate(parts)


def _named(key: SeriesKey, at_ns: int) -> str:
    tags = ", ".join(value for _, value in key.tags)
    at = datetime.fromtimestamp(at_ns // SECOND, UTC)
    return f"{key.measurement} ({tags}) {at:%Y-%m-%dT%H:%M:%SZ}"


def _note_late(account: BrainAccount, late: list[tuple[Store, SeriesBlock]]) -> None:
    """Count what is missing, after a while: series follow the ledger a moment later."""
    until = time.monotonic() + _LATE_S
    while late and time.monotonic() < until:
        time.sleep(_LATE_POLL_S)
        late = [one for one in late if _missing(*one)]
    for one in late:
        _note_missing(account, *one)


def _note_missing(account: BrainAccount, store: Store, block: SeriesBlock) -> None:
    missing = _missing(store, block)
    account.differing += missing.total()
    if missing and not account.first_differing:
        first = min(int(str(row[0])) for row in missing)
        account.first_differing = _named(block.key, first)


def _missing(store: Store, block: SeriesBlock) -> Counter[tuple[object, ...]]:
    """Return the rows of a block that the store lacks or holds otherwise."""
    found = store.query(
        block.key, list(block.fields), int(block.time[0]), int(block.time[-1]) + 1, limit=1 << 20
    )
    return _rows(block) - _rows(found)


def _rows(block: SeriesBlock) -> Counter[tuple[object, ...]]:
    columns = [
        column if isinstance(column, list) else _comparable(column)
        for _, column in sorted(block.fields.items())
    ]
    return Counter(zip(block.time.tolist(), *columns, strict=True))


def _comparable(column: Floats | Ints) -> list[object]:
    """Return a column's values; what a row lacks equals what another lacks."""
    values: list[object] = column.tolist()
    for at in np.flatnonzero(np.isnan(column)).tolist():
        values[at] = None
    return values

"""Lanes: the released points of one device, stream and aggregate, as arrays.

A lane opens slots as samples come, closes them when told that the time has passed, and keeps the
closed rows until they are drained. A transform is a subclass in `transforms/`.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.batch import NO_VALUE, Block
from protocols.frame import SECOND, Bytes, Flags, Floats, Frame, Ints, Quality, Values
from protocols.points import Point, PointTable
from protocols.vocabulary.measurands import unit_factor
from security.policy import account
from security.policy.account import Account
from security.policy.compiled import Rule

_MOST_OPEN: Final = 1024
_MOST_EMPTY: Final = 64
_DAY_NS: Final = 86400 * SECOND

_log = logging.getLogger(__name__)

Arrays = dict[str, bytes]


class Row(NamedTuple):
    """One closed slot of a lane; arrays have shape (numbers,)."""

    slot: int
    mantissa: Ints
    quality: Bytes
    spans: Ints


class Lane(ABC):
    """Base of all transforms.

    Attributes:
        stream: where its slots travel.
        rules: shape (p,), its points by number.
        numbers: shape (n,), the numbers it fills, ascending.
        closing_edge: whether a sample exactly on a boundary belongs to the slot that ends there
            (a counter's reading) or to the one that starts (a quantity at a moment).
    """

    closing_edge: ClassVar[bool] = False
    numbers_per_point: ClassVar[int] = 1

    def __init__(
        self, table: PointTable, rules: Sequence[Rule], columns: NDArray[np.int32], book: Account
    ) -> None:
        self.stream = rules[0].stream
        self.device = table.device
        self.rules = tuple(rules)
        self.size = len(rules)
        self.table = table
        self.window_ns = rules[0].window_s * SECOND
        self.hold_ns = table.hold_ns
        self.numbers = np.concatenate(
            [np.arange(rule.number, rule.number + self.numbers_per_point) for rule in rules]
        ).astype(np.int64)
        self.account = book
        self.cursor: int | None = None
        self.first_slot = 0
        self.open_counts: dict[int, int] = {}
        self._place = np.full(len(table.points), -1, np.int32)
        usable = columns >= 0
        self._place[columns[usable]] = np.flatnonzero(usable)
        self._rows: list[Row] = []
        self.integer = np.array([bool(table.integer[c]) if c >= 0 else True for c in columns])
        self.grid = np.array([rule.exponent for rule in rules], np.int64)
        self.step = np.array([rule.step for rule in rules], np.int64)
        self.exponents = np.array([_exponent(table, c) for c in columns.tolist()], np.int64)

    # What a transform fills in.

    @abstractmethod
    def take(
        self, places: NDArray[np.int32], slots: Ints, time: Ints, values: Values, quality: Bytes
    ) -> int:
        """Put samples into open slots.

        Args:
            places: shape (c,), positions of the columns in this lane.
            slots: shape (r, 1) or (r, c), each sample's slot.
            time: shape (r, 1) or (r, c), ns.
            values: shape (r, c), int64 or float64.
            quality: shape (r, c); what is not for this lane is ABSENT.

        Returns:
            how many samples it dropped by itself; it has counted them under their reason.
        """

    @abstractmethod
    def close_slot(self, slot: int) -> Row:
        """Close the next slot and return its row."""

    @abstractmethod
    def open_slots(self) -> list[int]:
        """Return the slots that hold something."""

    @abstractmethod
    def forget_open(self) -> None:
        """Drop what open slots hold, after a fault in this lane; the slots become gaps."""

    @abstractmethod
    def arrays(self) -> dict[str, Any]:
        """Return the lane's own state as CBOR-able data, arrays per point as bytes."""

    @abstractmethod
    def load(self, state: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take over state: position new[i] takes what old[i] had. Called before any sample."""

    # What all share.

    def feed(self, frame: Frame, now_ns: int) -> int:
        """Take the released columns of a frame; return how many of its samples were for this lane.

        A sample from the future is taken as of now. A late one of a point whose value holds until
        it changes (a subscription) belongs to the oldest open slot; another late one is dropped
        and counted. Devices that bring their own time may not be more than a day ahead.
        """
        places = self._place[frame.columns]
        mine = places >= 0
        if not mine.any():
            return 0
        every = bool(mine.all())
        places = places if every else places[mine]
        values = frame.values if every else frame.values[:, mine]
        quality = frame.quality if every else frame.quality[:, mine]
        wide = frame.time.shape[1] > 1
        time = frame.time[:, mine] if wide and not every else frame.time
        counted = int(np.count_nonzero(quality < Quality.ABSENT))
        if not self.table.brings_time:
            time = np.minimum(time, now_ns)
        if self.cursor is None:
            self.start(int(time.min()) if self.table.brings_time else now_ns)
        slots, quality = self._place_in_time(time, quality, now_ns)
        self._count(slots, quality)
        own = self.take(places, slots, time, values, quality)
        if own:
            self._uncount(own)
        return counted

    def samples_of(self, frame: Frame) -> int:
        """Return how many samples of the frame are for this lane."""
        mine = self._place[frame.columns] >= 0
        return int(np.count_nonzero(frame.quality[:, mine] < Quality.ABSENT))

    def start(self, at_ns: int) -> None:
        """Begin with the first slot that starts at or after `at_ns`; the one before only primes."""
        self.first_slot = -(-at_ns // self.window_ns)
        self.cursor = self.first_slot - 1

    def slot_of(self, time: Ints) -> Ints:
        """Return each sample's slot."""
        if self.closing_edge:
            return -(-time // self.window_ns) - 1
        return time // self.window_ns

    def end_of(self, slot: int) -> int:
        """Return when a slot ends, ns."""
        return (slot + 1) * self.window_ns

    def advance(self, until_ns: int) -> None:
        """Close every slot that ends at or before `until_ns`.

        Of a long run of slots without any sample only the first are written as rows without
        value; the rest are absent, which means the same.
        """
        if self.cursor is None:
            return
        cursor = self.cursor
        last = until_ns // self.window_ns - 1
        empty = 0
        while cursor <= last:
            held = self.open_slots()
            if empty >= _MOST_EMPTY:
                cursor = min([slot for slot in held if slot > cursor] + [last + 1])
                empty = 0
                continue
            row = self.close_slot(cursor)
            empty = empty + 1 if bool((row.quality == NO_VALUE).all()) else 0
            self._book(cursor)
            if cursor >= self.first_slot:
                self._rows.append(row)
            cursor += 1
        self.cursor = cursor

    def drain(self) -> list[Block]:
        """Return the closed rows as blocks of consecutive slots, and forget them."""
        blocks = []
        rows, self._rows = self._rows, []
        start = 0
        for at in range(1, len(rows) + 1):
            if at == len(rows) or rows[at].slot != rows[at - 1].slot + 1:
                blocks.append(_block(rows[start:at], self.numbers))
                start = at
        return blocks

    @property
    def waiting_rows(self) -> int:
        """Number of closed rows not drained yet."""
        return len(self._rows)

    def lose_open(self) -> None:
        """After a fault: drop what is open; the slots become gaps, counters go on exactly."""
        count = sum(self.open_counts.values())
        self.account.dropped[account.GATE_ERROR] += count
        self.account.open -= count
        self.open_counts.clear()
        self.forget_open()

    def memory(self) -> dict[str, Any]:
        """Return everything that must survive a crash, as CBOR-able data."""
        return {
            "digests": b"".join(rule.digest() for rule in self.rules),
            "cursor": self.cursor if self.cursor is not None else -1,
            "first": self.first_slot,
            "counts": [[slot, count] for slot, count in sorted(self.open_counts.items())],
            "state": self.arrays(),
        }

    def restore(self, memory: dict[str, Any]) -> None:
        """Take over what `memory` gave for the points whose rule is still the same."""
        old_digests = _split(memory["digests"], 8)
        position = {digest: at for at, digest in enumerate(old_digests)}
        pairs = [
            (new, position[rule.digest()])
            for new, rule in enumerate(self.rules)
            if rule.digest() in position
        ]
        if not pairs:
            return
        self.cursor = memory["cursor"] if memory["cursor"] >= 0 else None
        self.first_slot = memory["first"]
        self.open_counts = {slot: count for slot, count in memory["counts"]}  # noqa: C416 - decoded lists, typed here
        chosen = np.array(pairs, np.intp)
        self.load(memory["state"], chosen[:, 0], chosen[:, 1])

    def _place_in_time(self, time: Ints, quality: Bytes, now_ns: int) -> tuple[Ints, Bytes]:
        """Return each sample's slot, and the quality with what is dropped made ABSENT."""
        slots = self.slot_of(time)
        cursor = self.cursor if self.cursor is not None else 0
        late = slots < cursor
        ahead = (slots >= cursor + _MOST_OPEN) | (time > now_ns + _DAY_NS)
        if not (late.any() or ahead.any()):
            return slots, quality
        real = quality < Quality.ABSENT
        if self.hold_ns is None:
            slots, late = np.maximum(slots, cursor), np.zeros_like(late)
        self.account.dropped[account.LATE] += int(np.count_nonzero(late & real))
        self.account.dropped[account.AHEAD] += int(np.count_nonzero(ahead & ~late & real))
        return slots, np.where(late | ahead, np.uint8(Quality.ABSENT), quality)

    def _count(self, slots: Ints, quality: Bytes) -> None:
        """Enter good samples as open in their slots; bad ones as dropped."""
        bad = int(np.count_nonzero(quality == Quality.BAD))
        if bad:
            self.account.dropped[account.BAD] += bad
        good = quality <= Quality.UNCERTAIN
        if len(slots) == 1 and slots.shape[1] == 1:
            self._enter(int(slots[0, 0]), int(np.count_nonzero(good)))
            return
        chosen, counts = np.unique(np.broadcast_to(slots, good.shape)[good], return_counts=True)
        for slot, count in zip(chosen.tolist(), counts.tolist(), strict=True):
            self._enter(slot, count)

    def _enter(self, slot: int, count: int) -> None:
        self.open_counts[slot] = self.open_counts.get(slot, 0) + count
        self.account.open += count

    def _uncount(self, count: int) -> None:
        """Take back samples that the transform dropped by itself, from the newest slot on."""
        self.account.open -= count
        for slot in sorted(self.open_counts, reverse=True):
            taken = min(count, self.open_counts[slot])
            self.open_counts[slot] -= taken
            count -= taken

    def _book(self, slot: int) -> None:
        count = self.open_counts.pop(slot, 0)
        self.account.open -= count
        if slot >= self.first_slot or self.closing_edge:
            self.account.consumed += count
        else:
            self.account.dropped[account.FIRST_SLOT] += count


def _exponent(table: PointTable, column: int) -> int:
    """Return the point's exponent in its measurand's unit."""
    if column < 0:
        return 0
    point = table.points[column]
    own = point.grid_exponent() if bool(table.integer[column]) else 0
    return own + unit_shift(point)


def unit_shift(point: Point) -> int:
    """Return k such that value x 10**k is in the measurand's unit."""
    factor = unit_factor(point.unit, point.standard)
    return factor.adjusted() if factor is not None else 0


def _block(rows: Sequence[Row], numbers: Ints) -> Block:
    spans = np.concatenate([row.spans for row in rows])
    quality = np.stack([row.quality for row in rows])
    cells = np.flatnonzero((spans > 1) & (quality.reshape(-1) != NO_VALUE))
    return Block(
        slot=rows[0].slot,
        numbers=numbers,
        mantissa=np.stack([row.mantissa for row in rows]),
        quality=quality,
        span_cells=cells,
        spans=spans[cells],
    )


def _split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


class Cells:
    """The newest sample of each point, arrays of shape (p,).

    Attributes:
        value, real: the reading, for integer and for float points.
        time: its time, ns.
        quality: GOOD or UNCERTAIN.
        seen: whether there is one.
        lost: whether contact was lost, or the device gave no usable value, after it.
    """

    __slots__ = ("lost", "quality", "real", "seen", "time", "value")
    _LAYOUT: Final = (
        ("value", np.dtype("<i8")),
        ("real", np.dtype("<f8")),
        ("time", np.dtype("<i8")),
        ("quality", np.dtype("u1")),
        ("seen", np.dtype("?")),
        ("lost", np.dtype("?")),
    )

    def __init__(self, size: int) -> None:
        self.value: Ints = np.zeros(size, np.int64)
        self.real: Floats = np.zeros(size, np.float64)
        self.time: Ints = np.zeros(size, np.int64)
        self.quality: Bytes = np.zeros(size, np.uint8)
        self.seen: Flags = np.zeros(size, np.bool_)
        self.lost: Flags = np.zeros(size, np.bool_)

    def put(self, places: NDArray[np.int32], time: Ints, values: Values, quality: Bytes) -> None:
        """Take one moment of some points, shape (c,) each; ABSENT changes nothing.

        What comes last is newest: devices keep their order, but not always their clocks.
        """
        usable = quality <= Quality.UNCERTAIN
        at = places[usable]
        target: Values = self.value if values.dtype.kind == "i" else self.real
        target[at] = values[usable]
        self.time[at] = time[usable]
        self.quality[at] = quality[usable]
        self.seen[at] = True
        self.lost[at] = False
        gone = (quality == Quality.BAD) | (quality == Quality.LOST)
        self.lost[places[gone]] = True

    def merge(self, later: "Cells") -> None:
        """Take over everything that `later` has."""
        at = later.seen
        for name in ("value", "real", "time", "quality"):
            getattr(self, name)[at] = getattr(later, name)[at]
        self.lost = np.where(at, later.lost, self.lost | later.lost)
        self.seen |= at

    def dump(self) -> Arrays:
        """Return the arrays as bytes."""
        return {name: getattr(self, name).astype(dtype).tobytes() for name, dtype in self._LAYOUT}

    def load(self, data: Arrays, new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take positions `old` of dumped arrays to positions `new`."""
        for name, dtype in self._LAYOUT:
            getattr(self, name)[new] = np.frombuffer(data[name], dtype)[old]


class Latest:
    """The newest sample of each point, per open slot, and as of the last closed slot.

    Attributes:
        held: as of the end of the last closed slot.
        slots: the open slots.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.held = Cells(size)
        self.slots: dict[int, Cells] = {}

    def take(
        self, places: NDArray[np.int32], slots: Ints, time: Ints, values: Values, quality: Bytes
    ) -> None:
        """Put samples into their slots; see `Lane.take`."""
        for slot in np.unique(slots).tolist():
            inside = slots == slot
            cells = self.slots.setdefault(slot, Cells(self.size))
            rows = np.flatnonzero(inside.any(axis=1))
            for row in _last_rows(rows, inside, quality):
                here = inside[row] if inside.shape[1] > 1 else slice(None)
                at_time = time[row] if time.shape[1] > 1 else np.full(len(places), time[row, 0])
                cells.put(places[here], at_time[here], values[row][here], quality[row][here])

    def close(self, slot: int, end_ns: int, hold_ns: int | None) -> tuple[Cells, Flags, Flags]:
        """Close a slot.

        Returns:
            the newest samples (valid where `seen` was ever set), which points had a sample in
            this very slot, and for which the value still holds at the slot's end.
        """
        cells = self.slots.pop(slot, None)
        inside = cells.seen if cells is not None else np.zeros(self.size, np.bool_)
        if cells is not None:
            self.held.merge(cells)
        fresh = self.held.seen & ~self.held.lost
        if hold_ns is not None:
            fresh &= end_ns - self.held.time <= hold_ns
        return self.held, inside, fresh

    def dump(self) -> dict[str, Any]:
        """Return the arrays as CBOR-able data."""
        slots = [[slot, cells.dump()] for slot, cells in sorted(self.slots.items())]
        return {"held": self.held.dump(), "slots": slots}

    def load(self, data: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]) -> None:
        """Take over what `dump` gave."""
        self.held.load(data["held"], new, old)
        for slot, dumped in data["slots"]:
            self.slots.setdefault(slot, Cells(self.size)).load(dumped, new, old)


def _last_rows(rows: NDArray[np.intp], inside: Flags, quality: Bytes) -> list[int]:
    """Return which rows must be put, in order, to end with the newest sample of every column.

    Where the last row is good for all columns, it is the only one.
    """
    if len(rows) == 0:
        return []
    last = int(rows[-1])
    whole = inside.shape[1] == 1 or bool(inside[last].all())
    if whole and bool((quality[last] <= Quality.UNCERTAIN).all()):
        return [last]
    found: list[int] = rows.tolist()
    return found

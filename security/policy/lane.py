"""Lanes: the released points of one device, stream and aggregate, as arrays.

A lane opens slots as samples come, closes them when told that the time has passed, and keeps the
closed rows until they are drained. A transform is a subclass in `transforms/`.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from protocols.batch import NO_VALUE, Block
from protocols.frame import SECOND, Bytes, Flags, Floats, Frame, Ints, Quality, Values
from protocols.points import PointTable
from security.policy import account
from security.policy.account import Account
from security.policy.compiled import Rule
from security.policy.rounding import round_values
from security.policy.rows import Row, Samples, blocks_of
from security.policy.scales import Scales
from security.policy.transforms.clamp import Clamp
from security.policy.transforms.delay import Waiting
from security.policy.transforms.generalise import Bands
from security.policy.transforms.pseudonymise import Pseudonyms
from security.policy.transforms.validate import Validate
from security.secret import Secret

FURTHEST_AHEAD_NS: Final = 86400 * SECOND
"""How far a device's own time may be ahead of the wall clock."""

_MOST_OPEN: Final = 1024
_MOST_EMPTY: Final = 64
_MOST_KNOWN: Final = 8
_NOT_REACHED: Final = -1
_DIGEST: Final = 8
# Members of an enum are slow to look up.
_BAD: Final = int(Quality.BAD)
_ABSENT: Final = int(Quality.ABSENT)


class Lane(ABC):
    """Base of all transforms.

    Attributes:
        stream: where its slots travel.
        aggregate: what it computes.
        columns: shape (p,), their columns in the point table; -1 for a suspended one.
        numbers: shape (n,), the numbers it fills, ascending.
        closing_edge: whether a sample exactly on a boundary belongs to the slot that ends there
            (a counter's reading) or to the one that starts (a quantity at a moment).
        memory_per_point: bytes that a point takes in memory, with two slots open.
        memory_per_slot: bytes that a point takes in memory for each further open slot.
        at_once: how many slots in a row that all hold samples it may close together.
        rank: 0 for the lane that has a sample in the account; a point that leaves in several
            ways is counted in one place only.
        waiting: closed rows that have not left.
        cursor: the oldest slot that is not closed; None before the first sample.
        open_counts: by open slot, how many samples it holds.
    """

    closing_edge: ClassVar[bool] = False
    numbers_per_point: ClassVar[int] = 1
    memory_per_point: ClassVar[int] = 512
    memory_per_slot: ClassVar[int] = 64
    at_once: ClassVar[int] = 1

    def __init__(
        self,
        table: PointTable,
        rules: Sequence[Rule],
        columns: NDArray[np.int32],
        book: Account,
        *,
        rank: int = 0,
        key: Secret[bytes] | None = None,
    ) -> None:
        self.stream = rules[0].stream
        self.device = table.device
        self.aggregate = rules[0].aggregate
        # Rules are as many as points, and large: what is needed of them is in arrays.
        self._digests = b"".join(rule.digest() for rule in rules)
        self._origins = b"".join(_origin(table, column) for column in columns.tolist())
        self.size = len(rules)
        self.table = table
        self.window_ns = rules[0].window_s * SECOND
        self.hold_ns = table.hold_ns
        self.numbers = np.concatenate(
            [np.arange(rule.number, rule.number + self.numbers_per_point) for rule in rules]
        ).astype(np.int64)
        self.account = book
        self.rank = rank
        self.columns: list[int] = columns.tolist()
        self.cursor: int | None = None
        self.first_slot = 0
        self.open_counts: dict[int, int] = {}
        self._reached: Ints = np.full(self.size, _NOT_REACHED, np.int64)
        self._place = np.full(len(table.points), -1, np.int32)
        usable = columns >= 0
        self._place[columns[usable]] = np.flatnonzero(usable)
        self.delay_ns, self.fill_ns = rules[0].delay_s * SECOND, rules[0].fill_within_s * SECOND
        self.waiting = Waiting(self.window_ns, self.delay_ns, len(self.numbers))
        # The slots that were closed with a value missing, and may still be filled.
        self._missing: dict[int, Flags] = {}
        self._known_columns: dict[
            int, tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.intp] | None]
        ] = {}
        self.grid = np.array([rule.exponent for rule in rules], np.int64)
        self.step = np.array([rule.step for rule in rules], np.int64)
        self.scales = Scales.of(table, self.columns)
        self.integer, self.exponents = self.scales.integer, self.scales.exponent
        self.factor = None if self.scales.plain else self.scales.factor
        self._validate = Validate(self.scales, rules)
        self.clamp = Clamp(self.scales, rules)
        self._bands = Bands(self.scales, rules)
        self._pseudonyms = Pseudonyms(rules, key)

    @property
    def name(self) -> str:
        """What the lane is called in the gate memory."""
        extra = (self.rank, self.delay_ns // SECOND, self.fill_ns // SECOND)
        tail = "/" + ".".join(map(str, extra)) if any(extra) else ""
        return f"{self.device}/{self.stream}/{self.aggregate}{tail}"

    # What a transform fills in.

    @abstractmethod
    def take(self, samples: Samples) -> Flags | None:
        """Put samples into open slots.

        Returns:
            shape (r, c): which samples it dropped by itself, having counted them under their
            reason; None for none.
        """

    @abstractmethod
    def close_slot(self, slot: int) -> Row:
        """Close the next slot and return its row."""

    def close_run(self, slots: Sequence[int]) -> list[Row]:
        """Close the next slots in a row, and return their rows; see `at_once`."""
        return [self.close_slot(slot) for slot in slots]

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

    def refill(self, samples: Samples) -> None:
        """Put late samples, all of one closed slot, where `fill_slot` finds them."""
        raise NotImplementedError

    def fill_slot(self, slot: int) -> Row | None:
        """Return what late samples make of a closed slot, and forget them; None for nothing."""
        raise NotImplementedError

    # What all share.

    def feed(self, frame: Frame, now_ns: int) -> int:
        """Take the released columns of a frame; return how many of its samples were for this lane.

        A sample from the future is taken as of now. A late one of a point whose value holds until
        it changes (a subscription) belongs to the oldest open slot; another late one is dropped
        and counted. Devices that bring their own time may not be more than a day ahead.
        """
        places, kept = self._columns_of(frame)
        if not len(places):
            return 0
        values, quality, time = frame.values, frame.quality, frame.time
        if kept is not None:
            values, quality = values[:, kept], quality[:, kept]
            time = time[:, kept] if time.shape[1] > 1 else time
        counted = int(np.count_nonzero(quality < _ABSENT))
        if not self.table.brings_time:
            time = np.minimum(time, now_ns)
        if self.cursor is None and not self._begin(time, now_ns):
            self.account.dropped[account.AHEAD] += counted
            return counted
        quality, strange = self._checked(places, values, quality)
        values = self.clamp.clamped(places, values)
        given = quality
        if self._missing:
            quality = self._refill(places, time, values, quality)
        samples = self._place_in_time(places, time, values, quality, now_ns)
        self._count(samples, strange)
        own = self.take(samples._replace(given=given))
        if own is not None:
            self._uncount(np.broadcast_to(samples.slots, own.shape)[own])
        return counted

    def _columns_of(self, frame: Frame) -> tuple[NDArray[np.int32], NDArray[np.intp] | None]:
        """Return the frame's places in this lane, and which columns these are; None for all.

        Drivers give the same few arrays of columns over and over. That an array is the same does
        not mean that what is in it is: that decides about what leaves, and is compared each time.
        """
        known = self._known_columns.get(id(frame.columns))
        if known is None or not np.array_equal(known[0], frame.columns):
            places = self._place[frame.columns]
            kept = np.flatnonzero(places >= 0)
            chosen = None if len(kept) == len(places) else kept
            if len(self._known_columns) >= _MOST_KNOWN:
                self._known_columns.clear()
            known = frame.columns.copy(), places[kept], chosen
            self._known_columns[id(frame.columns)] = known
        return known[1], known[2]

    def samples_of(self, frame: Frame) -> int:
        """Return how many samples of the frame are for this lane."""
        mine = self._place[frame.columns] >= 0
        return int(np.count_nonzero(frame.quality[:, mine] < _ABSENT))

    def start(self, at_ns: int) -> None:
        """Begin with the first slot that starts at or after `at_ns`; the one before only primes."""
        self.first_slot = max(-(-at_ns // self.window_ns), 1)
        self.cursor = self.first_slot - 1

    def slot_of(self, time: Ints) -> Ints:
        """Return each sample's slot."""
        if self.closing_edge:
            return -(-time // self.window_ns) - 1
        return time // self.window_ns

    def end_of(self, slot: int) -> int:
        """Return when a slot ends, ns."""
        return (slot + 1) * self.window_ns

    def ends_of(self, slots: Ints) -> Ints:
        """Return when each slot ends, ns."""
        return (slots + 1) * self.window_ns

    def advance(self, until_ns: int) -> None:
        """Close every slot that ends at or before `until_ns`.

        Of a long run of slots without any sample only the first are written as rows without
        value; the rest are absent, which means the same. Slots whose closing fails are absent.
        """
        last = until_ns // self.window_ns - 1
        if self._missing:
            self._fill(until_ns)
        empty = 0
        while self.cursor is not None and self.cursor <= last:
            if empty >= _MOST_EMPTY:
                self._skip(self.cursor, last, until_ns)
                empty = 0
                continue
            for row in self._close(self._run(self.cursor, last)):
                missing = row.quality == NO_VALUE
                empty = empty + 1 if bool(missing.all()) else 0
                self._book(row.slot)
                if row.slot >= self.first_slot:
                    self.waiting.add(row)
                    if self.fill_ns:
                        self._note_missing(row.slot, missing, until_ns)

    def _run(self, slot: int, last: int) -> range:
        """Return the next slots that are closed together: one, or several that all hold samples."""
        end, longest = slot, min(slot + self.at_once, last + 1)
        while end < longest and end in self.open_counts:
            end += 1
        return range(slot, max(end, slot + 1))

    def _close(self, slots: range) -> list[Row]:
        try:
            return [self.close_slot(slots[0])] if len(slots) == 1 else self.close_run(slots)
        finally:
            # Whatever happened, these slots are never written again.
            self.cursor = slots.stop

    def _skip(self, cursor: int, last: int, until_ns: int) -> None:
        """Go on at the next slot that holds something, or behind `last`."""
        held = [slot for slot in (*self.open_slots(), *self.open_counts) if slot >= cursor]
        self.cursor = min([*held, last + 1])
        if self.fill_ns:
            oldest = max(cursor, last - self.fill_ns // self.window_ns - 1)
            for slot in range(oldest, self.cursor):
                if slot >= self.first_slot:
                    self._note_missing(slot, np.ones(self.size, np.bool_), until_ns)

    def _note_missing(self, slot: int, missing: Flags, until_ns: int) -> None:
        if missing.any() and self.end_of(slot) + self.fill_ns > until_ns:
            self._missing[slot] = missing

    def drain(self, now_ns: int) -> list[Block]:
        """Return the closed rows that may leave as blocks of consecutive slots; forget them."""
        return blocks_of(self.waiting.take(now_ns), self.numbers)

    def _leaving(self, slots: Ints, whole: Ints, real: Floats, valid: Flags) -> tuple[Ints, Flags]:
        """Round or generalise values of shape (p,) or (k, p), and pseudonymise them.

        Args:
            slots: shape () or (k,).
            whole, real, valid: what is held, and which of it may leave.

        Returns:
            what leaves, and which of it may.
        """
        mantissa, fits = round_values(
            self.integer, whole, real, self.exponents, self.grid, self.step, self.factor
        )
        if len(self._bands.at):
            mantissa[..., self._bands.at] = self._bands.of_values(self.integer, whole, real)
            fits[..., self._bands.at] = True
        mantissa = self.clamp.leaving(mantissa)
        return mantissa, self._pseudonyms.replace(slots, mantissa, valid & fits)

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
            "digests": self._digests,
            "origins": self._origins,
            "cursor": self.cursor if self.cursor is not None else -1,
            "first": self.first_slot,
            "counts": [[slot, count] for slot, count in sorted(self.open_counts.items())],
            "reached": self._reached.astype("<i8").tobytes(),
            "state": self.arrays(),
            "waiting": self.waiting.dump(),
            "missing": [
                [slot, np.packbits(flags).tobytes()]
                for slot, flags in sorted(self._missing.items())
            ],
        }

    def restore(self, memory: dict[str, Any]) -> None:
        """Take over what `memory` gave for the points whose rule is still the same.

        The lane goes on at the same slot even where no rule is: no slot is written twice. What was read
        of another device, or in another way, is no reading of the point as it is read now; what was
        closed stays as it was.
        """
        self.cursor = memory["cursor"] if memory["cursor"] >= 0 else None
        self.first_slot = memory["first"]
        position = {digest: at for at, digest in enumerate(_split(memory["digests"], _DIGEST))}
        same = [
            (new, position[digest])
            for new, digest in enumerate(_split(self._digests, _DIGEST))
            if digest in position
        ]
        if not same:
            return
        self.open_counts = {slot: count for slot, count in memory["counts"]}  # noqa: C416 - decoded lists, typed here
        self._load_waiting(memory, *np.array(same, np.intp).T)
        mine, known = _split(self._origins, _DIGEST), _split(memory.get("origins", b""), _DIGEST)
        # Older memory does not tell where its readings are from.
        pairs = [(new, old) for new, old in same if not known or known[old] == mine[new]]
        new, old = np.array(pairs, np.intp).reshape(-1, 2).T
        self._reached[new] = np.frombuffer(memory["reached"], "<i8")[old]
        self.load(memory["state"], new, old)
        self._load_missing(memory, new, old)
        if self.hold_ns is None:
            # What is given again after the crash comes after the loss of contact.
            self._reached[new] = np.maximum(self._reached[new], max(self.open_slots(), default=0))

    def room(self) -> int:
        """Return how many bytes the lane needs in memory, with as many slots open as may be."""
        filling = -(-self.fill_ns // self.window_ns)
        delayed = -(-self.delay_ns // self.window_ns) + 2 if self.delay_ns else 0
        per_point = self.memory_per_point + (self.memory_per_slot + 1) * filling
        return per_point * self.size + self.waiting.room(delayed)

    def _load_waiting(
        self, memory: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]
    ) -> None:
        """Take over closed rows; memory of version 1 has none."""
        parts = np.arange(self.numbers_per_point)
        self.waiting.load(
            memory.get("waiting", []),
            (new[:, None] * self.numbers_per_point + parts).reshape(-1),
            (old[:, None] * self.numbers_per_point + parts).reshape(-1),
        )

    def _load_missing(
        self, memory: dict[str, Any], new: NDArray[np.intp], old: NDArray[np.intp]
    ) -> None:
        """Take over which closed slots may still be filled."""
        count = len(memory["digests"]) // _DIGEST
        for slot, packed in memory.get("missing", []):
            flags = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(np.bool_)
            self._missing[slot] = np.zeros(self.size, np.bool_)
            self._missing[slot][new] = flags[old]

    def _begin(self, time: Ints, now_ns: int) -> bool:
        """Start with the first sample; with none whose device's own time cannot be true."""
        if not self.table.brings_time:
            self.start(now_ns)
            return True
        possible = time[time <= now_ns + FURTHEST_AHEAD_NS]
        if possible.size:
            self.start(int(possible.min()))
        return bool(possible.size)

    def _checked(
        self, places: NDArray[np.int32], values: Values, quality: Bytes
    ) -> tuple[Bytes, Flags | None]:
        """Return the quality, BAD where a value is not usable, and which are out of their range."""
        quality = self._validate.sound(places, values, quality)
        strange = self._validate.beyond(places, values, quality)
        if strange is not None:
            quality = np.where(strange, np.uint8(_BAD), quality)
        return quality, strange

    def _refill(
        self, places: NDArray[np.int32], time: Ints, values: Values, quality: Bytes
    ) -> Bytes:
        """Take late samples for slots that were missing; return the quality of what is left."""
        slots = np.broadcast_to(self.slot_of(time), quality.shape)
        late = (slots < (self.cursor or 0)) & (quality < _BAD)
        for slot in np.unique(slots[late]).tolist():
            missing = self._missing.get(slot)
            if missing is None:
                continue
            inside: Flags = late & (slots == slot) & missing[places]
            count = int(np.count_nonzero(inside))
            if count:
                only = np.where(inside, quality, np.uint8(_ABSENT))
                self.refill(Samples(places, slots, time, values, only, only, slot, clean=False))
                self._enter(slot, count)
                quality = np.where(inside, np.uint8(_ABSENT), quality)
        return quality

    def _fill(self, until_ns: int) -> None:
        """Fill the slots whose time to be filled has passed."""
        over = [slot for slot in self._missing if self.end_of(slot) + self.fill_ns <= until_ns]
        for slot in sorted(over):
            missing = self._missing.pop(slot)
            try:
                row = self.fill_slot(slot)
            finally:
                self._book(slot)
            if row is None:
                continue
            quality = np.where(missing, row.quality, np.uint8(NO_VALUE))
            if (quality < NO_VALUE).any():
                mantissa = np.where(quality < NO_VALUE, row.mantissa, 0)
                self.waiting.add(Row(slot, mantissa, quality, row.spans))

    def _place_in_time(
        self,
        places: NDArray[np.int32],
        time: Ints,
        values: Values,
        quality: Bytes,
        now_ns: int,
    ) -> Samples:
        """Give each sample its slot, and count and make ABSENT what has none."""
        slots = self.slot_of(time)
        cursor = self.cursor if self.cursor is not None else 0
        low, high = int(slots.min()), int(slots.max())
        too_far = self.table.brings_time and int(time.max()) > now_ns + FURTHEST_AHEAD_NS
        if low < cursor or high >= cursor + _MOST_OPEN or too_far:
            slots, quality = self._within_reach(slots, time, quality, cursor, now_ns)
            low, high = int(slots.min()), int(slots.max())
        worst = int(quality.max())
        if low != high or worst >= _ABSENT or int(self._reached[places].max()) > low:
            slots = self._in_order(places, slots, quality)
            low, high = int(slots.min()), int(slots.max())
        else:
            self._reached[places] = low
        one = low if low == high else None
        return Samples(places, slots, time, values, quality, quality, one, worst < _BAD)

    def _within_reach(
        self, slots: Ints, time: Ints, quality: Bytes, cursor: int, now_ns: int
    ) -> tuple[Ints, Bytes]:
        late = slots < cursor
        ahead = (slots >= cursor + _MOST_OPEN) | (time > now_ns + FURTHEST_AHEAD_NS)
        real = quality < _ABSENT
        if self.hold_ns is None:
            slots, late = np.maximum(slots, cursor), np.zeros_like(late)
        self.account.dropped[account.LATE] += int(np.count_nonzero(late & real))
        self.account.dropped[account.AHEAD] += int(np.count_nonzero(ahead & ~late & real))
        return slots, np.where(late | ahead, np.uint8(_ABSENT), quality)

    def _in_order(self, places: NDArray[np.int32], slots: Ints, quality: Bytes) -> Ints:
        """Return the slots so that no sample comes before one that its point gave earlier.

        Devices keep their order, but not always their clocks; a counter must not seem to fall,
        nor a mark of lost contact outlive the sample that came after it.
        """
        reached = self._reached[places]
        absent = quality == _ABSENT
        if absent.any():
            slots = np.where(absent, reached, slots)
        if (slots < reached).any() or (len(slots) > 1 and (slots[1:] < slots[:-1]).any()):
            slots = np.maximum.accumulate(np.maximum(slots, reached), axis=0)
        self._reached[places] = slots[-1]
        return slots

    def _count(self, samples: Samples, strange: Flags | None) -> None:
        """Enter good samples as open in their slots; bad ones as dropped."""
        slots, quality = samples.slots, samples.quality
        if samples.clean and samples.slot is not None:
            self._enter(samples.slot, quality.size)
            return
        bad = quality == _BAD
        beyond = 0 if strange is None else int(np.count_nonzero(bad & strange))
        rest = int(np.count_nonzero(bad)) - beyond
        for reason, count in ((account.OUT_OF_RANGE, beyond), (account.BAD, rest)):
            if count:
                self.account.dropped[reason] += count
        good = quality < _BAD
        chosen = np.broadcast_to(slots, good.shape)[good]
        if len(chosen):
            # All are within reach of the cursor, so that the counts are few.
            first = int(chosen.min())
            counts = np.bincount(chosen - first)
            for at in np.flatnonzero(counts).tolist():
                self._enter(first + at, int(counts[at]))

    def _enter(self, slot: int, count: int) -> None:
        self.open_counts[slot] = self.open_counts.get(slot, 0) + count
        self.account.open += count

    def _uncount(self, slots: Ints) -> None:
        """Take samples that the transform dropped by itself out of the slots they lay in."""
        self.account.open -= len(slots)
        chosen, counts = np.unique(slots, return_counts=True)
        for slot, count in zip(chosen.tolist(), counts.tolist(), strict=True):
            self.open_counts[slot] -= count
            if not self.open_counts[slot]:
                del self.open_counts[slot]

    def _book(self, slot: int) -> None:
        count = self.open_counts.pop(slot, 0)
        self.account.open -= count
        if slot >= self.first_slot or self.closing_edge:
            self.account.consumed += count
        else:
            self.account.dropped[account.FIRST_SLOT] += count


def _origin(table: PointTable, column: int) -> bytes:
    """Return 8 bytes that change with the device that answers for a column, and how it is read."""
    origin = table.origin(column) if column >= 0 else ""
    return hashlib.sha256(origin.encode()).digest()[:_DIGEST]


def _split(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]

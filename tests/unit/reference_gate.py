"""A gate as plain as it can be: one sample at a time, exact fractions, no arrays.

It is written from the documents, not from the gate, and only tests use it. It keeps everything it
ever saw in Python objects, and a crash is a deep copy of what they were at the last `take`.
"""

import copy
import hashlib
import hmac
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from protocols import strict_cbor
from protocols.frame import SECOND, Frame, Quality, lost_frame
from protocols.points import PointTable
from protocols.vocabulary.measurands import unit_factor
from protocols.vocabulary.states import STATE_MODELS, TIME_ELEMENTS, OperatingState
from security.policy.compiled import Derivation, Leaving, Rule

LATENESS = 3 * SECOND // 2
DAY = 86400 * SECOND
MOST_OPEN = 1024
LARGEST = 2**53
TOTALS = ("mean", "sum")
EXTREMES = ("min", "max")

Cell = tuple[int, int, int]
Out = dict[tuple[int, int], Cell]
Event = tuple[int, Any, int] | None  # time, reading, quality; None where contact was lost
CUT = (-1, None, -1)  # what held before a crash holds no longer


def half_even(value: Fraction, one: Leaving) -> int | None:
    """Round to a multiple of the step; None where that is no mantissa."""
    multiple = round(value / (one.step * Fraction(10) ** one.exponent))
    return multiple * one.step if abs(multiple) <= LARGEST // one.step else None


def coarse(value: Fraction, one: Leaving) -> int | None:
    """Clamp, and round, or count the edges that were reached."""
    if one.clamp and getattr(one, "aggregate", "") != "sum":
        low, high = (bound * Fraction(10) ** one.clamp_exponent for bound in one.clamp)
        value = min(max(value, low), high)
    if one.bands:
        return sum(value >= edge * Fraction(10) ** one.bands_exponent for edge in one.bands)
    return half_even(value, one)


@dataclass
class Kept:
    """What is known of one point."""

    rule: Rule
    unit: Fraction  # a carried number times this is in the measurand's unit
    whole: bool
    modulus: Any
    rebase: bool
    slots: dict[int, list[Event]] = field(default_factory=dict)
    held: Event = None
    lost: bool = False
    reached: int = -1
    inside: int = -1  # the newest slot that a sample lay in by its own time
    late: dict[int, Event] = field(default_factory=dict)  # the newest late sample of a slot
    aside: dict[int, set[int]] = field(default_factory=dict)  # which of a slot's events were late
    raw: Any = None
    pending: bool = False
    offset: Any = 0
    base: tuple[int, int] | None = None  # mantissa, slot
    state: int = 0
    start: int = 0
    sampled: int = 0
    changed: int = 0
    changes: list[tuple[int, int]] = field(default_factory=list)
    crashed: bool = False  # no sample came since the crash
    broken: set[int] = field(default_factory=set)  # slots of which samples were lost in a crash
    missing: set[int] = field(default_factory=set)  # closed slots that may still be filled

    def clamped(self, value: Any) -> Any:
        """An integer point is clamped to its outermost reading within the bounds."""
        if not self.rule.clamp or not math.isfinite(value):
            return value
        low, high = (
            b * Fraction(10) ** self.rule.clamp_exponent / self.unit for b in self.rule.clamp
        )
        if self.whole:
            return min(max(value, math.ceil(low)), math.floor(high))
        return min(max(Fraction(value), low), high)

    def believable(self, value: Any) -> bool:
        if not self.rule.range or not math.isfinite(value):
            return True
        low, high = (Fraction(Decimal(bound)) for bound in self.rule.range)
        return low <= Fraction(value) * self.unit <= high


@dataclass
class Group:
    """The points that share one cursor."""

    table: PointTable
    window: int
    kind: str
    points: dict[int, Kept]
    book: Counter[str]
    delay: int = 0
    fill: int = 0
    cursor: int | None = None
    first: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    rows: dict[int, dict[int, list[Cell | None]]] = field(default_factory=dict)  # of inputs only

    def begin(self, at: int) -> None:
        self.first = max(-(-at // self.window), 1)
        self.cursor = self.first - 1


class ReferenceGate:
    """The same promises as `security.policy.gate.Gate`."""

    def __init__(
        self,
        rules: list[Rule],
        tables: list[PointTable],
        derived: Sequence[Derivation] = (),
        key: bytes = b"",
    ) -> None:
        self.books: dict[str, Counter[str]] = {table.device: Counter() for table in tables}
        self.clocks: dict[str, int] = {}
        self.waiting: list[tuple[int, int, int, Cell]] = []  # due, number, slot, cell
        self.given: set[tuple[int, int]] = set()
        self.groups: dict[tuple[Any, ...], Group] = {}
        self.inputs: dict[tuple[str, int, str], Group] = {}
        self.key = hashlib.sha256(b"mg1/pseudonym-key\x00" + key).digest()
        self.tables = {table.device: table for table in tables}
        ranks: Counter[tuple[str, str]] = Counter()
        for rule in sorted(rules, key=lambda one: one.number):
            rank = ranks[rule.device, rule.point]
            ranks[rule.device, rule.point] += 1
            book = Counter[str]() if rank else self.books[rule.device]
            place = (
                rule.device,
                rule.stream,
                rule.aggregate,
                rank,
                rule.delay_s,
                rule.fill_within_s,
            )
            self._add(self.groups, place, rule, book)
        self.derived = sorted(derived, key=lambda one: one.number)
        self.computed: dict[tuple[int, int], int | None] = {}
        for one in self.derived:
            self.computed[one.stream, one.delay_s] = None
            for source in one.inputs:
                self._add_input(one, source.name, source.model_dump(exclude={"name"}))
        self.stopped = False
        self.watched = 0
        self.missed: set[str] = set()  # devices of which something came while all was stopped
        self.committed = self._everything()

    def stop(self, why: str) -> None:
        """Nothing of what was read leaves any more; which slots are over stays known."""
        self.stopped = True
        for group in self._all():
            group.book[why] += group.counts.total()
            group.counts.clear()
            group.rows.clear()
            group.points = {
                at: Kept(one.rule, one.unit, one.whole, one.modulus, one.rebase)
                for at, one in group.points.items()
            }
            for kept in group.points.values():
                # Part of the slot in which it goes on was withheld.
                kept.crashed = group.kind in (*TOTALS, *EXTREMES)
        self.waiting = []

    def go_on(self) -> None:
        self.stopped = False

    def open_of(self, device: str) -> int:
        """Samples in open slots; a point that leaves in several ways is counted once."""
        book = self.books[device]
        return sum(group.counts.total() for group in self.groups.values() if group.book is book)

    def _add(self, groups: dict[Any, Group], place: Any, rule: Rule, book: Counter[str]) -> None:
        table = self.tables[rule.device]
        at = [p.id for p in table.points].index(rule.point)
        point, whole = table.points[at], bool(table.integer[at])
        factor = Fraction(unit_factor(point.unit, point.standard) or 1)
        kept = Kept(
            rule=rule,
            unit=factor * (Fraction(10) ** point.grid_exponent() if whole else 1),
            whole=whole,
            modulus=int(table.modulus[at]) if whole else float(table.modulus[at]),
            rebase=point.counter.on_reset == "rebase",
        )
        fresh = Group(
            table,
            rule.window_s * SECOND,
            rule.aggregate,
            {},
            book,
            rule.delay_s * SECOND,
            rule.fill_within_s * SECOND,
        )
        groups.setdefault(place, fresh).points[at] = kept

    def _add_input(self, one: Derivation, name: str, source: dict[str, Any]) -> None:
        kind = "state" if name == "state" else "delta"
        rule = Rule.model_validate(
            {
                **source,
                **dict.fromkeys(("consumer", "stream"), 0),
                **dict.fromkeys(("equipment", "role", "class_raw", "class_released"), ""),
                "number": 1,
                "window_s": one.window_s,
                "aggregate": kind,
                "exponent": -3 if kind == "state" else -6,
                "step": 1,
            }
        )
        self._add(self.inputs, (rule.device, one.window_s, kind), rule, Counter())

    def _everything(self) -> Any:
        everything = (
            self.groups, self.inputs, self.books, self.clocks, self.waiting, self.given, self.computed
        )  # fmt: skip
        # The books are shared with the groups, so they are copied together.
        return copy.deepcopy(everything, {id(CUT): CUT})

    def _all(self) -> list[Group]:
        return [*self.groups.values(), *self.inputs.values()]

    def feed(self, frame: Frame, now: int) -> None:
        book = self.books[frame.device]
        mine = [group for group in self._all() if group.table.device == frame.device]
        mine = [] if self.stopped else mine
        if self.stopped:
            self.missed.add(frame.device)
        for group in mine:
            self._begin(group, frame, now)
        released = {
            column
            for group in self.groups.values()
            if group.table.device == frame.device
            for column in group.points
            if not self.stopped
        }
        for row in range(len(frame.values)):
            for at, column in enumerate(frame.columns.tolist()):
                time = int(frame.time[row, at if frame.time.shape[1] > 1 else 0])
                quality = int(frame.quality[row, at])
                book["produced"] += quality < Quality.ABSENT
                book["withheld"] += quality < Quality.ABSENT and column not in released
                for group in mine:
                    if column in group.points:
                        value = frame.values[row, at].item()
                        self._sample(group, group.points[column], time, value, quality, now)
        if frame.clock is not None and frame.clock <= now + DAY:
            self.clocks[frame.device] = max(frame.clock, self.clocks.get(frame.device, 0))

    def _begin(self, group: Group, frame: Frame, now: int) -> None:
        wide = frame.time.shape[1] > 1
        columns = [at for at, c in enumerate(frame.columns.tolist()) if c in group.points]
        if group.cursor is not None or not columns:
            return
        times = frame.time[:, columns].ravel().tolist() if wide else frame.time.ravel().tolist()
        possible = [t for t in times if t <= now + DAY] if group.table.brings_time else [now]
        if possible:
            group.begin(min(possible))

    def _sample(
        self, group: Group, kept: Kept, time: int, value: Any, quality: int, now: int
    ) -> None:
        if quality == Quality.ABSENT:
            return
        book, real = group.book, quality < Quality.ABSENT
        if not group.table.brings_time:
            time = min(time, now)
        if group.cursor is None:
            book["time_ahead"] += real
            return
        strange = quality <= Quality.UNCERTAIN and not kept.believable(value)
        quality = int(Quality.BAD) if strange else quality
        value = kept.clamped(value) if quality <= Quality.UNCERTAIN else value
        self._timed(group, kept, time, value, quality, now, "out_of_range" if strange else "")

    def _timed(
        self, group: Group, kept: Kept, time: int, value: Any, quality: int, now: int, why: str
    ) -> None:
        assert group.cursor is not None
        book, real = group.book, quality < Quality.ABSENT
        closing = group.kind == "delta"
        slot = -(-time // group.window) - 1 if closing else time // group.window
        if slot in kept.missing and quality <= Quality.UNCERTAIN and slot < group.cursor:
            kept.slots.setdefault(slot, []).append((time, value, quality))
            group.counts[slot] += 1
            kept.inside = max(kept.inside, slot)
            carries = group.kind in {"mean", "min", "max"} and group.table.hold_ns is None
            if carries and kept.inside < group.cursor:
                self._holds_on(kept, max(group.cursor, kept.reached), (time, value, quality))
            return
        if slot < group.cursor and group.table.hold_ns is not None:
            book["late"] += real
            return
        if slot >= group.cursor + MOST_OPEN or time > now + DAY:
            book["time_ahead"] += real
            return
        if real:
            kept.inside = max(kept.inside, slot)
        late = kept.inside < group.cursor and quality <= Quality.UNCERTAIN
        kept.reached = slot = max(slot, group.cursor, kept.reached)
        if late and group.kind in {"mean", "min", "max"} and group.table.hold_ns is None:
            # It is what holds when the slot begins; what it followed had ended by then.
            self._holds_on(kept, slot, (time, value, quality))
            kept.aside.setdefault(slot, set()).add(len(kept.slots.get(slot, [])))
        book[why or "bad_quality"] += quality == Quality.BAD
        self._placed(group, kept, time, value, quality, slot)

    def _holds_on(self, kept: Kept, slot: int, event: Event) -> None:
        kept.late[slot] = event
        if kept.crashed:
            kept.crashed = False
            kept.broken.add(slot)

    def _placed(
        self, group: Group, kept: Kept, time: int, value: Any, quality: int, slot: int
    ) -> None:
        usable = quality <= Quality.UNCERTAIN
        if usable and group.kind == "delta":
            value = self._unwrap(kept, value)
            if value is None:
                group.book["unconfirmed_fall"] += 1
                return
        group.counts[slot] += usable
        if kept.crashed:
            kept.crashed = False
            kept.broken.add(slot)
        if group.kind == "state":
            code = value * kept.unit if kept.whole else Fraction(value)
            model = STATE_MODELS[kept.rule.state_model]
            known = usable and code.denominator == 1 and int(code) in model
            self._state(group, kept, time, int(model[int(code)]) if known else 0)
        else:
            kept.slots.setdefault(slot, []).append((time, value, quality) if usable else None)

    def _unwrap(self, kept: Kept, value: Any) -> Any:
        if kept.raw is not None and value < kept.raw:
            top = kept.modulus
            if top and 10 * kept.raw > 9 * top and 0 <= 10 * value < top:
                kept.offset += top
            elif 10 * value > 9 * kept.raw:
                return None
            elif kept.pending and value > 0:
                kept.offset += kept.raw - value if kept.rebase else kept.raw
            else:
                kept.pending = True
                return None
        kept.raw, kept.pending = value, False
        return value + kept.offset

    def _state(self, group: Group, kept: Kept, time: int, state: int) -> None:
        assert group.cursor is not None
        time, hold = max(time, group.cursor * group.window), group.table.hold_ns
        if hold is not None and kept.state and time - kept.sampled > hold:
            self._change(group, kept, kept.sampled + hold, 0)
        if state != kept.state:
            self._change(group, kept, time, state)
        kept.sampled = time

    def _change(self, group: Group, kept: Kept, time: int, state: int) -> None:
        assert group.cursor is not None
        kept.changed = max(time, group.cursor * group.window, kept.changed)
        kept.changes.append((kept.changed, state))
        kept.state = state

    def advance(self, now: int) -> None:
        if self.stopped:
            return
        self._lose_what_was_missed(now)
        for group in self._all():
            if not group.table.brings_time and group.cursor is None:
                group.begin(now)
        for place, cursor in self.computed.items():
            begun = [one.cursor for one in self._inputs_of(place) if one.cursor is not None]
            if cursor is None and begun:
                # The next slot that begins, by the time of the devices.
                self.computed[place] = max(begun) + 1
        for group in self._all():
            own_time = group.table.brings_time
            until = self.clocks.get(group.table.device) if own_time else now - LATENESS
            if until is None:
                continue
            self._fill(group, until)
            while group.cursor is not None and (group.cursor + 1) * group.window <= until:
                self._close(group, group.cursor, until)
                group.cursor += 1
        self._derive()

    def _lose_what_was_missed(self, now: int) -> None:
        """What came while all was stopped may have been a change: what was told before holds no longer."""
        watched, self.watched = self.watched, now
        missed, self.missed = self.missed, set()
        for table in self.tables.values():
            followed = table.hold_ns is None and not table.brings_time
            if followed and watched and table.device in missed:
                self.feed(lost_frame(table.device, table.columns(), watched), now)

    def _fill(self, group: Group, until: int) -> None:
        """What came late for a slot that was missing leaves when its time to be filled is over."""
        for kept in group.points.values():
            for slot in sorted(kept.missing):
                if (slot + 1) * group.window + group.fill > until:
                    continue
                kept.missing.discard(slot)
                events = kept.slots.pop(slot, [])
                if not events:
                    continue
                if group.kind == "last":
                    self._give(group, kept, slot, [self._late(group, kept, slot, events)])
                else:
                    self._give(group, kept, slot, [self._statistic(kept, slot, events, [])])
        for slot in [s for s in group.counts if group.cursor is not None and s < group.cursor]:
            if (slot + 1) * group.window + group.fill <= until:
                group.book["consumed"] += group.counts.pop(slot)

    def _close(self, group: Group, slot: int, until: int) -> None:
        count = group.counts.pop(slot, 0)
        counted = slot >= group.first or group.kind == "delta"
        group.book["consumed" if counted else "before_first_slot"] += count
        for at, kept in group.points.items():
            name = "last" if group.kind == "last" else group.kind
            method = "_statistic" if name in (*TOTALS, *EXTREMES) else f"_{name}"
            row = getattr(self, f"{method}_row")(group, kept, slot)
            if slot < group.first:
                continue
            if group in self.inputs.values():
                group.rows.setdefault(slot, {})[at] = row
                continue
            self._give(group, kept, slot, row)
            if row == [None] and (slot + 1) * group.window + group.fill > until and group.fill:
                kept.missing.add(slot)

    def _give(self, group: Group, kept: Kept, slot: int, row: list[Cell | None]) -> None:
        for offset, cell in enumerate(row):
            if cell is not None:
                place = kept.rule.number + offset, slot
                assert place not in self.given
                self.given.add(place)
                due = (slot + 1) * group.window + group.delay if group.delay else 0
                self.waiting.append((due, *place, cell))

    def _newest(self, group: Group, kept: Kept, slot: int) -> tuple[Event, bool, bool]:
        """Return the newest sample, whether one was in this slot, and whether it still holds."""
        events = kept.slots.pop(slot, [])
        for event in events:
            gone = event is None or event is CUT
            kept.held, kept.lost = (kept.held, True) if gone else (event, False)
        end, hold = (slot + 1) * group.window, group.table.hold_ns
        fresh = kept.held is not None and not kept.lost
        if fresh and kept.held is not None and hold is not None:
            fresh = end - kept.held[0] <= hold
        return kept.held, any(event is not None for event in events), fresh

    def _exact(self, kept: Kept, value: Any) -> int | None:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return coarse(Fraction(value) * kept.unit, kept.rule)

    def _pseudonym(self, kept: Kept, slot: int, value: int) -> int:
        rule = kept.rule
        if not rule.pseudonym_s:
            return value
        turn = slot * rule.window_s // rule.pseudonym_s
        said = strict_cbor.encode(["mg1/pseudonym", rule.stream, rule.number, turn, value])
        digest = hmac.new(self.key, said, "sha256").digest()
        return int.from_bytes(digest[:8], "big") % 2**52

    def _last_row(self, group: Group, kept: Kept, slot: int) -> list[Cell | None]:
        held, inside, fresh = self._newest(group, kept, slot)
        rounded = self._exact(kept, held[1]) if held is not None and (inside or fresh) else None
        if held is None or rounded is None:
            return [None]
        value = self._pseudonym(kept, slot, rounded)
        return [(value, 0 if fresh and held[2] == Quality.GOOD else 1, 1)]

    def _late(self, group: Group, kept: Kept, slot: int, events: list[Event]) -> Cell | None:
        """The last of the samples that came late; it is good if it held to the slot's end."""
        held, hold = events[-1], group.table.hold_ns
        lost = held is None
        held = next((event for event in reversed(events) if event is not None), None)
        rounded = self._exact(kept, held[1]) if held is not None else None
        if held is None or rounded is None:
            return None
        over = lost or (hold is not None and (slot + 1) * group.window - held[0] > hold)
        value = self._pseudonym(kept, slot, rounded)
        return value, int(over or held[2] != Quality.GOOD), 1

    def _statistic_row(self, group: Group, kept: Kept, slot: int) -> list[Cell | None]:
        carried: list[Event] = []
        if group.table.hold_ns is None and group.kind != "sum" and kept.held and not kept.lost:
            carried = [kept.held]
        if slot in kept.late:
            carried = [kept.late.pop(slot)]
        aside = kept.aside.pop(slot, set())
        events = [e for at, e in enumerate(kept.slots.get(slot, [])) if at not in aside]
        if kept.crashed:
            kept.broken.add(slot)
        if group.table.hold_ns is None:
            self._newest(group, kept, slot)
        kept.slots.pop(slot, None)
        return [self._statistic(kept, slot, events, carried)]

    def _statistic(
        self, kept: Kept, slot: int, events: list[Event], carried: list[Event]
    ) -> Cell | None:
        rule = kept.rule
        broken = slot in kept.broken or None in events
        kept.broken.discard(slot)
        found = [e for e in (*events, *carried) if e is not None and e is not CUT]
        if rule.aggregate in TOTALS:
            scaled = [self._fine(kept, value) for _, value, _ in found]
            broken = broken or None in scaled
            usable = [(v, e[2]) for v, e in zip(scaled, found, strict=True) if v is not None]
        else:
            usable = [(Fraction(value) * kept.unit, quality) for _, value, quality in found]
        if len(usable) < rule.min_samples or (broken and rule.aggregate == "sum"):
            return None
        values = [value for value, _ in usable]
        total = sum(values, Fraction(0))
        by_kind = {
            "sum": total,
            "mean": total / len(values),
            "min": min(values),
            "max": max(values),
        }
        rounded = coarse(by_kind[rule.aggregate], rule)
        if rounded is None:
            return None
        return rounded, int(broken or any(quality for _, quality in usable)), 1

    def _fine(self, kept: Kept, value: Any) -> Fraction | None:
        """Samples of float points are first rounded to a millionth of the last place."""
        if kept.whole:
            return int(value) * kept.unit
        grid = kept.rule.bands_exponent if kept.rule.bands else kept.rule.exponent
        fine = Fraction(10) ** (grid - 6)
        scaled = round(float(value) * float(kept.unit / fine))
        return scaled * fine if abs(scaled) <= LARGEST else None

    def _delta_row(self, group: Group, kept: Kept, slot: int) -> list[Cell | None]:
        held, inside, fresh = self._newest(group, kept, slot)
        fresh = fresh and (inside or group.table.hold_ns is None)
        rounded = self._exact(kept, held[1]) if held is not None and fresh else None
        if held is None or rounded is None:
            return [None]
        before, kept.base = kept.base, (rounded, slot)
        if before is None:
            return [None]
        return [(rounded - before[0], int(held[2] != Quality.GOOD), slot - before[1])]

    def _state_row(self, group: Group, kept: Kept, slot: int) -> list[Cell | None]:
        start, end = slot * group.window, (slot + 1) * group.window
        hold, rule = group.table.hold_ns, kept.rule
        if hold is not None and kept.state and kept.sampled + hold < end:
            self._change(group, kept, kept.sampled + hold, 0)
        step = rule.step * Fraction(10) ** rule.exponent * SECOND
        spent, since, state = [Fraction(0)] * 9, Fraction(start), kept.start
        for time, new in [c for c in kept.changes if c[0] < end]:
            moment = min(max(round(Fraction(time) / step) * step, since), Fraction(end))
            spent[state] += moment - since
            since, state = moment, new
        spent[state] += Fraction(end) - since
        kept.changes = [c for c in kept.changes if c[0] >= end]
        kept.start = state
        if spent[0] >= group.window:
            return [None] * 9
        quality = 1 if spent[0] else 0
        parts = [spent[s] / SECOND / Fraction(10) ** rule.exponent for s in range(1, 9)]
        return [(state, quality, 1) if state else None, *((int(p), quality, 1) for p in parts)]

    # Derivations.

    def _of(self, place: tuple[int, int]) -> list[Derivation]:
        return [one for one in self.derived if (one.stream, one.delay_s) == place]

    def _inputs_of(self, place: tuple[int, int]) -> list[Group]:
        return [
            group
            for (_, window_s, kind), group in self.inputs.items()
            if any(
                window_s == one.window_s
                and kind == ("state" if source.name == "state" else "delta")
                and source.device == group.table.device
                for one in self._of(place)
                for source in one.inputs
            )
        ]

    def _derive(self) -> None:
        for place, start in self.computed.items():
            if start is None:
                continue
            mine, groups = self._of(place), self._inputs_of(place)
            window = mine[0].window_s * SECOND
            begun = [group.cursor for group in groups if group.cursor is not None]
            end = start
            if begun:
                end = max(begun) - 64
                if len(begun) == len(groups):
                    end = max(end, min(begun))
            for slot in range(start, end):
                for one in mine:
                    cell = self._figure(one, slot)
                    if cell is not None:
                        assert (one.number, slot) not in self.given
                        self.given.add((one.number, slot))
                        due = (slot + 1) * window + one.delay_s * SECOND if one.delay_s else 0
                        self.waiting.append((due, one.number, slot, cell))
            self.computed[place] = max(start, end)

    def _figure(self, one: Derivation, slot: int) -> Cell | None:
        terms = {name: float(Decimal(value)) for name, value in one.constants.items()}
        doubt, mixed = False, len(one.inputs) > 1
        for source in one.inputs:
            kind = "state" if source.name == "state" else "delta"
            group = self.inputs[source.device, one.window_s, kind]
            at = [p.id for p in group.table.points].index(source.point)
            row = group.rows.get(slot, {}).get(at, [None])
            cell = row[-1]
            if cell is None or cell[2] != 1:
                return None
            doubt = doubt or bool(cell[1])
            if kind == "delta":
                terms[source.name] = cell[0] / 1e6
                continue
            spent = {state: cells[0] for state, cells in enumerate(row) if state and cells}
            if mixed and sum(spent.values()) != one.window_s * 1000:
                return None
            for name, parts in (
                ("apt", ("production",)),
                ("pbt", ("production", "setup", "delay", "down")),
            ):
                counted = [s for s in OperatingState if s and TIME_ELEMENTS[s] in parts]
                terms[name] = sum(spent[int(state)] for state in counted) / 1e3
        value = _formula(one.formula, terms)
        if value is None:
            return None
        rounded = coarse(Fraction(value), one)
        return None if rounded is None else (rounded, int(doubt), 1)

    def take(self, now: int) -> Out:
        due = [entry for entry in self.waiting if entry[0] <= now]
        self.waiting = [entry for entry in self.waiting if entry[0] > now]
        self.committed = self._everything()
        return {(number, slot): cell for _, number, slot, cell in due}

    def crash(self) -> None:
        """Go on from the last `take`; what holds until contact is lost holds no longer."""
        (
            self.groups, self.inputs, self.books, self.clocks, self.waiting, self.given, self.computed
        ) = copy.deepcopy(self.committed, {id(CUT): CUT})  # fmt: skip
        for group in self._all():
            for kept in group.points.values():
                kept.crashed, kept.inside = group.kind in (*TOTALS, *EXTREMES), -1
                kept.late.clear()
                if group.kind == "state" and kept.state:
                    self._change(group, kept, kept.sampled, 0)
            opened = [slot for kept in group.points.values() for slot in kept.slots]
            opened += [t // group.window for k in group.points.values() for t, _ in k.changes]
            for kept in group.points.values() if group.table.hold_ns is None else []:
                kept.lost, kept.reached = True, max([kept.reached, *opened])
                for slot in kept.slots:
                    kept.slots[slot].append(CUT if kept.crashed else None)


def _formula(name: str, terms: dict[str, float]) -> float | None:
    above, below = {
        "availability": lambda t: (t["apt"], t["pbt"]),
        "effectiveness": lambda t: (t["pru"] * t["pq"], t["apt"]),
        "quality_ratio": lambda t: (t["gq"], t["pq"]),
        "oee": lambda t: (t["gq"] * t["pru"], t["pbt"]),
        "energy_per_unit": lambda t: (t["energy"], t["pq"]),
    }[name](terms)
    return above / below if below > 0 else None

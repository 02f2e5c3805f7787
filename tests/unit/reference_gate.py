"""A gate as plain as it can be: one sample at a time, exact fractions, no arrays.

It is written from the documents, not from the gate, and only tests use it. It keeps everything it
ever saw in Python objects, and a crash is a deep copy of what they were at the last `take`.
"""

import copy
import math
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from protocols.frame import SECOND, Frame, Quality
from protocols.points import PointTable
from protocols.vocabulary.measurands import unit_factor
from protocols.vocabulary.states import STATE_MODELS
from security.policy.compiled import Rule

LATENESS = 3 * SECOND // 2
DAY = 86400 * SECOND
MOST_OPEN = 1024
LARGEST = 2**53

Out = dict[tuple[int, int], tuple[int, int, int]]
Event = tuple[int, Any, int] | None  # time, reading, quality; None where contact was lost


def half_even(value: Fraction, rule: Rule) -> int | None:
    """Round to a multiple of the rule's step; None where that is no mantissa."""
    multiple = round(value / (rule.step * Fraction(10) ** rule.exponent))
    return multiple * rule.step if abs(multiple) <= LARGEST // rule.step else None


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
    raw: Any = None
    pending: bool = False
    offset: Any = 0
    base: tuple[int, int] | None = None  # mantissa, slot
    state: int = 0
    start: int = 0
    sampled: int = 0
    changed: int = 0
    changes: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Group:
    """The points that share one cursor: of one device, stream and aggregate."""

    table: PointTable
    window: int
    kind: str
    points: dict[int, Kept]
    cursor: int | None = None
    first: int = 0
    counts: Counter[int] = field(default_factory=Counter)

    def begin(self, at: int) -> None:
        self.first = max(-(-at // self.window), 1)
        self.cursor = self.first - 1


class ReferenceGate:
    """The same promises as `security.policy.gate.Gate`."""

    def __init__(self, rules: list[Rule], tables: list[PointTable]) -> None:
        self.books: dict[str, Counter[str]] = {table.device: Counter() for table in tables}
        self.clocks: dict[str, int] = {}
        self.out: Out = {}
        self.groups: dict[tuple[str, int, str], Group] = {}
        for rule in rules:
            table = next(table for table in tables if table.device == rule.device)
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
            key = (rule.device, rule.stream, rule.aggregate)
            fresh = Group(table, rule.window_s * SECOND, rule.aggregate, {})
            self.groups.setdefault(key, fresh).points[at] = kept
        self.committed = copy.deepcopy((self.groups, self.books, self.clocks))

    def feed(self, frame: Frame, now: int) -> None:
        book = self.books[frame.device]
        mine = [group for group in self.groups.values() if group.table.device == frame.device]
        for group in mine:
            self._begin(group, frame, now)
        for row in range(len(frame.values)):
            for at, column in enumerate(frame.columns.tolist()):
                time = int(frame.time[row, at if frame.time.shape[1] > 1 else 0])
                quality = int(frame.quality[row, at])
                book["produced"] += quality < Quality.ABSENT
                owners = [group for group in mine if column in group.points]
                book["withheld"] += quality < Quality.ABSENT and not owners
                for group in owners:
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
        book, real = self.books[group.table.device], quality < Quality.ABSENT
        if not group.table.brings_time:
            time = min(time, now)
        if group.cursor is None:
            book["time_ahead"] += real
            return
        closing = group.kind == "delta"
        slot = -(-time // group.window) - 1 if closing else time // group.window
        if slot < group.cursor and group.table.hold_ns is not None:
            book["late"] += real
            return
        if slot >= group.cursor + MOST_OPEN or time > now + DAY:
            book["time_ahead"] += real
            return
        kept.reached = slot = max(slot, group.cursor, kept.reached)
        usable = quality <= Quality.UNCERTAIN
        book["bad_quality"] += quality == Quality.BAD
        if usable and closing:
            value = self._unwrap(kept, value)
            if value is None:
                book["unconfirmed_fall"] += 1
                return
        group.counts[slot] += usable
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
        for (device, _, _), group in self.groups.items():
            if group.table.brings_time:
                until = self.clocks.get(device)
            else:
                until = now - LATENESS
                if group.cursor is None:
                    group.begin(now)
            while group.cursor is not None and until is not None:
                if (group.cursor + 1) * group.window > until:
                    break
                self._close(group, group.cursor)
                group.cursor += 1

    def _close(self, group: Group, slot: int) -> None:
        count = group.counts.pop(slot, 0)
        counted = slot >= group.first or group.kind == "delta"
        self.books[group.table.device]["consumed" if counted else "before_first_slot"] += count
        for kept in group.points.values():
            row = getattr(self, f"_{group.kind}_row")(group, kept, slot)
            for offset, cell in enumerate(row):
                if cell is not None and slot >= group.first:
                    place = kept.rule.number + offset, slot
                    assert place not in self.out
                    self.out[place] = cell

    def _newest(self, group: Group, kept: Kept, slot: int) -> tuple[Event, bool, bool]:
        """Return the newest sample, whether one was in this slot, and whether it still holds."""
        events = kept.slots.pop(slot, [])
        for event in events:
            kept.held, kept.lost = (kept.held, True) if event is None else (event, False)
        end, hold = (slot + 1) * group.window, group.table.hold_ns
        fresh = kept.held is not None and not kept.lost
        if fresh and kept.held is not None and hold is not None:
            fresh = end - kept.held[0] <= hold
        return kept.held, any(event is not None for event in events), fresh

    def _exact(self, kept: Kept, value: Any) -> int | None:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return half_even(Fraction(value) * kept.unit, kept.rule)

    def _last_row(self, group: Group, kept: Kept, slot: int) -> list[tuple[int, int, int] | None]:
        held, inside, fresh = self._newest(group, kept, slot)
        rounded = self._exact(kept, held[1]) if held is not None and (inside or fresh) else None
        if held is None or rounded is None:
            return [None]
        return [(rounded, 0 if fresh and held[2] == Quality.GOOD else 1, 1)]

    def _delta_row(self, group: Group, kept: Kept, slot: int) -> list[tuple[int, int, int] | None]:
        held, inside, fresh = self._newest(group, kept, slot)
        fresh = fresh and (inside or group.table.hold_ns is None)
        rounded = self._exact(kept, held[1]) if held is not None and fresh else None
        if held is None or rounded is None:
            return [None]
        before, kept.base = kept.base, (rounded, slot)
        if before is None:
            return [None]
        return [(rounded - before[0], int(held[2] != Quality.GOOD), slot - before[1])]

    def _state_row(self, group: Group, kept: Kept, slot: int) -> list[tuple[int, int, int] | None]:
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

    def take(self) -> Out:
        out, self.out = self.out, {}
        self.committed = copy.deepcopy((self.groups, self.books, self.clocks))
        return out

    def crash(self) -> None:
        """Go on from the last `take`; what holds until contact is lost holds no longer."""
        self.groups, self.books, self.clocks = copy.deepcopy(self.committed)
        self.out = {}
        for group in self.groups.values():
            for kept in group.points.values():
                if group.kind == "state" and kept.state:
                    self._change(group, kept, kept.sampled, 0)
            opened = [slot for kept in group.points.values() for slot in kept.slots]
            opened += [t // group.window for k in group.points.values() for t, _ in k.changes]
            for kept in group.points.values() if group.table.hold_ns is None else []:
                kept.lost, kept.reached = True, max([kept.reached, *opened])
                for slot in kept.slots:
                    kept.slots[slot].append(None)

"""Derivations: key figures that are computed inside the gate from inputs that need not leave.

Each input is a lane of its own, as fine as the device gives it, whose slots never leave: a counter's
rise, or seconds in states. When all inputs have closed a slot, the formula is computed. What is missing or
not known in an input is missing in the result, never 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.batch import GOOD, NO_VALUE, UNCERTAIN, Block
from protocols.frame import SECOND, Flags, Floats, Ints
from protocols.points import Point, PointTable
from protocols.vocabulary.elements import COMPUTABLE, STATE, inputs_of, time_elements
from security.policy.account import Account
from security.policy.compiled import CompiledPolicy, Derivation, Input, Rule
from security.policy.lane import Lane
from security.policy.rounding import round_floats
from security.policy.rows import Row, blocks_of, row_of
from security.policy.scales import point_factor
from security.policy.sources import columns_of, no_device, transform
from security.policy.transforms.clamp import Ends, clamp_of
from security.policy.transforms.delay import Waiting
from security.policy.transforms.generalise import band_of

_STATE_EXPONENT: Final = -3
_MS: Final = 1000.0
_REAL_EXPONENT: Final = -6
_LOWEST_EXPONENT: Final = -9
_MOST_BEHIND: Final = 64
_HIDDEN_ROWS: Final = 4
_PER_OUTPUT: Final = 1024


class _Place(NamedTuple):
    """Where an input's values are: a lane that never leaves, and its position there."""

    lane: Lane
    at: int


class Output:
    """The derivations that travel in one stream with one delay.

    Attributes:
        stream: where their slots travel.
        numbers: shape (n,), ascending.
        waiting: computed rows that have not left.
        cursor: the next slot to compute; None before the first.
    """

    def __init__(
        self, rules: Sequence[Derivation], places: Mapping[str, Mapping[str, _Place]]
    ) -> None:
        first = rules[0]
        self.rules = tuple(rules)
        self.stream = first.stream
        self.name = f"{first.stream}/{first.delay_s}"
        self.window_ns = first.window_s * SECOND
        self.numbers = np.array([rule.number for rule in rules], np.int64)
        self.waiting = Waiting(self.window_ns, first.delay_s * SECOND, len(rules))
        self.cursor: int | None = None
        self._places = [places[rule.name] for rule in rules]
        found = {
            place.lane.name: place.lane for inputs in self._places for place in inputs.values()
        }
        self.lanes = list(found.values())
        self._grid = np.array([rule.exponent for rule in rules], np.int64)
        self._step = np.array([rule.step for rule in rules], np.int64)
        self._ends = Ends(rules)
        self._groups: dict[str, list[int]] = {}
        for at, rule in enumerate(rules):
            self._groups.setdefault(rule.formula, []).append(at)

    def begin(self) -> None:
        """Begin with the next slot that no input has begun, by the time of the devices.

        Call it before inputs close slots, so that none of the first ones is passed over.
        """
        begun = [lane.cursor for lane in self.lanes if lane.cursor is not None]
        if self.cursor is None and begun:
            self.cursor = max(begun) + 1

    def compute(self) -> None:
        """Compute every slot that all inputs have closed."""
        closed = [lane.cursor for lane in self.lanes if lane.cursor is not None]
        if not closed or self.cursor is None:
            return
        # A device that lags far behind the others, or never began, has no values.
        end = max(min(closed), max(closed) - _MOST_BEHIND)
        if len(closed) < len(self.lanes):
            end = max(closed) - _MOST_BEHIND
        if end <= self.cursor:
            return
        rows = {lane.name: {row.slot: row for row in lane.waiting.rows} for lane in self.lanes}
        slots = {slot for found in rows.values() for slot in found if self.cursor <= slot < end}
        for slot in sorted(slots):
            self.waiting.add(self._row(slot, rows))
        self.cursor = end

    def drain(self, now_ns: int) -> list[Block]:
        """Return the computed rows that may leave as blocks; forget them."""
        return blocks_of(self.waiting.take(now_ns), self.numbers)

    def _row(self, slot: int, rows: Mapping[str, Mapping[int, Row]]) -> Row:
        values = np.full(len(self.rules), np.nan)
        uncertain = np.zeros(len(self.rules), np.bool_)
        for formula, members in self._groups.items():
            found, doubt = self._figures(formula, members, slot, rows)
            values[members], uncertain[members] = found, doubt
        mantissa, valid = self._coarse(values)
        quality = np.where(valid, np.where(uncertain, UNCERTAIN, GOOD), NO_VALUE).astype(np.uint8)
        return row_of(slot, mantissa, quality)

    def _figures(
        self, name: str, members: list[int], slot: int, rows: Mapping[str, Mapping[int, Row]]
    ) -> tuple[Floats, Flags]:
        """Compute one formula for some of the derivations, all of shape (m,)."""
        formula = COMPUTABLE[name]
        wanted = inputs_of(formula)
        terms: dict[str, Floats] = {
            constant: np.array([float(self.rules[at].constants[constant]) for at in members])
            for constant in self.rules[members[0]].constants
        }
        uncertain = np.zeros(len(members), np.bool_)
        for one in sorted(wanted - {STATE}):
            cells = [_rise(self._places[at].get(one), slot, rows) for at in members]
            terms[one] = np.array([value for value, _ in cells])
            uncertain |= np.array([doubt for _, doubt in cells])
        if STATE in wanted:
            cells_of = [_seconds(self._places[at].get(STATE), slot, rows) for at in members]
            seconds = np.array([found for found, _ in cells_of])
            unknown = np.array([doubt for _, doubt in cells_of])
            if wanted != {STATE}:
                # Counts go on while the state is not known: the figure would be wrong.
                seconds[unknown] = np.nan
            # Whole milliseconds add up exactly.
            terms |= {name: time / _MS for name, time in time_elements(seconds).items()}
            uncertain |= unknown
        with np.errstate(all="ignore"):
            return formula.compute(*(terms[element] for element in formula.inputs)), uncertain

    def _coarse(self, values: Floats) -> tuple[Ints, Flags]:
        """Clamp, and round or generalise."""
        for at, rule in enumerate(self.rules):
            bounds = clamp_of(rule)
            if bounds is not None:
                values[at] = np.clip(values[at], float(bounds[0]), float(bounds[1]))
        mantissa, valid = round_floats(values, self._grid, self._step)
        for at, rule in enumerate(self.rules):
            if rule.bands:
                valid[at] = np.isfinite(values[at])
                mantissa[at] = band_of(rule, values[at : at + 1])[0] if valid[at] else 0
        return self._ends.clipped(mantissa), valid

    def room(self) -> int:
        """Return how many bytes the output needs in memory."""
        delay_ns = self.waiting.delay_ns
        slots = -(-delay_ns // self.window_ns) + 2 if delay_ns else 0
        return _PER_OUTPUT + 8 * len(self.rules) + self.waiting.room(slots)

    def memory(self) -> list[Any]:
        """Return everything that must survive a crash, as CBOR-able data."""
        digests = b"".join(rule.digest() for rule in self.rules)
        cursor = -1 if self.cursor is None else self.cursor
        return [self.name, cursor, digests, self.waiting.dump()]

    def load(self, cursor: int, digests: bytes, waiting: list[Any]) -> None:
        """Take over memory for the derivations that are still the same."""
        self.cursor = cursor if cursor >= 0 else None
        known = {digests[at : at + 8]: at // 8 for at in range(0, len(digests), 8)}
        pairs = [
            (new, known[rule.digest()])
            for new, rule in enumerate(self.rules)
            if rule.digest() in known
        ]
        if pairs:
            new, old = np.array(pairs, np.intp).T
            self.waiting.load(waiting, new, old)


class Derived:
    """All derivations of a policy.

    Attributes:
        lanes: the inputs' lanes of each device; nothing of them leaves.
        outputs: what leaves.
    """

    def __init__(
        self, policy: CompiledPolicy, tables: Mapping[str, PointTable], suspended: list[str]
    ) -> None:
        self.lanes: dict[str, list[Lane]] = {}
        places = self._make_lanes(policy.derived, tables, suspended)
        groups: dict[tuple[int, int], list[Derivation]] = {}
        for one in policy.derived:
            groups.setdefault((one.stream, one.delay_s), []).append(one)
        self.outputs = [Output(rules, places) for _, rules in sorted(groups.items())]

    def _make_lanes(
        self,
        derivations: Sequence[Derivation],
        tables: Mapping[str, PointTable],
        suspended: list[str],
    ) -> dict[str, dict[str, _Place]]:
        """Return where the inputs of each derivation are, by its name and theirs."""
        hidden: dict[tuple[str, str], Rule] = {}
        for one in derivations:
            for source in one.inputs:
                if source.device in tables:
                    hidden[one.name, source.name] = _hidden(one, source, tables[source.device])
                else:
                    suspended.append(no_device(source.device))
        groups: dict[tuple[str, int, str], dict[bytes, Rule]] = {}
        for rule in hidden.values():
            group = groups.setdefault((rule.device, rule.window_s, rule.aggregate), {})
            group[rule.digest()] = rule
        found: dict[bytes, _Place] = {}
        for (device, _, aggregate), by_digest in sorted(groups.items()):
            rules = sorted(by_digest.values(), key=lambda rule: (rule.point, rule.digest()))
            columns = columns_of(tables[device], rules, suspended)
            lane = transform(aggregate)(tables[device], rules, columns, Account())
            self.lanes.setdefault(device, []).append(lane)
            found |= {rule.digest(): _Place(lane, at) for at, rule in enumerate(rules)}
        places: dict[str, dict[str, _Place]] = {one.name: {} for one in derivations}
        for (name, source_name), rule in hidden.items():
            places[name][source_name] = found[rule.digest()]
        return places

    def all_lanes(self) -> list[Lane]:
        """Return the lanes of all inputs."""
        return [lane for device in sorted(self.lanes) for lane in self.lanes[device]]

    def begin(self) -> None:
        """Begin what can begin, before any input closes a slot."""
        for output in self.outputs:
            output.begin()

    def compute(self) -> None:
        """Compute what can be computed, and forget the inputs that are used up."""
        for output in self.outputs:
            output.compute()
        for lane in self.all_lanes():
            used = [output.cursor for output in self.outputs if lane in output.lanes]
            lane.waiting.forget_through(min((c for c in used if c is not None), default=0) - 1)

    def forget(self) -> None:
        """After a fault: drop the inputs' closed slots; the results become gaps."""
        for lane in self.all_lanes():
            if lane.cursor is not None:
                lane.waiting.forget_through(lane.cursor)

    def room(self) -> int:
        """Return how many bytes derivations need in memory, beyond their inputs' lanes."""
        hidden = sum(lane.waiting.room(_HIDDEN_ROWS) for lane in self.all_lanes())
        return hidden + sum(output.room() for output in self.outputs)

    def dump(self) -> list[Any]:
        """Return what must survive a crash, as CBOR-able data."""
        return [output.memory() for output in self.outputs]

    def load(self, data: list[Any]) -> None:
        """Take over what `dump` gave."""
        by_name = {name: rest for name, *rest in data}
        for output in self.outputs:
            if output.name in by_name:
                cursor, digests, waiting = by_name[output.name]
                output.load(cursor, digests, waiting)


def _hidden(one: Derivation, source: Input, table: PointTable) -> Rule:
    """Return the rule of an input's lane: as fine as the device gives it, in no stream."""
    state = source.name == STATE
    fields = source.model_dump(exclude={"name"})
    return Rule(
        **fields,
        consumer=0,
        stream=-one.window_s,
        number=1,
        equipment="",
        role="",
        window_s=one.window_s,
        exponent=_STATE_EXPONENT if state else _finest(table, source.point),
        step=1,
        class_raw="",
        class_released="",
        aggregate="state" if state else "delta",
    )


def _finest(table: PointTable, name: str) -> int:
    """Return the exponent of a counter's own grid in its measurand's unit."""
    at = next((at for at, point in enumerate(table.points) if point.id == name), None)
    if at is None or not table.integer[at]:
        return _REAL_EXPONENT
    point: Point = table.points[at]
    exponent = point_factor(point)[1] + point.grid_exponent()
    return min(max(exponent, _LOWEST_EXPONENT), 0)


def _cell(
    place: _Place | None, slot: int, rows: Mapping[str, Mapping[int, Row]]
) -> tuple[Row, int] | None:
    row = rows[place.lane.name].get(slot) if place is not None else None
    if row is None or place is None:
        return None
    at = place.at * place.lane.numbers_per_point
    return row, at


def _rise(
    place: _Place | None, slot: int, rows: Mapping[str, Mapping[int, Row]]
) -> tuple[float, bool]:
    """Return what a counter rose by in this very slot, and whether that is uncertain."""
    found = _cell(place, slot, rows)
    if found is None or place is None:
        return np.nan, False
    row, at = found
    if row.quality[at] == NO_VALUE or row.spans[at] != 1:
        return np.nan, False
    exponent = int(place.lane.grid[place.at])
    return int(row.mantissa[at]) / 10.0**-exponent, bool(row.quality[at] != GOOD)


def _seconds(
    place: _Place | None, slot: int, rows: Mapping[str, Mapping[int, Row]]
) -> tuple[NDArray[np.float64], bool]:
    """Return milliseconds in the states 1 to 8, and whether some time is unknown."""
    found = _cell(place, slot, rows)
    if found is None or place is None:
        return np.full(8, np.nan), True
    row, at = found
    cells = slice(at + 1, at + place.lane.numbers_per_point)
    if (row.quality[cells] == NO_VALUE).any():
        return np.full(8, np.nan), True
    whole = int(row.mantissa[cells].sum()) * SECOND == place.lane.window_ns * 10**-_STATE_EXPONENT
    return row.mantissa[cells].astype(np.float64), not whole

"""The gate releases exactly what a plain one does, whatever devices, time and crashes do."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from protocols import batch
from protocols.batch import NO_VALUE
from protocols.frame import SECOND, Frame, Ints, Quality, Values, lost_frame
from protocols.points import Counter, Point, PointTable
from security.policy.check import StreamTerms, stream_terms
from security.policy.clauses import grid_of
from security.policy.compiled import Derivation, Rule
from security.policy.gate import Gate
from security.policy.sheets import release_sheets
from tests.unit.gate_material import (
    GATE_KEY,
    T0,
    Clock,
    derivation,
    gate_of,
    point,
    rule,
    table,
)
from tests.unit.reference_gate import Out, ReferenceGate

COUNTED = (
    "out_of_range",
    "bad_quality",
    "late",
    "time_ahead",
    "unconfirmed_fall",
    "before_first_slot",
    "stopped",
    "policy_ended",
)
STEPS = {
    "last": ["1", "5", "0.5", "0.01", "100"],
    "delta": ["1", "5", "0.5", "0.001", "10"],
    "state": ["1", "0.5", "0.01"],
}
STATISTICS = ("mean", "min", "max", "sum")
KINDS = {
    "power.active": ("last", "mean", "min", "max"),
    "other": ("last", "mean", "min", "max", "sum"),
    "energy.active_import": ("delta",),
    "production.total": ("delta",),
    "production.good": ("delta",),
    "machine.state": ("state",),
}
UNITS = {"power.active": "W", "energy.active_import": "Wh"}
FORMULAS = {
    "availability": {"state": "machine.state"},
    "effectiveness": {"state": "machine.state", "pq": "production.total"},
    "quality_ratio": {"gq": "production.good", "pq": "production.total"},
    "oee": {"state": "machine.state", "gq": "production.good"},
    "energy_per_unit": {"energy": "energy.active_import", "pq": "production.total"},
}
FIGURE_GRIDS: list[dict[str, Any]] = [
    {},
    {"bands": [0, 5, 9], "bands_exponent": -1, "step": "1"},
    {"clamp": [0, 1]},
]
COUNTERS = ("energy.active_import", "production.total", "production.good")
GAPS = (0.0, 0.1, 0.5, 0.7, 1.0, 1.3, 2.0, 3.0, 4.5, 7.0, 11.0)


@dataclass
class World:
    """One agent's devices, what is released of them, and the way its time goes.

    Attributes:
        budget: the most values that may leave in a day; 0 is no limit.
        behind: so far the clocks of devices that bring their own time are behind the agent's.
        seam: something was stopped, or did not fit the budget: counters need not chain.
    """

    tables: list[PointTable]
    rules: list[Rule]
    derived: list[Derivation]
    chance: random.Random
    budget: int = 0
    behind: int = 0
    now: int = T0 + 3 * SECOND // 10
    spent: int = 0
    seam: bool = False

    def device(self, owner: PointTable) -> Frame:
        """Return a frame of some points of one kind, of one to five moments."""
        chance = self.chance
        whole = chance.random() < 0.6
        columns = [at for at, is_whole in enumerate(owner.integer) if is_whole == whole]
        columns = columns or list(range(len(owner.points)))
        chosen = sorted(chance.sample(columns, chance.randint(1, len(columns))))
        whole = bool(owner.integer[chosen[0]])
        rows = chance.choice([1, 1, 1, 2, 5])
        wide = chance.random() < 0.4 and not owner.brings_time
        shape = (rows, len(chosen))
        values: Values = np.array(
            [[self._value(owner, c) for c in chosen] for _ in range(rows)],
            np.int64 if whole else np.float64,
        )
        return Frame(
            device=owner.device,
            columns=np.array(chosen, np.int32),
            time=self._times(owner, rows, len(chosen) if wide else 1),
            values=values,
            quality=np.array(
                [self._quality() for _ in range(shape[0] * shape[1])], np.uint8
            ).reshape(shape),
            clock=self.now - self.behind if owner.brings_time else None,
        )

    def _times(self, owner: PointTable, rows: int, width: int) -> Ints:
        lateness = [0, 0, 0, 10**8, 3 * 10**8, SECOND, 2 * SECOND, 12 * SECOND]
        if owner.brings_time:
            lateness = [0, 0, 0, 0, 25 * SECOND]
        back = [[self.chance.choice(lateness) for _ in range(width)] for _ in range(rows)]
        now = self.now - (self.behind if owner.brings_time else 0)
        times = now - np.sort(np.array(back, np.int64), axis=0)[::-1]
        if self.chance.random() < 0.03:
            times = times + 3 * 86400 * SECOND
        # Devices like to answer exactly on the second.
        return times // SECOND * SECOND if self.chance.random() < 0.5 else times

    def _value(self, owner: PointTable, column: int) -> float:
        chance, kind = self.chance, owner.points[column].measurand
        if kind == "machine.state":
            return chance.choice([0, 1, 1, 1, 3, 3, 6, 77])
        if kind in COUNTERS:
            top = 1000 if owner.integer[column] else 1000.0
            grown = (self.now - T0) // (SECOND // 8) + chance.choice([0, 0, 0, 0, 1, 900, -400])
            value = grown % top if chance.random() < 0.95 else chance.choice([0, 3, 990])
            return value if owner.integer[column] else value + chance.choice([0.0, 0.125, 0.3])
        return chance.choice([0, 1, 2, 5, 7, 15, 25, 35, -5, -15, 2**53, 123456789, 10**17])

    def _quality(self) -> int:
        if self.chance.random() < 0.8:
            return Quality.GOOD
        return self.chance.choice([Quality.UNCERTAIN, Quality.BAD, Quality.ABSENT, Quality.LOST])


def world_of(seed: int) -> World:
    chance = random.Random(seed)
    tables: list[PointTable] = []
    rules: list[Rule] = []
    derived: list[Derivation] = []
    for at in range(chance.randint(1, 2)):
        way = chance.choice(["polled", "followed", "dated"])
        count = chance.randint(1, 6)
        points = [_point(f"p{n}", chance) for n in range(count)]
        owner = table(
            points,
            device=f"d{at}",
            real=[p.id for p in points if chance.random() < 0.4],
            hold_ns=None if way == "followed" else chance.choice([2, 3, 12]) * SECOND,
            brings_time=way == "dated",
        )
        tables.append(owner)
        for n, one in enumerate(points):
            # Some leave in no way, some in one, and some in several.
            ways = range(chance.choice([0, 1, 1, 1, 1, 2, 3]))
            first = 1 + 1000 * at + 100 * n
            rules += [_rule(owner, one, first + 10 * further, chance) for further in ways]
        derived += _derivations(owner, 900 + 1000 * at, chance)
    budget = chance.choice([0, 0, 0, 3, 20, 60])
    behind = chance.choice([0, 0, 0, 3 * 86400 * SECOND])
    return World(tables, rules, derived, chance, budget, behind)


def _point(name: str, chance: random.Random) -> Point:
    kind = chance.choice([*sorted(KINDS), "power.active", "power.active", "other"])
    behaviour = Counter.model_validate(
        {
            "rollover": chance.choice([None, 1000]),
            "on_reset": chance.choice(["from_zero", "rebase"]),
        }
    )
    return point(
        name,
        kind,
        unit=chance.choice([UNITS.get(kind), None]),
        scale=chance.choice(["1", "1", "0.1", "0.5", "10"]) if kind != "machine.state" else "1",
        counter=behaviour,
    )


def _rule(owner: PointTable, one: Point, number: int, chance: random.Random) -> Rule:
    aggregate = chance.choice(KINDS[one.measurand])
    window = chance.choice([1, 5, 5, 10])
    step = chance.choice(STEPS.get(aggregate, STEPS["last"]))
    more: dict[str, object] = {"delay_s": chance.choice([0, 0, 0, 3, 20])}
    if aggregate not in {"delta", "state"}:
        more |= _transforms(aggregate, step, chance)
    if chance.random() < 0.1 and aggregate != "state":
        more["range"] = chance.choice([["-10", "2000.5"], ["0.125", "30"]])
    if more.get("bands"):
        step = "1"
    return rule(owner, one.id, number, window_s=window, step=step, aggregate=aggregate, **more)


def _transforms(aggregate: str, step: str, chance: random.Random) -> dict[str, object]:
    more: dict[str, object] = {"fill_within_s": chance.choice([0, 0, 4, 30])}
    if aggregate in STATISTICS:
        more["min_samples"] = chance.choice([1, 1, 2, 5])
    exponent, whole = grid_of(Decimal(step))
    doing = chance.random()
    if doing < 0.2:
        low, high = chance.choice([(0, 3), (-2, 1), (1, 10)])
        more |= {"clamp": [low * whole, high * whole], "clamp_exponent": exponent}
    elif doing < 0.4:
        more |= chance.choice(
            [
                {"bands": [0, 5, 25]},
                {"bands": [-1, 1, 20], "bands_exponent": -1},
                {"bands": [0, 25], "clamp": [0, 25]},
            ]
        )
    elif doing < 0.55 and aggregate == "last":
        more["pseudonym_s"] = chance.choice([10, 40])
    return more


def _derivations(owner: PointTable, number: int, chance: random.Random) -> list[Derivation]:
    found: list[Derivation] = []
    for formula, wanted in sorted(FORMULAS.items()):
        fitting = {
            name: [one.id for one in owner.points if one.measurand == kind]
            for name, kind in wanted.items()
        }
        if all(fitting.values()) and chance.random() < 0.7:
            inputs = {name: chance.choice(points) for name, points in fitting.items()}
            found.append(
                derivation(
                    owner,
                    formula,
                    inputs,
                    number + len(found),
                    window_s=chance.choice([5, 10]),
                    delay_s=chance.choice([0, 0, 15]),
                    **chance.choice(FIGURE_GRIDS),
                )
            )
    return found


def out_of(gate: Gate, terms: Mapping[int, StreamTerms]) -> Out:
    """Return what is taken, by point number and slot; nothing may be there twice.

    And all of it can be sealed: it is within the sheet, and survives being written and read.
    """
    found: Out = {}
    for stream, taken in gate.take().items():
        terms[stream].check(taken)
        for block in batch.decode(batch.encode(taken)):
            spans = block.span_matrix()
            for row, column in np.argwhere(block.quality != NO_VALUE).tolist():
                place = int(block.numbers[column]), block.slot + row
                assert place not in found
                found[place] = (
                    int(block.mantissa[row, column]),
                    int(block.quality[row, column]),
                    int(spans[row, column]),
                )
    return found


def assert_books_agree(gate: Gate, plain: ReferenceGate) -> None:
    for device, book in gate.accounts.items():
        expected = plain.books[device]
        assert book.balanced
        assert book.open == plain.open_of(device)
        for name in ("produced", "withheld", "consumed"):
            assert getattr(book, name) == expected[name]
        assert {name: book.dropped[name] for name in COUNTED} == {
            name: expected[name] for name in COUNTED
        }
        assert set(book.dropped) <= set(COUNTED)


def assert_what_may_leave(world: World, new: Out, plain: Out) -> None:
    """All of it, as long as the budget lasts; then whole rows, as many as fit, and never more."""
    left = world.budget - world.spent
    if not world.budget or len(plain) <= left:
        assert new == plain
    else:
        assert new.items() <= plain.items()
        assert len(new) <= left
        world.seam = True
        event("the budget was spent")
    world.spent += len(new)


def assert_never_twice_and_chained(world: World, everything: Out, new: Out) -> None:
    assert not everything.keys() & new.keys()
    everything |= new
    for one in world.rules:
        if one.aggregate == "delta":
            cells = sorted(
                (slot, cell) for (n, slot), cell in everything.items() if n == one.number
            )
            for (before, _), (slot, (_, _, span)) in pairwise(cells):
                assert slot - span == before or (world.seam and slot - span > before)


@pytest.mark.timeout(400)
@settings(max_examples=90, deadline=None)
@given(st.integers(0, 2**48), st.integers(5, 60))
@example(236, 60)  # readings that are held back lie in an older slot than a good one of their frame
@example(241, 20)  # and are still open when all is stopped
def test_the_gate_does_what_the_plain_one_does(seed: int, steps: int) -> None:
    compare(world_of(seed), steps)


def compare(world: World, steps: int) -> None:
    """Let both gates live through the same days, crashes included."""
    clock, chance = Clock(), world.chance
    clock.ns = world.now
    plain = ReferenceGate(world.rules, world.tables, world.derived, GATE_KEY)
    gate = gate_of(world.tables, world.rules, clock, world.derived, budget_rows=world.budget)
    terms = stream_terms(release_sheets(gate.whole())[0])
    memory = gate.memory()
    everything: Out = {}
    for _ in range(steps):
        world.now += round(chance.choice(GAPS) * SECOND)
        clock.ns = world.now
        doing = chance.random()
        if doing < 0.7:
            owner = chance.choice(world.tables)
            frame = world.device(owner)
            if chance.random() < 0.05 and not owner.brings_time:
                frame = lost_frame(owner.device, owner.columns(), world.now)
            gate.feed(frame)
            plain.feed(frame, world.now)
        elif doing < 0.95:
            new = out_of(gate, terms)
            assert_what_may_leave(world, new, plain.take(world.now))
            memory = gate.memory()
            assert_never_twice_and_chained(world, everything, new)
            event("something was released" if new else "nothing was released")
        elif doing < 0.97:
            how = chance.choice([stop, expire])
            event(how.__name__)
            how(world, gate, plain, clock)
            memory = gate.memory()
        else:
            event("crash")
            gate = gate_of(
                world.tables, world.rules, clock, world.derived, budget_rows=world.budget
            )
            gate.restore(memory)
            plain.crash()
        gate.advance()
        plain.advance(world.now)
        assert_books_agree(gate, plain)
    for _ in range(2):
        world.now += 45 * SECOND
        clock.ns = world.now
        gate.advance()
        plain.advance(world.now)
    assert_what_may_leave(world, out_of(gate, terms), plain.take(world.now))
    assert_books_agree(gate, plain)


def stop(world: World, gate: Gate, plain: ReferenceGate, clock: Clock) -> None:
    """Let an officer stop both for a while, and a newer policy let them go on."""
    world.seam = True
    gate.forget()
    gate.halted = "stopped"
    plain.stop("stopped")
    pause(world, gate, plain, clock)
    assert_books_agree(gate, plain)
    gate.halted = ""
    plain.go_on()


def expire(world: World, gate: Gate, plain: ReferenceGate, clock: Clock) -> None:
    """Let the validity end before there is a newer policy; that is noticed a while later."""
    world.seam = True
    valid = gate.whole()
    gate.change_terms(valid.model_copy(update={"valid_until": world.now // SECOND}))
    plain.stop("policy_ended")
    pause(world, gate, plain, clock)
    gate.forget("policy_ended")
    assert_books_agree(gate, plain)
    gate.change_terms(valid)
    plain.go_on()


def pause(world: World, gate: Gate, plain: ReferenceGate, clock: Clock) -> None:
    """Let both see frames of which nothing may leave."""
    for _ in range(world.chance.randint(1, 3)):
        world.now += round(world.chance.choice(GAPS) * SECOND)
        clock.ns = world.now
        frame = world.device(world.chance.choice(world.tables))
        gate.feed(frame)
        plain.feed(frame, world.now)
        gate.advance()
        plain.advance(world.now)
        assert gate.take() == {}
        assert plain.take(world.now) == {}

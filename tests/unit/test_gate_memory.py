"""Gate memory: what must survive a crash, of one size, for one gate only."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import cbor2
import pytest

from protocols.frame import SECOND, lost_frame
from protocols.points import PointTable
from protocols.topics import Address
from security.policy.gate import Gate, MemoryLost, accounts_in, open_memory, seal_memory
from security.secret import Secret
from tests.unit.gate_material import (
    T0,
    Clock,
    Released,
    cells_of,
    counter,
    frame,
    gate_of,
    point,
    rule,
    table,
)

KEY = Secret(bytes(range(32)))
ADDRESS = Address(b"f" * 16, b"a" * 16)
HASH = b"\x07" * 32

POINTS = [
    counter("energy"),
    counter("gas"),
    point("power", "power.active"),
    point("m", "machine.state"),
    point("warmth", "temperature"),
]
POLLED = table(POINTS, real=["warmth"])
FOLLOWED = table(POINTS, real=["warmth"], hold_ns=None)


def rules(owner: PointTable, **steps: str) -> list[Any]:
    return [
        rule(owner, p.id, 1 + 10 * at, step=steps.get(p.id, "1")) for at, p in enumerate(POINTS)
    ]


def running(owner: PointTable, clock: Clock, until_s: int, *, first_s: int = 0) -> Gate:
    gate = gate_of(owner, rules(owner), clock)
    feed(gate, owner, clock, range(first_s, until_s))
    return gate


def feed(gate: Gate, owner: PointTable, clock: Clock, seconds: range, more: int = 0) -> None:
    for s in seconds:
        clock.set(s)
        gate.advance()
        whole = {"energy": s + more, "gas": 2 * s + more, "power": s, "m": 1 + 2 * (s % 2)}
        gate.feed(frame(owner, s, whole))
        gate.feed(frame(owner, s, {"warmth": s / 3}))


def reopened(gate: Gate, owner: PointTable, clock: Clock, new_rules: list[Any]) -> Gate:
    fresh = gate_of(owner, new_rules, clock)
    fresh.restore(gate.memory())
    return fresh


def number(found: Released, wanted: int) -> dict[int, tuple[int, int, int]]:
    return {slot: cell for (n, slot), cell in found.items() if n == wanted}


def test_memory_has_one_size_whatever_the_values() -> None:
    sizes = set()
    for seed in range(12):
        chance = random.Random(seed)
        clock = Clock()
        gate = gate_of(POLLED, rules(POLLED), clock)
        sizes.add(len(gate.memory()))
        top = 10 ** chance.randint(0, 18)
        for s in range(40):
            clock.set(s)
            gate.advance()
            whole = {p.id: chance.randint(-top, top) for p in POINTS[:3]}
            state = chance.choice([0, 1, 3, 77, top])
            quality = {p.id: chance.choice([0, 0, 1, 2, 4]) for p in POINTS}
            gate.feed(frame(POLLED, s, {**whole, "m": state}, quality=quality))
            gate.feed(frame(POLLED, s, {"warmth": chance.uniform(-top, top)}, quality=quality))
            if gate.has_closed:
                gate.take()
                sizes.add(len(gate.memory()))
    assert len(sizes) == 1


def test_a_restored_gate_goes_on_as_if_nothing_had_happened() -> None:
    """Polled points lose nothing when the gate is dropped right after a take."""
    states = range(31, 40)
    clock = Clock()
    gate, whole = running(POLLED, clock, 25), running(POLLED, Clock(), 25)
    before = cells_of(gate.take())
    gate = reopened(gate, POLLED, clock, rules(POLLED))
    other = Clock(24)
    feed(gate, POLLED, clock, range(25, 60))
    whole._now = other
    feed(whole, POLLED, other, range(25, 60))
    after, expected = cells_of(gate.take()), cells_of(whole.take())
    # A state is unknown from its last sample before a crash to its next one, here a second.
    assert number(after, 32)[2] == (4, 1, 1)
    assert number(expected, 32)[2] == (5, 0, 1)
    for found in (after, expected):
        for place in [place for place in found if place[0] in states and place[1] == 2]:
            del found[place]
    assert before | after == expected
    assert gate.accounts == whole.accounts


def test_what_was_fed_since_the_last_take_is_lost_and_no_count_is() -> None:
    clock = Clock()
    gate = running(POLLED, clock, 25)
    before = cells_of(gate.take())
    memory = gate.memory()
    feed(gate, POLLED, clock, range(25, 48))  # never committed
    gate = gate_of(POLLED, rules(POLLED), clock)
    gate.restore(memory)
    feed(gate, POLLED, clock, range(48, 75))
    found = cells_of(gate.take())
    assert not before.keys() & found.keys()
    energy = number(before, 1) | number(found, 1)
    assert sum(m for m, _, _ in energy.values()) == 70
    assert energy[4] == (30, 0, 3)
    assert set(number(found, 21)) == {2, 4, 5, 6}


def test_a_followed_value_is_not_known_to_hold_through_a_crash() -> None:
    clock = Clock()
    gate = gate_of(FOLLOWED, rules(FOLLOWED), clock)
    gate.advance()
    gate.feed(frame(FOLLOWED, 0, {"energy": 5, "gas": 5, "power": 7, "m": 1}))
    clock.set(12)
    gate.advance()
    assert number(cells_of(gate.take()), 21) == {0: (7, 0, 1)}
    memory = gate.memory()
    clock.set(312)
    gate = gate_of(FOLLOWED, rules(FOLLOWED), clock)
    gate.restore(memory)
    gate.advance()
    assert cells_of(gate.take()) == {}
    # Subscribed anew, the server gives the same values with their old source times.
    gate.feed(frame(FOLLOWED, 0, {"energy": 5, "gas": 5, "power": 7, "m": 1}))
    clock.set(332)
    gate.advance()
    found = cells_of(gate.take())
    assert number(found, 21) == {31: (7, 0, 1), 32: (7, 0, 1)}
    assert number(found, 1) == {31: (0, 0, 31), 32: (0, 0, 1)}
    assert number(found, 32) == {31: (10, 0, 1), 32: (10, 0, 1)}


def test_a_value_given_again_comes_after_the_crash_in_whatever_slot_its_source_puts_it() -> None:
    """Two slots were open; the value's old source time lies in the first of them."""
    clock = Clock()
    gate = gate_of(FOLLOWED, rules(FOLLOWED), clock)
    gate.advance()
    gate.feed(frame(FOLLOWED, 3, {"power": 5, "energy": 1}))
    clock.set(10.5)
    gate.feed(frame(FOLLOWED, 10.5, {"gas": 1}))
    gate.feed(frame(FOLLOWED, 10.5, {"warmth": 1.0}))
    gate.advance()
    gate = reopened(gate, FOLLOWED, clock, rules(FOLLOWED))
    clock.set(11)
    gate.feed(frame(FOLLOWED, 9.9, {"power": 5, "energy": 1, "gas": 1}))
    clock.set(32)
    gate.advance()
    found = cells_of(gate.take())
    assert {slot: number(found, 21)[slot] for slot in (1, 2)} == {1: (5, 0, 1), 2: (5, 0, 1)}
    assert number(found, 1)[2] == (0, 0, 1)


def test_a_value_seen_in_the_slot_of_the_crash_is_uncertain() -> None:
    clock = Clock()
    gate = gate_of(FOLLOWED, rules(FOLLOWED), clock)
    feed(gate, FOLLOWED, clock, range(14))
    gate.take()
    memory = gate.memory()
    gate = gate_of(FOLLOWED, rules(FOLLOWED), clock)
    gate.restore(memory)
    clock.set(40)
    gate.advance()
    found = cells_of(gate.take())
    assert number(found, 21) == {1: (13, 1, 1)}
    assert number(found, 1) == {}


def test_a_fall_that_waits_for_its_second_reading_waits_through_a_crash() -> None:
    clock = Clock()
    gate = running(POLLED, clock, 20)
    clock.set(20)
    gate.feed(frame(POLLED, 20, {"energy": 1}))
    clock.set(21)
    gate.advance()
    gate.take()
    gate = reopened(gate, POLLED, clock, rules(POLLED))
    clock.set(29)
    gate.feed(frame(POLLED, 29, {"energy": 2}))
    clock.set(32)
    gate.advance()
    assert number(cells_of(gate.take()), 1)[2] == (19 + 2 - 19, 0, 1)


def test_points_with_unchanged_rules_keep_their_baselines_and_others_start_anew() -> None:
    clock = Clock()
    gate = running(POLLED, clock, 25)
    gate.take()
    changed = rules(POLLED, gas="5")
    gate = reopened(gate, POLLED, clock, changed)
    feed(gate, POLLED, clock, range(25, 45))
    found = cells_of(gate.take())
    assert number(found, 1) == {2: (10, 0, 1), 3: (10, 0, 1)}
    assert number(found, 11) == {3: (20, 0, 1)}


@pytest.mark.parametrize(
    "change",
    [
        {"number": 18},
        {"step": 5},
        {"exponent": -1},
        {"address": "holding:else"},
        {"unit": "Wh"},
        {"scale": "2"},
        {"measurand": "gas.volume"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_gives_the_memory_its_meaning_makes_a_new_rule(change: dict[str, Any]) -> None:
    one = rule(POLLED, "energy", 1)
    assert one.model_copy(update=change).digest() != one.digest()


@pytest.mark.parametrize(
    "change", [{"equipment": "x"}, {"role": "main"}, {"class_raw": "general-3"}, {"consumer": 1}]
)
def test_labels_and_classes_do_not(change: dict[str, Any]) -> None:
    one = rule(POLLED, "energy", 1)
    assert one.model_copy(update=change).digest() == one.digest()


def test_a_point_that_comes_later_joins_its_lane_without_a_slot_twice() -> None:
    clock = Clock()
    first = [one for one in rules(POLLED) if one.point != "gas"]
    gate = gate_of(POLLED, first, clock)
    feed(gate, POLLED, clock, range(25))
    before = cells_of(gate.take())
    gate = reopened(gate, POLLED, clock, rules(POLLED))
    feed(gate, POLLED, clock, range(25, 45))
    found = cells_of(gate.take())
    assert not before.keys() & found.keys()
    assert number(found, 1) == {2: (10, 0, 1), 3: (10, 0, 1)}
    assert number(found, 11) == {3: (20, 0, 1)}


def test_samples_of_rules_that_are_gone_do_not_stay_open() -> None:
    clock = Clock()
    gate = running(POLLED, clock, 25)
    gate.take()
    open_before = gate.accounts["dev"].open
    gate = reopened(gate, POLLED, clock, [rule(POLLED, "energy", 1)])
    book = gate.accounts["dev"]
    assert book.balanced
    assert 0 < book.open < open_before
    assert book.dropped["rule_changed"] == open_before - book.open
    feed(gate, POLLED, clock, range(25, 60))
    clock.set(90)
    gate.advance()
    assert book.open == 0
    assert book.balanced


def test_a_lane_of_only_new_rules_writes_no_slot_again_after_the_clock_stepped_back() -> None:
    clock = Clock()
    gate = running(POLLED, clock, 65)
    before = cells_of(gate.take())
    clock.set(20)
    gate = reopened(gate, POLLED, clock, rules(POLLED, power="5"))
    feed(gate, POLLED, clock, range(20, 90))
    found = cells_of(gate.take())
    assert max(number(before, 21)) == 5
    assert min(number(found, 21)) == 6


def test_a_device_that_is_no_longer_configured_is_forgotten() -> None:
    clock = Clock()
    other = table([counter("c")], device="gone")
    gate = gate_of([POLLED, other], [*rules(POLLED), rule(other, "c", 100)], clock)
    feed(gate, POLLED, clock, range(25))
    gate = reopened(gate, POLLED, clock, rules(POLLED))
    assert set(gate.accounts) == {"dev"}
    assert gate.accounts["dev"].balanced


def test_the_account_can_be_read_from_memory() -> None:
    gate = running(POLLED, Clock(), 25)
    gate.take()
    assert accounts_in(gate.memory()) == gate.accounts


def test_memory_opens_only_where_it_belongs() -> None:
    sealed = seal_memory(b"content", KEY, ADDRESS, 3, HASH, 9)
    assert open_memory(sealed, KEY, ADDRESS, 3, HASH, 9) == b"content"
    elsewhere: list[tuple[Any, ...]] = [
        (Secret(bytes(32)), ADDRESS, 3, HASH, 9),
        (KEY, Address(b"x" * 16, b"a" * 16), 3, HASH, 9),
        (KEY, Address(b"f" * 16, b"x" * 16), 3, HASH, 9),
        (KEY, ADDRESS, 4, HASH, 9),
        (KEY, ADDRESS, 3, bytes(32), 9),
        (KEY, ADDRESS, 3, HASH, 8),
        (KEY, ADDRESS, 3, HASH, 10),
    ]
    for place in elsewhere:
        with pytest.raises(MemoryLost):
            open_memory(sealed, *place)


def test_sealed_memory_says_nothing_and_any_change_of_it_is_seen() -> None:
    content = b"reading 1234567890 of the furnace"
    sealed = seal_memory(content, KEY, ADDRESS, 3, HASH, 9)
    assert content[:8] not in sealed
    assert sealed != seal_memory(content, KEY, ADDRESS, 3, HASH, 9)
    for at in range(len(sealed)):
        for damaged in (sealed[:at], sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]):
            with pytest.raises(MemoryLost):
                open_memory(damaged, KEY, ADDRESS, 3, HASH, 9)


def _wrap(content: object) -> bytes:
    encoded = cbor2.dumps(content, canonical=True)
    return len(encoded).to_bytes(4, "big") + encoded


def damages(memory: bytes) -> Iterator[bytes]:
    """Yield memory without any one of its parts, or with a part of another kind or length."""
    yield from (memory[:at] for at in (0, 3, 4, 100, 1000))
    length = int.from_bytes(memory[:4], "big")

    def fresh() -> Any:
        return cbor2.loads(memory[4 : 4 + length])

    paths = list(_paths(fresh()))
    spoils: list[Callable[[Any], Any]] = [
        lambda old: old[:-1] if isinstance(old, bytes | str) and old else None,
        lambda old: {"x": 1},
        lambda old: "x",
    ]
    for path in paths:
        for spoil in spoils:
            content = fresh()
            parent = content
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = spoil(parent[path[-1]])
            if parent[path[-1]] is not None:
                yield _wrap(content)
    for path in paths:
        content = fresh()
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent, dict):
            del parent[path[-1]]
            yield _wrap(content)


def _paths(item: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = (
        item.keys()
        if isinstance(item, dict)
        else range(len(item))
        if isinstance(item, list)
        else []
    )
    for key in keys:
        yield (*path, key)
        yield from _paths(item[key], (*path, key))


def test_of_damaged_memory_nothing_is_taken_over() -> None:
    clock = Clock()
    gate = running(POLLED, clock, 25)
    gate.take()
    memory = gate.memory()
    lost = 0
    for damaged in damages(memory):
        fresh = gate_of(POLLED, rules(POLLED), clock)
        new = fresh.memory()
        try:
            fresh.restore(damaged)
        except MemoryLost:
            lost += 1
            assert fresh.memory() == new
    assert lost > 200


def test_after_lost_memory_counters_start_from_new_baselines() -> None:
    clock = Clock()
    gate = running(POLLED, clock, 25)
    gate.take()
    gate = gate_of(POLLED, rules(POLLED), clock)
    with pytest.raises(MemoryLost, match=r"baseline|基线"):
        gate.restore(b"\0\0\0\1x")
    feed(gate, POLLED, clock, range(25, 60), more=1000)
    assert number(cells_of(gate.take()), 1) == {3: (10, 0, 1), 4: (10, 0, 1)}


def test_many_changes_of_state_fit_into_memory() -> None:
    owner = table([point(f"m{at}", "machine.state") for at in range(300)], hold_ns=None)
    clock = Clock()
    many = [rule(owner, p.id, 1 + 10 * at, window_s=3600) for at, p in enumerate(owner.points)]
    gate, fresh = gate_of(owner, many, clock), gate_of(owner, many, clock)
    gate.advance()
    clock.set(901)
    codes = [1 + 2 * (at % 2) for at in range(900)]
    gate.feed(frame(owner, list(range(900)), {p.id: codes for p in owner.points}))
    gate.feed(lost_frame("dev", owner.columns(), T0 + 900 * SECOND))
    fresh.restore(gate.memory())
    fresh._watched_ns = T0 + 3598 * SECOND
    clock.set(3602)
    fresh.advance()
    found = cells_of(fresh.take(), 3600)
    assert {found[2 + 10 * at, 0] for at in range(300)} == {(450, 1, 1)}
    assert fresh.accounts["dev"].consumed == 900 * 300

"""Planner: every point is read once and whole, in the cheapest requests that the device answers."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.drivers.modbus.planner import Request, Rules, plan
from protocols.drivers.modbus.point import FUNCTIONS, WORDS, ModbusPoint

BITS = ("coil", "discrete")


def point(table: str, first: int, kind: str = "uint16") -> ModbusPoint:
    kind = "bit" if table in BITS else kind
    return ModbusPoint.model_validate(
        {"id": f"p{first}", "address": f"{table}:{first}", "type": kind}
    )


def rules(most: int, gap: int, **limits: list[tuple[int, int]]) -> Rules:
    every = {table: list(spans) for table in FUNCTIONS for spans in [limits.get("barred", [])]}
    apart = {table: list(spans) for table in FUNCTIONS for spans in [limits.get("apart", [])]}
    return Rules(dict.fromkeys(FUNCTIONS, most), gap, every, apart)


@st.composite
def points(draw: st.DrawFn) -> list[ModbusPoint]:
    """Points near one another, so that merging, gaps, overlaps and all tables all happen."""
    found = []
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(sorted(WORDS)))
        base = draw(st.sampled_from([0, 0, 300, 65_400]))
        first = min(base + draw(st.integers(0, 130)), 65_536 - WORDS[kind])
        found.append(point(draw(st.sampled_from(sorted(FUNCTIONS))), first, kind))
    return found


def registers(request: Request) -> range:
    return range(request.first, request.first + request.count)


@settings(deadline=None, max_examples=120)
@given(points(), st.integers(4, 125), st.integers(0, 120))
def test_every_plan_keeps_all_promises(
    given_points: Sequence[ModbusPoint], max_registers: int, max_gap: int
) -> None:
    requests = plan(given_points, rules(max_registers, max_gap))
    covered = sorted(at for request in requests for at in request.points)
    assert covered == list(range(len(given_points)))
    for request in requests:
        assert 1 <= request.count <= max_registers
        assert registers(request).start >= 0
        assert registers(request).stop <= 65_536
        wanted: set[int] = set()
        for at in request.points:
            one = given_points[at]
            assert one.table == request.table
            # Whole: all words of a point are in the one request.
            assert one.first in registers(request)
            assert one.first + one.words - 1 in registers(request)
            wanted |= set(range(one.first, one.first + one.words))
        assert min(wanted) == request.first
        assert max(wanted) == registers(request)[-1]
        longest = run = 0
        for register in registers(request):
            run = 0 if register in wanted else run + 1
            longest = max(longest, run)
        assert longest <= max_gap * (16 if request.table in BITS else 1)


def partitions(members: list[int]) -> Iterator[list[list[int]]]:
    """Yield every way to divide numbers into groups."""
    if not members:
        yield []
        return
    first, *others = members
    for groups in partitions(others):
        yield [[first], *groups]
        for at in range(len(groups)):
            yield [*groups[:at], [first, *groups[at]], *groups[at + 1 :]]


Span = tuple[int, int]


def cheapest(
    spans: Sequence[Span], gap: int, most: int, barred: list[Span], apart: list[Span]
) -> Span:
    """Return cost and number of requests of the best of all divisions; nothing is assumed."""

    def allowed(first: int, end: int, group: list[int]) -> bool:
        if (first, end) in [spans[at] for at in group]:
            return True
        if end - first > most or any(first < b and a < end for a, b in barred):
            return False
        return not any(first <= a and b <= end for a, b in apart)

    best = (1 << 30, 0)
    for groups in partitions(list(range(len(spans)))):
        whole = [(min(spans[at][0] for at in g), max(spans[at][1] for at in g)) for g in groups]
        if all(allowed(*one, group) for one, group in zip(whole, groups, strict=True)):
            best = min(best, (sum(gap + end - first for first, end in whole), len(groups)))
    return best


near = st.integers(0, 24)
ranges = st.lists(st.tuples(near, st.integers(1, 5)).map(lambda p: (p[0], p[0] + p[1])), max_size=3)


@settings(deadline=None, max_examples=250)
@given(
    st.sampled_from(["holding", "coil"]),
    st.lists(st.tuples(near, st.sampled_from(sorted(WORDS))), min_size=1, max_size=6),
    st.integers(0, 8),
    st.integers(4, 14),
    ranges,
    ranges,
)
def test_no_division_of_the_points_is_cheaper(
    table: str,
    chosen: list[tuple[int, str]],
    gap: int,
    most: int,
    barred: list[Span],
    apart: list[Span],
) -> None:
    given_points = [point(table, first, kind) for first, kind in chosen]
    spans = [(one.first, one.first + one.words) for one in given_points]
    barred = [one for one in barred if not any(a < one[1] and one[0] < b for a, b in spans)]
    apart = [one for one in apart if not any(a <= one[0] and one[1] <= b for a, b in spans)]
    found = plan(given_points, rules(most, gap, barred=barred, apart=apart))
    price = 16 * gap if table == "coil" else gap
    cost = sum(price + one.count for one in found), len(found)
    assert cost == cheapest(spans, price, most, barred, apart)


def test_neighbours_are_read_together_and_strangers_apart() -> None:
    found = plan(
        [point("holding", 0), point("holding", 1), point("holding", 5), point("holding", 20)],
        rules(125, 3),
    )
    assert [(one.first, one.count, one.points) for one in found] == [
        (0, 6, (0, 1, 2)),
        (20, 1, (3,)),
    ]


@pytest.mark.parametrize(("gap", "requests"), [(7, 2), (8, 1)])
def test_a_gap_is_read_along_where_it_costs_no_more_than_a_request(gap: int, requests: int) -> None:
    assert len(plan([point("holding", 0), point("holding", 9)], rules(125, gap))) == requests


@pytest.mark.parametrize(("far", "requests"), [(129, 1), (130, 2)])
def test_sixteen_bits_cost_as_much_as_a_register(far: int, requests: int) -> None:
    assert len(plan([point("coil", 0), point("coil", far)], rules(2000, 8))) == requests


@pytest.mark.parametrize(("most", "requests"), [(9, 2), (10, 1)])
def test_a_request_is_as_long_as_the_device_answers_and_not_longer(
    most: int, requests: int
) -> None:
    found = plan([point("input", 0), point("input", 6, "float64")], rules(most, 120))
    assert len(found) == requests


def test_one_register_may_be_read_as_several_points() -> None:
    (only,) = plan(
        [point("holding", 4, "float32"), point("holding", 4), point("holding", 5)], rules(125, 0)
    )
    assert (only.first, only.count, sorted(only.points)) == (4, 2, [0, 1, 2])


def test_the_last_register_is_read() -> None:
    (only,) = plan([point("input", 65_532, "uint64")], rules(4, 0))
    assert (only.first, only.count) == (65_532, 4)


def test_two_thousand_neighbours_are_read_in_sixteen_requests() -> None:
    many = [point("holding", at) for at in range(2000)]
    assert len(plan(many, rules(125, 8))) == 16


def test_each_table_has_its_own_limit() -> None:
    many = [point(table, at) for table in ("coil", "input") for at in range(100)]
    found = plan(many, Rules({"coil": 50, "input": 25}, 8))
    assert [(one.table, one.count) for one in found] == [("coil", 50)] * 2 + [("input", 25)] * 4


def test_forbidden_addresses_are_not_even_read_along() -> None:
    found = plan([point("holding", 0), point("holding", 4)], rules(125, 8, barred=[(2, 3)]))
    assert [(one.first, one.count) for one in found] == [(0, 1), (4, 1)]


def test_a_point_goes_with_the_neighbours_with_whom_it_costs_least() -> None:
    """Filling the first request to the brim would read three registers more for nothing."""
    many = [point("holding", at) for at in (0, 3, 4, 5)]
    found = plan(many, rules(4, 2))
    assert [(one.first, one.count) for one in found] == [(0, 1), (3, 3)]

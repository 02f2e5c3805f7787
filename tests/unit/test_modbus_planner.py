"""Planner: every point is read once and whole, in requests that the device answers."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.drivers.modbus.planner import Request, plan
from protocols.drivers.modbus.point import WORDS, ModbusPoint


def point(table: str, first: int, kind: str = "uint16") -> ModbusPoint:
    return ModbusPoint.model_validate(
        {"id": f"p{first}", "address": f"{table}:{first}", "type": kind}
    )


@st.composite
def points(draw: st.DrawFn) -> list[ModbusPoint]:
    """Points near one another, so that merging, gaps, overlaps and both tables all happen."""
    found = []
    for _ in range(draw(st.integers(1, 25))):
        kind = draw(st.sampled_from(sorted(WORDS)))
        base = draw(st.sampled_from([0, 0, 300, 65_400]))
        first = min(base + draw(st.integers(0, 130)), 65_536 - WORDS[kind])
        found.append(point(draw(st.sampled_from(["holding", "input"])), first, kind))
    return found


def registers(request: Request) -> range:
    return range(request.first, request.first + request.count)


@settings(deadline=None, max_examples=120)
@given(points(), st.integers(4, 125), st.integers(0, 120))
def test_every_plan_keeps_all_promises(
    given_points: Sequence[ModbusPoint], max_registers: int, max_gap: int
) -> None:
    requests = plan(given_points, max_registers, max_gap)
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
        assert longest <= max_gap


def test_neighbours_are_read_together_and_strangers_apart() -> None:
    found = plan(
        [point("holding", 0), point("holding", 1), point("holding", 5), point("holding", 20)],
        125,
        3,
    )
    assert [(one.first, one.count, one.points) for one in found] == [
        (0, 6, (0, 1, 2)),
        (20, 1, (3,)),
    ]


@pytest.mark.parametrize(("gap", "requests"), [(7, 2), (8, 1)])
def test_a_gap_is_bridged_up_to_the_bound_and_not_beyond(gap: int, requests: int) -> None:
    assert len(plan([point("holding", 0), point("holding", 9)], 125, gap)) == requests


@pytest.mark.parametrize(("most", "requests"), [(9, 2), (10, 1)])
def test_a_request_is_as_long_as_the_device_answers_and_not_longer(
    most: int, requests: int
) -> None:
    assert len(plan([point("input", 0), point("input", 6, "float64")], most, 120)) == requests


def test_one_register_may_be_read_as_several_points() -> None:
    (only,) = plan(
        [point("holding", 4, "float32"), point("holding", 4), point("holding", 5)], 125, 0
    )
    assert (only.first, only.count, sorted(only.points)) == (4, 2, [0, 1, 2])


def test_the_last_register_is_read() -> None:
    (only,) = plan([point("input", 65_532, "uint64")], 4, 0)
    assert (only.first, only.count) == (65_532, 4)


def test_two_thousand_neighbours_are_read_in_sixteen_requests() -> None:
    many = [point("holding", at) for at in range(2000)]
    found = plan(many, 125, 8)
    assert len(found) == 16

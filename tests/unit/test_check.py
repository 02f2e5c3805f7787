"""The sheet check: nothing finer than released, nothing else than released."""

import numpy as np
import pytest

from protocols.batch import LARGEST_MANTISSA, Block
from protocols.vocabulary.states import OperatingState
from security.policy.check import FURTHEST_AHEAD_S, BeyondSheet, StreamTerms, stream_terms
from security.policy.sheets import release_sheets
from tests.unit.gate_material import counter, point, policy, rule, table

OWNER = table(
    [
        counter("energy"),
        point("power", "power.active"),
        point("m", "machine.state"),
        point("slow", "machine.state"),
    ]
)
STEP = 25
RULES = [
    rule(OWNER, "energy", 3, step="0.5", window_s=60),
    rule(OWNER, "power", 7, step=str(STEP), window_s=60),
    rule(OWNER, "m", 20, window_s=60),
    rule(OWNER, "slow", 40, step="0.1", window_s=900),
]


def terms(window_s: int = 60) -> StreamTerms:
    (sheet,) = release_sheets(policy(RULES))
    found = stream_terms(sheet)
    return next(one for one in found.values() if one.window_s == window_s)


def block(
    numbers: list[int],
    rows: list[list[int]],
    *,
    spans: dict[int, int] | None = None,
    quality: int = 0,
) -> Block:
    mantissa = np.array(rows, np.int64)
    return Block(
        slot=100,
        numbers=np.array(numbers, np.int64),
        mantissa=mantissa,
        quality=np.full(mantissa.shape, quality, np.uint8),
        span_cells=np.array(list(spans or {}), np.int64),
        spans=np.array(list((spans or {}).values()), np.int64),
    )


def state(first: int, end: int, *seconds: int) -> Block:
    cells = [end, *seconds, *[0] * (8 - len(seconds))]
    return block(list(range(first, first + 9)), [cells])


GOOD = [
    block([3], [[0], [5], [10], [LARGEST_MANTISSA // 5 * 5]]),
    block([7], [[-STEP], [0], [STEP * 1000]]),
    block([3, 7], [[5, 25], [10, 50]]),
    block([3], [[5], [10]], spans={1: 4}),
    block([3, 7], [[5, 25], [10, 50]], spans={0: 2, 2: 9}),
    state(20, OperatingState.RUN, 60),
    state(20, OperatingState.OFF, 20, 20, 0, 0, 0, 0, 0, 20),
    state(20, OperatingState.UNKNOWN),
]
BAD = {
    "off the rounding grid": block([3], [[5], [7]]),
    "off a coarse grid": block([7], [[STEP + 1]]),
    "a point of nobody": block([4], [[5]]),
    "a point beside a released one": block([3, 4], [[5, 5]]),
    "a point before all": block([1], [[5]]),
    "a point behind all": block([10**6], [[5]]),
    "a point of another stream": state(40, 1),
    "a falling counter": block([3], [[-5]]),
    "a leap too large": block([7], [[(LARGEST_MANTISSA // STEP + 1) * STEP]]),
    "more seconds than the slot": state(20, 1, 61),
    "more seconds together": state(20, 1, 40, 40),
    "negative seconds": state(20, 1, -1),
    "a state that is none": state(20, 9, 60),
    "a negative state": state(20, -1, 60),
    "part of a state": block([20], [[1]]),
    "seconds without their state": block(list(range(21, 29)), [[60] + [0] * 7]),
    "a span of a quantity": block([7], [[25], [50]], spans={1: 2}),
    "a span in a state": block(list(range(20, 29)), [[1, 60] + [0] * 7], spans={1: 2}),
    "a span beside one that may": block([3, 7], [[5, 25], [10, 50]], spans={2: 2, 3: 2}),
}


@pytest.mark.parametrize("one", GOOD)
def test_what_is_within_the_sheet_passes(one: Block) -> None:
    terms().check([one])


@pytest.mark.parametrize("one", BAD.values(), ids=BAD.keys())
def test_what_is_finer_or_other_is_refused(one: Block) -> None:
    with pytest.raises(BeyondSheet):
        terms().check([one])


@pytest.mark.parametrize("one", BAD.values(), ids=BAD.keys())
def test_it_is_found_behind_good_blocks(one: Block) -> None:
    with pytest.raises(BeyondSheet):
        terms().check([*GOOD, one])


def test_seconds_are_bounded_on_their_own_grid() -> None:
    within = state(40, 1, 9000)
    terms(900).check([within])
    with pytest.raises(BeyondSheet):
        terms(900).check([state(40, 1, 9001)])


def test_cells_without_value_are_within_every_sheet() -> None:
    terms().check([block(list(range(20, 29)), [[0] * 9], quality=2), block([3], [[0]], quality=2)])


def test_a_sheet_without_points_releases_nothing() -> None:
    empty = StreamTerms(
        window_s=60,
        pad=1024,
        numbers=np.zeros(0, np.int64),
        points=(),
        step=np.zeros(0, np.int64),
        lowest=np.zeros(0, np.int64),
        highest=np.zeros(0, np.int64),
        may_span=np.zeros(0, np.bool_),
        state=np.zeros(0, np.int64),
        delay_s=np.zeros(0, np.int64),
    )
    with pytest.raises(BeyondSheet):
        empty.check([block([3], [[5]])])


# A slot leaves in its time.

SLOT_100_ENDS_S = 101 * 60


@pytest.mark.parametrize(("delay_s", "early_s"), [(600, 1), (600, 86400), (7, 600)])
def test_a_slot_that_left_before_its_delay_is_refused(delay_s: int, early_s: int) -> None:
    rules = [RULES[0].model_copy(update={"delay_s": delay_s})]
    (sheet,) = release_sheets(policy(rules))
    (timed,) = stream_terms(sheet).values()
    one = [block([3], [[5]])]
    timed.check_time(one, SLOT_100_ENDS_S + delay_s)
    with pytest.raises(BeyondSheet):
        timed.check_time(one, SLOT_100_ENDS_S + delay_s - early_s)


def test_a_slot_from_the_future_is_refused_but_for_a_days_wrong_clock() -> None:
    one = [block([3], [[5], [10]])]
    terms().check_time(one, SLOT_100_ENDS_S + 60)
    terms().check_time(one, SLOT_100_ENDS_S + 60 - FURTHEST_AHEAD_S)
    with pytest.raises(BeyondSheet):
        terms().check_time(one, SLOT_100_ENDS_S + 59 - FURTHEST_AHEAD_S)
    with pytest.raises(BeyondSheet):
        terms().check_time([block([4], [[5]])], SLOT_100_ENDS_S)

"""What is taken of a history: all of it where it joins what was seen, nothing where it does not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from protocols.drivers.opcua.columns import microseconds
from protocols.drivers.opcua.history import _new, joined

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
# The library's annotations ask for wrappers of numbers that its own code does not use.
VALUE: Callable[..., ua.DataValue] = ua.DataValue
STATUS: Callable[..., ua.StatusCode] = ua.StatusCode
NO_BOUND = 0x80D70000


def shown(at: int, **more: Any) -> ua.DataValue:
    """What a node showed from a moment on; moments are apart by more than a millisecond."""
    stamps = {"SourceTimestamp": BEGIN + timedelta(milliseconds=10 * at)} | more
    return VALUE(ua.Variant(at, ua.VariantType.Int32), **stamps)


def us(at: int) -> int:
    return microseconds(shown(at))


def taken(history: list[ua.DataValue], known: int, first: int) -> list[int]:
    found = joined(_new(history, us(known)), us(first))
    return [value.Value.Value for value in found if value.Value is not None]


MOMENTS = st.sets(st.integers(0, 60), min_size=2, max_size=20).map(sorted)


@st.composite
def gaps(draw: st.DrawFn) -> tuple[list[int], int, int]:
    """Moments of change, the last that was seen before the gap, and the first seen after it."""
    moments = draw(MOMENTS)
    known = draw(st.integers(0, len(moments) - 1))
    first = draw(st.integers(known, len(moments) - 1))
    return moments, moments[known], moments[first]


@given(gaps(), st.randoms(), st.booleans())
def test_a_whole_history_gives_every_change_once_and_in_order(
    gap: tuple[list[int], int, int], chance: Any, late: bool
) -> None:
    moments, known, first = gap
    history = [shown(at, SourceTimestamp=shown(at).SourceTimestamp) for at in moments]
    if late:
        history.append(VALUE(StatusCode=STATUS(NO_BOUND)))
    chance.shuffle(history)
    between = [at for at in moments if known <= at < first]
    assert taken(history, known, first) == (between if first > known else [])


@given(gaps(), st.data())
def test_a_history_with_holes_is_taken_only_where_it_joins_at_both_ends(
    gap: tuple[list[int], int, int], data: st.DataObject
) -> None:
    moments, known, first = gap
    kept = sorted(data.draw(st.sets(st.sampled_from(moments))))
    found = taken([shown(at) for at in kept], known, first)
    if found:
        assert first in kept
        assert known in kept or not [at for at in kept if at <= known]
        assert found == [at for at in kept if known <= at < first]


@given(gaps(), st.sampled_from([0x401, 0x402, 0x403]), st.data())
def test_one_value_that_was_never_shown_leaves_the_whole_gap(
    gap: tuple[list[int], int, int], status: int, data: st.DataObject
) -> None:
    moments, known, first = gap
    history = [shown(at) for at in moments]
    at = data.draw(st.sampled_from(moments))
    made_up = data.draw(
        st.sampled_from(
            [shown(at, StatusCode=STATUS(status)), shown(at, SourceTimestamp=None)],
        )
    )
    history.insert(data.draw(st.integers(0, len(history))), made_up)
    assert taken(history, known, first) == []


def test_without_a_time_nothing_can_be_joined() -> None:
    history = [shown(at) for at in range(5)]
    assert joined(_new(history, us(1)), -(2**63)) == []
    # Nothing was seen before: all of it is new, and what held before it is not known.
    assert [
        value.Value.Value for value in joined(_new(history, -(2**63)), us(3)) if value.Value
    ] == [
        0,
        1,
        2,
    ]

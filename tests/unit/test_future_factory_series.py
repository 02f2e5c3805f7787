"""Future-factory series: exact decimals, absent where nothing is known, seconds that add up."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.series import future_factory
from aggregator.series.slots import ReleasedSlots, merge, to_float
from aggregator.stores import SeriesBlock, SeriesKey
from protocols.batch import LARGEST_MANTISSA, NO_VALUE, UNCERTAIN, Block
from protocols.frame import SECOND
from protocols.vocabulary.states import OperatingState
from security.policy.compiled import STATE_PARTS, SheetPoint
from tests.small_factory import block

WINDOW_S = 60
SLOT = 29_500_000
SECONDS = [
    "run_s",
    "setup_s",
    "idle_s",
    "starved_s",
    "held_s",
    "fault_s",
    "planned_down_s",
    "off_s",
]


def point(number: int = 1, **changes: Any) -> SheetPoint:
    return SheetPoint.model_validate(
        {
            "number": number,
            "stream": 1,
            "measurand": "temperature",
            "part": "",
            "unit": "degC",
            "exponent": -1,
            "step": 1,
            "aggregate": "last",
            "equipment": "furnace-1",
            "role": "",
            **changes,
        }
    )


def state(number: int, equipment: str = "press-1", exponent: int = -1) -> list[SheetPoint]:
    """Return the nine lines of a state."""
    return [
        point(
            number + at,
            measurand="machine.state",
            part=part,
            unit="s" if at else "1",
            exponent=exponent if at else 0,
            aggregate="state",
            equipment=equipment,
        )
        for at, part in enumerate(STATE_PARTS)
    ]


def series(one: Block, points: Sequence[SheetPoint]) -> dict[str, list[SeriesBlock]]:
    slots = ReleasedSlots("mill", "main", WINDOW_S, tuple(points), one)
    found: dict[str, list[SeriesBlock]] = {}
    for made in future_factory.project(slots):
        found.setdefault(made.key.measurement, []).append(made)
    return found


def the(found: dict[str, list[SeriesBlock]], measurement: str) -> SeriesBlock:
    (only,) = found[measurement]
    return only


def tags(one: SeriesBlock) -> dict[str, str]:
    return dict(one.key.tags)


def column(one: SeriesBlock, name: str) -> list[Any]:
    return [getattr(item, "item", lambda item=item: item)() for item in one.fields[name]]


def times(*slots: int) -> list[int]:
    return [(SLOT + at) * WINDOW_S * SECOND for at in slots]


# Readings.


def test_a_reading_is_stamped_with_the_start_of_its_window() -> None:
    found = the(series(block(SLOT, [1], [215, -3, 0]), [point()]), "ff_reading")
    assert found.time.tolist() == times(0, 1, 2)
    assert column(found, "value") == [21.5, -0.3, 0.0]
    assert column(found, "window_s") == column(found, "span_s") == [WINDOW_S] * 3
    assert column(found, "quality") == ["GOOD"] * 3
    assert tags(found) == {
        "enterprise_id": "mill",
        "site_id": "main",
        "equipment_id": "furnace-1",
        "measurand": "temperature",
    }


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.integers(-LARGEST_MANTISSA, LARGEST_MANTISSA) | st.integers(-9999, 9999),
        min_size=1,
        max_size=6,
    ),
    st.integers(-9, 9),
)
def test_values_are_the_nearest_floats_to_the_exact_decimals(
    mantissas: list[int], exponent: int
) -> None:
    wanted = [float(Decimal(m).scaleb(exponent)) for m in mantissas]
    assert to_float(np.array(mantissas, np.int64), exponent).tolist() == wanted
    one = block(SLOT, [1, 2], [[m, m] for m in mantissas])
    found = series(one, [point(1, exponent=exponent), point(2, equipment="other")])
    assert column(found["ff_reading"][0], "value") == wanted


def test_a_missing_slot_is_absent_and_never_zero() -> None:
    one = block(SLOT, [1], [215, 0, 0, 218], [0, NO_VALUE, 0, 0])
    found = the(series(one, [point()]), "ff_reading")
    assert found.time.tolist() == times(0, 2, 3)
    assert column(found, "value") == [21.5, 0.0, 21.8]


def test_a_point_without_any_value_has_no_series() -> None:
    one = block(SLOT, [1, 2], [[0, 5], [0, 6]], [[2, 0], [2, 0]])
    found = series(one, [point(1), point(2, equipment="other")])
    assert tags(the(found, "ff_reading"))["equipment_id"] == "other"


def test_an_uncertain_value_is_partial() -> None:
    one = block(SLOT, [1], [1, 2], [0, UNCERTAIN])
    assert column(the(series(one, [point()]), "ff_reading"), "quality") == ["GOOD", "PARTIAL"]


def test_a_value_over_several_slots_is_estimated_with_its_span() -> None:
    meter = point(measurand="energy.active_import", unit="kWh", aggregate="delta")
    one = block(SLOT, [1], [10, 0, 50, 20], [0, NO_VALUE, UNCERTAIN, 0], {2: 2})
    found = series(one, [meter])
    for made in (the(found, "ff_reading"), the(found, "ff_energy")):
        assert made.time.tolist() == times(0, 2, 3)
        assert column(made, "quality") == ["GOOD", "ESTIMATED", "GOOD"]
        assert column(made, "span_s") == [60, 120, 60]
        assert column(made, "window_s") == [60] * 3


def test_a_measurand_that_nobody_here_knows_is_still_a_reading() -> None:
    found = series(block(SLOT, [1], [7]), [point(measurand="unheard.of")])
    assert set(found) == {"ff_reading"}


@pytest.mark.parametrize(
    ("changes", "statistic"),
    [
        ({"aggregate": "mean"}, "mean"),
        ({"aggregate": "max"}, "max"),
        ({"aggregate": "derived", "measurand": "kpi.oee"}, "derived"),
        ({"bands": [10, 20]}, "band"),
        ({"pseudonym_s": 86_400}, "pseudonym"),
        ({"aggregate": "last"}, None),
    ],
)
def test_a_reading_says_which_statistic_it_is(
    changes: dict[str, Any], statistic: str | None
) -> None:
    found = the(series(block(SLOT, [1], [1]), [point(**changes)]), "ff_reading")
    assert tags(found).get("statistic") == statistic


@pytest.mark.parametrize("changes", [{"bands": [10, 20]}, {"pseudonym_s": 60}])
def test_nothing_is_computed_from_what_is_no_quantity(changes: dict[str, Any]) -> None:
    meter = point(measurand="energy.active_import", aggregate="delta", unit="kWh", **changes)
    assert set(series(block(SLOT, [1], [1]), [meter])) == {"ff_reading"}


# Energy.


@pytest.mark.parametrize(
    ("measurand", "role", "medium", "expected"),
    [
        ("energy.active_import", "main", "Electricity", "main"),
        ("energy.active_import", "", "Electricity", "main"),
        ("energy.active_import", "sub", "Electricity", "sub"),
        ("energy.active_export", "", "Electricity", "export"),
        ("energy.active_export", "pv", "Electricity", "export"),
        ("gas.volume", "", "NaturalGas", "main"),
    ],
)
def test_energy_has_its_medium_and_meter_role(
    measurand: str, role: str, medium: str, expected: str
) -> None:
    meter = point(measurand=measurand, role=role, aggregate="delta", unit="kWh", exponent=-2)
    found = the(series(block(SLOT, [1], [12345, 1]), [meter]), "ff_energy")
    assert column(found, "energy") == [123.45, 0.01]
    assert (tags(found)["medium"], tags(found)["meter_role"]) == (medium, expected)


@pytest.mark.parametrize(
    "measurand",
    ["power.active", "energy.reactive_import", "production.good", "temperature", "other"],
)
def test_what_is_no_energy_has_no_energy_series(measurand: str) -> None:
    found = series(block(SLOT, [1], [1]), [point(measurand=measurand, aggregate="delta")])
    assert set(found) == {"ff_reading"}


# States.


def test_seconds_in_states_and_the_state_at_the_end() -> None:
    # 0.1 s: half a minute running, a tenth of a second in setup, the rest idle.
    one = block(SLOT, range(10, 19), [3, 300, 1, 299, 0, 0, 0, 0, 0])
    found = the(series(one, state(10)), "ff_equipment_state")
    assert {name: column(found, name) for name in SECONDS} == {
        **{name: [0.0] for name in SECONDS},
        "run_s": [30.0],
        "setup_s": [0.1],
        "idle_s": [29.9],
    }
    assert column(found, "unknown_s") == [0.0]
    assert column(found, "coverage") == [1.0]
    assert (column(found, "state_code"), column(found, "state")) == ([3], ["IDLE"])
    assert column(found, "quality") == ["GOOD"]
    assert column(found, "window_s") == [WINDOW_S]
    assert tags(found)["state_model"] == "operating"
    assert tags(found)["equipment_id"] == "press-1"


def test_each_state_has_its_own_seconds() -> None:
    rows = [[at, *[600 if at == other else 0 for other in range(1, 9)]] for at in range(1, 9)]
    found = the(series(block(SLOT, range(10, 19), rows), state(10)), "ff_equipment_state")
    for at, name in enumerate(SECONDS):
        assert column(found, name) == [60.0 if row == at else 0.0 for row in range(8)]
    assert column(found, "state") == [OperatingState(at).name for at in range(1, 9)]


@settings(deadline=None, max_examples=200)
@given(st.data(), st.integers(-3, 0))
def test_seconds_in_all_states_and_unknown_add_up_to_the_window(data: Any, exponent: int) -> None:
    whole = WINDOW_S * 10**-exponent
    rest, mantissas = whole, []
    for _ in range(8):
        mantissas.append(data.draw(st.integers(0, rest)))
        rest -= mantissas[-1]
    code = data.draw(st.integers(0, 8))
    one = block(SLOT, range(10, 19), [code, *mantissas])
    found = the(series(one, state(10, exponent=exponent)), "ff_equipment_state")
    seconds = [column(found, name)[0] for name in SECONDS]
    assert seconds == [float(Decimal(m).scaleb(exponent)) for m in mantissas]
    exact = sum((Decimal(m).scaleb(exponent) for m in [*mantissas, rest]), Decimal(0))
    assert exact == WINDOW_S
    assert column(found, "unknown_s") == [float(Decimal(rest).scaleb(exponent))]
    assert column(found, "quality") == ["PARTIAL" if rest else "GOOD"]
    assert column(found, "coverage")[0] == pytest.approx(1 - rest / whole)
    assert column(found, "state_code") == [code]


def test_lost_contact_is_unknown_and_never_downtime() -> None:
    one = block(SLOT, range(10, 19), [[1, 600, *[0] * 7], [0] * 9], [[0] * 9, [NO_VALUE] * 9])
    found = the(series(one, state(10)), "ff_equipment_state")
    assert column(found, "unknown_s") == [0.0, 60.0]
    assert column(found, "coverage") == [1.0, 0.0]
    assert column(found, "state") == ["RUN", "UNKNOWN"]
    for name in SECONDS[1:]:
        assert column(found, name) == [0.0, 0.0]


def test_states_of_several_machines_are_told_apart() -> None:
    points = [*state(10), *state(20, "press-2"), point(40)]
    row = [1, 600, *[0] * 7, 8, *[0] * 7, 600, 215]
    found = series(block(SLOT, [*range(10, 19), *range(20, 29), 40], row), points)
    one, two = found["ff_equipment_state"]
    assert (column(one, "run_s"), column(one, "state")) == ([60.0], ["RUN"])
    assert (column(two, "off_s"), column(two, "state")) == ([60.0], ["OFF"])
    assert [tags(made)["equipment_id"] for made in (one, two)] == ["press-1", "press-2"]
    assert column(the(found, "ff_reading"), "value") == [21.5]


def test_the_parts_of_a_state_are_no_readings() -> None:
    found = series(block(SLOT, range(10, 19), [1, 600, *[0] * 7]), state(10))
    assert set(found) == {"ff_equipment_state"}


# Joining blocks of one series.


def made(time: list[int], value: list[float], text: list[str], name: str = "a") -> SeriesBlock:
    key = SeriesKey.of("m", {"equipment_id": name})
    return SeriesBlock(key, np.array(time, np.int64), {"v": np.array(value), "t": text})


def test_of_rows_with_one_time_the_later_wins() -> None:
    (joined,) = merge(
        [
            made([1, 2, 3], [1.0, 2.0, 3.0], ["a", "b", "c"]),
            made([0, 2], [9.0, 8.0], ["x", "y"]),
        ]
    )
    assert joined.time.tolist() == [0, 1, 2, 3]
    assert column(joined, "v") == [9.0, 1.0, 8.0, 3.0]
    assert joined.fields["t"] == ["x", "a", "y", "c"]


def test_blocks_of_other_series_are_left_alone() -> None:
    one, other = made([1], [1.0], ["a"]), made([1], [2.0], ["b"], "other")
    assert merge([one, other]) == [one, other]
    assert merge([]) == []


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sets(st.integers(0, 9), min_size=1, max_size=5)),
        max_size=6,
    )
)
def test_joined_series_hold_the_last_word_on_every_time(parts: list[tuple[str, set[int]]]) -> None:
    blocks, wanted = [], dict[tuple[str, int], int]()
    for at, (name, moments) in enumerate(parts):
        blocks.append(
            made(sorted(moments), [float(at)] * len(moments), [str(at)] * len(moments), name)
        )
        wanted |= {(name, moment): at for moment in moments}
    found = {}
    for joined in merge(blocks):
        assert (np.diff(joined.time) > 0).all()
        name = dict(joined.key.tags)["equipment_id"]
        for moment, value, text in zip(
            joined.time.tolist(), column(joined, "v"), joined.fields["t"], strict=True
        ):
            assert str(int(value)) == text
            found[name, moment] = int(value)
    assert found == wanted

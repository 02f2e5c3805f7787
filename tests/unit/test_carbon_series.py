"""Carbon series: activity times factor, exact, and absent where there is nothing to say."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.factors import Factors, shipped_sets
from aggregator.series import carbon
from aggregator.series.products import exact_product
from aggregator.series.slots import ReleasedSlots
from aggregator.stores import SeriesBlock
from protocols.batch import LARGEST_MANTISSA, NO_VALUE, UNCERTAIN, Block
from protocols.frame import SECOND
from security.policy.compiled import SheetPoint
from tests.small_factory import block

WINDOW_S = 900
FACTORS = Factors(shipped_sets(), "CN-ZJ", "")


def slot_of(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) // WINDOW_S  # type: ignore[arg-type, misc] # year, month, day


def point(number: int = 1, **changes: Any) -> SheetPoint:
    return SheetPoint.model_validate(
        {
            "number": number,
            "stream": 1,
            "measurand": "energy.active_import",
            "part": "",
            "unit": "kWh",
            "exponent": -2,
            "step": 1,
            "aggregate": "delta",
            "equipment": "meter-1",
            "role": "main",
            **changes,
        }
    )


def series(
    one: Block, points: Sequence[SheetPoint] = (point(),), factors: Factors = FACTORS
) -> dict[str, list[SeriesBlock]]:
    slots = ReleasedSlots("mill", "main", WINDOW_S, tuple(points), one)
    found: dict[str, list[SeriesBlock]] = {}
    for made in carbon.project(slots, factors):
        found.setdefault(made.key.measurement, []).append(made)
    return found


def the(found: dict[str, list[SeriesBlock]], measurement: str) -> SeriesBlock:
    (only,) = found[measurement]
    return only


def tags(one: SeriesBlock) -> dict[str, str]:
    return dict(one.key.tags)


def column(one: SeriesBlock, name: str) -> list[Any]:
    return list(one.fields[name])


S22 = slot_of(2022, 6, 1)


def test_activity_and_emission_of_purchased_electricity() -> None:
    found = series(block(S22, [1], [12345, 0, 1]))
    activity, emission = the(found, "ce_activity"), the(found, "ce_emission")
    starts = [(S22 + at) * WINDOW_S * SECOND for at in range(3)]
    assert activity.time.tolist() == emission.time.tolist() == starts
    assert column(activity, "activity") == [123.45, 0.0, 0.01]
    assert column(activity, "unit") == ["kWh"] * 3
    # 0.5153 kg/kWh: the products in decimals, each the nearest float.
    assert column(emission, "co2e_kg") == [63.613785, 0.0, 0.005153]
    assert column(emission, "factor_value") == [0.5153] * 3
    assert column(emission, "factor_unit") == ["kgCO2/kWh"] * 3
    assert len(set(column(emission, "factor_grade"))) == 1
    for one in (activity, emission):
        assert column(one, "window_s") == column(one, "span_s") == [WINDOW_S] * 3
        assert column(one, "quality") == ["GOOD"] * 3


def test_the_factor_that_was_used_is_recorded_with_the_result() -> None:
    emission = the(series(block(S22, [1], [1])), "ce_emission")
    assert tags(emission) == {
        "enterprise_id": "mill",
        "site_id": "main",
        "equipment_id": "meter-1",
        "scope": "2",
        "method": "location",
        "medium": "Electricity",
        "gas": "CO2",
        "factor_id": "cn-electricity-2022/CN-ZJ",
    }
    assert tags(the(series(block(S22, [1], [1])), "ce_activity"))["source_id"] == "meter-1"


def test_each_year_has_its_own_factor_when_none_was_chosen() -> None:
    first = slot_of(2023, 1, 1)
    found = series(block(first - 2, [1], [100] * 4))
    assert len(the(found, "ce_activity")) == 4
    before, after = found["ce_emission"]
    assert tags(before)["factor_id"] == "cn-electricity-2022/CN-ZJ"
    assert tags(after)["factor_id"] == "cn-electricity-2023/CN-ZJ"
    assert before.time.tolist() == [
        (first - 2) * WINDOW_S * SECOND,
        (first - 1) * WINDOW_S * SECOND,
    ]
    assert after.time.tolist() == [first * WINDOW_S * SECOND, (first + 1) * WINDOW_S * SECOND]
    assert column(before, "co2e_kg") == [0.5153] * 2
    assert column(after, "co2e_kg") == [0.4974] * 2


def test_a_chosen_set_serves_every_year() -> None:
    chosen = Factors(shipped_sets(), "CN-ZJ", "cn-electricity-2022")
    found = series(block(slot_of(2018, 12, 31), [1], [100] * 200), factors=chosen)
    assert {tags(one)["factor_id"] for one in found["ce_emission"]} == {"cn-electricity-2022/CN-ZJ"}
    assert sum(len(one) for one in found["ce_emission"]) == 200


def test_without_a_factor_there_is_activity_and_no_emission() -> None:
    found = series(block(slot_of(2010, 1, 1), [1], [100]))
    assert set(found) == {"ce_activity"}


@pytest.mark.parametrize("unit", ["MWh", "Wh", "kvarh", "1", ""])
def test_activity_in_another_unit_than_the_factors_has_no_emission(unit: str) -> None:
    """A factor per kWh says nothing of a MWh; a result a thousand times wrong is worse than none."""
    found = series(block(S22, [1], [100]), [point(unit=unit)])
    assert set(found) == {"ce_activity"}
    assert column(the(found, "ce_activity"), "unit") == [unit]


def test_a_missing_slot_is_absent_and_not_zero() -> None:
    found = series(block(S22, [1], [100, 0, 300], [0, NO_VALUE, 0]))
    for one in (the(found, "ce_activity"), the(found, "ce_emission")):
        assert one.time.tolist() == [S22 * WINDOW_S * SECOND, (S22 + 2) * WINDOW_S * SECOND]
    assert set(series(block(S22, [1], [0, 0], [NO_VALUE, NO_VALUE]))) == set()


def test_a_value_over_several_slots_is_estimated_with_its_span() -> None:
    found = series(block(S22, [1], [100, 200, 300], [0, UNCERTAIN, 0], {2: 4}))
    for one in (the(found, "ce_activity"), the(found, "ce_emission")):
        assert column(one, "quality") == ["GOOD", "PARTIAL", "ESTIMATED"]
        assert column(one, "span_s") == [WINDOW_S, WINDOW_S, 4 * WINDOW_S]
        assert column(one, "window_s") == [WINDOW_S] * 3


@pytest.mark.parametrize("role", ["sub", "pv", "export"])
def test_what_the_main_meter_has_already_counts_nowhere(role: str) -> None:
    assert series(block(S22, [1], [100]), [point(role=role)]) == {}


@pytest.mark.parametrize(
    "measurand",
    [
        "energy.active_export",
        "energy.reactive_import",
        "power.active",
        "production.good",
        "unheard.of",
    ],
)
def test_what_is_no_purchased_energy_has_no_carbon(measurand: str) -> None:
    assert series(block(S22, [1], [100]), [point(measurand=measurand)]) == {}


def test_a_meter_without_a_role_counts_as_a_main_meter() -> None:
    assert len(series(block(S22, [1], [100]), [point(role="")])["ce_emission"]) == 1


def test_meters_side_by_side_are_told_apart() -> None:
    points = [point(1, equipment="a"), point(2, equipment="b", exponent=0), point(3, role="sub")]
    found = series(block(S22, [1, 2, 3], [[100, 7, 9], [200, 8, 9]]), points)
    assert [tags(one)["equipment_id"] for one in found["ce_emission"]] == ["a", "b"]
    assert [column(one, "activity") for one in found["ce_activity"]] == [[1.0, 2.0], [7.0, 8.0]]
    assert [column(one, "co2e_kg") for one in found["ce_emission"]] == [
        [0.5153, 1.0306],
        [3.6071, 4.1224],
    ]


def test_a_year_of_slots_adds_up_to_the_exact_product_of_the_year() -> None:
    chance = np.random.default_rng(7)
    mantissa = chance.integers(0, 4000, 35_040)
    found = the(
        series(
            block(slot_of(2018, 1, 1), [1], mantissa),
            factors=Factors(shipped_sets(), "CN-ZJ", "cn-electricity-2022"),
        ),
        "ce_emission",
    )
    each = [Fraction(int(m), 100) * Fraction("0.5153") for m in mantissa]
    assert column(found, "co2e_kg") == [float(one) for one in each]


# The product itself.

mantissas = st.integers(-LARGEST_MANTISSA, LARGEST_MANTISSA) | st.integers(-100_000, 100_000)
factor_values = st.decimals(
    min_value="0.000001", max_value="1000000", allow_nan=False, allow_infinity=False
)


@settings(deadline=None, max_examples=200)
@given(st.lists(mantissas, min_size=1, max_size=5), st.integers(-9, 9), factor_values)
def test_every_product_is_the_nearest_float_to_the_exact_one(
    given_mantissas: list[int], exponent: int, factor: Decimal
) -> None:
    found = exact_product(np.array(given_mantissas, np.int64), exponent, factor)
    exact = [Fraction(m) * Fraction(10) ** exponent * Fraction(factor) for m in given_mantissas]
    assert found.tolist() == [float(one) for one in exact]
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("mantissa", "exponent", "factor"),
    [
        # Just above the middle between two floats: rounding first to fewer digits would go wrong.
        (1, 0, "9007199254740993.00000000000000000001"),
        (1, 0, "9007199254740995.99999999999999999999"),
        (3, -9, "0.333333333333333333333333333333333333"),
        (LARGEST_MANTISSA, 9, "1E-30"),
        (LARGEST_MANTISSA, -9, "1E+30"),
        (-1, 0, "0.1"),
        (1, 0, "1E-400"),
        (0, 0, "0.5"),
    ],
)
def test_products_with_many_digits_are_rounded_once(
    mantissa: int, exponent: int, factor: str
) -> None:
    exact = Fraction(mantissa) * Fraction(10) ** exponent * Fraction(factor)
    assert exact_product(np.array([mantissa]), exponent, Decimal(factor)).tolist() == [float(exact)]


def test_no_rows_have_no_products() -> None:
    assert exact_product(np.zeros(0, np.int64), -2, Decimal("0.5")).tolist() == []

"""Emission factors: data files that say where they are from, and one plain choice."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.factors import Factors, FactorSet, shipped_sets
from protocols.errors import ConfigError
from protocols.settings import load_settings

SHIPPED = shipped_sets()


def factor_set(year: int, **regions: str) -> FactorSet:
    return FactorSet.model_validate(
        {
            "id": f"set-{year}",
            "data_year": year,
            "publication": "a notice",
            "medium": "Electricity",
            "scope": 2,
            "method": "location",
            "gas": "CO2",
            "unit": "kgCO2/kWh",
            "activity_unit": "kWh",
            "factor": [
                {"region": region.replace("_", "-"), "value": value, "grade": "S", "source": "x"}
                for region, value in regions.items()
            ],
        }
    )


def sets(*given_sets: FactorSet) -> dict[str, FactorSet]:
    return {one.id: one for one in given_sets}


THREE = sets(
    factor_set(2021, CN="0.5"), factor_set(2022, CN="0.6", CN_ZJ="0.61"), factor_set(2024, CN="0.7")
)


# What is shipped.


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_set_names_year_publication_unit_source_and_grade(name: str) -> None:
    one = SHIPPED[name]
    assert one.id == name
    assert str(one.data_year) in one.id
    assert one.publication
    assert one.unit == f"kg{one.gas}/{one.activity_unit}"
    assert all(factor.source and factor.grade for factor in one.factor)
    regions = [factor.region for factor in one.factor]
    assert len(set(regions)) == len(regions)
    assert all(Decimal("0.01") < factor.value < 2 for factor in one.factor)


def test_the_published_factors_of_zhejiang_are_there() -> None:
    found = {one.data_year: one.of("CN-ZJ") for one in SHIPPED.values()}
    values = {year: factor.value for year, factor in found.items() if factor is not None}
    assert values[2022] == Decimal("0.5153")
    assert values[2023] == Decimal("0.4974")


def test_a_set_whose_file_has_a_typo_is_a_plain_fault(tmp_path: Path) -> None:
    path = tmp_path / "set.toml"
    path.write_text('id = "x"\ndata_yaer = 2022\nfactor = [{region = "CN", value = -1}]\n')
    with pytest.raises(ConfigError) as caught:
        load_settings(path, FactorSet)
    text = str(caught.value)
    assert "'data_year'" in text
    assert "factor[1].value" in text
    assert "factor[1].grade" in text


# The choice.


@pytest.mark.parametrize(
    ("year", "chosen"),
    [(2020, None), (2021, 2021), (2022, 2022), (2023, 2022), (2024, 2024), (2050, 2024)],
)
def test_without_an_explicit_set_the_newest_year_not_after_the_activitys_is_taken(
    year: int, chosen: int | None
) -> None:
    found = Factors(THREE, "CN", "").choose("Electricity", year)
    assert (found.set.data_year if found else None) == chosen
    if found:
        assert found.id == f"set-{chosen}/CN"


@pytest.mark.parametrize("year", [1990, 2021, 2023, 2050])
def test_an_explicit_set_is_taken_for_every_year(year: int) -> None:
    found = Factors(THREE, "CN", "set-2022").choose("Electricity", year)
    assert found is not None
    assert (found.id, found.factor.value) == ("set-2022/CN", Decimal("0.6"))


def test_a_set_without_the_region_is_passed_over() -> None:
    factors = Factors(THREE, "CN-ZJ", "")
    assert factors.choose("Electricity", 2021) is None
    newest = factors.choose("Electricity", 2050)
    assert newest is not None
    assert newest.id == "set-2022/CN-ZJ"


def test_a_medium_without_a_factor_has_none() -> None:
    assert Factors(THREE, "CN", "").choose("NaturalGas", 2024) is None
    assert Factors(THREE, "CN", "set-2022").choose("NaturalGas", 2024) is None


@settings(deadline=None, max_examples=100)
@given(st.sets(st.integers(2000, 2040), min_size=1), st.integers(1990, 2050))
def test_the_choice_does_not_depend_on_the_order_of_sets(years: set[int], year: int) -> None:
    made = [factor_set(one, CN="0.5") for one in years]
    wanted = max((one for one in years if one <= year), default=None)
    for order in (made, made[::-1]):
        found = Factors(sets(*order), "CN", "").choose("Electricity", year)
        assert (found.set.data_year if found else None) == wanted


@pytest.mark.parametrize(
    ("region", "explicit", "where", "known"),
    [
        ("CN", "set-2020", "carbon.factor_set", "set-2021"),
        ("CN-XX", "", "carbon.region", "CN-ZJ"),
        ("CN-ZJ", "set-2021", "carbon.region", "CN"),
    ],
)
def test_what_is_not_there_is_a_fault_that_names_what_is(
    region: str, explicit: str, where: str, known: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Factors(THREE, region, explicit)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{where}: ")
    assert known in line
    assert caught.value.exit_code == 2

"""Emission factors: data files that say where they are from, and one plain choice."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.factors import (
    Factors,
    FactorSet,
    fuel_set,
    shipped_equivalents,
    shipped_fuels,
    shipped_gwp,
    shipped_sets,
)
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
    largest = 2 if one.activity_unit == "kWh" else 200
    assert all(Decimal("0.01") < factor.value < largest for factor in one.factor)


def test_the_published_factors_of_zhejiang_are_there() -> None:
    found = {one.data_year: one.of("CN-ZJ") for one in SHIPPED.values() if "electricity" in one.id}
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


# Fuels, heat, the residual mix.


@pytest.mark.parametrize(
    ("name", "medium", "unit", "tonnes"),
    [
        ("cn-fuel-a", "Anthracite", "t", "2.3228"),
        ("cn-fuel-a", "Bituminous", "t", "2.0715"),
        ("cn-fuel-a", "Coke", "t", "2.8518"),
        ("cn-fuel-a", "DieselOil", "t", "3.1451"),
        ("cn-fuel-a", "NaturalGas", "Nm3", "0.0021622"),
        ("cn-fuel-b", "DieselOil", "t", "3.0959"),
        ("cn-fuel-b", "NaturalGas", "Nm3", "0.0021650"),
        ("cn-fuel-b", "LNG", "t", "3.1829"),
        ("cn-fuel-b", "CokeOvenGas", "Nm3", "0.00076362"),
    ],
)
def test_a_fuels_factor_is_the_exact_product_of_its_defaults(
    name: str, medium: str, unit: str, tonnes: str
) -> None:
    one = fuel_set(name).factor_set(medium)
    assert one is not None
    assert (one.scope, one.method, one.activity_unit) == (1, "direct", unit)
    exact = one.factor[0].exact / 1000
    digits = -int(Decimal(tonnes).as_tuple().exponent)
    assert round(exact, digits) == Fraction(tonnes)
    fuel = next(fuel for fuel in fuel_set(name).fuel if fuel.medium == medium)
    carbon = Fraction(fuel.ncv_gj) * Fraction(fuel.carbon_t_per_gj) * Fraction(fuel.oxidation)
    assert exact == carbon * 44 / 12 / (10_000 if unit == "Nm3" else 1)


def test_sets_of_fuels_are_never_mixed() -> None:
    """What one set does not have is not taken from the other."""
    only_a = {fuel.medium for fuel in shipped_fuels()["cn-fuel-a"].fuel} - {
        fuel.medium for fuel in shipped_fuels()["cn-fuel-b"].fuel
    }
    assert "Anthracite" in only_a
    for medium in only_a:
        assert Factors(SHIPPED, "CN-ZJ", "", fuel_set("cn-fuel-b")).choose(medium, 2024) is None
        found = Factors(SHIPPED, "CN-ZJ", "", fuel_set("cn-fuel-a")).choose(medium, 2024)
        assert found is not None
        assert found.id == f"cn-fuel-a/{medium}"
    with pytest.raises(ConfigError, match="cn-fuel-a"):
        fuel_set("cn-fuel-c")


def test_heat_has_the_default_of_the_standard_for_every_year() -> None:
    found = Factors(SHIPPED, "CN-ZJ", "cn-electricity-2022").choose("Steam_Saturated", 2019)
    assert found is not None
    assert found.factor.exact == Fraction(110)
    assert found.set.unit == "kgCO2/GJ"
    assert found.id == "cn-heat-2025/Steam_Saturated"


def test_the_residual_mix_is_market_based_and_national() -> None:
    factors = Factors(SHIPPED, "CN-ZJ", "")
    found = factors.residual("Electricity", 2024)
    assert found is not None
    assert (found.id, found.factor.exact) == ("cn-residual-2023/CN", Fraction("0.6096"))
    location = factors.choose("Electricity", 2024)
    assert location is not None
    assert location.set.method == "location"
    assert factors.residual("NaturalGas", 2024) is None


def test_a_wider_region_serves_only_where_the_nearer_has_no_factor() -> None:
    factors = Factors(THREE, "CN-ZJ", "", wider=("CN",))
    found = {year: factors.choose("Electricity", year) for year in (2021, 2022, 2024)}
    assert {year: one and one.id for year, one in found.items()} == {
        2021: "set-2021/CN",
        2022: "set-2022/CN-ZJ",
        2024: "set-2024/CN",
    }


def test_standard_coal_and_warming_potentials_are_there() -> None:
    coal = shipped_equivalents().by_unit
    assert coal["Electricity", "kWh"] == Fraction("0.0001229")
    assert coal["NaturalGas", "Nm3"] == Fraction("0.00133")
    assert ("NaturalGas", "m3") not in coal
    gwp = shipped_gwp()
    assert gwp["AR5"]["CH4"] == Decimal(28)
    assert gwp["AR6"]["CH4"] == Decimal("27.9")
    assert gwp["AR5"]["CO2"] == gwp["AR6"]["CO2"] == Decimal(1)

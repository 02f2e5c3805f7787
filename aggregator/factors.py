"""Emission factors: data files that name year, publication, source and grade, and the choice."""

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, Field

from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.settings import Strict, load_settings
from protocols.vocabulary.measurands import CONVERSIONS
from protocols.words import instead_of

Grade = Literal["P", "S2", "S", "U"]
Method = Literal["location", "market", "direct"]

EVERYWHERE: Final = "*"
"""The region of a factor that does not depend on one."""

_CARBON_TO_CO2: Final = (44, 12)
"""Molar masses, GB/T 32150: tCO2 = tC x 44/12."""


class Factor(Strict):
    """The factor of one region.

    Attributes:
        value: kg of gas per unit of activity, before the division by `over`.
        over: a whole number that `value` is divided by, so that the factor stays exact.
        grade: P primary text, S2 two transcriptions agree, S one transcription, U unsure.
    """

    region: str = EVERYWHERE
    value: Decimal = Field(gt=0)
    over: int = Field(default=1, ge=1)
    grade: Grade
    source: str

    @cached_property
    def exact(self) -> Fraction:
        """The factor itself."""
        return Fraction(self.value) / self.over


class FactorSet(Strict):
    """One publication's factors for one data year.

    Attributes:
        medium, media: what they are for.
        unit: kg of gas per unit of activity, such as kgCO2/kWh.
        default: used for every year, also before `data_year`: a default that is no statistic of
            that year.
    """

    id: str
    data_year: int
    publication: str
    medium: str = ""
    media: list[str] = Field(default=[])
    scope: Literal[1, 2]
    method: Method
    gas: str
    unit: str
    activity_unit: str
    default: bool = False
    factor: list[Factor]

    def of(self, region: str) -> Factor | None:
        """Return the factor of a region, or the one that holds everywhere."""
        return next((one for one in self.factor if one.region in {region, EVERYWHERE}), None)

    def covers(self, medium: str) -> bool:
        """Tell whether the set has factors for a medium."""
        return medium == self.medium or medium in self.media


class Fuel(Strict):
    """Defaults of one fuel.

    Attributes:
        per: the unit that `ncv_gj` is for.
        ncv_gj: net calorific value, GJ per unit.
        carbon_t_per_gj: carbon content, tC/GJ.
        oxidation: the part of the carbon that burns.
    """

    medium: str
    per: str
    ncv_gj: Decimal = Field(gt=0)
    carbon_t_per_gj: Decimal = Field(gt=0)
    oxidation: Decimal = Field(gt=0, le=1)
    grade: Grade
    source: str


class FuelSet(Strict):
    """Fuel defaults of one family of documents; an inventory uses one set and never mixes them.

    Attributes:
        data_year: of the newest document; 0 where none is known.
    """

    id: str
    data_year: int = 0
    publication: str
    gas: Literal["CO2"]
    fuel: list[Fuel]

    def factor_set(self, medium: str) -> FactorSet | None:
        """Return a fuel's combustion factor, NCV x CC x OF x 44/12, per unit of its measurand."""
        fuel = next((one for one in self.fuel if one.medium == medium), None)
        if fuel is None:
            return None
        carbon, over = _CARBON_TO_CO2
        tonnes = fuel.ncv_gj * fuel.carbon_t_per_gj * fuel.oxidation * carbon
        unit, size = _base_unit(fuel.per)
        factor = Factor(value=tonnes * 1000, over=over * size, grade=fuel.grade, source=fuel.source)
        return FactorSet(
            id=self.id,
            data_year=self.data_year,
            publication=self.publication,
            medium=medium,
            scope=1,
            method="direct",
            gas=self.gas,
            unit=f"kg{self.gas}/{unit}",
            activity_unit=unit,
            default=True,
            factor=[factor],
        )


def _base_unit(per: str) -> tuple[str, int]:
    """Return the unit that measurands use, and how many of them make one `per`."""
    if per == "10^4 Nm3":
        return "Nm3", int(CONVERSIONS[per, "Nm3"])
    return per, 1


class Equivalent(Strict):
    """How much standard coal a unit of a medium is."""

    medium: str
    unit: str
    kgce: Decimal = Field(gt=0)


class CoalEquivalents(Strict):
    """Standard coal equivalents (当量值) of one publication."""

    id: str
    publication: str
    grade: Grade
    source: str
    equivalent: list[Equivalent]

    @cached_property
    def by_unit(self) -> dict[tuple[str, str], Fraction]:
        """Tonnes of coal equivalent per unit, by (medium, unit)."""
        return {(one.medium, one.unit): Fraction(one.kgce) / 1000 for one in self.equivalent}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A factor and the set that it is from."""

    set: FactorSet
    factor: Factor
    medium: str

    @property
    def id(self) -> str:
        """What every result records."""
        what = self.medium if self.factor.region == EVERYWHERE else self.factor.region
        return f"{self.set.id}/{what}"


Model = TypeVar("Model", bound=BaseModel)


def shipped_sets() -> dict[str, FactorSet]:
    """Return all sets of purchased energy that are shipped, by id."""
    return {one.id: one for one in _shipped("configs.factors", FactorSet)}


def shipped_fuels() -> dict[str, FuelSet]:
    """Return all sets of fuel defaults that are shipped, by id."""
    return {one.id: one for one in _shipped("configs.factors.fuels", FuelSet)}


def shipped_equivalents() -> CoalEquivalents:
    """Return the standard coal equivalents of energy statistics."""
    (only,) = _shipped("configs.factors.coal", CoalEquivalents)
    return only


def shipped_gwp() -> dict[str, dict[str, Decimal]]:
    """Return GWP100 by basis and gas."""
    text = (resources.files("configs.factors.gwp") / "gwp100.toml").read_text(encoding="utf-8")
    return {
        basis["id"]: {gas: Decimal(value) for gas, value in basis["gwp"].items()}
        for basis in tomllib.loads(text)["basis"]
    }


def _shipped(package: str, model: type[Model]) -> list[Model]:
    found = []
    for entry in resources.files(package).iterdir():
        if entry.name.endswith(".toml"):
            with resources.as_file(entry) as path:
                found.append(load_settings(Path(path), model))
    return found


class Factors:
    """Chooses the factor for an activity.

    Args:
        sets: the factor sets there are.
        region: where the factory takes its energy, such as CN-ZJ.
        explicit: id of the one set to use for its media; empty takes the newest data year that is
            not after the activity's year.
        fuels: defaults for what is burnt; None knows none.
        wider: regions to look in where `region` has no factor, nearest first.
    """

    def __init__(
        self,
        sets: dict[str, FactorSet],
        region: str,
        explicit: str,
        fuels: FuelSet | None = None,
        wider: tuple[str, ...] = (),
    ) -> None:
        self._regions = (region, *wider)
        if explicit and explicit not in sets:
            raise ConfigError([_unknown_set(explicit, sorted(sets))])
        self._explicit = sets.get(explicit)
        self._sets = sorted(sets.values(), key=lambda one: one.data_year)
        self._fuels = fuels
        self._chosen: dict[tuple[str, int], Chosen | None] = {}
        self._check_region(sets, region)

    def _check_region(self, sets: dict[str, FactorSet], region: str) -> None:
        usable = [self._explicit] if self._explicit else list(sets.values())
        known = {
            factor.region for one in usable for factor in one.factor if factor.region != EVERYWHERE
        }
        if known.isdisjoint(self._regions):
            raise ConfigError([_unknown_region(region, sorted(known))])

    def choose(self, medium: str, year: int) -> Chosen | None:
        """Return the factor for a medium in a year; None when there is none: then no result.

        Purchased electricity gets its location-based factor, a fuel its combustion factor.
        """
        place = (medium, year)
        if place not in self._chosen:
            self._chosen[place] = self._choose(medium, year)
        return self._chosen[place]

    def _choose(self, medium: str, year: int) -> Chosen | None:
        if self._explicit is not None and self._explicit.covers(medium):
            return self._nearest(self._explicit, medium)
        fuel = self._fuels.factor_set(medium) if self._fuels else None
        if fuel is not None:
            return self._nearest(fuel, medium)
        return self._newest(medium, year, "location")

    def residual(self, medium: str, year: int) -> Chosen | None:
        """Return the market-based factor of what no contract covers; None when there is none."""
        return self._newest(medium, year, "market")

    def _newest(self, medium: str, year: int, method: Method) -> Chosen | None:
        best = None
        for one in self._sets:
            usable = one.data_year <= year or one.default
            if usable and one.method == method and one.covers(medium):
                best = self._nearest(one, medium) or best
        return best

    def _nearest(self, one: FactorSet, medium: str) -> Chosen | None:
        # A residual mix is published for the whole country only.
        country = (self._regions[0].partition("-")[0],) if one.method == "market" else ()
        for region in (*self._regions, *country):
            factor = one.of(region)
            if factor is not None:
                return Chosen(one, factor, medium)
        return None


def _unknown_set(name: str, known: list[str]) -> MillgateError:
    return MillgateError(
        tr(f"there is no factor set '{name}'", f"没有排放因子集 '{name}'"),
        where="carbon.factor_set",
        remedy=instead_of(name, known, "configs/factors/"),
    )


def fuel_set(name: str) -> FuelSet:
    """Return a shipped set of fuel defaults.

    Raises:
        ConfigError: there is none of that name.
    """
    known = shipped_fuels()
    if name not in known:
        fault = MillgateError(
            tr(f"there is no fuel set '{name}'", f"没有燃料缺省值集 '{name}'"),
            where="carbon.fuel_set",
            remedy=instead_of(name, sorted(known), "configs/factors/"),
        )
        raise ConfigError([fault])
    return known[name]


def _unknown_region(region: str, known: list[str]) -> MillgateError:
    return MillgateError(
        tr(f"no factor for region '{region}'", f"没有地区 '{region}' 的排放因子"),
        where="carbon.region",
        remedy=instead_of(region, known, "configs/factors/"),
    )

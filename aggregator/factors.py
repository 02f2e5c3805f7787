"""Emission factors: data files that name year, publication, source and grade, and the choice."""

from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field

from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.settings import Strict, load_settings

Grade = Literal["P", "S2", "S", "U"]


class Factor(Strict):
    """The factor of one region.

    Attributes:
        grade: P primary text, S2 two transcriptions agree, S one transcription, U unsure.
    """

    region: str
    value: Decimal = Field(gt=0)
    grade: Grade
    source: str


class FactorSet(Strict):
    """One publication's factors for one data year.

    Attributes:
        unit: kg of gas per unit of activity, such as kgCO2/kWh.
    """

    id: str
    data_year: int
    publication: str
    medium: str
    scope: Literal[1, 2]
    method: Literal["location", "market", "direct"]
    gas: str
    unit: str
    activity_unit: str
    factor: list[Factor]

    def of(self, region: str) -> Factor | None:
        """Return the factor of a region."""
        return next((factor for factor in self.factor if factor.region == region), None)


@dataclass(frozen=True, slots=True)
class Chosen:
    """A factor and the set that it is from."""

    set: FactorSet
    factor: Factor

    @property
    def id(self) -> str:
        """What every result records."""
        return f"{self.set.id}/{self.factor.region}"


def shipped_sets() -> dict[str, FactorSet]:
    """Return all factor sets that are shipped, by id."""
    found = {}
    for entry in resources.files("configs.factors").iterdir():
        if entry.name.endswith(".toml"):
            with resources.as_file(entry) as path:
                one = load_settings(Path(path), FactorSet)
            found[one.id] = one
    return found


class Factors:
    """Chooses the factor for an activity.

    Args:
        sets: the factor sets there are.
        region: where the factory takes its energy, such as CN-ZJ.
        explicit: id of the one set to use; empty takes the newest data year that is not after
            the activity's year.
    """

    def __init__(self, sets: dict[str, FactorSet], region: str, explicit: str) -> None:
        self._region = region
        if explicit and explicit not in sets:
            raise ConfigError([_unknown_set(explicit, sorted(sets))])
        usable = [sets[explicit]] if explicit else list(sets.values())
        self._explicit = bool(explicit)
        self._sets = sorted(usable, key=lambda one: one.data_year)
        if not any(one.of(region) for one in self._sets):
            regions = sorted({factor.region for one in self._sets for factor in one.factor})
            raise ConfigError([_unknown_region(region, regions)])

    def choose(self, medium: str, year: int) -> Chosen | None:
        """Return the factor for a medium in a year; None when there is none: then no result."""
        best = None
        for one in self._sets:
            factor = one.of(self._region)
            if one.medium == medium and factor and (self._explicit or one.data_year <= year):
                best = Chosen(one, factor)
        return best


def _unknown_set(name: str, known: list[str]) -> MillgateError:
    return MillgateError(
        tr(f"there is no factor set '{name}'", f"没有排放因子集 '{name}'"),
        where="carbon.factor_set",
        remedy=tr(f"use one of {', '.join(known)}", f"可用：{', '.join(known)}"),
    )


def _unknown_region(region: str, known: list[str]) -> MillgateError:
    return MillgateError(
        tr(f"no factor for region '{region}'", f"没有地区 '{region}' 的排放因子"),
        where="carbon.region",
        remedy=tr(f"use one of {', '.join(known)}", f"可用：{', '.join(known)}"),
    )

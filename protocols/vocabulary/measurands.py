"""Measurands: what a point measures, by standard name, with its unit and kind.

The words are data: `configs/vocabulary/`. Media follow OPC 40001-4 (Machinery, energy management);
counts and states follow ISO 22400-2 and OPC 40001-1.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, Literal

from pydantic import Field

from protocols.vocabulary.tables import Table, read_table


class Kind(StrEnum):
    """How values of a measurand behave in time."""

    COUNTER = "counter"
    """Cumulative; only its differences have meaning outside."""
    GAUGE = "gauge"
    """A quantity at a moment."""
    STATE = "state"
    """A code out of a state model."""
    OTHER = "other"
    """Anything local; it has no standard meaning and belongs to no series."""


@dataclass(frozen=True, slots=True)
class Medium:
    """What energy or material comes as.

    Attributes:
        name: OPC 40001-4 resource name where `opc`, else a name of this vocabulary.
        en, zh: for people.
    """

    name: str
    opc: bool
    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Measurand:
    """A standard quantity.

    Attributes:
        name: its name in configuration, policy and release sheet.
        unit: the unit its released values carry.
        kind: how it behaves in time.
        medium: name of the medium where it counts as energy or material, else empty.
        scope: what its carbon counts as at a main meter: 1 direct, 2 purchased, 0 none.
        opc: the OPC 34100 / OPC 40001-1 variable that carries it, else empty.
        en, zh: for people.
    """

    name: str
    unit: str
    kind: Kind
    medium: str = ""
    scope: Literal[0, 1, 2] = 0
    opc: str = ""
    en: str = ""
    zh: str = ""


class _Medium(Table):
    name: str = Field(pattern=r"^[A-Z][A-Za-z0-9_]{0,31}$")
    opc: bool
    en: str
    zh: str


class _Media(Table):
    medium: list[_Medium]


class _Measurand(Table):
    name: str = Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")
    unit: str = Field(min_length=1, max_length=16)
    kind: Kind
    medium: str = ""
    scope: Literal[0, 1, 2] = 0
    opc: str = ""
    en: str
    zh: str


class _Measurands(Table):
    version: int = Field(ge=1)
    measurand: list[_Measurand]


class _Conversion(Table):
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    factor: Decimal = Field(gt=0)


class _Units(Table):
    conversion: list[_Conversion]


_FILE: Final = read_table("measurands.toml", _Measurands)

VERSION: Final = _FILE.version
"""Rises when a name changes its meaning or names are added."""

MEDIA: Final = {
    medium.name: Medium(**medium.model_dump()) for medium in read_table("media.toml", _Media).medium
}

MEASURANDS: Final = {one.name: Measurand(**one.model_dump()) for one in _FILE.measurand}

CONVERSIONS: Final = {
    (one.source, one.target): one.factor for one in read_table("units.toml", _Units).conversion
}
"""By (unit of a device, unit of a measurand): the exact decimal to multiply by."""


def unit_factor(unit: str, measurand: Measurand) -> Decimal | None:
    """Return what to multiply a value in `unit` by to have it in the measurand's unit.

    None means that the unit does not fit the measurand. Local measurands take any unit.
    """
    if unit == measurand.unit or measurand.kind is Kind.OTHER:
        return Decimal(1)
    return CONVERSIONS.get((unit, measurand.unit))

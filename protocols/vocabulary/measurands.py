"""Measurands: what a point measures, by standard name, with its unit and kind.

Media follow OPC 40001-4 (Machinery, energy management); counts and states follow
ISO 22400-2 and OPC 40001-1.
"""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final


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
class Measurand:
    """A standard quantity.

    Attributes:
        name: its name in configuration, policy and release sheet.
        unit: the unit its released values carry.
        kind: how it behaves in time.
        medium: OPC 40001-4 resource name where it counts as energy, else empty.
    """

    name: str
    unit: str
    kind: Kind
    medium: str = ""


_ALL: Final = (
    Measurand("energy.active_import", "kWh", Kind.COUNTER, "Electricity"),
    Measurand("energy.active_export", "kWh", Kind.COUNTER, "Electricity"),
    Measurand("energy.reactive_import", "kvarh", Kind.COUNTER),
    Measurand("gas.volume", "m3", Kind.COUNTER, "NaturalGas"),
    Measurand("power.active", "kW", Kind.GAUGE, "Electricity"),
    Measurand("power.factor", "1", Kind.GAUGE, "Electricity"),
    Measurand("temperature", "degC", Kind.GAUGE),
    Measurand("pressure", "bar", Kind.GAUGE),
    Measurand("machine.state", "1", Kind.STATE),
    Measurand("production.total", "pcs", Kind.COUNTER),
    Measurand("production.good", "pcs", Kind.COUNTER),
    Measurand("production.scrap", "pcs", Kind.COUNTER),
    Measurand("time.device", "s", Kind.OTHER),
    Measurand("other", "1", Kind.OTHER),
)

MEASURANDS: Final = {measurand.name: measurand for measurand in _ALL}

_TO_STANDARD: Final = {
    ("Wh", "kWh"): Decimal("0.001"),
    ("MWh", "kWh"): Decimal(1000),
    ("W", "kW"): Decimal("0.001"),
    ("MW", "kW"): Decimal(1000),
    ("varh", "kvarh"): Decimal("0.001"),
    ("Nm3", "m3"): Decimal(1),
}


def unit_factor(unit: str, measurand: Measurand) -> Decimal | None:
    """Return what to multiply a value in `unit` by to have it in the measurand's unit.

    None means that the unit does not fit the measurand. Local measurands take any unit.
    """
    if unit == measurand.unit or measurand.kind is Kind.OTHER:
        return Decimal(1)
    return _TO_STANDARD.get((unit, measurand.unit))

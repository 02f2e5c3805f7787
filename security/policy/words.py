"""The words and bounds that the officers' text, what is compiled from it, and the gate have in common."""

from typing import Final, Literal

from protocols.vocabulary.measurands import Kind

CLASSES: Final = ("general-1", "general-2", "general-3", "general-4", "important", "core")
"""Data classes after GB/T 43697-2024, least protected first; a general class has four levels."""

Aggregate = Literal["last", "sum", "mean", "min", "max", "delta", "state"]
Role = Literal["", "main", "sub", "pv", "export"]

STATE_NUMBERS: Final = 9
"""How many point numbers a state takes: the state at the slot's end, then seconds in 1 to 8."""

LARGEST_NUMBER: Final = (1 << 31) - 1

FITS: Final = {
    "last": (Kind.GAUGE, Kind.OTHER),
    "mean": (Kind.GAUGE, Kind.OTHER),
    "min": (Kind.GAUGE, Kind.OTHER),
    "max": (Kind.GAUGE, Kind.OTHER),
    "sum": (Kind.OTHER,),
    "delta": (Kind.COUNTER,),
    "state": (Kind.STATE,),
}
"""Which kinds of measurand an aggregate fits."""

STATISTICS: Final = ("sum", "mean", "min", "max")
"""Aggregates over all samples of a slot."""

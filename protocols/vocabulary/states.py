"""Operating states, and how the state models of machines map to them.

The operating model unites SEMI E10, PackML (ISA-TR88.00.02) and OPC UA for Machinery
(OPC 40001-1); every code that a model does not list is UNKNOWN, never downtime. The tables are data:
`configs/vocabulary/states/`, one file per model.
"""

from enum import IntEnum, StrEnum
from typing import Final

import numpy as np

from protocols.frame import Bytes
from protocols.vocabulary.tables import Table, read_table, read_tables


class OperatingState(IntEnum):
    """What a machine is doing, as the series know it."""

    UNKNOWN = 0
    RUN = 1
    SETUP = 2
    IDLE = 3
    STARVED_BLOCKED = 4
    HELD = 5
    FAULT = 6
    PLANNED_DOWN = 7
    OFF = 8


class TimeElement(StrEnum):
    """What ISO 22400-2 counts the seconds of a state as."""

    PRODUCTION = "production"
    """APT, actual production time."""
    SETUP = "setup"
    """AUST, actual unit setup time."""
    DELAY = "delay"
    """ADET, actual unit delay time."""
    DOWN = "down"
    """ADOT, actual unit down time: available, but without an order."""
    PLANNED_DOWN = "planned_down"
    """Outside planned busy time."""
    OFF = "off"
    """Outside planned busy time."""


LARGEST_CODE: Final = 255


class StateModel(Table):
    """The file of one state model.

    Attributes:
        codes: the machine's codes as text, and the operating state of each in lower case.
    """

    title_en: str
    title_zh: str
    source: str
    codes: dict[str, str]


class _Times(Table):
    source: str
    elements: dict[str, TimeElement]


STATE_FILES: Final = read_tables("states", StateModel)


def _codes(model: StateModel) -> dict[int, OperatingState]:
    found = {int(code): OperatingState[state.upper()] for code, state in model.codes.items()}
    if min(found) < 0 or max(found) > LARGEST_CODE:
        raise ValueError("a state's code is out of range")
    return found


STATE_MODELS: Final[dict[str, dict[int, OperatingState]]] = {
    name: _codes(model) for name, model in STATE_FILES.items()
}

_TIMES: Final = read_table("times.toml", _Times)

TIMES_SOURCE: Final = _TIMES.source

TIME_ELEMENTS: Final = {
    OperatingState[state.upper()]: element for state, element in _TIMES.elements.items()
}
"""Every state but UNKNOWN, whose seconds lower the coverage and are no time element."""

S = OperatingState


def lookup_table(model: str) -> Bytes:
    """Return shape (256,): the operating state of each code of the model."""
    table = np.zeros(LARGEST_CODE + 1, np.uint8)
    for code, state in STATE_MODELS[model].items():
        table[code] = state
    return table

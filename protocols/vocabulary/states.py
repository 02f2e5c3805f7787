"""Operating states, and how the state models of machines map to them.

The operating model unites SEMI E10, PackML (ISA-TR88.00.02) and OPC UA for Machinery
(OPC 40001-1); every code that a model does not list is UNKNOWN, never downtime.
"""

from enum import IntEnum
from typing import Final

import numpy as np

from protocols.frame import Bytes, Ints


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


S = OperatingState

STATE_MODELS: Final[dict[str, dict[int, OperatingState]]] = {
    # The operating states themselves, for machines whose gateway already maps them.
    "operating": {int(state): state for state in S},
    # OPC 40001-1 v1.03 MachineryItemState.
    "machinery_item": {0: S.OFF, 1: S.FAULT, 2: S.IDLE, 3: S.RUN},
    # PackML nodeset v1.01 state numbers in mode Produce.
    "packml": {
        2: S.OFF,
        3: S.SETUP,
        4: S.IDLE,
        5: S.STARVED_BLOCKED,
        6: S.RUN,
        8: S.FAULT,
        9: S.FAULT,
        10: S.HELD,
        11: S.HELD,
        12: S.HELD,
        13: S.STARVED_BLOCKED,
        14: S.STARVED_BLOCKED,
        15: S.SETUP,
        17: S.IDLE,
    },
}

LARGEST_CODE: Final = 255


def lookup_table(model: str) -> Bytes:
    """Return shape (256,): the operating state of each code of the model."""
    table = np.zeros(LARGEST_CODE + 1, np.uint8)
    for code, state in STATE_MODELS[model].items():
        table[code] = state
    return table


def to_operating(codes: Ints, table: Bytes) -> Bytes:
    """Map raw codes, any shape, to operating states; codes out of range are UNKNOWN."""
    known = (codes >= 0) & (codes <= LARGEST_CODE)
    return np.where(known, table[np.where(known, codes, 0)], np.uint8(S.UNKNOWN))

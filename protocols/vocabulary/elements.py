"""Where the elements of key figures come from: states of a machine, its counters, and constants.

`kpi` has the formulas; this says which of them can be computed from what devices give, and how the
seconds in operating states add up to the time elements of ISO 22400-2.
"""

from typing import Final

from protocols.frame import Floats
from protocols.vocabulary.kpi import FORMULAS, Formula
from protocols.vocabulary.states import TIME_ELEMENTS, OperatingState, TimeElement

STATE: Final = "state"
"""Name of the one input that is a machine's state."""

_T = TimeElement
_BUSY: Final = frozenset({_T.PRODUCTION, _T.SETUP, _T.DELAY, _T.DOWN})

FROM_STATE: Final[dict[str, frozenset[TimeElement]]] = {
    "apt": frozenset({_T.PRODUCTION}),
    "aust": frozenset({_T.SETUP}),
    "aupt": frozenset({_T.PRODUCTION, _T.SETUP}),
    "adet": frozenset({_T.DELAY}),
    "aoet": _BUSY,
    "pbt": _BUSY,
}
"""Time elements as sums of what the seconds of states count as. Planned busy time is all known time
but planned downtime and off."""

FROM_COUNTER: Final[dict[str, tuple[str, ...]]] = {
    "pq": ("production.total",),
    "gq": ("production.good",),
    "sq": ("production.scrap",),
    "rq": ("production.rework",),
    "gp": ("production.passed",),
    "ip": ("production.inspected",),
    "energy": ("energy.active_import",),
}
"""Elements that are what a counter rose by, and the measurands that fit."""

CONSTANTS: Final = ("pru",)
"""Elements that the firm knows: PRU, the planned run time per unit (ideal cycle time), seconds."""

_KNOWN: Final = {*FROM_STATE, *FROM_COUNTER, *CONSTANTS}

COMPUTABLE: Final[dict[str, Formula]] = {
    name: formula for name, formula in FORMULAS.items() if _KNOWN.issuperset(formula.inputs)
}
"""The formulas that a factory can compute at its edge."""


def inputs_of(formula: Formula) -> set[str]:
    """Return the names of the inputs that a formula takes; all its time elements come from one."""
    return {
        STATE if element in FROM_STATE else element
        for element in formula.inputs
        if element not in CONSTANTS
    }


def constants_of(formula: Formula) -> set[str]:
    """Return the names of the constants that a formula takes."""
    return {element for element in formula.inputs if element in CONSTANTS}


def figure_of(name: str) -> str:
    """Return the measurand of what a formula gives."""
    return f"kpi.{name}"


def time_elements(seconds: Floats) -> dict[str, Floats]:
    """Return every time element of a machine.

    Args:
        seconds: shape (n, 8), seconds in the operating states 1 to 8.

    Returns:
        each of shape (n,), seconds.
    """
    found = {}
    for element, parts in FROM_STATE.items():
        columns = [int(state) - 1 for state in OperatingState if TIME_ELEMENTS.get(state) in parts]
        total: Floats = seconds[:, columns].sum(axis=1)
        found[element] = total
    return found

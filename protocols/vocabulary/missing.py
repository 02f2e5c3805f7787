"""What is said of words that the vocabulary does not have."""

from typing import Final

from protocols.errors import Misfit
from protocols.language import tr
from protocols.vocabulary.measurands import CONVERSIONS, MEASURANDS, Kind, Measurand, unit_factor
from protocols.vocabulary.states import STATE_MODELS
from protocols.words import instead_of

LISTED: Final = "docs/vocabulary.md, millgate aggregator vocabulary"
"""Where all words are listed."""


def no_such_measurand(word: str, unit: str) -> Misfit:
    """Return the fault of a measurand that there is none of; one that has the unit is meant first."""
    what = tr(f"there is no measurand '{word}'", f"没有测量量（measurand）'{word}'")
    fitting = [
        name
        for name, one in MEASURANDS.items()
        # "1" is what stands there when nobody wrote a unit.
        if unit != "1" and one.kind is not Kind.OTHER and unit_factor(unit, one) is not None
    ]
    return Misfit(what, instead_of(word, MEASURANDS, LISTED, rather=fitting), ("measurand",))


def no_such_model(word: str | None) -> Misfit:
    """Return the fault of a state whose codes nobody can read."""
    what = (
        tr("a state needs state_model", "状态点须有 state_model")
        if word is None
        else tr(f"there is no state_model '{word}'", f"没有 state_model '{word}'")
    )
    return Misfit(what, instead_of(word or "", STATE_MODELS, LISTED), ("state_model",))


def wrong_unit(unit: str, measurand: Measurand) -> Misfit:
    """Return the fault of a unit that cannot be turned into the measurand's."""
    units = [measurand.unit, *(one for one, other in CONVERSIONS if other == measurand.unit)]
    what = tr(
        f"unit '{unit}' does not fit measurand {measurand.name}",
        f"单位 '{unit}' 与测量量 {measurand.name} 不符",
    )
    return Misfit(what, instead_of(unit, dict.fromkeys(units), LISTED), ("unit",))

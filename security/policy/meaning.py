"""What a signed rule must say to mean something: the same as the compiler asks, whoever compiled it.

The compiler refuses all of this in the officers' text. What is signed may come from another tool, and
the gate enforces only what it understands whole.
"""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, get_args

from protocols.strict_cbor import Malformed
from protocols.vocabulary.measurands import MEASURANDS, Kind
from protocols.vocabulary.states import STATE_MODELS
from security.policy.compiled import CompiledPolicy, Derivation, Input, Rule
from security.policy.words import CLASSES, FITS, LARGEST_NUMBER, Role

_ROLES: Final = get_args(Role)
_DAY_S: Final = 86_400
_AGENT: Final = re.compile(r"(?:[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4})?")
_NEVER: Final = ("important", "core")


def check_meaning(policy: CompiledPolicy) -> None:
    """Check that every rule, and what is said of the whole, has a meaning here.

    Raises:
        Malformed: naming the first word that has none.
    """
    for word in _meaningless_head(policy):
        raise Malformed(f"its {word} has no meaning")
    for one in policy.leaving:
        for word in _meaningless(policy, one):
            raise Malformed(f"a rule's {word} has no meaning")


def _meaningless_head(policy: CompiledPolicy) -> Iterator[str]:
    if policy.class_ceiling not in CLASSES:
        yield "class ceiling"
    if _AGENT.fullmatch(policy.minimum_agent) is None:
        yield "minimum agent"
    if len({one.encryption_key for one in policy.consumers}) < len(policy.consumers):
        yield "consumer of the same key"
    if not all(_is_number(one.protect) for one in policy.secrets):
        yield "protection"
    secrets = {one.point for one in policy.secrets}
    canaries = {one.point for one in policy.secrets if one.canary}
    inputs = {f"{one.device}/{one.point}" for each in policy.derived for one in each.inputs}
    if secrets & {one.source for one in policy.rules} or canaries & inputs:
        yield "secret that leaves"


def _meaningless(policy: CompiledPolicy, one: Rule | Derivation) -> Iterator[str]:
    if _DAY_S % one.window_s:
        yield "window"
    if one.role not in _ROLES:
        yield "role"
    if one.number + one.width - 1 > LARGEST_NUMBER:
        yield "number"
    if not _may_leave(one, policy.class_ceiling):
        yield "class"
    if isinstance(one, Rule):
        yield from _source(one)
        yield from _aggregate(one)
        return
    for each in one.inputs:
        yield from _source(each)
    if not all(map(_is_number, one.constants.values())):
        yield "constant"


def _may_leave(one: Rule | Derivation, ceiling: str) -> bool:
    classes = (one.class_raw, one.class_released, ceiling)
    if not set(classes) <= set(CLASSES) or set(classes) & set(_NEVER):
        return False
    raw, released, highest = map(CLASSES.index, classes)
    return released <= min(raw, highest)


def _source(one: Rule | Input) -> Iterator[str]:
    if not _is_number(one.scale) or not Decimal(one.scale):
        yield "scale"
    if not _is_number(one.offset):
        yield "offset"
    if not _is_range(one.range):
        yield "range"


def _aggregate(one: Rule) -> Iterator[str]:
    measurand = MEASURANDS.get(one.measurand)
    if measurand is None:
        yield "measurand"
        return
    if measurand.kind not in FITS[one.aggregate]:
        yield "aggregate"
    if one.aggregate == "state" and one.state_model not in STATE_MODELS:
        yield "state model"
    if one.pseudonym_s and measurand.kind is not Kind.OTHER:
        yield "pseudonym"


def _is_range(bounds: Sequence[str]) -> bool:
    if not bounds:
        return True
    return (
        len(bounds) == 2
        and all(map(_is_number, bounds))
        and Decimal(bounds[0]) < Decimal(bounds[1])
    )


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False

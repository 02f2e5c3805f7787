"""Decides by reading the device what a profile leaves open; what cannot be seen is never guessed.

For each choice a value is seen to be right, seen to be wrong, or tells nothing (a voltage of 0
where the mains are off). A choice is taken when it alone is seen to be right, or when all others
are seen to be wrong. No value read here is ever written or shown: only what it means.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Final, Protocol

from agent.onboarding.profiles import (
    VALUE,
    Alternative,
    Check,
    Choice,
    ModbusProfile,
    Reading,
    filled,
)
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.words import instead_of

_DENORMAL: Final = 1e-30
"""Below this size a float is what other types look like when read as one."""

_SUNSPEC: Final = 0x53756E53
_SUNSPEC_BASES: Final = (40000, 50000, 0)
_SUNSPEC_END: Final = 0xFFFF
_MOST_MODELS: Final = 64


class Device(Protocol):
    """What can be asked of a device."""

    async def number(self, address: str, kind: str) -> float | None:
        """Return the value at an address, read as a type; None when the device refuses.

        Raises:
            NotConnected: when it does not answer.
        """
        ...


class Seen(Enum):
    """What reading the device says of a choice."""

    RIGHT = 0
    UNKNOWN = 1
    WRONG = 2


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen.

    Attributes:
        seen: what it says.
        why: why, in one line without any value.
    """

    seen: Seen
    why: str


@dataclass
class Decision:
    """What a device is.

    Attributes:
        choices: id of alternative -> id of choice.
        variables: all of them.
        absent: variables that the device does not have.
        reasons: what was chosen and why, one line each.
    """

    choices: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class Undecided(MillgateError):
    """Reading the device does not tell, and nobody was asked."""

    exit_code = 2


Ask = Callable[[Alternative, Mapping[str, Evidence]], str]
"""Has a person choose; returns the id of a choice, or raises Undecided."""


def described(alternative: Alternative, evidence: Mapping[str, Evidence]) -> list[str]:
    """Return the choices with what was seen of each, in one line each."""
    return [
        f"{choice.id}: {tr(choice.says, choice.says_zh)}"
        + (f" - {evidence[choice.id].why}" if choice.id in evidence else "")
        for choice in alternative.choice
    ]


def refusing(alternative: Alternative, evidence: Mapping[str, Evidence]) -> str:
    """Ask nobody.

    Raises:
        Undecided: always, with what was seen and the words that decide.
    """
    question = tr(alternative.question, alternative.question_zh)
    seen = tr("; ", "；").join(described(alternative, evidence))
    raise Undecided(
        tr(
            f"reading the device does not tell: {question} {seen}",
            f"读取设备无法判断：{question} {seen}",
        ),
        where=alternative.id,
        remedy=" | ".join(f"--choose {alternative.id}={one.id}" for one in alternative.choice),
    )


async def decide(
    profile: ModbusProfile,
    given: Mapping[str, str],
    device: Device | None,
    ask: Ask,
    decision: Decision | None = None,
) -> Decision:
    """Return what a device is.

    Args:
        profile: what it may be.
        given: choices that a person has made, id of alternative -> id of choice.
        device: the device; None leaves it alone.
        ask: has a person decide what reading does not.
        decision: filled in on the way, so that there is something to show where it ends early.

    Raises:
        MillgateError: when a given choice does not exist, or the device is not as it should be.
        Undecided: from `ask`.
        NotConnected: when the device does not answer.
    """
    _check_given(profile, given)
    decision = Decision() if decision is None else decision
    if profile.find is not None:
        await _find_model(profile.find, device, decision)
    for alternative in profile.alternative:
        if any(decision.choices.get(name) != choice for name, choice in alternative.when.items()):
            decision.variables |= alternative.otherwise
            continue
        evidence: dict[str, Evidence] = {}
        if device is not None:
            evidence = {
                choice.id: await _look(choice, decision.variables, device)
                for choice in alternative.choice
            }
        _take(alternative, given.get(alternative.id), evidence, ask, decision)
    for reading in profile.reading:
        await _read(reading, device, decision, needed=_is_needed(reading, decision, profile))
    return decision


def _check_given(profile: ModbusProfile, given: Mapping[str, str]) -> None:
    known = {one.id: [choice.id for choice in one.choice] for one in profile.alternative}
    for name, choice in given.items():
        if choice not in known.get(name, []):
            words = [f"{one}={choice}" for one in known for choice in known[one]]
            raise MillgateError(
                tr(
                    f"{profile.id} has no choice {name}={choice}",
                    f"{profile.id} 没有选项 {name}={choice}",
                ),
                where="--choose",
                remedy=instead_of(f"{name}={choice}", words),
            )


def _take(
    alternative: Alternative,
    given: str | None,
    evidence: Mapping[str, Evidence],
    ask: Ask,
    decision: Decision,
) -> None:
    seen = _by_evidence(alternative, evidence)
    chosen = given or seen or ask(alternative, evidence)
    choice = next(one for one in alternative.choice if one.id == chosen)
    why = evidence[chosen].why if chosen in evidence else ""
    if given is not None:
        why = tr("chosen by hand", "人工指定")
        if chosen in evidence and evidence[chosen].seen is Seen.WRONG:
            why += tr("; BUT the device looks otherwise: ", "；但设备读数与之不符：")
            why += evidence[chosen].why
    elif seen is None:
        why = tr("chosen by you", "由您选择")
    elif evidence[chosen].seen is not Seen.RIGHT:
        why = tr("nothing else fits", "其他选项均不符")
    decision.choices[alternative.id] = chosen
    decision.variables |= choice.vars
    decision.reasons.append(
        f"{alternative.id} = {chosen} ({tr(choice.says, choice.says_zh)}): {why}"
    )


def _by_evidence(alternative: Alternative, evidence: Mapping[str, Evidence]) -> str | None:
    """Return the choice that what was seen leaves; None when it does not tell."""
    if not evidence:
        return None
    right = [name for name, one in evidence.items() if one.seen is Seen.RIGHT]
    if len(right) == 1 or (right and alternative.several == "first"):
        return right[0]
    open_ = [name for name, one in evidence.items() if one.seen is not Seen.WRONG]
    return open_[0] if not right and len(open_) == 1 else None


async def _look(choice: Choice, variables: Mapping[str, str], device: Device) -> Evidence:
    """Return what reading the device says of a choice."""
    if not choice.test:
        return Evidence(Seen.UNKNOWN, tr("cannot be seen by reading", "无法通过读取判断"))
    both = {**variables, **choice.vars}
    found = [await _test(check, both, device) for check in choice.test]
    worst = max(found, key=lambda one: one.seen.value)
    return worst if worst.seen is not Seen.RIGHT else found[0]


async def _test(check: Check, variables: Mapping[str, str], device: Device) -> Evidence:
    found = []
    for value in check.value:
        one = await _test_one(check, value, variables, device)
        if one.seen is Seen.RIGHT:
            return one
        found.append(one)
    return min(found, key=lambda one: one.seen.value)


async def _test_one(
    check: Check, value: str, variables: Mapping[str, str], device: Device
) -> Evidence:
    name = filled(value.split(" ", maxsplit=1)[0], variables)
    number = await _size(value, variables, device)
    if number is None:
        return Evidence(Seen.WRONG, tr(f"{name} is refused", f"{name} 被拒绝"))
    if not math.isfinite(number) or 0 < number < _DENORMAL:
        return Evidence(Seen.WRONG, tr(f"{name} is no such number", f"{name} 不是此类数值"))
    ratio = await _ratio(check, number, variables, device)
    if not ratio:
        return Evidence(Seen.UNKNOWN, tr(f"{name} shows nothing now", f"{name} 当前无读数"))
    inside = float(check.low) <= ratio <= float(check.high)
    of = (
        tr(" in relation to other values", "（与其他读数之比）")
        if check.over or check.over_sum
        else ""
    )
    span = f"{check.low} … {check.high}"
    if inside:
        return Evidence(
            Seen.RIGHT, tr(f"{name}{of} is within {span}", f"{name}{of} 在 {span} 之内")
        )
    return Evidence(
        Seen.WRONG, tr(f"{name}{of} is not within {span}", f"{name}{of} 不在 {span} 之内")
    )


def _related(check: Check) -> bool:
    return bool(check.times or check.over or check.over_sum)


async def _ratio(
    check: Check, number: float, variables: Mapping[str, str], device: Device
) -> float | None:
    """Return a number in relation to others; None when those are refused, or none, or 0."""
    times = await _sizes(check.times, variables, device)
    over = await _sizes(check.over, variables, device)
    over_sum = await _sizes(check.over_sum, variables, device)
    if times is None or over is None or over_sum is None:
        return None
    below = math.prod(over) * (sum(over_sum) if over_sum else 1.0)
    return number * math.prod(times) / below if below else None


async def _sizes(
    values: list[str], variables: Mapping[str, str], device: Device
) -> list[float] | None:
    found = [await _size(value, variables, device) for value in values]
    sizes = [one for one in found if one is not None and math.isfinite(one)]
    return sizes if len(sizes) == len(values) else None


async def _size(value: str, variables: Mapping[str, str], device: Device) -> float | None:
    match = VALUE.fullmatch(value)
    if match is None:
        raise ValueError(value)
    number = await device.number(filled(match[1], variables), match[2])
    return None if number is None else abs(number)


def _is_needed(reading: Reading, decision: Decision, profile: ModbusProfile) -> bool:
    """Tell whether what was chosen leads to a reading."""
    texts = [one.address + one.scale for one in profile.point]
    mark = f"{{{reading.var}}}"
    return any(mark in text for text in [*texts, *decision.variables.values()])


async def _read(
    reading: Reading, device: Device | None, decision: Decision, *, needed: bool
) -> None:
    if not needed:
        return
    match = VALUE.fullmatch(reading.value)
    if device is None or match is None:
        raise Undecided(
            tr(
                f"{reading.says} has to be read from the device",
                f"{reading.says_zh}须从设备读取",
            ),
            where=reading.var,
            remedy=tr("leave out --offline", "请去掉 --offline"),
        )
    address = filled(match[1], decision.variables)
    number = await device.number(address, match[2])
    raw = None if number is None else Decimal(number)
    if raw is not None and raw in reading.absent:
        decision.absent.append(reading.var)
        decision.variables[reading.var] = "1"
        return
    if raw is None or not reading.low <= raw * reading.scale <= reading.high:
        raise MillgateError(
            tr(
                f"{reading.says} at {address} is not one: not such a device",
                f"{address} 处不是有效的{reading.says_zh}：设备型号不符",
            ),
            where=reading.var,
            remedy=tr(
                "check unit id and profile; 'millgate agent probe' shows what is there",
                "请核对站号与设备模板；可用 'millgate agent probe' 查看",
            ),
        )
    value = Decimal(10) ** int(raw) if reading.use == "exponent" else raw * reading.scale
    decision.variables[reading.var] = f"{value.normalize():f}"
    decision.reasons.append(
        tr(
            f"{reading.says}: {decision.variables[reading.var]}, read from {address} and fixed",
            f"{reading.says_zh}：{decision.variables[reading.var]}，读自 {address} 并固定",
        )
    )


async def _find_model(find: str, device: Device | None, decision: Decision) -> None:
    """Look for a SunSpec model; its first register becomes the variable `model`.

    SunSpec Device Information Model: the mark "SunS" stands at 40000, 50000 or 0; models follow,
    each with its number and length; 0xFFFF ends them.
    """
    wanted = int(find.removeprefix("sunspec:"))
    if device is None:
        raise Undecided(
            tr("the SunSpec model has to be found at the device", "须在设备上查找 SunSpec 模型"),
            remedy=tr("leave out --offline", "请去掉 --offline"),
        )
    for base in _SUNSPEC_BASES:
        if await device.number(f"holding:{base}", "uint32") == _SUNSPEC:
            break
    else:
        bases = ", ".join(map(str, _SUNSPEC_BASES))
        raise MillgateError(
            tr(f"no SunSpec mark at {bases}", f"{bases} 处没有 SunSpec 标识"),
            remedy=tr(
                "switch SunSpec on at the device, and check the unit id",
                "请在设备上启用 SunSpec，并核对站号",
            ),
        )
    at = base + 2
    models: list[int] = []
    for _ in range(_MOST_MODELS):
        model = await device.number(f"holding:{at}", "uint16")
        length = await device.number(f"holding:{at + 1}", "uint16")
        if model is None or length is None or model == _SUNSPEC_END:
            break
        if model == wanted:
            decision.variables["model"] = f"holding:{at}"
            decision.reasons.append(
                tr(
                    f"SunSpec model {wanted} found at holding:{at}",
                    f"SunSpec 模型 {wanted} 位于 holding:{at}",
                )
            )
            return
        models.append(int(model))
        at += 2 + int(length)
    names = ", ".join(map(str, models)) or "-"
    raise MillgateError(
        tr(f"the device has no SunSpec model {wanted}", f"设备没有 SunSpec 模型 {wanted}"),
        remedy=tr(f"it has: {names}", f"现有模型：{names}"),
    )

"""What goes wrong when: for the same seed and the same requests, the same every time."""

import random
import re
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, Protocol

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.words import instead_of

OK: Final = "ok"
"""In a script: nothing goes wrong."""

_STEP: Final = re.compile(r"([a-z0-9-]+)(?:\*([1-9][0-9]{0,8}))?")


class Step(NamedTuple):
    """Part of a script: a fault's name, and for how many requests; None is for ever."""

    name: str
    times: int | None


class Plan(Protocol):
    """Says of each request what goes wrong with it."""

    def next(self) -> str:
        """Return the name of the fault, or OK."""
        ...


class Script:
    """Steps in order; after the last one nothing goes wrong any more."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = list(reversed(steps))
        self._left = 0
        self._name = OK

    @property
    def over(self) -> bool:
        """Whether every step has been played."""
        return not self._steps and self._left == 0

    def next(self) -> str:
        """Return the fault of the next request."""
        while self._left == 0 and self._steps:
            self._name, count = self._steps.pop()
            self._left = -1 if count is None else count
        if self._left == 0:
            return OK
        self._left -= 1 if self._left > 0 else 0
        return self._name


class Sprinkle:
    """Each request is hit with a fixed chance, by any of some faults."""

    def __init__(self, names: Sequence[str], share: float, chance: random.Random) -> None:
        self._names = names
        self._share = share
        self._chance = chance

    def next(self) -> str:
        """Return the fault of the next request."""
        if not self._names or self._chance.random() >= self._share:
            return OK
        return self._chance.choice(self._names)


def read_plan(
    texts: Sequence[str], known: Collection[str], share: float, chance: random.Random
) -> Plan:
    """Make a plan of what a person wrote.

    Args:
        texts: names, which are sprinkled over the requests; or one script such as
            `ok*20,late-reply*3,garbage`, where a step without a number lasts for ever.
        known: the faults there are.
        share: chance of each request to be hit by a sprinkled fault.
        chance: where chances come from.

    Raises:
        MillgateError: for a name that is not known, or a script beside something else.
    """
    scripts = [text for text in texts if "," in text or "*" in text]
    if not scripts:
        for name in texts:
            check_name(name, known)
        return Sprinkle(list(texts), share, chance)
    if len(texts) > 1:
        raise MillgateError(
            tr("a script stands alone", "脚本须单独使用"),
            where="--fault",
            remedy=tr(
                "put all steps into one, such as ok*20,garbage*3",
                "请合写为一个，例如 ok*20,garbage*3",
            ),
        )
    return Script([_step(part, known) for part in scripts[0].split(",")])


def _step(text: str, known: Collection[str]) -> Step:
    match = _STEP.fullmatch(text.strip())
    if match is None:
        raise MillgateError(
            tr("is not a step of a script", "不是脚本步骤"),
            where=f"--fault {text.strip()!r}",
            remedy=tr(
                "write name*count, such as late-reply*3", "请写作 名称*次数，例如 late-reply*3"
            ),
        )
    check_name(match[1], {OK, *known})
    return Step(match[1], int(match[2]) if match[2] else None)


def check_name(name: str, known: Collection[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        MillgateError: with the nearest name there is.
    """
    if name in known:
        return
    raise MillgateError(
        tr(f"there is no fault '{name}'", f"没有故障 '{name}'"),
        where="--fault",
        remedy=instead_of(name, sorted(known), "millgate sim chaos list"),
    )

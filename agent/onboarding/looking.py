"""What registers may hold: read under every type and byte order, with what makes sense of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from protocols.language import tr

if TYPE_CHECKING:
    from protocols.drivers.modbus.point import Order

_DENORMAL: Final = 1e-30
_HUGE: Final = 1e13
_SENTINELS: Final = {
    "int16": {-(2**15), 2**15 - 1, -1},
    "uint16": {2**16 - 1, 2**15},
    "int32": {-(2**31), 2**31 - 1, -1},
    "uint32": {2**32 - 1, 2**31},
    "int64": {-(2**63), 2**63 - 1, -1},
    "uint64": {2**64 - 1, 2**63},
}


@dataclass(frozen=True, slots=True)
class View:
    """Registers read in one way.

    Attributes:
        kind, order: the type and byte order.
        value: the last number; NaN where it is none of the type.
        hints: what makes sense of it, or speaks against it.
        odd: whether it can hardly be meant.
        likely: whether it looks like something.
    """

    kind: str
    order: "Order"
    value: float
    hints: tuple[str, ...]
    odd: bool
    likely: bool


def views(samples: Sequence[bytes]) -> list[View]:
    """Return what registers may hold.

    Args:
        samples: the same registers, as often as they were read; the latest last.
    """
    from protocols.drivers.modbus.survey import (  # noqa: PLC0415 - slow to load
        ORDERS,
        WORDS,
        interpreted,
    )

    size = min(len(data) for data in samples)
    found = []
    for kind, words in WORDS.items():
        if 2 * words > size:
            continue
        for order in ORDERS if words > 1 else ("ABCD", "BADC"):
            numbers = [interpreted(data[: 2 * words], kind, order) for data in samples]
            hints, odd = judged(kind, numbers)
            likely = not odd and bool(set(hints) - {tr(*_CHANGES)})
            found.append(View(kind, order, numbers[-1], hints, odd, likely))
    return found


def judged(kind: str, numbers: Sequence[float]) -> tuple[tuple[str, ...], bool]:
    """Return hints on a series of numbers, and whether they can hardly be meant."""
    last = numbers[-1]
    against = _against(kind, last)
    if against:
        return (against,), True
    hints = [hint for hint in (_moves(numbers), _mains(last)) if hint]
    return tuple(hints), False


def _against(kind: str, number: float) -> str:
    if not math.isfinite(number):
        return tr("no such number", "不是此类数值")
    size = abs(number)
    if kind.startswith("float") and 0 < size < _DENORMAL:
        return tr("too small to be meant", "小得不合理")
    if size > _HUGE:
        return tr("too large to be meant", "大得不合理")
    if number in _SENTINELS.get(kind, ()):
        return tr("perhaps 'no value'", "可能表示“无值”")
    return ""


_CHANGES: Final = ("changes", "有变化")
_MAINS: Final = (
    (49.0, 51.0, "Hz"),
    (59.5, 60.5, "Hz"),
    (490, 510, "Hz × 0.1"),
    (4900, 5100, "Hz × 0.01"),
    (200, 250, "V"),
    (2000, 2500, "V × 0.1"),
    (20000, 25000, "V × 0.01"),
    (370, 430, "V L-L"),
    (3700, 4300, "V L-L × 0.1"),
)
"""What numbers look like mains voltage and frequency: low, high, unit and factor."""


def _mains(number: float) -> str:
    for low, high, what in _MAINS:
        if low <= number <= high:
            return tr(f"mains? {what}", f"电网？{what}")
    if 0.3 <= abs(number) <= 1.0 and number != int(number):
        return tr("power factor?", "功率因数？")
    return ""


def _moves(numbers: Sequence[float]) -> str:
    if len(numbers) < 2 or any(not math.isfinite(one) for one in numbers):
        return ""
    steps = [later - before for before, later in pairwise(numbers)]
    if all(step == 0 for step in steps):
        return ""
    if numbers[0] >= 0 and min(steps) >= 0 and max(steps) <= max(abs(numbers[0]) * 0.01, 100):
        return tr("rises slowly: counter?", "缓慢增长：计数器？")
    return tr(*_CHANGES)

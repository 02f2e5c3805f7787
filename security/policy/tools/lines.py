"""The lines of a policy as people read them: each number that leaves, where it is from, how it looks."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import wraps
from typing import Final, TypeVar

from protocols.language import tr
from protocols.vocabulary.states import OperatingState
from security.policy.compiled import CompiledPolicy, Derivation, Rule, SheetPoint
from security.policy.sheets import release_sheets

_KNOWN: Final = 4

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Line:
    """One number that leaves.

    Attributes:
        origin: the rule that it is from; local.
        point: the line of the release sheet, which is all that the consumer learns.
        window_s: slot length in seconds.
        consumer: position in the policy's consumers.
    """

    origin: Rule | Derivation
    point: SheetPoint
    window_s: int
    consumer: int

    @property
    def public_name(self) -> str:
        """How the consumer names it."""
        part = f":{self.point.part}" if self.point.part else ""
        return f"{self.point.equipment} {self.point.measurand}{part}"

    @property
    def unit(self) -> str:
        """The unit as people write it behind a value; empty for a plain number or a state."""
        plain = self.point.unit == "1" or self.point.part == "end" or self.point.bands
        return "" if plain else self.point.unit

    def value(self, mantissa: int) -> str:
        """Return a released value as the consumer reads it."""
        if self.point.part == "end":
            return OperatingState(mantissa).name.lower()
        if self.point.bands:
            return band_text(list(self.point.bands), self.point.bands_exponent, mantissa)
        if self.point.pseudonym_s:
            return tr(f"pseudonym {mantissa}", f"假名 {mantissa}")
        return format(Decimal(mantissa).scaleb(self.point.exponent), "f")


def band_text(edges: list[int], exponent: int, reached: int) -> str:
    """Return a band in words, such as '25 to 50'."""
    words = [amount(edge, exponent) for edge in edges]
    if reached <= 0:
        return tr(f"below {words[0]}", f"低于 {words[0]}")
    if reached >= len(words):
        return tr(f"{words[-1]} or more", f"{words[-1]} 及以上")
    return tr(
        f"{words[reached - 1]} to {words[reached]}", f"{words[reached - 1]} 至 {words[reached]}"
    )


def once(compute: Callable[[CompiledPolicy], Result]) -> Callable[[CompiledPolicy], Result]:
    """Let a function of a policy compute once for each of the last few that it was given."""
    last: deque[tuple[CompiledPolicy, Result]] = deque(maxlen=_KNOWN)

    @wraps(compute)
    def known(policy: CompiledPolicy) -> Result:
        # A compiled policy never changes, so that it is the same one is enough.
        for one, result in last:
            if one is policy:
                return result
        result = compute(policy)
        last.append((policy, result))
        return result

    return known


@once
def lines_of(policy: CompiledPolicy) -> dict[int, Line]:
    """Return every number that leaves under a policy, in their order."""
    origins: dict[int, Rule | Derivation] = {}
    for rule in policy.leaving:
        for number in range(rule.number, rule.number + rule.width):
            origins[number] = rule
    found = {}
    for consumer, sheet in enumerate(release_sheets(policy)):
        windows = {stream.id: stream.window_s for stream in sheet.streams}
        for point in sheet.points:
            found[point.number] = Line(
                origins[point.number], point, windows[point.stream], consumer
            )
    return dict(sorted(found.items()))


def amount(mantissa: int, exponent: int) -> str:
    """Return a number without needless zeros or exponents."""
    return format(Decimal(mantissa).scaleb(exponent).normalize(), "f")


def span_words(seconds: int) -> str:
    """Return a span of time as people write it, such as 15 min."""
    for unit, en, zh in ((86_400, "d", "天"), (3600, "h", "小时"), (60, "min", "分钟")):
        if seconds and seconds % unit == 0:
            return tr(f"{seconds // unit} {en}", f"{seconds // unit} {zh}")
    return tr(f"{seconds} s", f"{seconds} 秒")


def moment(seconds: float) -> str:
    """Return a moment in the local time of whoever asks."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def slot_words(slot: int, window_s: int) -> str:
    """Return when a slot begins."""
    return moment(slot * window_s)


def wrapped(words: list[str], most: int) -> Iterator[str]:
    """Yield at most so many words, then how many more there are."""
    yield from words[:most]
    if len(words) > most:
        yield tr(f"and {len(words) - most} more", f"另有 {len(words) - most} 项")

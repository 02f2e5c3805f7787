"""What an agent gave up, held against what it had sealed: value for value, slot for slot.

Pure functions. Once a message is given up, its content is gone; so the firm's own audit has read it
while it waited.
"""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeAlias

from protocols.frame import SECOND
from protocols.language import tr
from simulators.verdict import Stretch

SLACK_NS: Final = 10 * SECOND
"""Around an absence: slots that were open when it began, and those up to the first whole one."""

Place: TypeAlias = tuple[int, int, int]
"""Of a message: epoch, stream, sequence."""

Span: TypeAlias = tuple[int, int]
"""From when to when, nanoseconds."""


@dataclass(frozen=True, slots=True)
class Range:
    """Messages of a chain, first to last, of which the brain was told that they are lost."""

    epoch: int
    stream: int
    first: int
    last: int

    def places(self) -> Iterator[Place]:
        """Yield each of them."""
        for sequence in range(self.first, self.last + 1):
            yield self.epoch, self.stream, sequence


@dataclass(frozen=True, slots=True)
class Cell:
    """A place for a value in a message.

    Attributes:
        series: as the judge of the truth names it.
        slots: where the slots begin that it counts over, nanoseconds.
        filled: whether there is a value.
    """

    series: str
    slots: tuple[int, ...]
    filled: bool


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What came of what was given up.

    Attributes:
        values: that the messages held which were declared lost.
        slots: that these values count over; the brain has none of them.
        unfilled: slots that the brain lacks there and for which a lost message had no value.
        away: slots that it lacks there because the agent did not collect then.
        fault: the first thing that is not so, in words; empty where all is accounted for.
    """

    values: int = 0
    slots: int = 0
    unfilled: int = 0
    away: int = 0
    fault: str = ""

    def __add__(self, other: "GivenUp") -> "GivenUp":
        """Return what came of both."""
        return GivenUp(
            self.values + other.values,
            self.slots + other.slots,
            self.unfilled + other.unfilled,
            self.away + other.away,
            self.fault or other.fault,
        )

    def in_words(self) -> str:
        """Return it in one line, where there is no fault."""
        return tr(
            f"given up: {self.values} values over {self.slots} slots, exactly what is missing; in between "
            f"{self.unfilled} slots had no value and {self.away} were not collected",
            f"放弃：{self.values} 个值，共 {self.slots} 个时段，与实际缺失完全一致；其间 {self.unfilled} 个时段本无值，"
            f"{self.away} 个时段未采集",
        )


NOTHING: Final = GivenUp()


def read_cells(path: Path) -> dict[Place, list[Cell]]:
    """Return what each message holds, as `millgate agent audit --csv` wrote it."""
    found: dict[Place, list[Cell]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            place = int(row["epoch"]), int(row["stream"]), int(row["sequence"])
            found.setdefault(place, []).append(_cell(row))
    return found


def _cell(row: Mapping[str, str]) -> Cell:
    start = int(datetime.fromisoformat(row["slot_start"]).timestamp()) * SECOND
    window, filled = int(row["slot_s"]) * SECOND, bool(row["value"])
    words = (row["equipment"], row["measurand"], row["part"])
    slots = range(int(row["slots"]) if filled else 1)
    return Cell(
        " ".join(word for word in words if word),
        tuple(start - back * window for back in slots),
        filled,
    )


def judge_given_up(
    said: int,
    ranges: Collection[Range],
    cells: Mapping[Place, Sequence[Cell]],
    missing: Collection[Stretch],
    away: Sequence[Span],
) -> GivenUp:
    """Ask that exactly what was declared lost is missing.

    Args:
        said: how many values the agent says it gave up.
        ranges: which messages the brain was told are lost.
        cells: what each message held.
        missing: what the brain lacks around them, by the truth.
        away: when the agent did not collect.
    """
    places = [place for one in ranges for place in one.places()]
    if unseen := next((place for place in places if place not in cells), None):
        return GivenUp(fault=_unseen(unseen))
    lost = [cell for place in places for cell in cells[place]]
    values = sum(cell.filled for cell in lost)
    if not 0 < values == said:
        return GivenUp(
            values,
            fault=tr(
                f"the agent says that it gave up {said} values, the messages declared lost held {values}",
                f"代理称放弃了 {said} 个值，而声明丢失的消息中有 {values} 个",
            ),
        )
    declared = _slots(lost, filled=True)
    gone = {
        (one.series, slot)
        for one in missing
        for slot in range(one.begin_ns, one.end_ns, one.window_ns)
    }
    if kept := declared - gone:
        why = tr("was declared lost, and the brain has it", "已声明丢失，而产业大脑仍有该值")
        return GivenUp(values, fault=_first(kept, why))
    counters = {one.series for one in missing if one.counter}
    sealed = _slots([cell for held in cells.values() for cell in held], filled=True)
    valueless = {one for one in gone - sealed if one[0] not in counters}
    unfilled = valueless & _slots(lost, filled=False)
    absent = {one for one in valueless - unfilled if _within(one[1], away)}
    if silent := gone - declared - unfilled - absent:
        why = tr("is missing, and nobody declared it", "缺失，且无人声明")
        return GivenUp(values, fault=_first(silent, why))
    return GivenUp(values, len(declared), len(unfilled), len(absent))


def _slots(cells: Sequence[Cell], *, filled: bool) -> set[tuple[str, int]]:
    return {(one.series, slot) for one in cells if one.filled is filled for slot in one.slots}


def _within(slot: int, away: Sequence[Span]) -> bool:
    return any(begin - SLACK_NS <= slot <= end + SLACK_NS for begin, end in away)


def _first(slots: Collection[tuple[str, int]], why: str) -> str:
    series, slot = min(slots, key=lambda one: (one[1], one[0]))
    at = datetime.fromtimestamp(slot // SECOND, UTC)
    return f"{series} {at:%Y-%m-%dT%H:%M:%SZ} {why}"


def _unseen(place: Place) -> str:
    epoch, stream, sequence = place
    return tr(
        f"message {sequence} of stream {stream}, epoch {epoch}, was declared lost, and never waited",
        f"流 {stream} 纪元 {epoch} 的第 {sequence} 条消息已声明丢失，但从未在缓存中等待",
    )

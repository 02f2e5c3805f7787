"""Goes through a plan and judges after each step: nothing lost but what was declared, nothing wrong."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeAlias

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from simulators.demo import DemoFault
from simulators.torture.given_up import NOTHING, GivenUp, Range, judge_given_up
from simulators.torture.ordeals import undergo
from simulators.torture.plan import DROP, MAY_LOSE, Step
from simulators.torture.witness import Witness, witnessing
from simulators.torture.yard import Yard
from simulators.verdict import Stretch

PATIENCE_S: Final = 240.0
_POLL_S: Final = 0.5
_TOLERANCE: Final = "3s"
"""What was read of a meter holds for two seconds, and an answer may be one second late."""
_SERIES: Final = ("ff_energy", "ff_equipment_state")
"""One of each device."""

Say: TypeAlias = Callable[[str], None]


class Violation(MillgateError):
    """A promise was broken."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What an account says, as far as it is judged.

    Attributes:
        stored, waiting, refused: values of the agent's present epoch.
        lost: values that are nowhere, and slots of counters that nobody declared missing.
        declared: slots of counters that the agent declared missing: when it began a new epoch, and where it
            gave up what waited.
        given_up: values of the present epoch that the agent says it gave up.
        losses: the messages that the agent declared lost to the brain.
        missing: what the brain lacks around them, by the truth.
        doubled, wrong: as the ledger, the stores and the plant's truth say.
        judged: values that were held against the truth.
        first: the first of what is wrong or lost, in words.
        balanced: whether both sums hold.
    """

    stored: int
    waiting: int
    refused: int
    lost: int
    declared: int
    given_up: int
    losses: frozenset[Range]
    missing: frozenset[Stretch]
    doubled: int
    wrong: int
    judged: int
    first: str
    balanced: bool

    @property
    def clean(self) -> bool:
        """Whether everything that was promised holds."""
        broken = self.lost or self.doubled or self.wrong or self.refused
        return self.balanced and not broken and self.judged > 0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one step.

    Attributes:
        took_s: how long the step itself took.
        whole_s: from its end until values of a later time of every device were in the store.
        declared: slots that it cost, every one of them declared.
        given_up: what the agent gave up, where it may.
    """

    step: Step
    took_s: float
    whole_s: float
    declared: int
    figures: Figures
    given_up: GivenUp = NOTHING


def figures(report: dict[str, Any]) -> Figures:
    """Return what `millgate reconcile --json` says."""
    return Figures(
        stored=report["stored"],
        waiting=report["waiting"],
        refused=report["refused"],
        lost=report["lost"],
        declared=report["declared"],
        given_up=report["said_given_up"],
        losses=frozenset(
            Range(one["epoch"], one["stream"], one["first"], one["last"])
            for one in report["losses"]
        ),
        missing=frozenset(Stretch(**one) for one in report["missing"]),
        doubled=report["doubled"],
        wrong=report["wrong"],
        judged=report["judged"],
        first=report["first_wrong"] or report["first_lost"],
        balanced=report["balanced"],
    )


async def torture(yard: Yard, plan: Sequence[Step], every: int = 1) -> AsyncIterator[Result]:
    """Do the steps one by one and yield what came of each that was judged.

    Args:
        yard: to whom.
        plan: what.
        every: an account is made after every so many steps; that values arrive again is waited for
            after each.

    Raises:
        Violation: at the first step after which values do not arrive, or an account is not clean.
        MillgateError: when something does not start again.
    """
    await yard.mill.first_values(asyncio.Event())
    declared = 0
    for step in plan:
        if step.what == DROP:
            before = await clean_account(yard, step.name, declared, may_lose=False)
            async with witnessing(yard) as witness:
                took, whole = await _timed(yard, step)
            found, given_up = await exact_loss(yard, step.name, before, witness)
        else:
            took, whole = await _timed(yard, step)
            if step.number % every and step.what not in MAY_LOSE:
                continue
            found = await clean_account(yard, step.name, declared, may_lose=step.what in MAY_LOSE)
            given_up = NOTHING
        cost, declared = found.declared - declared, found.declared
        yield Result(step, took, whole, cost, found, given_up)


async def _timed(yard: Yard, step: Step) -> tuple[float, float]:
    """Do a step; return how long it took, and how long until all was whole again, seconds."""
    began = time.monotonic()
    await undergo(yard, step)
    ended = time.monotonic()
    await values_since(yard, time.time_ns(), step.name)
    return ended - began, time.monotonic() - ended


async def exact_loss(
    yard: Yard, what: str, before: Figures, witness: Witness
) -> tuple[Figures, GivenUp]:
    """Make the account until exactly that is missing which the agent declared lost in a step.

    What it gave up and the brain turns out to have counts as given up until the receipt is there.

    Raises:
        Violation: when that does not come to be within four minutes.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        found = await clean_account(yard, what, before.declared, may_lose=True)
        given_up = judge_given_up(
            found.given_up - before.given_up,
            found.losses - before.losses,
            witness.cells,
            found.missing - before.missing,
            witness.away,
        )
        if not given_up.fault:
            return found, given_up
        if time.monotonic() > until:
            raise Violation(given_up.fault, where=what)
        await asyncio.sleep(1.0)


async def settle(yard: Yard, declared: int) -> Figures:
    """Stop the agent, let all arrive that it released, and judge the end.

    Raises:
        Violation: when something is lost, wrong, or waits for ever.
    """
    await yard.mill.stop("agent")
    what = tr("the end", "结束时")
    return await clean_account(yard, what, declared, may_lose=False, may_wait=False)


async def values_since(yard: Yard, since_ns: int, what: str) -> None:
    """Wait until the store has values of every device of a later time.

    Raises:
        Violation: when that does not happen within four minutes.
    """
    until = time.monotonic() + PATIENCE_S
    while await _newest(yard) < since_ns:
        yard.mill.check_alive()
        if time.monotonic() > until:
            raise Violation(
                tr("no new value arrived after this step", "此步之后不再有新数据到达"), where=what
            )
        await asyncio.sleep(_POLL_S)


async def _newest(yard: Yard) -> int:
    """Return up to when the store has values of every device, nanoseconds."""
    found = await yard.mill.arrived()
    return min(
        max(
            (
                int(datetime.fromisoformat(series["time"]).timestamp()) * SECOND
                for series in found
                if series["measurement"] == measurement and series["time"]
            ),
            default=0,
        )
        for measurement in _SERIES
    )


async def clean_account(
    yard: Yard, what: str, declared: int, *, may_lose: bool, may_wait: bool = True
) -> Figures:
    """Make the account until it is clean: while all runs, both ends are read one after the other.

    Raises:
        Violation: when it does not become clean within four minutes.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = figures(await yard.mill.account(tolerance=_TOLERANCE))
            more = found.declared > declared and not may_lose
            if more:
                found = replace(found, lost=found.lost + found.declared - declared)
            if found.clean and (may_wait or not found.waiting):
                return found
            fault = broken(found, what)
        except DemoFault as error:
            fault = Violation(
                tr("the account cannot be made", "无法完成对账"), where=what, remedy=str(error)
            )
        if time.monotonic() > until:
            raise fault
        await asyncio.sleep(1.0)


def broken(found: Figures, what: str) -> Violation:
    """Return the violation that figures show."""
    return Violation(
        tr(
            f"lost {found.lost}, doubled {found.doubled}, wrong {found.wrong}, refused "
            f"{found.refused}, waiting {found.waiting}, sums {'hold' if found.balanced else 'broken'}",
            f"丢失 {found.lost}，重复 {found.doubled}，错误 {found.wrong}，被拒 {found.refused}，"
            f"等待 {found.waiting}，总账{'相符' if found.balanced else '不符'}",
        ),
        where=what,
        remedy=found.first,
    )

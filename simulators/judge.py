"""Judges what arrived against what the plant really was and served; the truth decides.

Pure functions. A slot starting at s with window w is the time (s, s + w]: an event exactly at
a slot's end belongs to it. The state at a slot's end is the one just before that end.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from simulators.machine_rules import MachineRules
from simulators.meter_rules import MeterRules
from simulators.plant import MACHINE, METER
from simulators.truth import Truth
from simulators.verdict import (
    STATE,
    Finding,
    Kept,
    Loss,
    Outcome,
    Row,
    Rule,
    Stretch,
    Verdict,
    together,
)

__all__ = ["Kept", "Verdict", "judge", "together"]

_SKEW_NS: Final = 200_000_000


def judge(
    truth: Truth,
    kept: Sequence[Kept],
    *,
    tolerance_ns: int,
    skew_ns: int = _SKEW_NS,
    from_ns: int | None = None,
    until_ns: int | None = None,
    restarts: Sequence[int] = (),
    losses: Sequence[Loss] = (),
) -> list[Verdict]:
    """Judge each series, in the order given.

    Args:
        truth: what a truth file says.
        kept: the series; parts of one state model are looked at together.
        tolerance_ns: how long before a slot's end its last meter reading may have been served:
            a little more than the polling interval; a slot, where contact may be lost.
        skew_ns: how long outside its slot a meter reading may have been served, since request
            and answer take time.
        from_ns, until_ns: the stretch of which every whole slot should be there; None asks
            only for those between the first and the last.
        restarts: moments, in nanoseconds, when the sender began anew and said so: what is missing
            around one of them was declared. A counter then lacks all since its last value.
        losses: stretches that the sender declared lost: a gap that ends in one of them, or where it
            ends, was declared. It may begin earlier: what is lost may have counted from there.

    Raises:
        MillgateError: for a series that the plant has no truth about, or a truth file that
            contradicts its own plant.
    """
    meter = MeterRules(truth, tolerance_ns, skew_ns)
    machine = MachineRules(truth.plant, kept)
    rules: dict[tuple[str, str, str], Rule] = {
        (METER, "energy.active_import", "delta"): meter.energy_delta,
        (METER, "power.active", "last"): meter.power_last,
        (MACHINE, "temperature", "last"): machine.temperature_last,
        (MACHINE, "production.total", "delta"): machine.production_delta,
        (MACHINE, "production.good", "delta"): machine.production_delta,
        (MACHINE, "production.scrap", "delta"): machine.production_delta,
        (MACHINE, STATE, "state"): machine.state,
    }
    verdicts: list[Verdict] = []
    for series in kept:
        rule = rules.get((series.equipment, series.measurand, series.aggregate))
        if rule is None or (series.measurand == STATE) != bool(series.part):
            raise _no_truth(series)
        chain = _Chain(series, from_ns, until_ns, restarts, losses)
        verdicts.append(_verdict(series, chain, rule(series, chain.rows())))
    return verdicts


def _verdict(series: Kept, chain: "_Chain", findings: Iterator[Finding]) -> Verdict:
    counts = dict.fromkeys(Outcome, 0)
    first_wrong = ""
    for row, outcome, why in findings:
        counts[outcome] += 1
        if outcome is Outcome.WRONG and not first_wrong:
            first_wrong = f"{series.name} {_moment(row.start)}: {why}"
    return Verdict(
        name=series.name,
        slots=sum(counts.values()),
        wrong=counts[Outcome.WRONG],
        doubled=chain.doubled,
        gaps=chain.gaps,
        partial=counts[Outcome.PARTIAL],
        first_wrong=first_wrong,
        declared=chain.declared,
        given_up=chain.given_up,
        first_gap=f"{series.name} {_moment(chain.first_gap)}" if chain.first_gap else "",
        missing=tuple(chain.missing),
    )


def _moment(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns // SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"


class _Chain:
    """Walks a series, counting the slots that are missing or covered twice.

    Attributes:
        doubled, gaps, declared, given_up: complete once all rows were taken.
        first_gap: where the first gap begins; 0 if there is none.
        missing: the gaps that touch a time in which messages were declared lost.
    """

    def __init__(
        self,
        series: Kept,
        from_ns: int | None,
        until_ns: int | None,
        restarts: Sequence[int],
        losses: Sequence[Loss],
    ) -> None:
        self._series = series
        self._restarts = restarts
        self._losses = losses
        window = series.window_ns
        self._from = None if from_ns is None else -(-from_ns // window) * window
        self._until = None if until_ns is None else until_ns // window * window
        self.doubled = 0
        self.gaps = 0
        self.declared = 0
        self.given_up = 0
        self.first_gap = 0
        self.missing: list[Stretch] = []

    def rows(self) -> Iterator[Row]:
        """Yield each value with the time it counts over."""
        series, window = self._series, self._series.window_ns
        columns = (series.start_ns.tolist(), series.mantissa.tolist(), series.span.tolist())
        covered: int | None = None
        for start, mantissa, span in zip(*columns, strict=True):
            begin, end = start - (span - 1) * window, start + window
            if covered is None:
                self._gap(self._from, begin)
            else:
                self._gap(covered, begin)
                self.doubled += self._slots(begin, min(covered, end))
            yield Row(begin, end, start, mantissa, begin != covered, _fault(window, start, span))
            covered = end if covered is None else max(covered, end)
        self._gap(self._from if covered is None else covered, self._until)

    def _gap(self, begin: int | None, end: int | None) -> None:
        missing = self._slots(begin, end)
        if begin is None or end is None or not missing:
            return
        self._note_missing(begin, end)
        if any(begin <= moment <= end for moment in self._restarts):
            self.declared += missing
            return
        if any(begin < until and start < end <= until for start, until in self._losses):
            self.given_up += missing
            return
        self.gaps += missing
        self.first_gap = self.first_gap or begin

    def _note_missing(self, begin: int, end: int) -> None:
        series = self._series
        if any(begin < until and start < end for start, until in self._losses):
            counter = series.aggregate == "delta"
            self.missing.append(Stretch(series.name, counter, begin, end, series.window_ns))

    def _slots(self, begin: int | None, end: int | None) -> int:
        """Return how many slots lie between, at least partly; 0 where either is not known."""
        if begin is None or end is None:
            return 0
        return max(0, -((begin - end) // self._series.window_ns))


def _fault(window: int, start: int, span: int) -> str:
    if start % window:
        return tr("not on the grid of slots", "不在时段网格上")
    return "" if span >= 1 else tr("counts over no slot", "未覆盖任何时段")


def _no_truth(series: Kept) -> MillgateError:
    return MillgateError(
        tr("the plant has no truth about this series", "工厂没有该序列的真值"),
        where=f"{series.name} ({series.aggregate})",
        remedy=tr("give only what the plant serves", "请只提交工厂所提供的序列"),
    )

"""What a torture came to, in figures that can be put into a note, for people and as JSON."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Final

from protocols.language import tr
from simulators.torture.given_up import NOTHING, GivenUp
from simulators.torture.run import Figures, Result

KIND: Final = "millgate-torture/1"


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of a torture, as far as it came.

    Attributes:
        seed: which plan.
        planned: steps there were to be.
        steps: steps that were done and judged.
        kills: how often each was killed.
        ordeals: how often each came.
        judged: values held against the truth, at the last account.
        lost, doubled, wrong: at the last account, which holds all from the beginning on; not what a
            violation found.
        declared: slots of counters that were declared lost.
        given_up: what was given up; exactly that is missing.
        whole_median_s, whole_most_s: until values of a later time were in the store; None for no step.
        took_s: how long it all took.
        settled: whether all that was released had arrived at the end.
        violation: the first broken promise in one line; empty for none.
    """

    seed: int
    planned: int
    steps: int
    kills: Mapping[str, int]
    ordeals: Mapping[str, int]
    judged: int
    lost: int
    declared: int
    given_up: GivenUp
    doubled: int
    wrong: int
    whole_median_s: float | None
    whole_most_s: float | None
    took_s: float
    settled: bool
    violation: str

    def as_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps({"kind": KIND, **asdict(self)}, ensure_ascii=False)

    def in_words(self) -> str:
        """Return it in a few lines."""
        killed, came = _counted(self.kills), _counted(self.ordeals)
        done = sum(self.kills.values()), sum(self.ordeals.values())
        minutes = self.took_s / 60
        said = [
            tr(
                f"seed {self.seed}: {self.steps} of {self.planned} steps in {minutes:.0f} minutes",
                f"种子 {self.seed}：{minutes:.0f} 分钟完成 {self.planned} 步中的 {self.steps} 步",
            ),
            tr(f"kills: {done[0]} ({killed})", f"强制终止：{done[0]} 次（{killed}）"),
            tr(f"ordeals: {done[1]} ({came})", f"其他考验：{done[1]} 次（{came}）"),
            tr(
                f"values judged: {self.judged}; lost {self.lost}, declared lost {self.declared}, "
                f"doubled {self.doubled}, wrong {self.wrong}",
                f"核对的值：{self.judged} 个；丢失 {self.lost}，已声明丢失 {self.declared}，"
                f"重复 {self.doubled}，错误 {self.wrong}",
            ),
        ]
        if self.given_up.values:
            said.append(self.given_up.in_words())
        if self.whole_median_s is not None:
            said.append(
                tr(
                    f"whole again after {self.whole_median_s:.1f} s in the median, "
                    f"{self.whole_most_s:.1f} s at most",
                    f"恢复用时：中位 {self.whole_median_s:.1f} 秒，最长 {self.whole_most_s:.1f} 秒",
                )
            )
        if self.violation:
            said.append(tr(f"ended by: {self.violation}", f"因此结束：{self.violation}"))
        return "\n".join(said)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "–"


def make_report(
    results: Sequence[Result],
    end: Figures | None,
    *,
    seed: int,
    planned: int,
    took_s: float,
    violation: str = "",
) -> Report:
    """Return the figures.

    Args:
        results: of the steps that were judged.
        end: the account after the agent was stopped and all had arrived; None where it did not
            come to that.
        seed, planned, took_s, violation: see `Report`.
    """
    whole = [result.whole_s for result in results]
    last = end or (results[-1].figures if results else None)
    return Report(
        seed=seed,
        planned=planned,
        steps=len(results),
        kills=_count(victim for result in results for victim in result.step.victims),
        ordeals=_count(result.step.what for result in results if not result.step.victims),
        judged=last.judged if last else 0,
        lost=last.lost if last else 0,
        declared=last.declared if last else 0,
        given_up=sum((result.given_up for result in results), NOTHING),
        doubled=last.doubled if last else 0,
        wrong=last.wrong if last else 0,
        whole_median_s=round(median(whole), 1) if whole else None,
        whole_most_s=round(max(whole), 1) if whole else None,
        took_s=round(took_s, 1),
        settled=end is not None,
        violation=violation,
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))

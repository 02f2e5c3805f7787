"""Tells people what a torture did and found: a line for each step, a table at the end."""

from collections.abc import Sequence

from rich.table import Table

from protocols.language import tr
from simulators.torture.plan import Step
from simulators.torture.run import Figures, Result


def line(result: Result) -> str:
    """Return what came of it."""
    found, lost = result.figures, result.given_up
    said = tr(
        f"    took {result.took_s:.1f} s, whole again after {result.whole_s:.1f} s: "
        f"{found.judged} values judged, lost {found.lost}, declared lost {result.declared}, "
        f"doubled {found.doubled}, wrong {found.wrong}",
        f"    用时 {result.took_s:.1f} 秒，{result.whole_s:.1f} 秒后恢复：核对 {found.judged} 个值，"
        f"丢失 {found.lost}，已声明丢失 {result.declared}，重复 {found.doubled}，错误 {found.wrong}",
    )
    if not lost.values:
        return said
    return f"{said}\n    {lost.in_words()}"


def summary(results: Sequence[Result], end: Figures | None) -> Table:
    """Return what was done how often, and what it cost."""
    kills = sum(len(result.step.victims) for result in results)
    table = Table(
        title=tr(
            f"{kills} kills and {_ordeals(results)} ordeals in {len(results)} steps",
            f"共 {len(results)} 步：强制终止 {kills} 次，其他考验 {_ordeals(results)} 次",
        )
    )
    heads = (
        tr("what", "内容"),
        tr("times", "次数"),
        tr("whole again after, median / most", "恢复用时 中位/最长"),
        tr("lost", "丢失"),
        tr("declared lost", "已声明丢失"),
        tr("doubled", "重复"),
        tr("wrong", "错误"),
    )
    for at, head in enumerate(heads):
        table.add_column(head, justify="right" if at else "left")
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_group(result.step), []).append(result)
    for name, found in sorted(groups.items()):
        whole = sorted(result.whole_s for result in found)
        table.add_row(
            name,
            str(len(found)),
            f"{whole[len(whole) // 2]:.1f} s / {whole[-1]:.1f} s",
            str(sum(result.figures.lost for result in found)),
            str(sum(result.declared for result in found)),
            str(sum(result.figures.doubled for result in found)),
            str(sum(result.figures.wrong for result in found)),
        )
    if end is not None:
        table.add_section()
        table.add_row(
            tr(f"at the end: {end.judged} values judged", f"结束时：核对 {end.judged} 个值"),
            "",
            "",
            *map(str, (end.lost, end.declared, end.doubled, end.wrong)),
        )
    return table


def _ordeals(results: Sequence[Result]) -> int:
    return sum(not result.step.victims for result in results)


def _group(step: Step) -> str:
    return f"{step.what} {'+'.join(sorted(step.victims))}" if step.victims else step.what

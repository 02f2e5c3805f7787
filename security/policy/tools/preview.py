"""`policy preview`: the exact rows that would leave; beside them, on the terminal, what stays."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from rich.console import Console

from protocols.batch import UNCERTAIN
from protocols.frame import SECOND
from protocols.language import tr
from protocols.sheet import Row, show_sheet
from security.policy.compiled import CompiledPolicy, Derivation
from security.policy.tools import page
from security.policy.tools.lines import Line, lines_of, slot_words, span_words, wrapped
from security.policy.tools.past import Past
from security.policy.tools.playback import Played, Released, play

_MOST_STAYING: Final = 200


@dataclass(frozen=True, slots=True)
class Preview:
    """What a policy would do with a past.

    Attributes:
        played: what the gate let out.
        lines: what each number means.
    """

    policy: CompiledPolicy
    past: Past
    played: Played
    lines: dict[int, Line]

    @staticmethod
    def of(policy: CompiledPolicy, past: Past) -> "Preview":
        """Run the past through the gate."""
        return Preview(policy, past, play(policy, past), lines_of(policy))

    @property
    def values(self) -> int:
        """How many values would leave."""
        return sum(len(found.slot) for found in self.played.released.values())

    def rows(self) -> Iterator[tuple[Line, int, str, str]]:
        """Yield line, slot, value and remark of everything that would leave, by number and slot."""
        for number, line in self.lines.items():
            found = self.played.released.get(number)
            if found is not None:
                yield from _rows(line, found)


def _rows(line: Line, found: Released) -> Iterator[tuple[Line, int, str, str]]:
    for at in range(len(found.slot)):
        remarks = []
        if int(found.quality[at]) == UNCERTAIN:
            remarks.append(tr("uncertain", "存疑"))
        if int(found.span[at]) > 1:
            remarks.append(tr(f"over {found.span[at]} slots", f"跨 {found.span[at]} 个时段"))
        yield line, int(found.slot[at]), line.value(int(found.mantissa[at])), ", ".join(remarks)


# Files: only what would leave.


def as_csv(preview: Preview) -> str:
    """Return what would leave as CSV, in public words only."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["slot", "number", "equipment", "measurand", "part", "value", "unit"])
    for line, slot, value, _ in preview.rows():
        start = datetime.fromtimestamp(slot * line.window_s, UTC)
        point = line.point
        writer.writerow(
            [
                start.strftime("%Y-%m-%dT%H:%M:%SZ"),
                point.number,
                point.equipment,
                point.measurand,
                point.part,
                value,
                "" if point.part == "end" else point.unit,
            ]
        )
    return out.getvalue()


def as_html(preview: Preview) -> str:
    """Return what would leave as a page, in public words only."""
    sections = []
    found: dict[int, list[tuple[str, str, str, str]]] = defaultdict(list)
    for one, slot, value, remark in preview.rows():
        row = (slot_words(slot, one.window_s), value, one.unit, remark)
        found[one.point.number].append(row)
    for number, line in preview.lines.items():
        rows = found[number]
        title = f"{number}  {line.public_name}  ({span_words(line.window_s)})"
        header = (tr("slot begins", "时段开始"), tr("value", "值"), tr("unit", "单位"), "")
        sections.append(page.table(title, header, rows))
    return page.page(
        tr("What would leave", "将要外发的数据"),
        tr(
            f"Policy version {preview.policy.version}: {preview.values} values. Nothing else leaves.",
            f"策略版本 {preview.policy.version}：{preview.values} 个值。除此之外一律不外发。",
        ),
        sections,
    )


# The terminal: beside it, what stays.


def show(preview: Preview, console: Console, rows: int) -> None:
    """Print what would leave beside what stays, the newest `rows` slots of each point."""
    for note in (*preview.past.notes, *preview.played.suspended):
        console.print(f"! {note}", markup=False, highlight=False)
    for rule in preview.policy.leaving:
        _show_rule(preview, rule.number, console, rows)
    _show_staying(preview, console)
    console.print(
        tr(
            f"{preview.values} values would leave. What stays was printed here only.",
            f"共有 {preview.values} 个值将外发。“留在厂内”一栏只显示在此终端。",
        ),
        highlight=False,
    )


def _show_rule(preview: Preview, number: int, console: Console, rows: int) -> None:
    line = preview.lines[number]
    mine = [one for one in preview.lines.values() if one.origin is line.origin]
    title = f"{_source(line)}  →  {number}  {line.point.equipment} {line.point.measurand}"
    headings = (
        tr("slot begins", "时段开始"),
        tr("LEAVES", "外发"),
        tr("stays in the factory", "留在厂内"),
    )
    lines = []
    slots = sorted({int(s) for one in mine for s in _slots(preview, one)})[-rows:]
    stays = _staying(preview, line, slots)
    for slot in slots:
        words = [_cell(preview, one, slot) for one in mine]
        leaves = ", ".join(word for word in words if word)
        lines.append(Row((slot_words(slot, line.window_s), leaves, stays[slot])))
    if not slots:
        lines.append(Row(("–", tr("nothing", "无"), "")))
    show_sheet(headings, lines, title=title, console=console)


def _source(line: Line) -> str:
    return line.origin.source


def _slots(preview: Preview, line: Line) -> Sequence[int]:
    found = preview.played.released.get(line.point.number)
    return [] if found is None else found.slot.tolist()


def _cell(preview: Preview, line: Line, slot: int) -> str:
    found = preview.played.released.get(line.point.number)
    if found is None:
        return ""
    at = int(np.searchsorted(found.slot, slot))
    if at >= len(found.slot) or int(found.slot[at]) != slot:
        return ""
    _, _, value, remark = next(
        _rows(
            line,
            Released(
                found.slot[at : at + 1],
                found.mantissa[at : at + 1],
                found.quality[at : at + 1],
                found.span[at : at + 1],
            ),
        )
    )
    part = f"{line.point.part} " if line.point.part else ""
    if part and value in {"0", "0.0"}:
        return ""
    return f"{part}{value} {line.unit}".rstrip() + (f" ({remark})" if remark else "")


def _staying(preview: Preview, line: Line, slots: Sequence[int]) -> dict[int, str]:
    """Return per slot how many raw values there were, and between what they lay."""
    origin = line.origin
    if isinstance(origin, Derivation):
        return dict.fromkeys(slots, tr("all inputs", "全部输入"))
    if origin.device not in preview.past.tables:
        return dict.fromkeys(slots, "")
    time, values = preview.past.column(origin.device, origin.point)
    order = np.argsort(time, kind="stable")
    time, values = time[order], values[order]
    found = {}
    for slot in slots:
        begin, end = slot * line.window_s * SECOND, (slot + 1) * line.window_s * SECOND
        inside = values[np.searchsorted(time, begin) : np.searchsorted(time, end)]
        found[slot] = (
            tr(
                f"{len(inside)} values, {inside.min():.6g} … {inside.max():.6g}",
                f"{len(inside)} 个值，{inside.min():.6g} … {inside.max():.6g}",
            )
            if len(inside)
            else tr("no value", "无值")
        )
    return found


def _show_staying(preview: Preview, console: Console) -> None:
    names = {(rule.device, rule.point) for rule in preview.policy.rules}
    staying = [
        f"{device}/{point.id}"
        for device, table in preview.past.tables.items()
        for point in table.points
        if (device, point.id) not in names
    ]
    if staying:
        title = tr(f"{len(staying)} point(s) stay entirely:", f"{len(staying)} 个点完全留在厂内：")
        console.print(title, highlight=False)
        console.print("  " + ", ".join(wrapped(staying, _MOST_STAYING)), highlight=False)

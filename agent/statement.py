"""`policy statement`: what left of a day, in plain language, read back with the firm's audit key."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

import numpy as np

from agent.audit import Left, status_word
from protocols.batch import NO_VALUE
from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.topics import Address
from protocols.vocabulary.measurands import MEASURANDS
from protocols.vocabulary.purposes import purpose_words
from security.answers import Erasure, read_answer
from security.cards import BrainCard
from security.envelope import (
    REASON_DROPPED,
    REASON_EXPIRED,
    REASON_REFUSED,
    REASON_RESTORED,
    REASON_STOPPED,
    SHEET,
)
from security.policy.compiled import SheetPoint
from security.policy.tools import page
from security.policy.tools.lines import band_text, moment, span_words

_DAY: Final = timedelta(days=1)
_ENDS: Final = (REASON_STOPPED, REASON_EXPIRED)
"""As which reasons the end of a policy is declared; no message is missing then."""


@dataclass(slots=True)
class _Series:
    """What left of one number, as a consumer got it."""

    window_s: int
    point: SheetPoint | None
    values: int = 0
    missing: int = 0
    low: int = 1 << 62
    high: int = -(1 << 62)
    total: int = 0
    versions: set[int] = field(default_factory=set)
    first_slot: int = 1 << 62
    last_slot: int = -1


@dataclass(slots=True)
class Statement:
    """What left of a day.

    Attributes:
        day: local.
        messages, sizes: by what became of them: how many, and how many bytes.
        receivers: names of brains that could open something.
        versions: policy versions under which it left.
        purposes: their codes.
        gaps: what was declared lost: reason and how many messages.
        ends: which policies were declared to have ended: when (s), version and reason.
        erasures: what brains say that they have deleted since.
    """

    day: date
    messages: Counter[int] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    receivers: set[str] = field(default_factory=set)
    versions: set[int] = field(default_factory=set)
    purposes: set[int] = field(default_factory=set)
    gaps: Counter[int] = field(default_factory=Counter)
    erasures: list[tuple[str, Erasure]] = field(default_factory=list)
    ends: set[tuple[int, int, int]] = field(default_factory=set)
    series: dict[tuple[int, int, str], _Series] = field(default_factory=dict)

    @property
    def values(self) -> int:
        """How many values left."""
        return sum(one.values for one in self.series.values())


def day_span(day: date) -> tuple[int, int]:
    """Return the first second of a local day, and that of the next."""
    # Not 24 hours later: a day on which the clocks are changed has 23 or 25.
    return _begin_of(day), _begin_of(day + _DAY)


def _begin_of(day: date) -> int:
    begin = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - the zone of this machine is meant
    found = begin.astimezone()
    if found.date() < day:
        # There is no midnight where clocks are set forward at it.
        found = begin.replace(fold=1).astimezone()
    return int(found.timestamp())


def tell(
    day: date,
    messages: Iterable[Left],
    brains: Mapping[bytes, str],
    erasures: Sequence[tuple[str, Erasure]],
) -> Statement:
    """Sum a day up.

    Args:
        messages: what is in the archive of it, opened.
        brains: names by the key id of their encryption key.
        erasures: verified, with the name of the brain that signed each.
    """
    begin, end = day_span(day)
    found = Statement(day, erasures=list(erasures))
    for left in messages:
        header = left.sealed.header
        if left.sealed.content_type == SHEET:
            if begin <= header.issued_at < end:
                found.ends |= {
                    (header.issued_at, header.policy_version, gap.reason)
                    for gap in header.gaps
                    if gap.reason in _ENDS
                }
            continue
        found.messages[left.status] += 1
        found.sizes[left.status] += left.size
        found.receivers |= {brains[kid] for kid in header.recipients if kid in brains}
        found.versions.add(header.policy_version)
        found.purposes.add(header.purpose)
        for gap in header.gaps:
            found.gaps[gap.reason] += gap.last - gap.first + 1
        _add(found, left, begin, end)
    return found


def _add(found: Statement, left: Left, begin_s: int, end_s: int) -> None:
    for block in left.blocks:
        starts = (block.slot + np.arange(block.rows)) * left.window_s
        inside = (starts >= begin_s) & (starts < end_s)
        if not inside.any():
            continue
        for column, number in enumerate(block.numbers.tolist()):
            point = left.points.get(number)
            key = number, left.window_s, _meaning(point)
            series = found.series.setdefault(key, _Series(left.window_s, point))
            series.versions.add(left.sealed.header.policy_version)
            has = inside & (block.quality[:, column] != NO_VALUE)
            mantissa = block.mantissa[has, column]
            series.missing += int(np.count_nonzero(inside)) - len(mantissa)
            if not len(mantissa):
                continue
            series.values += len(mantissa)
            series.low = min(series.low, int(mantissa.min()))
            series.high = max(series.high, int(mantissa.max()))
            series.total += int(mantissa.sum())
            slots = block.slot + np.flatnonzero(has)
            series.first_slot = min(series.first_slot, int(slots[0]))
            series.last_slot = max(series.last_slot, int(slots[-1]))


def _meaning(point: SheetPoint | None) -> str:
    """Return what must be the same of two versions for their values to be told together."""
    if point is None:
        return ""
    told = (point.equipment, point.measurand, point.part, point.aggregate, point.unit)
    return str((*told, point.exponent, point.bands, point.bands_exponent))


def erasures(
    signed: Iterable[bytes], address: Address, cards: Sequence[BrainCard]
) -> list[tuple[str, Erasure]]:
    """Return what brains say that they have deleted; what no known brain signed is left out."""
    found = []
    for data in signed:
        for card in cards:
            try:
                answer = read_answer(data, address, [card.receipt_key])
            except MillgateError:
                continue
            if isinstance(answer, Erasure):
                found.append((card.name, answer))
    return found


# In words.


def _reasons() -> dict[int, str]:
    return {
        REASON_REFUSED: tr("refused by the brain", "被产业大脑拒收"),
        REASON_DROPPED: tr("dropped before sending", "发送前丢弃"),
        REASON_RESTORED: tr(
            "the agent was restored from a copy, or went on after a wrong clock",
            "代理程序由副本恢复，或在时钟有误之后继续",
        ),
    }


def _end(at_s: int, version: int, reason: int) -> str:
    at = moment(at_s)
    if reason == REASON_STOPPED:
        return tr(
            f"{at}: an officer had stopped policy version {version}; the brain was told so.",
            f"{at}：数据官已停止策略版本 {version}；已告知产业大脑。",
        )
    return tr(
        f"{at}: policy version {version} had expired; the brain was told so.",
        f"{at}：策略版本 {version} 已过期；已告知产业大脑。",
    )


def summary(found: Statement) -> list[str]:
    """Return what matters, one sentence each."""
    if not found.messages:
        return [
            tr(
                "Nothing left of this day, or the archive no longer reaches so far back.",
                "当日没有任何数据外发，或归档已不含当日数据。",
            ),
            *(_end(*one) for one in sorted(found.ends)),
            *(_erasure(name, one) for name, one in found.erasures),
        ]
    receivers = ", ".join(sorted(found.receivers)) or tr("unknown", "未知")
    several = len(found.versions) > 1
    numbers = len({number for number, *_ in found.series})
    purposes = ", ".join(purpose_words(code) for code in sorted(found.purposes))
    under = tr("versions" if several else "version", "版本") + f" {_listed(found.versions)}"
    lines = [
        tr(
            f"{counted(found.values, 'value')} left, of {counted(numbers, 'number')}, to {receivers}, "
            f"for {purposes}, under policy {under}.",
            f"共外发 {found.values} 个值，涉及 {numbers} 个编号；接收方：{receivers}；用途：{purposes}；"
            f"依据策略{under}。",
        )
    ]
    lines += [
        tr(
            f"{status_word(status)}: {counted(count, 'message')}, {counted(found.sizes[status], 'byte')}.",
            f"{status_word(status)}：{count} 条消息，{found.sizes[status]} 字节。",
        )
        for status, count in sorted(found.messages.items())
    ]
    lines += [
        tr(
            f"Declared to the brain as missing: {counted(count, 'message')}, {_reasons().get(reason, reason)}.",
            f"已向产业大脑声明缺失：{count} 条消息，原因：{_reasons().get(reason, reason)}。",
        )
        for reason, count in sorted(found.gaps.items())
    ]
    lines += [_end(*one) for one in sorted(found.ends)]
    lines += [_erasure(name, one) for name, one in found.erasures]
    lines.append(tr("Nothing else left.", "除此之外，没有任何数据外发。"))
    return lines


def _listed(versions: Iterable[int]) -> str:
    words = [str(one) for one in sorted(versions)]
    return tr(" and ", " 和 ").join(filter(None, [tr(", ", "、").join(words[:-1]), words[-1]]))


def _erasure(name: str, one: Erasure) -> str:
    count = sum(found.last - found.first + 1 for found in one.erased)
    return tr(
        f"{name} states, signed on {moment(one.issued_at)}, that it has deleted {counted(count, 'message')} whose "
        "retention had ended.",
        f"{name} 于 {moment(one.issued_at)} 签名声明：已删除 {count} 条保存期限届满的消息。",
    )


HEADER: Final = 7


def header() -> tuple[str, ...]:
    """Return the titles of the columns of `rows`."""
    return (
        tr("number", "编号"),
        tr("what the brain reads", "产业大脑所见"),
        tr("slot", "时段"),
        tr("values", "值数"),
        tr("without value", "无值"),
        tr("lowest … highest", "最小 … 最大"),
        tr("sum", "合计"),
    )


def rows(found: Statement) -> list[tuple[str, ...]]:
    """Return one row for each number that left; of one whose meaning changed, for each meaning."""
    return [row for _, row in _rows(found)]


def _rows(found: Statement) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each row with the equipment that it is about."""
    times = Counter(number for number, *_ in found.series)
    ordered = sorted(found.series.items(), key=lambda one: (one[0][0], min(one[1].versions)))
    for (number, *_), one in ordered:
        equipment = one.point.equipment if one.point is not None else ""
        yield equipment, _row(number, one, several=times[number] > 1)


def _row(number: int, one: _Series, *, several: bool) -> tuple[str, ...]:
    point = one.point
    name = "" if point is None else _name(point)
    if several:
        listed = _listed(one.versions)
        name += tr(f" (policy {listed})", f"（策略 {listed}）")
    extent = ""
    if one.values:
        extent = f"{_value(point, one.low)} … {_value(point, one.high)}"
    adds = point is not None and (point.aggregate in {"delta", "sum"} or _is_seconds(point))
    total = f"{_value(point, one.total)}" if adds and one.values else ""
    return (
        str(number),
        name,
        span_words(one.window_s),
        str(one.values),
        str(one.missing),
        extent,
        total,
    )


def _is_seconds(point: SheetPoint) -> bool:
    return point.aggregate == "state" and point.part != "end"


def _name(point: SheetPoint) -> str:
    known = MEASURANDS.get(point.measurand)
    words = point.measurand if known is None else tr(known.en, known.zh)
    part = f" ({point.part})" if point.part else ""
    return f"{point.equipment}: {words}{part}"


def _value(point: SheetPoint | None, mantissa: int) -> str:
    if point is None:
        return str(mantissa)
    if point.bands:
        return band_text(list(point.bands), point.bands_exponent, mantissa)
    if point.part == "end":
        return str(mantissa)
    return f"{format(Decimal(mantissa).scaleb(point.exponent), 'f')} {point.unit}"


def title(found: Statement) -> str:
    """Return the statement's title."""
    return tr(f"What left the factory of {found.day}", f"{found.day} 数据外发对账单")


def as_text(found: Statement) -> str:
    """Return the statement as text."""
    lines = [title(found), *summary(found), ""]
    for _, name, slot, values, missing, extent, total in rows(found):
        lines.append(
            tr(
                f"  {name}, every {slot}: {counted(int(values), 'value')} "
                f"({counted(int(missing), 'slot')} without), {extent}",
                f"  {name}，每{slot}：{values} 个值（{missing} 个时段无值），{extent}",
            )
            + (tr(f", together {total}", f"，合计 {total}") if total else "")
        )
    return "\n".join(lines).rstrip()


def as_html(found: Statement) -> str:
    """Return the statement as a page to read or print."""
    sections = [page.paragraph(line) for line in summary(found)[1:]]
    if found.series:
        by_equipment: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for equipment, row in _rows(found):
            by_equipment[equipment].append(row)
        sections += [
            page.table(equipment, header(), lines, numeric=HEADER - 3)
            for equipment, lines in sorted(by_equipment.items())
        ]
    sections.append(
        page.paragraph(
            tr(
                "Read back from the agent's archive of sealed messages with the firm's audit key: these are "
                "the very bytes that were sent.",
                "本对账单由企业审计密钥从代理程序的密封消息归档中读出，即实际发送的内容。",
            )
        )
    )
    return page.page(title(found), summary(found)[0], sections)

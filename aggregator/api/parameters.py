"""Query parameters: every one known, given once, bounded; faults name it and the remedy."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, get_args

from multidict import MultiMapping

from aggregator.api.problems import Problem, Text, bad_parameter
from aggregator.stores import Aggregate
from protocols.frame import SECOND
from protocols.settings import parse_duration

_NS_MAX: Final = 2**63 - 1
_INTEGER: Final = re.compile(r"[0-9]{1,19}")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,160}")
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?[Zz]"
)
_DURATION: Final = re.compile(r"[0-9]{1,9}(s|m|h|d)")
_MAX_FIELDS: Final = 32
_LONGEST_LABEL: Final = 128


class Parameters:
    """The query of one request.

    Args:
        query: what the caller sent.
        known: the parameters this endpoint has.

    Raises:
        Problem: for a parameter that is unknown or given twice.
    """

    def __init__(self, query: MultiMapping[str], *known: str) -> None:
        self._query = query
        for name in query:
            if name not in known:
                raise bad_parameter(
                    name[:64],
                    Text("unknown parameter", "未知的参数"),
                    Text(f"use {', '.join(known) or 'none'}", f"可用：{'、'.join(known) or '无'}"),
                )
            if len(query.getall(name)) > 1:
                raise bad_parameter(
                    name,
                    Text("given more than once", "重复给出"),
                    Text("give it once", "请只给一次"),
                )

    def time(self, name: str, default: int) -> int:
        """Return a moment in nanoseconds since 1970 UTC.

        Raises:
            Problem: when it is neither RFC 3339 in UTC nor a whole number of nanoseconds.
        """
        text = self._query.get(name)
        if text is None:
            return default
        moment = _nanoseconds(text)
        if moment is None or moment > _NS_MAX:
            raise bad_parameter(
                name,
                Text("not a moment in time", "不是有效的时刻"),
                Text(
                    "write UTC such as 2026-01-05T08:00:00Z, or nanoseconds since 1970",
                    "请写 UTC 时间，如 2026-01-05T08:00:00Z，或 1970 年以来的纳秒数",
                ),
            )
        return moment

    def period(self, now_ns: int, default_ns: int) -> tuple[int, int]:
        """Return (start, end) in nanoseconds; end defaults to now, start to `default_ns` before.

        Raises:
            Problem: when one cannot be read, or start is not before end.
        """
        end = self.time("end", now_ns)
        start = self.time("start", max(end - default_ns, 0))
        if start >= end:
            raise bad_parameter(
                "start",
                Text("start is not before end", "start 不早于 end"),
                Text("give an earlier start or a later end", "请给更早的 start 或更晚的 end"),
            )
        return start, end

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`.

        Raises:
            Problem: for anything else.
        """
        text = self._query.get(name)
        if text is None:
            return default
        if _INTEGER.fullmatch(text) is None or not low <= int(text) <= high:
            raise bad_parameter(
                name,
                Text("out of bounds", "超出范围"),
                Text(f"write a whole number from {low} to {high}", f"请写 {low} 至 {high} 的整数"),
            )
        return int(text)

    def names(self, name: str) -> list[str]:
        """Return a comma-separated list of field names, without doubles; empty when not given.

        Raises:
            Problem: for a name that no field can have, or for too many.
        """
        text = self._query.get(name)
        if text is None:
            return []
        names = list(dict.fromkeys(text.split(",")))
        if len(names) > _MAX_FIELDS or any(_NAME.fullmatch(each) is None for each in names):
            raise bad_parameter(
                name,
                Text("not a list of field names", "不是字段名列表"),
                Text(
                    f"write up to {_MAX_FIELDS} names of letters, digits and '_', joined by ','",
                    f"请写至多 {_MAX_FIELDS} 个字段名（字母、数字、_），以逗号相连",
                ),
            )
        return names

    def name(self, name: str) -> str | None:
        """Return one name of letters, digits and '_'; None when not given.

        Raises:
            Problem: for anything else.
        """
        text = self._query.get(name)
        if text is not None and _NAME.fullmatch(text) is None:
            raise bad_parameter(
                name,
                Text("not a name", "不是有效的名称"),
                Text("write letters, digits and '_'", "请用字母、数字和 _"),
            )
        return text

    def label(self, name: str) -> str | None:
        """Return a firm's, site's or equipment's name, in any script; None when not given.

        Raises:
            Problem: for what can be no name.
        """
        text = self._query.get(name)
        if text is not None and not (0 < len(text) <= _LONGEST_LABEL and text.isprintable()):
            raise bad_parameter(
                name,
                Text("not a name", "不是有效的名称"),
                Text(
                    f"write 1 to {_LONGEST_LABEL} characters", f"请写 1 至 {_LONGEST_LABEL} 个字符"
                ),
            )
        return text

    def text(self, name: str) -> str:
        """Return a parameter as it came; empty when not given. Whoever asks checks it."""
        return self._query.get(name, "")

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return one of some words; the first when not given.

        Raises:
            Problem: for anything else.
        """
        text = self._query.get(name, choices[0])
        if text not in choices:
            raise bad_parameter(
                name,
                Text("unknown word", "未知的取值"),
                Text(f"use one of {', '.join(choices)}", f"可用：{'、'.join(choices)}"),
            )
        return text

    def position(self) -> int:
        """Return the `cursor` parameter of a list that is paged by position; 0 at first.

        Raises:
            Problem: when it cannot be one of ours.
        """
        text = self.cursor()
        if text and (_INTEGER.fullmatch(text) is None or len(text) > 9):
            raise bad_parameter(
                "cursor",
                Text("not a cursor", "不是有效的游标"),
                Text("give the 'next' of the answer before", "请填上一次应答中的 next"),
            )
        return int(text or "0")

    def cursor(self) -> str:
        """Return the `cursor` parameter; empty for the first page.

        Raises:
            Problem: when it cannot be one of ours.
        """
        text = self._query.get("cursor", "")
        if text and _ID.fullmatch(text) is None:
            raise bad_parameter(
                "cursor",
                Text("not a cursor", "不是有效的游标"),
                Text("give the 'next' of the answer before", "请填上一次应答中的 next"),
            )
        return text

    def step(self, default_ns: int, high_ns: int) -> int:
        """Return the `step` parameter in nanoseconds, from one second to `high_ns`.

        Raises:
            Problem: for anything else.
        """
        text = self._query.get("step")
        if text is None:
            return default_ns
        step = parse_duration(text) if _DURATION.fullmatch(text) else 0
        if not SECOND <= step <= high_ns:
            days = high_ns // (86400 * SECOND)
            raise bad_parameter(
                "step",
                Text("not a usable step", "步长不可用"),
                Text(
                    f"write a number and s, m, h or d, such as 15m, from 1s to {days}d",
                    f"请写数字加 s、m、h 或 d，如 15m，范围 1s 至 {days}d",
                ),
            )
        return step

    def aggregate(self) -> Aggregate:
        """Return the `aggregate` parameter, `sum` by default.

        Raises:
            Problem: for one that there is none of.
        """
        text = self._query.get("aggregate", "sum")
        choices: tuple[Aggregate, ...] = get_args(Aggregate)
        for choice in choices:
            if text == choice:
                return choice
        raise bad_parameter(
            "aggregate",
            Text("unknown aggregate", "未知的聚合方式"),
            Text(f"use one of {', '.join(choices)}", f"可用：{'、'.join(choices)}"),
        )


def missing(name: str) -> Problem:
    """Return the refusal of a request that lacks a parameter it needs."""
    return bad_parameter(name, Text("is missing", "缺少此参数"), Text("give it", "请给出"))


def _nanoseconds(text: str) -> int | None:
    if _INTEGER.fullmatch(text):
        return int(text)
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{match[2]}").replace(tzinfo=UTC)
    except ValueError:
        return None
    seconds = int(moment.timestamp())
    return seconds * SECOND + int((match[3] or "0").ljust(9, "0")) if seconds >= 0 else None

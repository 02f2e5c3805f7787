"""The anomaly list: every cross check that found something, with its reason."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from aggregator.series.derived.findings import ANOMALY
from aggregator.stores import SeriesKey, Store
from protocols.frame import SECOND
from protocols.language import tr

_MOST: Final = 100_000

_REASONS: Final = {
    "balance": (
        "the main meter and the sum of the sub-meters differ by more than -2 % to +15 %",
        "总表与分表之和之差超出 -2 % 至 +15 %",
    ),
    "pv-self-use": ("more is exported than PV generates", "上网电量大于光伏发电量"),
    "power-integral": (
        "counter and power differ by a factor like that of a wrong CT ratio",
        "电量与功率积分之比近似互感器变比设置错误",
    ),
    "plausibility": ("more energy than rated power x time x 1.1", "电量大于 额定功率 × 时间 × 1.1"),
    "pieces": ("good + scrap is more than the total", "合格数与报废数之和大于总数"),
    "second-source": (
        "another agent is the source of this datum; these values were refused",
        "该数据另有来源代理；这些数值被拒绝",
    ),
}


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that a check found in one hour.

    Attributes:
        time_ns: the hour's start.
        firm: enterprise and site.
        equipment: public label; empty for the site.
        check: its name.
        value: what was compared with the bound; None where there is no number.
    """

    time_ns: int
    firm: str
    equipment: str
    check: str
    value: float | None

    @property
    def reason(self) -> str:
        """What is wrong, for a person."""
        return tr(*_REASONS.get(self.check.partition(":")[0], (self.check, self.check)))

    @property
    def time(self) -> datetime:
        """The hour's start."""
        return datetime.fromtimestamp(self.time_ns / SECOND, UTC)


def anomalies(store: Store, start_ns: int, end_ns: int) -> list[Anomaly]:
    """Return everything found in a span of time, oldest first.

    Args:
        store: that of the future-factory bucket.
    """
    found = [*_failed(store, start_ns, end_ns), *_refused(store, start_ns, end_ns)]
    return sorted(found, key=lambda one: (one.time_ns, one.firm, one.equipment, one.check))


def _failed(store: Store, start_ns: int, end_ns: int) -> Iterator[Anomaly]:
    for key in store.series("ff_check"):
        block = store.query(key, ["status", "value"], start_ns, end_ns, limit=_MOST)
        status = block.fields.get("status", [])
        values = np.asarray(block.fields.get("value", np.full(len(block), np.nan)), np.float64)
        for time, word, value in zip(block.time.tolist(), status, values.tolist(), strict=True):
            if word == ANOMALY:
                yield _anomaly(key, time, dict(key.tags)["check"], value)


def _refused(store: Store, start_ns: int, end_ns: int) -> Iterator[Anomaly]:
    for key in store.series("ff_refused"):
        block = store.query(key, ["reason"], start_ns, end_ns, limit=_MOST)
        for time in block.time.tolist():
            yield _anomaly(key, time, f"second-source:{dict(key.tags)['measurand']}", np.nan)


def _anomaly(key: SeriesKey, time_ns: int, check: str, value: float) -> Anomaly:
    tags = dict(key.tags)
    firm = f"{tags['enterprise_id']}.{tags['site_id']}"
    number = None if np.isnan(value) else value
    return Anomaly(time_ns, firm, tags.get("equipment_id", ""), check, number)


def as_rows(found: Sequence[Anomaly]) -> list[Mapping[str, object]]:
    """Return anomalies as plain JSON types."""
    return [
        {
            "time": one.time.isoformat().replace("+00:00", "Z"),
            "firm": one.firm,
            "equipment": one.equipment,
            "check": one.check,
            "value": one.value,
            "reason": one.reason,
        }
        for one in found
    ]

"""What people would tell the brain of the demo's mill: when it works, and numbers of the whole firm.

The mill is made up, so all of this is too, and every fact's source says so.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

ENTERPRISE: Final = "mill"
SITE: Final = "main"
SOURCE: Final = "演示用虚构 made up"
"""Whoever reads it may read the other language than who started the demo."""
FACTS_FILE: Final = "demo-facts.csv"

_CALENDAR: Final = """# Made up for the demo: it works day and night. 演示用虚构日历：昼夜生产。
version = "demo"
[[shift]]
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
start = "00:00"
end = "24:00"
"""

_HEAD: Final = "enterprise,site,equipment,name,value,from,until,source,entered"
_OF_THE_YEAR: Final = {
    "value_added": "1860",
    "industry_mean_carbon": "0.52",
    "revenue": "7400",
    "profit": "415",
    "tax": "233",
    "rd_spending": "262",
    "green_power_share": "0.31",
}
_SINCE: Final = {"land_area": "24", "headcount": "118", "digital_devices": "3"}
_CYCLE_TIME_S: Final = "0.8"
"""Planned run time per unit. What the machine knows of it stays in the mill; this is a round number."""


def tell(brain: Path, machine: str, now: datetime | None = None) -> Path:
    """Write the shift calendar of the mill, and a table of facts about it.

    Args:
        brain: the folder of aggregator.toml.
        machine: public label of the machine that makes the pieces.
        now: decides which year the facts are of.

    Returns:
        The table, for `millgate aggregator facts import`.
    """
    calendars = brain / "calendars"
    calendars.mkdir(exist_ok=True)
    (calendars / f"{ENTERPRISE}.{SITE}.toml").write_text(_CALENDAR, encoding="utf-8")
    table = brain / FACTS_FILE
    lines = [_HEAD, *_facts(machine, now or datetime.now(UTC))]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def _facts(machine: str, now: datetime) -> Iterator[str]:
    today = now.date()
    # Around New Year the mill's own day may be of another year than this one.
    for year in sorted({(today + timedelta(days=days)).year for days in (-1, 1)}):
        for name, value in _OF_THE_YEAR.items():
            yield _line("", name, value, date(year, 1, 1), str(date(year + 1, 1, 1)), today)
    start = date(today.year - 1, 1, 1)
    for name, value in _SINCE.items():
        yield _line("", name, value, start, "", today)
    yield _line(machine, "ideal_cycle_time", _CYCLE_TIME_S, start, "", today)


def _line(equipment: str, name: str, value: str, first: date, until: str, today: date) -> str:
    return f"{ENTERPRISE},{SITE},{equipment},{name},{value},{first},{until},{SOURCE},{today}"

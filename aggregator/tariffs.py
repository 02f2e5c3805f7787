"""Tariff periods of electricity (尖峰平谷): data files by province and year, and the lookup."""

import re
from collections.abc import Sequence
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from aggregator.factors import Grade
from aggregator.localtime import DAY_S, HOUR_S, LocalTime
from protocols.errors import ConfigError, MillgateError
from protocols.frame import SECOND, Ints
from protocols.language import tr
from protocols.settings import Strict, load_settings
from protocols.words import instead_of

PERIODS: Final = ("sharp", "peak", "flat", "valley", "deep")
"""尖、峰、平、谷、深谷."""

MIXED: Final = len(PERIODS)
NOT_KNOWN: Final = MIXED + 1
NAMES: Final = (*PERIODS, "mixed", "unknown")
"""Tag values by code: `mixed` is energy over more than one period, `unknown` a year without data."""

_SPAN: Final = re.compile(r"([0-9]{2})-([0-9]{2})")
_HOURS: Final = 24
_STEP_NS: Final = 1800 * SECOND
"""No hour of a day is shorter than this, also where clocks are changed by half an hour."""


def _hours(value: str) -> str:
    found = _SPAN.fullmatch(value)
    if found is None or not 0 <= int(found[1]) < int(found[2]) <= _HOURS:
        raise ValueError(
            tr("hours are written '08-11', within 00-24", "时段写作 '08-11'，在 00-24 之内")
        )
    return value


Hours = Annotated[str, AfterValidator(_hours)]


class Season(Strict):
    """The periods of some months; every hour of the day is in exactly one."""

    name: str
    months: list[Annotated[int, Field(ge=1, le=12)]]
    sharp: list[Hours] = Field(default=[])
    peak: list[Hours] = Field(default=[])
    flat: list[Hours] = Field(default=[])
    valley: list[Hours] = Field(default=[])

    def by_hour(self) -> list[int]:
        """Return the period's code of each of 24 hours."""
        found: list[list[int]] = [[] for _ in range(_HOURS)]
        for code, period in enumerate(PERIODS[:-1]):
            for hour in _each_hour(getattr(self, period)):
                found[hour].append(code)
        if any(len(codes) != 1 for codes in found):
            raise ValueError(
                tr(
                    f"season '{self.name}': every hour must be in exactly one period",
                    f"季节 '{self.name}'：每个小时须恰好属于一个时段",
                )
            )
        return [codes[0] for codes in found]

    @model_validator(mode="after")
    def _whole(self) -> "Season":
        self.by_hour()
        return self


def _each_hour(spans: Sequence[str]) -> list[int]:
    return [
        hour for span in spans for hour in range(int(span.split("-")[0]), int(span.split("-")[1]))
    ]


class Holidays(Strict):
    """What is different on holidays, and which are meant."""

    names: list[str]
    deep: list[Hours]


class TariffFile(Strict):
    """One notice.

    Attributes:
        years: for which it was checked; outside, nothing is said.
    """

    id: str
    region: str
    zone: str
    publication: str
    grade: Grade
    source: str
    years: list[int]
    season: list[Season]
    holidays: Holidays | None = None

    @model_validator(mode="after")
    def _whole(self) -> "TariffFile":
        months = sorted(month for season in self.season for month in season.months)
        if months != list(range(1, 13)):
            raise ValueError(
                tr("every month must be in exactly one season", "每个月须恰好属于一个季节")
            )
        return self


class Tariff:
    """Looks up the period of slots.

    Args:
        file: the notice.
        holidays: local days on which its deep valley hours hold.
    """

    def __init__(self, file: TariffFile, holidays: Sequence[date] = ()) -> None:
        self.file = file
        self._local = LocalTime(file.zone)
        table = np.zeros((13, _HOURS), np.int64)
        for season in file.season:
            table[season.months] = season.by_hour()
        self._table = table
        self._deep = np.zeros(_HOURS, np.bool_)
        if file.holidays is not None:
            self._deep[_each_hour(file.holidays.deep)] = True
        self._holidays = np.array(sorted(set(holidays)), "datetime64[D]")

    def codes(self, starts: Ints, window_s: int | Ints, spans: Ints | None = None) -> Ints:
        """Return the code (see `NAMES`) of each slot, shape (r,).

        Args:
            starts: window starts, ns since 1970 UTC.
            window_s: slot length in seconds, of all or shape (r,).
            spans: over how many slots each value counts; the last is the slot itself.
        """
        count = np.ones(len(starts), np.int64) if spans is None else spans
        first = starts - (count - 1) * (window_s * SECOND)
        last = starts + (window_s * SECOND - 1)
        codes = self._at(first)
        longest = -(-int((last - first).max(initial=0)) // _STEP_NS)
        # No period is as long as a day, so what spans a day is mixed without looking closer. By hours
        # that pass, not by those of the day: where clocks are changed, one is left out or comes twice.
        for step in range(1, min(longest, 2 * _HOURS) + 1):
            moment: Ints = np.minimum(first + step * _STEP_NS, last)
            codes = np.where(self._at(moment) != codes, MIXED, codes)
        return codes

    def _at(self, moments: Ints) -> Ints:
        """Return the code of each moment, ns since 1970 UTC."""
        hours = self._local.seconds(moments) // HOUR_S
        days = (hours // (DAY_S // HOUR_S)).astype("datetime64[D]")
        months = days.astype("datetime64[M]").astype(np.int64) % 12 + 1
        years = days.astype("datetime64[Y]").astype(np.int64) + 1970
        hour = hours % _HOURS
        codes = self._table[months, hour]
        deep = self._deep[hour] & np.isin(days, self._holidays)
        codes = np.where(deep, PERIODS.index("deep"), codes)
        return np.where(np.isin(years, self.file.years), codes, NOT_KNOWN)


def shipped_tariffs() -> dict[str, TariffFile]:
    """Return all shipped tariffs by id."""
    found = {}
    for entry in resources.files("configs.tariffs").iterdir():
        if entry.name.endswith(".toml"):
            with resources.as_file(entry) as path:
                one = load_settings(Path(path), TariffFile)
            found[one.id] = one
    return found


def find_tariff(name: str, folder: Path) -> TariffFile:
    """Return a shipped tariff by id, or the one in a file beside the configuration.

    Raises:
        ConfigError: there is none, or the file is faulty.
    """
    if name.endswith(".toml"):
        return load_settings(folder / name, TariffFile)
    known = shipped_tariffs()
    if name not in known:
        near = instead_of(name, sorted(known), "configs/tariffs/")
        fault = MillgateError(
            tr(f"there is no tariff '{name}'", f"没有分时电价 '{name}'"),
            where="tariff.calendar",
            remedy=tr(
                f"{near}; or give the name of your own .toml file",
                f"{near}；或写您自己的 .toml 文件名",
            ),
        )
        raise ConfigError([fault])
    return known[name]

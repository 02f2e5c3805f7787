"""Local time of a factory: days, years and hours of the clock on the wall, as columns."""

from datetime import UTC as _UTC
from datetime import datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from protocols.frame import SECOND, Flags, Ints

HOUR_S: Final = 3600
DAY_S: Final = 86_400
_QUARTER_S: Final = 900


class LocalTime:
    """Turns times into the local ones of one zone.

    Args:
        zone: an IANA name such as Asia/Shanghai.

    Raises:
        ZoneInfoNotFoundError, ValueError: there is no such zone.
    """

    def __init__(self, zone: str) -> None:
        self.name = zone
        self._zone = ZoneInfo(zone)
        self._offset = lru_cache(maxsize=65_536)(self._look_up)
        self._last: tuple[Ints, list[tuple[int, Flags | None]]] | None = None

    def _look_up(self, quarter: int) -> int:
        moment = datetime.fromtimestamp(quarter * _QUARTER_S, _UTC).astimezone(self._zone)
        offset = moment.utcoffset()
        return 0 if offset is None else int(offset.total_seconds())

    def seconds(self, time_ns: Ints) -> Ints:
        """Return local wall-clock seconds since 1970-01-01 00:00 local, shape as given.

        Offsets change on quarter hours only, everywhere since 1970 but for a few moments.
        """
        utc = time_ns // SECOND
        quarters, place = np.unique(utc // _QUARTER_S, return_inverse=True)
        offsets = np.array([self._offset(quarter) for quarter in quarters.tolist()], np.int64)
        return utc + offsets[place.reshape(utc.shape)]

    def years(self, time_ns: Ints) -> Ints:
        """Return the local year of each time, shape as given."""
        days: Ints = (self.seconds(time_ns) // DAY_S).astype("datetime64[D]")
        return days.astype("datetime64[Y]").astype(np.int64) + 1970

    def by_year(self, time_ns: Ints) -> list[tuple[int, Flags | None]]:
        """Return each local year that there is, and which rows are in it; None: all.

        Many columns share one array of times, so the answer for the last one is kept.
        """
        if self._last is None or self._last[0] is not time_ns:
            years = self.years(time_ns)
            found = np.unique(years).tolist()
            parts = [(year, None if len(found) == 1 else years == year) for year in found]
            self._last = (time_ns, parts)
        return self._last[1]

    def start_of(self, year: int, month: int, day: int) -> int:
        """Return when a local day begins, nanoseconds since 1970 UTC."""
        return int(datetime(year, month, day, tzinfo=self._zone).timestamp()) * SECOND


UTC: Final = LocalTime("UTC")
"""Where no zone is configured."""

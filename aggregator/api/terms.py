"""What the API is told besides stores and ledger: local time, disclosure rules, planned time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from aggregator.calendars import Calendar
from aggregator.config import DisclosureConfig
from aggregator.derivation import People
from aggregator.localtime import HOUR_S, UTC, LocalTime
from protocols.frame import Floats, Ints

Planned: TypeAlias = Callable[[str, str, Ints], Floats | None]
"""(enterprise, site, starts of hours in ns) -> planned busy seconds of each; None: no calendar.

It reads files, so it is called in a worker's thread.
"""


def nothing_planned(enterprise: str, site: str, hours: Ints) -> Floats | None:
    """Say that no site has a calendar."""
    del enterprise, site, hours
    return None


def planned_by(people: People, local: LocalTime) -> Planned:
    """Return what sites' shift calendars say."""

    def planned(enterprise: str, site: str, hours: Ints) -> Floats | None:
        file = people.calendar(enterprise, site)
        return None if file is None else Calendar(file, local).planned_s(hours, HOUR_S)

    return planned


@dataclass(frozen=True, slots=True)
class Terms:
    """What summaries and rankings need.

    Attributes:
        local: which day, month and year a moment is in.
        disclosure: what figures about several firms have to satisfy.
        planned: planned busy time of sites.
    """

    local: LocalTime = UTC
    disclosure: DisclosureConfig = field(default_factory=DisclosureConfig)
    planned: Planned = nothing_planned

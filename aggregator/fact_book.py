"""The facts of a brain as they are entered, by command or over the API: the same checks for both."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from aggregator.fact_log import noting
from aggregator.facts import COLUMNS, Fact, FactFile, merged, read_fact
from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.words import instead_of

OWN_COLUMNS: Final = tuple(name for name in COLUMNS if name != "entered")
"""What whoever enters a fact says; when it was entered is the brain's to say."""


class SiteName(NamedTuple):
    """A site, as the brain names it."""

    enterprise: str
    site: str


class Absent(MillgateError):
    """There is no such fact."""


Sites = Callable[[], Collection[SiteName]]


def check_site(place: SiteName, known: Collection[SiteName], where: str) -> None:
    """Raise where no agent's card is of a site.

    Raises:
        MillgateError: with the nearest name there is.
    """
    if place in known:
        return
    names = sorted(".".join(one) for one in known)
    raise MillgateError(
        tr(f"no agent's card is of '{'.'.join(place)}'", f"没有 '{'.'.join(place)}' 的名片"),
        where=where,
        remedy=instead_of(".".join(place), names, "millgate aggregator factories"),
    )


class FactBook:
    """Facts of all sites; calls block.

    Args:
        file: where they are kept.
        sites: tells which sites there are.
        log: of administrators' actions, where every change is recorded.
    """

    def __init__(self, file: FactFile, sites: Sites, log: Path) -> None:
        self._file = file
        self._sites = sites
        self._log = log

    def all(self) -> list[Fact]:
        """Return all facts.

        Raises:
            ConfigError: the file is faulty.
        """
        return self._file.read()

    def put(
        self, rows: Sequence[dict[str, str]], allowed: Callable[[str], bool], **by: str
    ) -> list[Fact]:
        """Enter facts, all or none; one of the same place and first day is replaced.

        Args:
            rows: each has the names of `OWN_COLUMNS`.
            allowed: tells of which firms facts may be entered; the others are as if unknown.
            by: who enters them, see `fact_log.noting`.

        Raises:
            ConfigError: with every fact's first fault, or with two values for one day.
            LogFault: it cannot be recorded; nothing is entered.
        """
        known = {one for one in self._sites() if allowed(one.enterprise)}
        facts: list[Fact] = []
        faults: list[MillgateError] = []
        for number, row in enumerate(rows):
            try:
                facts.append(_checked(row, known, f"facts[{number}]"))
            except MillgateError as fault:
                faults.append(fault)
        if faults:
            raise ConfigError(faults)
        self._file.change(lambda before: merged(before, facts), noting(self._log, **by))
        return facts

    def remove(self, place: tuple[str, str, str, str], first: str, **by: str) -> None:
        """Remove the fact of a place that begins on a day.

        Raises:
            Absent: there is none.
            ConfigError: the file is faulty.
            LogFault: it cannot be recorded; nothing is removed.
        """

        def without(known: Iterable[Fact]) -> list[Fact]:
            before = list(known)
            kept = [one for one in before if (one.place, str(one.valid_from)) != (place, first)]
            if len(kept) == len(before):
                raise Absent(
                    tr("there is no such fact", "没有这项事实"),
                    where=f"{' '.join(filter(None, place))} {first}",
                    remedy=tr("look at the list of facts", "请查看事实列表"),
                )
            return kept

        self._file.change(without, noting(self._log, **by))


def _checked(row: dict[str, str], known: Collection[SiteName], where: str) -> Fact:
    fact = read_fact({**row, "entered": str(datetime.now(UTC).date())}, where)
    check_site(SiteName(fact.enterprise, fact.site), known, where)
    return fact

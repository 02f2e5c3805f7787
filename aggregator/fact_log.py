"""Records who changed which fact in the log of administrators' actions, before the change counts."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Final, NamedTuple

from aggregator.facts import Fact as Known
from aggregator.facts import Note
from security.admin_log import Fact, record_all

SET: Final = "set-fact"
REMOVED: Final = "remove-fact"


class _Place(NamedTuple):
    place: tuple[str, str, str, str]
    first: date


def noting(log: Path, **by: str) -> Note:
    """Return what records a change of facts.

    Args:
        log: the file.
        by: who changes them, besides the user of the operating system: `token`, by its name.
    """

    def note(before: Sequence[Known], after: Sequence[Known]) -> None:
        record_all(log, list(_changes(before, after, by)))

    return note


def _changes(
    before: Sequence[Known], after: Sequence[Known], by: dict[str, str]
) -> Iterator[tuple[str, dict[str, Fact]]]:
    old = {_Place(one.place, one.valid_from): one for one in before}
    new = {_Place(one.place, one.valid_from): one for one in after}
    for at, one in new.items():
        if old.get(at) != one:
            yield SET, by | _named(one) | _said(one) | _was(old.get(at))
    for at, one in old.items():
        if at not in new:
            yield REMOVED, by | _named(one) | _was(one)


def _named(one: Known) -> dict[str, Fact]:
    named = {"firm": one.enterprise, "site": one.site}
    if one.equipment:
        named["equipment"] = one.equipment
    return {**named, "name": one.name, "from": str(one.valid_from)}


def _said(one: Known) -> dict[str, Fact]:
    said = {} if one.valid_until is None else {"until": str(one.valid_until)}
    return {**said, "value": str(one.value), "source": one.source}


def _was(one: Known | None) -> dict[str, Fact]:
    return {} if one is None else {"was": str(one.value)}

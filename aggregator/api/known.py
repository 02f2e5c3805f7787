"""Refusals of names that no series has; what is only not there yet is no fault."""

from collections.abc import Iterable, Sequence
from typing import Final

from aggregator.api.catalog import Catalog, Entry
from aggregator.api.problems import Text, bad_parameter
from aggregator.series.fields import FIELDS
from protocols.language import spoken_to
from protocols.words import instead_of

_LISTED: Final = "docs/series.md"


async def check_fields(
    catalog: Catalog, entry: Entry, parameter: str, names: Sequence[str]
) -> None:
    """Refuse fields that rows of this measurement never have.

    Raises:
        Problem: 400 with the name that was meant; 503 when the store cannot be asked.
    """
    measurement = entry.key.measurement
    known = set(FIELDS.get(measurement, ()))
    if not known.issuperset(names):
        known |= set(await catalog.ask(entry.bucket, lambda store: store.fields(measurement)))
    for name in names:
        if name not in known:
            title = Text(f"{measurement} has no field '{name}'", f"{measurement} 没有字段 '{name}'")
            raise bad_parameter(parameter, title, instead(name, sorted(known)))


def check_measurement(measurement: str | None, found: Sequence[Entry]) -> None:
    """Refuse a measurement of which there is no series, unless there may be one some day.

    Raises:
        Problem: 400 with the name that was meant.
    """
    if measurement is None or found or measurement in FIELDS:
        return
    title = Text(f"there is no measurement '{measurement}'", f"没有测量 '{measurement}'")
    raise bad_parameter("measurement", title, instead(measurement, FIELDS))


def instead(word: str, known: Iterable[str]) -> Text:
    """Return the remedy for an unknown word, in both languages."""
    words = list(known)
    with spoken_to(chinese=False):
        english = instead_of(word, words, _LISTED)
    with spoken_to(chinese=True):
        return Text(english, instead_of(word, words, _LISTED))

"""What series are made of: released slots with their meaning."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey
from protocols.batch import GOOD, NO_VALUE, Block
from protocols.frame import SECOND, Flags, Floats, Ints
from security.policy.compiled import SheetPoint

QUALITY_GOOD: Final = "GOOD"
QUALITY_PARTIAL: Final = "PARTIAL"
QUALITY_ESTIMATED: Final = "ESTIMATED"


@dataclass(frozen=True, slots=True)
class ReleasedSlots:
    """One block of one batch, in the brain's words.

    Attributes:
        enterprise, site: whose it is, as the brain names them.
        window_s: slot length in seconds.
        points: the release sheet's line of each column.
        block: the values.
    """

    enterprise: str
    site: str
    window_s: int
    points: tuple[SheetPoint, ...]
    block: Block

    @property
    def starts(self) -> Ints:
        """Window starts, shape (r,), ns since 1970 UTC."""
        return (self.block.slot + np.arange(self.block.rows)) * (self.window_s * SECOND)

    def has_value(self, column: int) -> Flags:
        """Tell in which slots a column has a value, shape (r,)."""
        usable: Flags = self.block.quality[:, column] != NO_VALUE
        return usable

    def values(self, column: int) -> Floats:
        """Return a column's values as the nearest float64 to the exact decimals, shape (r,)."""
        return to_float(self.block.mantissa[:, column], self.points[column].exponent)

    def key(self, measurement: str, equipment: str, **tags: str) -> SeriesKey:
        """Return the key of a series of this factory."""
        own = {"enterprise_id": self.enterprise, "site_id": self.site, "equipment_id": equipment}
        return SeriesKey.of(measurement, {**own, **tags})


def to_float(mantissa: Ints, exponent: int) -> Floats:
    """Return mantissa x 10**exponent, correctly rounded to float64, any shape.

    Mantissas are below 2**53 and powers of ten up to 10**22 are exact, so one operation rounds
    once.
    """
    power = 10.0 ** abs(exponent)
    wide = mantissa.astype(np.float64)
    return wide / power if exponent < 0 else wide * power


def value_quality(slots: ReleasedSlots, column: int, spans: Ints, rows: Flags) -> list[str]:
    """Return the quality of each row of a column as the series name it.

    A value that counts over several slots is ESTIMATED: its sum is exact, its shape is not.
    """
    codes = slots.block.quality[rows, column]
    if not codes.any() and bool((spans == 1).all()):
        return [QUALITY_GOOD] * len(codes)
    return [
        QUALITY_ESTIMATED if span > 1 else QUALITY_GOOD if code == GOOD else QUALITY_PARTIAL
        for span, code in zip(spans.tolist(), codes.tolist(), strict=True)
    ]


def merge(blocks: Sequence[SeriesBlock]) -> list[SeriesBlock]:
    """Join blocks of the same series; of rows with the same time the later block's wins."""
    by_key: dict[SeriesKey, list[SeriesBlock]] = {}
    for block in blocks:
        by_key.setdefault(block.key, []).append(block)
    return [group[0] if len(group) == 1 else _join(group) for group in by_key.values()]


def _join(group: Sequence[SeriesBlock]) -> SeriesBlock:
    time = np.concatenate([block.time for block in group])
    order = np.argsort(time, kind="stable")
    ordered = time[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    chosen = order[last]
    fields: dict[str, FieldColumn] = {}
    for name, first in group[0].fields.items():
        if isinstance(first, list):
            text = [item for block in group for item in block.fields[name]]
            fields[name] = [str(text[at]) for at in chosen.tolist()]
        else:
            fields[name] = np.concatenate([np.asarray(block.fields[name]) for block in group])[
                chosen
            ]
    return SeriesBlock(group[0].key, time[chosen], fields)

"""What series are made of: released slots with their meaning."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np

from aggregator.stores import (
    ENTERPRISE,
    EQUIPMENT,
    SITE,
    FieldColumn,
    SeriesBlock,
    SeriesKey,
)
from protocols.batch import GOOD, NO_VALUE, Block
from protocols.frame import SECOND, Flags, Floats, Ints, Values
from security.policy.compiled import SheetPoint

QUALITY_GOOD: Final = "GOOD"
QUALITY_PARTIAL: Final = "PARTIAL"
QUALITY_ESTIMATED: Final = "ESTIMATED"


@dataclass(frozen=True)
class ReleasedSlots:
    """One block of one batch, or several that follow each other, in the brain's words.

    What is the same for all columns is computed once; many thousand columns share it.

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

    @cached_property
    def starts(self) -> Ints:
        """Window starts, shape (r,), ns since 1970 UTC."""
        starts = (self.block.slot + np.arange(self.block.rows)) * (self.window_s * SECOND)
        return _shared(starts)

    @cached_property
    def spans(self) -> Ints:
        """Over how many slots each cell counts, shape (r, c)."""
        return _shared(self.block.span_matrix())

    @cached_property
    def plain(self) -> list[bool]:
        """Per column: whether every slot has a good value that counts over this slot alone."""
        plain: Flags = ((self.block.quality == GOOD) & (self.spans == 1)).all(axis=0)
        return [bool(flag) for flag in plain]

    @cached_property
    def plain_fields(self) -> dict[str, FieldColumn]:
        """The fields beside the values that all plain columns have."""
        window = _shared(np.full(self.block.rows, self.window_s, np.int64))
        quality = [QUALITY_GOOD] * self.block.rows
        return {"window_s": window, "span_s": window, "quality": quality}

    @cached_property
    def parts(self) -> dict[tuple[str, str], int]:
        """The columns of states, by equipment and part."""
        return {
            (point.equipment, point.part): at for at, point in enumerate(self.points) if point.part
        }

    @cached_property
    def _numbers(self) -> Floats:
        """All values, shape (c, r), so that a column lies in one piece."""
        mantissa = np.ascontiguousarray(self.block.mantissa.T)
        exponents = np.array([point.exponent for point in self.points], np.int64)
        if len(set(exponents.tolist())) == 1:
            return _shared(to_float(mantissa, int(exponents[0])))
        values = np.empty(mantissa.shape, np.float64)
        for exponent in np.unique(exponents).tolist():
            values[exponents == exponent] = to_float(mantissa[exponents == exponent], exponent)
        return _shared(values)

    def has_value(self, column: int) -> Flags:
        """Tell in which slots a column has a value, shape (r,)."""
        usable: Flags = self.block.quality[:, column] != NO_VALUE
        return usable

    def values(self, column: int) -> Floats:
        """Return a column's values as the nearest float64 to the exact decimals, shape (r,)."""
        values: Floats = self._numbers[column]
        return values

    def key(self, measurement: str, equipment: str, **tags: str) -> SeriesKey:
        """Return the key of a series of this factory."""
        own = (ENTERPRISE, self.enterprise), (SITE, self.site)
        return _key(measurement, (*own, (EQUIPMENT, equipment), *tags.items()))


def statistic(point: SheetPoint) -> str:
    """Return what the values of a point are: an aggregate, or `band` or `pseudonym`.

    A band's number and a pseudonym are no quantity: nothing is computed from them.
    """
    if point.bands:
        return "band"
    return "pseudonym" if point.pseudonym_s else str(point.aggregate)


def statistic_tag(of: str) -> str:
    """Return the tag that tells which statistic a reading is.

    Empty for the plain ones: the last value of a gauge, the rise of a counter.
    """
    return "" if of in {"last", "delta"} else of


@lru_cache(maxsize=65_536)
def _key(measurement: str, tags: tuple[tuple[str, str], ...]) -> SeriesKey:
    return SeriesKey.of(measurement, dict(tags))


def _shared(values: Values) -> Values:
    """Let nobody change what many columns share."""
    values.setflags(write=False)
    return values


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


def chosen_rows(fields: dict[str, FieldColumn], rows: Flags) -> dict[str, FieldColumn]:
    """Return fields cut down to some rows."""
    return {
        name: [item for item, take in zip(values, rows, strict=True) if take]
        if isinstance(values, list)
        else values[rows]
        for name, values in fields.items()
    }


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

"""Stores: where series live; one file per store, its name is its `kind` in configuration.

A store module has a `Config` and a `Store`. Stores are called from worker threads, never
from the event loop, and by one thread at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protocols.errors import MillgateError
from protocols.frame import Ints
from protocols.plugins import Plugins
from protocols.settings import Strict

FieldColumn: TypeAlias = NDArray[np.float64] | NDArray[np.int64] | list[str]
Aggregate: TypeAlias = Literal["mean", "sum", "min", "max", "last"]


ENTERPRISE, SITE, EQUIPMENT = "enterprise_id", "site_id", "equipment_id"
"""Tags that say whose a series is."""


class StoreUnavailable(MillgateError):
    """The store cannot be reached or cannot take the rows now; the same call may work later.

    Attributes:
        retry_after_s: how long the store wants to be left alone; 0 where it does not say.
    """

    retry_after_s: float = 0.0


class StoreRefused(MillgateError):
    """The store will never take these rows; trying again is useless."""


class StoreConfig(Strict):
    """What every store's configuration has."""

    kind: str


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """Names one series.

    Attributes:
        measurement: such as `ff_energy`.
        tags: sorted (key, value) pairs; keys and values are never empty.
    """

    measurement: str
    tags: tuple[tuple[str, str], ...]

    @staticmethod
    def of(measurement: str, tags: Mapping[str, str]) -> "SeriesKey":
        """Build a key from a mapping; empty tag values are left out."""
        return SeriesKey(measurement, tuple(sorted((k, v) for k, v in tags.items() if v)))


@dataclass(frozen=True, slots=True)
class SeriesBlock:
    """Rows of one series as columns.

    Attributes:
        key: the series.
        time: shape (n,), int64 nanoseconds since 1970 UTC, strictly increasing: window starts.
        fields: name -> column of n values: float64 (NaN: this row has no such field), int64,
            or a list of str ("" : this row has no such field). A field's type never changes.
    """

    key: SeriesKey
    time: Ints
    fields: Mapping[str, FieldColumn]

    def __len__(self) -> int:
        return len(self.time)


@dataclass(frozen=True, slots=True)
class RowSpan:
    """The rows of one series with start_ns <= time < end_ns."""

    key: SeriesKey
    start_ns: int
    end_ns: int


class Store(Protocol):
    """Keeps series; a row written again under the same series and time replaces the old one."""

    def __init__(self, config: Any, bucket: str) -> None:
        """Open or create the store for one bucket (`future_factory` or `carbon_emission`)."""

    def write(self, blocks: Sequence[SeriesBlock]) -> None:
        """Write all rows; when it returns they are durable.

        A row replaces, as a whole, the row of the same series and time where the store can
        do so; otherwise field by field.

        Raises:
            StoreUnavailable: nothing or only a part was written; write the same again later.
            StoreRefused: the rows can never be written.
        """

    def delete(self, measurement: str) -> None:
        """Remove every row of a measurement.

        Raises:
            StoreUnavailable: try again later.
        """

    def delete_rows(self, spans: Sequence[RowSpan]) -> None:
        """Remove rows; series that there are not, and spans without rows, are no fault.

        Raises:
            StoreUnavailable: all, a part or nothing was removed; try again later.
            StoreRefused: this store cannot remove rows.
        """

    def overwrite_removed(self) -> None:
        """Let nothing that was removed stay readable in this store's files, as far as it can.

        Raises:
            StoreUnavailable: try again later.
        """

    def series(self, measurement: str | None = None) -> list[SeriesKey]:
        """Return the series there are, sorted, optionally of one measurement."""
        ...

    def fields(self, measurement: str) -> list[str]:
        """Return the names of the fields that any row of a measurement was written with, sorted."""
        ...

    def query(
        self,
        key: SeriesKey,
        fields: Sequence[str],
        start_ns: int,
        end_ns: int,
        *,
        limit: int = 100_000,
    ) -> SeriesBlock:
        """Return the rows with start_ns <= time < end_ns, at most the first `limit` of them.

        Numeric fields come back as float64 (NaN where a row lacks it) unless they were
        written as int64, text as list of str. Fields nobody wrote are left out.
        """
        ...

    def query_steps(
        self,
        key: SeriesKey,
        field: str,
        start_ns: int,
        end_ns: int,
        step_ns: int,
        aggregate: Aggregate,
    ) -> SeriesBlock:
        """Return one row per step that has data: its start (multiples of step_ns) and `field`.

        Steps without data are absent, never 0.
        """
        ...

    def newest(self, key: SeriesKey) -> SeriesBlock:
        """Return the newest row with all its fields; an empty block where there is none."""
        ...

    def count(self, measurement: str) -> int:
        """Return the number of rows of a measurement."""
        ...

    def close(self) -> None:
        """Release what the store holds."""


_PLUGINS: Final = Plugins(__name__, __path__)
kinds = _PLUGINS.kinds
load = _PLUGINS.load

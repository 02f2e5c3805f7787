"""A mirror of the numbers in VictoriaMetrics, kept in step by the change feed.

VictoriaMetrics takes InfluxDB's line protocol, but it is no store of record: it keeps no text, cuts
times to milliseconds, keeps 15 digits, cannot remove rows, and of two values of one moment it keeps
the one it likes. Run it with `-retentionPeriod=100y -dedup.minScrapeInterval=1ms`: without the first
it drops what is older than a month, without the second it answers both values of a revised row.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from aggregator.feed import Change, Feed, Gone
from aggregator.stores import SeriesBlock, SeriesKey, Store
from protocols.language import tr

_CHANGES: Final = 500
_PORTION: Final = 10_000
_LONGEST: Final = 128

_log = logging.getLogger(__name__)


class Mirror:
    """Copies numbers; calls block.

    Args:
        feed: what has changed.
        stores: bucket -> where the rows are.
        targets: bucket -> where the numbers go.
        cursor: file that remembers how far it has come.
    """

    def __init__(
        self, feed: Feed, stores: Mapping[str, Store], targets: Mapping[str, Store], cursor: Path
    ) -> None:
        self._feed = feed
        self._stores = stores
        self._targets = targets
        self._cursor = cursor

    def step(self) -> tuple[int, bool]:
        """Copy the next changes; return how many rows, and whether there is more.

        Without a position, or with one that the feed no longer reaches back to, everything is copied.
        What is copied again after a crash is the same.

        Raises:
            StoreUnavailable: a store or the target is away; call again later.
        """
        position = self._position()
        if not position:
            head = self._feed.head
            rows = sum(self._copy(bucket, key) for bucket, key in self._all())
            self._note(head)
            return rows, False
        try:
            page = self._feed.read(position, _CHANGES)
        except Gone:
            self._note("")
            return 0, True
        rows = sum(self._change(change) for change in page.changes)
        if page.next != position:
            self._note(page.next)
        return rows, page.next != page.head

    def _all(self) -> Iterator[tuple[str, SeriesKey]]:
        for bucket, store in self._stores.items():
            for key in store.series():
                if key.tags:
                    yield bucket, key

    def _change(self, change: Change) -> int:
        if change.kind == "rows" and change.key.tags:
            return self._copy(change.bucket, change.key, change.first_ns, change.last_ns + 1)
        if change.kind != "rows":
            _log.warning(
                "%s: %s",
                change.key.measurement,
                tr("rows were removed; the mirror keeps them", "有数据行被删除，镜像中仍保留"),
            )
        return 0

    def _copy(self, bucket: str, key: SeriesKey, start: int = 0, end: int = 1 << 62) -> int:
        store, rows = self._stores[bucket], 0
        names = store.fields(key.measurement)
        while start < end:
            block = store.query(key, names, start, end, limit=_PORTION)
            numbers = {
                name: column
                for name, column in block.fields.items()
                if not isinstance(column, list)
            }
            if len(block) and numbers:
                self._targets[bucket].write([SeriesBlock(key, block.time, numbers)])
            rows += len(block)
            start = int(block.time[-1]) + 1 if len(block) == _PORTION else end
        return rows

    def _position(self) -> str:
        try:
            return self._cursor.read_text("ascii")[:_LONGEST].strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def _note(self, position: str) -> None:
        part = self._cursor.with_name(f".{self._cursor.name}.part")
        with part.open("w", encoding="ascii") as file:
            file.write(position)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._cursor)

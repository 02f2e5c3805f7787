"""The store in InfluxDB 1.8, 2 or 3: written as line protocol, read with InfluxQL.

In configuration:

    [store]
    kind = "influx"
    url = "https://influx.example:8086"
    token_file = "/etc/millgate/influx.token"
    org = "brain"
    ca_file = "/etc/millgate/ca.pem"
    timeout = "30s"

A bucket is the InfluxDB bucket of that name for writing (`/api/v2/write`), and the database of
that name, with its default retention policy (`autogen`), for reading (`/query`). In InfluxDB 1
and 3 these are one and the same, and in 1 it is made when missing. In InfluxDB 2 a bucket
must be made and mapped: `influx v1 dbrp create --db NAME --rp autogen --default --bucket-id ID`.

A row written again replaces the old one field by field. InfluxDB 3 cannot delete by InfluxQL.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import Field, field_validator

from aggregator.storable import LAST_NS, FieldType, check_steps, rounds, span
from aggregator.stores import (
    Aggregate,
    FieldColumn,
    RowSpan,
    SeriesBlock,
    SeriesKey,
    StoreConfig,
    StoreRefused,
    StoreUnavailable,
)
from aggregator.stores.influx import influxql
from aggregator.stores.influx.link import Called, Link, NotTaken, TooLarge
from aggregator.stores.influx.requests import Request, requests
from protocols.frame import SECOND
from protocols.hosts import Plain
from protocols.language import for_everyone, tr
from protocols.settings import Duration

_CALLED: Final = Called()
_PAGE: Final = 10_000
"""Rows asked for at once; InfluxDB's own limit, where one is set, is usually not smaller."""


class Config(StoreConfig):
    """How to reach InfluxDB.

    Attributes:
        url: such as https://influx.example:8086.
        token_file: file that holds the token (InfluxDB 1.8: `user:password`); None: no token.
        org: the organisation, which InfluxDB 2 asks for.
        ca_file: certificates of the authorities to trust, PEM; None: the system's.
        timeout: longest wait for one answer.
    """

    kind: Literal["influx"] = "influx"
    url: Plain
    token_file: Path | None = None
    org: str = ""
    ca_file: Path | None = None
    timeout: Duration = Field(default=30 * SECOND, gt=0)

    @field_validator("url")
    @classmethod
    def _http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError(
                tr("a URL starts with http:// or https://", "URL 须以 http:// 或 https:// 开头")
            )
        return url.rstrip("/")


class Store:
    """Keeps one bucket's series in InfluxDB."""

    def __init__(self, config: Config, bucket: str, called: Called = _CALLED) -> None:
        """Prepare without touching the network; `called` is what faults call the server.

        Raises:
            ValueError: the bucket's name is no plain word.
        """
        if not bucket.replace("_", "").replace("-", "").isalnum() or not bucket.isascii():
            raise ValueError(
                tr("a bucket has letters, digits, _ and -", "桶名须为字母、数字、_、-")
            )
        self._link = Link(
            config.url,
            bucket,
            org=config.org,
            token_file=config.token_file,
            ca_file=config.ca_file,
            timeout_ns=config.timeout,
            called=called,
        )
        self._tags: dict[str, set[str]] = {}

    def write(self, blocks: Sequence[SeriesBlock]) -> None:
        """Write all rows; when it returns InfluxDB has said that it keeps them.

        Raises:
            StoreUnavailable: nothing or only a part was written; write the same again later.
            StoreRefused: InfluxDB never takes some of the rows; all others were written.
            ValueError: a block cannot be stored at all; nothing was written.
        """
        refused: dict[str, str] = {}
        # One request is on its way while the next is made: InfluxDB is what takes the time.
        with ThreadPoolExecutor(1, "influx-write") as sender:
            on_its_way: Future[None] | None = None
            for request in chain.from_iterable(requests(turn) for turn in rounds(blocks)):
                if on_its_way is not None:
                    on_its_way.result()
                on_its_way = sender.submit(self._send, request, refused)
            if on_its_way is not None:
                on_its_way.result()
        if refused:
            raise StoreRefused(
                "; ".join(f"{measurement}: {why}" for measurement, why in sorted(refused.items())),
                where=self._link.where,
                remedy=tr(
                    "delete the measurement and rebuild it from the ledger, or raise InfluxDB's limits",
                    "请删除该测量并由账本重建，或提高 InfluxDB 的限额",
                ),
            )

    def delete(self, measurement: str) -> None:
        """Remove every row of a measurement.

        Raises:
            StoreUnavailable: try again later.
            StoreRefused: this InfluxDB cannot delete.
        """
        self._change(measurement, f"DROP MEASUREMENT {influxql.name(measurement)}")

    def delete_rows(self, spans: Sequence[RowSpan]) -> None:
        """Remove rows.

        Raises:
            StoreUnavailable: a part or nothing was removed; try again later.
            StoreRefused: this InfluxDB cannot delete.
        """
        # A series with a tag that nobody had when tags were asked for must not go with one without it.
        self._tags.clear()
        for one in spans:
            start, end = span(one.start_ns, one.end_ns)
            if start < end:
                where = influxql.condition(one.key, self._other_tags(one.key), start, end - 1)
                self._change(one.key.measurement, influxql.delete(one.key, where))

    def overwrite_removed(self) -> None:
        """Leave it to InfluxDB, which drops the bytes of removed rows when it compacts its files."""

    def _change(self, measurement: str, statement: str) -> None:
        try:
            self._link.ask(statement, change=True)
        except NotTaken:
            raise StoreRefused(
                tr(
                    f"{measurement}: this InfluxDB cannot delete",
                    f"{measurement}：此 InfluxDB 不能删除",
                ),
                where=self._link.where,
                remedy=tr(
                    "use InfluxDB 1.8 or 2, or delete the table with its own tools",
                    "请使用 InfluxDB 1.8 或 2，或用其自带工具删除该表",
                ),
            ) from None

    def series(self, measurement: str | None = None) -> list[SeriesKey]:
        """Return the series there are, sorted, optionally of one measurement."""
        try:
            keys = self._series_listed(measurement)
        except NotTaken:
            keys = self._series_by_rows(measurement)
        return sorted(keys, key=lambda key: (key.measurement, key.tags))

    def query(
        self,
        key: SeriesKey,
        fields: Sequence[str],
        start_ns: int,
        end_ns: int,
        *,
        limit: int = 100_000,
    ) -> SeriesBlock:
        """Return the first `limit` rows with start_ns <= time < end_ns.

        Rows that have none of the fields are left out, as are fields without any value.
        """
        types = self._types(key.measurement)
        asked = {name: types[name] for name in fields if name in types}
        columns = [influxql.typed(name, kind) for name, kind in asked.items()]
        rows = self._rows(key, columns, span(start_ns, end_ns), limit) if asked else []
        return _block(key, asked, rows)

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

        Raises:
            ValueError: the step is not positive, or a text is to be anything but `last`.
        """
        check_steps(step_ns)
        kind = self._types(key.measurement).get(field)
        if kind is None:
            return _block(key, {}, [])
        if kind is FieldType.TEXT and aggregate != "last":
            raise ValueError(tr("of a text there is only 'last'", "文本仅支持 'last'"))
        columns = [influxql.aggregated(field, kind, aggregate)]
        rows = self._rows(key, columns, span(start_ns, end_ns), LAST_NS, step_ns=step_ns)
        return _block(key, {field: FieldType.FLOAT if aggregate == "mean" else kind}, rows)

    def newest(self, key: SeriesKey) -> SeriesBlock:
        """Return the newest row with all its fields; an empty block where there is none."""
        types = dict(sorted(self._types(key.measurement).items()))
        if not types:
            return _block(key, {}, [])
        columns = [influxql.typed(name, kind) for name, kind in types.items()]
        where = influxql.condition(key, self._other_tags(key), 0, LAST_NS)
        statement = influxql.select(key, columns, where, tail="ORDER BY time DESC LIMIT 1")
        found = [one for one in self._ask(statement) if influxql.is_of(one, key)]
        return _block(key, types, found[0].rows if found else [])

    def fields(self, measurement: str) -> list[str]:
        """Return the names of the fields that any row of a measurement was written with, sorted."""
        return sorted(self._types(measurement))

    def count(self, measurement: str) -> int:
        """Return the number of rows of a measurement."""
        types = self._types(measurement)
        counts = self._counts(measurement, "")
        if not counts:
            return 0
        fullest = max(counts, key=lambda name: counts[name])
        # InfluxDB counts values, not rows. A field that every row has counts the rows: then no
        # other field has a value where it has none.
        if self._counts(measurement, influxql.has(fullest, types[fullest])) == counts:
            return counts[fullest]
        rows = 0
        for key in self.series(measurement):
            columns = [influxql.typed(name, kind) for name, kind in types.items()]
            rows += len(self._rows(key, columns, (0, LAST_NS + 1), LAST_NS))
        return rows

    def close(self) -> None:
        """Close the connections; the next call would open new ones."""
        self._link.close()

    def _send(self, request: Request, refused: dict[str, str]) -> None:
        """Write a request, in parts where it must be, and note which measurements are refused."""
        try:
            self._link.write(request.body())
        except TooLarge:
            if request.smallest():
                refused[request.measurement()] = tr("a row is too large", "行过大")
                return
            parts = request.halves()
        except NotTaken as error:
            if request.one_series():
                refused[request.measurement()] = error.reason
                return
            parts = request.apart()
        else:
            return
        for part in parts:
            self._send(part, refused)

    def _ask(self, statement: str) -> list[influxql.Answer]:
        return self._page(statement)[0]

    @for_everyone()
    def _page(self, statement: str) -> tuple[list[influxql.Answer], bool]:
        try:
            return self._link.ask(statement)
        except NotTaken:
            raise StoreUnavailable(
                tr("InfluxDB does not understand a query", "InfluxDB 不理解查询"),
                where=self._link.where,
                remedy=tr(
                    "check that it is InfluxDB 1.8, 2 or 3 and answers InfluxQL at /query",
                    "请确认其为 InfluxDB 1.8、2 或 3，且 /query 支持 InfluxQL",
                ),
            ) from None

    def _types(self, measurement: str) -> dict[str, FieldType]:
        answers = self._ask(f"SHOW FIELD KEYS FROM {influxql.name(measurement)}")
        return influxql.field_types(answers)

    def _other_tags(self, key: SeriesKey) -> set[str]:
        """Return the tags that other series of the measurement have, as far as known.

        Asking for their absence spares reading those series; what is not known yet is sorted
        out of the answer.
        """
        known = self._tags.get(key.measurement)
        own = {tag for tag, _ in key.tags}
        if known is None or not own <= known:
            answers = self._ask(f"SHOW TAG KEYS FROM {influxql.name(key.measurement)}")
            known = self._tags[key.measurement] = set(influxql.first_column(answers))
        return known - own

    def _rows(
        self,
        key: SeriesKey,
        columns: Sequence[str],
        within: tuple[int, int],
        limit: int,
        *,
        step_ns: int = 0,
    ) -> list[Sequence[object]]:
        """Return rows (time, values...) of a span, or of its steps, page by page."""
        rows: list[Sequence[object]] = []
        for page in self._pages(key, columns, within, limit, step_ns):
            rows += page
        return rows

    def _pages(
        self,
        key: SeriesKey,
        columns: Sequence[str],
        within: tuple[int, int],
        limit: int,
        step_ns: int,
    ) -> Iterator[Sequence[Sequence[int]]]:
        start, end = within
        group = f"time({step_ns:d}ns)" if step_ns else ""
        fill = "fill(none) " if step_ns else ""
        more = True
        while more and limit > 0 and start < end:
            size = min(_PAGE, limit)
            where = influxql.condition(key, self._other_tags(key), start, end - 1)
            statement = influxql.select(
                key, columns, where, group=group, tail=f"{fill}LIMIT {size:d}"
            )
            answers, cut = self._page(statement)
            page = next((one.rows for one in answers if influxql.is_of(one, key)), [])
            yield page
            limit -= len(page)
            more = bool(page) and (cut or len(page) == size)
            if more:
                start = page[-1][0] + (step_ns or 1)

    def _counts(self, measurement: str, where: str) -> dict[str, int]:
        """Return how many values each field has, in rows that meet a condition."""
        return {
            column.removeprefix("count_"): int(count)
            for answer in self._ask(influxql.counts(measurement, where))
            for row in answer.rows
            for column, count in zip(answer.columns[1:], row[1:], strict=True)
            if count
        }

    def _series_listed(self, measurement: str | None) -> list[SeriesKey]:
        wanted = f" FROM {influxql.name(measurement)}" if measurement is not None else ""
        keys: list[SeriesKey] = []
        more = True
        while more:
            statement = f"SHOW SERIES{wanted} LIMIT {_PAGE:d} OFFSET {len(keys):d}"
            answers, cut = self._link.ask(statement)
            found = influxql.first_column(answers)
            keys += [influxql.series_key(line) for line in found]
            more = bool(found) and (cut or len(found) == _PAGE)
        return keys

    def _series_by_rows(self, measurement: str | None) -> list[SeriesKey]:
        """Find the series by one row of each, where InfluxDB does not list them."""
        measurements = [measurement] if measurement is not None else []
        if measurement is None:
            measurements = influxql.first_column(self._ask("SHOW MEASUREMENTS"))
        return [
            SeriesKey.of(name, answer.tags)
            for name in measurements
            for answer in self._ask(influxql.one_row_each(name))
        ]


def _block(
    key: SeriesKey, types: dict[str, FieldType], rows: Sequence[Sequence[object]]
) -> SeriesBlock:
    columns: dict[str, FieldColumn] = {}
    for at, (name, kind) in enumerate(types.items(), 1):
        cells = [row[at] for row in rows]
        if any(cell is not None for cell in cells):
            columns[name] = influxql.column(kind, cells)
    time = influxql.times(rows) if rows else np.zeros(0, np.int64)
    return SeriesBlock(key, time, columns)

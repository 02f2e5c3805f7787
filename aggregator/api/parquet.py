"""Rows as Apache Parquet, a row group at a time; needs the extra `millgate[parquet]` (pyarrow)."""

import importlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import numpy as np

from aggregator.api.problems import Problem, Text
from aggregator.stores import FieldColumn, SeriesBlock, SeriesKey, Store

PORTION: Final = 65_536
"""Rows of a row group: what is in memory at once."""

CONTENT_TYPE: Final = "application/vnd.apache.parquet"


def library() -> Any:
    """Return pyarrow; it takes a moment, so not on the event loop.

    Raises:
        Problem: 501 where it is not installed.
    """
    try:
        importlib.import_module("pyarrow.parquet")
        return importlib.import_module("pyarrow")
    except ImportError:
        raise Problem(
            HTTPStatus.NOT_IMPLEMENTED,
            "no-parquet",
            Text("Parquet is not installed at this brain", "本产业大脑未安装 Parquet 支持"),
            Text(
                "ask its operator to install millgate[parquet], or ask for format=csv",
                "请运维方安装 millgate[parquet]，或改用 format=csv",
            ),
            parameter="format",
        ) from None


def kinds_of(
    store: Store, key: SeriesKey, names: Sequence[str], start_ns: int, end_ns: int
) -> dict[str, str]:
    """Return the type of each field that has a value in a span: `double`, `int64` or `string`."""
    kinds = {}
    for name in names:
        found = store.query(key, [name], start_ns, end_ns, limit=1)
        column = found.fields.get(name)
        if column is not None and len(found):
            kinds[name] = _kind(column)
    return kinds


def _kind(column: FieldColumn) -> str:
    if isinstance(column, list):
        return "string"
    return "int64" if column.dtype == np.int64 else "double"


class Writer:
    """Turns blocks of one series into the bytes of one file; its calls block.

    Args:
        key: the series; the file's metadata names it.
        kinds: type of each field, as `kinds_of` says.

    Raises:
        Problem: 501 where pyarrow is not installed.
    """

    def __init__(self, key: SeriesKey, kinds: Mapping[str, str]) -> None:
        self._arrow = library()
        types = {"double": "float64", "int64": "int64", "string": "string"}
        fields = [("time", self._arrow.timestamp("ns", tz="UTC"))]
        fields += [(name, getattr(self._arrow, types[kind])()) for name, kind in kinds.items()]
        about = {"measurement": key.measurement, **dict(key.tags)}
        self._schema = self._arrow.schema(fields, metadata=about)
        self._kinds = dict(kinds)
        self._sink = _Sink()
        self._file = self._arrow.parquet.ParquetWriter(
            self._arrow.PythonFile(self._sink, mode="w"), self._schema, compression="zstd"
        )

    def add(self, block: SeriesBlock) -> bytes:
        """Return the bytes of a row group."""
        columns = [self._arrow.array(block.time).cast(self._schema.field("time").type)]
        columns += [self._column(block, name, kind) for name, kind in self._kinds.items()]
        self._file.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))
        return self._sink.taken()

    def end(self) -> bytes:
        """Return the last bytes; without them the file is none."""
        self._file.close()
        return self._sink.taken()

    def _column(self, block: SeriesBlock, name: str, kind: str) -> Any:
        column = block.fields.get(name)
        wanted = self._schema.field(name).type
        if column is None:
            return self._arrow.nulls(len(block), wanted)
        if isinstance(column, list):
            return self._arrow.array([text or None for text in column], wanted)
        absent = np.isnan(column) if column.dtype == np.float64 else np.zeros(len(column), np.bool_)
        if kind == "int64":
            column = np.where(absent, 0, column).astype(np.int64)
        return self._arrow.array(column, wanted, mask=absent)


class _Sink:
    """A file that only grows; what was written is taken away piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._length += len(part)
        return len(part)

    def tell(self) -> int:
        return self._length

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """What was written can still be taken."""

    def taken(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data

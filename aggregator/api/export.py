"""A period's rows as a file, however many: a portion at a time, so that memory stays bounded."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final, Protocol

from aiohttp import web

from aggregator.api import csv, parquet
from aggregator.api.catalog import Catalog, Entry
from aggregator.api.problems import Problem
from aggregator.stores import SeriesBlock, SeriesKey, Store

FORMATS: Final = ("csv", "parquet")
_PORTION: Final = 10_000


class _Maker(Protocol):
    """Makes a file out of blocks; its calls block."""

    def add(self, block: SeriesBlock) -> bytes:
        """Return the next bytes."""
        ...

    def end(self) -> bytes:
        """Return the last bytes."""
        ...


class _Csv:
    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._head = csv.header(names)

    def add(self, block: SeriesBlock) -> bytes:
        head, self._head = self._head, b""
        return head + csv.lines(block, self._names)

    def end(self) -> bytes:
        return self._head


async def send(
    request: web.Request,
    catalog: Catalog,
    entry: Entry,
    names: list[str],
    span: tuple[int, int],
    form: str,
) -> web.StreamResponse:
    """Send the rows with span[0] <= time < span[1]; a break tears the connection down.

    Raises:
        Problem: before anything was sent: a store is away, or the format is not installed.
    """
    if form == "parquet":
        kinds = await catalog.ask(entry.bucket, partial(_kinds, entry.key, names, *span))
        maker: _Maker = await asyncio.to_thread(parquet.Writer, entry.key, kinds)
        portion, content_type = parquet.PORTION, parquet.CONTENT_TYPE
    else:
        maker, portion, content_type = (
            _Csv(names),
            _PORTION,
            "text/csv; charset=utf-8; header=present",
        )
    answer = web.StreamResponse(
        headers={
            "Content-Type": content_type,
            "Content-Disposition": f'attachment; filename="{entry.key.measurement}.{form}"',
        }
    )
    await answer.prepare(request)
    try:
        async for block in _blocks(catalog, entry, names, span, portion):
            await answer.write(await asyncio.to_thread(maker.add, block))
    except Problem:
        # The head is sent already; what is cut off must not look like the whole.
        if request.transport is not None:
            request.transport.abort()
        return answer
    await answer.write(await asyncio.to_thread(maker.end))
    return answer


async def _blocks(
    catalog: Catalog, entry: Entry, names: list[str], span: tuple[int, int], portion: int
) -> AsyncIterator[SeriesBlock]:
    start, end = span
    while start < end:
        read = partial(_portion, entry.key, names, start, end, portion)
        block = await catalog.ask(entry.bucket, read)
        yield block
        start = int(block.time[-1]) + 1 if len(block) == portion else end


def _portion(
    key: SeriesKey, names: list[str], start: int, end: int, limit: int, store: Store
) -> SeriesBlock:
    return store.query(key, names, start, end, limit=limit)


def _kinds(key: SeriesKey, names: list[str], start: int, end: int, store: Store) -> dict[str, str]:
    return parquet.kinds_of(store, key, names, start, end)

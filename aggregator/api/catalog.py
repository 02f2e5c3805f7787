"""The series of all stores under ids that outlive restarts, and the way to ask for them."""

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from aggregator.api.problems import unavailable
from aggregator.api.scopes import Scope
from aggregator.api.worker import Worker
from aggregator.stores import SeriesKey, Store, StoreUnavailable

_KNOWN: Final = 65_536

Result = TypeVar("Result")
Item = TypeVar("Item")


class Entry(NamedTuple):
    """One series: its id, its bucket and its key."""

    id: str
    bucket: str
    key: SeriesKey


@lru_cache(_KNOWN)
def series_id(bucket: str, key: SeriesKey) -> str:
    """Return the series' id: 22 characters, the same in every run and on every machine."""
    name = json.dumps([bucket, key.measurement, key.tags], ensure_ascii=False).encode()
    return urlsafe_b64encode(hashlib.sha256(name).digest()[:16]).rstrip(b"=").decode()


class Catalog:
    """Finds series and asks their stores, each in its own thread.

    Args:
        stores: bucket -> store; nothing else may use these instances meanwhile.
    """

    def __init__(self, stores: Mapping[str, Store]) -> None:
        self._stores = dict(stores)
        self._workers = {bucket: Worker(f"api-{bucket}") for bucket in stores}
        self._entries: dict[str, dict[str, Entry]] = {}

    @property
    def buckets(self) -> list[str]:
        """The buckets there are."""
        return list(self._stores)

    async def ask(self, bucket: str, call: Callable[[Store], Result]) -> Result:
        """Run `call` on the bucket's store in its thread.

        Raises:
            Problem: 503 when the store cannot be reached or does not answer in time.
        """
        store = self._stores[bucket]
        try:
            return await self._workers[bucket].run(lambda: call(store))
        except (StoreUnavailable, TimeoutError):
            raise unavailable() from None

    async def list(self, scope: Scope, measurement: str | None = None) -> list[Entry]:
        """Return the series of all buckets that a scope may see, ordered by id.

        Raises:
            Problem: 503 when a store cannot be asked.
        """
        found: list[Entry] = []
        for bucket in self._stores:
            found += (await self._load(bucket, measurement)).values()
        return sorted(entry for entry in found if scope.sees(entry.key))

    async def find(self, scope: Scope, identity: str) -> Entry | None:
        """Return the series with that id; None when there is none that the scope may see.

        Raises:
            Problem: 503 when a store that may have it cannot be asked.
        """
        found = await self._find(identity)
        return found if found is not None and scope.sees(found.key) else None

    async def _find(self, identity: str) -> Entry | None:
        for entries in self._entries.values():
            if identity in entries:
                return entries[identity]
        for bucket in self._stores:
            entries = await self._load(bucket, None)
            if identity in entries:
                return entries[identity]
        return None

    async def _load(self, bucket: str, measurement: str | None) -> dict[str, Entry]:
        def load(store: Store) -> dict[str, Entry]:
            keys = store.series(measurement)
            # What names no enterprise is a mark of the store itself.
            entries = [Entry(series_id(bucket, key), bucket, key) for key in keys if key.tags]
            return {entry.id: entry for entry in entries}

        entries = await self.ask(bucket, load)
        if measurement is None:
            self._entries[bucket] = entries
        return entries

    async def close(self) -> None:
        """End the threads; the stores stay open, they belong to whoever opened them."""
        for worker in self._workers.values():
            await worker.close()


def page(
    items: Sequence[Item], key: Callable[[Item], str], cursor: str, limit: int
) -> tuple[list[Item], str | None]:
    """Return up to `limit` items whose key comes after `cursor`, and the next cursor.

    Paging by key instead of by position neither skips nor repeats when items come or go.
    """
    rest = sorted((item for item in items if key(item) > cursor), key=key)
    chosen = rest[:limit]
    return chosen, key(chosen[-1]) if len(rest) > limit else None

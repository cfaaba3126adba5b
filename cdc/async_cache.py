"""The asyncio door of a cache: `fetch` is a coroutine.

The cache behind it is the same; what waits or loads runs in a worker thread.
"""

from __future__ import annotations

import asyncio
from typing import Any

from cdc.caching.cache import Cache, Counters, Load
from cdc.errors import ConfigurationError

__all__ = ["AsyncCache"]


class AsyncCache:
    """A `Cache` for asyncio: `fetch` is a coroutine, and `load` runs in a worker thread."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def fetch(self, key: Any, load: Load) -> Any:
        """See `Cache.fetch`. `load` is a plain function; it gets a psycopg.Connection."""
        if asyncio.iscoroutinefunction(load):
            raise ConfigurationError(f"load of {self._cache.table} is a coroutine function: give a plain function")
        return await asyncio.to_thread(self._cache.fetch, key, load)

    @property
    def counters(self) -> Counters:
        """See `Counters`."""
        return self._cache.counters

    @property
    def is_live(self) -> bool:
        """See `Cache.is_live`."""
        return self._cache.is_live

    def invalidate(self, *key: Any) -> None:
        """See `Cache.invalidate`."""
        self._cache.invalidate(*key)

    def __len__(self) -> int:
        return len(self._cache)

"""The asyncio door of a cache: `fetch` and `put` are coroutines.

The cache behind it is the same. What is kept is given at once; a load that is a plain function runs in a worker thread,
one that is a coroutine function in the task that asked, which performs the same steps as a thread would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import Any

from cdc.async_loader import AsyncLoad, AsyncLoader
from cdc.caching.cache import Cache, Counters, Load
from cdc.caching.entries import MISSING, Fill
from cdc.caching.fence import Snapshot
from cdc.caching.filling import Ask, Join, Pause, Read, Step, Steps, filling
from cdc.caching.wraps import Wrapped, check_load, plain, wrapped
from cdc.lsn import Lsn

__all__ = ["AsyncCache"]


class AsyncCache:
    """A `Cache` for asyncio: `fetch` and `put` are coroutines."""

    def __init__(self, cache: Cache, loader: AsyncLoader) -> None:
        self._cache = cache
        self._loader = loader

    async def fetch(self, key: Any, load: Load | AsyncLoad, after: Lsn | str | None = None) -> Any:
        """See `Cache.fetch`.

        `load` is a plain function, which runs in a worker thread with a psycopg.Connection, or a coroutine function,
        which gets a psycopg.AsyncConnection.
        """
        cache = self._cache
        value = cache._hit(key, after)
        if value is not MISSING:
            return value
        check_load(cache.table, load, is_async=True)
        if not iscoroutinefunction(load):
            return await asyncio.to_thread(cache.fetch, key, load, after)
        steps = filling(cache, cache._slot(key), key, asyncio.current_task(), cache._asked(after))
        return await self._drive(steps, load, key)

    async def put(self, key: Any, value: Any, snapshot: Snapshot | str) -> bool:
        """See `Cache.put`."""
        return self._cache.put(key, value, snapshot)

    def wraps(self, function: Callable[..., Any]) -> Wrapped:
        """See `Cache.wraps`; what it gives is awaited. The function may be a coroutine function."""
        return wrapped(self, self._cache, function, self.fetch, _load_of)

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

    async def _drive(self, steps: Steps, load: AsyncLoad, key: Any) -> Any:
        """Perform the steps; see `driving`."""
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._perform(step, load, key)
                except BaseException as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            return end.value

    async def _perform(self, step: Step, load: AsyncLoad, key: Any) -> Any:
        if isinstance(step, Read):
            if step.fenced:
                return await self._loader.fenced(load, key, self._cache.subject)
            return await self._loader.bare(load, key, self._cache.subject), None
        if isinstance(step, Join):
            return await _over(step.fill)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        assert isinstance(step, Ask)
        return await asyncio.to_thread(step.question)


async def _over(fill: Fill) -> None:
    """Wait until another one's load is over, wherever that runs."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def tell() -> None:
        with suppress(RuntimeError):  # The loop of a task that waited is closed.
            loop.call_soon_threadsafe(over.set)

    fill.when_done(tell)
    await over.wait()


def _load_of(function: Callable[..., Any], arguments: Callable[[Any], tuple[Any, ...]]) -> Load | AsyncLoad:
    """The load that a function is, with the values of the key as its arguments."""
    if not iscoroutinefunction(function):
        return plain(function, arguments)

    async def load(connection: Any, key: Any) -> Any:
        return await function(connection, *arguments(key))

    return load

"""The consumer for asyncio: the same names as `consumer`, and the same loop.

The constructor does no I/O; entering, `run` and `start` connect and check the subscriptions made before.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from cdc.async_cache import AsyncCache
from cdc.async_loader import AsyncLoader
from cdc.async_store import AsyncStore
from cdc.caching.depends import Depends
from cdc.caching.keys import By
from cdc.errors import ConfigurationError, kind_of
from cdc.iteration import AsyncEvents
from cdc.log import log
from cdc.lsn import Lsn
from cdc.parked import Parked
from cdc.rls import Subject
from cdc.storing.model import Model
from cdc.subscribing import Subscribing
from cdc.subscription import Handler, Subscription
from cdc.terms import Options
from cdc.waiting import AsyncWaiter

__all__ = ["AsyncConsumer"]


class AsyncConsumer(Subscribing):
    """Receives changes and calls handlers in a task; handlers may be coroutine functions.

    `__init__` explains the arguments. The same names as `Consumer`; `subscribe`, `wait_for`, `run`, `start`,
    `stop`, `close` and a cache's `fetch` are coroutines. `on` and `cache` are not: once the consumer is open
    they ask the server on the spot, which takes a few milliseconds.
    """

    _takes_coroutines = True
    _task: asyncio.Task[None] | None = None
    _worker: asyncio.Task[None] | None = None
    """The task that runs the loop; it is the one to be awaited until somebody does that."""
    _is_own = False
    _async_loader: AsyncLoader | None = None
    _ended: asyncio.Event | None = None

    async def subscribe(self, table: str, handler: Handler, **options: Unpack[Options]) -> Subscription:
        """See `Consumer.subscribe`."""
        subscription = self._subscription(table, handler, options)
        await asyncio.to_thread(self._add, subscription)
        return subscription

    def events(self, table: str, **options: Unpack[Options]) -> AsyncEvents:
        """See `Consumer.events`; for an `async for` loop."""
        events = AsyncEvents(self._iterated(table, options), self._loop.lanes, self._begin)
        self._add(events.subscription)
        return events

    def cache(
        self,
        table: str,
        *,
        ttl: float,
        maxsize: int = 10_000,
        by: By = None,
        patience: float = 5.0,
        depends: Depends = (),
        negative_ttl: float | None = None,
        subject: Subject | None = None,
    ) -> AsyncCache:
        """See `Consumer.cache`."""
        made = self._cached(table, ttl, maxsize, by, patience, depends, negative_ttl, subject)
        if self._async_loader is None:
            self._async_loader = AsyncLoader(self._loader.place)
            self._loader.others.append(self._async_loader.close)
        return AsyncCache(made, self._async_loader)

    def store(
        self,
        table: str,
        path: str | Path | None = None,
        *,
        filter: str | None = None,
        subject: Subject | None = None,
        model: type | None = None,
        name: str | None = None,
    ) -> AsyncStore:
        """See `Consumer.store`; `wait_live` is a coroutine, and handlers of changes may be coroutine functions."""
        store = AsyncStore(table, None if model is None else Model(model))
        store._waits = lambda: self._is_inside
        self._stored(store, path, filter, subject, name)
        return store

    async def parked(self) -> list[Parked]:
        """See `Consumer.parked`."""
        return await asyncio.to_thread(self._parked)

    async def retry_parked(self, id: str, force: bool = False) -> None:
        """See `Consumer.retry_parked`."""
        await asyncio.to_thread(self._retry_parked, id, force)

    async def drop_parked(self, id: str) -> None:
        """See `Consumer.drop_parked`."""
        await asyncio.to_thread(self._drop_parked, id)

    async def wait_for(self, lsn: Lsn | str, timeout: float = 10.0) -> None:
        """See `Consumer.wait_for`."""
        if self._is_inside:
            raise ConfigurationError("wait_for inside a handler would wait for itself")
        try:
            await asyncio.wait_for(asyncio.wrap_future(self._future(lsn)), timeout)
        except TimeoutError:
            raise self._not_reached(lsn, timeout) from None

    async def wait_for_snapshot(self, subscription: Subscription, timeout: float = 60.0) -> None:
        """See `Consumer.wait_for_snapshot`."""
        if self._is_inside:
            raise ConfigurationError("wait_for_snapshot inside a handler would wait for itself")
        future = asyncio.wrap_future(self._snapshot_of(subscription).future)
        try:
            await asyncio.wait_for(asyncio.shield(future), timeout)
        except TimeoutError:
            raise self._not_complete(subscription, timeout) from None

    async def run(self) -> None:
        """Receive and dispatch in this task until `stop` is called. Raises what ended it."""
        await self._opened()
        self._check_idle()
        self._is_own, self._task = False, asyncio.current_task()
        self._ended = ended = asyncio.Event()
        try:
            await self._work()
        finally:
            self._task = None
            self._close()
            ended.set()

    async def start(self) -> None:
        """Connect, then receive and dispatch in a task of the consumer's own."""
        await self._opened()
        self._check_idle()
        self._is_own = True
        self._ended = ended = asyncio.Event()
        self._task = asyncio.create_task(self._work(), name="cdc-consumer")
        self._task.add_done_callback(_say_failure)
        self._task.add_done_callback(lambda _: ended.set())

    async def stop(self) -> None:
        """See `Consumer.stop`."""
        self._loop.link.is_stopping = True
        self._wake()
        task = self._task
        if self._is_inside:
            return
        if task is not None and self._is_own:
            self._task = None
            await task
        elif self._ended is not None:
            # The task is the caller of `run`, or another one stops it, too: they hear of a failure themselves.
            await self._ended.wait()

    async def close(self) -> None:
        """See `Consumer.close`."""
        try:
            await self.stop()
        finally:
            if self._worker is None:
                self._close()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except BaseException as failure:
            if error is None:
                raise
            if not self._is_own:  # Else `_say_failure` has said so.
                log.error("consumer.failed", kind=kind_of(failure).value, reason=str(failure))

    @property
    def _is_inside(self) -> bool:
        """Whether the caller is a handler."""
        return (self._worker is not None and asyncio.current_task() is self._worker) or self._loop.lanes.is_inside

    async def _begin(self) -> None:
        """See `Consumer._begin`."""
        if self._is_inside:
            raise ConfigurationError("an iteration inside a handler would wait for itself")
        while self._task is None and not self._is_ending:
            if self._starting.acquire(blocking=False):
                try:
                    await self.start()
                finally:
                    self._starting.release()
            else:
                await asyncio.sleep(0.01)

    async def _opened(self) -> None:
        """Open, which may wait for the slot. Whoever is cancelled meanwhile does not want it any more."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            self._loop.link.is_stopping = True
            opening.add_done_callback(self._abandoned)
            raise

    def _abandoned(self, opening: asyncio.Future[None]) -> None:
        if not opening.cancelled():
            opening.exception()  # So that asyncio does not say that nobody looked.
        self._close()

    def _check_idle(self) -> None:
        if self._task is not None:
            raise ConfigurationError("this consumer runs already")

    async def _work(self) -> None:
        waiter = AsyncWaiter()
        self._wake = waiter.wake
        self._worker = asyncio.current_task()
        failure: BaseException | None = None
        try:
            await waiter.run(self._loop.steps())
        except BaseException as error:
            failure = error
            raise
        finally:
            self._worker = None
            self._over(failure)
            waiter.close()


def _say_failure(task: asyncio.Task[None]) -> None:
    """Log a failure when it happens; `stop` raises it."""
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        log.error("consumer.failed", kind=kind_of(failure).value, reason=str(failure) or type(failure).__name__)

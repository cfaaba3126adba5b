"""The consumers: what a program holds, one for threads and one for asyncio.

The constructor does no I/O; entering, `run` and `start` connect and check the subscriptions made before. Both
run the same loop and differ in how they wait.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from cdc.async_cache import AsyncCache
from cdc.cache import Cache
from cdc.consuming import Consuming
from cdc.errors import ConfigurationError, kind_of
from cdc.herald import StatusHandler
from cdc.iteration import AsyncEvents, Events
from cdc.log import log
from cdc.lsn import Lsn
from cdc.parked import Parked
from cdc.subscription import Handler, Subscription
from cdc.terms import Options
from cdc.waiting import AsyncWaiter, BlockingWaiter

__all__ = ["AsyncConsumer", "Consumer"]


_H = TypeVar("_H", bound=Callable[..., Any])
_S = TypeVar("_S", bound=StatusHandler)


class Consumer(Consuming):
    """Receives changes and calls handlers, on the thread that calls `run`, or on its own after `start`.

    `__init__` explains the arguments. Raises ConfigurationError, SlotError, GapError or ConnectionFailed when
    it is entered, run or started.
    """

    _thread: threading.Thread | None = None
    _ident: int | None = None
    _failure: BaseException | None = None

    def on(self, *tables: str, **options: Unpack[Options]) -> Callable[[_H], _H]:
        """A decorator: let the function handle the changes of a table, or of several.

        `on("wells")`, `on("wells", "projects")`, `on("public.*")`; takes the options of `subscribe`.
        """
        _check_named(tables)

        def register(handler: _H) -> _H:
            self.subscribe(tables, handler, **options)
            return handler

        return register

    def on_message(self, *prefixes: str, **options: Unpack[Options]) -> Callable[[_H], _H]:
        """A decorator: let the function handle logical messages, from the next transaction on.

        `on_message("outbox")` has the messages that `pg_logical_emit_message(…, 'outbox', …)` wrote; in a prefix
        `*`, `?` and `[…]` match as in a shell, so that `"*"` means every message. Takes those options of `subscribe`
        that say how events are handed over, not those that choose among rows; messages have no subject.

        Raises SubscriptionError when the consumer streams already and had no such handler when it began.
        """

        def register(handler: _H) -> _H:
            _refuse_coroutine(handler)
            self._add(self._listener(prefixes, handler, options))
            return handler

        return register

    def on_status(self, handler: _S) -> _S:
        """Call `handler` with a `StatusChange` whenever the consumer's status changes; also a decorator.

        It is called in order, on the thread that calls the other handlers. When it raises, that is logged.
        """
        _check_status_handler(handler)
        _refuse_coroutine(handler)
        self._loop.link.herald.handlers.append(handler)
        return handler

    def subscribe(self, table: str | Sequence[str], handler: Handler, **options: Unpack[Options]) -> Subscription:
        """Let `handler` have the changes of a table, or of several, from the next transaction on.

        Args:
            table: `"wells"` (of schema public) or `"schema.table"`; a pattern such as `"public.*"`, `"sales_*"` or
                `"*"`, which also means tables that are published later; or a list of these.
            handler: called with each event.
            options: what it wants of them, and how; see `cdc.terms.Options`.

        Raises SubscriptionError, at once when the consumer is open, else when it opens.
        """
        _refuse_coroutine(handler)
        subscription = self._subscription(table, handler, options)
        self._add(subscription)
        return subscription

    def events(self, table: str, **options: Unpack[Options]) -> Events:
        """The changes of a table for a `for` loop, from the next transaction on. Takes the options of `subscribe`.

        An event is finished when the next one is asked for. The first one starts the consumer unless it runs. The
        loop ends when the consumer is stopped, and raises what ended it otherwise. Raises what `subscribe` raises.
        """
        events = Events(self._iterated(table, options), self._loop.lanes, self._begin)
        self._add(events.subscription)
        return events

    def cache(
        self,
        table: str,
        *,
        ttl: float,
        maxsize: int = 10_000,
        by: str | Sequence[str] | None = None,
        patience: float = 5.0,
    ) -> Cache:
        """A cache that the table's changes clear; see `Cache`.

        Args:
            table: as in `subscribe`.
            ttl: seconds that an entry lives at most.
            maxsize: entries at most.
            by: column, or columns, whose value is the key; None when any change clears everything.
            patience: seconds that a fetch waits for a change to become visible.
        """
        return self._cached(table, ttl, maxsize, by, patience)

    def parked(self) -> list[Parked]:
        """The events of this slot that handlers could not take, the oldest first. Asks the server.

        Raises ConfigurationError before the consumer is open.
        """
        return self._parked()

    def retry_parked(self, id: str, force: bool = False) -> None:
        """Ask for another attempt with a parked event; the consumer makes it between two transactions.

        When the handler takes it, it is parked no more; else it stays, with one more attempt counted. `force` hands it
        over although a later change of its row was delivered.

        Raises ConfigurationError for an unknown id, CdcError when it is out of date and not forced.
        """
        self._retry_parked(id, force)

    def drop_parked(self, id: str) -> None:
        """Forget a parked event for ever. Raises ConfigurationError for an unknown id."""
        self._drop_parked(id)

    def wait_for(self, lsn: Lsn | str, timeout: float = 10.0) -> None:
        """Wait until everything up to `lsn` was handled: caches have moved and handlers have returned.

        `cdc.current_lsn(connection)` gives the LSN after a write. Raises TimeoutError after `timeout` seconds,
        the consumer's own failure when it fails meanwhile, ConfigurationError inside a handler.
        """
        if self._is_inside:
            raise ConfigurationError("wait_for inside a handler would wait for itself")
        future = self._future(lsn)
        try:
            future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise self._not_reached(lsn, timeout) from None

    def wait_for_snapshot(self, subscription: Subscription, timeout: float = 60.0) -> None:
        """Wait until every row that the table had was handed to the subscription.

        Raises TimeoutError after `timeout` seconds, the consumer's own failure when it fails meanwhile,
        ConfigurationError inside a handler and for a subscription without a snapshot.
        """
        if self._is_inside:
            raise ConfigurationError("wait_for_snapshot inside a handler would wait for itself")
        try:
            self._snapshot_of(subscription).future.result(timeout)
        except TimeoutError:
            raise self._not_complete(subscription, timeout) from None

    def run(self) -> None:
        """Receive and dispatch on this thread until `stop` is called. Raises what ended it."""
        self._open()
        if self._ident is not None or self._thread is not None:
            raise ConfigurationError("this consumer runs already")
        try:
            self._work()
        finally:
            self._close()

    def start(self) -> None:
        """Connect, then receive and dispatch on a thread of the consumer's own."""
        self._open()
        if self._ident is not None or self._thread is not None:
            raise ConfigurationError("this consumer runs already")
        self._thread = threading.Thread(target=self._work_quietly, name="cdc-consumer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End between two events, with the position saved; wait for it when the consumer has its own thread.

        Raises the failure that ended it before. Inside a handler it only asks.
        """
        self._loop.link.is_stopping = True
        self._wake()
        if self._is_inside:
            return
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Stop, and give back everything. Idempotent. Raises the failure that ended the consumer before."""
        try:
            self.stop()
        finally:
            if self._ident is None:
                self._close()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BaseException as failure:
            if error is None:
                raise
            log.error("consumer.failed", kind=kind_of(failure).value, reason=str(failure))

    def _begin(self) -> None:
        """Start, for an iteration, unless it runs or has ended."""
        if self._is_inside:
            raise ConfigurationError("an iteration inside a handler would wait for itself")
        with self._starting:
            if self._thread is None and self._ident is None and not self._is_ending:
                self.start()

    @property
    def _is_inside(self) -> bool:
        """Whether the caller is a handler."""
        return threading.get_ident() == self._ident or self._loop.lanes.is_inside

    def _work_quietly(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._failure = error
            log.error("consumer.failed", kind=kind_of(error).value, reason=str(error))

    def _work(self) -> None:
        waiter = BlockingWaiter()
        self._wake = waiter.wake
        self._ident = threading.get_ident()
        failure: BaseException | None = None
        try:
            waiter.run(self._loop.steps())
        except BaseException as error:
            failure = error
            raise
        finally:
            self._ident = None
            self._over(failure)
            waiter.close()


class AsyncConsumer(Consuming):
    """Receives changes and calls handlers in a task; handlers may be coroutine functions.

    `__init__` explains the arguments. The same names as `Consumer`; `subscribe`, `wait_for`, `run`, `start`,
    `stop`, `close` and a cache's `fetch` are coroutines. `on` and `cache` are not: once the consumer is open
    they ask the server on the spot, which takes a few milliseconds.
    """

    _task: asyncio.Task[None] | None = None
    _is_own = False
    _ended: asyncio.Event | None = None

    def on(self, *tables: str, **options: Unpack[Options]) -> Callable[[_H], _H]:
        """See `Consumer.on`."""
        _check_named(tables)

        def register(handler: _H) -> _H:
            self._add(self._subscription(tables, handler, options))
            return handler

        return register

    def on_message(self, *prefixes: str, **options: Unpack[Options]) -> Callable[[_H], _H]:
        """See `Consumer.on_message`."""

        def register(handler: _H) -> _H:
            self._add(self._listener(prefixes, handler, options))
            return handler

        return register

    def on_status(self, handler: _S) -> _S:
        """See `Consumer.on_status`; the handler may be a coroutine function, which the consumer's task awaits."""
        _check_status_handler(handler)
        self._loop.link.herald.handlers.append(handler)
        return handler

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
        by: str | Sequence[str] | None = None,
        patience: float = 5.0,
    ) -> AsyncCache:
        """See `Consumer.cache`."""
        return AsyncCache(self._cached(table, ttl, maxsize, by, patience))

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
        try:
            await self._work()
        finally:
            self._task = None
            self._close()

    async def start(self) -> None:
        """Connect, then receive and dispatch in a task of the consumer's own."""
        await self._opened()
        self._check_idle()
        self._is_own = True
        self._task = asyncio.create_task(self._work(), name="cdc-consumer")
        self._task.add_done_callback(_say_failure)

    async def stop(self) -> None:
        """See `Consumer.stop`."""
        self._loop.link.is_stopping = True
        self._wake()
        task = self._task
        if task is None or self._is_inside:
            return
        if self._is_own:
            self._task = None
            await task
        elif self._ended is not None:
            # The task is the caller of `run`, and hears of a failure itself.
            await self._ended.wait()

    async def close(self) -> None:
        """See `Consumer.close`."""
        try:
            await self.stop()
        finally:
            if self._task is None:
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
            log.error("consumer.failed", kind=kind_of(failure).value, reason=str(failure))

    @property
    def _is_inside(self) -> bool:
        """Whether the caller is a handler."""
        return (self._task is not None and asyncio.current_task() is self._task) or self._loop.lanes.is_inside

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
        self._ended = asyncio.Event()
        failure: BaseException | None = None
        try:
            await waiter.run(self._loop.steps())
        except BaseException as error:
            failure = error
            raise
        finally:
            self._over(failure)
            waiter.close()
            self._ended.set()


def _refuse_coroutine(handler: Callable[..., Any]) -> None:
    if asyncio.iscoroutinefunction(handler):
        raise ConfigurationError(f"{handler.__qualname__} is a coroutine function: use AsyncConsumer")


def _check_named(tables: Sequence[object]) -> None:
    if not tables or callable(tables[0]):
        raise ConfigurationError('write @consumer.on("wells"): the table has to be named')


def _say_failure(task: asyncio.Task[None]) -> None:
    """Log a failure when it happens; `stop` raises it."""
    failure = None if task.cancelled() else task.exception()
    if failure is not None:
        log.error("consumer.failed", kind=kind_of(failure).value, reason=str(failure))


def _check_status_handler(handler: object) -> None:
    if not callable(handler):
        raise ConfigurationError(f"on_status takes a function, not {handler!r}")

"""The consumer for threads: what a program holds.

The constructor does no I/O; entering, `run` and `start` connect and check the subscriptions made before.
`async_consumer` runs the same loop and differs in how it waits.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, Unpack

from cdc.caching.cache import Cache
from cdc.caching.depends import Depends
from cdc.caching.keys import By
from cdc.errors import ConfigurationError, kind_of
from cdc.iteration import Events
from cdc.log import log
from cdc.lsn import Lsn
from cdc.parked import Parked
from cdc.rls import Subject
from cdc.storing.model import Model
from cdc.storing.store import Store
from cdc.subscribing import Subscribing
from cdc.subscription import Handler, Subscription
from cdc.terms import Options
from cdc.waiting import BlockingWaiter

__all__ = ["Consumer"]


class Consumer(Subscribing):
    """Receives changes and calls handlers, on the thread that calls `run`, or on its own after `start`.

    `__init__` explains the arguments. Raises ConfigurationError, SlotError, GapError or ConnectionFailed when
    it is entered, run or started.
    """

    _thread: threading.Thread | None = None
    _ident: int | None = None
    _failure: BaseException | None = None
    _told: BaseException | None = None

    def subscribe(self, table: str | Sequence[str], handler: Handler, **options: Unpack[Options]) -> Subscription:
        """Let `handler` have the changes of a table, or of several, from the next transaction on.

        Args:
            table: `"wells"` (of schema public) or `"schema.table"`; a pattern such as `"public.*"`, `"sales_*"` or
                `"*"`, which also means tables that are published later; or a list of these.
            handler: called with each event.
            options: what it wants of them, and how; see `cdc.terms.Options`.

        Raises SubscriptionError, at once when the consumer is open, else when it opens.
        """
        self._check_coroutine(handler)
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
        by: By = None,
        patience: float = 5.0,
        depends: Depends = (),
        negative_ttl: float | None = None,
        subject: Subject | None = None,
    ) -> Cache:
        """A cache that the table's changes clear; see `Cache`.

        Args:
            table: as in `subscribe`.
            ttl: seconds that an entry lives at most.
            maxsize: entries at most.
            by: column, or columns, whose value is the key; or a function that makes the key of a row, None for a row
                that concerns nobody. Without it any change clears everything.
            patience: seconds that a fetch waits for a change to become visible.
            depends: other tables that loads read; their changes clear everything, or the keys that they have by their
                own `by`, as in `{"projects": "id"}`.
            negative_ttl: seconds that None is kept at most; None as long as any other value.
            subject: as whom loads run; see `Subject`.

        Raises ConfigurationError for settings that cannot be, SubscriptionError for what the server cannot give.
        """
        return self._cached(table, ttl, maxsize, by, patience, depends, negative_ttl, subject)

    def store(
        self,
        table: str,
        path: str | Path | None = None,
        *,
        filter: str | None = None,
        subject: Subject | None = None,
        model: type | None = None,
        name: str | None = None,
    ) -> Store:
        """The table in memory, kept in step: a read-only mapping from `event.key` to row; see `Store`.

        Args:
            table: `"wells"` (of schema public) or `"schema.table"`.
            path: a file that keeps the rows, so that they are there at once next time.
            filter: which rows, such as `"status=eq.active"`.
            subject: as whom to look; row-level security, grants and column rights decide. None is trusted.
            model: a dataclass that rows become; each of its fields is named like a column.
            name: what the store is called in messages; default: the table.

        Raises SubscriptionError, at once when the consumer is open, else when it opens.
        """
        store = Store(table, None if model is None else Model(model))
        store._waits = lambda: self._is_inside
        self._stored(store, path, filter, subject, name)
        return store

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
            if failure is not self._told:
                log.error("consumer.failed", kind=kind_of(failure).value, reason=str(failure))

    def _begin(self) -> None:
        """Start, for an iteration, unless it runs or has ended."""
        if self._is_inside:
            raise ConfigurationError("an iteration inside a handler would wait for itself")
        self._check_process()
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
            self._told = error
            log.error("consumer.failed", kind=kind_of(error).value, reason=str(error) or type(error).__name__)

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

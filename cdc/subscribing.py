"""How functions become handlers: the decorators of both consumers.

Does no waiting of its own. Once the consumer is open they ask the server on the spot, which takes a few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import AbstractContextManager
from inspect import iscoroutinefunction
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, Unpack

from cdc.caching.cache import Cache, Source
from cdc.caching.clearing import clearing_of
from cdc.caching.depends import Depends, check_sizes, depends_of
from cdc.caching.invalidation import Invalidation, Key
from cdc.caching.keys import By
from cdc.consuming import Consuming
from cdc.errors import ConfigurationError, SubscriptionError
from cdc.expiry import check_fresh
from cdc.family import Family
from cdc.herald import StatusHandler
from cdc.keeper import Keeper, source_of
from cdc.lane import Driver
from cdc.listener import Listener
from cdc.loader import AsSubject
from cdc.loading import check_subject
from cdc.pattern import Pattern, table_name
from cdc.rls import Subject
from cdc.storing.feed import Feed
from cdc.storing.store import Store
from cdc.subscription import Handler, Subscription, operations_of
from cdc.terms import Options, Terms
from cdc.values import Types

__all__ = ["Subscribing"]

_H = TypeVar("_H", bound=Callable[..., Any])
_S = TypeVar("_S", bound=StatusHandler)

_ITERATION_QUEUE = 1000
"""Events that may wait for an iteration, unless it says otherwise."""


class Subscribing(Consuming):
    """The decorators. Use `Consumer` or `AsyncConsumer`."""

    _takes_coroutines = False

    def on(self, *tables: str, **options: Unpack[Options]) -> Callable[[_H], _H]:
        """A decorator: let the function handle the changes of a table, or of several.

        `on("wells")`, `on("wells", "projects")`, `on("public.*")`; takes the options of `subscribe`.
        """
        _check_named(tables, "on")
        return self._decorator(tables, options)

    def on_transaction(self, *tables: str, **options: Unpack[Options]) -> Callable[[_H], _H]:
        """A decorator: let the function have whole transactions, each as a `CommittedTransaction` at its commit.

        `on_transaction("wells", "projects")`, `on_transaction("*")`: it has the changes of all these tables, in the
        order in which they were made. Takes the options of `subscribe` but `batch` and `debounce`.
        """
        _check_named(tables, "on_transaction")
        asked: Options = {**options, "transaction": True}
        return self._decorator(tables, asked)

    def on_message(self, *prefixes: str, **options: Unpack[Options]) -> Callable[[_H], _H]:
        """A decorator: let the function handle logical messages, from the next transaction on.

        `on_message("outbox")` has the messages that `pg_logical_emit_message(…, 'outbox', …)` wrote; in a prefix
        `*`, `?` and `[…]` match as in a shell, so that `"*"` means every message. Takes those options of `subscribe`
        that say how events are handed over, not those that choose among rows; messages have no subject.

        Raises SubscriptionError when the consumer streams already and had no such handler when it began.
        """

        if prefixes and callable(prefixes[0]):
            raise ConfigurationError('write @consumer.on_message("outbox"): the prefix has to be named')

        def register(handler: _H) -> _H:
            self._check_coroutine(handler)
            self._add(self._listener(prefixes, handler, options))
            return handler

        return register

    def on_status(self, handler: _S) -> _S:
        """Call `handler` with a `StatusChange` whenever the consumer's status changes; also a decorator.

        It is called in order, on the thread or in the task that calls the other handlers. With AsyncConsumer it may be
        a coroutine function. When it raises, that is logged.
        """
        if not callable(handler):
            raise ConfigurationError(f"on_status takes a function, not {handler!r}")
        self._check_coroutine(handler)
        self._loop.link.herald.handlers.append(handler)
        return handler

    def invalidate(
        self,
        mapping: MutableMapping[Any, Any],
        table: str,
        *,
        key: Key = None,
        lock: AbstractContextManager[Any] | None = None,
    ) -> Subscription:
        """Let changes of a table remove entries from a cache that you have already. It is not fenced; `cache` is.

        A change removes the keys of the row before and after it. What is not known clears everything: an old row that
        was not sent, TRUNCATE, an altered table, a `Gap`. It happens before handlers are called, also while the stream
        is behind, and an old value that is put in after its removal stays: give entries a short life of their own.

        Args:
            mapping: a dict, a cache of cachetools, or whatever else has `pop` and `clear`.
            table: as in `subscribe`.
            key: the column whose value is the key, several columns for a tuple of their values, or a function that
                makes the key of a row; None: every change clears the mapping.
            lock: held while entries are removed, such as the threading.Lock that your own code takes.

        Raises SubscriptionError for what a cache is refused, too; the result's `close()` ends it.
        """
        clearing = Invalidation(mapping, table, key, lock)
        schema, name = table_name(table)
        subscription = Subscription(schema, name, clearing, first=True, on_close=self._subscription_closed)
        self._add(subscription)
        return subscription

    def _decorator(self, tables: Sequence[str], options: Options) -> Callable[[_H], _H]:
        def register(handler: _H) -> _H:
            self._check_coroutine(handler)
            self._add(self._subscription(tables, handler, options))
            return handler

        return register

    def _subscription(self, tables: str | Sequence[str], handler: Handler, options: Options) -> Subscription:
        """A subscription as the user asks for it; raises what he can mend without a server."""
        named: list[Any] = list(tables) if isinstance(tables, list | tuple) else [tables]
        patterns = [Pattern.of(each) for each in named]
        table = ", ".join(pattern.text for pattern in patterns)
        terms = Terms.of(options)
        filter, subject, label = options.get("filter"), options.get("subject"), options.get("name")
        if not callable(handler):
            raise ConfigurationError(f"the handler of {table} is {handler!r}, which cannot be called")
        if not isinstance(subject, Subject | None):
            raise ConfigurationError(f"the subject is a cdc.Subject, as cdc.Subject({subject!r}), or None")
        if not isinstance(filter, str | None):
            raise SubscriptionError(f"the filter is text such as 'status=eq.released', not {filter!r}")
        if not isinstance(label, str | None) or label == "":
            raise ConfigurationError(f"the name of a subscription is text, not {label!r}")
        if not isinstance(options.get("accept_undecided", False), bool):
            raise ConfigurationError(f"accept_undecided is True or False, not {options['accept_undecided']!r}")
        if subject is None and self._require_subject:
            raise ConfigurationError(f"a subscription to {table} needs a subject: this consumer has require_subject")
        check_fresh(subject, time.time())
        made: dict[str, Any] = {
            "operations": operations_of(options.get("operations")),
            "filter": filter,
            "subject": subject,
            "accept_undecided": options.get("accept_undecided", False),
            "on_close": self._subscription_closed,
            "terms": terms,
            "name": label,
        }
        if not patterns:
            raise ConfigurationError("name a table to subscribe to, or several")
        if len(patterns) > 1 or patterns[0].named is None:
            subscription: Subscription = Family(patterns, handler, **made)
        else:
            subscription = Subscription(*patterns[0].named, handler, **made)
        subscription._on_renew = self._renew
        subscription._in_parts = terms.snapshot or self._target.on_gap == "resync"
        if clearing_of(handler) is not None:
            subscription.first, subscription._in_parts = True, False
        self._check_name(subscription)
        return subscription

    def _renew(self, subscription: Subscription, subject: Subject) -> None:
        self._check_process()
        self._loop.boundary.renew(subscription, subject)
        self._wake()

    def _check_name(self, subscription: Subscription) -> None:
        if subscription.parks and any(each.parks for each in self._namesakes.of(subscription)):
            raise ConfigurationError(
                f"two subscriptions with on_error='park' are called {subscription.name!r}: parked events are kept by "
                "the subscription's name, so give each its own with name="
            )

    def _iterated(self, table: str, options: Options) -> Subscription:
        """A subscription whose events the user's own loop takes."""
        for name in ("retries", "backoff", "on_error"):
            if name in options:
                raise ConfigurationError(f"{name} is for handlers: in an iteration, what raises is your own loop")
        wanted: Options = {"queue": _ITERATION_QUEUE, "name": f"events of {table}", **options}
        subscription = self._subscription(table, _no_handler, wanted)
        if subscription.lane is None:
            raise ConfigurationError("queue is the number of events that may wait for the iteration: give one")
        subscription.lane.driver = Driver.USER
        return subscription

    def _cached(
        self,
        table: str,
        ttl: float,
        maxsize: int,
        by: By,
        patience: float,
        depends: Depends,
        negative_ttl: float | None,
        subject: Subject | None,
    ) -> Cache:
        check_sizes(table, ttl, maxsize, patience, negative_ttl)
        source: Source = self._loader
        if subject is not None:
            check_subject(subject)
            check_fresh(subject, time.time())
            source = AsSubject(self._loader, subject)
        elif self._require_subject:
            raise ConfigurationError(f"a cache of {table} needs a subject: this consumer has require_subject")
        cache = Cache(
            table,
            source,
            ttl,
            maxsize,
            by,
            patience,
            polling_interval=self._polling_interval,
            negative_ttl=negative_ttl,
            depends=depends_of(table, depends),
            subject=subject,
        )
        made: list[Subscription] = []
        try:
            for inflow in cache.inflows:
                subscription = Subscription(
                    *table_name(inflow.table), inflow.receive, first=True, on_close=self._subscription_closed
                )
                self._add(subscription, inflow)
                made.append(subscription)
        except BaseException:
            for each in made:
                each.close()
            raise
        return cache

    def _stored(self, store: Store, path: object, filter: Any, subject: Any, name: Any) -> None:
        """Check what was asked for, and let the store hear of its table."""
        if not isinstance(path, str | PathLike | None):
            raise ConfigurationError(f"the path of the store of {store.table} is text or a Path, not {path!r}")
        # Raises what cannot be, with the words of a subscription.
        asked: Options = {"filter": filter, "subject": subject, "name": name}
        if isinstance(self._subscription(store.table, store.receive, asked), Family):
            raise SubscriptionError(f"a store is of one table, and {store.table} means several")
        schema, table = table_name(store.table)
        store.table = f"{schema}.{table}"
        store.feed = Feed(store, schema, table, filter, subject, name, self._store_closed)
        store.feed._on_renew = self._renew
        store._wake = lambda: self._wake()
        store._status = lambda: self._loop.link.status
        store._takes = self._check_coroutine
        files = self._loop.snapshots.files
        if path is not None:
            source = source_of(self._target.dsn)
            files.keepers[store.feed] = Keeper(store.feed, Path(path), source, Types(self._decoders))
        try:
            self._add(store.feed)
        except BaseException:
            files.close(store.feed)
            raise

    def _store_closed(self, subscription: Subscription) -> None:
        self._subscription_closed(subscription)
        self._loop.snapshots.files.close(subscription)
        self._wake()

    def _listener(self, prefixes: Sequence[str], handler: Handler, options: Options) -> Listener:
        """A subscription to messages as the user asks for it."""
        if not callable(handler):
            raise ConfigurationError(f"the handler of messages is {handler!r}, which cannot be called")
        if self._require_subject:
            raise ConfigurationError("messages have no subject, and this consumer has require_subject: use another one")
        listener = Listener(prefixes, handler, options, self._subscription_closed)
        self._check_name(listener)
        return listener

    def _check_coroutine(self, handler: Callable[..., Any]) -> None:
        if not self._takes_coroutines and iscoroutinefunction(handler):
            raise ConfigurationError(f"{handler.__qualname__} is a coroutine function: use AsyncConsumer")


def _check_named(tables: Sequence[object], decorator: str) -> None:
    if not tables or callable(tables[0]):
        raise ConfigurationError(f'write @consumer.{decorator}("wells"): the table has to be named')


def _no_handler(event: object) -> None:
    """The handler of an iteration, which is never called."""

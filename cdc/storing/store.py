"""A store: a table in memory, kept in step with the stream.

Pure but for a mutex and a future. Here stands what users have of it, from any thread; `moving` has what the loop calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from cdc.errors import CdcError, ConfigurationError
from cdc.health import Status
from cdc.lsn import Position
from cdc.storing.contents import Contents
from cdc.storing.moving import Moving
from cdc.storing.row_index import RowIndex
from cdc.storing.telling import Handler

__all__ = ["Store"]

_H = TypeVar("_H", bound=Handler)


class Store(Moving, Mapping[Any, Any]):
    """A read-only mapping from key to row, kept in step with a table; a consumer's `store` makes one.

    The key is `event.key`: a value, or a tuple of several. A row is a `Row`, or an instance of the
    store's model. It may be read from any thread, and a read waits for nothing. To iterate goes through a copy of that
    moment. A key of another type than the columns' raises TypeError.

    Attributes:
        table: the table, as `"schema.table"`.
        feed: the subscription that keeps it in step.
    """

    def __getitem__(self, key: Any) -> Any:
        contents = self._readable
        if contents is None:
            raise KeyError(key)
        line = contents.rows.get(contents.lens.keys.of_python(key))
        if line is None:
            raise KeyError(key)
        return self._made(contents, line)

    def __contains__(self, key: object) -> bool:
        contents = self._readable
        return contents is not None and contents.lens.keys.of_python(key) in contents.rows

    def __len__(self) -> int:
        contents = self._readable
        return 0 if contents is None else len(contents.rows)

    def __iter__(self) -> Iterator[Any]:
        contents, lines = self._copy()
        return (contents.key(line) for line in lines)

    def keys(self) -> Any:
        """The keys of this moment."""
        return list(self)

    def values(self) -> Any:
        """The rows of this moment."""
        contents, lines = self._copy()
        return [self._made(contents, line) for line in lines]

    def items(self) -> Any:
        """Keys and rows of this moment."""
        contents, lines = self._copy()
        return [(contents.key(line), self._made(contents, line)) for line in lines]

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<store of {self.table}: {len(self)} rows, {self.status}>"

    def index(self, *columns: str) -> RowIndex:
        """The rows by the value of a column, or of several: a read-only mapping, kept in step.

        Before the store is filled it costs nothing; later every row is gone through once.
        Raises ConfigurationError when no column is named, SubscriptionError for one that rows cannot be found by: at
        once, or when the consumer is opened.
        """
        if not columns or not all(isinstance(column, str) for column in columns):
            raise ConfigurationError(f'name the columns of an index of {self.table}, as index("project_id")')
        with self._mutex:
            if columns not in self._columns:
                for contents in filter(None, {self._shown, self._gathered}):
                    contents.index(columns)
                self._columns.append(columns)
        return RowIndex(self, columns)

    def on_change(self, handler: _H) -> _H:
        """Let `handler` have each `StoreChange` once the store has moved; also a decorator.

        It is called where ordinary handlers are, and before those that see the same change. It may be a coroutine
        function with AsyncConsumer. What it raises ends the consumer, and the change is not acknowledged.
        """
        if not callable(handler):
            raise ConfigurationError(f"on_change takes a function, not {handler!r}")
        self._takes(handler)
        self._handlers.append(handler)
        return handler

    @property
    def position(self) -> Position | None:
        """The last change that it is as of; None before there was one, and while it is polled."""
        shown = self._shown
        if shown is None or shown.place is None:
            return None
        transaction, ordinal = shown.place
        return transaction.position(ordinal)

    @property
    def status(self) -> str:
        """What it does at the moment, in words."""
        if self.feed.closed:
            return f"closed: {self.feed.closed_reason}" if self.feed.closed_reason else "closed"
        if self.is_live:
            return "live"
        status = self._status()
        if status is Status.OFFLINE:
            return "not started"
        if status is Status.STOPPED:
            return "stopped" if self._failure is None else f"stopped: {self._failure}"
        if self.is_polled and status is Status.CONNECTING:
            return f"polled, {len(self)} rows"
        if not self.is_filled or self._gathered is not None or self.stale:
            why = f" ({self.stale or self.wanted})"
            return f"filled anew, {self.read} rows read{why}" if self.is_filled else f"filled, {self.read} rows read"
        return f"reads {len(self.holes)} rows again" if self.holes else str(status)

    def update_subject(self, subject: Any) -> None:
        """Go on as another subject; see `Subscription.update_subject`. What it may not see goes at once."""
        self.feed.update_subject(subject)

    def close(self) -> None:
        """Keep nothing, and hear of nothing more. Idempotent; may be called from any thread and from a handler."""
        self.feed.close()
        self.close_down(CdcError(f"the store of {self.table} was closed"))

    def wait_live(self, timeout: float = 60.0) -> None:
        """Wait until the store is live.

        Raises TimeoutError after `timeout` seconds, the consumer's own failure when it fails meanwhile, CdcError when
        the store was closed, ConfigurationError inside a handler.
        """
        try:
            self._when_live().result(timeout)
        except TimeoutError:
            raise self._not_live(timeout) from None

    def _when_live(self) -> Future[None]:
        if self._waits():
            raise ConfigurationError("wait_live inside a handler would wait for itself")
        with self._mutex:
            if self._future.done() and self._failure is None and not self.is_live:
                self._future = Future()
            future = self._future
        self.look()
        return future

    def _not_live(self, timeout: float) -> TimeoutError:
        hint = "; the consumer is not started: call start() or run()" if self._status() is Status.OFFLINE else ""
        return TimeoutError(f"the store of {self.table} was not live within {timeout} s: {self.status}{hint}")

    @property
    def _readable(self) -> Contents | None:
        """What readers see: nothing once the subject's time is over, however late the loop may come to close it."""
        expires = None if self.feed.subject is None else self.feed.expires
        return self._shown if expires is None or time.time() < expires else None

    def _copy(self) -> tuple[Contents, list[bytes]]:
        with self._mutex:
            contents = self._readable
            return contents, [] if contents is None else list(contents.rows.values())  # type: ignore[return-value]  # without lines nobody asks

"""Runs a cache's loads against the slot's own server, on a few read-only connections that are kept.

May import psycopg. With a multi-host DSN the connections go to the very server that the stream comes from:
what another server shows says nothing about what this one has streamed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg

from cdc.caching.cache import Load
from cdc.caching.fence import Snapshot
from cdc.connection import connect

__all__ = ["Loader", "snapshot_of"]

_T = TypeVar("_T")

_IDLE = 8
"""Connections that are kept when nobody uses them."""


def snapshot_of(connection: psycopg.Connection[Any]) -> Snapshot:
    """The connection's current snapshot."""
    row = connection.execute("SELECT pg_catalog.pg_current_snapshot()::text").fetchone()
    assert row is not None
    return Snapshot.parse(row[0])


class Loader:
    """A `Source` of caches. Thread-safe: each load has a connection for itself."""

    def __init__(self, dsn: Callable[[], str]) -> None:
        self._dsn = dsn
        self._mutex = threading.Lock()
        self._idle: list[tuple[str, psycopg.Connection[Any]]] = []
        self._closed = False

    def bare(self, load: Load, key: Any) -> Any:
        """See `Source.bare`."""
        return self._run(lambda connection: load(connection, key))

    def fenced(self, load: Load, key: Any) -> tuple[Any, Snapshot]:
        """See `Source.fenced`: one REPEATABLE READ transaction, its snapshot first."""

        def both(connection: psycopg.Connection[Any]) -> tuple[Any, Snapshot]:
            with connection.transaction():
                snapshot = snapshot_of(connection)
                return load(connection, key), snapshot

        return self._run(both)

    def close(self) -> None:
        """Close the connections that nobody uses. Those in use are closed when their load ends."""
        self._closed = True
        self._forget()

    def _forget(self) -> None:
        with self._mutex:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _run(self, work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        """Run `work`; once more on a new connection when the one that was kept had been ended meanwhile."""
        kept = bool(self._idle)
        try:
            with self._connection() as connection:
                return work(connection)
        except psycopg.OperationalError:
            if not (kept and connection.closed):
                raise
        self._forget()
        with self._connection() as connection:
            return work(connection)

    @contextmanager
    def _connection(self) -> Iterator[psycopg.Connection[Any]]:
        dsn = self._dsn()
        with self._mutex:
            fitting = [pair for pair in self._idle if pair[0] == dsn]
            pair = fitting[-1] if fitting else None
            if pair is not None:
                self._idle.remove(pair)
        connection = _connect(dsn) if pair is None else pair[1]
        try:
            yield connection
        finally:
            self._give_back(dsn, connection)

    def _give_back(self, dsn: str, connection: psycopg.Connection[Any]) -> None:
        idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._mutex:
            keep = idle and not (connection.closed or self._closed) and len(self._idle) < _IDLE
            if keep:
                self._idle.append((dsn, connection))
        if not keep:
            connection.close()


def _connect(dsn: str) -> psycopg.Connection[Any]:
    connection = connect(dsn)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute("SET default_transaction_read_only = on")
    return connection

"""Runs a cache's loads against the slot's own server, on a few read-only connections that are kept.

May import psycopg. With a multi-host DSN the connections go to the very server that the stream comes from:
what another server shows says nothing about what this one has streamed. After a reconnect none of the old ones is used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import psycopg

from cdc.caching.fence import Snapshot
from cdc.caching.source import Load
from cdc.connection import connect
from cdc.loading import (
    NOW,
    NOW_AND_NEXT,
    READ_ONLY,
    check_role,
    check_transaction,
    lsn_written,
    next_of,
    prologue,
    to_start_with,
    when_refused,
)
from cdc.lsn import Lsn
from cdc.rls import Subject

__all__ = ["AsSubject", "Loader", "Place", "is_visible", "snapshot_of"]

_T = TypeVar("_T")

_IDLE = 8
"""Connections that are kept when nobody uses them."""


class Place(Protocol):
    """Where loads go, and what is known of the stream from there."""

    def server(self) -> tuple[str, object]:
        """The DSN of the server, and what is the same for as long as the stream comes from it without a break."""

    def received(self) -> Lsn:
        """See `Source.received`."""

    def hurry(self, lsn: Lsn) -> Callable[[], object]:
        """See `Source.hurry`."""


def snapshot_of(connection: psycopg.Connection[Any]) -> Snapshot:
    """The connection's current snapshot."""
    row = connection.execute(NOW).fetchone()
    assert row is not None
    return Snapshot.parse(row[0])


def is_visible(connection: psycopg.Connection[Any], xid: int, seconds: float) -> bool:
    """Whether new snapshots show what a transaction has done, or do so within some seconds."""
    deadline = time.monotonic() + seconds
    while not snapshot_of(connection).sees(xid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


_IN_NO_TRANSACTION = psycopg.pq.TransactionStatus.IDLE


class Loader:
    """A `Source` of caches. Thread-safe: each load has a connection for itself."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.received, self.hurry = place.received, place.hurry
        self._mutex = threading.Lock()
        self._idle: list[tuple[object, psycopg.Connection[Any]]] = []
        self._closed = False
        self.others: list[Callable[[], None]] = []
        """What is to be closed together with it."""

    def bare(self, load: Load, key: Any) -> Any:
        """See `Source.bare`."""
        return self.run(lambda connection: load(connection, key))

    def fenced(self, load: Load, key: Any) -> tuple[Any, Snapshot]:
        """See `Source.fenced`: what a statement sees, all later ones see, too."""

        def both(connection: psycopg.Connection[Any]) -> tuple[Any, Snapshot]:
            snapshot = snapshot_of(connection)
            return load(connection, key), snapshot

        return self.run(both)

    def written(self, lsn: Lsn) -> tuple[Snapshot, int] | None:
        """See `Source.written`."""

        def ask(connection: psycopg.Connection[Any]) -> tuple[Snapshot, int] | None:
            is_standby, reached = lsn_written(connection.execute(to_start_with(lsn)).fetchone())
            if not reached:
                return None
            row = connection.execute(NOW_AND_NEXT).fetchone()
            assert row is not None
            snapshot = Snapshot.parse(row[0])
            return snapshot, 0 if is_standby else next_of(snapshot, row[1])

        return self.run(ask)

    def close(self) -> None:
        """Close the connections that nobody uses. Those in use are closed when their load ends."""
        self._closed = True
        self._forget()
        for close in self.others:
            close()

    def _forget(self) -> None:
        with self._mutex:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def run(self, work: Callable[[psycopg.Connection[Any]], _T]) -> _T:
        """Run `work`; once more on a new connection when the one that was kept had been ended meanwhile."""
        kept = bool(self._idle)
        life, connection = self._take()
        try:
            return work(connection)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise when_refused(error) from error.__cause__
        except psycopg.OperationalError:
            if not (kept and connection.closed):
                raise
        finally:
            self._give_back(life, connection)
        self._forget()
        life, connection = self._take()
        try:
            return work(connection)
        finally:
            self._give_back(life, connection)

    def _take(self) -> tuple[object, psycopg.Connection[Any]]:
        """A connection to the server of the moment, and which life of the stream that is."""
        dsn, life = self.place.server()
        old = []
        with self._mutex:
            if self._idle and self._idle[-1][0] is not life:
                old, self._idle = self._idle, []
            connection = self._idle.pop()[1] if self._idle else None
        for _, each in old:
            each.close()
        return life, _connect(dsn) if connection is None else connection

    def _give_back(self, life: object, connection: psycopg.Connection[Any]) -> None:
        idle = connection.pgconn.transaction_status == _IN_NO_TRANSACTION
        with self._mutex:
            keep = idle and not (connection.closed or self._closed) and len(self._idle) < _IDLE
            keep = keep and not (self._idle and self._idle[-1][0] is not life)
            if keep:
                self._idle.append((life, connection))
        if not keep:
            connection.close()


class AsSubject:
    """The same, with loads that run as a subject, in a read-only transaction that is rolled back.

    What the load sees is one snapshot. It is told from a load that has left its role or its transaction; one that comes
    back to them is not: the DSN's role should be one that may do little more than become its subjects.
    """

    def __init__(self, loader: Loader, subject: Subject) -> None:
        self._loader = loader
        self._subject = subject
        self.written, self.received, self.hurry = loader.written, loader.received, loader.hurry

    def bare(self, load: Load, key: Any) -> Any:
        """See `Source.bare`."""
        return self.fenced(load, key)[0]

    def fenced(self, load: Load, key: Any) -> tuple[Any, Snapshot]:
        """See `Source.fenced`."""

        def both(connection: psycopg.Connection[Any]) -> tuple[Any, Snapshot]:
            try:
                try:
                    cursor = connection.execute(prologue(self._subject))
                except psycopg.Error as error:
                    raise when_refused(error, self._subject) from None
                while cursor.nextset():
                    pass
                row = cursor.fetchone()
                assert row is not None
                value = load(connection, key)
                check_transaction(self._subject, connection.info.transaction_status)
                check_role(self._subject, _whoever(connection))
                return value, Snapshot.parse(row[0])
            finally:
                if not connection.closed:
                    connection.execute("ROLLBACK")

        return self._loader.run(both)


def _whoever(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT current_user::text").fetchone()
    assert row is not None
    return str(row[0])


def _connect(dsn: str) -> psycopg.Connection[Any]:
    connection = connect(dsn)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.execute(READ_ONLY)
    return connection

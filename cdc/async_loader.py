"""Runs loads that are coroutine functions, on a few read-only connections for asyncio that are kept.

May import psycopg. The same as `loader`, whose place it shares; a connection stays with the event loop that it was made
in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import psycopg

from cdc.caching.fence import Snapshot
from cdc.connection import FIXED, connection_string
from cdc.failures import refused
from cdc.loader import Place
from cdc.loading import NOW, READ_ONLY, check_role, check_transaction, prologue, when_refused
from cdc.rls import Subject

__all__ = ["AsyncLoad", "AsyncLoader"]

_T = TypeVar("_T")

AsyncLoad = Callable[[Any, Any], Awaitable[Any]]
"""Called as `await load(connection, key)` on a miss; `connection` is a read-only psycopg.AsyncConnection."""

_IDLE = 8


class AsyncLoader:
    """Runs the loads of a consumer's caches."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._mutex = threading.Lock()
        self._idle: list[tuple[object, psycopg.AsyncConnection[Any]]] = []
        self._closed = False

    async def bare(self, load: AsyncLoad, key: Any, subject: Subject | None = None) -> Any:
        """See `Source.bare`; as a subject see `AsSubject`."""
        if subject is not None:
            return (await self.fenced(load, key, subject))[0]

        async def work(connection: psycopg.AsyncConnection[Any]) -> Any:
            return await load(connection, key)

        return await self._run(work)

    async def fenced(self, load: AsyncLoad, key: Any, subject: Subject | None = None) -> tuple[Any, Snapshot]:
        """See `Source.fenced`; as a subject see `AsSubject`."""

        async def work(connection: psycopg.AsyncConnection[Any]) -> tuple[Any, Snapshot]:
            if subject is not None:
                return await _as_subject(connection, subject, load, key)
            snapshot = _parsed(await (await connection.execute(NOW)).fetchone())
            return await load(connection, key), snapshot

        return await self._run(work)

    def close(self) -> None:
        """See `Loader.close`; no event loop is needed."""
        self._closed = True
        with self._mutex:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.pgconn.finish()

    async def _run(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[_T]]) -> _T:
        kept = bool(self._idle)
        try:
            async with self._connection() as connection:
                return await work(connection)
        except psycopg.errors.ReadOnlySqlTransaction as error:
            raise when_refused(error) from error.__cause__
        except psycopg.OperationalError:
            if not (kept and connection.closed):
                raise
        with self._mutex:
            idle, self._idle = self._idle, []
        for _, each in idle:
            each.pgconn.finish()
        async with self._connection() as connection:
            return await work(connection)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        dsn, server = self._place.server()
        life = (server, asyncio.get_running_loop())
        with self._mutex:
            old = [pair[1] for pair in self._idle if pair[0] != life]
            self._idle = [pair for pair in self._idle if pair[0] == life]
            connection = self._idle.pop()[1] if self._idle else None
        for each in old:
            each.pgconn.finish()
        if connection is None:
            connection = await _connect(dsn)
        try:
            yield connection
        finally:
            self._give_back(life, connection)

    def _give_back(self, life: object, connection: psycopg.AsyncConnection[Any]) -> None:
        idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._mutex:
            keep = idle and not (connection.closed or self._closed) and len(self._idle) < _IDLE
            if keep:
                self._idle.append((life, connection))
        if not keep:
            connection.pgconn.finish()


async def _as_subject(
    connection: psycopg.AsyncConnection[Any], subject: Subject, load: AsyncLoad, key: Any
) -> tuple[Any, Snapshot]:
    try:
        try:
            cursor = await connection.execute(prologue(subject))
        except psycopg.Error as error:
            raise when_refused(error, subject) from None
        while cursor.nextset():
            pass
        snapshot = _parsed(await cursor.fetchone())
        value = await load(connection, key)
        check_transaction(subject, connection.info.transaction_status)
        row = await (await connection.execute("SELECT current_user::text")).fetchone()
        assert row is not None
        check_role(subject, row[0])
        return value, snapshot
    finally:
        if not connection.closed:
            await connection.execute("ROLLBACK")


def _parsed(row: Any) -> Snapshot:
    assert row is not None
    return Snapshot.parse(row[0])


async def _connect(dsn: str) -> psycopg.AsyncConnection[Any]:
    text = connection_string(dsn)
    try:
        connection = await psycopg.AsyncConnection.connect(text, autocommit=True)
    except psycopg.Error as error:
        raise refused(error, text) from None
    await connection.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
    await connection.execute(f"{FIXED}; {READ_ONLY}")
    return connection

"""Reads a table in chunks for a store: as `ChunkReader` does, with rows as the lines that COPY writes.

May import psycopg. A line is taken as the server sent it; nothing of it is split or decoded here. The manual: "COPY".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import errors, pq

from cdc.snapshot import ChunkReader, Part, Query, Texts
from cdc.store_ground import ground_of
from cdc.storing.line import cells_of

__all__ = ["LineReader"]


class _Lines(Query):
    """Asks for lines."""

    def _execute(self, tail: str, values: Texts) -> list[Any]:
        query = psycopg.ClientCursor(self._connection).mogrify(self._head + tail, values)
        return _copied(self._connection.pgconn, f"COPY ({query}) TO STDOUT".encode())

    def key(self, row: Any) -> Texts:
        """The key of a line, in the order of its index."""
        return self._key(cells_of(row))


class LineReader(ChunkReader):
    """Reads chunks of lines. For one thread at a time."""

    _query = _Lines

    def _read(
        self,
        connection: psycopg.Connection[Any],
        schema: str,
        table: str,
        after: Texts | None,
        again: Sequence[Texts],
        limit: int,
    ) -> Part:
        part = super()._read(connection, schema, table, after, again, limit)
        if after is not None or not limit:
            return part
        return replace(part, ground=ground_of(connection, self._publications, part.message.oid))


def _copied(connection: pq.abc.PGconn, statement: bytes) -> list[bytes]:
    """The lines that a COPY gives. libpq is asked itself: a row costs a third of what a cursor takes for it."""
    result = connection.exec_(statement)
    if result.status != pq.ExecStatus.COPY_OUT:
        raise errors.error_from_result(result)
    lines: list[bytes] = []
    add, take = lines.append, connection.get_copy_data
    size, data = take(0)
    while size > 0:
        add(bytes(data[:-1]))
        size, data = take(0)
    if size == -2:
        raise psycopg.OperationalError("the connection was lost while rows were read")
    last = connection.get_result()
    while last is not None:
        if last.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(last)
        last = connection.get_result()
    return lines

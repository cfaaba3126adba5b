"""Reads a table in chunks for a store: as `ChunkReader` does, with rows as the lines that COPY writes.

May import psycopg. A line is taken as the server sent it; nothing of it is split or decoded here. The manual: "COPY".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import errors, pq

from cdc.snapshot import ChunkReader, Part, Query, Texts
from cdc.store_ground import ground_of
from cdc.storing.keys import Keys
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
    """Reads chunks of lines, and finds their slots, so that the loop need not. For one thread at a time.

    Attributes:
        keys: how rows of the table are found, as it is known; what is read may look different.
    """

    _query = _Lines
    keys: Keys | None = None

    def read(self, dsn: str, schema: str, table: str, after: Texts | None, again: Sequence[Texts], limit: int) -> Part:
        """See `ChunkReader.read`. The rows are lines: by their slots, or a list where those cannot be found."""
        keys = self.keys
        part = super().read(dsn, schema, table, after, again, limit)
        columns = tuple(column.name for column in part.message.columns)
        if keys is None or columns != keys.columns:
            return part
        with suppress(ValueError):
            return replace(part, rows=keys.of_lines(part.rows))
        return part

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

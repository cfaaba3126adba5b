"""Looks at a table as it is now, for want of a stream: which version each row has, and the rows of some versions.

May import psycopg. Each look is one REPEATABLE READ transaction that can only read, over a connection of its own with
bounds for locks and for the statements. The rows come as the publications would send them: their columns, and the rows
that their conditions let through. Row-level security is off, which makes a read that it would cut short raise. The
manual: "System Columns".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import psycopg
from psycopg import errors, sql

from cdc.catalog import relation_message
from cdc.connection import Asked
from cdc.errors import SubscriptionError
from cdc.failures import first_line
from cdc.own_connection import OwnConnection
from cdc.pgoutput import RelationMessage
from cdc.publication import row_condition
from cdc.tuples import Cell
from cdc.versions import Key

__all__ = ["Look", "PollReader", "TooManyRows"]

_LIMITS = "SET lock_timeout = '1s'; SET statement_timeout = '30s'; SET default_transaction_read_only = on"
"""A table that somebody alters is looked at the next time; the wait must not hold up those who queue behind it."""
_TABLE = "SELECT c.relkind = 'p', pg_catalog.pg_relation_filenode(c.oid) FROM pg_catalog.pg_class c WHERE c.oid = %s"
_VERSION = "pg_catalog.concat_ws(' ', tableoid::oid::text, ctid::text, xmin::text)"
_BATCH = 1_000
"""Rows that are asked for at once."""


class TooManyRows(Exception):
    """The table has more rows than are looked at.

    Args:
        most: how many are.
    """

    def __init__(self, most: int) -> None:
        super().__init__(f"it has more than polling_rows={most} rows")


class PollReader:
    """A connection for looks, made when one is needed. For one thread at a time.

    Args:
        publications: names of the publications.
        asked: says how long an answer may take.

    Attributes:
        connect, cancel, close: those of its `OwnConnection`.
    """

    def __init__(self, publications: Sequence[str], asked: Asked | None = None) -> None:
        self._publications = tuple(publications)
        self._own = OwnConnection(_LIMITS, asked)
        self.connect, self.cancel, self.close = self._own.to, self._own.cancel, self._own.close

    @contextmanager
    def look(self, schema: str, table: str) -> Iterator[Look]:
        """Look at a table under one snapshot.

        It is locked against changes of its shape before that is taken: a table that was rewritten in between would look
        empty. Raises SubscriptionError for what the user has to mend, psycopg.Error for the rest.
        """
        connection = self._own.open
        assert connection is not None
        try:
            with connection.transaction():
                connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(schema, table)))
                yield Look(connection, self._publications, schema, table)
        except errors.InsufficientPrivilege as error:
            raise _refused(f"{schema}.{table}", error) from None
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            raise SubscriptionError(f"there is no table {schema}.{table}; names are case-sensitive here") from None


class Look:
    """One table as one snapshot shows it.

    Attributes:
        message: the table as the publications would announce it.
        condition: which of its rows they would send, as SQL.
        file: what is another one after the table was rewritten; None for one with partitions.
    """

    def __init__(
        self, connection: psycopg.Connection[Any], publications: Sequence[str], schema: str, table: str
    ) -> None:
        self._connection = connection
        self.message: RelationMessage = relation_message(connection, publications, schema, table)
        self.condition = row_condition(connection, publications, schema, table)
        row = connection.execute(_TABLE, (self.message.oid,)).fetchone()
        assert row is not None
        is_root, self.file = row
        # What inherits from a table is published as itself; what belongs to a partitioned one, as its root.
        only = sql.SQL("" if is_root else "ONLY ")
        name = sql.Identifier(schema, table)
        self._from = sql.SQL("FROM {}{} WHERE {}").format(only, name, sql.SQL(self.condition))

    def versions(self, columns: Sequence[str], limit: int) -> list[tuple[Key, bytes]]:
        """The version of each row, with its cells of these columns. Raises TooManyRows for more rows than `limit`."""
        read = list(self._select(columns, sql.SQL("LIMIT {}").format(limit + 1)))
        if len(read) > limit:
            raise TooManyRows(limit)
        return [(tuple(cells), version) for version, cells in read]

    def rows(self, versions: Iterable[bytes]) -> Iterator[tuple[bytes, list[Cell]]]:
        """The rows of these versions, which this look has found: version and cells, in the order of the message."""
        columns = [column.name for column in self.message.columns]
        tables: dict[str, list[str]] = {}
        for version in versions:
            table, place, _ = version.decode().split(" ")
            tables.setdefault(table, []).append(place)
        for table, places in tables.items():
            rest = iter(places)
            while batch := list(islice(rest, _BATCH)):
                yield from self._select(columns, _at(table, batch))

    def every_row(self, limit: int) -> list[tuple[bytes, list[Cell]]]:
        """Every row: version and cells, in the order of the message. Raises TooManyRows."""
        columns = [column.name for column in self.message.columns]
        read = list(self._select(columns, sql.SQL("LIMIT {}").format(limit + 1)))
        if len(read) > limit:
            raise TooManyRows(limit)
        return read

    def _select(self, columns: Collection[str], tail: sql.Composable) -> Iterator[tuple[bytes, list[Cell]]]:
        listed = sql.SQL(", ").join([sql.SQL(_VERSION), *map(sql.Identifier, columns)])
        query = sql.SQL("SELECT {} {} {}").format(listed, self._from, tail)
        result = self._connection.execute(query).pgresult
        assert result is not None
        value, numbers = result.get_value, range(1, result.nfields)
        for row in range(result.ntuples):
            version = value(row, 0)
            assert version is not None
            yield version, [value(row, number) for number in numbers]


def _at(table: str, places: Sequence[str]) -> sql.Composable:
    """A condition for rows at some places of a table. All of that are numbers which the server gave."""
    listed = "{" + ",".join(f'"{place}"' for place in places) + "}"
    return sql.SQL("AND tableoid = {}::oid AND ctid = ANY ({}::tid[])").format(table, listed)


def _refused(name: str, error: psycopg.Error) -> SubscriptionError:
    if "row-level security" in str(error):
        return SubscriptionError(
            f"row-level security would hide rows of {name} from this role's polls: as a superuser run "
            "`ALTER ROLE … BYPASSRLS`, or let the table's owner run the consumer"
        )
    return SubscriptionError(
        f"this role may not read {name} to poll it ({first_line(error)}): grant it SELECT on the table and USAGE on "
        "its schema"
    )

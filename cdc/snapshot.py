"""Reads a table in chunks by its key, each under a snapshot of its own, as the publications would send it.

May import psycopg. The rows come from the slot's own server, as text under the settings of the replication connection,
so that a row reads the same from here and from the stream. Row-level security is off, which makes a read that it would
cut short raise. The manual: "Transaction Isolation" and "Row and Array Comparisons".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import errors, sql

from cdc.caching.fence import Snapshot
from cdc.catalog import relation_message
from cdc.errors import SubscriptionError
from cdc.failures import first_line
from cdc.loader import snapshot_of
from cdc.lsn import Lsn
from cdc.own_connection import OwnConnection
from cdc.pgoutput import RelationMessage
from cdc.publication import row_condition
from cdc.server import nudge, written_lsn
from cdc.store_ground import ground_of
from cdc.storing.feed import Feed
from cdc.subscription import Subscription
from cdc.tuples import Cell

__all__ = ["ChunkReader", "Part", "Query", "Texts", "check_readable"]

Texts = tuple[str, ...]
"""A key as the text of its values."""

_KEY = """
SELECT a.attname, i.indcollation[k.place - 1] = a.attcollation, c.relkind = 'p'
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
     AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'n' THEN false ELSE i.indisprimary END,
     unnest((i.indkey::int2[])[0:i.indnkeyatts - 1]) WITH ORDINALITY AS k (number, place),
     pg_catalog.pg_attribute a
WHERE c.oid = %s AND a.attrelid = c.oid AND a.attnum = k.number ORDER BY k.place
"""
_SETTINGS = (
    "SET default_transaction_read_only = on; SET statement_timeout = 0; SET idle_session_timeout = 0; "
    "SET lock_timeout = '2s'"
)
_NOW = """
SELECT (extract(epoch FROM pg_catalog.now()) * 1000000)::bigint - 946684800000000, pg_catalog.pg_is_in_recovery()
"""


_WRITERS = """
WITH published (age) AS (
    SELECT min(pg_catalog.age(each.xmin)) FROM (
        SELECT p.xmin, p.oid FROM pg_catalog.pg_publication p
        UNION ALL SELECT r.xmin, r.prpubid FROM pg_catalog.pg_publication_rel r
        {schemas}
    ) each (xmin, oid) JOIN pg_catalog.pg_publication p ON p.oid = each.oid WHERE p.pubname = ANY (%(publications)s)
)
SELECT DISTINCT l.virtualtransaction FROM pg_catalog.pg_locks l
     JOIN pg_catalog.pg_locks own USING (virtualtransaction), published
WHERE l.locktype = 'relation' AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
      'AccessExclusiveLock') AND l.granted
      AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
      AND (l.relation = pg_catalog.to_regclass(%(name)s) OR l.relation IN (
          SELECT t.relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass(%(name)s)) t))
      AND own.locktype = 'transactionid' AND own.granted AND own.mode = 'ExclusiveLock'
      AND pg_catalog.age(own.transactionid) + %(more)s > published.age
"""
_SCHEMAS = "UNION ALL SELECT n.xmin, n.pnpubid FROM pg_catalog.pg_publication_namespace n"
_OVERLAP = 1_000
"""Transactions that may have begun while one published a table: whoever had written by then came before these."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one read of a table gave.

    Attributes:
        snapshot: what it was read under.
        message: the table as it was then.
        rows: the cells of each row, in the order of the columns; for a store lines, by their slots.
        last: the key of the last row, where the next part begins; None when there was no row.
        ends: whether nothing lies behind it.
        lsn: no commit that the snapshot shows lies behind it.
        microseconds: when it was read, since 2000-01-01 UTC.
        is_standby: whether the server is a standby. It replays a commit before it streams it, and its snapshots do not
            list the transactions that run: none of them counts as seen.
        writers: transactions that were changing the table before the snapshot was taken and may have begun to before it
            was published; looked for on a first read.
        ground: what the table's rows rest on, where that was asked for; see `store_ground`.
    """

    snapshot: Snapshot
    message: RelationMessage
    rows: Any
    last: Texts | None
    ends: bool
    lsn: Lsn
    microseconds: int
    is_standby: bool
    writers: frozenset[str] = frozenset()
    ground: str | None = None


def check_readable(
    connection: psycopg.Connection[Any], publications: Sequence[str], subscription: Subscription, binary: bool
) -> None:
    """Raise SubscriptionError, with the remedy, when the table's rows cannot be read in chunks."""
    schema, table = subscription.schema, subscription.table
    if binary:
        raise SubscriptionError(
            f"{schema}.{table}: a snapshot reads values as text, and this consumer reads binary cells: leave out "
            "binary=True, or give this subscription a consumer of its own"
        )
    missing = subscription._sent.missing(subscription.operations) if subscription._sent is not None else ()
    if missing:
        raise SubscriptionError(
            f"{schema}.{table} is published without {', '.join(missing)}, so what a snapshot reads could not be kept: "
            "`ALTER PUBLICATION … SET (publish = 'insert, update, delete, truncate')`, or name the operations"
        )
    message = relation_message(connection, publications, schema, table)
    Query(connection, publications, message)
    try:
        connection.execute(sql.SQL("SELECT FROM {} LIMIT 0").format(sql.Identifier(schema, table)))
    except errors.InsufficientPrivilege as error:
        raise _refused(message, error) from None
    if isinstance(subscription, Feed):
        subscription.ground = ground_of(connection, publications, message.oid)


class ChunkReader:
    """Reads chunks over a connection of its own, which it makes when it needs one. For one thread at a time.

    Args:
        publications: names of the publications that are streamed.

    Attributes:
        cancel: ends a read that is under way; from any thread.
        close: closes the connection; the next read makes another one.
    """

    _query: type[Query]

    def __init__(self, publications: Sequence[str]) -> None:
        self._publications = publications
        self._own = OwnConnection(_SETTINGS)
        self.cancel, self.close = self._own.cancel, self._own.close

    def read(self, dsn: str, schema: str, table: str, after: Texts | None, again: Sequence[Texts], limit: int) -> Part:
        """Up to `limit` rows behind the key `after`, and those of the keys in `again`.

        The table is locked against changes of its shape before the snapshot is taken: a table that was rewritten in
        between would look empty. Raises SubscriptionError for what waiting cannot mend, psycopg.Error and
        ConnectionFailed for the rest.
        """
        connection = self._own.to(dsn)
        name = sql.Identifier(schema, table)
        try:
            first = after is None and limit
            writers = self._writers(connection, name.as_string(connection)) if first else frozenset()
            with connection.transaction():
                connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(name))
                return replace(self._read(connection, schema, table, after, again, limit), writers=writers)
        except (errors.UndefinedTable, errors.InvalidSchemaName):
            raise SubscriptionError(
                f"table {schema}.{table} is gone, and its snapshot is not complete: make and publish it again, or "
                "subscribe to its new name"
            ) from None

    def _writers(self, connection: psycopg.Connection[Any], name: str) -> frozenset[str]:
        """The transactions that are changing a table, and may have written before it was published.

        They give back their locks after new snapshots can see them: whoever is not listed is seen by a snapshot that is
        taken after this.
        """
        query = _WRITERS.format(schemas=_SCHEMAS if connection.info.server_version >= 150000 else "")
        values = {"name": name, "publications": list(self._publications), "more": _OVERLAP}
        return frozenset(virtual for (virtual,) in connection.execute(query.encode(), values))

    def _read(
        self,
        connection: psycopg.Connection[Any],
        schema: str,
        table: str,
        after: Texts | None,
        again: Sequence[Texts],
        limit: int,
    ) -> Part:
        snapshot = snapshot_of(connection)
        message = relation_message(connection, self._publications, schema, table)
        query = self._query(connection, self._publications, message)
        try:
            rows = query.rows(after, limit) if limit else []
            last = query.key(rows[-1]) if rows else None
            more = query.rows_of(again) if again else []
        except errors.InsufficientPrivilege as error:
            raise _refused(message, error) from None
        now = connection.execute(_NOW).fetchone()
        assert now is not None
        microseconds, is_standby = now
        if is_standby:
            snapshot = Snapshot(snapshot.xmin, snapshot.xmin, frozenset())
        lsn = written_lsn(connection)
        return Part(snapshot, message, rows + more, last, len(rows) < limit, lsn, microseconds, is_standby)

    def nudge(self) -> None:
        """See `server.nudge`."""
        if self._own.open is not None:
            nudge(self._own.open)


class Query:
    """Asks for rows of one table as it is in the connection's snapshot."""

    def __init__(
        self, connection: psycopg.Connection[Any], publications: Sequence[str], message: RelationMessage
    ) -> None:
        self._connection = connection
        name = f"{message.schema}.{message.table}"
        found = connection.execute(_KEY, (message.oid,)).fetchall()
        columns = [column.name for column in message.columns]
        keys = [key for key, _, _ in found]
        if not keys or not set(keys) <= set(columns):
            raise SubscriptionError(
                f"{name} has no primary key among the published columns, so it cannot be read in parts: give it one "
                "that is published, or go without snapshot=True and on_gap='resync'"
            )
        if not all(same for _, same, _ in found):
            raise SubscriptionError(
                f"the replica identity of {name} is an index with a collation of its own, by which the table cannot "
                "be read in parts: use the primary key (`ALTER TABLE … REPLICA IDENTITY DEFAULT`)"
            )
        self._places = [columns.index(key) for key in keys]
        self._order = self._list(keys)
        self._in_table_order = self._list(columns[place] for place in sorted(self._places))
        self._holes = ", ".join(["%s"] * len(keys))
        head = sql.SQL("SELECT {} FROM {} {} WHERE {}").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            # What inherits from a table is published as itself; what belongs to a partitioned one, as its root.
            sql.SQL("" if found[0][2] else "ONLY"),
            sql.Identifier(message.schema, message.table),
            sql.SQL(row_condition(connection, publications, message.schema, message.table)),
        )
        self._head = _literally(head.as_string(connection))

    def _list(self, names: Iterable[str]) -> str:
        return _literally(sql.SQL(", ").join(map(sql.Identifier, names)).as_string(self._connection))

    def rows(self, after: Texts | None, limit: int) -> list[Any]:
        """Up to `limit` rows behind the key, in the order of the key."""
        behind = "" if after is None else f" AND ({self._order}) > ({self._holes})"
        return self._execute(f"{behind} ORDER BY {self._order} LIMIT {limit:d}", after or ())

    def rows_of(self, keys: Sequence[Texts]) -> list[Any]:
        """The rows of these keys, given in the table's order of columns, as far as there are any."""
        tail = f" AND ({self._in_table_order}) = ({self._holes})"
        return [row for key in keys for row in self._execute(tail, key)]

    def _execute(self, tail: str, values: Texts) -> list[Any]:
        """The rows of a result as the server wrote them."""
        result = self._connection.execute((self._head + tail).encode(), values).pgresult
        assert result is not None
        value, columns = result.get_value, range(result.nfields)
        return [[value(row, column) for column in columns] for row in range(result.ntuples)]

    def key(self, row: Any) -> Texts:
        """The key of a row, in the order of its index."""
        return self._key(row)

    def _key(self, row: Sequence[Cell]) -> Texts:
        return tuple(cell.decode() for cell in (row[place] for place in self._places) if isinstance(cell, bytes))


ChunkReader._query = Query


def _literally(text: str) -> str:
    """The text as part of a statement in which psycopg looks for placeholders."""
    return text.replace("%", "%%")


def _refused(message: RelationMessage, error: psycopg.Error) -> SubscriptionError:
    name = f"{message.schema}.{message.table}"
    if "row-level security" in str(error):
        return SubscriptionError(
            f"row-level security would hide rows of {name} from this role's snapshot: as a superuser run "
            "`ALTER ROLE … BYPASSRLS`, or let the table's owner run the consumer"
        )
    return SubscriptionError(
        f"this role may not read {name} for a snapshot ({first_line(error)}): grant it SELECT on the table and USAGE "
        "on its schema"
    )

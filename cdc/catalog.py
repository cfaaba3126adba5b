"""What the catalog says of tables and types, as of now.

May import psycopg. pgoutput sends OIDs; names, keys and the make of user-defined types are in the catalog.
The catalog is newer than the stream, so what it says is checked against the Relation message.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.errors import SubscriptionError
from cdc.fact_query import PLAIN_CASE
from cdc.operators import Collation
from cdc.pgoutput import RelationColumn, RelationMessage
from cdc.values import TypeInfo

__all__ = [
    "attached",
    "collations",
    "has_children",
    "load_types",
    "name_of",
    "oid_of",
    "partition_root",
    "primary_key",
    "relation_message",
    "table_state",
]

_TYPES = """
WITH RECURSIVE wanted(oid) AS (
    SELECT unnest(%s::oid[])
    UNION
    SELECT part.oid FROM wanted JOIN pg_catalog.pg_type t ON t.oid = wanted.oid
    LEFT JOIN pg_catalog.pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid)
    LEFT JOIN pg_catalog.pg_attribute a
        ON t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped,
    LATERAL (VALUES (t.typbasetype), (CASE WHEN t.typcategory = 'A' THEN t.typelem END), (r.rngsubtype), (a.atttypid))
        AS part(oid)
    WHERE part.oid <> 0
)
SELECT t.oid, n.nspname, t.typname, t.typtype::text,
       CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0 END, t.typbasetype, t.typdelim::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid
             AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid
             AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       coalesce(r.rngsubtype, 0), coalesce(p.prosrc = ANY(%s), false),
       ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder),
       ARRAY(SELECT e.oid FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder)
FROM wanted JOIN pg_catalog.pg_type t USING (oid) JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_range r ON t.oid IN (r.rngtypid, r.rngmultitypid)
LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.typsend AND p.prolang = (
    SELECT oid FROM pg_catalog.pg_language WHERE lanname = 'internal')
"""
_SEND_TEXT = ["textsend", "varcharsend", "bpcharsend", "namesend", "cstring_send", "unknownsend"]
_KEY = """
SELECT a.attname FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
WHERE i.indrelid = %s AND i.indisprimary ORDER BY a.attnum
"""
_TABLE = """
SELECT c.oid, n.nspname, c.relname, c.relreplident::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname = %s AND c.relname = %s
"""
_NAME_OF = """
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %s
"""
_IDENTITY = """
SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1] FROM pg_catalog.pg_index i
WHERE i.indrelid = %s AND CASE %s WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary ELSE false END
"""
_COLUMNS = """
SELECT a.attnum, a.attname, a.atttypid, a.atttypmod FROM pg_catalog.pg_attribute a
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_PUBLISHED = """
SELECT attname FROM pg_catalog.pg_publication_tables p, unnest(p.attnames) AS attname
WHERE p.pubname = ANY(%s) AND p.schemaname = %s AND p.tablename = %s
"""
_STORED = "SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND attgenerated = ''"


_COLLATIONS = """
SELECT a.attname, CASE WHEN NOT c.collisdeterministic THEN 'odd'
    WHEN pg_catalog.pg_encoding_to_char(d.encoding) <> 'UTF8' THEN NULL
    WHEN CASE WHEN c.oid = 100 THEN {provider} = 'c' AND d.datcollate IN ('C', 'POSIX') AND d.datctype IN ('C', 'POSIX')
              ELSE c.collprovider = 'c' AND c.collcollate IN ('C', 'POSIX') AND c.collctype IN ('C', 'POSIX') END
        THEN 'code point'
    WHEN c.oid = 100 AND {plain_case} THEN 'plain case' END
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
WHERE a.attrelid = %s
"""
_KINDS = {
    "odd": Collation.NONDETERMINISTIC,
    "code point": Collation.CODE_POINT,
    "plain case": Collation.PLAIN_CASE,
}
_STATE = """
SELECT c.oid, c.xmin::text,
       ARRAY(SELECT p.xmin::text FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid ORDER BY p.oid),
       ARRAY(SELECT r.xmin::text FROM pg_catalog.pg_publication_rel r WHERE r.prrelid = c.oid ORDER BY r.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_CHILDREN = "SELECT EXISTS (SELECT FROM pg_catalog.pg_inherits WHERE inhparent = %s)"
_ROOT = """
SELECT r.oid::regclass::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class r ON r.oid = pg_catalog.pg_partition_root(c.oid)
WHERE n.nspname = %s AND c.relname = %s AND c.relispartition
"""


_ATTACHED = """
SELECT i.inhrelid FROM pg_catalog.pg_partition_tree(%s) p JOIN pg_catalog.pg_inherits i ON i.inhrelid = p.relid
JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_type t ON t.oid = c.reltype
WHERE p.level > 0 AND i.xmin <> t.xmin
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication b WHERE b.pubname = ANY (%s) AND b.xmin = i.xmin)
"""


@dataclass(frozen=True, slots=True)
class _Table:
    oid: int
    schema: str
    table: str
    identity: str


def load_types(connection: psycopg.Connection[Any], oids: Collection[int]) -> list[TypeInfo]:
    """The types of these OIDs with all that they are made of, however deep: bases, elements, attributes, bounds."""
    rows = connection.execute(_TYPES, (list(oids), _SEND_TEXT)).fetchall()
    return [_type_info(row[:7], zip(row[7], row[8], strict=True), row[9:]) for row in rows]


def _type_info(first: tuple[Any, ...], attributes: Iterable[tuple[str, int]], last: tuple[Any, ...]) -> TypeInfo:
    values: list[Any] = [*first, tuple(attributes), *last[:-2], tuple(last[-2]), tuple(last[-1])]
    return TypeInfo(*values)


def primary_key(connection: psycopg.Connection[Any], oid: int) -> list[str]:
    """Names of the primary key's columns, in the table's order; empty when there is none."""
    return [name for (name,) in connection.execute(_KEY, (oid,)).fetchall()]


def collations(connection: psycopg.Connection[Any], oid: int) -> dict[str, Collation]:
    """The collations of the columns by name, without those of which only `=` is known."""
    # Before 15 every database has a locale of the C library.
    provider = "d.datlocprovider" if connection.info.server_version >= 150000 else "'c'"
    query = _COLLATIONS.format(provider=provider, plain_case=PLAIN_CASE)
    return {name: _KINDS[kind] for name, kind in connection.execute(query, (oid,)).fetchall() if kind is not None}


def table_state(connection: psycopg.Connection[Any], schema: str, table: str) -> str:
    """What is another one after the table was altered or made again, or its policies or publications changed."""
    return str(connection.execute(_STATE, (schema, table)).fetchone())


def has_children(connection: psycopg.Connection[Any], oid: int) -> bool:
    """Whether the table has partitions, or tables that inherit from it."""
    return connection.execute(_CHILDREN, (oid,)).fetchone() == (True,)


def oid_of(connection: psycopg.Connection[Any], schema: str, table: str) -> int | None:
    """OID of the table that has this name now; None when there is none."""
    row = connection.execute(_TABLE, (schema, table)).fetchone()
    return None if row is None else int(row[0])


def name_of(connection: psycopg.Connection[Any], oid: int) -> tuple[str, str] | None:
    """Schema and name that a table has now; None when it is gone."""
    return connection.execute(_NAME_OF, (oid,)).fetchone()


def attached(connection: psycopg.Connection[Any], oid: int, publications: Collection[str]) -> frozenset[int]:
    """OIDs of the partitions that were made before they were attached.

    Those are left out that were attached in a transaction which altered one of the publications last.
    """
    return frozenset(oid for (oid,) in connection.execute(_ATTACHED, (oid, list(publications))).fetchall())


def partition_root(connection: psycopg.Connection[Any], schema: str, table: str) -> str | None:
    """The partitioned table that this table belongs to; None when it is no partition."""
    row = connection.execute(_ROOT, (schema, table)).fetchone()
    return None if row is None else str(row[0])


def relation_message(
    connection: psycopg.Connection[Any], publications: Collection[str], schema: str, table: str
) -> RelationMessage:
    """The Relation message that the server would send for a table now, so that a subscription can be checked."""
    row = connection.execute(_TABLE, (schema, table)).fetchone()
    if row is None:
        raise SubscriptionError(f"there is no table {schema}.{table}; names are case-sensitive here")
    found = _Table(*row)
    keys = _identity(connection, found)
    sent = _sent(connection, publications, found)
    rows = connection.execute(_COLUMNS, (found.oid,)).fetchall()
    columns = tuple(
        RelationColumn(name, type_oid, modifier, found.identity == "f" or number in keys)
        for number, name, type_oid, modifier in rows
        if name in sent
    )
    return RelationMessage(found.oid, found.schema, found.table, found.identity, columns)


def _identity(connection: psycopg.Connection[Any], table: _Table) -> set[int]:
    row = connection.execute(_IDENTITY, (table.oid, table.identity)).fetchone()
    return set() if row is None else set(row[0])


def _sent(connection: psycopg.Connection[Any], publications: Collection[str], table: _Table) -> set[str]:
    """Names of the columns that are sent: those listed (15 and later), without generated ones before 18."""
    if connection.info.server_version >= 150000:
        rows = connection.execute(_PUBLISHED, (list(publications), table.schema, table.table)).fetchall()
    else:
        rows = connection.execute(_STORED, (table.oid,)).fetchall()
    names = {name for (name,) in rows}
    if connection.info.server_version >= 180000:
        return names
    stored = {name for (name,) in connection.execute(_STORED, (table.oid,)).fetchall()}
    return names & stored

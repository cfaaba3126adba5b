"""A sample: one row of a table as its cells, read by its key or made of values.

May import psycopg. The server itself turns values into the text of their types, so that what is judged is what the
stream would send. The table is read with row-level security off, which raises where it would hide the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql

from cdc.catalog import load_types
from cdc.errors import ConfigurationError
from cdc.relation import Column, Relation
from cdc.tuples import UNCHANGED, Cell
from cdc.values import Types

__all__ = ["REFUSED", "Described", "Sample", "described", "made", "read"]

REFUSED = (
    psycopg.DataError,
    psycopg.ProgrammingError,
    psycopg.IntegrityError,
    psycopg.NotSupportedError,
    UnicodeEncodeError,
)
"""What a value raises that is none of its type, or no text at all."""

_COLUMNS = """
WITH RECURSIVE base(number, type, modifier) AS (
    SELECT attnum, atttypid, atttypmod FROM pg_catalog.pg_attribute
    WHERE attrelid = %(oid)s AND attnum > 0 AND NOT attisdropped AND attgenerated::text = ANY (%(sent)s)
    UNION ALL
    SELECT number, t.typbasetype, t.typtypmod FROM base JOIN pg_catalog.pg_type t ON t.oid = type WHERE t.typtype = 'd'
)
SELECT a.attname, a.atttypid, a.atttypmod, pg_catalog.format_type(type, modifier), EXISTS (
    SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
    WHERE i.indrelid = a.attrelid AND number = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
      AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END)
FROM base JOIN pg_catalog.pg_type t ON t.oid = type
JOIN pg_catalog.pg_attribute a ON a.attrelid = %(oid)s AND a.attnum = number
WHERE t.typtype <> 'd' ORDER BY number
"""


@dataclass(frozen=True, slots=True)
class Described:
    """A table whose rows can be looked at.

    Attributes:
        relation: as the stream would describe it, with all its columns; the key is that of the replica identity, or the
            primary key.
        types: the types of the server.
        casts: for each column, the type that its values are read as: a domain's base.
    """

    relation: Relation
    types: Types
    casts: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the key's columns; empty when there is none."""
        return tuple(self.relation.columns[index].name for index in self.relation.key or ())

    @property
    def source(self) -> sql.Identifier:
        """The table in a query."""
        return sql.Identifier(self.relation.schema, self.relation.table)

    def cast(self, name: str) -> str:
        """The type that a column's values are read as."""
        return self.casts[self.relation.whole.columns[name]]

    def has_key(self) -> sql.Composed:
        """The condition that a row has a key, whose texts are $1, $2 and so on."""
        parts = [
            sql.SQL("{} = CAST({} AS {})").format(sql.Identifier(name), sql.SQL(f"${number}"), sql.SQL(self.cast(name)))
            for number, name in enumerate(self.key, 1)
        ]
        return sql.SQL(" AND ").join(parts)


@dataclass(frozen=True, slots=True)
class Sample:
    """A row.

    Attributes:
        name: what it is called: its key as text.
        cells: in the relation's order; UNCHANGED for a column that was not given.
        key: the text of the key's columns when it was read from the table, else None.
    """

    name: str
    cells: tuple[Cell, ...]
    key: tuple[str, ...] | None = None


def described(connection: psycopg.Connection[Any], oid: int, schema: str, table: str) -> Described:
    """The table as it is now."""
    # A generated column is never sent before 18, and a virtual one never at all.
    sent = ["", "s"] if connection.info.server_version >= 180000 else [""]
    rows = connection.execute(_COLUMNS, {"oid": oid, "sent": sent}).fetchall()
    types = Types()
    types.add(load_types(connection, types.missing(row[1] for row in rows)))
    columns = tuple(
        Column(name, type_oid, modifier, in_key, types.decoder(type_oid))
        for name, type_oid, modifier, _, in_key in rows
    )
    key = tuple(index for index, column in enumerate(columns) if column.in_identity)
    return Described(Relation(oid, schema, table, "f", columns, key or None), types, tuple(row[3] for row in rows))


def read(connection: psycopg.Connection[Any], table: Described, key: object) -> Sample:
    """The row of a key: a value, or a tuple or list of several in the order of the columns.

    Raises ConfigurationError when there is no such row, or it may not be read.
    """
    relation, names = table.relation, table.key
    if not names:
        raise ConfigurationError(f"{relation} has no key: give the row itself, as --row or row=")
    values = tuple(key) if isinstance(key, tuple | list) else (key,)
    if len(values) != len(names):
        raise ConfigurationError(f"the key of {relation} is {', '.join(names)}, and {len(values)} values were given")
    texts = [_text(value, table.cast(name)) for name, value in zip(names, values, strict=True)]
    listed = sql.SQL(", ").join(sql.Identifier(column.name) for column in relation.columns)
    name = ", ".join(map(str, texts))
    query = sql.SQL("SELECT {} FROM {} WHERE {}").format(listed, table.source, table.has_key())
    try:
        cells = _first(connection, query, texts)
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"the rows of {relation} cannot be read: {_words(error)}; take the DSN of a role that sees all of them, as "
            "its owner, or give the row itself"
        ) from None
    except REFUSED as error:
        raise ConfigurationError(f"{name!r} is no key of {relation}: {_words(error)}") from None
    if cells is None:
        raise ConfigurationError(f"{relation} has no row with the key {name}")
    found = (cells[index] for index in relation.key or ())
    return Sample(name, cells, tuple(cell.decode() for cell in found if isinstance(cell, bytes)))


def made(connection: psycopg.Connection[Any], table: Described, row: Mapping[str, Any]) -> Sample:
    """The row with these values by column. A column that is not given counts as not sent.

    Raises ConfigurationError when there is no such column, or a value does not fit it.
    """
    relation = table.relation
    if not isinstance(row, Mapping):
        raise ConfigurationError('the row is an object with values by column, such as {"id": 1, "name": null}')
    unknown = [str(name) for name in row if name not in relation.whole.columns]
    if unknown:
        names = ", ".join(relation.whole.columns)
        raise ConfigurationError(f"{relation} has no column {', '.join(unknown)}; it has {names}")
    cells = tuple(
        _cell(connection, relation, column.name, cast, row[column.name]) if column.name in row else UNCHANGED
        for column, cast in zip(relation.columns, table.casts, strict=True)
    )
    key = [cells[index] for index in relation.key or ()]
    name = ", ".join(cell.decode() if isinstance(cell, bytes) else "?" for cell in key)
    return Sample(name or "given", cells)


def _cell(connection: psycopg.Connection[Any], relation: Relation, name: str, cast: str, value: object) -> Cell:
    if value is UNCHANGED:
        return UNCHANGED
    text = _text(value, cast)
    try:
        cells = _first(connection, sql.SQL("SELECT CAST($1 AS {})").format(sql.SQL(cast)), [text])
    except REFUSED as error:
        raise ConfigurationError(f"the row's value for {name} of {relation} is no {cast}: {_words(error)}") from None
    assert cells is not None
    return cells[0]


def _first(
    connection: psycopg.Connection[Any], query: sql.Composed, values: Sequence[str | None]
) -> tuple[Cell, ...] | None:
    """The first row as the server's own text, None when there is none."""
    with psycopg.RawCursor(connection) as cursor:
        result = cursor.execute(query, list(values), binary=False).pgresult
        assert result is not None
        return tuple(result.get_value(0, number) for number in range(result.nfields)) if result.ntuples else None


def _text(value: object, cast: str) -> str | None:
    """The text of a value as the type's input function reads it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, Sequence) and cast.endswith("[]"):
        return _array(value, cast)
    if isinstance(value, Mapping | list | tuple):
        try:
            return json.dumps(value, default=str)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"the row's value cannot be written as JSON: {error}") from None
    return format(value, "f") if isinstance(value, Decimal) and value.is_finite() else str(value)


def _array(values: Sequence[Any], cast: str) -> str:
    parts = []
    for value in values:
        if isinstance(value, list | tuple):
            parts.append(_array(value, cast))
            continue
        text = _text(value, cast.removesuffix("[]"))
        parts.append("NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
    return "{" + ",".join(parts) + "}"


def _words(error: Exception) -> str:
    said = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return said or str(error) or type(error).__name__

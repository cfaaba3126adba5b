"""Publications: which tables they publish, and what of them.

May import psycopg. The manual: "CREATE PUBLICATION" and "pg_publication_tables". cdc reads publications and
never makes one on its own: `cdc setup` does.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from cdc.errors import ConfigurationError, ConnectionFailed, FailureKind, SubscriptionError
from cdc.sent import EVERY_ROW, Sent

__all__ = [
    "Publication",
    "check_same",
    "identifiers",
    "publication_oids",
    "read_publications",
    "row_condition",
    "sent_of",
]


@dataclass(frozen=True, slots=True)
class Publication:
    """One publication.

    Attributes:
        name: its name.
        operations: what it publishes, of `"insert"`, `"update"`, `"delete"`, `"truncate"`.
        tables: the published tables, as (schema, table).
        conditions: the row filters of those that have one.
    """

    name: str
    operations: frozenset[str]
    tables: frozenset[tuple[str, str]]
    conditions: Mapping[tuple[str, str], str]


_PUBLICATION = """
SELECT pubname, pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_catalog.pg_publication
WHERE pubname = ANY(%s)
"""
_TABLES = "SELECT schemaname, tablename, {} FROM pg_catalog.pg_publication_tables WHERE pubname = %s"


def read_publications(connection: psycopg.Connection[Any], names: Sequence[str]) -> list[Publication]:
    """The publications of these names. Raises ConfigurationError for one that does not exist."""
    rows = {row[0]: row[1:] for row in connection.execute(_PUBLICATION, (list(names),)).fetchall()}
    _check_existing(connection, names, rows)
    return [_publication(connection, name, rows[name]) for name in names]


def _check_existing(connection: psycopg.Connection[Any], names: Sequence[str], found: Container[str]) -> None:
    for name in names:
        if name not in found:
            raise ConfigurationError(
                f"publication {name!r} does not exist: run `cdc setup --dsn … --publication {name} --table TABLE`, "
                f"or as its owner {_statement(connection, name)}",
                failure=FailureKind.PUBLICATION,
            )


def publication_oids(connection: psycopg.Connection[Any], names: Sequence[str]) -> list[tuple[str, int]]:
    """Name and OID of each of these publications. One that was dropped and made again has another OID.

    Raises ConfigurationError for one that does not exist: without its OID nobody could tell that it is made again.
    """
    found = _found(connection, names)
    _check_existing(connection, names, found)
    return [(name, found[name]) for name in names]


def _found(connection: psycopg.Connection[Any], names: Sequence[str]) -> dict[str, int]:
    query = "SELECT pubname, oid FROM pg_catalog.pg_publication WHERE pubname = ANY(%s)"
    return dict(connection.execute(query, (list(names),)).fetchall())


def check_same(connection: psycopg.Connection[Any], known: Mapping[str, int]) -> None:
    """Raise ConnectionFailed when one of these publications, names with OIDs, was dropped and made again since."""
    for name, oid in _found(connection, list(known)).items():
        if known[name] != oid:
            raise ConnectionFailed(f"publication {name!r} was dropped and made again while it was streamed")


def _statement(connection: psycopg.Connection[Any], name: str) -> str:
    quoted = sql.Identifier(name).as_string(connection)
    return f"`CREATE PUBLICATION {quoted} FOR TABLE …`"


def _publication(connection: psycopg.Connection[Any], name: str, flags: Sequence[bool]) -> Publication:
    operations = ("insert", "update", "delete", "truncate")
    published = frozenset(operation for operation, on in zip(operations, flags, strict=True) if on)
    # Row filters came with PostgreSQL 15.
    condition = "rowfilter" if connection.info.server_version >= 150000 else "NULL"
    rows = connection.execute(_TABLES.format(condition), (name,)).fetchall()
    tables = frozenset((schema, table) for schema, table, _ in rows)
    return Publication(name, published, tables, {(s, t): condition for s, t, condition in rows if condition})


def row_condition(connection: psycopg.Connection[Any], names: Sequence[str], schema: str, table: str) -> str:
    """The row filters of the publications, of which a row of the table has to meet one, as SQL.

    Raises SubscriptionError when none of them publishes the table.
    """
    sent = sent_of(read_publications(connection, names), (schema, table))
    if sent is None:
        raise SubscriptionError(f"table {schema}.{table} is not published any more")
    conditions = set().union(*(found for each, found in sent.conditions.items() if each != "TRUNCATE"))
    if EVERY_ROW in conditions or not conditions:
        return "true"
    return "({})".format(" OR ".join(f"({each})" for each in sorted(conditions)))


def sent_of(publications: Iterable[Publication], table: tuple[str, str]) -> Sent | None:
    """What these publications, which are streamed together, send of a table; None when none of them has it."""
    having = [publication for publication in publications if table in publication.tables]
    conditions: dict[str, set[str]] = {}
    for publication in having:
        for operation in publication.operations:
            condition = EVERY_ROW if operation == "truncate" else publication.conditions.get(table, EVERY_ROW)
            conditions.setdefault(operation.upper(), set()).add(condition)
    return Sent({each: frozenset(found) for each, found in conditions.items()}) if having else None


def identifiers(connection: psycopg.Connection[Any], names: Sequence[str]) -> str:
    """The value of pgoutput's option `publication_names`: quoted identifiers inside a string literal."""
    quoted = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    return sql.Literal(quoted).as_string(connection)

"""Rights: who may read a table, as the catalog says it now.

May import psycopg. Reads catalogs only: no function of a policy is ever called here, since on a powerful connection
it could do anything. Tables and functions in the queries are qualified, so that a search_path cannot put others
in their place. The manual: "System Catalogs" and "Access Privilege Inquiry Functions".
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.errors import SubscriptionError
from cdc.fact_query import FACTS, ROLES
from cdc.parsed_bodies import add_bodies
from cdc.relation import Column, Relation
from cdc.rls import Policy, TableRights, review
from cdc.rls.facts import Facts
from cdc.rls.grants import Roles, rights_of
from cdc.values import Types

__all__ = ["PolicyReview", "TableReview", "load_rights", "no_role", "read_facts", "read_roles", "review_policies"]

_SECURED = """
SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND (c.relrowsecurity OR EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid))
ORDER BY n.nspname, c.relname
"""
_NAMED = """
SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname = %s AND c.relname = %s
"""
_SENDABLE = """
SELECT a.attname, a.atttypid, a.atttypmod FROM pg_catalog.pg_attribute a
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated::text = ANY (%s) ORDER BY a.attnum
"""


@dataclass(frozen=True, slots=True)
class PolicyReview:
    """A policy, and the construct in it that cdc cannot decide, in words; None when it is supported."""

    policy: Policy
    unsupported: str | None


@dataclass(frozen=True, slots=True)
class TableReview:
    """What row-level security a table has.

    Attributes:
        schema, table: the table.
        row_security: whether row-level security is on; without it, policies do nothing.
        forced: whether it binds the table's owner, too.
        policies: the policies for reading, in the order of their names.
    """

    schema: str
    table: str
    row_security: bool
    forced: bool
    policies: tuple[PolicyReview, ...]


def load_rights(connection: psycopg.Connection[Any], oid: int, role: str) -> TableRights:
    """Everything about one table as one role sees it, as of now.

    Args:
        connection: an ordinary connection; any role may read these catalogs.
        oid: OID of the table; for changes published as their partition root's, of the root.
        role: name of the role.

    Raises:
        SubscriptionError: there is no such role, or no such table.
    """
    roles = read_roles(connection, [role])
    if role not in roles.by_name:
        raise no_role(role)
    facts = read_facts(connection, [oid]).get(oid)
    rights = None if facts is None else rights_of(facts, roles, role)
    if rights is None:
        raise SubscriptionError(f"there is no table with OID {oid} any more")
    return rights


def read_facts(connection: psycopg.Connection[Any], oids: Collection[int]) -> dict[int, Facts]:
    """What makes up the rights on tables, as of now; without those that do not exist.

    Args:
        connection: an ordinary connection; any role may read these catalogs.
        oids: OIDs of the tables.
    """
    rows = psycopg.RawCursor(connection).execute(FACTS, [list(oids)]).fetchall() if oids else []
    add_bodies(connection, [said for _, said in rows])
    return {oid: Facts.read(oid, said) for oid, said in rows}


def read_roles(connection: psycopg.Connection[Any], names: Collection[str]) -> Roles:
    """The roles of these names, and all that they are members of, as of now; without those that do not exist."""
    row = psycopg.RawCursor(connection).execute(ROLES, [list(names)]).fetchone()
    assert row is not None
    return Roles.read(json.loads(row[0]))


def no_role(role: str) -> SubscriptionError:
    """There is no such role."""
    return SubscriptionError(
        f'role "{role}" does not exist on this server: name one of pg_roles, or as a superuser create it'
    )


def review_policies(dsn: str, table: str | None = None) -> list[TableReview]:
    """Say of each policy for reading whether cdc can decide it.

    Args:
        dsn: the database; any role may read these catalogs.
        table: `table` or `schema.table`, case-sensitive; None is every table with row-level security or policies.

    Raises:
        ConfigurationError: the DSN cannot be used.
        ConnectionFailed: the server cannot be reached.
        SubscriptionError: there is no such table.
    """
    with connect(dsn) as connection:
        row = connection.execute("SELECT current_user").fetchone()
        role = str(row[0]) if row else ""
        return [_review(connection, oid, role) for oid in _tables(connection, table)]


def _tables(connection: psycopg.Connection[Any], table: str | None) -> list[int]:
    if table is None:
        return [oid for (oid,) in connection.execute(_SECURED).fetchall()]
    schema, _, name = table.rpartition(".")
    row = connection.execute(_NAMED, (schema or "public", name)).fetchone()
    if row is None:
        raise SubscriptionError(f"there is no table {schema or 'public'}.{name}; names are case-sensitive here")
    return [row[0]]


def _review(connection: psycopg.Connection[Any], oid: int, role: str) -> TableReview:
    rights, types = load_rights(connection, oid, role), Types()
    # A generated column is never sent before 18, and a virtual one never at all.
    generated = ["", "s"] if connection.info.server_version >= 180000 else [""]
    found = connection.execute(_SENDABLE, (oid, generated)).fetchall()
    types.add(load_types(connection, types.missing(type_oid for _, type_oid, _ in found)))
    columns = tuple(
        Column(name, type_oid, modifier, False, types.decoder(type_oid)) for name, type_oid, modifier in found
    )
    relation = Relation(oid, rights.schema, rights.table, "n", columns, None)
    policies = tuple(PolicyReview(*reviewed) for reviewed in review(rights, relation, types))
    return TableReview(rights.schema, rights.table, rights.row_security, rights.forced, policies)

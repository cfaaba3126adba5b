"""Rights: who may read a table, as the catalog says it now.

May import psycopg. Reads catalogs only: no function of a policy is ever called here, since on a powerful connection
it could do anything. Tables and functions in the queries are qualified, so that a search_path cannot put others
in their place. The manual: "System Catalogs" and "Access Privilege Inquiry Functions".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.catalog import load_types
from cdc.connection import connect
from cdc.errors import SubscriptionError
from cdc.relation import Column, Relation
from cdc.rls import ColumnRights, Function, Policy, TableRights, review
from cdc.values import Types

__all__ = ["PolicyReview", "TableReview", "load_rights", "review_policies"]

_TABLE = """
SELECT n.nspname, c.relname, r.rolsuper, r.rolbypassrls, pg_catalog.pg_has_role(r.oid, c.relowner, 'USAGE'),
       c.relrowsecurity, c.relforcerowsecurity, pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE'),
       pg_catalog.has_table_privilege(r.oid, c.oid, 'SELECT'), r.oid,
       ARRAY(SELECT l.oid FROM pg_catalog.pg_collation l WHERE NOT l.collisdeterministic),
       pg_catalog.pg_encoding_to_char(d.encoding) = 'UTF8',
       ARRAY(SELECT l.oid FROM pg_catalog.pg_collation l WHERE l.collcollate IN ('C', 'POSIX') AND l.collprovider = 'c'
             UNION SELECT 100::oid WHERE d.datcollate IN ('C', 'POSIX') AND d.datctype IN ('C', 'POSIX')
                                     AND {provider} = 'c'),
       coalesce(
           (SELECT pg_catalog.substr(setting, 10)
            FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) setting
            WHERE pg_catalog.lower(setting) LIKE 'timezone=%%' AND s.setrole IN (0, r.oid)
              AND s.setdatabase IN (0, d.oid) ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1),
           (SELECT reset_val FROM pg_catalog.pg_settings
            WHERE name = 'TimeZone' AND source IN ('default', 'configuration file', 'command line', 'override')))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles r ON r.rolname = %(role)s
JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
WHERE c.oid = %(oid)s
"""
_COLUMNS = """
SELECT a.attnum, a.attname, a.atttypid, t.typbasetype,
       pg_catalog.has_column_privilege(%(role)s::oid, a.attrelid, a.attnum, 'SELECT')
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_POLICIES = """
SELECT p.polname, p.polpermissive, CASE p.polcmd WHEN 'r' THEN 'SELECT' ELSE 'ALL' END,
       ARRAY(SELECT CASE role WHEN 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(role) END
             FROM pg_catalog.unnest(p.polroles) WITH ORDINALITY AS u(role, place) ORDER BY place),
       p.polqual::text, pg_catalog.pg_get_expr(p.polqual, p.polrelid),
       EXISTS (SELECT FROM pg_catalog.unnest(p.polroles) AS u(role)
               WHERE CASE role WHEN 0 THEN true ELSE pg_catalog.pg_has_role(%(role)s::oid, role, 'USAGE') END)
FROM pg_catalog.pg_policy p WHERE p.polrelid = %(oid)s AND p.polcmd IN ('*', 'r') ORDER BY p.polname
"""
_FUNCTIONS = """
SELECT p.oid, n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid), l.lanname, p.prosrc,
       p.prosecdef, p.proconfig, p.prorettype, p.proretset, p.pronargs::int, p.prokind::text, p.provolatile::text,
       pg_catalog.has_function_privilege(%(role)s::oid, p.oid, 'EXECUTE'), p.prosqlbody::text
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE p.oid = ANY (%(oids)s::oid[])
"""
_OPERATORS = """
SELECT o.oid, CASE n.nspname WHEN 'pg_catalog' THEN o.oprname::text ELSE n.nspname || '.' || o.oprname END,
       o.oprcode::oid
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
WHERE o.oid = ANY (%(oids)s::oid[])
"""
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
_ROLE = "SELECT FROM pg_catalog.pg_roles WHERE rolname = %(role)s"
_FUNCTION_OIDS = re.compile(r":(?:funcid|opfuncid) ([0-9]{1,10})\b")
_OPERATOR_OIDS = re.compile(r":opno ([0-9]{1,10})\b")


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
    # Before 15 every database has a locale of the C library.
    provider = "d.datlocprovider" if connection.info.server_version >= 150000 else "'c'"
    table = connection.execute(_TABLE.format(provider=provider), {"oid": oid, "role": role}).fetchone()
    if table is None:
        raise _missing(connection, oid, role)
    schema, name, superuser, bypass, owns, security, forced, usage, select, *more = table
    role_oid, collations, utf8, code_point, zone = more
    asked = {"oid": oid, "role": role_oid}
    columns = connection.execute(_COLUMNS, asked).fetchall()
    policies = [_policy(*row) for row in connection.execute(_POLICIES, asked).fetchall()]
    trees = [policy.node_text or "" for policy in policies]
    operators = _operators(connection, trees)
    called = {*_mentioned(_FUNCTION_OIDS, trees), *(function for _, function in operators.values())}
    return TableRights(
        oid=oid,
        schema=schema,
        table=name,
        role=role,
        superuser=superuser,
        bypass_rls=bypass,
        owns=owns,
        row_security=security,
        forced=forced,
        schema_usage=usage,
        select=select,
        columns={number: ColumnRights(*column) for number, *column in columns},
        policies=tuple(policies),
        functions=_functions(connection, role_oid, sorted(called)),
        operators={oid: name for oid, (name, _) in operators.items()},
        operator_functions={oid: function for oid, (_, function) in operators.items()},
        nondeterministic=frozenset(collations),
        code_point=frozenset(code_point),
        zone=zone,
        utf8=utf8,
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


def _missing(connection: psycopg.Connection[Any], oid: int, role: str) -> SubscriptionError:
    if connection.execute(_ROLE, {"role": role}).fetchone() is None:
        return SubscriptionError(
            f'role "{role}" does not exist on this server: name one of pg_roles, or as a superuser create it'
        )
    return SubscriptionError(f"there is no table with OID {oid} any more")


def _policy(
    name: str,
    permissive: bool,
    command: str,
    roles: list[str],
    tree: str | None,
    expression: str | None,
    applies: bool,
) -> Policy:
    return Policy(name, permissive, command, tuple(roles), tree, expression, applies)


def _functions(connection: psycopg.Connection[Any], role: int, oids: list[int]) -> dict[int, Function]:
    rows = connection.execute(_FUNCTIONS, {"role": role, "oids": oids}).fetchall() if oids else []
    return {oid: _function(*row) for oid, *row in rows}


def _function(
    schema: str,
    name: str,
    arguments: str,
    language: str,
    body: str,
    definer: bool,
    settings: list[str] | None,
    *rest: Any,
) -> Function:
    return Function(schema, name, arguments, language, body, definer, tuple(settings or ()), *rest)


def _operators(connection: psycopg.Connection[Any], trees: Iterable[str]) -> dict[int, tuple[str, int]]:
    """Name and function of each operator."""
    oids = _mentioned(_OPERATOR_OIDS, trees)
    rows = connection.execute(_OPERATORS, {"oids": oids}).fetchall() if oids else []
    return {oid: (name, function) for oid, name, function in rows}


def _mentioned(pattern: re.Pattern[str], trees: Iterable[str]) -> list[int]:
    """The OIDs behind a field's name in node trees. A name in quotes cannot look like one: its blank is escaped."""
    return sorted({int(oid) for tree in trees for oid in pattern.findall(tree)})

"""Rights: who may read a table, as the catalog says it now.

May import psycopg. Reads catalogs only: no function of a policy is ever called here, since on a powerful connection
it could do anything. Tables and functions in the queries are qualified, so that a search_path cannot put others
in their place. The manual: "System Catalogs" and "Access Privilege Inquiry Functions".
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import psycopg
from psycopg import sql

from cdc.errors import SubscriptionError
from cdc.fact_query import FACTS, ROLES
from cdc.parsed_bodies import add_bodies
from cdc.rls import TableRights
from cdc.rls.facts import Facts
from cdc.rls.grants import Roles, rights_of

__all__ = ["load_rights", "no_role", "read_facts", "read_roles"]


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
    # One question, so that no other thread's statement can come in between: with the TimeZone that the server gives,
    # not the one that `connect` has set. An error undoes all of it.
    zone = connection.info.parameter_status("TimeZone") or "UTC"
    asked = ROLES.replace("$1", sql.Literal(list(names)).as_string(connection))
    back = sql.SQL("SET TimeZone = {}").format(sql.Literal(zone)).as_string(connection)
    cursor = connection.execute(f"RESET TimeZone; {asked}; {back}".encode())
    cursor.nextset()
    row = cursor.fetchone()
    assert row is not None
    return Roles.read(json.loads(row[0]))


def no_role(role: str) -> SubscriptionError:
    """There is no such role."""
    return SubscriptionError(
        f'role "{role}" does not exist on this server: name one of pg_roles, or as a superuser create it'
    )

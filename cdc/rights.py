"""Rights: who may read a table, as the catalog says it now.

May import psycopg. Reads catalogs only: no function of a policy is ever called here, since on a powerful connection
it could do anything. Tables and functions in the queries are qualified, so that a search_path cannot put others
in their place. The manual: "System Catalogs" and "Access Privilege Inquiry Functions".
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from typing import Any

import psycopg

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
    row = psycopg.RawCursor(connection).execute(ROLES, [list(names)]).fetchone()
    assert row is not None
    said = json.loads(row[0])
    if "PGTZ" in os.environ:  # libpq asks for this zone then, so that the server's own is not to be seen.
        said["zone"] = None
    return Roles.read(said)


def no_role(role: str) -> SubscriptionError:
    """There is no such role."""
    return SubscriptionError(
        f'role "{role}" does not exist on this server: name one of pg_roles, or as a superuser create it'
    )

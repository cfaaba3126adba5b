"""Rows of cdc.rights: whether they can be relied on, and which of them were in force at a place in the stream.

May import psycopg. `sql/10_rights.sql` makes the table and what fills it. Only its owner, a superuser, may write it;
where that is not so, or the trigger is off, or the publication does not send it, its rows mean nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from cdc.fact_query import FACTS
from cdc.parsed_bodies import add_bodies
from cdc.rls.facts import Facts, FactsError

__all__ = ["Drift", "Fresh", "Standing", "Stated", "drifted", "newest_id", "read_fresh", "rows_as_of", "standing"]

_REMEDY = "run `cdc setup` as a superuser"
_STANDING = """
SELECT c.oid, o.rolsuper, pg_catalog.has_table_privilege(c.oid, 'SELECT'),
       EXISTS (
           SELECT FROM (SELECT c.relacl AS acl UNION ALL
                        SELECT a.attacl FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid) AS given,
               pg_catalog.aclexplode(given.acl) AS g LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
           WHERE g.grantee <> c.relowner AND NOT coalesce(r.rolsuper, false)
             AND g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')),
       EXISTS (
           SELECT FROM pg_catalog.pg_publication_tables p JOIN pg_catalog.pg_publication b ON b.pubname = p.pubname
           WHERE p.pubname = ANY (%s) AND p.schemaname = 'cdc' AND p.tablename = 'rights' AND b.pubinsert
             AND pg_catalog.to_jsonb(p) ->> 'rowfilter' IS NULL
             AND coalesce(pg_catalog.jsonb_array_length(pg_catalog.to_jsonb(p) -> 'attnames'), 5) >= 5),
       (SELECT count(*) FROM pg_catalog.pg_event_trigger t JOIN pg_catalog.pg_proc f ON f.oid = t.evtfoid
        JOIN pg_catalog.pg_roles r ON r.oid = f.proowner
        WHERE (t.evtname, t.evtevent) IN (('cdc_rights', 'ddl_command_end'), ('cdc_rights_dropped', 'sql_drop'))
          AND t.evtenabled IN ('O', 'A') AND f.proname = 'rights_changed' AND f.pronamespace = n.oid AND f.prosecdef
          AND r.rolsuper)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
WHERE n.nspname = 'cdc' AND c.relname = 'rights'
"""
_NEWEST = "SELECT coalesce(max(id), 0) FROM cdc.rights"
_AS_OF = """
SELECT asked.oid, r.id, r.facts
FROM unnest(%s::oid[]) AS asked (oid), LATERAL (
    SELECT each.id, each.facts FROM cdc.rights each WHERE each."table" = asked.oid
    -- The last one until then; a table of which there is none yet has its first one.
    ORDER BY each.id <= %s DESC, CASE WHEN each.id <= %s THEN -each.id ELSE each.id END LIMIT 1
) AS r
"""
_DRIFT = f"""
SELECT now.oid, last.id, now.facts IS DISTINCT FROM last.facts,
       CASE WHEN now.facts IS DISTINCT FROM last.facts THEN now.facts END
FROM ({FACTS}) AS now
LEFT JOIN LATERAL (SELECT r.id, r.facts FROM cdc.rights r WHERE r."table" = now.oid ORDER BY r.id DESC LIMIT 1) AS last
    ON true
"""
_FRESH = f"""
WITH known AS (SELECT * FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::text[])) AS k (oid, sum))
SELECT now.oid, now.sum, CASE WHEN now.sum IS DISTINCT FROM known.sum THEN now.facts END
FROM (SELECT f.oid, f.facts, pg_catalog.md5(f.facts::text) AS sum FROM ({FACTS}) AS f) AS now JOIN known USING (oid)
"""

Stated = Facts | str
"""The facts of a table, or why they are not known."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What cdc.rights is worth.

    Attributes:
        oid: OID of the table when its rows can be relied on; None when rights are the newest ones.
        problem: why it is there and cannot be relied on, or None.
    """

    oid: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """A table's newest row, if any, and the facts as of now when they differ from it."""

    newest: int | None
    differs: bool
    facts: Stated


@dataclass(frozen=True, slots=True)
class Fresh:
    """The facts of a table as of now, and their checksum."""

    sum: str
    facts: Stated


def standing(connection: psycopg.Connection[Any], publications: Sequence[str]) -> Standing:
    """What cdc.rights is worth to a consumer of these publications."""
    row = connection.execute(_STANDING, (list(publications),)).fetchone()
    if row is None:
        return Standing()
    oid, owned, readable, open_to_others, published, triggers = row
    problems = {
        f"its owner is no superuser, so that its rows may be anybody's: drop it and {_REMEDY}": not owned,
        "others than its owner may write it: REVOKE ALL ON cdc.rights FROM them": open_to_others,
        f"its event triggers are missing, disabled or another's: {_REMEDY}": triggers != 2,
        f"it is not published: {_REMEDY}, with --publication {publications[0]}": not published,
        "this role may not read it: GRANT SELECT ON cdc.rights TO it": not readable,
    }
    for problem, holds in problems.items():
        if holds:
            return Standing(None, f"cdc.rights is not used: {problem}")
    return Standing(oid)


def newest_id(connection: psycopg.Connection[Any]) -> int:
    """Id of the newest row; 0 when there is none."""
    row = connection.execute(_NEWEST).fetchone()
    return int(row[0]) if row else 0


def rows_as_of(connection: psycopg.Connection[Any], oids: Collection[int], last: int) -> dict[int, tuple[int, Stated]]:
    """The row of each table that was in force when `last` was the newest of all; without tables that have none."""
    rows = connection.execute(_AS_OF, (list(oids), last, last)).fetchall()
    return {oid: (min(number, last), stated(connection, oid, facts)) for oid, number, facts in rows}


def drifted(connection: psycopg.Connection[Any], oids: Collection[int]) -> dict[int, Drift]:
    """Where the rights on tables are not what the newest row says, as after REASSIGN OWNED."""
    rows = psycopg.RawCursor(connection).execute(_DRIFT, [list(oids)]).fetchall()
    return {oid: Drift(newest, differs, stated(connection, oid, facts)) for oid, newest, differs, facts in rows}


def read_fresh(connection: psycopg.Connection[Any], known: Mapping[int, Fresh]) -> dict[int, Fresh]:
    """The facts of these tables as of now; what is known with the same checksum is not sent again."""
    if not known:
        return {}
    sums = [each.sum for each in known.values()]
    rows = psycopg.RawCursor(connection).execute(_FRESH, [list(known), sums]).fetchall()
    return {
        oid: known[oid] if facts is None else Fresh(total, stated(connection, oid, facts)) for oid, total, facts in rows
    }


def stated(connection: psycopg.Connection[Any], oid: int, facts: object) -> Stated:
    """Facts from JSON, with the parsed bodies of functions; None stands for those that the trigger could not find out.

    Raises psycopg.Error when the server cannot be asked.
    """
    if facts is None:
        return "the event trigger of cdc.rights could not note how they have changed"
    try:
        known = Facts.read(oid, facts)
        if isinstance(facts, dict) and known.functions:
            add_bodies(connection, [facts])
            known = Facts.read(oid, facts)
        return known
    except FactsError as error:
        return f"the facts in cdc.rights cannot be read ({error}): {_REMEDY}"

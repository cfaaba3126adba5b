"""The table cdc.rewrites: whether DDL that changes rows without a change of each is noticed.

May import psycopg. `sql/20_rewrites.sql` makes the table, and the event triggers that fill it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

__all__ = ["rewrites_problem"]

_STANDING = """
SELECT pg_catalog.to_regclass('cdc.rewrites') IS NOT NULL,
       (SELECT count(*) FROM pg_catalog.pg_event_trigger t JOIN pg_catalog.pg_proc f ON f.oid = t.evtfoid
        JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
        WHERE (t.evtname, t.evtevent) IN (('cdc_rewrites', 'table_rewrite'), ('cdc_rewrites_dropped', 'sql_drop'),
                                          ('cdc_rewrites_altered', 'ddl_command_end'))
          AND t.evtenabled IN ('O', 'A') AND f.proname = 'rewritten' AND n.nspname = 'cdc' AND f.prosecdef),
       EXISTS (
           SELECT FROM pg_catalog.pg_publication_tables p JOIN pg_catalog.pg_publication b ON b.pubname = p.pubname
           WHERE p.pubname = ANY (%s) AND p.schemaname = 'cdc' AND p.tablename = 'rewrites' AND b.pubinsert
             AND pg_catalog.to_jsonb(p) ->> 'rowfilter' IS NULL
             AND coalesce(pg_catalog.jsonb_array_length(pg_catalog.to_jsonb(p) -> 'attnames'), 6) >= 6)
"""


def rewrites_problem(connection: psycopg.Connection[Any], publications: Sequence[str]) -> str | None:
    """Why rewrites of tables go unnoticed by a consumer of these publications; None when they are noticed."""
    row = connection.execute(_STANDING, (list(publications),)).fetchone()
    assert row is not None
    there, triggers, published = row
    remedy = "run `cdc setup` as a superuser"
    if not there:
        return f"there is no table cdc.rewrites: {remedy}"
    if triggers != 3:
        return f"event triggers of cdc.rewrites are missing, disabled or another's: {remedy}"
    return None if published else f"cdc.rewrites is not published: {remedy}, with --publication {publications[0]}"

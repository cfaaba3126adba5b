"""The ground of a store's rows: what changes them without a change in the stream.

May import psycopg. Rewrites by DDL emit no rows, a table that leaves its publication for a while misses changes, and
partitions come with rows of their own. Each leaves a trace in the catalog, which is compared when a file is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import psycopg

__all__ = ["ground_of"]

_GROUND = """
SELECT
  ARRAY(SELECT ROW (t.relid::oid, c.relfilenode) FROM (
            SELECT relid FROM pg_catalog.pg_partition_tree(%(oid)s::oid::regclass) UNION SELECT %(oid)s::oid) t
        JOIN pg_catalog.pg_class c ON c.oid = t.relid ORDER BY 1)::text,
  ARRAY(SELECT a.attnum FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1)::text,
  ARRAY(SELECT ROW (p.oid, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
                    r.oid, r.xmin)
        FROM pg_catalog.pg_publication p LEFT JOIN pg_catalog.pg_publication_rel r
             ON r.prpubid = p.oid AND r.prrelid = %(oid)s
        WHERE p.pubname = ANY (%(publications)s) ORDER BY 1)::text
"""


def ground_of(connection: psycopg.Connection[Any], publications: Sequence[str], oid: int) -> str:
    """A hash of the table's storage, columns and place in the publications; another one after a rewrite."""
    row = connection.execute(_GROUND, {"oid": oid, "publications": list(publications)}).fetchone()
    return sha256(repr(row).encode()).hexdigest()[:16]

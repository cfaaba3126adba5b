"""The WAL that the benchmarks read: a table, transactions of several shapes, and slots before them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

import cdc
from cdc.testing import Sandbox

TABLE = """
CREATE TABLE wells (id bigint PRIMARY KEY, name text, project_id uuid, depth numeric, created_at timestamptz);
CREATE PUBLICATION wells FOR TABLE wells;
"""
SIZES = {"1": 1, "10": 10, "100": 100, "10000": 10_000}
"""Shapes by name: rows of a transaction. "mixed" has 40 inserts, 40 updates and 20 deletes in each, "one" all rows."""

_ROWS = "SELECT {first} + n, 'well ' || n, '8fac0a3e-8a52-4c41-9ddb-2d6d6d3a1b11', n + 0.25, now()"
_FILL = f"""
DO $$ BEGIN FOR t IN 0 .. {{transactions}} - 1 LOOP
    INSERT INTO wells {_ROWS.format(first="t::bigint * {size}")} FROM generate_series(1, {{size}}) n;
    COMMIT;
END LOOP; END $$
"""
_MIXED = f"""
DO $$ BEGIN FOR t IN 0 .. {{transactions}} - 1 LOOP
    INSERT INTO wells {_ROWS.format(first="t::bigint * 40")} FROM generate_series(1, 40) n;
    UPDATE wells SET depth = depth + 1 WHERE id BETWEEN t * 40 + 1 AND t * 40 + 40;
    DELETE FROM wells WHERE id BETWEEN t * 40 + 1 AND t * 40 + 20;
    COMMIT;
END LOOP; END $$
"""


def fill(db: psycopg.Connection, shape: str, rows: int) -> int:
    """Write about `rows` changes in transactions of one shape; returns how many there are."""
    size = {"mixed": 100, "one": rows}.get(shape) or SIZES[shape]
    transactions = max(1, rows // size)
    db.execute((_MIXED if shape == "mixed" else _FILL).format(transactions=transactions, size=size))
    return transactions * size


@contextmanager
def recorded(server: Sandbox, shape: str, rows: int) -> Iterator[tuple[psycopg.Connection, str, int]]:
    """A database whose slot `origin` stands before the changes: a connection, its DSN, and how many there are."""
    dsn = server.create_database()
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(TABLE)
        db.execute("SELECT pg_create_logical_replication_slot('origin', 'pgoutput')")
        try:
            yield db, dsn, fill(db, shape, rows)
        finally:
            drop(db, "origin")


@contextmanager
def turn(db: psycopg.Connection, origin: str = "origin") -> Iterator[str]:
    """A copy of the slot, for one contestant."""
    db.execute("SELECT pg_copy_logical_replication_slot(%s::name, 'turn')", (origin,))
    try:
        yield "turn"
    finally:
        drop(db, "turn")


def drop(db: psycopg.Connection, slot: str) -> None:
    """Drop a slot; its walsender may need a moment to end."""
    for _ in range(500):
        try:
            db.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (slot,)
            )
            return
        except psycopg.errors.ObjectInUse:
            time.sleep(0.02)
    raise SystemExit("the slot is still in use")


def consumers_options(db: psycopg.Connection, dsn: str, **settings: object) -> dict[str, str]:
    """The pgoutput options that a consumer asks for, as the server heard them."""
    with turn(db) as slot, cdc.Consumer(dsn, slot=slot, state=None, **settings) as consumer:  # type: ignore[arg-type]
        consumer.start()
        for _ in range(500):
            row = db.execute(
                "SELECT a.query FROM pg_stat_activity a JOIN pg_replication_slots s ON s.active_pid = a.pid "
                "WHERE s.slot_name = %s AND a.query LIKE 'START_REPLICATION%%'",
                (slot,),
            ).fetchone()
            if row is not None:
                return dict(re.findall(r"(\w+) '((?:[^']|'')*)'", row[0]))
            time.sleep(0.02)
    raise SystemExit("the consumer did not begin to stream")


def start_command(slot: str, asked: dict[str, str]) -> str:
    """START_REPLICATION with these pgoutput options."""
    listed = ", ".join(f"{name} '{value}'" for name, value in asked.items())
    return f"START_REPLICATION SLOT {slot} LOGICAL 0/0 ({listed})"

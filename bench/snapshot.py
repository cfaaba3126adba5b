"""How fast does a subscription get the rows that a table has, next to COPY and to a plain SELECT?

A table is filled once. Then the contestants take turns: `COPY … TO STDOUT` whose bytes are thrown away, a SELECT whose
rows psycopg makes into tuples, and a consumer with `snapshot=True` whose handler reads the key and one more column,
alone and while another process commits some hundred updates a second. Ratios are rows per second divided by those of
COPY in the same run; `consumer_next_to_select` is by those of SELECT.

The clock of COPY and SELECT begins before they connect, that of the consumer when it subscribes.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import contest
import psycopg
import wal

import cdc
from cdc.testing import Sandbox

ROWS = 200_000
TARGETS: dict[str, contest.Target] = {}


def copy(dsn: str, rows: int) -> float:
    """COPY TO STDOUT, whose bytes are thrown away."""
    begun = time.perf_counter()
    with psycopg.connect(dsn) as db, db.cursor().copy("COPY wells TO STDOUT") as data:
        for _ in data:
            pass
    return time.perf_counter() - begun


def select(dsn: str, rows: int) -> float:
    """SELECT, with each row as a tuple of Python objects."""
    begun = time.perf_counter()
    with psycopg.connect(dsn) as db:
        assert len(db.execute("SELECT * FROM wells").fetchall()) == rows
    return time.perf_counter() - begun


def snapshot(dsn: str, rows: int) -> float:
    """A consumer that begins with the table's rows."""
    seen = 0

    def handler(event: cdc.Event) -> None:
        nonlocal seen
        if isinstance(event, cdc.Read) and event.new is not None:
            event.new["id"]
            event.new["depth"]
            seen += 1

    with cdc.Consumer(dsn, slot=None) as consumer:
        consumer.start()
        while consumer.health().status is not cdc.Status.LIVE:
            time.sleep(0.005)
        begun = time.perf_counter()
        subscription = consumer.subscribe("wells", handler, snapshot=True)
        consumer.wait_for_snapshot(subscription, timeout=600)
        taken = time.perf_counter() - begun
    assert seen == rows
    return taken


def written(dsn: str, rows: int) -> float:
    """The same while another process writes."""
    writer = subprocess.Popen([sys.executable, __file__, "--writer", dsn, str(rows)])
    try:
        return snapshot(dsn, rows)
    finally:
        writer.terminate()
        writer.wait()


def write(dsn: str, rows: int) -> None:
    """Commit some hundred updates a second until it is ended."""
    with psycopg.connect(dsn, autocommit=True) as db, contextlib.suppress(KeyboardInterrupt):
        number = 0
        while True:
            number += 1
            db.execute("UPDATE wells SET depth = depth + 1 WHERE id = %s", (number * 7919 % rows + 1,))
            time.sleep(0.002)


def main() -> None:
    """Run every contestant; print one table, and one JSON object if asked."""
    if sys.argv[1:2] == ["--writer"]:
        return write(sys.argv[2], int(sys.argv[3]))
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="rows of the table")
    chosen = parser.parse_args()
    contestants: dict[str, Callable[[str, int], float]] = {
        "copy": copy,
        "select": select,
        "consumer": snapshot,
        "consumer_written": written,
    }
    with Sandbox(settings={"max_replication_slots": 20}) as server:
        figures = contest.circumstances(server.version)
        with wal.recorded(server, "one", chosen.rows) as (db, dsn, rows):
            wal.drop(db, "origin")
            db.execute("VACUUM ANALYZE wells")
            turns = {name: partial(contestant, dsn, rows) for name, contestant in contestants.items()}
            taken = contest.median(contest.take_turns(turns, chosen.rounds))
            for name, seconds in taken.items():
                figures[f"{name}_rows_per_second"] = contest.short(rows / seconds)
                if name != "copy":
                    figures[f"{name}_ratio"] = round(taken["copy"] / seconds, 3)
            figures["consumer_next_to_select_ratio"] = round(taken["select"] / taken["consumer"], 3)
    contest.finish(__file__, chosen, parser, figures, TARGETS)
    return None


if __name__ == "__main__":
    main()

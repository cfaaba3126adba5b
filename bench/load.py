"""What does a change cost the consumer at a steady, high pace, and what is it worth to let changes gather?

A process of its own commits transactions at a pace that the consumer keeps up with. The consumer's thread counts its
own processor time a row, once as it is and once, `hasty`, with its pace told never to nap. What a nap saves is
the ratio of the two, less being better. At 2,000 transactions of one row a second there is nothing to be seen: there
it does not nap.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import contest
import psycopg
import wal

import cdc
from cdc.pace import Pace
from cdc.testing import Sandbox

PACES = {"1_row_2000": (1, 2000), "1_row_5000": (1, 5000), "10_rows_2000": (10, 2000), "30_rows_1000": (30, 1000)}
"""Rows a transaction and transactions a second."""
ROWS = 60_000
TARGETS: dict[str, contest.Target] = {}


def writer(dsn: str, size: int, rate: int, rows: int) -> None:
    """Commit transactions at a pace."""
    with psycopg.connect(dsn, autocommit=True) as db:
        values = f"$1::bigint + n, 'well', NULL, 1.25, now() FROM generate_series(0, {size - 1}) n"
        db.pgconn.prepare(b"put", f"INSERT INTO wells SELECT {values}".encode())
        begun = time.monotonic()
        for number in range(rows // size):
            pause = begun + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            db.pgconn.exec_prepared(b"put", [str(number * size).encode()])


class Clocked:
    """Counts rows and the processor time of the thread that brings them, from the first tenth on."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.seen = 0
        self.begun = self.ended = 0.0
        self.done = threading.Event()

    def handler(self, event: cdc.Insert) -> None:
        event.new["id"]
        event.new["depth"]
        self.seen += 1
        if self.seen == self.rows // 10 + 1:
            self.begun = time.thread_time()
        elif self.seen == self.rows:
            self.ended = time.thread_time()
            self.done.set()

    @property
    def microseconds(self) -> float:
        """Of processor time, a row."""
        return (self.ended - self.begun) / (self.rows - self.rows // 10 - 1) * 1e6


def hasty(self: Pace, frames: int, now: float) -> float:
    """Never nap."""
    return 0.0


def run(db: psycopg.Connection, dsn: str, size: int, rate: int, rows: int, nap: Callable[..., float]) -> float:
    """One turn of a consumer; microseconds of its thread a row."""
    clocked, usual = Clocked(rows), Pace.nap
    db.execute("TRUNCATE wells")
    db.execute("SELECT pg_create_logical_replication_slot('turn', 'pgoutput')")
    Pace.nap = nap  # type: ignore[method-assign]
    try:
        with cdc.Consumer(dsn, slot="turn", state=None) as consumer:
            consumer.subscribe("wells", clocked.handler)
            consumer.start()
            subprocess.run([sys.executable, __file__, "--writer", dsn, str(size), str(rate), str(rows)], check=True)
            if not clocked.done.wait(60):
                raise SystemExit(f"{rows - clocked.seen} rows have not arrived")
    finally:
        Pace.nap = usual  # type: ignore[method-assign]
        wal.drop(db, "turn")
    return clocked.microseconds


def main() -> None:
    """Run every pace; print one table, and one JSON object if asked."""
    if sys.argv[1:2] == ["--writer"]:
        return writer(sys.argv[2], *map(int, sys.argv[3:]))
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="rows a turn at the quickest pace")
    chosen = parser.parse_args()
    with Sandbox(settings={"max_replication_slots": 20}) as server:
        figures = contest.circumstances(server.version)
        with wal.recorded(server, "1", 1) as (db, dsn, _):
            for name, (size, rate) in PACES.items():
                rows = max(20 * size, chosen.rows * size * rate // 30_000 // size * size)
                one = partial(run, db, dsn, size, rate, rows)
                turns = {"consumer": partial(one, Pace.nap), "consumer_hasty": partial(one, hasty)}
                taken = contest.take_turns(turns, chosen.rounds)
                usual, without = (statistics.median(taken[each]) for each in turns)
                figures[f"consumer_{name}_microseconds"] = contest.short(usual)
                figures[f"consumer_{name}_ratio"] = round(usual / without, 3)
                figures[f"consumer_hasty_{name}_microseconds"] = contest.short(without)
    contest.finish(__file__, chosen, parser, figures, TARGETS)
    return None


if __name__ == "__main__":
    main()

"""How fast is a store filled, next to `COPY … TO STDOUT`; what does a row cost; how fast is a look-up, and a restart?

A table of five columns is filled once. Then the contestants take turns: `COPY … TO STDOUT` whose bytes are thrown away,
and a consumer that fills a store. The clock of COPY begins before it connects, that of the store when it is made, on a
consumer that is live. What a row costs is the growth of the process's memory, divided by the rows. Look-ups are of the
same random keys, in a dict from key to row and in the store, whose rows are made when they are read. Restarts are of a
consumer with a named slot, from its making until the store is live: one reads the table, the other has a file of it.
"""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import contest
import psycopg

import cdc
from cdc.testing import Sandbox

ROWS = 1_000_000
LOOKED_UP = 100_000
MODE = "--memory"
TARGETS: dict[str, contest.Target] = {"fill_ratio": contest.Target(1 / 3)}

TABLE = """
CREATE TABLE wells (id int PRIMARY KEY, name text, project_id int, depth numeric, drilled timestamptz);
INSERT INTO wells SELECT n, 'well ' || n, n % 1000, n / 8.0, timestamptz '2000-01-01' + n * interval '1 minute'
    FROM generate_series(1, {rows}) n;
CREATE PUBLICATION wells FOR TABLE wells;
"""


def copy(dsn: str) -> float:
    """COPY TO STDOUT by libpq alone, whose bytes are thrown away."""
    begun = time.perf_counter()
    with psycopg.connect(dsn) as db:
        db.pgconn.exec_(b"COPY wells TO STDOUT")
        while db.pgconn.get_copy_data(0)[0] > 0:
            pass
        while db.pgconn.get_result() is not None:
            pass
    return time.perf_counter() - begun


def fill(dsn: str, rows: int) -> float:
    """A consumer that is live fills a store."""
    with cdc.Consumer(dsn, slot=None) as consumer:
        consumer.start()
        while consumer.health().status is not cdc.Status.LIVE:
            time.sleep(0.005)
        begun = time.perf_counter()
        store = consumer.store("wells")
        store.wait_live(timeout=600)
        taken = time.perf_counter() - begun
        assert len(store) == rows
    return taken


def restart(dsn: str, rows: int, folder: Path, path: Path | None) -> float:
    """A consumer begins, with a file of its store or without."""
    begun = time.perf_counter()
    with cdc.Consumer(dsn, slot="restarted", state=folder / "position") as consumer:
        store = consumer.store("wells", path)
        consumer.start()
        store.wait_live(timeout=600)
        taken = time.perf_counter() - begun
        assert len(store) == rows
    return taken


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def memory(dsn: str, rows: int) -> None:
    """Print what a row costs, and look-ups per second in a dict and in the store."""
    with cdc.Consumer(dsn, slot=None) as consumer:
        consumer.start()
        before = resident()
        store = consumer.store("wells")
        store.wait_live(timeout=600)
        gc.collect()
        each = (resident() - before) / rows
        source = random.Random(1)
        keys = [source.randint(1, rows) for _ in range(min(LOOKED_UP, rows))]
        copied = {key: store[key] for key in set(keys)}
        begun = time.perf_counter()
        for key in keys:
            copied[key]
        plain = len(keys) / (time.perf_counter() - begun)
        begun = time.perf_counter()
        for key in keys:
            store[key]
        looked = len(keys) / (time.perf_counter() - begun)
    print(each, plain, looked)


def main() -> None:
    """Run the contestants; print one table, and one JSON object if asked."""
    if sys.argv[1:2] == [MODE]:
        return memory(sys.argv[2], int(sys.argv[3]))
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="rows of the table")
    chosen = parser.parse_args()
    with Sandbox(settings={"max_replication_slots": 20}) as server, tempfile.TemporaryDirectory() as kept:
        figures = contest.circumstances(server.version)
        dsn = server.create_database()
        with psycopg.connect(dsn, autocommit=True) as db:
            db.execute(TABLE.format(rows=chosen.rows))
            db.execute("VACUUM ANALYZE wells")
        folder = Path(kept)
        path = folder / "wells.store"
        restart(dsn, chosen.rows, folder, path)
        turns = {
            "copy": partial(copy, dsn),
            "fill": partial(fill, dsn, chosen.rows),
            "refill": partial(restart, dsn, chosen.rows, folder, None),
            "restart": partial(restart, dsn, chosen.rows, folder, path),
        }
        taken = contest.median(contest.take_turns(turns, chosen.rounds))
        for name, seconds in taken.items():
            figures[f"{name}_rows_per_second"] = contest.short(chosen.rows / seconds)
        figures["fill_ratio"] = round(taken["copy"] / taken["fill"], 3)
        figures["restart_ratio"] = round(taken["refill"] / taken["restart"], 2)
        figures["file_bytes_per_row"] = round(path.stat().st_size / chosen.rows)
        measured = subprocess.run(
            [sys.executable, __file__, MODE, dsn, str(chosen.rows)], stdout=subprocess.PIPE, text=True, check=True
        )
        each, plain, looked = map(float, measured.stdout.split())
        figures["bytes_per_row"] = round(each)
        figures["dict_lookups_per_second"] = contest.short(plain)
        figures["store_lookups_per_second"] = contest.short(looked)
    contest.finish(__file__, chosen, parser, figures, TARGETS)
    return None


if __name__ == "__main__":
    main()

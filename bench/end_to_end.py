"""How fast does a change get from the slot to a callback, next to pg_recvlogical on the same WAL?

A private PostgreSQL is filled once for each shape of transaction. Then the contestants take turns on copies of one
slot: pg_recvlogical writing to /dev/null, an undecoded loop on the same connection class, and a consumer whose
callback reads the key and one more column. Each figure is the median of the rounds; ratios are rows per second
divided by pg_recvlogical's in the same run, so they can be compared between machines. `--json` prints one flat
object last.
"""

from __future__ import annotations

import argparse
import json
import platform
import select
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

import cdc
from cdc.connection import ReplicationConnection
from cdc.testing import Sandbox

SHAPES = {"1": 1, "10": 10, "100": 100, "10000": 10_000}
TABLE = """
CREATE TABLE wells (id bigint PRIMARY KEY, name text, project_id uuid, depth numeric, created_at timestamptz);
CREATE PUBLICATION wells FOR TABLE wells;
"""
FILL = """
DO $$ BEGIN FOR t IN 0 .. %(transactions)s - 1 LOOP
    INSERT INTO wells SELECT t * %(size)s + n, 'well ' || n, '8fac0a3e-8a52-4c41-9ddb-2d6d6d3a1b11', n + 0.25, now()
        FROM generate_series(1, %(size)s) n;
    COMMIT;
END LOOP; END $$
"""
MIXED = """
DO $$ BEGIN FOR t IN 0 .. %(transactions)s - 1 LOOP
    INSERT INTO wells SELECT t * 40 + n, 'well ' || n, '8fac0a3e-8a52-4c41-9ddb-2d6d6d3a1b11', n + 0.25, now()
        FROM generate_series(1, 40) n;
    UPDATE wells SET depth = depth + 1 WHERE id BETWEEN t * 40 + 1 AND t * 40 + 40;
    DELETE FROM wells WHERE id BETWEEN t * 40 + 1 AND t * 40 + 20;
    COMMIT;
END LOOP; END $$
"""


def recvlogical(server: Sandbox, dsn: str, slot: str, end: str, rows: int) -> None:
    """PostgreSQL's own client, which decodes nothing."""
    command = [server.command("pg_recvlogical"), "-d", dsn, "--slot", slot, "--start", "-f", "/dev/null", "--no-loop"]
    options = ["-o", "proto_version=1", "-o", "publication_names=wells", "--endpos", end, "--fsync-interval", "0"]
    subprocess.run([*map(str, command), *options], check=True, env=server.environment, capture_output=True)


def undecoded(server: Sandbox, dsn: str, slot: str, end: str, rows: int) -> None:
    """Take every frame and look at its first bytes only."""
    connection = ReplicationConnection(dsn)
    connection.start(f"START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '\"wells\"')")
    seen = 0
    while seen < rows:
        frames = connection.frames(256)
        if not frames:
            connection.read()
            frames = connection.frames(256)
        seen += sum(1 for frame in frames if frame[0] == 0x77 and frame[25] in b"IUD")
        if not frames:
            select.select([connection.fileno()], [], [], 1)
    connection.close()


def consumer(server: Sandbox, dsn: str, slot: str, end: str, rows: int) -> None:
    """The whole path, to a callback that reads the key and one more column."""
    seen = 0

    def handler(event: cdc.Change) -> None:
        nonlocal seen
        seen += 1
        row = event.new or event.old
        row["id"], row.get("depth")

    with cdc.Consumer(dsn, slot=slot, state=None) as each:
        each.subscribe("wells", handler)
        each.start()
        each.wait_for(end, timeout=600)
    assert seen == rows, f"{seen} of {rows} rows arrived"


CONTESTANTS: dict[str, Callable[[Sandbox, str, str, str, int], None]] = {
    "recvlogical": recvlogical,
    "undecoded": undecoded,
    "consumer": consumer,
}


def measure(server: Sandbox, shape: str, rows: int, rounds: int) -> dict[str, float]:
    """Median rows per second of each contestant on one shape of transactions."""
    dsn = server.create_database()
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(TABLE)
        db.execute("SELECT pg_create_logical_replication_slot('origin', 'pgoutput')")
        fill(db, shape, rows)
        end = str(cdc.current_lsn(db))
        counted = db.execute(
            "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('origin', NULL, NULL, 'proto_version', '1', "
            "'publication_names', 'wells') WHERE get_byte(data, 0) IN (73, 85, 68)"
        ).fetchone()
        assert counted is not None
        times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        for _ in range(rounds):
            for name, run in CONTESTANTS.items():
                db.execute("SELECT pg_copy_logical_replication_slot('origin', 'turn')")
                begun = time.perf_counter()
                run(server, dsn, "turn", end, counted[0])
                times[name].append(time.perf_counter() - begun)
                drop(db)
        db.execute("SELECT pg_drop_replication_slot('origin')")
    return {name: counted[0] / statistics.median(taken) for name, taken in times.items()}


def fill(db: psycopg.Connection, shape: str, rows: int) -> None:
    size = SHAPES.get(shape)
    if size is None:
        db.execute(MIXED % {"transactions": max(1, rows // 100)})
    else:
        db.execute(FILL % {"transactions": max(1, rows // size), "size": size})


def drop(db: psycopg.Connection) -> None:
    """Drop the copy; its walsender may need a moment to end."""
    for _ in range(200):
        try:
            db.execute("SELECT pg_drop_replication_slot('turn')")
            return
        except psycopg.errors.ObjectInUse:
            time.sleep(0.02)
    raise SystemExit("the slot is still in use")


def main() -> None:
    """Run every shape and print one table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="changed rows of each shape (default 100000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    options = parser.parse_args()
    figures: dict[str, object] = {"rows": options.rows, "rounds": options.rounds, "python": platform.python_version()}
    with Sandbox(settings={"max_replication_slots": 20}) as server:
        figures["postgresql"] = server.version
        print(f"{'rows a transaction':>20} {'pg_recvlogical':>16} {'undecoded':>16} {'consumer':>16} {'ratio':>7}")
        for shape in (*SHAPES, "mixed"):
            rates = measure(server, shape, options.rows, options.rounds)
            ratio = rates["consumer"] / rates["recvlogical"]
            figures |= {f"{name}_{shape}_rows_per_second": round(rate) for name, rate in rates.items()}
            figures |= {f"consumer_{shape}_ratio": round(ratio, 3)}
            figures |= {f"undecoded_{shape}_ratio": round(rates["undecoded"] / rates["recvlogical"], 3)}
            print(
                f"{shape:>20} {rates['recvlogical']:>14,.0f}/s {rates['undecoded']:>14,.0f}/s "
                f"{rates['consumer']:>14,.0f}/s {ratio:>7.2f}"
            )
    path = Path(__file__).parent / "results" / "end_to_end.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""How fast does a change get from the slot to a callback, next to pg_recvlogical on the same WAL?

A private PostgreSQL is filled once for each shape of transaction. Then the contestants take turns on copies of one
slot, with the options that the consumer asks for: pg_recvlogical writing to /dev/null, an undecoded loop on the
same connection class, that loop when it lets packets arrive for 100 µs before it reads again, a consumer whose
callback reads the key and one more column, and one whose callback reads every cell. Ratios are rows per second
divided by pg_recvlogical's in the same run.

The clock of each begins before it connects (or its process starts) and ends when it has the last row: when
pg_recvlogical exits at its --endpos, when the handler was called with the last row. What that costs without any row
is a figure of its own, and is not taken off.
"""

from __future__ import annotations

import asyncio
import select
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import contest
import psycopg
import wal

import cdc
from cdc.connection import ReplicationConnection
from cdc.testing import Sandbox

SHAPES = (*wal.SIZES, "mixed")
ASYNC_SHAPES = ("1", "100")
ROWS = 300_000
TARGETS = {f"consumer_{shape}_ratio": contest.Target(0.85) for shape in SHAPES}
TARGETS |= {f"consumer_all_{shape}_ratio": contest.Target(0.35) for shape in SHAPES}


@dataclass(frozen=True, slots=True)
class Task:
    """What a contestant has to read."""

    server: Sandbox
    dsn: str
    asked: dict[str, str]
    end: str
    rows: int


def recvlogical(task: Task, slot: str) -> float:
    """PostgreSQL's own client, which decodes nothing."""
    command = [task.server.command("pg_recvlogical"), "-d", task.dsn, "--slot", slot, "--start", "-f", "/dev/null"]
    asked = [part for name, value in task.asked.items() for part in ("-o", f"{name}={value.strip(chr(34))}")]
    more = ["--no-loop", "--endpos", task.end, "--fsync-interval", "0"]
    begun = time.perf_counter()
    subprocess.run([*map(str, command), *asked, *more], check=True, env=task.server.environment, capture_output=True)
    return time.perf_counter() - begun


def undecoded(task: Task, slot: str, patience: float = 0) -> float:
    """Take every frame and look at its first bytes only; let more arrive for `patience` seconds after some came."""
    begun = time.perf_counter()
    connection = ReplicationConnection(task.dsn)
    connection.start(wal.start_command(slot, task.asked))
    seen = 0
    while seen < task.rows:
        connection.read()
        arrived = 0
        while frames := connection.frames(256):
            arrived += len(frames)
            seen += sum(1 for frame in frames if frame[0] == 0x77 and frame[25] in b"IUD")
        if arrived and patience:
            time.sleep(patience)
        elif not arrived:
            select.select([connection.fileno()], [], [], 1)
    taken = time.perf_counter() - begun
    connection.close()
    return taken


class Counted:
    """Handlers that read, count, and take the time of the last row."""

    def __init__(self, rows: int) -> None:
        self.left = rows
        self.ended = 0.0
        self.done = threading.Event()

    def two(self, event: cdc.Change) -> None:
        """Read the key and one more column; a deleted row has its key only."""
        new = event.new
        if new is None:
            event.old["id"]
        else:
            new["id"]
            new["depth"]
        self.left -= 1
        if not self.left:
            self.finish()

    def all(self, event: cdc.Change) -> None:
        """Read every cell."""
        new = event.new
        dict(event.old if new is None else new)
        self.left -= 1
        if not self.left:
            self.finish()

    def finish(self) -> None:
        self.ended = time.perf_counter()
        self.done.set()


def consumer(handler: str, task: Task, slot: str) -> float:
    """The whole path, on the consumer's own thread."""
    counted = Counted(task.rows)
    begun = time.perf_counter()
    with cdc.Consumer(task.dsn, slot=slot, state=None) as each:
        each.subscribe("wells", getattr(counted, handler))
        each.start()
        if task.rows == 0:
            each.wait_for(task.end, timeout=60)
            return time.perf_counter() - begun
        if not counted.done.wait(600):
            raise SystemExit(f"{counted.left} rows have not arrived")
    return counted.ended - begun


def consumer_async(task: Task, slot: str) -> float:
    """The whole path in an event loop, to the handler of `consumer`."""
    return asyncio.run(_consume(task, slot))


async def _consume(task: Task, slot: str) -> float:
    counted = Counted(task.rows)
    begun = time.perf_counter()
    async with cdc.AsyncConsumer(task.dsn, slot=slot, state=None) as each:
        await each.subscribe("wells", counted.two)
        await each.start()
        await each.wait_for(task.end, timeout=600)
        if task.rows == 0:
            return time.perf_counter() - begun
    return counted.ended - begun


CONTESTANTS: dict[str, Callable[[Task, str], float]] = {
    "recvlogical": recvlogical,
    "undecoded": undecoded,
    "undecoded_patient": partial(undecoded, patience=0.0001),
    "consumer": partial(consumer, "two"),
    "consumer_all": partial(consumer, "all"),
}


def turns(
    db: psycopg.Connection, task: Task, names: list[str], origin: str = "origin"
) -> dict[str, Callable[[], float]]:
    """What each contestant does in its turn."""

    def one(run: Callable[[Task, str], float]) -> float:
        with wal.turn(db, origin) as slot:
            return run(task, slot)

    contestants = CONTESTANTS | {"consumer_async": consumer_async}
    return {name: partial(one, contestants[name]) for name in names}


def measure(server: Sandbox, shape: str, rows: int, rounds: int) -> contest.Figures:
    """The figures of one shape of transactions."""
    names = [*CONTESTANTS, *(["consumer_async"] if shape in ASYNC_SHAPES else [])]
    with wal.recorded(server, shape, rows) as (db, dsn, written):
        task = Task(server, dsn, wal.consumers_options(db, dsn), str(cdc.current_lsn(db)), written)
        taken = contest.median(contest.take_turns(turns(db, task, names), rounds))
    figures: contest.Figures = {}
    for name, seconds in taken.items():
        figures[f"{name}_{shape}_rows_per_second"] = contest.short(written / seconds)
        if name != "recvlogical":
            figures[f"{name}_{shape}_ratio"] = round(taken["recvlogical"] / seconds, 3)
    return figures


def startup(server: Sandbox, rounds: int) -> contest.Figures:
    """What connecting costs each contestant: a run to an end before which there is no row."""
    names = [name for name in CONTESTANTS if name not in ("undecoded", "undecoded_patient", "consumer_all")] + [
        "consumer_async"
    ]
    with wal.recorded(server, "1", 1) as (db, dsn, _):
        asked = wal.consumers_options(db, dsn)
        db.execute("SELECT pg_create_logical_replication_slot('behind', 'pgoutput')")
        db.execute("CREATE TABLE nothing ()")
        task = Task(server, dsn, asked, str(cdc.current_lsn(db)), 0)
        taken = contest.median(contest.take_turns(turns(db, task, names, "behind"), rounds))
        wal.drop(db, "behind")
    return {f"{name}_startup_seconds": contest.short(seconds) for name, seconds in taken.items()}


def main() -> None:
    """Run every shape; print one table, and one JSON object if asked."""
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="changed rows of each shape")
    chosen = parser.parse_args()
    with Sandbox(settings={"max_replication_slots": 20}) as server:
        figures = contest.circumstances(server.version) | startup(server, chosen.rounds)
        for shape in SHAPES:
            figures |= measure(server, shape, chosen.rows, chosen.rounds)
    contest.finish(__file__, chosen, parser, figures, TARGETS)


if __name__ == "__main__":
    main()

"""How long after a commit returned is the handler called, next to a loop that decodes nothing?

A process of its own commits one row a transaction at a steady pace and notes, for each, when it sent the INSERT and
when the commit had returned. CLOCK_MONOTONIC is the same clock in every process, so a handler's own time can be
compared with both. The contestants take turns, each alone with a writer; rows are matched by their number.

"Commit returned to handler called" is a difference of two races: the server answers the writer and wakes the
walsender at about the same time, so that single latencies can be negative. They are kept as they are. The latency
since the INSERT was sent is reported beside it, which has no such race.
"""

from __future__ import annotations

import array
import asyncio
import select
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import contest
import psycopg
import wal

import cdc
from cdc.connection import ReplicationConnection
from cdc.testing import Sandbox

RATES = {200: 5, 2000: 1}
"""Transactions a second, and by how much fewer of them are made."""
WARM_UP = 20
"""Transactions that are written first and not counted."""
KINDS = ("consumer", "consumer_async")
ROWS = 5000
TARGETS = {f"{kind}_{rate}_p50_ratio": contest.Target(1.5, at_most=True) for kind in KINDS for rate in RATES}


@dataclass(frozen=True, slots=True)
class Task:
    """What is written, and how a reader asks for it."""

    dsn: str
    asked: dict[str, str]
    rate: int
    count: int
    synchronous: str = "on"


@dataclass(frozen=True, slots=True)
class Turn:
    """Nanoseconds from each commit's return, and from each INSERT's start, to the handler; and the true pace."""

    after: list[int]
    since: list[int]
    pace: float


# The writer's process.


def writer(dsn: str, rate: int, count: int, synchronous: str) -> None:
    """Commit rows at a pace; print, as bytes, when each was sent and when its commit had returned."""
    sent, returned = array.array("q", [0]) * count, array.array("q", [0]) * count
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(f"SET synchronous_commit = {synchronous}")
        db.pgconn.prepare(b"put", b"INSERT INTO wells VALUES ($1, 'well', NULL, 1.25, now())")
        put, now, period = db.pgconn.exec_prepared, time.monotonic_ns, 1_000_000_000 // rate
        begin = now() + period
        for number in range(count):
            pause = begin + number * period - now()
            if pause > 0:
                time.sleep(pause / 1e9)
            row = [str(number).encode()]
            sent[number] = now()
            put(b"put", row)
            returned[number] = now()
    sys.stdout.buffer.write(sent.tobytes() + returned.tobytes())


def write(task: Task) -> tuple[array.array[int], array.array[int]]:
    """Run the writer; when each row was sent, and when its commit had returned."""
    arguments = ["--writer", task.dsn, str(task.rate), str(task.count), task.synchronous]
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE)
    stamps = array.array("q", done.stdout)
    return stamps[: task.count], stamps[task.count :]


# The contestants: each reads while the writer works, and notes when it has each row.


class Noted:
    """When each row came."""

    def __init__(self, count: int) -> None:
        self.stamps = [0] * count
        self.left = count
        self.done = threading.Event()

    def handler(self, event: cdc.Insert) -> None:
        """Note the time, then which row it was."""
        stamp = time.monotonic_ns()
        self.stamps[event.new["id"]] = stamp
        self.left -= 1
        if not self.left:
            self.done.set()

    def frames(self, frames: list[memoryview]) -> None:
        """The same without decoding: rows come in the order in which they were written."""
        for frame in frames:
            if frame[0] == 0x77 and frame[25] == 0x49:
                self.stamps[len(self.stamps) - self.left] = time.monotonic_ns()
                self.left -= 1


def undecoded(task: Task, slot: str) -> Turn:
    """A blocking loop: select, read, take the frames."""
    noted = Noted(task.count)
    connection = ReplicationConnection(task.dsn)
    connection.start(wal.start_command(slot, task.asked))

    def loop() -> None:
        while noted.left:
            select.select([connection.fileno()], [], [], 1)
            connection.read()
            noted.frames(connection.frames(256))

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    written = write(task)
    thread.join(60)
    if noted.left:
        raise SystemExit(f"{noted.left} rows have not arrived")
    connection.close()
    return turn_of(task, noted, written)


def undecoded_async(task: Task, slot: str) -> Turn:
    """The same in an event loop, whose reader is registered once."""
    return asyncio.run(_undecoded(task, slot))


async def _undecoded(task: Task, slot: str) -> Turn:
    noted = Noted(task.count)
    connection = ReplicationConnection(task.dsn)
    connection.start(wal.start_command(slot, task.asked))
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection.fileno(), readable.set)
    writing = asyncio.create_task(asyncio.to_thread(write, task))
    while noted.left:
        await readable.wait()
        readable.clear()
        connection.read()
        noted.frames(connection.frames(256))
    loop.remove_reader(connection.fileno())
    connection.close()
    return turn_of(task, noted, await writing)


def consumer(task: Task, slot: str) -> Turn:
    """The whole path, on the consumer's own thread."""
    noted = Noted(task.count)
    with cdc.Consumer(task.dsn, slot=slot, state=None) as each:
        each.subscribe("wells", noted.handler)
        each.start()
        written = write(task)
        if not noted.done.wait(60):
            raise SystemExit(f"{noted.left} rows have not arrived")
    return turn_of(task, noted, written)


def consumer_async(task: Task, slot: str) -> Turn:
    """The whole path in an event loop."""
    return asyncio.run(_consume(task, slot))


async def _consume(task: Task, slot: str) -> Turn:
    noted = Noted(task.count)
    async with cdc.AsyncConsumer(task.dsn, slot=slot, state=None) as each:
        await each.subscribe("wells", noted.handler)
        await each.start()
        written = await asyncio.to_thread(write, task)
        if not await asyncio.to_thread(noted.done.wait, 60):
            raise SystemExit(f"{noted.left} rows have not arrived")
    return turn_of(task, noted, written)


def turn_of(task: Task, noted: Noted, written: tuple[array.array[int], array.array[int]]) -> Turn:
    sent, returned = written
    after = [stamp - commit for stamp, commit in zip(noted.stamps, returned, strict=True)][WARM_UP:]
    since = [stamp - begun for stamp, begun in zip(noted.stamps, sent, strict=True)][WARM_UP:]
    return Turn(after, since, (task.count - 1) / (sent[-1] - sent[0]) * 1e9)


CONTESTANTS: dict[str, Callable[[Task, str], Turn]] = {
    "undecoded": undecoded,
    "consumer": consumer,
    "undecoded_async": undecoded_async,
    "consumer_async": consumer_async,
}


# The figures.


def measure(db: psycopg.Connection, task: Task, names: list[str], rounds: int) -> dict[str, list[Turn]]:
    def one(run: Callable[[Task, str], Turn]) -> Turn:
        db.execute("TRUNCATE wells")
        db.execute("SELECT pg_create_logical_replication_slot('turn', 'pgoutput')")
        try:
            return run(task, "turn")
        finally:
            wal.drop(db, "turn")

    return contest.take_turns({name: partial(one, CONTESTANTS[name]) for name in names}, rounds)


def percentile(latencies: list[int], share: float) -> float:
    """The latency, in milliseconds, that `share` of all do not exceed."""
    ordered = sorted(latencies)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6


def summed(name: str, turns: list[Turn]) -> contest.Figures:
    """Medians of the rounds, and the largest of all."""
    p50 = statistics.median(percentile(turn.after, 0.5) for turn in turns)
    p99 = statistics.median(percentile(turn.after, 0.99) for turn in turns)
    since = statistics.median(percentile(turn.since, 0.5) for turn in turns)
    return {
        f"{name}_p50_milliseconds": contest.short(p50),
        f"{name}_p99_milliseconds": contest.short(p99),
        f"{name}_max_milliseconds": contest.short(max(max(turn.after) for turn in turns) / 1e6),
        f"{name}_since_sent_p50_milliseconds": contest.short(since),
    }


def compared(figures: contest.Figures, rate: int) -> contest.Figures:
    """Each consumer's p50 next to that of the loop that waits in the same way: the ratio, and what it adds."""
    found: contest.Figures = {}
    for kind in KINDS:
        for part in ("p50", "since_sent_p50"):
            own, bare = (float(figures[f"{name}_{rate}_{part}_milliseconds"] or 0) for name in (kind, _bare(kind)))
            # A loop that has the row before the writer has its answer allows no ratio.
            found[f"{kind}_{rate}_{part}_ratio"] = round(own / bare, 3) if bare > 0 else None
            found[f"{kind}_{rate}_{part}_added_milliseconds"] = contest.short(own - bare)
    return found


def _bare(kind: str) -> str:
    return kind.replace("consumer", "undecoded")


def main() -> None:
    """Run every pace; print one table, and one JSON object if asked."""
    if sys.argv[1:2] == ["--writer"]:
        return writer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    parser = contest.options(__doc__ or "", rows=ROWS, rows_help="transactions a turn at the quickest pace")
    chosen = parser.parse_args()
    with Sandbox(settings={"max_replication_slots": 20}) as server:
        figures = contest.circumstances(server.version)
        with wal.recorded(server, "1", 1) as (db, dsn, _):
            task = Task(dsn, wal.consumers_options(db, dsn), 0, 0)
            for rate, fewer in RATES.items():
                count = WARM_UP + max(1, chosen.rows // fewer)
                turns = measure(db, replace(task, rate=rate, count=count), list(CONTESTANTS), chosen.rounds)
                for name, each in turns.items():
                    figures |= summed(f"{name}_{rate}", each)
                    figures[f"{name}_{rate}_transactions_per_second"] = contest.short(
                        statistics.median(turn.pace for turn in each)
                    )
                figures |= compared(figures, rate)
            lazy = replace(task, rate=200, count=WARM_UP + max(1, chosen.rows // RATES[200]), synchronous="off")
            turns = measure(db, lazy, ["undecoded", "consumer"], chosen.rounds)
            for name, each in turns.items():
                figures |= summed(f"{name}_200_synchronous_commit_off", each)
    contest.finish(__file__, chosen, parser, figures, TARGETS)
    return None


if __name__ == "__main__":
    main()

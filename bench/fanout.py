"""What does a change cost when very many look at the table, each with a subject of its own?

A private PostgreSQL has a table under the policy `owner = auth.uid()`. `one_…`: each change is visible to one of so
many subjects. `all_…`: each change is visible to all of them. Both are measured in memory, from the frame to the
handler, on what a real server sent and under its rights; after a first pass, so that everybody has had an event before.
A ratio of `one_…` is the time of one subject divided by the time of so many, so that 1 is as fast. `bare_call` is a
loop that only calls the same handlers, which count; the ratio of `all_…` is the time of a delivery divided by it, so
that less is better.

`path_…` is the whole path from the slot to the handlers, next to pg_recvlogical on the same WAL; its clock begins with
the first event, when everybody has subscribed, and the ratio is that of `end_to_end.py`. `asking` is the other way to
do it: to ask the server for each change and subscriber, as the role, with the claims, for the row by its key. It is
measured on a sample; its ratio is the changes a second of `path_1000` divided by those that asking for a thousand
subscribers allows.

`subscribe_…` and `close_…` are done while a consumer runs, with ten and with very many others; the ratio is the time
with many divided by the time with few. `subscriber_bytes` is the growth of resident memory for each of the many,
without the subject and the handler, which are the program's own.

Fewer rows than the default mean fewer subjects, too: a tenth for a tenth. The names of the figures stay.
"""

from __future__ import annotations

import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import captured
import contest
import end_to_end
import memory
import psycopg
import wal

import cdc
from cdc.admission import Admission
from cdc.connection import connect
from cdc.lsn import Lsn
from cdc.spool import MemoryOrFile
from cdc.stream import Stream
from cdc.subscription import Subscription
from cdc.testing import Sandbox, apply_supabase

ROWS = 100_000
QUICK = 2000
SUBJECTS = (1, 100, 10_000, 100_000)
ALL = (1, 100, 10_000)
PATHS = (1, 1000, 10_000)
OTHERS = (10, 100_000)
DELIVERIES = 20
"""In `all_…` there are so many deliveries for each of `rows`."""
SAMPLE = 200
TARGETS = {
    "one_10000_ratio": contest.Target(round(1 / 1.3, 3)),
    "all_10000_ratio": contest.Target(8, at_most=True),
    "path_10000_ratio": contest.Target(0.6),
    "asking_ratio": contest.Target(1000),
    "subscribe_100000_ratio": contest.Target(2, at_most=True),
    "close_100000_ratio": contest.Target(2, at_most=True),
}
TABLE = """
CREATE TABLE wells (id bigint PRIMARY KEY, owner uuid, name text, depth numeric);
ALTER TABLE wells REPLICA IDENTITY FULL;
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON wells TO authenticated, anon;
CREATE POLICY own ON wells TO authenticated USING (owner = auth.uid());
CREATE POLICY everything ON wells TO anon USING (true);
CREATE PUBLICATION wells FOR TABLE wells;
"""
_FILL = """
DO $$ BEGIN FOR t IN 0 .. {transactions} - 1 LOOP
    INSERT INTO wells
    SELECT i, ('00000000-0000-4000-8000-' || lpad((i % {subjects})::text, 12, '0'))::uuid, 'well ' || i, i + 0.25
    FROM generate_series(t * 100, t * 100 + 99) i;
    COMMIT;
END LOOP; END $$
"""


def owner(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def users(many: int) -> list[cdc.Subject]:
    """Subjects who own different rows."""
    return [cdc.Subject("authenticated", {"sub": owner(number), "role": "authenticated"}) for number in range(many)]


def viewers(many: int) -> list[cdc.Subject]:
    """Subjects with claims of their own, who see everything."""
    return [cdc.Subject("anon", {"sub": owner(number), "role": "anon"}) for number in range(many)]


@contextmanager
def recorded(server: Sandbox, subjects: int, rows: int) -> Iterator[tuple[psycopg.Connection, str, int]]:
    """A database whose slot `origin` stands before changes of rows that belong to so many owners in turn."""
    dsn = server.create_database()
    apply_supabase(dsn)
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(TABLE)
        db.execute("SELECT pg_create_logical_replication_slot('origin', 'pgoutput')")
        transactions = max(1, rows // 100)
        try:
            db.execute(_FILL.format(transactions=transactions, subjects=subjects))
            yield db, dsn, transactions * 100
        finally:
            wal.drop(db, "origin")


# In memory.


class Crowd(captured.RealPath):
    """The path of a change to many subjects, with the rights of a real server."""

    def __init__(self, connection: psycopg.Connection, subjects: Sequence[cdc.Subject], handler: Any) -> None:
        super().__init__(handler, subscribes=False)
        admission = Admission(connection, ("wells",), {})
        self.session = SimpleNamespace(
            admission=admission,
            relation=lambda message, roles, *_: admission.relation(message, roles),
            busy=nullcontext,
        )
        for subject in subjects:
            subscription = Subscription("public", "wells", handler, subject=subject)
            admission.check(subscription)
            self.dispatcher.add(subscription)
        self.dispatcher.activate(admission.view)

    def again(self) -> None:
        """Let the same frames come as if they were new."""
        known = self.stream.relations
        self.stream = Stream("bench", Lsn(0), None, 10.0, MemoryOrFile(1 << 20))
        self.stream.relations.update(known)

    def timed(self, frames: Sequence[memoryview]) -> float:
        """Seconds of the processor that these frames take."""
        self.again()
        gc.collect()
        begun = time.process_time()
        self.take(frames)
        return time.process_time() - begun


def counter() -> tuple[Callable[[object], None], Callable[[], int]]:
    """A handler that counts, and how far it is."""
    numbers = count()

    def handler(event: object) -> None:
        next(numbers)

    return handler, lambda: next(numbers)


def crowd(
    server: Sandbox, subjects: Sequence[cdc.Subject], rows: int, rounds: int, owners: int, calls: int
) -> tuple[float, float]:
    """Seconds for each change, and for a bare call in the same rounds; there have to be `calls` at least."""
    with recorded(server, owners, rows) as (db, dsn, written), connect(dsn) as connection:
        frames = captured.frames(captured.messages(db))
        handler, handled = counter()
        path = Crowd(connection, subjects, handler)
        path.take(frames)
        if handled() < calls:
            raise SystemExit("handlers were not called for each change")
        frames = [frame for frame in frames if frame[25:26] != b"R"]
        gc.freeze()
        outcomes = contest.take_turns({"path": lambda: path.timed(frames), "bare": bare_call}, rounds)
        gc.unfreeze()
    taken = contest.median(outcomes)
    return taken["path"] / written, taken["bare"]


def bare_call() -> float:
    """Seconds to call a handler in a loop."""
    handler, _ = counter()
    handlers, event, times = [handler] * 1000, object(), 300
    begun = time.process_time()
    for _ in range(times):
        for each in handlers:
            each(event)
    return (time.process_time() - begun) / times / len(handlers)


def in_memory(server: Sandbox, rows: int, rounds: int, scale: Callable[[int], int]) -> contest.Figures:
    """What `one_…` and `all_…` say."""
    figures: contest.Figures = {}
    alone = 0.0
    for subjects in SUBJECTS:
        many = scale(subjects)
        # Everybody has to have had an event before the clock runs.
        taken, _ = crowd(server, users(many), max(rows, many), rounds, many, max(rows // 100, 1))
        alone = alone or taken
        figures[f"one_{subjects}_changes_per_second"] = contest.short(1 / taken)
        figures[f"one_{subjects}_ratio"] = round(alone / taken, 3)
    for subjects in ALL:
        many = scale(subjects)
        changes = max(100, rows * DELIVERIES // many) if many > 1 else rows
        taken, bare = crowd(server, viewers(many), changes, rounds, 1, many)
        figures[f"all_{subjects}_deliveries_per_second"] = contest.short(many / taken)
        figures[f"all_{subjects}_ratio"] = round(taken / many / bare, 2)
    figures["bare_call_microseconds"] = contest.short(bare * 1e6)
    return figures


# The whole path.


class Arrived:
    """A handler for many: when the first row came, and when the last one."""

    def __init__(self, rows: int) -> None:
        self.left = rows
        self.begun = self.ended = 0.0
        self.done = threading.Event()

    def handle(self, event: cdc.Change) -> None:
        if not self.begun:
            self.begun = time.perf_counter()
        event.new["id"]  # type: ignore[index]
        self.left -= 1
        if not self.left:
            self.ended = time.perf_counter()
            self.done.set()


def consumer(subjects: Sequence[cdc.Subject], task: end_to_end.Task, slot: str) -> float:
    """The whole path, to as many subscribers."""
    arrived = Arrived(task.rows)
    each = cdc.Consumer(task.dsn, slot=slot, state=None, rights_interval=60)
    for subject in subjects:
        each.subscribe("wells", arrived.handle, subject=subject)
    with each:
        each.start()
        if not arrived.done.wait(600):
            raise SystemExit(f"{arrived.left} rows have not arrived")
    return arrived.ended - arrived.begun


def paths(server: Sandbox, rows: int, rounds: int, scale: Callable[[int], int]) -> contest.Figures:
    """What `path_…` and `asking` say."""
    figures: contest.Figures = {}
    asked = 0.0
    for subjects in PATHS:
        many = users(scale(subjects))
        with recorded(server, len(many), rows) as (db, dsn, written):
            task = end_to_end.Task(server, dsn, wal.consumers_options(db, dsn), str(cdc.current_lsn(db)), written)
            runs = {"consumer": partial(consumer, many), "recvlogical": end_to_end.recvlogical}

            def one(run: Callable[[end_to_end.Task, str], float], db: Any = db, task: Any = task) -> float:
                with wal.turn(db) as slot:
                    return run(task, slot)

            turns = {name: partial(one, run) for name, run in runs.items()}
            taken = contest.median(contest.take_turns(turns, rounds))
            figures[f"path_{subjects}_changes_per_second"] = contest.short(written / taken["consumer"])
            figures[f"path_{subjects}_ratio"] = round(taken["recvlogical"] / taken["consumer"], 3)
            if subjects == 1000:
                asked = asking(dsn, many, min(SAMPLE, written)) * 1000
                figures["asking_changes_per_second"] = contest.short(1 / asked)
                figures["asking_ratio"] = round(written / taken["consumer"] * asked, 1)
    return figures


def asking(dsn: str, subjects: Sequence[cdc.Subject], sample: int) -> float:
    """Seconds to ask the server whether one subscriber sees one row."""
    with psycopg.connect(dsn) as connection:
        begun = time.perf_counter()
        for number in range(sample):
            subject = subjects[number % len(subjects)]
            with connection.transaction():
                connection.execute(f"SET LOCAL ROLE {subject.role}")  # type: ignore[arg-type]
                connection.execute("SELECT set_config(%s, %s, true)", subject.settings[0])
                connection.execute("SELECT * FROM wells WHERE id = %s", (number,)).fetchall()
        return (time.perf_counter() - begun) / sample


# To come and to go.


def comings(server: Sandbox, rounds: int, scale: Callable[[int], int]) -> contest.Figures:
    """What `subscribe_…`, `close_…` and `subscriber_bytes` say."""
    figures: contest.Figures = {}
    with recorded(server, 1, 100) as (db, dsn, _), cdc.Consumer(dsn, slot=None, rights_interval=60) as each:
        each.start()
        subjects, handler = users(scale(OTHERS[-1])), counter()[0]

        def subscribe(these: Sequence[cdc.Subject]) -> list[cdc.Subscription]:
            return [each.subscribe("wells", handler, subject=subject) for subject in these]

        def settled() -> None:
            """Whoever came has begun."""
            db.execute("UPDATE wells SET name = name WHERE id = 1")
            each.wait_for(cdc.current_lsn(db), timeout=600)
            gc.collect()

        begun: list[cdc.Subscription] = []
        few: dict[str, float] = {}
        for others in OTHERS:
            settled()
            before, since = memory.resident("VmRSS"), time.perf_counter()
            begun += subscribe(subjects[len(begun) : scale(others)])
            took = time.perf_counter() - since
            settled()
            grown = memory.resident("VmRSS") - before
            times: dict[str, list[float]] = {"subscribe": [], "close": []}
            for _ in range(max(3, rounds)):
                at = time.perf_counter()
                made = subscribe(subjects[:SAMPLE])
                times["subscribe"].append((time.perf_counter() - at) / len(made))
                settled()
                at = time.perf_counter()
                for subscription in made:
                    subscription.close()
                times["close"].append((time.perf_counter() - at) / len(made))
                settled()
            for name, taken in times.items():
                middle = statistics.median(taken)
                figures[f"{name}_{others}_microseconds"] = contest.short(middle * 1e6)
                if others == OTHERS[0]:
                    few[name] = middle
                else:
                    figures[f"{name}_{others}_ratio"] = round(middle / few[name], 2)
        figures["subscribing_100000_seconds"] = contest.short(took)
        figures["subscriber_bytes"] = contest.short(grown * (1 << 20) / len(begun))
    return figures


def main() -> None:
    """Measure all; print one table, and one JSON object if asked."""
    parser = contest.options(__doc__ or "", rows=ROWS)
    parser.add_argument("--quick", action="store_true", help=f"the same as --rows {QUICK} --rounds 1")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rows, chosen.rounds = QUICK, 1

    def scale(many: int) -> int:
        return max(1, round(many * min(1.0, chosen.rows / ROWS)))

    with Sandbox(supabase=True, settings={"max_replication_slots": 20}) as server:
        figures = contest.circumstances(server.version) | {"largest_crowd": scale(SUBJECTS[-1])}
        for part in (in_memory, paths):
            print(f"{part.__name__} …", file=sys.stderr, flush=True)
            figures |= part(server, chosen.rows, chosen.rounds, scale)
        figures |= comings(server, chosen.rounds, scale)
    contest.finish(__file__, chosen, parser, figures, TARGETS)


if __name__ == "__main__":
    main()

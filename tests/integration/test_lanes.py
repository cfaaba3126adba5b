"""Queues: a slow handler keeps nobody waiting but itself, nothing is acknowledged too early, nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import QUICK, Running, until
from tests.integration.test_delivery import confirmed

TERMINATE = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active"


class Gate:
    """A handler that counts, and waits at each event until it may go on."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.entered: list[Any] = []
        self.left: list[Any] = []
        self.free = threading.Event()
        self.permits = threading.Semaphore(0)

    def let(self, number: int = 1) -> None:
        """Let so many events pass."""
        for _ in range(number):
            self.permits.release()

    def open(self) -> None:
        """Let all pass from now on."""
        self.free.set()

    @property
    def handler(self) -> Callable[[Any], Any]:
        return self.blocking if self.kind == "blocking" else self.coroutine

    def blocking(self, event: Any) -> None:
        self.entered.append(event)
        while not self.free.is_set() and not self.permits.acquire(timeout=0.01):
            pass
        self.left.append(event)

    async def coroutine(self, event: Any) -> None:
        self.entered.append(event)
        while not self.free.is_set() and not self.permits.acquire(blocking=False):
            await asyncio.sleep(0.005)
        self.left.append(event)


def keys(events: list[Any]) -> list[int]:
    return [event.key for event in events]


def skip_some(db: psycopg.Connection) -> None:
    """Make a gap: let somebody else move the slot."""
    db.execute("INSERT INTO wells SELECT generate_series(1001, 1100)")
    db.execute("SELECT pg_replication_slot_advance('ingest', pg_current_wal_flush_lsn())")


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("cdc")]


def test_a_slow_handler_with_a_queue_keeps_nobody_waiting(kind: str, database: str, db: psycopg.Connection) -> None:
    gate = Gate(kind)
    fast: list[Any] = []

    def both(running: Running) -> None:
        running.on("wells", gate.handler, queue=100)
        running.on("wells", fast.append)

    with Running(kind, database, both) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 50)")
        until(lambda: len(fast) == 50 and gate.entered)
        assert keys(gate.entered) == [1] and not gate.left
        gate.open()
        running.caught_up(db)
        assert keys(gate.left) == list(range(1, 51))


def test_nothing_is_confirmed_or_saved_before_a_queued_handler_has_finished(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    gate = Gate(kind)
    with Running(kind, database, lambda running: running.on("wells", gate.handler, queue=10)) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running_at = cdc.current_lsn(db)
        db.execute("INSERT INTO wells VALUES (2)")
        until(lambda: gate.entered)
        with pytest.raises(TimeoutError):
            running.do(running.consumer.wait_for, running_at, timeout=0.3)
        db.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 2000000))")
        time.sleep(2.5)  # Longer than two saves.
        assert confirmed(db) < running_at
        assert db.execute("SELECT commit_lsn FROM cdc.slots").fetchone() == (None,)
        gate.let()
        running.do(running.consumer.wait_for, running_at)
        until(lambda: confirmed(db) >= gate.left[0].position.commit_lsn)
        assert confirmed(db) <= gate.entered[1].position.commit_lsn
        gate.open()
        running.caught_up(db)
    (saved,) = db.execute("SELECT epoch || ':' || commit_lsn || ':' || ordinal FROM cdc.slots").fetchone() or ()
    assert saved == str(gate.left[1].position)


def test_a_stop_leaves_what_waits_and_it_comes_again(kind: str, database: str, db: psycopg.Connection) -> None:
    gate = Gate(kind)
    with Running(kind, database, lambda running: running.on("wells", gate.handler, queue=10)):
        db.execute("INSERT INTO wells VALUES (1), (2), (3), (4), (5)")
        gate.let(2)
        until(lambda: len(gate.entered) == 3)
        threading.Timer(0.3, gate.let).start()  # The one at hand is finished while the consumer stops.
    assert keys(gate.left) == [1, 2, 3] == keys(gate.entered)
    with Running(kind, database) as again:
        again.caught_up(db)
    assert [(event.key, event.position.ordinal) for event in again.events] == [(4, 4), (5, 5)]


def test_a_full_queue_keeps_the_stream_waiting_and_says_so(kind: str, database: str, db: psycopg.Connection) -> None:
    gate = Gate(kind)
    others: list[Any] = []

    def both(running: Running) -> None:
        running.on("wells", gate.handler, queue=5, name="slow one")
        running.on("wells", others.append)

    with Running(kind, database, both) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 200)")
        until(lambda: running.consumer.health().colour is cdc.Colour.YELLOW and len(gate.entered) == 1)
        until(lambda: "'slow one' is full" in " ".join(running.consumer.health().reasons))
        slow = next(each for each in running.consumer.subscriptions if each.name == "slow one")
        assert 5 <= slow.queued <= 7 and len(others) <= 7
        time.sleep(6)  # Longer than wal_sender_timeout.
        assert running.consumer.health().reconnects == 0
        assert len(others) <= 7
        gate.open()
        running.caught_up(db)
        assert slow.queued == 0
        until(lambda: running.consumer.health().colour is cdc.Colour.GREEN)
    assert keys(gate.left) == keys(others) == list(range(1, 201))


def test_truncates_wait_for_room_too(kind: str, database: str, db: psycopg.Connection) -> None:
    gate = Gate(kind)
    db.execute("CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE PUBLICATION two FOR TABLE a, b")
    with Running(kind, database, lambda it: it.on("*", gate.handler, queue=1), publication="two") as running:
        for _ in range(20):
            db.execute("TRUNCATE a, b")
        until(lambda: running.consumer._loop.lanes.stalled)
        time.sleep(0.3)
        assert running.consumer.subscriptions[0].queued <= 3
        gate.open()
        running.caught_up(db)
    assert len(gate.left) == 40


def test_a_stop_ends_the_wait_for_room(kind: str, database: str, db: psycopg.Connection) -> None:
    gate = Gate(kind)
    with Running(kind, database, lambda running: running.on("wells", gate.handler, queue=2)) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 50)")
        until(lambda: running.consumer._loop.lanes.stalled)
        threading.Timer(0.3, gate.let).start()
        running.do(running.consumer.stop)
    assert keys(gate.left) == [1]
    with Running(kind, database) as again:
        again.caught_up(db)
    assert keys(again.events) == list(range(2, 51))


def test_a_queue_survives_a_lost_connection_without_loss_or_repeat(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    gate = Gate(kind)
    with Running(kind, database, lambda running: running.on("wells", gate.handler, queue=20)) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 10)")
        db.execute("INSERT INTO wells SELECT generate_series(11, 100)")
        until(lambda: running.consumer._loop.lanes.stalled)
        until(lambda: db.execute(TERMINATE).fetchone())
        until(lambda: running.consumer.health().reconnects == 1)
        gate.let(5)
        until(lambda: db.execute(TERMINATE).fetchone())
        until(lambda: running.consumer.health().reconnects == 2)
        gate.let(5)
        gate.open()
        running.caught_up(db)
    assert keys(gate.left) == list(range(1, 101))


def test_a_queued_handler_that_raises_ends_the_consumer(kind: str, database: str, db: psycopg.Connection) -> None:
    seen: list[int] = []

    def fails_at_two(event: cdc.Change) -> None:
        if event.key == 2:
            raise ValueError("no room")
        seen.append(event.key)

    with Running(kind, database, lambda running: running.on("wells", fails_at_two, queue=10)) as running:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        with pytest.raises(cdc.HandlerError, match=r"fails_at_two raised ValueError: no room"):
            running.caught_up(db)
        with pytest.raises(cdc.HandlerError):
            running.do(running.consumer.stop)
    assert seen == [1]
    with Running(kind, database) as again:
        again.caught_up(db)
    assert keys(again.events) == [2, 3]


def test_a_handler_that_raises_while_a_queue_is_full_ends_the_wait(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    go = threading.Event()

    def fails(event: cdc.Change) -> None:
        go.wait(20)
        raise ValueError("no room")

    async def fails_later(event: cdc.Change) -> None:
        await asyncio.to_thread(fails, event)

    handler = fails if kind == "blocking" else fails_later
    with Running(kind, database, lambda running: running.on("wells", handler, queue=1)) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 9)")
        until(lambda: running.consumer._loop.lanes.stalled)
        go.set()
        with pytest.raises(cdc.HandlerError, match="no room"):
            running.caught_up(db)
        with pytest.raises(cdc.HandlerError):
            running.do(running.consumer.stop)


def test_a_queued_handler_that_raises_at_the_end_is_told_of(kind: str, database: str, db: psycopg.Connection) -> None:
    """Its event comes again, and health and the last status change say why it ended so."""
    changes: list[cdc.StatusChange] = []
    at_work, go = threading.Event(), threading.Event()

    def blocking(event: cdc.Change) -> None:
        at_work.set()
        go.wait(20)
        raise ValueError("no room")

    async def coroutine(event: cdc.Change) -> None:
        await asyncio.to_thread(blocking, event)

    def prepare(running: Running) -> None:
        running.on("wells", blocking if kind == "blocking" else coroutine, queue=3)
        running.consumer.on_status(changes.append)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        at_work.wait(20)
        threading.Timer(0.3, go.set).start()
        with pytest.raises(cdc.HandlerError, match="no room") as caught:
            running.do(running.consumer.stop)
        health = running.consumer.health()
        assert changes[-1].error is caught.value and changes[-1].status is cdc.Status.STOPPED
        assert health.failure is not None and "no room" in health.failure.reason
    with Running(kind, database) as again:
        again.caught_up(db)
    assert keys(again.events) == [1]


def test_wait_for_and_stop_inside_a_queued_handler(kind: str, database: str, db: psycopg.Connection) -> None:
    problems: list[str] = []

    def blocking(event: cdc.Change) -> None:
        try:
            running.consumer.wait_for("0/1")
        except cdc.ConfigurationError as error:
            problems.append(str(error))
        running.consumer.stop()

    async def coroutine(event: cdc.Change) -> None:
        try:
            await running.consumer.wait_for("0/1")
        except cdc.ConfigurationError as error:
            problems.append(str(error))
        await running.consumer.stop()

    handler = blocking if kind == "blocking" else coroutine
    with Running(kind, database, lambda running: running.on("wells", handler, queue=10)) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    assert "wait for itself" in problems[0]
    with Running(kind, database) as again:
        again.caught_up(db)
    assert again.events == []  # It returned, so it was acknowledged.


def test_a_closed_subscription_forgets_what_waits(kind: str, database: str, db: psycopg.Connection) -> None:
    gate = Gate(kind)
    with Running(kind, database) as running:
        subscription = running.subscribe("wells", gate.handler, queue=10)
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        until(lambda: gate.entered and subscription.queued == 3)
        subscription.close()
        gate.open()
        running.caught_up(db)
        assert keys(gate.left) == [1] and subscription.queued == 0
        until(lambda: not running.consumer._loop.progress.lanes)


def test_no_thread_is_left_behind(kind: str, database: str, db: psycopg.Connection) -> None:
    before = threads()
    with Running(kind, database, lambda running: running.on("wells", running.events.append, queue=10)) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert len(threads()) > len(before)
    until(lambda: threads() == before)


def test_a_handler_that_never_returns_does_not_keep_close(
    kind: str, database: str, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cdc.lanes._GRACE", 0.5)
    gate = Gate(kind)
    with Running(kind, database, lambda running: running.on("wells", gate.handler, queue=10)):
        db.execute("INSERT INTO wells VALUES (1)")
        until(lambda: gate.entered)
    gate.open()
    with Running(kind, database) as again:
        again.caught_up(db)
    assert keys(again.events) == [1]


def test_a_gap_and_a_schema_change_take_their_place_in_a_queue(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    gate = Gate(kind)
    with Running(kind, database, lambda running: running.on("wells", gate.handler, queue=10), on_gap="deliver") as one:
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("ALTER TABLE wells ADD COLUMN more int")
        db.execute("INSERT INTO wells VALUES (2)")
        gate.open()
        one.caught_up(db)
    assert [type(event).__name__ for event in gate.left] == ["Insert", "SchemaChange", "Insert"]
    skip_some(db)
    late = Gate(kind)
    with Running(kind, database, lambda running: running.on("wells", late.handler, queue=10), on_gap="deliver") as two:
        until(lambda: late.entered)
        db.execute("INSERT INTO wells VALUES (3)")
        saved = db.execute("SELECT epoch FROM cdc.slots").fetchone()
        time.sleep(2.5)  # Longer than two saves.
        assert db.execute("SELECT epoch FROM cdc.slots").fetchone() == saved
        assert [type(event).__name__ for event in late.entered] == ["Gap"]
        late.open()
        two.caught_up(db)
    assert [type(event).__name__ for event in late.left] == ["Gap", "Insert"]


def test_a_gap_that_a_handler_refused_comes_again(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database):
        pass
    skip_some(db)

    def refuses(event: cdc.Event) -> None:
        raise ValueError("not now")

    for queue in (None, 5):
        with (
            pytest.raises(cdc.HandlerError),
            Running(
                kind, database, lambda running, queue=queue: running.on("wells", refuses, queue=queue), on_gap="deliver"
            ) as running,
        ):
            until(lambda running=running: running.consumer.health().status is cdc.Status.STOPPED)
    with Running(kind, database, on_gap="deliver") as again:
        until(lambda: again.events)
    assert isinstance(again.events[0], cdc.Gap)


def test_kill_minus_nine_with_a_full_queue_loses_nothing(database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    program, output = tmp_path / "program.py", tmp_path / "keys"
    program.write_text(
        textwrap.dedent(
            """
            import sys, time, cdc
            file = open(sys.argv[2], "a")
            consumer = cdc.Consumer(sys.argv[1], slot="ingest")
            @consumer.on("wells", queue=50)
            def append(event):
                time.sleep(0.002)
                print(event.position, event.key, file=file, flush=True)
            @consumer.on("wells", queue=7, batch=4)
            def other(events):
                time.sleep(0.001)
            consumer.run()
            """
        )
    )
    arguments = [sys.executable, str(program), database, str(output)]
    first = subprocess.Popen(arguments)
    until(lambda: db.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'ingest'").fetchone())
    for number in range(100):
        db.execute("INSERT INTO wells SELECT %s * 10 + n FROM generate_series(0, 9) n", (number,))
    until(lambda: output.exists() and len(output.read_text().splitlines()) > 300)
    first.send_signal(signal.SIGKILL)
    first.wait()
    second = subprocess.Popen(arguments)
    try:
        until(lambda: output.read_text().rstrip().endswith(" 999"), timeout=60)
    finally:
        second.terminate()
        second.wait()
    by_position = {line.split()[0]: int(line.split()[1]) for line in output.read_text().splitlines() if line}
    assert list(by_position.values()) == list(range(1000))


def test_a_queued_handler_that_returns_an_awaitable_is_told_where_it_belongs(
    database: str, db: psycopg.Connection
) -> None:
    async def coroutine(event: cdc.Change) -> None: ...

    with cdc.Consumer(database, slot="ingest", backoff=QUICK) as consumer:
        consumer.subscribe("wells", lambda event: coroutine(event), queue=3)
        consumer.start()
        db.execute("INSERT INTO wells VALUES (1)")
        with pytest.raises(cdc.HandlerError, match="use AsyncConsumer"):
            consumer.wait_for(cdc.current_lsn(db))
        with pytest.raises(cdc.HandlerError):
            consumer.stop()


@pytest.mark.parametrize("options", [{}, {"queue": 3}], ids=["on the loop", "in a queue"])
def test_a_close_during_a_stop_waits_for_the_handler_and_the_save(
    database: str, db: psycopg.Connection, options: Any
) -> None:
    """Two tasks may end an AsyncConsumer at once, and a handler may, too."""
    gate = Gate("asyncio")
    inside: list[str] = []

    async def handler(event: Any) -> None:
        await gate.coroutine(event)
        await running.consumer.close()
        inside.append("closed")

    with Running("asyncio", database, lambda running: running.on("wells", handler, **options)) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        until(lambda: gate.entered)
        consumer = running.consumer
        ends = [asyncio.run_coroutine_threadsafe(end(), running._loop) for end in (consumer.stop, consumer.close)]
        time.sleep(0.3)
        assert not any(end.done() for end in ends)
        gate.open()
        for end in ends:
            end.result(20)
    assert inside == ["closed"]
    with Running("asyncio", database) as again:
        again.caught_up(db)
    assert again.events == []


def test_lanes_that_begin_and_end_on_several_threads_are_all_known() -> None:
    """One that is not would hold back nothing: its events would be confirmed before they are finished."""
    consumer = cdc.Consumer("", slot="ingest")
    lanes = consumer._loop.lanes

    def begin() -> list[Any]:
        return [consumer.events("wells", name=f"loop {number}") for number in range(500)]

    def forget() -> None:
        for number in range(500):
            subscription = consumer._iterated("wells", {"name": f"other {number}"})
            assert subscription.lane is not None
            lanes.begin(subscription, subscription.lane)
            lanes._forget(subscription.lane)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            begun, _ = pool.submit(begin), pool.submit(forget)
            kept = begun.result()
    finally:
        sys.setswitchinterval(interval)
    assert len(lanes._progress.lanes) == len(kept) == 500

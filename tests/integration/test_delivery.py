"""Nothing is lost and nothing comes twice without need: handlers that fail, stops, restarts, slow handlers."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psycopg
import pytest

import cdc
from tests.harness import QUICK, Running, until


def confirmed(db: psycopg.Connection, slot: str = "ingest") -> cdc.Lsn:
    row = db.execute(
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (slot,)
    ).fetchone()
    assert row is not None
    return cdc.Lsn.parse(row[0])


def test_a_restart_goes_on_without_loss_and_without_repeat(kind: str, database: str, db: psycopg.Connection) -> None:
    keys = []
    for number in range(3):
        db.execute("INSERT INTO wells VALUES (%s)", (2 * number + 100,)) if number else None
        with Running(kind, database) as running:
            db.execute("INSERT INTO wells VALUES (%s)", (2 * number + 101,))
            running.caught_up(db)
        keys += [event.key for event in running.events]
    assert keys == [101, 102, 103, 104, 105]


def test_a_clean_stop_confirms_the_position(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        committed = cdc.current_lsn(db)
        running.caught_up(db)
    assert confirmed(db) >= committed
    (saved,) = db.execute("SELECT epoch || ':' || commit_lsn || ':' || ordinal FROM cdc.slots").fetchone() or ()
    assert saved == str(running.events[-1].position)


def test_a_raising_handler_stops_the_consumer_and_the_change_comes_again(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    seen = []

    def fails_at_two(event: cdc.Change) -> None:
        if event.key == 2:
            raise ValueError("no room")
        seen.append(event.key)

    with Running(kind, database, lambda running: running.on("wells", fails_at_two)) as running:
        db.execute("INSERT INTO wells VALUES (1), (2), (3)")
        with pytest.raises(cdc.HandlerError, match=r"fails_at_two raised ValueError: no room") as caught:
            running.caught_up(db)
        assert isinstance(caught.value.__cause__, ValueError)
        assert running.consumer.health().colour is cdc.Colour.RED
        with pytest.raises(cdc.HandlerError):
            running.do(running.consumer.stop)
    assert seen == [1]
    with Running(kind, database) as again:
        again.caught_up(db)
    assert [event.key for event in again.events] == [2, 3]


def test_a_stop_inside_a_transaction_resumes_inside_it(kind: str, database: str, db: psycopg.Connection) -> None:
    seen: list[int] = []

    def stops_at_two(running: Running) -> None:
        def handler(event: cdc.Change) -> None:
            seen.append(event.key)
            if event.key == 2:
                running.consumer._loop.link.is_stopping = True

        running.on("wells", handler)

    with Running(kind, database, stops_at_two) as running:
        db.execute("INSERT INTO wells VALUES (1), (2), (3), (4)")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    with Running(kind, database) as again:
        again.caught_up(db)
    assert seen == [1, 2]
    assert [(event.key, event.position.ordinal) for event in again.events] == [(3, 3), (4, 4)]


def test_stop_inside_a_handler_is_fine_and_wait_for_raises(database: str, db: psycopg.Connection) -> None:
    problems: list[Exception] = []
    consumer = cdc.Consumer(database, slot="ingest")

    @consumer.on("wells")
    def handler(event: cdc.Change) -> None:
        try:
            consumer.wait_for("0/1")
        except cdc.ConfigurationError as error:
            problems.append(error)
        consumer.stop()

    with consumer:
        db.execute("INSERT INTO wells VALUES (1)")
        consumer.run()
    assert "wait for itself" in str(problems[0])


def test_wait_for_times_out_with_what_is_known(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running, pytest.raises(TimeoutError, match=r"FFFF/0 was not handled within 0\.2 s"):
        running.do(running.consumer.wait_for, cdc.Lsn.parse("FFFF/0"), timeout=0.2)


def test_wait_for_returns_for_writes_that_are_not_published(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE elsewhere (id int)")
    with Running(kind, database) as running:
        for _ in range(5):
            db.execute("INSERT INTO elsewhere VALUES (1)")
            running.caught_up(db)
        db.execute("SET synchronous_commit = off")
        for number in range(200):
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
        running.caught_up(db)
    assert len(running.events) == 200


def test_a_handler_slower_than_the_sender_timeout_keeps_the_connection(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """wal_sender_timeout is 4 s here; the handler blocks its thread, the event loop's too, for 9 s."""

    def slow(event: cdc.Change) -> None:
        if event.key == 1:
            time.sleep(9)

    def both(running: Running) -> None:
        running.on("wells", slow)
        running.on("wells", running.events.append)

    with Running(kind, database, both) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db, timeout=30)
        assert running.consumer.health().reconnects == 0
    assert [event.key for event in running.events] == [1, 2]


def test_nothing_is_confirmed_before_its_handler_returned(kind: str, database: str, db: psycopg.Connection) -> None:
    entered, leave = threading.Event(), threading.Event()

    def blocks(event: cdc.Change) -> None:
        entered.set()
        leave.wait(30)

    with Running(kind, database, lambda running: running.on("wells", blocks)) as running:
        before = cdc.current_lsn(db)
        db.execute("INSERT INTO wells VALUES (1)")
        committed = cdc.current_lsn(db)
        assert entered.wait(20)
        db.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 2000000))")
        time.sleep(3)  # longer than two status updates
        assert confirmed(db) <= before
        leave.set()
        running.caught_up(db)
        until(lambda: confirmed(db) >= committed)


def test_a_quiet_publication_holds_back_no_wal(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE elsewhere (id int, fill text)")
    with Running(kind, database):
        db.execute("INSERT INTO elsewhere SELECT n, repeat('x', 200) FROM generate_series(1, 20000) n")
        written = cdc.current_lsn(db)
        until(lambda: confirmed(db) >= written - (1 << 20))


def test_an_idle_consumer_does_not_feed_itself(kind: str, database: str, db: psycopg.Connection) -> None:
    """Each save of the position makes WAL; that alone must not cause the next save."""
    db.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    with Running(kind, database, publication="everything") as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        saves = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'slots'"
        time.sleep(2.5)
        db.execute("SELECT pg_stat_force_next_flush()") if db.info.server_version >= 150000 else None
        before = db.execute(saves).fetchone()
        time.sleep(3)
        assert db.execute(saves).fetchone() == before


def test_kill_minus_nine_loses_nothing(database: str, db: psycopg.Connection, tmp_path: Path) -> None:
    """An append-only file as handler, killed in the middle of a load, started again: every change is there."""
    program, output = tmp_path / "program.py", tmp_path / "keys"
    program.write_text(
        textwrap.dedent(
            """
            import sys, cdc
            file = open(sys.argv[2], "a")
            consumer = cdc.Consumer(sys.argv[1], slot="ingest")
            @consumer.on("wells")
            def append(event):
                print(event.position, event.key, file=file, flush=True)
            consumer.run()
            """
        )
    )
    arguments = [sys.executable, str(program), database, str(output)]
    first = subprocess.Popen(arguments)
    until(lambda: db.execute("SELECT 1 FROM pg_replication_slots WHERE slot_name = 'ingest'").fetchone())
    for number in range(300):
        db.execute("INSERT INTO wells SELECT %s * 10 + n FROM generate_series(0, 9) n", (number,))
        if number == 150:
            until(lambda: output.exists() and output.stat().st_size)
            first.send_signal(signal.SIGKILL)
            first.wait()
    second = subprocess.Popen(arguments)
    try:
        until(lambda: output.read_text().rstrip().endswith(" 2999"), timeout=60)
    finally:
        second.terminate()
        second.wait()
    lines = output.read_text().splitlines()
    by_position = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert list(by_position.values()) == list(range(3000))


def test_subscriptions_come_and_go_between_transactions(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        late: list[cdc.Event] = []
        subscription = running.subscribe("wells", late.append)
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
        subscription.close()
        subscription.close()
        db.execute("INSERT INTO wells VALUES (3)")
        running.caught_up(db)
        assert subscription not in running.consumer.subscriptions
        assert subscription.delivered == 1
    assert [event.key for event in running.events] == [1, 2, 3]
    assert [(event.key, event.previous) for event in late] == [(2, None)]


def test_a_subscription_may_be_closed_by_its_own_handler(kind: str, database: str, db: psycopg.Connection) -> None:
    seen: list[int] = []
    with Running(kind, database) as running:

        def once(event: cdc.Change) -> None:
            seen.append(event.key)
            subscription.close()

        subscription = running.subscribe("wells", once)
        db.execute("INSERT INTO wells VALUES (1), (2)")
        running.caught_up(db)
    assert seen == [1] and len(running.events) == 2


def test_coroutine_handlers(database: str, db: psycopg.Connection) -> None:
    seen: list[int] = []

    async def handler(event: cdc.Change) -> None:
        import asyncio

        await asyncio.sleep(0.001)
        seen.append(event.key)

    with Running("asyncio", database, lambda running: running.on("wells", handler)) as running:
        db.execute("INSERT INTO wells SELECT generate_series(1, 50)")
        running.caught_up(db)
    assert seen == list(range(1, 51))
    with pytest.raises(cdc.ConfigurationError, match="use AsyncConsumer"):
        cdc.Consumer(database, slot="x").subscribe("wells", handler)


def test_everything_is_given_back(kind: str, database: str, db: psycopg.Connection) -> None:
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cdc' AND datname = current_database()"
    threads = threading.active_count()
    with Running(kind, database, slot=None, backoff=QUICK) as running:
        cache = running.consumer.cache("wells", ttl=60)
        running.do(cache.fetch, 1, lambda connection, key: connection.execute("SELECT 1").fetchone())
        (open_now,) = db.execute(mine).fetchone() or (0,)
        assert open_now == 3
    until(lambda: db.execute(mine).fetchone() == (0,))
    assert db.execute("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()").fetchone() == (
        0,
    )
    until(lambda: threading.active_count() <= threads)


def test_a_forked_child_gets_a_clear_error(database: str, db: psycopg.Connection) -> None:
    program = textwrap.dedent(
        """
        import os, sys, cdc
        consumer = cdc.Consumer(sys.argv[1], slot=None)
        if os.fork() == 0:
            try:
                consumer.start()
            except cdc.ConfigurationError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
        """
    )
    result = subprocess.run([sys.executable, "-c", program, database], capture_output=True, text=True, timeout=60)
    assert "belongs to the process that made it" in result.stdout

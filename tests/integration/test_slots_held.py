"""Whoever holds a slot, and what the server has too few of: waiting, and errors that name the holder and the remedy."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from typing import Any

import psycopg
import pytest

import cdc
from cdc.connection import ReplicationConnection
from cdc.testing import Sandbox
from tests.harness import QUICK, SETUP, Running, until
from tests.proxy import Proxy


def position_of(db: psycopg.Connection) -> Any:
    return db.execute("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'ingest'").fetchone()


def waits(consumer: Any) -> bool:
    return any("waits for slot 'ingest', which process" in reason for reason in consumer.health().reasons)


def in_background(running: Running) -> threading.Thread:
    """Start a consumer on a thread, since that waits for the slot."""
    running._prepare(running)
    thread = threading.Thread(target=running.do, args=(running.consumer.start,), daemon=True)
    thread.start()
    return thread


def test_a_second_consumer_waits_until_the_first_lets_the_slot_go(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """A rolling deployment: nothing is lost and nothing comes twice."""
    second = Running(kind, database, wait_for_slot=60)
    with Running(kind, database) as first:
        db.execute("INSERT INTO wells VALUES (1)")
        first.caught_up(db)
        thread = in_background(second)
        until(lambda: waits(second.consumer))
        assert second.consumer.health().colour is cdc.Colour.RED
        db.execute("INSERT INTO wells VALUES (2)")
        first.caught_up(db)
    thread.join(20)
    db.execute("INSERT INTO wells VALUES (3)")
    second.caught_up(db)
    assert not waits(second.consumer)
    second.__exit__()
    assert [event.key for event in (*first.events, *second.events)] == [1, 2, 3]


def test_a_busy_slot_is_refused_and_its_holder_named(kind: str, database: str, db: psycopg.Connection) -> None:
    dsn = psycopg.conninfo.make_conninfo(database, application_name="pump 7")
    with Running(kind, dsn) as first:
        first.caught_up(db)
        (pid,) = db.execute("SELECT active_pid FROM pg_replication_slots WHERE active").fetchone() or (0,)
        before = position_of(db)
        with (
            pytest.raises(
                cdc.SlotError,
                match=rf"in use by process {pid} of the server \(application 'pump 7', from 127.0.0.1, since .*"
                r"wait_for_slot=SECONDS",
            ),
            Running(kind, database, wait_for_slot=0),
        ):
            pass
        assert position_of(db) == before
        db.execute("INSERT INTO wells VALUES (1)")
        first.caught_up(db)
    assert [event.key for event in first.events] == [1]


def test_stop_ends_the_wait(kind: str, database: str, db: psycopg.Connection) -> None:
    second = Running(kind, database, wait_for_slot=3600)
    with Running(kind, database) as first:
        first.caught_up(db)
        thread = in_background(second)
        until(lambda: waits(second.consumer))
        second.do(second.consumer.stop)
        thread.join(20)
        assert not thread.is_alive()
        second.__exit__()
        assert second.consumer.health().status is cdc.Status.STOPPED


def test_stop_ends_the_wait_of_a_consumer_that_connects_again(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy:
        dsn = psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port=proxy.port)
        running = Running(kind, dsn, wait_for_slot=3600)
        with running:
            running.caught_up(db)
            proxy.refuse()
            proxy.cut()
            until(lambda: not db.execute("SELECT 1 FROM pg_replication_slots WHERE active").fetchone())
            with Running(kind, database) as other:
                other.caught_up(db)
                proxy.refuse(False)
                until(lambda: waits(running.consumer))
                assert running.consumer.health().status is cdc.Status.CONNECTING
                running.do(running.consumer.stop)
        assert running.consumer.health().status is cdc.Status.STOPPED


def test_ctrl_c_ends_the_wait(database: str, db: psycopg.Connection) -> None:
    program = textwrap.dedent(
        """
        import sys, cdc
        consumer = cdc.Consumer(sys.argv[1], slot="ingest", wait_for_slot=float("inf"))
        print("waits", flush=True)
        consumer.run()
        """
    )
    with Running("blocking", database) as first:
        first.caught_up(db)
        process = subprocess.Popen(
            [sys.executable, "-c", program, database], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None and process.stdout.readline() == "waits\n"
        senders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"
        until(lambda: db.execute(senders).fetchone() == (2,))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert "KeyboardInterrupt" in error


def test_a_cancelled_start_does_not_take_the_slot_later(database: str, db: psycopg.Connection) -> None:
    """The thread that waits for the slot outlives the task; it must not become a reader that nobody knows of."""
    second = Running("asyncio", database, wait_for_slot=60)
    with Running("blocking", database) as first:
        first.caught_up(db)
        import asyncio

        task = asyncio.run_coroutine_threadsafe(second.consumer.start(), second._loop)
        until(lambda: waits(second.consumer))
        task.cancel()
        until(lambda: not waits(second.consumer))
    senders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND datname = current_database()"
    until(lambda: db.execute(senders).fetchone() == (0,))
    second.__exit__()


def test_our_own_ghost_is_ended(kind: str, server: Sandbox, database: str, db: psycopg.Connection) -> None:
    """A connection that the network has swallowed still holds the slot when we come back."""
    with Proxy(server.port) as proxy:
        dsn = psycopg.conninfo.make_conninfo(database, host="127.0.0.1", port=proxy.port)
        with Running(kind, dsn, backoff=QUICK, wait_for_slot=0) as running:
            running.caught_up(db)
            # Our side sees an end; the server's side stays open.
            running.consumer._loop.link.session.abort()
            db.execute("INSERT INTO wells VALUES (1)")
            running.caught_up(db)
            assert running.consumer.health().reconnects >= 1
    assert [event.key for event in running.events] == [1]


def test_no_walsender_left_on_the_server(kind: str) -> None:
    with Sandbox(settings={"max_wal_senders": 1}) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int); CREATE PUBLICATION wells FOR TABLE wells")
        holder = ReplicationConnection(server.dsn)
        try:
            with (
                pytest.raises(cdc.ConnectionFailed, match="no connection left: .*raise max_wal_senders"),
                Running(kind, server.dsn),
            ):
                pass
        finally:
            holder.close()
        with Running(kind, server.dsn) as running:
            running.caught_up(db)


@pytest.mark.parametrize("seconds", [-1, "5", None, True, float("nan")])
def test_a_wait_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(cdc.ConfigurationError, match="wait_for_slot is a number of seconds"):
        cdc.Consumer("", slot="ingest", wait_for_slot=seconds)


# Failover slots.


def test_a_failover_slot(kind: str, database: str, db: psycopg.Connection) -> None:
    """Made so, and made so afterwards; before 17 there is no such thing."""
    is_failover = "SELECT to_jsonb(s) ->> 'failover' FROM pg_replication_slots s WHERE slot_name = 'ingest'"
    if db.info.server_version < 170000:
        with pytest.raises(cdc.ConfigurationError, match="failover=True needs PostgreSQL 17, and this is"):
            Running(kind, database, failover=True).__enter__()
        return
    with Running(kind, database) as running:
        running.caught_up(db)
    assert db.execute(is_failover).fetchone() == ("false",)
    for number in (1, 2):
        with Running(kind, database, failover=True) as running:
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
            running.caught_up(db)
        assert [event.key for event in running.events] == [number]
        assert db.execute(is_failover).fetchone() == ("true",)
        if number == 1:
            db.execute("SELECT pg_drop_replication_slot('ingest')")
            db.execute("DELETE FROM cdc.slots")


def test_a_temporary_slot_cannot_fail_over() -> None:
    with pytest.raises(cdc.ConfigurationError, match="failover=True needs a named slot"):
        cdc.Consumer("", slot=None, failover=True)
    with pytest.raises(cdc.ConfigurationError, match="failover is True or False"):
        cdc.Consumer("", slot="ingest", failover="yes")  # type: ignore[arg-type]

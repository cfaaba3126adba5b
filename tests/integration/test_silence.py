"""The server falls silent while a session is opened; and servers that are only slow, which is something else."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import cdc
from cdc.connection import ReplicationConnection, connect, connection_string
from cdc.testing import Sandbox
from cdc.witness import Witness
from tests.harness import QUICK, Running, until
from tests.proxy import Proxy

SILENT = "does not answer any more"
UNANSWERED = f"{SILENT}|timeout expired"
"""A question or, as each connection begins with several messages to and fro, a connection."""


def through(proxy: Proxy, dsn: str, patience: int = 2) -> str:
    return make_conninfo(dsn, host="127.0.0.1", port=proxy.port, connect_timeout=patience)


def reasons(running: Running) -> list[str]:
    return [failure.reason for failure in running.consumer.health().failures]


@pytest.mark.parametrize("answers", [3, 5, 6, 12, 17])
def test_a_server_that_falls_silent_while_the_consumer_connects_again(
    kind: str, answers: int, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    """Every connection still looks open, and carries nothing any more."""
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database)) as running:
        running.caught_up(db)
        proxy.lose_server_after(answers)
        proxy.cut()
        until(lambda: not proxy.is_about_to_lose)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db, timeout=40)
        *_, silent = running.consumer.health().failures
        assert silent.attempt == 1 and silent.kind is cdc.FailureKind.NETWORK
        assert re.search(UNANSWERED, silent.reason)
    assert [event.key for event in running.events] == [1]


@pytest.mark.parametrize("answers", [3, 5, 9])
def test_a_server_that_falls_silent_while_the_consumer_connects_first(
    kind: str, answers: int, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy:
        proxy.lose_server_after(answers)
        with pytest.raises(cdc.ConnectionFailed, match=UNANSWERED) as caught, Running(kind, through(proxy, database)):
            pass
    assert caught.value.failure is cdc.FailureKind.NETWORK


def test_a_network_that_is_gone_while_the_consumer_connects_again(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    """Nobody can be asked about the question that has no answer."""
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database)) as running:
        running.caught_up(db)
        proxy.lose_server_after(5)
        proxy.cut()
        until(lambda: not proxy.is_about_to_lose)
        proxy.fall_silent()
        until(lambda: any(re.search(UNANSWERED, reason) for reason in reasons(running)))
        proxy.speak()
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert [event.key for event in running.events] == [1]


@pytest.mark.parametrize("answers", [3, 6])
def test_a_stop_while_the_server_is_silent_ends(
    kind: str, answers: int, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database, patience=5)) as running:
        running.caught_up(db)
        proxy.lose_server_after(answers)
        proxy.cut()
        until(lambda: not proxy.is_about_to_lose)
    assert running.consumer.health().status is cdc.Status.STOPPED


def test_a_slot_that_waits_for_transactions_is_not_silence(kind: str, database: str, db: psycopg.Connection) -> None:
    """It takes longer than an answer may take; the server says that it is at work."""
    with psycopg.connect(database) as other:
        other.execute("INSERT INTO wells VALUES (1)")
        timer = threading.Timer(5, other.commit)
        timer.start()
        with Running(kind, make_conninfo(database, connect_timeout=2)) as running:
            timer.join()
            db.execute("INSERT INTO wells VALUES (2)")
            running.caught_up(db)
    assert [event.key for event in running.events] == [2]


def test_a_stop_while_a_slot_waits_for_transactions_leaves_none(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Nor a process of the server that would hold it once it is made."""
    walsenders = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE_REP%'"

    def count() -> Any:
        return db.execute(walsenders).fetchone()

    running = Running(kind, database, lambda running: running.on("wells", running.events.append))
    with psycopg.connect(database) as other:
        other.execute("INSERT INTO wells VALUES (1)")
        opening = threading.Thread(target=running.__enter__)
        opening.start()
        until(lambda: count() == (1,))
        running.do(running.consumer.stop)
        opening.join(20)
        assert not opening.is_alive()
        until(lambda: count() == (0,))
    running.__exit__()
    slots = db.execute("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()").fetchone()
    assert slots == (0,)


def test_a_lock_is_not_silence(kind: str, database: str, db: psycopg.Connection) -> None:
    """A catalog that is locked for longer than an answer may take."""
    with psycopg.connect(database) as other:
        other.execute("LOCK pg_publication")
        timer = threading.Timer(4, other.commit)
        timer.start()
        with Running(kind, make_conninfo(database, connect_timeout=2)) as running:
            timer.join()
            db.execute("INSERT INTO wells VALUES (1)")
            running.caught_up(db)
    assert [event.key for event in running.events] == [1]


def test_a_server_that_stands_still(kind: str) -> None:
    """Its postmaster is stopped: the system takes connections, and nobody says a word over them."""
    with Sandbox() as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE PUBLICATION wells FOR TABLE wells")
        with Running(kind, make_conninfo(server.dsn, connect_timeout=2), state=None, backoff=QUICK) as running:
            running.caught_up(db)
            os.kill(server.server_pid, signal.SIGSTOP)
            try:
                db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
                until(lambda: running.consumer.health().attempts >= 1)
            finally:
                os.kill(server.server_pid, signal.SIGCONT)
            db.execute("INSERT INTO wells VALUES (1)")
            running.caught_up(db)
    assert [event.key for event in running.events] == [1]


@pytest.mark.parametrize("way", ["ordinary", "walsender"])
def test_an_answer_that_is_lost_is_told_from_one_that_takes_long(way: str, database: str) -> None:
    """A process that is at work may be; one that waits for the next question has answered, or never got this one."""
    witness = Witness(make_conninfo(database, connect_timeout=1), lambda: False)
    with connect(database, witness.of_ordinary) as ordinary:
        witness.ordinary = ordinary
        assert ordinary.execute("SELECT 1 FROM pg_sleep(2.5)").fetchone() == (1,)
        walsender = ReplicationConnection(database, witness.of_walsender)
        assert walsender.query("SELECT 1 FROM pg_sleep(2.5)") == [("1",)]
        pid = ordinary.info.backend_pid if way == "ordinary" else walsender.process_id
        with psycopg.connect(database, autocommit=True) as db:
            state = db.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
        assert state == ("idle",)
        question = (witness.of_ordinary if way == "ordinary" else witness.of_walsender)(
            ordinary.pgconn if way == "ordinary" else walsender._pgconn
        )
        time.sleep(1)
        with pytest.raises(cdc.ConnectionFailed, match=SILENT):
            until(lambda: question.look())
        walsender.close()


def test_a_server_without_a_connection_to_spare_is_not_silent_at_once(database: str, db: psycopg.Connection) -> None:
    """Whether it is at work cannot be told; then it may take longer."""
    db.execute("CREATE ROLE single LOGIN CONNECTION LIMIT 1 PASSWORD 'wells'")
    try:
        dsn = make_conninfo(database, user="single", password="wells", connect_timeout=1)
        with closing(connect(dsn, Witness(dsn, lambda: False).of_ordinary)) as connection:
            assert connection.execute("SELECT 1 FROM pg_sleep(2.5)").fetchone() == (1,)
            with pytest.raises(cdc.ConnectionFailed, match=SILENT):
                connection.execute("SELECT 1 FROM pg_sleep(30)")
    finally:
        db.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'single'")
        db.execute("DROP ROLE single")


def test_the_network_is_watched_unless_the_dsn_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    given = psycopg.conninfo.conninfo_to_dict(connection_string("host=db keepalives_idle=5"))
    assert (given["keepalives_idle"], given["tcp_user_timeout"], given["connect_timeout"]) == ("5", "30000", "10")
    assert "tcp_user_timeout" not in connection_string("service=wells")
    monkeypatch.setenv("PGSERVICE", "wells")
    assert "tcp_user_timeout" not in connection_string("host=db")

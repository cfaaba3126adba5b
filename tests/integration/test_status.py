"""Status events, health while the connection is lost, and caches that do not serve what they cannot vouch for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import cdc
from cdc import FailureKind, Status
from cdc.reconnect import History
from cdc.testing import Sandbox
from tests.harness import QUICK, SETUP, Running, until
from tests.proxy import Proxy

OFFLINE, CONNECTING, CATCHING_UP, LIVE, STOPPED = (
    Status.OFFLINE,
    Status.CONNECTING,
    Status.CATCHING_UP,
    Status.LIVE,
    Status.STOPPED,
)


def through(proxy: Proxy, dsn: str) -> str:
    return make_conninfo(dsn, host="127.0.0.1", port=proxy.port)


def telling(changes: list[cdc.StatusChange]) -> Callable[[Running], None]:
    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.consumer.on_status(changes.append)

    return prepare


def test_status_changes_are_told_in_order(kind: str, server: Sandbox, database: str, db: psycopg.Connection) -> None:
    changes: list[cdc.StatusChange] = []
    before = datetime.now(UTC)
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database), telling(changes)) as running:
        running.caught_up(db)
        until(lambda: changes[-1].status is LIVE)
        proxy.cut()
        until(lambda: len(changes) == 5)
    assert [change.status for change in changes] == [CATCHING_UP, LIVE, CONNECTING, CATCHING_UP, LIVE, STOPPED]
    assert [change.previous for change in changes] == [OFFLINE, *(change.status for change in changes[:-1])]
    assert before <= changes[0].at and changes == sorted(changes, key=lambda change: change.at)
    lost = changes[2]
    assert lost.failure is not None and lost.failure.kind is FailureKind.NETWORK
    assert isinstance(lost.error, cdc.ConnectionFailed) and str(lost.error) == lost.failure.reason
    assert all(change.failure is change.error is None for change in changes if change is not lost)


def test_status_handlers_are_called_where_the_others_are(kind: str, database: str, db: psycopg.Connection) -> None:
    """In the consumer's own thread, or in its event loop's."""
    threads: set[int] = set()

    def prepare(running: Running) -> None:
        running.on("wells", lambda event: threads.add(threading.get_ident()))
        running.consumer.on_status(lambda change: threads.add(threading.get_ident()))

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert len(threads) == 1 and threading.get_ident() not in threads


def test_the_last_change_carries_the_failure(kind: str, database: str, db: psycopg.Connection) -> None:
    changes: list[cdc.StatusChange] = []

    def fails(event: cdc.Change) -> None:
        raise ValueError("no room")

    def prepare(running: Running) -> None:
        running.on("wells", fails)
        running.consumer.on_status(changes.append)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        until(lambda: running.consumer.health().status is STOPPED)
        with pytest.raises(cdc.HandlerError) as caught:
            running.do(running.consumer.stop)
        failure = running.consumer.health().failure
    assert changes[-1].status is STOPPED and changes[-1].error is caught.value
    assert failure is not None and changes[-1].failure == failure == running.consumer.health().failures[-1]
    assert failure.kind is FailureKind.HANDLER and "no room" in failure.reason
    assert failure.reason in running.consumer.health().reasons


def test_a_status_handler_that_raises_ends_nothing(
    kind: str, database: str, db: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    changes: list[cdc.StatusChange] = []

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)

        @running.consumer.on_status
        def fails(change: cdc.StatusChange) -> None:
            raise ValueError("no room")

        running.consumer.on_status(changes.append)

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert len(running.events) == 1 and [change.status for change in changes] == [CATCHING_UP, LIVE, STOPPED]
    assert sum("status.handler_failed" in record.getMessage() for record in caplog.records) == 3


def test_a_status_handlers_own_cancellation_ends_nothing(database: str, db: psycopg.Connection) -> None:
    """As when it awaits something that somebody else has cancelled."""

    async def awaits_a_cancelled_one(change: cdc.StatusChange) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.consumer.on_status(awaits_a_cancelled_one)

    with Running("asyncio", database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert len(running.events) == 1


def test_coroutine_functions_hear_of_the_status(database: str, db: psycopg.Connection) -> None:
    seen: list[Status] = []

    async def slow(change: cdc.StatusChange) -> None:
        await asyncio.sleep(0.01)
        seen.append(change.status)

    def prepare(running: Running) -> None:
        running.on("wells", lambda event: seen.append(event.key))
        running.consumer.on_status(slow)

    with Running("asyncio", database, prepare) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert [each for each in seen if each != 1] == [CATCHING_UP, LIVE, STOPPED]
    assert seen.index(1) > seen.index(CATCHING_UP)  # type: ignore[arg-type]
    with pytest.raises(cdc.ConfigurationError, match="use AsyncConsumer"):
        cdc.Consumer(database, slot="x").on_status(slow)
    with pytest.raises(cdc.ConfigurationError, match="on_status takes a function, not 'LIVE'"):
        cdc.Consumer(database, slot="x").on_status("LIVE")  # type: ignore[type-var]


def test_a_status_handler_may_stop_the_consumer(kind: str, server: Sandbox, database: str) -> None:
    """As a program does that would rather end than be without its server."""
    with Proxy(server.port) as proxy:

        def prepare(running: Running) -> None:
            running.on("wells", running.events.append)

            def give_up(change: cdc.StatusChange) -> Any:
                if change.status is CONNECTING:
                    return running.consumer.stop()
                return None

            running.consumer.on_status(give_up)

        with psycopg.connect(database, autocommit=True) as db:
            db.execute(SETUP)
            db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE PUBLICATION wells FOR TABLE wells")
        slow = cdc.Backoff(first=3600, longest=3600)
        with Running(kind, through(proxy, database), prepare, backoff=slow) as running:
            until(lambda: running.consumer.health().status is LIVE)
            proxy.cut()
            until(lambda: running.consumer.health().status is STOPPED)


def test_health_tells_of_the_failures(kind: str, server: Sandbox, database: str, db: psycopg.Connection) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database)) as running:
        health = running.consumer.health
        until(lambda: health().status is LIVE)
        assert health().not_live_since is health().failure is None and health().failures == ()
        proxy.refuse()
        proxy.cut()
        until(lambda: health().attempts >= 3)
        now = health()
        assert now.failure is not None and now.failure.kind is FailureKind.NETWORK
        assert [failure.attempt for failure in now.failures][:3] == [0, 1, 2]
        assert now.failure.attempt in (now.attempts, now.attempts - 1) and now.failure.reason in now.reasons
        since = now.not_live_since
        assert since is not None and since <= now.failures[1].at <= now.failures[2].at
        told = now.to_dict()
        assert told["failure"]["kind"] == "network" and told["not_live_since"].startswith(str(since.date()))
        assert told["failures"][0]["attempt"] == 0 and told["losses_within_an_hour"] == 1
        until(lambda: len(health().failures) == 20)
        failed = health().attempts
        until(lambda: health().attempts > failed + 2)
        assert len(health().failures) == 20
        proxy.refuse(False)
        until(lambda: health().status is LIVE)
        after = health()
        assert (after.attempts, after.failure, after.not_live_since) == (0, None, None)
        assert after.colour is cdc.Colour.GREEN and len(after.failures) == 20


def test_a_connection_that_does_not_last_is_red(kind: str, server: Sandbox, database: str, db: object) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database)) as running:
        for number in range(7):
            until(lambda: running.consumer.health().status is LIVE)
            health = running.consumer.health()
            assert health.losses_within_an_hour == health.reconnects == number
            assert (health.colour is cdc.Colour.RED) == (number > 5)
            proxy.cut()
            until(lambda number=number: running.consumer.health().reconnects > number)  # type: ignore[misc]
        assert "the connection was lost 6 times within an hour" in health.reasons


def test_what_was_lost_over_an_hour_ago_does_not_count() -> None:
    history, start = History(), datetime(2026, 1, 1, tzinfo=UTC)
    for minutes in range(0, 60, 10):
        history.lost(cdc.ConnectionFailed("gone"), start + timedelta(minutes=minutes))
    assert history.restless(start + timedelta(minutes=59)) is not None
    assert history.restless(start + timedelta(minutes=61)) is None
    assert history.losses_within_an_hour(start + timedelta(minutes=61)) == 5 and history.losses == 6


# Caches.

WALSENDER = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'"
ORDINARY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'cdc' AND datname = current_database() AND backend_type = 'client backend'
"""


@pytest.mark.parametrize("way", ["cut", "silence", "walsender", "ordinary"])
def test_a_cache_does_not_serve_while_the_connection_is_lost(
    kind: str, way: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    """The server is told of a change that the consumer cannot hear of; the old value must not be served."""
    db.execute("INSERT INTO wells VALUES (1, 'old')")
    reads: list[str] = []

    def load(connection: psycopg.Connection, key: int) -> str:
        (name,) = db.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone() or ("",)
        reads.append(name)
        return str(name)

    slow = cdc.Backoff(first=3600, longest=3600)
    quick = make_conninfo(database, options="-c wal_sender_timeout=2s")
    terms = {"backoff": slow, "polling_interval": 0.01}
    with Proxy(server.port) as proxy, Running(kind, through(proxy, quick), **terms) as running:
        cache = running.consumer.cache("wells", ttl=3600, by="id")
        until(lambda: running.consumer.health().status is LIVE and cache.is_live)
        assert [running.do(cache.fetch, 1, load) for _ in range(2)] == ["old", "old"] and reads == ["old"]
        if way == "silence":
            proxy.fall_silent()
        elif way == "cut":
            proxy.cut()
        else:
            db.execute(WALSENDER if way == "walsender" else ORDINARY)
        until(lambda: not cache.is_live, timeout=30)
        assert running.consumer.health().status is CONNECTING
        db.execute("UPDATE wells SET name = 'new'")
        proxy.speak()  # A load needs the network; the stream does not come back, as its backoff is an hour.
        assert running.do(cache.fetch, 1, load) == "new" and reads == ["old", "new"]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_cache_does_not_serve_while_the_server_is_away(kind: str, mode: str) -> None:
    with Sandbox() as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int PRIMARY KEY, name text); CREATE PUBLICATION wells FOR TABLE wells")
        slow = cdc.Backoff(first=3600, longest=3600)
        with Running(kind, server.dsn, backoff=slow, polling_interval=0.01) as running:
            cache = running.consumer.cache("wells", ttl=3600, by="id")
            until(lambda: cache.is_live)
            assert running.do(cache.fetch, 1, lambda connection, key: "old") == "old"
            server.restart(mode=mode)  # type: ignore[arg-type]
            until(lambda: not cache.is_live)
            assert running.do(cache.fetch, 1, lambda connection, key: "new") == "new"


def test_a_cache_serves_again_once_it_has_heard_what_it_missed(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'old'), (2, 'same')")
    reads: list[int] = []

    def load(connection: psycopg.Connection, key: int) -> str:
        reads.append(key)
        (name,) = connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone() or ("",)
        return str(name)

    with Proxy(server.port) as proxy, Running(kind, through(proxy, database), backoff=QUICK) as running:
        cache = running.consumer.cache("wells", ttl=3600, by="id")
        until(lambda: cache.is_live)
        assert [running.do(cache.fetch, key, load) for key in (1, 2)] == ["old", "same"]
        proxy.refuse()
        proxy.cut()
        until(lambda: not cache.is_live)
        db.execute("UPDATE wells SET name = 'new' WHERE id = 1")
        proxy.refuse(False)
        until(lambda: cache.is_live)
        assert [running.do(cache.fetch, key, load) for key in (1, 2)] == ["new", "same"]
    assert reads.count(2) == 1, "what did not change is served from before"

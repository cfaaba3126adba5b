"""The connection is lost and comes back: a cut network, a restarted server, a temporary slot."""

from __future__ import annotations

import time
from itertools import pairwise

import psycopg
import pytest

import cdc
from cdc.testing import Sandbox
from tests.harness import QUICK, SETUP, Running, until
from tests.proxy import Proxy


def through(proxy: Proxy, dsn: str) -> str:
    return psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=proxy.port)


def test_a_cut_network_loses_nothing_and_repeats_nothing(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database)) as running:
        for number in range(60):
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
            if number in (20, 40):
                proxy.cut()
        running.caught_up(db)
        health = running.consumer.health()
        assert health.reconnects >= 1 and health.colour is cdc.Colour.GREEN
    assert [event.key for event in running.events] == list(range(60))
    links = [(event.previous, event.position) for event in running.events]
    assert all(later[0] == earlier[1] for earlier, later in pairwise(links))


def test_health_says_what_goes_on_while_the_network_is_gone(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database)) as running:
        running.caught_up(db)
        proxy.refuse()
        proxy.cut()
        until(lambda: running.consumer.health().attempts >= 5)
        health = running.consumer.health()
        assert (health.colour, health.status) == (cdc.Colour.RED, cdc.Status.CONNECTING)
        assert any("cannot connect" in reason for reason in health.reasons)
        with pytest.raises(cdc.ConnectionFailed, match="reconnecting"):
            running.subscribe("wells", print)
        proxy.refuse(False)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert running.consumer.health().colour is cdc.Colour.GREEN
        assert running.consumer.health().attempts == 0
    assert [event.key for event in running.events] == [1]


def test_a_stop_while_the_network_is_gone_does_not_wait(
    kind: str, server: Sandbox, database: str, db: psycopg.Connection
) -> None:
    slow = cdc.Backoff(first=3600, longest=3600)
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database), backoff=slow) as running:
        running.caught_up(db)
        proxy.refuse()
        proxy.cut()
        until(lambda: running.consumer.health().status is cdc.Status.CONNECTING)
    assert running.consumer.health().status is cdc.Status.STOPPED


def test_a_temporary_slot_tells_of_the_gap(kind: str, server: Sandbox, database: str, db: psycopg.Connection) -> None:
    with Proxy(server.port) as proxy, Running(kind, through(proxy, database), slot=None) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        proxy.cut()
        until(lambda: len(running.events) == 2)
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
    first, gap, second = running.events
    assert isinstance(gap, cdc.Gap) and "temporary slot" in gap.reason
    assert gap.previous == first.position
    assert second.key == 2 and second.position.epoch != first.position.epoch
    with pytest.raises(ValueError, match="epochs"):
        assert first.position < second.position


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restarted_server(kind: str, mode: str) -> None:
    """A fast shutdown also proves that the consumer lets the server go: it would wait for ever otherwise."""
    with Sandbox() as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE PUBLICATION wells FOR TABLE wells")
        with Running(kind, server.dsn, backoff=QUICK) as running:
            db.execute("INSERT INTO wells VALUES (1)")
            running.caught_up(db)
            db.execute("CREATE TABLE elsewhere AS SELECT 1")
            server.restart(mode=mode)
            with psycopg.connect(server.dsn, autocommit=True) as after:
                after.execute("INSERT INTO wells VALUES (2)")
                running.caught_up(after)
            assert [event.key for event in running.events] == [1, 2]


def test_a_stop_while_the_connection_is_lost_repeats_nothing(kind: str, database: str, db: psycopg.Connection) -> None:
    """The walsender is gone, the server is not: what was delivered is saved all the same."""
    with Running(kind, database, backoff=cdc.Backoff(first=30, longest=30)) as running:
        db.execute("INSERT INTO wells VALUES (0)")
        running.caught_up(db)
        until(lambda: running.consumer.health().confirmed_lsn > cdc.Lsn(0) and running.is_saved())
        db.execute("INSERT INTO wells SELECT n FROM generate_series(1, 100) n")
        running.caught_up(db)
        db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'")
        until(lambda: running.consumer.health().status is cdc.Status.CONNECTING)
        assert len(running.events) == 101
    with Running(kind, database) as running:
        running.caught_up(db)
        assert running.events == []


def test_a_server_that_falls_silent_while_it_is_asked_about_a_table(kind: str) -> None:
    """The table is announced, its network is gone, and the connection still looks open."""
    with Sandbox(settings={"wal_sender_timeout": "1s"}) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int PRIMARY KEY); CREATE TABLE pipes (id int PRIMARY KEY)")
        db.execute("CREATE PUBLICATION wells FOR TABLE wells, pipes")
        with Proxy(server.port) as proxy:

            def lose(event: cdc.Event) -> None:
                if event.key == 1:
                    time.sleep(0.05)  # The rest of the transaction is on its way.
                    proxy.lose_server()

            def prepare(running: Running) -> None:
                running.on("wells", lose)
                running.on("pipes", running.events.append)

            with Running(kind, through(proxy, server.dsn), prepare) as running:
                # The position is saved here, and not again within a second: nothing else asks the server meanwhile.
                db.execute("INSERT INTO wells VALUES (0)")
                running.caught_up(db)
                db.execute("INSERT INTO wells VALUES (1); INSERT INTO pipes VALUES (2)")
                running.caught_up(db)
                assert running.consumer.health().reconnects == 1
            assert [event.key for event in running.events] == [2]

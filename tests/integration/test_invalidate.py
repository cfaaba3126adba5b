"""`consumer.invalidate`: changes remove entries from a cache that the user has already."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from cachetools import TTLCache

import cdc
from cdc.testing import Sandbox
from tests.harness import Running, until


def begun(running: Running, db: psycopg.Connection) -> None:
    """Wait until it was told that it begins."""
    until(lambda: running.consumer.health().status is cdc.Status.LIVE)
    running.caught_up(db)


@contextmanager
def invalidating(
    kind: str, dsn: str, db: psycopg.Connection, mapping: Any, table: str = "wells", **options: Any
) -> Iterator[Running]:
    def prepare(running: Running) -> None:
        running.consumer.invalidate(mapping, table, **options)
        running.on("wells", lambda event: running.events.append((event, dict(mapping))))

    with Running(kind, dsn, prepare) as running:
        begun(running, db)
        yield running


def after(running: Running, db: psycopg.Connection, mapping: Any, statement: str) -> list[Any]:
    """The keys that a full mapping has left after a statement."""
    mapping.update({1: "a", 2: "b", 3: "c"})
    db.execute(statement)
    running.caught_up(db)
    return sorted(mapping)


def test_a_change_removes_its_keys_before_handlers_run(kind: str, database: str, db: psycopg.Connection) -> None:
    cache: TTLCache[int, str] = TTLCache(100, 60)
    with invalidating(kind, database, db, cache, key="id", lock=threading.Lock()) as running:
        assert after(running, db, cache, "INSERT INTO wells VALUES (1)") == [2, 3]
        assert after(running, db, cache, "UPDATE wells SET name = 'x' WHERE id = 1") == [2, 3]
        assert after(running, db, cache, "UPDATE wells SET id = 2 WHERE id = 1") == [3]
        assert after(running, db, cache, "DELETE FROM wells") == [1, 3]
        assert after(running, db, cache, "INSERT INTO wells VALUES (7)") == [1, 2, 3]
        assert [sorted(seen) for _, seen in running.events] == [[2, 3], [2, 3], [3], [1, 3], [1, 2, 3]]
        assert after(running, db, cache, "TRUNCATE wells") == []


def test_what_was_there_before_the_beginning_goes(kind: str, database: str, db: psycopg.Connection) -> None:
    cache = {1: "old"}
    with invalidating(kind, database, db, cache, key="id") as running:
        assert cache == {}
        later = {5: "old"}
        subscription = running.do(running.consumer.invalidate, later, "wells", key="id")
        until(lambda: later == {})
        running.do(subscription.close)
        assert after(running, db, later, "INSERT INTO wells VALUES (1)") == [1, 2, 3]


def test_columns_functions_and_everything(kind: str, database: str, db: psycopg.Connection) -> None:
    pairs: dict[Any, Any] = {}
    named: dict[Any, Any] = {}
    lists: dict[Any, Any] = {}
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; INSERT INTO wells VALUES (1, 'a')")
    with invalidating(kind, database, db, pairs, key=["name", "id"]) as running:
        running.do(running.consumer.invalidate, named, "wells", key=lambda row: row["name"].upper())
        running.do(running.consumer.invalidate, lists, "wells")
        db.execute("INSERT INTO wells VALUES (9)")
        running.caught_up(db)
        for each in (pairs, named, lists):
            each.update({("a", 1): 1, ("b", 1): 2, ("b", 2): 3, "A": 1, "B": 2, "C": 3})
        db.execute("UPDATE wells SET name = 'b' WHERE id = 1")
        running.caught_up(db)
        assert set(pairs) == {("b", 2), "A", "B", "C"}
        assert set(named) == {("a", 1), ("b", 1), ("b", 2), "C"}
        assert lists == {}


@pytest.mark.parametrize("key", ["name", lambda row: row["name"], lambda row: (row["id"], str(row["notes"]))])
def test_a_key_that_was_not_sent_clears_everything(kind: str, database: str, db: psycopg.Connection, key: Any) -> None:
    """The old name is not sent; nor are long notes that stayed the same."""
    cache: dict[Any, Any] = {}
    db.execute("ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL")
    db.execute("INSERT INTO wells VALUES (1, 'a', NULL, 1, repeat('x', 9000))")
    with invalidating(kind, database, db, cache, key=key) as running:
        assert after(running, db, cache, "UPDATE wells SET name = 'b' WHERE id = 1") == []
        db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
        db.execute("UPDATE wells SET depth = 1")
        running.caught_up(db)
        assert after(running, db, cache, "UPDATE wells SET depth = 2") == [1, 2, 3]


def test_an_altered_table_clears_everything(kind: str, database: str, db: psycopg.Connection) -> None:
    cache: dict[Any, Any] = {}
    with invalidating(kind, database, db, cache, key="id") as running:
        db.execute("ALTER TABLE wells ADD status text")
        assert after(running, db, cache, "INSERT INTO wells VALUES (9)") == []


def test_a_gap_clears_everything(database: str, db: psycopg.Connection, server: Sandbox) -> None:
    cache: dict[Any, Any] = {}
    with cdc.Consumer(database, slot=None, backoff=cdc.Backoff(first=0.05)) as consumer:
        consumer.invalidate(cache, "wells", key="id")
        consumer.start()
        until(lambda: consumer.health().status is cdc.Status.LIVE)
        cache[1] = "old"
        db.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()"
        )
        until(lambda: not cache)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        ("ALTER PUBLICATION wells SET (publish = 'insert')", "does not publish DELETE, TRUNCATE, UPDATE"),
        ("CREATE TABLE child () INHERITS (wells)", "partitions or child tables"),
    ],
)
def test_what_a_cache_is_refused_is_refused(database: str, db: psycopg.Connection, prepare: str, words: str) -> None:
    db.execute(prepare.encode())
    consumer = cdc.Consumer(database, slot="ingest")
    consumer.invalidate({}, "wells", key="id")
    with pytest.raises(cdc.SubscriptionError, match=words):
        consumer.start()


def test_a_table_that_gets_children_ends_it(kind: str, database: str, db: psycopg.Connection) -> None:
    """Their rows are seen through the table, and not every change of them is sent as its own."""
    running = Running(kind, database, lambda running: running.consumer.invalidate({}, "wells", key="id"))
    with pytest.raises(cdc.SubscriptionError, match="partitions or child tables"), running:
        begun(running, db)
        db.execute("CREATE TABLE child () INHERITS (wells)")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda consumer: consumer.invalidate([], "wells"), "a mapping whose entries can be removed"),
        (lambda consumer: consumer.invalidate({}, "wells", key=3), "is a column, several or a function"),
        (lambda consumer: consumer.invalidate({}, "wells", key=[]), "is a column, several or a function"),
        (lambda consumer: consumer.invalidate({}, "wells", lock=True), "threading.Lock or the like"),
    ],
)
def test_mistakes_are_named(call: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=words):
        call(cdc.Consumer("", slot="ingest"))


def test_a_column_that_is_not_there_is_named(database: str, db: psycopg.Connection) -> None:
    consumer = cdc.Consumer(database, slot="ingest")
    consumer.invalidate({}, "wells", key="nam")
    with pytest.raises(cdc.SubscriptionError, match="no published column 'nam'; it has id, name"):
        consumer.start()

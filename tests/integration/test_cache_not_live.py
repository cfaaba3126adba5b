"""Caches while the stream is not live, and what clears them besides changes of rows."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import cdc
from cdc.caching.cache import Cache
from cdc.relation import Column, Relation
from cdc.values import Types
from tests.harness import RIGHTS, Running, until
from tests.integration.test_cache import a_commit_that_is_not_visible, synchronous
from tests.integration.test_cache_doors import cached, name_of

__all__ = ["synchronous"]

PAUSED = cdc.Backoff(first=3600, longest=3600)


def cut(db: psycopg.Connection) -> None:
    db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'")


@pytest.mark.parametrize("wrong", [0, -1, "5", True, float("inf"), None])
def test_the_polling_interval_is_a_number_of_seconds(kind: str, wrong: Any) -> None:
    with pytest.raises(cdc.ConfigurationError, match="polling_interval is a number of seconds above 0"):
        (cdc.Consumer if kind == "blocking" else cdc.AsyncConsumer)("", slot=None, polling_interval=wrong)


def test_while_not_live_young_entries_are_served_and_old_ones_are_not(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """The connection is lost and does not come again; entries of before count from the beginning of their load."""
    made: list[Any] = []

    def prepare(running: Running) -> None:
        made.append(running.consumer.cache("wells", ttl=300, by="id"))

    db.execute("INSERT INTO wells VALUES (1, 'one'), (2, 'two')")
    with Running(kind, database, prepare, backoff=PAUSED, polling_interval=2.0) as running:
        cache = made[0]
        until(lambda: cache.is_live)
        assert "caches" not in " ".join(running.consumer.health().notes)
        fetch = lambda key: running.do(cache.fetch, key, name_of)  # noqa: E731
        assert fetch(1) == "one"
        cut(db)
        until(lambda: not cache.is_live)
        db.execute("UPDATE wells SET name = name || '!'")
        assert [fetch(1), fetch(2), fetch(2)] == ["one", "two!", "two!"], "younger than the interval"
        assert cache.counters.loads == 2
        until(lambda: fetch(1) == "one!")
        assert cache.counters.loads >= 3
        (note,) = (note for note in running.consumer.health().notes if note.startswith("caches: not live for "))
        assert note.endswith("entries older than 2 s are read again")


def test_concurrent_misses_load_once_while_not_live(database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    gate, loads = threading.Event(), []

    def slow(connection: psycopg.Connection, key: int) -> str | None:
        loads.append(key)
        gate.wait(20)
        return name_of(connection, key)

    with cdc.Consumer(database, slot=None) as consumer, ThreadPoolExecutor(8) as threads:
        cache = consumer.cache("wells", ttl=300, by="id")
        futures = [threads.submit(cache.fetch, 1, slow) for _ in range(8)]
        until(lambda: cache.counters.misses == 8)
        gate.set()
        assert [future.result(20) for future in futures] == ["one"] * 8
        assert loads == [1]


def test_what_was_kept_before_the_first_change_can_arrive_goes_when_it_begins(
    database: str, db: psycopg.Connection
) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cdc.Consumer(database, slot="ingest", polling_interval=3600) as consumer:
        cache = consumer.cache("wells", ttl=300, by="id")
        assert [cache.fetch(1, name_of), cache.fetch(1, name_of)] == ["one", "one"]
        assert (cache.counters.loads, cache.is_live) == (1, False)
        consumer.start()
        until(lambda: cache.is_live)
        assert [cache.fetch(1, name_of), cache.counters.loads] == ["one", 2]


def test_what_was_pending_stays_pending_without_a_connection(synchronous: Any) -> None:
    """A change was received and is not visible; the connection is lost. What a load reads then is still too old."""
    with psycopg.connect(synchronous.dsn, autocommit=True) as db:
        db.execute("TRUNCATE wells; INSERT INTO wells VALUES (1, 'old')")
        with cached("blocking", synchronous.dsn, db, patience=0.3) as it:
            received = len(it.running.events)
            with a_commit_that_is_not_visible(synchronous, db) as let_go:
                until(lambda: len(it.running.events) > received)
                cut(db)
                until(lambda: it.running.consumer.health().reconnects == 1)
                with pytest.raises(cdc.NotYetVisible):
                    it.fetch(1)
                let_go()
                assert it.fetch(1) == "new"


def test_what_is_kept_while_not_live_is_dropped_by_what_is_caught_up(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one'), (2, 'two')")
    made: list[Any] = []

    def prepare(running: Running) -> None:
        made.append(running.consumer.cache("wells", ttl=300, by="id"))

    with Running(
        kind, database, prepare, backoff=cdc.Backoff(first=0.5, longest=0.5), polling_interval=0.05
    ) as running:
        cache = made[0]
        until(lambda: cache.is_live)
        cut(db)
        until(lambda: not cache.is_live)
        fetch = lambda key: running.do(cache.fetch, key, name_of)  # noqa: E731
        assert [fetch(1), fetch(2)] == ["one", "two"]
        db.execute("UPDATE wells SET name = 'uno' WHERE id = 1")
        until(lambda: cache.is_live)
        loads = cache.counters.loads
        assert [fetch(1), fetch(2)] == ["uno", "two"]
        assert cache.counters.loads == loads + 1, "what has not changed is served, however old"


def test_after_the_end_it_is_a_cache_of_a_few_seconds(database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    consumer = cdc.Consumer(database, slot=None, polling_interval=0.5)
    cache = consumer.cache("wells", ttl=300, by="id")
    consumer.start()
    until(lambda: cache.is_live)
    assert cache.fetch(1, name_of) == "one"
    consumer.close()
    db.execute("UPDATE wells SET name = 'uno'")
    until(lambda: cache.fetch(1, name_of) == "uno")
    assert not cache.is_live and not cache.put(1, "uno", "5:5:")


# What clears it.


def test_a_gap_clears_it(kind: str, database: str, db: psycopg.Connection) -> None:
    """A temporary slot ends with its connection: what changed meanwhile never arrives."""
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    made: list[Any] = []

    def prepare(running: Running) -> None:
        made.append(running.consumer.cache("wells", ttl=300, by="id"))
        running.on("wells", running.events.append)

    backoff = cdc.Backoff(first=0.5, longest=0.5)
    with Running(kind, database, prepare, slot=None, backoff=backoff) as running:
        cache = made[0]
        until(lambda: cache.is_live)
        assert running.do(cache.fetch, 1, name_of) == "one"
        db.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()"
        )
        until(lambda: not cache.is_live)
        db.execute("UPDATE wells SET name = 'uno'")
        until(lambda: cache.is_live)
        assert any(isinstance(event, cdc.Gap) for event in running.events)
        assert running.do(cache.fetch, 1, name_of) == "uno"


def test_another_shape_of_the_table_clears_it(kind: str, database: str, db: psycopg.Connection) -> None:
    """A rewrite sends no changes of rows; the first change that follows tells of the new shape."""
    db.execute("INSERT INTO wells VALUES (1, 'one'), (2, 'two')")
    with cached(kind, database, db) as it:
        assert it.fetch(1) == "one"
        db.execute("INSERT INTO wells VALUES (5)")
        db.execute(
            "ALTER TABLE wells ALTER COLUMN name TYPE varchar(40) USING upper(name); DELETE FROM wells WHERE id = 2"
        )
        it.running.caught_up(db)
        assert it.fetch(1) == "ONE"


def test_a_rewrite_that_was_received_clears_it_and_is_fenced(synchronous: Any) -> None:
    with psycopg.connect(synchronous.dsn, autocommit=True) as db:
        db.execute("TRUNCATE wells; INSERT INTO wells VALUES (1, 'old'), (2, 'other')")
        with cached("blocking", synchronous.dsn, db, patience=0.3) as it:
            assert it.fetch(2) == "other"
            received = len(it.running.events)
            with a_commit_that_is_not_visible(synchronous, db) as let_go:
                until(lambda: len(it.running.events) > received)
                assert [it.fetch(2), it.loads] == ["other", 1]
                it.cache.clear(it.running.events[-1].xid)
                with pytest.raises(cdc.NotYetVisible):
                    it.fetch(2)
                let_go()
                assert [it.fetch(2), it.fetch(1)] == ["other", "new"]


class Still:
    """A source whose loads give the number of the load."""

    def __init__(self) -> None:
        self.loads = 0

    def bare(self, load: Any, key: Any) -> int:
        self.loads += 1
        return self.loads


def test_a_comparison_confirms_what_was_there_all_the_time() -> None:
    now = [100.0]
    cache = Cache("wells", Still(), 3600, 10, "id", clock=lambda: now[0], polling_interval=5.0)  # type: ignore[arg-type]
    types, inflow = Types(), cache.inflows[0]
    equality = types.equality(23)
    assert equality is not None
    column = Column("id", 23, -1, True, types.decoder(23))
    inflow.bind(Relation(1, "public", "wells", "d", (column,), (0,)), (equality,))
    fetch = lambda key: cache.fetch(key, print)  # noqa: E731
    assert [fetch(1), fetch(2), fetch(3), fetch(1)] == [1, 2, 3, 1]
    now[0] = 104
    inflow.polled([(b"2",)], [(b"1",)], 104.0)
    assert [fetch(1), fetch(2), fetch(3)] == [1, 4, 3]
    now[0] = 108
    assert [fetch(1), fetch(2), fetch(3)] == [1, 4, 5]
    now[0] = 109.5
    assert [fetch(1), fetch(2)] == [6, 7]
    inflow.polled(None, (), 109.5)
    assert [fetch(1), fetch(2), fetch(3)] == [8, 9, 10]


# As a subject.


@pytest.fixture
def owned(db: psycopg.Connection) -> psycopg.Connection:
    """Wells with an owner, whom their policy shows them to."""
    db.execute("CREATE TABLE mine (id int PRIMARY KEY, name text, owner text); ALTER PUBLICATION wells ADD TABLE mine")
    db.execute("GRANT SELECT ON mine TO authenticated; ALTER TABLE mine ENABLE ROW LEVEL SECURITY")
    db.execute(
        "CREATE POLICY own ON mine FOR SELECT TO authenticated "
        "USING (owner = current_setting('request.jwt.claims', true)::jsonb ->> 'sub')"
    )
    db.execute("INSERT INTO mine VALUES (1, 'one', 'ann'), (2, 'two', 'bob')")
    return db


def mine(connection: psycopg.Connection, key: int) -> str | None:
    row = connection.execute("SELECT name FROM mine WHERE id = %s", (key,)).fetchone()
    return None if row is None else row[0]


ANN = cdc.Subject("authenticated", {"sub": "ann"})


def test_loads_run_as_the_subject(kind: str, database: str, owned: psycopg.Connection) -> None:
    with cached(kind, database, owned, "mine", subject=ANN) as it:
        assert [it.fetch(1, mine), it.fetch(2, mine), it.fetch(1, mine), it.loads] == ["one", None, "one", 2]
        owned.execute("UPDATE mine SET owner = 'ann' WHERE id = 2; UPDATE mine SET owner = 'bob' WHERE id = 1")
        it.running.caught_up(owned)
        assert [it.fetch(1, mine), it.fetch(2, mine)] == [None, "two"]
        with pytest.raises(cdc.ConfigurationError, match="nobody knows as whom"):
            it.put(1, "one", "5:5:")


@pytest.mark.parametrize("with_table", [True, False], ids=["cdc.rights", "asking"])
def test_what_a_subject_may_see_clears_it(
    kind: str, with_table: bool, database: str, owned: psycopg.Connection
) -> None:
    if with_table:
        owned.execute(RIGHTS)
    with cached(kind, database, owned, "mine", subject=ANN) as it:
        assert it.fetch(1, mine) == "one"
        owned.execute("ALTER POLICY own ON mine USING (name = 'two')")
        until(lambda: it.fetch(1, mine) is None)
        assert it.fetch(2, mine) == "two"
        loads = it.loads
        assert [it.fetch(2, mine), it.loads] == ["two", loads]
        owned.execute("ALTER POLICY own ON mine USING (EXISTS (SELECT FROM wells))")
        until(lambda: not it.core.keeps)
        note = "nothing is kept, since policies of authenticated cannot be decided"
        assert note in " ".join(it.running.consumer.health().notes)
        assert len(it.cache) == 0


def test_a_load_does_not_leave_its_role_and_transaction(database: str, owned: psycopg.Connection) -> None:
    with cached("blocking", database, owned, "mine", subject=ANN) as it:

        def says(*statements: str) -> Any:
            def load(connection: psycopg.Connection, key: int) -> Any:
                for statement in statements:
                    connection.execute(statement)
                return mine(connection, key)

            return load

        for statements, match in (
            (["RESET ROLE"], "ended as postgres: it may not change its role"),
            (["COMMIT"], "which was ended"),
        ):
            with pytest.raises(cdc.ConfigurationError, match=match):
                it.fetch(2, says(*statements))
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
            it.fetch(2, says("INSERT INTO mine VALUES (3)"))
        assert "a load of a cache only reads" in " ".join(caught.value.__notes__)
        assert [it.fetch(2, says("SET ROLE authenticated")), it.fetch(1, mine)] == [None, "one"]


def test_a_subject_that_cannot_be_had_is_refused(database: str, owned: psycopg.Connection) -> None:
    owned.execute("CREATE POLICY more ON mine FOR SELECT TO authenticated USING (EXISTS (SELECT FROM wells))")
    expired = cdc.Subject("authenticated", {"exp": time.time() + 1.5})
    with cdc.Consumer(database, slot=None) as consumer:
        with pytest.raises(cdc.SubscriptionError, match="policies that cdc cannot decide"):
            consumer.cache("mine", ttl=1, subject=ANN)
        for wrong, match in (
            ("ann", "the subject of a cache is a cdc.Subject"),
            (cdc.Subject("a", settings={"session_authorization": "b"}), "declares session_authorization"),
        ):
            with pytest.raises(cdc.ConfigurationError, match=match):
                consumer.cache("wells", ttl=1, subject=wrong)  # type: ignore[arg-type]
        owned.execute("GRANT SELECT ON wells TO authenticated")
        cache = consumer.cache("wells", ttl=300, by="id", subject=expired)
        assert cache.fetch(1, name_of) is None
        until(lambda: time.time() > (expired.expires or 0))
        with pytest.raises(cdc.SubscriptionError, match="the subject expired"):
            cache.fetch(1, name_of)
    strict = cdc.Consumer(database, slot=None, require_subject=True)
    with pytest.raises(cdc.ConfigurationError, match="a cache of wells needs a subject"):
        strict.cache("wells", ttl=1)

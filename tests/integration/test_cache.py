"""The fenced cache against a real server: cleared by changes, never older than one of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

import cdc
from cdc.caching.cache import Cache
from cdc.caching.fence import Fence
from cdc.testing import Sandbox
from tests.harness import SETUP, Running, until


def name_of(connection: psycopg.Connection, key: int) -> str | None:
    row = connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()
    return None if row is None else row[0]


class Cached:
    """A running consumer with one cache; `fetch` loads names of wells and counts the loads."""

    def __init__(self, running: Running, cache: Any) -> None:
        self.running, self.cache, self.loads = running, cache, 0

    def fetch(self, key: Any, load: Callable[..., Any] = name_of) -> Any:
        def counted(connection: psycopg.Connection, key: Any) -> Any:
            self.loads += 1
            return load(connection, key)

        return self.running.do(self.cache.fetch, key, counted)


@contextmanager
def cached(kind: str, dsn: str, db: psycopg.Connection, **options: Any) -> Iterator[Cached]:
    made: list[Any] = []

    def prepare(running: Running) -> None:
        made.append(running.consumer.cache("wells", **({"ttl": 300, "by": "id"} | options)))
        running.on("wells", running.events.append)

    with Running(kind, dsn, prepare) as running:
        running.caught_up(db)
        until(lambda: made[0].is_live)
        yield Cached(running, made[0])


def test_a_change_clears_its_own_key_only(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one'), (2, 'two')")
    with cached(kind, database, db) as it:
        assert [it.fetch(1), it.fetch(2), it.fetch(1), it.fetch(2)] == ["one", "two", "one", "two"]
        assert it.loads == 2
        db.execute("UPDATE wells SET name = 'uno' WHERE id = 1")
        it.running.caught_up(db)
        assert [it.fetch(1), it.fetch(2)] == ["uno", "two"]
        assert it.loads == 3
        assert (it.cache.counters.hits, it.cache.counters.misses, it.cache.counters.invalidations) == (3, 3, 1)


def test_any_change_clears_a_whole_table_cache(kind: str, database: str, db: psycopg.Connection) -> None:
    count = "SELECT count(*) FROM wells"
    with cached(kind, database, db, by=None) as it:

        def load(connection: psycopg.Connection, key: Any) -> int:
            return int((connection.execute(count).fetchone() or (0,))[0])

        assert [it.fetch("count", load), it.fetch("count", load), it.fetch(("other", 1), load)] == [0, 0, 0]
        db.execute("INSERT INTO wells VALUES (1)")
        it.running.caught_up(db)
        assert [it.fetch("count", load), it.fetch(("other", 1), load), it.loads] == [1, 1, 4]


def test_old_and_new_key_are_both_cleared(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached(kind, database, db) as it:
        assert [it.fetch(1), it.fetch(7)] == ["one", None]
        db.execute("UPDATE wells SET id = 7")
        it.running.caught_up(db)
        assert [it.fetch(1), it.fetch(7)] == [None, "one"]


def test_an_unknown_old_value_clears_all(kind: str, database: str, db: psycopg.Connection) -> None:
    """`name` is outside the identity: which name a row had before an UPDATE is not sent."""
    db.execute("INSERT INTO wells VALUES (1, 'a'), (2, 'b')")

    def ids(connection: psycopg.Connection, name: str) -> list[int]:
        return [row[0] for row in connection.execute("SELECT id FROM wells WHERE name = %s ORDER BY id", (name,))]

    with cached(kind, database, db, by="name") as it:
        assert [it.fetch("a", ids), it.fetch("b", ids), it.fetch("c", ids)] == [[1], [2], []]
        db.execute("UPDATE wells SET name = 'c' WHERE id = 1")
        it.running.caught_up(db)
        assert [it.fetch("a", ids), it.fetch("b", ids), it.fetch("c", ids), it.loads] == [[], [2], [1], 6]
        db.execute("DELETE FROM wells WHERE id = 2")
        it.running.caught_up(db)
        assert [it.fetch("b", ids), it.fetch("c", ids), it.loads] == [[], [1], 8]


def test_keys_of_several_columns(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; INSERT INTO wells VALUES (1, 'a'), (2, 'b')")

    def found(connection: psycopg.Connection, key: tuple[str, int]) -> int:
        return connection.execute("SELECT 1 FROM wells WHERE name = %s AND id = %s", key).rowcount

    with cached(kind, database, db, by=("name", "id")) as it:
        assert [it.fetch(("a", 1), found), it.fetch(("b", 2), found)] == [1, 1]
        db.execute("UPDATE wells SET name = 'z' WHERE id = 1")
        it.running.caught_up(db)
        assert [it.fetch(("a", 1), found), it.fetch(("z", 1), found), it.fetch(("b", 2), found)] == [0, 1, 1]
        assert it.loads == 4
        with pytest.raises(TypeError, match=r"tuple of \(name, id\)"):
            it.fetch("a", found)


def test_truncate_clears_all(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached(kind, database, db) as it:
        assert it.fetch(1) == "one"
        db.execute("TRUNCATE wells")
        it.running.caught_up(db)
        assert it.fetch(1) is None


def test_keys_are_canonical_and_of_the_columns_type(kind: str, database: str, db: psycopg.Connection) -> None:
    project = "8fac0a3e-8a52-4c41-9ddb-2d6d6d3a1b11"
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
    db.execute("INSERT INTO wells VALUES (1, 'a', %s)", (project,))

    def count(connection: psycopg.Connection, key: Any) -> int:
        return connection.execute("SELECT 1 FROM wells WHERE project_id = %s", (key,)).rowcount

    with cached(kind, database, db, by="project_id") as it:
        assert [it.fetch(UUID(project), count), it.fetch(project.upper(), count), it.loads] == [1, 1, 1]
        db.execute("DELETE FROM wells")
        it.running.caught_up(db)
        assert it.fetch(UUID(project), count) == 0
        with pytest.raises(TypeError):
            it.fetch(12, count)
    with cached(kind, database, db) as it, pytest.raises(TypeError, match="int"):
        it.fetch("1")


def test_one_load_for_concurrent_misses(database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    gate = threading.Event()

    def slow(connection: psycopg.Connection, key: int) -> str | None:
        gate.wait(20)
        return name_of(connection, key)

    with cached("blocking", database, db) as it, ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(it.fetch, 1, slow) for _ in range(8)]
        until(lambda: it.cache.counters.misses == 8)
        gate.set()
        assert [future.result(20) for future in futures] == ["one"] * 8
        assert it.loads == 1


def test_a_load_that_a_change_overtakes_is_not_kept(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'old')")
    with cached(kind, database, db) as it:

        def overtaken(connection: psycopg.Connection, key: int) -> str | None:
            value = name_of(connection, key)
            if it.loads == 1:
                received = len(it.running.events)
                db.execute("UPDATE wells SET name = 'new'")
                until(lambda: len(it.running.events) > received)
            return value

        assert it.fetch(1, overtaken) == "new"
        assert (it.loads, it.cache.counters.discarded) == (2, 1)


def test_a_key_that_changes_all_the_time_is_answered(kind: str, database: str, db: psycopg.Connection) -> None:
    """Every load is overtaken; the answer is as new as what was received when it was read, and is not kept."""
    db.execute("INSERT INTO wells VALUES (1, '0')")
    with cached(kind, database, db) as it:

        def overtaken(connection: psycopg.Connection, key: int) -> str | None:
            value = name_of(connection, key)
            received = len(it.running.events)
            db.execute("UPDATE wells SET name = (name::int + 1)::text")
            until(lambda: len(it.running.events) > received)
            return value

        assert it.fetch(1, overtaken) == "2"
        assert len(it.cache) == 0


def test_a_failing_load_raises_and_leaves_nothing(kind: str, database: str, db: psycopg.Connection) -> None:
    with cached(kind, database, db) as it:

        def fails(connection: psycopg.Connection, key: int) -> None:
            connection.execute("SELECT 1 / 0")

        for _ in range(2):
            with pytest.raises(psycopg.errors.DivisionByZero):
                it.fetch(1, fails)
        assert it.fetch(1) is None


def test_loads_are_read_only(kind: str, database: str, db: psycopg.Connection) -> None:
    def writes(connection: psycopg.Connection, key: int) -> None:
        connection.execute("INSERT INTO wells VALUES (5)")

    with cached(kind, database, db) as it, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        it.fetch(1, writes)


def test_loads_survive_a_lost_connection(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one'), (2, 'two')")
    with cached(kind, database, db) as it:
        assert it.fetch(1) == "one"
        db.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE query LIKE 'SELECT name FROM wells%' AND datname = current_database()"
        )
        assert it.fetch(2) == "two"


def test_handlers_never_read_an_older_value_from_the_cache(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, '0')")
    read: list[tuple[str, str]] = []

    def prepare(running: Running) -> None:
        handle: Any = running.consumer.cache("wells", ttl=300, by="id")
        cache: Cache = getattr(handle, "_cache", handle)
        running.on("wells", lambda event: read.append((event.new["name"], cache.fetch(1, name_of) or "")))

    with Running(kind, database, prepare) as running:
        for number in range(1, 200):
            db.execute("UPDATE wells SET name = %s", (str(number),))
        running.caught_up(db)
    assert len(read) == 199
    assert all(int(value) >= int(event) for event, value in read)


# The fence, with the deterministic test: a commit that waits for a standby that is not there is streamed, while a
# new snapshot still shows the value from before.


@contextmanager
def a_commit_that_is_not_visible(
    server: Sandbox, db: psycopg.Connection, command: str = "UPDATE wells SET name = 'new' WHERE id = 1"
) -> Iterator[Callable[[], None]]:
    """What a command does is in the WAL, but not visible until the function that is given is called."""

    def reload(standby: str) -> None:
        db.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
        db.execute("SELECT pg_reload_conf()")
        until(lambda: db.execute("SHOW synchronous_standby_names").fetchone() == (standby,))

    db.execute("SET synchronous_commit = local")
    reload("nobody")
    writer = psycopg.connect(server.dsn, autocommit=True)
    thread = threading.Thread(target=writer.execute, args=(command,))
    thread.start()

    def let_go() -> None:
        reload("")
        thread.join(20)

    try:
        yield let_go
    finally:
        let_go()
        writer.close()


@pytest.fixture(scope="module")
def synchronous() -> Iterator[Sandbox]:
    with Sandbox() as server:
        with psycopg.connect(server.dsn, autocommit=True) as db:
            db.execute(SETUP)
            db.execute("CREATE TABLE wells (id int PRIMARY KEY, name text); CREATE PUBLICATION wells FOR TABLE wells")
        yield server


class NoFence(Fence):
    """The fault: no change leaves a tombstone."""

    def pending(self, key: Any) -> frozenset[int]:
        return frozenset()


class LsnSnapshot:
    """The fault: whatever lies before the server's flush LSN is taken to be visible."""

    def __init__(self, flush: cdc.Lsn, commits: dict[int, cdc.Lsn]) -> None:
        self._flush, self._commits = flush, commits

    def sees(self, xid: int) -> bool:
        return self._commits[xid] <= self._flush


class LsnSource:
    """A source whose snapshots compare LSNs."""

    def __init__(self, source: Any, events: list) -> None:
        self._source, self._events = source, events

    def bare(self, load: Any, key: Any) -> Any:
        return self._source.bare(load, key)

    def fenced(self, load: Any, key: Any) -> Any:
        def both(connection: psycopg.Connection, key: Any) -> Any:
            value = load(connection, key)
            return value, cdc.current_lsn(connection)

        value, flush = self._source.bare(both, key)
        return value, LsnSnapshot(flush, {event.xid: event.position.commit_lsn for event in self._events})


def stale_read(kind: str, server: Sandbox, fault: str | None) -> str:
    """What `fetch` gives after the change was received, while new snapshots show the old value."""
    with psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("TRUNCATE wells; INSERT INTO wells VALUES (1, 'old')")
        with cached(kind, server.dsn, db, patience=0.5) as it:
            core: Cache = getattr(it.cache, "_cache", it.cache)
            if fault == "no fence":
                core._fence = NoFence()
            elif fault == "LSN":
                core._source = LsnSource(core._source, it.running.events)
            assert it.fetch(1) == "old"
            received = len(it.running.events)
            with a_commit_that_is_not_visible(server, db) as let_go:
                until(lambda: len(it.running.events) > received)
                assert name_of(db, 1) == "old", "the commit must not be visible yet"
                try:
                    return str(it.fetch(1))
                except cdc.NotYetVisible as error:
                    let_go()
                    assert it.fetch(1) == "new"
                    return str(error)


def test_a_value_older_than_a_received_change_is_never_returned(kind: str, synchronous: Sandbox) -> None:
    assert "still shows the value of 1 from before a change" in stale_read(kind, synchronous, None)


@pytest.mark.parametrize("fault", ["no fence", "LSN"])
def test_without_the_fence_or_with_lsns_the_same_test_finds_a_stale_read(
    kind: str, synchronous: Sandbox, fault: str
) -> None:
    assert stale_read(kind, synchronous, fault) == "old"


def test_a_cache_that_begins_late_does_not_keep_an_older_value(kind: str, synchronous: Sandbox) -> None:
    """The change was received before the cache was made, and is not visible yet."""
    with psycopg.connect(synchronous.dsn, autocommit=True) as db:
        db.execute("TRUNCATE wells; INSERT INTO wells VALUES (1, 'old')")
        with Running(kind, synchronous.dsn) as running:
            running.caught_up(db)
            received = len(running.events)
            with a_commit_that_is_not_visible(synchronous, db) as let_go:
                until(lambda: len(running.events) > received)
                cache = running.consumer.cache("wells", ttl=300, by="id", patience=0.3)
                until(lambda: cache.is_live)
                with pytest.raises(cdc.NotYetVisible):
                    running.do(cache.fetch, 1, name_of)
                let_go()
                assert running.do(cache.fetch, 1, name_of) == "new"


def test_tombstones_go_when_their_transactions_were_seen(kind: str, database: str, db: psycopg.Connection) -> None:
    with cached(kind, database, db) as it:
        core: Cache = getattr(it.cache, "_cache", it.cache)
        db.execute("INSERT INTO wells SELECT generate_series(1, 1000)")
        it.running.caught_up(db)
        until(lambda: not core.has_tombstones)


def test_entries_are_served_again_after_a_reconnect(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached(kind, database, db) as it:
        assert it.fetch(1) == "one"
        db.execute("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'")
        until(lambda: it.running.consumer.health().reconnects == 1)
        db.execute("UPDATE wells SET name = 'uno'")
        it.running.caught_up(db)
        until(lambda: it.cache.is_live)
        assert [it.fetch(1), it.fetch(1)] == ["uno", "uno"]
        assert it.cache.counters.hits == 1


def test_entries_expire(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with cached(kind, database, db, ttl=0.05) as it:
        it.fetch(1)
        time.sleep(0.1)
        it.fetch(1)
        assert it.loads == 2

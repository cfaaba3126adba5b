"""Polling stands in for the stream: stores and caches follow their tables, and are exact again behind it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

import cdc
from cdc.testing import Sandbox
from tests.harness import SETUP, Running, until

OPTIONS: dict[str, Any] = {"fallback": "poll", "polling_interval": 0.1}
ROLE = """
DROP ROLE IF EXISTS poller; CREATE ROLE poller LOGIN PASSWORD 'p' BYPASSRLS; GRANT SELECT ON wells TO poller;
GRANT USAGE ON SCHEMA cdc TO poller; GRANT ALL ON ALL TABLES IN SCHEMA cdc TO poller
"""
_POLLS = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%ctid%' AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def narrow() -> Iterator[Sandbox]:
    """A server with two slots and two walsenders."""
    settings = {"max_wal_senders": "2", "max_replication_slots": "2", "wal_sender_timeout": "4s"}
    with Sandbox(supabase=True, settings=settings) as server:
        yield server


@pytest.fixture
def scarce(narrow: Sandbox) -> Iterator[tuple[str, psycopg.Connection]]:
    """A fresh database there."""
    dsn = narrow.create_database()
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute(SETUP)
        db.execute("CREATE TABLE wells (id int PRIMARY KEY, name text); CREATE PUBLICATION wells FOR TABLE wells")
        yield dsn, db
        until(lambda: not db.execute("SELECT 1 FROM pg_replication_slots WHERE active").fetchone())
        db.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


class Kept:
    """A consumer with one store of wells, and what the store has told."""

    def __init__(self, kind: str, dsn: str, **options: Any) -> None:
        self.asked = {name: options.pop(name) for name in ("filter", "subject") if name in options}
        self.store: Any = None
        self.told: list[cdc.StoreChange] = []
        self.running = Running(kind, dsn, self._prepare, **OPTIONS | options)

    def _prepare(self, running: Running) -> None:
        self.store = running.consumer.store("wells", **self.asked)
        self.store.on_change(self.told.append)
        running.on("wells", running.events.append)

    def __enter__(self) -> Kept:
        self.running.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.__exit__(*error)

    def names(self) -> dict[int, str]:
        return {key: row["name"] for key, row in self.store.items()}

    def added_up(self) -> dict[int, str]:
        """What the store has, by what it has told."""
        names: dict[int, str] = {}
        for change in list(self.told):
            assert (change.old is None) == (change.effect is cdc.Effect.ENTER) == (change.key not in names)
            assert (change.new is None) == (change.effect is cdc.Effect.LEAVE)
            assert not change.polled or change.position is None
            if change.old is not None:
                assert change.old["name"] == names.pop(change.key)
            if change.new is not None:
                names[change.key] = change.new["name"]
        return names

    def live(self) -> None:
        self.running.do(self.store.wait_live, timeout=30)

    def health(self) -> cdc.Health:
        health = self.running.consumer.health()
        assert isinstance(health, cdc.Health)
        return health

    def polls(self) -> bool:
        return any("polling every 0.1 s since" in reason and "rows, last" in reason for reason in self.health().reasons)


def table(db: psycopg.Connection) -> dict[int, str]:
    return dict(db.execute("SELECT id, name FROM wells").fetchall())


class Thirst:
    """Takes the walsenders away, and gives them back."""

    def __init__(self, dsn: str, db: psycopg.Connection) -> None:
        self._held: list[psycopg.Connection] = []
        text = psycopg.conninfo.make_conninfo(dsn, replication="database")

        def all_taken() -> bool:
            own = [each.info.backend_pid for each in self._held]
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE pid <> ALL (%s)", (own,))
            with suppress(psycopg.OperationalError):
                self._held.append(psycopg.connect(text, autocommit=True))
            return len(self._held) == 2

        until(all_taken)

    def quench(self) -> None:
        for each in self._held:
            each.close()


def as_poller(dsn: str) -> str:
    return psycopg.conninfo.make_conninfo(dsn, user="poller", password="p")


def test_without_the_right_to_stream_a_store_is_polled(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'one'), (2, 'two')")
    with Kept(kind, as_poller(database)) as it:
        until(lambda: it.names() == {1: "one", 2: "two"})
        assert [(each.effect, each.polled, each.position) for each in it.told] == [(cdc.Effect.ENTER, True, None)] * 2
        db.execute("UPDATE wells SET name = 'uno' WHERE id = 1; UPDATE wells SET name = 'eins' WHERE id = 1")
        db.execute("DELETE FROM wells WHERE id = 2; INSERT INTO wells (id, name) VALUES (3, 'three')")
        until(lambda: it.names() == {1: "eins", 3: "three"})
        assert it.added_up() == it.names()
        health = it.health()
        assert (health.status, health.colour is cdc.Colour.GREEN) == (cdc.Status.CONNECTING, False)
        assert it.polls() and any("no replication right" in reason for reason in health.reasons)
        assert (it.store.is_live, it.store.position, it.store.status) == (False, None, "polled, 2 rows")
        assert it.running.events == []  # Polls make no events for handlers.
        late = it.running.consumer.store("wells")
        until(lambda: len(late) == 2)
        with pytest.raises(cdc.SubscriptionError, match="no table public.nosuch"):
            it.running.subscribe("nosuch", print)
        db.execute("ALTER ROLE poller REPLICATION")
        it.live()
        it.running.do(late.wait_live, timeout=30)
        db.execute("UPDATE wells SET name = 'un' WHERE id = 1")
        it.running.caught_up(db)
        assert it.names() == it.added_up() == {1: "un", 3: "three"}
        assert not it.told[-1].polled and it.told[-1].position is not None
        assert not any("polling" in reason for reason in it.health().reasons)
        assert not db.execute(_POLLS).fetchone()


def test_without_the_option_it_ends_as_ever(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    with pytest.raises(cdc.ConfigurationError, match="no replication right"):
        with Kept(kind, as_poller(database), fallback=None):
            pass


def test_mistakes_end_it_all_the_same(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    with pytest.raises(cdc.SubscriptionError, match="filter"):
        with Kept(kind, as_poller(database), filter="nosuch=eq.1"):
            pass
    with pytest.raises(cdc.ConfigurationError, match="publication 'other' does not exist"):
        with Kept(kind, as_poller(database), publication="other"):
            pass
    with pytest.raises(cdc.SlotError, match="lower-case letters"):
        with Kept(kind, database, slot="Ingest"):
            pass
    with pytest.raises(cdc.ConfigurationError, match="password"):
        with Kept(kind, psycopg.conninfo.make_conninfo(database, dbname="nosuch")):
            pass


def test_a_right_that_is_taken_away(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    db.execute("ALTER ROLE poller REPLICATION; INSERT INTO wells (id, name) VALUES (1, 'one')")
    with Kept(kind, as_poller(database)) as it:
        it.live()
        db.execute("ALTER ROLE poller NOREPLICATION")
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        db.execute("UPDATE wells SET name = 'uno'")
        until(it.polls)
        db.execute("UPDATE wells SET name = 'eins'")
        until(lambda: it.names() == {1: "eins"})
        db.execute("ALTER ROLE poller REPLICATION")
        it.live()
        it.running.caught_up(db)
        assert it.names() == it.added_up() == {1: "eins"}
    assert [event.new["name"] for event in it.running.events] == ["uno", "eins"]


def test_walsenders_that_are_all_taken(kind: str, scarce: tuple[str, psycopg.Connection]) -> None:
    """By itself, after as many attempts as make health red; a plain subscription loses nothing."""
    dsn, db = scarce
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    with Kept(kind, dsn, fallback=None) as it:
        it.live()
        thirst = Thirst(dsn, db)
        db.execute("UPDATE wells SET name = 'uno'; INSERT INTO wells VALUES (2, 'two')")
        until(lambda: it.names() == {1: "uno", 2: "two"})
        assert it.health().attempts >= 5 and it.health().colour is cdc.Colour.RED
        until(it.polls)
        db.execute("UPDATE wells SET name = 'eins' WHERE id = 1")
        until(lambda: it.names() == {1: "eins", 2: "two"})
        thirst.quench()
        it.live()
        it.running.caught_up(db)
        assert it.names() == it.added_up() == table(db)
    assert [(event.key, event.new["name"]) for event in it.running.events] == [(1, "uno"), (2, "two"), (1, "eins")]


def test_a_beginning_without_a_walsender(kind: str, scarce: tuple[str, psycopg.Connection]) -> None:
    dsn, db = scarce
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    thirst = Thirst(dsn, db)
    try:
        with Kept(kind, dsn) as it:
            until(lambda: it.names() == {1: "one"})
            assert it.polls() and any("no connection left" in reason for reason in it.health().reasons)
            thirst.quench()
            it.live()
            db.execute("DELETE FROM wells")
            it.running.caught_up(db)
            assert it.names() == it.added_up() == {}
    finally:
        thirst.quench()


def test_a_slot_that_another_consumer_holds(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'one')")
    with Kept(kind, database) as first:
        first.live()
        with Kept(kind, database, wait_for_slot=0.05) as it:
            until(lambda: it.names() == {1: "one"})
            until(lambda: any("in use by" in reason for reason in it.health().reasons))
            db.execute("UPDATE wells SET name = 'uno'")
            until(lambda: it.names() == {1: "uno"})
            first.running.do(first.running.consumer.stop)
            it.live()
            db.execute("UPDATE wells SET name = 'eins'")
            it.running.caught_up(db)
            assert it.names() == it.added_up() == {1: "eins"}


def test_a_server_that_does_not_stream(kind: str) -> None:
    with Sandbox(settings={"wal_level": "replica"}) as server, psycopg.connect(server.dsn, autocommit=True) as db:
        db.execute("CREATE TABLE wells (id int PRIMARY KEY, name text)")
        db.execute("INSERT INTO wells VALUES (1, 'one'); CREATE PUBLICATION wells FOR TABLE wells")
        with pytest.raises(cdc.ConfigurationError, match="wal_level"), Kept(kind, server.dsn, fallback=None):
            pass
        with Kept(kind, server.dsn) as it:
            until(lambda: it.names() == {1: "one"})
            assert it.polls() and any("wal_level is 'replica'" in reason for reason in it.health().reasons)
            db.execute("TRUNCATE wells")
            until(lambda: it.names() == it.added_up() == {})


def test_a_slot_that_is_lost_and_cannot_be_made_again(kind: str, scarce: tuple[str, psycopg.Connection]) -> None:
    dsn, db = scarce
    db.execute("INSERT INTO wells VALUES (1, 'one')")
    db.execute("SELECT pg_create_physical_replication_slot('other')")
    with Kept(kind, dsn) as it:
        it.live()
        thirst = Thirst(dsn, db)
        db.execute("SELECT pg_drop_replication_slot('ingest')")
        db.execute("SELECT pg_create_physical_replication_slot('another')")
        thirst.quench()
        db.execute("DELETE FROM wells; INSERT INTO wells VALUES (2, 'two')")
        until(lambda: it.names() == {2: "two"})
        until(lambda: any("replication slots" in reason for reason in it.health().reasons))
        assert it.polls()
        db.execute("INSERT INTO wells VALUES (3, 'three')")
        db.execute("SELECT pg_drop_replication_slot('another')")
        it.live()
        it.running.caught_up(db)
        assert it.names() == it.added_up() == {2: "two", 3: "three"}
        db.execute("SELECT pg_drop_replication_slot('other')")
    gap = it.running.events[0]
    assert isinstance(gap, cdc.Gap) and gap.kind is cdc.GapKind.SLOT_DROPPED


def test_a_writer_all_the_way_there_and_back(kind: str, scarce: tuple[str, psycopg.Connection]) -> None:
    dsn, db = scarce
    chance, over = random.Random(7), threading.Event()

    def write() -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            while not over.is_set():
                with own.transaction():
                    for _ in range(chance.randint(1, 4)):
                        key, name = chance.randint(1, 40), str(chance.randint(1, 10**6))
                        statement = chance.choice([
                            "INSERT INTO wells VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                            "UPDATE wells SET name = %(name)s WHERE id = %(key)s".replace("%(name)s", "%s || ''"),
                            "DELETE FROM wells WHERE id = %s AND %s <> ''",
                        ])  # fmt: skip
                        values = (name, key) if statement.startswith("UPDATE") else (key, name)
                        own.execute(statement.replace("%(key)s", "%s"), values)

    writer = threading.Thread(target=write)
    with Kept(kind, dsn) as it:
        it.live()
        writer.start()
        try:
            for _ in range(2):
                before = len(it.told)
                thirst = Thirst(dsn, db)
                until(it.polls)
                until(lambda: sum(change.polled for change in it.told[before:]) > 20)  # noqa: B023
                thirst.quench()
                it.live()
        finally:
            over.set()
            writer.join()
        it.running.caught_up(db)
        it.live()
        assert it.names() == it.added_up() == table(db)


def test_a_table_with_too_many_rows_is_not_polled(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    db.execute("INSERT INTO wells (id, name) SELECT n, 'x' FROM generate_series(1, 11) n")
    with Kept(kind, as_poller(database), polling_rows=10) as it:
        until(lambda: any("more than polling_rows=10 rows" in reason for reason in it.health().reasons))
        assert it.names() == {} and not it.store.is_live
        db.execute("ALTER ROLE poller REPLICATION")
        it.live()
        assert it.names() == table(db)


def test_polls_whose_connection_is_ended_go_on(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    with Kept(kind, as_poller(database)) as it:
        for number in range(3):
            until(it.polls)
            until(lambda: db.execute(f"SELECT pg_terminate_backend(pid) FROM ({_POLLS}) p").fetchone())
            db.execute("INSERT INTO wells (id, name) VALUES (%s, 'x')", (number,))
            until(lambda: it.names() == table(db))


def test_a_locked_table_is_polled_later(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'one')")
    with Kept(kind, as_poller(database)) as it:
        until(it.polls)
        with psycopg.connect(database) as other:
            other.execute("LOCK TABLE wells IN ACCESS EXCLUSIVE MODE")
            other.execute("UPDATE wells SET name = 'uno'")
            until(
                lambda: any(
                    "not at the moment: canceling statement due to lock timeout" in reason
                    for reason in it.health().reasons
                )
            )
            assert it.names() == {1: "one"}
        until(lambda: it.names() == {1: "uno"})
        until(lambda: not any("lock timeout" in reason for reason in it.health().reasons))


def test_a_stop_during_a_poll_leaves_nothing_behind(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    waits = "SELECT 1 FROM pg_stat_activity WHERE usename = 'poller' AND wait_event_type = 'Lock'"
    with Kept(kind, as_poller(database)) as it, psycopg.connect(database) as other:
        until(it.polls)
        other.execute("LOCK TABLE wells IN ACCESS EXCLUSIVE MODE")
        until(lambda: db.execute(waits).fetchone())
        it.running.do(it.running.consumer.stop)
        other.rollback()
    until(lambda: not any(thread.name.startswith("cdc-polling") for thread in threading.enumerate()))
    until(lambda: not db.execute("SELECT 1 FROM pg_stat_activity WHERE usename = 'poller'").fetchone())


def test_rows_that_were_moved_are_no_changes(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    db.execute("INSERT INTO wells (id, name) SELECT n, 'x' FROM generate_series(1, 100) n")
    db.execute("DELETE FROM wells WHERE id < 50")
    with Kept(kind, as_poller(database)) as it:
        until(lambda: len(it.store) == 51)
        db.execute("VACUUM FULL wells")
        db.execute("INSERT INTO wells (id, name) VALUES (1, 'first')")
        until(lambda: len(it.store) == 52)
        db.execute("VACUUM FREEZE wells")
        db.execute("DELETE FROM wells WHERE id = 2; UPDATE wells SET name = 'last' WHERE id = 100")
        until(lambda: it.names().get(100) == "last")
        assert [change.effect for change in it.told[51:]] == [cdc.Effect.ENTER, cdc.Effect.STAY]


def test_a_table_that_is_altered_and_truncated(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'one'), (2, 'two')")
    with Kept(kind, as_poller(database)) as it:
        until(lambda: len(it.store) == 2)
        db.execute("ALTER TABLE wells ADD COLUMN extra text DEFAULT 'more'")
        until(lambda: dict(it.store[1]).get("extra") == "more")
        db.execute("TRUNCATE wells")
        until(lambda: len(it.store) == 0)
        db.execute("ALTER ROLE poller REPLICATION")
        it.live()
        assert it.names() == it.added_up() == {}


def test_a_subject_sees_what_it_may_see(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    db.execute("ALTER TABLE wells ENABLE ROW LEVEL SECURITY; GRANT SELECT ON wells TO anon")
    db.execute("CREATE POLICY few ON wells FOR SELECT TO anon USING (id < 10)")
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'one'), (11, 'eleven')")
    with Kept(kind, as_poller(database), subject=cdc.Subject("anon"), filter="name=neq.hidden") as it:
        until(lambda: it.names() == {1: "one"})
        db.execute("UPDATE wells SET id = 12 WHERE id = 1; INSERT INTO wells (id, name) VALUES (2, 'hidden'), (3, 'x')")
        until(lambda: it.names() == {3: "x"})
        db.execute("ALTER POLICY few ON wells USING (id > 10)")
        until(lambda: it.names() == {11: "eleven", 12: "one"})
        db.execute("REVOKE SELECT ON wells FROM anon")
        until(lambda: it.names() == {})
        db.execute("GRANT SELECT (id, name) ON wells TO anon")
        until(lambda: it.names() == {11: "eleven", 12: "one"})
        assert it.added_up() == it.names()
        with pytest.raises(KeyError):
            it.store[11]["notes"]


class Cached:
    """A consumer without the right to stream, and a cache of wells; it looks at the table when it is told to."""

    def __init__(self, kind: str, dsn: str, **options: Any) -> None:
        self.cache: Any = None
        self._made = {"ttl": 300} | options
        self.running = Running(kind, as_poller(dsn), self._prepare, fallback="poll", polling_interval=3600)

    def _prepare(self, running: Running) -> None:
        self.cache = running.consumer.cache("wells", **self._made)

    def __enter__(self) -> Cached:
        self.running.__enter__()
        until(lambda: self._polling._last)
        return self

    def __exit__(self, *error: Any) -> None:
        self.running.__exit__(*error)

    @property
    def _polling(self) -> Any:
        return self.running.consumer._loop.link.polling

    def look(self) -> None:
        """Look at the table now."""
        before = self._polling._last
        self._polling._due_at = 0.0
        self.running.consumer._wake()
        until(lambda: self._polling._last != before)

    def fetch(self, key: Any, query: str = "SELECT max(name) FROM wells WHERE id = %s") -> Any:
        def load(connection: psycopg.Connection, key: Any) -> Any:
            return (connection.execute(query.encode(), (key,)).fetchone() or (None,))[0]

        return self.running.do(self.cache.fetch, key, load)

    def age(self, seconds: float) -> None:
        """Let every entry be so much older."""
        for entry in (self.cache._cache if hasattr(self.cache, "_cache") else self.cache)._entries.values():
            entry.at -= seconds


def test_a_cache_forgets_what_has_changed(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(ROLE)
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    with Cached(kind, database, by="id") as it:
        assert [it.fetch(key) for key in (1, 2, 3)] == ["one", "two", "three"]
        db.execute("UPDATE wells SET name = 'uno' WHERE id = 1; DELETE FROM wells WHERE id = 2")
        it.look()
        assert [it.fetch(key) for key in (1, 2, 3)] == ["uno", None, "three"]
        assert it.cache.counters.loads == 5
        db.execute("UPDATE wells SET id = 2, name = 'moved' WHERE id = 3")
        db.execute("VACUUM FULL wells")
        it.look()
        assert [it.fetch(key) for key in (2, 3)] == ["moved", None]


def test_what_cannot_have_changed_lives_on(kind: str, database: str, db: psycopg.Connection) -> None:
    """The row of key 2 comes and goes between two looks, so that nobody knows of it: what was loaded is not kept."""
    db.execute(ROLE)
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'one')")
    with Cached(kind, database, by="id") as it:
        db.execute("INSERT INTO wells (id, name) VALUES (2, 'two')")
        assert [it.fetch(1), it.fetch(2)] == ["one", "two"]
        db.execute("DELETE FROM wells WHERE id = 2")
        it.age(3700)
        it.look()
        assert [it.fetch(1), it.cache.counters.loads] == ["one", 2]
        assert [it.fetch(2), it.cache.counters.loads] == [None, 3]
        it.age(3700)
        assert [it.fetch(1), it.cache.counters.loads] == ["one", 4]


@pytest.mark.parametrize("by", ["name", None], ids=["name", "whole"])
def test_keys_that_are_not_unique_do_not_live_on(kind: str, database: str, db: psycopg.Connection, by: Any) -> None:
    db.execute(ROLE)
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'a'), (2, 'b')")
    count = "SELECT count(*) FROM wells WHERE name = %s"
    with Cached(kind, database, by=by) as it:
        assert [it.fetch("a", count), it.fetch("b", count)] == [1, 1]
        db.execute("INSERT INTO wells (id, name) VALUES (3, 'a')")
        it.look()
        assert [it.fetch("a", count), it.fetch("b", count), it.cache.counters.loads] == [2, 1, 3 if by else 4]
        it.look()
        assert [it.fetch("a", count), it.fetch("b", count), it.cache.counters.loads] == [2, 1, 3 if by else 4]
        it.age(3700)
        it.look()
        assert [it.fetch("a", count), it.fetch("b", count), it.cache.counters.loads] == [2, 1, 5 if by else 6]
        # The rows have one transaction: B gets the place of A.
        db.execute("TRUNCATE wells; INSERT INTO wells (id, name) SELECT n, 'x' FROM generate_series(1, 3) n")
        it.look()
        assert it.fetch("x", count) == 3
        db.execute("DELETE FROM wells WHERE id = 1")
        db.execute("VACUUM FULL wells")
        it.look()
        assert it.fetch("x", count) == 2


def test_a_subject_expires_without_a_stream(kind: str, scarce: tuple[str, psycopg.Connection]) -> None:
    dsn, db = scarce
    db.execute("GRANT SELECT ON wells TO anon; INSERT INTO wells VALUES (1, 'one')")
    subject = cdc.Subject("anon", {"exp": time.time() + 3})
    with Kept(kind, dsn, fallback=None, subject=subject, backoff=cdc.Backoff(first=3600, longest=3600)) as it:
        it.live()
        thirst = Thirst(dsn, db)
        until(lambda: it.names() == {} and "expired" in it.store.status)
        until(lambda: it.told[-1].effect is cdc.Effect.LEAVE)
        thirst.quench()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fallback": "pray"}, "fallback is 'poll' or None, not 'pray'"),
        ({"fallback": "poll", "on_gap": "stop"}, "on_gap='stop' ends there"),
        ({"polling_rows": 0}, "polling_rows is a number of rows from 1, not 0"),
        ({"polling_rows": True}, "polling_rows is a number of rows from 1, not True"),
        ({"polling_interval": 0}, "polling_interval is a number of seconds above 0"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=message):
        cdc.Consumer("dbname=none", slot="ingest", **options)
    with pytest.raises(cdc.ConfigurationError, match=message):
        cdc.AsyncConsumer("dbname=none", slot="ingest", **options)

"""Publications that change while they are streamed: what is not sent any more ends the consumer, with the remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

ENDED = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'"


def from_15_on(db: psycopg.Connection, statement: str) -> bool:
    """Run a statement that came with PostgreSQL 15; False on 14, which has to refuse it."""
    if db.info.server_version < 150000:
        with pytest.raises(psycopg.errors.SyntaxError):
            db.execute(statement)
        return False
    db.execute(statement)
    return True


def ended(running: Running, says: str) -> None:
    """The consumer ends by itself, and the message says what is missing and what to do."""
    until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
    with pytest.raises(cdc.SubscriptionError, match=says):
        running.do(running.consumer.stop)


def goes_on(running: Running, db: psycopg.Connection) -> None:
    """The consumer still runs after the next looks at the catalog."""
    for _ in range(3):
        db.execute("INSERT INTO wells (id, name) SELECT 1000 + count(*), 'mine' FROM wells")
        running.caught_up(db)
        db.execute("SELECT pg_sleep(0.25)")
    assert running.consumer.health().status is cdc.Status.LIVE


NARROWED = [
    (14, "SET (publish = 'insert')", "does not publish DELETE, TRUNCATE, UPDATE of public.wells any more.*ALTER PUBL"),
    (14, "SET (publish = 'insert, update, delete')", "does not publish TRUNCATE of public.wells any more"),
    (14, "DROP TABLE wells", "public.wells is not published any more.*Publish it again, bring your data up to date"),
    (15, "SET TABLE wells WHERE (id > 5)", "filters the rows of public.wells by another condition than before"),
]


@pytest.mark.parametrize(("version", "change", "says"), NARROWED, ids=[change for _, change, _ in NARROWED])
@pytest.mark.parametrize("cached", [False, True], ids=["handler", "cache"])
def test_less_is_published(
    kind: str, database: str, db: psycopg.Connection, version: int, change: str, says: str, cached: bool
) -> None:
    def prepare(running: Running) -> None:
        if cached:
            running.consumer.cache("wells", ttl=60, by="id")
        else:
            running.on("wells", running.events.append)

    if version == 15 and not from_15_on(db, "CREATE PUBLICATION filters FOR TABLE wells WHERE (id > 5)"):
        return
    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute(f"ALTER PUBLICATION wells {change}")
        db.execute("UPDATE wells SET name = 'x'")
        ended(running, says)
    assert running.consumer.health().status is cdc.Status.STOPPED


def test_what_was_not_asked_for_may_go(kind: str, database: str, db: psycopg.Connection) -> None:
    def prepare(running: Running) -> None:
        running.on("wells", running.events.append, operations=["insert"])

    with Running(kind, database, prepare) as running:
        db.execute("ALTER PUBLICATION wells SET (publish = 'insert')")
        goes_on(running, db)


def test_what_was_never_sent_is_not_missed(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER PUBLICATION wells SET (publish = 'insert, update')")
    with Running(kind, database) as running:
        db.execute("CREATE TABLE other (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE other")
        db.execute("ALTER PUBLICATION wells SET (publish = 'insert, update, delete')")
        goes_on(running, db)
        db.execute("ALTER PUBLICATION wells SET (publish = 'insert')")
        ended(running, "does not publish UPDATE of public.wells any more")
    with Running(kind, database) as running:
        goes_on(running, db)


def test_one_publication_covers_for_another(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE PUBLICATION more FOR TABLE wells")
    with Running(kind, database, publication=["wells", "more"]) as running:
        db.execute("ALTER PUBLICATION wells SET (publish = 'insert')")
        db.execute("ALTER PUBLICATION wells DROP TABLE wells")
        goes_on(running, db)
        db.execute("ALTER PUBLICATION more DROP TABLE wells")
        ended(running, "public.wells is not published any more")


def test_a_publication_is_dropped(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        db.execute("DROP PUBLICATION wells")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(cdc.ConfigurationError, match="publication 'wells' does not exist: run `cdc setup"):
            running.do(running.consumer.stop)


def test_less_is_published_while_the_connection_is_lost(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, rights_interval=60) as running:
        running.caught_up(db)
        db.execute("ALTER PUBLICATION wells SET (publish = 'insert')")
        db.execute(ENDED)
        ended(running, "does not publish DELETE, TRUNCATE, UPDATE of public.wells any more")


def test_row_filters(kind: str, database: str, db: psycopg.Connection) -> None:
    """An UPDATE that moves a row out of the publication's filter comes as a DELETE, into it as an INSERT."""
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
    if not from_15_on(db, "ALTER PUBLICATION wells SET TABLE wells WHERE (name = 'mine')"):
        return
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id, name) VALUES (1, 'theirs'), (2, 'mine')")
        db.execute("UPDATE wells SET name = 'mine' WHERE id = 1; UPDATE wells SET name = 'theirs' WHERE id = 2")
        goes_on(running, db)
        db.execute("ALTER PUBLICATION wells SET TABLE wells WHERE (name = 'yours')")
        ended(running, "filters the rows of public.wells by another condition")
    assert [(event.event_type, event.key) for event in running.events[:3]] == [
        ("INSERT", 2),
        ("INSERT", 1),
        ("DELETE", 2),
    ]


def test_a_filter_that_goes_away_is_fine(kind: str, database: str, db: psycopg.Connection) -> None:
    if not from_15_on(db, "ALTER PUBLICATION wells SET TABLE wells WHERE (id > 1)"):
        return
    with Running(kind, database) as running:
        goes_on(running, db)
        db.execute("ALTER PUBLICATION wells SET TABLE wells")
        db.execute("INSERT INTO wells (id) VALUES (0)")
        goes_on(running, db)
    assert 0 in [event.key for event in running.events]


def test_a_filtered_publication_beside_a_whole_one_for_inserts(database: str, db: psycopg.Connection) -> None:
    """Neither lets every update through, though one of them has no condition."""
    if not from_15_on(db, "ALTER PUBLICATION wells SET TABLE wells WHERE (id > 5)"):
        return
    db.execute("CREATE PUBLICATION whole FOR TABLE wells WITH (publish = 'insert')")

    def prepare(running: Running) -> None:
        running.consumer.cache("wells", ttl=60)

    with (
        pytest.raises(cdc.SubscriptionError, match="filters the rows of public.wells, so a cache"),
        Running("blocking", database, prepare, publication=["wells", "whole"]),
    ):
        pass


def test_a_column_list(kind: str, database: str, db: psycopg.Connection) -> None:
    if not from_15_on(db, "CREATE PUBLICATION columns FOR TABLE wells (id, name)"):
        return
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id, depth) VALUES (1, 1)")
        db.execute("ALTER PUBLICATION wells SET TABLE wells (id, name)")
        db.execute("INSERT INTO wells (id, depth) VALUES (2, 2)")
        db.execute("ALTER PUBLICATION wells SET TABLE wells (id, name, depth)")
        db.execute("INSERT INTO wells (id, depth) VALUES (3, 3)")
        running.caught_up(db)
    one, less, two, more, three = running.events
    assert (less.added, less.dropped) == ((), ("project_id", "depth", "notes"))
    assert (more.added, more.dropped) == (("depth",), ())
    assert ("depth" in one.new, "depth" in two.new, three.new["depth"]) == (True, False, 3)


def test_a_table_gets_children_while_it_is_cached(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, lambda running: running.consumer.cache("wells", ttl=60)) as running:
        running.caught_up(db)
        db.execute("CREATE TABLE deep () INHERITS (wells)")
        ended(running, "public.wells has partitions or child tables")


def test_a_partitioned_table_gets_its_first_partition_while_it_is_cached(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    db.execute("CREATE TABLE logs (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    db.execute("CREATE PUBLICATION logs FOR TABLE logs WITH (publish_via_partition_root = true)")

    def prepare(running: Running) -> None:
        running.consumer.cache("logs", ttl=60)

    with Running(kind, database, prepare, publication="logs") as running:
        running.caught_up(db)
        db.execute("CREATE TABLE logs1 PARTITION OF logs FOR VALUES FROM (0) TO (100)")
        ended(running, "public.logs has partitions or child tables")


# Filters and keys whose column goes.

GONE = ["ALTER TABLE wells DROP COLUMN name", "ALTER TABLE wells RENAME COLUMN name TO title"]


@pytest.mark.parametrize("change", GONE)
def test_a_filters_column_goes(kind: str, database: str, db: psycopg.Connection, change: str) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append, filter="name=eq.mine")

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells (id, name) VALUES (1, 'mine')")
        running.caught_up(db)
        db.execute(change)
        db.execute("INSERT INTO wells (id) VALUES (2)")
        ended(running, "the filter names the column 'name', but the published columns of public.wells are")
    assert [event.key for event in running.events] == [1]


@pytest.mark.parametrize("change", GONE)
def test_a_subjects_filter_loses_its_column(kind: str, database: str, db: psycopg.Connection, change: str) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; GRANT SELECT ON wells TO authenticated")

    def prepare(running: Running) -> None:
        running.on(
            "wells",
            running.events.append,
            filter="name=eq.mine",
            subject=cdc.Subject("authenticated"),
        )

    with Running(kind, database, prepare) as running:
        db.execute("INSERT INTO wells (id, name) VALUES (1, 'mine')")
        running.caught_up(db)
        db.execute(change)
        db.execute("INSERT INTO wells (id) VALUES (2)")
        running.caught_up(db)
        (subscription,) = running.consumer.subscriptions
        assert "the filter names the column 'name'" in str(subscription.denied)
        db.execute("ALTER TABLE wells DROP COLUMN IF EXISTS title, ADD COLUMN name text")
        db.execute("INSERT INTO wells (id, name) VALUES (3, 'mine')")
        running.caught_up(db)
        assert subscription.denied is None
    rows = [event for event in running.events if isinstance(event, cdc.Insert)]
    assert [event.key for event in rows] == [1, 3]


def test_rows_from_before_the_filters_column(kind: str, database: str, db: psycopg.Connection) -> None:
    """They cannot be judged: an error, unless the subscription goes without."""
    with Running(kind, database):
        pass
    db.execute("INSERT INTO wells (id) VALUES (1)")
    db.execute("ALTER TABLE wells ADD COLUMN status text; ALTER TABLE wells REPLICA IDENTITY FULL")
    db.execute("INSERT INTO wells (id, status) VALUES (2, 'open'), (3, 'shut')")

    def filtered(**options: Any) -> Callable[[Running], None]:
        return lambda running: running.on("wells", running.events.append, filter="status=eq.open", **options)

    with Running(kind, database, filtered()) as running:
        ended(running, "the filter names the column 'status'.*accept_undecided=True")
    with Running(kind, database, filtered(accept_undecided=True)) as running:
        running.caught_up(db)
        (subscription,) = running.consumer.subscriptions
    assert [event.key for event in running.events] == [2] and subscription.undecided == 1


def test_a_subscription_that_begins_before_the_stream_saw_its_column(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """The catalog has the new column already, the stream still describes the table as it was."""
    late: list[Any] = []
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute("ALTER TABLE wells REPLICA IDENTITY FULL, ADD COLUMN status text")
        running.subscribe("wells", late.append, filter="status=eq.open")
        cache = running.do(running.consumer.cache, "wells", ttl=60, by="status")
        db.execute("INSERT INTO wells (id, status) VALUES (2, 'open'), (3, 'shut')")
        running.caught_up(db)
        assert len(running.consumer.subscriptions) == 3 and cache.counters.invalidations >= 2
    assert [event.key for event in late] == [2]


def test_and_the_column_goes_before_it_saw_it(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute("ALTER TABLE wells REPLICA IDENTITY FULL, ADD COLUMN status text")
        running.subscribe("wells", print, filter="status=eq.open")
        db.execute("ALTER TABLE wells DROP COLUMN status")
        ended(running, "the filter names the column 'status'")


def test_a_refused_subscription_ends_nothing(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        goes_on(running, db)
        for refused in ({"filter": "name=eq.mine"}, {"filter": "nothing=eq.1"}, {"subject": cdc.Subject("nobody")}):
            with pytest.raises(cdc.SubscriptionError):
                running.subscribe("wells", print, **refused)
        goes_on(running, db)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("ALTER TABLE wells DROP COLUMN id, ADD COLUMN number int", "public.wells has no published column 'id'"),
        ("ALTER TABLE wells ALTER id TYPE json USING to_json(id)", "a json column cannot be a key: 'id'"),
    ],
)
def test_a_caches_key_goes(kind: str, database: str, db: psycopg.Connection, change: str, says: str) -> None:
    db.execute("ALTER TABLE wells DROP CONSTRAINT wells_pkey, ALTER id DROP NOT NULL, REPLICA IDENTITY FULL")
    with Running(kind, database, lambda running: running.consumer.cache("wells", ttl=60, by="id")) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute(change)
        db.execute("INSERT INTO wells (name) VALUES ('x')")
        ended(running, says)


def test_a_caches_key_gets_another_type(database: str, db: psycopg.Connection) -> None:
    caches: list[Any] = []

    def load(connection: psycopg.Connection, key: Any) -> Any:
        return connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()

    def prepare(running: Running) -> None:
        caches.append(running.consumer.cache("wells", ttl=60, by="id"))

    with Running("blocking", database, prepare) as running:
        db.execute("INSERT INTO wells (id, name) VALUES (1, 'a'), (2, 'b')")
        running.caught_up(db)
        (cache,) = caches
        until(lambda: cache.is_live)
        assert (cache.fetch(1, load), cache.fetch(2, load), len(cache)) == (("a",), ("b",), 2)
        db.execute("ALTER TABLE wells ALTER id TYPE text; UPDATE wells SET name = 'c' WHERE id = '1'")
        running.caught_up(db)
        assert len(cache) == 0
        assert (cache.fetch("1", load), cache.fetch("2", load)) == (("c",), ("b",))
        with pytest.raises(TypeError):
            cache.fetch(1, load)

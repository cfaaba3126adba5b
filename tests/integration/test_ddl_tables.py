"""DDL that concerns whole tables: renamed, moved, made again, new ones, partitions."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until
from tests.integration.test_ddl import kinds, told
from tests.integration.test_narrowed import ended, from_15_on

EVERYTHING = "CREATE PUBLICATION everything FOR ALL TABLES"


# Names.

RENAMED = [
    ("ALTER TABLE wells RENAME TO shafts", "It is called public.shafts now: subscribe to that"),
    ("CREATE SCHEMA old; ALTER TABLE wells SET SCHEMA old", r"It is called old\.wells now: subscribe to that"),
    ("DROP TABLE wells", "It was dropped: make and publish it again"),
]


@pytest.mark.parametrize("publication", ["wells", "everything"])
@pytest.mark.parametrize(("change", "says"), RENAMED)
def test_a_table_loses_its_name(
    kind: str, database: str, db: psycopg.Connection, publication: str, change: str, says: str
) -> None:
    db.execute(EVERYTHING)
    with Running(kind, database, publication=publication) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute(change)
        ended(running, f"public.wells is not published any more: changes of it are missing.*{says}")
    assert kinds(running.events) == ["Insert"]


AGAIN = [
    "DROP TABLE wells; CREATE TABLE wells (id int PRIMARY KEY, name text)",
    "ALTER TABLE wells RENAME TO former; CREATE TABLE wells (id int PRIMARY KEY, name text)",
    "CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (70); ALTER TABLE wells RENAME TO former; "
    "ALTER TABLE later RENAME TO wells",
]


@pytest.mark.parametrize("change", AGAIN)
@pytest.mark.parametrize("seen", [True, False], ids=["rows seen", "no rows seen"])
def test_another_table_takes_the_name(
    kind: str, database: str, db: psycopg.Connection, change: str, seen: bool
) -> None:
    """What the former table held went without a change: a gap, once, before the first change of the new table."""
    db.execute(EVERYTHING)
    inserts: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("wells", inserts.append, operations=["insert"])

    with Running(kind, database, prepare, publication="everything", on_gap="deliver") as running:
        if seen:
            db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        with db.transaction():
            db.execute(change)
        db.execute("INSERT INTO wells (id) VALUES (2)")
        db.execute("INSERT INTO wells (id) VALUES (3)")
        running.caught_up(db)
        db.execute("SELECT pg_sleep(0.5); INSERT INTO wells (id) VALUES (4)")
        running.caught_up(db)
    for events in (running.events, inserts):
        assert kinds(events) == ["Insert"] * seen + ["Gap"] + ["Insert"] * 3
        gap = events[seen]
        assert gap.reason == "another table is called public.wells from here on"
        assert gap.previous == (events[0].position if seen else None)
        assert events[-1].key == 4 and events[-1].relation.oid != (events[0].relation.oid if seen else 0)


def test_another_table_takes_the_name_and_gaps_stop(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(EVERYTHING)
    with Running(kind, database, publication="everything") as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute("DROP TABLE wells; CREATE TABLE wells (id int PRIMARY KEY)")
        db.execute("INSERT INTO wells VALUES (2)")
        until(lambda: running.consumer.health().status is cdc.Status.STOPPED)
        with pytest.raises(cdc.GapError, match="another table is called public.wells.*Bring your data up to") as caught:
            running.do(running.consumer.stop)
    assert caught.value.gap.previous == running.events[-1].position and kinds(running.events) == ["Insert"]
    with Running(kind, database, publication="everything") as again:
        again.caught_up(db)
    assert [event.key for event in again.events] == [2]


def test_a_cache_of_a_table_that_is_made_again(database: str, db: psycopg.Connection) -> None:
    db.execute(EVERYTHING)
    db.execute("INSERT INTO wells (id, name) VALUES (1, 'a')")
    caches: list[Any] = []

    def load(connection: psycopg.Connection, key: int) -> Any:
        return connection.execute("SELECT name FROM wells WHERE id = %s", (key,)).fetchone()

    def prepare(running: Running) -> None:
        caches.append(running.consumer.cache("wells", ttl=60, by="id"))

    with Running("blocking", database, prepare, publication="everything") as running:
        (cache,) = caches
        until(lambda: cache.is_live)
        assert cache.fetch(1, load) == ("a",) and len(cache) == 1
        db.execute("DROP TABLE wells; CREATE TABLE wells (id int PRIMARY KEY, name text)")
        until(lambda: len(cache) == 0)
        assert cache.fetch(1, load) is None
        db.execute("INSERT INTO wells VALUES (1, 'b')")
        running.caught_up(db)
        assert cache.fetch(1, load) == ("b",)


def test_names_change_places(kind: str, database: str, db: psycopg.Connection) -> None:
    """Two subscribed tables swap their names: a gap for both, and each subscription follows its name."""
    db.execute("CREATE TABLE later (id int PRIMARY KEY, depth int); ALTER PUBLICATION wells ADD TABLE later")
    others: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("later", others.append)

    with Running(kind, database, prepare, on_gap="deliver") as running:
        db.execute("INSERT INTO wells (id) VALUES (1); INSERT INTO later VALUES (11)")
        with db.transaction():
            db.execute("ALTER TABLE wells RENAME TO x; ALTER TABLE later RENAME TO wells")
            db.execute("ALTER TABLE x RENAME TO later")
        db.execute("INSERT INTO wells VALUES (12); INSERT INTO later VALUES (2)")
        running.caught_up(db)
    for events, keys in ((running.events, [1, 12]), (others, [11, 2])):
        assert kinds(events) == ["Insert", "Gap", "Insert"]
        assert [event.key for event in (events[0], events[2])] == keys


def test_a_table_that_is_gone_is_not_judged_any_more(kind: str, database: str, db: psycopg.Connection) -> None:
    """A change of rights makes every view anew; one on the former table could not be had."""
    db.execute(EVERYTHING)
    late: list[Any] = []
    seen: list[Any] = []

    def prepare(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("wells", seen.append, subject=cdc.Subject("authenticated"))

    with Running(kind, database, prepare, publication="everything", on_gap="deliver") as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        db.execute("DROP TABLE wells; CREATE TABLE wells (id int PRIMARY KEY, status text)")
        db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
        running.subscribe("wells", late.append, filter="status=eq.open")
        db.execute("INSERT INTO wells VALUES (2, 'open')")
        running.caught_up(db)
        db.execute("GRANT SELECT ON wells TO authenticated; SELECT pg_sleep(0.6)")
        db.execute("INSERT INTO wells VALUES (3, 'open')")
        running.caught_up(db)
        assert [each.denied for each in running.consumer.subscriptions] == [None] * 3
    assert kinds(running.events) == ["Insert", "Gap", "Insert", "Insert"]
    assert [event.key for event in late] == [2, 3]
    assert kinds(seen) == ["Gap", "Gap", "Insert"] and seen[2].key == 3
    assert [gap.kind for gap in seen[:2]] == [cdc.GapKind.TABLE_REPLACED, cdc.GapKind.RIGHTS]


# New tables.


def test_a_new_table_among_all_tables(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(EVERYTHING)
    late: list[Any] = []
    with Running(kind, database, publication="everything") as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        db.execute("CREATE TABLE logs (id int PRIMARY KEY); INSERT INTO logs VALUES (1)")
        running.caught_up(db)
        running.subscribe("logs", late.append)
        db.execute("INSERT INTO logs VALUES (2); ALTER TABLE logs ADD x int; INSERT INTO logs VALUES (3)")
        running.caught_up(db)
    assert kinds(running.events) == ["Insert"]
    assert kinds(late) == ["Insert", "SchemaChange", "Insert"] and told(late[1]) == (("x",), (), ())


def test_a_new_table_in_a_published_schema(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE SCHEMA geo")
    if not from_15_on(db, "CREATE PUBLICATION geo FOR TABLES IN SCHEMA geo"):
        return
    late: list[Any] = []
    with Running(kind, database, lambda running: None, publication="geo") as running:
        db.execute("CREATE TABLE geo.logs (id int PRIMARY KEY)")
        running.subscribe("geo.logs", late.append)
        db.execute("INSERT INTO geo.logs VALUES (1)")
        db.execute("ALTER TABLE wells SET SCHEMA geo; INSERT INTO geo.wells (id) VALUES (1)")
        running.caught_up(db)
        running.subscribe("geo.wells", late.append)
        db.execute("INSERT INTO geo.wells (id) VALUES (2)")
        running.caught_up(db)
        db.execute("ALTER TABLE geo.wells SET SCHEMA public")
        ended(running, "geo.wells is not published any more.*It is called public.wells now")
    assert [(event.table, event.key) for event in late] == [("logs", 1), ("wells", 2)]


def test_a_table_is_added_to_the_publication(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE logs (id int PRIMARY KEY)")
    with Running(kind, database) as running:
        with pytest.raises(cdc.SubscriptionError, match="ADD TABLE"):
            running.subscribe("logs", print)
        db.execute("ALTER PUBLICATION wells ADD TABLE logs")
        running.subscribe("logs", running.events.append)
        db.execute("INSERT INTO wells (id) VALUES (1); INSERT INTO logs VALUES (1)")
        running.caught_up(db)
    assert [event.table for event in running.events] == ["wells", "logs"]


# Partitions.


def parted(db: psycopg.Connection, root: bool) -> None:
    db.execute("CREATE TABLE logs (id int PRIMARY KEY, x text) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE logs0 PARTITION OF logs FOR VALUES FROM (0) TO (10)")
    # Columns in another order, one of them behind a dropped one.
    db.execute("CREATE TABLE logs1 (gone int, x text, id int PRIMARY KEY); ALTER TABLE logs1 DROP COLUMN gone")
    db.execute(f"CREATE PUBLICATION logs FOR TABLE logs WITH (publish_via_partition_root = {root})")


def of_logs(running: Running) -> None:
    running.on("logs", running.events.append)


def test_partitions_under_their_roots_name(kind: str, database: str, db: psycopg.Connection) -> None:
    """Attached or detached, nothing looks different; the root's own columns are what is told of."""
    parted(db, root=True)
    with Running(kind, database, of_logs, publication="logs") as running:
        db.execute("INSERT INTO logs VALUES (1, 'a')")
        with db.transaction():
            db.execute("ALTER TABLE logs ATTACH PARTITION logs1 FOR VALUES FROM (10) TO (20)")
            db.execute("ALTER PUBLICATION logs SET (publish_via_partition_root = true)")
        db.execute("INSERT INTO logs VALUES (11, 'b'); INSERT INTO logs1 (id) VALUES (12)")
        db.execute("CREATE TABLE logs2 PARTITION OF logs FOR VALUES FROM (20) TO (30)")
        db.execute(
            "INSERT INTO logs VALUES (21, 'd'); ALTER TABLE logs ADD y int; INSERT INTO logs VALUES (13, 'e', 1)"
        )
        db.execute("INSERT INTO logs VALUES (22, 'f', 1)")
        running.caught_up(db)
        db.execute("SELECT pg_sleep(0.5)")
        assert running.consumer.health().status is cdc.Status.LIVE
    assert kinds(running.events) == ["Insert"] * 4 + ["SchemaChange", "Insert", "Insert"]
    rows = [event for event in running.events if isinstance(event, cdc.Insert)]
    assert [event.key for event in rows] == [1, 11, 12, 21, 13, 22] and rows[1].new["x"] == "b"
    assert {event.table for event in running.events} == {"logs"}


def test_written_to_and_then_attached_or_detached(kind: str, database: str, db: psycopg.Connection) -> None:
    """PostgreSQL 14 goes on as before with a table that it has met: an error, since changes are missing."""
    parted(db, root=True)
    with Running(kind, database, of_logs, publication="logs") as running:
        db.execute("INSERT INTO logs1 (id) VALUES (11); INSERT INTO logs (id) VALUES (1)")
        db.execute("ALTER TABLE logs ATTACH PARTITION logs1 FOR VALUES FROM (10) TO (20)")
        db.execute("ALTER TABLE logs DETACH PARTITION logs0")
        db.execute("INSERT INTO logs (id) VALUES (12); INSERT INTO logs0 (id) VALUES (2)")
        if db.info.server_version < 150000:
            ended(running, "public.logs1 was attached to public.logs, and PostgreSQL 14 may go on without.*ALTER PUBL")
            return
        running.caught_up(db)
    assert [event.key for event in running.events] == [1, 12]


def test_attached_together_with_a_change_of_the_publication(kind: str, database: str, db: psycopg.Connection) -> None:
    """With this, PostgreSQL 14 looks again."""
    parted(db, root=True)
    with Running(kind, database, of_logs, publication="logs") as running:
        db.execute("INSERT INTO logs1 (id) VALUES (11); INSERT INTO logs (id) VALUES (1)")
        with db.transaction():
            db.execute("ALTER TABLE logs ATTACH PARTITION logs1 FOR VALUES FROM (10) TO (20)")
            db.execute("ALTER TABLE logs DETACH PARTITION logs0")
            db.execute("ALTER PUBLICATION logs SET (publish_via_partition_root = true)")
        db.execute("INSERT INTO logs (id) VALUES (12); INSERT INTO logs0 (id) VALUES (2)")
        running.caught_up(db)
        db.execute("SELECT pg_sleep(0.5)")
        assert running.consumer.health().status is cdc.Status.LIVE
    assert [event.key for event in running.events] == [1, 12]


def test_partitions_under_their_own_names(kind: str, database: str, db: psycopg.Connection) -> None:
    parted(db, root=False)

    def prepare(running: Running) -> None:
        running.on("logs0", running.events.append)

    with Running(kind, database, prepare, publication="logs") as running:
        db.execute("INSERT INTO logs VALUES (1, 'a')")
        db.execute("ALTER TABLE logs ATTACH PARTITION logs1 FOR VALUES FROM (10) TO (20)")
        running.subscribe("logs1", running.events.append)
        db.execute("INSERT INTO logs VALUES (11, 'b'); ALTER TABLE logs ADD y int")
        db.execute("INSERT INTO logs VALUES (2, 'c', 1); INSERT INTO logs VALUES (12, 'd', 1)")
        running.caught_up(db)
        db.execute("ALTER TABLE logs DETACH PARTITION logs0")
        ended(running, "public.logs0 is not published any more: .*Publish it again")
    seen = [(type(event).__name__, event.table) for event in running.events]
    assert seen == [
        ("Insert", "logs0"),
        ("Insert", "logs1"),
        ("SchemaChange", "logs0"),
        ("Insert", "logs0"),
        ("SchemaChange", "logs1"),
        ("Insert", "logs1"),
    ]


@pytest.mark.parametrize("root", [True, False])
def test_the_publication_changes_its_mind_about_roots(
    kind: str, database: str, db: psycopg.Connection, root: bool
) -> None:
    parted(db, root)
    table = "logs" if root else "logs0"
    with Running(kind, database, lambda running: running.on(table, print), publication="logs") as running:
        running.caught_up(db)
        db.execute(f"ALTER PUBLICATION logs SET (publish_via_partition_root = {not root})")
        ended(running, f"public.{table} is not published any more" + ("" if root else ".*It is a partition of logs"))


def test_a_published_table_becomes_a_partition(kind: str, database: str, db: psycopg.Connection) -> None:
    parted(db, root=True)
    db.execute("ALTER PUBLICATION logs ADD TABLE logs1")
    with Running(kind, database, lambda running: running.on("logs1", print), publication="logs") as running:
        running.caught_up(db)
        db.execute("ALTER TABLE logs ATTACH PARTITION logs1 FOR VALUES FROM (10) TO (20)")
        ended(running, "public.logs1 is not published any more: .*It is a partition of logs: publish it by itself, or")


def there_and_back(running: Running, db: psycopg.Connection) -> None:
    """Renamed, changed, renamed back between two looks at the catalog."""
    db.execute("INSERT INTO wells VALUES (1)")
    running.caught_up(db)
    db.execute("ALTER TABLE wells RENAME TO lost; INSERT INTO lost VALUES (2); ALTER TABLE lost RENAME TO wells")
    db.execute("INSERT INTO wells VALUES (3)")
    running.caught_up(db)


def test_a_name_that_is_lost_for_a_while_is_a_gap(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, on_gap="deliver", rights_interval=60.0) as running:
        there_and_back(running, db)
    one, gap, three = running.events
    assert isinstance(gap, cdc.Gap) and gap.reason == "table public.wells is called public.lost from here on"
    assert (one.key, three.key) == (1, 3)


def test_a_name_that_is_lost_for_a_while_stops_the_consumer(kind: str, database: str, db: psycopg.Connection) -> None:
    with pytest.raises(cdc.GapError, match=r"table public\.wells is called public\.lost from here on"):
        with Running(kind, database, on_gap="stop", rights_interval=60.0) as running:
            there_and_back(running, db)

"""One subscription to several tables: those that are named, and those that a pattern means, whenever they come."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import cdc
from cdc.rls import Subject
from tests.harness import Running, until


@pytest.fixture
def sales(db: psycopg.Connection) -> psycopg.Connection:
    """Two more tables, of which the publication has every one."""
    db.execute("CREATE TABLE sales_a (id int PRIMARY KEY, wells int); CREATE TABLE sales_b (id int PRIMARY KEY)")
    db.execute("DROP PUBLICATION wells; CREATE PUBLICATION wells FOR ALL TABLES")
    return db


def tables(events: list[Any]) -> list[tuple[str, Any]]:
    return [(event.table, event.key) for event in events]


def family(running: Running) -> Any:
    return running.consumer.subscriptions[0]


def test_one_handler_has_several_tables_in_commit_order(kind: str, sales: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.consumer.on("wells", "sales_*")(seen.append)) as running:
        with sales.transaction():
            sales.execute("INSERT INTO wells (id) VALUES (1)")
            sales.execute("INSERT INTO sales_a VALUES (2)")
            sales.execute("INSERT INTO wells (id) VALUES (3)")
        sales.execute("INSERT INTO sales_b VALUES (4)")
        running.caught_up(sales)
        assert tables(seen) == [("wells", 1), ("sales_a", 2), ("wells", 3), ("sales_b", 4)]
        assert [event.previous for event in seen] == [None, *(event.position for event in seen[:-1])]
        one = family(running)
        assert len(running.consumer.subscriptions) == 1 and one.delivered == 4
        assert one.previous == seen[-1].position
        assert one.tables == ["public.sales_a", "public.sales_b", "public.wells"]
        assert repr(one) == "<Family wells, sales_* trusted, 3 tables>"
        assert one.name.startswith("wells, sales_* ")
        one.close()
        sales.execute("INSERT INTO wells (id) VALUES (5); INSERT INTO sales_a VALUES (5)")
        running.caught_up(sales)
        assert len(seen) == 4 and running.consumer.subscriptions == []


def test_truncate_of_several_tables_comes_once_for_each(kind: str, sales: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("sales_*", seen.append)) as running:
        sales.execute("INSERT INTO sales_a VALUES (1); INSERT INTO sales_b VALUES (1)")
        sales.execute("TRUNCATE sales_a, sales_b, wells")
        running.caught_up(sales)
        assert [(event.event_type, event.table) for event in seen[2:]] == [
            ("TRUNCATE", "sales_a"),
            ("TRUNCATE", "sales_b"),
        ]
        assert [event.previous for event in seen[1:]] == [event.position for event in seen[:-1]]


def test_everything_means_every_schema_but_our_own(kind: str, sales: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("*", seen.append)) as running:
        sales.execute("CREATE SCHEMA other; CREATE TABLE other.things (id int PRIMARY KEY)")
        sales.execute("INSERT INTO other.things VALUES (1)")
        sales.execute("UPDATE cdc.slots SET flush_lsn = flush_lsn")
        sales.execute("INSERT INTO wells (id) VALUES (2)")
        running.caught_up(sales)
        assert tables(seen) == [("things", 1), ("wells", 2)]
        assert "cdc.slots" not in family(running).tables


@pytest.mark.parametrize("streaming", ["on", "off"])
def test_a_table_joins_before_its_first_change(
    kind: str, db: psycopg.Connection, database: str, streaming: str
) -> None:
    """By FOR TABLE, in the transaction of its first change, and after others of its kind."""
    seen: list[Any] = []
    subscribed: Any = lambda running: running.on("public.*", seen.append, operations=["insert"])  # noqa: E731
    with Running(kind, database, subscribed, streaming=streaming) as running:
        assert family(running).tables == ["public.wells"]
        with db.transaction():
            db.execute("CREATE TABLE later (id int PRIMARY KEY)")
            db.execute("ALTER PUBLICATION wells ADD TABLE later")
            db.execute("INSERT INTO later VALUES (1)")
            db.execute("DELETE FROM later")
        db.execute("INSERT INTO wells (id) VALUES (2)")
        running.caught_up(db)
        assert tables(seen) == [("later", 1), ("wells", 2)]
        assert family(running).tables == ["public.later", "public.wells"]


def test_a_table_that_is_gone_already_is_delivered(kind: str, sales: psycopg.Connection, database: str) -> None:
    """The stream is behind: what the table sent while it was there is not lost."""
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("*", lambda event: None)) as running:
        running.caught_up(sales)
    sales.execute("CREATE TABLE brief (id int PRIMARY KEY); INSERT INTO brief VALUES (1); DROP TABLE brief")
    sales.execute("CREATE TABLE twice (id int PRIMARY KEY); INSERT INTO twice VALUES (1); DROP TABLE twice")
    sales.execute("CREATE TABLE twice (id text PRIMARY KEY); INSERT INTO twice VALUES ('a')")
    with Running(kind, database, lambda running: running.on("*", seen.append), on_gap="deliver") as running:
        running.caught_up(sales)
    changes = [event for event in seen if not isinstance(event, cdc.Gap)]
    assert tables(changes) == [("brief", 1), ("twice", 1), ("twice", "a")]


def test_a_table_leaves_and_comes_back(kind: str, db: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    db.execute("CREATE TABLE other (id int PRIMARY KEY)")
    db.execute("ALTER PUBLICATION wells ADD TABLE other")
    with Running(kind, database, lambda running: running.on("public.*", seen.append)) as running:
        db.execute("INSERT INTO other VALUES (1)")
        db.execute("ALTER PUBLICATION wells DROP TABLE other")
        db.execute("INSERT INTO other VALUES (2)")
        member = family(running).members["public", "other"]
        until(lambda: member.has_left)
        db.execute("ALTER PUBLICATION wells ADD TABLE other")
        db.execute("INSERT INTO other VALUES (3)")
        until(lambda: not member.has_left)
        running.caught_up(db)
        db.execute("DROP TABLE other")
        until(lambda: member.has_left)
        db.execute("INSERT INTO wells (id) VALUES (4)")
        running.caught_up(db)
    assert tables(seen) == [("other", 1), ("other", 3), ("wells", 4)]


def test_a_named_table_of_several_may_not_leave(kind: str, db: psycopg.Connection, database: str) -> None:
    db.execute("CREATE TABLE other (id int PRIMARY KEY)")
    db.execute("ALTER PUBLICATION wells ADD TABLE other")
    running = Running(kind, database, lambda running: running.consumer.on("wells", "other")(running.events.append))
    with pytest.raises(cdc.SubscriptionError, match=r"public\.other is not published any more"), running:
        db.execute("ALTER PUBLICATION wells DROP TABLE other")
        until(lambda: running.consumer.health().status == "STOPPED")


def test_a_renamed_table_leaves_or_goes_on(kind: str, sales: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("sales_*", seen.append)) as running:
        sales.execute("INSERT INTO sales_a VALUES (1); INSERT INTO sales_b VALUES (1)")
        sales.execute("ALTER TABLE sales_a RENAME TO sales_c; ALTER TABLE sales_b RENAME TO bought")
        sales.execute("INSERT INTO bought VALUES (2); INSERT INTO sales_c VALUES (2)")
        running.caught_up(sales)
        assert tables(seen) == [("sales_a", 1), ("sales_b", 1), ("sales_c", 2)]


def test_schema_changes_and_gaps_come_once_and_say_which_table(
    kind: str, sales: psycopg.Connection, database: str
) -> None:
    seen: list[Any] = []
    subscribed: Any = lambda running: running.on("sales_*", seen.append)  # noqa: E731
    with Running(kind, database, subscribed, on_gap="deliver") as running:
        sales.execute("INSERT INTO sales_a VALUES (1); INSERT INTO sales_b VALUES (1)")
        sales.execute("ALTER TABLE sales_a ADD COLUMN more text; INSERT INTO sales_a VALUES (2)")
        sales.execute("DROP TABLE sales_b; CREATE TABLE sales_b (id int PRIMARY KEY); INSERT INTO sales_b VALUES (3)")
        running.caught_up(sales)
        names = [type(event).__name__ for event in seen]
        assert names == ["Insert", "Insert", "SchemaChange", "Insert", "Gap", "Insert"]
        assert "public.sales_b" in seen[4].reason and seen[4].previous == seen[3].position


def test_reconnecting_goes_on_where_it_was(kind: str, sales: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("*", seen.append)) as running:
        for number in range(3):
            sales.execute("INSERT INTO wells (id) VALUES (%s)", (number,))
            sales.execute("INSERT INTO sales_a VALUES (%s)", (number,))
            running.caught_up(sales)
            before = running.consumer.health().reconnects
            sales.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'"
            )
            sales.execute(f"CREATE TABLE new_{number} (id int PRIMARY KEY); INSERT INTO new_{number} VALUES (9)")
            until(lambda before=before: running.consumer.health().reconnects > before)
            until(lambda: running.consumer.health().status == "LIVE")
        running.caught_up(sales)
    assert tables(seen) == [
        (name, key) for i in range(3) for name, key in (("wells", i), ("sales_a", i), (f"new_{i}", 9))
    ]
    assert [event.previous for event in seen] == [None, *(event.position for event in seen[:-1])]


@pytest.mark.parametrize("as_root", ["true", "false"])
def test_partitions(kind: str, db: psycopg.Connection, database: str, as_root: str) -> None:
    seen: list[Any] = []
    db.execute("CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)")
    db.execute(
        f"ALTER PUBLICATION wells ADD TABLE parts; ALTER PUBLICATION wells SET (publish_via_partition_root={as_root})"
    )
    with Running(kind, database, lambda running: running.on("parts*", seen.append)) as running:
        db.execute("INSERT INTO parts VALUES (1)")
        db.execute("CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20)")
        db.execute("INSERT INTO parts VALUES (11)")
        running.caught_up(db)
        names = {"true": ["parts", "parts"], "false": ["parts_1", "parts_2"]}[as_root]
        assert tables(seen) == list(zip(names, [1, 11], strict=True))


# Filters, subjects, operations.


def test_operations_hold_for_every_table(kind: str, sales: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    subscribed: Any = lambda running: running.on("*", seen.append, operations=["delete"])  # noqa: E731
    with Running(kind, database, subscribed) as running:
        sales.execute("INSERT INTO wells (id) VALUES (1); INSERT INTO sales_a VALUES (1)")
        sales.execute("DELETE FROM wells; DELETE FROM sales_a")
        sales.execute("CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (2); DELETE FROM more")
        running.caught_up(sales)
        assert tables(seen) == [("wells", 1), ("sales_a", 1), ("more", 2)]


def test_operations_have_to_be_published_of_every_table(kind: str, db: psycopg.Connection, database: str) -> None:
    db.execute("ALTER PUBLICATION wells SET (publish = 'insert')")
    running = Running(kind, database, lambda running: running.on("public.*", print, operations=["delete"]))
    with pytest.raises(cdc.SubscriptionError, match=r"does not publish DELETE of public\.wells"), running:
        pass


def test_a_filter_holds_for_every_table(kind: str, db: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    db.execute("CREATE TABLE wells_b (id int PRIMARY KEY, name text); ALTER PUBLICATION wells ADD TABLE wells_b")
    subscribed: Any = lambda running: running.on("wells*", seen.append, filter="id=eq.6")  # noqa: E731
    with Running(kind, database, subscribed) as running:
        db.execute("INSERT INTO wells (id) VALUES (1), (6); INSERT INTO wells_b VALUES (2), (6)")
        running.caught_up(db)
        assert tables(seen) == [("wells", 6), ("wells_b", 6)]
        with pytest.raises(cdc.SubscriptionError, match=r"public\.wells_c"):
            db.execute("CREATE TABLE wells_c (name text PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE wells_c")
            db.execute("INSERT INTO wells_c VALUES ('a')")
            running.caught_up(db)
        with pytest.raises(cdc.SubscriptionError, match=r"public\.wells_c"):
            running.do(running.consumer.stop)


def test_a_filter_that_one_table_cannot_have_is_refused(kind: str, sales: psycopg.Connection, database: str) -> None:
    running = Running(kind, database, lambda running: running.on("*", print, filter="name=eq.a"))
    with (
        pytest.raises(cdc.SubscriptionError, match=r"column 'name', but the published columns of public\.sales_a"),
        running,
    ):
        pass


def test_a_subject_sees_of_each_table_what_it_may(kind: str, sales: psycopg.Connection, database: str) -> None:
    sales.execute("ALTER TABLE wells ENABLE ROW LEVEL SECURITY; ALTER TABLE wells REPLICA IDENTITY FULL")
    sales.execute(
        "CREATE POLICY small ON wells FOR SELECT TO anon USING (id = 1); GRANT SELECT ON wells, sales_a TO anon"
    )
    sales.execute("REVOKE ALL ON sales_b FROM anon")
    seen: list[Any] = []
    subscribed: Any = lambda running: running.on("*", seen.append, subject=Subject("anon"))  # noqa: E731
    with Running(kind, database, subscribed) as running:
        sales.execute(
            "INSERT INTO wells (id) VALUES (1), (11); INSERT INTO sales_a VALUES (2); INSERT INTO sales_b VALUES (3)"
        )
        sales.execute(
            "CREATE TABLE hidden (id int PRIMARY KEY); REVOKE ALL ON hidden FROM anon; INSERT INTO hidden VALUES (4)"
        )
        sales.execute(
            "CREATE TABLE shown (id int PRIMARY KEY); GRANT SELECT ON shown TO anon; INSERT INTO shown VALUES (5)"
        )
        running.caught_up(sales)
        assert tables(seen) == [("wells", 1), ("sales_a", 2), ("shown", 5)]
        one = family(running)
        denied = {name for (_, name), each in one.members.items() if each.denied}
        assert denied == {"sales_b", "hidden"}
        assert "public.hidden: " in one.denied and "public.sales_b: " in one.denied


def test_a_subject_is_denied_a_table_that_joins_and_cannot_be_decided(
    kind: str, sales: psycopg.Connection, database: str
) -> None:
    seen: list[Any] = []
    sales.execute("GRANT SELECT ON wells, sales_a, sales_b TO anon")
    subscribed: Any = lambda running: running.on("*", seen.append, subject=Subject("anon"))  # noqa: E731
    with Running(kind, database, subscribed) as running:
        sales.execute("CREATE TABLE odd (id int PRIMARY KEY, word text); ALTER TABLE odd ENABLE ROW LEVEL SECURITY")
        sales.execute("CREATE POLICY odd ON odd FOR SELECT TO anon USING (word = 'a'); GRANT SELECT ON odd TO anon")
        sales.execute("INSERT INTO odd VALUES (1, 'a'); INSERT INTO wells (id) VALUES (2)")
        running.caught_up(sales)
        assert tables(seen) == [("wells", 2)]
        assert "REPLICA IDENTITY FULL" in family(running).members["public", "odd"].denied
        sales.execute("ALTER TABLE odd REPLICA IDENTITY FULL; INSERT INTO odd VALUES (3, 'a')")
        running.caught_up(sales)
        assert tables(seen) == [("wells", 2), ("odd", 3)]
        assert family(running).denied is None


# Names.


def test_no_table_is_an_error_that_names_what_there_is(kind: str, db: psycopg.Connection, database: str) -> None:
    running = Running(kind, database, lambda running: running.on("well_*", print))
    with (
        pytest.raises(cdc.SubscriptionError, match=r"well_\* matches no table .*'wells', which has public\.wells"),
        running,
    ):
        pass
    assert db.execute("SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ingest'").fetchone() == (0,)


def test_everything_may_be_nothing_yet(kind: str, db: psycopg.Connection, database: str) -> None:
    db.execute("CREATE PUBLICATION none")
    seen: list[Any] = []
    subscribed: Any = lambda running: running.on("*", seen.append)  # noqa: E731
    with Running(kind, database, subscribed, publication="none") as running:
        db.execute("ALTER PUBLICATION none ADD TABLE wells; INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        assert tables(seen) == [("wells", 1)]


def test_a_name_with_a_star_is_quoted(kind: str, db: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    db.execute('CREATE TABLE "wel*" (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE "wel*"')
    with Running(kind, database, lambda running: running.on('"wel*"', seen.append)) as running:
        db.execute('INSERT INTO wells (id) VALUES (1); INSERT INTO "wel*" VALUES (2)')
        running.caught_up(db)
        assert tables(seen) == [("wel*", 2)]
        assert type(family(running)) is cdc.Subscription


def test_a_family_may_come_while_it_streams(kind: str, sales: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    with Running(kind, database) as running:
        sales.execute("INSERT INTO wells (id) VALUES (1); INSERT INTO sales_a VALUES (1)")
        running.caught_up(sales)
        one = running.subscribe(["sales_*", "wells"], seen.append)
        sales.execute(
            "INSERT INTO wells (id) VALUES (2); INSERT INTO sales_a VALUES (2); INSERT INTO sales_b VALUES (2)"
        )
        running.caught_up(sales)
        assert tables(seen) == [("wells", 2), ("sales_a", 2), ("sales_b", 2)]
        assert one.delivered == 3 and len(running.events) == 2


def test_a_failing_handler_is_called_again_with_the_same_event(
    kind: str, sales: psycopg.Connection, database: str
) -> None:
    def fail(event: Any) -> None:
        raise ValueError("no")

    running = Running(kind, database, lambda running: running.on("*", fail))
    with pytest.raises(cdc.HandlerError, match="ValueError: no"), running:
        sales.execute("INSERT INTO sales_a VALUES (1)")
        until(lambda: running.consumer.health().status == "STOPPED")
    seen: list[Any] = []
    with Running(kind, database, lambda running: running.on("*", seen.append)) as running:
        running.caught_up(sales)
        assert tables(seen) == [("sales_a", 1)]

"""Whole transactions over several tables: one object at the commit, with the changes as they were made."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

import cdc
from cdc.rls import Subject
from tests.harness import Running, until


@pytest.fixture
def tables(db: psycopg.Connection) -> psycopg.Connection:
    db.execute("CREATE TABLE projects (id int PRIMARY KEY, name text); CREATE TABLE other (id int PRIMARY KEY)")
    db.execute("ALTER PUBLICATION wells ADD TABLE projects, other")
    return db


def subscribed(seen: list[Any], *tables: str, **options: Any) -> Any:
    return lambda running: running.consumer.on_transaction(*tables, **options)(seen.append)


def brief(transaction: cdc.CommittedTransaction) -> list[tuple[str, str, Any]]:
    return [(event.event_type, event.table, getattr(event, "key", None)) for event in transaction]  # type: ignore[union-attr]


@pytest.mark.parametrize("streaming", ["on", "off"])
def test_a_transaction_comes_as_one_with_its_tables_interleaved(
    kind: str, tables: psycopg.Connection, database: str, streaming: str
) -> None:
    seen: list[Any] = []
    with Running(kind, database, subscribed(seen, "wells", "projects"), streaming=streaming) as running:
        with tables.transaction():
            tables.execute("INSERT INTO projects VALUES (1, 'a')")
            tables.execute("INSERT INTO wells (id) VALUES (1), (2)")
            tables.execute("INSERT INTO other VALUES (1)")
            with tables.transaction(force_rollback=True):
                tables.execute("INSERT INTO wells (id) VALUES (9)")
            tables.execute("UPDATE projects SET name = 'b'")
            tables.execute("TRUNCATE projects, wells")
            (xid,) = tables.execute("SELECT txid_current()").fetchone() or (0,)
        tables.execute("INSERT INTO other VALUES (2)")
        tables.execute("INSERT INTO wells (id) VALUES (3)")
        running.caught_up(tables)
        first, second = seen
        assert brief(first) == [
            ("INSERT", "projects", 1),
            ("INSERT", "wells", 1),
            ("INSERT", "wells", 2),
            ("UPDATE", "projects", 1),
            ("TRUNCATE", "projects", None),
            ("TRUNCATE", "wells", None),
        ]
        assert brief(second) == [("INSERT", "wells", 3)]
        assert len(first) == len(first.events) == 6 and list(first) == list(first.events)
        assert first.xid == xid % (1 << 32) and {event.commit_time for event in first} == {first.commit_time}
        assert first.position == first.events[-1].position and first.previous is None
        assert second.previous == first.position
        events = [*first, *second]
        assert [event.previous for event in events[1:]] == [event.position for event in events[:-1]]


def test_everything_with_tables_that_join(kind: str, db: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    db.execute("DROP PUBLICATION wells; CREATE PUBLICATION wells FOR ALL TABLES")
    with Running(kind, database, subscribed(seen, "*")) as running:
        with db.transaction():
            db.execute("INSERT INTO wells (id) VALUES (1)")
            db.execute("CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (2)")
            db.execute("INSERT INTO wells (id) VALUES (3)")
        running.caught_up(db)
        assert [brief(each) for each in seen] == [
            [("INSERT", "wells", 1), ("INSERT", "later", 2), ("INSERT", "wells", 3)]
        ]


def test_one_table_and_operations(kind: str, tables: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    with Running(kind, database, subscribed(seen, "wells", operations=["delete"])) as running:
        tables.execute("INSERT INTO wells (id) VALUES (1), (2)")
        with tables.transaction():
            tables.execute("INSERT INTO wells (id) VALUES (3)")
            tables.execute("DELETE FROM wells")
        running.caught_up(tables)
        assert [brief(each) for each in seen] == [[("DELETE", "wells", key) for key in (1, 2, 3)]]


def test_a_subject_gets_of_a_transaction_what_it_may_see(kind: str, tables: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    tables.execute("GRANT SELECT ON wells TO anon; REVOKE ALL ON projects, other FROM anon")
    with Running(kind, database, subscribed(seen, "*", subject=Subject("anon"))) as running:
        with tables.transaction():
            tables.execute("INSERT INTO projects VALUES (1, 'a')")
            tables.execute("INSERT INTO wells (id) VALUES (1)")
        tables.execute("INSERT INTO projects VALUES (2, 'a')")
        running.caught_up(tables)
        assert [brief(each) for each in seen] == [[("INSERT", "wells", 1)]], (
            "one of which it sees nothing does not come"
        )


def test_it_is_confirmed_as_a_whole(kind: str, tables: psycopg.Connection, database: str) -> None:
    def fail(transaction: Any) -> None:
        if len(transaction) > 1:
            raise ValueError("no")

    def write() -> None:
        with tables.transaction():
            tables.execute("INSERT INTO wells (id) VALUES (2)")
            tables.execute("INSERT INTO projects VALUES (2)")

    running = Running(kind, database, lambda running: running.consumer.on_transaction("wells", "projects")(fail))
    with pytest.raises(cdc.HandlerError, match="ValueError: no"), running:
        tables.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(tables)
        write()
        until(lambda: running.consumer.health().status == "STOPPED")
    seen: list[Any] = []
    with Running(kind, database, subscribed(seen, "wells", "projects")) as running:
        running.caught_up(tables)
        assert [brief(each) for each in seen] == [[("INSERT", "wells", 2), ("INSERT", "projects", 2)]]


def test_a_lost_connection_neither_splits_nor_repeats(kind: str, tables: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []
    with Running(kind, database, subscribed(seen, "*")) as running:
        for number in range(4):
            with tables.transaction():
                for row in range(200):
                    tables.execute("INSERT INTO wells (id) VALUES (%s)", (1000 * number + row,))
                    tables.execute("INSERT INTO projects VALUES (%s)", (1000 * number + row,))
            until(lambda: running.consumer.health().status in (cdc.Status.CATCHING_UP, cdc.Status.LIVE))
            before = running.consumer.health().reconnects
            running.consumer._loop.link.session.abort()
            until(lambda before=before: running.consumer.health().reconnects > before)  # type: ignore[misc]
        running.caught_up(tables)
    assert [len(each) for each in seen] == [400] * 4
    assert [event.key for each in seen for event in each] == [
        1000 * number + row for number in range(4) for row in range(200) for _ in range(2)
    ]


def test_messages_may_come_by_transaction_too(kind: str, db: psycopg.Connection, database: str) -> None:
    seen: list[Any] = []

    def prepare(running: Running) -> None:
        running.consumer.on_message("outbox", transaction=True)(seen.append)

    with Running(kind, database, prepare) as running:
        with db.transaction():
            db.execute(
                "SELECT pg_logical_emit_message(true, 'outbox', 'a'), pg_logical_emit_message(true, 'outbox', 'b')"
            )
        db.execute("SELECT pg_logical_emit_message(false, 'outbox', 'c')")
        db.execute("SELECT pg_logical_emit_message(true, 'outbox', 'd')")
        running.caught_up(db)
        shown = [
            each.text() if isinstance(each, cdc.Message) else [message.text() for message in each] for each in seen
        ]
        assert [each for each in shown if each != "c"] == [["a", "b"], ["d"]]
        assert "c" in shown, "it belongs to none, and comes by itself"


def test_lists_of_a_family_and_of_messages(kind: str, tables: psycopg.Connection, database: str) -> None:
    """What gathers events gathers those of all tables."""
    rows: list[Any] = []
    messages: list[Any] = []

    def prepare(running: Running) -> None:
        running.consumer.on("*", batch=4, linger=30.0)(rows.append)
        running.consumer.on_message("outbox", batch=2, linger=30.0, queue=5)(messages.append)

    with Running(kind, database, prepare) as running:
        for number in range(2):
            tables.execute("INSERT INTO wells (id) VALUES (%s)", (number,))
            tables.execute("SELECT pg_logical_emit_message(true, 'outbox', 'a')")
            tables.execute("INSERT INTO projects VALUES (%s)", (number,))
        running.caught_up(tables)
        assert [[(event.table, event.key) for event in each] for each in rows] == [
            [("wells", 0), ("projects", 0), ("wells", 1), ("projects", 1)]
        ]
        assert [len(each) for each in messages] == [2]


def test_what_cannot_be_asked_for(kind: str) -> None:
    running = Running(kind, "postgresql://nowhere")
    for options in ({"batch": 5}, {"debounce": 1.0}):
        with pytest.raises(cdc.ConfigurationError, match="choose one of them"):
            running.consumer.on_transaction("wells", **options)(print)
    for tables in ((), (print,)):
        with pytest.raises(cdc.ConfigurationError, match=r'write @consumer\.on_transaction\("wells"\)'):
            running.consumer.on_transaction(*tables)(print)

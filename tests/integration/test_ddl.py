"""DDL in the stream: which SchemaChange stands between which rows, and when there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

ENDED = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = 'ingest'"


def received(kind: str, dsn: str, db: psycopg.Connection, *statements: str, **options: Any) -> list[Any]:
    """What these statements bring. Keys under identity FULL are the catalog's, so each one is awaited."""
    with Running(kind, dsn, **options) as running:
        for statement in statements:
            db.execute(statement)
            running.caught_up(db)
        return running.events


def told(change: Any) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    assert isinstance(change, cdc.SchemaChange), change
    return change.added, change.dropped, change.changed


def kinds(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


ALTERED = [
    ("ADD COLUMN status text", ("status",), (), ()),
    ("ADD COLUMN status text NOT NULL DEFAULT 'open'", ("status",), (), ()),
    ("DROP COLUMN depth", (), ("depth",), ()),
    ("RENAME COLUMN name TO title", ("title",), ("name",), ()),
    ("ALTER COLUMN id TYPE bigint", (), (), ("id",)),
    ("ALTER COLUMN code TYPE varchar(20)", (), (), ("code",)),
    ("ALTER COLUMN name TYPE mood USING name::mood", (), (), ("name",)),
    ("DROP COLUMN name, ADD COLUMN name text", (), (), ()),
]


@pytest.mark.parametrize(("change", "added", "dropped", "changed"), ALTERED, ids=[one for one, *_ in ALTERED])
def test_a_column(
    kind: str, database: str, db: psycopg.Connection, change: str, added: Any, dropped: Any, changed: Any
) -> None:
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE wells ADD COLUMN code varchar(10)")
    insert = "INSERT INTO wells (id) VALUES (%s)"
    first, between, second = received(kind, database, db, insert % 1, f"ALTER TABLE wells {change}", insert % 2)
    assert told(between) == (added, dropped, changed)
    assert between.position == second.position and between.previous == second.previous == first.position
    assert (between.xid, between.commit_time) == (second.xid, second.commit_time)
    assert between.old_relation is first.relation and between.relation is second.relation
    assert list(first.new) == [column.name for column in first.relation.columns]
    assert list(second.new) == [column.name for column in second.relation.columns]
    assert (between.schema, between.table) == ("public", "wells")


def test_new_values_are_of_the_new_types(kind: str, database: str, db: psycopg.Connection) -> None:
    first, _, second = received(
        kind,
        database,
        db,
        "INSERT INTO wells (id, name) VALUES (1, '7')",
        "ALTER TABLE wells ALTER name TYPE int USING name::int",
        "INSERT INTO wells (id, name) VALUES (2, 8)",
    )
    assert (first.new["name"], second.new["name"]) == ("7", 8)


def test_replica_identities(kind: str, database: str, db: psycopg.Connection) -> None:
    """Updates need an identity, inserts do not: so identity nothing is seen by an insert."""
    db.execute("ALTER TABLE wells ADD COLUMN code text NOT NULL DEFAULT md5(random()::text)")
    db.execute("CREATE UNIQUE INDEX by_code ON wells (code)")
    identities = ["FULL", "USING INDEX by_code", "NOTHING", "DEFAULT"]
    events = []
    with Running(kind, database) as running:
        for number, identity in enumerate(["DEFAULT", *identities]):
            db.execute(f"ALTER TABLE wells REPLICA IDENTITY {identity}")
            db.execute(f"INSERT INTO wells (id) VALUES ({number})")
        running.caught_up(db)
        events = running.events
    changes = [event for event in events if isinstance(event, cdc.SchemaChange)]
    assert kinds(events) == ["Insert", *["SchemaChange", "Insert"] * 4]
    assert [(each.old_identity, each.identity) for each in changes] == [("d", "f"), ("f", "i"), ("i", "n"), ("n", "d")]
    assert all(each.added == each.dropped == () for each in changes)
    keys = [event.key for event in events if isinstance(event, cdc.Insert)]
    assert [keys[0], keys[1], keys[3], keys[4]] == [0, 1, None, 4] and len(keys[2]) == 32


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_the_primary_key_moves(kind: str, database: str, db: psycopg.Connection, identity: str) -> None:
    db.execute(f"ALTER TABLE wells REPLICA IDENTITY {identity}")
    rows: dict[Any, Any] = {}
    events = received(
        kind,
        database,
        db,
        "INSERT INTO wells (id, name) VALUES (1, 'a'), (2, 'b')",
        "ALTER TABLE wells DROP CONSTRAINT wells_pkey, ADD PRIMARY KEY (name)",
        "UPDATE wells SET depth = 1 WHERE name = 'a'",
        "DELETE FROM wells WHERE name = 'b'",
    )
    assert kinds(events) == ["Insert", "Insert", "SchemaChange", "Update", "Delete"]
    assert (events[2].old_key_columns, events[2].key_columns) == (("id",), ("name",))
    assert [event.key for event in (events[0], events[3], events[4])] == [1, "a", "b"]
    for event in events:
        event.apply(rows)
    assert {key: row["depth"] for key, row in rows.items()} == {"a": 1}


def test_the_key_gets_another_type(kind: str, database: str, db: psycopg.Connection) -> None:
    rows: dict[Any, Any] = {}
    for event in received(
        kind,
        database,
        db,
        "INSERT INTO wells (id) VALUES (1), (2)",
        "ALTER TABLE wells ALTER id TYPE text",
        "UPDATE wells SET name = 'b' WHERE id = '2'; DELETE FROM wells WHERE id = '1'",
    ):
        event.apply(rows)
    assert {key: row["name"] for key, row in rows.items()} == {"2": "b"}


def test_the_key_disappears(kind: str, database: str, db: psycopg.Connection) -> None:
    rows: dict[Any, Any] = {}
    first, between, second = received(
        kind,
        database,
        db,
        "INSERT INTO wells (id) VALUES (1)",
        "ALTER TABLE wells DROP COLUMN id",
        "INSERT INTO wells (name) VALUES ('x')",
    )
    assert between.key_columns == () and second.key is None
    first.apply(rows)
    between.apply(rows)
    assert list(rows) == [1], "rows that cannot be keyed anew stay"
    with pytest.raises(ValueError, match="no key"):
        second.apply(rows)


def test_unsent_values_over_a_change(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL")
    rows: dict[Any, Any] = {}
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id, notes) VALUES (1, repeat('x', 9000))")
        db.execute("ALTER TABLE wells ADD COLUMN status text")
        db.execute("UPDATE wells SET status = 'open'")
        db.execute("ALTER TABLE wells RENAME COLUMN notes TO log")
        db.execute("UPDATE wells SET status = 'shut'")
        running.caught_up(db)
    seen = []
    for event in running.events:
        event.apply(rows)
        seen.append(dict(rows[1]).get("notes", dict(rows[1]).get("log")))
    assert seen == ["x" * 9000] * 4 + [cdc.UNCHANGED]


def test_an_unsent_value_of_another_type_is_not_taken_over(kind: str, database: str, db: psycopg.Connection) -> None:
    """It was rewritten, and the server sends no rewritten rows."""
    rows: dict[Any, Any] = {}
    for event in received(
        kind,
        database,
        db,
        "INSERT INTO wells (id, notes) SELECT 1, string_agg(md5(n::text), '') FROM generate_series(1, 900) n",
        "ALTER TABLE wells ALTER notes TYPE bytea USING convert_to(upper(notes), 'UTF8')",
        "UPDATE wells SET name = 'b'",
    ):
        event.apply(rows)
    assert rows[1]["notes"] is cdc.UNCHANGED


NOTHING = [
    "ANALYZE wells",
    "VACUUM FULL wells",
    "ALTER TABLE wells SET (fillfactor = 70)",
    "CREATE INDEX ON wells (name)",
    "ALTER TABLE wells ALTER name SET DEFAULT 'x', ALTER name SET NOT NULL",
    "CREATE TABLE other (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE other",
    "ALTER PUBLICATION wells SET (publish = 'insert, update, delete, truncate')",
    "GRANT SELECT ON wells TO anon",
    "ALTER TABLE wells ADD COLUMN gone int; ALTER TABLE wells DROP COLUMN gone",
]


def test_announced_again_and_nothing_is_different(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        for number, statement in enumerate(NOTHING):
            db.execute("INSERT INTO wells (id, name) VALUES (%s, 'x')", (number,))
            for one in statement.split(";"):
                db.execute(one)
        db.execute("INSERT INTO wells (id, name) VALUES (%s, 'x')", (len(NOTHING),))
        running.caught_up(db)
    assert kinds(running.events) == ["Insert"] * (len(NOTHING) + 1)


def test_before_the_first_row_there_is_none(kind: str, database: str, db: psycopg.Connection) -> None:
    late: list[Any] = []
    with Running(kind, database) as running:
        db.execute("ALTER TABLE wells ADD COLUMN one int; INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        running.subscribe("wells", late.append)
        db.execute("ALTER TABLE wells ADD COLUMN two int; INSERT INTO wells (id) VALUES (2)")
        running.caught_up(db)
    assert kinds(running.events) == ["Insert", "SchemaChange", "Insert"]
    assert kinds(late) == ["Insert"], "it has seen no row of the former shape"


def test_whoever_names_operations_is_told_nothing_else(kind: str, database: str, db: psycopg.Connection) -> None:
    def inserts(running: Running) -> None:
        running.on("wells", running.events.append, operations=["insert"])

    statements = ["INSERT INTO wells VALUES (1)", "ALTER TABLE wells ADD x int", "INSERT INTO wells VALUES (2)"]
    assert kinds(received(kind, database, db, *statements, prepare=inserts)) == ["Insert", "Insert"]


def test_ddl_between_rows_of_one_transaction(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        with db.transaction():
            db.execute("INSERT INTO wells (id) VALUES (1)")
            db.execute("ALTER TABLE wells ADD COLUMN a int")
            db.execute("INSERT INTO wells (id, a) VALUES (2, 2)")
            db.execute("ALTER TABLE wells DROP COLUMN a")
            db.execute("TRUNCATE wells")
            db.execute("INSERT INTO wells (id) VALUES (3)")
        running.caught_up(db)
    assert kinds(running.events) == ["Insert", "SchemaChange", "Insert", "SchemaChange", "Truncate", "Insert"]
    assert [told(running.events[index])[:2] for index in (1, 3)] == [(("a",), ()), ((), ("a",))]
    assert [event.position.ordinal for event in running.events] == [1, 2, 2, 3, 3, 4]


ROLLED_BACK: list[Callable[[psycopg.Connection], Any]] = [
    lambda db: db.execute("ALTER TABLE wells ADD COLUMN a int"),
    lambda db: db.execute("ALTER TABLE wells DROP COLUMN name; INSERT INTO wells (id) VALUES (70)"),
]


@pytest.mark.parametrize("change", ROLLED_BACK)
def test_ddl_that_is_rolled_back(
    kind: str, database: str, db: psycopg.Connection, change: Callable[[psycopg.Connection], Any]
) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        with db.transaction(force_rollback=True):
            change(db)
        db.execute("INSERT INTO wells (id) VALUES (2)")
        with db.transaction():
            db.execute("INSERT INTO wells (id) VALUES (3)")
            with db.transaction(force_rollback=True):
                change(db)
            db.execute("INSERT INTO wells (id) VALUES (4)")
        running.caught_up(db)
    assert kinds(running.events) == ["Insert"] * 4
    assert [event.key for event in running.events] == [1, 2, 3, 4]


def test_ddl_while_the_connection_is_lost(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells (id) VALUES (1)")
        running.caught_up(db)
        for number in (1, 2, 3):
            db.execute(ENDED)
            if number < 3:
                db.execute(f"ALTER TABLE wells ADD COLUMN c{number} int")
            until(lambda number=number: running.consumer.health().reconnects == number)
            db.execute("INSERT INTO wells (id) VALUES (%s)", (10 + number,))
            running.caught_up(db)
    assert kinds(running.events) == ["Insert", *["SchemaChange", "Insert"] * 2, "Insert"]
    assert [event.added for event in running.events[1:5:2]] == [("c1",), ("c2",)]


def test_a_subject_hears_of_its_own_columns_only(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
    db.execute("GRANT SELECT (id, name, depth) ON wells TO authenticated")
    seen: list[Any] = []
    statements = [
        "ALTER TABLE wells ADD COLUMN secret text",
        "ALTER TABLE wells ALTER secret TYPE varchar(20)",
        "ALTER TABLE wells RENAME secret TO hidden",
        "ALTER TABLE wells DROP COLUMN hidden",
        "ALTER TABLE wells RENAME name TO title",
        "ALTER TABLE wells DROP COLUMN depth",
    ]

    def both(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("wells", seen.append, subject=cdc.Subject("authenticated"))

    with Running(kind, database, both) as running:
        db.execute("INSERT INTO wells (id) VALUES (0)")
        for number, statement in enumerate(statements, 1):
            db.execute(statement)
            db.execute("INSERT INTO wells (id) VALUES (%s)", (number,))
            running.caught_up(db)
    assert kinds(running.events) == ["Insert", *["SchemaChange", "Insert"] * 6]
    changes = [event for event in seen if isinstance(event, cdc.SchemaChange)]
    assert kinds(seen).count("Insert") == 7
    assert [told(change)[:2] for change in changes] == [(("title",), ("name",)), ((), ("depth",))]
    assert all("secret" not in each.to_json() and "hidden" not in each.to_json() for each in seen)


def test_json_says_what_is_different(kind: str, database: str, db: psycopg.Connection) -> None:
    _, between, _ = received(
        kind,
        database,
        db,
        "INSERT INTO wells VALUES (1)",
        "ALTER TABLE wells ADD status text, DROP depth, ALTER id TYPE bigint, REPLICA IDENTITY FULL",
        "INSERT INTO wells VALUES (2)",
    )
    line = json.loads(between.to_json())
    assert line["eventType"] == "SCHEMA" and line["position"] == str(between.position)
    assert (line["added"], line["dropped"]) == (["status"], ["depth"])
    assert line["new"] is line["old"] is line["key"] is line["effect"] is None
    assert (line["changed"], line["key_columns"], line["identity"]) == (["id"], ["id"], "f")

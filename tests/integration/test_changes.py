"""What a handler receives for each kind of change, blocking and asyncio alike."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

import psycopg
import pytest

import cdc
from tests.harness import Running

PROJECT = "8fac0a3e-8a52-4c41-9ddb-2d6d6d3a1b11"


def received(kind: str, dsn: str, db: psycopg.Connection, *statements: str) -> list:
    with Running(kind, dsn) as running:
        for statement in statements:
            db.execute(statement)
        running.caught_up(db)
        return running.events


def test_insert(kind: str, database: str, db: psycopg.Connection) -> None:
    (event,) = received(kind, database, db, f"INSERT INTO wells VALUES (33, 'A-1', '{PROJECT}', 1.50, NULL)")
    assert isinstance(event, cdc.Insert)
    assert (event.schema, event.table, event.key, event.old, event.previous) == ("public", "wells", 33, None, None)
    assert event.old_key is None
    assert dict(event.new) == {
        "id": 33,
        "name": "A-1",
        "project_id": UUID(PROJECT),
        "depth": Decimal("1.50"),
        "notes": None,
    }
    assert event.effect is cdc.Effect.ENTER
    assert event.new.text("depth") == "1.50"
    assert abs(event.commit_time - datetime.now(UTC)) < timedelta(minutes=1)
    with pytest.raises(KeyError):
        event.new["nothing"]


def test_update_and_delete(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'old')")
    update, delete = received(kind, database, db, "UPDATE wells SET name = 'new'", "DELETE FROM wells")
    assert isinstance(update, cdc.Update)
    assert (update.old, update.new["name"], update.key, update.old_key, update.effect) == (None, "new", 1, 1, "STAY")
    assert isinstance(delete, cdc.Delete)
    assert (delete.new, delete.key, delete.effect, list(delete.old)) == (None, 1, "LEAVE", ["id"])


def test_old_rows_are_whole_under_identity_full(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL; INSERT INTO wells VALUES (1, 'old')")
    update, delete = received(kind, database, db, "UPDATE wells SET name = 'new'", "DELETE FROM wells")
    assert (update.old["name"], update.new["name"], update.key) == ("old", "new", 1)
    assert (delete.old["name"], delete.key) == ("new", 1)


def test_a_key_change_has_two_keys(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("INSERT INTO wells VALUES (1, 'x')")
    (event,) = received(kind, database, db, "UPDATE wells SET id = 7")
    assert (event.old_key, event.key) == (1, 7)
    rows = {1: None}
    event.apply(rows)
    assert list(rows) == [7]


def test_composite_keys_are_tuples_in_the_tables_order(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE picks (well int, marker text, depth int, PRIMARY KEY (marker, well))")
    db.execute("ALTER PUBLICATION wells ADD TABLE picks")
    with Running(kind, database, lambda running: running.on("picks", running.events.append)) as running:
        db.execute("INSERT INTO picks VALUES (1, 'top', 10)")
        db.execute("ALTER TABLE picks REPLICA IDENTITY FULL")
        db.execute("UPDATE picks SET marker = 'base'")
        running.caught_up(db)
    insert, _, update = running.events
    assert insert.key == (1, "top")
    assert (update.old_key, update.key) == ((1, "top"), (1, "base"))


def test_a_table_without_key_has_key_none(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells DROP CONSTRAINT wells_pkey; ALTER TABLE wells REPLICA IDENTITY FULL")
    (event,) = received(kind, database, db, "INSERT INTO wells VALUES (1)")
    assert event.key is None
    with pytest.raises(ValueError, match="no key"):
        event.apply({})


def test_truncate(kind: str, database: str, db: psycopg.Connection) -> None:
    (event,) = received(kind, database, db, "TRUNCATE wells RESTART IDENTITY CASCADE")
    assert isinstance(event, cdc.Truncate)
    assert event.key is None
    assert (event.cascade, event.restart_identity, event.table) == (True, True, "wells")
    rows = {1: "row"}
    event.apply(rows)
    assert rows == {}


def test_truncate_of_several_tables_gives_one_event_each(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TABLE logs (id int PRIMARY KEY); ALTER PUBLICATION wells ADD TABLE logs")

    def both(running: Running) -> None:
        running.on("wells", running.events.append)
        running.on("logs", running.events.append)

    with Running(kind, database, both) as running:
        db.execute("TRUNCATE wells, logs")
        running.caught_up(db)
    assert sorted((event.table, event.position.ordinal) for event in running.events) in (
        [("logs", 1), ("wells", 2)],
        [("logs", 2), ("wells", 1)],
    )


def test_unsent_toast_is_unchanged_and_apply_keeps_it(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL")
    insert, update = received(
        kind,
        database,
        db,
        "INSERT INTO wells VALUES (1, 'a', NULL, NULL, repeat('x', 9000))",
        "UPDATE wells SET name = 'b'",
    )
    assert update.new["notes"] is cdc.UNCHANGED
    assert "notes" not in update.to_dict()["new"]
    with pytest.raises(TypeError, match="UNCHANGED"):
        bool(update.new["notes"])
    rows: dict = {}
    insert.apply(rows)
    update.apply(rows)
    assert (rows[1]["name"], rows[1]["notes"]) == ("b", "x" * 9000)


def test_unsent_toast_is_restored_under_identity_full(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells ALTER notes SET STORAGE EXTERNAL; ALTER TABLE wells REPLICA IDENTITY FULL")
    _, update = received(
        kind,
        database,
        db,
        "INSERT INTO wells VALUES (1, 'a', NULL, NULL, repeat('x', 9000))",
        "UPDATE wells SET name = 'b'",
    )
    assert update.new["notes"] == "x" * 9000


def test_every_event_names_its_predecessor(kind: str, database: str, db: psycopg.Connection) -> None:
    events = received(
        kind,
        database,
        db,
        "INSERT INTO wells SELECT n FROM generate_series(1, 5) n",
        "UPDATE wells SET name = 'x' WHERE id < 3",
        "DELETE FROM wells",
    )
    assert len(events) == 12
    assert events[0].previous is None
    assert all(later.previous == earlier.position < later.position for earlier, later in pairwise(events))


def test_rows_of_one_copy_have_one_position_each(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        with db.cursor() as cursor, cursor.copy("COPY wells (id) FROM STDIN") as copy:
            for number in range(1000):
                copy.write_row((number,))
        running.caught_up(db)
    positions = [event.position for event in running.events]
    assert len(set(positions)) == 1000
    assert [position.ordinal for position in positions] == list(range(1, 1001))
    assert len({position.commit_lsn for position in positions}) == 1


def test_rolled_back_changes_never_arrive(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        with pytest.raises(ZeroDivisionError), db.transaction():
            db.execute("INSERT INTO wells VALUES (1)")
            raise ZeroDivisionError
        with db.transaction():
            db.execute("INSERT INTO wells VALUES (2)")
            with pytest.raises(ZeroDivisionError), db.transaction():
                db.execute("INSERT INTO wells VALUES (3)")
                raise ZeroDivisionError
            db.execute("INSERT INTO wells VALUES (4)")
        running.caught_up(db)
    assert [(event.key, event.position.ordinal) for event in running.events] == [(2, 1), (4, 2)]


def test_to_dict_has_six_keys_and_json_four_more(kind: str, database: str, db: psycopg.Connection) -> None:
    insert, delete, truncate = received(
        kind,
        database,
        db,
        f"INSERT INTO wells VALUES (1, 'é', '{PROJECT}', 1.50, NULL)",
        "DELETE FROM wells",
        "TRUNCATE wells",
    )
    plain = insert.to_dict()
    assert list(plain) == ["schema", "table", "commit_timestamp", "eventType", "new", "old"]
    assert plain["new"] == {"id": 1, "name": "é", "project_id": PROJECT, "depth": "1.50", "notes": None}
    assert plain["old"] is None and plain["eventType"] == "INSERT" and plain["commit_timestamp"].endswith("+00:00")
    assert delete.to_dict()["new"] is None and delete.to_dict()["old"] == {"id": 1}
    line = json.loads(insert.to_json())
    assert line == plain | {"position": str(insert.position), "key": 1, "effect": "ENTER", "xid": insert.xid}
    assert json.loads(truncate.to_json())["eventType"] == "TRUNCATE"


def test_only_the_operations_that_were_asked_for(kind: str, database: str, db: psycopg.Connection) -> None:
    def deletes(running: Running) -> None:
        running.on("wells", running.events.append, operations=["delete"])

    with Running(kind, database, deletes) as running:
        db.execute("INSERT INTO wells VALUES (1); DELETE FROM wells")
        running.caught_up(db)
    assert [type(event) for event in running.events] == [cdc.Delete]


def test_filter_enters_stays_and_leaves(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")

    def filtered(running: Running) -> None:
        running.on("wells", running.events.append, filter="name=eq.mine")

    with Running(kind, database, filtered) as running:
        for statement in (
            "INSERT INTO wells VALUES (1, 'theirs'), (2, 'mine'), (3, NULL)",
            "UPDATE wells SET name = 'mine' WHERE id = 1",
            "UPDATE wells SET depth = 1 WHERE id = 1",
            "UPDATE wells SET name = NULL WHERE id = 1",
            "UPDATE wells SET depth = 2 WHERE id = 1",
            "DELETE FROM wells",
        ):
            db.execute(statement)
        running.caught_up(db)
    seen = [(type(event).__name__, event.key, event.effect.value) for event in running.events]
    assert seen == [
        ("Insert", 2, "ENTER"),
        ("Update", 1, "ENTER"),
        ("Update", 1, "STAY"),
        ("Update", 1, "LEAVE"),
        ("Delete", 2, "LEAVE"),
    ]
    enter, stay, leave = running.events[1:4]
    assert enter.old is None and stay.old["depth"] is None
    assert leave.new is None and leave.old["name"] == "mine"


def test_a_changed_table_is_described_anew(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        db.execute("ALTER TABLE wells ADD COLUMN status text DEFAULT 'open', DROP COLUMN depth")
        db.execute("INSERT INTO wells (id) VALUES (2)")
        running.caught_up(db)
    first, between, second = running.events
    assert "depth" in first.new and "status" not in first.new
    assert isinstance(between, cdc.SchemaChange) and between.position == second.position
    assert (between.added, between.dropped, between.changed) == (("status",), ("depth",), ())
    assert between.previous == second.previous == first.position
    assert "depth" not in second.new and second.new["status"] == "open"


def test_user_types_and_domains(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN metres AS numeric(8,2)")
    db.execute("CREATE TABLE kinds (id int PRIMARY KEY, m mood, ms mood[], d metres, p point)")
    db.execute("ALTER PUBLICATION wells ADD TABLE kinds")
    with Running(kind, database, lambda running: running.on("kinds", running.events.append)) as running:
        db.execute("INSERT INTO kinds VALUES (1, 'ok', '{sad,NULL}', 1.5, '(1,2)')")
        running.caught_up(db)
    (event,) = running.events
    assert dict(event.new) == {"id": 1, "m": "ok", "ms": ["sad", None], "d": Decimal("1.50"), "p": "(1,2)"}


def test_logical_messages_take_no_ordinals_and_disturb_nobody(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database) as running:
        with db.transaction():
            db.execute("SELECT pg_logical_emit_message(true, 'p', 'x')")
            db.execute("INSERT INTO wells VALUES (1)")
        db.execute("SELECT pg_logical_emit_message(false, 'p', 'y')")
        running.caught_up(db)
    assert [event.position.ordinal for event in running.events] == [1]


def test_a_publication_name_with_quotes_and_commas(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("""CREATE PUBLICATION "it's, ""odd"" ✓" FOR TABLE wells""")
    with Running(kind, database, publication='it\'s, "odd" ✓') as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
    assert len(running.events) == 1


def test_our_own_schema_is_never_delivered(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    with Running(kind, database, publication="everything") as running:
        for number in range(3):
            db.execute("INSERT INTO wells VALUES (%s)", (number,))
            running.caught_up(db)
        with pytest.raises(cdc.SubscriptionError, match=r"cdc\.slots"):
            running.subscribe("cdc.slots", print)
    assert [event.key for event in running.events] == [0, 1, 2]

"""Filters over the whole path: what a subscription receives, and what it is refused."""

from __future__ import annotations

import secrets
from typing import Any

import psycopg
import pytest

import cdc
from cdc.testing import Sandbox, apply_supabase
from tests.harness import Running, until

TABLE = """
ALTER TABLE wells REPLICA IDENTITY FULL, ADD status text, ADD seen timestamptz, ADD open boolean, ADD label text;
INSERT INTO wells (id, name, status, depth, open) VALUES
    (1, 'A-1', 'active', 10, true), (2, 'B-2', 'closed', NULL, NULL), (3, NULL, 'on, hold', 30, false);
"""


def told(events: list[Any]) -> list[tuple[str, Any, str]]:
    """What happened to which row, and what it means."""
    return [(event.event_type, event.key, str(event.effect.value)) for event in events]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The updates are: status of 1 becomes closed; depth of 2 becomes 20; name of 3 becomes A-3; 1 is deleted.
        ("status=eq.active", ["UPDATE 1 LEAVE"]),
        ("status=neq.active", ["UPDATE 1 ENTER", "UPDATE 2 STAY", "UPDATE 3 STAY", "DELETE 1 LEAVE"]),
        ("status=not.in.(active,closed)", ["UPDATE 3 STAY"]),
        ('status=in.("on, hold",closed)', ["UPDATE 1 ENTER", "UPDATE 2 STAY", "UPDATE 3 STAY", "DELETE 1 LEAVE"]),
        ("depth=gt.15", ["UPDATE 2 ENTER", "UPDATE 3 STAY"]),
        ("depth=not.gt.15", ["UPDATE 1 STAY", "DELETE 1 LEAVE"]),
        ("depth=is.null", ["UPDATE 2 LEAVE"]),
        ("depth=isdistinct.10", ["UPDATE 2 STAY", "UPDATE 3 STAY"]),
        ("name=like.A-*", ["UPDATE 1 STAY", "UPDATE 3 ENTER", "DELETE 1 LEAVE"]),
        ("name=ilike.a-%", ["UPDATE 1 STAY", "UPDATE 3 ENTER", "DELETE 1 LEAVE"]),
        ("name=match.^B", ["UPDATE 2 STAY"]),
        ("name=not.imatch.^b", ["UPDATE 1 STAY", "UPDATE 3 ENTER", "DELETE 1 LEAVE"]),
        ("open=is.true", ["UPDATE 1 STAY", "DELETE 1 LEAVE"]),
        ("open=not.is.true", ["UPDATE 2 STAY", "UPDATE 3 STAY"]),
        ("status=eq.closed,depth=is.null", ["UPDATE 2 LEAVE"]),
        ("status=eq.closed,depth=lt.15,name=not.is.null", ["UPDATE 1 ENTER", "DELETE 1 LEAVE"]),
        ("id=gte.2,id=lt.3", ["UPDATE 2 STAY"]),
    ],
)
def test_rows_enter_stay_and_leave(
    kind: str, database: str, db: psycopg.Connection, text: str, expected: list[str]
) -> None:
    db.execute(TABLE)
    with Running(kind, database, lambda running: running.on("wells", running.events.append, filter=text)) as running:
        db.execute("UPDATE wells SET status = 'closed' WHERE id = 1")
        db.execute("UPDATE wells SET depth = 20 WHERE id = 2")
        db.execute("UPDATE wells SET name = 'A-3' WHERE id = 3")
        db.execute("DELETE FROM wells WHERE id = 1")
        running.caught_up(db)
    assert [f"{event.event_type} {event.key} {event.effect.value.upper()}" for event in running.events] == expected


def test_what_cannot_be_told_is_withheld_and_counted(kind: str, database: str, db: psycopg.Connection) -> None:
    """Only the server knows the case of É under a collation of a language; a pattern with é in it is refused."""
    db.execute('CREATE COLLATION german FROM "C"; ALTER TABLE wells ADD title text COLLATE german')
    db.execute("UPDATE pg_collation SET collcollate = 'de_DE', collctype = 'de_DE' WHERE collname = 'german'")
    with Running(kind, database, lambda running: None) as running:
        seen: list[Any] = []
        subscription = running.subscribe("wells", seen.append, filter="title=ilike.e%", operations=["insert"])
        db.execute("INSERT INTO wells (id, title) VALUES (1, 'É'), (2, 'E'), (3, NULL)")
        running.caught_up(db)
        assert subscription.undecided >= 1
        assert [event.key for event in seen] == [2]
        with pytest.raises(cdc.SubscriptionError, match="the case of letters beyond ASCII"):
            running.subscribe("wells", print, filter="title=ilike.é%", operations=["insert"])


def test_a_filter_and_policies_together(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(TABLE)
    db.execute("ALTER TABLE wells ENABLE ROW LEVEL SECURITY; GRANT SELECT (id, name, status, depth) ON wells TO anon")
    db.execute("CREATE POLICY named ON wells FOR SELECT TO anon USING (name IS NOT NULL)")
    anon = cdc.Subject("anon")
    with Running(kind, database, lambda running: None) as running:
        seen: list[Any] = []
        running.subscribe("wells", seen.append, filter="status=in.(active,closed),depth=gte.10", subject=anon)
        for text in ("open=is.true", "id=eq.1,label=not.like.a*"):
            with pytest.raises(cdc.SubscriptionError, match=r"the filter reads (open|label) of public\.wells"):
                running.subscribe("wells", print, filter=text, subject=anon)
        db.execute("UPDATE wells SET depth = 20 WHERE id = 2")
        db.execute("UPDATE wells SET name = NULL WHERE id = 1")
        db.execute("UPDATE wells SET status = 'active' WHERE id = 3")
        running.caught_up(db)
    assert told(seen) == [("UPDATE", 2, cdc.Effect.ENTER.value), ("UPDATE", 1, cdc.Effect.LEAVE.value)]
    assert "open" not in seen[0].new


def test_every_column_of_a_filter_has_to_be_sent(kind: str, database: str, db: psycopg.Connection) -> None:
    with Running(kind, database, lambda running: None) as running:
        with pytest.raises(cdc.SubscriptionError, match=r"the old row comes without name, depth\. Run .ALTER TABLE"):
            running.subscribe("wells", print, filter="id=gt.1,name=not.is.null,depth=lt.5")
        running.subscribe("wells", print, filter="id=gt.1,id=not.in.(5,6)")
        inserts = running.subscribe("wells", print, filter="name=match.^a,depth=lt.5", operations=["insert"])
        db.execute("INSERT INTO wells (id, name, depth) VALUES (1, 'a', 4), (2, 'b', 4), (3, 'a', NULL)")
        running.caught_up(db)
        until(lambda: inserts.delivered == 1)


def test_an_enum_that_grows(kind: str, database: str, db: psycopg.Connection) -> None:
    """A label that is not there yet equals nothing; its place in the order is not known before."""
    db.execute("CREATE TYPE mood AS ENUM ('sad', 'glad'); ALTER TABLE wells ADD mood mood")
    with Running(kind, database, lambda running: None) as running:
        seen: list[Any] = []
        running.subscribe("wells", seen.append, filter="mood=eq.merry", operations=["insert"])
        with pytest.raises(cdc.SubscriptionError, match="does not fit column 'mood' of public.wells, of type mood"):
            running.subscribe("wells", print, filter="mood=gt.merry", operations=["insert"])
        db.execute("ALTER TYPE mood ADD VALUE 'merry' AFTER 'glad'")
        db.execute("INSERT INTO wells (id, mood) VALUES (1, 'sad'), (2, 'merry')")
        running.caught_up(db)
    assert [event.key for event in seen] == [2]


def test_case_does_not_matter_in_a_database_with_a_language(kind: str, server: Sandbox) -> None:
    """Most databases have one; that i and I are one letter is sure in its language."""
    name = f"spoken_{secrets.token_hex(4)}"
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 LC_COLLATE 'C.utf8' LC_CTYPE 'C.utf8'")  # type: ignore[arg-type]
    dsn = server.dsn_for(name)
    apply_supabase(dsn)
    with psycopg.connect(dsn, autocommit=True) as db:
        db.execute("CREATE TABLE wells (id int PRIMARY KEY, name text); CREATE PUBLICATION wells FOR TABLE wells")
        db.execute("ALTER TABLE wells REPLICA IDENTITY FULL")
        texts = ("name=ilike.*smith*", "name=imatch.smith$")
        found: dict[str, list[int]] = {text: [] for text in texts}

        def prepare(running: Running) -> None:
            for text in texts:
                running.on("wells", lambda event, text=text: found[text].append(event.key), filter=text)

        with Running(kind, dsn, prepare, slot=None) as running:
            db.execute("INSERT INTO wells (id, name) VALUES (4, 'SMITH'), (5, 'John Smith'), (6, 'Smythe')")
            running.caught_up(db)
            assert [each.undecided for each in running.consumer.subscriptions] == [0, 0]
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]
    assert found == {text: [4, 5] for text in texts}

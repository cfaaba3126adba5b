"""What cdc.rights is worth: without it, unpublished, forged, with a trigger that fails; and who may make it."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

import cdc
from cdc.daemon.cli import run
from cdc.daemon.scripts import read_script
from cdc.fact_query import FACTS
from tests.harness import RIGHTS, Running, until

OPEN = """
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
ALTER TABLE wells REPLICA IDENTITY FULL;
GRANT SELECT ON wells TO authenticated;
CREATE POLICY open ON wells FOR SELECT TO authenticated USING (true);
"""
USER = cdc.Subject("authenticated")
IN_ORDER, NEWEST = "those of the change's position, by cdc.rights", "the newest ones"


@pytest.fixture
def db(db: psycopg.Connection) -> psycopg.Connection:
    db.execute(OPEN)
    return db


def health(running: Running) -> tuple[str, str]:
    found = running.consumer.health()
    return " ".join(found.notes), " ".join(found.reasons)


def test_the_trigger_asks_what_the_consumer_asks() -> None:
    assert f"AS $facts${FACTS}$facts$" in read_script("10_rights.sql")


def test_without_the_table_rights_are_the_newest_ones(kind: str, database: str, db: psycopg.Connection) -> None:
    seen: list[Any] = []
    with Running(kind, database, rights_interval=0.1) as running:
        subscription = running.subscribe("wells", seen.append, subject=USER)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert NEWEST in health(running)[0] and IN_ORDER not in health(running)[0]
        db.execute("REVOKE SELECT ON wells FROM authenticated")
        until(lambda: subscription.denied is not None and len(seen) == 2)
        db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
    assert (seen[0].key, seen[1].kind, len(seen)) == (1, cdc.GapKind.RIGHTS, 2)
    assert "cdc.rights" not in health(running)[1]


def test_a_table_that_is_made_while_it_runs_is_used(kind: str, database: str, db: psycopg.Connection) -> None:
    seen: list[Any] = []
    with Running(kind, database, rights_interval=0.1) as running:
        running.subscribe("wells", seen.append, subject=USER)
        db.execute(RIGHTS)
        until(lambda: IN_ORDER in health(running)[0])
        with db.transaction():
            db.execute("INSERT INTO wells VALUES (1)")
            db.execute("DROP POLICY open ON wells")
            db.execute("INSERT INTO wells VALUES (2)")
        running.caught_up(db)
        assert [getattr(event, "key", "rights") for event in seen] == [1, "rights"]
        db.execute("DROP EVENT TRIGGER cdc_rights")
        until(lambda: NEWEST in health(running)[0])
        assert "its event triggers are missing" in health(running)[1]
        db.execute("CREATE POLICY again ON wells USING (true)")
        until(lambda: len(seen) == 3)
        db.execute("INSERT INTO wells VALUES (3)")
        running.caught_up(db)
        assert seen[-1].key == 3


SPOILT = {
    "ALTER PUBLICATION wells DROP TABLE cdc.rights": "it is not published",
    "ALTER PUBLICATION wells SET (publish = 'update, delete')": "it is not published",
    "ALTER TABLE cdc.rights OWNER TO authenticated": "its owner is no superuser",
    "GRANT INSERT ON cdc.rights TO anon": "others than its owner may write it",
    "GRANT UPDATE (facts) ON cdc.rights TO anon": "others than its owner may write it",
    "ALTER EVENT TRIGGER cdc_rights DISABLE": "its event triggers are missing",
    "DROP EVENT TRIGGER cdc_rights_dropped": "its event triggers are missing",
    "ALTER FUNCTION cdc.rights_changed() OWNER TO authenticated": "its event triggers are missing",
    "ALTER FUNCTION cdc.rights_changed() SECURITY INVOKER": "its event triggers are missing",
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_table_that_proves_nothing_is_not_used(database: str, db: psycopg.Connection, spoil: str) -> None:
    db.execute(RIGHTS)
    db.execute("CREATE PUBLICATION rest FOR TABLE wells")
    db.execute(spoil)
    seen: list[Any] = []
    names = ["wells", "rest"]

    def prepare(running: Running) -> None:
        running.subscribe("wells", seen.append, subject=USER, operations=["insert"])

    with Running("blocking", database, prepare, rights_interval=0.1, publication=names) as running:
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        notes, reasons = health(running)
        assert NEWEST in notes and SPOILT[spoil] in reasons
        assert running.consumer.health().colour == "yellow"
        # A row that somebody writes means nothing.
        row = db.execute('SELECT "table", name, facts::text FROM cdc.rights LIMIT 1').fetchone()
        assert row is not None
        forged = row[2].replace('"row_security": true', '"row_security": false')
        db.execute('INSERT INTO cdc.rights ("table", name, facts) VALUES (%s, %s, %s)', (row[0], row[1], forged))
        db.execute("ALTER POLICY open ON wells USING (id = 2)")
        until(lambda: len(seen) == 2)
        db.execute("INSERT INTO wells VALUES (2), (3)")
        running.caught_up(db)
    assert [getattr(event, "key", "rights") for event in seen] == [1, "rights", 2]


def test_a_trigger_that_fails_denies_and_fails_no_command(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(RIGHTS)
    db.execute("ALTER FUNCTION cdc.table_facts(oid[]) RENAME TO away")
    warnings: list[str] = []
    db.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary or ""))
    seen: list[Any] = []
    with Running(kind, database, rights_interval=600) as running:
        subscription = running.subscribe("wells", seen.append, subject=USER)
        until(lambda: "could not note" in str(subscription.denied))
        db.execute("ALTER POLICY open ON wells USING (id = 1)")
        assert any("cdc could not note" in warning for warning in warnings)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)
        assert seen == [] and len(running.events) == 1
        db.execute("ALTER FUNCTION cdc.away(oid[]) RENAME TO table_facts")
        db.execute("INSERT INTO wells VALUES (2)")
        db.execute("UPDATE wells SET id = 3 WHERE id = 1")
        running.caught_up(db)
    # Told that it sees again what it saw before; the update takes the row away from it.
    assert [(type(event).__name__, getattr(event, "effect", None)) for event in seen] == [
        ("Gap", None),
        ("Update", cdc.Effect.LEAVE),
    ]


def test_what_the_trigger_could_not_note_is_read_again(database: str, db: psycopg.Connection) -> None:
    db.execute(RIGHTS)
    seen: list[Any] = []
    with Running("blocking", database, rights_interval=0.1) as running:
        subscription = running.subscribe("wells", seen.append, subject=USER)
        db.execute("ALTER FUNCTION cdc.table_facts(oid[]) RENAME TO away")
        db.execute("ALTER POLICY open ON wells USING (id = 1)")
        rows = db.execute("SELECT facts IS NULL FROM cdc.rights ORDER BY id DESC LIMIT 1").fetchall()
        assert rows == [(True,)]
        # Told once that it sees nothing and once that it sees something, or both at once.
        until(lambda: seen and subscription.denied is None)
        db.execute("INSERT INTO wells VALUES (1), (2)")
        running.caught_up(db)
    assert seen[-1].key == 1


def test_a_change_that_is_not_visible_yet_is_not_judged_by_older_rights(
    kind: str, database: str, db: psycopg.Connection
) -> None:
    """Without the table: the stream is ahead of the catalog while the server waits for a standby."""
    seen: list[Any] = []
    with Running(kind, database, rights_interval=0.1) as running:
        subscription = running.subscribe("wells", seen.append, subject=USER)
        db.execute("INSERT INTO wells VALUES (1)")
        running.caught_up(db)

        def revoke() -> None:
            with psycopg.connect(database) as other:
                other.execute("SET synchronous_commit = 'on'")
                other.execute("ALTER POLICY open ON wells USING (false)")
                other.execute("ALTER TABLE wells ADD COLUMN more int")
                other.execute("INSERT INTO wells VALUES (2)")

        db.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        db.execute("SELECT pg_reload_conf()")
        worker = threading.Thread(target=revoke)
        try:
            until(lambda: db.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",))
            worker.start()
            until(lambda: len(running.events) >= 2)
            until(lambda: subscription.denied is not None)
        finally:
            db.execute("SET synchronous_commit = 'local'")
            db.execute("ALTER SYSTEM RESET synchronous_standby_names")
            db.execute("SELECT pg_reload_conf()")
            worker.join(30)
        running.caught_up(db)
    assert [event.key for event in seen if isinstance(event, cdc.Insert)] == [1]


def test_setup_makes_it_for_a_superuser_and_drop_takes_it_back(
    database: str, db: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    db.execute("DROP SCHEMA cdc CASCADE")
    for _ in range(2):
        assert run(["setup", "--dsn", database, "--table", "wells"]) == 0
    assert "Nothing to do" in capsys.readouterr().out
    found = db.execute("SELECT name FROM cdc.rights").fetchall()
    assert found == [("public.wells",)]
    with psycopg.connect(database) as verifying:
        for statement in read_script("07_verify.sql").split(";\n"):
            if "cdc.rights" in statement:
                row = verifying.execute(statement.encode()).fetchone()
                assert row is not None and row[-1] is None
    assert run(["drop", "--dsn", database, "--everything"]) == 0
    assert db.execute("SELECT to_regclass('cdc.rights')").fetchone() == (None,)
    assert db.execute("SELECT count(*) FROM pg_event_trigger").fetchone() == (0,)
    db.execute("GRANT SELECT ON wells TO anon")


def test_others_are_told_what_they_go_without(
    database: str, db: psycopg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    db.execute("DROP SCHEMA cdc CASCADE; CREATE ROLE maker LOGIN PASSWORD 'x'; ALTER TABLE wells OWNER TO maker")
    db.execute("ALTER PUBLICATION wells OWNER TO maker")
    name = db.info.dbname
    db.execute(f'GRANT CREATE ON DATABASE "{name}" TO maker')
    try:
        dsn = psycopg.conninfo.make_conninfo(database, user="maker", password="x")
        assert run(["setup", "--dsn", dsn, "--table", "wells"]) == 0
        assert "cdc.rights was not made: that takes a superuser" in capsys.readouterr().err
        assert db.execute("SELECT to_regclass('cdc.rights')").fetchone() == (None,)
    finally:
        db.execute("DROP OWNED BY maker CASCADE; DROP ROLE maker")


def test_old_rows_go_when_no_slot_needs_them(database: str, db: psycopg.Connection) -> None:
    def ids() -> list[int]:
        return [number for (number,) in db.execute("SELECT id FROM cdc.rights ORDER BY id").fetchall()]

    db.execute(RIGHTS)
    for number in range(4):
        db.execute(f"ALTER POLICY open ON wells USING (id = {number})")
    db.execute("UPDATE cdc.rights SET changed_at = now() - interval '40 days' WHERE id <= 4")
    with Running("blocking", database, lambda running: None):
        pass
    db.execute("UPDATE cdc.slots SET rights = 3")
    db.execute(RIGHTS)
    assert ids() == [3, 4, 5], "the slot goes on from the third"
    db.execute("UPDATE cdc.slots SET rights = NULL")
    db.execute(RIGHTS)
    assert ids() == [3, 4, 5], "nobody knows what this slot needs"
    db.execute("UPDATE cdc.slots SET rights = 5")
    db.execute(RIGHTS)
    assert ids() == [5]

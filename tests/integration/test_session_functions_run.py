"""Functions that the user lists: run once for each subject, by a login that can do no harm."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import cdc
from tests.harness import Running, until

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
SETUP = """
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO PUBLIC;
CREATE TABLE app.members (who text, project uuid);
CREATE SEQUENCE app.runs;
INSERT INTO app.members VALUES ('ann', '11111111-1111-4111-8111-111111111111'),
                               ('bob', '22222222-2222-4222-8222-222222222222');
CREATE FUNCTION app.project() RETURNS uuid LANGUAGE plpgsql STABLE SECURITY DEFINER AS $$
BEGIN
    RETURN (SELECT m.project FROM app.members m
            WHERE m.who = current_setting('request.jwt.claims', true)::jsonb ->> 'sub');
END $$;
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
ALTER TABLE wells REPLICA IDENTITY FULL;
GRANT SELECT ON wells TO authenticated, anon;
CREATE POLICY own ON wells FOR SELECT TO authenticated USING (project_id = app.project());
"""


@dataclass
class Login:
    name: str
    dsn: str


@pytest.fixture
def login(db: psycopg.Connection, database: str) -> Iterator[Login]:
    """An unprivileged login that may become the subjects' roles."""
    db.execute(SETUP)
    name = f"asker_{secrets.token_hex(4)}"
    db.execute(f"CREATE ROLE {name} LOGIN NOINHERIT PASSWORD 'p'")
    db.execute(f"GRANT authenticated, anon TO {name}")
    try:
        yield Login(name, psycopg.conninfo.make_conninfo(database, user=name, password="p"))
    finally:
        db.execute(f"REASSIGN OWNED BY {name} TO current_user; DROP OWNED BY {name}; DROP ROLE {name}")


def user(sub: str, role: str = "authenticated", **more: Any) -> cdc.Subject:
    return cdc.Subject(role, {"sub": sub} | more)


def replace(db: psycopg.Connection, body: str, result: str = "uuid", rest: str = "") -> None:
    db.execute("DROP FUNCTION IF EXISTS app.project() CASCADE")
    db.execute(
        f"CREATE FUNCTION app.project() RETURNS {result} LANGUAGE plpgsql {rest} AS $body$ {body} $body$".encode()
    )
    db.execute("CREATE POLICY own ON wells FOR SELECT TO authenticated USING (project_id::text = app.project()::text)")


def listed(login: Login) -> dict[str, Any]:
    return {"session_functions": ["app.project()"], "rights_dsn": login.dsn}


def insert(db: psycopg.Connection, number: int) -> None:
    db.execute("INSERT INTO wells VALUES (%s, 'a', %s), (%s, 'b', %s)", (number, ONE, number + 1, TWO))


def test_a_listed_function_decides(kind: str, login: Login, database: str, db: psycopg.Connection) -> None:
    seen: dict[str, list[Any]] = {"ann": [], "bob": [], "eve": []}
    with Running(kind, database, lambda running: None, **listed(login)) as running:
        made = {name: running.subscribe("wells", seen[name].append, subject=user(name)) for name in seen}
        assert all(each.denied is None for each in made.values())
        insert(db, 1)
        running.caught_up(db)
        assert [[event.key for event in events] for events in seen.values()] == [[1], [2], []]
        made["ann"].update_subject(user("bob"))
        until(lambda: made["ann"].subject == user("bob"))
        insert(db, 3)
        running.caught_up(db)
    assert [event.key for event in seen["ann"] if isinstance(event, cdc.Insert)] == [1, 4]


def test_it_is_run_once_and_as_the_subject(kind: str, login: Login, database: str, db: psycopg.Connection) -> None:
    replace(
        db,
        "BEGIN RETURN concat_ws(' ', current_user, session_user,"
        " current_setting('transaction_read_only'), current_setting('search_path'), current_setting('app.x', true),"
        " current_setting('row_security'), current_setting('statement_timeout'), current_setting('TimeZone')); END",
        "text",
    )
    told: list[Any] = []
    subject = cdc.Subject("authenticated", {"sub": "ann"}, {"app.x": "y", "TimeZone": "Asia/Tokyo"})
    expected = f"authenticated {login.name} on pg_catalog y on 2s Asia/Tokyo"
    db.execute("DROP POLICY own ON wells; CREATE POLICY own ON wells TO authenticated USING (notes = app.project())")
    with Running(kind, database, lambda running: None, **listed(login)) as running:
        subscription = running.subscribe("wells", told.append, subject=subject)
        assert subscription.denied is None
        db.execute("INSERT INTO wells (id, notes) VALUES (1, %s), (2, 'other')", (expected,))
        running.caught_up(db)
        assert [event.key for event in told] == [1]
        db.execute(f"ALTER ROLE {login.name} NOLOGIN")
        again = running.subscribe("wells", told.append, subject=subject)
        assert again.denied is None, "what it gave is known"
        with pytest.raises(cdc.ConfigurationError, match="is not permitted to log in"):
            running.subscribe("wells", told.append, subject=user("bob"))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "BEGIN RAISE EXCEPTION 'the secret of %', current_setting('request.jwt.claims'); END",
            "RaiseException (P0001)",
        ),
        ("BEGIN PERFORM pg_sleep(30); RETURN NULL; END", "QueryCanceled (57014)"),
        ("BEGIN INSERT INTO app.members VALUES ('x', NULL); RETURN NULL; END", "(25006)|(42501)"),
        ("BEGIN SET TRANSACTION READ WRITE; RETURN NULL; END", "(25001)"),
        ("BEGIN EXECUTE 'COPY (SELECT 1) TO PROGRAM ''true'''; RETURN NULL; END", "(42501)"),
        ("BEGIN EXECUTE 'RESET ROLE'; EXECUTE 'SET ROLE postgres'; RETURN NULL; END", "(42501)|(42704)"),
        ("BEGIN RETURN 'no uuid'; END", "InvalidTextRepresentation (22P02)"),
    ],
)
def test_what_it_raises_denies_that_subject(
    login: Login, database: str, db: psycopg.Connection, body: str, reason: str
) -> None:
    who = "current_setting('request.jwt.claims', true)::jsonb ->> 'sub'"
    replace(db, f"BEGIN IF {who} = 'ann' THEN RETURN '{ONE}'; END IF; {body.removeprefix('BEGIN ')}")
    good: list[Any] = []
    bad: list[Any] = []
    with Running("blocking", database, lambda running: None, **listed(login)) as running:
        first = running.subscribe("wells", good.append, subject=user("ann"))
        second = running.subscribe("wells", bad.append, subject=user("eve", secret="hush"))
        assert first.denied is None and second.denied is not None
        assert any(code in second.denied for code in reason.split("|")), second.denied
        assert "hush" not in second.denied and "no uuid" not in second.denied
        insert(db, 1)
        running.caught_up(db)
    assert [event.key for event in good] == [1] and bad == []


def test_a_role_that_the_login_may_not_become(login: Login, database: str, db: psycopg.Connection) -> None:
    db.execute("GRANT SELECT ON wells TO service_role; CREATE ROLE stranger; GRANT SELECT ON wells TO stranger")
    db.execute("CREATE POLICY too ON wells FOR SELECT TO stranger USING (project_id = app.project())")
    try:
        with Running("blocking", database, lambda running: None, **listed(login)) as running:
            denied = running.subscribe("wells", print, subject=user("ann", "stranger")).denied
            assert denied is not None and "InsufficientPrivilege" in denied
            odd = cdc.Subject("authenticated", {"sub": "ann"}, {"session_authorization": "authenticator"})
            told = running.subscribe("wells", print, subject=odd).denied
            assert told is not None and "session_authorization, which rights_dsn cannot have" in told
    finally:
        db.execute("DROP OWNED BY stranger; DROP ROLE stranger")


def test_a_function_that_is_replaced_denies(kind: str, login: Login, database: str, db: psycopg.Connection) -> None:
    seen: list[Any] = []
    with Running(kind, database, lambda running: None, **listed(login)) as running:
        subscription = running.subscribe("wells", seen.append, subject=user("ann"))
        db.execute("CREATE OR REPLACE FUNCTION app.project() RETURNS uuid LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        until(lambda: subscription.denied is not None)
        assert "was replaced since: renew the subject" in (subscription.denied or "")
        subscription.update_subject(user("ann"))
        until(lambda: subscription.denied is None)
        insert(db, 1)
        running.caught_up(db)
    assert [event for event in seen if isinstance(event, cdc.Insert)] == []


def test_without_being_listed_it_is_refused(login: Login, database: str, db: psycopg.Connection) -> None:
    with Running("blocking", database, lambda running: None, **listed(login)) as running:
        replace(db, "BEGIN RETURN NULL; END")
        db.execute("ALTER FUNCTION app.project() RENAME TO another")
        with pytest.raises(cdc.SubscriptionError, match="function app.another.. .written in plpgsql"):
            running.subscribe("wells", print, subject=user("ann"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ALTER ROLE {} SUPERUSER", "is a superuser"),
        ("ALTER ROLE {} BYPASSRLS", "has BYPASSRLS"),
        ("ALTER ROLE {} CREATEROLE", "has CREATEROLE"),
        ("ALTER ROLE {} CREATEDB", "has CREATEDB"),
        ("ALTER ROLE {} REPLICATION", "has REPLICATION"),
        ("ALTER ROLE {} INHERIT", "inherits the rights of its roles"),
        ("ALTER TABLE app.members OWNER TO {}", "owns tables, or the database"),
        ("GRANT pg_execute_server_program TO {}", "may become pg_execute_server_program, which may do harm"),
        ("GRANT postgres TO {}", "may become postgres, which may do harm"),
    ],
)
def test_a_login_that_could_do_harm_is_refused(
    login: Login, database: str, db: psycopg.Connection, change: str, reason: str
) -> None:
    db.execute(change.format(login.name))
    with pytest.raises(cdc.ConfigurationError, match=f"rights_dsn: the role {login.name} {reason}"):
        cdc.Consumer(database, slot="ingest", **listed(login)).start()
    assert db.execute("SELECT FROM pg_replication_slots WHERE slot_name = 'ingest'").fetchall() == []


def test_the_powerful_login_of_the_consumer_is_refused(login: Login, database: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match="is a superuser"):
        cdc.Consumer(database, slot="ingest", session_functions=["app.project"], rights_dsn=database).start()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"session_functions": ["app.f()"]}, "session_functions and rights_dsn are given together"),
        ({"rights_dsn": "dbname=x"}, "session_functions and rights_dsn are given together"),
        ({"session_functions": "app.f()", "rights_dsn": "dbname=x"}, "session_functions is a list of functions"),
        ({"session_functions": ["f()"], "rights_dsn": "dbname=x"}, "session_functions is a list of functions"),
        ({"session_functions": ["app.f(1)"], "rights_dsn": "dbname=x"}, "session_functions is a list of functions"),
        ({"session_functions": ["app.f"], "rights_dsn": 7}, "rights_dsn is the DSN of a login, not int"),
    ],
)
def test_settings_that_cannot_be(options: dict[str, Any], match: str) -> None:
    with pytest.raises(cdc.ConfigurationError, match=match):
        cdc.Consumer("dbname=x", slot="ingest", **options)

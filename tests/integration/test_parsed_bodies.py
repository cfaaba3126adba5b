"""Bodies of functions that are strings, parsed by the server: which have a tree, and which must not have one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from cdc.connection import connect
from cdc.parsed_bodies import _plain
from cdc.rights import read_facts
from cdc.rls.facts import Facts

SETUP = """
CREATE SCHEMA app;
GRANT USAGE ON SCHEMA app TO PUBLIC;
ALTER TABLE wells ENABLE ROW LEVEL SECURITY;
"""


@pytest.fixture
def server_db(db: psycopg.Connection, database: str) -> Iterator[psycopg.Connection[Any]]:
    db.execute(SETUP)
    with connect(database) as connection:
        yield connection


def facts(connection: psycopg.Connection[Any]) -> Facts:
    row = connection.execute("SELECT 'wells'::regclass::oid").fetchone()
    assert row is not None
    return read_facts(connection, [row[0]])[row[0]]


def tree(connection: psycopg.Connection[Any], name: str = "app.tenant") -> str | None:
    """The tree of the function, which a policy calls."""
    connection.execute("DROP POLICY IF EXISTS one ON wells")
    connection.execute(f"CREATE POLICY one ON wells USING ({name}() IS NOT NULL)")
    row = connection.execute(f"SELECT '{name}()'::regprocedure::oid").fetchone()
    assert row is not None
    found = dict(facts(connection).functions[row[0]].fields)["tree"]
    assert found is None or isinstance(found, str)
    return found


def make(
    connection: psycopg.Connection[Any], body: str, result: str = "text", rest: str = "", name: str = "app.tenant"
) -> None:
    connection.execute(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS {result} LANGUAGE sql {rest} AS $body${body}$body$"
    )


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ("SELECT current_setting('app.tenant', true)", "text"),
        ("  select -- a comment\n current_setting('app.tenant', true) ;; ", "text"),
        ("SELECT nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'tenant' -- end", "text"),
        ("SELECT (auth.jwt() -> 'app_metadata' ->> 'tenant')::uuid", "uuid"),
        ("SELECT CASE WHEN auth.role() = 'anon' THEN NULL ELSE auth.uid() END", "uuid"),
        ("SELECT coalesce(lower(auth.email()), E'no\\'body', U&'\\0041', $$;END$$)", "text"),
        ("SELECT 'a % b %s {result}'", "text"),
    ],
)
def test_a_string_is_parsed_as_the_server_parses_it(server_db: psycopg.Connection[Any], body: str, result: str) -> None:
    """The same tree as a function has that was made with this body in BEGIN ATOMIC."""
    make(server_db, body, result)
    atomic = f"CREATE FUNCTION app.atomic() RETURNS {result} LANGUAGE sql BEGIN ATOMIC {body}\n; END"
    server_db.execute("SET search_path = pg_catalog")
    server_db.execute(atomic.encode())
    server_db.execute("RESET search_path")
    row = server_db.execute("SELECT prosqlbody::text FROM pg_proc WHERE proname = 'atomic'").fetchone()
    found = tree(server_db)
    assert row is not None and found is not None and _plain(found) == _plain(row[0])


def test_what_a_body_calls_is_known_too(server_db: psycopg.Connection[Any]) -> None:
    server_db.execute("SET check_function_bodies = off")
    make(server_db, "SELECT app.inner_one() || auth.role()")
    assert not tree(server_db), "it does not exist"
    make(server_db, "SELECT upper(current_setting('app.tenant', true))", name="app.inner_one")
    make(server_db, "SELECT app.inner_one() || auth.role()")
    assert tree(server_db)
    known = facts(server_db)
    names = {dict(each.fields)["name"] for each in known.functions.values()}
    assert {"tenant", "inner_one", "role", "upper", "current_setting", "textcat"} <= names
    assert ("||", 1258) in known.operators.values()


@pytest.mark.parametrize(
    "body",
    [
        "SELECT 'x'; SELECT 'y'; END; CREATE ROLE evil SUPERUSER; SELECT 'z'",
        "SELECT 'x'; END; DROP TABLE wells; --",
        "SELECT 'x'; END; DROP TABLE wells; CREATE FUNCTION pg_temp.f() RETURNS int BEGIN ATOMIC SELECT 1",
        "SELECT 'x'; END",
        "SELECT 'x'; END --",
        "SELECT 'x' /*",
        "RETURN 'x'",
        "",
        ";",
        "SELECT 'x\x01'; ROLLBACK; DROP TABLE wells",
        "SELECT 'x'; END; COMMIT; DROP TABLE wells",
    ],
)
def test_no_body_gets_anything_done(server_db: psycopg.Connection[Any], body: str) -> None:
    """A body may hold any text when nobody checked it. It is parsed on a powerful connection."""
    server_db.execute("SET check_function_bodies = off")
    make(server_db, body)
    assert not tree(server_db)
    tables = "SELECT 1 FROM pg_class WHERE relname = 'wells' UNION ALL SELECT 2 FROM pg_roles WHERE rolname = 'evil'"
    assert server_db.execute(tables).fetchall() == [(1,)]
    left = "SELECT proname FROM pg_proc WHERE proname IN ('cdc_parsed_body', 'f')"
    assert server_db.execute(left).fetchall() == []


def test_names_that_others_could_mean(server_db: psycopg.Connection[Any]) -> None:
    """A string's names are those of whoever calls. Somebody may put his own function before PostgreSQL's."""
    make(server_db, "SELECT current_setting('app.tenant'::text, true)")
    assert tree(server_db)
    make(server_db, "SELECT 'other'::text", name="public.elsewhere")
    assert tree(server_db)
    server_db.execute(
        "CREATE FUNCTION public.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'mine'$$"
    )
    assert not tree(server_db)
    own = "SET search_path = pg_catalog"
    make(server_db, "SELECT current_setting('app.tenant'::text, true)", rest=own)
    assert tree(server_db), "it has a search_path of its own"
    make(server_db, "SELECT current_setting('app.tenant'::text, true)", rest="SET search_path = ''")
    assert tree(server_db)
    make(server_db, "SELECT current_setting('app.tenant'::text, true)", rest="SET search_path = public, pg_catalog")
    found = tree(server_db)
    assert found is not None and ":funcid 3294 " not in found
    make(
        server_db, "SELECT current_setting('app.tenant'::text, true)", rest="SET search_path = '' SET work_mem = '1MB'"
    )
    assert not tree(server_db)
    rest = """SET search_path = "$user", pg_catalog"""
    make(server_db, "SELECT current_setting('app.tenant'::text, true)", rest=rest)
    assert not tree(server_db), "it depends on who calls"
    make(server_db, "SELECT elsewhere()")
    assert not tree(server_db), "only a session with public in its search_path finds it"


def test_an_operator_and_a_type_of_somebody_else(server_db: psycopg.Connection[Any]) -> None:
    make(server_db, "SELECT ('a' || current_setting('app.tenant', true))::text")
    assert tree(server_db)
    server_db.execute("CREATE FUNCTION app.glue(text, text) RETURNS text LANGUAGE sql AS $$SELECT 'mine'$$")
    server_db.execute("CREATE OPERATOR app.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = app.glue)")
    assert not tree(server_db)
    server_db.execute("DROP OPERATOR app.|| (text, text)")
    assert tree(server_db)
    server_db.execute('CREATE DOMAIN app."text" AS pg_catalog.text')
    assert not tree(server_db)


def test_rights_that_names_need(server_db: psycopg.Connection[Any]) -> None:
    """Whoever runs a string needs USAGE of the schemas that it names; whoever runs a parsed body does not."""
    role = f"r{uuid.uuid4().hex[:8]}"
    server_db.execute(f"CREATE ROLE {role}")
    try:
        server_db.execute("CREATE SCHEMA hidden; REVOKE ALL ON SCHEMA hidden FROM PUBLIC")
        make(server_db, "SELECT 'x'::text", name="hidden.secret")
        make(server_db, "SELECT hidden.secret()")
        assert tree(server_db)

        def execute() -> Any:
            row = server_db.execute("SELECT 'app.tenant()'::regprocedure::oid").fetchone()
            assert row is not None
            return facts(server_db).functions[row[0]].execute

        assert 0 not in execute()
        row = server_db.execute(f"SELECT '{role}'::regrole::oid").fetchone()
        server_db.execute(f"GRANT USAGE ON SCHEMA hidden TO {role}")
        assert row is not None and row[0] in execute() and 0 not in execute()
        server_db.execute(
            "CREATE OR REPLACE FUNCTION app.tenant() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT hidden.secret(); END"
        )
        assert 0 in execute()
        for body, path in (
            ("SELECT NULL::hidden.kind::text", ""),
            ("SELECT 'x'::text", "SET search_path = hidden, pg_catalog"),
        ):
            server_db.execute("DROP TYPE IF EXISTS hidden.kind; CREATE TYPE hidden.kind AS ENUM ('a')")
            make(server_db, body, rest=path)
            assert tree(server_db) and 0 not in execute()
        make(server_db, "SELECT 'x'::text", rest="SET search_path = ''")
        assert tree(server_db) and 0 in execute()
        # As a definer: what counts is what the owner may.
        make(server_db, "SELECT hidden.secret()", rest="SECURITY DEFINER")
        assert 0 in execute() and tree(server_db) is not None
        server_db.execute(f"ALTER FUNCTION app.tenant() OWNER TO {role}")
        assert tree(server_db)
        server_db.execute(f"REVOKE USAGE ON SCHEMA hidden FROM {role}")
        assert not tree(server_db)
    finally:
        server_db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_without_the_right_to_parse_there_is_no_tree(server_db: psycopg.Connection[Any], database: str) -> None:
    make(server_db, "SELECT current_setting('app.tenant', true)")
    assert tree(server_db)
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    role = f"r{uuid.uuid4().hex[:8]}"
    server_db.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        with connect(psycopg.conninfo.make_conninfo(database, user=role, password="p")) as weak:
            oid = server_db.execute("SELECT 'app.tenant()'::regprocedure::oid").fetchone()
            assert oid is not None
            assert dict(facts(weak).functions[oid[0]].fields)["tree"] is None
            server_db.execute(f"GRANT TEMPORARY ON DATABASE {name} TO {role}; CREATE TABLE other (id int)")
            make(server_db, "SELECT 'something new'::text", name="app.another")
            assert dict(facts(weak).functions[oid[0]].fields)["tree"] is not None
    finally:
        server_db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


def test_nothing_is_parsed_twice_and_nothing_stays(server_db: psycopg.Connection[Any]) -> None:
    make(server_db, "SELECT current_setting('app.tenant', true)")
    assert tree(server_db)
    before = server_db.execute("SELECT count(*) FROM pg_stat_activity").fetchone()
    xid = server_db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    for _ in range(5):
        facts(server_db)
    after = server_db.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert xid is not None and after is not None and after[0] == xid[0] + 1
    assert server_db.execute("SELECT count(*) FROM pg_stat_activity").fetchone() == before

"""Functions of the users' own in policies, by their parsed bodies, against what PostgreSQL shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import cdc
from cdc.rls import Subject
from tests.harness import Running, until
from tests.rls_table import CLAIMS, ONE, TWO, Table, secured_table


@pytest.fixture
def table(database: str) -> Iterator[Table]:
    with secured_table(database) as made:
        made.connection.execute("CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC")
        made.connection.execute("GRANT SELECT ON w TO anon, authenticated")
        yield made


SUBJECTS = [
    Subject("authenticated", CLAIMS, {"app.tenant": "alpha"}),
    Subject("authenticated", {"sub": TWO, "role": "authenticated"}, {"app.tenant": ""}),
    Subject("authenticated", {"sub": "no uuid"}, {"app.tenant": "x y"}),
    Subject("authenticated", {"app_metadata": {"owner": ONE, "roles": ["admin", "staff"]}, "email": "AB"}),
    Subject("authenticated", {}),
    Subject("authenticated"),
    Subject("anon", {"role": "anon", "sub": ONE}),
]

# The body, the function's result, and a policy that calls it as f().
BODIES = [
    ("SELECT current_setting('app.tenant', true)", "text", "name = f()"),
    ("SELECT current_setting('app.tenant')", "text", "name = f()"),
    ("SELECT nullif(current_setting('app.tenant', true), '')", "text", "tag IS NOT DISTINCT FROM f()"),
    ("SELECT (auth.jwt() -> 'app_metadata' ->> 'owner')::uuid", "uuid", "owner = f()"),
    ("SELECT CASE WHEN auth.role() = 'anon' THEN NULL ELSE auth.uid() END", "uuid", "owner = f()"),
    ("SELECT coalesce(auth.jwt() ->> 'email', auth.role(), 'none')", "text", "c = upper(f()) OR name = lower(f())"),
    ("SELECT (SELECT auth.uid())", "uuid", "owner = f()"),
    ("SELECT auth.uid()::text", "text", "name = f()"),
    ("SELECT auth.role() = 'authenticated'", "boolean", "f() AND ok"),
    ("SELECT (auth.jwt() ->> 'admin')::boolean", "boolean", "f() OR id = 4"),
    ("SELECT coalesce((auth.jwt() ->> 'five')::int, 1) + 2", "int", "big = f()"),
    ("SELECT string_to_array(coalesce(current_setting('app.tenant', true), ''), ' ')", "text[]", "name = ANY (f())"),
    ("SELECT current_user::text", "text", "name = f()"),
    ("SELECT auth.jwt() -> 'app_metadata'", "jsonb", "owner::text = f() ->> 'owner'"),
    ("SELECT NULL::uuid", "uuid", "owner = f() OR f() IS NULL AND id = 1"),
]
KINDS = ["string", "atomic", "string with a search_path", "definer"]


def create(table: Table, name: str, body: str, result: str, how: str) -> None:
    if how == "atomic":
        definition = f"BEGIN ATOMIC {body}; END"
    elif how == "string":
        definition = f"AS $body$ {body} $body$"
    elif how == "string with a search_path":
        definition = f"SET search_path = '' AS $body$ {body} $body$"
    else:
        definition = f"SECURITY DEFINER AS $body$ {body} $body$"
    table.connection.execute(f"CREATE FUNCTION {name}() RETURNS {result} LANGUAGE sql STABLE {definition}".encode())


@pytest.mark.parametrize("how", KINDS)
def test_a_function_shows_what_the_server_shows(table: Table, how: str) -> None:
    for body, result, policy in BODIES:
        create(table, "app.f", body, result, how)
        table.policies([f"USING ({policy.replace('f()', 'app.f()')})"])
        for subject in SUBJECTS:
            decision, selected = table.decide(subject), table.selected(subject)
            if how == "definer" and "current_user" in body:
                assert "asks for current_user" in str(decision.denied) and not table.shown(decision)
                continue
            assert not decision.unsupported, decision.unsupported
            if isinstance(selected, str):
                assert not table.shown(decision), (body, subject, selected)
            else:
                assert table.shown(decision) == selected, (body, subject, decision.denied)
        table.policies([])
        table.connection.execute("DROP FUNCTION app.f()")


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        ("RETURNS uuid LANGUAGE plpgsql AS 'BEGIN RETURN auth.uid(); END'", "written in plpgsql"),
        ("RETURNS uuid LANGUAGE sql AS 'SELECT owner FROM public.w LIMIT 1'", "sub-query"),
        ("RETURNS uuid LANGUAGE sql AS 'SELECT auth.uid() WHERE true'", ""),
        ("RETURNS uuid LANGUAGE sql AS 'SELECT auth.uid() LIMIT 1'", ""),
        ("RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid; SELECT auth.uid()'", "several statements"),
        ("RETURNS text LANGUAGE sql AS 'SELECT version()'", "version"),
        ("RETURNS float LANGUAGE sql AS 'SELECT random()'", "random"),
        (
            "RETURNS text LANGUAGE sql SET work_mem = '1MB' AS 'SELECT auth.role()'",
            "its body is not one that cdc knows",
        ),
        ("RETURNS text LANGUAGE sql SET work_mem = '1MB' BEGIN ATOMIC SELECT auth.role(); END", "settings of its own"),
        ("RETURNS varchar LANGUAGE sql AS 'SELECT 7'", "its body gives integer where"),
        ("RETURNS text LANGUAGE sql AS 'SELECT 1 AS a, 2 AS b LIMIT 0'", ""),
    ],
)
def test_what_is_refused(table: Table, definition: str, reason: str) -> None:
    table.connection.execute("SET check_function_bodies = off")
    table.connection.execute(f"CREATE FUNCTION app.f() {definition}".encode())
    table.policies(["USING (app.f() IS NOT NULL)"])
    decision = table.decide(SUBJECTS[0])
    assert decision.denied is not None and not table.shown(decision)
    assert re.search(reason, str(decision.unsupported[0])), decision.unsupported


def test_a_recursion_is_refused_and_ends(table: Table) -> None:
    table.connection.execute("SET check_function_bodies = off")
    create(table, "app.f", "SELECT app.g()", "uuid", "string")
    create(table, "app.g", "SELECT app.f()", "uuid", "string")
    create(
        table, "app.wide", " || ".join(f"{'SELECT ' if n == 0 else ''}app.deep1()" for n in range(4)), "text", "string"
    )
    for depth in range(1, 12):
        calls = " || ".join([f"app.deep{depth + 1}()"] * 4) if depth < 11 else "'x'::text"
        create(table, f"app.deep{depth}", f"SELECT {calls}", "text", "string")
    for call in ("app.f()", "app.g()"):
        table.policies([f"USING (owner = {call})"])
        decision = table.decide(SUBJECTS[0])
        assert "calls itself or is nested too deep" in str(decision.denied) and not table.shown(decision)
    table.policies(["USING (name = app.wide())"])
    assert not table.shown(table.decide(SUBJECTS[0]))


def test_rights_of_functions_within_functions(table: Table) -> None:
    create(table, "app.inner_one", "SELECT auth.uid()", "uuid", "string")
    create(table, "app.f", "SELECT app.inner_one()", "uuid", "string")
    table.policies(["USING (owner = app.f())"])
    subject = SUBJECTS[0]
    assert table.shown(table.decide(subject)) == table.selected(subject) == [1, 4]
    for right in ("EXECUTE ON FUNCTION app.f()", "EXECUTE ON FUNCTION app.inner_one()", "USAGE ON SCHEMA app"):
        table.connection.execute(f"REVOKE {right} FROM PUBLIC")
        decision = table.decide(subject)
        assert table.selected(subject) == "42501" and not table.shown(decision), right
        assert "has no EXECUTE right on" in str(decision.denied)
        table.connection.execute(f"GRANT {right} TO PUBLIC")
        assert table.shown(table.decide(subject)) == table.selected(subject) == [1, 4]


def test_a_shadow_of_a_name_is_not_decided(table: Table) -> None:
    """Not even the bodies that Supabase ships: a session whose search_path begins elsewhere means another function."""
    table.policies(["USING (owner = auth.uid())"])
    assert table.shown(table.decide(SUBJECTS[0])) == [1, 4]
    table.connection.execute(
        "CREATE FUNCTION public.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'mine'$$"
    )
    decision = table.decide(SUBJECTS[0])
    assert "depends on search_path" in str(decision.denied) and not table.shown(decision)


def test_subscribers_by_a_function_of_the_users_own(kind: str, database: str, db: psycopg.Connection) -> None:
    db.execute(
        "CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO PUBLIC; ALTER TABLE wells REPLICA IDENTITY FULL;"
        "CREATE FUNCTION app.project() RETURNS uuid LANGUAGE sql STABLE AS $$"
        " SELECT coalesce(nullif(current_setting('app.project', true), ''), auth.jwt() ->> 'project_id')::uuid $$;"
        "ALTER TABLE wells ENABLE ROW LEVEL SECURITY; GRANT SELECT ON wells TO authenticated;"
        "CREATE POLICY own ON wells FOR SELECT TO authenticated USING (project_id = (SELECT app.project()))"
    )
    seen: dict[str, list[Any]] = {"one": [], "two": [], "wrong": []}
    with Running(kind, database, lambda running: None) as running:
        running.subscribe("wells", seen["one"].append, subject=Subject("authenticated", {"project_id": ONE}))
        running.subscribe("wells", seen["two"].append, subject=Subject("authenticated", settings={"app.project": TWO}))
        wrong = running.subscribe("wells", seen["wrong"].append, subject=Subject("authenticated", {"project_id": "x"}))
        assert "cannot be evaluated for this subject" in (wrong.denied or "")
        db.execute(f"INSERT INTO wells VALUES (1, 'a', '{ONE}'), (2, 'b', '{TWO}')")
        running.caught_up(db)
        assert [[event.key for event in events] for events in seen.values()] == [[1], [2], []]
        db.execute("CREATE OR REPLACE FUNCTION app.project() RETURNS uuid LANGUAGE sql AS $$ SELECT NULL::uuid $$")
        one = running.consumer.subscriptions[0]
        assert isinstance(one, cdc.Subscription)

        def shows_nothing() -> bool:
            db.execute(f"INSERT INTO wells VALUES ((SELECT max(id) + 1 FROM wells), 'a', '{ONE}')")
            before = len(seen["one"])
            running.caught_up(db)
            return len(seen["one"]) == before

        until(shows_nothing)
        db.execute("CREATE OR REPLACE FUNCTION app.project() RETURNS uuid LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        until(lambda: one.denied is not None)
        assert "written in plpgsql" in (one.denied or "")

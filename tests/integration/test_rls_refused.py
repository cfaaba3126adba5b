"""Policies that cannot be decided: refused by the construct's name, and safe all the same."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from cdc.rls import Subject
from tests.rls_table import CLAIMS, ONE, Table, secured_table

REFUSED = [
    ("EXISTS (SELECT FROM w v WHERE v.id = w.id)", "sub-query"),
    ("owner IN (SELECT owner FROM w)", "sub-query"),
    ("owner = (SELECT auth.uid() WHERE true)", "sub-query"),
    ("owner = (SELECT auth.uid() LIMIT 1)", "sub-query"),
    ("owner = (SELECT DISTINCT auth.uid())", "sub-query"),
    ("owner = (SELECT auth.uid() UNION SELECT auth.uid())", "sub-query"),
    ("owner = (WITH a AS (SELECT auth.uid() AS u) SELECT u FROM a)", "sub-query"),
    ("owner = (VALUES (auth.uid()))", "sub-query"),
    ("id = (SELECT w.id)", "an expression of the column id"),
    ("id = (SELECT count(*))", "sub-query"),
    ("soft = 'a'", "nondeterministic collation"),
    ("soft IN ('a', 'b')", "nondeterministic collation"),
    ("soft IS DISTINCT FROM 'a'", "nondeterministic collation"),
    ("num::money = 1::money", "money"),
    ("CASE WHEN ok THEN is_member(owner) END", "function public.is_member(uuid)"),
    ("coalesce(ok, EXISTS (SELECT))", "sub-query"),
    ("NOT EXISTS (SELECT FROM w v WHERE v.id <> w.id)", "sub-query"),
    ("id = ANY (ARRAY(SELECT 1))", "sub-query"),
    ("owner = ANY (SELECT auth.uid())", "sub-query"),
    ("ROW(id, sm) < ROW(1, 5)", "comparison of rows"),
    ("name = current_catalog::text", "current_user, current_date or the like"),
    ("name = current_schema::text", "current_user, current_date or the like"),
    ("random() > 2", "function pg_catalog.random()"),
    ("pg_has_role(current_user, 'postgres', 'member')", "function pg_catalog.pg_has_role(name, name, text)"),
    ("is_member(owner)", "function public.is_member(uuid)"),
    ("owner = impostor.slow()", "function impostor.slow() (written in plpgsql)"),
    ("owner = impostor.given('x')", "function impostor.given(text)"),
    ("dom = (auth.jwt() ->> 'five')::pos", "domain pos"),
    ("w IS NOT NULL", "IS NOT NULL"),
    ("ctid = '(0,1)'", "system column"),
    ("tableoid = 5", "system column"),
    ("twice = 2", "column twice is not in the publication"),
    ("name = current_setting('server_version')", "current_setting('server_version')"),
    ("name = current_setting(tag, true)", "current_setting of a name that is not a constant"),
    ("id OPERATOR(impostor.=) 1::bigint", "operator impostor.="),
]

IMPOSTORS = f"""
CREATE SCHEMA impostor;
CREATE FUNCTION is_member(uuid) RETURNS bool LANGUAGE sql STABLE AS 'SELECT true';
CREATE FUNCTION impostor.uid() RETURNS uuid LANGUAGE sql STABLE AS $$SELECT '{ONE}'::uuid$$;
CREATE FUNCTION impostor.powerful() RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER AS
    $$SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid$$;
CREATE FUNCTION impostor.configured() RETURNS uuid LANGUAGE sql STABLE SET search_path = '' AS
    $$SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid$$;
CREATE FUNCTION impostor.slow() RETURNS uuid LANGUAGE plpgsql STABLE AS
    $$BEGIN RETURN nullif(current_setting('request.jwt.claim.sub', true), '')::uuid; END$$;
CREATE FUNCTION impostor.later() RETURNS uuid LANGUAGE sql STABLE
    RETURN nullif(current_setting('request.jwt.claim.sub', true), '')::uuid;
CREATE FUNCTION impostor.given(text) RETURNS uuid LANGUAGE sql STABLE AS
    $$SELECT nullif(current_setting('request.jwt.claim.sub', true), '')::uuid$$;
CREATE FUNCTION impostor.uids() RETURNS uuid[] LANGUAGE sql STABLE AS 'SELECT ARRAY[auth.uid()]';
CREATE FUNCTION impostor.equal(int, bigint) RETURNS bool LANGUAGE sql STABLE AS 'SELECT true';
CREATE OPERATOR impostor.= (FUNCTION = impostor.equal, LEFTARG = int, RIGHTARG = bigint);
"""


@pytest.fixture
def table(database: str) -> Iterator[Table]:
    with secured_table(database) as made:
        yield made


def test_what_is_not_supported_is_refused_by_name(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO authenticated")
    table.connection.execute(IMPOSTORS)
    subject = Subject("authenticated", CLAIMS, {"app.tenant": "alpha"})
    for expression, construct in REFUSED:
        table.policies([f"USING ({expression})"])
        decision = table.decide(subject)
        assert [found.policy for found in decision.unsupported] == ["p0"], expression
        assert construct in decision.unsupported[0].construct, f"{expression}: {decision.unsupported[0]}"
        assert decision.denied and table.shown(decision) == []


def test_what_is_not_supported_is_safe(table: Table) -> None:
    table.connection.execute("GRANT SELECT ON w TO authenticated")
    subject = Subject("authenticated", CLAIMS)
    table.policies(["USING (random() > 2 OR id <> 1)", "USING (owner = auth.uid())"])
    permissive = table.decide(subject)
    assert permissive.denied is None and len(permissive.unsupported) == 1
    assert table.shown(permissive) == [1, 4]
    table.policies(["AS RESTRICTIVE USING (random() > 2 OR id <> 1)", "USING (owner = auth.uid())"])
    restrictive = table.decide(subject)
    assert restrictive.denied == 'restrictive policy "p0": function pg_catalog.random() is not supported'
    assert len(restrictive.unsupported) == 1 and table.shown(restrictive) == []
    table.policies(["TO anon USING (id <> 1)", "USING (owner = auth.uid())"])
    assert not table.decide(subject).unsupported


IMPOSTOR_BODIES = [
    "SELECT auth.uid() -- select",
    "select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid union select null",
    "select nullif(current_setting('request.jwt.claim.SUB', true), '')::uuid",
    "select nullif(current_setting('request.jwt.claim.sub', false), '')::uuid",
    "select nullif(public.current_setting('request.jwt.claim.sub', true), '')::uuid",
    "select null::uuid",
    "select owner from public.w limit 1",
]


def test_a_replaced_auth_uid_is_refused_or_means_what_it_says(table: Table) -> None:
    """A name proves nothing: whatever `auth.uid()` is, it is refused, or gives what it gives in PostgreSQL."""
    table.connection.execute(
        "GRANT SELECT ON w TO authenticated;"
        "CREATE FUNCTION public.current_setting(text, bool) RETURNS text LANGUAGE sql AS 'SELECT $1'"
    )
    table.policies(["USING (owner = auth.uid())"])
    subject = Subject("authenticated", CLAIMS)
    refused = 0
    for body in IMPOSTOR_BODIES:
        before = table.rights("authenticated")
        try:
            table.connection.execute(f"CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql AS $f${body}$f$")
        except psycopg.Error:
            continue
        assert table.rights("authenticated") != before
        decision, truth = table.decide(subject), table.selected(subject)
        refused += bool(decision.unsupported)
        assert table.shown(decision) in ([], truth), body
        assert decision.denied or table.shown(decision) == truth, body
    assert refused > 2
